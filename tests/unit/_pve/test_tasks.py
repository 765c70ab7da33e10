# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for PVE's tasks, with a server that is real and a clock that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve import tasks
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import ApiError, Client, path
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.tasks import (
    Deadline,
    TaskFailedError,
    TaskOutcome,
    TaskTimeoutError,
)
from fakepve import FakePve
from unit._pve.conftest import Connect

UPID = "UPID:pve2:0000C0DE:0001E240:6B02CE37:qmmove:100:root@pam:"
CONFIG = path("nodes", "pve1", "qemu", 100, "config")
LOCKED = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"


@dataclass
class Clock:
    """Time that passes only while somebody sleeps; then what was planned for it happens."""

    now: float = 1000.0
    naps: list[float] = field(default_factory=list)
    plan: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        due = [what for when, what in self.plan if when <= self.now]
        self.plan = [(when, what) for when, what in self.plan if when > self.now]
        for what in due:
            what()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.plan.append((self.now + seconds, what))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(fakepve: FakePve, connect: Connect, fakepve_cafile: str) -> Client:
    fakepve.add_node("pve2")
    fakepve.add_vm(100, "vm1")
    return connect(fakepve.port, ca_path=fakepve_cafile)


def running(fakepve: FakePve, upid: str = UPID, subject: str = "100") -> Callable[..., None]:
    """A task that runs until the function that comes back is called with its exit status."""
    record = {"upid": upid, "node": upid.split(":")[1], "pid": 1, "pstart": 1, "starttime": 1, "type": "qmmove"}
    record |= {"id": subject, "user": "root@pam", "status": "running", "log": ["create full clone of drive scsi0"]}
    fakepve.tasks[upid] = record
    fakepve.tasklog.append(record)

    def end(exit_status: str, *log: str) -> None:
        record.update(status="stopped", exitstatus=exit_status, endtime=2, log=[*record["log"], *log])

    return end


def test_deadline(clock: Clock) -> None:
    deadline = Deadline(10, clock)
    assert (deadline.elapsed, deadline.remaining, deadline.passed) == (0, 10, False)
    clock.now += 4
    assert (deadline.elapsed, deadline.remaining, deadline.passed) == (4, 6, False)
    clock.now += 7
    assert (deadline.elapsed, deadline.remaining, deadline.passed) == (11, 0, True)


def test_task_that_has_ended(fakepve: FakePve, client: Client, clock: Clock) -> None:
    running(fakepve)("OK", "TASK OK")
    assert tasks.wait(client, UPID, Deadline(10, clock), clock.sleep) == TaskOutcome(UPID, "OK")
    assert clock.naps == []
    assert client.calls["GET"] == 1


def test_task_that_ends(fakepve: FakePve, client: Client, clock: Clock) -> None:
    end = running(fakepve)
    clock.after(100, lambda: end("OK", "TASK OK"))
    assert tasks.wait(client, UPID, Deadline(1000, clock), clock.sleep).exit_status == "OK"
    assert clock.naps[:5] == pytest.approx([0.05, 0.075, 0.1125, 0.16875, 0.253125])
    assert clock.naps[5] == pytest.approx(0.3)
    assert max(clock.naps) == pytest.approx(2)
    elapsed = 0.0
    for nap in clock.naps:
        assert nap <= max(0.3, elapsed / 10) + 1e-9
        elapsed += nap
    assert elapsed <= 102


def test_warnings_are_a_success(fakepve: FakePve, client: Client, clock: Clock) -> None:
    running(fakepve)("WARNINGS: 1", "WARN: Interface 'tap374i1' not attached to any bridge.", "TASK WARNINGS: 1")
    outcome = tasks.wait(client, UPID, Deadline(10, clock), clock.sleep)
    assert outcome.exit_status == "WARNINGS: 1"
    assert outcome.warnings == ("Interface 'tap374i1' not attached to any bridge.",)
    assert outcome.log_tail[-1] == "TASK WARNINGS: 1"


def test_failure(fakepve: FakePve, client: Client, clock: Clock) -> None:
    reason = "storage migration failed: no space left"
    running(fakepve)(reason, *(f"line {number}" for number in range(200)), f"TASK ERROR: {reason}")
    with pytest.raises(TaskFailedError) as failure:
        tasks.wait(client, UPID, Deadline(10, clock), clock.sleep)
    error = failure.value
    assert (error.upid, error.exit_status, error.lock_timeout) == (UPID, reason, False)
    assert error.log_tail == (*(f"line {number}" for number in range(191, 200)), f"TASK ERROR: {reason}")
    assert str(error).startswith(f"the task qmmove of 100 on pve2 failed: {reason}; its log ends: line 191 | ")
    assert str(error).endswith(f"({UPID})")


@pytest.mark.parametrize(
    ("exit_status", "lock_timeout", "digest_mismatch"),
    [
        (LOCKED, True, False),
        ("checksum mismatch (file change by other user?)", False, True),
        ("disk 'scsi9' does not exist", False, False),
        ("400 Parameter verification failed.\nscsi1: invalid format", False, False),
        ("unexpected status", False, False),
    ],
)
def test_failures_say_what_may_be_done(exit_status: str, lock_timeout: bool, digest_mismatch: bool) -> None:
    error = TaskFailedError(UPID, exit_status, ())
    assert (error.lock_timeout, error.digest_mismatch) == (lock_timeout, digest_mismatch)
    assert "\n" not in str(error)


def test_deadline_comes_first(fakepve: FakePve, client: Client, clock: Clock) -> None:
    end = running(fakepve)
    with pytest.raises(TaskTimeoutError) as timeout:
        tasks.wait(client, UPID, Deadline(30, clock), clock.sleep)
    error = timeout.value
    assert (error.upid, error.log_tail) == (UPID, ("create full clone of drive scsi0",))
    assert error.seconds == pytest.approx(30)
    assert sum(clock.naps) == pytest.approx(30)
    assert "has not ended after 30 s" in str(error)
    assert "it goes on, and a later run picks up" in str(error)
    end("OK")
    assert tasks.wait(client, UPID, Deadline(0, clock), clock.sleep).exit_status == "OK"


def test_waiting_outlives_the_connection(fakepve: FakePve, client: Client, clock: Clock) -> None:
    """pveproxy restarts, or the task's node leaves the cluster for a while; the task goes on."""
    end = running(fakepve)
    clock.after(1, lambda: fakepve.set_node_offline("pve2"))
    clock.after(20, lambda: end("OK"))
    clock.after(30, lambda: fakepve.set_node_offline("pve2", offline=False))
    assert tasks.wait(client, UPID, Deadline(60, clock), clock.sleep).exit_status == "OK"
    assert sum(clock.naps) >= 30


def test_waiting_ends_when_pve_refuses_to_say(fakepve: FakePve, client: Client, clock: Clock) -> None:
    with pytest.raises(ApiError, match="unable to parse worker upid"):
        tasks.wait(client, UPID, Deadline(60, clock), clock.sleep)
    with pytest.raises(DiskwrightError, match="not a UPID"):
        tasks.wait(client, "qmmove", Deadline(60, clock), clock.sleep)


def test_log_that_cannot_be_read_hides_nothing(fakepve: FakePve, client: Client, clock: Clock) -> None:
    running(fakepve)("it broke")
    fakepve.fail("GET", "/log", 403, "Permission check failed")
    with pytest.raises(TaskFailedError, match="failed: it broke \\(UPID") as failure:
        tasks.wait(client, UPID, Deadline(10, clock), clock.sleep)
    assert failure.value.log_tail == ()


def test_run_waits_for_the_task(fakepve: FakePve, client: Client, clock: Clock) -> None:
    outcome = tasks.run(client, "POST", CONFIG, {"name": "vm2"}, Deadline(10, clock), clock.sleep)
    assert outcome.upid.startswith("UPID:pve1:")
    assert outcome.exit_status == "OK"
    assert fakepve.vm(100).config["name"] == "vm2"


def test_run_of_a_call_without_a_task(fakepve: FakePve, client: Client, clock: Clock) -> None:
    assert tasks.run(client, "PUT", CONFIG, {"name": "vm2"}, Deadline(10, clock)) == TaskOutcome("", "OK")
    outcome = tasks.run(client, "GET", CONFIG, None, Deadline(10, clock))
    assert isinstance(outcome.data, dict)
    assert outcome.data["name"] == "vm2"


@pytest.mark.parametrize("method", ["PUT", "POST"])  # one says it in the answer, the other in the task
def test_until_unlocked(method: str, fakepve: FakePve, client: Client, clock: Clock) -> None:
    vm = fakepve.vm(100)
    vm.lock_holder = "backup"
    clock.after(3, lambda: fakepve.release(vm, "backup"))
    deadline = Deadline(60, clock)

    def rename() -> TaskOutcome:
        return tasks.run(client, method, CONFIG, {"name": "vm2"}, deadline, clock.sleep)

    assert tasks.until_unlocked(rename, deadline, clock.sleep).exit_status == "OK"
    assert vm.config["name"] == "vm2"
    assert client.calls[method] > 2


@pytest.mark.parametrize(("method", "error"), [("PUT", ApiError), ("POST", TaskFailedError)])
def test_lock_that_stays(
    method: str, error: type[ApiError | TaskFailedError], fakepve: FakePve, client: Client, clock: Clock
) -> None:
    fakepve.vm(100).lock_holder = "backup"
    deadline = Deadline(5, clock)
    with pytest.raises(error, match="can't lock file") as refusal:
        tasks.until_unlocked(
            lambda: tasks.run(client, method, CONFIG, {"name": "vm2"}, deadline, clock.sleep), deadline, clock.sleep
        )
    assert refusal.value.lock_timeout
    assert clock.now == pytest.approx(1005)


def test_other_errors_are_not_a_matter_of_waiting(fakepve: FakePve, client: Client, clock: Clock) -> None:
    fakepve.snapshot_lock(100)
    with pytest.raises(ApiError, match="VM is locked \\(snapshot\\)"):
        tasks.until_unlocked(lambda: client.put(CONFIG, {"name": "vm2"}), Deadline(60, clock), clock.sleep)
    assert clock.naps == []


def test_active(fakepve: FakePve, client: Client) -> None:
    upids = [f"UPID:pve1:0000C0DE:0001E240:6B02CE3{n}:qmmove:{id_}:root@pam:" for n, id_ in enumerate((100, 100, 101))]
    running(fakepve, upids[0])
    running(fakepve, upids[1])("OK")
    running(fakepve, upids[2], "101")
    assert tasks.active(client, "pve1", 100) == [upids[0]]
    assert tasks.active(client, "pve2", 100) == []


def test_disks_on_their_way_from_one_guest_to_another(fakepve: FakePve, client: Client) -> None:
    """PVE lists such a task under neither guest's number."""
    ids = ("100-scsi1>101-scsi2", "102-unused0>100-sata1", "102-scsi0>103-scsi0", "100", "1001-scsi1>1012-scsi2")
    upids = [f"UPID:pve1:0000C0DE:0001E240:6B02CE4{n}:qmmove:{id_}:root@pam:" for n, id_ in enumerate(ids)]
    for upid, id_ in zip(upids, ids, strict=True):
        running(fakepve, upid, id_)
    assert tasks.reassigning(client, "pve1", [100]) == upids[:2]
    assert tasks.reassigning(client, "pve1", [101, 103]) == [upids[0], upids[2]]
    assert tasks.reassigning(client, "pve1", [104]) == []
