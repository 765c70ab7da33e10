# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Checks a VHDX (Hyper-V) before QEMU opens it. Source: Microsoft, [MS-VHDX]."""

from __future__ import annotations

import functools
import struct
import typing as t
import uuid

from .errors import ImageRefusedError
from .vmdk_descriptor import MAX_DISK
from .vmdk_tables import Bitmap, damaged, read_numbers

if t.TYPE_CHECKING:
    from .files import ImageFile

_KIB, _MIB = 1024, 1024**2
_HEADERS = (64 * _KIB, 128 * _KIB)
_REGIONS = 192 * _KIB
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
_PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_HAS_PARENT = 2
_PRESENT, _PARTIAL = 6, 7
_PIECE = 65536


def check_vhdx(file: ImageFile) -> int:
    """Check a VHDX.

    :returns: bytes of the disk.
    :raises ImageRefusedError: if it is a difference to another image, has a log that was not carried out, or refers to
        what is not in the file.
    """
    _check_log(file)
    regions = _read_regions(file)
    items = _read_metadata(file, *regions[_METADATA])
    block, flags = struct.unpack("<II", items[_PARAMETERS][:8])
    (size,) = struct.unpack("<Q", items[_SIZE][:8])
    (sector,) = struct.unpack("<I", items[_SECTOR][:4])
    if flags & _HAS_PARENT or _PARENT in items:
        raise ImageRefusedError(
            "backing-file", file.name, "is a difference to another image", "merge it where it came from: Merge-VHD"
        )
    if block not in {_MIB << power for power in range(9)} or sector not in {512, 4096} or not 0 < size <= MAX_DISK:
        raise damaged("header-bad", file.name, f"has {size} bytes in blocks of {block}, sectors of {sector}")
    _check_blocks(file, regions[_BAT], block, (1 << 23) * sector // block, size)
    return t.cast("int", size)


def _check_log(file: ImageFile) -> None:
    """Of the two headers the valid one with the higher number counts."""
    best = (-1, b"")
    for offset in _HEADERS:
        raw = file.read(offset, 4096)
        signature, checksum, sequence, _write, _data, log, *_rest = _HEADER.unpack_from(raw)
        if signature == b"head" and checksum == _crc32c(raw):
            best = max(best, (sequence, log))
    if best[0] < 0:
        raise damaged("header-bad", file.name, "has no header whose checksum is right")
    if any(best[1]):
        raise ImageRefusedError(
            "unclean",
            file.name,
            "has a log that was not carried out: it was not closed cleanly",
            "start the guest in Hyper-V once and shut it down",
        )


def _read_regions(file: ImageFile) -> dict[bytes, tuple[int, int]]:
    raw = file.read(_REGIONS, 64 * _KIB)
    signature, checksum, count = struct.unpack_from("<4sII", raw)
    if signature != b"regi" or checksum != _crc32c(raw) or count > 2047:
        raise damaged("header-bad", file.name, "has a table of regions whose checksum is wrong")
    regions: dict[bytes, tuple[int, int]] = {}
    for number in range(count):
        kind, offset, length, required = struct.unpack_from("<16sQII", raw, 16 + 32 * number)
        if kind not in {_BAT, _METADATA}:
            if required & 1:
                raise ImageRefusedError("features-unknown", file.name, "has a region that is not known", "convert it")
            continue
        if offset < _MIB or offset + length > file.length or kind in regions:
            raise damaged("table-outside", file.name, f"has a region at byte {offset}, {length} long")
        regions[kind] = (offset, length)
    if len(regions) != 2:
        raise damaged("header-bad", file.name, "lacks one of its two regions")
    return regions


def _read_metadata(file: ImageFile, offset: int, length: int) -> dict[bytes, bytes]:
    raw = file.read(offset, 64 * _KIB)
    signature, _reserved, count = struct.unpack_from("<8sHH", raw)
    if signature != b"metadata" or count > 2047:
        raise damaged("header-bad", file.name, "has no metadata")
    items: dict[bytes, bytes] = {}
    for number in range(count):
        kind, at, size = struct.unpack_from("<16sII", raw, 32 + 32 * number)
        if size > _MIB or at + size > length:
            raise damaged("table-outside", file.name, f"has metadata at {at}, {size} long")
        items[kind] = file.read(offset + at, size)
    wanted = {_PARAMETERS: 8, _SIZE: 8, _SECTOR: 4}
    if any(len(items.get(kind, b"")) < size for kind, size in wanted.items()):
        raise damaged("header-bad", file.name, "lacks some of its metadata")
    return items


def _check_blocks(file: ImageFile, region: tuple[int, int], block: int, ratio: int, size: int) -> None:
    """Every block is in the file, and none twice. Each ``ratio`` entries are followed by one for a bitmap."""
    blocks = -(-size // block)
    entries = blocks + (blocks - 1) // ratio
    if entries * 8 > region[1]:
        raise damaged("header-bad", file.name, f"has a table of {region[1]} bytes for {blocks} blocks")
    used = Bitmap()
    for first in range(0, entries, _PIECE):
        numbers = read_numbers(file, region[0] + 8 * first, min(_PIECE, entries - first), "Q")
        for number, entry in enumerate(numbers, first):
            state, place = entry & 7, entry >> 20
            if number % (ratio + 1) == ratio or state not in {_PRESENT, _PARTIAL}:
                continue
            if state == _PARTIAL or place < 1 or place * _MIB + block > file.length:
                raise damaged("grain-outside", file.name, f"has a block at MiB {place} that is not all there")
            if not used.mark(place, block // _MIB):
                raise damaged("grain-overlap", file.name, f"uses the bytes at MiB {place} twice")


@functools.lru_cache(maxsize=1)
def _crc_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        value = number
        for _bit in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _crc32c(raw: bytes) -> int:
    """The checksum of a header, which stands in its bytes 4 to 8 and is computed with zeros there."""
    table, value = _crc_table(), 0xFFFFFFFF
    for byte in raw[:4] + bytes(4) + raw[8:]:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
