# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads and writes a registry hive, with hivex.

hivex opens a hive that Windows has not finished writing without complaint, and makes it look finished when it writes:
Windows would then throw away what waits in the hive's journal. So the header is read here first.
Source: hivex 1.3.24, ``lib/handle.c``, ``lib/write.c``, and ``lib/hivex-internal.h`` for the header.
"""

from __future__ import annotations

import importlib
import itertools
import struct
import typing as t
from collections.abc import Mapping

from .._core.errors import DiskwrightError
from .hivedata import Change, Path, Value, joined

_HEADER: t.Final = struct.Struct("<4sII")
#: What a person installs. Never together with a package of QEMU, see the message.
PACKAGE: t.Final = "python3-hivex"


class HiveError(DiskwrightError):
    """A hive that can't be read or written."""


def load_hivex() -> t.Any:
    """The Python module.

    :raises HiveError: when it is not installed, with what to do.
    """
    try:
        return importlib.import_module("hivex")
    except ImportError as error:
        raise HiveError(
            f"the Python of this machine has no hivex, with which a Windows registry is written; as root: apt-get"
            f" install --no-install-recommends {PACKAGE} ntfs-3g. On a PVE node name no package of QEMU with it:"
            " apt would remove proxmox-ve"
        ) from error


def is_clean(path: str) -> bool:
    """Whether Windows has finished writing a hive: the two sequence numbers of its header are equal.

    :raises HiveError: when the file is no hive.
    """
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or head[:4] != b"regf":
        raise HiveError(f"{path}: is no registry hive")
    _magic, first, second = _HEADER.unpack(head)
    return bool(first == second)


class Hive:
    """A hive in memory. The file is not written to; :meth:`save` writes another one.

    :raises HiveError: when it can't be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._hivex = load_hivex().Hivex(path, write=True)
            self._root = self._hivex.root()
        except (RuntimeError, OSError) as error:
            raise HiveError(f"{path}: is damaged, hivex can't read it: {error}") from error

    def keys(self, path: Path) -> tuple[str, ...]:
        """The names of the keys below a key; none when it is not there."""
        node = self._find(path)
        return tuple(map(self._hivex.node_name, self._hivex.node_children(node))) if node else ()

    def values(self, path: Path) -> Mapping[str, Value] | None:
        """The values of a key by name; ``None`` when the key is not there."""
        node = self._find(path)
        if not node:
            return None
        found = self._hivex.node_values(node)
        return {self._hivex.value_key(one): Value(*self._hivex.value_value(one)) for one in found}

    def apply(self, change: Change) -> None:
        """Carry a change out, in memory.

        :raises HiveError: when a key that shall go has keys of its own.
        """
        for path, edits in itertools.groupby(change.edits, lambda edit: edit.path):
            self._set(path, {edit.name: edit.after for edit in edits})
        for path in change.keys:
            self._remove(path)

    def save(self, path: str) -> None:
        """Write it all to a file.

        :raises HiveError: when that fails.
        """
        try:
            self._hivex.commit(path)
        except (RuntimeError, OSError) as error:
            raise HiveError(f"{path}: can't be written: {error}") from error

    def _find(self, path: Path) -> int:
        """The node of a key, 0 when it is not there. hivex compares names without regard to case."""
        node: int = self._root
        for name in path:
            node = self._hivex.node_get_child(node, name) or 0
            if not node:
                return 0
        return node

    def _make(self, path: Path) -> int:
        node: int = self._root
        for name in path:
            node = self._hivex.node_get_child(node, name) or self._hivex.node_add_child(node, name)
        return node

    def _set(self, path: Path, after: Mapping[str, Value | None]) -> None:
        new = {name: value for name, value in after.items() if value is not None}
        node = self._make(path) if new else self._find(path)
        if not node:
            return
        changed = {name.lower() for name in after}
        kept = {name: value for name, value in (self.values(path) or {}).items() if name.lower() not in changed}
        data = [{"key": name, "t": value.type, "value": value.data} for name, value in {**kept, **new}.items()]
        self._hivex.node_set_values(node, data)

    def _remove(self, path: Path) -> None:
        node = self._find(path)
        if not node:
            return
        if self._hivex.node_children(node):
            raise HiveError(f"{self._path}: the key {joined(path)} has keys of its own and is not removed")
        self._hivex.node_delete_child(node)
