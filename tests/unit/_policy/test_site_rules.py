# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's own rules: what they can do, and what somebody is told whose rule is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.engine import Recommendation, recommend
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.load import KEYS, PolicyError, load_policy
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rules import POLICIES
from hypothesis import given, settings
from hypothesis import strategies as st
from unit._policy.asking import facts

RULE = {"id": "ours", "when": "need.workload == 'archive'", "sets": {"cache": "writeback"}, "because": "We say so."}


# jmespath's word about some of what hypothesis writes
pytestmark = pytest.mark.filterwarnings("ignore:deprecated string literal syntax")


def with_rules(*rules: Any, version: str | None = "9.2", **known: Any) -> Recommendation:
    return recommend({}, facts(**known), load_policy("current", rules, version))


def problems(*rules: Any, policy: str = "current", places: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_policy(policy, rules, "9.2", places)
    return str(caught.value).splitlines()


def test_a_new_rule_goes_before_the_policys() -> None:
    choice = with_rules(RULE, workload="archive").choices["cache"]
    assert (choice.value, choice.rule, choice.reason, choice.source) == (
        "writeback",
        "ours",
        "We say so.",
        "a rule of this site",
    )
    assert with_rules(RULE).choices["cache"].value is None


@pytest.mark.parametrize("rank", [0, 29, 30, 99])
def test_rank_says_what_a_rule_goes_before(rank: int) -> None:
    rule = {**RULE, "when": "need.workload == 'database' && need.portable", "rank": rank}
    if rank == 30:
        assert "contradicts the rule 'database-none' of the policy" in problems(rule)[0]
        return
    if rank == 0:
        assert "contradicts the rule 'cache-default' of the policy" in problems(rule)[0]
        return
    answer = with_rules(rule, workload="database", portable=True).choices["cache"]
    assert answer.value == ("writeback" if rank > 30 else "none")


def test_a_rule_with_the_id_of_another_overrides_what_it_names() -> None:
    answer = with_rules({"id": "thin-discard", "because": "Our words."}, type="lvmthin").choices["discard"]
    assert (answer.value, answer.reason) == ("on", "Our words.")
    answer = with_rules({"id": "thin-discard", "when": "storage.type == 'rbd'"}, type="lvmthin").choices["discard"]
    assert (answer.value, answer.rule) == (None, "discard-default")
    answer = with_rules({"id": "thin-discard", "sets": {"discard": "ignore"}}, type="lvmthin").choices["discard"]
    assert (answer.value, answer.rule) == ("ignore", "thin-discard")


def test_rules_can_be_taken_away() -> None:
    answer = with_rules({"disable": ["thin-discard"]}, type="lvmthin").choices["discard"]
    assert (answer.value, answer.rule) == (None, "discard-default")
    assert with_rules({"disable": "ssd"}, os_family="linux", medium="ssd").choices["ssd"].value is None


def test_a_choice_without_any_rule_is_made_all_the_same() -> None:
    gone = [rule.id for rule in POLICIES["current"] if {"cache", "format"} & rule.decides]
    choices = with_rules({"disable": gone}, type="dir").choices
    assert (choices["cache"].value, choices["cache"].rule) == (None, "remaining")
    assert (choices["format"].value, choices["format"].rule) == ("raw", "remaining")


def test_no_rule_of_a_site_goes_before_a_hard_constraint() -> None:
    rules = [
        {**RULE, "id": "a", "when": True, "sets": {"format": "qcow2", "aio": "native", "cache": "writeback"}},
        {**RULE, "id": "b", "when": True, "sets": {"iothread": True, "bus": "sata", "ssd": True}},
    ]
    answer = with_rules(*rules, type="zfspool")
    assert answer.conflicts == ()
    assert {name: choice.value for name, choice in answer.choices.items()} == {
        "bus": "sata",
        "scsihw": None,
        "format": "raw",
        "cache": "writeback",
        "aio": None,
        "iothread": None,
        "discard": "on",
        "ssd": "1",
        "detect_zeroes": None,
        "backup": None,
    }


def test_values_are_written_as_in_a_declaration() -> None:
    rule = {**RULE, "when": True, "sets": {"discard": True, "iothread": "yes", "backup": False, "cache": None}}
    choices = with_rules(rule, os_family="linux").choices
    assert [choices[name].value for name in ("discard", "iothread", "backup", "cache")] == ["on", "1", "0", None]


def test_forbidding_leaves_the_next_best() -> None:
    rule = {"id": "a", "when": "need.workload == 'database'", "forbids": {"cache": "none"}, "because": "We say so."}
    choice = with_rules(rule, workload="database").choices["cache"]
    assert (choice.value, choice.rule) == (None, "cache-default")
    assert ("none", "a") in {(item.value, item.rule) for item in choice.rejected}
    rule = {**rule, "when": True, "forbids": {"cache": [None, "none"]}}
    assert with_rules(rule).choices["cache"].rule == "remaining"


@pytest.mark.parametrize(
    ("bounds", "version", "holds"),
    [
        ({"since": "9.0"}, "8.4", False),
        ({"since": "9.0"}, "9.0", True),
        ({"since": 9.1}, "9.2.3", True),
        ({"since": "9.0"}, None, True),
        ({"until": "8.4"}, "8.4", True),
        ({"until": "8.4"}, "9.0", False),
        ({"until": "8.4"}, None, False),
        ({"since": "8.2", "until": "9"}, "8.10", True),
    ],
)
def test_rules_for_some_versions_only(bounds: dict[str, Any], version: str | None, holds: bool) -> None:
    answer = with_rules({**RULE, **bounds}, version=version, workload="archive")
    assert (answer.choices["cache"].rule == "ours") is holds


def test_a_condition_may_look_at_earlier_choices() -> None:
    rule = {**RULE, "when": "chosen.bus == 'scsi' && chosen.format == 'raw'"}
    assert with_rules(rule, os_family="linux").choices["cache"].value == "writeback"
    assert with_rules(rule).choices["cache"].value is None


# ---- mistakes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"when": "need.workload = 'archive'"}, "'need.workload = 'archive'' is no condition at column 15"),
        ({"when": "need.wrokload == 'archive'"}, "there is no fact 'need.wrokload', did you mean 'need.workload'?"),
        ({"when": "need.workload != 'archive'"}, "!= is refused"),
        ({"when": "need.workload == 'archiv'"}, "need.workload is never 'archiv'; it can be"),
        ({"when": "need.workload == 'archiv'"}, "did you mean 'archive'?"),
        ({"when": "chosen.cache == 'none'"}, "chosen.cache is what the rule decides itself; use fixed.cache"),
        ({"when": "chosen.discard == 'on'"}, "chosen.discard is decided after cache (the order is bus, scsihw,"),
        ({"when": "guest.os_family == 'linux' && guest.os_release == 'win10'"}, "can never hold"),
        ({"when": "need.workload == 'archive' && need.workload == 'scratch'"}, "can never hold"),
        ({"when": None}, "when is missing; write for example when: need.workload == 'database'"),
        ({"when": ["a"]}, "when: '['a']' is no text; write for example when: need.workload == 'database'"),
        ({"because": ""}, "because is missing"),
        ({"sets": {"cash": "none"}}, "sets: there is no choice 'cash'; there are bus, scsihw, format, cache,"),
        ({"sets": {"cash": "none"}}, "did you mean 'cache'?"),
        ({"sets": {"cache": "write-back"}}, "sets: cache: 'write-back' is not allowed; cache takes one of none,"),
        ({"sets": {"cache": "write-back"}}, "did you mean 'writeback'?"),
        ({"sets": {"iothread": "maybe"}}, "sets: iothread: 'maybe' is not allowed; iothread takes true or false"),
        ({"sets": {"format": "vhd"}}, "sets: format: 'vhd' is not allowed; format takes one of raw, qcow2, vmdk"),
        ({"sets": {"format": None}}, "sets: format: 'None' is not allowed"),
        ({"sets": {"scsihw": "virtio"}}, "scsihw takes one of lsi,"),
        ({"sets": "cache"}, "sets: 'cache' is no dictionary; write for example sets: {cache: none}"),
        ({"sets": None, "forbids": ["unsafe"]}, "is no dictionary; write for example forbids: {cache: [unsafe]}"),
        ({"sets": None}, "it neither sets nor forbids anything; add sets or forbids"),
        ({"forbids": {"cache": ["writeback"]}}, "it sets and forbids cache=writeback"),
        ({"severity": "fatal"}, "severity 'fatal' is not known; write one of info, warning, danger"),
        ({"rank": 100}, "rank '100' is not allowed; write a whole number from 0 to 99"),
        ({"rank": "high"}, "rank 'high' is not allowed"),
        ({"since": "trixie"}, "since 'trixie' is no version; write for example since: '9.0'"),
        ({"id": None}, "rule 1: it needs an id of letters, digits, dots and hyphens; write id: our-databases"),
        ({"id": "our rule"}, "it needs an id of letters"),
        ({"id": "storage-holds-raw"}, "that is a hard constraint, which can't be overridden; give the rule another id"),
        ({"set": {"cache": "none"}}, "there is no key 'set'; a rule has id, rank, when, sets, forbids"),
        ({"set": {"cache": "none"}}, "did you mean 'sets'?"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(change: dict[str, Any], said: str) -> None:
    told = problems({**RULE, **change})
    assert any(said in line for line in told), told
    assert all(line.startswith("rule 1") for line in told)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"id": "a"}, "rules are a list of dictionaries, not a dictionary; write for example [{id: our-databases"),
        ("rules.yml", "rules are a list of dictionaries, not a text"),
        (7, "rules are a list of dictionaries, not 7"),
        (["archive"], "rule 1: 'archive' is no dictionary; write for example {id: our-databases, when:"),
        ([None], "rule 1: 'None' is no dictionary"),
        ([{"disable": ["thin-discrad"]}], "there is no rule 'thin-discrad' to disable, did you mean 'thin-discard'?"),
        ([{"disable": ["native-needs-direct"]}], "is a hard constraint, which can't be disabled"),
        ([{"disable": {"a": 1}}], "write disable alone, with a list of ids"),
        ([{"disable": ["ssd"], "id": "a"}], "write disable alone, with a list of ids"),
        ([RULE, RULE], "rule 2 ('ours'): the id is used by rule 1 ('ours') too; give one of them another"),
    ],
)
def test_a_list_of_the_wrong_shape_is_named(rules: Any, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy("current", rules)
    assert said in str(caught.value)


def test_contradicting_rules_of_a_site_are_both_named_with_a_case() -> None:
    other = {**RULE, "id": "theirs", "when": "storage.medium == 'hdd'", "sets": {"cache": "none"}}
    (line,) = problems(RULE, other)
    assert line == (
        "rule 1 ('ours'): contradicts rule 2 ('theirs') about cache, both of rank 90, for example when need.workload is"
        " archive and storage.medium is hdd; give the one that is to win a higher rank, or narrow its when"
    )
    load_policy("current", [RULE, {**other, "rank": 91}])
    load_policy("current", [RULE, {**other, "when": "need.workload == 'scratch'"}])


def test_forbidding_what_another_rule_of_the_same_rank_sets_is_a_contradiction() -> None:
    other = {**RULE, "id": "theirs", "when": True, "sets": None, "forbids": {"cache": ["writeback"]}}
    assert "contradicts rule 2 ('theirs') about cache" in problems(RULE, other)[0]


def test_all_mistakes_are_reported_together() -> None:
    told = problems({**RULE, "when": "a == 'b'"}, {**RULE, "id": "b", "sets": {"cache": "x"}}, "c", {"disable": ["d"]})
    assert [line.split(":")[0] for line in told] == ["rule 1 ('ours')", "rule 2 ('b')", "rule 3", "rule 4"]


def test_the_place_is_named_where_it_is_known() -> None:
    told = problems(RULE, {**RULE, "id": "b", "rank": -1}, places=("", "rules.yml, line 12"))
    assert told == ["rules.yml, line 12 ('b'): rank '-1' is not allowed; write a whole number from 0 to 99"]


def test_an_unknown_policy_is_named() -> None:
    told = "there is no policy 'curent'; there are current, chapter-2016, did you mean 'current'?"
    assert problems(policy="curent") == [told]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FACT_WORDS = "guest need storage . os_family workload contains lacks 'linux' `1` null true"
words = st.sampled_from(f"{FACT_WORDS} == != = < && || ( ) [ ] ! ' ` and | @ *".split())
texts = st.lists(words, max_size=8).map(" ".join) | st.lists(words, max_size=8).map("".join)


@settings(max_examples=150, deadline=None)
@given(rules=st.lists(st.dictionaries(st.sampled_from(KEYS), anything | texts, max_size=6) | anything, max_size=3))
def test_whatever_is_written_loads_or_is_refused_in_words(rules: list[Any]) -> None:
    try:
        load_policy("current", rules)
    except DiskwrightError as error:
        assert str(error)


@settings(max_examples=150, deadline=None)
@given(when=texts)
def test_whatever_stands_in_when_loads_or_is_refused_in_words(when: str) -> None:
    try:
        load_policy("current", [{**RULE, "when": when}])
    except PolicyError as error:
        assert all(line.startswith("rule 1 ('ours'): ") for line in str(error).splitlines())
