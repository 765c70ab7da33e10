# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_grow in played guests: the way through the API, what it says and refuses. With real tools: test_real_agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_grow import GuestGrow, guest_grow_spec
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from e2e.kit import client, started
from lab import Lab
from lab.linux import linux_of
from lab.windows import windows_of

MIB = 1 << 20
CONFIG = {"agent": 1, "scsihw": "virtio-scsi-single", "scsi0": "local-lvm:vm-100-disk-0,size=256M",
          "virtio1": "local-lvm:vm-100-disk-1,size=128M"}  # fmt: skip
ROOT = {"partitions": [{"size": "8M"}, {"size": "64M", "fstype": "ext4", "mount": "/"}]}
DATA = {"partitions": [{"size": "32M", "fstype": "xfs", "mount": "/srv/my data"}]}
SWAP = {"partitions": [{"size": "64M", "fstype": "ext4", "mount": "/"}, {"size": "32M", "fstype": "swap"}]}


@contextmanager
def lab_with(inside: Mapping[str, Any], **config: str | None) -> Iterator[Lab]:
    values = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
    guest = {"vmid": 100, "name": "app1", "running": True, "agent": dict(inside), "config": values}
    with started({"guests": [guest]}, time_scale=0.01) as lab:
        yield lab


def grow(lab: Lab, *, check: bool = False, **options: Any) -> Result:
    with client(lab) as connection:
        work = GuestGrow(connection, {**dict.fromkeys(guest_grow_spec()), "task_timeout": 20, "vmid": 100, **options})
        work.prepare()
        if not check:
            work.execute()
        return work.result(executed=not check)


def thrice(lab: Lab, **options: Any) -> Result:
    check, real, again = grow(lab, check=True, **options), grow(lab, **options), grow(lab, **options)
    assert (check.diff, check.changed, again.changed) == (real.diff, real.changed, False)
    return real


def test_all_disks_of_a_linux() -> None:
    with lab_with({"linux": {"scsi0": ROOT, "virtio1": DATA}}) as lab:
        result = thrice(lab)
        assert result.diff == (
            "app1 (100 on pve1, running)\n"
            "  ~ sda2          64 MiB -> 246 MiB, to the end of sda\n"
            "  ~ /             ext4 64 MiB -> 246 MiB\n"
            "  ~ vda1          32 MiB -> 126 MiB, to the end of vda\n"
            "  ~ /srv/my data  xfs 32 MiB -> 126 MiB\n"
        )
        devices = {disk["slot"]: disk["device"] for disk in result.data["disks"]}
        assert devices == {"scsi0": "sda", "virtio1": "vda"}
        root, data = linux_of(lab.guest(100)).disks["scsi0"][1], linux_of(lab.guest(100)).disks["virtio1"][0]
        assert (root.size, root.filesystem) == (246 * MIB, 246 * MIB)
        assert (data.size, data.filesystem) == (126 * MIB, 126 * MIB)


def test_only_the_disk_that_is_named() -> None:
    with lab_with({"linux": {"scsi0": ROOT, "virtio1": DATA}}) as lab:
        result = thrice(lab, slot=["virtio1"])
        assert [disk["slot"] for disk in result.data["disks"]] == ["virtio1"]
        assert linux_of(lab.guest(100)).disks["scsi0"][1].size == 64 * MIB


def test_what_is_left_to_a_person_is_a_warning_or_an_error() -> None:
    with lab_with({"linux": {"scsi0": SWAP, "virtio1": DATA}}) as lab:
        with pytest.raises(DiskwrightError, match=r"^app1 \(100 on pve1\): scsi0: sda2: it is the last on the d"):
            grow(lab, slot=["scsi0", "virtio1"])
        assert linux_of(lab.guest(100)).disks["virtio1"][0].size == 32 * MIB
        result = thrice(lab)
        assert result.warnings == [f"app1 (100 on pve1): scsi0: {result.data['disks'][0]['todo']}"]
        assert result.data["disks"][0]["actions"] == []


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({}, {"slot": ["scsi3"]}, "scsi3: the running guest has no disk there; it has scsi0, virtio1"),
        ({}, {"slot": ["floppy"]}, "floppy"),
        ({"scsi0": "local-lvm:vm-100-disk-0,size=300M"}, {"slot": ["scsi0"]}, None),
        ({"agent": "0"}, {}, "app1 .*: the guest agent is not enabled in the guest's configuration"),
    ],
)
def test_refused(config: Any, options: Any, message: str | None) -> None:
    with lab_with({"linux": {"scsi0": ROOT, "virtio1": DATA}}, **config) as lab:
        if message is None:  # PVE has a larger size than the guest sees
            lab.change(100, scsi0="local-lvm:vm-100-disk-0,size=900M")
            message = "scsi0: the guest sees 300 MiB of its 900 MiB; restart the guest"
        with pytest.raises(DiskwrightError, match=message):
            grow(lab, **options)
        assert linux_of(lab.guest(100)).disks["scsi0"][1].size == 64 * MIB


def test_a_command_that_fails_says_what_was_done_and_the_next_run_goes_on() -> None:
    with lab_with({"linux": {"scsi0": ROOT, "virtio1": DATA}}) as lab:
        linux_of(lab.guest(100)).fails = "resize2fs:resize2fs: Permission denied to resize filesystem"
        with pytest.raises(DiskwrightError) as caught:
            grow(lab)
        assert str(caught.value) == (
            "app1 (100 on pve1): /: ext4 64 MiB -> 246 MiB: failed, and the guest says: resize2fs: Permission denied "
            "to resize filesystem; done before: sda2 (64 MiB -> 246 MiB, to the end of sda); the next run goes on "
            "where this one ended"
        )
        linux_of(lab.guest(100)).fails = ""
        assert "~ /             ext4 64 MiB -> 246 MiB" in grow(lab).diff
        assert not grow(lab).changed


@pytest.mark.parametrize("path", ["/agent/exec$", "/agent/exec-status", "/agent/file-write", "/agent/file-read"])
def test_lost_answers(path: str) -> None:
    method = "GET" if path.endswith(("status", "read")) else "POST"
    with lab_with({"linux": {"scsi0": ROOT, "virtio1": DATA}}) as lab:
        for _time in range(2):
            lab.faults.lose_answer(method, path)
        grow(lab)
        assert linux_of(lab.guest(100)).disks["scsi0"][1].filesystem == 246 * MIB


# ---- Windows


def test_windows() -> None:
    with lab_with({"windows": {"release": "2022", "services": {"vioscsi": {}}}}, boot="order=scsi0") as lab:
        windows_of(lab.guest(100)).partitions = {
            "scsi0": [("C:", 100, "NTFS", "")],
            "virtio1": [("D:", 20, "NTFS", "")],
        }
        result = thrice(lab)
        assert result.diff == (
            "app1 (100 on pve1, running)\n"
            "  ~ C:  NTFS 100 MiB -> 254 MiB, to the end of disk 0\n"
            "  ~ D:  NTFS 20 MiB -> 126 MiB, to the end of disk 1\n"
        )


def test_windows_with_a_recovery_partition_at_the_end() -> None:
    recovery = "{de94bba4-06d1-4d40-a16a-bfd50179d6ac}"
    with lab_with({"windows": {"release": "11", "services": {"vioscsi": {}}}}, boot="order=scsi0") as lab:
        windows_of(lab.guest(100)).partitions = {"scsi0": [("C:", 50, "NTFS", ""), ("", 20, "NTFS", recovery)]}
        message = "a recovery partition lies at the end of the disk.*run reagentc /disable"
        with pytest.raises(DiskwrightError, match=message):
            grow(lab, slot=["scsi0"])
        assert not grow(lab).changed


def test_a_windows_that_is_too_old() -> None:
    with lab_with({"windows": {"release": "2008r2", "services": {"vioscsi": {}}}}, boot="order=scsi0") as lab:
        message = "this Windows has no Resize-Partition, which came with Windows 8; extend its volumes"
        with pytest.raises(DiskwrightError, match=message):
            grow(lab)
