# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Numbers of a benchmark as people read them. Pure."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Sequence

from .combination import DIMENSIONS, Combination
from .statistics import EQUAL, UNCLEAR, Verdict
from .workloads import Workload

_MICROSECOND: t.Final = 1000
_MILLISECOND: t.Final = 1000**2
_SECOND: t.Final = 1000**3


def value_text(workload: Workload, value: float) -> str:
    """What a workload is judged by: ``52,300 IOPS``, ``1.93 GiB/s``, ``212 µs``."""
    if workload.measures == "latency":
        return time_text(value)
    return rate_text(value) if workload.measures == "bandwidth" else f"{three_digits(value)} IOPS"


def rate_text(bytes_per_second: float) -> str:
    """A throughput: ``1.93 GiB/s``, ``382 MiB/s``."""
    value, unit = bytes_per_second, "B"
    for name in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, name
    return f"{three_digits(value)} {unit}/s"


def time_text(nanoseconds: float) -> str:
    """A short time: ``212 µs``, ``1.3 ms``."""
    for unit, name in ((_SECOND, "s"), (_MILLISECOND, "ms"), (_MICROSECOND, "µs")):
        if nanoseconds >= unit:
            return f"{three_digits(nanoseconds / unit)} {name}"
    return f"{nanoseconds:.0f} ns"


def three_digits(value: float) -> str:
    """A number as exactly as three digits are: ``1.25``, ``52,300``."""
    if not value:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:,.3g}"


def percent(share: float) -> str:
    """A share as a number of per cent, with a decimal if it is small: ``2.4``, ``35``."""
    value = 100 * abs(share)
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def verdict_text(verdict: Verdict) -> str:
    """A verdict in words: ``12 % faster``, ``equal (differs by 1.2 %, noise 2.4 %)``."""
    if verdict.word == UNCLEAR:
        return "unclear: too few runs"
    if verdict.word == EQUAL:
        return f"equal (differs by {percent(verdict.difference)} %, noise {percent(verdict.noise)} %)"
    return f"{percent(verdict.difference)} % {verdict.word} (noise {percent(verdict.noise)} %)"


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


class Labels:
    """Short names of combinations: only what is not the same in all of them is named."""

    def __init__(self, combinations: Iterable[Combination]) -> None:
        listed_ones = tuple(combinations)
        varying = [name for name in DIMENSIONS if len({one.part(name) for one in listed_ones}) > 1]
        self._dimensions = varying or list(DIMENSIONS)
        constant = [_part(listed_ones[0], name) for name in DIMENSIONS if name not in varying] if listed_ones else []
        #: What all of them have in common, or an empty text if they have nothing, or there is only one.
        self.common = ", ".join(constant) if varying else ""

    def __call__(self, combination: Combination) -> str:
        """The name of one of them."""
        return " · ".join(_part(combination, name) for name in self._dimensions)


def _part(combination: Combination, dimension: str) -> str:
    """A value that can be told from those of other dimensions: "none" alone says nothing."""
    value = combination.part(dimension)
    return f"cache {value}" if dimension == "cache" else value
