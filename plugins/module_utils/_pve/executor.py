# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Carries a plan out, one call at a time: act, look, plan again, and go on only when the rest is what was left to do.

The same loop finishes a job that an earlier run could not finish: what is left is always worked out from what PVE has.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace

from .._core.actions import Action, Call, CallKind, Reassign, config_call
from .._core.drive import volume_owner
from .._core.errors import DiskwrightError, PlanRefusedError
from .._core.guards import find_leftovers
from .._core.guest import Guest
from .._core.journal import read_journal, write_journal
from .._core.layout import Layout
from .._core.plan import Plan
from .._core.planner import make_plan
from .._core.power import forced_by_ha
from .._core.projection import differences, project
from .._core.reassign import drive_at
from .._core.slot import find_slot
from . import power, tasks
from .client import ApiError, path
from .reads import Surroundings, read_again
from .tasks import Deadline, TaskFailedError, TaskOutcome, TaskTimeoutError

if t.TYPE_CHECKING:
    from .client import Client

#: How often a run plans anew because an answer was lost or PVE could not start a task, before it gives up.
_MOST_RETRIES = 3
#: What shutting a guest down for a change takes, besides what the change itself takes.
_RIGHTS_TO_STOP = ("VM.Config.Disk", "VM.Config.Options", "VM.PowerMgmt")
#: How often it looks at a guest after a lost answer before it takes what waits there for left behind.
_LOOKS = 3


class ChangedMeanwhileError(DiskwrightError):
    """Somebody else changes the same guest at the same time, more than once."""


@dataclass(slots=True)
class Outcome:
    """What became of one guest.

    :param plan: what was planned at first; ``None`` when it could not be read.
    :param done: steps that PVE has carried out.
    :param failed: the steps of the call that failed.
    :param remaining: steps that were not tried.
    :param guest: the guest as it was read last.
    :param error: why it failed, or ``None``.
    :param upid: the task that goes on although the time was over.
    """

    label: str
    plan: Plan | None = None
    done: list[Action] = field(default_factory=list)
    failed: tuple[Action, ...] = ()
    remaining: tuple[Action, ...] = ()
    guest: Guest | None = None
    error: str | None = None
    upid: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how fast. Seconds for each task; KiB/s for copies, ``None`` for no limit."""

    task_timeout: float = 600
    bwlimit: int | None = None


class Executor:
    """Carries out the plans of a run. Used by several threads, one guest each."""

    def __init__(self, client: Client, surroundings: Surroundings, limits: Limits) -> None:
        self._client = client
        self._surroundings = surroundings
        self._limits = limits

    def execute(self, layout: Layout, plan: Plan) -> Outcome:
        """Carry out a plan.

        :raises PlanRefusedError: the plan has refusals; nothing was written.
        """
        if plan.refusals:
            raise PlanRefusedError(plan.refusals)
        outcome = Outcome(plan.before.label, plan=plan, guest=plan.before)
        run = _Run(self._client, self._surroundings, self._limits, layout, plan, outcome)
        try:
            run.until_done()
        except TaskTimeoutError as error:
            outcome.error, outcome.upid = str(error), error.upid
        except DiskwrightError as error:
            outcome.error = str(error)
        if outcome.error is not None:
            outcome.failed = run.current
            outcome.remaining = tuple(run.left)
        return outcome


class _Run:
    """One guest's plan on its way."""

    def __init__(
        self, client: Client, surroundings: Surroundings, limits: Limits, layout: Layout, plan: Plan, outcome: Outcome
    ) -> None:
        self._client = client
        self._surroundings = surroundings
        self._limits = limits
        self._layout = layout
        self._plan = plan
        self._outcome = outcome
        self._retries = 0
        self._replanned = False
        self._unanswered = False
        self._shown = [_visible(call) for call in plan.calls]
        self.current: tuple[Action, ...] = ()

    @property
    def left(self) -> list[Action]:
        """The visible steps that come after the current call."""
        return [action for actions in self._shown[1:] for action in actions]

    def until_done(self) -> None:
        """Carry out call after call until nothing is left."""
        self._check_shutdown()
        while self._plan.calls:
            call = self._plan.calls[0]
            self.current = self._shown[0]  # as they were planned at first, and as check mode tells them
            if self._send(call):
                self._unanswered = False
                self._outcome.done.extend(self.current)
                self._look(call)
            self.current = ()

    def _check_shutdown(self) -> None:
        """Before a guest is shut down: whether it would be without force, and whether the user may do what comes then.

        PVE tells neither before it is tried.
        """
        if not any(call.kind is CallKind.SHUTDOWN for call in self._plan.calls):
            return
        where = f"/vms/{self._plan.before.vmid}"
        held = self._client.get(path("access", "permissions"), {"path": where}).get(where, {})
        missing = [right for right in _RIGHTS_TO_STOP if right not in held]  # its value is whether it is passed on
        if missing:
            raise DiskwrightError(
                f"{self._outcome.label}: the guest would have to be shut down, and the user lacks "
                f"{', '.join(missing)} on {where}; grant it, or stop the guest first"
            )
        if reason := forced_by_ha(power.read_power(self._client, self._plan.before)):
            raise DiskwrightError(
                f"{self._outcome.label}: the guest would have to be shut down, and {reason}; stop it first, or take it "
                "out of HA"
            )

    def _send(self, call: Call) -> bool:
        """Carry out one call. :returns: whether it was done; otherwise there is a new plan."""
        deadline = Deadline(self._limits.task_timeout)
        try:
            outcome = tasks.until_unlocked(lambda: self._request(call, deadline), deadline)
        except (ApiError, TaskFailedError) as error:
            if error.digest_mismatch:
                # After a lost answer it may well have been the lost call itself, carried out late.
                self._replan("somebody else has changed the guest since it was planned")
                return False
            if isinstance(error, ApiError) and (error.lost or error.no_worker):
                self._after_silence(error, call, deadline)
                return False
            raise self._cleaned_up(error, call) from error
        self._outcome.warnings.extend(f"{self._outcome.label}: {text}" for text in outcome.warnings)
        return True

    def _request(self, call: Call, deadline: Deadline) -> TaskOutcome:
        guest = self._plan.before if call.giver is None else call.giver
        if call.kind is CallKind.SHUTDOWN:
            return power.shut_down(self._client, guest, power.SHUTDOWN_SECONDS, deadline)
        if call.kind is CallKind.START:
            return power.start(self._client, guest, deadline)
        method, name = _ROUTES[call.kind]
        parameters: dict[str, object] = {**dict(call.parameters), "digest": guest.digest}
        if call.kind is CallKind.MOVE:
            parameters["bwlimit"] = self._limits.bwlimit
        if call.kind is CallKind.REASSIGN:
            parameters["target-digest"] = self._plan.before.digest
        where = path("nodes", guest.node, "qemu", guest.vmid, name)
        return tasks.run(self._client, method, where, parameters, deadline)

    def _look(self, call: Call) -> None:
        """Read the guest after a call, compare it with the projection, and plan what is left."""
        projected = project(self._plan.before, call)
        left = [_signature(call) for call in self._plan.calls[1:]]
        guest = self._read()
        found = differences(projected.configured, guest.configured)
        self._shown = self._shown[1:]
        self._plan = self._planned(guest)
        if [_signature(call) for call in self._plan.calls] != left:
            self._shown = [_visible(call) for call in self._plan.calls]
            self._note_replan(f"after {call.kind.value}: {'; '.join(found) or 'the guest is not as expected'}")

    def _read(self) -> Guest:
        guest = read_again(self._client, self._plan.before)
        self._outcome.guest = guest
        return guest

    def _planned(self, guest: Guest) -> Plan:
        plan = make_plan(self._surroundings.facts(guest, self._layout), self._layout)
        if plan.refusals:
            raise PlanRefusedError(plan.refusals)
        return plan

    def _replan(self, reason: str) -> None:
        if not self._unanswered:
            self._note_replan(reason)
        self._take_stock(self._read())

    def _take_stock(self, guest: Guest) -> None:
        """Plan what is left. What a call without an answer has left nothing to do of counts as done."""
        self._plan = self._planned(guest)
        if self._unanswered:
            left = {(action.verb, action.slot) for action in self._plan.actions}
            self._outcome.done.extend(action for action in self.current if (action.verb, action.slot) not in left)
            self._unanswered = bool(left & {(action.verb, action.slot) for action in self.current})
        self._shown = [_visible(call) for call in self._plan.calls]

    def _note_replan(self, reason: str) -> None:
        if self._replanned:
            raise ChangedMeanwhileError(
                f"{self._outcome.label}: {reason}; it was planned anew once already, so this run stops here: "
                "make sure that nobody else works on the guest, and run again"
            )
        self._replanned = True
        self._outcome.warnings.append(f"{self._outcome.label}: planned anew: {reason}")

    def _after_silence(self, error: ApiError, call: Call, deadline: Deadline) -> None:
        """After a lost answer: let what may be going on end, and look before anything is repeated."""
        self._retries += 1
        if self._retries > _MOST_RETRIES:
            raise error
        before = self._plan.before
        for _look in range(_LOOKS):  # the call may be carried out between one look and the next
            reason = self._wait_for_tasks(call, deadline) or error
            guest = self._read()
            if not set(find_leftovers(guest)) - set(find_leftovers(before)):
                break
        else:
            raise self._cleaned_up(reason, call)
        self._unanswered = True
        self._take_stock(guest)

    def _wait_for_tasks(self, call: Call, deadline: Deadline) -> DiskwrightError | None:
        """Wait until no task of the guest runs. :returns: the failure of one, which may be somebody else's."""
        guest, failure = self._plan.before, None
        active = tasks.active(self._client, guest.node, guest.vmid)
        if call.giver is not None:
            active += tasks.active(self._client, guest.node, call.giver.vmid)
            active += tasks.reassigning(self._client, guest.node, (guest.vmid, call.giver.vmid))
        for upid in active:
            try:
                tasks.wait(self._client, upid, deadline)
            except TaskFailedError as error:
                failure = error
        return failure

    def _cleaned_up(self, error: DiskwrightError, call: Call) -> DiskwrightError:
        """Take back what a failed call has left waiting, because the next call would apply it."""
        before = self._plan.before
        notes = []
        try:
            guest = self._read()
            if call.giver is not None:
                notes.extend(self._left_at_giver(call, read_again(self._client, call.giver), guest))
            elif call.kind in (CallKind.CONFIG, CallKind.DESTROY):
                notes.extend(self._revert_new(before, guest))
            if call.kind is CallKind.SHUTDOWN:
                self._clear_journal(guest)
            elif call.kind is not CallKind.START and read_journal(guest.configured.description).start:
                notes.extend(self._start_again(self._read()))
        except DiskwrightError as second:
            notes.append(f"what it left behind could not be read or taken back ({second})")
        return DiskwrightError(": ".join([self._outcome.label, "; ".join([str(error), *notes])]))

    def _left_at_giver(self, call: Call, giver: Guest, guest: Guest) -> list[str]:
        """Take back what a failed call has left waiting at the other guest, and say where a volume is that it took."""
        keys = sorted(giver.changed_keys - call.giver.changed_keys) if call.giver else []
        if keys:
            where = path("nodes", giver.node, "qemu", giver.vmid, "config")
            self._client.put(where, {"revert": ",".join(keys), "digest": giver.digest})
        notes = [f"{', '.join(keys)} of {giver.label} taken back"] if keys else []
        for action in call.actions:
            taken = isinstance(action, Reassign) and drive_at(giver, action.source) is None
            if isinstance(action, Reassign) and taken and action.slot not in guest.configured.drives:
                loose = self._loose_volumes(guest, action.before.storage or "")
                notes.append(f"{action.source} of {giver.label} is empty now, and {loose} is in no slot; attach it")
        return notes

    def _loose_volumes(self, guest: Guest, storage: str) -> str:
        """The guest's volumes on a storage that nothing names, in words for ``volume``."""
        known = _volumes(guest)
        owned = [name for name in self._surroundings.listed(guest.node, storage) if volume_owner(name) == guest.vmid]
        loose = [f"volume: {name}" for name in owned if name not in known]
        return " or ".join(loose) or f"a volume of {storage}"

    def _revert_new(self, before: Guest, guest: Guest) -> list[str]:
        keys = sorted(_left_waiting(before, guest))
        if keys:
            where = path("nodes", guest.node, "qemu", guest.vmid, "config")
            self._client.put(where, {"revert": ",".join(keys), "digest": guest.digest})
            guest = self._restore_boot(before, self._read())
        still = sorted(set(keys) & guest.changed_keys)
        new = sorted(set(guest.configured.unused.values()) - _volumes(before))
        notes = [f"{', '.join(keys)} taken back"] if keys and not still else []
        notes += [f"{', '.join(still)} still waits and the next change would apply it"] if still else []
        return notes + ([f"{', '.join(new)} was made and is kept as unused"] if new else [])

    def _restore_boot(self, before: Guest, guest: Guest) -> Guest:
        """Put a drive whose deletion was taken back into the boot order again: PVE leaves it out at once."""
        if before.configured.boot is None or guest.configured.boot is None or guest.running:
            return guest
        present = {*map(str, guest.configured.drives), *guest.devices}
        kept = before.configured.boot.without(set(before.configured.boot.devices) - present)
        if set(kept.devices) <= set(guest.configured.boot.devices):
            return guest
        where = path("nodes", guest.node, "qemu", guest.vmid, "config")
        self._client.put(where, {"boot": str(kept), "digest": guest.digest})
        return self._read()

    def _start_again(self, guest: Guest) -> list[str]:
        """A change failed that the guest was shut down for: it is started as it was, and the next run tries again."""
        if not guest.running:
            power.start(self._client, guest, Deadline(self._limits.task_timeout))
            guest = self._read()
        self._clear_journal(guest)
        return ["the guest was started again"]

    def _clear_journal(self, guest: Guest) -> None:
        """The guest would not shut down: it runs on, and there is nothing to start later."""
        from .._core.actions import Note

        journal = read_journal(guest.configured.description)
        if not journal.start:
            return
        plain = write_journal(guest.configured.description, replace(journal, start=False))
        where = path("nodes", guest.node, "qemu", guest.vmid, "config")
        self._client.put(where, dict(config_call((Note(None, plain),)).parameters) | {"digest": guest.digest})
        self._read()


_ROUTES: t.Final = {
    CallKind.REVERT: ("PUT", "config"),
    CallKind.CONFIG: ("POST", "config"),
    CallKind.DESTROY: ("POST", "config"),
    CallKind.RESIZE: ("PUT", "resize"),
    CallKind.MOVE: ("POST", "move_disk"),
    CallKind.REASSIGN: ("POST", "move_disk"),
}


def _visible(call: Call) -> tuple[Action, ...]:
    return tuple(action for action in call.actions if action.line is not None)


def _signature(call: Call) -> tuple[CallKind, tuple[tuple[str, str], ...]]:
    """What a call is about, without the names of volumes, which only PVE knows beforehand."""
    return call.kind, tuple(sorted((action.verb, str(action.slot)) for action in call.actions))


def _left_waiting(before: Guest, after: Guest) -> set[str]:
    """Keys that a failed call has left: everything new on a stopped guest, refused deletions on a running one."""
    new = set(after.changed_keys - before.changed_keys)
    if not after.running:
        return new
    refused = {key for key in new & set(after.deleting) if find_slot(key) is not None}
    return refused | ({"boot"} & new if refused else set())


def _volumes(guest: Guest) -> set[str]:
    used = {drive.volume for state in (guest.configured, guest.live) for drive in state.drives.values()}
    return used | set(guest.configured.unused.values())
