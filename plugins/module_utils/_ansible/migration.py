# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Carries one guest's migration to VirtIO out: look, ask the state machine for the next step, do it, look again.

It decides nothing. What it adds is what became of a call: a step that failed for good is told to the state machine,
which turns back; a lost answer, a lost connection or somebody else's change in between only means to look again.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass, field, replace

from .._core import power as core_power
from .._core import snapshot as core_snapshot
from .._core.errors import DiskwrightError
from .._core.guest import Guest
from .._core.power import agent_enabled
from .._pve import power, snapshots, tasks
from .._pve.agent import Agent, AgentError, NoAgentError
from .._pve.client import ApiError, AuthenticationError, path
from .._pve.reads import read_again
from .._pve.tasks import Deadline, TaskFailedError, TaskTimeoutError
from .._windows.inside import UnreadableWindowsError
from .._windows.migration import next_step, remember
from .._windows.note import Phase, UnreadableNoteError, read_note, write_note
from .._windows.placement import change, differing
from .._windows.rights import may_ask, may_read, paths
from .._windows.situation import Memory, Situation, Wishes
from .._windows.steps import (
    Awaited,
    Configure,
    Destroy,
    End,
    Inside,
    Note,
    Power,
    Revert,
    Snapshot,
    Stage,
    State,
    Step,
    Wait,
)
from .windows_drivers import WindowsDrivers, windows_drivers_spec
from .windows_guest import WindowsGuest

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._pve.client import Client
    from .._pve.reads import Surroundings
    from .._windows.inside import Windows
    from .._windows.note import Journal
    from .._windows.rights import Held

#: More than any way through the state machine has, with every step failing once.
_MOST_STEPS = 100
#: How often a run looks again because somebody else was quicker or an answer was lost, before it gives up.
_MOST_LOOKS = 5
_PINGS, _PING_PAUSE = 3, 2.0
_FIRST_POLL, _POLL_GROWTH, _LONGEST_POLL = 0.2, 1.5, 5.0
#: Steps after which Windows is as it was, so that it need not be asked again.
_QUIET = (Note, Revert, Destroy, Snapshot)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    :param task: for a task of PVE, and for a script inside Windows.
    :param shutdown: for Windows to shut down.
    :param agent: for the guest agent to answer after a start.
    """

    task: float
    shutdown: float
    agent: float


@dataclass(slots=True)
class Passage:
    """What became of one guest in this run.

    :param done: the steps that were carried out.
    :param failed: steps that failed, with the reason of each.
    """

    end: End | None = None
    done: list[Step] = field(default_factory=list)
    failed: list[tuple[Step, str]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was done but waiting."""
        return any(not isinstance(step, Wait) for step in self.done)


def _read_journal(guest: Guest) -> tuple[Journal | None, UnreadableNoteError | None]:
    try:
        return read_note(guest.configured.description), None
    except UnreadableNoteError as error:
        return None, error


class Migrator:
    """One guest and a connection. Used by one thread."""

    def __init__(
        self,
        client: Client,
        surroundings: Surroundings,
        guest: Guest,
        wishes: Wishes,
        patience: Patience,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._surroundings = surroundings
        self._guest = guest
        self._wishes = wishes
        self._patience = patience
        self._sleep = sleep
        self._agent = Agent(client, guest.node, guest.vmid, guest.label, patience.task)
        self._inside = WindowsGuest(self._agent)
        self._windows: Windows | None = None
        self._memory = Memory()
        self._looks = 0
        self._heard = ""
        self._held: Held | None = None

    # ---- looking

    def look(self, *, ask_windows: bool = True) -> Situation:
        """The guest's situation now.

        :param ask_windows: whether Windows may be another than when it was asked last.
        :raises DiskwrightError: the guest can't be read.
        """
        self._guest = guest = read_again(self._client, self._guest)
        journal, damage = _read_journal(guest)
        # A note that a migration was rolled back is no migration: if it is tried again, all is checked again.
        under_way = journal is not None and journal.phase is not Phase.ROLLED_BACK
        if self._held is None:
            self._held = self._read_rights(guest)
        if ask_windows or not guest.running:
            # Later the state machine waits for it, for as long as the user says.
            self._windows = self._ask_windows(1 if under_way else _PINGS) if guest.running else None
        entries, _parent = snapshots.read_entries(self._client, guest)
        return Situation(
            guest=guest,
            wishes=self._wishes,
            journal=journal,
            damage=damage,
            windows=self._windows,
            heard=self._heard,
            snapshots=frozenset(entry.name for entry in entries),
            unsnappable=() if under_way else self._unsnappable(),
            iso_exists=under_way or self._iso_exists(),
            held=self._held,
            ha=not under_way and power.read_power(self._client, guest).ha,
            memory=self._memory,
        )

    def _read_rights(self, guest: Guest) -> Held:
        """What the user may do, asked once, and first: without a right other looks fail, and name only that one."""
        ask = path("access", "permissions")
        # The value of a right is whether it is passed on to what is below, so 0 is a right too.
        answers = {where: self._client.get(ask, {"path": where}) for where in paths(guest, self._wishes)}
        return {where: frozenset(answer.get(where) or ()) for where, answer in answers.items()}

    def _ask_windows(self, pings: int) -> Windows | None:
        """What Windows says, ``None`` when it says nothing; what went wrong is in :attr:`_heard`."""
        self._heard = ""
        if not agent_enabled(self._guest) or not may_ask(self._held, self._guest):
            return None
        try:
            return self._inside.gather() if self._is_answered(pings) else None
        except NoAgentError:
            return None
        except (AgentError, UnreadableWindowsError) as error:
            self._heard = self._sentence(error)
            return None

    def _is_answered(self, pings: int) -> bool:
        """Whether its agent answers. A Windows that is busy may be silent for a moment."""
        for number in range(pings):
            if number:
                self._sleep(_PING_PAUSE)
            if self._agent.answers():
                return True
        return False

    def _unsnappable(self) -> tuple[str, ...]:
        wish = core_snapshot.SnapshotWish("before_virtio")
        facts = snapshots.read_facts(self._client, self._guest, wish)
        if facts.possible:
            return ()
        reasons = [f"{one.slot}: {one.problem}" for one in core_snapshot.drives_without_snapshots(facts)]
        return tuple(reasons or ["PVE does not say why"])

    def _iso_exists(self) -> bool:
        iso = self._wishes.iso
        if iso is None or not may_read(self._held, iso):
            return True  # what may not be looked at is refused for that
        return self._surroundings.volume(self._guest.node, iso) is not None

    # ---- the run

    def migrate(self) -> Passage:
        """Go on until it ends for this run. What fails is in the result, not raised."""
        passage = Passage()
        try:
            passage.end = self._through(passage)
        except DiskwrightError as error:
            passage.end = End(State.STUCK, f"{self._sentence(error)}; run again")
        return passage

    def _sentence(self, error: DiskwrightError) -> str:
        """What it says, on one line and without the guest's name: it goes into notes, tables and other sentences."""
        return ". ".join(line.removeprefix(f"{self._guest.label}: ") for line in str(error).splitlines())

    def _through(self, passage: Passage) -> End:
        asked = True
        for _number in range(_MOST_STEPS):
            now = self.look(ask_windows=asked)
            if now.damage is not None:  # somebody has edited it while this run was at work
                return End(State.STUCK, str(now.damage))
            step = next_step(now)
            if isinstance(step, End):
                return step
            asked = not isinstance(step, _QUIET)
            self._carry_out(step, now, passage)
        raise DiskwrightError("its migration does not come to an end")

    def _carry_out(self, step: Step, now: Situation, passage: Passage) -> None:
        try:
            late = self._perform(step, now)
        except TaskTimeoutError:
            raise
        except (ApiError, TaskFailedError) as error:
            if isinstance(error, AuthenticationError) or not self._looks_again(error):
                raise
            if not error.digest_mismatch and not (isinstance(error, ApiError) and (error.lost or error.no_worker)):
                self._fail(step, error, passage)
            return
        except DiskwrightError as error:
            self._fail(step, error, passage)
            return
        passage.done.append(step)
        self._memory = remember(self._memory, step, now.journal)
        if late:
            self._memory = replace(self._memory, late=self._memory.late | {late})

    def _looks_again(self, error: ApiError | TaskFailedError) -> bool:
        """Whether it is worth a look. Not when nobody answers: that is no reason to turn back."""
        if isinstance(error, ApiError) and error.unreachable and not error.lost:
            return False
        if error.digest_mismatch or (isinstance(error, ApiError) and (error.lost or error.no_worker)):
            self._looks += 1
            self._settle()
            return self._looks <= _MOST_LOOKS
        return True

    def _fail(self, step: Step, error: DiskwrightError, passage: Passage) -> None:
        """A step failed for good. Without its journal a migration can't turn back either: it stays where it is."""
        text = self._sentence(error)
        passage.failed.append((step, text))
        if isinstance(step, Note):
            raise DiskwrightError(f"its journal can't be written: {text}")
        self._memory = replace(self._memory, trouble=text)

    def _settle(self) -> None:
        """Wait for what is under way in PVE, so that what is seen then stays so."""
        deadline = Deadline(self._patience.task)
        for upid in tasks.active(self._client, self._guest.node, self._guest.vmid):
            try:
                tasks.wait(self._client, upid, deadline)
            except TaskFailedError:
                continue

    # ---- the steps

    def _perform(self, step: Step, now: Situation) -> str:
        """Carry a step out. :returns: what was waited for in vain, else an empty string."""
        if isinstance(step, Wait):
            return self._wait(step)
        work: Mapping[type[Step], Callable[[t.Any, Situation], None]] = {
            Note: self._note,
            Revert: self._revert,
            Configure: self._configure,
            Destroy: self._destroy,
            Inside: self._set,
            Stage: self._stage,
            Power: self._power,
            Snapshot: self._snapshot,
        }
        work[type(step)](step, now)
        return ""

    def _config(
        self, method: str, parameters: Mapping[str, str], now: Situation, reached: Callable[[Guest], bool]
    ) -> None:
        """One configuration call, refused by PVE if the guest is not the one that was looked at.

        :param reached: whether a guest is as the call makes it, for when its answer is lost.
        :raises DiskwrightError: it failed, or PVE says that it is done and it is not so.
        """
        deadline = Deadline(self._patience.task)
        where = path("nodes", now.guest.node, "qemu", now.guest.vmid, "config")
        values = {**parameters, "digest": now.guest.digest}
        tasks.insist(
            lambda: tasks.run(self._client, method, where, values, deadline),
            lambda: reached(read_again(self._client, now.guest)),
            self._settle,
            deadline,
            self._sleep,
        )
        if not reached(read_again(self._client, now.guest)):
            raise DiskwrightError(f"PVE says that it is done, and the guest is not so: {', '.join(parameters)}")

    def _note(self, step: Note, now: Situation) -> None:
        text = write_note(now.guest.configured.description, step.journal)
        parameters = {"description": text} if text else {"delete": "description"}
        self._config("PUT", parameters, now, lambda guest: (guest.configured.description or "") == text.rstrip())

    def _revert(self, step: Revert, now: Situation) -> None:
        keys = set(step.keys)
        self._config("PUT", {"revert": ",".join(step.keys)}, now, lambda guest: not keys & guest.changed_keys)

    def _configure(self, step: Configure, now: Situation) -> None:
        parameters = change(now.guest.configured, step.keys)
        self._config("POST", parameters, now, lambda guest: not differing(guest.configured, step.keys))

    def _destroy(self, step: Destroy, now: Situation) -> None:
        slot = str(now.guest.configured.unused_slot_of(step.volume))
        self._config("POST", {"delete": slot}, now, lambda guest: guest.configured.unused_slot_of(step.volume) is None)

    def _set(self, step: Inside, now: Situation) -> None:
        self._drivers(now, step.settings)

    def _stage(self, step: Stage, now: Situation) -> None:
        self._drivers(now, {"state": "staged", "drivers": list(step.drivers)})

    def _drivers(self, now: Situation, settings: Mapping[str, t.Any]) -> None:
        """What the module windows_drivers does with these options."""
        params = {name: row.get("default") for name, row in windows_drivers_spec().items()}
        params |= {"vmid": now.guest.vmid, "task_timeout": self._patience.task, **settings}
        work = WindowsDrivers(self._client, params)
        work.prepare()
        work.execute()

    def _power(self, step: Power, now: Situation) -> None:
        wish = core_power.Wish("started" if step.on else "stopped", force_stop=step.hard and not step.on)
        seen = power.read_power(self._client, now.guest)
        plan = core_power.plan_power(now.guest, seen, wish)
        if plan.refusals:
            raise DiskwrightError("; ".join(f"{one.problem}; {one.remedy}" for one in plan.refusals))
        times = power.Times(self._patience.task, self._patience.shutdown, self._patience.agent)
        outcome = power.carry_out(self._client, now.guest, wish, plan, times, self._sleep)
        if outcome.upid is not None:
            raise TaskTimeoutError(outcome.upid, self._patience.task, ())
        if outcome.error is not None:
            raise DiskwrightError(outcome.error)

    def _snapshot(self, step: Snapshot, now: Situation) -> None:
        said = None if step.gone else "Before its disks went to VirtIO (diskwright.proxmox)"
        wish = core_snapshot.SnapshotWish(step.name, "absent" if step.gone else "present", said)
        what = core_snapshot.Step.DELETE if step.gone else core_snapshot.Step.TAKE
        snapshots.carry_out(self._client, now.guest, wish, what, Deadline(self._patience.task))

    def _wait(self, step: Wait) -> str:
        seconds = self._patience.task if step.what is Awaited.UNLOCKED else self._patience.agent
        deadline, pause = Deadline(seconds), _FIRST_POLL
        while not self._reached(step):
            if deadline.passed:
                return step.what.value
            self._sleep(min(pause, deadline.remaining))
            pause = min(pause * _POLL_GROWTH, _LONGEST_POLL)
        return ""

    def _reached(self, step: Wait) -> bool:
        guest = read_again(self._client, self._guest)
        if step.what is Awaited.UNLOCKED:
            return guest.lock is None
        if not guest.running:
            return True  # nobody will answer any more, and the state machine knows what that means
        try:
            self._agent.ping()
            windows = self._inside.gather()
        except NoAgentError as error:
            if error.permanent:
                raise
        except (AgentError, UnreadableWindowsError):
            return False  # Windows is not quite up yet
        else:
            return set(step.volumes) <= {volume.identity for volume in windows.volumes}
        return False
