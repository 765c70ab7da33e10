# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""``qemu-storage-daemon``: shows an image of any format as one plain file, through FUSE.

Two ways: for a look, in a mount namespace of its own, which nobody else sees and which ends with this process, however
that ends; and for a mount, as a daemon that stays. The daemon inherits a lock file. Whoever holds that lock is the
daemon: it is found again, and waited for, without a process number that could belong to another by then.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import time
import typing as t

from . import mountinfo
from .errors import ImageError
from .lock import holders

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .view import Node, View

_PROGRAM: t.Final = "qemu-storage-daemon"
# Slave: what the host unmounts meanwhile is not held on to, and what is mounted here stays here.
_PRIVATE: t.Final = ("unshare", "--mount", "--propagation", "slave")
_START_SECONDS: t.Final = 30.0
_STOP_SECONDS: t.Final = 60.0
_POLL_SECONDS: t.Final = 0.02


def find_program() -> str:
    """Where it is.

    :raises ImageError: if it is not there, or FUSE is not.
    """
    found = shutil.which(_PROGRAM)
    if found is None:
        raise ImageError(
            f"{_PROGRAM} is not there; a PVE node has it, on another Debian it is in qemu-system-common"
        )
    if not os.path.exists("/dev/fuse"):
        raise ImageError("there is no /dev/fuse; as root: modprobe fuse")
    return os.path.realpath(found)


@contextlib.contextmanager
def shown_privately(view: View) -> Iterator[int]:
    """Show an image to this process alone, read-only.

    :returns: an open file with the disk's bytes.
    :raises ImageError: if the image can't be opened.
    """
    program = find_program()
    # In a namespace of its own, what the image is mounted on does not matter; nothing is written for it anywhere.
    place = program
    command = [*_PRIVATE, *_dies_with(os.getpid()), program, *_arguments(view.node, place, writable=False)]
    daemon = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=view.fds
    )
    try:
        _wait_for_export(daemon, place)
        fd = os.open(f"/proc/{daemon.pid}/root{place}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        daemon.terminate()
        daemon.communicate()


def _dies_with(parent: int) -> list[str]:
    """A program started by this ends with its parent, also if the parent is killed before the kernel was told so."""
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", f'[ "$PPID" -eq {parent} ] && exec "$@"', "sh"]


def _wait_for_export(daemon: subprocess.Popen[bytes], place: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while not any(entry.is_fuse and entry.place == place for entry in mountinfo.read(daemon.pid)):
        if daemon.poll() is not None:
            error = daemon.stderr.read() if daemon.stderr else b""
            raise ImageError(f"{_PROGRAM} can't open the image: {error.decode('utf-8', 'replace').strip()}")
        if time.monotonic() > until:
            raise ImageError(f"{_PROGRAM} has not opened the image after {_START_SECONDS:.0f} seconds")
        time.sleep(_POLL_SECONDS)


def start(view: View, place: str, lock: int, *, writable: bool) -> None:
    """Start a daemon that shows an image on a file.

    :param place: an empty file, on which the image is shown.
    :param lock: an open lock file, which is held and is left to the daemon.
    :raises ImageError: if the image can't be opened.
    """
    command = [find_program(), *_arguments(view.node, place, writable=writable), "--daemonize"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, pass_fds=(*view.fds, lock), cwd="/"
    )
    if done.returncode != 0:
        raise ImageError(f"{_PROGRAM} can't open the image: {done.stderr.decode('utf-8', 'replace').strip()}")


def _arguments(node: Node, place: str, *, writable: bool) -> list[str]:
    top = writable_node(node) if writable else {**node, "force-share": True}
    export = {
        "type": "fuse",
        "id": "export",
        "node-name": "image",
        "mountpoint": place,
        "writable": writable,
        "growable": False,
        "allow-other": "off",
    }
    return ["--blockdev", json.dumps({**top, "node-name": "image"}), "--export", json.dumps(export)]


def writable_node(node: Node) -> Node:
    """The same node, writable, and the file below it. What lies behind it (``backing``) stays read-only."""
    made = copy.deepcopy(node)
    part: t.Any = made
    while isinstance(part, dict):
        part["read-only"] = False
        part = part.get("file")
    return made


def stop(lock_path: str, *, kill: bool) -> None:
    """Ask the daemon that holds a lock file to end, and wait until it has. One that is gone is no error.

    :param kill: whether it may be killed if it does not end by itself: only one that writes nothing.
    :raises ImageError: if it has not ended in time.
    """
    for signum in (signal.SIGTERM, *((signal.SIGKILL,) if kill else ())):
        for pid in _daemons(lock_path):
            _signal(pid, lock_path, signum)
        until = time.monotonic() + _STOP_SECONDS
        while _daemons(lock_path) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
    left = _daemons(lock_path)
    if left:
        raise ImageError(
            f"{_PROGRAM} (process {left[0]}) has not ended after {_STOP_SECONDS:.0f} seconds and may still be writing; "
            "wait until it has, then run again"
        )


def running(lock_path: str) -> bool:
    """Whether a daemon holds a lock file."""
    return bool(_daemons(lock_path))


def _daemons(lock_path: str) -> tuple[int, ...]:
    try:
        return holders(lock_path)
    except FileNotFoundError:
        return ()


def _signal(pid: int, lock_path: str, signum: signal.Signals) -> None:
    """Send a signal to a process that holds the lock, and to no other that has got its number since."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            if pid in _daemons(lock_path):
                signal.pidfd_send_signal(process, signum)
        finally:
            os.close(process)
