# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every migration, whatever fails, is killed, or is changed by somebody else on its way.

It ends on VirtIO or exactly where it began, and never starts a guest that has a volume in two slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.migration import next_step
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.situation import Memory, Wishes
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.steps import (
    Configure,
    End,
    Note,
    Power,
    State,
)
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from unit._windows.world import CONFIG, ISO, SLOT, KilledError, TroubleError, World, doubles, run, volume

FAULTS = ("fails", "fails after it was done", "torn", "killed before", "killed after")
WISHES = Wishes(iso=ISO)
ENOUGH_RUNS = 8
bounded = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def starts_it(world: World) -> None:
    if world.live is None and not doubles(world.config):
        world.start()


def switches_it_off(world: World) -> None:
    if world.live is not None:
        world.stop()


def adds_a_disk(world: World) -> None:
    if "virtio7" not in world.config and world.live is None:
        world.config["virtio7"] = "tank:vm-122-disk-70,size=1G"
        world.volumes.add("tank:vm-122-disk-70")


def writes_notes(world: World) -> None:
    world.note(f"more notes\n{world.config.get('description', '')}")


def locks_it(world: World) -> None:
    world.lock = "backup"


OTHERS: dict[str, Callable[[World], None]] = {
    one.__name__: one for one in (starts_it, switches_it_off, adds_a_disk, writes_notes, locks_it)
}
#: Before how many of a run's steps nothing happens, and then what.
accidents = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([*FAULTS, *OTHERS])), max_size=6)


def troubled_run(world: World, wishes: Wishes, script: list[str | None]) -> End | None:
    """A run with accidents, used up as they happen. :returns: ``None`` when it was killed."""
    memory = Memory()
    for _number in range(80):
        accident = script.pop(0) if script else None
        now = world.situation(wishes, memory)
        step = next_step(now)
        if isinstance(step, End):
            return step
        if accident in OTHERS:
            OTHERS[accident](world)
            continue  # the digest is another one, or the run would have seen it: it looks again
        try:
            if accident in ("fails", "killed before"):
                raise (TroubleError if accident == "fails" else KilledError)(accident)
            memory = world.perform(step, now, partly=accident == "torn" and isinstance(step, Configure))
            if accident == "fails after it was done":
                raise TroubleError(accident)
            if accident == "killed after":
                raise KilledError(accident)
        except TroubleError as error:
            if isinstance(step, Note):
                return None  # without its journal it stays where it is
            memory = replace(memory, trouble=str(error))
        except KilledError:
            return None
    raise AssertionError(f"no end: {world.history[-6:]}")


def until_the_end(world: World, wishes: Wishes, script: list[str | None]) -> End:
    """Run after run, as an administrator would; at last without accidents."""
    for _number in range(ENOUGH_RUNS + len(script)):
        end = troubled_run(world, wishes, script)
        if end is None or end.state is State.STUCK or world.lock:
            world.lock = None  # some time every backup ends
            continue
        if end.state is State.NEEDS_INJECTION:
            world.inner.installed.add(wishes.driver)
            wishes = replace(wishes, injected=frozenset({wishes.driver}))
        elif end.state is State.NEEDS_VERDICT:
            wishes = replace(wishes, verdict="commit" if world.up() else "roll_back")
        elif not script:
            return end
    raise AssertionError(f"it never comes to an end: {world.history[-10:]}")


def hardware(config: dict[str, str]) -> dict[str, str]:
    """All but the notes, and what somebody else has added."""
    return {key: text for key, text in config.items() if key not in ("description", "virtio7")}


def switched(config: dict[str, str]) -> dict[str, str]:
    """What the switch has to make of a configuration."""
    moved = {"sata0": "scsi0", "sata1": "scsi1"}
    after = {moved.get(key, key): text for key, text in config.items()}
    return {**after, "boot": config["boot"].replace("sata0", "scsi0"), "scsihw": "virtio-scsi-single"}


def check_end(world: World, end: End, before: dict[str, str]) -> None:
    now = hardware(world.config)
    assert (world.pending, world.deleting) == ({}, set())
    if end.state is not State.ROLLED_BACK:
        assert end.state in (State.COMMITTED, State.ON_VIRTIO)
        assert now == hardware(switched(before))
        assert "<!--" not in world.config["description"]
    else:
        assert now == hardware(before)
    assert world.config["description"].replace("more notes\n", "").startswith(before["description"])
    kept = {volume(text) for key, text in world.config.items() if SLOT.fullmatch(key)} - {"none"}
    assert world.volumes == kept, "a volume that nobody needs"


def follow(world: World, wishes: Wishes, gaps: list[tuple[int, str]]) -> End:
    before = dict(world.config)
    own = world.inner.own()
    ran = world.live is not None
    script: list[str | None] = [entry for gap, accident in gaps for entry in (*[None] * gap, accident)]
    disturbed = {accident for _gap, accident in gaps} & {"starts_it", "switches_it_off"}
    end = until_the_end(world, wishes, script)
    event(end.state.value)
    check_end(world, end, before)
    assert disturbed or (world.live is not None) == ran
    if world.inner.agent:
        assert world.snapshots == {} or "is kept" in end.reason
        if world.live is not None or not disturbed:
            assert world.inner.own() == own
    again = len(world.history)
    after = State.ROLLED_BACK if end.state is State.ROLLED_BACK else State.ON_VIRTIO
    assert run(world, WISHES).state is after
    assert len(world.history) == again, "a second run has changed something"
    return end


@bounded
@given(accidents)
@example([])
def test_with_an_agent(gaps: list[tuple[int, str]]) -> None:
    end = follow(World(), WISHES, gaps)
    assert gaps or end.state is State.COMMITTED


@bounded
@given(accidents, st.booleans())
@example([], True)
def test_a_guest_that_need_not_be_shut_down_for_it(gaps: list[tuple[int, str]], works: bool) -> None:
    """It has the controller already, and an empty CD-ROM drive: the helper is plugged in while Windows runs."""
    world = World({**CONFIG, "scsihw": "virtio-scsi-single"}, works=works)
    end = follow(world, WISHES, gaps)
    assert gaps or sum(step == Power(on=True) for step in world.history) == (0 if works else 1)
    assert gaps or end.state is (State.COMMITTED if works else State.ROLLED_BACK)


@bounded
@given(accidents)
@example([])
def test_a_driver_that_does_not_work(gaps: list[tuple[int, str]]) -> None:
    assert follow(World(works=False), WISHES, gaps).state is State.ROLLED_BACK


@bounded
@given(accidents, st.booleans(), st.booleans())
@example([], True, True)
def test_without_an_agent(gaps: list[tuple[int, str]], works: bool, runs: bool) -> None:
    end = follow(World(agent=False, works=works, running=runs), WISHES, gaps)
    assert gaps or end.state is (State.COMMITTED if works else State.ROLLED_BACK)


@bounded
@given(accidents, st.booleans())
@example([], True)
def test_a_stopped_guest_is_stopped_again(gaps: list[tuple[int, str]], works: bool) -> None:
    world = World(running=False, works=works)
    follow(world, replace(WISHES, staging="online"), gaps)


@pytest.mark.parametrize("place", ["scsi0", "sata0"])
def test_a_slot_that_somebody_has_taken_is_left_to_them(place: str) -> None:
    """Wherever it happens: nothing of theirs is touched, and no volume is lost."""
    for moment in range(40):
        world = World()
        memory, taken, number = Memory(), False, -1
        while not isinstance(step := next_step(now := world.situation(WISHES, memory)), End):
            number += 1
            assert number < 80
            if number == moment and world.live is None and place not in world.config and not world.pending:
                world.config[place] = "tank:vm-122-disk-99,size=1G"
                taken = True
                continue
            try:
                memory = world.perform(step, now)
            except TroubleError as error:
                memory = replace(memory, trouble=str(error))
        held = {volume(text) for key, text in world.config.items() if SLOT.fullmatch(key) or key.startswith("unused")}
        assert {"local-lvm:vm-122-disk-0", "tank:vm-122-disk-1"} <= held
        if taken:
            assert world.config[place] == "tank:vm-122-disk-99,size=1G"
            assert step.state in (State.STUCK, State.ROLLED_BACK, State.COMMITTED), step


def test_the_world_starts_as_it_says() -> None:
    assert World().config == CONFIG
    assert World().up()


# ---- what a person is told before anything is written


def on_probation(config: dict[str, str] | None = None) -> World:
    """A guest without an agent that was started from VirtIO."""
    world = World({**CONFIG, **(config or {})}, agent=False, works=True)
    world.inner.installed.add("vioscsi")
    assert run(world, replace(WISHES, switch_without_proof=True)).state is State.NEEDS_VERDICT
    return world


def test_a_disk_that_would_stay_in_two_slots_is_not_taken_back() -> None:
    """Not even the phase is written, and the snapshot stays."""
    world = on_probation()
    world.stop()
    world.config["sata3"] = world.config["scsi1"]
    before, seen, snapshots = dict(world.config), len(world.history), dict(world.snapshots)
    end = run(world, replace(WISHES, verdict="roll_back"))
    assert (end.state, end.reason) == (
        State.STUCK,
        "tank:vm-122-disk-1 is in two slots; detach it from one of them, then run again",
    )
    assert (world.config, world.history[seen:], world.snapshots) == (before, [], snapshots)
    del world.config["sata3"]
    assert run(world, replace(WISHES, verdict="roll_back")).state is State.ROLLED_BACK


def test_a_disk_in_two_slots_keeps_the_snapshot_of_what_is_proven() -> None:
    world = on_probation()
    memory = Memory()
    wishes = replace(WISHES, verdict="commit")
    memory = world.perform(next_step(world.situation(wishes, memory)), world.situation(wishes, memory))
    world.stop()
    world.config["sata3"] = world.config["scsi1"]
    end = run(world, wishes)
    assert end.state is State.STUCK
    assert "tank:vm-122-disk-1 is in two slots" in end.reason
    assert world.snapshots


def test_volumes_that_are_gone_are_told_before_the_phase_is_written() -> None:
    world = on_probation()
    world.stop()
    del world.config["scsi0"], world.config["scsi1"]
    before, seen = dict(world.config), len(world.history)
    end = run(world, replace(WISHES, verdict="roll_back"))
    assert end.state is State.STUCK
    assert end.reason.startswith("local-lvm:vm-122-disk-0, tank:vm-122-disk-1 are in no slot and not unused any")
    assert "somebody has moved or removed them; put them back" in end.reason
    assert (world.config, world.history[seen:]) == (before, [])
