# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark of one's own changes: the recommendation is another one, and says by how much and what noise is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.measurements import measurements
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.known import read_known
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rule import Rule, row_problem
from unit._bench.recorded import BASE, QCOW2, THREADS, VIRTIO, WRITEBACK, results
from unit._policy.asking import ask
from unit._policy.auditing import audit, guest

DATABASE = {"os_family": "linux", "type": "dir", "workload": "database"}


def measured(speeds: dict[Any, float], spread: float = 0.01) -> dict[str, Any]:
    return measurements(results(speeds, spread))["fast"]


def test_a_database_gets_raw_unless_qcow2_was_measured_to_cost_nothing() -> None:
    """The sentence about ten per cent is of 2013; what was measured here goes before it."""
    before = ask("current", **DATABASE).choices["format"]
    assert (before.value, before.rule) == ("raw", "database-raw")
    facts = measured({BASE: 1, QCOW2: 0.995})
    after = ask("current", **DATABASE, **facts).choices["format"]
    assert (after.value, after.rule) == ("qcow2", "measured-equal")
    assert after.reason == (
        "Your benchmark can't tell qcow2 from raw, so its features cost nothing. In 2026-01-05-fast the"
        f" two differ by {facts['format_difference']:g} % here, and up to {facts['format_noise']:g} % is noise."
    )
    assert after.source == "your own benchmark"
    assert {(item.value, item.wanted_by) for item in after.rejected} >= {("raw", "database-raw")}


def test_raw_where_it_was_measured_to_be_faster() -> None:
    known = {"os_family": "linux", "type": "dir"}
    assert ask("current", **known).choices["format"].value == "qcow2"
    choice = ask("current", **known, **measured({BASE: 1, QCOW2: 0.7})).choices["format"]
    assert (choice.value, choice.rule) == ("raw", "measured-raw")
    assert "it was ahead of the next by 4" in choice.reason and "% is noise there." in choice.reason


def test_what_is_needed_goes_before_what_is_fast() -> None:
    facts = {**DATABASE, "snapshots": True, **measured({BASE: 1, QCOW2: 0.7})}
    assert ask("current", **facts).choices["format"].rule == "snapshots-qcow2"


@pytest.mark.parametrize(
    ("other", "choice", "value"),
    [(VIRTIO, "bus", "virtio"), (WRITEBACK, "cache", "writeback"), (THREADS, "aio", "threads")],
)
def test_each_choice_follows_what_was_measured(other: Any, choice: str, value: str) -> None:
    known = {"os_family": "linux", "type": "dir", "durability": "normal"}
    assert ask("current", **known).choices[choice].value != value
    found = ask("current", **known, **measured({BASE: 1, other: 1.2})).choices[choice]
    assert (found.value, found.rule) == (value, f"measured-{'virtio-block' if choice == 'bus' else value}")
    assert "In 2026-01-05-fast it was ahead of the next by " in found.reason
    within = ask("current", **known, **measured({BASE: 1, other: 1.05}, spread=0.1)).choices[choice]
    assert within.value != value


def test_what_somebody_says_without_numbers_is_believed_and_not_decorated() -> None:
    choice = ask("current", **DATABASE, fastest_format="qcow2").choices["format"]
    assert choice.reason == "qcow2 was no slower than raw in your benchmark, so its features cost nothing."


def test_each_storage_has_its_own_measurements() -> None:
    disks = {
        "ostype": "l26",
        "scsihw": "virtio-scsi-single",
        "scsi0": "local:100/vm-100-disk-0.raw,discard=on,iothread=1",
        "scsi1": "nas:100/vm-100-disk-1.raw,discard=on,iothread=1",
    }
    facts = {"storages": {"nas": {"measurements": measured({BASE: 1, QCOW2: 0.7}), "medium": "hdd"}}}
    found = audit(guest(disks), facts=facts)
    assert [place for place in found if place[1] == "format"] == [("scsi0", "format")]
    facts = {"storages": {"nas": {"measurements": measured({BASE: 1, QCOW2: 1})}}, "need": {"workload": "database"}}
    finding = audit(guest(disks), facts=facts)["scsi1", "format"]
    assert finding.rule == "measured-equal" and "% is noise." in finding.reason


def test_measurements_of_a_storage_are_checked() -> None:
    with pytest.raises(ParseError, match=r"storages: nas: there is no fact 'measurements.fastest_disk'"):
        read_known({"storages": {"nas": {"measurements": {"fastest_disk": "raw"}}}})
    with pytest.raises(ParseError, match="storages: nas: measurements: 'fast' is no dictionary"):
        read_known({"storages": {"nas": {"measurements": "fast"}}})


def test_details_tell_facts_that_there_are() -> None:
    sets, details = {"cache": "none"}, "It is {storage.formats} {need.speed}."
    rule = Rule("a", 1, "`true`", "Why.", "test", sets=sets, details=details)
    assert row_problem(rule) == "details: there is no fact 'need.speed'"
    told = replace(rule, details="It holds {storage.formats}.")
    assert told.reason({"storage.formats": ("raw", "qcow2")}) == "Why. It holds raw and qcow2."
    assert told.reason({}) == "Why."
