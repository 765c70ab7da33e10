# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster that is there is adopted by one command, and what it writes declares the cluster as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.kit import Run, run_playbook, started, token_env
from lab import Lab

SEED: dict[str, Any] = {
    "nodes": ["pve1"],
    "guests": [
        {
            "vmid": 120,
            "name": "db1",
            "config": {
                "scsihw": "virtio-scsi-single",
                "scsi0": "local-lvm:vm-120-disk-0,cache=none,discard=on,iothread=1,serial=a%20b,size=64M",
                "scsi1": "local:120/vm-120-disk-0.qcow2,bps_rd=1000000,size=528K",
                "virtio0": "tank:vm-120-disk-0,future=1,size=64M",
                "ide0": "local:iso/img.iso,media=cdrom",
                "ide2": "local-lvm:vm-120-cloudinit,media=cdrom",
                "sata0": "none,media=cdrom",
                "efidisk0": "local-lvm:vm-120-disk-1,efitype=4m,pre-enrolled-keys=1,size=4M",
                "tpmstate0": "local-lvm:vm-120-disk-2,size=4M,version=v2.0",
                "unused0": "local-lvm:vm-120-disk-3",
            },
        },
        {"vmid": 121, "name": "web", "running": True, "config": {"scsi0": "local-lvm:vm-121-disk-0,size=64M"}},
        {"vmid": 122, "name": "web", "config": {"sata0": "local-lvm:vm-122-disk-0,ssd=1,size=64M"}},
    ],
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with started(SEED) as lab:
        yield lab


def adopt(lab: Lab, folder: Path, *flags: str) -> Run:
    return run_playbook("diskwright.proxmox.adopt", token_env(lab), *flags, cwd=folder)


def test_what_is_adopted_needs_no_change(lab: Lab, tmp_path: Path) -> None:
    assert adopt(lab, tmp_path).code == 0
    inventory = yaml.safe_load((tmp_path / "proxmox_guests.yml").read_text())
    assert sorted(inventory["proxmox_guests"]["hosts"]) == ["db1", "web-121", "web-122"]
    declared = inventory["proxmox_guests"]["hosts"]["db1"]["proxmox_disks"]
    assert sorted(declared) == sorted(
        ["scsi0", "scsi1", "virtio0", "ide0", "ide2", "sata0", "efidisk0", "tpmstate0"]
    )
    before = [lab.config(vmid) for vmid in (120, 121, 122)]
    run = run_playbook("diskwright.proxmox.converge", token_env(lab), "--diff", inventory=inventory, cwd=tmp_path)
    assert (run.code, "changed=0" in run.stdout) == (0, True), run.text
    assert [lab.config(vmid) for vmid in (120, 121, 122)] == before


def test_files_of_hosts(lab: Lab, tmp_path: Path) -> None:
    assert adopt(lab, tmp_path, "-e", "disk_adopt_into=host_vars disk_adopt_folder=inventory").code == 0
    assert sorted(path.name for path in (tmp_path / "inventory" / "host_vars").iterdir()) == [
        "db1.yml", "web-121.yml", "web-122.yml",
    ]  # fmt: skip
    text = (tmp_path / "inventory" / "host_vars" / "web-122.yml").read_text()
    assert text == (
        "---\nproxmox_vmid: 122\nproxmox_disks_scsihw: virtio-scsi-single\nproxmox_disks:\n  sata0:\n"
        "    storage: local-lvm\n    size: 64M\n    format: raw\n    ssd: true\n"
    )


def test_check_mode_writes_nothing(lab: Lab, tmp_path: Path) -> None:
    run = adopt(lab, tmp_path, "--check", "-e", "disk_adopt_folder=new")
    assert run.code == 0, run.text
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_changes_nothing_and_what_somebody_wrote_is_kept(lab: Lab, tmp_path: Path) -> None:
    adopt(lab, tmp_path)
    assert "changed=0" in adopt(lab, tmp_path).stdout
    path = tmp_path / "proxmox_guests.yml"
    path.write_text("mine")
    refused = adopt(lab, tmp_path)
    assert refused.code != 0
    assert f"says something else: {path}. Move it away" in " ".join(refused.text.split())
    assert path.read_text() == "mine"
    assert adopt(lab, tmp_path, "-e", "disk_adopt_overwrite=true").code == 0
    assert path.read_text() != "mine"
