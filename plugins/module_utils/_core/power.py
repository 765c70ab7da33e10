# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Whether a guest runs, and what it takes to make it run, stop, or begin anew.

Source: qemu-server 9.2.6, ``PVE/API2/Qemu.pm`` (vm_start, vm_shutdown, vm_reboot) and ``PVE/QemuServer.pm``
(``_do_vm_stop``); pve-ha-manager, ``PVE/HA/Resources/PVEVM.pm`` (shutdown).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import Refusal
from .guest import Guest

STATES = ("started", "stopped", "restarted")
WAITS = ("none", "running", "agent")
#: What QEMU says of a guest that is on and does nothing, until it is resumed.
_HALTED = frozenset({"paused", "suspended", "io-error"})
#: PVE's number for a deletion that takes the volume with it.
_WITH_VOLUME = 2
#: A guest that was suspended to disk has this lock, and starts with it.
_LOCK_OF_SUSPENDED = "suspended"


class Step(enum.Enum):
    """A step, by what people call it."""

    START = "start"
    RESUME = "resume"
    SHUTDOWN = "shutdown"
    STOP = "stop"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True)
class Power:
    """A guest's power as ``GET …/status/current`` shows it.

    :param qemu: what QEMU says of itself: ``running``, ``paused``, ``io-error`` …; ``stopped`` without one.
    :param pid: the process, which is another one after each start.
    :param ha: whether PVE's HA manager starts and stops the guest.
    """

    running: bool
    qemu: str = ""
    pid: int | None = None
    ha: bool = False

    @property
    def halted(self) -> bool:
        """Whether the guest is on and its processors are stopped."""
        return self.running and self.qemu in _HALTED

    def __str__(self) -> str:
        if not self.running:
            return "stopped"
        return "running" if self.qemu in ("", "running") else f"running, {self.qemu}"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a guest.

    :param state: one of :data:`STATES`.
    :param if_pending: restart only a guest that runs and has not taken up its configuration.
    :param force_stop: pull the plug when the guest does not shut down in time.
    :param wait_for: one of :data:`WAITS`, or ``None`` for the state itself.
    """

    state: str
    if_pending: bool = False
    force_stop: bool = False
    wait_for: str | None = None


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """What is to be done, or why it is not."""

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_power(guest: Guest, power: Power, wish: Wish) -> PowerPlan:
    """Plan what makes the guest as it is wished.

    :param guest: the guest, for its locks and for what waits to be taken up.
    """
    steps = _steps(guest, power, wish)
    refusals = (*_contradictions(guest, wish), *_obstacles(guest, power, wish, steps))
    return PowerPlan(() if refusals else steps, refusals, tuple(_destroyed(guest)) if steps and not refusals else ())


def _steps(guest: Guest, power: Power, wish: Wish) -> tuple[Step, ...]:
    if wish.state == "stopped":
        return (_off(power, wish),) if power.running else ()
    if wish.state == "started":
        return (Step.RESUME,) if power.halted else () if power.running else (Step.START,)
    if wish.if_pending:
        return (Step.REBOOT,) if power.running and guest.changed_keys else ()
    if not power.running:
        return (Step.START,)
    # PVE starts the guest again by itself: a run that is killed in between leaves nothing behind.
    return (Step.REBOOT,) if not wish.force_stop else (_off(power, wish), Step.START)


def _off(power: Power, wish: Wish) -> Step:
    return Step.STOP if wish.force_stop and power.halted else Step.SHUTDOWN


def _contradictions(guest: Guest, wish: Wish) -> Iterator[Refusal]:
    """What is wrong with the wish itself."""
    if wish.if_pending and wish.state != "restarted":
        yield Refusal(guest.label, "", "if_pending", "true", f"it says nothing about state={wish.state}", "remove it")
    if wish.if_pending and wish.force_stop:
        yield Refusal(
            guest.label,
            "",
            "force_stop",
            "true",
            "with if_pending, a run that ends between the stop and the start would leave a guest that looks as if it "
            "were stopped on purpose",
            "use one of the two",
        )
    if wish.force_stop and wish.state == "started":
        yield Refusal(guest.label, "", "force_stop", "true", "state=started stops nothing", "remove it")
    if wish.state == "stopped" and wish.wait_for in ("running", "agent"):
        yield Refusal(
            guest.label, "", "wait_for", wish.wait_for, "a stopped guest never gets there", "use none, or remove it"
        )


def _obstacles(guest: Guest, power: Power, wish: Wish, steps: tuple[Step, ...]) -> Iterator[Refusal]:
    """What keeps the steps from being done."""
    starts = {Step.START, Step.REBOOT} & set(steps)
    if starts and guest.template:
        yield Refusal(guest.label, "", "state", wish.state, "it is a template", "clone it, and start the clone")
    if steps and guest.lock and not (steps == (Step.START,) and guest.lock == _LOCK_OF_SUSPENDED):
        yield Refusal(guest.label, "", "", "", f"it is locked ({guest.lock})", "wait until the job that locked it ends")
    if power.halted and {Step.SHUTDOWN, Step.REBOOT} & set(steps):
        yield Refusal(
            guest.label,
            "",
            "state",
            wish.state,
            f"it is halted ({power.qemu}), and so can't shut down",
            "resume it with state: started first, or write force_stop: true",
        )
    if Step.SHUTDOWN in steps and not wish.force_stop and (reason := forced_by_ha(power)):
        yield Refusal(guest.label, "", "state", wish.state, reason, "write force_stop: true, or take it out of HA")
    if wish.wait_for == "agent" and not agent_enabled(guest):
        yield Refusal(
            guest.label,
            "",
            "wait_for",
            "agent",
            "its configuration does not enable the guest agent, so nobody can ask it",
            "enable it in PVE, or write wait_for: running",
        )


def forced_by_ha(power: Power) -> str:
    """Why a mere shutdown is not to be had of this guest, a clause, or an empty string."""
    if not power.ha:
        return ""
    return "it is managed by HA, which stops a guest by force when it does not shut down in time"


def agent_enabled(guest: Guest) -> bool:
    """Whether PVE talks to the guest's agent, by its configuration (``1``, ``enabled=1,…``)."""
    words = (guest.agent or "").split(",")
    return bool({"1", "enabled=1"} & set(words))


def _destroyed(guest: Guest) -> Iterator[str]:
    """Volumes that PVE destroys when the guest stops or starts, because a deletion by force waits."""
    for slot, drive in guest.live.drives.items():
        if guest.deleting.get(str(slot)) == _WITH_VOLUME:
            yield f"{guest.label}: {slot}: its deletion waits; the guest's stop or start destroys {drive.volume}"
