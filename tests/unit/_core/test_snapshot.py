# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshots are newer than one, what counts as the same guest, and reasons where nobody knows better."""

from __future__ import annotations

from types import MappingProxyType

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import Guest, PendingRow, read_guest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.snapshot import (
    STATES,
    Entry,
    SnapshotFacts,
    SnapshotWish,
    Step,
    find_step,
    newer_than,
    plan_snapshot,
    same_hardware,
    set_aside,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import Storage
from hypothesis import given
from hypothesis import strategies as st


def guest(**keys: str) -> Guest:
    return read_guest(100, "web", "pve1", [PendingRow(key, text) for key, text in keys.items()], running=False)


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.name for entry in entries]


def test_newer_by_time() -> None:
    old, new = Entry("old", None, 1), Entry("new", None, 2)
    facts = SnapshotFacts(guest(), (old, new))
    assert names(newer_than(facts, old)) == ["new"]
    assert names(newer_than(facts, new)) == []


def test_newer_by_descent_within_a_second() -> None:
    a, b, c = Entry("a", None, 1), Entry("b", "a", 1), Entry("c", "b", 1)
    facts = SnapshotFacts(guest(), (a, b, c))
    assert names(newer_than(facts, a)) == ["b", "c"]
    assert names(newer_than(facts, b)) == ["c"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)), max_size=6))
def test_newer_is_an_order(rows: list[tuple[int, int, int]]) -> None:
    """Whatever parents a configuration names, cycles among them: nothing is newer than itself, and it ends."""
    entries = {number: Entry(f"s{number}", f"s{parent}", time) for number, parent, time in rows}
    facts = SnapshotFacts(guest(), tuple(entries.values()))
    for entry in entries.values():
        later = newer_than(facts, entry)
        assert all(one.time >= entry.time for one in later)
        assert {one.name for one in entries.values() if one.time > entry.time} <= set(names(later))


def test_same_hardware() -> None:
    now = {"scsi0": "a:b,size=1G", "cores": 2, "digest": "x", "parent": "s", "vmgenid": "1", "unused0": "a:c"}
    then = {"scsi0": "a:b,size=1G", "cores": "2", "snaptime": 5, "vmgenid": "2", "description": "why"}
    assert same_hardware(now, then)
    assert not same_hardware({**now, "scsi1": "a:d"}, then)
    assert not same_hardware({**now, "cores": 4}, then)
    assert not same_hardware(now, {**then, "net0": "virtio"})


def test_set_aside() -> None:
    one = guest(scsi0="a:vm-100-disk-0", scsi1="a:vm-100-disk-1", ide2="none,media=cdrom", sata0="/dev/sdb")
    assert set_aside(one, frozenset({"a:vm-100-disk-0"})) == ("scsi1",)


def test_isos_and_cloud_init_drives_stand_in_nobodys_way() -> None:
    pool = Storage("pool", "zfspool", frozenset({"images"}), ("raw",))
    nas = Storage("nas", "nfs", frozenset({"images", "iso"}), ("raw", "qcow2"))
    names_ = frozenset({"pool:vm-100-cloudinit", "nas:iso/debian.iso"})
    facts = SnapshotFacts(
        guest(),
        (Entry("s1", None, 1), Entry("s2", "s1", 2)),
        storages=MappingProxyType({"pool": pool, "nas": nas}),
        chained=frozenset({"nas"}),
        volumes=MappingProxyType({"s1": names_, "s2": names_}),
    )
    assert plan_snapshot(facts, SnapshotWish("s1", "rolled_back")).step is Step.ROLL_BACK


def test_only_memory_that_is_there_matters() -> None:
    facts = SnapshotFacts(guest(), (Entry("s1", None, 1),))
    assert find_step(facts, SnapshotWish("s1")) is None
    assert find_step(facts, SnapshotWish("s1", description="")) is None
    assert find_step(facts, SnapshotWish("s1", description="x")) is Step.DESCRIBE
    assert plan_snapshot(facts, SnapshotWish("s1", vmstate=True)).refusals


def test_untouched_means_untouched_since_this_one() -> None:
    facts = SnapshotFacts(guest(), (Entry("s1"), Entry("s2")), parent="s2", untouched=True)
    assert find_step(facts, SnapshotWish("s2", "rolled_back")) is None
    assert find_step(facts, SnapshotWish("s1", "rolled_back")) is Step.ROLL_BACK


def test_storage_type_that_nobody_knows() -> None:
    """PVE says no for the guest as a whole: its disks are named."""
    odd = Storage("odd", "plugin-of-a-vendor", frozenset({"images"}), ("raw",))
    facts = SnapshotFacts(guest(scsi0="odd:vm-100-disk-0"), possible=False, storages=MappingProxyType({"odd": odd}))
    assert [str(refusal) for refusal in plan_snapshot(facts, SnapshotWish("s1")).refusals] == [
        "web (100 on pve1): snapshot=s1: PVE says that at least one of its disks can't be snapshotted, and not "
        "which: scsi0 (odd:vm-100-disk-0); look at their storages"
    ]


def test_disk_that_is_passed_through() -> None:
    facts = SnapshotFacts(guest(scsi0="/dev/sdb,size=1G"), possible=False)
    (refusal,) = plan_snapshot(facts, SnapshotWish("s1")).refusals
    assert str(refusal) == (
        "web (100 on pve1): scsi0: /dev/sdb is passed through, and on no storage that could take a snapshot; "
        "detach it first"
    )


def test_refusals_and_steps_exclude_each_other() -> None:
    for state in STATES:
        for lock in ({}, {"lock": "backup"}):
            plan = plan_snapshot(SnapshotFacts(guest(**lock)), SnapshotWish("s1", state))
            assert not (plan.step and plan.refusals)
