# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Checks a VHD (Virtual PC, Hyper-V) before QEMU opens it.

Source: Microsoft, Virtual Hard Disk Image Format Specification, version 1.0.
"""

from __future__ import annotations

import struct
import sys
import typing as t
from array import array
from dataclasses import dataclass

from .errors import ImageRefusedError
from .vmdk_descriptor import MAX_DISK
from .vmdk_tables import Bitmap, damaged

if t.TYPE_CHECKING:
    from .files import ImageFile

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_DYNAMIC_HEADER = struct.Struct(">8sQQIIII16s")
_FIXED, _DYNAMIC, _DIFFERENCE = 2, 3, 4
_UNUSED = 0xFFFFFFFF
_PIECE = 65536
#: What its tables can say: 2040 GiB.
_MAX_SIZE = 2040 * 1024**3
_BLOCKS = tuple(1 << power for power in range(16, 25))


@dataclass(frozen=True, slots=True)
class _Disk:
    kind: int
    size: int
    geometry: int
    header: int


def check_vhd(file: ImageFile) -> tuple[int, ...]:
    """Check a VHD.

    :returns: bytes of the disk, by its size and by its geometry: QEMU takes the one or the other, after the program
        that wrote it.
    :raises ImageRefusedError: if it is a difference to another image, or refers to what is not in the file.
    """
    disk = _read_footer(file)
    if disk.kind == _DIFFERENCE:
        raise ImageRefusedError(
            "backing-file", file.name, "is a difference to another image", "merge it where it came from: Merge-VHD"
        )
    if disk.kind == _FIXED:
        if file.length < disk.size + 512:
            raise damaged("file-truncated", file.name, f"has {file.length} bytes, the disk needs {disk.size + 512}")
    elif disk.kind == _DYNAMIC:
        _check_blocks(file, disk)
    else:
        raise damaged("header-bad", file.name, f"has a disk of type {disk.kind}")
    return disk.size, disk.geometry


def _read_footer(file: ImageFile) -> _Disk:
    if file.length < 512:
        raise damaged("file-truncated", file.name, f"has {file.length} bytes")
    raw = file.read(file.length - 512, 512)
    fields = _FOOTER.unpack_from(raw)
    if fields[0] != b"conectix":
        raise damaged("file-truncated", file.name, "has no footer at its end")
    if fields[14] != _checksum(raw, 64) or fields[2] >> 16 != 1:
        raise damaged("header-bad", file.name, "has a footer whose checksum is wrong")
    if fields[16]:
        raise ImageRefusedError("unclean", file.name, "is a saved state", "start the guest once and shut it down")
    size, cylinders, heads, sectors = fields[9:13]
    if not 0 < size <= (MAX_DISK if fields[13] == _FIXED else _MAX_SIZE) or size % 512:
        raise damaged("header-bad", file.name, f"has a disk of {size} bytes")
    if fields[13] != _FIXED and file.read(0, 512) != raw:
        raise damaged("header-bad", file.name, "has a footer that differs from its copy at the beginning")
    return _Disk(fields[13], size, cylinders * heads * sectors * 512, fields[3])


def _checksum(raw: bytes, at: int) -> int:
    return ~(sum(raw) - sum(raw[at : at + 4])) & 0xFFFFFFFF


def _check_blocks(file: ImageFile, disk: _Disk) -> None:
    raw = file.read(disk.header, 1024)
    cookie, _next, table, version, entries, block, checksum, _parent = _DYNAMIC_HEADER.unpack_from(raw)
    if (cookie, version, checksum) != (b"cxsparse", 0x00010000, _checksum(raw, 36)):
        raise damaged("header-bad", file.name, "has no header of its blocks, or one whose checksum is wrong")
    if block not in _BLOCKS or entries * block < disk.size:
        raise damaged("header-bad", file.name, f"has {entries} blocks of {block} bytes for {disk.size}")
    used, entries = Bitmap(), -(-disk.size // block)
    whole = -(-block // 512 // 8 // 512) + block // 512
    for first in range(0, entries, _PIECE):
        count = min(_PIECE, entries - first)
        numbers = array("I", file.read(table + 4 * first, 4 * count))
        if sys.byteorder == "little":
            numbers.byteswap()
        for sector in numbers:
            if sector == _UNUSED:
                continue
            if (sector + whole) * 512 > file.length - 512:
                raise damaged("grain-outside", file.name, f"is cut short: a block at sector {sector} is not all there")
            if not used.mark(sector, whole):
                raise damaged("grain-overlap", file.name, f"uses sector {sector} twice")
