# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_power against the lab: what is done, what is waited for, what is said when time runs out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_power import GuestPower, power_spec
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from e2e.kit import converge, run_work
from lab import Lab

DISK = {"scsi0": "local-lvm:vm-{vmid}-disk-0,size=4M"}


def seed(vmid: int, **words: Any) -> dict[str, Any]:
    config = {key: text.format(vmid=vmid) for key, text in DISK.items()}
    return {"vmid": vmid, "name": f"g{vmid}", **words, "config": {**config, **words.get("config", {})}}


GUESTS = [
    seed(100),
    seed(101, running=True),
    seed(102, running=True, agent={}),
    seed(103, running=True, pending={"memory": "1024"}),
    seed(104, running=True, config={"agent": "1"}),
    seed(105, running=True, config={"sata0": "local-lvm:vm-105-disk-1,size=4M"}, pending={"delete": "!sata0"}),
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    users = {
        "root@pam": {"tokens": {"test": {"privsep": False}}},
        "op@pve": {"tokens": {"t": {"privsep": False}}},
    }
    more = {
        "users": users,
        "roles": {"Op": ["VM.Audit", "VM.PowerMgmt"]},
        "acl": [{"path": "/vms", "role": "Op", "to": "op@pve"}],
    }
    with Lab(tmp_path, {"guests": GUESTS, "files": {}, **more}, time_scale=0.01) as one:
        yield one


def power(lab: Lab, vmid: int, state: str, **params: Any) -> Result:
    return run_work(lab, GuestPower, power_spec(), vmid=vmid, state=state, **params)


def runs(lab: Lab, vmid: int) -> bool:
    return lab.guest(vmid).running is not None


def pid(lab: Lab, vmid: int) -> int:
    running = lab.guest(vmid).running
    assert running is not None
    return running.pid


def posts(lab: Lab) -> list[str]:
    return [request.path.rpartition("/")[2] for request in lab.writes("/status/")]


@pytest.mark.parametrize(
    ("vmid", "params", "steps", "method", "runs_after"),
    [
        (100, {"state": "started"}, ["start"], None, True),
        (101, {"state": "stopped"}, ["shutdown"], "acpi", False),
        (102, {"state": "stopped"}, ["shutdown"], "agent", False),
        (104, {"state": "stopped"}, ["shutdown"], "acpi", False),  # enabled, and nobody answers
        (100, {"state": "restarted"}, ["start"], None, True),
        (101, {"state": "restarted"}, ["reboot"], "acpi", True),
        (103, {"state": "restarted", "if_pending": True}, ["reboot"], "acpi", True),
        (101, {"state": "restarted", "force_stop": True}, ["shutdown", "start"], "acpi", True),
    ],
)
def test_steps(
    lab: Lab, vmid: int, params: dict[str, Any], steps: list[str], method: str | None, runs_after: bool
) -> None:
    was = pid(lab, vmid) if runs(lab, vmid) else None
    check = power(lab, vmid, **params, check=True)
    assert posts(lab) == []
    real = power(lab, vmid, **params)
    assert (real.failure, real.changed, real.warnings) == (None, True, [])
    assert posts(lab) == steps
    assert real.data["steps"] == steps
    assert real.data["method"] == method
    assert runs(lab, vmid) is runs_after
    assert real.data["status"] == ("running" if runs_after else "stopped")
    if runs_after:
        assert pid(lab, vmid) != was
    assert (check.changed, check.diff) == (real.changed, real.diff)
    for key in ("vmid", "name", "node", "before", "status", "steps", "restart_required"):
        assert check.data[key] == real.data[key], key
    if params["state"] != "restarted" or params.get("if_pending"):
        again = power(lab, vmid, **params)
        assert (again.failure, again.changed, again.diff, again.data["steps"]) == (None, False, "", [])
        assert posts(lab) == steps


def test_diff_says_what_is_taken_up(lab: Lab) -> None:
    assert power(lab, 103, "restarted", if_pending=True, check=True).diff == (
        "g103 (103 on pve1, running)\n  ~ shut down and start again\n  ~ takes up memory\n"
    )
    assert power(lab, 103, "started").data["restart_required"] == ["memory"]
    assert power(lab, 103, "restarted", if_pending=True).data["restart_required"] == []
    assert lab.config(103)["memory"] == "1024"


def test_by_name(lab: Lab) -> None:
    found = run_work(lab, GuestPower, power_spec(), name="g100", state="started")
    assert found.data["vmid"] == 100
    assert run_work(lab, GuestPower, power_spec(), name="nosuch", state="started").failure == (
        "nosuch: there is no such guest, or the user may not see it (right VM.Audit)"
    )


def test_volumes_that_go_with_the_stop_are_named(lab: Lab) -> None:
    stopped = power(lab, 105, "stopped")
    assert stopped.warnings == [
        "g105 (105 on pve1): sata0: its deletion waits; the guest's stop or start destroys local-lvm:vm-105-disk-1"
    ]
    assert "local-lvm:vm-105-disk-1" not in lab.volumes()


def test_halted_guest_is_resumed(lab: Lab) -> None:
    running = lab.guest(101).running
    assert running is not None
    running.status = "paused"
    refused = power(lab, 101, "stopped")
    assert refused.failure is not None
    assert "it is halted (paused), and so can't shut down" in refused.failure
    assert posts(lab) == []
    real = power(lab, 101, "started")
    assert (real.data["before"], real.data["status"], real.data["steps"]) == ("running, paused", "running", ["resume"])
    running.status = "paused"
    forced = power(lab, 101, "stopped", force_stop=True)
    assert (forced.data["steps"], forced.data["method"]) == (["stop"], "stop")
    assert not runs(lab, 101)


# ---- guests that do not do it


def test_deaf_guest(lab: Lab) -> None:
    """It has its time; then the plug stays in, unless it may be pulled."""
    lab.faults.deaf.add(102)
    deaf = power(lab, 102, "stopped", shutdown_timeout=5)
    assert deaf.failure == (
        "g102 (102 on pve1): it was asked through its guest agent to shut down and did not within 5 s; last seen: "
        "running; look at its console, give it a longer shutdown_timeout, or write force_stop: true "
        "(VM quit/powerdown failed - got timeout)"
    )
    assert not deaf.changed
    assert runs(lab, 102)
    forced = power(lab, 102, "stopped", shutdown_timeout=5, force_stop=True)
    assert (forced.failure, forced.data["method"]) == (None, "stop")
    assert not runs(lab, 102)
    assert posts(lab) == ["shutdown", "shutdown", "stop"]


def test_deaf_guest_is_restarted_by_force(lab: Lab) -> None:
    lab.faults.deaf.add(101)
    was = pid(lab, 101)
    deaf = power(lab, 101, "restarted", shutdown_timeout=5)
    assert deaf.failure is not None
    assert "it was asked by the ACPI power button to shut down and did not within 5 s" in deaf.failure
    assert pid(lab, 101) == was
    forced = power(lab, 101, "restarted", shutdown_timeout=5, force_stop=True)
    assert (forced.failure, forced.data["method"], forced.data["status"]) == (None, "stop", "running")
    assert pid(lab, 101) != was


def test_managed_by_ha(lab: Lab) -> None:
    lab.faults.ha.add(101)
    refused = power(lab, 101, "stopped")
    assert refused.failure is not None
    assert "it is managed by HA, which stops a guest by force when it does not shut down in time" in refused.failure
    assert posts(lab) == []
    assert power(lab, 101, "stopped", force_stop=True).failure is None
    assert not runs(lab, 101)


def test_disks_are_not_changed_by_way_of_ha(lab: Lab) -> None:
    """guest_disks promises to stop no guest by force, and HA would."""
    lab.faults.ha.add(101)
    moved = [{"slot": "sata1", "moved_from": "scsi0"}]
    refused = converge(lab, {"vmid": 101, "disks": moved}, power="stop_if_needed")
    assert refused.failure is not None
    assert (
        "the guest would have to be shut down, and it is managed by HA, which stops a guest by force" in refused.failure
    )
    assert lab.writes() == []
    assert runs(lab, 101)


def test_guest_that_goes_off_after_its_time(lab: Lab) -> None:
    """PVE has given the reboot up and will not start it, so it is started here."""
    lab.faults.task_errors["qmreboot"] = ["VM quit/powerdown failed - got timeout"]
    original = lab.faults.task

    @contextmanager
    def goes_off(kind: str) -> Iterator[None]:
        if kind == "qmreboot":
            lab.guest(101).running = None
        with original(kind):
            yield

    lab.faults.task = goes_off  # type: ignore[method-assign]
    late = power(lab, 101, "restarted")
    assert (late.failure, late.data["status"]) == (None, "running")
    assert posts(lab) == ["reboot", "start"]


def test_guest_that_does_not_come_up_again(lab: Lab) -> None:
    lab.faults.task_errors["qmstart"] = ["start failed: QEMU exited with code 1"]
    lost = power(lab, 101, "restarted", wait_timeout=1)
    assert lost.failure == (
        "g101 (101 on pve1): it does not run within 1 s; last seen: stopped, its last task that failed: "
        "qmstart: start failed: QEMU exited with code 1"
    )
    assert lost.changed
    assert lost.data["steps"] == ["reboot"]


def test_start_that_fails_says_why(lab: Lab) -> None:
    lab.faults.task_errors["qmstart"] = ["start failed: QEMU exited with code 1"]
    failed = power(lab, 100, "started")
    assert failed.failure is not None
    assert "g100 (100 on pve1): the task qmstart of 100 on pve1 failed: start failed: QEMU exited" in failed.failure
    assert not failed.changed


# ---- the agent


def test_wait_for_the_agent(lab: Lab) -> None:
    """It answers only after some asking."""
    lab.faults.agent_down.add(102)
    timer = threading.Timer(0.3, lambda: lab.faults.agent_down.discard(102))
    timer.start()
    waited = power(lab, 102, "started", wait_for="agent", wait_timeout=60)
    assert (waited.failure, waited.changed, waited.data["agent_answers"]) == (None, False, True)
    assert len([request for request in lab.requests if request.path.endswith("/agent/ping")]) > 1


def test_agent_that_never_answers(lab: Lab) -> None:
    silent = power(lab, 104, "started", wait_for="agent", wait_timeout=1)
    assert silent.failure == (
        "g104 (104 on pve1): its guest agent does not answer within 1 s; last seen: running, the guest agent does not "
        "answer; install qemu-guest-agent in the guest, or look whether its service runs there"
    )
    assert silent.data["agent_answers"] is False


def test_guest_that_stops_while_its_agent_is_waited_for(lab: Lab) -> None:
    lab.faults.agent_down.add(102)

    def stop() -> None:
        lab.guest(102).running = None

    timer = threading.Timer(0.3, stop)
    timer.start()
    gone = power(lab, 102, "started", wait_for="agent", wait_timeout=60)
    assert gone.failure == (
        "g102 (102 on pve1): its guest agent does not answer; last seen: stopped, the guest does not run, so nobody "
        "answers inside"
    )


def test_without_the_right_to_ask_the_agent(lab: Lab) -> None:
    """Waiting for it is refused by PVE at once, with the right's name; a shutdown works, and does not say how."""
    asked = power(lab, 102, "started", wait_for="agent", tokenid="op@pve!t")
    assert asked.failure is not None
    assert "VM.GuestAgent.Audit" in asked.failure
    stopped = power(lab, 102, "stopped", tokenid="op@pve!t")
    assert (stopped.failure, stopped.changed, stopped.data["method"]) == (None, True, None)


# ---- trouble on the way


@pytest.mark.parametrize(
    ("vmid", "state", "path", "runs_after"),
    [(100, "started", "start", True), (101, "stopped", "shutdown", False), (101, "restarted", "reboot", True)],
)
def test_lost_answer(lab: Lab, vmid: int, state: str, path: str, runs_after: bool) -> None:
    """What was done is found out, and not done twice."""
    lab.faults.lose_answer("POST", f"/status/{path}$")
    done = power(lab, vmid, state)
    assert (done.failure, done.changed) == (None, True)
    assert posts(lab) == [path]
    assert runs(lab, vmid) is runs_after


def test_no_worker(lab: Lab) -> None:
    """PVE could not start the task: it is asked again."""
    lab.faults.no_worker["qmstart"] = 2
    assert power(lab, 100, "started").failure is None
    assert posts(lab) == ["start"] * 3


def test_somebody_else_is_quicker(lab: Lab) -> None:
    lab.faults.task_seconds["qmstart"] = 50
    others = threading.Thread(target=lambda: power(lab, 100, "started"))
    others.start()
    while not posts(lab):
        time.sleep(0.01)
    mine = power(lab, 100, "started")
    others.join()
    assert (mine.failure, mine.changed) == (None, False)
    assert posts(lab) == ["start"]


def test_time_is_over_and_a_later_run_picks_up(lab: Lab) -> None:
    lab.faults.task_seconds["qmstart"] = 150
    late = power(lab, 100, "started", task_timeout=1)
    assert late.failure is not None
    assert "UPID:pve1:" in late.data["upid"]
    later = power(lab, 100, "started")
    assert (later.failure, later.changed) == (None, False)
    assert posts(lab) == ["start"]


def test_bad_seconds(lab: Lab) -> None:
    assert power(lab, 100, "started", wait_timeout=0).failure == "wait_timeout=0: it takes one second at least"
