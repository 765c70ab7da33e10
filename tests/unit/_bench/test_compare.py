# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two benchmarks beside each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.compare import Difference, compare_results
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from unit._bench.recorded import BASE, QCOW2, SATA, WORKLOADS, results

BEFORE = results({BASE: 1, QCOW2: 0.8})


def test_an_upgrade() -> None:
    after = results({BASE: 1.1, QCOW2: 0.8, SATA: 0.5}, seed=2, name="after")
    after = replace(after, environment=replace(after.environment, qemu="10.2.0", load=0.7))
    found = compare_results(BEFORE, after)
    words = {(change.before, change.workload.id): change.verdict.word for change in found.changes}
    assert words == {(BASE, name): "faster" for name in WORKLOADS} | {(QCOW2, name): "equal" for name in WORKLOADS}
    assert found.differences == (Difference("qemu", "10.1.2", "10.2.0"),)
    assert (found.only_before, found.only_after) == ((), (SATA.key,))
    assert found.overall.difference == pytest.approx(0.05, abs=0.02)


def test_the_same_twice_is_equal() -> None:
    found = compare_results(BEFORE, BEFORE)
    assert {change.verdict.word for change in found.changes} == {"equal"}
    assert found.differences == ()


def test_two_storages_of_one_benchmark() -> None:
    both = results({BASE: 1, QCOW2: 0.8, BASE.at("slow"): 0.3, QCOW2.at("slow"): 0.3})
    found = compare_results(both, both, {"fast": "slow"})
    assert {(change.before, change.after) for change in found.changes} == {
        (BASE, BASE.at("slow")),
        (QCOW2, QCOW2.at("slow")),
    }
    assert {change.verdict.word for change in found.changes} == {"slower"}
    assert found.differences == (Difference("fast: options", "path /mnt/fast", "path /mnt/slow"),)


def test_places_that_there_are_not() -> None:
    with pytest.raises(ParseError, match="places: 'slow' was not measured in 2026-01-05-fast; there are fast"):
        compare_results(BEFORE, BEFORE, {"fast": "slow"})
    with pytest.raises(ParseError, match="places: 'tank' was not measured in 2026-01-05-fast; there are fast"):
        compare_results(BEFORE, BEFORE, {"tank": "fast"})


def test_nothing_in_common() -> None:
    other = results({BASE.at("tank"): 1}, name="other")
    with pytest.raises(ParseError, match="2026-01-05-fast and other have nothing in common: .* places: {old: new}"):
        compare_results(BEFORE, other)
    with pytest.raises(ParseError, match="nothing in common"):
        compare_results(BEFORE, results({BASE: 1}, workloads=["boot"], name="other"))
