# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Checks a VDI (VirtualBox) before QEMU opens it. Source: QEMU 7.2, block/vdi.c."""

from __future__ import annotations

import struct
import typing as t

from .errors import ImageRefusedError
from .vmdk_descriptor import MAX_DISK
from .vmdk_tables import Bitmap, damaged, read_numbers

if t.TYPE_CHECKING:
    from .files import ImageFile

_LAYOUT = struct.Struct("<5I")
_PLACES = struct.Struct("<2I3III")
_SIZES = struct.Struct("<QIIII")
_VERSION = 0x00010001
_DYNAMIC, _FIXED = 1, 2
_UNALLOCATED = (0xFFFFFFFF, 0xFFFFFFFE)
_BLOCK = 1024**2
_PIECE = 65536


def check_vdi(file: ImageFile) -> int:
    """Check a VDI.

    :returns: bytes of the disk.
    :raises ImageRefusedError: if it is a difference to another image, or refers to what is not in the file.
    """
    head = file.read(0, 512)
    _signature, version, _header, kind, _flags = _LAYOUT.unpack_from(head, 0x40)
    table, data, _cylinders, _heads, _sectors, sector, _unused = _PLACES.unpack_from(head, 0x154)
    size, block, extra, blocks, _allocated = _SIZES.unpack_from(head, 0x170)
    if version != _VERSION:
        raise ImageRefusedError("version-unknown", file.name, f"has version {version:#x}", f"known is {_VERSION:#x}")
    if kind not in {_DYNAMIC, _FIXED} or any(head[0x1A8:0x1C8]):
        raise ImageRefusedError(
            "backing-file",
            file.name,
            f"is a difference to another image (type {kind})",
            "make one image of it where it came from: VBoxManage clonemedium",
        )
    if (sector, block, extra) != (512, _BLOCK, 0) or not 0 < size <= min(blocks * block, MAX_DISK):
        raise damaged("header-bad", file.name, f"has {size} bytes in {blocks} blocks of {block}, sectors of {sector}")
    _check_blocks(file, table, data, -(-size // block))
    return t.cast("int", size)


def _check_blocks(file: ImageFile, table: int, data: int, blocks: int) -> None:
    used = Bitmap()
    if table < 512 or table + 4 * blocks > data:
        raise damaged("table-outside", file.name, f"has its table at byte {table} and its data at {data}")
    for first in range(0, blocks, _PIECE):
        for block in read_numbers(file, table + 4 * first, min(_PIECE, blocks - first), "I"):
            if block in _UNALLOCATED:
                continue
            end = data + (block + 1) * _BLOCK
            if end > file.length:
                raise damaged(
                    "grain-outside", file.name, f"is cut short: it has {file.length} bytes, the disk needs {end}"
                )
            if not used.mark(block, 1):
                raise damaged("grain-overlap", file.name, f"uses block {block} twice")
