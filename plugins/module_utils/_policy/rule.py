# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A rule as data: when it holds, what it sets or forbids, why, and who says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .choices import CHOICES
from .conditions import CHOSEN, Condition, compile_condition
from .facts import FACTS

SEVERITIES = ("info", "warning", "danger")
#: The rank of hard constraints, which nothing overrides, and the one of a site's rules that name none.
HARD, SITE = 100, 90
ALWAYS = "`true`"
_FACT_IN_TEXT = re.compile(r"\{([a-z_.]+)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a policy.

    :param rank: a rule of a higher rank overrides one of a lower.
    :param when: a condition, see ``conditions.py``.
    :param sets: a value for each choice that it makes, ``None`` to leave it to PVE.
    :param forbids: the values that it rules out, ``None`` for PVE's default.
    :param because: a sentence for the user.
    :param details: one more, with facts in braces, ``{measurements.run}``; it is said if all of them are known.
    :param source: who says so: PVE's documentation or source file with its version, the chapter, a measurement.
    :param since: the first PVE version that it holds for, ``""`` for all.
    :param until: the last one, ``""`` for all.
    :param severity: how bad an existing disk is that breaks it.
    """

    id: str
    rank: int
    when: str
    because: str
    source: str
    sets: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    forbids: Mapping[str, tuple[str | None, ...]] = field(default_factory=lambda: MappingProxyType({}))
    since: str = ""
    until: str = ""
    severity: str = "info"
    details: str = ""

    @property
    def told(self) -> tuple[str, ...]:
        """The facts that :attr:`details` tells."""
        return tuple(_FACT_IN_TEXT.findall(self.details))

    def reason(self, world: Mapping[str, object]) -> str:
        """Why, with what is known: facts by path."""
        if not self.details or any(world.get(path) is None for path in self.told):
            return self.because
        return f"{self.because} {_FACT_IN_TEXT.sub(lambda match: _in_words(world[match[1]]), self.details)}"

    @property
    def condition(self) -> Condition:
        """The compiled condition."""
        return compile_condition(self.when)

    @property
    def decides(self) -> frozenset[str]:
        """The choices that it has a say in."""
        return frozenset((*self.sets, *self.forbids))


def _in_words(fact: object) -> str:
    if isinstance(fact, (list, tuple)):
        return " and ".join(map(str, fact))
    return f"{fact:g}" if isinstance(fact, float) else str(fact)


def row_problem(rule: Rule) -> str | None:
    """What is wrong with the shape of a rule, as far as that is cheap to see, or ``None``."""
    if not rule.decides:
        return "it neither sets nor forbids anything; add sets or forbids"
    if rule.severity not in SEVERITIES:
        return f"severity '{rule.severity}' is not known; write one of {', '.join(SEVERITIES)}"
    for name in rule.decides:
        if name not in CHOICES:
            return f"there is no choice '{name}'; there are {', '.join(CHOICES)}"
    unknown = [path for path in rule.told if path not in FACTS]
    if unknown:
        return f"details: there is no fact '{unknown[0]}'"
    for name, value in rule.sets.items():
        if value in rule.forbids.get(name, ()):
            return f"it sets and forbids {name}={value}"
    return None


def order_problem(rule: Rule) -> str | None:
    """What is wrong with the choices that a rule's condition looks at: they must have been made before its own."""
    names = list(CHOICES)
    first = min((names.index(name) for name in rule.decides), default=0)
    late = [name for name in names[first:] if name in rule.condition.decided(CHOSEN)]
    if not late:
        return None
    if names[first] == late[0]:
        return f"chosen.{late[0]} is what the rule decides itself; use fixed.{late[0]} for what the user has said"
    order = ", ".join(names)
    return f"chosen.{late[0]} is decided after {names[first]} (the order is {order}); use facts, or fixed.{late[0]}"


def checked(rows: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules of a table, in the order of their ranks.

    :raises ValueError: a row is not well-formed.
    """
    table = tuple(sorted(rows, key=lambda rule: rule.rank))
    seen: set[str] = set()
    for rule in table:
        problem = "its id is used twice" if rule.id in seen else row_problem(rule)
        if problem:
            raise ValueError(f"{rule.id}: {problem}")
        seen.add(rule.id)
    return table
