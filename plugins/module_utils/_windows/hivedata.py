# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What stands in a registry hive, and edits of it, as data. Pure; :mod:`.hive` reads and writes the files.

Keys are paths of names, compared without regard to case as Windows does. Source: Microsoft, "Registry value types".
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass

#: Names from the root of a hive downward.
Path = tuple[str, ...]

SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ = 1, 2, 3, 4, 7


@dataclass(frozen=True, slots=True)
class Value:
    """A value: its type and its bytes, as the registry has them."""

    type: int
    data: bytes

    @property
    def number(self) -> int | None:
        """The number of a DWORD, or ``None`` for another type."""
        return int.from_bytes(self.data, "little") if self.type == DWORD and len(self.data) == 4 else None

    @property
    def text(self) -> str:
        """The text of a string; of another type, nothing."""
        if self.type not in (SZ, EXPAND_SZ):
            return ""
        return self.data.decode("utf-16-le", "replace").partition("\0")[0]


def text(value: str) -> Value:
    """A string."""
    return Value(SZ, f"{value}\0".encode("utf-16-le"))


def expandable(value: str) -> Value:
    """A string in which variables are replaced."""
    return Value(EXPAND_SZ, f"{value}\0".encode("utf-16-le"))


def texts(*values: str) -> Value:
    """A list of strings."""
    return Value(MULTI_SZ, "".join(f"{value}\0" for value in (*values, "")).encode("utf-16-le"))


def number(value: int) -> Value:
    """A DWORD."""
    return Value(DWORD, value.to_bytes(4, "little"))


class Registry(t.Protocol):
    """A hive that can be read."""

    def keys(self, path: Path) -> tuple[str, ...]:
        """The names of the keys below a key; none when it is not there."""

    def values(self, path: Path) -> Mapping[str, Value] | None:
        """The values of a key by name, the default one under an empty name; ``None`` when the key is not there."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One value that changes.

    :param name: the value's name; the default value's is empty.
    :param before: what it is now, ``None`` when it is not there.
    :param after: what it shall be, ``None`` when it shall not be there.
    """

    path: Path
    name: str
    before: Value | None
    after: Value | None

    def __str__(self) -> str:
        return f"{joined(self.path)}: {self.name or '(default)'} {_words(self.before)} -> {_words(self.after)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done to a hive: values are set and removed first, then keys go.

    :param keys: keys that are removed, and have no keys of their own by then; the deepest first.
    """

    edits: tuple[Edit, ...] = ()
    keys: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.edits or self.keys)

    def __add__(self, other: Change) -> Change:
        return Change((*self.edits, *other.edits), (*self.keys, *other.keys))


def joined(path: Path) -> str:
    """A path as people write it."""
    return "\\".join(path)


def find_value(registry: Registry, path: Path, name: str) -> Value | None:
    """A value, or ``None`` when it or its key is not there."""
    for found, value in (registry.values(path) or {}).items():
        if found.lower() == name.lower():
            return value
    return None


def has_key(registry: Registry, path: Path) -> bool:
    """Whether a key is there."""
    return registry.values(path) is not None


def wanted(registry: Registry, path: Path, name: str, value: Value) -> tuple[Edit, ...]:
    """The edit that makes a value what it shall be; none when it is."""
    before = find_value(registry, path, name)
    return () if before == value else (Edit(path, name, before, value),)


def removed(registry: Registry, path: Path) -> Change:
    """What removes a key with all that is below it; nothing when it is not there."""
    values = registry.values(path)
    if values is None:
        return Change()
    below = Change()
    for name in registry.keys(path):
        below += removed(registry, (*path, name))
    edits = tuple(Edit(path, name, value, None) for name, value in values.items())
    return below + Change(edits, (path,))


def _words(value: Value | None) -> str:
    if value is None:
        return "absent"
    if value.number is not None:
        return f"0x{value.number:x}"
    return repr(value.text) if value.type in (SZ, EXPAND_SZ) else value.data.hex()
