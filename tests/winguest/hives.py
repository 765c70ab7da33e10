# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registry hives from nothing, and what regipy, which shares no code with hivex, reads in them.

The layout of an empty hive is that of hivex' lib/hivex-internal.h and of regipy's structs.py.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regipy.registry import RegistryHive

from winguest.hivex_here import HIVEX

#: Keys by name, and values: a text, a number, bytes, or (type, bytes).
Tree = Mapping[str, Any]

NOTHING = 0xFFFFFFFF
# Owner and group SYSTEM, no restrictions.
DESCRIPTOR = bytes.fromhex(
    "010004801400000020000000000000000000000001010000000000051200000001010000000000051200000000000000"
)


def empty_hive() -> bytes:
    """The smallest hive: a header, one bin, a root key, its security descriptor."""
    key, security = 0x20, 0x90
    root = struct.pack(
        "<2sHQIIIIIIIIIIIIIIIHH",
        b"nk", 0x2C, 0, 0, NOTHING, 0, 0, NOTHING, NOTHING, 0, NOTHING, security, NOTHING, 0, 0, 0, 0, 0, 4, 0,
    ) + b"ROOT"  # fmt: skip
    sk = struct.pack("<2sHIIII", b"sk", 0, security, security, 1, len(DESCRIPTOR)) + DESCRIPTOR
    cells = _cell(root, security - key) + _cell(sk, 0x60)
    free = 0x1000 - key - len(cells)
    body = struct.pack("<4sIIQQI", b"hbin", 0, 0x1000, 0, 0, 0) + cells + struct.pack("<i", free) + bytes(free - 4)
    head = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, 0, 1, 3, 0, 1, key, 0x1000, 1)
    head = head.ljust(0x1FC, b"\0")
    checksum = 0
    for (word,) in struct.iter_unpack("<I", head):
        checksum ^= word
    return (head + struct.pack("<I", checksum)).ljust(0x1000, b"\0") + body


def _cell(content: bytes, size: int) -> bytes:
    return (struct.pack("<i", -size) + content).ljust(size, b"\0")


def write_hive(path: Path, tree: Tree) -> None:
    """Makes a hive that holds a tree."""
    path.write_bytes(empty_hive())
    edit_hive(path, tree)


def edit_hive(path: Path, tree: Tree) -> None:
    """Adds keys and values to a hive, as Windows would."""
    assert HIVEX is not None
    hive = HIVEX.Hivex(str(path), write=True)
    _fill(hive, hive.root(), tree)
    hive.commit(None)


def _fill(hive: Any, node: int, tree: Tree) -> None:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            child = hive.node_get_child(node, name) or hive.node_add_child(node, name)
            _fill(hive, child, value)
        else:
            kind, data = _encoded(value)
            hive.node_set_value(node, {"key": name, "t": kind, "value": data})


def _encoded(value: Any) -> tuple[int, bytes]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, int):
        return 4, value.to_bytes(4, "little")
    if isinstance(value, bytes):
        return 3, value
    return 1, f"{value}\0".encode("utf-16-le")


def make_dirty(path: Path) -> None:
    """What a Windows that was cut off leaves: the first sequence number is ahead of the second."""
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", struct.unpack_from("<I", data, 4)[0] + 1)
    path.write_bytes(data)


def read_with_regipy(path: Path) -> dict[str, dict[str, Any]]:
    """All keys of a hive with their values, as regipy reads them: numbers, texts, lists, and bytes as hexadecimal."""
    hive = RegistryHive(str(path))
    found: dict[str, dict[str, Any]] = {}
    _walk(hive.root, "", found)
    return found


def _walk(key: Any, path: str, found: dict[str, dict[str, Any]]) -> None:
    found[path] = {value.name: (value.value_type, value.value) for value in key.iter_values(as_json=True)}
    for child in key.iter_subkeys():
        _walk(child, f"{path}\\{child.name}", found)
