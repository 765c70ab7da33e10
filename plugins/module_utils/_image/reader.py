# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A source as the copier reads it: where its bytes are, whoever has to unpack them first."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import holes, qemu
from .chunks import CHUNK
from .runs import Kind, Run
from .target import Staging

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .source import Source

#: So much of a disk is unpacked at a time, and so much of its map is asked for.
STAGED = 64 * CHUNK
MAPPED = 256 * STAGED


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a disk whose runs can be read until the next window is asked for."""

    start: int
    end: int
    runs: Iterable[Run]


class Reader:
    """A source whose bytes stand in its own files."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.fds = source.fds
        self.names = tuple(file.name for file in source.files)

    @property
    def dense(self) -> bool:
        """Whether zeros are stored like everything else, so that it pays to look for them."""
        return self.source.allocated >= self.source.virtual_size

    def windows(self, start: int) -> Iterator[Window]:
        """The disk from ``start`` on."""
        end = self.source.virtual_size
        if start < end:
            yield Window(start, end, holes.left_out(self.source.runs(start), self.fds))

    def close(self) -> None:
        """Give back what it took. The source stays open."""


class UnpackingReader(Reader):
    """A source that QEMU reads (qcow2, VHD, VHDX, VDI), part by part, into a file from which it is copied.

    :param staging: folder for that file.
    """

    def __init__(self, source: Source, staging: str) -> None:
        super().__init__(source)
        self._image = qemu.node(source.format, source.fds[0])
        self._staging = Staging(staging, source.virtual_size)
        self.fds = (self._staging.fd,)

    @property
    def dense(self) -> bool:
        return False  # QEMU leaves zeros out

    def windows(self, start: int) -> Iterator[Window]:
        end = self.source.virtual_size
        while start < end:
            stop = min((start // MAPPED + 1) * MAPPED, end)
            yield from self._mapped(start, stop)
            start = stop

    def _mapped(self, start: int, end: int) -> Iterator[Window]:
        found = qemu.extents(self.source.format, self.source.fds[0], start, end)
        position = start
        for begin, stop in staged_parts([(one.start, one.end) for one in found if not one.zero], end):
            if position < begin:
                yield _zeros(position, begin)
            yield Window(begin, stop, self._unpacked(begin, stop))
            position = stop
        if position < end:
            yield _zeros(position, end)

    def _unpacked(self, start: int, end: int) -> Iterator[Run]:
        position = start
        for piece in self._staging.load(self._image, self.source.fds[0], start, end):
            if position < piece.start:
                yield Run(position, piece.start - position, Kind.ZERO)
            yield Run(piece.start, piece.length, Kind.DATA, 0, piece.offset)
            position = piece.start + piece.length
        if position < end:
            yield Run(position, end - position, Kind.ZERO)

    def close(self) -> None:
        self._staging.close()


def staged_parts(content: list[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """The parts between which there are only zeros: whole chunks, none longer than STAGED, in order.

    :param content: stretches that are not known to be zeros, in order.
    """
    parts: list[tuple[int, int]] = []
    for begin, stop in content:
        position = begin // CHUNK * CHUNK
        while position < stop:
            if parts and position < parts[-1][1]:
                position = parts[-1][1]
                continue
            after = min(position + CHUNK, end)
            if parts and parts[-1][1] == position and after - parts[-1][0] <= STAGED:
                parts[-1] = (parts[-1][0], after)
            else:
                parts.append((position, after))
            position = after
    return parts


def _zeros(start: int, end: int) -> Window:
    return Window(start, end, [Run(start, end - start, Kind.ZERO)])


def reader(source: Source, staging: str) -> Reader:
    """The reader for a source."""
    return Reader(source) if source.native else UnpackingReader(source, staging)
