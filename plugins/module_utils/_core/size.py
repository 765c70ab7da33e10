# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Sizes of disks: what people write, what PVE writes, and bytes between them."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from .errors import ParseError

KIB = 1024
GIB = 1024**3
#: What QEMU can count.
LARGEST = 2**63 - 1
_FACTORS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}
# With an end to the digits: Python refuses to read very long numbers.
_USER_SIZE = re.compile(r"(?P<number>[0-9]{1,30}(?:\.[0-9]{1,30})?)\s*(?:(?P<unit>[KMGTP])(?:iB)?|(?P<bytes>B))?")
_PVE_SIZE = re.compile(r"(?P<number>[0-9]{1,30}(?:\.[0-9]{1,30})?)(?P<unit>[KMGTP]?)")
_ALLOWED = "write a number with K, M, G, T or P (binary units, 64G or 64GiB), or a plain number of GiB"


def parse_size(value: str | int | float) -> int:
    """Read a size as a user writes it.

    :param value: ``64G``, ``64GiB``, ``1.5T``, ``65536M``, ``512B``; a plain number means GiB.
    :returns: bytes, rounded up to a whole KiB as PVE does when it allocates.
    :raises ParseError: for anything else, decimal units such as ``GB`` among them, because they are ambiguous.
    """
    if isinstance(value, bool):
        raise ParseError(f"size {value!r} is a boolean; {_ALLOWED}")
    return _parse_text(str(value).strip())


# A cluster's disks have a handful of sizes, and each is read several times for a plan; so too below.
@lru_cache(maxsize=1024)
def _parse_text(text: str) -> int:
    match = _USER_SIZE.fullmatch(text)
    if match is None:
        if re.fullmatch(r"\d+(\.\d+)?\s*[kKMGTP]B", text):
            raise ParseError(
                f"size '{text}' could mean powers of 1000 or of 1024; write {text[:-1].upper()} for powers of 1024"
            )
        raise ParseError(f"size '{text}' is not understood; {_ALLOWED}")
    factor = 1 if match["bytes"] else _FACTORS[match["unit"] or "G"]
    size = _whole_kib(Fraction(match["number"]) * factor)
    if size > LARGEST:
        raise ParseError(f"size '{text}' is more than a disk can have; write less than 8192P")
    return size


def _whole_kib(exact: Fraction) -> int:
    return -(-exact // KIB) * KIB


@lru_cache(maxsize=1024)
def parse_pve_size(text: str) -> int | None:
    """Read the ``size=`` of a drive string.

    :returns: bytes (a plain number is bytes here), or ``None`` for a text that is no size.
    """
    match = _PVE_SIZE.fullmatch(text)
    if match is None:
        return None
    return int(Fraction(match["number"]) * _FACTORS.get(match["unit"], 1))


def format_pve_size(size: int) -> str:
    """Write bytes as PVE does in ``size=``: in the largest unit (up to T) that divides them."""
    for unit in "TGMK":
        if size >= _FACTORS[unit] and size % _FACTORS[unit] == 0:
            return f"{size // _FACTORS[unit]}{unit}"
    return str(size)


def allocation_gib(size: int) -> str:
    """Write bytes as the decimal number of GiB that ``<storage>:<GiB>`` takes.

    A whole number of KiB has a finite decimal expansion, which is written out in full: nothing is rounded.
    """
    exact = Decimal(size) / Decimal(GIB) if size % GIB else Decimal(size // GIB)
    if exact * GIB != size:  # more digits than the decimal context keeps
        whole, rest = divmod(size, GIB)
        digits = rest * 10**30 // GIB
        return f"{whole}.{digits:030d}".rstrip("0")
    return f"{exact:f}"


def human_size(size: int) -> str:
    """Write bytes for people: ``500 GiB``, ``1.5 TiB``, ``528 KiB``; at most two decimals."""
    value, unit = Fraction(size), "B"
    for name in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, name
    text = f"{float(value):.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}"
