# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_snapshot against the lab: bytes come back, and what can't be done is said before anything is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_snapshot import (
    GuestSnapshot,
    snapshot_spec,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from e2e.kit import client, converge, disks, run_work
from e2e.rig import first_bytes
from lab import Lab, images

# What PVE 9.2 says of each storage and format (hasFeature), and what the refusal has to say.
ABLE = {
    "local-lvm:vm-{}-disk-0": "",
    "btrfs:{0}/vm-{0}-disk-0.raw": "",
    "tank:vm-{}-disk-0": "",
    "ceph:vm-{}-disk-0": "",
    "local:{0}/vm-{0}-disk-0.qcow2": "",
    "dirchain:{0}/vm-{0}-disk-0.qcow2": "",
    "thickchain:vm-{}-disk-0.qcow2": "",
    "nas:{0}/vm-{0}-disk-0.qcow2": "",
    "local:{0}/vm-{0}-disk-0.raw": "local, which is dir, takes no snapshots of raw, only of qcow2; convert it with "
    "format=qcow2, or move it to a storage that does",
    "local:{0}/vm-{0}-disk-0.vmdk": "local, which is dir, takes no snapshots of vmdk, only of qcow2",
    "nas:{0}/vm-{0}-disk-0.raw": "nas, which is nfs, takes no snapshots of raw, only of qcow2",
    "dirchain:{0}/vm-{0}-disk-0.raw": "dirchain, which is dir with volume chains, takes no snapshots of raw, only of",
    "thick:vm-{}-disk-0": "thick, which is lvm, takes no snapshots; move it to a storage that does",
    "thickchain:vm-{}-disk-0": "thickchain, which is lvm with volume chains, takes no snapshots of raw, only of qcow2",
}
KINDS = {200 + number: volume for number, volume in enumerate(ABLE)}


def seed(vmid: int, **words: Any) -> dict[str, Any]:
    config = {"scsi0": f"local-lvm:vm-{vmid}-disk-0,size=4M", **words.pop("config", {})}
    return {"vmid": vmid, "name": f"g{vmid}", "config": config, **words}


GUESTS = [
    seed(100, contents={"scsi0": "before"}),
    seed(101, running=True),
    seed(102, snapshots=["s1", "s2"], contents={"scsi0": "in s1"}),
    seed(103, config={"scsi1": "tank:vm-103-disk-0,size=4M"}, snapshots=["s1", "s2"]),
    seed(104, config={"ide2": "local:104/vm-104-cloudinit.qcow2,media=cdrom", "ide0": "none,media=cdrom"}),
    seed(105, config={"scsi1": "local:105/vm-105-disk-0.raw,size=4M", "sata0": "thick:vm-105-disk-0,size=4M"}),
    seed(106, lock="backup"),
    seed(107, template=True, config={"scsi0": "local-lvm:base-107-disk-0,size=4M"}),
    seed(108, config={"scsi0": "local:108/vm-108-disk-0.qcow2,size=4M"}, snapshots=["s1", "s2"]),
    seed(109, config={"scsi0": "dirchain:109/vm-109-disk-0.qcow2,size=4M"}, snapshots=["s1", "s2"]),
    *({"vmid": vmid, "name": f"k{vmid}", "config": {"scsi0": f"{volume.format(vmid)},size=4M"}}
      for vmid, volume in KINDS.items()),
]  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    more = {
        "users": {
            "root@pam": {"tokens": {"test": {"privsep": False}}},
            "op@pve": {"tokens": {"t": {"privsep": False}}},
        },
        "roles": {"Op": ["VM.Audit", "VM.Snapshot"]},
        "acl": [{"path": "/vms", "role": "Op", "to": "op@pve"}],
    }
    with Lab(tmp_path, {"guests": GUESTS, "files": {}, **more}, time_scale=0.01) as one:
        yield one


def snapshot(lab: Lab, vmid: int, name: str, state: str = "present", **params: Any) -> Result:
    return run_work(lab, GuestSnapshot, snapshot_spec(), vmid=vmid, snapshot=name, state=state, **params)


def names(lab: Lab, vmid: int) -> set[str]:
    return set(lab.guest(vmid).conf.snapshots)


def overwrite(lab: Lab, volid: str, content: bytes) -> None:
    """What the guest does to its disk."""
    storages = lab.cluster.storages("pve1")
    images.write(storages.place(volid), storages.parse_volname(volid).format, content)


def twice(lab: Lab, vmid: int, name: str, state: str = "present", **params: Any) -> Result:
    """A check that writes nothing, the real run, and one more that has nothing to do."""
    seen = len(lab.writes())
    check = snapshot(lab, vmid, name, state, **params, check=True)
    assert len(lab.writes()) == seen
    real = snapshot(lab, vmid, name, state, **params)
    assert (real.failure, real.changed) == (None, True)
    assert (check.changed, check.diff, check.data["step"]) == (True, real.diff, real.data["step"])
    seen = len(lab.writes())
    again = snapshot(lab, vmid, name, state, **params)
    assert (again.failure, again.changed, again.diff, again.data["step"]) == (None, False, "", None)
    assert len(lab.writes()) == seen
    return real


def test_taken(lab: Lab) -> None:
    real = twice(lab, 104, "before-upgrade", description="why\nand how")
    assert real.diff == "g104 (104 on pve1, stopped)\n  + before-upgrade  snapshot of scsi0\n"
    (entry,) = real.data["snapshots"]
    assert entry["description"] == "why\nand how"
    assert (entry["vmstate"], entry["parent"], entry["incomplete"]) == (False, None, "")
    assert real.data["parent"] == "before-upgrade"


def test_taken_with_memory(lab: Lab) -> None:
    real = twice(lab, 101, "live", vmstate=True)
    assert real.diff == "g101 (101 on pve1, running)\n  + live  snapshot of scsi0, the memory\n"
    assert real.data["snapshots"][0]["vmstate"] is True
    refused = snapshot(lab, 101, "live", vmstate=False)
    assert refused.failure == (
        "g101 (101 on pve1): vmstate=false: the snapshot live is there with the guest's memory, which can't be "
        "changed; choose another name, or remove it first"
    )
    assert snapshot(lab, 101, "live").changed is False


def test_described(lab: Lab) -> None:
    real = twice(lab, 102, "s1", description="what for")
    assert real.data["step"] == "describe"
    assert real.diff == "g102 (102 on pve1, stopped)\n  ~ s1  '' -> 'what for'\n"


def test_removed(lab: Lab) -> None:
    twice(lab, 102, "s1", "absent")
    assert names(lab, 102) == {"s2"}
    assert snapshot(lab, 100, "nosuch", "absent").changed is False


# ---- going back


def test_bytes_come_back(lab: Lab) -> None:
    """Take, work, go back: the disk's bytes and the configuration are as they were; then nothing is left to do."""
    volume = "local-lvm:vm-100-disk-0"
    assert snapshot(lab, 100, "start").changed
    overwrite(lab, volume, b"afterwards")
    assert converge(lab, {"vmid": 100, "disks": disks("slot: scsi1, storage: local-lvm, size: 8M")}).failure is None
    assert converge(lab, {"vmid": 100, "disks": disks("slot: scsi0, size: 16M")}).failure is None
    real = twice(lab, 100, "start", "rolled_back")
    assert real.diff == (
        "g100 (100 on pve1, stopped)\n"
        "  < start  all that has changed since is thrown away\n"
        "  ~ scsi1 was made since: its volume is kept as unused\n"
    )
    assert first_bytes(lab, volume).startswith(b"before")
    assert lab.config(100)["scsi0"].endswith("size=4M")
    assert lab.config(100)["unused0"] == "local-lvm:vm-100-disk-1"


def test_running_guest_is_stopped_and_started_again(lab: Lab) -> None:
    snapshot(lab, 101, "start")
    real = snapshot(lab, 101, "start", "rolled_back", start=True)
    assert (real.failure, real.data["status"]) == (None, "running")
    assert real.diff == (
        "g101 (101 on pve1, running)\n"
        "  < start  all that has changed since is thrown away\n"
        "  ~ the guest is stopped and started again\n"
    )


def test_memory_comes_back_running(lab: Lab) -> None:
    snapshot(lab, 101, "live", vmstate=True)
    real = snapshot(lab, 101, "live", "rolled_back")
    assert (real.failure, real.data["status"]) == (None, "running")
    assert real.diff.endswith("  ~ the guest goes on from where it was then\n")


@pytest.mark.parametrize("what", ["started", "changed", "unseen", "taken", "moved"])
def test_rolled_back_again_unless_nothing_can_have_happened(lab: Lab, what: str) -> None:
    """A second run may leave the guest alone only when that is certain."""
    assert snapshot(lab, 100, "start").changed
    if what != "taken":  # a guest that was just snapshotted may have been written to by whatever took it
        assert snapshot(lab, 100, "start", "rolled_back").changed
        assert snapshot(lab, 100, "start", "rolled_back").changed is False
    tokenid = "root@pam!test"
    with client(lab) as ask:
        if what == "started":  # and stopped again
            for verb in ("start", "stop"):
                ask.post(f"/nodes/pve1/qemu/100/status/{verb}")
                lab.settle()
        if what == "changed":  # no task tells of it
            ask.put("/nodes/pve1/qemu/100/config", {"memory": 1024})
        if what == "moved":  # a task, and the configuration is as it was
            ask.post("/nodes/pve1/qemu/100/config", {"memory": 512})
            lab.settle()
    if what == "unseen":  # another user's tasks are not to be seen
        tokenid = "op@pve!t"
    real = snapshot(lab, 100, "start", "rolled_back", tokenid=tokenid)
    assert (real.failure, real.changed) == (None, True)


def test_older_snapshots_where_the_storage_can(lab: Lab) -> None:
    for vmid in (102, 108):
        assert snapshot(lab, vmid, "s1", "rolled_back").failure is None
        assert names(lab, vmid) == {"s1", "s2"}
        assert lab.config(vmid)["parent"] == "s1"


@pytest.mark.parametrize(
    ("vmid", "storage", "volume"),
    [(103, "tank", "tank:vm-103-disk-0"), (109, "dirchain", "dirchain:109/vm-109-disk-0.qcow2")],
)
def test_newer_snapshots_in_the_way(lab: Lab, vmid: int, storage: str, volume: str) -> None:
    """ZFS and volume chains go back to the newest one only: said beforehand, and mended by what it says."""
    refused = snapshot(lab, vmid, "s1", "rolled_back")
    assert refused.failure == (
        f"g{vmid} ({vmid} on pve1): snapshot=s1: {storage} can go back to the newest snapshot only, and {volume} has "
        "newer ones (s2); remove it first, if nobody needs what is in there"
    )
    assert lab.writes() == []
    assert snapshot(lab, vmid, "s2", "absent").changed
    assert snapshot(lab, vmid, "s1", "rolled_back").failure is None


# ---- what can't be snapshotted


@pytest.mark.parametrize("vmid", KINDS, ids=KINDS.values())
def test_every_storage_and_format(lab: Lab, vmid: int) -> None:
    """The table's reasons against PVE's answer, and the snapshot itself where there is none."""
    words = ABLE[KINDS[vmid]]
    real = snapshot(lab, vmid, "s1")
    if not words:
        assert (real.failure, names(lab, vmid)) == (None, {"s1"})
        return
    assert real.failure is not None
    assert real.failure.startswith(f"k{vmid} ({vmid} on pve1): scsi0: {words}")
    assert lab.writes() == []


def test_each_disk_in_the_way_is_named(lab: Lab) -> None:
    refused = snapshot(lab, 105, "s1", check=True)
    assert refused.failure == (
        "g105 (105 on pve1): sata0: thick, which is lvm, takes no snapshots; move it to a storage that does\n"
        "g105 (105 on pve1): scsi1: local, which is dir, takes no snapshots of raw, only of qcow2; convert it with "
        "format=qcow2, or move it to a storage that does"
    )


def test_storage_that_the_user_may_not_see(lab: Lab) -> None:
    assert snapshot(lab, 105, "s1", tokenid="op@pve!t").failure == (
        "g105 (105 on pve1): sata0: the user may not see the storage thick, and so not whether it can take snapshots; "
        "grant Datastore.Audit on it to be told more\n"
        "g105 (105 on pve1): scsi0: the user may not see the storage local-lvm, and so not whether it can take "
        "snapshots; grant Datastore.Audit on it to be told more\n"
        "g105 (105 on pve1): scsi1: the user may not see the storage local, and so not whether it can take snapshots; "
        "grant Datastore.Audit on it to be told more"
    )


@pytest.mark.parametrize(
    ("vmid", "name", "params", "words"),
    [
        (100, "x", {}, "snapshot=x: PVE takes no such name; begin with a letter, and use 2 to 40 letters"),
        (100, "1st", {}, "snapshot=1st: PVE takes no such name"),
        (100, "Current", {}, "snapshot=Current: PVE keeps this name for itself; choose another one"),
        (100, "s1", {"vmstate": True}, "vmstate=true: it is stopped, and has no memory to save; start it, or leave it"),
        (100, "s1", {"start": True}, "start=true: state=present starts nothing; remove it"),
        (102, "s1", {"state": "absent", "description": "x"}, "description: state=absent takes no snapshot; remove it"),
        (102, "s9", {"state": "rolled_back"}, "snapshot=s9: there is no such snapshot; take one first; there are: s1"),
        (106, "s1", {}, "it is locked (backup); wait until the job that locked it ends"),
        (107, "s1", {}, "it is a template, which has no snapshots; use a clone of it"),
    ],
)
def test_refused(lab: Lab, vmid: int, name: str, params: dict[str, Any], words: str) -> None:
    refused = snapshot(lab, vmid, name, **params)
    assert refused.failure is not None
    assert f"g{vmid} ({vmid} on pve1): {words}" in refused.failure
    assert lab.writes() == []


def test_interrupted_job(lab: Lab) -> None:
    guest = lab.guest(102)
    conf = guest.load()
    conf.snapshots["s2"]["snapstate"] = "prepare"
    conf.values["lock"] = "snapshot"
    guest.write(conf)
    locked = snapshot(lab, 102, "s2", "absent")
    assert locked.failure is not None
    assert "it is locked (snapshot); wait until the job that locked it ends; if none is left, look" in locked.failure
    lab.change(102, lock=None)
    there = snapshot(lab, 102, "s2")
    assert there.failure is not None
    assert "it is there and incomplete (prepare), because a job was interrupted; remove it with" in there.failure
    back = snapshot(lab, 102, "s2", "rolled_back")
    assert back.failure is not None
    assert "snapshot=s2: it is incomplete (prepare)" in back.failure
    assert lab.writes() == []
    assert snapshot(lab, 102, "s2", "absent").failure is None
    assert names(lab, 102) == {"s1"}


# ---- trouble on the way


@pytest.mark.parametrize(
    ("vmid", "name", "state", "method", "path", "calls"),
    [
        (100, "new", "present", "POST", "/snapshot$", 1),
        (102, "s2", "absent", "DELETE", "/snapshot/s2$", 1),
        (102, "s2", "rolled_back", "POST", "/rollback$", 2),  # once more does no harm
    ],
)
def test_lost_answer(lab: Lab, vmid: int, name: str, state: str, method: str, path: str, calls: int) -> None:
    lab.faults.lose_answer(method, path)
    done = snapshot(lab, vmid, name, state)
    assert (done.failure, done.changed) == (None, True)
    assert len(lab.writes(path)) == calls


def test_job_under_way_is_waited_for(lab: Lab) -> None:
    lab.faults.task_seconds["qmsnapshot"] = 60
    others = threading.Thread(target=lambda: snapshot(lab, 101, "one"))
    others.start()
    while "lock" not in lab.config(101) and others.is_alive():
        time.sleep(0.005)
    lab.faults.task_seconds.clear()
    mine = snapshot(lab, 101, "two")
    others.join()
    assert (mine.failure, names(lab, 101)) == (None, {"one", "two"})


def test_task_that_fails(lab: Lab) -> None:
    lab.faults.task_errors["qmsnapshot"] = ["no space left"]
    failed = snapshot(lab, 100, "s1")
    assert failed.failure is not None
    assert failed.failure.startswith("g100 (100 on pve1): the task qmsnapshot of 100 on pve1 failed: no space left")
    assert not failed.changed


def test_without_the_right(lab: Lab) -> None:
    lab.cluster.access.roles["Op"] = frozenset({"VM.Audit"})
    refused = snapshot(lab, 100, "s1", tokenid="op@pve!t")
    assert refused.failure is not None
    assert "VM.Snapshot" in refused.failure
    assert names(lab, 100) == set()
