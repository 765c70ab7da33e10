# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a benchmark to facts: who is fastest, who is equal, and when nothing can be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.measurements import measurements
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import Results
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import read_facts
from unit._bench.recorded import BASE, QCOW2, SATA, THREADS, UNSAFE, VIRTIO, WRITEBACK, results


def facts(found: Results) -> dict[str, Any]:
    made = measurements(found)
    for one in made.values():
        read_facts({"measurements": one})  # all of them are facts
    return made["fast"]


def test_equal_within_the_noise() -> None:
    found = facts(results({BASE: 1, QCOW2: 0.99, VIRTIO: 1.0}, spread=0.03))
    assert found["equal_formats"] == ["raw", "qcow2"]
    assert "fastest_format" not in found
    assert found["format_difference"] < found["format_noise"] < 8
    assert found["equal_buses"] == ["scsi", "virtio"]
    assert found["run"] == "2026-01-05-fast"


def test_faster_than_the_noise() -> None:
    found = facts(results({BASE: 1, QCOW2: 0.8, VIRTIO: 1.1, SATA: 0.3, WRITEBACK: 1.3, THREADS: 0.9}))
    fastest = {name: value for name, value in found.items() if name.startswith("fastest")}
    assert fastest == {
        "fastest_format": "raw",
        "fastest_bus": "virtio",
        "fastest_cache": "writeback",
        "fastest_aio": "io_uring",
    }
    assert found["format_difference"] == pytest.approx(25, abs=2)
    assert found["bus_difference"] == pytest.approx(10, abs=2)
    assert not any(name.startswith("equal") for name in found)


def test_what_is_too_noisy_is_not_called_equal() -> None:
    found = facts(results({BASE: 1, QCOW2: 0.9}, spread=0.4))
    assert not {"equal_formats", "fastest_format", "format_noise"} & set(found)


def test_slower_with_one_workload_is_not_equal() -> None:
    """A mean can hide that commits are slow."""
    found = results({BASE: 1, QCOW2: 1})

    def slow_commits(run: Any) -> Any:
        if run.combination != QCOW2.key or run.workload != "commit-4k":
            return run
        flow = run.measured.write
        return replace(run, measured=replace(run.measured, write=replace(flow, iops=flow.iops * 0.95)))

    assert facts(found)["equal_formats"] == ["raw", "qcow2"]
    noisy = facts(replace(found, runs=tuple(map(slow_commits, found.runs))))
    assert "equal_formats" not in noisy and "fastest_format" not in noisy


def test_what_loses_data_is_not_in_the_race() -> None:
    assert "fastest_cache" not in facts(results({BASE: 1, UNSAFE: 5}))
    found = facts(results({BASE: 1, UNSAFE: 5, WRITEBACK: 0.5}))
    assert found["fastest_cache"] == "none"


def test_only_combinations_that_differ_in_nothing_else_are_compared() -> None:
    qcow2_elsewhere = Combination("fast", "qcow2", "virtio", "writeback", "threads", True)
    assert set(facts(results({BASE: 1, qcow2_elsewhere: 2}))) == {"run"}


def test_an_io_thread_is_not_held_for_the_bus() -> None:
    without = Combination("fast", "raw", "virtio", "none", "io_uring")
    assert "fastest_bus" not in facts(results({BASE: 1, without: 0.5}))


def test_format_with_options_is_not_held_for_the_format() -> None:
    large = replace(QCOW2, format_options=(("cluster_size", "2M"),))
    assert set(facts(results({BASE: 1, large: 0.5}))) == {"run"}


def test_nothing_is_said_of_one_round() -> None:
    found = results({BASE: 1, QCOW2: 0.5}, rounds=3)
    assert set(facts(replace(found, runs=tuple(run for run in found.runs if run.round == 1)))) == {"run"}


def test_each_place_has_its_own() -> None:
    both = results({BASE: 1, QCOW2: 0.5, BASE.at("slow"): 0.1, QCOW2.at("slow"): 0.1})
    made = measurements(both)
    assert made["fast"]["fastest_format"] == "raw"
    assert made["slow"]["equal_formats"] == ["raw", "qcow2"]
