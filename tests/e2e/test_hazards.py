# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PVE's configuration calls are not atomic. Each hazard is provoked by hand first, so that the lab is seen to have it;
then the same wish is declared and must not bring it about, and what others have left behind is named or taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import ApiError
from e2e import rig
from lab import Lab

VMID = 100
CONFIG = f"/nodes/pve1/qemu/{VMID}/config"
SYSTEM, DATA, LOGS = "local:100/vm-100-disk-0.raw", "local-lvm:vm-100-disk-1", "tank:vm-100-disk-2"
Make = Callable[..., Lab]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A lab with one guest, watched for volumes in two slots from the moment that a test says so."""
    with contextmanager(_labs)(tmp_path) as function:
        yield function


def _labs(folder: Path) -> Iterator[Make]:
    opened = []

    def function(config: Mapping[str, str], **words: Any) -> Lab:
        guest = {
            "vmid": VMID,
            "name": "db1",
            "config": dict(config),
            "contents": {slot: f"content of {text.partition(',')[0]}" for slot, text in config.items()},
            **words,
        }
        context = rig.started(folder / "lab", [guest])
        opened.append(context)
        return context.__enter__()

    yield function
    for context in opened:
        context.__exit__(None, None, None)


def by_hand(lab: Lab, **values: Any) -> None:
    """A change as somebody else makes it."""
    rig.connect(lab).put(CONFIG, values)


def layout(*disks: Mapping[str, Any], allow_destroy: bool = False, **words: Any) -> Any:
    return rig.declared({"vmid": VMID, "disks": disks, **words}, allow_destroy=allow_destroy)


def refused(lab: Lab, *layouts: Any) -> str:
    """The reasons of a run that has written nothing."""
    seen = len(lab.writes())
    run = rig.converged(lab, *layouts)
    assert lab.writes()[seen:] == []
    assert rig.messages(run)
    return rig.messages(run)


def good(lab: Lab, *layouts: Any) -> rig.Convergence:
    """A run to a good end, in which no volume was in two slots, and another that finds nothing to do."""
    watch = rig.Watch(lab)
    run = rig.converged(lab, *layouts)
    assert not rig.messages(run)
    assert watch.seen == []
    assert not lab.pending(VMID) or lab.guest(VMID).running
    rig.assert_settled(lab, *layouts)
    return run


def unharmed(lab: Lab, *volumes: str) -> None:
    for volid in volumes:
        assert rig.first_bytes(lab, volid).rstrip(b"\0").decode() == f"content of {volid}"


# ---- 1: an unused entry is deleted where its volume is attached


def test_deleting_the_unused_entry_of_an_attached_volume_destroys_it(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "unused0": DATA})
    with pytest.raises(ApiError):
        by_hand(lab, delete="unused0", scsi6=DATA)
    assert DATA not in lab.volumes()


@pytest.mark.parametrize("named", ["unused0", DATA])
def test_attaching_never_deletes_the_unused_entry(make: Make, named: str) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "unused0": DATA})
    good(lab, layout({"slot": "scsi6", "volume": named}))
    assert rig.volume_in(lab.config(VMID), "scsi6") == DATA
    assert not [params for _what, params in rig.sent(lab.requests, VMID) if "unused" in params.get("delete", "")]
    unharmed(lab, SYSTEM, DATA)


def test_attached_and_absent_in_one_declaration_destroys_nothing(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "unused0": DATA})
    rig.converged(
        lab,
        layout({"slot": "scsi6", "volume": DATA}, {"slot": "unused0", "state": "absent"}, allow_destroy=True),
    )
    unharmed(lab, SYSTEM, DATA)


# ---- 2: a forced deletion that fails stays and strikes later


def test_a_failed_forced_deletion_destroys_later(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "sata0": f"{DATA},size=8M", "sata1": f"{DATA},size=8M"})
    with pytest.raises(ApiError, match="Parameter verification failed"):
        by_hand(lab, delete="sata0", force=1)
    assert lab.pending(VMID)["delete"] == "!sata0"
    with pytest.raises(ApiError):
        by_hand(lab, name="db2")
    lab.change(VMID, sata1=None)
    by_hand(lab, name="db3")
    assert DATA not in lab.volumes()


def test_absent_refuses_a_volume_in_two_slots(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "sata0": f"{DATA},size=8M", "sata1": f"{DATA},size=8M"})
    assert "is in sata1 too" in refused(lab, layout({"slot": "sata0", "state": "absent"}, allow_destroy=True))


def test_absent_refuses_a_volume_that_a_snapshot_needs(make: Make) -> None:
    lab = make({"scsi0": "local-lvm:vm-100-disk-0,size=8M", "scsi1": f"{DATA},size=8M"}, snapshots=["before"])
    assert "snapshot before needs" in refused(lab, layout({"slot": "scsi1", "state": "absent"}, allow_destroy=True))
    with pytest.raises(ApiError):
        by_hand(lab, delete="scsi1", force=1)
    assert lab.pending(VMID)["delete"] == "!scsi1"


@pytest.mark.parametrize("running", [False, True])
def test_somebody_elses_forced_deletion_is_named_and_taken_back(make: Make, running: bool) -> None:
    lab = make(
        {"scsi0": f"{SYSTEM},size=8M", "sata0": f"{DATA},size=8M"}, pending={"delete": "!sata0"}, running=running
    )
    wish = {"slot": "scsi0", "backup": False}
    assert "sata0: an earlier call has left this behind" in refused(lab, layout(wish))
    rig.assert_settled(lab, layout({"slot": "scsi0"}))
    run = good(lab, layout(wish, revert_leftovers=True))
    assert "sata0 taken back" in str([action.line for job in run.jobs for action in job.outcome.done])
    assert lab.pending(VMID) == {}
    assert rig.volume_in(lab.config(VMID), "sata0") == DATA
    unharmed(lab, SYSTEM, DATA)


# ---- 3: a call that fails part-way leaves pending values, which the next call applies


def test_a_call_that_fails_leaves_pending_values(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "scsi1": f"{DATA},size=8M"})
    by_hand(lab, name="db1")
    with pytest.raises(ApiError):
        by_hand(lab, delete="scsi1", scsi3="local:0,import-from=local:import/none.raw")
    assert lab.pending(VMID)["delete"] == "scsi1"
    by_hand(lab, name="db2")
    assert "scsi1" not in lab.config(VMID)


def test_somebody_elses_leftovers_of_a_stopped_guest(make: Make) -> None:
    lab = make(
        {"scsi0": f"{SYSTEM},size=8M", "scsi1": f"{DATA},size=8M"},
        pending={"delete": "scsi1", "sata3": f"{LOGS},size=4M"},
    )
    wish = {"slot": "scsi0", "ssd": True}
    reasons = refused(lab, layout(wish))
    assert "sata3, scsi1" in reasons or "scsi1, sata3" in reasons
    good(lab, layout(wish, revert_leftovers=True))
    assert lab.pending(VMID) == {}
    assert rig.volume_in(lab.config(VMID), "scsi1") == DATA
    assert rig.unused(lab.config(VMID)) == [LOGS]
    unharmed(lab, SYSTEM, DATA)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize(
    "wish",
    [{"slot": "scsi1", "state": "detached"}, {"slot": "virtio5", "moved_from": "scsi1"}],
    ids=["detach", "switch"],
)
def test_after_a_failure_of_ours_nothing_waits_unnamed(make: Make, running: bool, wish: dict[str, Any]) -> None:
    """The storage goes away between plan and call."""
    lab = make({"scsi0": f"{SYSTEM},size=8M", "scsi1": f"{DATA},size=8M", "boot": "order=scsi0"}, running=running)
    declared = layout(wish, {"slot": "scsi3", "storage": "fast", "size": "4M"})
    watch = rig.Watch(lab)
    run = rig.prepared(lab, declared)
    storages = lab.cluster.storages("pve1")
    storages.definitions["fast"]["offline"] = True
    run.execute()
    reasons = rig.messages(run)
    assert "storage 'fast' is not online" in reasons
    assert watch.seen == []
    for key in {*lab.guest(VMID).conf.deletions(), *lab.pending(VMID)} - {"delete"}:
        assert key in reasons, (key, lab.pending(VMID))
    unharmed(lab, SYSTEM, DATA)
    del storages.definitions["fast"]["offline"]
    good(lab, declared)
    unharmed(lab, SYSTEM, DATA)
    assert rig.NOTE not in lab.config(VMID).get("description", "")


def test_a_volume_that_vanishes_between_plan_and_call(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "unused0": DATA, "scsi2": f"{LOGS},size=4M"})
    declared = layout({"slot": "scsi1", "volume": DATA}, {"slot": "scsi2", "state": "detached"})
    run = rig.prepared(lab, declared)
    lab.cluster.storages("pve1").free(DATA, lambda _: None)
    run.execute()
    assert DATA.partition(":")[2] in rig.messages(run)
    assert not lab.pending(VMID) or "scsi2" in rig.messages(run)
    assert rig.messages(rig.converged(lab, declared)).count("there is no such volume") == 1
    unharmed(lab, SYSTEM, LOGS)


# ---- 4: a running guest gets a volume twice


def test_by_hand_a_running_guest_gets_a_volume_twice(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "sata0": f"{DATA},size=8M", "boot": "order=scsi0"}, running=True)
    by_hand(lab, scsi4=DATA, delete="sata0")
    assert any(text.startswith("runs:") for text in rig.doubles(lab, VMID))


def test_a_running_guest_never_gets_a_volume_twice(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "sata0": f"{DATA},size=8M", "boot": "order=scsi0"}, running=True)
    wish = {"slot": "scsi4", "moved_from": "sata0"}
    assert "stop_if_needed" in refused(lab, layout(wish))
    assert refused(lab, layout({"slot": "scsi4", "volume": DATA}))
    assert refused(lab, layout({"slot": "scsi4", "volume": DATA}, {"slot": "sata0", "state": "detached"}))
    good(lab, layout(wish, power="stop_if_needed"))
    assert lab.guest(VMID).running
    unharmed(lab, SYSTEM, DATA)


def test_two_hotplug_slots_of_a_running_guest_are_never_both_filled(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "scsi1": f"{DATA},size=8M", "boot": "order=scsi0"}, running=True)
    good(lab, layout({"slot": "virtio4", "moved_from": "scsi1"}))
    assert len(rig.sent(lab.requests, VMID)) == 2
    unharmed(lab, SYSTEM, DATA)


# ---- 5: the boot disk of a running guest


def test_by_hand_a_refused_unplug_of_the_boot_disk_stays_pending(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "boot": "order=scsi0"}, running=True)
    with pytest.raises(ApiError, match="Parameter verification failed"):
        by_hand(lab, delete="scsi0")
    assert lab.pending(VMID) == {"boot": " ", "delete": "scsi0"}


def test_somebody_elses_refused_unplug_is_taken_back_with_the_boot_order(make: Make) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "boot": "order=scsi0"}, running=True)
    with pytest.raises(ApiError):
        by_hand(lab, delete="scsi0")
    run = rig.prepared(lab, layout({"slot": "scsi0"}))
    assert [text for text in rig.warnings(run) if "scsi0" in text and "revert_leftovers" in text]
    good(lab, layout({"slot": "scsi0", "backup": False}, revert_leftovers=True))
    assert lab.pending(VMID) == {}
    assert lab.config(VMID)["boot"] == "order=scsi0"


@pytest.mark.parametrize(
    "wish",
    [
        {"slot": "scsi0", "state": "detached"},
        {"slot": "scsi0", "state": "absent"},
        {"slot": "scsi0", "volume": DATA},
        {"slot": "virtio0", "moved_from": "scsi0"},
    ],
    ids=["detached", "absent", "exchanged", "moved"],
)
def test_the_boot_disk_of_a_running_guest_is_left_alone(make: Make, wish: dict[str, Any]) -> None:
    lab = make({"scsi0": f"{SYSTEM},size=8M", "unused0": DATA, "boot": "order=scsi0"}, running=True)
    assert "the guest was started from it" in refused(lab, layout(wish, allow_destroy=True))


@pytest.mark.parametrize(
    "wish",
    [
        {"slot": "scsi1", "state": "detached"},
        {"slot": "scsi1", "state": "absent"},
        {"slot": "virtio3", "moved_from": "scsi1"},
    ],
    ids=["detached", "absent", "moved"],
)
def test_a_guest_that_does_not_let_go(make: Make, wish: dict[str, Any]) -> None:
    """The refused deletion is taken back, and carried out when the guest agrees."""
    lab = make(
        {"scsi0": f"{SYSTEM},size=8M", "scsi1": f"{DATA},size=8M", "boot": "order=scsi0"}, running=True, busy=["scsi1"]
    )
    run = rig.converged(lab, layout(wish, allow_destroy=True))
    assert "still busy in guest" in rig.messages(run)
    assert "scsi1 taken back" in rig.messages(run)
    assert lab.guest(VMID).conf.deletions() == {}
    assert rig.volume_in(lab.config(VMID), "scsi1") == DATA
    unharmed(lab, SYSTEM, DATA)
    lab.faults.busy_slots.clear()
    good(lab, layout(wish, allow_destroy=True))
    assert rig.NOTE not in lab.config(VMID).get("description", "")


# ---- 6: a lost answer: see test_concurrency.py
