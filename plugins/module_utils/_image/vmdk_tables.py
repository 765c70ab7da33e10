# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Tables of grains, which all sparse VMDKs have: a directory of tables, and in each table a number for each grain.

Tables are read when they are needed, in pieces, so that a disk of 64 TiB takes no more memory than one of a GiB. What
is used is remembered in a bitmap, so that nothing is used twice.
"""

from __future__ import annotations

import bisect
import itertools
import sys
import typing as t
from array import array

from .errors import ImageRefusedError
from .files import COPY_AGAIN
from .runs import Kind, Run, clip

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .files import ImageFile

_PIECE = 4096
_PAGE = 4096
_STRIDE = 64


def damaged(code: str, name: str, problem: str) -> ImageRefusedError:
    """The refusal of a file whose own tables don't make sense."""
    return ImageRefusedError(code, name, problem, COPY_AGAIN)


def read_numbers(file: ImageFile, offset: int, count: int, code: str) -> array[int]:
    """Little-endian numbers from a file.

    :param code: ``I`` for four bytes each, ``Q`` for eight.
    """
    numbers = array(code)
    numbers.frombytes(file.read(offset, count * numbers.itemsize))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class Directory:
    """A grain directory: one number for each grain table, read in pieces.

    :param offset: byte of the file at which it begins.
    :param count: how many numbers it has.
    """

    def __init__(self, file: ImageFile, offset: int, count: int, code: str) -> None:
        self.count = count
        self._file = file
        self._offset = offset
        self._code = code
        self._size = array(code).itemsize
        self._last: tuple[int, array[int], bool] = (-1, array(code), False)

    def __getitem__(self, number: int) -> int:
        first, piece, _empty = self._piece(number)
        return piece[number - first]

    def _piece(self, number: int) -> tuple[int, array[int], bool]:
        """The piece with a number: where it begins, the numbers, whether all are 0. Kept in one go, for threads."""
        last = self._last
        first = number // _PIECE * _PIECE
        if first == last[0]:
            return last
        count = min(_PIECE, self.count - first)
        numbers = read_numbers(self._file, self._offset + first * self._size, count, self._code)
        self._last = fresh = (first, numbers, not any(numbers))
        return fresh

    def gap(self, number: int) -> int:
        """How many numbers from here on are 0, as far as that is seen at once; 0 if this one is to be looked at."""
        first, piece, empty = self._piece(number)
        return first + len(piece) - number if empty else 0

    def there(self, first: int = 0, end: int | None = None) -> Iterator[int]:
        """The places of the numbers that are not 0."""
        number, stop = first, self.count if end is None else end
        while number < stop:
            gap = self.gap(number)
            if not gap and self[number]:
                yield number
            number += gap or 1


class Bitmap:
    """Which units of a file are used. Kept in pages, so that it grows with what is used and not with the file."""

    def __init__(self) -> None:
        self._pages: dict[int, int] = {}

    def mark(self, first: int, count: int) -> bool:
        """Mark units as used.

        :returns: whether all of them were free.
        """
        free = True
        while count > 0:
            page, at = divmod(first, _PAGE)
            here = min(count, _PAGE - at)
            mask = ((1 << here) - 1) << at
            before = self._pages.get(page, 0)
            free = free and not before & mask
            self._pages[page] = before | mask
            first += here
            count -= here
        return free


def stretches(entries: Sequence[int], step: int, fixed: frozenset[int]) -> Iterator[tuple[int, int, int]]:
    """Stretches of a table that belong together: the same fixed number again and again, or numbers that grow by a step.

    :param step: by how much neighbours differ whose grains are neighbours in the file.
    :param fixed: numbers that stand for no place.
    :returns: index, how many, and the first number.
    """
    at, end = 0, len(entries)
    while at < end:
        first, value = at, entries[at]
        grow = 0 if value in fixed else step
        at += 1
        while at + _STRIDE <= end and entries[at : at + _STRIDE] == _stride(entries, value + grow * (at - first), grow):
            at += _STRIDE
        while at < end and entries[at] == value + grow * (at - first):
            at += 1
        yield first, at - first, value


def _stride(entries: Sequence[int], value: int, grow: int) -> Sequence[int]:
    """What the next numbers of a table are if they go on like this."""
    code = entries.typecode if isinstance(entries, array) else "Q"
    last = value + grow * (_STRIDE - 1)
    if last >= 1 << (8 * array(code).itemsize):
        return array(code)
    return array(code, range(value, last + 1, grow) if grow else [value] * _STRIDE)


class Grains:
    """A sparse extent as a layer. What differs between the formats is in the methods that they override.

    :param index: the file's index in the source.
    :param capacity: bytes of the extent's part of the disk.
    :param grain: bytes of a grain.
    :param per_table: grains in a table.
    """

    step = 1
    fixed: frozenset[int] = frozenset({0})
    directory: Directory

    def __init__(self, file: ImageFile, index: int, capacity: int, grain: int, per_table: int) -> None:
        self.file = file
        self.index = index
        self.capacity = capacity
        self.grain = grain
        self.span = grain * per_table
        self.per_table = per_table
        self.tables = -(-capacity // self.span)
        self._last: tuple[int, list[tuple[int, int, int]]] = (-1, [])

    def table(self, number: int) -> array[int] | None:
        """The numbers of a table, ``None`` for a table that is not there."""
        raise NotImplementedError

    def place(self, value: int) -> tuple[Kind, int]:
        """What a number means: the kind, and for data the byte of the image's file."""
        raise NotImplementedError

    def used(self, number: int, entries: array[int]) -> array[int]:
        """The numbers of a table that stand for grains of the disk.

        :raises ImageRefusedError: if those behind the disk's end stand for anything.
        """
        count = min(self.per_table, -(-(self.capacity - number * self.span) // self.grain))
        if any(entries[count:]):
            raise damaged("grain-outside", self.file.name, "has grains behind the end of the disk")
        return entries[:count]

    def stretches(self, number: int) -> Iterator[tuple[int, int, int]]:
        """The stretches of a table: index of the grain in the table, how many, and the first number."""
        entries = self.table(number)
        if entries is None:
            return iter(((0, self.per_table, 0),))
        return stretches(self.used(number, entries), self.step, self.fixed)

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Its runs, in order and without gaps."""
        number, last = start // self.span, -(-end // self.span)
        while number < last:
            gap = min(self.directory.gap(number), last - number)
            if gap:
                begin, stop = max(start, number * self.span), min(end, (number + gap) * self.span)
                yield Run(begin, stop - begin, Kind.ABSENT)
            else:
                yield from self._table_runs(number, start, end)
            number += gap or 1

    def _table_runs(self, number: int, start: int, end: int) -> Iterator[Run]:
        base = number * self.span
        found = self._kept(number)
        # A child's gaps ask for the same table again and again, each time for another part of it.
        at = max(0, bisect.bisect_right(found, ((start - base) // self.grain, self.per_table, 0)) - 1)
        for first, count, value in itertools.islice(found, at, None):
            begin = base + first * self.grain
            if begin >= end:
                return
            length = min(count * self.grain, self.capacity - begin)
            if begin + length > start:
                yield from self._runs(begin, length, value, start, end)

    def _kept(self, number: int) -> list[tuple[int, int, int]]:
        """The stretches of a table. Those of the last one are kept, in one go, for threads."""
        last = self._last
        if last[0] != number:
            self._last = last = (number, list(self.stretches(number)))
        return last[1]

    def _runs(self, begin: int, length: int, value: int, start: int, end: int) -> Iterator[Run]:
        kind, offset = self.place(value)
        yield clip(Run(begin, length, kind, self.index, self.file.base + offset if offset else 0), start, end)

    def check(self) -> int:
        """Walk all tables.

        :returns: bytes that are stored.
        :raises ImageRefusedError: if a grain lies outside the file, on top of the tables or of another grain.
        """
        bitmap, phase, stored = self.bitmap(), None, 0
        unit = self.unit()
        for number in self.directory.there(0, self.tables):
            for first, count, value in self.stretches(number):
                kind, offset = self.place(value)
                if kind is not Kind.DATA:
                    continue
                begin = number * self.span + first * self.grain
                self.check_place(offset, min(count * self.grain, self.capacity - begin))
                phase = offset % unit if phase is None else phase
                if offset % unit != phase:
                    raise damaged("grain-misaligned", self.file.name, f"has a grain at byte {offset}, out of line")
                if not bitmap.mark(offset // unit, count * self.grain // unit):
                    raise damaged("grain-overlap", self.file.name, f"uses the bytes at {offset} twice")
                stored += count * self.grain
        return stored

    def bitmap(self) -> Bitmap:
        """The bitmap to begin with."""
        return Bitmap()

    def unit(self) -> int:
        """Bytes that a bit of the bitmap stands for."""
        return self.grain

    def check_place(self, offset: int, length: int) -> None:
        """Refuse grains that lie where none can be.

        :param length: bytes that the disk needs from there.
        """
        if offset + length > self.file.length:
            raise damaged(
                "grain-outside",
                self.file.name,
                f"is cut short: the disk needs its bytes up to {offset + length}, it has {self.file.length}",
            )


class Flat:
    """A flat extent as a layer."""

    def __init__(self, file: ImageFile, index: int, offset: int, capacity: int) -> None:
        self.index = index
        self._offset = file.base + offset
        self.capacity = capacity

    def check(self) -> int:
        """Nothing to walk: all of it is stored."""
        return self.capacity

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """One run."""
        yield Run(start, end - start, Kind.DATA, self.index, self._offset + start)


class Extents:
    """Extents, one behind the other, as a layer."""

    def __init__(self, parts: Sequence[Grains | Flat]) -> None:
        self._parts = list(parts)

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """The runs of the extents, counted from the disk's beginning."""
        base = 0
        for part in self._parts:
            stop = base + part.capacity
            if stop > start and base < end:
                for run in part.runs(max(start, base) - base, min(end, stop) - base):
                    yield run if base == 0 else _moved(run, base)
            base = stop


def _moved(run: Run, base: int) -> Run:
    return Run(run.start + base, run.length, run.kind, run.file, run.offset, run.stored, run.skip, run.grain)
