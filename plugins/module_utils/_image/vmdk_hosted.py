# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Sparse extents that begin with KDMV, as VMware's products for the desktop write them, and streams made for transport.

Source of the layout: VMware, Virtual Disk Format 5.0 (technical note), and what VMware and QEMU write.
"""

from __future__ import annotations

import bisect
import struct
import typing as t
from array import array
from dataclasses import dataclass, replace

from .errors import ImageRefusedError
from .files import COPY_AGAIN
from .runs import SECTOR, Kind, Run, clip
from .vmdk_descriptor import MAX_BYTES, MAX_DISK
from .vmdk_tables import Bitmap, Directory, Grains, damaged, read_numbers

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .files import ImageFile

MAGIC = b"KDMV"
_LAYOUT = struct.Struct("<4sIIQQQQIQQQB4sH433s")
_AT_END = 0xFFFFFFFFFFFFFFFF
_NEWLINES, _REDUNDANT, _ZEROED, _COMPRESSED, _MARKERS = 0x1, 0x2, 0x4, 0x10000, 0x20000
_KNOWN_FLAGS = _NEWLINES | _REDUNDANT | _ZEROED | _COMPRESSED | _MARKERS
_DEFLATE = 1
_TABLE = 512
_TABLE_SECTORS = _TABLE * 4 // SECTOR
_GRAINS = tuple(1 << power for power in range(3, 13))
_MARKER = struct.Struct("<QII")
_END, _GRAIN_TABLE, _GRAIN_DIRECTORY, _FOOTER = range(4)
#: As many as the largest disk has with grains of the usual size.
_MAX_TABLES = MAX_DISK // SECTOR // 128 // _TABLE
#: Zeros that may follow the last thing in a stream: QEMU fills up the last grain.
_MAX_TAIL = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Header:
    """The header of such a file, sizes and places in sectors."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    per_table: int
    redundant: int
    directory: int
    overhead: int
    unclean: int
    newlines: bytes
    compression: int

    @property
    def compressed(self) -> bool:
        """Whether grains are packed and have markers."""
        return bool(self.flags & _COMPRESSED)

    @property
    def tables(self) -> int:
        """How many grain tables there are."""
        return -(-self.capacity // (self.grain * _TABLE))


def read_header(file: ImageFile, offset: int = 0) -> Header:
    """Read and check a header.

    :raises ImageRefusedError: if a number in it makes no sense by itself.
    """
    fields = _LAYOUT.unpack(file.read(offset, _LAYOUT.size))
    header = Header(*fields[1:14])
    if fields[0] != MAGIC:
        raise damaged("header-bad", file.name, f"has no header at byte {offset}")
    if header.version not in {1, 2, 3}:
        raise ImageRefusedError("version-unknown", file.name, f"has version {header.version}", "known are 1, 2 and 3")
    if header.flags & ~_KNOWN_FLAGS or fields[14].strip(b"\0"):
        raise _header(file, f"has flags {header.flags:#x} or reserved bytes that are not known")
    _check_numbers(file, header)
    _check_flags(file, header)
    return header


def _check_numbers(file: ImageFile, header: Header) -> None:
    if not 0 < header.capacity <= MAX_DISK // SECTOR:
        raise ImageRefusedError(
            "capacity-bad",
            file.name,
            f"has a capacity of {header.capacity} sectors",
            f"allowed are 1 to {MAX_DISK // SECTOR}; {COPY_AGAIN}",
        )
    if header.grain not in _GRAINS:
        raise _header(file, f"has grains of {header.grain} sectors; allowed are powers of two from 8 to 4096")
    if header.tables > _MAX_TABLES:
        raise _header(file, f"has {header.tables} grain tables; allowed are {_MAX_TABLES}")
    if header.per_table != _TABLE:
        raise _header(file, f"has {header.per_table} grains in a table; allowed are {_TABLE}")
    if header.overhead * SECTOR > file.length:
        raise damaged(
            "file-truncated",
            file.name,
            f"has {file.length} bytes, its tables alone take {header.overhead * SECTOR}",
        )
    if header.descriptor not in {0, 1} or header.descriptor_size * SECTOR > MAX_BYTES:
        raise _header(
            file, f"has its descriptor at sector {header.descriptor}, {header.descriptor_size} long; it belongs at 1"
        )
    if header.descriptor and header.descriptor + header.descriptor_size > header.overhead:
        raise _header(file, f"has a descriptor of {header.descriptor_size} sectors, which reaches into its grains")


def _check_flags(file: ImageFile, header: Header) -> None:
    if header.flags & _NEWLINES and header.newlines != b"\n \r\n":
        raise damaged("newlines-changed", file.name, "had its line ends changed on the way (a transfer in text mode)")
    if header.unclean:
        raise ImageRefusedError(
            "unclean",
            file.name,
            "was not closed cleanly: a guest uses it, or VMware was stopped while it did",
            "start the guest in VMware once and shut it down, or repair it with vmware-vdiskmanager -R",
        )
    packed = header.flags & (_COMPRESSED | _MARKERS)
    if packed not in {0, _COMPRESSED | _MARKERS} or header.compression != (_DEFLATE if packed else 0):
        raise _header(file, f"has flags {header.flags:#x} with compression {header.compression}")
    if header.directory == _AT_END and not packed:
        raise _header(file, "has its grain directory at its end, but is no stream")


def _header(file: ImageFile, problem: str) -> ImageRefusedError:
    return damaged("header-bad", file.name, problem)


def read_embedded(file: ImageFile, header: Header) -> bytes:
    """The descriptor inside of the file, b"" for none."""
    if not header.descriptor:
        return b""
    return file.read(header.descriptor * SECTOR, header.descriptor_size * SECTOR)


class Hosted(Grains):
    """A sparse extent whose grains are stored as they are."""

    def __init__(self, file: ImageFile, index: int, header: Header) -> None:
        super().__init__(file, index, header.capacity * SECTOR, header.grain * SECTOR, _TABLE)
        self.header = header
        self.step = header.grain
        self.fixed = frozenset({0, 1} if header.flags & _ZEROED else {0})
        self._zeroed = 1 if header.flags & _ZEROED else 0
        self._limit = header.overhead * SECTOR
        self._check_room(header.directory, -(-header.tables * 4 // SECTOR), "grain directory")
        self.directory = Directory(file, header.directory * SECTOR, header.tables, "I")

    def _check_room(self, first: int, count: int, what: str) -> None:
        """Refuse tables that are not inside the part of the file that is kept for them."""
        if first < 1 or (first + count) * SECTOR > self._limit:
            raise damaged(
                "table-outside",
                self.file.name,
                f"has a {what} at sector {first}, {count} long; tables lie in sectors 1 to {self._limit // SECTOR}",
            )

    def table(self, number: int) -> array[int] | None:
        """The numbers of a table."""
        sector = self.directory[number]
        if not sector:
            return None
        self._check_room(sector, _TABLE_SECTORS, "grain table")
        return read_numbers(self.file, sector * SECTOR, _TABLE, "I")

    def place(self, value: int) -> tuple[Kind, int]:
        """What a number of a table means."""
        if not value:
            return Kind.ABSENT, 0
        return (Kind.ZERO, 0) if value == self._zeroed else (Kind.DATA, value * SECTOR)

    def check_place(self, offset: int, length: int) -> None:
        """Refuse grains outside the file or among the tables."""
        if offset < self._limit:
            raise damaged(
                "grain-overlap",
                self.file.name,
                f"has a grain at byte {offset}, among its tables, which end at {self._limit}",
            )
        super().check_place(offset, length)

    def check(self) -> int:
        """Walk all tables, and compare them with their second copies."""
        self.check_tables()
        return super().check()

    def check_tables(self) -> None:
        """Refuse tables that overlap, and copies that differ."""
        header = self.header
        used = Bitmap()
        self._mark(used, 0, 1)
        self._mark(used, header.descriptor, header.descriptor_size if header.descriptor else 0)
        self._mark(used, header.directory, -(-header.tables * 4 // SECTOR))
        copy = self._copy()
        if copy is not None:
            self._mark(used, header.redundant, -(-header.tables * 4 // SECTOR))
        for number in self._either(copy):
            entries = self._table_once(used, self.directory[number])
            if copy is not None and entries != self._table_once(used, copy[number]):
                raise damaged(
                    "tables-differ",
                    self.file.name,
                    f"has two copies of grain table {number}, which differ",
                )

    def _either(self, copy: Directory | None) -> Iterator[int]:
        """The tables that one of the directories has."""
        number = 0
        while number < self.tables:
            gap = self.directory.gap(number)
            if copy is not None:
                gap = min(gap, copy.gap(number))
            if not gap:
                yield number
            number += gap or 1

    def _copy(self) -> Directory | None:
        if not self.header.flags & _REDUNDANT:
            return None
        self._check_room(self.header.redundant, -(-self.header.tables * 4 // SECTOR), "second grain directory")
        return Directory(self.file, self.header.redundant * SECTOR, self.header.tables, "I")

    def _table_once(self, used: Bitmap, sector: int) -> array[int] | None:
        if not sector:
            return None
        self._check_room(sector, _TABLE_SECTORS, "grain table")
        self._mark(used, sector, _TABLE_SECTORS)
        return read_numbers(self.file, sector * SECTOR, _TABLE, "I")

    def _mark(self, used: Bitmap, first: int, count: int) -> None:
        if not used.mark(first, count):
            raise damaged("table-overlap", self.file.name, f"uses its sectors from {first} for two tables")


class Stream(Hosted):
    """A sparse extent whose grains are packed, each behind a marker: its sector on the disk, and its length."""

    def __init__(self, file: ImageFile, index: int, header: Header) -> None:
        self.footer = header.directory == _AT_END
        self._walked: array[int] = array("Q")
        self._directories = 0
        real = self._read_footer(file, header) if self.footer else header
        self._begin = header.overhead * SECTOR
        super().__init__(file, index, real)
        self.step = 0  # each grain is a run of its own

    @staticmethod
    def _read_footer(file: ImageFile, header: Header) -> Header:
        """The header's second copy, at the file's end, which knows where the directory is."""
        marker = file.length - 3 * SECTOR
        expected = (_MARKER.pack(1, 0, _FOOTER).ljust(SECTOR, b"\0"), bytes(SECTOR))
        if file.length % SECTOR or marker < header.overhead * SECTOR:
            raise _cut(file)
        if (file.read(marker, SECTOR), file.read(marker + 2 * SECTOR, SECTOR)) != expected:
            raise _cut(file)
        footer = read_header(file, marker + SECTOR)
        if replace(footer, directory=_AT_END, redundant=header.redundant) != header:
            raise damaged("footer-differs", file.name, "has a footer that says something else than its header")
        if footer.directory == _AT_END:
            raise damaged("footer-differs", file.name, "has a footer that does not know where the grain directory is")
        return footer

    def _check_room(self, first: int, count: int, what: str) -> None:
        if not self.footer:
            super()._check_room(first, count, what)
        elif first < self._begin // SECTOR or (first + count) * SECTOR > self.file.length:
            raise damaged("table-outside", self.file.name, f"has a {what} at sector {first}, {count} long")

    def stretches(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Each grain by itself, what is not stored together."""
        entries = self.table(number)
        if entries is None:
            yield 0, self.per_table, 0
            return
        first, last, count = 0, -1, 0
        for at, value in enumerate(self.used(number, entries)):
            if value == last and value in self.fixed:
                count += 1
                continue
            if count:
                yield first, count, last
            first, last, count = at, value, 1
        yield first, count, last

    def _runs(self, begin: int, length: int, value: int, start: int, end: int) -> Iterator[Run]:
        kind, offset = self.place(value)
        if kind is not Kind.DATA:
            yield clip(Run(begin, length, kind, self.index), start, end)
            return
        sector, stored = self._marker(offset)
        if sector * SECTOR != begin:
            raise self._misplaced(offset, sector, begin)
        data = self.file.base + offset + 12
        yield clip(Run(begin, length, Kind.DEFLATED, self.index, data, stored, 0, self.grain), start, end)

    def _marker(self, offset: int) -> tuple[int, int]:
        """A grain's sector on the disk and the length of its zlib stream."""
        sector, stored, _type = _MARKER.unpack(self.file.read(offset, _MARKER.size))
        self._check_stored(offset, stored)
        return sector, stored

    def _check_stored(self, offset: int, stored: int) -> None:
        """Refuse a packed grain that is not inside the file, or larger than zlib can have made it."""
        if not stored or offset + 12 + stored > self.file.length or stored > 2 * self.grain + 64:
            raise damaged(
                "grain-outside",
                self.file.name,
                f"has a grain of {stored} packed bytes at byte {offset}, the file ends at {self.file.length}",
            )

    def _misplaced(self, offset: int, sector: int, begin: int) -> ImageRefusedError:
        return damaged(
            "grain-misplaced",
            self.file.name,
            f"has a grain at byte {offset} that is marked for sector {sector}; its tables have it at {begin // SECTOR}",
        )

    def check(self) -> int:
        """Walk all markers, from the first grain to the end of the stream, and hold them against the tables."""
        if not self.footer:
            self.check_tables()
        grains = self._walk()
        if self.footer:
            self._check_walked()
        listed = 0
        for number in self.directory.there():
            listed += sum(self.place(value)[0] is Kind.DATA for _first, _count, value in self.stretches(number))
        if listed != grains:
            raise damaged(
                "markers-differ", self.file.name, f"holds {grains} grains by its markers, {listed} by its tables"
            )
        return grains * self.grain

    def _check_walked(self) -> None:
        """The tables of the directory are those that the markers led to, each of them once."""
        used, listed = Bitmap(), 0
        for number in self.directory.there():
            sector = self.directory[number]
            listed += 1
            at = bisect.bisect_left(self._walked, sector)
            if self._walked[at : at + 1] != array("Q", [sector]) or not used.mark(at, 1):
                raise damaged("markers-differ", self.file.name, f"has no grain table of its own at sector {sector}")
        if listed != len(self._walked) or self._directories != 1:
            raise damaged(
                "markers-differ",
                self.file.name,
                f"has {len(self._walked)} grain tables and {self._directories} directories by its markers,"
                f" {listed} and 1 by its directory",
            )

    def _walk(self) -> int:
        """Follow the markers. Each grain must be the one that the tables have for its sector.

        :returns: how many grains there are.
        """
        grains, offset = 0, self._begin
        end = self.file.length - 3 * SECTOR if self.footer else self.file.length
        cached, entries = -1, None
        while offset < end:
            sector, stored, kind = self._next(offset)
            if not stored:
                after = self._metadata(offset, sector, kind)
                if after is None:
                    return grains
                offset = after
                continue
            number, at = divmod(sector // self.header.grain, _TABLE)
            if sector >= self.header.capacity or sector % self.header.grain:
                raise self._misplaced(offset, sector, 0)
            if number != cached:
                cached, entries = number, self.table(number)
            if entries is None or entries[at] * SECTOR != offset:
                raise damaged(
                    "grain-misplaced",
                    self.file.name,
                    f"has a grain at byte {offset} that is marked for sector {sector}, where its tables have another",
                )
            grains += 1
            offset += -(-(12 + stored) // SECTOR) * SECTOR
        if offset > end and not (offset - end < SECTOR and not self.footer):
            raise _cut(self.file)
        return grains

    def _next(self, offset: int) -> tuple[int, int, int]:
        if offset + _MARKER.size > self.file.length:
            raise _cut(self.file)
        sector, stored, kind = _MARKER.unpack(self.file.read(offset, _MARKER.size))
        if stored:
            self._check_stored(offset, stored)
        return sector, stored, kind

    def _metadata(self, offset: int, count: int, kind: int) -> int | None:
        """What follows a marker that is no grain's.

        :returns: where the next marker is, ``None`` at the end of the stream.
        """
        if (kind, count) == (_END, 0):
            self._check_tail(offset)
            return None
        size = {_GRAIN_TABLE: _TABLE_SECTORS, _GRAIN_DIRECTORY: -(-self.header.tables * 4 // SECTOR)}
        if not self.footer or size.get(kind) != count or self.file.read(offset + 16, SECTOR - 16).strip(b"\0"):
            raise damaged("marker-unknown", self.file.name, f"has a marker of type {kind} at byte {offset}")
        if kind == _GRAIN_TABLE:
            self._walked.append(offset // SECTOR + 1)
        elif offset // SECTOR + 1 != self.header.directory:
            raise damaged("marker-unknown", self.file.name, f"has a second grain directory at byte {offset}")
        else:
            self._directories += 1
        return offset + (1 + count) * SECTOR

    def _check_tail(self, offset: int) -> None:
        """Only zeros follow the end of a stream without footer."""
        rest = self.file.length - offset
        if self.footer or rest > _MAX_TAIL:
            raise damaged("marker-unknown", self.file.name, f"ends at byte {offset}, and {rest} bytes follow")
        for at in range(offset, self.file.length, 1 << 20):
            if self.file.read(at, min(1 << 20, self.file.length - at)).strip(b"\0"):
                raise damaged("marker-unknown", self.file.name, f"ends at byte {offset}, and more follows")


def _cut(file: ImageFile) -> ImageRefusedError:
    return damaged("stream-truncated", file.name, "is a stream that is cut off: its end is missing")


def open_hosted(file: ImageFile, index: int, header: Header) -> Hosted:
    """The layer of such a file, its directory checked, its tables not yet."""
    return (Stream if header.compressed else Hosted)(file, index, header)
