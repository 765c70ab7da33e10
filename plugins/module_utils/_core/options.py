# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Every option that PVE knows for a drive: one row each, read by documentation, arguments, parser and planner.

Sources: qemu-server 9.2.6, ``PVE/QemuServer/Drive.pm`` (names, types, buses) and ``PVE/QemuServer.pm``
``vmconfig_update_disk`` (what a running guest takes up and when), confirmed on a PVE 9.2.11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from types import MappingProxyType
from urllib.parse import quote, unquote

from .errors import ParseError

_TRUE = frozenset({"1", "on", "yes", "true"})
_FALSE = frozenset({"0", "off", "no", "false"})
_TOO_LARGE = 10**18  # an exponent can name a number that would not fit into a drive string, or into memory


class Kind(str, Enum):
    """How the value of an option is written."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "choice"
    ENCODED = "encoded"  # any text; PVE keeps it percent-encoded
    PATTERN = "pattern"


class Effect(str, Enum):
    """What happens on a running guest when the option changes."""

    RESTART = "restart"  # PVE shows it as pending and applies it at the next start
    LIVE = "live"  # QEMU takes it up at once, or does not need to know
    SILENT = "silent"  # PVE writes it at once, QEMU takes it up at the next start, and nothing shows the difference
    FIXED = "fixed"  # belongs to the volume as it was created; PVE can't change it


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    :param name: PVE's name.
    :param kind: how its value is written.
    :param buses: where PVE accepts it.
    :param about: one clause that says what it does.
    :param effect: what a change does on a running guest.
    :param default: the value that PVE assumes when the option is absent, where that is always the same.
    :param choices: the allowed values of a :attr:`Kind.CHOICE`.
    :param minimum: the smallest number, inclusive.
    :param maximum_length: the largest number of characters before encoding.
    :param pattern: what a :attr:`Kind.PATTERN` must match as a whole.
    :param needs: another option without which PVE refuses this one.
    :param excludes: options that PVE refuses beside this one.
    :param since: the first PVE version that has it, when that is later than 8.0.
    """

    name: str
    kind: Kind
    buses: frozenset[str]
    about: str
    effect: Effect = Effect.LIVE
    default: str | None = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum_length: int | None = None
    pattern: str | None = None
    needs: str | None = None
    excludes: tuple[str, ...] = ()
    since: str | None = None

    def __post_init__(self) -> None:
        if bool(self.choices) != (self.kind is Kind.CHOICE):
            raise ValueError(f"{self.name}: choices belong to the kind 'choice' and to no other")
        if bool(self.pattern) != (self.kind is Kind.PATTERN):
            raise ValueError(f"{self.name}: a pattern belongs to the kind 'pattern' and to no other")
        if not self.buses:
            raise ValueError(f"{self.name}: no bus has it")
        if self.default is not None and self.canonical(self.default) != self.default:
            raise ValueError(f"{self.name}: the default {self.default!r} is not in canonical form")

    @property
    def allowed(self) -> str:
        """The allowed values in words, for messages."""
        if self.kind is Kind.BOOLEAN:
            return "true or false"
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(self.choices)
        if self.kind in (Kind.INTEGER, Kind.NUMBER):
            word = "a whole number" if self.kind is Kind.INTEGER else "a number"
            return word if self.minimum is None else f"{word} of at least {self.minimum}"
        if self.kind is Kind.PATTERN:
            return f"a text that matches {self.pattern}"
        return f"a text of 1 to {self.maximum_length} characters"

    def canonical(self, value: object) -> str:
        """Bring a value that a user or PVE wrote into the form in which PVE keeps it.

        :raises ParseError: when the value is not allowed; the text says what is.
        """
        if value is True and "on" in self.choices:
            return "on"  # YAML 1.1 reads an unquoted on as a boolean
        text = _as_text(value)
        result = _CANONICAL[self.kind](self, text)
        if result is None:
            raise ParseError(f"'{text}' is not allowed; {self.name} takes {self.allowed}")
        return result

    def same(self, left: str | None, right: str | None) -> bool:
        """Whether two stored values mean the same; ``None`` is an absent option, which means its default."""
        return left == right or self._meaning(left) == self._meaning(right)

    def _meaning(self, stored: str | None) -> str | None:
        if stored is None:
            return self.default
        try:
            return self.canonical(unquote(stored) if self.kind is Kind.ENCODED else stored)
        except ParseError:
            return stored  # PVE has a value that this table does not know: only the same text means the same


def read_boolean(value: object) -> bool:
    """A yes or no, as YAML and PVE write it.

    :raises ParseError: it is neither.
    """
    text = _as_text(value).lower()
    if text not in _TRUE | _FALSE:
        raise ParseError(f"'{text}' is neither true nor false")
    return text in _TRUE


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value).strip()


def _boolean(_option: Option, text: str) -> str | None:
    lower = text.lower()
    return "1" if lower in _TRUE else "0" if lower in _FALSE else None


def _number(option: Option, text: str) -> str | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    whole = number.is_finite() and number == number.to_integral_value()
    if not number.is_finite() or (option.kind is Kind.INTEGER and not whole):
        return None
    if abs(number) >= _TOO_LARGE or (option.minimum is not None and number < option.minimum):
        return None
    return f"{number.to_integral_value():f}" if whole else f"{number.normalize():f}"


def _choice(option: Option, text: str) -> str | None:
    return text if text in option.choices else None


def _encoded(option: Option, text: str) -> str | None:
    too_long = option.maximum_length is not None and len(text.encode()) > option.maximum_length
    return None if too_long or not text else quote(text, safe="")


def _pattern(option: Option, text: str) -> str | None:
    return text if option.pattern and re.fullmatch(option.pattern, text) else None


_CANONICAL = MappingProxyType(
    {
        Kind.BOOLEAN: _boolean,
        Kind.INTEGER: _number,
        Kind.NUMBER: _number,
        Kind.CHOICE: _choice,
        Kind.ENCODED: _encoded,
        Kind.PATTERN: _pattern,
    }
)

_ALL = frozenset({"ide", "sata", "scsi", "virtio"})
_NOT_VIRTIO = _ALL - {"virtio"}
_SCSI = frozenset({"scsi"})
_PARAVIRTUAL = frozenset({"scsi", "virtio"})
_EFI = frozenset({"efidisk"})


def _throttle_rows() -> list[Option]:
    rows: list[Option] = []
    for unit, kind, words in (("iops", Kind.INTEGER, "operations"), ("mbps", Kind.NUMBER, "megabytes")):
        for suffix, which in (("", ""), ("_rd", "read "), ("_wr", "write ")):
            base = f"{unit}{suffix}"
            excludes = (f"{unit}_rd", f"{unit}_wr") if not suffix else (unit,)
            length = f"{'bps' if unit == 'mbps' else unit}{suffix}_max_length"
            rows.append(Option(base, kind, _ALL, f"limit of {which}{words} per second", minimum=0, excludes=excludes))
            rows.append(
                Option(
                    f"{base}_max", kind, _ALL, f"limit of {which}{words} per second in a burst", minimum=0, needs=base
                )
            )
            rows.append(
                Option(
                    length,
                    Kind.INTEGER,
                    _ALL,
                    f"how many seconds a burst of {which}{words} may last",
                    minimum=1,
                    needs=f"{base}_max",
                )
            )
    return rows


_ROWS: tuple[Option, ...] = (
    Option(
        "aio", Kind.CHOICE, _ALL, "how QEMU does its I/O", Effect.RESTART, choices=("native", "threads", "io_uring")
    ),
    Option("backup", Kind.BOOLEAN, _ALL, "whether backups include the drive", default="1"),
    Option(
        "cache",
        Kind.CHOICE,
        _ALL,
        "how the host caches",
        Effect.RESTART,
        choices=("none", "writethrough", "writeback", "unsafe", "directsync"),
    ),
    Option("detect_zeroes", Kind.BOOLEAN, _ALL, "whether QEMU looks for zeroes in writes", Effect.SILENT, default="1"),
    Option(
        "discard",
        Kind.CHOICE,
        _ALL,
        "whether the guest's discards reach the storage",
        Effect.RESTART,
        default="ignore",
        choices=("ignore", "on"),
    ),
    Option("iothread", Kind.BOOLEAN, _PARAVIRTUAL, "whether the drive has its own I/O thread", Effect.RESTART, "0"),
    Option(
        "model", Kind.ENCODED, frozenset({"ide"}), "the model that the guest sees", Effect.SILENT, maximum_length=40
    ),
    Option(
        "product",
        Kind.PATTERN,
        _SCSI,
        "the product that the guest sees",
        Effect.RESTART,
        pattern=r"[A-Za-z0-9\-_ \t]{1,16}",
    ),
    Option("queues", Kind.INTEGER, _SCSI, "the number of queues", Effect.RESTART, minimum=2),
    Option("replicate", Kind.BOOLEAN, _ALL, "whether storage replication includes the drive", default="1"),
    Option(
        "rerror", Kind.CHOICE, _ALL, "what happens on a read error", Effect.SILENT, choices=("ignore", "report", "stop")
    ),
    Option("ro", Kind.BOOLEAN, _PARAVIRTUAL, "whether the drive is read-only", Effect.RESTART, "0"),
    Option(
        "scsiblock",
        Kind.BOOLEAN,
        _SCSI,
        "whether a host block device is passed through as scsi-block",
        Effect.SILENT,
        "0",
    ),
    Option("serial", Kind.ENCODED, _ALL, "the serial number that the guest sees", Effect.SILENT, maximum_length=20),
    Option("shared", Kind.BOOLEAN, _ALL, "whether the volume can be reached from every node", Effect.SILENT, "0"),
    Option("snapshot", Kind.BOOLEAN, _ALL, "whether writes are thrown away at the stop", Effect.SILENT, "0"),
    Option("ssd", Kind.BOOLEAN, _NOT_VIRTIO, "whether the guest sees a solid-state disk", Effect.RESTART, "0"),
    Option(
        "vendor",
        Kind.PATTERN,
        _SCSI,
        "the vendor that the guest sees",
        Effect.RESTART,
        pattern=r"[A-Za-z0-9\-_ \t]{1,8}",
    ),
    Option(
        "werror",
        Kind.CHOICE,
        _ALL,
        "what happens on a write error",
        Effect.SILENT,
        choices=("enospc", "ignore", "report", "stop"),
    ),
    Option(
        "wwn",
        Kind.PATTERN,
        _NOT_VIRTIO,
        "the world wide name that the guest sees",
        Effect.SILENT,
        pattern=r"0x[0-9a-fA-F]{16}",
    ),
    *_throttle_rows(),
    Option("efitype", Kind.CHOICE, _EFI, "the size class of the EFI variables", Effect.FIXED, "2m", ("2m", "4m")),
    Option("pre-enrolled-keys", Kind.BOOLEAN, _EFI, "whether Secure Boot keys are enrolled", Effect.FIXED, "0"),
    Option(
        "ms-cert",
        Kind.CHOICE,
        _EFI,
        "the Microsoft certificates that are enrolled",
        Effect.FIXED,
        "2011",
        ("2011", "2023", "2023w", "2023k"),
        since="9.1",
    ),
    Option(
        "version",
        Kind.CHOICE,
        frozenset({"tpmstate"}),
        "the version of the TPM",
        Effect.FIXED,
        "v1.2",
        ("v1.2", "v2.0"),
    ),
)

#: By PVE's name. Structural keys of a drive string (volume, size, format, media, import-from) are not options.
TABLE: Mapping[str, Option] = MappingProxyType({row.name: row for row in _ROWS})

#: Keys of a drive string that say what the drive is, and are declared by other means than as an option.
STRUCTURAL = frozenset({"file", "volume", "size", "format", "media", "import-from"})

#: Aliases that PVE's schema has for options. Source: Drive.pm.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "iops_rd_length": "iops_rd_max_length",
        "iops_wr_length": "iops_wr_max_length",
        "bps_rd_length": "bps_rd_max_length",
        "bps_wr_length": "bps_wr_max_length",
    }
)


def options_of(bus: str) -> tuple[str, ...]:
    """The names of the options that a bus has, sorted."""
    return tuple(sorted(row.name for row in _ROWS if bus in row.buses))


def _check_table() -> None:
    for row in _ROWS:
        for other in (row.needs, *row.excludes):
            if other is not None and other not in TABLE:
                raise ValueError(f"{row.name} refers to {other}, which is not in the table")
    if len(TABLE) != len(_ROWS):
        raise ValueError("an option stands in the table twice")


_check_table()
