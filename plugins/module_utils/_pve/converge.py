# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Converges many guests: reads them together, plans each, carries the plans out side by side.

One guest's failure is that guest's failure: the others go on.
"""

from __future__ import annotations

import contextlib
import traceback
import typing as t
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat

from .._core.errors import DiskwrightError, PlanRefusedError, Refusal
from .._core.guards import find_leftovers
from .._core.plan import Facts, Giver
from .._core.planner import find_needs, make_plan
from .._core.projection import project_giver
from .._core.reassign import Declared, find_givers, linked, rivalries, taken_slots
from . import tasks
from .client import ApiError
from .executor import Executor, Limits, Outcome
from .reads import Cluster, GuestEntry, Surroundings, read_again, read_guests

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.guest import Guest
    from .._core.layout import Layout
    from .._core.plan import Plan
    from .._core.slot import Slot
    from .._policy.fill import Advice, Adviser
    from .client import Client


@dataclass(slots=True)
class Job:
    """One guest's way through a run.

    :param refusals: what is wrong with the declaration itself, and with such a declaration what else is refused.
    :param takers: the jobs of the same run that take a disk from this guest.
    """

    layout: Layout
    refusals: tuple[Refusal, ...] = ()
    entry: GuestEntry | None = None
    guest: Guest | None = None
    plan: Plan | None = None
    outcome: Outcome | None = None
    error: str | None = None
    advice: Advice | None = None
    takers: tuple[Job, ...] = field(default=(), repr=False, compare=False)

    @property
    def label(self) -> str:
        """How messages call the guest."""
        return self.guest.label if self.guest else self.layout.label

    @property
    def failed(self) -> bool:
        """Whether something kept the guest from becoming as it is declared."""
        refused = bool(self.refusals or (self.plan and self.plan.refusals))
        return refused or self.error is not None or (self.outcome is not None and self.outcome.error is not None)

    @property
    def messages(self) -> tuple[str, ...]:
        """Why it failed, each reason on its own."""
        reasons = [str(refusal) for refusal in (*self.refusals, *(self.plan.refusals if self.plan else ()))]
        reasons += [self.error] if self.error else []
        reasons += [self.outcome.error] if self.outcome and self.outcome.error else []
        return tuple(dict.fromkeys(reasons))


class Convergence:
    """A run over guests.

    :param declarations: layouts with what is wrong with each.
    :param concurrency: how many guests are changed at a time.
    :param adviser: fills what the declarations leave open.
    """

    def __init__(
        self,
        client: Client,
        declarations: Sequence[tuple[Layout, tuple[Refusal, ...]]],
        limits: Limits,
        *,
        concurrency: int,
        adviser: Adviser | None = None,
    ) -> None:
        self._client = client
        self._adviser = adviser
        self._limits = limits
        self._concurrency = max(1, concurrency)
        self._surroundings = Surroundings(client, may_use_paths=client.endpoint.is_root_ticket)
        self._executor = Executor(client, self._surroundings, limits)
        self._givers: dict[str, Giver] = {}
        self._linked: list[frozenset[int]] = []
        self.jobs = [Job(layout, refusals) for layout, refusals in declarations]

    def prepare(self) -> None:
        """Find, read and plan every guest. Writes nothing."""
        self._find()
        self._read()
        self._each(self._refuse, [job for job in self.jobs if job.guest is not None and job.refusals])
        for job in self._in_order():  # nothing but thinking, so threads would only wait for each other
            if job.guest is not None and not job.failed:
                self._guarded(self._plan, job)
        self._each(self._plan_closely, [job for job in self.jobs if job.guest and job.plan is None and not job.failed])

    def execute(self) -> None:
        """Carry out the plans that have something to do and nothing against them."""
        ready = [job for job in self.jobs if job.plan is not None and not job.failed]
        self._each(self._execute, [job for job in ready if job.plan and job.plan.changed])
        unlike = [job for job in ready if job.outcome is None and any(taker.failed for taker in job.takers)]
        self._each(self._look_again, unlike)

    def _find(self) -> None:
        if not self.jobs:
            return
        cluster = Cluster(self._client)
        for job in self.jobs:
            try:
                job.entry = cluster.find(job.layout)
            except ApiError:
                raise
            except DiskwrightError as error:
                job.error = str(error)
        times = Counter(job.entry.vmid for job in self.jobs if job.entry)
        for job in self.jobs:
            if job.entry and times[job.entry.vmid] > 1:
                count = times[job.entry.vmid]
                job.error = f"{job.layout.label}: guest {job.entry.vmid} is declared {count} times; once is enough"
        self._find_givers(cluster)

    def _find_givers(self, cluster: Cluster) -> None:
        """Find the guests that disks are to come from, and what several declarations say about the same disk."""
        givers = self._surroundings.givers
        for name in sorted({name for job in self.jobs for name in find_givers(job.layout)}):
            givers[name] = cluster.giver(name)
        numbers = {name: entry.vmid for name, entry in givers.items() if isinstance(entry, GuestEntry)}
        jobs = {job.entry.vmid: job for job in self.jobs if job.entry is not None and job.error is None}
        declared = [
            Declared(vmid, f"{job.entry.name} ({vmid} on {job.entry.node})", job.layout, numbers)
            for vmid, job in jobs.items()
            if job.entry is not None
        ]
        self._linked = [group for group in linked(declared) if len(group & set(jobs)) > 1]
        for vmid, refusal in rivalries(declared):
            jobs[vmid].refusals = (*jobs[vmid].refusals, refusal)
        for one in declared:
            taken = {giver for _disk, giver, _slot in one.takings}
            for giver in sorted(taken & set(jobs)):
                self._surroundings.taken[giver] = taken_slots(declared, giver)
                jobs[giver].takers = (*jobs[giver].takers, jobs[one.vmid])

    def _read(self) -> None:
        found = [(job, job.entry) for job in self.jobs if job.entry is not None and job.error is None]
        givers = {name: entry for name, entry in self._surroundings.givers.items() if isinstance(entry, GuestEntry)}
        read = read_guests(self._client, [*(entry for _job, entry in found), *givers.values()])
        self._givers = {
            **{
                name: Giver(None, entry)
                for name, entry in self._surroundings.givers.items()
                if isinstance(entry, tuple)
            },
            **{
                name: Giver(guest)
                for name, guest in zip(givers, read[len(found) :], strict=True)
                if not isinstance(guest, ApiError)
            },
        }
        for (job, _entry), guest in zip(found, read, strict=False):
            if isinstance(guest, ApiError):
                job.error = f"{job.layout.label}: {guest}"
            else:
                job.guest = guest

    def _plan(self, job: Job) -> None:
        """Plan from what was read in bulk. Without a plan, the guest has to be looked at more closely."""
        guest = t.cast("Guest", job.guest)
        advised = self._adviser is not None and self._adviser.is_wanted(guest, job.layout)
        waits = any(taker.plan is None for taker in job.takers)
        if advised or waits or find_needs(guest, job.layout, self._givers):
            return
        taken = self._surroundings.taken.get(guest.vmid, frozenset())
        plan = make_plan(Facts(guest, givers=self._givers, taken=taken), job.layout)
        if plan is not None and not plan.changed and not plan.refusals:
            job.plan = plan

    def _plan_closely(self, job: Job) -> None:
        """Plan what there is to do, or to refuse, from the guest as it is now and from what is around it."""
        guest = self._settled(read_again(self._client, t.cast("Guest", job.guest)), job.layout)
        if self._adviser is not None and self._adviser.is_wanted(guest, job.layout):
            job.advice = self._adviser.advise(guest, job.layout, self._surroundings.storages(guest.node))
            job.layout = job.advice.layout
        job.guest = guest
        for taker in job.takers:  # they come first: what they leave is what there is to plan
            for call in taker.plan.calls if taker.plan else ():
                guest = project_giver(guest, call)
        job.plan = make_plan(self._surroundings.facts(guest, job.layout), job.layout)

    def _settled(self, guest: Guest, layout: Layout) -> Guest:
        """The guest without a call half done: a run that was killed, or somebody else, may have left one at work.

        :raises TaskTimeoutError: it takes longer than a task of ours may.
        """
        arriving = [disk for disk in layout.disks if disk.moved_from_guest and disk.slot not in guest.configured.drives]
        if not find_leftovers(guest) and not arriving:
            return guest
        deadline = tasks.Deadline(self._limits.task_timeout)
        active = tasks.active(self._client, guest.node, guest.vmid) if find_leftovers(guest) else []
        active += tasks.reassigning(self._client, guest.node, (guest.vmid,)) if arriving else []
        for upid in active:
            with contextlib.suppress(tasks.TaskFailedError):
                tasks.wait(self._client, upid, deadline)
        return read_again(self._client, guest)

    def _refuse(self, job: Job) -> None:
        """Find what else would be refused, so that a user who corrects the declaration need not come back for it."""
        guest = t.cast("Guest", job.guest)
        at_fault = {refusal.slot for refusal in job.refusals}
        sound = replace(
            job.layout,
            disks=tuple(disk for disk in job.layout.disks if str(disk.slot) not in at_fault),
            boot=None,  # it may name a drive that is left out here, and so may what is undeclared
            undeclared="keep",
        )
        more = make_plan(self._surroundings.facts(guest, sound), sound).refusals
        own = (replace(refusal, guest=guest.label) for refusal in job.refusals)
        job.refusals = tuple(dict.fromkeys([*own, *more]))

    def _execute(self, job: Job) -> None:
        plan = t.cast("Plan", job.plan)
        expected = _steps(plan)
        if self._is_linked(job):  # another job may have changed the guest since, or one that it takes from
            guest = read_again(self._client, plan.before)
            plan = make_plan(self._surroundings.facts(guest, job.layout), job.layout)
        job.outcome = self._executor.execute(job.layout, plan)
        if _steps(plan) != expected:
            job.outcome.warnings.insert(0, f"{job.label}: planned anew: the guests were not as expected")

    def _look_again(self, job: Job) -> None:
        """See how a guest is that was to give a disk and has nothing else to do."""
        plan = t.cast("Plan", job.plan)
        job.outcome = Outcome(job.label, plan=plan, guest=read_again(self._client, plan.before))

    def _in_order(self) -> list[Job]:
        """Who takes a disk comes before the guest that gives it."""
        ordered: dict[int, Job] = {}
        for job in self.jobs:
            _takers_first(job, ordered, set())
        return list(ordered.values())

    def _groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Jobs that have nothing to do with each other may go side by side; the others one after the other."""
        chosen = {id(job) for job in jobs}
        groups: dict[object, list[Job]] = {}
        for job in self._in_order():
            if id(job) in chosen:
                groups_of = (group for group in self._linked if job.entry and job.entry.vmid in group)
                groups.setdefault(next(groups_of, id(job)), []).append(job)
        return list(groups.values())

    def _is_linked(self, job: Job) -> bool:
        return any(job.entry is not None and job.entry.vmid in group for group in self._linked)

    def _each(self, work: Callable[[Job], None], jobs: Sequence[Job]) -> None:
        groups = self._groups(jobs)
        if len(groups) <= 1 or self._concurrency == 1:
            for group in groups:
                self._one_by_one(work, group)
            return
        with ThreadPoolExecutor(min(self._concurrency, len(groups))) as pool:
            list(pool.map(self._one_by_one, repeat(work), groups))

    def _one_by_one(self, work: Callable[[Job], None], jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._guarded(work, job)

    @staticmethod
    def _guarded(work: Callable[[Job], None], job: Job) -> None:
        try:
            work(job)
        except PlanRefusedError as error:
            job.error = str(error)
        except DiskwrightError as error:
            job.error = f"{job.label}: {error}"
        except Exception as error:  # noqa: BLE001 - what others have had done to them must not be lost for it
            where = traceback.extract_tb(error.__traceback__)[-1]
            name = where.filename.replace("\\", "/").rpartition("/")[2]
            job.error = (
                f"{job.label}: this should not happen, please report it: {type(error).__name__}: {error} "
                f"({name}, line {where.lineno}); look at the guest before you run again"
            )


def _steps(plan: Plan) -> list[tuple[str, Slot | None]]:
    return [(action.verb, action.slot) for action in plan.actions]


def _takers_first(job: Job, ordered: dict[int, Job], on_the_way: set[int]) -> None:
    if id(job) in ordered or id(job) in on_the_way:
        return
    for taker in job.takers:
        _takers_first(taker, ordered, on_the_way | {id(job)})
    ordered[id(job)] = job
