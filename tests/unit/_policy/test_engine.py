# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine: what is fixed, what overrides what, and how much is looked at for many disks alike."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy import engine
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.choices import CHOICES, read_fixed
from unit._policy.asking import ask, facts, policy


def test_a_choice_names_rule_reason_source_and_version() -> None:
    choice = ask("current", os_family="linux").choices["scsihw"]
    assert (choice.value, choice.rule, choice.since, choice.severity) == (
        "virtio-scsi-single",
        "virtio-scsi-single",
        "7.3",
        "warning",
    )
    assert choice.reason.startswith("Each disk gets a controller of its own")
    assert choice.source.startswith("pve-docs 9.1.3, qm.adoc, Bus/Controller")


def test_what_was_overridden_is_named_with_the_rule_that_wanted_it() -> None:
    choice = ask("current", type="dir", workload="database", snapshots=True).choices["format"]
    assert (choice.value, choice.rule) == ("qcow2", "snapshots-qcow2")
    overridden = {item.value: (item.rule, item.wanted_by) for item in choice.rejected}
    assert overridden == {"raw": ("snapshots-qcow2", "database-raw"), "vmdk": ("no-vmdk", "")}


def test_fixed_values_stay_and_later_choices_see_them() -> None:
    answer = ask("current", {"bus": "virtio"}, os_family="linux", medium="ssd")
    assert answer.choices["bus"].rule == engine.DECIDED
    assert answer.choices["scsihw"].value is None
    assert answer.choices["iothread"].value == "1"
    assert answer.choices["ssd"].value is None


def test_pves_default_can_be_fixed() -> None:
    answer = ask("current", {"cache": None, "discard": None}, type="lvmthin", workload="database")
    assert answer.choices["cache"].rule == answer.choices["discard"].rule == engine.DECIDED


def test_conflicts_are_pves_and_objections_are_ours() -> None:
    fixed = {"bus": "virtio", "ssd": "1", "cache": "unsafe"}
    answer = ask("current", fixed)
    assert [(item.name, item.value, item.rule) for item in answer.conflicts] == [("ssd", "1", "bus-has-ssd")]
    assert [(item.name, item.value, item.rule) for item in answer.objections] == [("cache", "unsafe", "keep-flushes")]


def test_disks_alike_are_looked_at_once() -> None:
    engine._recommend.cache_clear()
    first = [ask("current", {"bus": "scsi"}, os_family="linux", type="lvmthin") for _disk in range(1000)]
    assert len({id(answer) for answer in first}) == 1
    assert engine._recommend.cache_info().misses == 1


def test_facts_that_no_rule_looks_at_make_no_difference() -> None:
    engine._recommend.cache_clear()
    for number in range(500):
        known = facts(name=f"storage{number}", type="lvmthin", running=bool(number % 2))
        engine.recommend({}, known, policy("current"))
    assert engine._recommend.cache_info().misses == 1


@pytest.mark.parametrize(
    ("disk", "fixed"),
    [
        ({}, {}),
        ({"slot": "scsi3"}, {"bus": "scsi"}),
        ({"slot": "virtio"}, {"bus": "virtio"}),
        ({"slot": "sata0", "cache": "none", "discard": True, "iothread": False, "size": "32G"}, {"bus": "sata"}),
        ({"format": "qcow2", "storage": "tank", "unset": ["cache", "serial"]}, {"format": "qcow2", "cache": None}),
        ({"unset": "aio"}, {"aio": None}),
        ({"volume": "a:vm-1-disk-0", "format": "raw", "options": {"ssd": True}}, {"format": "raw", "ssd": "1"}),
        ({"scsihw": "lsi", "cache": None}, {"scsihw": "lsi"}),
    ],
)
def test_what_a_disk_fixes(disk: dict[str, Any], fixed: dict[str, str | None]) -> None:
    more = {"cache": "none", "discard": "on", "iothread": "0"} if "size" in disk else {}
    assert read_fixed(disk) == {**fixed, **more}


def test_the_guests_controller_is_fixed_beside_the_disk() -> None:
    assert read_fixed({"slot": "scsi0"}, "lsi") == {"bus": "scsi", "scsihw": "lsi"}


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        ({"slot": "scsi99"}, "slot 'scsi99' does not exist; scsi has scsi0 to scsi30"),
        ({"slot": "nvme0"}, "slot 'nvme0' does not exist"),
        ({"slot": "efidisk0"}, "bus: 'efidisk' is not allowed"),
        ({"format": "vhd"}, "format: 'vhd' is not allowed; format takes one of raw, qcow2, vmdk"),
        ({"cache": "write"}, "cache: 'write' is not allowed"),
        ({"options": ["cache=none"]}, "is no dictionary; write name: value"),
    ],
)
def test_what_is_wrong_with_a_disk_is_said(disk: dict[str, Any], said: str) -> None:
    with pytest.raises(ParseError) as caught:
        read_fixed(disk)
    assert said in str(caught.value)


def test_values_for_yaml_and_for_sentences() -> None:
    assert CHOICES["iothread"].native("1") is True
    assert CHOICES["backup"].words("0") == "false"
    assert CHOICES["discard"].native("on") == "on"
    assert CHOICES["cache"].words(None) == "PVE's default"
