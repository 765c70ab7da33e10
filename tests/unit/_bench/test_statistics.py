# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is called a difference, and what noise: judged by numbers of which the truth is known."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from dataclasses import replace

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import Results
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.statistics import (
    EQUAL,
    FASTER,
    SLOWER,
    UNCLEAR,
    Analysis,
    Series,
    Verdict,
    analyse,
    compare,
    mean,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import TABLE, Workload
from hypothesis import given
from hypothesis import strategies as st
from unit._bench.recorded import BASE, QCOW2, SATA, UNSAFE, VIRTIO, WRITEBACK, results

LATENCY, RATE, COMMIT = TABLE["randread-4k-q1"], TABLE["randwrite-4k-q32"], TABLE["commit-4k"]
values = st.lists(st.floats(1, 1e9), min_size=1, max_size=12).map(tuple)


def verdict(analysis: Analysis, one: Combination, other: Combination, workload: Workload) -> Verdict:
    return compare((analysis, analysis.cell(one, workload)), (analysis, analysis.cell(other, workload)))


@given(values)
def test_series(numbers: tuple[float, ...]) -> None:
    series = Series(numbers)
    low, high = series.quartiles
    assert min(numbers) <= low <= series.median <= high <= max(numbers)
    assert series.deviation >= 0
    assert (series.deviation == 0) or len(numbers) > 1


def test_deviation_is_that_of_normal_values_and_leaves_outliers_alone() -> None:
    dice = random.Random(1)
    for count in (3, 5, 9, 20):
        found = [Series(tuple(dice.gauss(1000, 50) for _number in range(count))).deviation for _try in range(4000)]
        assert statistics.fmean(found) == pytest.approx(0.05, rel=0.07)
    assert Series((100, 101, 99, 100, 100000)).deviation < 0.02


def test_combinations_that_are_the_same_are_called_so() -> None:
    """With five rounds, fewer than one in fifty is called a difference where there is none."""
    words, nulls = Counter[str](), Counter[bool]()
    for seed in range(60):
        analysis = analyse(results({BASE: 1, QCOW2: 1, VIRTIO: 1, SATA: 1}, spread=0.05, seed=seed))
        nulls.update(null.holds for null in analysis.nulls.values())
        words.update(
            verdict(analysis, BASE, other, workload).word
            for other in (QCOW2, VIRTIO, SATA)
            for workload in analysis.results.rows
        )
    assert words[EQUAL] > 0.98 * words.total()
    assert nulls[True] > 0.98 * nulls.total()


@pytest.mark.parametrize("workload", [LATENCY, RATE, COMMIT], ids=lambda row: row.id)
def test_a_difference_beyond_the_noise(workload: Workload) -> None:
    """Of latencies, too, more speed is better."""
    analysis = analyse(results({BASE: 1, QCOW2: 0.8, VIRTIO: 1.25}))
    slower, faster = verdict(analysis, BASE, QCOW2, workload), verdict(analysis, BASE, VIRTIO, workload)
    assert (slower.word, faster.word) == (SLOWER, FASTER)
    assert slower.difference == pytest.approx(-0.2, abs=0.02)
    assert faster.difference == pytest.approx(0.25, abs=0.03)
    assert 0 < slower.noise < 0.05


def shifted(found: Results, factor: float) -> Results:
    """The same, in which B of the null comparison is by a factor as fast as A."""

    def run(one):
        flow = one.measured.write
        if one.side != "B" or flow is None:
            return one
        return replace(one, measured=replace(one.measured, write=replace(flow, iops=flow.iops * factor)))

    return replace(found, runs=tuple(map(run, found.runs)))


def test_a_null_comparison_that_does_not_hold_widens_the_noise() -> None:
    found = results({BASE: 1, QCOW2: 0.9})
    assert verdict(analyse(found), BASE, QCOW2, RATE).word == SLOWER
    analysis = analyse(shifted(found, 1.3))
    null = analysis.nulls["fast", RATE.id]
    assert not null.holds and null.difference == pytest.approx(0.3, abs=0.03)
    assert analysis.nulls["fast", LATENCY.id].holds
    judged = verdict(analysis, BASE, QCOW2, RATE)
    assert judged.word == EQUAL and judged.noise > 0.27
    assert (analysis.noise("fast", RATE) or 0) > 0.25 > (analysis.noise("fast", LATENCY) or 1)


def test_best_keeps_data() -> None:
    analysis = analyse(results({BASE: 1, UNSAFE: 3, WRITEBACK: 1.2}))
    best = analysis.best(COMMIT)
    assert best is not None and best.combination == WRITEBACK
    alone = analyse(results({UNSAFE: 1})).best(COMMIT)
    assert alone is not None and alone.combination == UNSAFE


def test_both_sides_of_the_null_comparison_count_for_their_combination() -> None:
    analysis = analyse(results({BASE: 1, QCOW2: 1}, rounds=4))
    cells = [analysis.cell(one, RATE) for one in (BASE, QCOW2)]
    assert [len(cell.series.values) for cell in cells if cell] == [8, 4]


def test_what_was_cut_short_is_unclear_and_not_guessed() -> None:
    found = results({BASE: 1, QCOW2: 0.5}, rounds=3)
    first = replace(found, runs=tuple(run for run in found.runs if run.round == 1))
    analysis = analyse(first)
    assert verdict(analysis, BASE, QCOW2, RATE).word == UNCLEAR
    assert analysis.noise("fast", RATE) is None
    assert analysis.nulls == {}
    empty = analyse(replace(found, runs=()))
    assert verdict(empty, BASE, QCOW2, RATE) == Verdict(UNCLEAR, 0.0, 0.0)
    assert empty.best(RATE) is None


def test_runs_that_failed_are_kept_apart() -> None:
    found = results({BASE: 1, QCOW2: 1}, rounds=3)
    broken = replace(found.runs[0], measured=None, error="no answer")
    analysis = analyse(replace(found, runs=(broken, *found.runs[1:])))
    assert analysis.failed == (broken,)


def test_mean_of_verdicts() -> None:
    both = mean([Verdict(FASTER, 1.0, 0.1), Verdict(SLOWER, -0.5, 0.1), Verdict(UNCLEAR, 9.0, 0.0)])
    assert (both.word, both.noise) == (EQUAL, pytest.approx(0.1))
    assert both.difference == pytest.approx(0)
    assert mean([]).word == UNCLEAR
    assert math.isclose(mean([Verdict(FASTER, 0.21, 0.05)] * 3).difference, 0.21)
