# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Space-efficient sparse extents (seSparse): the snapshots of ESXi on VMFS 6 and of large disks.

VMware has not published the layout. Source: QEMU 7.2, block/vmdk.c (VMDKSESparseConstHeader and around).
"""

from __future__ import annotations

import struct
import typing as t

from .errors import ImageRefusedError
from .runs import SECTOR, Kind
from .vmdk_descriptor import MAX_DISK
from .vmdk_tables import Bitmap, Directory, Grains, damaged, read_numbers

if t.TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from .files import ImageFile

MAGIC = struct.pack("<Q", 0xCAFEBABE)
_VOLATILE = struct.pack("<Q", 0xCAFECAFE)
_LAYOUT = struct.Struct("<26Q304s")
_VERSION = 0x0000000200000001
_GRAIN_SECTORS = 8
_TABLE_SECTORS = 64
_TABLE = _TABLE_SECTORS * SECTOR // 8
_TABLE_THERE = 0x1000000000000000
_KIND, _LOW = 0xF000000000000000, 0x0000FFFFFFFFFFFF
_UNMAPPED, _ZEROED, _STORED = 1 << 60, 2 << 60, 3 << 60
_REGIONS = (
    ("volatile header", 1),
    ("journal header", 1),
    ("journal", 1),
    ("grain directory", 1),
    ("grain tables", 1),
    ("free bitmap", 0),
    ("back map", 0),
    ("grains", 0),
)


class SeSparse(Grains):
    """Such an extent as a layer."""

    # Neighbouring grains differ in bits 48 to 59, which are the lowest of the grain's number.
    step = 1 << 48
    fixed = frozenset({0, _UNMAPPED, _ZEROED})

    def __init__(self, file: ImageFile, index: int) -> None:
        fields = _LAYOUT.unpack(file.read(0, _LAYOUT.size))
        self._check_header(file, fields)
        super().__init__(file, index, fields[2] * SECTOR, _GRAIN_SECTORS * SECTOR, _TABLE)
        places = list(zip(fields[10:26:2], fields[11:26:2], strict=True))
        self._check_regions(places)
        self._check_volatile(places[0][0])
        (directory, directory_size), (tables, tables_size) = places[3], places[4]
        self._grains, self._grains_size = places[7]
        self._tables = tables
        self._table_count = tables_size // _TABLE_SECTORS
        self._directory_count = directory_size * SECTOR // 8
        if self._directory_count < self.tables:
            raise damaged(
                "header-bad", file.name, f"has a directory of {self._directory_count} tables, needs {self.tables}"
            )
        self.directory = Directory(file, directory * SECTOR, self._directory_count, "Q")

    @staticmethod
    def _check_header(file: ImageFile, fields: tuple[t.Any, ...]) -> None:
        magic, version, capacity, grain, table, flags = fields[:6]
        if struct.pack("<Q", magic) != MAGIC:
            raise damaged("header-bad", file.name, "has no header of a seSparse file")
        if version != _VERSION:
            raise ImageRefusedError(
                "version-unknown", file.name, f"has version {version:#x}", f"known is {_VERSION:#x}"
            )
        if (grain, table, flags) != (_GRAIN_SECTORS, _TABLE_SECTORS, 0) or any(fields[6:10]) or any(fields[26]):
            raise damaged(
                "header-bad", file.name, f"has grains of {grain}, tables of {table} sectors, flags {flags:#x}"
            )
        if not 0 < capacity <= MAX_DISK // SECTOR:
            raise damaged("capacity-bad", file.name, f"has a capacity of {capacity} sectors")

    def _check_regions(self, places: list[tuple[int, int]]) -> None:
        """Each part is inside the file, and none lies on another. Of the grains, only those in use must be there."""
        used = [(0, 1, "header")]
        for (first, count), (what, least) in zip(places, _REGIONS, strict=True):
            here = 0 if what == "grains" else count
            if not count and not least:
                continue
            if count < least or first < 1 or (first + here) * SECTOR > self.file.length:
                raise damaged(
                    "table-outside",
                    self.file.name,
                    f"has its {what} at sector {first}, {count} long; the file has {self.file.length // SECTOR}",
                )
            used.append((first, count, what))
        used = sorted(part for part in used if part[1])
        for (first, count, what), (after, _count, other) in zip(used, used[1:]):  # noqa: B905 - a pair fewer
            if first + count > after:
                raise damaged("table-overlap", self.file.name, f"has its {what} and its {other} in the same place")

    def _check_volatile(self, sector: int) -> None:
        head = self.file.read(sector * SECTOR, SECTOR)
        magic, _free, _next, replay = struct.unpack_from("<8s3Q", head)
        if magic != _VOLATILE or head[32:].strip(b"\0"):
            raise damaged("header-bad", self.file.name, f"has no second header at sector {sector}")
        if replay:
            raise ImageRefusedError(
                "unclean",
                self.file.name,
                "has a journal that was not carried out: a guest uses it, or ESXi was stopped while it did",
                "start the guest in VMware once and shut it down, or consolidate its snapshots",
            )

    def table(self, number: int) -> array[int] | None:
        """The numbers of a table."""
        entry = self.directory[number]
        if not entry:
            return None
        return read_numbers(self.file, (self._tables + self._index(entry) * _TABLE_SECTORS) * SECTOR, _TABLE, "Q")

    def _index(self, entry: int) -> int:
        index = entry & 0xFFFFFFFF
        if entry - index != _TABLE_THERE or index >= self._table_count:
            raise damaged(
                "table-outside", self.file.name, f"has the entry {entry:#x} in its directory of {self._table_count}"
            )
        return index

    def place(self, value: int) -> tuple[Kind, int]:
        """What a number of a table means."""
        if not value:
            return Kind.ABSENT, 0
        if value in {_UNMAPPED, _ZEROED}:
            return Kind.ZERO, 0
        if value & _KIND != _STORED:
            raise damaged("grain-unknown", self.file.name, f"has the entry {value:#x} in a grain table")
        number = (value >> 48 & 0xFFF) | (value & _LOW) << 12
        return Kind.DATA, (self._grains + number * _GRAIN_SECTORS) * SECTOR

    def stretches(self, number: int) -> Iterator[tuple[int, int, int]]:
        """The stretches of a table, none of them running into the next kind of entry."""
        for first, count, value in super().stretches(number):
            if value & _KIND == _STORED and (value >> 48 & 0xFFF) + count > 0x1000:
                raise damaged(
                    "grain-unknown", self.file.name, f"has an unknown entry behind {value:#x} in a grain table"
                )
            yield first, count, value

    def check_place(self, offset: int, length: int) -> None:
        """Refuse grains outside the file or their area."""
        end = (self._grains + self._grains_size) * SECTOR
        if self._grains_size and offset + length > end:
            raise damaged("grain-outside", self.file.name, f"has a grain at byte {offset}, its grains end at {end}")
        super().check_place(offset, length)

    def check(self) -> int:
        """Walk all tables."""
        used = Bitmap()
        for number in self.directory.there():
            entry = self.directory[number]
            if number >= self.tables:
                raise damaged("table-outside", self.file.name, "has grain tables behind the end of the disk")
            if not used.mark(self._index(entry), 1):
                raise damaged("table-overlap", self.file.name, f"uses a grain table twice ({entry:#x})")
        return super().check()
