# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs and who tries them: each try has a guest, a user and a role of its own, all in one lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_power import GuestPower, power_spec
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_snapshot import (
    GuestSnapshot,
    snapshot_spec,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.storage_file import StorageFile, file_spec
from e2e import kit
from e2e.kit import HERE, Outcome, converge, run_work
from lab import Lab

TABLE = yaml.safe_load((HERE / "permissions.yml").read_text())
JOBS: list[dict[str, Any]] = TABLE["jobs"]
FIRST = 1000
#: What is added to a guest's number for the guest that its disk comes from.
GIVER = 50000
#: What makes a module's work, and its arguments. A job without `module` is one of guest_disks.
MODULES = {
    "guest_power": (GuestPower, power_spec()),
    "guest_snapshot": (GuestSnapshot, snapshot_spec()),
    "storage_file": (StorageFile, file_spec()),
}


@dataclass(frozen=True)
class Try:
    """One job with some privileges."""

    vmid: int
    job: Mapping[str, Any]
    privileges: tuple[str, ...]

    @property
    def user(self) -> str:
        """Who tries it."""
        return f"try{self.vmid}@pve"

    def seed(self) -> dict[str, Any]:
        """The guest."""
        config = _formatted(self.job.get("config", TABLE["config"]), self.vmid)
        words = {key: self.job[key] for key in ("running", "agent", "snapshots") if key in self.job}
        return {"vmid": self.vmid, "name": f"g{self.vmid}", **words, "config": config}

    def giver(self) -> Iterator[dict[str, Any]]:
        """The guest that a disk comes from, if the job has one."""
        if "giver" in self.job:
            vmid = self.vmid + GIVER
            yield {"vmid": vmid, "name": f"giver{self.vmid}", "config": _formatted(self.job["giver"], vmid)}

    def run(self, lab: Lab) -> Outcome | Result:
        """Does the job."""
        tokenid = f"{self.user}!t"
        if "module" in self.job:
            words = {"vmid": self.vmid, "here": __file__}
            params = {
                key: value.format_map(words) if isinstance(value, str) else value
                for key, value in self.job["params"].items()
            }
            if self.job["module"] != "storage_file":
                params["vmid"] = self.vmid
            return run_work(lab, *MODULES[self.job["module"]], tokenid=tokenid, **params)
        disks = [_formatted(disk, self.vmid) for disk in self.job.get("disks", [])]
        guest = {"vmid": self.vmid, "disks": disks, **self.job.get("guest", {})}
        params = {key: self.job[key] for key in ("allow_destroy", "power") if key in self.job}
        return converge(lab, guest, tokenid=tokenid, **params)


@contextmanager
def started(tries: Iterable[Try]) -> Iterator[Lab]:
    """A lab with all that these tries need."""
    with kit.started(seed(tries)) as lab:
        yield lab


def seed(tries: Iterable[Try]) -> dict[str, Any]:
    """A lab's seed for these tries. Everyone's role holds where README.md grants it."""
    every = list(tries)
    other = {"vmid": 99999, "name": "other", "config": {"scsi0": "local-lvm:vm-99999-disk-0,size=4M"}}
    return {
        "files": {
            "samples": ["local"],
            "local:iso/debian.iso": {"text": "an installer\n"},
            **{f"local:iso/old{one.vmid}.iso": {"text": "an old installer\n"} for one in every},
        },
        "web": {"https://example.com/new.iso": {"text": "a new installer\n"}},
        "users": {
            "root@pam": {"tokens": {"test": {"privsep": False}}},
            **{one.user: {"tokens": {"t": {"privsep": False}}} for one in every},
        },
        "roles": {f"R{one.vmid}": list(one.privileges) for one in every},
        "acl": [
            {"path": path, "role": f"R{one.vmid}", "to": one.user}
            for one in every
            for path in ("/vms", "/storage", "/nodes")
        ],
        "guests": [*(one.seed() for one in every), *(giver for one in every for giver in one.giver()), other],
    }


def _formatted(values: Mapping[str, Any], vmid: int) -> dict[str, Any]:
    return {key: value.format(vmid=vmid) if isinstance(value, str) else value for key, value in values.items()}
