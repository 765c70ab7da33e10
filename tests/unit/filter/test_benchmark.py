# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of a benchmark: what comes from a file, and what is said when it is another one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.diskwright.proxmox.plugins.filter.benchmark import FilterModule
from unit._bench.recorded import BASE, QCOW2, results

FILTERS = FilterModule().filters()


def document(**words: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(results({BASE: 1, QCOW2: 1}, rounds=4, **words).as_json()))
    return found


def test_report() -> None:
    report = FILTERS["benchmark_report"](document(), charts=False)
    assert report["charts"] == {} and report["headlines"][0]["best"] in ("raw", "qcow2")
    assert set(FILTERS["benchmark_report"](document(workloads=["boot"]))["charts"]) == {"boot"}


def test_escaped() -> None:
    data = document()
    data["notes"] = ["<b>&"]
    report = FILTERS["benchmark_report"](data, charts=False)
    assert (report["notes"], report["escaped"]["notes"]) == (["<b>&"], ["&lt;b&gt;&amp;"])


def test_measurements_of_several_runs() -> None:
    slow = results({BASE.at("slow"): 1, QCOW2.at("slow"): 0.5}).as_json()
    folder = results({BASE.at("/srv"): 1, QCOW2.at("/srv"): 1}).as_json()
    later = {**results({BASE: 1, QCOW2: 0.5}, name="later").as_json(), "started": "2026-02-01T00:00:00Z"}
    storages = FILTERS["benchmark_measurements"]([later, slow, folder, document()])["storages"]
    assert set(storages) == {"fast", "slow"}
    assert storages["fast"]["measurements"]["run"] == "later of 2026-02-01"
    assert storages["slow"]["measurements"]["fastest_format"] == "raw"
    assert FILTERS["benchmark_measurements"](document())["storages"].keys() == {"fast"}


def test_compare() -> None:
    compared = FILTERS["benchmark_compare"](document(seed=2), document())
    assert compared["counts"]["equal"] == len(compared["changes"])
    with pytest.raises(AnsibleFilterError, match="benchmark_compare: places: 'x' was not measured in 2026-01-05-fast"):
        FILTERS["benchmark_compare"](document(), document(), {"x": "fast"})


@pytest.mark.parametrize("name", ["benchmark_report", "benchmark_measurements"])
def test_what_is_no_result(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"{name}: results: this is no result of a benchmark that can be read"):
        FILTERS[name]({"version": 7})


def test_which_of_two_is_wrong() -> None:
    with pytest.raises(AnsibleFilterError, match="benchmark_compare: before: this is no result"):
        FILTERS["benchmark_compare"](document(), {})
