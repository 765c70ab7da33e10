# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role windows_virtio, as people run it: by its playbook, against a lab that plays the Windows."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.iso9660 import IsoImage
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import find_iso
from e2e import injecting, rig
from e2e.kit import Run, Task, converge, play, run_playbook, token_env
from e2e.migrations import (
    CONFIG,
    ISO,
    VMID,
    assert_data,
    hardware,
    inside,
    migratable,
    migrate,
    switched,
)
from e2e.test_windows_migrate import writes
from lab import Lab, node
from tools.checkout import TOP
from winguest.hivex_here import HIVEX
from winguest.media import all_files, write_iso

PLAYBOOK = "diskwright.proxmox.windows_virtio"
INVENTORY = {"all": {"hosts": {"win1": {}, "web1": {}, "localhost": {}}}}
MIGRATE = "Bring the guests to VirtIO"
USER = "ansible@pve"
SETUP = "local:iso/windows-server-2022.iso"


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


def said(done: Run) -> list[str]:
    """What the entry migrate prints in the end."""
    return list(task(done, "What became of the guests").result["msg"])


def windows(vmid: int, name: str, **words: Any) -> dict[str, Any]:
    """One more Windows for a seed, on SATA and running, without an agent."""
    config = {
        "ostype": "win11",
        "agent": "0",
        "boot": "order=sata0",
        "sata0": f"local-lvm:vm-{vmid}-disk-0,size=64M",
        **words.pop("config", {}),
    }
    return {"vmid": vmid, "name": name, "running": True, "config": config, **words}


def test_what_one_guest_misses_keeps_no_other(tmp_path: Path) -> None:
    """A driver ISO that can't be brought, a node that can't be reached, a Windows without a driver: each is refused
    while it still runs, and the others go on."""
    guests = [
        windows(122, "win1", agent={"windows": "2022"}, config={"agent": "1", "ide2": "none,media=cdrom"}),
        windows(123, "far1", agent={"windows": "2022"}, config={"agent": "1"}, node="pve2"),
        windows(124, "dark1"),
        windows(125, "xp1", config={"ostype": "wxp"}),
    ]
    hosts = {str(guest["name"]): {"proxmox_vmid": guest["vmid"]} for guest in guests}
    dark = {"proxmox_vmtype": "node", "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    inventory = {"all": {"hosts": {**hosts, "node1": dark}}}
    options = {"entry": "migrate", "node_hosts": {"pve1": "node1"}, "agent_timeout": 1, "hosts": "all:!node1"}
    seed = {"nodes": ["pve1", "pve2"], "files": {ISO: {"text": "drivers\n"}}}
    with rig.started(tmp_path / "lab", guests, **seed) as lab:
        others = {vmid: hardware(lab, vmid) for vmid in (123, 124, 125)}
        check = run(lab, tmp_path, "--check", inventory=inventory, **options)
        assert (check.code, writes(lab)) == (2, []), check.text
        real = run(lab, tmp_path, inventory=inventory, **options)
        assert real.code == 2, real.text
        assert "scsi0" in hardware(lab, 122)
        assert {vmid: hardware(lab, vmid) for vmid in others} == others
        assert all(lab.guest(vmid).running for vmid in others)
        assert [path for path in {one.path for one in lab.writes()} if "/qemu/124/" in path] == []
        lines = said(real)
        assert lines[0] == "win1                122  committed"
        # That a download will fail, nobody knows beforehand.
        assert [said(check)[0], *said(check)[2:]] == [lines[0].replace("committed", "would be committed"), *lines[2:]]
        assert "refused               its driver ISO can't be brought to pve2: local:iso/virtio-win-0.1.271" in lines[1]
        assert "refused               the drivers have to be put into its disk on pve1, and that can't be" in lines[2]
        assert "onnect" in lines[2]
        assert "windows_virtio_node_hosts says which host a node is" in lines[2]
        assert lines[3].endswith("there is no vioscsi for Windows XP; write windows_virtio_bus=virtio")
        assert task(real, "Judge").result["msg"].splitlines() == [
            line[: line.index(" ")] + ": " + line[line.index("refused") + 22 :] for line in lines[1:]
        ]
        assert "unreachable=0" in real.stdout


def test_back_without_the_driver_iso_and_a_verdict_that_is_waited_for(tmp_path: Path) -> None:
    guests = [windows(122, "off1"), windows(123, "new1")]
    inventory = {"all": {"hosts": {"off1": {}, "new1": {}}}}
    with rig.started(tmp_path / "lab", guests, files={}) as lab:
        before = {vmid: hardware(lab, vmid) for vmid in (122, 123)}
        assert migrate(lab, iso=None, staging="offline").state == "needs_offline_staging"
        assert migrate(lab, vmid=123, iso=None, injected=["vioscsi"]).state == "needs_verdict"
        waiting = run(lab, tmp_path, "-l", "new1", inventory=inventory, entry="migrate")
        assert (waiting.code, task(waiting, MIGRATE).changed) == (2, False)
        wish = "run again with windows_virtio_verdict=commit or windows_virtio_verdict=roll_back"
        assert task(waiting, "Judge").result["msg"].startswith("new1: it was started from VirtIO and has no agent")
        assert task(waiting, "Judge").result["msg"].endswith(wish)
        lines = table(run(lab, tmp_path, inventory=inventory))
        assert lines[0].startswith("off1                122  under_way     sata0")
        assert lines[0].endswith("migrate goes on with it, windows_virtio_verdict=roll_back takes it back")
        assert lines[1].startswith("new1                123  ")
        assert "windows_virtio_verdict=roll_back" in lines[1]
        back = run(lab, tmp_path, inventory=inventory, entry="migrate", verdict="roll_back")
        assert back.code == 0, back.text
        assert {vmid: hardware(lab, vmid) for vmid in before} == before
        assert all(lab.guest(vmid).running for vmid in before)
        assert table(run(lab, tmp_path, inventory=inventory))[1].endswith("; windows_virtio_retry=true tries again")


def test_an_entrys_own_options_are_looked_at_before_anything_is_done(tmp_path: Path) -> None:
    with migratable(tmp_path / "lab", None) as lab:
        done = run(lab, tmp_path, "-l", "win1", entry="migrate", agent_timeout="soon", verdict="maybe")
        assert done.code == 2
        assert "windows_virtio_agent_timeout" in done.text
        assert "value of windows_virtio_verdict must be one of: agent, commit, roll_back, got: maybe" in done.text
        assert writes(lab) == []


def proposed() -> dict[str, Any]:
    """For a seed: the user whom README.md and the guide to Windows propose, with the rights that they propose."""
    text = "".join((TOP / page).read_text("utf-8") for page in ("README.md", "docs/windows-from-vmware.md"))
    roles = dict(re.findall(r'(?m)^# pveum role add (\S+) --privs "(.*)"$', text))
    entries = re.findall(r"(?m)^# pveum acl modify (\S+) --users (\S+) --roles (\S+)$", text)
    return {
        "users": dict.fromkeys(["root@pam", USER], {"tokens": {"test": {"privsep": False}}}),
        "roles": {name: rights.split() for name, rights in roles.items()},
        "acl": [{"path": path, "role": role, "to": user} for path, user, role in entries if role in roles],
    }


def test_status_then_migrate_then_status_with_the_rights_that_are_proposed(tmp_path: Path) -> None:
    guest = {"vmid": VMID, "name": "win1", "running": True, "config": CONFIG, "agent": {"windows": "2022"}}
    guest["contents"] = {"sata0": "the system", "sata1": "the data"}
    web = {find_iso("0.1.271").url: {"text": "drivers\n"}}
    with rig.started(tmp_path / "lab", [guest], web=web, **proposed()) as lab:
        tools = token_env(lab, f"{USER}!test")
        before = hardware(lab)
        assert table(run(lab, tmp_path, tools=tools)) == [
            "win1                122  needs_drivers sata0    vioscsi is not installed",
            "left out, as Proxmox VE has no Windows guest of this name or number: localhost, web1",
        ]
        check = run(lab, tmp_path, "--check", entry="migrate", tools=tools)
        assert (check.code, writes(lab), hardware(lab)) == (0, [], before), check.text
        real = run(lab, tmp_path, entry="migrate", tools=tools)
        assert real.code == 0, real.text
        plans = [[line.split() for line in task(one, MIGRATE).diff.splitlines()] for one in (real, check)]
        assert plans[0] == [line for line in plans[1] if line[:2] != ["?", "iso"]] != []
        assert hardware(lab) == switched(before)
        assert_data(lab)
        seen = writes(lab)
        again = run(lab, tmp_path, entry="migrate", tools=tools)
        assert (again.code, task(again, MIGRATE).changed, writes(lab)) == (0, False, seen)
        assert [said(one) for one in (check, real, again)] == [
            ["win1                122  would be committed"],
            ["win1                122  committed"],
            ["win1                122  on_virtio"],
        ]
        by_hand(lab)


def by_hand(lab: Lab) -> None:
    """The way back that the guide gives for the night when the role can't, while the guest runs."""
    guide = (TOP / "docs/windows-back.md").read_text("utf-8")
    ((task,), *_others) = (yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```$", guide))
    guest = task["diskwright.proxmox.guest_disks"]
    outcome = converge(lab, {key: guest[key] for key in ("vmid", "disks")}, power=guest["power"])
    assert (outcome.failure, lab.guest(VMID).running is not None) == (None, True)
    assert hardware(lab)["sata0"].startswith("local-lvm:vm-122-disk-0,")
    assert hardware(lab)["boot"].startswith("order=sata0")


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
        assert said(refused)[0].startswith(
            "win1                122  rolled_back           its disk on pve1 could not take the drivers: "
        )
        assert said(refused)[0].endswith("; everything is as it was")
        assert hardware(lab) == before
        assert lab.guest(VMID).running
        with lab.file("local-lvm:vm-122-disk-0").open("r+b") as disk:
            disk.write(windows.read_bytes())
        done = run(lab, tmp_path, inventory=inventory, tools=tools, retry=True, **options)
        assert done.code == 2, done.text  # until somebody has said how it is
        assert task(done, "Judge").result["msg"].startswith("win1: it was started from VirtIO and has no agent to say")
        assert hardware(lab) == switched(before)
        assert lab.guest(VMID).running
        registry, _files = injecting.seen(lab.file("local-lvm:vm-122-disk-0"), tmp_path)
        assert registry["\\ControlSet001\\Services\\vioscsi"]["Start"] == ("REG_DWORD", 0)
        assert "needs_verdict" in str(task(done, "Remember what became of them", last=True).result)
        assert run(lab, tmp_path, inventory=inventory, verdict="commit", entry="migrate").code == 0
        assert "<!--" not in lab.config(VMID)["description"]


def test_install(tmp_path: Path) -> None:
    """From the guide's own guest on."""
    guide = (TOP / "docs/windows-install.md").read_text("utf-8")
    make, *_others = (yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```$", guide))
    disk = {"storage": "local-lvm", "size": "64M"}
    inventory = {"all": {"hosts": {"win1": {"windows_virtio_disk": disk}}}}
    options = {"entry": "install", "release": "2022", "setup_iso": SETUP, "answers": "drivers"}
    with rig.started(tmp_path / "lab", [], files={ISO: {"text": "drivers\n"}}) as lab:
        made = run_playbook(play(make), token_env(lab), cwd=tmp_path)
        assert made.code == 0, made.text
        seen = writes(lab)
        (lab.file(ISO).parent / SETUP.rpartition("/")[2]).write_bytes(b"Windows Setup")
        check = run(lab, tmp_path, "--check", inventory=inventory, **options)
        assert (check.code, writes(lab)) == (0, seen), check.text
        real = run(lab, tmp_path, inventory=inventory, **options)
        assert real.code == 0, real.text
        config = hardware(lab)
        answers = config["sata5"].split(",")[0]
        assert task(check, "Send it to the storage").diff.startswith(f"{answers} on pve1\n  + uploaded from ")
        later = task(check, "What is inserted as soon as it is on the storage").result["msg"]
        assert later == [f"+ sata5  CD-ROM drive, {answers}"]
        assert "+ ide0" in task(check, "Insert what Setup needs").diff
        assert config["scsi0"].startswith("local-lvm:vm-122-disk-2,")
        assert config["scsihw"] == "virtio-scsi-single"
        assert config["boot"] == "order=scsi0;ide2"
        assert config["efidisk0"].split(",")[1:3] == ["efitype=4m", "pre-enrolled-keys=1"]
        assert "version=v2.0" in config["tpmstate0"]
        assert (config["ide2"].split(",")[0], config["ide0"].split(",")[0]) == (SETUP, ISO)
        check_answers(lab, answers)
        seen = writes(lab)
        assert run(lab, tmp_path, inventory=inventory, **options).code == 0
        assert writes(lab) == seen
        assert run(lab, tmp_path, inventory=inventory, media="removed", **options).code == 0
        after = hardware(lab)
        assert {after[slot].split(",")[0] for slot in ("ide0", "ide2", "sata5")} == {"none"}
        assert after["scsi0"] == config["scsi0"]
        assert not lab.file(answers).exists()
        assert run(lab, tmp_path, inventory=inventory, media="removed", **options).code == 0
    assert list(Path(tempfile.gettempdir()).glob("windows_virtio-*")) == []


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
