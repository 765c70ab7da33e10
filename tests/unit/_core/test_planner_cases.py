# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every file below cases/ is one case: a guest, a declaration, and what the planner makes of them.

about             what the case shows
guest             config (PVE's texts by key), running, pending, deleting (1, or 2 with the volume), snapshots (volumes)
storages          besides those of cases/storages.yml
volumes           that the planner may look up: size and format; null for one that does not exist
givers            guests that disks come from, by their declared name: vmid, node, missing (rights), else as guest
declare           one guest's entry of the module's option guests; allow_destroy as the task has it
calls, lines, warnings, restart_required    of a plan that is carried out; what is empty is left out
refused           the full texts, of a plan that is not
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from unit._core.planning import CASES, outcome, read_case, shape

FILES = sorted(path for path in CASES.rglob("*.yml") if path.name != "storages.yml")
GIVEN = {"about", "guest", "storages", "volumes", "declare", "may_use_paths", "givers"}
EXPECTED = {"calls", "lines", "warnings", "restart_required", "refused"}


def load(path: Path) -> dict[str, Any]:
    data = yaml.safe_load(path.read_text("utf-8"))
    assert data.keys() <= GIVEN | EXPECTED, f"{path} has unknown keys"
    return data


every_case = pytest.mark.parametrize(
    "path", FILES, ids=[str(path.relative_to(CASES).with_suffix("")) for path in FILES]
)


@every_case
def test_case(path: Path) -> None:
    data = load(path)
    assert outcome(read_case(data)) == {key: data[key] for key in EXPECTED if key in data}


@every_case
def test_second_run_changes_nothing(path: Path) -> None:
    case = read_case(load(path))
    if case.wrong:
        return
    plan = case.world.plan(case.guest, case.layout)
    again = case.world.once(plan.calls).plan(plan.after, case.layout)
    assert plan.refusals or not again.refusals
    assert [shape(call) for call in again.calls] == []


@every_case
def test_plan_goes_on_where_it_was_cut_off(path: Path) -> None:
    """Whatever has been done of a plan, planning anew gives the rest of it."""
    case = read_case(load(path))
    if case.wrong:
        return
    calls = case.world.plan(case.guest, case.layout).calls
    for done, guest in enumerate(case.world.after(case.guest, calls), 1):
        again = case.world.once(calls[:done]).plan(guest, case.layout)
        assert not again.refusals
        assert [shape(call) for call in again.calls] == [shape(call) for call in calls[done:]]
