# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs and who tries them: each try has a guest, a user and a role of its own, all in one lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from e2e import kit
from e2e.kit import HERE, Outcome, converge
from lab import Lab

TABLE = yaml.safe_load((HERE / "permissions.yml").read_text())
JOBS: list[dict[str, Any]] = TABLE["jobs"]
FIRST = 1000


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
        config = {key: text.format(vmid=self.vmid) for key, text in TABLE["config"].items()}
        return {"vmid": self.vmid, "name": f"g{self.vmid}", "running": self.job.get("running", False), "config": config}

    def run(self, lab: Lab) -> Outcome:
        """Does the job."""
        guest = {"vmid": self.vmid, "disks": self.job.get("disks", []), **self.job.get("guest", {})}
        params = {key: self.job[key] for key in ("allow_destroy", "power") if key in self.job}
        return converge(lab, guest, tokenid=f"{self.user}!t", **params)


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
        "files": {"samples": ["local"], "local:iso/debian.iso": {"text": "an installer\n"}},
        "users": {
            "root@pam": {"tokens": {"test": {"privsep": False}}},
            **{one.user: {"tokens": {"t": {"privsep": False}}} for one in every},
        },
        "roles": {f"R{one.vmid}": list(one.privileges) for one in every},
        "acl": [
            {"path": path, "role": f"R{one.vmid}", "to": one.user} for one in every for path in ("/vms", "/storage")
        ],
        "guests": [*(one.seed() for one in every), other],
    }
