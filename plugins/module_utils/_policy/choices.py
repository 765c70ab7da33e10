# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a policy decides, one row a choice, in the order in which it is decided; and what of it is decided already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._core.errors import ParseError
from .._core.layout import CONTROLLERS, FORMATS
from .._core.options import TABLE, Kind
from .._core.slot import DISK_BUSES, parse_slot


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the table.

    :param name: what is chosen, by PVE's name where it has one.
    :param values: what PVE takes there. Leaving it open, ``None``, is always possible and not among them, except for
        the bus and the format, which a disk always has.
    :param about: one clause for people.
    """

    name: str
    values: tuple[str, ...]
    about: str

    @property
    def open(self) -> bool:
        """Whether it can be left to PVE's default."""
        return self.name not in ("bus", "format")

    @property
    def is_option(self) -> bool:
        """Whether it is an option of the drive, and so has a row in the core's table."""
        return self.name in TABLE

    def canonical(self, value: object) -> str | None:
        """The value as PVE keeps it, ``None`` for PVE's default.

        :raises ParseError: when PVE does not take it there; the text says what it takes.
        """
        if value is None and self.open:
            return None
        if self.is_option:
            return TABLE[self.name].canonical(value)
        if str(value) not in self.values:
            raise ParseError(f"'{value}' is not allowed; {self.name} takes one of {', '.join(self.values)}")
        return str(value)

    def native(self, value: str | None) -> object:
        """The value as people write it in YAML: booleans as such."""
        boolean = self.is_option and TABLE[self.name].kind is Kind.BOOLEAN
        return value == "1" if boolean and value is not None else value

    def words(self, value: str | None) -> str:
        """The value for a sentence."""
        native = self.native(value)
        return "PVE's default" if native is None else str(native).lower() if isinstance(native, bool) else str(native)


def _option(name: str) -> Decision:
    row = TABLE[name]
    return Decision(name, row.choices or ("0", "1"), row.about)


#: By name, in the order in which they are decided: a condition may look at those that stand before what it decides.
CHOICES: Mapping[str, Decision] = MappingProxyType(
    {
        row.name: row
        for row in (
            Decision("bus", DISK_BUSES, "the bus that the disk hangs on"),
            Decision("scsihw", CONTROLLERS, "the SCSI controller of the guest"),
            Decision("format", FORMATS, "the format of the image"),
            *map(_option, "cache aio iothread discard ssd detect_zeroes backup".split()),
        )
    }
)


def read_fixed(disk: Mapping[str, object], scsihw: str | None = None) -> dict[str, str | None]:
    """What a disk leaves no choice about.

    :param disk: a disk as ``proxmox_disks`` declares it or as ``parse_drive`` returns it; ``slot`` (``scsi`` is enough)
        says the bus, ``format`` the format, and options stand beside them or below ``options``. ``unset`` fixes options
        at PVE's default. Other keys say nothing here.
    :param scsihw: the guest's controller, when that is decided.
    :returns: by the names of :data:`CHOICES`, ``None`` for PVE's default.
    :raises ParseError: for a slot, format or value that PVE does not have.
    """
    given = dict(disk)
    options = given.get("options") or {}
    if not isinstance(options, Mapping):
        raise ParseError(f"options: '{options}' is no dictionary; write name: value")
    given = {**options, **given}
    if given.get("slot"):
        slot = str(given["slot"])
        given.setdefault("bus", slot if slot in DISK_BUSES else parse_slot(slot).bus)
    if scsihw is not None:
        given.setdefault("scsihw", scsihw)
    found: dict[str, str | None] = {}
    for name, row in CHOICES.items():
        if given.get(name) is not None:
            found[name] = _canonical(row, given[name])
    unset = given.get("unset") or ()
    names = (unset,) if isinstance(unset, str) else unset if isinstance(unset, (list, tuple)) else ()
    return {**found, **{name: None for name in map(str, names) if name in CHOICES and CHOICES[name].open}}


def _canonical(row: Decision, value: object) -> str | None:
    try:
        return row.canonical(value)
    except ParseError as error:
        raise ParseError(f"{row.name}: {error}") from error
