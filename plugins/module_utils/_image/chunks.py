# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A disk in chunks: what is copied and compared at a time, and the digest of a whole disk made of theirs."""

from __future__ import annotations

import functools
import hashlib
import os
import typing as t
from dataclasses import dataclass

from .file_errors import named
from .runs import Kind, Run, clip

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 4 * 1024**2
#: Zeros are left out of targets and of digests in units of this size.
BLOCK = 64 * 1024
_DIGEST = 32
_MASK = CHUNK // BLOCK // 8
_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a disk, with its runs in order and without gaps; or several whole chunks of zeros."""

    start: int
    end: int
    runs: tuple[Run, ...]

    @property
    def stored(self) -> int:
        """Bytes that are stored somewhere: what there is to copy."""
        return sum(run.length for run in self.runs if run.kind is not Kind.ZERO)


def cut(runs: Iterable[Run]) -> Iterator[Chunk]:
    """Runs that begin at a chunk's border, cut into chunks."""
    collected: list[Run] = []
    for run in runs:
        position = run.start
        while position < run.end:
            border = (position // CHUNK + 1) * CHUNK
            if not collected and run.kind is Kind.ZERO and run.end >= border:
                border = run.end // CHUNK * CHUNK
            stop = min(border, run.end)
            collected.append(clip(run, position, stop))
            position = stop
            if position % CHUNK == 0:
                yield _chunk(collected)
                collected = []
    if collected:
        yield _chunk(collected)


def _chunk(runs: list[Run]) -> Chunk:
    return Chunk(runs[0].start, runs[-1].end, tuple(runs))


_ZEROS = bytes(CHUNK)


@functools.lru_cache(maxsize=64)
def _zeros(length: int) -> bytes:
    """So many zeros. The lengths that occur are few, and making them anew for each block costs more than comparing."""
    return _ZEROS[:length]


class Buffer:
    """Room for a chunk's content, to be used again and again.

    :ivar view: the content, to read into and to write from.
    """

    def __init__(self) -> None:
        self._data = bytearray(CHUNK)
        self._whole = memoryview(self._data)
        self.view = self._whole

    def resize(self, length: int) -> None:
        """Make room for the content of a chunk of this length."""
        self.view = self._whole[:length]

    def clear(self, start: int, end: int) -> None:
        """Put zeros from one place to another, counted from the chunk's beginning."""
        self._whole[start:end] = _zeros(end - start)

    # Two memoryviews are compared item by item, a hundred times slower than bytes.
    def is_zero(self, start: int, end: int) -> bool:
        """Whether there are only zeros between two places."""
        return self._data.startswith(_zeros(end - start), start)

    def stretches(self) -> Iterator[tuple[int, int, bool]]:
        """The content in stretches that are all zeros, or not, by whole blocks: start, end, whether zero."""
        length = len(self.view)
        begun, state = 0, self.is_zero(0, min(BLOCK, length))
        for start in range(BLOCK, length, BLOCK):
            zero = self.is_zero(start, min(start + BLOCK, length))
            if zero is not state:
                yield begun, start, state
                begun, state = start, zero
        yield begun, length, state

    def digest(self) -> bytes:
        """32 zeros for nothing but zeros; else SHA-256 of which blocks are not zeros, as bits, and of these blocks.

        So a disk takes the time that its content takes, however thinly that is spread.
        """
        stored = [(start, end) for start, end, zero in self.stretches() if not zero]
        if not stored:
            return bytes(_DIGEST)
        blocks = (block for start, end in stored for block in range(start // BLOCK, -(-end // BLOCK)))
        found = hashlib.sha256(sum(1 << block for block in blocks).to_bytes(_MASK, "little"))
        for start, end in stored:
            found.update(self.view[start:end])
        return found.digest()


class Digests:
    """The digests of a disk's chunks, in a file: 32 bytes each, all of them 0 for a chunk of zeros.

    :param path: made if it is not there.
    :param size: bytes of the disk.
    """

    def __init__(self, path: str, size: int) -> None:
        self.size = size
        self.count = -(-size // CHUNK)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def restart(self, start: int) -> None:
        """Forget everything from byte ``start`` of the disk on, a chunk's border or the disk's end."""
        with named(self._fd):
            os.ftruncate(self._fd, -(-start // CHUNK) * _DIGEST)
            os.ftruncate(self._fd, self.count * _DIGEST)

    def put(self, start: int, content: Buffer) -> None:
        """Note the chunk at byte ``start``."""
        with named(self._fd):
            os.pwrite(self._fd, content.digest(), start // CHUNK * _DIGEST)

    def fits(self, start: int, content: Buffer) -> bool:
        """Whether the chunk at byte ``start`` is what was noted."""
        return os.pread(self._fd, _DIGEST, start // CHUNK * _DIGEST) == content.digest()

    def first_not_zero(self, start: int, end: int) -> int | None:
        """The first byte of the first chunk between two borders that is noted as something else than zeros."""
        position, stop = start // CHUNK * _DIGEST, -(-end // CHUNK) * _DIGEST
        while position < stop:
            part = os.pread(self._fd, min(_READ, stop - position), position)
            if not part:
                return None
            if part.count(0) != len(part):
                inside = next(index for index, byte in enumerate(part) if byte)
                return (position + inside) // _DIGEST * CHUNK
            position += len(part)
        return None

    def sync(self) -> None:
        """Make them last."""
        with named(self._fd):
            os.fsync(self._fd)

    def content_id(self) -> str:
        """One digest for the whole disk, the same for every format: see ``image_convert``'s documentation.

        SHA-256 over the disk's size as text, a line feed, and the chunks' digests in order.
        """
        whole, position = hashlib.sha256(f"{self.size}\n".encode()), 0
        while part := os.pread(self._fd, _READ, position):
            whole.update(part)
            position += len(part)
        return whole.hexdigest()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
