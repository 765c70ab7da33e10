# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""In which order combinations are measured, how often, and how long that takes. Pure: the same seed, the same plan.

A plan has rounds, and every round measures every combination once, in an order of its own. So a disk that grows
slower, or a neighbour that wakes up, meets all combinations alike. The first combination of each place is measured
twice in each round, as A and as B: what those differ in is noise, because nothing else can be the reason.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import typing as t
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from .._core.errors import ParseError
from .._core.size import human_size
from .combination import Combination
from .matrix import LeftOut
from .workloads import SMALLEST, Workload

#: The fewest rounds: from less nobody can tell a difference from noise.
FEWEST_ROUNDS: t.Final = 3
#: The two series of the null comparison. Other combinations have the side ``""``.
SIDES: t.Final = ("A", "B")
_SHORTEST: t.Final = 1  # seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """How it is measured.

    :param workloads: which, in the order of their table.
    :param rounds: how often each combination is measured.
    :param seconds: how long each workload is measured.
    :param ramp: seconds before that, which do not count.
    :param size: bytes of each scratch volume.
    :param seed: which random order.
    :param time_limit: seconds that all may take, ``0`` for no limit.
    """

    workloads: tuple[Workload, ...]
    rounds: int = 5
    seconds: int = 20
    ramp: int = 3
    size: int = 4 * 1024**3
    seed: int = 1
    time_limit: int = 0

    def problems(self) -> list[str]:
        """All that is wrong with it, each in a sentence; nothing if it can be planned."""
        rows = (
            (not self.workloads, "workloads: none is named"),
            (self.rounds < FEWEST_ROUNDS, f"repetitions: {self.rounds} is too few to tell a difference from noise;"
             f" write {FEWEST_ROUNDS} or more"),
            (self.seconds < _SHORTEST, f"seconds: {self.seconds} is too short; write {_SHORTEST} or more"),
            (self.ramp < 0, f"ramp: {self.ramp} is negative; write 0 or more"),
            (self.size < SMALLEST, f"size: {human_size(max(self.size, 0))} is too small; write {human_size(SMALLEST)}"
             " or more, and better more than the storage can cache"),
            (self.time_limit < 0, f"time_limit: {self.time_limit} is negative; write 0 for no limit"),
        )  # fmt: skip
        return [sentence for wrong, sentence in rows if wrong]


@dataclass(frozen=True, slots=True)
class Costs:
    """What the parts of a benchmark take, on this node.

    :param boot: seconds until the guest measures, and until it is gone.
    :param between: seconds between two workloads.
    :param fill: bytes in a second with which scratch volumes are filled.
    """

    boot: float
    between: float
    fill: float


#: Where nobody has measured yet: with KVM, and with QEMU's translation, in which a guest starts slowly.
WITH_KVM: t.Final = Costs(boot=5, between=1, fill=150 * 1024**2)
WITHOUT_KVM: t.Final = Costs(boot=30, between=2, fill=100 * 1024**2)


@dataclass(frozen=True, slots=True)
class Trial:
    """One start of the guest, which measures all workloads with one combination.

    :param number: its place in the plan, from 1.
    :param round: from 1.
    :param side: one of :data:`SIDES`, or ``""`` for a combination that is not in the null comparison.
    :param workloads: the ids in the order in which they are measured.
    """

    number: int
    round: int
    combination: Combination
    side: str
    workloads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured in which order.

    :param nulls: the keys of the combinations that are measured as A and as B, one for each place.
    :param left_out: what the time limit has left out.
    """

    trials: tuple[Trial, ...]
    settings: Settings
    costs: Costs
    nulls: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """Those that are measured, each once, by key."""
        found = {trial.combination.key: trial.combination for trial in self.trials}
        return tuple(found[key] for key in sorted(found))

    @property
    def layouts(self) -> tuple[str, ...]:
        """The scratch volumes that it takes, by :attr:`Combination.layout`."""
        return tuple(dict.fromkeys(one.layout for one in self.combinations))

    @property
    def fingerprint(self) -> str:
        """A text that is another one as soon as anything of the plan is: results of another plan do not fit."""
        settings = self.settings
        data = [
            [settings.rounds, settings.seconds, settings.ramp, settings.size, settings.seed],
            [[trial.number, trial.combination.key, trial.side, trial.workloads] for trial in self.trials],
        ]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    def seconds_left(self, done: Collection[int] = (), costs: Costs | None = None) -> int:
        """How long it takes, or what is left of it, in seconds.

        :param done: the numbers of trials that are done.
        :param costs: as measured on the way.
        """
        costs = costs or self.costs
        left = [trial for trial in self.trials if trial.number not in done]
        fills = 0.0 if done else len(self.layouts) * self.settings.size / costs.fill
        return math.ceil(fills + len(left) * _trial_seconds(self.settings, costs))

    @property
    def summary(self) -> str:
        """The plan in a sentence."""
        count, settings = len(self.combinations), self.settings
        parts = (
            f"{count} combination{'s' * (count != 1)}",
            f"{settings.rounds} rounds",
            f"{len(settings.workloads)} workload{'s' * (len(settings.workloads) != 1)} of {settings.seconds} s",
        )
        return f"{' x '.join(parts)}: {len(self.trials)} starts of the guest, about {in_words(self.seconds_left())}"


def in_words(seconds: float) -> str:
    """A time for people, rounded to what an estimate is good for: ``40 s``, ``25 min``, ``7 h 20 min``, ``3 d 4 h``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(math.ceil(minutes / 10) * 10, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def make_plan(combinations: Sequence[Combination], settings: Settings, costs: Costs) -> Plan:
    """The plan, cut to the time limit: rounds are left out first, down to :data:`FEWEST_ROUNDS`, then combinations from
    the end.

    :param combinations: the most important first.
    :raises ParseError: the settings are wrong, or not even one combination fits into the time.
    """
    problems = settings.problems()
    if problems:
        raise ParseError("\n".join(problems))
    whole = _planned(combinations, settings, costs)
    plan, rounds, kept = whole, settings.rounds, len(combinations)
    while settings.time_limit and plan.seconds_left() > settings.time_limit:
        if rounds > FEWEST_ROUNDS:
            rounds -= 1
        elif kept > 1:
            kept -= 1
        else:
            raise ParseError(
                f"time_limit: {in_words(settings.time_limit)} is too little; the smallest plan, one combination, takes"
                f" {in_words(plan.seconds_left())}: give it more, or fewer workloads, or seconds"
            )
        plan = _planned(combinations[:kept], replace(settings, rounds=rounds), costs)
    return replace(plan, left_out=tuple(_cut(combinations, settings, rounds, kept, whole)))


def _cut(
    combinations: Sequence[Combination], settings: Settings, rounds: int, kept: int, whole: Plan
) -> Iterable[LeftOut]:
    limit = f"All of it takes {in_words(whole.seconds_left())}, and time_limit is {in_words(settings.time_limit)}."
    if rounds < settings.rounds:
        yield LeftOut(f"rounds {rounds + 1} to {settings.rounds}", limit)
    for one in combinations[kept:]:
        yield LeftOut(one.key, limit)


def _planned(combinations: Sequence[Combination], settings: Settings, costs: Costs) -> Plan:
    dice = random.Random(settings.seed)
    nulls = tuple({one.place: one.key for one in reversed(combinations)}.values())[::-1]
    each = [(one, side) for one in combinations for side in (SIDES if one.key in nulls else ("",))]
    trials: list[Trial] = []
    for number in range(1, settings.rounds + 1):
        dice.shuffle(each)
        for combination, side in each:
            workloads = [workload.id for workload in settings.workloads]
            dice.shuffle(workloads)
            trials.append(Trial(len(trials) + 1, number, combination, side, tuple(workloads)))
    return Plan(tuple(trials), settings, costs, nulls)


def _trial_seconds(settings: Settings, costs: Costs) -> float:
    """What one start of the guest takes. A replayed trace may be over sooner, which is not counted on."""
    each = (settings.seconds + (0 if row.trace else settings.ramp) + costs.between for row in settings.workloads)
    return costs.boot + sum(each)
