# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""An image that has passed inspection, held open for reading."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .holes import left_out
from .runs import Kind, Layer, Run, merge, resolve

if t.TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that an image is made of, as it was when it was inspected.

    :param name: its name below the source folder.
    :param path: where it is.
    :param size: bytes of the whole file.
    :param offset: where the image's own file begins in it: not 0 only for a member of an OVA.
    :param length: bytes of the image's own file: less than ``size`` only for a member of an OVA.
    :param digest: what a manifest says of it: ``sha256:0f3a…`` over ``length`` bytes from ``offset``; '' for nothing.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    inode: int
    device: int
    offset: int
    length: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a chain.

    :param name: the file that has its descriptor.
    :param files: names of the files that it is made of, that one among them.
    :param extents: of a sparse VMDK (grain tables in each extent), in the disk's order: index into the source's files,
        and sectors. Empty for all else.
    """

    name: str
    subformat: str
    files: tuple[str, ...]
    extents: tuple[tuple[int, int], ...] = ()


class Source:
    """An image that has passed inspection. A context manager, which closes its files.

    :ivar format: ``vmdk``, ``raw``, ``qcow2``, ``vpc``, ``vhdx`` or ``vdi``: QEMU's words.
    :ivar subformat: ``monolithicSparse``, ``streamOptimized`` …, or ''.
    :ivar virtual_size: bytes of the disk.
    :ivar allocated: bytes of the disk that are stored: all of them for raw and flat images, whatever they are; for the
        formats that QEMU reads, what the file occupies.
    :ivar files: every file of the whole chain, the head's first.
    :ivar fds: one for each of them, opened O_RDONLY, O_NOFOLLOW and O_CLOEXEC. What was checked is what they read.
    :ivar chain: the image itself and its parents, the head first.
    :ivar fingerprint: hex SHA-256 over the layout, names, sizes, times and inodes of the files, and over the
        descriptors and the first and last MiB of each file.
    :ivar native: whether ``runs()`` gives the whole content: every VMDK and raw. QEMU reads the others, which have
        neither a backing file nor a data file; it is to be told the format, and reads ``/proc/self/fd/N``.
    """

    def __init__(  # noqa: PLR0913 - a record
        self,
        *,
        format: str,  # noqa: A002 - the field's word
        subformat: str,
        virtual_size: int,
        allocated: int,
        files: tuple[SourceFile, ...],
        fds: tuple[int, ...],
        chain: tuple[Member, ...],
        fingerprint: str,
        layers: tuple[Layer, ...],
    ) -> None:
        self.format = format
        self.subformat = subformat
        self.virtual_size = virtual_size
        self.allocated = allocated
        self.files = files
        self.fds = fds
        self.chain = chain
        self.fingerprint = fingerprint
        self.native = bool(layers)
        self._layers = layers

    def runs(self, start: int = 0, end: int | None = None) -> Iterator[Run]:
        """Where the disk's bytes are, from ``start`` to ``end`` (the disk's end): in order, without gaps, merged.

        Chains are resolved, so there is no ABSENT; no run reaches outside its file. Tables are read as they are needed.
        A DEFLATED run that is cut by ``start`` or ``end`` says so in ``skip`` and ``length``.

        :raises ImageError: if a file has become shorter or can't be read.
        """
        stop = self.virtual_size if end is None else min(end, self.virtual_size)
        if not self.native:
            raise ValueError(f"QEMU reads {self.format}, not this")
        return merge(resolve(self._layers, start, stop)) if start < stop else iter(())

    def stored(self) -> int:
        """Bytes that there are to read: ``allocated``, without the holes in the files of raw and flat images."""
        if not self.native or self.allocated < self.virtual_size:
            return self.allocated
        return sum(run.length for run in left_out(self.runs(), self.fds) if run.kind is not Kind.ZERO)

    def member_runs(self, number: int) -> Iterator[Run]:
        """The runs of one image of the chain alone, by its number in it: ABSENT where only its parents know."""
        return merge(self._layers[number].runs(0, self.virtual_size))

    def unchanged(self) -> bool:
        """Whether each open file, and what is at its path now, are still as they were when it was inspected."""
        return all(map(_unchanged, self.files, self.fds))

    def missing(self) -> list[str]:
        """The paths at which there is nothing any more, if that is all that has happened to the files."""
        gone = [file.path for file in self.files if not os.path.lexists(file.path)]
        kept = (_same(file, os.fstat(fd)) for file, fd in zip(self.files, self.fds, strict=True))
        there = (file.path in gone or _same(file, os.lstat(file.path)) for file in self.files)
        return list(dict.fromkeys(gone)) if all(kept) and all(there) else []

    def close(self) -> None:
        """Close the files. A second time does nothing."""
        fds, self.fds = self.fds, ()
        for fd in sorted({*fds}):
            os.close(fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _unchanged(file: SourceFile, fd: int) -> bool:
    try:
        found = (os.fstat(fd), os.lstat(file.path))
    except OSError:
        return False
    return all(_same(file, now) for now in found)


def _same(file: SourceFile, now: os.stat_result) -> bool:
    known = (file.size, file.mtime_ns, file.inode, file.device)
    return known == (now.st_size, now.st_mtime_ns, now.st_ino, now.st_dev)
