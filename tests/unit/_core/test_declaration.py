# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From guests as they are to declarations that change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.declaration import declare_guests
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive import parse_drive
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive_data import drive_data
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError


def guest(vmid: int = 120, name: str = "db1", scsihw: str | None = None, **drives: str) -> dict[str, Any]:
    data = {slot: drive_data(parse_drive(text)) for slot, text in drives.items()}
    return {"vmid": vmid, "name": name, "status": "running", "scsihw": scsihw, "drives": data}


def disks(**drives: str) -> Any:
    (variables,) = declare_guests([guest(**drives)]).values()
    return variables["proxmox_disks"]


@pytest.mark.parametrize(
    ("slot", "text", "declared"),
    [
        ("scsi0", "tank:vm-1-disk-0,cache=none,ssd=1,size=32G",
         {"storage": "tank", "size": "32G", "format": "raw", "cache": "none", "ssd": True}),
        ("virtio0", "local:1/vm-1-disk-0.qcow2,iops_rd=100,size=528K",
         {"storage": "local", "size": "528K", "format": "qcow2", "iops_rd": 100}),
        ("scsi1", "tank:vm-1-disk-0", {"storage": "tank", "format": "raw"}),
        ("scsi2", "tank:vm-1-disk-1,serial=a%20b,size=1G",
         {"storage": "tank", "size": "1G", "format": "raw", "serial": "a b"}),
        ("scsi3", "/dev/disk/by-id/x,size=1G", {"volume": "/dev/disk/by-id/x"}),
        ("ide2", "none,media=cdrom", {"iso": "none"}),
        ("ide2", "local:iso/x.iso,media=cdrom,size=1M", {"iso": "local:iso/x.iso"}),
        ("ide2", "tank:vm-1-cloudinit,media=cdrom", {"cloudinit": True, "storage": "tank"}),
        ("efidisk0", "tank:vm-1-disk-2,efitype=4m,pre-enrolled-keys=1,size=4M",
         {"storage": "tank", "efitype": "4m", "pre_enrolled_keys": True}),
        ("tpmstate0", "tank:vm-1-disk-3,size=4M,version=v2.0", {"storage": "tank", "version": "v2.0"}),
        ("scsi4", "tank:vm-1-disk-0,future=1,size=1G", {"storage": "tank", "size": "1G", "format": "raw"}),
        ("scsi5", "tank:vm-1-disk-0,cache=later,size=1G", {"storage": "tank", "size": "1G", "format": "raw"}),
    ],
)  # fmt: skip
def test_a_drive(slot: str, text: str, declared: dict[str, Any]) -> None:
    assert disks(**{slot: text}) == {slot: declared}


def test_a_name_that_ansible_would_compute_with_is_not_declared() -> None:
    assert disks(ide2="local:iso/{{ lookup('env') }}.iso,media=cdrom", ide0="none,media=cdrom") == {
        "ide0": {"iso": "none"}
    }


def test_hosts_have_names_of_their_own() -> None:
    found = declare_guests([guest(1, "a"), guest(2, "b"), guest(3, "b"), guest(4, "")])
    assert {name: variables["proxmox_vmid"] for name, variables in found.items()} == {
        "a": 1, "b-2": 2, "b-3": 3, "vm4": 4,
    }  # fmt: skip


def test_no_guest_takes_the_name_that_another_one_got() -> None:
    named = [(101, "a"), (102, "a"), (103, "a-101"), (104, ""), (105, "vm104")]
    hosts = declare_guests([{"vmid": vmid, "name": name, "drives": {}} for vmid, name in named])
    assert [words["proxmox_vmid"] for words in hosts.values()] == [101, 102, 103, 104, 105]
    assert list(hosts) == ["a-101", "a-102", "a-101-103", "vm104", "vm104-105"]


def test_the_controller_is_declared_where_the_guest_names_one() -> None:
    found = declare_guests([guest(1, "a", "virtio-scsi-single"), guest(2, "b")])
    assert found["a"]["proxmox_disks_scsihw"] == "virtio-scsi-single"
    assert "proxmox_disks_scsihw" not in found["b"]


def test_templates_and_guests_that_could_not_be_read_are_left_out() -> None:
    unread = {"vmid": 2, "name": "b", "error": "403"}
    assert declare_guests([{**guest(1), "status": "template"}, unread]) == {}


def test_something_else() -> None:
    with pytest.raises(ParseError, match="give the guests that guest_disks_info returns"):
        declare_guests([{"name": "db1"}])
