# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Who works on what: locks between runs on a node, and who else has a file or device open."""

from __future__ import annotations

import fcntl
import os
import threading
import time
import typing as t
from contextlib import contextmanager

from .errors import ImageError
from .file_errors import named

if t.TYPE_CHECKING:
    from collections.abc import Iterator


class BusyError(ImageError):
    """Something is in use by another run, process or guest."""


@contextmanager
def held(path: str, what: str, seconds: float = 0) -> Iterator[int]:
    """Hold a lock file exclusively; its folder is made.

    The kernel gives the lock up when the last process that has the descriptor ends. Programs that are started meanwhile
    get it (``inherited``), so that what they do to the target comes to its end before the next run begins, even if this
    process is killed.

    :param what: what is locked, for the message.
    :param seconds: how long to wait for another run.
    :raises BusyError: if another run holds it still.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(fd, what, time.monotonic() + seconds)
        with named(fd):
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        adopt((*inherited(), fd))
        yield fd
    finally:
        adopt(tuple(other for other in inherited() if other != fd))
        os.close(fd)


_own = threading.local()


def inherited() -> tuple[int, ...]:
    """The locks that this thread holds, or works under: what programs that it starts are given with ``pass_fds``."""
    found: tuple[int, ...] = getattr(_own, "locks", ())
    return found


def adopt(locks: tuple[int, ...]) -> None:
    """Let this thread work under the locks of another one."""
    _own.locks = locks


def _acquire(fd: int, what: str, until: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                pid = os.pread(fd, 20, 0).decode("ascii", "replace") or "?"
                raise BusyError(
                    f"{what} is being worked on by another run (process {pid}); wait until it has ended, then run again"
                ) from None
            time.sleep(0.2)


def holders(path: str) -> tuple[int, ...]:
    """The other processes that have a file or block device open, however they call it.

    Sees what the caller may see: as root, everything on this machine.
    """
    wanted = identity(os.stat(path))
    own = str(os.getpid())
    pids = (name for name in os.listdir("/proc") if name.isdecimal() and name != own)
    return tuple(sorted(int(pid) for pid in pids if _has_open(pid, wanted)))


def identity(found: os.stat_result) -> tuple[int, int]:
    """Devices are known by their number, whatever node leads to them; files by their place on their file system."""
    return (-1, found.st_rdev) if found.st_rdev else (found.st_dev, found.st_ino)


def _has_open(pid: str, wanted: tuple[int, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(_links_to(f"{folder}/{fd}", wanted) for fd in os.listdir(folder))
    except OSError:
        return False  # it has ended, or is not ours to look into


def _links_to(link: str, wanted: tuple[int, int]) -> bool:
    try:
        return identity(os.stat(link)) == wanted
    except OSError:
        return False
