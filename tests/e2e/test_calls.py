# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many calls a run makes. That is what makes it fast on a cluster, and, unlike seconds, it can be tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from e2e import kit
from lab import Lab

VMIDS = range(100, 112)
LIST = "GET /cluster/resources"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Twelve guests with four disks each on two nodes."""
    guests = [
        {
            "vmid": vmid,
            "name": f"guest{vmid}",
            "node": f"pve{1 + vmid % 2}",
            "running": vmid % 3 == 0,
            "config": {f"scsi{number}": f"local:{vmid}/vm-{vmid}-disk-{number}.raw,size=1G" for number in range(4)},
        }
        for vmid in VMIDS
    ]
    with kit.started({"nodes": ["pve1", "pve2"], "files": {}, "guests": guests}) as lab:
        yield lab


def declared(**options: Any) -> list[dict[str, Any]]:
    """All four disks of every guest as they are, but for the options."""
    disk = {"storage": "local", "size": "1G", **options}
    return [{"vmid": vmid, "disks": [{"slot": f"scsi{number}", **disk} for number in range(4)]} for vmid in VMIDS]


def calls(lab: Lab) -> Counter[str]:
    """The calls since the last time, by what they were for: the guest and the task are left out."""
    kinds = Counter(f"{one.method} {_kind(one.path)}" for one in lab.requests)
    lab.requests.clear()
    return kinds


def _kind(path: str) -> str:
    parts = path.split("/")
    if "qemu" in parts:
        return "/".join(["", "guest", *parts[5:]])
    return "/task/status" if "tasks" in parts else path


@pytest.mark.parametrize("check", [True, False], ids=["check mode", "real run"])
def test_nothing_to_do_takes_one_list_and_one_call_per_guest(lab: Lab, check: bool) -> None:
    calls(lab)
    result = kit.converge(lab, *declared(), check=check)
    assert (result.changed, result.failure) == (False, None)
    made = calls(lab)
    assert made == {LIST: 1, "GET /guest/pending": len(VMIDS)}
    assert made.total() <= len(VMIDS) + 4


def test_guests_found_by_name_take_no_more(lab: Lab) -> None:
    named = [{"name": f"guest{guest['vmid']}", "disks": guest["disks"]} for guest in declared()]
    calls(lab)
    assert not kit.converge(lab, *named).changed
    assert calls(lab) == {LIST: 1, "GET /guest/pending": len(VMIDS)}


def test_the_plan_of_a_change_takes_three_calls_per_guest(lab: Lab) -> None:
    """The guest is read once more, with its power state: the list may be 10 seconds old."""
    calls(lab)
    assert kit.converge(lab, *declared(backup=False), check=True).changed
    each = len(VMIDS)
    assert calls(lab) == {LIST: 1, "GET /guest/pending": 2 * each, "GET /guest/status/current": each}


def test_an_option_of_four_disks_changes_in_one_write_per_guest(lab: Lab) -> None:
    """Read for all, read before, write, wait, read after: nothing else, and nothing for each disk."""
    calls(lab)
    result = kit.converge(lab, *declared(replicate=False))
    assert result.failure is None
    made = calls(lab)
    each = len(VMIDS)
    waiting = made.pop("GET /task/status")
    assert waiting >= each
    assert made == {
        LIST: 1,
        "GET /guest/pending": 3 * each,
        "GET /guest/status/current": 2 * each,
        "POST /guest/config": each,
    }
    assert not kit.converge(lab, *declared(replicate=False)).changed
    assert calls(lab).total() == each + 1


def test_one_guest_to_change_costs_the_others_nothing(lab: Lab) -> None:
    """Only the guest that has something to do is looked at more closely."""
    guests = declared()
    guests[7]["disks"][2]["ssd"] = True
    calls(lab)
    assert kit.converge(lab, *guests, check=True).changed
    assert calls(lab) == {LIST: 1, "GET /guest/pending": len(VMIDS) + 1, "GET /guest/status/current": 1}
