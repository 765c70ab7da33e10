# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proofs against the lab have in common: a lab with guests, runs over them, and eyes on what the lab holds."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout, read_layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Client, Endpoint
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.converge import Convergence
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.executor import Limits
from lab import Lab, images
from lab.api import ApiError
from lab.drives import drives, parse_drive
from lab.server import Request

TOKEN = "root@pam!test"
MARK = 64
"""How many of a volume's first bytes are looked at."""
NOTE = "<!-- diskwright"


@contextmanager
def started(folder: Path, guests: Sequence[Mapping[str, Any]], **seed: Any) -> Iterator[Lab]:
    """A lab that listens, with these guests and the default storages."""
    with Lab(folder, {"files": {}, **seed, "guests": guests}, time_scale=0.01) as lab:
        yield lab


def connect(lab: Lab, **settings: Any) -> Client:
    """A client with every right."""
    user, _, token = TOKEN.partition("!")
    return Client(
        Endpoint(lab.host, user, lab.port, token_id=token, token_secret=lab.token(TOKEN), **settings),
    )


def declared(guest: Mapping[str, Any], *, allow_destroy: bool = False) -> Layout:
    """The layout of one guest's declaration, which has no mistakes."""
    layout, refusals = read_layout(guest, Layout(allow_destroy=allow_destroy))
    assert not refusals, refusals
    return layout


def prepared(lab: Lab, *layouts: Layout, timeout: float = 60, concurrency: int = 4) -> Convergence:
    """A run that has planned and written nothing."""
    run = Convergence(connect(lab), [(layout, ()) for layout in layouts], Limits(timeout), concurrency=concurrency)
    run.prepare()
    return run


def converged(lab: Lab, *layouts: Layout, timeout: float = 60, concurrency: int = 4) -> Convergence:
    """A run to its end, good or bad."""
    run = prepared(lab, *layouts, timeout=timeout, concurrency=concurrency)
    run.execute()
    return run


def messages(run: Convergence) -> str:
    """Everything that went wrong in a run."""
    return "\n".join(text for job in run.jobs for text in job.messages)


def warnings(run: Convergence) -> list[str]:
    """What a run warns of."""
    return [
        text
        for job in run.jobs
        for text in (*(job.plan.warnings if job.plan else ()), *(job.outcome.warnings if job.outcome else ()))
    ]


def assert_settled(lab: Lab, *layouts: Layout) -> None:
    """Another run has nothing to do, nothing against it, and writes nothing."""
    seen = len(lab.writes())
    again = converged(lab, *layouts)
    assert not messages(again)
    assert [job.plan.actions for job in again.jobs if job.plan] == [()] * len(layouts)
    assert lab.writes()[seen:] == []


# ---- what the lab holds


def configured(lab: Lab, vmid: int) -> dict[str, str]:
    """The configuration as the next start will see it."""
    guest = lab.guest(vmid)
    values = {**guest.conf.values, **{key: text for key, text in guest.conf.pending.items() if key != "delete"}}
    return {key: text for key, text in values.items() if key not in guest.conf.deletions()}


def unused(config: Mapping[str, str]) -> list[str]:
    """The volumes that no slot uses."""
    return sorted(text for key, text in config.items() if key.startswith("unused"))


def volume_in(config: Mapping[str, str], slot: str) -> str:
    """The volume in a slot."""
    drive = parse_drive(slot, config[slot])
    assert drive is not None
    return drive.file


def first_bytes(lab: Lab, volid: str) -> bytes:
    """What a guest reads at the beginning of a volume."""
    storages = lab.cluster.storages(lab.cluster.nodes[0])
    name = storages.parse_volname(volid)
    return images.read(storages.place(volid), name.format, MARK)


def contents(lab: Lab) -> dict[str, bytes]:
    """Every volume with its first bytes."""
    return {volid: first_bytes(lab, volid) for volid in lab.volumes()}


def image_info(lab: Lab, volid: str) -> tuple[str, int]:
    """Format and virtual size in bytes, from the image itself; a raw image shows none, so its name has to do."""
    file = lab.file(volid)
    done = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", str(file)], capture_output=True, check=True, text=True
    )
    info = json.loads(done.stdout)
    return str(info["format"]), int(info["virtual-size"])


# ---- eyes


def doubles(lab: Lab, vmid: int) -> list[str]:
    """Volumes in two slots at once: in the running guest, in the configuration in force, in that of the next start."""
    guest = lab.guest(vmid)
    found = []
    states = {
        "runs": guest.running.drives if guest.running else {},
        "in force": guest.conf.values,
        "next start": configured(lab, vmid),
    }
    for state, values in states.items():
        slots = [(slot, drive.file) for slot, drive in drives(values) if not drive.is_medium]
        times = Counter(file for _slot, file in slots)
        found += [f"{state}: {file} in {[s for s, f in slots if f == file]}" for file in times if times[file] > 1]
    return found


class Watch(list[Request]):
    """The lab's log of requests, which looks at every guest when a request has been answered.

    :ivar seen: volumes that were in two slots, and after which request.
    """

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self.seen: list[str] = []
        lab.server.log = self

    def append(self, request: Request) -> None:
        super().append(request)
        for guest in self._lab.cluster.guests():
            try:
                with self._lab.cluster.lock(guest.vmid):  # what a call does under its lock is PVE's own affair
                    found = doubles(self._lab, guest.vmid)
            except ApiError:
                continue  # a task sleeps on the lock: it is looked at after the next request
            self.seen += [f"{text}, after {request.method} {request.path} {request.params}" for text in found]


def sent(requests: Iterable[Request], vmid: int) -> list[tuple[str, dict[str, str]]]:
    """The writes to one guest: method and last part of the path, parameters without the digest."""
    found = []
    for request in requests:
        match = re.search(rf"/qemu/{vmid}/(.*)", request.path)
        if request.writes and match:
            found.append((f"{request.method} {match[1]}", {k: v for k, v in request.params.items() if k != "digest"}))
    return found
