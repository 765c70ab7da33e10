# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Two benchmarks, before and after, or two storages of one: what has changed, and what is noise. Pure."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from .._core.errors import ParseError
from .combination import Combination
from .results import Environment, Method, PlaceRecord, Results
from .statistics import Analysis, Verdict, analyse, compare, mean
from .workloads import Workload

# What is another one each time, and says nothing about why a result is.
_PASSING: t.Final = ("places", "load", "free", "estimated_seconds", "planned", "time_limit", "nulls", "seed", "name")


@dataclass(frozen=True, slots=True)
class Change:
    """One combination with one workload, in both.

    :param verdict: on what came after, compared with what was before.
    """

    before: Combination
    after: Combination
    workload: Workload
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Difference:
    """Something about node, storage or method that is not the same."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two benchmarks.

    :param changes: by combination, in the order of what was before, then by workload.
    :param differences: between the circumstances.
    :param only_before: keys of combinations that were not measured again; so too ``only_after``.
    :param overall: all changes as one.
    """

    before: Results
    after: Results
    changes: tuple[Change, ...]
    differences: tuple[Difference, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    overall: Verdict


def compare_results(
    before: Results, after: Results, places: Mapping[str, str] = MappingProxyType({})
) -> Comparison:
    """What is the same in two benchmarks, held against each other.

    :param places: a place of the first, and the one of the second that it is compared with; by default each with the
        one of its name. To compare two storages of one benchmark, it is given twice.
    :raises ParseError: there is no such place, or nothing that both have measured.
    """
    pairs = places or {name: name for name in _places(before)}
    _check_places(before, after, places)
    known = {one.key: one for one in after.combinations}
    matched = {
        one: known[there.key]
        for one in before.combinations
        if one.place in pairs and (there := one.at(pairs[one.place])).key in known
    }
    workloads = [row for row in before.rows if row.id in after.workloads]
    if not matched or not workloads:
        raise ParseError(
            f"{before.id} and {after.id} have nothing in common: no combination of format, bus, cache mode and kind of"
            " I/O, or no workload; if the storage has another name now, say which: places: {old: new}"
        )
    first, second = analyse(before), analyse(after)
    changes = tuple(
        Change(one, other, workload, _verdict(first, one, second, other, workload))
        for one, other in matched.items()
        for workload in workloads
    )
    return Comparison(
        before,
        after,
        changes,
        tuple(_differences(before, after, pairs)),
        tuple(one.key for one in before.combinations if one.place in pairs and one not in matched),
        tuple(one.key for one in after.combinations if one.place in pairs.values() and one not in matched.values()),
        mean(change.verdict for change in changes),
    )


def _verdict(
    first: Analysis, one: Combination, second: Analysis, other: Combination, workload: Workload
) -> Verdict:
    return compare((first, first.cell(one, workload)), (second, second.cell(other, workload)))


def _places(results: Results) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.place for one in results.combinations))


def _check_places(before: Results, after: Results, pairs: Mapping[str, str]) -> None:
    for results, names in ((before, pairs.keys()), (after, pairs.values())):
        there = _places(results)
        unknown = [name for name in names if name not in there]
        if unknown:
            raise ParseError(f"places: '{unknown[0]}' was not measured in {results.id}; there are {', '.join(there)}")


def _differences(before: Results, after: Results, pairs: Mapping[str, str]) -> t.Iterator[Difference]:
    yield from _fields(Environment, before.environment, after.environment, "")
    old, new = ({place.name: place for place in results.environment.places} for results in (before, after))
    for name, other in pairs.items():
        if name in old and other in new:
            yield from _fields(PlaceRecord, old[name], new[other], f"{name}: ")
    yield from _fields(Method, before.method, after.method, "method: ")


def _fields(kind: t.Any, before: object, after: object, prefix: str) -> t.Iterator[Difference]:
    for item in fields(kind):
        old, new = getattr(before, item.name), getattr(after, item.name)
        if item.name not in _PASSING and old != new:
            yield Difference(f"{prefix}{item.name.replace('_', ' ')}", _shown(old), _shown(new))


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{text.name} {text.value}" for text in value)
    return "" if value is None else str(value)
