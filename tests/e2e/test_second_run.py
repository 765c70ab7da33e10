# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second run changes nothing: for every option on every bus, every storage and format, every spelling of a size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import TABLE, Kind, Option
from e2e.kit import Client, Outcome, client, converge, started
from lab import Lab

BUSES = ("ide", "sata", "scsi", "virtio")
NEW = {"storage": "local-lvm", "size": "64M"}
# What a storage makes by default (None) and on request.
FORMATS = {
    "local": (None, "raw", "qcow2", "vmdk"),
    "dirchain": (None, "raw", "qcow2"),
    "btrfs": (None, "raw"),
    "nas": (None, "raw", "qcow2"),
    "local-lvm": (None, "raw"),
    "thick": (None, "raw"),
    "thickchain": (None, "raw", "qcow2"),
    "tank": (None, "raw"),
    "ceph": (None, "raw"),
}
PLACES = [(storage, format_) for storage, formats in FORMATS.items() for format_ in formats]
SIZES = ("64M", "65536K", "64 MiB", "0.0625", 0.0625, "67108864B", "0.0625GiB")
ODD_SIZES = ("1.7M", "1741K", "100000B", 0.01)
FIRST_PLACE, FIRST_SIZE = 300, 400
SEED = {
    "files": {"samples": ["local"]},
    "guests": [
        *({"vmid": 200 + number, "name": bus} for number, bus in enumerate(BUSES)),
        *({"vmid": FIRST_PLACE + number, "name": f"place{number}"} for number in range(len(PLACES))),
        *({"vmid": FIRST_SIZE + number, "name": f"size{number}"} for number in range(len(ODD_SIZES))),
        {"vmid": 500, "name": "sizes", "config": {"scsi0": "local-lvm:vm-500-disk-0,size=64M"}},
        {"vmid": 501, "name": "windows", "ostype": "win11"},
        {"vmid": 502, "name": "advised", "config": {"unused0": "tank:vm-502-disk-0"}},
    ],
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with started(SEED) as lab:
        yield lab


@pytest.fixture(scope="module")
def connection(lab: Lab) -> Iterator[Client]:
    with client(lab) as connection:
        yield connection


def twice(lab: Lab, connection: Client, guest: Mapping[str, Any], **params: Any) -> Outcome:
    """The outcome of the first run; the second one has written nothing."""
    first = converge(connection, guest, **params)
    assert first.failure is None
    lab.requests.clear()
    again = converge(connection, guest, **params)
    assert (again.failure, again.changed, again.diff) == (None, False, ""), again.guests[0]["actions"]
    assert lab.writes() == []
    return first


def samples(row: Option) -> tuple[object, object]:
    """Two values of an option, as a user writes them."""
    if row.kind is Kind.BOOLEAN:
        return True, False
    if row.kind is Kind.CHOICE:
        return row.choices[0], row.choices[-1]
    if row.kind in (Kind.INTEGER, Kind.NUMBER):
        return (7, 8) if row.kind is Kind.INTEGER else ("7.50", 8)
    if row.kind is Kind.ENCODED:
        return "a b=c,d/é", "plain-1"
    return ("0x5000c500a0b1c2d3", "0x5000C500A0B1C2D4") if row.name == "wwn" else ("A-1", "B_2")


def allowed(bus: str) -> set[str]:
    """The options of a bus that PVE takes together: a limit for everything excludes those for reading and writing."""
    names = {name for name, row in TABLE.items() if bus in row.buses and not {"iops", "mbps"} & set(row.excludes)}
    while lonely := {name for name in names if TABLE[name].needs and TABLE[name].needs not in names}:
        names -= lonely
    return names


def options(bus: str, which: int) -> dict[str, object]:
    """All options of a bus that can stand together."""
    chosen = {name: samples(TABLE[name])[which] for name in allowed(bus)}
    words = {name.replace("-", "_"): value for name, value in chosen.items()}
    return {**words, "aio": ("io_uring", "threads")[which]}


@pytest.mark.parametrize("bus", BUSES)
def test_every_option_on_every_bus(bus: str, lab: Lab, connection: Client) -> None:
    vmid, slot = 200 + BUSES.index(bus), f"{bus}0"
    for which in (0, 1):
        words = options(bus, which)
        assert twice(lab, connection, {"vmid": vmid, "disks": [{"slot": slot, **NEW, **words}]}).changed
        stored = {pair.partition("=")[0] for pair in lab.config(vmid)[slot].split(",")[1:]}
        assert stored - {"size"} == allowed(bus)
    gone = {"slot": slot, "unset": sorted(options(bus, 1))}
    assert twice(lab, connection, {"vmid": vmid, "disks": [gone]}).changed
    assert lab.config(vmid)[slot] == f"local-lvm:vm-{vmid}-disk-0,size=64M"


@pytest.mark.parametrize("number", range(len(PLACES)), ids=[f"{storage} {format_}" for storage, format_ in PLACES])
def test_every_storage_and_format(number: int, lab: Lab, connection: Client) -> None:
    """A new disk, then one that grows (to 24M) and gets an option, then one that moves away and comes back."""
    storage, format_ = PLACES[number]
    vmid = FIRST_PLACE + number
    disk = {"slot": "scsi0", "storage": storage, "size": "12M", "discard": "on"}
    disk |= {"format": format_} if format_ else {}
    assert twice(lab, connection, {"vmid": vmid, "disks": [disk]}).changed
    if format_ != "vmdk":
        disk |= {"size": "0.0234375G", "backup": False}
        assert twice(lab, connection, {"vmid": vmid, "disks": [disk]}).changed
    away = {**disk, "storage": "fast", "delete_source": True, "format": "raw"}
    assert twice(lab, connection, {"vmid": vmid, "disks": [away]}).changed
    assert twice(lab, connection, {"vmid": vmid, "disks": [{**disk, "delete_source": True}]}).changed
    assert "unused0" not in lab.config(vmid)


@pytest.mark.parametrize("size", SIZES)
def test_every_spelling_of_a_size(size: Any, lab: Lab, connection: Client) -> None:
    outcome = converge(connection, {"vmid": 500, "disks": [{"slot": "scsi0", "size": size}]})
    assert (outcome.failure, outcome.changed) == (None, False)


@pytest.mark.parametrize("number", range(len(ODD_SIZES)), ids=map(str, ODD_SIZES))
@pytest.mark.parametrize("storage", ["local", "local-lvm"])
def test_sizes_that_are_rounded(storage: str, number: int, lab: Lab, connection: Client) -> None:
    slot = {"local": "scsi0", "local-lvm": "scsi1"}[storage]
    declared = {"slot": slot, "storage": storage, "size": ODD_SIZES[number]}
    assert twice(lab, connection, {"vmid": FIRST_SIZE + number, "disks": [declared]}).changed


def test_every_kind_of_drive(lab: Lab, connection: Client) -> None:
    drives = [
        {"slot": "efidisk0", "storage": "local-lvm", "efitype": "4m", "pre_enrolled_keys": True, "ms_cert": "2023k"},
        {"slot": "tpmstate0", "storage": "local-lvm", "version": "v2.0"},
        {"slot": "ide0", "storage": "local-lvm", "cloudinit": True},
        {"slot": "ide1", "media": "cdrom"},
        {"slot": "scsi0", "storage": "local-lvm", "import_from": "local:import/so.vmdk", "size": "80M", "ssd": True},
        {"slot": "scsi1", "storage": "local", "import_from": "local:import/test.ova/disk1.vmdk", "format": "qcow2"},
        {"slot": "virtio0", "storage": "local", "import_from": "local:import/img.qcow2", "size": "1M", "minimum": True},
    ]
    guest = {"vmid": 501, "disks": drives, "scsihw": "virtio-scsi-single", "boot": ["scsi0", "ide1"]}
    assert twice(lab, connection, guest).changed
    detached = [{"slot": slot, "state": "detached"} for slot in ("efidisk0", "tpmstate0", "ide1", "scsi1")]
    assert twice(lab, connection, {"vmid": 501, "disks": detached}).changed
    names = ["ide0", "scsi0", "virtio0", *(f"unused{number}" for number in range(3))]
    gone = [{"slot": name, "state": "absent"} for name in names]
    assert twice(lab, connection, {"vmid": 501, "disks": gone}, allow_destroy=True).changed
    assert not [volume for volume in lab.volumes() if "vm-501-" in volume]


def test_a_policy_knows_the_storage_of_a_volume_that_is_attached(lab: Lab, connection: Client) -> None:
    guest = {"vmid": 502, "disks": [{"slot": "scsi0", "volume": "unused0"}]}
    assert twice(lab, connection, guest, policy="current", recommend="always").changed
    assert "discard=on" in lab.config(502)["scsi0"]
