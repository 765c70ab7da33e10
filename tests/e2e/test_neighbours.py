# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Beside the real community.proxmox: both in one play, and each "before" and "after" of the guide for its users.

Its package is large, so not every test run installs it: `nox -s neighbours` does, as a part of ./dev check.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench import playbooks
from e2e.kit import play, run_playbook, started, token_env
from lab import Lab
from tools.checkout import TOP

GUIDE = (TOP / "docs" / "from-community-proxmox.md").read_text("utf-8")
BLOCK = r"```yaml\n(.*?)```"
PAIRS = re.findall(rf"(?ms)^### ([^\n]+)\n\nBefore:\n\n{BLOCK}\n\nAfter( \(differs\))?:\n\n{BLOCK}", GUIDE)
IDS = [title for title, *_rest in PAIRS]
SEED = {
    "nodes": ["pve1"],
    "files": {"samples": ["local"], "local:iso/img.iso": {"text": "an ISO"}},
    "guests": [
        {
            "vmid": 120,
            "name": "db1",
            "config": {
                "scsihw": "virtio-scsi-single",
                "scsi0": "local-lvm:vm-120-disk-0,cache=writeback,discard=on,size=1G",
                "net0": "virtio=BC:24:11:00:01:20,bridge=vmbr0",
            },
        },
        {"vmid": 121, "name": "db2", "config": {"scsi0": "local-lvm:vm-121-disk-0,size=1G"}},
    ],
}
PEER = playbooks.PLACE / "peer"
with_the_peer = pytest.mark.skipif(
    not (PEER / "stamp").exists(), reason="community.proxmox is not installed here; nox -s neighbours brings it along"
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with started(SEED) as lab:
        yield lab


def peers_collections() -> str:
    """Where the package `ansible` has put its collections."""
    statement = "import ansible_collections as a; print(list(a.__path__)[0])"
    command = [str(PEER / "bin" / "python"), "-I", "-c", statement]
    return str(Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()).parent)


def environment(lab: Lab) -> dict[str, str]:
    """Both collections, and the lab by the names that both know."""
    token = token_env(lab) | {"PROXMOX_HOST": lab.host, "PROXMOX_PORT": str(lab.port)}
    paths = f"{(TOP / '.cache' / 'collections')}:{peers_collections()}"
    return {**token, "PROXMOX_VALIDATE_CERTS": "false", "ANSIBLE_COLLECTIONS_PATH": paths}


def tasks(text: str) -> list[dict[str, Any]]:
    return [{"name": f"task {number}", **task} for number, task in enumerate(yaml.safe_load(text))]


def hardware(lab: Lab) -> dict[str, str]:
    """What is in the slots of each guest, without the numbers that PVE gives to volumes."""
    slots = re.compile(r"(?:ide|sata|scsi|virtio|unused)\d+|efidisk0|scsihw|boot")
    configs: dict[int, Mapping[str, str]] = {vmid: lab.config(vmid) for vmid in (120, 121)}
    return {
        f"{vmid} {key}": re.sub(r"disk-\d+", "disk", text)
        for vmid, config in configs.items()
        for key, text in config.items()
        if slots.fullmatch(key)
    }


def options_of(kind: str, name: str) -> set[str]:
    """The options that the documentation of one of the peer's modules names."""
    place = Path(peers_collections(), "ansible_collections", "community", "proxmox", "plugins", kind, f"{name}.py")
    found = re.search(r'(?ms)^DOCUMENTATION = r?"""(.*?)"""', place.read_text("utf-8"))
    assert found is not None
    return set(yaml.safe_load(found[1])["options"])


def test_the_guide_has_a_pair_for_each_thing_that_one_does() -> None:
    assert len(PAIRS) == GUIDE.count("\nBefore:\n") == 9


@pytest.mark.parametrize(("after", "differs"), [pair[:1:-1] for pair in PAIRS], ids=IDS)
def test_after(after: str, differs: str, lab: Lab) -> None:
    """Ours alone: done once, nothing the second time."""
    first, second = (run_playbook(play(tasks(after)), token_env(lab)) for _round in range(2))
    assert (first.code, [task.changed for task in first.tasks]) == (0, [True]), first.text
    assert (second.code, [task.changed for task in second.tasks]) == (0, [False]), second.text


@with_the_peer
@pytest.mark.parametrize(("before", "differs", "after"), [pair[1:] for pair in PAIRS], ids=IDS)
def test_before_and_after_do_the_same(before: str, differs: str, after: str) -> None:
    found = []
    for text in (before, after):
        with started(SEED) as lab:
            run = run_playbook(play(tasks(text)), environment(lab))
            assert run.code == 0, run.text
            found.append(hardware(lab))
    theirs, ours = found
    assert (theirs != ours) == bool(differs)


@with_the_peer
def test_every_option_of_proxmox_disk_is_in_the_guide() -> None:
    table = GUIDE.partition("## Option by option")[2].partition("## The disks in")[0]
    named = {word for row in table.splitlines() for word in re.findall(r"`([a-z_]+)(?::[^`]*)?`", row.split(" | ")[0])}
    assert options_of("modules", "proxmox_disk") - named == set()


@with_the_peer
def test_both_in_one_play_with_the_same_words(lab: Lab) -> None:
    """The guide's last play: the guest by one, its disks by the other, and again."""
    (text,) = re.findall(r"(?ms)^```yaml\n(- community\.proxmox\.proxmox_kvm:.*?)```", GUIDE)
    common = {"api_host": lab.host, "api_port": lab.port, "api_user": "root@pam", "validate_certs": False}
    token = {**common, "api_token_id": "test", "api_token_secret": lab.token()}
    defaults = {"group/community.proxmox.proxmox": token, "group/diskwright.proxmox.api": token}
    env = {name: value for name, value in environment(lab).items() if not name.startswith("PROXMOX_")}
    for changed in (True, False):
        run = run_playbook(play(tasks(text), module_defaults=defaults), env)
        assert run.code == 0, run.text
        assert [task.changed for task in run.tasks] == [changed, changed]


@with_the_peer
def test_the_inventory_plugin_of_community_proxmox(lab: Lab, tmp_path: Path) -> None:
    env = environment(lab)
    source = tmp_path / "cluster.proxmox.yml"
    plugin = {
        "plugin": "community.proxmox.proxmox", "url": f"https://{lab.host}:{lab.port}", "user": "root@pam",
        "token_id": "test", "token_secret": lab.token(), "want_facts": True,
    }  # fmt: skip
    env["REQUESTS_CA_BUNDLE"] = str(lab.cafile)
    source.write_text(yaml.safe_dump(plugin))
    (tmp_path / "group_vars").mkdir()
    layer = {"proxmox_disks__base": {"scsi0": {"cache": "none"}}}
    (tmp_path / "group_vars" / "proxmox_all_qemu.yml").write_text(yaml.safe_dump(layer))
    run = run_playbook("diskwright.proxmox.converge", env, "-i", str(source), "--diff", cwd=tmp_path)
    assert run.code == 0, run.text
    assert "cache=none" in lab.config(120)["scsi0"]
