# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document of a benchmark: kept and read again as it was, and refused if it is anything else."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.matrix import LeftOut
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import Durability, Results, load
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from unit._bench.recorded import BASE, QCOW2, results

FOUND = results({BASE: 1.0, QCOW2: 0.9}, rounds=3)
WHOLE = replace(
    FOUND,
    runs=(*FOUND.runs, replace(FOUND.runs[0], measured=None, error="the guest did not start")),
    durability=(Durability(BASE.key, "qemu", 100, 0, "QEMU was killed."),),
    left_out=(LeftOut("rounds 4 to 5", "No time."),),
    notes=("A note.",),
)


def document() -> dict[str, Any]:
    return copy.deepcopy(json.loads(json.dumps(WHOLE.as_json())))


def test_what_is_kept_is_read_again() -> None:
    assert load(document()) == WHOLE
    assert list(document())[:3] == ["version", "id", "started"]


def test_what_has_a_default_may_be_missing() -> None:
    data = document()
    for name in ("durability", "left_out", "notes"):
        del data[name]
    del data["environment"]["places"], data["runs"][0]["error"]
    assert load(data) == replace(
        WHOLE, durability=(), left_out=(), notes=(), environment=replace(WHOLE.environment, places=())
    )


@pytest.mark.parametrize("data", [None, [], "text", {}, {"version": 2}, {"version": "1"}])
def test_another_document(data: object) -> None:
    with pytest.raises(ParseError, match="old.json: this is no result of a benchmark that can be read: version is"):
        load(data, "old.json")


def test_all_that_is_wrong_is_said_with_its_place() -> None:
    data = document()
    del data["method"]["rounds"]
    data["environment"]["load"] = "high"
    data["environment"]["colour"] = "red"
    data["runs"][1]["measured"]["seconds"] = None
    data["runs"][2]["trial"] = True
    data["combinations"][1]["cache"] = 7
    data["workloads"] = "commit-4k"
    with pytest.raises(ParseError) as raised:
        load(data, "a.json")
    lines = str(raised.value).splitlines()
    assert lines[0].startswith("a.json: results.environment.colour is not known; there are node, accelerator, pve")
    assert sorted(lines[1:]) == [
        "a.json: results.combinations[1]: cache of a combination: missing or not of its kind",
        "a.json: results.environment.load is not a number",
        "a.json: results.method.rounds is missing",
        "a.json: results.runs[1].measured.seconds is not a number",
        "a.json: results.runs[2].trial is not a whole number",
        "a.json: results.workloads is not a list",
    ]


def test_loose_ends() -> None:
    data = document()
    data["runs"][0]["combination"] = "slow/raw/ide/none/native"
    data["runs"][1]["workload"] = "boot"
    data["runs"][2]["side"] = "C"
    data["runs"][3]["error"] = "both"
    data["workloads"].append("swim")
    data["durability"][0]["lost"] = 101
    with pytest.raises(ParseError) as raised:
        load(data)
    assert [line.partition(":")[2].strip() for line in str(raised.value).splitlines()] == [
        "workloads: there is no workload 'swim'; there are randread-4k-q1, randread-4k-q32, randwrite-4k-q1,"
        " randwrite-4k-q32, seqread-1m, seqwrite-1m, mixed-8k, commit-4k, boot",
        "runs[0].combination: 'slow/raw/ide/none/native' is not among the combinations",
        "runs[1].workload: 'boot' is not among the workloads",
        "runs[2].side: 'C' is neither A nor B nor empty",
        "runs[3]: it has either measured or error",
        "durability[0]: crash is one of qemu, host, and no more is lost than acknowledged",
    ]


def test_combination_by_key() -> None:
    assert isinstance(WHOLE, Results) and WHOLE.combination(QCOW2.key) == QCOW2
