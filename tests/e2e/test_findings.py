# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster that shows every kind of finding, and what becomes of it with the declarations that findings come with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from audit.findings import GIVEN, Case, cases
from e2e.audits import Finding, alone, audit, facts_of, mend, pasted, places, restart, seeded
from e2e.kit import started

CASES = cases()
FACTS = facts_of(CASES)


def own(findings: list[Finding], case: Case) -> list[Finding]:
    """The finding that a case is about, if it is there."""
    given = case.finding
    place = (case.vmid, given["slot"], given["option"], case.rule)
    return [one for one in findings if places([one]) == {place}]


@dataclass
class Audits:
    """The findings of a cluster, before and after each finding's own declaration was applied, and nothing else."""

    before: list[Finding]
    after: list[Finding]


@pytest.fixture(scope="module")
def audits() -> Iterator[Audits]:
    with started(seeded(CASES)) as lab:
        before = audit(lab, FACTS)["findings"]
        mine = [one for case in CASES for one in own(before, case) if one["mend"]]
        mend(lab, {name: words for one in mine for name, words in alone(one).items()}, allow_destroy=True)
        restart(lab, audit(lab, FACTS)["findings"])
        yield Audits(before, audit(lab, FACTS)["findings"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_finding_is_gone_once_its_declaration_is_applied(case: Case, audits: Audits) -> None:
    (found,) = own(audits.before, case)
    assert {name: found[name] for name in GIVEN} == case.finding
    if found["mend"] is not None or case.rule == "restart-required":
        assert own(audits.after, case) == []


@pytest.mark.parametrize("words", [{}, {"running": True}], ids=["stopped", "running"])
@pytest.mark.parametrize("policy", ["current", "chapter-2016"])
def test_only_unused_volumes_are_left_once_all_declarations_are_pasted(policy: str, words: dict[str, Any]) -> None:
    with started(seeded(CASES, **words)) as lab:
        first = audit(lab, FACTS, policy)
        volumes = set(lab.volumes())
        mend(lab, pasted(first), power="stop_if_needed")
        assert volumes <= set(lab.volumes()), "what is pasted destroys nothing"
        restart(lab, audit(lab, FACTS, policy)["findings"])
        second = audit(lab, FACTS, policy)
        left = {one["rule"] for one in second["findings"] if one["mend"]}
        assert left <= {"unused-volume"}, "what was taken back or converted has left its volume"
        assert pasted(second) == {}, "and only a person destroys that"
        for one in second["findings"]:
            if one["rule"] == "unused-volume":
                mend(lab, alone(one), allow_destroy=True)
        for_a_person = {(one["vmid"], one["rule"]) for one in first["findings"] if one["mend"] is None}
        third = {(one["vmid"], one["rule"]) for one in audit(lab, FACTS, policy)["findings"]}
        assert third <= for_a_person, "a disk that moves to another bus takes its findings along"
        assert not mend(lab, pasted(first)).changed, "what was pasted stays in the inventory"
