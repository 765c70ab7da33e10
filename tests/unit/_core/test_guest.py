# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest, read from the rows of GET …/pending."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import (
    Boot,
    PendingRow,
    parse_boot,
    read_guest,
    read_hardware,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import Slot


@pytest.mark.parametrize(
    ("text", "boot", "written"),
    [
        ("order=scsi0;ide2;net0", Boot(("scsi0", "ide2", "net0")), "order=scsi0;ide2;net0"),
        ("legacy=cdn,order=scsi0", Boot(("scsi0",)), "order=scsi0"),
        (" ", Boot(), " "),
        ("", Boot(), " "),
        ("order=", Boot(), " "),
        ("cdn", Boot(text="cdn"), "cdn"),
        ("legacy=cdn", Boot(text="legacy=cdn"), "legacy=cdn"),
    ],
)
def test_boot(text: str, boot: Boot, written: str) -> None:
    assert parse_boot(text) == boot
    assert str(boot) == written


def test_boot_order_with_other_names_and_without_some() -> None:
    boot = parse_boot("order=sata0;ide2;net0")
    assert str(boot.renamed({"sata0": "scsi0"}).without(["ide2"])) == "order=scsi0;net0"
    legacy = parse_boot("cdn")
    assert legacy.renamed({"c": "d"}).without(["c"]) is legacy


def test_drives_are_told_from_other_keys() -> None:
    hardware = read_hardware(
        {
            "scsi10": "tank:vm-100-disk-1",
            "scsi2": "file=tank:vm-100-disk-0,size=1G",
            "scsihw": "virtio-scsi-single",
            "scsi99": "tank:vm-100-disk-9",
            "unused3": "tank:vm-100-disk-3",
            "virtio0": "cache=none",
            "unused4": "a:1,b:2",
            "net0": "virtio=BC:24:11:00:00:01",
            "bootdisk": "scsi2",
        }
    )
    assert [str(slot) for slot in hardware.drives] == ["scsi2", "scsi10"]
    assert hardware.unused == {Slot("unused", 3): "tank:vm-100-disk-3"}
    assert hardware.unreadable == {Slot("virtio", 0): "cache=none", Slot("unused", 4): "a:1,b:2"}
    assert (hardware.scsihw, hardware.bootdisk, hardware.boot) == ("virtio-scsi-single", "scsi2", None)
    assert hardware.slots_of("tank:vm-100-disk-1") == (Slot("scsi", 10),)
    assert hardware.unused_slot_of("tank:vm-100-disk-3") == Slot("unused", 3)
    assert hardware.unused_slot_of("tank:vm-100-disk-1") is None


ROWS = (
    PendingRow("name", "web1"),
    PendingRow("scsi0", "tank:vm-100-disk-0,size=1G", pending="tank:vm-100-disk-0,cache=none,size=1G"),
    PendingRow("sata0", "tank:vm-100-disk-1,size=1G", delete=1),
    PendingRow("sata1", pending="tank:vm-100-disk-2,size=1G"),
    PendingRow("sata2", "tank:vm-100-disk-3", pending="tank:vm-100-disk-4", delete=2),
    PendingRow("boot", "order=scsi0;sata0", pending="order=scsi0"),
    PendingRow("memory", "1024", pending="2048"),
    PendingRow("net0", "virtio=BC:24:11:00:00:01"),
    PendingRow("hostpci0", "01:00.0"),
)


def test_rows_hold_both_states() -> None:
    guest = read_guest(100, "cluster name", "pve1", ROWS, running=True)
    assert guest.label == "web1 (100 on pve1)"
    assert {str(slot): str(drive) for slot, drive in guest.live.drives.items()} == {
        "sata0": "tank:vm-100-disk-1,size=1G",
        "sata2": "tank:vm-100-disk-3",
        "scsi0": "tank:vm-100-disk-0,size=1G",
    }
    assert {str(slot): str(drive) for slot, drive in guest.configured.drives.items()} == {
        "sata1": "tank:vm-100-disk-2,size=1G",
        "scsi0": "tank:vm-100-disk-0,cache=none,size=1G",
    }
    assert guest.waiting == {"scsi0", "sata1", "boot", "memory"}
    assert guest.deleting == {"sata0": 1, "sata2": 2}
    assert guest.changed_keys == guest.waiting | set(guest.deleting)
    assert (str(guest.live.boot), str(guest.configured.boot)) == ("order=scsi0;sata0", "order=scsi0")
    assert guest.devices == {"net0", "hostpci0"}


@pytest.mark.parametrize(
    ("rows", "running", "state"),
    [((), False, "stopped"), ((), True, "running"), ((PendingRow("template", "1"),), False, "template")],
)
def test_state(rows: tuple[PendingRow, ...], running: bool, state: str) -> None:
    guest = read_guest(100, "web1", "pve1", rows, running=running)
    assert guest.state == state
    assert guest.name == "web1"


def test_what_keeps_from_changes() -> None:
    rows = [PendingRow("lock", "backup"), PendingRow("protection", "1"), PendingRow("parent", "s1")]
    guest = read_guest(100, "web1", "pve1", rows, running=False)
    assert (guest.lock, guest.protection, guest.has_snapshots) == ("backup", True, True)


@pytest.mark.parametrize(
    ("hotplug", "disks"),
    [(None, True), ("1", True), ("0", False), ("network,usb", False), ("disk", True), ("network;disk", True)],
)
def test_hotplug(hotplug: str | None, disks: bool) -> None:
    rows = [] if hotplug is None else [PendingRow("hotplug", hotplug)]
    assert read_guest(100, "web1", "pve1", rows, running=True).hotplug_disks is disks
