# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Small worlds: which facts would make conditions hold together. For contradictions, and for rules that never hold."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from .._core.storage import TABLE as STORAGE_TYPES
from .choices import CHOICES
from .conditions import CHOSEN, Condition
from .facts import FACTS, OS_FAMILIES, Kind
from .rule import Rule

#: How many worlds are looked at. Two conditions name few facts, so this is hardly ever too few.
_LIMIT = 50_000


def values_of(path: str, literals: Iterable[object]) -> list[object]:
    """The values of a path that matter to conditions which compare it with these literals; the unknown last."""
    if path not in FACTS:
        group, _dot, name = path.partition(".")
        always = group == CHOSEN and not CHOICES[name].open  # a disk has a bus and a format
        return [*CHOICES[name].values, *(() if always else (None,))]
    fact = FACTS[path]
    if fact.kind is Kind.BOOL:
        return [True, False, None]
    if fact.kind is Kind.CHOICE:
        return [*fact.choices, None]
    if fact.kind is Kind.LIST:
        items = [item for item in (fact.choices or sorted(map(str, literals))) if item in literals]
        sizes = range(len(items), -1, -1)
        return [*(list(part) for size in sizes for part in itertools.combinations(items, size)), None]
    if fact.kind is Kind.TEXT:
        return [*sorted(str(value) for value in literals if value is not None), "another", None]
    numbers = sorted(value for value in literals if isinstance(value, (int, float)))
    steps = (0.0, -0.1, 0.1)
    return [*dict.fromkeys(round(number + step, 3) for number in numbers for step in steps), None]


def world_of(conditions: Iterable[Condition]) -> Mapping[str, object] | None:
    """Values by path in which all these conditions hold, or ``None`` when there are none."""
    listed = tuple(conditions)
    literals: dict[str, set[object]] = {}
    for condition in listed:
        for path, values in condition.literals.items():
            literals.setdefault(path, set()).update(values)
    paths = sorted(literals)
    spaces = [values_of(path, literals[path]) for path in paths]
    for combination in itertools.islice(itertools.product(*spaces), _LIMIT):
        world = dict(zip(paths, combination, strict=True))
        if all(condition.holds(world) for condition in listed) and _possible(world):
            return world
    return None


def _possible(world: Mapping[str, object]) -> bool:
    """Whether facts that follow from each other agree."""
    release, family = world.get("guest.os_release"), world.get("guest.os_family")
    kind, level = world.get("storage.type"), world.get("storage.level")
    agree = release is None or family is None or OS_FAMILIES[str(release)] == family
    return agree and (kind is None or level is None or STORAGE_TYPES[str(kind)].level == level)


def clash(first: Rule, second: Rule) -> str | None:
    """The choice that two rules make differently, or ``None``: both set it, or one forbids what the other sets."""
    for name in first.sets:
        if name in second.sets and first.sets[name] != second.sets[name]:
            return name
    for setting, forbidding in ((first, second), (second, first)):
        for name, value in setting.sets.items():
            if value in forbidding.forbids.get(name, ()):
                return name
    return None


def contradiction(first: Rule, second: Rule) -> tuple[str, Mapping[str, object]] | None:
    """The choice in which two rules contradict each other, and a world in which they do."""
    name = clash(first, second)
    if name is None:
        return None
    world = world_of((first.condition, second.condition))
    return None if world is None else (name, world)


def in_words(world: Mapping[str, object]) -> str:
    """A world for a sentence: ``storage.type is dir and need.snapshots is true``."""
    parts = []
    for path, value in world.items():
        shown = str(value).lower() if isinstance(value, bool) else "unknown" if value is None else value
        parts.append(f"{path} is {', '.join(map(str, shown)) or 'empty' if isinstance(shown, list) else shown}")
    return " and ".join(parts) or "nothing is known"
