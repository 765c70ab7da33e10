# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes partition tables, good ones and ones with any field wrong. Independent of the parser: nothing is shared."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

SECTOR = 512
MIB = 1024**2
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
SIGNATURE = 0x1B2C3D4E


def mbr_entry(kind: int, start: int, sectors: int, status: int = 0) -> bytes:
    """One entry of an MBR; start and length in sectors."""
    return struct.pack("<B3sB3sII", status, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, sectors)


def mbr_sector(entries: Sequence[bytes], signature: int = SIGNATURE) -> bytes:
    """A sector with up to four entries."""
    return bytes(440) + struct.pack("<IH", signature, 0) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def mbr(size: int, primary: Sequence[tuple[int, int, int]], logical: Sequence[tuple[int, int]] = ()) -> bytearray:
    """A disk with an MBR.

    :param primary: kind, start and length in sectors. One of kind 5 holds the logical ones.
    :param logical: start and length in sectors from the beginning of the disk; each has the sector before it for its
        list.
    """
    disk = bytearray(size)
    disk[:SECTOR] = mbr_sector([mbr_entry(*row) for row in primary])
    box = next((start for kind, start, _sectors in primary if kind == 5), 0)
    places = [box, *(start - 1 for start, _sectors in logical[1:])]
    for index, (start, sectors) in enumerate(logical):
        entries = [mbr_entry(0x83, start - places[index], sectors)]
        if index + 1 < len(logical):
            after, length = logical[index + 1]
            entries.append(mbr_entry(5, places[index + 1] - box, after + length - places[index + 1]))
        disk[places[index] * SECTOR : (places[index] + 1) * SECTOR] = mbr_sector(entries, 0)
    return disk


def gpt_entry(first: int, last: int, name: str = "", kind: uuid.UUID = LINUX, number: int = 1) -> bytes:
    """One entry of a GPT: first and last sector."""
    own = uuid.UUID(int=number)
    return struct.pack("<16s16sQQQ72s", kind.bytes_le, own.bytes_le, first, last, 0, name.encode("utf-16-le"))


def gpt_header(entries: bytes, wrong: dict[str, int], **places: int) -> bytes:
    """A header with the right checksum; `wrong` sets fields to whatever it likes."""
    fields = {
        "revision": 0x10000,
        "length": 92,
        **places,
        "count": len(entries) // 128,
        "entry": 128,
        "entries_crc": zlib.crc32(entries),
        **wrong,
    }
    head = struct.pack("<8sII", b"EFI PART", fields["revision"], fields["length"])
    names = ("place", "copy", "first", "last")
    tail = struct.pack("<QQQQ16s", *(fields[name] for name in names), uuid.UUID(int=99).bytes_le)
    tail += struct.pack("<QIII", *(fields[name] for name in ("entries_place", "count", "entry", "entries_crc")))
    body = head + bytes(8) + tail
    crc = wrong.get("header_crc", zlib.crc32(body.ljust(fields["length"], b"\0")[: fields["length"]]))
    return head + struct.pack("<II", crc, 0) + tail


def gpt(size: int, entries: Sequence[bytes], *, sector: int = SECTOR, **wrong: int) -> bytearray:
    """A disk with a GPT and its copy. Keywords go to the first header."""
    disk, sectors = bytearray(size), size // sector
    data = b"".join(entries).ljust(128 * 128, b"\0")
    length = -(-len(data) // sector)
    last = sectors - length - 2
    disk[:SECTOR] = mbr_sector([mbr_entry(0xEE, 1, min(sectors - 1, 0xFFFFFFFF))])

    def put(place: int, what: bytes) -> None:
        disk[place * sector : place * sector + len(what)] = what

    usable = {"first": 2 + length, "last": last}
    put(1, gpt_header(data, wrong, place=1, copy=sectors - 1, entries_place=2, **usable))
    put(2, data)
    put(sectors - 1 - length, data)
    put(sectors - 1, gpt_header(data, {}, place=sectors - 1, copy=1, entries_place=sectors - 1 - length, **usable))
    return disk


def place_in(disk: bytearray, start: int, content: Path) -> None:
    """Put a file's bytes into a disk."""
    data = content.read_bytes()
    disk[start : start + len(data)] = data
