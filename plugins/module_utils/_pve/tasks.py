# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""PVE's tasks: start one, wait for its end, and believe its exit status."""

from __future__ import annotations

import re
import time
import typing as t
from dataclasses import dataclass

from .._core.errors import DiskwrightError
from .api_errors import ApiError, is_digest_mismatch, is_lock_timeout
from .client import path

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .client import Client

    Clock = t.Callable[[], float]
    Sleep = t.Callable[[float], None]

# Most tasks end within 0.3 s; long ones are looked at every tenth of their age, so that waiting costs at most that.
_FIRST_POLL = 0.05
_POLL_GROWTH = 1.5
_SHORT_POLL = 0.3
_POLL_SHARE = 0.1
_LONG_POLL = 2.0
# PVE has waited for the lock for 10 s when it says that it was not to be had.
_LOCK_PAUSE = 0.5
_TAIL_LINES = 10
# More than any log has: PVE counts lines from the start, and the end is what matters.
_ALL_LINES = 1_000_000
# A task's id when a disk goes to another guest: 100-scsi1>101-scsi2.
_REASSIGNMENT = re.compile(r"(\d+)-\w+>(\d+)-\w+")

# How often a call is made again because its answer was lost or PVE could not start a task.
_MOST_RETRIES = 3

_T = t.TypeVar("_T")


class Deadline:
    """A point in time until which it is worth waiting, in seconds from now.

    :param clock: seconds that only go forward.
    """

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._start = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def remaining(self) -> float:
        """Seconds that are left, never below 0."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def passed(self) -> bool:
        return self.elapsed >= self.seconds


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How a task ended well.

    :param upid: empty when PVE answered at once, without a task.
    :param exit_status: ``OK`` or ``WARNINGS: n``.
    :param warnings: the warnings of its log, without PVE's prefix.
    :param log_tail: the last lines of its log, read only when there are warnings.
    :param data: what PVE answered when there was no task.
    """

    upid: str
    exit_status: str
    warnings: tuple[str, ...] = ()
    log_tail: tuple[str, ...] = ()
    data: object = None


class TaskFailedError(DiskwrightError):
    """A task ended badly.

    :ivar exit_status: PVE's reason.
    :ivar log_tail: the last lines of its log.
    """

    def __init__(self, upid: str, exit_status: str, log_tail: tuple[str, ...]) -> None:
        self.upid = upid
        self.exit_status = exit_status
        self.log_tail = log_tail
        task = Upid.parse(upid)
        super().__init__(
            f"the task {task} failed: {'; '.join(exit_status.split(chr(10)))}{_last_words(log_tail)} ({upid})"
        )

    @property
    def lock_timeout(self) -> bool:
        """Another call or task held the guest's configuration for 10 s. Nothing was done."""
        return is_lock_timeout(self.exit_status)

    @property
    def digest_mismatch(self) -> bool:
        """The configuration changed since the digest was read. Nothing was done."""
        return is_digest_mismatch(self.exit_status)


class TaskTimeoutError(DiskwrightError):
    """The deadline passed before the task's end. The task goes on."""

    def __init__(self, upid: str, seconds: float, log_tail: tuple[str, ...]) -> None:
        self.upid = upid
        self.seconds = seconds
        self.log_tail = log_tail
        super().__init__(
            f"the task {Upid.parse(upid)} has not ended after {seconds:.0f} s{_last_words(log_tail)}; "
            f"it goes on, and a later run picks up where it is ({upid})"
        )


def _last_words(log_tail: tuple[str, ...]) -> str:
    return f"; its log ends: {' | '.join(log_tail)}" if log_tail else ""


@dataclass(frozen=True, slots=True)
class Upid:
    """What a task's id says: ``UPID:node:pid:pstart:starttime:type:id:user@realm:``."""

    node: str
    kind: str
    subject: str

    @classmethod
    def parse(cls, upid: str) -> Upid:
        """:raises DiskwrightError: not a UPID."""
        fields = upid.split(":")
        if len(fields) < 8 or fields[0] != "UPID" or not fields[1]:  # noqa: PLR2004
            raise DiskwrightError(f"PVE named a task {upid!r}, which is not a UPID")
        return cls(node=fields[1], kind=fields[5], subject=fields[6])

    def __str__(self) -> str:
        subject = f" of {self.subject}" if self.subject else ""
        return f"{self.kind}{subject} on {self.node}"


def run(
    client: Client,
    method: str,
    path: str,
    params: Mapping[str, object] | None,
    deadline: Deadline,
    sleep: Sleep = time.sleep,
) -> TaskOutcome:
    """Make a call and, when it started a task, wait for the task's end.

    :raises ApiError: PVE refused the call, or its answer was lost.
    :raises TaskFailedError, TaskTimeoutError: see :func:`wait`.
    """
    answer = client.call(method, path, params)
    if isinstance(answer, str) and answer.startswith("UPID:"):
        return wait(client, answer, deadline, sleep)
    return TaskOutcome(upid="", exit_status="OK", data=answer)


def wait(client: Client, upid: str, deadline: Deadline, sleep: Sleep = time.sleep) -> TaskOutcome:
    """Wait for a task's end. It is looked at once at least, however late it is.

    A connection that fails meanwhile does not end the waiting: the task goes on without it.

    :raises TaskFailedError: it ended with anything but ``OK`` or warnings.
    :raises TaskTimeoutError: the deadline came first.
    """
    began = deadline.elapsed
    pause = _FIRST_POLL
    while True:
        exit_status = _exit_status(client, upid)
        if exit_status is not None:
            return _outcome(client, upid, exit_status)
        if deadline.passed:
            raise TaskTimeoutError(upid, deadline.elapsed - began, _tail(_log(client, upid)))
        sleep(min(pause, deadline.remaining))
        age = deadline.elapsed - began
        pause = min(pause * _POLL_GROWTH, max(_SHORT_POLL, age * _POLL_SHARE), _LONG_POLL)


def _exit_status(client: Client, upid: str) -> str | None:
    """The exit status, or None: it runs, or nobody can say right now."""
    try:
        status = client.get(path("nodes", Upid.parse(upid).node, "tasks", upid, "status"))
    except ApiError as error:
        if not error.unreachable:
            raise
        return None
    return str(status.get("exitstatus", "unknown")) if status.get("status") == "stopped" else None


def _outcome(client: Client, upid: str, exit_status: str) -> TaskOutcome:
    if exit_status == "OK":
        return TaskOutcome(upid, exit_status)
    log = _log(client, upid)
    if not exit_status.startswith("WARNINGS:"):
        raise TaskFailedError(upid, exit_status, _tail(log))
    warnings = tuple(line.removeprefix("WARN:").strip() for line in log if line.startswith("WARN:"))
    return TaskOutcome(upid, exit_status, warnings, _tail(log))


def _log(client: Client, upid: str) -> list[str]:
    """The lines of a task's log; none when it cannot be read, which must not hide the task's own result."""
    try:
        lines = client.get(path("nodes", Upid.parse(upid).node, "tasks", upid, "log", limit=_ALL_LINES))
    except ApiError:
        return []
    return [str(line.get("t", "")) for line in lines]


def _tail(log: list[str]) -> tuple[str, ...]:
    return tuple(log[-_TAIL_LINES:])


def until_unlocked(function: t.Callable[[], _T], deadline: Deadline, sleep: Sleep = time.sleep) -> _T:
    """What the function returns, called again as long as another task holds the guest's configuration.

    PVE says so in an error or in the exit status of the task, and has then done nothing.
    """
    while True:
        try:
            return function()
        except (ApiError, TaskFailedError) as error:
            if not error.lock_timeout or deadline.passed:
                raise
        sleep(min(_LOCK_PAUSE, deadline.remaining))


def insist(
    request: t.Callable[[], TaskOutcome],
    reached: t.Callable[[], bool],
    settle: t.Callable[[], object],
    deadline: Deadline,
    sleep: Sleep = time.sleep,
    *,
    failure_may_count: bool = True,
) -> TaskOutcome:
    """Make a request until it is known what became of it.

    A request whose answer was lost may be at work, or never have arrived: first let everything end, then look.

    :param request: the call, waited for to its end.
    :param reached: whether what the request is for has come about, whoever did it.
    :param settle: waits until nothing is under way any more.
    :param failure_may_count: whether a request that has failed is fine if what it is for has come about all the same.
    :raises ApiError, TaskFailedError: it failed, and what it is for has not come about.
    """
    for attempt in range(_MOST_RETRIES + 1):
        try:
            return until_unlocked(request, deadline, sleep)
        except (ApiError, TaskFailedError) as error:
            settle()
            unanswered = isinstance(error, ApiError) and (error.lost or error.no_worker)
            if (unanswered or failure_may_count) and reached():
                return TaskOutcome(upid="", exit_status="OK")
            if not unanswered or attempt == _MOST_RETRIES:
                raise
    raise AssertionError("the last attempt ends it")


def active(client: Client, node: str, vmid: int) -> list[str]:
    """The UPIDs of the tasks of a guest that run now, as far as the user may see them."""
    tasks = client.get(path("nodes", node, "tasks"), {"vmid": vmid, "source": "active"})
    # PVE keeps tasks that have just ended in the same list.
    return [str(task["upid"]) for task in tasks if not task.get("endtime")]


def reassigning(client: Client, node: str, vmids: Iterable[int]) -> list[str]:
    """The UPIDs of the tasks that hand disks from or to these guests now: PVE lists them under neither's number."""
    numbers = {str(vmid) for vmid in vmids}
    rows = client.get(path("nodes", node, "tasks"), {"typefilter": "qmmove", "source": "active"})
    found = []
    for task in rows:
        match = _REASSIGNMENT.fullmatch(str(task.get("id", "")))
        if match is not None and not task.get("endtime") and numbers & set(match.groups()):
            found.append(str(task["upid"]))
    return found


def last_failure(client: Client, node: str, vmid: int) -> str:
    """What the guest's last task that failed was, with its exit status; empty when there is none or nobody may say."""
    try:
        rows = client.get(path("nodes", node, "tasks"), {"vmid": vmid, "errors": 1, "limit": 1})
    except ApiError:
        return ""
    return f"{rows[0]['type']}: {'; '.join(str(rows[0].get('status', '')).split(chr(10)))}" if rows else ""
