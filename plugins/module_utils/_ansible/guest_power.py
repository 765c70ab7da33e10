# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``guest_power``: from its parameters to its result."""

from __future__ import annotations

import typing as t

from .._core.errors import DiskwrightError, PlanRefusedError
from .._core.layout import Layout
from .._core.power import STATES, WAITS, Power, PowerPlan, Step, Wish, plan_power
from .._core.projection import restart_keys
from .._pve.power import SHUTDOWN_SECONDS, PowerOutcome, Times, carry_out, read_power, wait_until_settled
from .._pve.reads import find_guest, read_again
from .._pve.tasks import Deadline
from .one_guest import one_guest_spec
from .runner import Result

if t.TYPE_CHECKING:
    from .._pve.client import Client

_WORDS: t.Final = {
    Step.START: ("+", "start"),
    Step.RESUME: ("+", "resume"),
    Step.SHUTDOWN: ("-", "shut down"),
    Step.STOP: ("-", "stop by force"),
    Step.REBOOT: ("~", "shut down and start again"),
}


def power_spec() -> dict[str, dict[str, t.Any]]:
    """The module's arguments."""
    return {
        **one_guest_spec(),
        "state": {"type": "str", "required": True, "choices": list(STATES)},
        "if_pending": {"type": "bool", "default": False},
        "force_stop": {"type": "bool", "default": False},
        "wait_for": {"type": "str", "choices": list(WAITS)},
        "shutdown_timeout": {"type": "int", "default": SHUTDOWN_SECONDS},
        "wait_timeout": {"type": "int", "default": 300},
    }


class GuestPower:
    """Starts, stops or restarts one guest, and waits for it."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        for name in ("shutdown_timeout", "wait_timeout"):
            if params[name] < 1:
                raise DiskwrightError(f"{name}={params[name]}: it takes one second at least")
        self._client = client
        self._layout = Layout(vmid=params["vmid"], name=params["name"], node=params["node"])
        self._wish = Wish(params["state"], params["if_pending"], params["force_stop"], params["wait_for"])
        self._times = Times(float(params["task_timeout"]), params["shutdown_timeout"], params["wait_timeout"])
        self._power = Power(running=False)
        self._plan = PowerPlan()
        self._outcome = PowerOutcome()

    def prepare(self) -> None:
        """Read and plan. A start or stop that is under way, of a run that was killed for example, is waited for."""
        self._guest = find_guest(self._client, self._layout)
        self._plan_again()
        if self._plan.steps and wait_until_settled(self._client, self._guest, Deadline(self._times.task)):
            self._guest = read_again(self._client, self._guest)
            self._plan_again()
        if self._plan.refusals:
            raise PlanRefusedError(self._plan.refusals)

    def _plan_again(self) -> None:
        self._power = read_power(self._client, self._guest)
        self._plan = plan_power(self._guest, self._power, self._wish)

    def execute(self) -> None:
        """Carry the plan out, and wait."""
        self._outcome = carry_out(self._client, self._guest, self._wish, self._plan, self._times)

    def result(self, *, executed: bool) -> Result:
        """What was planned and done."""
        outcome, guest = self._outcome, self._guest
        done = outcome.done if executed else list(self._plan.steps)
        if executed:
            guest = read_again(self._client, guest) if done and not outcome.error else guest
        data = {
            "vmid": guest.vmid,
            "name": guest.name,
            "node": guest.node,
            "before": str(self._power),
            "status": str(outcome.power or self._power) if executed else self._expected(),
            "steps": [step.value for step in done],
            "method": outcome.method,
            "agent_answers": outcome.agent_answers,
            "restart_required": sorted(restart_keys(guest, ())) if executed else self._left_waiting(),
        }
        if outcome.upid:
            data["upid"] = outcome.upid
        warnings = [*self._plan.warnings, *outcome.warnings]
        return Result(data, bool(done), outcome.error, self._diff(), warnings)

    def _expected(self) -> str:
        """The status that the steps lead to."""
        if not self._plan.steps:
            return str(self._power)
        return "stopped" if self._wish.state == "stopped" else "running"

    def _left_waiting(self) -> list[str]:
        takes_up = {Step.START, Step.REBOOT, Step.SHUTDOWN, Step.STOP} & set(self._plan.steps)
        return [] if takes_up else sorted(restart_keys(self._guest, ()))

    def _diff(self) -> str:
        if not self._plan.steps:
            return ""
        guest = self._guest
        lines = [f"{guest.name or guest.vmid} ({guest.vmid} on {guest.node}, {self._power})"]
        lines += [f"  {sign} {words}" for sign, words in (_WORDS[step] for step in self._plan.steps)]
        if guest.changed_keys and set(self._plan.steps) - {Step.RESUME}:
            lines.append(f"  ~ takes up {', '.join(sorted(guest.changed_keys))}")
        return "\n".join(lines) + "\n"
