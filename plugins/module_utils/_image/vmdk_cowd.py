# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Sparse extents that begin with COWD: the snapshots of ESX up to VMFS 5 (vmfsSparse).

Source of the layout: VMware, Virtual Disk Format 1.1 (technical note), "ESX Server sparse extents".
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

    from .files import ImageFile

MAGIC = b"COWD"
_LAYOUT = struct.Struct("<4s7I")
_HEADER = 2048
_UNCLEAN = 1648
_TABLE = 4096
_TABLE_SECTORS = _TABLE * 4 // SECTOR
_GRAINS = tuple(1 << power for power in range(13))


class Cowd(Grains):
    """Such an extent as a layer."""

    def __init__(self, file: ImageFile, index: int) -> None:
        head = file.read(0, _HEADER)
        magic, version, flags, capacity, grain, directory, count, free = _LAYOUT.unpack_from(head)
        if magic != MAGIC or (version, flags) != (1, 3):
            raise ImageRefusedError(
                "version-unknown",
                file.name,
                f"is no COWD file of version 1 with flags 3 (version {version}, flags {flags})",
                "consolidate the snapshots in VMware",
            )
        if grain not in _GRAINS or not 0 < capacity * SECTOR <= MAX_DISK:
            raise damaged("header-bad", file.name, f"has {capacity} sectors in grains of {grain}")
        super().__init__(file, index, capacity * SECTOR, grain * SECTOR, _TABLE)
        if head[_UNCLEAN : _UNCLEAN + 4].strip(b"\0"):
            raise ImageRefusedError(
                "unclean",
                file.name,
                "was not closed cleanly: a guest uses it, or ESX was stopped while it did",
                "start the guest in VMware once and shut it down, or consolidate its snapshots",
            )
        self._directory_sectors = -(-self.tables * 4 // SECTOR)
        if count < self.tables or directory * SECTOR < _HEADER:
            raise damaged("header-bad", file.name, f"has {count} tables at sector {directory}, needs {self.tables}")
        if free * SECTOR > file.length or free < directory + self._directory_sectors:
            raise damaged(
                "file-truncated", file.name, f"has {file.length} bytes, by its header {free * SECTOR} are in use"
            )
        self.step = grain
        self._first = directory
        self._limit = free
        self.directory = Directory(file, directory * SECTOR, self.tables, "I")

    def table(self, number: int) -> array[int] | None:
        """The numbers of a table."""
        sector = self.directory[number]
        if not sector:
            return None
        self._check(sector, _TABLE_SECTORS, "table-outside")
        return read_numbers(self.file, sector * SECTOR, _TABLE, "I")

    def place(self, value: int) -> tuple[Kind, int]:
        """What a number of a table means."""
        return (Kind.DATA, value * SECTOR) if value else (Kind.ABSENT, 0)

    def _check(self, first: int, count: int, code: str) -> None:
        if first < self._first + self._directory_sectors or first + count > self._limit:
            raise damaged(
                code,
                self.file.name,
                f"uses sectors {first} to {first + count}; by its header those from {self._first} to {self._limit} are"
                " in use",
            )

    def check_place(self, offset: int, length: int) -> None:
        """Refuse grains outside of what is in use."""
        self._check(offset // SECTOR, -(-length // SECTOR), "grain-outside")

    def unit(self) -> int:
        """Tables lie between grains, at any sector."""
        return SECTOR

    def bitmap(self) -> Bitmap:
        """Tables are in use."""
        used = Bitmap()
        for number in self.directory.there():
            sector = self.directory[number]
            self._check(sector, _TABLE_SECTORS, "table-outside")
            if not used.mark(sector, _TABLE_SECTORS):
                raise damaged("table-overlap", self.file.name, f"uses its sectors from {sector} for two tables")
        return used
