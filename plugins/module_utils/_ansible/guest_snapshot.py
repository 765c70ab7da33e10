# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``guest_snapshot``: from its parameters to its result."""

from __future__ import annotations

import typing as t
from dataclasses import asdict

from .._core.errors import DiskwrightError, PlanRefusedError
from .._core.layout import Layout
from .._core.snapshot import (
    STATES,
    Entry,
    SnapshotFacts,
    SnapshotPlan,
    SnapshotWish,
    Step,
    disks_of,
    plan_snapshot,
    set_aside,
)
from .._pve.reads import find_guest, read_again
from .._pve.snapshots import carry_out, check_after, read_facts, wait_until_settled
from .._pve.tasks import Deadline, TaskTimeoutError
from .one_guest import one_guest_spec
from .runner import Result

if t.TYPE_CHECKING:
    from .._pve.client import Client


def snapshot_spec() -> dict[str, dict[str, t.Any]]:
    """The module's arguments."""
    return {
        **one_guest_spec(),
        "snapshot": {"type": "str", "required": True},
        "state": {"type": "str", "default": "present", "choices": list(STATES)},
        "description": {"type": "str"},
        "vmstate": {"type": "bool"},
        "start": {"type": "bool", "default": False},
    }


class GuestSnapshot:
    """Takes or removes one snapshot of one guest, or goes back to it."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        self._client = client
        self._layout = Layout(vmid=params["vmid"], name=params["name"], node=params["node"])
        self._wish = SnapshotWish(
            params["snapshot"], params["state"], params["description"], params["vmstate"], params["start"]
        )
        self._seconds = float(params["task_timeout"])
        self._plan = SnapshotPlan()
        self._done = False
        self._error: str | None = None
        self._upid = ""
        self._warnings: list[str] = []

    def prepare(self) -> None:
        """Read and plan. A snapshot job that is under way, of a run that was killed for example, is waited for."""
        guest = find_guest(self._client, self._layout)
        if guest.lock and wait_until_settled(self._client, guest, Deadline(self._seconds)):
            guest = read_again(self._client, guest)
        self._facts: SnapshotFacts = read_facts(self._client, guest, self._wish)
        self._plan = plan_snapshot(self._facts, self._wish)
        if self._plan.refusals:
            raise PlanRefusedError(self._plan.refusals)
        self._after = (guest, self._facts.entries, self._facts.parent)

    def execute(self) -> None:
        """Carry the plan out."""
        if self._plan.step is None:
            return
        guest = self._facts.guest
        try:
            outcome = carry_out(self._client, guest, self._wish, self._plan.step, Deadline(self._seconds))
            self._warnings = [f"{guest.label}: {text}" for text in outcome.warnings]
            self._done = True
            self._after = check_after(self._client, guest, self._wish)
        except TaskTimeoutError as error:
            self._error, self._upid = f"{guest.label}: {error}", error.upid
        except DiskwrightError as error:
            self._error = f"{guest.label}: {error}".replace(f"{guest.label}: {guest.label}: ", f"{guest.label}: ")

    def result(self, *, executed: bool) -> Result:
        """What was planned and done."""
        guest, entries, parent = self._after
        step = self._plan.step
        changed = self._done if executed else step is not None
        data: dict[str, t.Any] = {
            "vmid": guest.vmid,
            "name": guest.name,
            "node": guest.node,
            "status": guest.state,
            "step": step.value if step and changed else None,
            "snapshots": [asdict(entry) for entry in entries],
            "parent": parent,
        }
        if self._upid:
            data["upid"] = self._upid
        return Result(data, changed, self._error, self._diff(), self._warnings)

    def _diff(self) -> str:
        step, guest = self._plan.step, self._facts.guest
        if step is None:
            return ""
        name, entry = self._wish.name, self._facts.find(self._wish.name)
        if step is Step.TAKE:
            lines = [f"+ {name}  snapshot of {self._contents()}"]
        elif step is Step.DELETE:
            lines = [f"- {name}  the snapshot, with all that only it holds"]
        elif step is Step.DESCRIBE:
            lines = [f"~ {name}  {_words(entry)} -> {self._wish.description!r}"]
        else:
            lines = [f"< {name}  all that has changed since is thrown away", *self._fate(entry)]
        head = f"{guest.name or guest.vmid} ({guest.vmid} on {guest.node}, {guest.state})"
        return "\n".join([head, *(f"  {line}" for line in lines)]) + "\n"

    def _contents(self) -> str:
        parts = [str(slot) for slot in disks_of(self._facts.guest)] or ["the configuration"]
        return ", ".join([*parts, "the memory"] if self._wish.vmstate else parts)

    def _fate(self, entry: Entry | None) -> list[str]:
        """What else going back does."""
        guest, lines = self._facts.guest, []
        if entry and entry.vmstate:
            lines.append("~ the guest goes on from where it was then")
        elif guest.running:
            lines.append(f"~ the guest is stopped{' and started again' if self._wish.start else ''}")
        elif self._wish.start:
            lines.append("~ the guest is started")
        aside = set_aside(guest, self._facts.volumes.get(self._wish.name, frozenset()))
        return lines + [f"~ {slot} was made since: its volume is kept as unused" for slot in aside]


def _words(entry: Entry | None) -> str:
    return repr(entry.description.rstrip()) if entry else "''"
