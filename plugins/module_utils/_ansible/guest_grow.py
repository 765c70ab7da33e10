# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``guest_grow``: from its parameters to its result."""

from __future__ import annotations

import typing as t

from .._core.errors import DiskwrightError, PlanRefusedError, Refusal
from .._core.growth import Growth, Plugged, Seen, Step, Todo, match_slots, plan_growth
from .._core.growth_linux import carry_out, look, read_outcome, read_system
from .._core.layout import Layout
from .._core.size import human_size
from .._core.slot import parse_slot
from .._pve.agent import POSIX, Agent
from .._pve.reads import find_guest
from .._windows.growth import Disk, Extension, plan_space, read_space
from .one_guest import one_guest_spec
from .runner import Result
from .windows_guest import WindowsGuest

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .._core.guest import Guest
    from .._pve.client import Client


def guest_grow_spec() -> dict[str, dict[str, t.Any]]:
    """The module's arguments."""
    return {
        **one_guest_spec(),
        "slot": {"type": "list", "elements": "str"},
        "logical_volume": {"type": "str"},
    }


class GuestGrow:
    """Lets partitions, volumes and file systems inside a guest use what its disks have."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        self._client = client
        self._layout = Layout(vmid=params["vmid"], name=params["name"], node=params["node"])
        self._slots = [str(parse_slot(slot)) for slot in params["slot"] or ()]
        self._chosen: str | None = params["logical_volume"]
        self._timeout = float(params["task_timeout"])
        self._plans: dict[str, Growth] = {}
        self._devices: dict[str, str] = {}

    def prepare(self) -> None:
        """Look into the guest, and plan."""
        guest = find_guest(self._client, self._layout)
        self._guest = guest
        agent = Agent(self._client, guest.node, guest.vmid, guest.label, self._timeout)
        self._inside: _Inside = _Windows(agent) if agent.is_windows() else _Linux(agent, self._chosen)
        self._plan()
        refused = [
            Refusal(guest.label, slot, "", "", f"{plan.todo.what}: {plan.todo.problem}", plan.todo.remedy)
            for slot, plan in self._plans.items()
            if slot in self._slots and plan.todo is not None and not plan.steps
        ]
        if refused:
            raise PlanRefusedError(tuple(refused))

    def _plan(self) -> None:
        plugged = list(_plugged(self._guest))
        self._check_slots(plugged)
        seen = {disk.name: disk for disk in self._inside.look()}
        self._devices = match_slots(plugged, seen.values())
        wanted = [drive for drive in plugged if not self._slots or drive.slot in self._slots]
        ready = {}
        for drive in wanted:
            problem = _not_ready(drive, seen.get(self._devices.get(drive.slot, "")))
            if problem is None:
                ready[drive.slot] = self._devices[drive.slot]
            self._plans[drive.slot] = Growth(todo=problem)
        plans = self._inside.plan(ready.values())
        self._plans |= {slot: plans[device] for slot, device in ready.items()}

    def _check_slots(self, plugged: list[Plugged]) -> None:
        known = [drive.slot for drive in plugged]
        unknown = [slot for slot in self._slots if slot not in known]
        if unknown:
            raise PlanRefusedError(
                tuple(
                    Refusal(self._guest.label, slot, "", "", "the running guest has no disk there",
                            f"it has {', '.join(known) or 'none'}")
                    for slot in unknown
                )
            )  # fmt: skip

    def execute(self) -> None:
        """Carry the steps out, and look again whether nothing is left to do."""
        steps = self._steps()
        if not steps:
            return
        done, said = self._inside.carry_out(steps)
        if said:
            failed = steps[done]
            before = ", ".join(f"{step.what} ({step.text})" for step in steps[:done]) or "nothing"
            raise DiskwrightError(
                f"{self._guest.label}: {failed.what}: {failed.text}: failed, and the guest says: {said}; "
                f"done before: {before}; the next run goes on where this one ended"
            )
        planned, self._plans = self._plans, {}
        self._plan()
        left = self._steps()
        self._plans = planned
        if left:
            texts = "; ".join(f"{step.what}: {step.text}" for step in left)
            raise DiskwrightError(f"{self._guest.label}: the guest was told, and it is not so: {texts}")

    def _steps(self) -> list[Step]:
        return [step for plan in self._plans.values() for step in plan.steps]

    def result(self, *, executed: bool) -> Result:
        """What was planned and done."""
        state = "done" if executed else "planned"
        todos = {slot: str(plan.todo) for slot, plan in self._plans.items() if plan.todo is not None}
        return Result(
            data={
                "vmid": self._guest.vmid,
                "name": self._guest.name,
                "node": self._guest.node,
                "disks": [
                    {
                        "slot": slot,
                        "device": self._devices.get(slot),
                        "actions": [{"what": step.what, "text": step.text, "state": state} for step in plan.steps],
                        "todo": todos.get(slot),
                        "table": self._inside.table(self._devices.get(slot, "")) if plan.steps else None,
                    }
                    for slot, plan in self._plans.items()
                ],
            },
            changed=bool(self._steps()),
            diff=self._diff(),
            warnings=[f"{self._guest.label}: {slot}: {text}" for slot, text in todos.items()],
        )

    def _diff(self) -> str:
        steps = self._steps()
        if not steps:
            return ""
        guest, width = self._guest, max(len(step.what) for step in steps)
        lines = [f"{guest.name or guest.vmid} ({guest.vmid} on {guest.node}, {guest.state})"]
        lines += [f"  ~ {step.what:<{width}}  {step.text}" for step in steps]
        return "\n".join(lines) + "\n"


def _plugged(guest: Guest) -> Iterator[Plugged]:
    """The disks that a guest has now."""
    for slot, drive in guest.live.drives.items():
        if drive.is_disk and not slot.is_firmware:
            yield Plugged(str(slot), drive.size or 0, drive.get("serial"))


def _not_ready(drive: Plugged, seen: Seen | None) -> Todo | None:
    """Why a disk can't be looked at."""
    if seen is None:
        problem = "it can't be told which disk of the guest this is"
        return Todo(drive.slot, problem, "give its drive a serial number with guest_disks, and restart the guest")
    if seen.size < drive.size:
        problem = f"the guest sees {human_size(seen.size)} of its {human_size(drive.size)}"
        return Todo(drive.slot, problem, "restart the guest: with this bus it looks at the size only when it starts")
    return None


class _Inside(t.Protocol):
    """The storage of a guest, seen from inside."""

    def look(self) -> tuple[Seen, ...]:
        """What is there now."""

    def plan(self, names: Iterable[str]) -> Mapping[str, Growth]:
        """What it takes for disks to be used to their ends, after the last look."""

    def carry_out(self, steps: list[Step]) -> tuple[int, str]:
        """Do it. :returns: how many steps were done, and what the next one said when it failed."""

    def table(self, name: str) -> str | None:
        """A disk's table of partitions at the first look, as text that puts it back."""


class _Linux:
    def __init__(self, agent: Agent, chosen: str | None) -> None:
        self._agent = agent
        self._chosen = chosen
        self._tables: dict[str, str] = {}

    def look(self) -> tuple[Seen, ...]:
        self._system, seen = read_system(self._agent.script(look(), POSIX).decode("utf-8", "replace"))
        for name, disk in self._system.disks.items():
            self._tables.setdefault(name, disk.dump)
        return seen

    def plan(self, names: Iterable[str]) -> Mapping[str, Growth]:
        return plan_growth(self._system, names, self._chosen)

    def carry_out(self, steps: list[Step]) -> tuple[int, str]:
        result = self._agent.script(carry_out(step.command for step in steps), POSIX)
        return read_outcome(result.decode("utf-8", "replace"))

    def table(self, name: str) -> str | None:
        return self._tables.get(name) or None


class _Windows:
    def __init__(self, agent: Agent) -> None:
        self._label = agent.label
        self._guest = WindowsGuest(agent)
        self._disks: dict[str, Disk] = {}
        self._extensions: list[Extension] = []

    def look(self) -> tuple[Seen, ...]:
        answer = self._guest.run("space")
        if answer.get("too_old"):
            raise DiskwrightError(
                f"{self._label}: this Windows has no Resize-Partition, which came with Windows 8; "
                "extend its volumes in Disk Management"
            )
        self._disks, seen = read_space(answer)
        return seen

    def plan(self, names: Iterable[str]) -> Mapping[str, Growth]:
        plans = plan_space(self._disks, names)
        self._extensions = [one for _growth, extensions in plans.values() for one in extensions]
        return {name: growth for name, (growth, _extensions) in plans.items()}

    def carry_out(self, steps: list[Step]) -> tuple[int, str]:
        sizes = {f"{one.disk};{one.partition}": str(one.size) for one in self._extensions}
        self._guest.run("extend", sizes=sizes)
        return len(steps), ""

    def table(self, name: str) -> str | None:  # noqa: ARG002 - Resize-Partition writes no table of ours
        return None
