# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong on demand.

Of network trouble and of errors for a path fakepve has its own switches (`lab.server.fail`, `flaky_network`).
Here is what a disk collection meets beside them. All times are PVE seconds: the clock shortens them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.api import ApiError
from lab.clock import Clock

GATEWAY_TIMEOUT = 30.0
"""pveproxy gives up on an answer after this and says 596, while the work goes on."""


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
        self.ha: set[int] = set()
        """Guests that HA manages: it stops them by force when their time is over."""
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
        self._clock.owe(self.task_seconds.get(kind, 0.0))
        if error is None:
            yield
        self._clock.pay()
        if error is not None:
            raise ApiError(error)
