# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""From facts and a policy to choices, each with the rule that made it and what that rule overrode or ruled out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from .choices import CHOICES
from .conditions import CHOSEN, FIXED
from .facts import FACTS, Facts
from .rule import HARD, Rule

#: The name that stands for the rule of a choice that was made before the policy was asked.
DECIDED = "decided"
#: The name that stands for the rule of a choice for which the rules have left only this.
REMAINING = "remaining"
_PATHS = tuple(FACTS)


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """The rules in force, hard constraints among them, by rank. Made by ``load_policy``.

    :param by_choice: the rules that have a say in each choice, by rank.
    :param positions: which facts they look at, as positions in the table of facts.
    """

    name: str
    rules: Mapping[str, Rule]
    by_choice: Mapping[str, tuple[Rule, ...]]
    positions: tuple[int, ...]

    def world(self, known: tuple[object, ...]) -> dict[str, object]:
        """The facts at :attr:`positions` by path."""
        return {_PATHS[position]: value for position, value in zip(self.positions, known, strict=True)}


def make_policy(name: str, rules: Iterable[Rule]) -> Policy:
    """A policy of rules that were checked."""
    ordered = sorted(rules, key=lambda rule: rule.rank)
    by_choice = {choice: tuple(rule for rule in ordered if choice in rule.decides) for choice in CHOICES}
    looked_at = {path for rule in ordered for path in (*rule.condition.literals, *rule.told)}
    positions = tuple(position for position, path in enumerate(FACTS) if path in looked_at)
    return Policy(name, MappingProxyType({rule.id: rule for rule in ordered}), MappingProxyType(by_choice), positions)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A value that was not chosen, with the rule that was against it.

    :param wanted_by: the rule of a lower rank that would have chosen it, ``""`` when none would.
    """

    value: str | None
    rule: str
    reason: str
    wanted_by: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice.

    :param value: as PVE keeps it; ``None`` leaves it to PVE's default.
    :param rule: the id of the rule, :data:`DECIDED` or :data:`REMAINING`.
    :param severity: how bad an existing disk is that has another value.
    :param otherwise: of a decided value, what the policy would have chosen, if that is another one.
    """

    name: str
    value: str | None
    rule: str
    reason: str
    source: str = ""
    since: str = ""
    severity: str = "info"
    rejected: tuple[Rejected, ...] = ()
    otherwise: Otherwise | None = None


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What the policy would have chosen in place of a value that was decided before it was asked."""

    value: str | None
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Objection:
    """A value that was decided before the policy was asked, and that a rule forbids."""

    name: str
    value: str | None
    rule: str
    reason: str
    source: str
    severity: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a policy makes of one disk.

    :param choices: by name, in the order of :data:`CHOICES`; all of them.
    :param conflicts: values that a hard constraint forbids, as a rule decided ones: PVE or QEMU will not have it so.
    :param objections: decided values that other rules forbid: it works, and is not advisable.
    """

    policy: str
    choices: Mapping[str, Choice]
    conflicts: tuple[Objection, ...] = ()
    objections: tuple[Objection, ...] = ()


def recommend(fixed: Mapping[str, str | None], facts: Facts, policy: Policy) -> Recommendation:
    """Make every choice that is open.

    :param fixed: what the user or the existing disk has decided, by the names of :data:`CHOICES`, in PVE's canonical
        form (see ``read_fixed``); ``None`` for PVE's default.
    """
    known = tuple(facts.values[position] for position in policy.positions)
    return _recommend(policy, known, tuple((name, fixed[name]) for name in CHOICES if name in fixed))


@lru_cache(maxsize=8192)  # a cluster has many disks that differ in nothing that a rule looks at
def _recommend(
    policy: Policy, known: tuple[object, ...], fixed: tuple[tuple[str, str | None], ...]
) -> Recommendation:
    decided = dict(fixed)
    by_facts = _holding(policy, known)
    world = policy.world(known)
    world.update({f"{FIXED}.{name}": value for name, value in fixed})
    world.update({f"{CHOSEN}.{name}": value for name, value in fixed})
    choices: dict[str, Choice] = {}
    against: list[tuple[Rule, Objection]] = []
    for name in CHOICES:
        rules = [
            rule
            for rule in policy.by_choice[name]
            if (rule.condition.holds(world) if rule.condition.needs_choices else rule.id in by_facts)
        ]
        choice = _decided(name, decided[name], rules, world) if name in decided else _choose(name, rules, world)
        choices[name] = choice
        world[f"{CHOSEN}.{name}"] = choice.value
        against += ((rule, _objection(choice, rule, world)) for rule in rules if _forbids(rule, choice))
    return Recommendation(
        policy.name,
        MappingProxyType(choices),
        tuple(objection for rule, objection in against if rule.rank >= HARD),
        tuple(objection for rule, objection in against if rule.rank < HARD and objection.name in decided),
    )


@lru_cache(maxsize=8192)
def _holding(policy: Policy, known: tuple[object, ...]) -> frozenset[str]:
    """The rules that hold, of those that look at facts only."""
    world = policy.world(known)
    rules = (rule for rule in policy.rules.values() if not rule.condition.needs_choices)
    return frozenset(rule.id for rule in rules if rule.condition.holds(world))


def _decided(name: str, value: str | None, rules: list[Rule], world: Mapping[str, object]) -> Choice:
    best = _choose(name, rules, world)
    otherwise = Otherwise(best.value, best.rule, best.reason) if best.value != value else None
    return Choice(name, value, DECIDED, "It was decided before the policy was asked.", otherwise=otherwise)


def _forbids(rule: Rule, choice: Choice) -> bool:
    return choice.value in rule.forbids.get(choice.name, ())


def _objection(choice: Choice, rule: Rule, world: Mapping[str, object]) -> Objection:
    return Objection(choice.name, choice.value, rule.id, rule.reason(world), rule.source, rule.severity)


def _choose(name: str, rules: list[Rule], world: Mapping[str, object]) -> Choice:
    """One choice from the rules that hold: the highest that sets it, unless one of its rank or higher forbids that."""
    against: dict[str | None, Rule] = {}
    setting: list[Rule] = []
    for rule in reversed(rules):
        for value in rule.forbids.get(name, ()):
            against.setdefault(value, rule)
        if name in rule.sets and rule.sets[name] not in against:
            setting.append(rule)
    value, winner = (setting[0].sets[name], setting[0]) if setting else _remaining(name, against)
    reason = winner.reason(world)
    rejected = {
        rule.sets[name]: Rejected(rule.sets[name], winner.id, reason, rule.id)
        for rule in reversed(setting)
        if rule.sets[name] != value
    }
    for other, rule in against.items():
        if other != value:
            rejected.setdefault(other, Rejected(other, rule.id, rule.reason(world)))
    found = tuple(rejected.values())
    return Choice(name, value, winner.id, reason, winner.source, winner.since, winner.severity, found)


def _remaining(name: str, against: Mapping[str | None, Rule]) -> tuple[str | None, Rule]:
    """What to do where all that rules set is forbidden: what nothing forbids, else what the lowest rule forbids."""
    row = CHOICES[name]
    candidates: tuple[str | None, ...] = (*((None,) if row.open else ()), *row.values)
    value = min(candidates, key=lambda one: against[one].rank if one in against else -1)
    if value in against and against[value].rank >= HARD:
        return value, against[value]  # nothing is possible, and that is why
    return value, Rule(REMAINING, 0, "", "The rules have ruled out everything that is better.", "")
