# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an audit finds: each kind of finding with what would mend it, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import SLOT_COUNT
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.checks import VERDICTS
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rules import POLICIES
from audit.findings import GIVEN, Case, cases
from unit._policy.auditing import audit, guest, rules

CASES = cases(vmid=100)
LINUX = {"ostype": "l26", "scsihw": "virtio-scsi-single"}
CLEAN = {**LINUX, "scsi0": "local-lvm:vm-100-disk-0,discard=on,iothread=1,size=4M"}
#: Rules of which no finding can be the consequence, with the reason.
NEVER_BROKEN = {
    "bus-for-unknown": "a guest of which nothing is known works on the bus that it has",
    "controller-unused": "the controller matters to disks on it only",
    "keep-flushes": "cache-unsafe says the same of every policy",
    "iothread-default": "iothread-needs-single says more",
    "backup-default": "not-in-backup says the same of every policy",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_finding(case: Case) -> None:
    found = guest(
        case.config,
        running=case.seed.get("running", False),
        pending=case.seed.get("pending"),
        has_snapshots="snapshots" in case.seed,
    )
    mine = audit(found, facts=case.facts, sizes={"local-lvm:vm-100-disk-1": 8 * 1024**2})
    finding = mine[case.finding["slot"], case.finding["option"]]
    assert finding.rule == case.rule
    assert {name: getattr(finding, name) for name in GIVEN} == case.finding
    assert finding.reason.endswith(".") and finding.source


def test_every_rule_that_a_disk_can_break_has_a_case() -> None:
    shown = {case.rule for case in CASES}
    policy = {rule.id for rule in POLICIES["current"]}
    assert {*VERDICTS} <= shown
    assert policy - shown == {*NEVER_BROKEN}


def test_a_disk_as_it_should_be() -> None:
    assert audit(guest(CLEAN)) == {}


@pytest.mark.parametrize("cache", ["", ",cache=none"])
@pytest.mark.parametrize("workload", ["general", "database"])
def test_no_cache_mode_and_none_are_the_same(cache: str, workload: str) -> None:
    config = {**LINUX, "scsi0": f"local-lvm:vm-100-disk-0{cache},discard=on,iothread=1"}
    assert audit(guest(config), facts={"need": {"workload": workload}}) == {}


# ---- what the policy wants so is no finding

SUPPRESSED: list[tuple[str, str, dict[str, Any]]] = [
    ("cache", "cache=unsafe", {"need": {"durability": "disposable", "throughput": "high"}}),
    ("backup", "backup=0", {"need": {"workload": "scratch", "durability": "disposable"}}),
]


@pytest.mark.parametrize(("option", "text", "facts"), SUPPRESSED, ids=[row[0] for row in SUPPRESSED])
def test_what_the_policy_recommends_is_no_finding(option: str, text: str, facts: dict[str, Any]) -> None:
    config = {**LINUX, "scsi0": f"local-lvm:vm-100-disk-0,{text},discard=on,iothread=1"}
    assert ("scsi0", option) in audit(guest(config))
    assert ("scsi0", option) not in audit(guest(config), facts=facts)


def test_a_controller_that_the_policy_recommends_is_no_finding() -> None:
    """Of the systems before 2003 that is LSI, whether the configuration names it or not."""
    for controller in ({}, {"scsihw": "lsi"}):
        config = {"ostype": "wxp", "scsi0": "local-lvm:vm-100-disk-0,discard=on", **controller}
        assert audit(guest(config)) == {}


def test_a_site_may_recommend_what_is_warned_of_elsewhere() -> None:
    config = {**CLEAN, "scsi0": "local-lvm:vm-100-disk-0,backup=0,discard=on,iothread=1"}
    site = [{"id": "elsewhere", "when": "storage.name == 'local-lvm'", "sets": {"backup": False}, "because": "x."}]
    assert audit(guest(config), rules=site) == {}


# ---- what waits for a restart


def test_a_danger_is_one_until_the_running_guest_is_rid_of_it() -> None:
    config = {**CLEAN, "ide0": "local-lvm:vm-100-disk-1,cache=unsafe,size=4M"}
    pending = {"ide0": "local-lvm:vm-100-disk-1,cache=none,size=4M"}
    (one,) = [one for one in audit(guest(config, running=True, pending=pending)).values() if one.option == "restart"]
    assert (one.severity, one.actual) == ("danger", "ide0.cache")
    assert "Until then it has ide0 cache unsafe (cache-unsafe). The guest's flushes are thrown away" in one.reason


def test_what_waits_is_no_worse_than_what_the_policy_wants_so() -> None:
    unsafe = CLEAN["scsi0"] + ",cache=unsafe"
    found = guest({**CLEAN, "scsi0": unsafe}, running=True, pending={"scsi0": CLEAN["scsi0"]})
    facts = {"need": {"durability": "disposable", "throughput": "high"}}
    assert audit(found, facts=facts)["restart", "restart"].severity == "info"
    assert audit(found)["restart", "restart"].severity == "danger"


def test_what_a_restart_does_not_mend_stays_a_finding_of_its_own() -> None:
    found = guest(
        {**CLEAN, "scsi0": CLEAN["scsi0"] + ",cache=unsafe"},
        running=True,
        pending={"scsi0": "local-lvm:vm-100-disk-7,cache=unsafe,discard=on,iothread=1,size=4M"},
    )
    mine = audit(found)
    assert mine["scsi0", "cache"].severity == "danger"
    assert mine["restart", "restart"].severity == "info"


def test_how_a_guest_starts_is_nothing_to_one_that_runs() -> None:
    found = guest({**CLEAN, "boot": "order=ide2"}, running=True, pending={"boot": "order=scsi0"})
    assert audit(found)["restart", "restart"].severity == "info"


# ---- drivers that nobody knows of


@pytest.mark.parametrize("slot", ["ide0", "sata0", "scsi0", "virtio0"])
@pytest.mark.parametrize("ostype", ["other", "solaris", "win10", "win11", "w2k3", "l24"])
@pytest.mark.parametrize("stage", [None, "settled"])
def test_without_knowledge_of_drivers_there_is_no_advice_about_the_bus(
    slot: str, ostype: str, stage: str | None
) -> None:
    found = guest({"ostype": ostype, slot: "local-lvm:vm-100-disk-0"})
    for policy in POLICIES:
        assert (slot, "bus") not in audit(found, policy, facts={"guest": {"stage": stage}})


def test_a_site_that_has_a_rule_about_the_bus_knows_better() -> None:
    found = guest({"ostype": "other", "sata0": "local-lvm:vm-100-disk-0,discard=on"})
    site = [{"id": "appliances", "when": "guest.os_family == 'other'", "sets": {"bus": "virtio"}, "because": "x."}]
    assert audit(found, rules=site)["sata0", "bus"].mend == {
        "proxmox_disks": {"virtio0": {"moved_from": "sata0", "iothread": True}}
    }


def test_a_second_disk_on_virtio_scsi_stays_there() -> None:
    """The guest boots from VirtIO Block, so it has that driver; that it has no other one is not known."""
    config = {"ostype": "win10", "scsihw": "virtio-scsi-single", "boot": "order=virtio0"}
    disks = {slot: f"local-lvm:vm-100-disk-{slot},discard=on,iothread=1" for slot in ("virtio0", "scsi1")}
    assert audit(guest({**config, **disks})) == {}


@pytest.mark.parametrize("case", [case for case in CASES if case.finding["mend"] is None], ids=str)
def test_where_a_fact_decides_the_finding_says_which(case: Case) -> None:
    """Exactly where nobody knows of drivers; once that is said, a declaration mends it."""
    running, pending = case.seed.get("running", False), case.seed.get("pending")
    found = guest(case.config, running=running, pending=pending, has_snapshots="snapshots" in case.seed)
    place = case.finding["slot"], case.finding["option"]
    finding = audit(found, facts=case.facts)[place]
    assert (finding.decides is not None) == ("nobody knows" in case.case)
    if finding.decides is not None:
        assert audit(found, facts=finding.decides)[place].mend is not None


def test_a_template_asks_nobody() -> None:
    found = guest({"ostype": "win10", "scsi0": "local-lvm:base-100-disk-0"}, template=True)
    assert [one.decides for one in audit(found).values()] == [None]


# ---- the controller


@pytest.mark.parametrize("ostype", ["win10", "solaris", "other"])
def test_no_io_thread_behind_a_controller_that_stays(ostype: str) -> None:
    """PVE ignores I/O threads without virtio-scsi-single, and nobody knows whether the guest would start with it."""
    found = guest({"ostype": ostype, "scsihw": "lsi", "scsi0": "local-lvm:vm-100-disk-0,discard=on"})
    mine = audit(found)
    assert {place: one.mend for place, one in mine.items()} == {("scsihw", "scsihw"): None}


def test_disks_that_come_need_the_controller_that_is_there() -> None:
    """A disk moves behind a controller only if that is the right one for it."""
    config = {"ostype": "win11", "scsihw": "lsi", "scsi0": "local-lvm:a,discard=on", "sata0": "local-lvm:b,discard=on"}
    mine = audit(guest(config), facts={"guest": {"stage": "installing"}})
    assert mine["scsihw", "scsihw"].mend is None
    assert mine["sata0", "bus"].mend is None


def test_a_linux_from_elsewhere_keeps_the_controller_that_it_starts_from() -> None:
    config = {"ostype": "l26", "scsi0": "local-lvm:vm-100-disk-0,discard=on"}
    assert audit(guest(config), facts={"guest": {"stage": "migrated"}})["scsihw", "scsihw"].mend is None


# ---- several things at once


def test_a_slot_that_shares_its_volume_has_no_other_finding() -> None:
    config = {**CLEAN, "boot": "order=scsi0", "virtio1": "local-lvm:vm-100-disk-0,cache=unsafe,snapshot=1"}
    assert rules(guest(config)) == {("virtio1", "volume"): "volume-in-two-slots"}


def test_what_a_disk_needs_on_another_bus_is_not_asked_of_it_before() -> None:
    """SSD emulation is good for SCSI, and VirtIO Block has none: a disk that is to move there needs none now."""
    facts = {"measurements": {"fastest_bus": "virtio"}, "storage": {"medium": "ssd"}}
    mine = audit(guest({**CLEAN, "boot": "order=scsi0"}), facts=facts)
    assert {place: one.mend for place, one in mine.items()} == {
        ("scsi0", "bus"): {"proxmox_disks": {"virtio0": {"moved_from": "scsi0"}}}
    }


def test_each_disk_gets_a_slot_of_its_own() -> None:
    disks = {f"sata{number}": f"local-lvm:vm-100-disk-{number},discard=on" for number in range(3)}
    config = {**LINUX, "ide1": "local-lvm:x,discard=on", "scsi2": "none,media=cdrom", **disks}
    mine = audit(guest(config))
    moves = {slot: one.mend for (slot, option), one in mine.items() if option == "bus"}
    targets = {slot: next(iter(mend["proxmox_disks"])) for slot, mend in moves.items() if mend}
    assert targets == {"ide1": "scsi1", "sata0": "scsi0", "sata1": "scsi3", "sata2": "scsi4"}


def test_where_no_slot_is_free_a_person_has_to_decide() -> None:
    full = {f"sata{number}": "none,media=cdrom" for number in range(SLOT_COUNT["sata"])}
    config = {"ostype": "win10", "virtio0": "local-lvm:vm-100-disk-0,discard=on", **full}
    assert audit(guest(config), facts={"guest": {"virtio_drivers": "none"}})["virtio0", "bus"].mend is None


def test_a_template_is_looked_at_and_left_alone() -> None:
    """PVE lets nobody change a template's disks, and a policy would only have an opinion about them."""
    mine = audit(guest({"ostype": "l26", "scsi0": "local-lvm:base-100-disk-0,cache=unsafe"}, template=True))
    assert {place: (one.rule, one.mend) for place, one in mine.items()} == {
        ("scsi0", "cache"): ("cache-unsafe", None),
        ("scsihw", "scsihw"): ("lsi-controller", None),
    }


def test_a_storage_that_nobody_sees_decides_nothing_about_formats() -> None:
    found = guest({**LINUX, "scsi0": "elsewhere:100/vm-100-disk-0.qcow2,iothread=1", "scsi1": "/dev/sdb,iothread=1"})
    assert audit(found) == {}


def test_cd_rom_drives_and_firmware_are_none_of_a_policys_business() -> None:
    config = {"ide2": "none,media=cdrom", "scsi1": "local:iso/x.iso,media=cdrom", "efidisk0": "local-lvm:a,size=4M"}
    assert audit(guest({**CLEAN, **config, "ide0": "local-lvm:vm-100-cloudinit,media=cdrom"})) == {}


def test_the_worst_comes_first() -> None:
    config = {"ostype": "l26", "scsi0": "local-lvm:a,cache=unsafe", "scsi1": "local-lvm:b,cache=unsafe"}
    severities = [one.severity for one in audit(guest(config)).values()]
    assert severities == sorted(severities, key=["danger", "warning", "info"].index)
