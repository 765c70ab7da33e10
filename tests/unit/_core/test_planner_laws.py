# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every plan, whatever the guest and the declaration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.actions import CallKind
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive import Drive
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import (
    Guest,
    Hardware,
    PendingRow,
    read_guest,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout, read_layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import STRUCTURAL, TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.plan import Plan
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.propstring import parse
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import find_slot
from hypothesis import HealthCheck, given, settings
from unit._core.planning import shape
from unit._core.worlds import PATH, UNKNOWN, situations, world

WORLD = world()
Situation = tuple[Guest, Layout]
bounded = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def states(plan: Plan) -> list[Guest]:
    return [plan.before, *WORLD.after(plan.before, plan.calls)]


def shared(hardware: Hardware) -> set[str]:
    counts = Counter(drive.volume for drive in hardware.drives.values() if drive.is_disk and not drive.is_new)
    return {volume for volume, count in counts.items() if count > 1}


def known_disks(hardware: Hardware) -> dict[str, Drive]:
    return {drive.volume: drive for drive in hardware.drives.values() if drive.is_disk}


def refused_plan_has_no_calls(situation: Situation, plan: Plan) -> None:
    assert not (plan.refusals and plan.calls)
    assert plan.refusals == () or plan.after == plan.before


def second_run_changes_nothing(situation: Situation, plan: Plan) -> None:
    if plan.refusals:
        return
    again = WORLD.plan(plan.after, situation[1])
    assert [str(refusal) for refusal in again.refusals] == []
    assert again.calls == ()


def plan_goes_on_where_it_was_cut_off(situation: Situation, plan: Plan) -> None:
    for done, guest in enumerate(states(plan)):
        again = WORLD.plan(guest, situation[1])
        assert [str(refusal) for refusal in again.refusals] == ([] if plan.calls else list(map(str, plan.refusals)))
        assert [shape(call) for call in again.calls] == [shape(call) for call in plan.calls[done:]]


def nothing_is_destroyed_without_leave(situation: Situation, plan: Plan) -> None:
    layout = situation[1]
    for call in plan.calls:
        gone = [find_slot(key) for key in (call.parameter("delete") or "").split(",")]
        unused = any(slot is not None and slot.is_unused for slot in gone)
        if call.kind is CallKind.DESTROY or call.parameter("force") or unused:
            assert layout.allow_destroy
        if call.kind is CallKind.MOVE and call.parameter("delete"):
            disk = layout.disk(find_slot(call.parameter("disk") or "") or layout.disks[0].slot)
            assert disk is not None
            assert disk.delete_source


def no_volume_is_lost(situation: Situation, plan: Plan) -> None:
    """Every disk of ours is somewhere in each state, unless the plan says that it is destroyed."""
    destroyed = {getattr(action, "volume", None) for action in plan.actions if action.verb == "destroy"}
    left = {action.drive.volume for action in plan.actions if action.verb == "move" and action.delete_source}
    before = {*known_disks(plan.before.configured), *plan.before.configured.unused.values()} - {PATH}
    for guest in states(plan):
        there = {*known_disks(guest.configured), *known_disks(guest.live), *guest.configured.unused.values()}
        assert before - destroyed - left <= there


def undeclared_drives_stay_as_they_are(situation: Situation, plan: Plan) -> None:
    if situation[1].undeclared == "detach":
        return
    for slot in plan.undeclared:
        assert plan.after.configured.drives.get(slot) == plan.before.configured.drives.get(slot)


def unknown_options_survive(situation: Situation, plan: Plan) -> None:
    after = known_disks(plan.after.configured)
    for volume, drive in known_disks(plan.before.configured).items():
        kept = after.get(volume)
        if kept is not None:
            assert [kept.get(name) for name in UNKNOWN] == [drive.get(name) for name in UNKNOWN]


def no_volume_is_ever_in_two_slots(situation: Situation, plan: Plan) -> None:
    for guest in states(plan):
        assert not shared(guest.configured)
        assert not shared(guest.live)


KEYS = {"boot", "bootdisk", "scsihw", "description", "delete", "force", "revert", "disk", "size", "storage", "format"}


def calls_have_only_keys_that_pve_knows(situation: Situation, plan: Plan) -> None:
    for call in plan.calls:
        for key, value in call.parameters:
            slot = find_slot(key)
            assert slot is not None or key in KEYS
            if slot is not None:
                names = {name for name, _text in parse(value, "file")} - UNKNOWN - STRUCTURAL
                assert all(slot.bus in TABLE[name].buses for name in names)
        deleted = {key for key in (call.parameter("delete") or "").split(",") if call.kind is not CallKind.MOVE and key}
        assert not deleted & {key for key, _value in call.parameters}
        assert all(find_slot(key) or key == "description" for key in deleted)


def guest_is_never_stopped_uninvited(situation: Situation, plan: Plan) -> None:
    guest, layout = situation
    kinds = [call.kind for call in plan.calls]
    if layout.power == "never":
        assert not {CallKind.SHUTDOWN, CallKind.START} & set(kinds)
    assert kinds.count(CallKind.SHUTDOWN) == kinds.count(CallKind.START)
    assert plan.after.running == guest.running


def same_question_same_answer(situation: Situation, plan: Plan) -> None:
    assert WORLD.plan(*situation) == plan


LAWS: tuple[Callable[[Situation, Plan], None], ...] = (
    refused_plan_has_no_calls,
    second_run_changes_nothing,
    plan_goes_on_where_it_was_cut_off,
    nothing_is_destroyed_without_leave,
    no_volume_is_lost,
    undeclared_drives_stay_as_they_are,
    unknown_options_survive,
    no_volume_is_ever_in_two_slots,
    calls_have_only_keys_that_pve_knows,
    guest_is_never_stopped_uninvited,
    same_question_same_answer,
)


@bounded
@given(situations())
def test_laws(situation: Situation) -> None:
    """All of them about each situation, because making one up takes longest."""
    plan = WORLD.plan(*situation)
    for law in LAWS:
        law(situation, plan)


def test_a_volume_that_would_find_no_number_is_refused() -> None:
    """PVE keeps 256 unused volumes, and fails in the middle of the call when there is one more."""
    rows = [PendingRow(f"unused{number}", f"local-lvm:vm-100-disk-{number + 1}") for number in range(256)]
    rows.append(PendingRow("scsi1", "local-lvm:vm-100-disk-0,size=32G"))
    guest = read_guest(100, "web1", "pve1", rows, running=False)
    detached = {"slot": "scsi1", "state": "detached"}
    layout, _refusals = read_layout({"vmid": 100, "disks": [detached]})
    freed = {"slot": "unused7", "state": "absent"}  # which comes last, in a call of its own
    more, _refusals = read_layout({"vmid": 100, "disks": [detached, freed]}, Layout(allow_destroy=True))
    for wanted in (layout, more):
        (refusal,) = WORLD.plan(guest, wanted).refusals
        assert "PVE keeps 256 unused volumes of a guest at most" in str(refusal)
