# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk goes to another guest: the bytes are the same afterwards, on every storage, and whatever comes between."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e import rig
from e2e.kit import Outcome, converge, disks
from lab import Lab, operations
from lab.api import ApiError

TAKE = {"slot": "scsi2", "moved_from": "scsi1", "moved_from_guest": "old1"}
OLD: dict[str, Any] = {
    "vmid": 200,
    "name": "old1",
    "config": {
        "boot": "order=scsi1;scsi0",
        "scsi0": "local:200/vm-200-disk-0.raw,size=8M",
        "scsi1": "local:200/vm-200-disk-1.qcow2,cache=writeback,iothread=1,serial=A1,size=8M",
        "unused0": "tank:vm-200-disk-3",
    },
    "contents": {"scsi0": "the old system", "scsi1": "the data", "unused0": "the archive"},
}
NEW: dict[str, Any] = {
    "vmid": 100,
    "name": "db1",
    "config": {"boot": "order=scsi0", "scsi0": "local:100/vm-100-disk-0.raw,size=8M", "scsihw": "virtio-scsi-single"},
    "contents": {"scsi0": "the system"},
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with rig.started(tmp_path / "lab", [NEW, OLD]) as lab:
        yield lab


def digest(lab: Lab, volid: str) -> str:
    """The image, byte for byte."""
    return hashlib.sha256(Path(lab.file(volid)).read_bytes()).hexdigest()


def start(lab: Lab, vmid: int) -> None:
    """Starts a guest, as somebody would."""
    rig.connect(lab).post(f"/nodes/pve1/qemu/{vmid}/status/start", {})
    lab.cluster.tasks.settle()


def take(lab: Lab, *entries: Any, check: bool = False, **words: Any) -> Outcome:
    return converge(lab, {"vmid": 100, "disks": disks(*entries), **words}, check=check)


def twice(lab: Lab, *entries: Any, **words: Any) -> Outcome:
    """Check mode and the run agree, and a second run changes nothing."""
    planned = take(lab, *entries, check=True, **words)
    assert planned.failure is None
    before = len(lab.writes())
    outcome = take(lab, *entries, **words)
    assert outcome.failure is None
    assert (outcome.changed, outcome.diff) == (planned.changed, planned.diff)
    assert [(row["action"], row["slot"], row["summary"]) for row in outcome.guests[0]["actions"]] == [
        (row["action"], row["slot"], row["summary"]) for row in planned.guests[0]["actions"]
    ]
    assert not [text for text in outcome.warnings if "planned anew" in text]
    assert len(lab.writes()) > before
    seen = len(lab.writes())
    again = take(lab, *entries, **words)
    assert (again.failure, again.changed, again.diff) == (None, False, "")
    assert lab.writes()[seen:] == []
    return outcome


def test_the_same_bytes_in_another_guest(lab: Lab) -> None:
    before = digest(lab, "local:200/vm-200-disk-1.qcow2")
    outcome = twice(lab, TAKE)
    assert outcome.diff == (
        "db1 (100 on pve1, stopped)\n"
        "  > scsi2  was scsi1 of old1 (200)  same volume under a new name, leaves the boot order of old1\n"
        "  ? scsi0 is not declared: kept\n"
    )
    assert lab.config(100)["scsi2"] == "local:100/vm-100-disk-1.qcow2,cache=writeback,iothread=1,serial=A1,size=8M"
    assert digest(lab, "local:100/vm-100-disk-1.qcow2") == before
    assert "scsi1" not in lab.config(200)
    assert lab.config(200)["boot"] == "order=scsi0"
    (request,) = lab.writes()
    assert request.path == "/nodes/pve1/qemu/200/move_disk"
    assert {"digest", "target-digest", "disk", "target-disk", "target-vmid"} == set(request.params) - {"node", "vmid"}


def test_what_is_declared_beside_it_comes_afterwards(lab: Lab) -> None:
    before = rig.contents(lab)["local:200/vm-200-disk-1.qcow2"]
    outcome = twice(
        lab,
        {**TAKE, "slot": "sata3", "cache": "none", "unset": ["serial"], "size": "12M", "storage": "tank"},
        boot=["scsi0", "sata3"],
    )
    assert lab.config(100)["sata3"] == "tank:vm-100-disk-0,cache=none,size=12M"
    assert lab.config(100)["boot"] == "order=scsi0;sata3"
    assert rig.contents(lab)["tank:vm-100-disk-0"] == before
    assert "without iothread, which sata does not have" in outcome.diff
    assert outcome.guests[0]["unused"] == {"unused0": "local:100/vm-100-disk-1.qcow2"}


@pytest.mark.parametrize("named", [200, "200", "old1"])
def test_every_spelling_of_the_guest(named: Any, lab: Lab) -> None:
    assert twice(lab, {**TAKE, "moved_from_guest": named}).changed
    for other in (200, "old1", "gone1", 999):  # once it has moved, the other guest says nothing more
        again = take(lab, {**TAKE, "moved_from_guest": other})
        assert (again.failure, again.changed) == (None, False)


def test_an_unused_volume(lab: Lab) -> None:
    assert twice(lab, "slot: virtio4, moved_from: unused0, moved_from_guest: old1, discard: 'on', size: 2G").changed
    assert lab.config(100)["virtio4"] == "tank:vm-100-disk-0,discard=on,size=2G"
    assert "unused0" not in lab.config(200)
    assert rig.first_bytes(lab, "tank:vm-100-disk-0").startswith(b"the archive")


STORAGES = {
    "local": ("local:200/vm-200-disk-0.vmdk", "local:100/vm-100-disk-0.vmdk"),
    "dirchain": ("dirchain:200/vm-200-disk-0.qcow2", "dirchain:100/vm-100-disk-0.qcow2"),
    "btrfs": ("btrfs:200/vm-200-disk-0.raw", "btrfs:100/vm-100-disk-0.raw"),
    "local-lvm": ("local-lvm:vm-200-disk-0", "local-lvm:vm-100-disk-0"),
    "thick": ("thick:vm-200-disk-0", "thick:vm-100-disk-0"),
    "thickchain": ("thickchain:vm-200-disk-0.qcow2", "thickchain:vm-100-disk-0.qcow2"),
    "tank": ("tank:vm-200-disk-0", "tank:vm-100-disk-0"),
    "ceph": ("ceph:vm-200-disk-0", "ceph:vm-100-disk-0"),
}


def test_every_storage(tmp_path: Path) -> None:
    volumes = [before for before, _after in STORAGES.values()]
    giver = {
        "vmid": 200,
        "name": "old1",
        "config": {f"scsi{number}": f"{volume},size=8M" for number, volume in enumerate(volumes)},
        "contents": {f"scsi{number}": f"content {number}" for number in range(len(volumes))},
    }
    with rig.started(tmp_path / "lab", [{"vmid": 100, "name": "db1"}, giver]) as lab:
        before = {volume: digest(lab, volume) for volume in volumes}
        entries = [
            {"slot": f"scsi{number}", "moved_from": f"scsi{number}", "moved_from_guest": "old1"}
            for number in range(len(volumes))
        ]
        twice(lab, *entries)
        for number, (volume, after) in enumerate(STORAGES.values()):
            assert lab.config(100)[f"scsi{number}"] == f"{after},size=8M"
            assert digest(lab, after) == before[volume]
        assert lab.config(100)["boot"] == "order=scsi0", "the first disk of a guest that had none"
        assert "description" not in lab.config(100)
        assert not [volume for volume in lab.volumes() if "-200-" in volume]


def test_a_running_guest_takes_it_up_at_once(lab: Lab) -> None:
    start(lab, 100)
    outcome = twice(lab, {**TAKE, "cache": "none", "serial": "B2"})
    assert outcome.guests[0]["restart_required"] == []
    running = lab.guest(100).running
    assert running is not None
    assert "cache=none" in running.drives["scsi2"]
    assert "serial=B2" in running.drives["scsi2"]


def test_a_running_guest_takes_other_buses_up_at_its_next_start(lab: Lab) -> None:
    start(lab, 100)
    outcome = twice(lab, {**TAKE, "slot": "sata2", "cache": "none"})
    assert outcome.guests[0]["restart_required"] == ["sata2"]
    assert outcome.diff.count("takes effect at the next start") == 2


# ---- both guests in one run


def both(lab: Lab, taker: dict[str, Any], giver: dict[str, Any], check: bool = False, **words: Any) -> Outcome:
    """The guest that gives comes first in the list, and still has to wait."""
    return converge(lab, {"vmid": 200, **giver}, {"vmid": 100, **taker}, check=check, **words)


def test_both_guests_in_one_run(lab: Lab) -> None:
    taker = {"disks": [TAKE, {"slot": "scsi0", "cache": "none"}]}
    giver = {
        "disks": disks("slot: scsi1, state: detached", "slot: scsi0, size: 12M, cache: none", "slot: ide2, iso: none"),
        "undeclared": "detach",
    }
    planned = both(lab, taker, giver, check=True)
    assert planned.failure is None
    outcome = both(lab, taker, giver)
    assert outcome.failure is None
    assert outcome.diff == planned.diff
    assert [text for text in outcome.warnings if "planned anew" in text] == []
    for vmid in (100, 200):
        for before, after in zip(planned.guest(vmid)["actions"], outcome.guest(vmid)["actions"], strict=True):
            assert {**before, "state": "done"} == after
    assert "scsi1" in outcome.guest(200)["before"]
    assert "scsi1" not in outcome.guest(200)["after"]
    assert "scsi1" not in planned.guest(200)["after"]
    assert outcome.guest(200)["after"]["boot"] == planned.guest(200)["after"]["boot"] == "order=scsi0;ide2"
    assert rig.unused(lab.config(200)) == ["tank:vm-200-disk-3"], "it was handed over, and not detached"
    seen = len(lab.writes())
    assert not both(lab, taker, giver).changed
    assert lab.writes()[seen:] == []


def test_two_guests_swap_disks(lab: Lab) -> None:
    taker = {"disks": [TAKE]}
    giver = {"disks": disks("slot: virtio1, moved_from: scsi0, moved_from_guest: db1")}
    planned = both(lab, taker, giver, check=True)
    outcome = both(lab, taker, giver)
    assert (outcome.failure, outcome.diff) == (None, planned.diff)
    assert not both(lab, taker, giver).changed
    contents = rig.contents(lab)
    assert contents[rig.volume_in(lab.config(100), "scsi2")].startswith(b"the data")
    assert contents[rig.volume_in(lab.config(200), "virtio1")].startswith(b"the system")


def test_a_chain_of_guests(tmp_path: Path) -> None:
    guests = [
        {
            "vmid": vmid,
            "name": f"g{vmid}",
            "config": {"scsi0": f"local-lvm:vm-{vmid}-disk-0,size=4M", "scsi1": f"local-lvm:vm-{vmid}-disk-1,size=4M"},
            "contents": {"scsi1": f"data of {vmid}"},
        }
        for vmid in range(100, 104)
    ]
    with rig.started(tmp_path / "lab", guests) as lab:
        declared = [
            {"vmid": vmid, "disks": [{"slot": "scsi5", "moved_from": "scsi1", "moved_from_guest": vmid - 1}]}
            for vmid in range(101, 104)
        ]
        outcome = converge(lab, *declared)
        assert outcome.failure is None
        assert [text for text in outcome.warnings if "planned anew" in text] == []
        contents = rig.contents(lab)
        for vmid in range(101, 104):
            volume = rig.volume_in(lab.config(vmid), "scsi5")
            assert contents[volume].startswith(f"data of {vmid - 1}".encode())
        assert not converge(lab, *declared).changed


CONTRADICTIONS = {
    "declared there": (
        {"disks": disks("slot: scsi1, cache: none")},
        "old1 (200 on pve1) declares scsi1 with state: present, so a second run could not tell what was done; "
        "remove the declaration of scsi1 there, and add it again afterwards",
    ),
    "destroyed there": (
        {"disks": disks("slot: scsi1, state: absent")},
        "old1 (200 on pve1) declares scsi1 with state: absent, so a second run could not tell what was done; "
        "remove the declaration of scsi1 there, and add it again afterwards",
    ),
    "moved there": (
        {"disks": disks("slot: virtio0, moved_from: scsi1")},
        "old1 (200 on pve1) brings it to virtio0; one disk can't become two",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_declarations_that_contradict_each_other(name: str, lab: Lab) -> None:
    giver, words = CONTRADICTIONS[name]
    before = rig.contents(lab)
    outcome = both(lab, {"disks": [TAKE]}, giver)
    assert outcome.guest(100)["errors"] == [f"db1 (100 on pve1): scsi2: moved_from=scsi1: {words}"]
    assert not rig.sent(lab.requests, 100)
    assert rig.contents(lab) == before


def test_one_disk_for_two_guests(tmp_path: Path) -> None:
    third = {"vmid": 300, "name": "db2"}
    with rig.started(tmp_path / "lab", [NEW, OLD, third]) as lab:
        outcome = converge(lab, {"vmid": 100, "disks": [TAKE]}, {"vmid": 300, "disks": [TAKE]})
        assert [guest["failed"] for guest in outcome.guests] == [False, True]
        assert "db1 (100 on pve1) takes it too; one disk can't become two" in outcome.errors[0]
        assert "scsi2" in lab.config(100)


def test_a_guest_keeps_what_it_was_to_give_when_that_is_refused(lab: Lab) -> None:
    """Its other disks are converged, and the next run finds the disk where it was."""
    giver = {"disks": disks("slot: scsi1, state: detached", "slot: scsi0, cache: none"), "undeclared": "detach"}
    outcome = both(lab, {"disks": [TAKE, {"slot": "scsi0", "size": "1M"}]}, giver)
    assert [guest["failed"] for guest in outcome.guests] == [False, True]
    assert "scsi1" in lab.config(200)
    assert "cache=none" in lab.config(200)["scsi0"]
    assert both(lab, {"disks": [TAKE]}, giver).failure is None
    assert "scsi2" in lab.config(100)


def test_a_guest_keeps_what_it_was_to_give_when_that_fails(lab: Lab) -> None:
    giver = {"disks": disks("slot: scsi1, state: detached", "slot: scsi0, cache: none")}
    lab.faults.task_errors["qmmove"] = ["no space left"]
    outcome = both(lab, {"disks": [TAKE]}, giver)
    assert [guest["failed"] for guest in outcome.guests] == [False, True]
    assert "no space left" in outcome.errors[0]
    assert "scsi1" in lab.config(200)
    assert "cache=none" in lab.config(200)["scsi0"]
    lab.faults.task_errors.clear()
    assert both(lab, {"disks": [TAKE]}, giver).failure is None


# ---- when something goes wrong


def test_a_disk_that_pve_takes_and_does_not_bring(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """PVE renames the volume, writes the one guest, then the other: what fails between leaves it in no slot."""

    def failing(_call: Any) -> None:
        raise ApiError("unable to open file '/etc/pve/nodes/pve1/qemu-server/100.conf.tmp' - No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(operations, "update_of", failing)
        outcome = take(lab, TAKE)
    assert outcome.failure is not None
    assert "No space left on device" in outcome.failure
    named = (
        "scsi1 of old1 (200 on pve1) is empty now, and volume: local:100/vm-100-disk-1.qcow2 is in no slot; attach it"
    )
    assert named in outcome.failure
    assert "'qm disk rescan --vmid 100' on the node makes it an unused one" in (take(lab, TAKE).failure or "")
    found = twice(lab, {"slot": "scsi2", "volume": "local:100/vm-100-disk-1.qcow2", "cache": "writeback"})
    assert found.failure is None
    assert rig.contents(lab)["local:100/vm-100-disk-1.qcow2"].startswith(b"the data")


def test_what_can_not_be_taken_off_the_drive(lab: Lab) -> None:
    lab.faults.task_errors["qmconfig"] = ["no space left"]
    before = lab.config(200)
    outcome = take(lab, {**TAKE, "slot": "sata2"})
    assert "no space left" in (outcome.failure or "")
    assert [row["state"] for row in outcome.guests[0]["actions"]] == ["remaining"]
    assert lab.config(200) == before
    assert twice(lab, {**TAKE, "slot": "sata2"}).changed


def test_a_half_done_reassignment_is_waited_for(lab: Lab) -> None:
    """A run was killed and the next one starts while PVE has taken the disk from one guest and not given it yet."""
    half = threading.Event()

    def work(_log: object) -> None:
        giver, taker = lab.guest(200), lab.guest(100)
        conf = giver.load()
        drive = conf.values.pop("scsi1")
        giver.write(conf)
        half.set()
        lab.cluster.clock.sleep(60)
        conf = taker.load()
        old, _, options = drive.partition(",")
        conf.values["scsi2"] = f"{lab.cluster.storages('pve1').rename(old, 100)},{options}"
        taker.write(conf)

    lab.cluster.tasks.start("pve1", "qmmove", "200-scsi1>100-scsi2", "root@pam!test", work)
    assert half.wait(10)
    outcome = take(lab, TAKE)
    assert (outcome.failure, outcome.changed) == (None, False)
    assert "scsi2" in lab.config(100)


def test_a_policy_leaves_it_as_it_comes(lab: Lab) -> None:
    for recommend in ("on_create", "always"):
        for check in (True, False, False):
            words = {"policy": "current", "recommend": recommend}
            outcome = converge(lab, {"vmid": 100, "disks": [TAKE]}, check=check, **words)
            assert outcome.failure is None
            assert not outcome.guests[0].get("recommended")
    assert lab.config(100)["scsi2"] == "local:100/vm-100-disk-1.qcow2,cache=writeback,iothread=1,serial=A1,size=8M"
