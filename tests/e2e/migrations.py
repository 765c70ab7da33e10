# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proofs of migrations to VirtIO have in common: a Windows in the lab, runs over it, and what it has to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.windows_migrate import (
    WindowsMigrate,
    migrate_spec,
)
from e2e import rig
from lab import Lab
from lab.windows import Windows, windows_of

VMID = 122
ISO = "local:iso/virtio-win-0.1.271.iso"
CONFIG = {
    "ostype": "win11",
    "agent": "1",
    "boot": "order=sata0;net0",
    "net0": "virtio=BC:24:11:00:01:22,bridge=vmbr0",
    "sata0": "local-lvm:vm-122-disk-0,cache=writeback,size=64M,ssd=1",
    "sata1": "tank:vm-122-disk-0,size=64M",
    "ide2": "none,media=cdrom",
    "description": "notes of mine",
}
AFTER = {"sata0": "scsi0", "sata1": "scsi1"}
NOTHING: Mapping[str, str] = {}


@contextmanager
def migratable(
    folder: Path,
    windows: Mapping[str, Any] | str | None = "2022",
    config: Mapping[str, str] = NOTHING,
    base: Mapping[str, str] = CONFIG,
    seed: Mapping[str, Any] = NOTHING,
    **guest: Any,
) -> Iterator[Lab]:
    """A lab with one Windows.

    :param windows: what the seed says of it; ``None`` for one without an agent.
    :param config: what it has beside or instead of ``base``.
    :param seed: what the lab has beside it.
    """
    words = {
        "vmid": VMID,
        "name": "win1",
        "running": True,
        "config": {**base, **config},
        "contents": {"sata0": "the system", "sata1": "the data"},
        **({"agent": {"windows": windows}} if windows else {}),
        **guest,
    }
    with rig.started(folder, [words], files={ISO: {"text": "drivers\n", "times": 1000}}, **seed) as lab:
        yield lab


@dataclass
class Outcome:
    """What a run says of its guests."""

    guests: list[dict[str, Any]]
    changed: bool
    failure: str | None
    diff: str
    warnings: list[str]

    @property
    def guest(self) -> dict[str, Any]:
        """The only one."""
        (found,) = self.guests
        return found

    @property
    def state(self) -> str:
        """How it ended."""
        return str(self.guest["state"])


def parameters(**params: Any) -> dict[str, Any]:
    """The module's parameters for the guest, or for `guests`."""
    defaults = {name: row.get("default") for name, row in migrate_spec().items()}
    own = {"task_timeout": 60, "shutdown_timeout": 60, "agent_timeout": 1, "iso": ISO}
    named = {} if "guests" in params else {"vmid": VMID}
    return {**defaults, **own, **named, **params}


def migrate(lab: Lab, *, check: bool = False, **params: Any) -> Outcome:
    """Runs the module without Ansible around it."""
    with rig.connect(lab) as client:
        work = WindowsMigrate(client, parameters(**params))
        work.prepare()
        if not check:
            work.execute()
        result = work.result(executed=not check)
    return Outcome(result.data["guests"], result.changed, result.failure, result.diff, result.warnings)


def hardware(lab: Lab, vmid: int = VMID) -> dict[str, str]:
    """What the next start will see, without the notes and what PVE keeps for itself."""
    config = rig.configured(lab, vmid)
    return {key: text for key, text in config.items() if key not in ("description", "digest", "parent", "meta")}


def switched(config: Mapping[str, str]) -> dict[str, str]:
    """What a switch has to make of it."""
    after = {AFTER.get(key, key): text for key, text in config.items()}
    return {**after, "boot": config["boot"].replace("sata0", "scsi0"), "scsihw": "virtio-scsi-single"}


def notes(lab: Lab, vmid: int = VMID) -> str:
    """What the user sees in the notes."""
    return re.sub(r"\n?<!-- diskwright.*? -->", "", rig.configured(lab, vmid).get("description", ""), flags=re.DOTALL)


def journal(lab: Lab, vmid: int = VMID) -> str:
    """The comment in the notes, or an empty text."""
    found = re.search(r"<!-- diskwright.*? -->", rig.configured(lab, vmid).get("description", ""), re.DOTALL)
    return found[0] if found else ""


def inside(lab: Lab, vmid: int = VMID) -> Windows:
    """The Windows that is played."""
    return windows_of(lab.guest(vmid))


def own_settings(lab: Lab, vmid: int = VMID) -> tuple[Any, ...]:
    """What must be as it was at the end; a policy that was never set is the default. Letters only while it runs."""
    windows, guest = inside(lab, vmid), lab.guest(vmid)
    letters = {name: letter for name, letter, _label in windows.volume_ids(guest)} if guest.running else None
    policy = windows.san_policy or (2 if windows.server else 1)
    return dict(windows.bitlocker), windows.fast_startup, policy, letters, set(windows.offline)


def assert_data(lab: Lab, vmid: int = VMID) -> None:
    """Both disks are there, with what was in them, each in one slot."""
    config = rig.configured(lab, vmid)
    texts = [
        rig.first_bytes(lab, text.partition(",")[0]).rstrip(b"\0").decode()
        for key, text in config.items()
        if re.fullmatch(r"(sata|scsi|virtio)\d+", key)
    ]
    assert sorted(texts) == ["the data", "the system"], config
    assert rig.doubles(lab, vmid) == []
    assert rig.unused(config) == []
    assert len(lab.volumes()) == 2, lab.volumes()
