# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole product of storage type, guest family, workload, medium and stage gets a complete answer that works.

What works is said here once more, from Proxmox VE's source and not from the table of constraints.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import TABLE as OPTIONS
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.choices import CHOICES
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.engine import Recommendation, recommend
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import FACTS, Facts, Kind, read_facts
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.load import load_policy
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rules import POLICIES
from hypothesis import given, settings
from hypothesis import strategies as st
from unit._policy.asking import policy

TYPES = (*FACTS["storage.type"].choices, None)
FAMILIES = (*FACTS["guest.os_family"].choices, None)
WORKLOADS = (*FACTS["need.workload"].choices, None)
MEDIA = (*FACTS["storage.medium"].choices, None)
STAGES = (*FACTS["guest.stage"].choices, None)
HOST_CACHED = ("writeback", "writethrough", "unsafe")


def impossible(chosen: Mapping[str, str | None], facts: Facts) -> list[str]:
    """Why PVE or QEMU would not have it so; source: qemu-server 9.2.6 and pve-storage 9.1.7."""
    bus, found = str(chosen["bus"]), []
    for name, value in chosen.items():
        if value is not None and name in OPTIONS and bus not in OPTIONS[name].buses:
            found.append(f"{bus} has no {name}")
        if value is not None and CHOICES[name].canonical(value) != value:
            found.append(f"{name}={value} is not PVE's")
    formats = facts.get("storage.formats")
    if isinstance(formats, tuple) and chosen["format"] not in formats:
        found.append(f"the storage holds no {chosen['format']}")
    host_cached = chosen["cache"] in HOST_CACHED
    host_cached = host_cached or (chosen["cache"] is None and facts.get("storage.type") == "btrfs")
    if chosen["aio"] == "native" and host_cached:
        found.append("aio=native goes through the host's cache")
    if chosen["iothread"] == "1" and bus != "virtio" and chosen["scsihw"] != "virtio-scsi-single":
        found.append("the I/O thread is ignored")
    version = facts.get("guest.machine_version")
    old = isinstance(version, float) and version < 10
    if old and facts.get("storage.chains") and chosen["format"] == "qcow2":
        found.append("a chain with an old machine")
    return found


def check(answer: Recommendation, facts: Facts) -> None:
    assert list(answer.choices) == list(CHOICES)
    assert all(choice.rule and choice.reason for choice in answer.choices.values())
    chosen = {name: choice.value for name, choice in answer.choices.items()}
    assert chosen["bus"] and chosen["format"]
    assert impossible(chosen, facts) == []
    assert answer.conflicts == ()


def sensible(name: str, answer: Recommendation, facts: Facts) -> list[str]:
    """What no policy would ever say."""
    chosen = {key: choice.value for key, choice in answer.choices.items()}
    found = []
    if chosen["cache"] == "unsafe" and facts.get("need.durability") != "disposable":
        found.append("unsafe for data that somebody would miss")
    if facts.get("guest.virtio_drivers") == "none" and chosen["bus"] in ("virtio", "scsi"):
        found.append("a bus without a driver")
    if chosen["format"] == "vmdk":
        found.append("vmdk")
    windows = facts.get("guest.os_release") in ("win7", "win8", "win10", "win11", "w2k8", "wvista")
    if windows and chosen["bus"] == "scsi" and chosen["scsihw"] in (None, "lsi", "lsi53c810"):
        found.append("Windows on LSI")
    if chosen["cache"] in ("directsync", "writethrough") and facts.get("guest.os_release") != "l24":
        found.append("a mode that is to be avoided")
    return [f"{name}: {problem}" for problem in found]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", POLICIES)
def test_every_combination_gets_a_complete_answer_that_works(name: str, kind: str | None) -> None:
    for family, workload, medium, stage in itertools.product(FAMILIES, WORKLOADS, MEDIA, STAGES):
        facts = read_facts(
            {
                "guest": {"os_family": family, "stage": stage},
                "storage": {"type": kind, "medium": medium},
                "need": {"workload": workload},
            }
        )
        answer = recommend({}, facts, policy(name))
        check(answer, facts)
        assert sensible(name, answer, facts) == []


@pytest.mark.parametrize("release", FACTS["guest.os_release"].choices)
@pytest.mark.parametrize("name", POLICIES)
def test_every_release_with_every_driver_on_every_storage(name: str, release: str) -> None:
    drivers = (*FACTS["guest.virtio_drivers"].choices, None)
    for kind, driver, stage, firmware in itertools.product(TYPES, drivers, STAGES, ("seabios", "ovmf")):
        facts = read_facts(
            {
                "guest": {"os_release": release, "virtio_drivers": driver, "stage": stage, "firmware": firmware},
                "storage": {"type": kind},
            }
        )
        answer = recommend({}, facts, policy(name))
        check(answer, facts)
        assert sensible(name, answer, facts) == []


def fact_values(path: str) -> st.SearchStrategy[Any]:
    fact = FACTS[path]
    if fact.kind is Kind.CHOICE:
        return st.sampled_from((*fact.choices, None))
    if fact.kind is Kind.BOOL:
        return st.sampled_from((True, False, None))
    if fact.kind is Kind.LIST:
        return st.none() | st.lists(st.sampled_from(fact.choices), min_size=1, unique=True)
    if fact.kind is Kind.VERSION:
        return st.sampled_from((None, "8.4", "9.0", "9.2", "10.0", "11.0"))
    if fact.kind is Kind.NUMBER:
        return st.sampled_from((None, 0, "2.5", -3.5))
    return st.sampled_from((None, "tank"))


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """Any facts, also such as do not go together: whoever says them is answered."""
    nested: dict[str, dict[str, Any]] = {}
    for path in draw(st.lists(st.sampled_from(sorted(FACTS)), max_size=12, unique=True)):
        section, _dot, name = path.partition(".")
        nested.setdefault(section, {})[name] = draw(fact_values(path))
    return read_facts(nested)


@st.composite
def any_fixed(draw: st.DrawFn) -> dict[str, str | None]:
    fixed: dict[str, str | None] = {}
    for name in draw(st.lists(st.sampled_from(list(CHOICES)), max_size=4, unique=True)):
        row = CHOICES[name]
        fixed[name] = draw(st.sampled_from((*row.values, *((None,) if row.open else ()))))
    return fixed


@settings(max_examples=250, deadline=None)
@given(name=st.sampled_from(sorted(POLICIES)), facts=any_facts())
def test_any_facts_get_an_answer_that_works(name: str, facts: Facts) -> None:
    check(recommend({}, facts, policy(name)), facts)


@settings(max_examples=250, deadline=None)
@given(name=st.sampled_from(sorted(POLICIES)), facts=any_facts(), fixed=any_fixed())
def test_what_is_decided_stays_and_conflicts_are_exactly_what_is_impossible(
    name: str, facts: Facts, fixed: dict[str, str | None]
) -> None:
    answer = recommend(fixed, facts, policy(name))
    chosen = {key: choice.value for key, choice in answer.choices.items()}
    assert {key: chosen[key] for key in fixed} == fixed
    assert bool(answer.conflicts) == bool(impossible(chosen, facts))
    assert {item.name for item in (*answer.conflicts, *answer.objections)} <= set(fixed)


def test_a_storage_that_holds_only_what_is_not_advisable_gets_that() -> None:
    facts = read_facts({"storage": {"formats": ["vmdk"]}})
    answer = recommend({}, facts, policy("current"))
    check(answer, facts)
    assert (answer.choices["format"].value, answer.choices["format"].rule) == ("vmdk", "remaining")


@settings(max_examples=100, deadline=None)
@given(facts=any_facts(), fixed=any_fixed())
def test_the_same_question_gets_the_same_answer_from_policies_loaded_twice(
    facts: Facts, fixed: dict[str, str | None]
) -> None:
    first, second = (recommend(fixed, facts, load_policy("current")) for _turn in range(2))
    assert first == second
