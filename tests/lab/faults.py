# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong on demand, and the clock that makes PVE's waiting times short.

Of network trouble and of errors for a path fakepve has its own switches (`lab.server.fail`, `flaky_network`).
Here is what a disk collection meets beside them. All times are PVE seconds: the clock shortens them.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.api import ApiError

GATEWAY_TIMEOUT = 30.0
"""pveproxy gives up on an answer after this and says 596, while the work goes on."""


class Clock:
    """Sleeps PVE seconds in `scale` times as many real ones."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self._local = threading.local()

    def sleep(self, seconds: float) -> None:
        """Waits; locks that this thread holds count the time for those who wait for them."""
        locks = list(self.held)
        for lock in locks:
            lock.nap(seconds)
        time.sleep(seconds * self.scale)
        for lock in locks:
            lock.wake()

    @property
    def held(self) -> list[GuestLock]:
        """The guest locks of this thread, with repetitions."""
        if not hasattr(self._local, "held"):
            self._local.held = []
        held: list[GuestLock] = self._local.held
        return held

    @property
    def due(self) -> float:
        """Seconds that this thread's task still has to last; spent while it holds a guest's lock."""
        return float(getattr(self._local, "due", 0.0))

    @due.setter
    def due(self, seconds: float) -> None:
        self._local.due = seconds

    def spend(self) -> None:
        """Lets the task last as long as it is due to."""
        seconds, self.due = self.due, 0.0
        if seconds:
            self.sleep(seconds)


class GuestLock:
    """The flock on a guest's configuration: exclusive or shared, first come, first served, re-entrant.

    A waiter gives up when the holder has *slept* for the time-out: real work of qemu-img, however slow the
    machine is, takes no PVE time, so that tests with short seconds are not at the mercy of the disk.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._condition = threading.Condition()
        self._queue: list[object] = []
        self._holders: dict[int, int] = {}
        self._exclusive = False
        self._slept = 0.0
        self._nap: tuple[float, float] | None = None

    def nap(self, seconds: float) -> None:
        """The holder starts to sleep."""
        with self._condition:
            self._nap = (time.monotonic(), seconds)

    def wake(self) -> None:
        """The holder goes on."""
        with self._condition:
            self._slept, self._nap = self._elapsed(), None

    def _elapsed(self) -> float:
        if self._nap is None or not self._clock.scale:
            return self._slept
        begun, seconds = self._nap
        return self._slept + min(seconds, (time.monotonic() - begun) / self._clock.scale)

    @contextmanager
    def hold(self, timeout: float = 10, shared: bool = False) -> Iterator[None]:
        """Holds the lock; PVE's error when others sleep on it for longer than `timeout` PVE seconds."""
        me = threading.get_ident()
        self._acquire(me, timeout, shared)
        self._clock.held.append(self)
        try:
            self._clock.spend()
            yield
        finally:
            self._clock.held.remove(self)
            self._release(me)

    def _acquire(self, me: int, timeout: float, shared: bool) -> None:
        ticket = object()
        with self._condition:
            if me in self._holders:
                self._holders[me] += 1
                return
            self._queue.append(ticket)
            begun = self._elapsed()
            try:
                while self._queue[0] is not ticket or (self._holders and (self._exclusive or not shared)):
                    if self._elapsed() - begun >= timeout:
                        raise ApiError(f"can't lock file '{self._path}' - got timeout")
                    self._condition.wait(0.005 if self._nap else 0.05)
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


@dataclass
class _Slow:
    method: str
    path: re.Pattern[str]
    seconds: float
    times: int | None


class Faults:
    """The switches. Counters count down at each use; `None` means for ever."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._slow: list[_Slow] = []
        self._lost: list[_Slow] = []
        self.task_seconds: dict[str, float] = {}
        """Task type -> PVE seconds that each task of it lasts, most of them holding the guest's lock."""
        self.task_errors: dict[str, list[str]] = {}
        """Task type -> exit statuses; the next task of the type ends with the first of them and does nothing."""
        self.no_worker: dict[str, int] = {}
        """Task type -> how many of the next calls find no worker (a busy node)."""
        self.busy_slots: set[tuple[int, str]] = set()
        """(vmid, slot) that the guest does not let go when it is unplugged."""
        self.deaf: set[int] = set()
        """Guests that do not react to a shutdown request."""
        self.agent_down: set[int] = set()
        """Running guests whose agent does not answer."""
        self.expired = False
        """Every ticket is refused."""

    # ---- setting

    def slow(self, method: str, path: str, seconds: float, times: int | None = 1) -> None:
        """The answer to requests whose path matches the regular expression takes so many PVE seconds.

        From 30 on the client gets 596 `Connection timed out` after 30, and the work is done all the same.
        """
        self._slow.append(_Slow(method, re.compile(path), seconds, times))

    def lose_answer(self, method: str, path: str, times: int | None = 1) -> None:
        """The work is done, then the connection is closed without an answer."""
        self._lost.append(_Slow(method, re.compile(path), 0, times))

    # ---- use by the server

    def _take(self, rules: list[_Slow], method: str, path: str) -> _Slow | None:
        with self._lock:
            for rule in rules:
                if rule.method == method and rule.path.search(path):
                    if rule.times is not None:
                        rule.times -= 1
                        if rule.times <= 0:
                            rules.remove(rule)
                    return rule
        return None

    def delay(self, method: str, path: str) -> float:
        """PVE seconds that this request has to take."""
        rule = self._take(self._slow, method, path) if self._slow else None
        return rule.seconds if rule else 0.0

    def loses(self, method: str, path: str) -> bool:
        """Whether the answer of this request gets lost."""
        return bool(self._lost and self._take(self._lost, method, path))

    def worker(self, kind: str) -> None:
        """500 when the node is too busy to start this task."""
        with self._lock:
            if self.no_worker.get(kind, 0) > 0:
                self.no_worker[kind] -= 1
                raise ApiError("got no worker upid - start worker failed")

    @contextmanager
    def task(self, kind: str) -> Iterator[None]:
        """Around the work of a task: its error instead, or the time that it takes."""
        with self._lock:
            errors = self.task_errors.get(kind)
            error = errors.pop(0) if errors else None
        self._clock.due = self.task_seconds.get(kind, 0.0)
        if error is not None:
            self._clock.spend()
            raise ApiError(error)
        yield
        self._clock.spend()
