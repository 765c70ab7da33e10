# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes VMDKs of every subformat. Every number of a header can be set to something else."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images.content import SECTOR, grains

Grains = Mapping[int, bytes | None]
NO_PARENT = 0xFFFFFFFF
CID = 0x123A4BCD


def descriptor(
    create_type: str,
    extents: list[str],
    *,
    cid: int = CID,
    parent_cid: int = NO_PARENT,
    hint: str = "",
    more: str = "",
    version: int = 1,
) -> str:
    """The text, as VMware writes it."""
    parent = f'parentFileNameHint="{hint}"\n' if hint else ""
    return (
        f'# Disk DescriptorFile\nversion={version}\nencoding="UTF-8"\nCID={cid:08x}\nparentCID={parent_cid:08x}\n'
        f'isNativeSnapshot="no"\ncreateType="{create_type}"\n{parent}\n# Extent description\n'
        + "".join(f"{line}\n" for line in extents)
        + '\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "lsilogic"\nddb.geometry.cylinders = "4"\n'
        f'ddb.longContentID = "8f15b3d0009d9a3f456ff7b2{cid:08x}"\nddb.virtualHWVersion = "21"\n{more}'
    )


def sectors(size: int) -> int:
    """Sectors of so many bytes."""
    return -(-size // SECTOR)


def padded(data: bytes, size: int = SECTOR) -> bytes:
    """Filled up with zeros to a multiple."""
    return data + bytes(-len(data) % size)


def header(**fields: Any) -> bytes:
    """The header of a hosted extent, sizes in sectors."""
    values = {
        "magic": b"KDMV",
        "version": 1,
        "flags": 3,
        "capacity": 0,
        "grain": 128,
        "descriptor": 1,
        "descriptor_size": 20,
        "per_table": 512,
        "redundant": 0,
        "directory": 0,
        "overhead": 128,
        "unclean": 0,
        "newlines": b"\n \r\n",
        "compression": 0,
    } | fields
    return padded(struct.pack("<4sIIQQQQIQQQB4sH", *values.values()))


def hosted(
    size: int, content: Grains, *, text: str = "", grain: int = 128, redundant: bool = True, **fields: Any
) -> bytes:
    """A sparse extent. A grain ``None`` is marked as zeros, which takes version 2 and flag 4."""
    capacity = sectors(size)
    count = -(-capacity // (grain * 512))
    directory_size, place = sectors(count * 4), 21
    directories = []
    for _copy in range(2 if redundant else 1):
        directories.append((place, place + directory_size))
        place += directory_size + 4 * count
    overhead = -(-place // grain) * grain
    entries, body = [0] * (count * 512), bytearray()
    for number, data in sorted(content.items()):
        entries[number] = 1 if data is None else overhead + len(body) // SECTOR
        body += b"" if data is None else data.ljust(grain * SECTOR, b"\0")
    tables = struct.pack(f"<{len(entries)}I", *entries)
    head = bytearray(overhead * SECTOR)
    for directory, first in directories:
        numbers = struct.pack(f"<{count}I", *(first + 4 * number for number in range(count)))
        head[directory * SECTOR : directory * SECTOR + len(numbers)] = numbers
        head[first * SECTOR : first * SECTOR + len(tables)] = tables
    values = {
        "flags": 3 if redundant else 1,
        "grain": grain,
        "redundant": directories[0][0] if redundant else 0,
        "directory": directories[-1][0],
        "overhead": overhead,
    } | fields
    head[:SECTOR] = header(**{"capacity": capacity} | values)
    head[SECTOR : SECTOR + len(text.encode())] = text.encode()
    return bytes(head + body)


def marker(count: int, kind: int, size: int = 0) -> bytes:
    """What stands before tables in a stream."""
    return padded(struct.pack("<QII", count, size, kind))


def packed(sector: int, data: bytes) -> bytes:
    """A grain in a stream."""
    stored = zlib.compress(data, 1)
    return padded(struct.pack("<QI", sector, len(stored)) + stored)


def stream(
    size: int, content: Grains, *, text: str = "", footer: bool = True, grain: int = 128, **fields: Any
) -> bytes:
    """A streamOptimized image; its directory at the end, as VMware writes it, or at the beginning, as QEMU does."""
    capacity = sectors(size)
    count = -(-capacity // (grain * 512))
    values = {"version": 3, "flags": 0x30001, "grain": grain, "compression": 1, "overhead": 128} | fields
    entries, directory = [0] * (count * 512), [0] * count
    body = bytearray()

    def here() -> int:
        return values["overhead"] + len(body) // SECTOR

    for table in range(count):
        for number in (number for number in sorted(content) if number // 512 == table):
            data = content[number]
            entries[number] = 1 if data is None else here()
            body += b"" if data is None else packed(number * grain, data.ljust(grain * SECTOR, b"\0"))
        numbers = entries[table * 512 : (table + 1) * 512]
        if footer and any(numbers):
            body += marker(4, 1)
            directory[table] = here()
            body += struct.pack("<512I", *numbers)
    if footer:
        listed = padded(struct.pack(f"<{count}I", *directory))
        body += marker(sectors(len(listed)), 2)
        place = here()
        body += listed + marker(1, 3)
        body += header(**{"capacity": capacity, "directory": place} | values) + bytes(SECTOR)
        values["directory"] = 0xFFFFFFFFFFFFFFFF
    else:
        values = {"directory": 21} | values
    head = bytearray(values["overhead"] * SECTOR)
    if not footer:
        first = 21 + sectors(count * 4)
        numbers = struct.pack(f"<{count}I", *(first + 4 * number for number in range(count)))
        head[21 * SECTOR : 21 * SECTOR + len(numbers)] = numbers
        head[first * SECTOR : first * SECTOR + 4 * len(entries)] = struct.pack(f"<{len(entries)}I", *entries)
    head[:SECTOR] = header(**{"capacity": capacity} | values)
    head[SECTOR : SECTOR + len(text.encode())] = text.encode()
    return bytes(head + body)


def cowd(size: int, content: Grains, *, grain: int = 1, **fields: Any) -> bytes:
    """An extent of vmfsSparse. Tables are made when they are needed, between grains, as ESX does."""
    capacity = sectors(size)
    count = -(-capacity // (grain * 4096))
    values = {"version": 1, "flags": 3, "capacity": capacity, "grain": grain, "directory": 4, "count": count} | fields
    first = 4 + sectors(count * 4)
    body, directory = bytearray(), [0] * count
    for table in range(count):
        mine = sorted(number for number in content if number // 4096 == table)
        if not mine:
            continue
        directory[table] = first + len(body) // SECTOR
        place, entries = len(body), [0] * 4096
        body += bytes(4096 * 4)
        for number in mine:
            entries[number % 4096] = first + len(body) // SECTOR
            body += (content[number] or b"").ljust(grain * SECTOR, b"\0")
        body[place : place + 4096 * 4] = struct.pack("<4096I", *entries)
    head = bytearray(first * SECTOR)
    free = {"free": first + len(body) // SECTOR} | {key: value for key, value in values.items() if key == "free"}
    numbers = [values[key] for key in ("version", "flags", "capacity", "grain", "directory", "count")]
    struct.pack_into("<4s7I", head, 0, values.get("magic", b"COWD"), *numbers, free["free"])
    struct.pack_into("<I", head, 1648, values.get("unclean", 0))
    head[4 * SECTOR : 4 * SECTOR + 4 * count] = struct.pack(f"<{count}I", *directory)
    return bytes(head + body)


#: Kinds of entries in the tables of seSparse.
UNMAPPED, ZEROED = 1 << 60, 2 << 60


def sesparse(size: int, content: Mapping[int, bytes | int], **fields: Any) -> bytes:
    """An extent of seSparse. A grain can be an entry, such as ZEROED."""
    capacity = sectors(size)
    count = -(-capacity // (8 * 4096))
    directory_size = max(1, sectors(count * 8))
    directory = [0] * (directory_size * SECTOR // 8)
    places = {"volatile": (1, 1), "journal_header": (2, 2), "journal": (4, 8), "directory": (12, directory_size)}
    tables = 12 + directory_size
    used = sorted({number // 4096 for number in content})
    places |= {
        "tables": (tables, 64 * count),
        "bitmap": (tables + 64 * count, 8),
        "backmap": (tables + 64 * count + 8, 8),
    }
    first = tables + 64 * count + 16
    body, entries = bytearray(), {table: [0] * 4096 for table in used}
    for number, data in sorted(content.items()):
        if isinstance(data, int):
            entries[number // 4096][number % 4096] = data
            continue
        at = len(body) // 4096
        entries[number // 4096][number % 4096] = 3 << 60 | (at & 0xFFF) << 48 | at >> 12
        body += data.ljust(4096, b"\0")
    places["grains"] = (first, len(body) // SECTOR)
    head = bytearray(first * SECTOR)
    for slot, table in enumerate(used):
        directory[table] = 1 << 60 | slot
        struct.pack_into("<4096Q", head, (tables + 64 * slot) * SECTOR, *entries[table])
    struct.pack_into(f"<{len(directory)}Q", head, 12 * SECTOR, *directory)
    values = {"magic": 0xCAFEBABE, "version": 0x200000001, "capacity": capacity, "grain": 8, "table": 64, "flags": 0}
    values |= {key: fields[key] for key in values if key in fields}
    places |= {key: fields[key] for key in places if key in fields}
    flat = [number for place in places.values() for number in place]
    struct.pack_into("<26Q", head, 0, *values.values(), 0, 0, 0, 0, *flat)
    struct.pack_into("<4Q", head, SECTOR, 0xCAFECAFE, 0, 1, fields.get("replay", 0))
    return bytes(head + body)


def write(folder: Path, name: str, data: bytes | str) -> Path:
    """A file in a folder."""
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def sparse(folder: Path, content: bytes, name: str = "disk.vmdk", **fields: Any) -> Path:
    """A monolithicSparse image of a disk."""
    text = descriptor("monolithicSparse", [f'RW {sectors(len(content))} SPARSE "{name}"'])
    return write(folder, name, hosted(len(content), grains(content, 65536), text=text, **fields))


def exported(folder: Path, content: bytes, name: str = "disk.vmdk", **fields: Any) -> Path:
    """A streamOptimized image of a disk."""
    text = descriptor("streamOptimized", [f'RDONLY {sectors(len(content))} SPARSE "generated-stream.vmdk"'])
    return write(folder, name, stream(len(content), grains(content, 65536), text=text, **fields))


def flat(
    folder: Path, content: bytes, name: str = "disk.vmdk", kind: str = "FLAT", create_type: str = "monolithicFlat"
) -> Path:
    """A flat image of a disk."""
    extent = name.replace(".vmdk", "-flat.vmdk")
    write(folder, extent, content)
    offset = " 0" if kind == "FLAT" else ""
    return write(folder, name, descriptor(create_type, [f'RW {sectors(len(content))} {kind} "{extent}"{offset}']))
