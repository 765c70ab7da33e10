# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Is what is in the target what was in the source? Asked of the medium, not of memory."""

from __future__ import annotations

import hashlib
import os
import threading
import typing as t

from .chunks import CHUNK, Buffer
from .copy import Means, pool, read_all
from .errors import ImageError, ImageRefusedError

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .chunks import Digests
    from .source import Source, SourceFile
    from .target import Piece, Target

_READ = 1024**2
_ZEROS = bytes(_READ)


class DiffersError(ImageError):
    """The target does not have what it should have.

    :param offset: byte of the disk at which the first chunk that differs begins.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        size = CHUNK // 1024**2
        super().__init__(f"the target differs from the source in the {size} MiB at byte {offset} of the disk")


class Comparison:
    """Reads a target back and compares it with the digests of what was read from the source.

    :param digests: of the source's disk. Behind its end, the target has to read as zeros.
    """

    def __init__(self, target: Target, digests: Digests, means: Means) -> None:
        self._target = target
        self._digests = digests
        self._means = means
        self._buffers = threading.local()

    def run(self) -> None:
        """Compare everything.

        :raises DiffersError: at the first difference that is found.
        """
        target = self._target
        with pool(self._means.workers) as workers:
            for start in range(0, target.size, target.window):
                end = min(start + target.window, target.size)
                expected = start
                for begin, stop, pieces in in_chunks(target.stored(start, end), target.size):
                    self._must_be_zero(expected, begin)
                    workers.submit(self._chunk, begin, stop, pieces)
                    expected = stop
                self._must_be_zero(expected, end)
                workers.drain()

    def _must_be_zero(self, start: int, end: int) -> None:
        """What is a hole in the target has to be zeros in the source."""
        end = min(end, self._digests.size)
        if start < end and (found := self._digests.first_not_zero(start, end)) is not None:
            raise DiffersError(found)

    def _chunk(self, start: int, end: int, pieces: Sequence[Piece]) -> None:
        self._means.throttle.take(sum(piece.length for piece in pieces))
        if not hasattr(self._buffers, "own"):
            self._buffers.own = Buffer()
        buffer: Buffer = self._buffers.own
        buffer.resize(end - start)
        load(buffer, start, end, pieces)
        inside = min(max(self._digests.size - start, 0), end - start)
        if not buffer.is_zero(inside, end - start):
            raise DiffersError(start)
        buffer.resize(inside)
        if inside and not self._digests.fits(start, buffer):
            raise DiffersError(start)
        self._means.advance(sum(piece.length for piece in pieces))


def in_chunks(pieces: Iterator[Piece], size: int) -> Iterator[tuple[int, int, list[Piece]]]:
    """Pieces, in order, by the chunks of the disk that they are in: start and end of the chunk, and its pieces."""
    start = -1
    collected: list[Piece] = []
    for piece in pieces:
        for part in _split(piece):
            own = part.start // CHUNK * CHUNK
            if own != start and collected:
                yield start, min(start + CHUNK, size), collected
                collected = []
            start = own
            collected.append(part)
    if collected:
        yield start, min(start + CHUNK, size), collected


def _split(piece: Piece) -> Iterator[Piece]:
    position, end = piece.start, piece.start + piece.length
    while position < end:
        stop = min((position // CHUNK + 1) * CHUNK, end)
        yield type(piece)(position, stop - position, piece.fd, piece.offset + position - piece.start)
        position = stop


def load(buffer: Buffer, start: int, end: int, pieces: Sequence[Piece]) -> None:
    """Read a chunk of a target. What no piece covers, and what lies behind a file's end, is zeros."""
    position = start
    for piece in pieces:
        buffer.clear(position - start, piece.start - start)
        room = buffer.view[piece.start - start : piece.start + piece.length - start]
        if not read_all(piece.fd, room, piece.offset):
            raise DiffersError(start)
        position = piece.start + piece.length
    buffer.clear(position - start, end - start)


def checksum(target: Target, size: int, means: Means) -> str:
    """SHA-256 of the first ``size`` bytes of a target's disk: that of the raw image."""
    found, position, buffer = hashlib.sha256(), 0, Buffer()
    for start in range(0, size, target.window):
        for begin, stop, pieces in in_chunks(target.stored(start, min(start + target.window, size)), size):
            _zeros_into(found, begin - position)
            buffer.resize(stop - begin)
            load(buffer, begin, stop, pieces)
            found.update(buffer.view)
            means.advance(sum(piece.length for piece in pieces))
            position = stop
    _zeros_into(found, size - position)
    return found.hexdigest()


def _zeros_into(digest: hashlib._Hash, count: int) -> None:
    while count > 0:
        digest.update(_ZEROS if count >= _READ else _ZEROS[:count])
        count -= _READ


def manifest(source: Source) -> None:
    """Compare the source's files with the digests that a manifest gives, where there is one.

    :raises ImageRefusedError: if one differs.
    """
    for file, fd in zip(source.files, source.fds, strict=True):
        if file.digest:
            _hold_against(file, fd)


def _hold_against(file: SourceFile, fd: int) -> None:
    kind, _colon, wanted = file.digest.partition(":")
    found, position, end = hashlib.new(kind, usedforsecurity=False), file.offset, file.offset + file.length
    while position < end and (part := os.pread(fd, min(_READ, end - position), position)):
        found.update(part)
        position += len(part)
    if found.hexdigest() != wanted.lower():
        raise ImageRefusedError(
            "manifest-mismatch",
            file.name,
            f"its {kind} is {found.hexdigest()}, the manifest says {wanted.lower()}",
            "copy or export it again; if it was changed on purpose, correct or remove the manifest",
        )
