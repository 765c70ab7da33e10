# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""From a benchmark to the facts of the group ``measurements`` that a policy goes by, for each place. Pure.

In each of format, bus, cache mode and kind of I/O, values are compared by combinations that differ in nothing else,
over all workloads. One is called the fastest only if it is ahead of all others by more than the noise. Those that
nothing speaks against are called equal: the mean of all workloads is within the noise, and no single workload is slower
by twice the noise, so that a mean can't hide that commits are slow. Where the noise is large, nothing is called equal:
that no difference was found means something only where one would have been found.
"""

from __future__ import annotations

import itertools
import typing as t
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .combination import Combination
from .results import Results
from .statistics import EQUAL, FASTER, LOSES_DATA, UNCLEAR, Analysis, Verdict, analyse, compare, mean

#: What is compared, and the names of the lists of equal ones.
_LISTS: t.Final = {"format": "equal_formats", "bus": "equal_buses", "cache": "equal_caches", "aio": "equal_aios"}
#: The noise above which nothing is called equal.
TOO_NOISY: t.Final = 0.1
# No speed makes up for what these cost, so they are not in the race.
_OUT_OF_RACE: t.Final = {"cache": (LOSES_DATA,), "format": ("vmdk",)}


@dataclass(frozen=True, slots=True)
class Rival:
    """One value against another.

    :param overall: all workloads as one: the other, compared with the first.
    :param slower: whether the other is slower with any workload, by twice the noise.
    """

    first: str
    other: str
    overall: Verdict
    slower: bool

    @property
    def equal(self) -> bool:
        """Whether nothing speaks against the other."""
        equal = self.overall.word == EQUAL and self.overall.noise <= TOO_NOISY and not self.slower
        return equal or self.overall.word == FASTER


def measurements(results: Results) -> dict[str, dict[str, t.Any]]:
    """By place, the facts as YAML has them. A place of which nothing can be said has the name of the run alone."""
    analysis = analyse(results)
    places = dict.fromkeys(one.place for one in results.combinations)
    return {place: {"run": _name(results), **_facts(analysis, place)} for place in places}


def _name(results: Results) -> str:
    date = results.started[:10]
    return results.id if date in results.id else f"{results.id} of {date}"


def _facts(analysis: Analysis, place: str) -> dict[str, t.Any]:
    facts: dict[str, t.Any] = {}
    for dimension, name in _LISTS.items():
        values = _values(analysis, place, dimension)
        rivals = [rival for value in values for rival in _rivals(analysis, place, dimension, value, values)]
        if rivals:
            facts.update(_standing(dimension, name, values, {(one.first, one.other): one for one in rivals}))
    return facts


def _values(analysis: Analysis, place: str, dimension: str) -> tuple[str, ...]:
    """What was measured, as the policy calls it: the bus without its I/O thread, the format without its options."""
    found = (one for one in analysis.results.combinations if one.place == place)
    names = dict.fromkeys(_plain(one, dimension) for one in found)
    return tuple(name for name in names if name not in _OUT_OF_RACE.get(dimension, ()))


def _plain(combination: Combination, dimension: str) -> str:
    return str(getattr(combination, dimension))


def _rivals(
    analysis: Analysis, place: str, dimension: str, value: str, values: tuple[str, ...]
) -> Iterator[Rival]:
    for other in values:
        verdicts = list(_verdicts(analysis, place, dimension, value, other)) if other != value else []
        overall = mean(verdicts)
        if overall.word != UNCLEAR:
            yield Rival(value, other, overall, any(_clearly_slower(one) for one in verdicts))


def _clearly_slower(verdict: Verdict) -> bool:
    return verdict.word != UNCLEAR and verdict.difference < -2 * verdict.noise


def _verdicts(analysis: Analysis, place: str, dimension: str, value: str, other: str) -> Iterator[Verdict]:
    of_place = [one for one in analysis.results.combinations if one.place == place]
    firsts, seconds = ([one for one in of_place if _plain(one, dimension) == wanted] for wanted in (value, other))
    for first, second in itertools.product(firsts, seconds):
        if _alike(first, second, dimension):
            for workload in analysis.results.rows:
                cells = analysis.cell(first, workload), analysis.cell(second, workload)
                yield compare((analysis, cells[0]), (analysis, cells[1]))


def _alike(first: Combination, second: Combination, dimension: str) -> bool:
    """Whether they differ in this dimension only, and there in what the policy knows: a bus with an I/O thread is not
    compared with one that could have it and has not, nor a format with options with the same without."""
    if dimension == "format" and (first.format_options or second.format_options):
        return False
    threads = "scsi", "virtio"
    if dimension == "bus" and first.bus in threads and second.bus in threads and first.iothread != second.iothread:
        return False
    return first.differs_only_in(dimension, second)


def _standing(
    dimension: str, list_name: str, values: tuple[str, ...], rivals: Mapping[tuple[str, str], Rival]
) -> dict[str, t.Any]:
    """Who is fastest, or who is equal, by how much, and what noise is."""
    compared = [value for value in values if any(value in pair for pair in rivals)]
    for value in compared:
        against = [rivals.get((other, value)) for other in compared if other != value]
        if all(one is not None and one.overall.word == FASTER for one in against):
            nearest = min((one.overall for one in against if one is not None), key=lambda one: one.difference)
            return {f"fastest_{dimension}": value, **_numbers(dimension, nearest)}
    ahead = {value: [one.overall.difference for one in rivals.values() if one.other == value] for value in compared}
    best = max(compared, key=lambda value: sum(ahead[value]))
    equal = {best: None, **{other: rival for (first, other), rival in rivals.items() if first == best and rival.equal}}
    widest = max((one.overall for one in equal.values() if one), key=lambda one: abs(one.difference), default=None)
    if widest is None:
        return {}
    return {list_name: [value for value in compared if value in equal], **_numbers(dimension, widest)}


def _numbers(dimension: str, verdict: Verdict) -> dict[str, float]:
    return {
        f"{dimension}_difference": round(100 * abs(verdict.difference), 1),
        f"{dimension}_noise": round(100 * verdict.noise, 1),
    }
