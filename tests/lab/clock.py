# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PVE's seconds, made short, and the lock on a guest's configuration, whose waiting is measured in them.

Time-outs count only what somebody *slept* of these seconds. Real work of qemu-img, however slow the machine is, takes
no PVE time, so that tests with short seconds are not at the mercy of the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab.api import ApiError


class Naps:
    """Counts the PVE seconds that one worker sleeps; others look at it."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._slept = 0.0
        self._nap: tuple[float, float] | None = None
        self._lock = threading.Lock()

    def begin(self, seconds: float) -> None:
        """The worker lies down for so many seconds."""
        with self._lock:
            self._nap = (time.monotonic(), seconds)

    def end(self) -> None:
        """The worker goes on."""
        with self._lock:
            self._slept, self._nap = self._elapsed(), None

    @property
    def elapsed(self) -> float:
        """What was slept until now."""
        with self._lock:
            return self._elapsed()

    def _elapsed(self) -> float:
        if self._nap is None or not self._scale:
            return self._slept
        begun, seconds = self._nap
        return self._slept + min(seconds, (time.monotonic() - begun) / self._scale)


class Clock:
    """Sleeps PVE seconds in `scale` times as many real ones."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self._local = threading.local()

    def naps(self) -> Naps:
        """A new counter."""
        return Naps(self.scale)

    def sleep(self, seconds: float) -> None:
        """Waits; whoever waits for this thread counts the time."""
        watching = list(dict.fromkeys(self._watching))
        for naps in watching:
            naps.begin(seconds)
        time.sleep(seconds * self.scale)
        for naps in watching:
            naps.end()

    @property
    def _watching(self) -> list[Naps]:
        if not hasattr(self._local, "watching"):
            self._local.watching = []
        watching: list[Naps] = self._local.watching
        return watching

    @contextmanager
    def watched(self, naps: Naps) -> Iterator[None]:
        """This thread's sleep is counted there."""
        self._watching.append(naps)
        try:
            yield
        finally:
            self._watching.remove(naps)

    def owe(self, seconds: float) -> None:
        """This thread's task has to last so long; it sleeps when it first holds a guest's lock."""
        self._local.due = seconds

    def pay(self) -> None:
        """Sleeps what is owed."""
        seconds, self._local.due = getattr(self._local, "due", 0.0), 0.0
        if seconds:
            self.sleep(seconds)


class GuestLock:
    """The flock on a guest's configuration: exclusive or shared, first come, first served, re-entrant."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._naps = clock.naps()
        self._condition = threading.Condition()
        self._queue: list[object] = []
        self._holders: dict[int, int] = {}
        self._exclusive = False

    @contextmanager
    def hold(self, timeout: float = 10, shared: bool = False) -> Iterator[None]:
        """Holds the lock; PVE's error when the holder sleeps on it for `timeout` PVE seconds."""
        me = threading.get_ident()
        self._acquire(me, timeout, shared)
        try:
            with self._clock.watched(self._naps):
                self._clock.pay()
                yield
        finally:
            self._release(me)

    def _acquire(self, me: int, timeout: float, shared: bool) -> None:
        ticket = object()
        with self._condition:
            if me in self._holders:
                self._holders[me] += 1
                return
            self._queue.append(ticket)
            begun = self._naps.elapsed
            try:
                while self._queue[0] is not ticket or (self._holders and (self._exclusive or not shared)):
                    if self._naps.elapsed - begun >= timeout:
                        raise ApiError(f"can't lock file '{self._path}' - got timeout")
                    self._condition.wait(0.01)
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()
            self._holders[me], self._exclusive = 1, not shared

    def _release(self, me: int) -> None:
        with self._condition:
            self._holders[me] -= 1
            if not self._holders[me]:
                del self._holders[me]
            self._condition.notify_all()
