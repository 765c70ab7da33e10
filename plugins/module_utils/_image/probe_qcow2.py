# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Checks a qcow2 before QEMU opens it: nothing in it leads to another file, and all that it refers to is there.

Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
import sys
import typing as t
from array import array

from .errors import ImageRefusedError
from .vmdk_descriptor import MAX_DISK
from .vmdk_tables import Bitmap, damaged

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .files import ImageFile

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED = 1, 2, 4, 8, 16
_FLATTEN = "flatten it where it came from: qemu-img convert -O qcow2 OLD NEW"
_BACKING_FORMAT, _FEATURES, _BITMAPS, _END = 0xE2792ACA, 0x6803F857, 0x23852875, 0
_OFFSET = 0x00FFFFFFFFFFFE00
_PACKED = 1 << 62


def check_qcow2(file: ImageFile) -> int:
    """Check a qcow2.

    :returns: bytes of the disk.
    :raises ImageRefusedError: if it has a backing file, a data file, encryption or features that are not known, is
        marked as damaged, or refers to what is not in the file.
    """
    magic, version, backing, backing_size, bits, size, crypt, l1_size, l1, *_rest = _V2.unpack(file.read(0, _V2.size))
    if version not in {2, 3}:
        raise ImageRefusedError("version-unknown", file.name, f"is qcow2 of version {version}", "known are 2 and 3")
    if backing or backing_size:
        raise ImageRefusedError("backing-file", file.name, "has a backing file", _FLATTEN)
    if crypt:
        raise ImageRefusedError("encrypted", file.name, "is encrypted", f"decrypt it: {_FLATTEN}")
    if not 9 <= bits <= 21 or not 0 < size <= MAX_DISK:
        raise damaged("header-bad", file.name, f"has a disk of {size} bytes in clusters of 2^{bits}")
    extended = _check_features(file) if version == 3 else False
    clusters = _Clusters(file, bits, extended=extended)
    clusters.check(l1, l1_size, size)
    return t.cast("int", size)


def _check_features(file: ImageFile) -> bool:
    """The header of version 3.

    :returns: whether its tables are extended.
    """
    incompatible, _compatible, _autoclear, _order, length = _V3.unpack(file.read(_V2.size, _V3.size))
    if incompatible & _DATA_FILE:
        raise ImageRefusedError("data-file", file.name, "keeps its data in another file", _FLATTEN)
    if incompatible & (_DIRTY | _CORRUPT):
        raise ImageRefusedError(
            "unclean",
            file.name,
            "is marked as damaged or still open",
            "repair it where it came from: qemu-img check -r all",
        )
    if incompatible & ~(_COMPRESSION | _EXTENDED):
        raise ImageRefusedError(
            "features-unknown", file.name, f"has features {incompatible:#x} that are not known", _FLATTEN
        )
    if length < 104 or length % 8:
        raise damaged("header-bad", file.name, f"has a header of {length} bytes")
    for kind in _extensions(file, length):
        if kind not in {_FEATURES, _BITMAPS}:
            raise ImageRefusedError(
                "features-unknown", file.name, f"has a header extension {kind:#x} that leads elsewhere", _FLATTEN
            )
    return bool(incompatible & _EXTENDED)


def _extensions(file: ImageFile, offset: int) -> Iterator[int]:
    end = offset + 65536
    while offset < end:
        kind, length = struct.unpack(">II", file.read(offset, 8))
        if kind == _END:
            return
        yield kind
        offset += 8 + -(-length // 8) * 8
    raise damaged("header-bad", file.name, "has header extensions without end")


class _Clusters:
    """The tables of clusters."""

    def __init__(self, file: ImageFile, bits: int, *, extended: bool) -> None:
        self._file = file
        self._bits = bits
        self._cluster = 1 << bits
        self._entry = 16 if extended else 8
        self._packed_shift = 62 - (bits - 8)

    def check(self, offset: int, count: int, size: int) -> None:
        """Refuse tables and clusters that are not in the file."""
        span = self._cluster * (self._cluster // self._entry)
        if count < -(-size // span) or count > 32 * 1024**2 // 8 or offset % self._cluster:
            raise damaged("header-bad", self._file.name, f"has {count} tables at byte {offset} for {size} bytes")
        used = Bitmap()
        for entry in self._numbers(offset, -(-size // span)):
            table = entry & _OFFSET
            if not table:
                continue
            if table % self._cluster:
                raise damaged("table-outside", self._file.name, f"has a table at byte {table}")
            if not used.mark(table // self._cluster, 1):
                raise damaged("table-overlap", self._file.name, f"uses the table at byte {table} twice")
            entries = self._numbers(table, self._cluster // 8)
            if any(entries):
                self._check_table(entries[::2] if self._entry == 16 else entries)

    def _check_table(self, entries: array[int]) -> None:
        for entry in entries:
            if entry & _PACKED:
                place = entry & ((1 << self._packed_shift) - 1)
                sectors = (entry >> self._packed_shift) & ((1 << (self._bits - 8)) - 1)
                end = place + 1 if sectors == 0 else place // 512 * 512 + sectors * 512 + 1
            else:
                place = entry & _OFFSET
                end = place + self._cluster if place else 0
            if end > self._file.length:
                # QEMU lets the last cluster of a file end early, where only zeros would follow.
                if not entry & _PACKED and place < self._file.length:
                    continue
                raise damaged(
                    "grain-outside",
                    self._file.name,
                    f"is cut short: it has {self._file.length} bytes, the disk needs its bytes up to {end}",
                )

    def _numbers(self, offset: int, count: int) -> array[int]:
        numbers = array("Q", self._file.read(offset, 8 * count))
        if sys.byteorder == "little":
            numbers.byteswap()
        return numbers
