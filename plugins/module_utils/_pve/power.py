# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Starts and stops guests. The only code that does; whoever needs a guest off or on comes here.

PVE asks the guest agent to shut down when the configuration enables it and it answers, and presses the ACPI button
otherwise. Only :attr:`Step.STOP` is like pulling the plug.
"""

from __future__ import annotations

import contextlib
import time
import typing as t
from dataclasses import dataclass, field

from .._core.errors import DiskwrightError
from .._core.power import Power, PowerPlan, Step, Wish, agent_enabled
from . import tasks
from .agent import Agent, AgentError, NoAgentError
from .client import ApiError, path
from .tasks import Deadline, TaskFailedError, TaskOutcome, TaskTimeoutError, Upid

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .._core.guest import Guest
    from .client import Client
    from .tasks import Sleep

# How many seconds longer a task may take than the guest has to shut down.
_GRACE = 30.0
#: How long a guest has to shut down, in seconds, if nobody says otherwise.
SHUTDOWN_SECONDS = 180
# A guest takes seconds to come up, its agent longer; asking it costs PVE more than a look at the guest.
_FIRST_LOOK, _LOOK_GROWTH, _LONGEST_LOOK = 0.1, 1.5, 2.0
_POWER_TASKS = frozenset({"qmstart", "qmshutdown", "qmstop", "qmreboot", "qmresume", "hastart", "hastop"})


def read_power(client: Client, guest: Guest) -> Power:
    """Whether the guest runs right now."""
    status = client.get(path("nodes", guest.node, "qemu", guest.vmid, "status", "current"))
    pid = status.get("pid")
    return Power(
        running=status.get("status") == "running",
        qemu=str(status.get("qmpstatus", "")),
        pid=None if pid is None else int(pid),
        ha=bool((status.get("ha") or {}).get("managed")),
    )


def start(client: Client, guest: Guest, deadline: Deadline) -> TaskOutcome:
    """Start a guest. One that runs already, because somebody was quicker or an answer came late, is fine.

    :raises ApiError, TaskFailedError, TaskTimeoutError: see :func:`tasks.run`.
    """
    try:
        return _request(client, guest, Step.START, {}, deadline)
    except (ApiError, TaskFailedError) as error:
        unanswered = isinstance(error, ApiError) and (error.lost or error.no_worker)
        if unanswered or not read_power(client, guest).running:
            raise
        return TaskOutcome(upid="", exit_status="OK")


def shut_down(client: Client, guest: Guest, seconds: float, deadline: Deadline) -> TaskOutcome:
    """Ask a guest to shut down, and wait for it. It is never stopped by force, unless HA manages it.

    :param seconds: how long the guest has, at most what the deadline leaves.
    :raises ApiError, TaskFailedError, TaskTimeoutError: see :func:`tasks.run`.
    """
    return _request(client, guest, Step.SHUTDOWN, {"timeout": _at_most(seconds, deadline)}, deadline)


def _at_most(seconds: float, deadline: Deadline) -> int:
    return max(1, min(int(seconds), int(deadline.seconds)))


def _request(
    client: Client, guest: Guest, step: Step, parameters: Mapping[str, object], deadline: Deadline
) -> TaskOutcome:
    where = path("nodes", guest.node, "qemu", guest.vmid, "status", step.value)
    return tasks.run(client, "POST", where, parameters, deadline)


def wait_until_settled(client: Client, guest: Guest, deadline: Deadline) -> bool:
    """Wait for starts and stops that are under way, of a run that was killed or of somebody else.

    :returns: whether there were any.
    :raises TaskTimeoutError: one takes longer.
    """
    found = [upid for upid in tasks.active(client, guest.node, guest.vmid) if Upid.parse(upid).kind in _POWER_TASKS]
    for upid in found:
        with contextlib.suppress(TaskFailedError):
            tasks.wait(client, upid, deadline)
    return bool(found)


@dataclass(frozen=True, slots=True)
class Times:
    """How long to wait, in seconds: for each task of PVE, for the guest to shut down, for it to be up."""

    task: float = 3600
    shutdown: float = SHUTDOWN_SECONDS
    wait: float = 300


@dataclass(slots=True)
class PowerOutcome:
    """What became of a plan.

    :param done: the steps that were carried out.
    :param method: how the guest was asked to stop: ``agent``, ``acpi`` or ``stop``; ``None`` when it was not asked, or
        nobody may know.
    :param agent_answers: what the guest agent did when it was asked last, ``None`` when it was not asked.
    :param power: the guest as it was seen last.
    :param error: why it failed, or ``None``.
    :param upid: the task that goes on although the time was over.
    """

    done: list[Step] = field(default_factory=list)
    method: str | None = None
    agent_answers: bool | None = None
    power: Power | None = None
    error: str | None = None
    upid: str | None = None
    warnings: list[str] = field(default_factory=list)


def carry_out(
    client: Client, guest: Guest, wish: Wish, plan: PowerPlan, times: Times, sleep: Sleep = time.sleep
) -> PowerOutcome:
    """Carry a plan out and wait for what the wish waits for. What fails is in the outcome, not raised."""
    run = _Run(client, guest, wish, times, sleep)
    try:
        run.through(plan.steps)
    except TaskTimeoutError as error:
        run.outcome.error, run.outcome.upid = f"{guest.label}: {error}", error.upid
    except DiskwrightError as error:
        run.outcome.error = f"{guest.label}: {error}"
    return run.outcome


class _Run:
    """One guest on its way to a state."""

    def __init__(self, client: Client, guest: Guest, wish: Wish, times: Times, sleep: Sleep) -> None:
        self._client = client
        self._guest = guest
        self._wish = wish
        self._times = times
        self._sleep = sleep
        self._agent = Agent(client, guest.node, guest.vmid, guest.label, times.wait)
        self._before = read_power(client, guest)
        self.outcome = PowerOutcome(power=self._before)

    def through(self, steps: tuple[Step, ...]) -> None:
        """Every step, then the waiting."""
        for step in steps:
            self._carry_out(step)
            if step in (Step.SHUTDOWN, Step.STOP) and (step is not steps[-1] or self._wish.wait_for != "none"):
                # HA does it when it comes to it, after PVE's task.
                self._wait(
                    "it does not stop", lambda: not self._look().running, self._times.shutdown + self._times.wait
                )
        if self._wish.state == "stopped" or self._wish.wait_for == "none":
            return
        if steps or self._wish.wait_for is not None:
            self._wait("it does not run", lambda: self._is_up(steps), self._times.wait)
        if self._wish.wait_for == "agent":
            self._wait("its guest agent does not answer", self._agent_answers, self._times.wait)

    def _look(self) -> Power:
        self.outcome.power = read_power(self._client, self._guest)
        return self.outcome.power

    def _is_up(self, steps: tuple[Step, ...]) -> bool:
        power = self._look()
        same = Step.REBOOT in steps and power.pid is not None and power.pid == self._before.pid
        return power.running and not power.halted and not same

    def _agent_answers(self) -> bool:
        try:
            self._agent.ping()
        except NoAgentError:
            self.outcome.agent_answers = False
            self._look()
            raise
        self.outcome.agent_answers = True
        return True

    def _wait(self, otherwise: str, reached: t.Callable[[], bool], seconds: float) -> None:
        """Look again and again.

        :param otherwise: what to say when the time is over.
        """
        deadline, pause, words = Deadline(seconds), _FIRST_LOOK, ""
        while True:
            try:
                if reached():
                    return
            except NoAgentError as error:
                words = str(error).removeprefix(f"{self._guest.label}: ")
                if error.permanent:
                    raise DiskwrightError(f"{otherwise}; {self._last_seen(words)}") from error
            except ApiError as error:
                if not error.unreachable:
                    raise
                words = str(error)
            if deadline.passed:
                raise DiskwrightError(f"{otherwise} within {seconds:g} s; {self._last_seen(words)}")
            self._sleep(min(pause, deadline.remaining))
            pause = min(pause * _LOOK_GROWTH, _LONGEST_LOOK)

    def _last_seen(self, words: str = "") -> str:
        """What the guest was doing when the time was over, with the last failure of one of its tasks."""
        seen = [f"last seen: {self.outcome.power}"]
        if words:
            seen.append(words)
        if self.outcome.power and not self.outcome.power.running and self._wish.state != "stopped":
            failure = tasks.last_failure(self._client, self._guest.node, self._guest.vmid)
            seen += [f"its last task that failed: {failure}"] if failure else []
        return ", ".join(seen)

    def _carry_out(self, step: Step) -> None:
        if step in (Step.SHUTDOWN, Step.REBOOT):
            self.outcome.method = self._way_of_asking()
        elif step is Step.STOP:
            self.outcome.method = "stop"
        try:
            self._insist(step)
        except TaskFailedError as error:
            self._give_up(step, error)
        self.outcome.done.append(step)

    @property
    def _seconds_to_shut_down(self) -> float:
        return min(self._times.shutdown, self._times.task)

    def _insist(self, step: Step) -> None:
        # PVE is to be the one who says that a guest had its time.
        least = self._seconds_to_shut_down + _GRACE if step in (Step.SHUTDOWN, Step.REBOOT) else 0
        deadline = Deadline(max(self._times.task, least))
        outcome = tasks.insist(
            lambda: self._request(step, deadline),
            lambda: self._reached(step),
            lambda: wait_until_settled(self._client, self._guest, deadline),
            deadline,
            self._sleep,
            # A reboot that has failed starts nothing, even if the guest has gone off in the meantime.
            failure_may_count=step is not Step.REBOOT,
        )
        self.outcome.warnings.extend(f"{self._guest.label}: {text}" for text in outcome.warnings)

    def _request(self, step: Step, deadline: Deadline) -> TaskOutcome:
        if step is Step.START:
            return start(self._client, self._guest, deadline)
        if step is Step.SHUTDOWN:
            return shut_down(self._client, self._guest, self._seconds_to_shut_down, deadline)
        parameters = {"timeout": _at_most(self._seconds_to_shut_down, deadline)} if step is Step.REBOOT else {}
        return _request(self._client, self._guest, step, parameters, deadline)

    def _reached(self, step: Step) -> bool:
        power = self._look()
        if step in (Step.SHUTDOWN, Step.STOP):
            return not power.running
        if step is Step.REBOOT:  # PVE starts it after the task has ended
            return not power.running or power.pid != self._before.pid
        return power.running and not power.halted

    def _give_up(self, step: Step, error: TaskFailedError) -> None:
        """The guest did not do it in time: pull the plug where that is allowed, or say what was tried.

        :raises DiskwrightError: it may not be stopped by force, or does not even stop then.
        """
        if step not in (Step.SHUTDOWN, Step.REBOOT) or _is_locked(error):
            raise error
        if step is Step.REBOOT and not self._look().running:  # it went off after its time, and nobody starts it
            self._insist(Step.START)
            return
        if step is Step.SHUTDOWN and self._wish.force_stop:
            self._insist(Step.STOP)
            self.outcome.method = "stop"
            self._look()
            return
        asked = {"agent": "through its guest agent", "acpi": "by the ACPI power button"}.get(self.outcome.method or "")
        advice = "look at its console, give it a longer shutdown_timeout"
        raise DiskwrightError(
            f"it was asked {f'{asked} ' if asked else ''}to shut down and did not within "
            f"{self._seconds_to_shut_down:g} s; {self._last_seen()}; "
            f"{advice}{'' if self._wish.if_pending else ', or write force_stop: true'} ({error.exit_status.strip()})"
        ) from error

    def _way_of_asking(self) -> str | None:
        """How PVE will ask the guest to shut down, by PVE's own rule; ``None`` when the user may not know."""
        if not agent_enabled(self._guest):
            return "acpi"
        try:
            self._agent.ping()
        except NoAgentError:
            self.outcome.agent_answers = False
            return "acpi"
        except (AgentError, ApiError):
            return None
        self.outcome.agent_answers = True
        return "agent"


def _is_locked(error: TaskFailedError) -> bool:
    return error.lock_timeout or "VM is locked" in error.exit_status
