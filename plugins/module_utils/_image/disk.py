# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A disk that is to be looked into: an inspected image or a volume of PVE, held open."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from dataclasses import asdict, dataclass

from . import filesystems, storage_daemon
from .errors import ImageError
from .partitions import Partition, read_table
from .qemu import place
from .view import confined

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .filesystems import Content
    from .source import Source
    from .view import View


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was. Two that are equal mean that nothing was written in between.

    A block device has no such marks: where it still is one, it counts as the same and as unchanged.
    """

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    block: bool = False

    @classmethod
    def of(cls, path: str) -> Stamp:
        """The file that is at a path now."""
        found = os.stat(path)
        block = stat.S_ISBLK(found.st_mode)
        return cls(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, block)

    def same_file(self) -> bool:
        """Whether the same file is still at the path, whatever it holds by now."""
        with contextlib.suppress(OSError):
            now = Stamp.of(self.path)
            if self.block:
                return now.block
            return (now.device, now.inode) == (self.device, self.inode)
        return False

    def unchanged(self) -> bool:
        """Whether it is the same file and nothing was written to it."""
        with contextlib.suppress(OSError):
            now = Stamp.of(self.path)
            return now.block if self.block else now == self
        return False


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk whose files are open.

    :param name: how it was asked for: a path or a volume id.
    :param format: QEMU's word.
    :param size: bytes.
    :param stamps: its files.
    :param view: for QEMU's tools.
    :param plain: where its bytes are as they are (raw): an open file and an offset. Else ``None``.
    """

    name: str
    format: str
    size: int
    stamps: tuple[Stamp, ...]
    view: View
    plain: tuple[int, int] | None

    @contextlib.contextmanager
    def bytes(self) -> Iterator[tuple[int, int]]:
        """An open file with the disk's bytes, read-only, and the offset of the first one.

        A raw disk is its own file. Any other is shown to this process alone by ``qemu-storage-daemon``.
        """
        if self.plain is not None:
            yield self.plain
            return
        with storage_daemon.shown_privately(self.view) as fd:
            yield fd, 0


@dataclass(frozen=True, slots=True)
class Found:
    """A partition and what it holds."""

    partition: Partition
    content: Content

    def data(self) -> dict[str, t.Any]:
        """For results and journals."""
        part = asdict(self.partition)
        type_ = part.pop("kind")
        return {**part, "type": type_, "filesystem": self.content.type, "label": self.content.label} | {
            "filesystem_uuid": self.content.uuid
        }


@dataclass(frozen=True, slots=True)
class Listing:
    """What is on a disk.

    :param scheme: ``gpt``, ``mbr`` or ``none``.
    :param damage: what is wrong with its table.
    """

    scheme: str
    found: tuple[Found, ...]
    damage: tuple[str, ...] = ()


def look_into(disk: Disk) -> Listing:
    """Read the partition table of a disk, and find out what each partition holds. Writes nothing, attaches nothing.

    :raises DiskwrightError: if the table is damaged or the disk can't be read.
    """
    with disk.bytes() as (fd, base):

        def read(offset: int, length: int) -> bytes:
            data = os.pread(fd, length, base + offset)
            if len(data) != length:
                raise ImageError(f"{disk.name}: ends at byte {offset + len(data)}, and has {disk.size} bytes")
            return data

        table = read_table(read, disk.size)
        found = tuple(Found(part, _content(fd, base, part)) for part in table.partitions)
    return Listing(table.scheme, found, table.damage)


def _content(fd: int, base: int, part: Partition) -> Content:
    return filesystems.probe(place(fd), base + part.start, part.size, (fd,))


@contextlib.contextmanager
def of_source(name: str, source: Source) -> Iterator[Disk]:
    """A disk from an image that has passed inspection.

    :param name: how it was asked for.
    """
    first = source.files[0]
    stamps = tuple(Stamp(f.path, f.device, f.inode, f.size, f.mtime_ns) for f in source.files)
    plain = (source.fds[0], first.offset) if source.format == "raw" else None
    with confined(source) as view:
        yield Disk(name, source.format, source.virtual_size, stamps, view, plain)
