# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a guest run, stop or begin anew, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import Guest, PendingRow, read_guest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.power import (
    STATES,
    WAITS,
    Power,
    Step,
    Wish,
    agent_enabled,
    plan_power,
)

OFF = Power(running=False, qemu="stopped")
ON = Power(running=True, qemu="running", pid=7)
PAUSED = Power(running=True, qemu="paused", pid=7)
FULL = Power(running=True, qemu="io-error", pid=7)
BY_HA = Power(running=True, qemu="running", pid=7, ha=True)


def guest(*rows: PendingRow, power: Power = ON, template: bool = False, **keys: str) -> Guest:
    all_rows = [PendingRow(key, text) for key, text in keys.items()] + list(rows)
    return read_guest(100, "web", "pve1", all_rows, running=power.running, template=template)


WAITING = PendingRow("memory", "512", "1024")


@pytest.mark.parametrize(
    ("power", "wish", "steps"),
    [
        (OFF, Wish("started"), [Step.START]),
        (ON, Wish("started"), []),
        (PAUSED, Wish("started"), [Step.RESUME]),
        (FULL, Wish("started"), [Step.RESUME]),
        (ON, Wish("started", wait_for="running"), []),
        (OFF, Wish("stopped"), []),
        (ON, Wish("stopped"), [Step.SHUTDOWN]),
        (ON, Wish("stopped", force_stop=True), [Step.SHUTDOWN]),
        (PAUSED, Wish("stopped", force_stop=True), [Step.STOP]),
        (BY_HA, Wish("stopped", force_stop=True), [Step.SHUTDOWN]),
        (OFF, Wish("restarted"), [Step.START]),
        (ON, Wish("restarted"), [Step.REBOOT]),
        (BY_HA, Wish("restarted"), [Step.REBOOT]),
        (ON, Wish("restarted", force_stop=True), [Step.SHUTDOWN, Step.START]),
        (PAUSED, Wish("restarted", force_stop=True), [Step.STOP, Step.START]),
        (ON, Wish("restarted", if_pending=True), []),
        (OFF, Wish("restarted", if_pending=True), []),
    ],
)
def test_steps(power: Power, wish: Wish, steps: list[Step]) -> None:
    plan = plan_power(guest(power=power), power, wish)
    assert plan.refusals == ()
    assert list(plan.steps) == steps


def test_restart_if_pending() -> None:
    wish = Wish("restarted", if_pending=True)
    assert plan_power(guest(WAITING), ON, wish).steps == (Step.REBOOT,)
    assert plan_power(guest(PendingRow("sata0", "local:1/a.raw", None, 1)), ON, wish).steps == (Step.REBOOT,)
    assert plan_power(guest(WAITING, power=OFF), OFF, wish).steps == ()


@pytest.mark.parametrize(
    ("power", "wish", "keys", "words"),
    [
        (ON, Wish("started", if_pending=True), {}, "web (100 on pve1): if_pending=true: it says nothing about state="),
        (ON, Wish("restarted", if_pending=True, force_stop=True), {}, "force_stop=true: with if_pending, a run that"),
        (OFF, Wish("started", force_stop=True), {}, "force_stop=true: state=started stops nothing; remove it"),
        (ON, Wish("stopped", wait_for="agent"), {"agent": "1"}, "wait_for=agent: a stopped guest never gets there"),
        (OFF, Wish("started"), {"template": "1"}, "state=started: it is a template; clone it, and start the clone"),
        (OFF, Wish("started"), {"lock": "backup"}, "it is locked (backup); wait until the job that locked it ends"),
        (ON, Wish("stopped"), {"lock": "backup"}, "it is locked (backup)"),
        (ON, Wish("restarted"), {"lock": "suspended"}, "it is locked (suspended)"),
        (PAUSED, Wish("stopped"), {}, "state=stopped: it is halted (paused), and so can't shut down; resume it with"),
        (FULL, Wish("restarted"), {}, "state=restarted: it is halted (io-error)"),
        (BY_HA, Wish("stopped"), {}, "it is managed by HA, which stops a guest by force when it does not shut down"),
        (OFF, Wish("started", wait_for="agent"), {}, "wait_for=agent: its configuration does not enable the guest"),
        (ON, Wish("started", wait_for="agent"), {"agent": "0"}, "wait_for=agent: its configuration does not enable"),
    ],
)
def test_refused(power: Power, wish: Wish, keys: dict[str, str], words: str) -> None:
    plan = plan_power(guest(power=power, **keys), power, wish)
    assert [str(refusal) for refusal in plan.refusals if words in str(refusal)], plan.refusals
    assert plan.steps == ()


def test_what_is_wrong_is_told_together() -> None:
    wish = Wish("stopped", if_pending=True, wait_for="agent")
    plan = plan_power(guest(lock="backup"), BY_HA, wish)
    assert len(plan.refusals) == 5


def test_a_guest_that_was_suspended_to_disk_can_be_started() -> None:
    assert plan_power(guest(power=OFF, lock="suspended"), OFF, Wish("started")).steps == (Step.START,)


def test_a_lock_does_not_matter_when_nothing_is_to_be_done() -> None:
    assert plan_power(guest(lock="backup"), ON, Wish("started")).refusals == ()


@pytest.mark.parametrize(
    ("text", "enabled"),
    [(None, False), ("0", False), ("1", True), ("enabled=1", True), ("1,fstrim_cloned_disks=1", True),
     ("enabled=0,type=isa", False), ("type=isa,enabled=1", True)],
)  # fmt: skip
def test_agent_enabled(text: str | None, enabled: bool) -> None:
    assert agent_enabled(Guest(1, "a", "n", agent=text)) is enabled


def test_volumes_that_go_with_the_stop_are_named() -> None:
    rows = [
        PendingRow("sata0", "local:100/vm-100-disk-0.raw,size=1G", None, 2),
        PendingRow("sata1", "local:100/vm-100-disk-1.raw,size=1G", None, 1),
    ]
    plan = plan_power(guest(*rows), ON, Wish("stopped"))
    assert plan.warnings == (
        "web (100 on pve1): sata0: its deletion waits; the guest's stop or start destroys local:100/vm-100-disk-0.raw",
    )
    assert plan_power(guest(*rows), ON, Wish("started")).warnings == ()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("power", [OFF, ON, PAUSED, FULL, BY_HA])
def test_laws(state: str, power: Power) -> None:
    """Whatever is asked: steps or refusals, never both; force is never used without leave; a second run is quiet."""
    for pending, force, wait in itertools.product((False, True), (False, True), (None, *WAITS)):
        wish = Wish(state, pending, force, wait)
        plan = plan_power(guest(WAITING, power=power, agent="1"), power, wish)
        assert not (plan.steps and plan.refusals)
        assert force or Step.STOP not in plan.steps
        assert force or not (power.ha and Step.SHUTDOWN in plan.steps)
        after = OFF if state == "stopped" else ON
        again = plan_power(guest(power=after, agent="1"), after, wish)
        if plan.steps and (state != "restarted" or pending):
            assert again.steps == ()
