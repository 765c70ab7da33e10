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
from dataclasses import dataclass, replace
from itertools import repeat

from .._core.errors import DiskwrightError, Refusal
from .._core.guards import find_leftovers
from .._core.plan import Facts
from .._core.planner import find_needs, make_plan
from . import tasks
from .client import ApiError
from .executor import Executor, Limits, Outcome
from .reads import Cluster, GuestEntry, Surroundings, read_again, read_guests

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.guest import Guest
    from .._core.layout import Layout
    from .._core.plan import Plan
    from .._policy.fill import Advice, Adviser
    from .client import Client


@dataclass(slots=True)
class Job:
    """One guest's way through a run.

    :param refusals: what is wrong with the declaration itself, and with such a declaration what else is refused.
    """

    layout: Layout
    refusals: tuple[Refusal, ...] = ()
    entry: GuestEntry | None = None
    guest: Guest | None = None
    plan: Plan | None = None
    outcome: Outcome | None = None
    error: str | None = None
    advice: Advice | None = None

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
        self.jobs = [Job(layout, refusals) for layout, refusals in declarations]

    def prepare(self) -> None:
        """Find, read and plan every guest. Writes nothing."""
        self._find()
        self._read()
        read = [job for job in self.jobs if job.guest is not None and not job.failed]
        self._each(self._refuse, [job for job in self.jobs if job.guest is not None and job.refusals])
        for job in read:  # nothing but thinking, so threads would only wait for each other
            self._guarded(self._plan, job)
        self._each(self._plan_closely, [job for job in read if job.plan is None and not job.failed])

    def execute(self) -> None:
        """Carry out the plans that have something to do and nothing against them."""
        self._each(
            self._execute, [job for job in self.jobs if job.plan is not None and job.plan.changed and not job.failed]
        )

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

    def _read(self) -> None:
        found = [(job, job.entry) for job in self.jobs if job.entry is not None and job.error is None]
        for (job, _entry), guest in zip(
            found, read_guests(self._client, [entry for _job, entry in found]), strict=True
        ):
            if isinstance(guest, ApiError):
                job.error = f"{job.layout.label}: {guest}"
            else:
                job.guest = guest

    def _plan(self, job: Job) -> None:
        """Plan from what was read in bulk. Without a plan, the guest has to be looked at more closely."""
        guest = t.cast("Guest", job.guest)
        advised = self._adviser is not None and self._adviser.is_wanted(guest, job.layout)
        plan = None if advised or find_needs(guest, job.layout) else make_plan(Facts(guest), job.layout)
        if plan is not None and not plan.changed and not plan.refusals:
            job.plan = plan

    def _plan_closely(self, job: Job) -> None:
        """Plan what there is to do, or to refuse, from the guest as it is now and from what is around it."""
        guest = self._settled(read_again(self._client, t.cast("Guest", job.guest)))
        if self._adviser is not None and self._adviser.is_wanted(guest, job.layout):
            job.advice = self._adviser.advise(guest, job.layout, self._surroundings.storages(guest.node))
            job.layout = job.advice.layout
        job.guest, job.plan = guest, make_plan(self._surroundings.facts(guest, job.layout), job.layout)

    def _settled(self, guest: Guest) -> Guest:
        """The guest without a call half done: a run that was killed, or somebody else, may have left one at work.

        :raises TaskTimeoutError: it takes longer than a task of ours may.
        """
        if not find_leftovers(guest):
            return guest
        deadline = tasks.Deadline(self._limits.task_timeout)
        for upid in tasks.active(self._client, guest.node, guest.vmid):
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
        job.outcome = self._executor.execute(job.layout, t.cast("Plan", job.plan))

    def _each(self, work: Callable[[Job], None], jobs: Sequence[Job]) -> None:
        if len(jobs) <= 1 or self._concurrency == 1:
            for job in jobs:
                self._guarded(work, job)
            return
        with ThreadPoolExecutor(min(self._concurrency, len(jobs))) as pool:
            list(pool.map(self._guarded, repeat(work), jobs))

    @staticmethod
    def _guarded(work: Callable[[Job], None], job: Job) -> None:
        try:
            work(job)
        except DiskwrightError as error:
            job.error = f"{job.label}: {error}"
        except Exception as error:  # noqa: BLE001 - what others have had done to them must not be lost for it
            where = traceback.extract_tb(error.__traceback__)[-1]
            name = where.filename.replace("\\", "/").rpartition("/")[2]
            job.error = (
                f"{job.label}: this should not happen, please report it: {type(error).__name__}: {error} "
                f"({name}, line {where.lineno}); look at the guest before you run again"
            )
