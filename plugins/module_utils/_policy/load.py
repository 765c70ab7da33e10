# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Policies with a site's own rules, which are read and checked here: whoever wrote them can mend what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .._core.errors import DiskwrightError, ParseError
from .choices import CHOICES
from .conditions import compile_condition
from .engine import Policy, make_policy
from .facts import nearest
from .rule import ALWAYS, HARD, SITE, Rule, order_problem, row_problem
from .rules import CONSTRAINTS, POLICIES
from .worlds import contradiction, in_words, world_of

#: What a site's rule may say.
KEYS = ("id", "rank", "when", "sets", "forbids", "because", "source", "since", "until", "severity")
_TODAY = (99, 0)
_EXAMPLE = "{id: our-databases, when: \"need.workload == 'database'\", sets: {cache: none}, because: why}"


class PolicyError(DiskwrightError):
    """A policy that does not exist, or rules that can't be used; the text has one line for each thing to mend."""


@dataclass(slots=True)
class _Site:
    """A site's rules while they are read: what is wrong is collected, so that all of it is reported together."""

    base: Mapping[str, Rule]
    problems: list[str] = field(default_factory=list)
    rules: dict[str, Rule] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)


def load_policy(
    name: str,
    site_rules: Sequence[object] = (),
    pve_version: str | float | None = None,
    places: Sequence[str] = (),
) -> Policy:
    """The rules of a policy and of a site, checked.

    :param site_rules: dictionaries with :data:`KEYS`; one with the id of a rule of the policy overrides what it names
        of it. ``{disable: [ids]}`` takes rules away.
    :param pve_version: rules for other versions are left out. Unknown is taken for today's.
    :param places: where each of the site's rules stands, ``rules.yml, line 12``; without one its number is named.
    :raises PolicyError: for everything that is wrong, together.
    """
    if not isinstance(name, str) or name not in POLICIES:
        raise PolicyError(f"there is no policy '{name}'; there are {', '.join(POLICIES)}{nearest(str(name), POLICIES)}")
    site = _Site({rule.id: rule for rule in POLICIES[name]})
    if isinstance(site_rules, (str, bytes, Mapping)) or not isinstance(site_rules, Iterable):
        raise PolicyError(f"rules are a list of dictionaries, not {_kind(site_rules)}; write for example [{_EXAMPLE}]")
    for number, entry in enumerate(site_rules):
        place = places[number] if number < len(places) and places[number] else f"rule {number + 1}"
        _read_entry(entry, place, site)
    kept = {key: rule for key, rule in site.base.items() if key not in site.disabled}
    if not site.problems:
        _check_together({**kept, **site.rules}, site)
    if site.problems:
        raise PolicyError("\n".join(site.problems))
    version = _version(pve_version)
    rules = (*{**kept, **site.rules}.values(), *CONSTRAINTS)
    return make_policy(name, (rule for rule in rules if _fits(rule, version)))


def _kind(value: object) -> str:
    if isinstance(value, (str, bytes)):
        return "a text"
    return "a dictionary" if isinstance(value, Mapping) else repr(value)


def _read_entry(entry: object, place: str, site: _Site) -> None:
    if not isinstance(entry, Mapping):
        site.problems.append(f"{place}: '{entry}' is no dictionary; write for example {_EXAMPLE}")
        return
    if "disable" in entry:
        _read_disable(entry, place, site)
        return
    identity = entry.get("id")
    where = f"{place} ('{identity}')" if identity else place
    unknown = [str(key) for key in entry if key not in KEYS]
    problems = [f"there is no key '{key}'; a rule has {', '.join(KEYS)}{nearest(key, KEYS)}" for key in unknown]
    if not isinstance(identity, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", identity):
        problems.append("it needs an id of letters, digits, dots and hyphens; write id: our-databases")
    elif identity in site.rules:
        problems.append(f"the id is used by {site.places[identity]} too; give one of them another")
    elif identity in {rule.id for rule in CONSTRAINTS}:
        problems.append("that is a hard constraint, which can't be overridden; give the rule another id")
    if not problems:
        _read_rule(str(identity), entry, where, site, problems)
    site.problems += [f"{where}: {problem}" for problem in problems]


def _read_disable(entry: Mapping[object, object], place: str, site: _Site) -> None:
    names = entry["disable"]
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, (list, tuple)) or len(entry) != 1:
        site.problems.append(f"{place}: write disable alone, with a list of ids: {{disable: [thin-discard]}}")
        return
    for name in map(str, listed):
        if name in site.base:
            site.disabled.add(name)
        elif name in {rule.id for rule in CONSTRAINTS}:
            site.problems.append(f"{place}: '{name}' is a hard constraint, which can't be disabled")
        else:
            site.problems.append(f"{place}: there is no rule '{name}' to disable{nearest(name, site.base)}")


def _read_rule(identity: str, entry: Mapping[object, object], where: str, site: _Site, problems: list[str]) -> None:
    base = site.base.get(identity)
    rule = replace(base) if base else Rule(identity, SITE, "", "", "a rule of this site", severity="warning")
    if base is None:
        for key, example in (("when", "when: need.workload == 'database'"), ("because", "because: a sentence")):
            if entry.get(key) in (None, ""):
                problems.append(f"{key} is missing; write for example {example}")
    rule = replace(
        rule,
        rank=_rank(entry.get("rank"), rule.rank, problems),
        when=_when(entry.get("when"), rule.when, problems),
        because=str(entry.get("because") or rule.because),
        details="" if entry.get("because") else rule.details,
        source=str(entry.get("source") or rule.source),
        since=_bound("since", entry.get("since"), rule.since, problems),
        until=_bound("until", entry.get("until"), rule.until, problems),
        severity=str(entry.get("severity") or rule.severity),
    )
    if entry.get("sets") is not None:
        rule = replace(rule, sets=_sets(entry["sets"], problems))
    if entry.get("forbids") is not None:
        rule = replace(rule, forbids=_forbids(entry["forbids"], problems))
    if not problems:
        problems += [problem for problem in (row_problem(rule) or order_problem(rule),) if problem]
    if not problems and world_of((rule.condition,)) is None:
        problems.append(f"the condition {rule.when} can never hold")
    site.rules[identity] = rule
    site.places[identity] = where


def _rank(value: object, default: int, problems: list[str]) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < HARD:
        problems.append(f"rank '{value}' is not allowed; write a whole number from 0 to {HARD - 1}")
        return default
    return value


def _when(value: object, default: str, problems: list[str]) -> str:
    if value is None or value == "":
        return default
    if not isinstance(value, str) and value is not True:
        problems.append(f"when: '{value}' is no text; write for example when: need.workload == 'database'")
        return default
    text = ALWAYS if value is True else str(value)
    try:
        compile_condition(text)
    except ParseError as error:
        problems.append(str(error))
    return text


def _bound(key: str, value: object, default: str, problems: list[str]) -> str:
    if value is None:
        return default
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", str(value)):
        problems.append(f"{key} '{value}' is no version; write for example {key}: '9.0'")
        return default
    return str(value)


def _sets(value: object, problems: list[str]) -> Mapping[str, str | None]:
    if not isinstance(value, Mapping):
        problems.append(f"sets: '{value}' is no dictionary; write for example sets: {{cache: none}}")
        return MappingProxyType({})
    read = {str(name): _value("sets", str(name), one, problems) for name, one in value.items()}
    return MappingProxyType(read)


def _forbids(value: object, problems: list[str]) -> Mapping[str, tuple[str | None, ...]]:
    if not isinstance(value, Mapping):
        problems.append(f"forbids: '{value}' is no dictionary; write for example forbids: {{cache: [unsafe]}}")
        return MappingProxyType({})
    read: dict[str, tuple[str | None, ...]] = {}
    for name, listed in value.items():
        items = listed if isinstance(listed, (list, tuple)) else [listed]
        read[str(name)] = tuple(_value("forbids", str(name), item, problems) for item in items)
    return MappingProxyType(read)


def _value(key: str, name: str, value: object, problems: list[str]) -> str | None:
    if name not in CHOICES:
        problems.append(f"{key}: there is no choice '{name}'; there are {', '.join(CHOICES)}{nearest(name, CHOICES)}")
        return None
    try:
        return CHOICES[name].canonical(value)
    except ParseError as error:
        near = nearest(str(value), CHOICES[name].values)
        problems.append(f"{key}: {name}: {error}{near}")
        return None


def _check_together(rules: Mapping[str, Rule], site: _Site) -> None:
    """Rules of the same rank must not contradict each other; a site's rules are compared with all others."""
    ids = list(rules)
    for first in site.rules.values():
        for second in rules.values():
            later_pair = second.id in site.rules and ids.index(second.id) <= ids.index(first.id)
            if second.id == first.id or second.rank != first.rank or later_pair:
                continue
            found = contradiction(first, second)
            if found:
                name, world = found
                other = site.places.get(second.id, f"the rule '{second.id}' of the policy")
                site.problems.append(
                    f"{site.places[first.id]}: contradicts {other} about {name}, both of rank {first.rank}, for example"
                    f" when {in_words(world)}; give the one that is to win a higher rank, or narrow its when"
                )


def _version(value: str | float | None) -> tuple[int, int]:
    match = re.match(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?", str(value or ""))
    return (int(match[1]), int(match[2] or 0)) if match else _TODAY


def _fits(rule: Rule, version: tuple[int, int]) -> bool:
    return not (rule.since and _version(rule.since) > version) and not (rule.until and _version(rule.until) < version)
