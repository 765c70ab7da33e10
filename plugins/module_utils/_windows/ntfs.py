# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Whether an NTFS volume was left in order, found out from its bytes alone: nothing is mounted, nothing can be written.

``ntfs-3g`` can't be asked: on a hibernated volume it succeeds and mounts read-only, and it throws an unfinished journal
away without a word. Sources: ntfs-3g 2022.10.3, ``include/ntfs-3g/layout.h`` and ``logfile.c``
(``ntfs_is_logfile_clean``).
"""

from __future__ import annotations

import struct
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._core.errors import ParseError

#: Reads ``length`` bytes at ``offset`` of a volume.
Read = Callable[[int, int], bytes]

_BITLOCKER: t.Final = (b"-FVE-FS-", b"MSWIN4.1")
_NTFS: t.Final = b"NTFS    "
_LOGFILE_RECORD, _VOLUME_RECORD = 2, 3
_VOLUME_INFORMATION, _DATA = 0x70, 0x80
_DIRTY: t.Final = 0x0001
_CLEAN: t.Final = 0x0002
_NO_CLIENT: t.Final = 0xFFFF
_RESTART_PAGES: t.Final = (0, 4096)
_STRIDE: t.Final = 512


@dataclass(frozen=True, slots=True)
class NtfsState:
    """How a volume was left.

    :param serial: its serial number, which stays with it.
    :param dirty: Windows has marked it for a check.
    :param log_clean: no change waits in its journal.
    """

    serial: str
    dirty: bool
    log_clean: bool


def is_bitlocker(read: Read) -> bool:
    """Whether a volume is encrypted with BitLocker (``-FVE-FS-`` at byte 3; BitLocker To Go says so elsewhere)."""
    sector = read(0, 512)
    if sector[3:11] == _BITLOCKER[0]:
        return True
    return sector[3:11] == _BITLOCKER[1] and b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a" in sector[424:440]


def is_ntfs(read: Read) -> bool:
    """Whether a volume is NTFS."""
    sector = read(0, 512)
    return sector[3:11] == _NTFS and sector[510:] == b"\x55\xaa"


def read_state(read: Read) -> NtfsState:
    """How an NTFS volume was left.

    :raises ParseError: when its structures can't be read: then it is damaged.
    """
    try:
        return _Volume(read).state()
    except (struct.error, IndexError) as error:
        raise ParseError("the NTFS volume is damaged: a structure of it ends too early") from error


class _Volume:
    def __init__(self, read: Read) -> None:
        self._read = read
        sector = read(0, 512)
        if sector[3:11] != _NTFS:
            raise ParseError("it is no NTFS volume")
        bytes_per_sector, sectors = struct.unpack_from("<HB", sector, 11)
        # More than 128 sectors in a cluster are written as a negative power of two.
        self._cluster = bytes_per_sector * (sectors if sectors <= 128 else 1 << 256 - sectors)
        table, mirror, record = struct.unpack_from("<QQb", sector, 48)
        self._record = record * self._cluster if record > 0 else 1 << -record
        self._table = table * self._cluster
        self._serial = struct.unpack_from("<Q", sector, 72)[0]
        if not 512 <= self._cluster <= 1 << 21 or not 512 <= self._record <= 1 << 16 or not table or not mirror:
            raise ParseError("the NTFS volume is damaged: its boot sector makes no sense")

    def state(self) -> NtfsState:
        information = self._attribute(_VOLUME_RECORD, _VOLUME_INFORMATION)
        (length, offset) = struct.unpack_from("<IH", information, 16)
        value = information[offset : offset + length]
        (flags,) = struct.unpack_from("<H", value, 10)
        return NtfsState(f"{self._serial:016x}", bool(flags & _DIRTY), self._log_clean())

    def _attribute(self, record: int, kind: int) -> bytes:
        """The first attribute of a kind in one of the first records of the master file table."""
        data = self._fixed(self._read(self._table + record * self._record, self._record), b"FILE")
        (position,) = struct.unpack_from("<H", data, 20)
        while position + 16 <= len(data):
            found, length = struct.unpack_from("<II", data, position)
            if found == kind:
                return data[position : position + length]
            if found == 0xFFFFFFFF or length < 16:
                break
            position += length
        raise ParseError(f"the NTFS volume is damaged: record {record} has no attribute 0x{kind:02x}")

    def _fixed(self, data: bytes, magic: bytes) -> bytes:
        """A record with the last bytes of its sectors put back in place, which a torn write would show."""
        if data[:4] != magic:
            raise ParseError("the NTFS volume is damaged: a record of its master file table is not there")
        offset, count = struct.unpack_from("<HH", data, 4)
        whole = bytearray(data)
        for index in range(1, count):
            end = index * _STRIDE
            if data[end - 2 : end] != data[offset : offset + 2]:
                raise ParseError("the NTFS volume is damaged: a record of its master file table is torn")
            whole[end - 2 : end] = data[offset + 2 * index : offset + 2 * index + 2]
        return bytes(whole)

    def _log_clean(self) -> bool:
        """Whether the journal is empty, or was closed in order; of its two beginnings the later counts."""
        start = next(self._runs(self._attribute(_LOGFILE_RECORD, _DATA)))
        pages = [self._read(start + place, 4096) for place in _RESTART_PAGES]
        if all(page == b"\xff" * len(page) for page in pages):
            return True
        areas = [area for page in pages for area in self._restart_areas(page)]
        if not areas:
            return False
        _sequence, client, flags = max(areas)
        return client == _NO_CLIENT or bool(flags & _CLEAN)

    def _restart_areas(self, page: bytes) -> Iterator[tuple[int, int, int]]:
        """Sequence number, first client in use and flags of a page, if it is one."""
        if page[:4] in (b"RSTR", b"CHKD"):
            (offset,) = struct.unpack_from("<H", page, 24)
            (sequence,) = struct.unpack_from("<Q", page, offset)
            yield (sequence, *struct.unpack_from("<HH", page, offset + 12))

    def _runs(self, attribute: bytes) -> Iterator[int]:
        """Where the pieces of a file's content begin, in bytes."""
        if not attribute[8]:
            raise ParseError("the NTFS volume is damaged: its journal has no place")
        (position,) = struct.unpack_from("<H", attribute, 32)
        cluster = 0
        while attribute[position]:
            lengths, offsets = attribute[position] & 0x0F, attribute[position] >> 4
            start = position + 1 + lengths
            cluster += int.from_bytes(attribute[start : start + offsets], "little", signed=True)
            yield cluster * self._cluster
            position = start + offsets
        raise ParseError("the NTFS volume is damaged: its journal is empty")
