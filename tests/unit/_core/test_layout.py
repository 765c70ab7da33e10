# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations: how they are read, and each thing that is wrong with one, once."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout, read_layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import Slot

GIB = 1024**3
SLOTS = "the slots are ide0-3, sata0-5, scsi0-30, virtio0-15, efidisk0, tpmstate0, unused0-255"
SIZES = "write a number with K, M, G, T or P (binary units, 64G or 64GiB), or a plain number of GiB"
OTHER_WAY = "remove one of the two, or name the volume by its unused slot"
NEW = {"storage": "tank", "size": "1G"}


def read(*disks: Any, **guest: Any) -> tuple[Layout, list[str]]:
    layout, refusals = read_layout({"vmid": 100, "name": "web1", "disks": list(disks), **guest})
    return layout, [str(refusal) for refusal in refusals]


def test_everything_that_can_be_said() -> None:
    layout, refusals = read(
        {
            "slot": "scsi1",
            "storage": "tank",
            "size": "64GiB",
            "minimum": True,
            "format": "raw",
            "import_from": "local:import/web.vmdk",
            "delete_source": True,
            "flatten": True,
            "unset": "cache, backup",
            "iothread": True,
            "mbps": 10.0,
            "ssd": None,
        },
        {"slot": "efidisk0", "storage": "tank", "efitype": "4m", "pre_enrolled_keys": True, "ms_cert": 2023},
        {"slot": "ide2", "cloudinit": True, "storage": "tank"},
        {"slot": "sata0", "iso": "local:iso/a.iso"},
        node="pve1",
        scsihw="virtio-scsi-single",
        boot=["scsi1", "net0"],
        undeclared="report",
        power="stop_if_needed",
        revert_leftovers=True,
    )
    assert refusals == []
    disk = layout.disk(Slot("scsi", 1))
    assert disk is not None
    assert (disk.size, disk.minimum, disk.unset) == (64 * GIB, True, ("cache", "backup"))
    assert disk.options == {"iothread": "1", "mbps": "10"}
    efi = layout.disk(Slot("efidisk", 0))
    assert efi is not None
    assert efi.options == {"efitype": "4m", "pre-enrolled-keys": "1", "ms-cert": "2023"}
    assert [disk.is_cdrom for disk in layout.disks] == [False, False, False, True]
    assert layout.boot == ("scsi1", "net0")
    assert layout.disk(Slot("scsi", 2)) is None


def test_what_is_not_said_comes_from_the_task() -> None:
    defaults = Layout(undeclared="detach", power="stop_if_needed", revert_leftovers=True, allow_destroy=True)
    layout, _refusals = read_layout({"vmid": 100}, defaults)
    assert (layout.undeclared, layout.power) == ("detach", "stop_if_needed")
    assert layout.revert_leftovers
    assert layout.allow_destroy
    layout, _refusals = read_layout({"vmid": 100, "undeclared": "keep", "power": "never"}, defaults)
    assert (layout.undeclared, layout.power) == ("keep", "never")


@pytest.mark.parametrize(
    ("guest", "label"),
    [
        ({"vmid": 100, "name": "web1"}, "web1 (100)"),
        ({"vmid": 100}, "100"),
        ({"name": "web1"}, "web1"),
        ({}, "a guest without vmid and name"),
    ],
)
def test_label(guest: dict[str, Any], label: str) -> None:
    assert read_layout(guest)[0].label == label


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("pre-enrolled-keys", "pre-enrolled-keys"), ("pre_enrolled_keys", "pre-enrolled-keys")],
)
def test_spellings_of_options(spelling: str, name: str) -> None:
    layout, _refusals = read({"slot": "efidisk0", spelling: True})
    assert layout.disks[0].options == {name: "1"}


def test_alias_of_an_option() -> None:
    layout, _refusals = read({"slot": "scsi0", "iops_rd": 5, "iops_rd_max": 9, "iops_rd_length": 2})
    assert layout.disks[0].options["iops_rd_max_length"] == "2"


REFUSED: tuple[tuple[Any, str], ...] = (
    ("scsi0", "disks=scsi0: is no dictionary; write one dictionary a slot"),
    (
        {},
        f"slot '' does not exist; {SLOTS}",
    ),
    ({"slot": "scsi31"}, "scsi31: slot 'scsi31' does not exist; scsi has scsi0 to scsi30"),
    (
        {"slot": "scsi0", "moved_from": "x"},
        f"scsi0: moved_from: slot 'x' does not exist; {SLOTS}",
    ),
    (
        {"slot": "scsi0", "size": "64GB"},
        "scsi0: size '64GB' could mean powers of 1000 or of 1024; write 64G for powers of 1024",
    ),
    (
        {"slot": "scsi0", "size": "much"},
        f"scsi0: size 'much' is not understood; {SIZES}",
    ),
    ({"slot": "scsi0", "size": 0}, "scsi0: size=0: a disk has a size; write at least 1K"),
    ({"slot": "scsi0", "state": "gone"}, "scsi0: state=gone: is not known; write one of present, detached, absent"),
    ({"slot": "scsi0", "format": "vdi"}, "scsi0: format=vdi: is not known; write one of raw, qcow2, vmdk"),
    ({"slot": "scsi0", "media": "floppy"}, "scsi0: media=floppy: is not known; write one of disk, cdrom"),
    (
        {"slot": "ide0", "iothread": True},
        "ide0: iothread=true: ide has no such option; it exists on scsi, virtio; remove it or use another bus",
    ),
    (
        {"slot": "scsi0", "cache": "bad"},
        "scsi0: cache=bad: is not allowed; write one of none, writethrough, writeback, unsafe, directsync",
    ),
    ({"slot": "tpmstate0", "unset": ["cache"]}, "tpmstate0: unset=cache: tpmstate has no such option; it has version"),
    (
        {"slot": "scsi0", "cache": "none", "unset": ["cache"]},
        "scsi0: unset=cache: is set in the same declaration; remove one of the two",
    ),
    ({"slot": "scsi0", "mbps": 1, "mbps_rd": 2}, "scsi0: mbps=1: PVE refuses it beside mbps_rd; keep one of them"),
    (
        {"slot": "scsi0", "volume": "a:1", "moved_from": "scsi1"},
        "scsi0: volume: contradicts moved_from; say in one way where the content comes from",
    ),
    (
        {"slot": "scsi0", "import_from": "a:1", "storage": "a", "iso": "none", "state": "detached"},
        "scsi0: import_from: makes no sense with state=detached; remove one of the two",
    ),
    (
        {"slot": "scsi0", "moved_from": "scsi0"},
        "scsi0: moved_from=scsi0: is not another slot of a drive; name the slot where the disk was",
    ),
    (
        {"slot": "scsi0", "moved_from": "unused0"},
        "scsi0: moved_from=unused0: is not another slot of a drive; write volume: unused0",
    ),
    (
        {"slot": "scsi0", "moved_from": "efidisk0"},
        "scsi0: moved_from=efidisk0: can't be on another bus; EFI and TPM volumes stay where they are",
    ),
    ({"slot": "scsi0", "import_from": "a:1"}, "scsi0: storage: is missing; say where import_from is to be written"),
    (
        {"slot": "efidisk0", "import_from": "a:1", "storage": "a"},
        "efidisk0: import_from=a:1: efidisk0 can't be imported; make a new one with storage",
    ),
    (
        {"slot": "unused0"},
        "unused0: state=present: is not possible for an unused volume; write state: absent, or attach it with volume:",
    ),
    (
        {"slot": "scsi0", "volume": "a:1", "storage": "b"},
        f"scsi0: storage=b: contradicts volume=a:1; {OTHER_WAY}",
    ),
    (
        {"slot": "scsi0", "volume": "a:1", "format": "qcow2"},
        f"scsi0: format=qcow2: contradicts volume=a:1; {OTHER_WAY}",
    ),
    (
        {"slot": "scsi0", "volume": "a:base-9-disk-0/vm-100-disk-0", "flatten": True},
        f"scsi0: flatten=true: contradicts volume=a:base-9-disk-0/vm-100-disk-0; {OTHER_WAY}",
    ),
    (
        {"slot": "virtio0", "media": "cdrom"},
        "virtio0: media=cdrom: virtio can't hold a CD-ROM drive; use an ide, sata or scsi slot",
    ),
    (
        {"slot": "ide2", "iso": "none", "size": 1},
        "ide2: size: means nothing for a CD-ROM drive; name the image with iso, or iso: none for an empty drive",
    ),
    (
        {"slot": "ide2", "iso": "none", "snapshot": True},
        "ide2: snapshot=1: PVE refuses it for a CD-ROM drive; remove it",
    ),
    ({"slot": "ide2", "iso": "none", "media": "disk"}, "ide2: iso=none: contradicts media=disk; remove one of the two"),
    (
        {"slot": "virtio0", "cloudinit": True},
        "virtio0: cloudinit=true: virtio can't hold a CD-ROM drive; use an ide, sata or scsi slot",
    ),
    (
        {"slot": "ide2", "cloudinit": True, "size": 1},
        "ide2: size=1 GiB: PVE decides the size of a cloud-init drive; remove it",
    ),
    (
        {"slot": "tpmstate0", "size": 1},
        "tpmstate0: size=1 GiB: the firmware decides the size of tpmstate0; remove it",
    ),
)


@pytest.mark.parametrize(("disk", "refusal"), REFUSED, ids=[text.split(";")[0] for _disk, text in REFUSED])
def test_refused_disk(disk: Any, refusal: str) -> None:
    assert f"web1 (100): {refusal}" in read(disk)[1]


@pytest.mark.parametrize(
    ("guest", "refusal"),
    [
        (
            {"scsihw": "buslogic"},
            "scsihw=buslogic: is not known; "
            "write one of lsi, lsi53c810, virtio-scsi-pci, virtio-scsi-single, megasas, pvscsi",
        ),
        ({"undeclared": "delete"}, "undeclared=delete: is not known; write one of keep, report, detach"),
        ({"power": "always"}, "power=always: is not known; write one of never, stop_if_needed"),
    ],
)
def test_refused_guest(guest: dict[str, Any], refusal: str) -> None:
    assert read(**guest)[1] == [f"web1 (100): {refusal}"]


@pytest.mark.parametrize(
    ("disks", "refusal"),
    [
        (
            [{"slot": "scsi0", **NEW}, {"slot": "scsi0", **NEW}],
            "scsi0: slot=scsi0: is declared twice; declare each slot once",
        ),
        (
            [{"slot": "scsi0", "moved_from": "sata0"}, {"slot": "scsi1", "moved_from": "sata0"}],
            "scsi1: moved_from=sata0: scsi0 names it too; one disk can't become two",
        ),
        (
            [{"slot": "scsi0", "moved_from": "scsi1"}, {"slot": "scsi1", "moved_from": "sata0"}],
            "scsi0: moved_from=scsi1: is itself declared with moved_from, so a second run could not tell what has been "
            "done; name the volumes with volume: instead",
        ),
        (
            [{"slot": "scsi0", "moved_from": "sata0"}, {"slot": "sata0", **NEW}],
            "sata0: state=present: its disk moves to scsi0, so a second run could not tell what has been done; "
            "remove the declaration of sata0, and add it again afterwards",
        ),
    ],
)
def test_refused_company(disks: list[Any], refusal: str) -> None:
    assert read(*disks)[1] == [f"web1 (100): {refusal}"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    _layout, refusals = read({"slot": "scsi0", "size": "x", "cache": "x"}, {"slot": "ide9"}, power="x")
    assert len(refusals) == 4
