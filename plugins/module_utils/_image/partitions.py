# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Partition tables: MBR with logical partitions, and GPT. Pure: bytes come from a function.

The parser is our own instead of ``sfdisk -J``, for three reasons. It says no: sfdisk repairs what it reads (a damaged
table is replaced by its copy, overlaps are listed as if nothing were wrong) and tells it on stderr, in words that
differ between releases. It reads through whatever holds the bytes, so that the same check works on an image that
nothing has attached. And it is small, because a table that is only read needs little.

Sources: UEFI specification 2.10, chapter 5 (GPT); util-linux, ``libblkid/src/partitions/dos.c`` (what is an MBR and
what is the boot sector of a file system, logical partitions).
"""

from __future__ import annotations

import struct
import typing as t
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._core.errors import DiskwrightError

#: Reads ``length`` bytes at ``offset`` of a disk.
Read = Callable[[int, int], bytes]

_SECTOR: t.Final = 512
_GPT_SECTORS: t.Final = (512, 4096)
_PROTECTIVE: t.Final = 0xEE
_EXTENDED: t.Final = frozenset({0x05, 0x0F, 0x85})
_FIRST_LOGICAL: t.Final = 5
# Linux reads no more (block/partitions/core.c, DISK_MAX_PARTS).
_MOST: t.Final = 256
_HEADER: t.Final = struct.Struct("<8s4sIIIQQQQ16sQIII")
_ENTRY: t.Final = struct.Struct("<16s16sQQQ72s")


class PartitionTableError(DiskwrightError):
    """A partition table that contradicts itself, its checksums or the size of its disk."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    :param number: as Linux counts: MBR 1 to 4, logical ones from 5; GPT by the place in the table. 0 is the whole disk.
    :param start: bytes from the beginning of the disk.
    :param size: bytes.
    :param kind: ``0x83`` (MBR) or the GUID of the type (GPT); empty for the whole disk.
    :param name: its name in a GPT.
    :param uuid: GPT: its GUID. MBR: signature of the disk and number, as Linux writes ``PARTUUID``.
    """

    number: int
    start: int
    size: int
    kind: str = ""
    name: str = ""
    uuid: str = ""

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Table:
    """What divides a disk.

    :param scheme: ``gpt``, ``mbr``, or ``none``: then the whole disk is partition 0.
    :param damage: what is wrong with a table that can be read all the same.
    """

    scheme: str
    partitions: tuple[Partition, ...]
    damage: tuple[str, ...] = ()


def read_table(read: Read, size: int) -> Table:
    """Read the partition table of a disk.

    :param read: gives bytes; it is never asked for any beyond ``size``.
    :param size: of the disk, in bytes.
    :raises PartitionTableError: for a table that is not fully right. A GPT whose first copy is damaged and whose second
        is whole is read from the second, and says so.
    """
    whole = Table("none", (Partition(0, 0, size),))
    first = read(0, _SECTOR) if size >= _SECTOR else b""
    if first[510:] != b"\x55\xaa" or _is_file_system(first):
        return _gpt_without_mbr(read, size) or whole
    entries = list(_mbr_entries(first))
    if any(entry.kind == _PROTECTIVE for entry in entries):
        return _gpt(read, size)
    if any(entry.status not in (0, 0x80) for entry in _all_mbr_entries(first)) or not entries:
        return whole
    return Table("mbr", tuple(_mbr(read, size, first, entries)))


# ---- MBR


@dataclass(frozen=True, slots=True)
class _MbrEntry:
    index: int
    status: int
    kind: int
    start: int
    sectors: int


def _all_mbr_entries(sector: bytes) -> Iterator[_MbrEntry]:
    for index in range(4):
        status, kind, start, sectors = struct.unpack_from("<B3xB3xII", sector, 446 + 16 * index)
        yield _MbrEntry(index, status, kind, start, sectors)


def _mbr_entries(sector: bytes) -> Iterator[_MbrEntry]:
    return (entry for entry in _all_mbr_entries(sector) if entry.kind and entry.sectors)


def _is_file_system(sector: bytes) -> bool:
    """Whether a sector that ends like an MBR is the boot sector of a file system on an unpartitioned disk."""
    if sector[3:11] in (b"NTFS    ", b"EXFAT   ", b"-FVE-FS-"):
        return True
    fat = sector[54:57] == b"FAT" or sector[82:87] == b"FAT32"
    return fat and sector[:1] in (b"\xeb", b"\xe9")


def _mbr(read: Read, size: int, first: bytes, entries: list[_MbrEntry]) -> Iterator[Partition]:
    signature = struct.unpack_from("<I", first, 440)[0]
    found = [_mbr_partition(entry.index + 1, 0, entry, signature) for entry in entries]
    _check_places(found, _SECTOR, size, "MBR")
    containers = [part for part, entry in zip(found, entries, strict=True) if entry.kind in _EXTENDED]
    if len(containers) > 1:
        raise PartitionTableError("MBR: there are two extended partitions, and one is allowed")
    yield from (part for part in found if part not in containers)
    for container in containers:
        yield from _logical(read, container, signature)


def _mbr_partition(number: int, base: int, entry: _MbrEntry, signature: int) -> Partition:
    start, size = base + entry.start * _SECTOR, entry.sectors * _SECTOR
    return Partition(number, start, size, f"0x{entry.kind:02x}", "", f"{signature:08x}-{number:02x}")


def _logical(read: Read, container: Partition, signature: int) -> list[Partition]:
    """The logical partitions of an extended one: a list of sectors, each with one partition and the way to the next."""
    found: list[Partition] = []
    seen: set[int] = set()
    place: int | None = container.start
    while place is not None:
        if place in seen or len(seen) >= _MOST:
            raise PartitionTableError(f"MBR: the list of logical partitions at byte {place} goes round in circles")
        seen.add(place)
        sector = read(place, _SECTOR)
        if sector[510:] != b"\x55\xaa":
            raise PartitionTableError(f"MBR: there is no list of logical partitions at byte {place}, where one must be")
        here, place = _link(sector, place, container)
        found += [_mbr_partition(_FIRST_LOGICAL + len(found), base, entry, signature) for base, entry in here]
    _check_places(found, container.start + _SECTOR, container.end, "MBR, logical partitions")
    _check_places([*found, *(Partition(0, place, _SECTOR) for place in seen)], container.start, container.end, "MBR")
    return found


def _link(
    sector: bytes, place: int, container: Partition
) -> tuple[list[tuple[int, _MbrEntry]], int | None]:
    """The partition that one sector of the list describes, relative to the sector, and the place of the next one."""
    entries = list(_mbr_entries(sector))
    links = [entry for entry in entries if entry.kind in _EXTENDED]
    here = [(place, entry) for entry in entries if entry.kind not in _EXTENDED]
    if len(links) > 1 or len(here) > 1:
        raise PartitionTableError(f"MBR: the list of logical partitions at byte {place} names more than one at a time")
    if not links:
        return here, None
    following = container.start + links[0].start * _SECTOR
    if not container.start < following <= container.end - _SECTOR:
        raise PartitionTableError(
            f"MBR: the list of logical partitions at byte {place} goes on at byte {following}, outside the extended "
            f"partition {container.number} (bytes {container.start} to {container.end})"
        )
    return here, following


def _check_places(partitions: list[Partition], first: int, end: int, where: str) -> None:
    """Every partition lies between two bytes, and none on another."""
    before: Partition | None = None
    for part in sorted(partitions, key=lambda part: part.start):
        if part.start < first or part.end > end:
            raise PartitionTableError(
                f"{where}: partition {part.number} lies at bytes {part.start} to {part.end}, and {first} to {end} are "
                "allowed; the image is cut short, or its table is damaged"
            )
        if before is not None and part.start < before.end:
            raise PartitionTableError(f"{where}: partitions {before.number} and {part.number} overlap at {part.start}")
        before = part


# ---- GPT


def _gpt_without_mbr(read: Read, size: int) -> Table | None:
    """A GPT must have an MBR that protects it; one without is damaged, and is no file system either."""
    for sector in _GPT_SECTORS:
        if size >= 2 * sector and read(sector, 8) == b"EFI PART":
            raise PartitionTableError(
                "GPT: there is a table, and no protective MBR in front of it; a tool wiped its first sector, or the "
                "table is left over from earlier times"
            )
    return None


def _gpt(read: Read, size: int) -> Table:
    problems: list[str] = []
    for sector in _GPT_SECTORS:
        if size < 3 * sector or read(sector, 8) != b"EFI PART":
            continue
        try:
            table = _Gpt(read, size, sector, 1)
            return Table("gpt", table.partitions(), table.copy_damage())
        except PartitionTableError as error:
            problems.append(str(error))
    for sector in _GPT_SECTORS:
        last = size // sector - 1
        if last < 1 or read(last * sector, 8) != b"EFI PART":
            continue
        table = _Gpt(read, size, sector, last)
        why = problems[0] if problems else "GPT: there is no table at the beginning of the disk"
        return Table("gpt", table.partitions(), (f"{why}; the copy at the end of the disk is whole and was read",))
    raise PartitionTableError(
        problems[0] if problems else "GPT: the MBR says that there is a table, and there is none at either end"
    )


class _Gpt:
    """One copy of the table, checked while it is made.

    :param place: the sector of its header.
    """

    def __init__(self, read: Read, size: int, sector: int, place: int) -> None:
        self._read, self._size, self._sector = read, size, sector
        header = read(place * sector, sector)
        fields = _HEADER.unpack_from(header)
        length, checksum = fields[2], fields[3]
        self._check(92 <= length <= sector, f"its header is {length} bytes long, and 92 to {sector} are allowed")
        body = header[:16] + b"\0\0\0\0" + header[20:length]
        self._check(zlib.crc32(body) == checksum, "its header does not fit its checksum")
        self._check(fields[1] == b"\0\0\1\0", f"its revision is {fields[1].hex()}, and 00000100 is known")
        self._check(fields[5] == place, f"its header lies in sector {place} and says {fields[5]}")
        self._copy, self._first, self._last = fields[6], fields[7], fields[8]
        self._entries = self._read_entries(*fields[10:14])

    def _check(self, good: bool, problem: str) -> None:
        if not good:
            raise PartitionTableError(f"GPT: {problem}")

    def _read_entries(self, place: int, count: int, length: int, checksum: int) -> list[bytes]:
        known = length in (128, 256, 512, 1024, 2048, 4096)
        self._check(known, f"its entries are {length} bytes long, and a power of two from 128 to 4096 is allowed")
        self._check(count <= _MOST, f"it has {count} entries, and at most {_MOST} are allowed")
        start, end = place * self._sector, place * self._sector + count * length
        self._check(place >= 2 and end <= self._size, f"its entries lie at bytes {start} to {end}, outside the disk")
        first, last = self._first * self._sector, (self._last + 1) * self._sector
        usable = 0 < first <= last <= self._size
        self._check(usable, f"bytes {first} to {last} are said to be usable, and the disk ends at {self._size}")
        self._check(end <= first or start >= last, "its entries lie where partitions may be")
        data = self._read(start, count * length)
        self._check(zlib.crc32(data) == checksum, "its entries do not fit their checksum")
        return [data[offset : offset + length] for offset in range(0, len(data), length)]

    def partitions(self) -> tuple[Partition, ...]:
        """The entries in use."""
        found = [
            self._partition(number, entry)
            for number, entry in enumerate(self._entries, start=1)
            if entry[:16] != bytes(16)
        ]
        _check_places(found, self._first * self._sector, (self._last + 1) * self._sector, "GPT")
        return tuple(found)

    def _partition(self, number: int, entry: bytes) -> Partition:
        kind, own, first, last, _attributes, name = _ENTRY.unpack_from(entry)
        self._check(first <= last, f"partition {number} begins in sector {first} and ends in sector {last}")
        text = name.decode("utf-16-le", "replace").split("\0", 1)[0]
        return Partition(
            number,
            first * self._sector,
            (last - first + 1) * self._sector,
            str(uuid.UUID(bytes_le=kind)),
            "".join(char if char.isprintable() else "?" for char in text),
            str(uuid.UUID(bytes_le=own)),
        )

    def copy_damage(self) -> tuple[str, ...]:
        """What is wrong with the copy at the end; a disk that has grown since still has it where it was."""
        try:
            self._check(1 < self._copy < self._size // self._sector, "it lies outside the disk")
            copy = _Gpt(self._read, self._size, self._sector, self._copy)
        except PartitionTableError as error:
            return (f"the copy of the GPT at the end of the disk is damaged ({error}); the table itself is whole",)
        if copy._entries != self._entries:
            return ("the copy of the GPT at the end of the disk has other entries; the table itself was read",)
        return ()
