# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Converts images: each from its inspection to its finished target, several at a time."""

from __future__ import annotations

import contextlib
import errno
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .._core.errors import DiskwrightError
from . import plans
from .copy import Means
from .errors import ImageError
from .inspect import inspect
from .journal import Journal
from .lock import held
from .orders import Order, problems
from .plans import Action, Plan
from .snapshots import old_state
from .work import Outcome, Settings, Work, timed

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .progress import Progress
    from .source import Source

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Conversion:
    """One order, from inspection to the finished target."""

    def __init__(self, order: Order, settings: Settings, progress: Progress) -> None:
        self._order = order
        self._settings = settings
        self._progress = progress
        self._means = Means(progress, settings.throttle, settings.workers)
        self._outcome = Outcome(order)

    # ---- what a run consists of

    def look(self) -> Outcome:
        """See what is to be done. Writes nothing."""
        return self._guarded(self._look)

    def run(self) -> Outcome:
        """Do it."""
        return self._guarded(self._run)

    def _guarded(self, work: Callable[[], None]) -> Outcome:
        """Errors become part of the outcome, so that one image's failure is that image's failure."""
        try:
            work()
            self._progress.enter("done")
        except DiskwrightError as error:
            self._fail(str(error), getattr(error, "code", ""))
        except OSError as error:
            self._fail(_explained(error, self._outcome.target or self._order.path), "")
        return self._outcome

    def _fail(self, message: str, code: str) -> None:
        self._outcome.error, self._outcome.code = message, code
        self._progress.enter("failed")

    def _look(self) -> None:
        self._require_sense()
        with self._inspected() as source:
            self._note(plans.make(self._order, source, self._settings.journals))

    def _run(self) -> None:
        with self._locked(), self._inspected() as source:
            plan = plans.make(self._order, source, self._settings.journals)
            self._note(plan)
            if plan.action is not Action.NOTHING:
                Work(self._order, self._settings, self._means, self._outcome, source, plan).do()
                self._note_record(plan)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._require_sense()
        journal = Journal(self._settings.journals, plans.key_of(self._order))
        self._progress.enter("wait")
        with held(journal.lock_path, self._order.name, self._settings.patience):
            yield

    def _require_sense(self) -> None:
        found = problems(self._order)
        if found:
            raise ImageError("\n".join(found))

    @contextlib.contextmanager
    def _inspected(self) -> Iterator[Source]:
        self._progress.enter("inspect")
        with timed(self._outcome, "inspect"):
            source = inspect(self._order.path, self._order.member)
        with source:
            yield source

    # ---- what is told

    def _note(self, plan: Plan) -> None:
        outcome = self._outcome
        # What an earlier run has begun, and done nothing of that lasts, is not gone on with.
        afresh = plan.action is Action.RESUME and not plan.record.done
        outcome.action = Action.CONVERT if afresh else plan.action
        outcome.changed = plan.action in (Action.CONVERT, Action.RESUME, Action.NAME)
        outcome.resumed = outcome.action in (Action.RESUME, Action.NAME)
        outcome.needed, outcome.free = plan.needed, plan.free
        outcome.notes = list(plan.notes)
        if plan.action is not Action.NOTHING:
            outcome.notes += old_state(self._order.path)
        self._note_record(plan)

    def _note_record(self, plan: Plan) -> None:
        outcome, record = self._outcome, plan.record
        outcome.target, outcome.format = record.target, record.format
        outcome.virtual_size, outcome.size = record.virtual_size, record.size
        outcome.fingerprint, outcome.content_id, outcome.checksum = (
            record.fingerprint,
            record.content_id,
            record.checksum,
        )
        outcome.verified = record.state == "verified"


def _explained(error: OSError, where: str) -> str:
    if error.errno in _NO_ROOM:
        place = error.filename or where
        work = "" if str(place).startswith(where) else f", which is needed for {where}"
        return (
            f"{place}: no room left ({error.strerror}){work}; what is safely written is kept. Make room there (or "
            "raise the quota or file size limit) and run again: it goes on from there"
        )
    if error.errno == errno.EEXIST:
        return f"{where} was made by somebody else meanwhile; nothing is overwritten. Remove it, then run again"
    named = f" ({error.filename})" if error.filename else ""
    return f"{where}: {error.strerror or error}{named}; what is safely written is kept. Mend that, then run again"


def run_all(conversions: Sequence[Conversion], concurrency: int, *, write: bool) -> list[Outcome]:
    """Run conversions, some at a time; one's failure does not stop the others.

    :param write: ``False`` to see what would be done.
    :returns: the outcomes, in the order of the conversions.
    """
    with ThreadPoolExecutor(max(concurrency, 1)) as executor:
        return list(executor.map(lambda one: one.run() if write else one.look(), conversions))
