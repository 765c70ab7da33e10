# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Others work on the same guests, answers get lost, tasks are slow, fail or warn: nothing is done twice or blindly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.actions import Action
from e2e import rig
from lab import Lab
from lab.server import Request

VMID = 100
GUEST = {"vmid": VMID, "name": "db1", "config": {"scsi0": "local:100/vm-100-disk-0.raw,size=8M"}}
NEW = {"slot": "scsi1", "storage": "local", "size": "4M"}
OLD = {"vmid": 200, "name": "old1", "config": {"scsi1": "local:200/vm-200-disk-0.raw,iothread=1,size=8M"}}
TAKE = {"slot": "scsi2", "moved_from": "scsi1", "moved_from_guest": "old1"}
Make = Callable[..., Lab]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A lab with the guests that are named, or with one."""
    with ExitStack() as stack:

        def function(*guests: Mapping[str, Any]) -> Lab:
            return stack.enter_context(rig.started(tmp_path / "lab", guests or [GUEST]))

        yield function


def layout(*disks: Mapping[str, Any], vmid: int = VMID, **words: Any) -> Any:
    return rig.declared({"vmid": vmid, "disks": disks, **words})


class Meddler(list[Request]):
    """The lab's log, which changes a guest as somebody else would after certain requests."""

    def __init__(self, lab: Lab, change: Callable[[Request], None]) -> None:
        super().__init__()
        self._change = change
        lab.server.log = self

    def append(self, request: Request) -> None:
        super().append(request)
        self._change(request)


# ---- somebody else's change


def test_a_change_between_plan_and_write_leads_to_one_new_plan(make: Make) -> None:
    lab = make()
    run = rig.prepared(lab, layout(NEW))
    lab.change(VMID, onboot="1")
    run.execute()
    assert not rig.messages(run)
    assert ["planned anew" in text for text in rig.warnings(run)] == [True]
    assert lab.config(VMID)["onboot"] == "1"
    assert lab.volumes() == ["local:100/vm-100-disk-0.raw", "local:100/vm-100-disk-1.raw"]
    rig.assert_settled(lab, layout(NEW))


def test_the_new_plan_is_for_what_the_other_one_has_made(make: Make) -> None:
    """Somebody else has put a disk into the slot meanwhile: it is not replaced."""
    lab = make()
    run = rig.prepared(lab, layout(NEW))
    rig.connect(lab).put(f"/nodes/pve1/qemu/{VMID}/config", {"scsi1": "tank:0.00390625"})
    seen = len(lab.writes())
    run.execute()
    config = lab.config(VMID)
    assert config["scsi1"].startswith("local:"), "storage: local is declared, so the disk moves there"
    assert rig.unused(config) == ["tank:vm-100-disk-0"]
    assert [request.path.rpartition("/")[2] for request in lab.writes()[seen:]] == ["move_disk"] or not rig.messages(
        run
    )


@pytest.mark.parametrize("vmid", [VMID, 200])
def test_a_change_of_either_guest_leads_to_one_new_plan(make: Make, vmid: int) -> None:
    lab = make(GUEST, OLD)
    run = rig.prepared(lab, layout(TAKE))
    lab.change(vmid, onboot="1")
    run.execute()
    assert not rig.messages(run)
    assert ["planned anew" in text for text in rig.warnings(run) if "iothread" not in text] == [True]
    assert lab.config(vmid)["onboot"] == "1"
    assert lab.volumes() == ["local:100/vm-100-disk-0.raw", "local:100/vm-100-disk-1.raw"]
    rig.assert_settled(lab, layout(TAKE))


@pytest.mark.parametrize("vmid", [VMID, 200])
def test_changes_of_either_guest_without_end_are_an_error(make: Make, vmid: int) -> None:
    lab = make(GUEST, OLD)
    run = rig.prepared(lab, layout(TAKE))
    times = iter(range(1000))
    lab.change(vmid, startup=f"order={next(times)}")

    def meddle(request: Request) -> None:
        if request.path.endswith(f"/{vmid}/pending"):
            lab.change(vmid, startup=f"order={next(times)}")

    Meddler(lab, meddle)
    run.execute()
    assert "planned anew once already" in rig.messages(run)
    assert len(lab.writes()) == 2
    assert lab.volumes() == ["local:100/vm-100-disk-0.raw", "local:200/vm-200-disk-0.raw"]


def test_two_runs_that_take_the_same_disk(make: Make) -> None:
    lab = make(GUEST, OLD)
    runs = [rig.prepared(lab, layout({**TAKE, "slot": slot})) for slot in ("scsi2", "sata3")]
    threads = [threading.Thread(target=run.execute) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (text,) = filter(None, map(rig.messages, runs))
    assert "scsi1 of old1 (200 on pve1) holds a disk" in text or "planned anew once already" in text
    assert lab.volumes() == ["local:100/vm-100-disk-0.raw", "local:100/vm-100-disk-1.raw"]


@pytest.mark.parametrize("kind", ["config", "resize", "move_disk"])
def test_changes_without_end_are_an_error_that_says_so(make: Make, kind: str) -> None:
    wishes = {
        "config": NEW,
        "resize": {"slot": "scsi0", "size": "16M"},
        "move_disk": {"slot": "scsi0", "storage": "tank"},
    }
    lab = make()
    run = rig.prepared(lab, layout(wishes[kind]))
    times = iter(range(1000))
    lab.change(VMID, startup=f"order={next(times)}")

    def meddle(request: Request) -> None:
        if request.path.endswith("/pending"):
            lab.change(VMID, startup=f"order={next(times)}")

    Meddler(lab, meddle)
    run.execute()
    assert "planned anew once already" in rig.messages(run)
    assert "nobody else works on the guest" in rig.messages(run)
    assert len(lab.writes()) == 2
    assert lab.config(VMID)["scsi0"] == GUEST["config"]["scsi0"]  # type: ignore[index]
    assert lab.volumes() == ["local:100/vm-100-disk-0.raw"]


def test_the_lock_of_another_job_refuses(make: Make) -> None:
    lab = make({**GUEST, "lock": "backup"})
    run = rig.converged(lab, layout(NEW))
    assert "it is locked (backup)" in rig.messages(run)
    assert lab.writes() == []


# ---- a busy configuration


def hold(lab: Lab, seconds: float) -> threading.Thread:
    """Holds the guest's lock for so many PVE seconds, as a long task does."""
    held = threading.Event()

    def work() -> None:
        with lab.cluster.lock(VMID):
            held.set()
            lab.cluster.clock.sleep(seconds)

    thread = threading.Thread(target=work)
    thread.start()
    assert held.wait(10)
    return thread


@pytest.mark.parametrize("wish", [NEW, {"slot": "scsi0", "size": "16M"}, {"slot": "scsi0", "storage": "tank"}])
def test_a_busy_configuration_is_waited_for(make: Make, wish: dict[str, Any]) -> None:
    lab = make()
    run = rig.prepared(lab, layout(wish))
    thread = hold(lab, 35)
    run.execute()
    thread.join()
    assert not rig.messages(run)
    failed = [task for task in lab.cluster.tasks.on("pve1") if task.exit and "can't lock file" in task.exit]
    assert failed, "the lab let nobody wait"
    assert len(lab.volumes()) == (1 if wish.get("size") == "16M" else 2)
    rig.assert_settled(lab, layout(wish))


def test_a_busy_configuration_is_waited_for_no_longer_than_the_time_out(make: Make) -> None:
    lab = make()
    run = rig.prepared(lab, layout(NEW), timeout=0.3)
    thread = hold(lab, 300)
    run.execute()
    assert "can't lock file" in rig.messages(run) or "has not ended after" in rig.messages(run)
    thread.join()
    lab.cluster.tasks.settle()
    assert not rig.messages(rig.converged(lab, layout(NEW)))
    assert len(lab.volumes()) == 2


# ---- lost answers


LOST = {
    "create": ({}, NEW, "POST", "/config$"),
    "import": (
        {},
        {"slot": "scsi2", "storage": "tank", "import_from": "local:100/vm-100-disk-0.raw"},
        "POST",
        "/config$",
    ),
    "resize": ({}, {"slot": "scsi0", "size": "16M"}, "PUT", "/resize$"),
    "move": ({}, {"slot": "scsi0", "storage": "tank"}, "POST", "/move_disk$"),
    "switch": ({}, {"slot": "virtio1", "moved_from": "scsi0"}, "POST", "/config$"),
    "running switch": ({"running": True, "boot": " "}, {"slot": "virtio1", "moved_from": "scsi0"}, "POST", "/config$"),
    "reassign": ({}, TAKE, "POST", "/move_disk$"),
    "prepare": ({}, {**TAKE, "slot": "sata2"}, "POST", "/200/config$"),
    "shutdown": ({"running": True}, {"slot": "sata1", "moved_from": "scsi0"}, "POST", "/shutdown$"),
    "start": ({"running": True}, {"slot": "sata1", "moved_from": "scsi0"}, "POST", "/start$"),
}


@pytest.mark.parametrize("slow", [False, True], ids=["quick", "slow"])
@pytest.mark.parametrize("how", ["lost", "596"])
@pytest.mark.parametrize("name", LOST)
def test_a_lost_answer_is_looked_at_before_anything_is_repeated(make: Make, name: str, how: str, slow: bool) -> None:
    words, wish, method, where = LOST[name]
    config = {**GUEST["config"], **({"boot": words["boot"]} if "boot" in words else {})}  # type: ignore[dict-item]
    guest = {**GUEST, "config": config, "running": words.get("running", False), "contents": {"scsi0": "the system"}}
    others = [OLD] if "moved_from_guest" in wish else []
    lab = make(guest, *others)
    declared = layout(wish, power="stop_if_needed")
    run = rig.prepared(lab, declared)
    planned = run.jobs[0].plan
    assert planned is not None
    if slow:
        lab.faults.task_seconds |= dict.fromkeys(["qmconfig", "resize", "qmmove", "qmstart", "qmshutdown"], 8.0)
    if how == "lost":
        lab.faults.lose_answer(method, where)
    else:
        lab.faults.slow(method, where, 31)
    watch = rig.Watch(lab)
    run.execute()
    assert not rig.messages(run)
    assert watch.seen == []
    assert lab.config(VMID).get("description") is None
    assert len(lab.volumes()) == (2 if name in ("create", "import", "move") or others else 1)
    assert [text for text in rig.contents(lab).values() if text.startswith(b"the system")]
    outcome = run.jobs[0].outcome
    assert outcome is not None
    assert steps(outcome.done) == steps(planned.actions), "what was done counts as done"
    rig.assert_settled(lab, declared)


def steps(actions: Iterable[Action]) -> list[tuple[str, str]]:
    return sorted((action.verb, str(action.slot)) for action in actions)


@pytest.mark.parametrize("kind", ["qmconfig", "resize", "qmmove"])
def test_no_worker_is_looked_at_and_tried_again(make: Make, kind: str) -> None:
    wishes = {
        "qmconfig": NEW,
        "resize": {"slot": "scsi0", "size": "16M"},
        "qmmove": {"slot": "scsi0", "storage": "tank", "delete_source": True},
    }
    lab = make()
    lab.faults.no_worker[kind] = 2
    run = rig.converged(lab, layout(wishes[kind]))
    assert not rig.messages(run)
    assert len(lab.writes()) == 3
    assert len(lab.volumes()) == (2 if kind == "qmconfig" else 1)
    lab.faults.no_worker["qmconfig"] = 100
    assert "got no worker upid" in rig.messages(
        rig.converged(lab, layout({"slot": "scsi9", "storage": "tank", "size": "4M"}))
    )


def test_a_lost_answer_of_a_task_that_failed(make: Make) -> None:
    lab = make()
    lab.faults.task_errors["qmconfig"] = ["no space left"]
    lab.faults.task_seconds["qmconfig"] = 10
    lab.faults.lose_answer("POST", "/config$")
    run = rig.converged(lab, layout(NEW))
    assert "no space left" in rig.messages(run) or not rig.messages(run)
    assert len(lab.volumes()) <= 2
    assert not rig.messages(rig.converged(lab, layout(NEW)))
    assert len(lab.volumes()) == 2


# ---- tasks


def test_the_time_out_names_the_task_and_a_later_run_finishes(make: Make) -> None:
    lab = make()
    lab.faults.task_seconds["qmconfig"] = 150
    run = rig.converged(lab, layout({**NEW, "import_from": "local:100/vm-100-disk-0.raw", "size": "16M"}), timeout=0.2)
    outcome = run.jobs[0].outcome
    assert outcome is not None
    assert outcome.upid is not None
    assert outcome.upid.startswith("UPID:pve1:")
    assert outcome.upid in rig.messages(run)
    assert "it goes on" in rig.messages(run)
    lab.faults.task_seconds.clear()
    declared = layout({**NEW, "import_from": "local:100/vm-100-disk-0.raw", "size": "16M"})
    assert not rig.messages(rig.converged(lab, declared))
    lab.cluster.tasks.settle()
    assert len(lab.volumes()) == 2
    rig.assert_settled(lab, declared)


def test_warnings_of_a_task_succeed_and_are_passed_on(make: Make) -> None:
    lab = make(
        {
            **GUEST,
            "running": True,
            "config": {**GUEST["config"], "scsihw": "virtio-scsi-pci", "boot": "order=scsi0"},  # type: ignore[dict-item]
        }
    )
    declared = layout({"slot": "scsi0", "iothread": True}, {"slot": "ide0", "iso": "none"}, power="stop_if_needed")
    lab.change(VMID, net0="virtio=BC:24:11:00:00:01")
    declared = layout({"slot": "sata0", "moved_from": "scsi0"}, power="stop_if_needed")
    run = rig.converged(lab, declared)
    assert not rig.messages(run)
    assert [text for text in rig.warnings(run) if "not attached to any bridge" in text and text.startswith("db1 (100")]
    assert lab.guest(VMID).running


def test_a_failed_task_tells_its_exit_status_and_the_end_of_its_log(make: Make) -> None:
    lab = make()
    run = rig.prepared(lab, layout({"slot": "scsi0", "storage": "tank"}))
    lab.cluster.storages("pve1").definitions["tank"]["offline"] = True
    run.execute()
    assert "storage 'tank' is not online" in rig.messages(run)
    assert "its log ends: " in rig.messages(run)
    assert "UPID:pve1:" in rig.messages(run)
    outcome = run.jobs[0].outcome
    assert outcome is not None
    assert [action.verb for action in outcome.failed] == ["move"]
    assert outcome.done == []


# ---- many guests


def test_one_guests_failure_is_its_own(make: Make) -> None:
    guests = [
        {"vmid": vmid, "name": f"guest{vmid}", "config": {"scsi0": f"local:{vmid}/vm-{vmid}-disk-0.raw,size=8M"}}
        for vmid in range(100, 108)
    ]
    lab = make(*guests)
    bad = {"slot": "scsi1", "storage": "tank", "size": "4M"}
    layouts = [layout(bad if vmid == 103 else NEW, vmid=vmid) for vmid in range(100, 108)]
    layouts[5] = layout({"slot": "scsi0", "size": "1M"}, vmid=105)
    layouts.append(layout(NEW, vmid=999))
    run = rig.prepared(lab, *layouts, concurrency=4)
    lab.cluster.storages("pve1").definitions["tank"]["offline"] = True
    run.execute()
    assert [job.layout.vmid for job in run.jobs if job.failed] == [103, 105, 999]
    assert "disks can't shrink" in run.jobs[5].messages[0]
    for vmid in {100, 101, 102, 104, 106, 107}:
        assert "scsi1" in lab.config(vmid)
    assert "scsi1" not in lab.config(103)
    assert not [params for what, params in rig.sent(lab.requests, 105)]


def test_two_runs_at_the_same_time_never_make_a_disk_twice(make: Make) -> None:
    lab = make()
    watch = rig.Watch(lab)
    disks = [NEW, {"slot": "scsi2", "storage": "tank", "size": "4M"}]
    runs = [rig.prepared(lab, layout(*disks)) for _ in range(2)]
    threads = [threading.Thread(target=run.execute) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rig.messages(run) for run in runs] == ["", ""]
    assert watch.seen == []
    assert len(lab.volumes()) == 3
    rig.assert_settled(lab, layout(*disks))
