# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role windows_virtio, as people run it: by its playbook, against a lab that plays the Windows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.iso9660 import IsoImage
from e2e import injecting
from e2e.kit import Run, Task, run_playbook, token_env
from e2e.migrations import (
    CONFIG,
    ISO,
    VMID,
    assert_data,
    hardware,
    inside,
    migratable,
    switched,
)
from e2e.test_windows_migrate import writes
from lab import Lab, node
from winguest.hivex_here import HIVEX
from winguest.media import all_files, write_iso

PLAYBOOK = "diskwright.proxmox.windows_virtio"
INVENTORY = {"all": {"hosts": {"win1": {}, "web1": {}, "localhost": {}}}}
MIGRATE = "Bring the guests to VirtIO"
SETUP = "local:iso/windows-server-2022.iso"
EMPTY = {"ostype": "win11", "bios": "ovmf", "machine": "q35", "net0": "virtio=BC:24:11:00:01:22,bridge=vmbr0"}


def run(
    lab: Lab,
    cwd: Path,
    *flags: str,
    inventory: dict[str, Any] | None = None,
    tools: dict[str, str] | None = None,
    **options: Any,
) -> Run:
    """The playbook with its options.

    :param tools: what the environment has beside the connection.
    """
    words = ["-e", json.dumps({f"windows_virtio_{name}": value for name, value in options.items()})]
    env = token_env(lab) | (tools or {})
    return run_playbook(PLAYBOOK, env, "--diff", *flags, *words, inventory=inventory or INVENTORY, cwd=cwd)


def task(done: Run, name: str, *, last: bool = False) -> Task:
    """A task of the role, the only one of its name or the last."""
    return [one for one in done.tasks if one.task == f"{PLAYBOOK} : {name}"][-1] if last else (
        done.task(f"{PLAYBOOK} : {name}")
    )


def table(done: Run) -> list[str]:
    """What the entry status prints."""
    return list(task(done, "Where the guests stand").result["msg"])


def test_status_then_migrate_then_status(tmp_path: Path) -> None:
    with migratable(tmp_path / "lab") as lab:
        before = hardware(lab)
        assert table(run(lab, tmp_path)) == ["win1                122  needs_drivers sata0    vioscsi is not installed"]
        check = run(lab, tmp_path, "--check", entry="migrate")
        assert (check.code, writes(lab), hardware(lab)) == (0, [], before), check.text
        real = run(lab, tmp_path, entry="migrate")
        assert real.code == 0, real.text
        assert task(real, MIGRATE).diff == task(check, MIGRATE).diff != ""
        assert hardware(lab) == switched(before)
        assert_data(lab)
        seen = writes(lab)
        again = run(lab, tmp_path, entry="migrate")
        assert (again.code, task(again, MIGRATE).changed, writes(lab)) == (0, False, seen)


def test_a_guest_that_was_rolled_back_fails_the_play(tmp_path: Path) -> None:
    """At the end, when the others are done, and in words."""
    with migratable(tmp_path / "lab") as lab:
        inside(lab).fails = "stage"
        first = run(lab, tmp_path, entry="migrate")
        assert first.code == 2
        assert task(first, "Judge").result["msg"].startswith("win1: Windows refused (stage)")
        assert task(first, "Judge").result["msg"].endswith("; everything is as it was")


@pytest.mark.slow
@injecting.needs_it
def test_without_an_agent_the_drivers_are_put_into_the_disk_on_the_node(tmp_path: Path) -> None:
    """A real NTFS volume with the registry of a Windows; one other guest has none, and is started again as it was."""
    iso = write_iso(tmp_path / "drivers.iso", all_files())
    windows = injecting.disk_with(tmp_path, injecting.windows_volume(tmp_path / "volume"))
    options = {"entry": "migrate", "node_hosts": {"pve1": "node"}, "agent_timeout": 1}
    options["state_folder"] = str(tmp_path / "state")
    hosts = {"win1": {}, "node": {"proxmox_vmtype": "node"}}
    with migratable(tmp_path / "lab", None) as lab:
        before = hardware(lab)
        lab.file(ISO).write_bytes(iso.read_bytes())
        tools = {
            "PATH": node.environment(lab.state, tmp_path / "bin")["PATH"],
            "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(Path(HIVEX.__file__).parent.parent)]),
        }
        inventory = {"all": {"hosts": hosts}}
        refused = run(lab, tmp_path, inventory=inventory, tools=tools, **options)
        assert refused.code == 2
        assert "win1: " in refused.text
        assert "Windows" in refused.text
        assert hardware(lab) == before
        assert lab.guest(VMID).running
        with lab.file("local-lvm:vm-122-disk-0").open("r+b") as disk:
            disk.write(windows.read_bytes())
        done = run(lab, tmp_path, inventory=inventory, tools=tools, retry=True, **options)
        assert done.code == 0, done.text
        assert hardware(lab) == switched(before)
        assert lab.guest(VMID).running
        registry, _files = injecting.seen(lab.file("local-lvm:vm-122-disk-0"), tmp_path)
        assert registry["\\ControlSet001\\Services\\vioscsi"]["Start"] == ("REG_DWORD", 0)
        assert "needs_verdict" in str(task(done, "Remember what became of them", last=True).result)
        assert run(lab, tmp_path, inventory=inventory, verdict="commit", entry="migrate").code == 0
        assert "<!--" not in lab.config(VMID)["description"]


def test_install(tmp_path: Path) -> None:
    disk = {"storage": "local-lvm", "size": "64M"}
    host = {"windows_virtio_disk": disk, "windows_virtio_work_folder": str(tmp_path / "work")}
    inventory = {"all": {"hosts": {"win1": host}}}
    options = {"entry": "install", "release": "2022", "setup_iso": SETUP, "answers": "drivers"}
    with migratable(tmp_path / "lab", None, base=EMPTY, running=False, contents={}) as lab:
        (lab.file(ISO).parent / SETUP.rpartition("/")[2]).write_bytes(b"Windows Setup")
        check = run(lab, tmp_path, "--check", inventory=inventory, **options)
        assert (check.code, writes(lab)) == (0, []), check.text
        real = run(lab, tmp_path, inventory=inventory, **options)
        assert real.code == 0, real.text
        config = hardware(lab)
        assert config["scsi0"].startswith("local-lvm:vm-122-disk-0,")
        assert config["scsihw"] == "virtio-scsi-single"
        assert config["boot"] == "order=scsi0;ide2"
        assert (config["ide2"].split(",")[0], config["ide0"].split(",")[0]) == (SETUP, ISO)
        check_answers(lab, config["sata5"].split(",")[0])
        seen = writes(lab)
        assert run(lab, tmp_path, inventory=inventory, **options).code == 0
        assert writes(lab) == seen
        assert run(lab, tmp_path, inventory=inventory, media="removed", **options).code == 0
        after = hardware(lab)
        assert {after[slot].split(",")[0] for slot in ("ide0", "ide2", "sata5")} == {"none"}
        assert after["scsi0"] == config["scsi0"]


def check_answers(lab: Lab, volid: str) -> None:
    """The ISO says where the drivers are, in the root, under the name that Setup looks for."""
    with IsoImage(str(lab.file(volid))) as image:
        text = image.read("autounattend.xml").decode()
    assert r"<Path>E:\vioscsi\2k22\amd64</Path>" in text
    assert text.startswith("<?xml")


def test_install_says_what_is_missing(tmp_path: Path) -> None:
    with migratable(tmp_path / "lab", None, running=False, config={**CONFIG, "ostype": "l26"}) as lab:
        done = run(lab, tmp_path, inventory={"all": {"hosts": {"win1": {}}}}, entry="install", release="2022")
        assert done.code == 2
        assert "win1: Proxmox VE has no Windows guest of this name or number" in done.text
        assert writes(lab) == []
