# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Carries a plan out: one start of the guest after another, each written down before the next one."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import time
import typing as t
from dataclasses import replace

from .._image.lock import held
from .._policy.constraints import HOST_CACHED
from . import scratch
from .drive_options import drive_options
from .errors import BenchError, GuestError
from .guest import BOOT_SECONDS, started
from .job import expected_write_cache, files, outcome, script
from .matrix import LeftOut
from .prepare import check_space
from .results import Method, Results, Run
from .state import Done, Head, State
from .workloads import TABLE

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .guest import Guest
    from .job import Outcome
    from .plan import Trial
    from .prepare import Prepared
    from .scratch import Volume

#: What one workload may take beyond the time that it is measured.
_SLACK_SECONDS: t.Final = 90.0
#: How long to wait for the end of a run that was killed: its QEMU may still have to write.
LOCK_SECONDS: t.Final = 30.0
LOCKED: t.Final = "a benchmark on this machine"
#: So many starts of the guest in a row that measured nothing end the run.
_MOST_FAILURES: t.Final = 3
ORDER: t.Final = (
    "Every round measures each combination once, in a random order of its own that the seed decides, and so are the "
    "workloads of each start of the guest; one combination of each place is measured twice in a round, as A and as B."
)
CACHES: t.Final = (
    "Each volume was filled once with random bytes. Before each start of the guest, what the node had cached of the "
    "image was written and given up. The guest reads and writes past its own cache. Caches of disks and controllers, "
    "the ARC of ZFS, and those behind a network were left as they were."
)


def now() -> str:
    """The time in UTC, as ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


class Execution:
    """One process's part in a run: from where an earlier one has got to, to the end."""

    def __init__(self, prepared: Prepared, state: State) -> None:
        self._prepared, self._state = prepared, state
        self._plan, self._settings = prepared.plan, prepared.plan.settings
        self._begun = 0.0
        self._notes = list(prepared.notes)

    def go(self) -> Results:
        """Measure what is left, free the volumes, and give the results."""
        with held(self._state.lock_path, LOCKED, LOCK_SECONDS), _interrupted():
            head = self._head()
            volumes = scratch.Scratch(self._state.folder, self._prepared.request.vmid, self._state.tag)
            volumes.free()
            self._begun = time.monotonic()
            try:
                self._trials(head, volumes)
                self._try_crashes(head, volumes)
            finally:
                volumes.free()
            results = self._results(head)
            self._state.save_results(results)
            return results

    def _head(self) -> Head:
        head = self._state.head()
        if head is None:
            head = Head(self._prepared.request.fingerprint, self._plan.fingerprint, self._prepared.environment, now())
            self._state.save_head(head)
        check_same(head, self._prepared)
        return head

    # ---- trials

    def _trials(self, head: Head, volumes: scratch.Scratch) -> None:
        done = self._state.trials()
        left = [trial for trial in self._plan.trials if trial.number not in done]
        if not left:
            return
        made = self._volumes(left, volumes)
        each = self._plan.seconds_left(range(2, len(self._plan.trials) + 1))
        failed: list[int] = []
        for trial in left:
            if self._over(head.spent, each):
                return
            given = self._trial(trial, made[trial.combination.layout])
            self._state.save_trial(trial.number, given)
            self._save_time(head)
            failed = [*failed, trial.number] if all(run.error for run in given.runs) else []
            if len(failed) == _MOST_FAILURES:
                self._state.forget_trials(failed)
                raise BenchError(
                    f"{_MOST_FAILURES} starts of the guest in a row measured nothing, the last one because: "
                    f"{given.runs[0].error}"
                )

    def _over(self, spent: float, seconds: float) -> bool:
        """Whether something that takes so many seconds may go beyond the time limit."""
        limit = self._settings.time_limit
        return bool(limit) and spent + time.monotonic() - self._begun + seconds > limit

    def _volumes(self, trials: list[Trial], volumes: scratch.Scratch) -> dict[str, Volume]:
        size, prepared = self._settings.size, self._prepared
        layouts = {trial.combination.layout: trial.combination for trial in trials}
        check_space(prepared.request, prepared.found, [*layouts.values()])
        pattern = os.path.join(self._state.folder, "pattern")
        scratch.write_pattern(pattern)
        made = {}
        try:
            for layout, combination in layouts.items():
                made[layout] = volumes.make(combination, prepared.place(combination).place, size)
                scratch.fill(made[layout], size, pattern)
        finally:
            os.unlink(pattern)
        return made

    def _trial(self, trial: Trial, volume: Volume) -> Done:
        """Start the guest once."""
        volume.forget_cached()
        begun, prepared = now(), self._prepared
        drives = drive_options(
            trial.combination, volume.path, volume=volume.volume, block=volume.block, qemu=prepared.software.version
        )
        with started(prepared.machine, drives, script(trial), files(trial, self._settings)) as guest:
            found, note, why = self._heard(trial, guest)
        runs = (
            Run(trial.number, trial.round, trial.combination.key, trial.side, name, begun,
                found[name].measured if name in found else None, found[name].error if name in found else why)
            for name in TABLE if name in trial.workloads
        )  # fmt: skip
        return Done(tuple(runs), note)

    def _heard(self, trial: Trial, guest: Guest) -> tuple[dict[str, Outcome], str, str]:
        """What the guest says: outcomes, a note, and why there are no more of them."""
        found: dict[str, Outcome] = {}
        settings, note = self._settings, ""
        limit = BOOT_SECONDS[self._prepared.machine.accelerator]
        limit += len(trial.workloads) * (settings.seconds + settings.ramp + _SLACK_SECONDS)
        try:
            for frame in guest.frames(time.monotonic() + limit):
                if frame.kind == "ready":
                    note = _unexpected(trial, frame.text)
                elif frame.kind == "result":
                    one = outcome(frame.text)
                    found[one.workload] = one
                    if len(found) == len(trial.workloads):
                        return found, note, ""
        except GuestError as error:
            return found, note, str(error)
        return found, note, f"the guest ended before it came to this; {guest.said()}"

    # ---- crashes

    def _try_crashes(self, head: Head, volumes: scratch.Scratch) -> None:
        done, boot = self._state.crashes(), self._plan.costs.boot
        for number, crash in enumerate(self._prepared.crashes, 1):
            if number in done or self._over(head.spent, crash.seconds(boot)):
                continue
            try:
                self._state.save_crash(number, crash.go(self._prepared, volumes))
            except GuestError as error:
                self._notes.append(f"{crash.combination.key}: a crash of the {crash.kind} could not be tried: {error}")
            self._save_time(head)

    def _save_time(self, head: Head) -> None:
        self._state.save_head(replace(head, spent=head.spent + time.monotonic() - self._begun))

    # ---- the document

    def _results(self, head: Head) -> Results:
        prepared, plan, settings = self._prepared, self._plan, self._settings
        trials = self._state.trials()
        runs = tuple(run for number in sorted(trials) for run in trials[number].runs)
        notes = dict.fromkeys([*(trials[number].note for number in sorted(trials)), *self._notes])
        crashes = self._state.crashes()
        method = Method(
            settings.rounds, settings.seconds, settings.ramp, settings.size, settings.seed, ORDER, CACHES, plan.nulls,
            len(plan.trials), plan.seconds_left(), settings.time_limit,
        )  # fmt: skip
        return Results(
            id=f"{prepared.environment.node}-{prepared.request.name}-{head.started}",
            started=head.started,
            finished=now() if len(trials) == len(plan.trials) else "",
            environment=head.environment,
            method=method,
            combinations=plan.combinations,
            workloads=tuple(row.id for row in settings.workloads),
            runs=runs,
            durability=tuple(crashes[number] for number in sorted(crashes)),
            left_out=(*prepared.left_out, *self._not_measured(len(trials), len(crashes))),
            notes=(*self._remarks(runs), *filter(None, notes)),
        )

    def _not_measured(self, trials: int, crashes: int) -> Iterator[LeftOut]:
        why = f"time_limit, {self._settings.time_limit} seconds, was over."
        if trials < len(self._plan.trials):
            yield LeftOut(f"starts of the guest {trials + 1} to {len(self._plan.trials)}", why)
        if crashes < len(self._prepared.crashes):
            yield LeftOut(f"{len(self._prepared.crashes) - crashes} of {len(self._prepared.crashes)} crashes", why)

    def _remarks(self, runs: tuple[Run, ...]) -> Iterator[str]:
        environment, settings = self._prepared.environment, self._settings
        cached = sorted({one.cache for one in self._plan.combinations} & set(HOST_CACHED))
        if cached and settings.size < environment.memory:
            yield (
                "The volumes are smaller than the node's memory: with the cache modes that use it "
                f"({', '.join(cached)}), reads are measured from memory as soon as they have come once."
            )
        failed = sum(bool(run.error) for run in runs)
        if failed:
            yield f"{failed} of {len(runs)} measurements have failed; their reasons are in the table."


def _unexpected(trial: Trial, text: str) -> str:
    """A note if the guest sees another write cache than the cache mode gives."""
    cache, expected = text.strip().splitlines()[-1], expected_write_cache(trial.combination)
    return "" if cache == expected else f"{trial.combination.key}: the guest sees '{cache}' and not '{expected}'."


def check_same(head: Head, prepared: Prepared) -> None:
    """Refuse to go on with a run that was another one, or on another system: its results could not be compared.

    :raises BenchError: naming what is different.
    """
    name, then, today = prepared.request.name, head.environment, prepared.environment
    different = [
        f"{what} was {old or 'nothing'} and is {new or 'nothing'}"
        for what, old, new in (
            ("the plan", head.fingerprint, prepared.plan.fingerprint),
            ("QEMU", then.qemu, today.qemu),
            ("the kernel", then.kernel, today.kernel),
            ("the guest's kernel", then.guest_kernel, today.guest_kernel),
            ("fio", then.fio, today.fio),
            ("the accelerator", then.accelerator, today.accelerator),
        )
        if old != new
    ]
    if different:
        raise BenchError(
            f"benchmark {name} was begun at {head.started} and can't go on: {'; '.join(different)}. "
            "Take another name, or remove it with state=absent"
        )


class Interrupted(BenchError):
    """The process was told to end."""


@contextlib.contextmanager
def _interrupted() -> Iterator[None]:
    """Have the signals that end a process end this work in order: guest killed, volumes freed."""

    def stop(number: int, frame: object) -> t.NoReturn:
        name = signal.Signals(number).name
        raise Interrupted(f"the benchmark was ended by {name}; its volumes are freed. Run it again, and it goes on")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
