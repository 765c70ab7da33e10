# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a place is, read from a node's files: storage.cfg, sysfs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import places
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import Text
from lab import Lab, node

STORAGES = """dir: local
\tpath /var/lib/vz
\tcontent iso,vztmpl,backup,images

lvmthin: local-lvm
\tthinpool data
\tvgname pve
\tcontent rootdir,images

lvm: thickchain
\tvgname chain
\tsnapshot-as-volume-chain 1

cifs: nas
\tserver 192.0.2.7
\tusername backup
\tpassword secret

rbd: ceph
\tpool rbd
\tkrbd 1
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a node has its configuration; its pvesm is a lab's."""
    lab = Lab(tmp_path / "lab", {"files": {}})
    monkeypatch.setenv("PATH", node.environment(lab.state, tmp_path / "bin")["PATH"])
    (tmp_path / "pve").mkdir()
    (tmp_path / "pve" / "storage.cfg").write_text(STORAGES)
    return tmp_path / "pve"


def sysfs(tmp_path: Path, numbers: str) -> Path:
    """A disk, its second partition, and a mapped device on that."""
    top = tmp_path / "sys"
    disk = top / "devices" / "nvme0n1"
    for name, text in {
        "queue/rotational": "0\n",
        "queue/write_cache": "write back\n",
        "queue/scheduler": "[none] mq-deadline\n",
        "device/model": "Fast  980          \n",
        "device/firmware_rev": "3B2\n",
        "nvme0n1p2/partition": "2\n",
    }.items():
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / name).write_text(text)
    mapped = top / "devices" / "dm-0"
    (mapped / "slaves").mkdir(parents=True)
    (mapped / "slaves" / "nvme0n1p2").symlink_to(disk / "nvme0n1p2")
    (top / "dev" / "block").mkdir(parents=True)
    (top / "dev" / "block" / numbers).symlink_to(mapped)
    return top


def test_the_disk_below_a_folder_is_found_through_what_is_between(tmp_path: Path) -> None:
    number = os.stat(tmp_path).st_dev
    found = places.find(str(tmp_path), sys=str(sysfs(tmp_path, f"{os.major(number)}:{os.minor(number)}")))
    record = found.record
    assert (record.device, record.medium, record.write_cache, record.scheduler) == (
        "nvme0n1 (Fast 980 3B2)", "nvme", "write back", "none"
    )  # fmt: skip
    assert (found.place.type, found.place.direct_io) in [("folder", True), ("folder", False)]
    assert list(tmp_path.glob("#*")) == []


def test_storages_are_what_the_configuration_says(root: Path) -> None:
    found = {name: places.find(name, str(root)) for name in ("local", "local-lvm", "thickchain")}
    assert found["local"].place.formats == ("raw", "qcow2", "vmdk")
    assert found["local-lvm"].place.formats == ("raw",)
    assert found["thickchain"].place.formats == ("raw", "qcow2")
    assert found["local-lvm"].record.options == (
        Text("content", "rootdir,images"), Text("thinpool", "data"), Text("vgname", "pve")
    )  # fmt: skip


def test_secrets_are_left_out(root: Path) -> None:
    assert [one.name for one in places.find("nas", str(root)).record.options] == ["server"]


def test_ceph_through_the_kernel(root: Path) -> None:
    assert places.find("ceph", str(root)).place.krbd


def test_devices_of_a_volume_group_are_asked_for(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "pvs").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "  /dev/zero"\n')
    (tools / "pvs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    number = os.stat("/dev/zero").st_rdev
    top = sysfs(tmp_path, f"{os.major(number)}:{os.minor(number)}")
    assert places.find("local-lvm", str(root), str(top)).record.device == "nvme0n1 (Fast 980 3B2)"
    assert (tmp_path / "asked").read_text().split()[-1] == "vg_name=pve"
