# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The arguments that declare guests and disks, made from the core's tables; documented in the fragment ``_drive``."""

from __future__ import annotations

import typing as t

from .._core.layout import CONTROLLERS, FORMATS, POWER, STATES, UNDECLARED
from .._core.options import TABLE, Kind, Option

_Spec = dict[str, dict[str, t.Any]]

_TYPES: t.Final = {
    Kind.BOOLEAN: "bool",
    Kind.INTEGER: "int",
    Kind.NUMBER: "float",
    Kind.CHOICE: "str",
    Kind.ENCODED: "str",
    Kind.PATTERN: "str",
}


def argument_name(option: str) -> str:
    """How a drive option is called as an argument: PVE's name with underscores."""
    return option.replace("-", "_")


def _argument(row: Option) -> dict[str, t.Any]:
    argument: dict[str, t.Any] = {"type": _TYPES[row.kind]}
    if row.choices:
        argument["choices"] = list(row.choices)
    return argument


def disk_spec() -> _Spec:
    """The arguments of one disk."""
    return {
        "slot": {"type": "str", "required": True},
        "state": {"type": "str", "default": "present", "choices": list(STATES)},
        "storage": {"type": "str"},
        "size": {"type": "str"},
        "minimum": {"type": "bool", "default": False},
        "format": {"type": "str", "choices": list(FORMATS)},
        "volume": {"type": "str"},
        "moved_from": {"type": "str"},
        "moved_from_guest": {"type": "str"},
        "import_from": {"type": "str"},
        "media": {"type": "str", "choices": ["disk", "cdrom"]},
        "iso": {"type": "str"},
        "cloudinit": {"type": "bool", "default": False},
        "unset": {"type": "list", "elements": "str", "default": []},
        "delete_source": {"type": "bool", "default": False},
        "flatten": {"type": "bool", "default": False},
        **{argument_name(row.name): _argument(row) for row in sorted(TABLE.values(), key=lambda row: row.name)},
    }


def guest_spec() -> _Spec:
    """The arguments of one guest."""
    return {
        "vmid": {"type": "int"},
        "name": {"type": "str"},
        "node": {"type": "str"},
        "disks": {"type": "list", "elements": "dict", "options": disk_spec()},
        "scsihw": {"type": "str", "choices": list(CONTROLLERS)},
        "boot": {"type": "list", "elements": "str"},
        "undeclared": {"type": "str", "choices": list(UNDECLARED)},
        "power": {"type": "str", "choices": list(POWER)},
        "revert_leftovers": {"type": "bool"},
    }


def many_guests_spec() -> _Spec:
    """The arguments of one guest among many."""
    return {**guest_spec(), "facts": {"type": "dict"}}


def layout_spec() -> _Spec:
    """The arguments of a module that declares one guest or many."""
    one = guest_spec()
    one["undeclared"]["default"] = "keep"
    one["power"]["default"] = "never"
    one["revert_leftovers"]["default"] = False
    return {
        **one,
        "guests": {"type": "list", "elements": "dict", "options": many_guests_spec()},
        "allow_destroy": {"type": "bool", "default": False},
        "concurrency": {"type": "int", "default": 4},
        "bwlimit": {"type": "int"},
    }
