# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A stopped guest's disk, for the work on the Windows that is on it: where the two rooms meet."""

from __future__ import annotations

import contextlib
import os
import shutil
import typing as t

from .._core.errors import DiskwrightError
from .._image import attach, filesystems, mounts, volumes
from .._image.disk import Listing, look_into, of_source
from .._image.inspect import inspect
from .image_mount import against_writing

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .._image.disk import Disk, Found
    from .._windows.ntfs import Read

_DRIVER: t.Final = "ntfs-3g"


@contextlib.contextmanager
def opened(path: str | None, volume: str | None, state_dir: str) -> Iterator[AttachedDisk]:
    """A disk by the path of its image or by its volume id.

    :param state_dir: where records of mounts are, so that the next run clears away what a killed one has left.
    :raises DiskwrightError: when it can't be opened.
    """
    place = _Place(state_dir)
    with place.mounts.locked():
        place.clear()
    with contextlib.ExitStack() as stack:
        if volume:
            disk = stack.enter_context(volumes.opened(volume))
        elif path:
            source = stack.enter_context(inspect(path, ""))
            disk = stack.enter_context(of_source(os.path.realpath(path), source))
        else:
            raise DiskwrightError("path or volume is missing: name an image file, or a volume of a storage")
        yield AttachedDisk(disk, place, stack.enter_context(contextlib.ExitStack()))


class _Place:
    """Where the volume is mounted meanwhile: one place for all runs on this node, one run at a time."""

    def __init__(self, state_dir: str) -> None:
        self.mounts = mounts.Mounts(state_dir)
        self.path = os.path.join(os.path.realpath(state_dir), "windows_inject", "volume")

    def clear(self) -> None:
        """Take away what a killed run has left attached. No guest's disk is changed by that."""
        left = self.mounts.at(self.path)
        if left is not None:
            self.mounts.unmount(left)


class AttachedDisk:
    """Implements :class:`.._windows.volume.Volume`.

    :param shown: closes what shows the disk's bytes. That is left open from one look to the next, until it is mounted.
    """

    def __init__(self, disk: Disk, place: _Place, shown: contextlib.ExitStack) -> None:
        self._disk, self._place, self._shown = disk, place, shown
        self._bytes: tuple[int, int] | None = None
        self._listing: Listing | None = None

    @property
    def name(self) -> str:
        """What the user called it."""
        return self._disk.name

    @property
    def format(self) -> str:
        """The image's format."""
        return self._disk.format

    @property
    def path(self) -> str:
        """Where its file or block device is."""
        return self._disk.stamps[0].path

    @property
    def partitions(self) -> tuple[int, ...]:
        """The numbers of its partitions."""
        return tuple(found.partition.number for found in self._found())

    def against_writing(self) -> list[str]:
        """Why nothing may be written to it, in words: a guest that runs, a process that has it open, its format."""
        return list(against_writing(self._disk, self._look()))

    @contextlib.contextmanager
    def opened(self, partition: int) -> Iterator[Read]:
        """The bytes of a partition, read-only."""
        part = self._find(partition).partition
        if self._bytes is None:
            self._bytes = self._shown.enter_context(self._disk.bytes())
        fd, base = self._bytes

        def read(offset: int, length: int) -> bytes:
            length = max(0, min(length, part.size - offset))
            return os.pread(fd, length, base + part.start + offset) if offset >= 0 else b""

        yield read

    @contextlib.contextmanager
    def mounted(self, partition: int, *, writable: bool) -> Iterator[str]:
        """The folder at which a partition is mounted meanwhile."""
        if shutil.which(f"mount.{_DRIVER}", path="/sbin:/usr/sbin:/bin:/usr/bin") is None:
            raise DiskwrightError("this machine can't write to NTFS; as root: apt-get install ntfs-3g")
        self._shown.close()
        self._bytes = None
        kept = self._place.mounts
        with kept.locked():
            self._place.clear()
            record = self._record(self._find(partition), writable=writable)
            kept.mount(record, self._disk)
            try:
                yield self._place.path
            finally:
                problems = kept.unmount(record)
        if problems:
            raise DiskwrightError("\n".join(problems))

    def _record(self, found: Found, *, writable: bool) -> mounts.Record:
        part = found.partition
        wanted = attach.Wanted(
            tag=self._place.mounts.tag(self._place.path),
            folder=self._place.mounts.folder(self._place.path),
            backend="loop" if self._disk.plain is not None else "fuse",
            mountpoint=self._place.path,
            make=True,
            number=part.number,
            start=part.start,
            size=part.size,
            disk_size=self._disk.size,
            driver=_DRIVER,
            options=filesystems.mount_options("ntfs", _DRIVER, writable=writable),
            writable=writable,
        )
        return mounts.Record(self.name, "", self.format, "ntfs", wanted, {}, self._disk.stamps)

    def _look(self) -> Listing:
        if self._listing is None:
            self._listing = look_into(self._disk)
        return self._listing

    def _found(self) -> tuple[Found, ...]:
        return self._look().found

    def _find(self, partition: int) -> Found:
        return next(found for found in self._found() if found.partition.number == partition)
