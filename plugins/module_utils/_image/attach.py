# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Attaches a partition of a disk to the host and detaches it: steps up, and the same steps down.

Each step finds out for itself whether there is something to undo, by looking at the machine: at the loop device that
carries the tag, the daemon that holds the lock, the mount that comes from that device. So detaching finishes what any
run has left, at whatever moment it was killed, and does nothing where there is nothing.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shlex
import shutil
import subprocess
import time
import typing as t
from dataclasses import dataclass

from . import loop, mountinfo, storage_daemon
from .errors import ImageError
from .lock import held

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from .disk import Disk

_GONE_SECONDS: t.Final = 20.0
_POLL_SECONDS: t.Final = 0.02
_MAPPER: t.Final = "/dev/mapper"


class Step(enum.Enum):
    """What is between an image and its files, from the bottom up."""

    #: A folder for the export, and the mount point.
    PLACE = "place"
    #: ``qemu-storage-daemon`` shows the image as a plain file.
    EXPORT = "export"
    #: A loop device over the partition, or over the whole disk below kpartx.
    LOOP = "loop"
    #: kpartx maps the partitions.
    MAP = "map"
    #: The file system is mounted.
    MOUNT = "mount"


def steps(backend: str) -> tuple[Step, ...]:
    """The steps of a way to attach, in order. Detaching takes them in reverse order.

    :param backend: ``loop``, ``fuse``, ``kpartx`` (of a raw disk) or ``fuse+kpartx``.
    """
    ways = backend.split("+")
    chosen = {Step.PLACE, Step.LOOP, Step.MOUNT}
    if "fuse" in ways:
        chosen.add(Step.EXPORT)
    if "kpartx" in ways:
        chosen.add(Step.MAP)
    return tuple(step for step in Step if step in chosen)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A partition to be attached, and how.

    :param tag: what marks everything that belongs to it on this machine; unique, up to 40 characters.
    :param folder: a folder of its own, for root alone.
    :param mountpoint: where it is mounted; an empty folder, or nothing yet if ``make`` is set.
    :param number: of the partition.
    :param start: bytes from the beginning of the disk, and so is ``size``.
    :param driver: for ``mount -t``.
    :param options: for ``mount -o``.
    """

    tag: str
    folder: str
    backend: str
    mountpoint: str
    make: bool
    number: int
    start: int
    size: int
    disk_size: int
    driver: str
    options: tuple[str, ...]
    writable: bool

    @property
    def export(self) -> str:
        """The file on which the image is shown."""
        return os.path.join(self.folder, "image")

    @property
    def lock(self) -> str:
        """The lock that the daemon holds."""
        return os.path.join(self.folder, "daemon.lock")


# ---- up


def attach(wanted: Wanted, disk: Disk) -> None:
    """Attach, step by step. Whoever calls has written down what is wanted before.

    :raises ImageError: if a step fails; :func:`detach` then takes back what was done.
    """
    with contextlib.ExitStack() as stack:
        _Up(wanted, disk, stack).run()


class _Up:
    """One attachment under way.

    :param stack: closes what only has to be open until everything is mounted.
    """

    def __init__(self, wanted: Wanted, disk: Disk, stack: contextlib.ExitStack) -> None:
        self._wanted, self._disk, self._stack = wanted, disk, stack
        self._bytes = disk.plain
        self._device = ""

    def run(self) -> None:
        actions: dict[Step, Callable[[], None]] = {
            Step.PLACE: self._place,
            Step.EXPORT: self._export,
            Step.LOOP: self._loop,
            Step.MAP: self._map,
            Step.MOUNT: self._mount,
        }
        for step in steps(self._wanted.backend):
            actions[step]()

    def _place(self) -> None:
        os.makedirs(self._wanted.folder, mode=0o700, exist_ok=True)
        if self._wanted.make:
            os.makedirs(self._wanted.mountpoint, mode=0o700, exist_ok=True)

    def _export(self) -> None:
        wanted = self._wanted
        with open(wanted.export, "wb"):
            pass
        with held(wanted.lock, "the image") as lock:
            storage_daemon.start(self._disk.view, wanted.export, lock, writable=wanted.writable)
        self._bytes = (self._open(wanted.export), 0)

    def _open(self, path: str) -> int:
        fd = os.open(path, (os.O_RDWR if self._wanted.writable else os.O_RDONLY) | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        return fd

    def _loop(self) -> None:
        wanted = self._wanted
        if self._bytes is None:
            raise ImageError(f"{self._disk.name}: a {self._disk.format} image can't be attached without an export")
        fd, base = self._bytes
        if wanted.writable:
            fd = self._open(f"/proc/self/fd/{fd}")  # the very same file, this time for writing
        part = (0, wanted.disk_size) if Step.MAP in steps(wanted.backend) else (wanted.start, wanted.size)
        made = loop.attached(
            fd, tag=wanted.tag, offset=base + part[0], size=part[1], read_only=not wanted.writable
        )
        self._device = self._stack.enter_context(made)

    def _map(self) -> None:
        run("kpartx", "-a", "-s", *([] if self._wanted.writable else ["-r"]), self._device)
        self._device = _mapped(self._device, self._wanted.number)

    def _mount(self) -> None:
        wanted = self._wanted
        options = ",".join(wanted.options)
        run("mount", "-t", wanted.driver, "-o", options, "--source", self._device, "--target", wanted.mountpoint)
        found = mountinfo.at(wanted.mountpoint)
        if not found or _real(found[-1].source) != _real(self._device):
            raise ImageError(f"{self._device} was mounted, and is not to be seen at {wanted.mountpoint}")
        if wanted.writable and "rw" not in found[-1].options:
            raise ImageError(
                f"partition {wanted.number} of {self._disk.name} can be mounted read-only alone: Windows hibernated, "
                "has fast startup on, or left it damaged; shut the guest down cleanly, or leave out writable"
            )


def check_kpartx() -> None:
    """Whether kpartx can work here.

    :raises ImageError: if not.
    """
    if shutil.which("kpartx") is None:
        raise ImageError("backend=kpartx: kpartx is not there; install the package kpartx, or use auto")
    if not os.path.exists(f"{_MAPPER}/control"):
        raise ImageError(f"backend=kpartx: there is no {_MAPPER}/control; as root: modprobe dm-mod, or use auto")


# ---- down


def detach(wanted: Wanted) -> None:
    """Undo whatever is there of an attachment, in reverse order. What is not there is not missed.

    :raises ImageError: if something is still in use; nothing is torn away from anybody.
    """
    actions: dict[Step, Callable[[Wanted], None]] = {
        Step.PLACE: _remove_place,
        Step.EXPORT: _end_export,
        Step.LOOP: _free_loop,
        Step.MAP: _unmap,
        Step.MOUNT: _unmount,
    }
    for step in reversed(steps(wanted.backend)):
        actions[step](wanted)


def is_mounted(wanted: Wanted) -> bool:
    """Whether everything is in place: the mount, from our device, with its daemon."""
    found = mountinfo.at(wanted.mountpoint)
    if not found or _real(found[-1].source) not in _devices(wanted):
        return False
    return Step.EXPORT not in steps(wanted.backend) or storage_daemon.running(wanted.lock)


def _devices(wanted: Wanted) -> list[str]:
    """The devices that a mount of ours can come from."""
    devices = [found.device for found in loop.tagged(wanted.tag)]
    return devices + [_real(_mapped(device, wanted.number)) for device in devices]


def _real(device: str) -> str:
    """A device by the name that is its own: names of the device mapper are links."""
    return os.path.realpath(device)


def _mapped(device: str, number: int) -> str:
    return f"{_MAPPER}/{os.path.basename(device)}p{number}"


def _unmount(wanted: Wanted) -> None:
    devices = _devices(wanted)
    while any(_real(mount.source) in devices for mount in mountinfo.at(wanted.mountpoint)):
        above = mountinfo.at(wanted.mountpoint)[-1]
        if _real(above.source) not in devices:
            raise ImageError(f"{above.source} is mounted over {wanted.mountpoint}; unmount it first")
        _umount(wanted.mountpoint)


def _umount(place: str) -> None:
    users = _users(place)
    try:
        run("umount", place)
    except ImageError as error:
        use = f"in use by process {', '.join(users)}: leave the folder, or end them"
        look = f"see what uses it with: fuser -vm {shlex.quote(place)}; end that, then run again"
        raise ImageError(f"{place} can't be unmounted; {use if users else look}: {error}") from error


def _users(mountpoint: str) -> list[str]:
    """Processes that stand in a mount or have a file of it open, as ``123 (bash)``."""
    with contextlib.suppress(OSError):
        device = os.stat(mountpoint).st_dev
        return [f"{pid} ({_name_of(pid)})" for pid in os.listdir("/proc") if pid.isdecimal() and _is_in(pid, device)]
    return []


def _is_in(pid: str, device: int) -> bool:
    try:
        links = [f"/proc/{pid}/{name}" for name in ("cwd", "root")]
        links += [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(_on(link, device) for link in links)


def _on(link: str, device: int) -> bool:
    try:
        return os.stat(link).st_dev == device
    except OSError:
        return False


def _name_of(pid: str) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return "?"


def _unmap(wanted: Wanted) -> None:
    for found in loop.tagged(wanted.tag):
        if os.path.exists(f"{_MAPPER}/control"):
            run("kpartx", "-d", found.device)


def _free_loop(wanted: Wanted) -> None:
    """The device goes by itself with its last user; ntfs-3g takes a moment longer to end than its mount.

    A tool that a killed run had started may still be at work: what it brings about meanwhile is undone, too.
    """
    undo = [_unmap, _unmount] if Step.MAP in steps(wanted.backend) else [_unmount]

    def gone() -> bool:
        for step in reversed(undo):
            step(wanted)
        for found in loop.tagged(wanted.tag):
            loop.clear(found.device)
        return not loop.tagged(wanted.tag)

    _wait(gone, "the loop device of {} is still in use", wanted)


def _end_export(wanted: Wanted) -> None:
    storage_daemon.stop(wanted.lock, kill=not wanted.writable)
    if any(mount.is_fuse for mount in mountinfo.at(wanted.export)):  # a daemon that was killed leaves it
        _umount(wanted.export)


def _remove_place(wanted: Wanted) -> None:
    if wanted.make and os.path.isdir(wanted.mountpoint) and not os.path.ismount(wanted.mountpoint):
        with contextlib.suppress(OSError):  # somebody has put something there since
            os.rmdir(wanted.mountpoint)
    for path in (wanted.export, wanted.lock):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(wanted.folder)


def _wait(done: Callable[[], bool], problem: str, wanted: Wanted) -> None:
    until = time.monotonic() + _GONE_SECONDS
    while not done():
        if time.monotonic() > until:
            raise ImageError(f"{problem.format(wanted.mountpoint)} after {_GONE_SECONDS:.0f} seconds; run again")
        time.sleep(_POLL_SECONDS)


def run(*command: str) -> None:
    """Run one of the system's tools.

    :raises ImageError: with what it said, if it fails or is not there.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise ImageError(f"{command[0]} can't be run: {error.strerror}; install the package that has it") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise ImageError(f"{' '.join(command)}: {said or f'exit code {done.returncode}'}")
