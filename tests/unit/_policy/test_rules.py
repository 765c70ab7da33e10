# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of rules hold together: every rule can decide, none contradicts another, all values are PVE's."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import TABLE as OPTIONS
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import TABLE as STORAGE_TYPES
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.choices import CHOICES
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rule import HARD, SITE, checked, order_problem
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rules import CONSTRAINTS, POLICIES, Rule
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.worlds import contradiction, in_words, world_of
from unit._policy.asking import ask, values

TABLES = {**POLICIES, "constraints": CONSTRAINTS}
CASES: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((Path(__file__).parent / "cases" / f"{name}.yml").read_text()) for name in TABLES
}
EVERY_RULE = [pytest.param(name, rule, id=f"{name}:{rule.id}") for name, rules in TABLES.items() for rule in rules]


@pytest.mark.parametrize("name", TABLES)
def test_every_rule_has_a_case(name: str) -> None:
    assert sorted(CASES[name]) == sorted(rule.id for rule in TABLES[name])


@pytest.mark.parametrize(("name", "rule"), EVERY_RULE)
def test_every_rule_can_decide(name: str, rule: Rule) -> None:
    case = CASES[name][rule.id]
    choice = case["choice"]
    answer = ask("current" if name == "constraints" else name, case.get("fixed"), **case["facts"])
    if choice in case.get("fixed", {}):
        against = [item.rule for item in (*answer.conflicts, *answer.objections) if item.name == choice]
        assert rule.id in against
    elif rule.sets:
        assert answer.choices[choice].rule == rule.id
        assert answer.choices[choice].value == rule.sets[choice]
    else:
        assert rule.id in {item.rule for item in answer.choices[choice].rejected}


@pytest.mark.parametrize(("name", "rule"), EVERY_RULE)
def test_every_value_is_one_that_pve_accepts_there(name: str, rule: Rule) -> None:
    del name
    decisions = [*rule.sets.items(), *((key, value) for key, listed in rule.forbids.items() for value in listed)]
    for choice, value in decisions:
        assert CHOICES[choice].canonical(value) == value
        if value is not None and choice in OPTIONS:
            assert OPTIONS[choice].canonical(value) == value


@pytest.mark.parametrize(("name", "rule"), EVERY_RULE)
def test_what_a_rule_sets_is_possible_in_a_world_in_which_it_holds(name: str, rule: Rule) -> None:
    """The bus has the option, the storage the format: in the first world in which the condition holds."""
    del name
    world = world_of((rule.condition,))
    assert world is not None
    bus, kind = world.get("chosen.bus"), world.get("storage.type")
    for choice, value in rule.sets.items():
        if value is not None and bus is not None and choice in OPTIONS:
            assert bus in OPTIONS[choice].buses
        if choice == "format" and kind is not None:
            assert value in (*STORAGE_TYPES[str(kind)].formats, *STORAGE_TYPES[str(kind)].chain_formats)


@pytest.mark.parametrize("name", POLICIES)
def test_no_two_rules_of_equal_rank_contradict_each_other(name: str) -> None:
    found = []
    for first, second in itertools.combinations((*POLICIES[name], *CONSTRAINTS), 2):
        if first.rank == second.rank and (met := contradiction(first, second)):
            found.append(f"{first.id}, {second.id}: {met[0]} when {in_words(met[1])}")
    assert found == []


@pytest.mark.parametrize(("name", "rule"), EVERY_RULE)
def test_conditions_look_only_at_choices_that_are_made(name: str, rule: Rule) -> None:
    del name
    assert order_problem(rule) is None


@pytest.mark.parametrize(("name", "rule"), EVERY_RULE)
def test_every_rule_says_why_and_who_says_so(name: str, rule: Rule) -> None:
    assert len(rule.because.split()) >= 4
    assert rule.because.endswith(".")
    assert rule.source
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.id)
    assert (rule.rank == HARD) == (name == "constraints")
    assert rule.rank == HARD or rule.rank < SITE


def test_sources_of_proxmox_name_package_version_and_file() -> None:
    release = r"(pve-docs 9\.1\.3|qemu-server 9\.2\.6|pve-storage 9\.1\.7|pve-manager 9)"
    parts = [part for rule in (*POLICIES["current"], *CONSTRAINTS) for part in rule.source.split("; ")]
    ours = [part for part in parts if part.startswith(("pve-", "qemu-server"))]
    assert len(ours) > 40
    assert [part for part in ours if not re.match(rf"{release}, \S+\.(adoc|pm|js)", part)] == []


def test_hard_constraints_only_forbid() -> None:
    assert all(rule.forbids and not rule.sets for rule in CONSTRAINTS)


@pytest.mark.parametrize("name", POLICIES)
def test_every_choice_has_a_rule_that_always_holds(name: str) -> None:
    ever = {choice for rule in POLICIES[name] if rule.rank == 0 and rule.when == "`true`" for choice in rule.sets}
    assert ever == set(CHOICES)


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_known_is_answered_all_the_same(name: str) -> None:
    answer = ask(name)
    assert values(answer).keys() == CHOICES.keys()
    assert not answer.conflicts


def row(identity: str = "a", **more: Any) -> Rule:
    return Rule(identity, 1, "`true`", "Why.", "test", **{"sets": {"cache": "none"}, **more})


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([row(), row()], "a: its id is used twice"),
        ([row(sets={})], "a: it neither sets nor forbids anything"),
        ([row(severity="bad")], "a: severity 'bad' is not known"),
        ([row(sets={"cash": "none"})], "a: there is no choice 'cash'"),
        ([row(forbids={"cache": ("none",)})], "a: it sets and forbids cache=none"),
    ],
)
def test_tables_refuse_rows_that_are_not_well_formed(rows: list[Rule], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        checked(rows)
