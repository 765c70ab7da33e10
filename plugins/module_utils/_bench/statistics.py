# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""From the runs of a benchmark to what can be said of them: medians, their spread, noise, and verdicts. Pure.

Everything is compared as *speed*: operations or bytes in a second, or one divided by a latency, so that more is better.
A difference is called one only if it is larger than the noise, which is the larger of two things: how far the two
series of the null comparison are apart, which is one combination against itself; and how exactly the medians are known,
from how much the rounds of the same combination vary.
"""

from __future__ import annotations

import math
import statistics
import typing as t
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from .combination import Combination
from .fio import Latency
from .plan import SIDES
from .results import Results, Run
from .workloads import TABLE, Workload

EQUAL: t.Final = "equal"
FASTER: t.Final = "faster"
SLOWER: t.Final = "slower"
#: There are too few runs to say anything.
UNCLEAR: t.Final = "unclear"
#: The mode that tells guests of flushes which it does not do. Nothing is held against what it reaches.
LOSES_DATA: t.Final = "unsafe"
# How many standard errors two medians have to be apart.
_SURE: t.Final = 3
# The standard deviation of normal values by their median absolute deviation; the error of a median by that of a mean.
_MAD: t.Final = 1.4826
_MEDIAN: t.Final = math.sqrt(math.pi / 2)
# What the median absolute deviation of a few values has to be multiplied by besides. Source: C. Croux, P. Rousseeuw,
# Time-efficient algorithms for two highly robust estimators of scale, 1992.
_FEW: t.Final = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.2, 7: 1.14, 8: 1.129, 9: 1.107}


@dataclass(frozen=True, slots=True)
class Series:
    """The same thing measured several times, in the order of measuring; at least once."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the values is below the first, a quarter above the second."""
        if len(self.values) < 2:
            return self.median, self.median
        low, _middle, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def deviation(self) -> float:
        """How much single values vary around the median, relative to it: a standard deviation that outliers leave
        alone."""
        count, middle = len(self.values), self.median
        if count < 2 or not middle:
            return 0.0
        spread = statistics.median(abs(value - middle) for value in self.values)
        return _FEW.get(count, count / (count - 0.8)) * _MAD * spread / middle

    def error(self, typical: float = 0.0) -> float:
        """How exactly the median is known, relative to it.

        :param typical: how much comparable series vary; few values vary too little by chance.
        """
        return _MEDIAN * max(self.deviation, typical) / math.sqrt(len(self.values))


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination with one workload.

    :param series: what the workload is judged by, in its unit.
    :param speed: the same as speeds.
    :param latency: each percentile's median.
    """

    combination: Combination
    workload: Workload
    series: Series
    speed: Series
    latency: Latency


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing compared with another.

    :param word: :data:`EQUAL`, :data:`FASTER`, :data:`SLOWER` or :data:`UNCLEAR`.
    :param difference: of the speeds, relative to what it is compared with: ``0.1`` is ten per cent faster.
    :param noise: the difference up to which the two are called equal.
    """

    word: str
    difference: float
    noise: float


@dataclass(frozen=True, slots=True)
class Null:
    """One combination against itself.

    :param difference: of B's speed, relative to A's.
    :param expected: how large it may be by the spread of the rounds alone.
    """

    place: str
    workload: Workload
    difference: float
    expected: float

    @property
    def holds(self) -> bool:
        """Whether the spread of the rounds explains it. If not, something else has moved, and made the noise larger."""
        return abs(math.log1p(self.difference)) <= math.log1p(self.expected)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What can be said of a benchmark.

    :param cells: by key of the combination and id of the workload; what was never measured is not among them.
    :param nulls: by place and id of the workload.
    :param typical: how much the rounds vary, by place and id of the workload.
    :param failed: the runs that have no result.
    """

    results: Results
    cells: Mapping[tuple[str, str], Cell]
    nulls: Mapping[tuple[str, str], Null]
    typical: Mapping[tuple[str, str], float]
    failed: tuple[Run, ...]

    def cell(self, combination: Combination, workload: Workload) -> Cell | None:
        """What was measured of a combination with a workload."""
        return self.cells.get((combination.key, workload.id))

    def noise(self, place: str, workload: Workload) -> float | None:
        """The difference up to which two combinations of a place are usually called equal; ``None`` if unclear."""
        null, typical = self.nulls.get((place, workload.id)), self.typical.get((place, workload.id))
        if null is None or typical is None:
            return None
        rounds = self.results.method.rounds
        return max(abs(null.difference), _SURE * math.sqrt(2) * _MEDIAN * typical / math.sqrt(rounds))

    def best(self, workload: Workload) -> Cell | None:
        """The fastest combination of those that keep data, or of all if none does."""
        cells = [cell for cell in self.cells.values() if cell.workload == workload]
        safe = [cell for cell in cells if cell.combination.cache != LOSES_DATA]
        return max(safe or cells, key=lambda cell: cell.speed.median, default=None)

    def error(self, cell: Cell) -> float | None:
        """How exactly the median of a cell is known, relative to it; ``None`` if there are too few runs."""
        typical = self.typical.get((cell.combination.place, cell.workload.id))
        return None if typical is None or len(cell.speed.values) < 2 else cell.speed.error(typical)

    def null_difference(self, cell: Cell) -> float | None:
        """How far the null comparison of a cell's place and workload is off."""
        null = self.nulls.get((cell.combination.place, cell.workload.id))
        return None if null is None else abs(null.difference)


def analyse(results: Results) -> Analysis:
    """What can be said of a benchmark, complete or not."""
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in results.runs:
        if run.measured is not None:
            runs[run.combination, run.workload].append(run)
    combinations = {one.key: one for one in results.combinations}
    cells = {key: _cell(combinations[key[0]], TABLE[key[1]], of_cell) for key, of_cell in runs.items()}
    typical = _typical(cells.values())
    nulls = {}
    for key in results.method.nulls:
        for workload in results.rows:
            place = combinations[key].place if key in combinations else ""
            null = _null(place, workload, runs.get((key, workload.id), ()), typical)
            if null is not None:
                nulls[place, workload.id] = null
    return Analysis(results, cells, nulls, typical, tuple(run for run in results.runs if run.measured is None))


def compare(base: tuple[Analysis, Cell | None], other: tuple[Analysis, Cell | None]) -> Verdict:
    """One cell against another of the same workload, of the same benchmark or of two."""
    (first, before), (second, after) = base, other
    if before is None or after is None:
        return Verdict(UNCLEAR, 0.0, 0.0)
    difference = after.speed.median / before.speed.median - 1
    errors = [first.error(before), second.error(after)]
    nulls = [first.null_difference(before), second.null_difference(after)]
    known_errors, known_nulls = ([one for one in both if one is not None] for both in (errors, nulls))
    if len(known_errors) < 2 or len(known_nulls) < 2:
        return Verdict(UNCLEAR, difference, 0.0)
    return judge(difference, max(*known_nulls, _SURE * math.hypot(*known_errors)))


def judge(difference: float, noise: float) -> Verdict:
    """What a difference of speeds means beside this noise."""
    if abs(math.log1p(difference)) <= math.log1p(noise):
        return Verdict(EQUAL, difference, noise)
    return Verdict(FASTER if difference > 0 else SLOWER, difference, noise)


def mean(verdicts: Iterable[Verdict]) -> Verdict:
    """Several verdicts as one: the geometric mean of the differences, and the root mean square of the noise, which is
    not divided by their number, since what disturbs one workload disturbs the others, too."""
    clear = [one for one in verdicts if one.word != UNCLEAR]
    if not clear:
        return Verdict(UNCLEAR, 0.0, 0.0)
    difference = math.exp(statistics.fmean(math.log1p(one.difference) for one in clear)) - 1
    return judge(difference, math.sqrt(statistics.fmean(one.noise**2 for one in clear)))


def _cell(combination: Combination, workload: Workload, runs: Sequence[Run]) -> Cell:
    found = [run.measured for run in runs if run.measured is not None]
    series = Series(tuple(one.value(workload) for one in found))
    speed = series if workload.more_is_better else Series(tuple(1 / max(value, 1.0) for value in series.values))
    latencies = [one.latency(workload) for one in found]
    medians = (round(statistics.median(getattr(one, item.name) for one in latencies)) for item in fields(Latency))
    return Cell(combination, workload, series, speed, Latency(*medians))


def _typical(cells: Iterable[Cell]) -> dict[tuple[str, str], float]:
    """How much rounds vary, by place and workload: the median of all combinations that were measured twice or more."""
    spreads: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell in cells:
        if len(cell.speed.values) > 1:
            spreads[cell.combination.place, cell.workload.id].append(cell.speed.deviation)
    return {key: statistics.median(values) for key, values in spreads.items()}


def _null(
    place: str, workload: Workload, runs: Sequence[Run], typical: Mapping[tuple[str, str], float]
) -> Null | None:
    sides = [[run.measured for run in runs if run.side == side and run.measured is not None] for side in SIDES]
    if min(map(len, sides)) < 2:
        return None
    values = [Series(tuple(one.value(workload) for one in side)) for side in sides]
    first, second = values if workload.more_is_better else values[::-1]
    usual = typical.get((place, workload.id), 0.0)
    expected = _SURE * math.hypot(first.error(usual), second.error(usual))
    return Null(place, workload, second.median / first.median - 1, expected)
