# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration to VirtIO refuses: in words that say what to do, and before anything is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible import migration
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.windows_migrate import (
    WindowsMigrate,
    wishes_spec,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve import agent
from e2e import rig
from e2e.kit import client
from e2e.migrations import CONFIG, ISO, VMID, hardware, inside, migratable, migrate, parameters
from e2e.test_windows_migrate import before_write, standings, writes


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not answer is not asked again after a while."""
    monkeypatch.setattr(migration, "_PING_PAUSE", 0.0)


DAMAGED = 'notes\n<!-- diskwright-windows: {"v":1,"phase":"dance"} -->'
ROLLED_BACK = 'notes\n<!-- diskwright-windows: {"v":1,"phase":"rolled-back","reason":"it was told to"} -->'
ON_VIRTIO = {"sata0": "none,media=cdrom", "sata1": "none,media=cdrom", "boot": "order=scsi0"}
ON_VIRTIO |= {"scsi0": "local-lvm:vm-122-disk-0,size=64M"}
CASES: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    # configuration, options, what it says
    "no Windows": ({"ostype": "l26"}, {}, "it is no Windows (its ostype is l26); set the ostype in PVE if it is one"),
    "no driver": ({"ostype": "wxp"}, {}, "bus=scsi: there is no vioscsi for Windows XP; write bus: virtio"),
    "no ISO": ({}, {"iso": None}, "iso: Windows needs the driver ISO; name it with iso, as a storage calls it"),
    "no snapshot": (
        {"sata1": "thick:vm-122-disk-0,size=64M"},
        {},
        "snapshot=required: no snapshot can be made of it (sata1: thick, which is lvm, takes no snapshots); write",
    ),
    "locked": ({"lock": "backup"}, {}, "it is locked (backup); wait until the job that locked it ends"),
    "protected": ({"protection": "1"}, {}, "PVE empties no slot of a protected guest"),
    "no boot disk": ({"boot": "order=net0"}, {}, "it is not known which disk it starts from; put the disk into the"),
    "other disks on the controller": (
        {"scsihw": "lsi", "scsi5": "local-lvm:vm-122-disk-5,size=64M"},
        {},
        "its disks are on lsi, and Windows can't see another controller beside it; write staging: offline",
    ),
    "no agent": ({"agent": "0"}, {"staging": "online"}, "its guest agent does not answer; write staging: offline"),
    "nothing to judge": ({}, {"verdict": "commit"}, "verdict=commit: no migration of it is under way; remove verdict"),
    "damaged journal": ({"description": DAMAGED}, {}, "was edited and can't be read; look which slot its disks are in"),
    "another version's journal": (
        {"description": DAMAGED.replace('"v":1', '"v":99')},
        {},
        "by a newer version of diskwright.proxmox (its format is 99, and 1 is known); update the collection",
    ),
    "no snapshot, tried again": (
        {"sata1": "thick:vm-122-disk-0,size=64M", "description": ROLLED_BACK},
        {"retry": True},
        "snapshot=required: no snapshot can be made of it (sata1: thick, which is lvm, takes no snapshots); write",
    ),
    "nothing to take back": ({}, {"verdict": "roll_back"}, "no migration of it is under way; remove verdict"),
    "nothing to take back on VirtIO": (
        {"scsihw": "virtio-scsi-single", **ON_VIRTIO},
        {"verdict": "roll_back"},
        "it is on VirtIO, and no migration of it is under way that could go back; see the guide 'How",
    ),
    "two reasons on one line": (
        {"sata1": "thick:vm-122-disk-0,size=64M", "description": "notes"},
        {"iso": None},
        "have a backup. iso: Windows needs the driver ISO; name it with iso, as a storage calls it",
    ),
    "long notes": ({"description": "x" * 7900}, {}, "and PVE takes 8192; shorten its notes"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, tmp_path: Path) -> None:
    config, options, words = CASES[case]
    with migratable(tmp_path, None if case == "no driver" else "2022", config) as lab:
        before = hardware(lab)
        for check in (True, False):
            said = migrate(lab, check=check, **options)
            assert words in (said.failure or ""), said.failure
            assert (said.changed, said.diff) == (False, "")
        assert writes(lab) == []
        assert hardware(lab) == before


def test_pending_changes(tmp_path: Path) -> None:
    with migratable(tmp_path, pending={"memory": "1024"}) as lab:
        said = str(migrate(lab).failure)
        assert "memory waits for the next start; restart it, or take the change back, first" in said
        assert writes(lab) == []


def test_windows_that_can_not_be_asked_is_not_taken_for_one_without_an_agent(tmp_path: Path) -> None:
    with migratable(tmp_path) as lab:
        inside(lab).fails = "gather"
        said = migrate(lab).failure or ""
        assert "its agent is there, and Windows can't be asked: Windows refused (gather)" in said
        assert "see to its agent, or write staging: offline" in said
        assert writes(lab) == []


ANSWERS = {"lacks something": b'{"system": {}}', "a list": b'[1, 2]', "no JSON": b"Fehler"}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_windows_answers_is_told_in_words(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as Python would write it, and with what to do."""
    with migratable(tmp_path) as lab:
        monkeypatch.setattr(agent.Agent, "script", lambda *_arguments: ANSWERS[answer])
        said = migrate(lab).failure or ""
        assert "its agent is there, and Windows can't be asked: " in said
        assert "run again, and if it stays so, look whether its PowerShell and WMI work" in said
        assert not re.search(r"Error|\(line|indices", said), said
        assert writes(lab) == []


def test_an_iso_that_is_not_there_may_come_until_then(tmp_path: Path) -> None:
    """Check mode says so; a run is refused."""
    with migratable(tmp_path) as lab:
        other = ISO.replace("271", "999")
        planned = migrate(lab, check=True, iso=other)
        assert f"? iso       {other} is not there yet" in planned.diff
        assert planned.failure is None
        said = migrate(lab, iso=other)
        assert f"iso={other}: there is no such image; name an ISO as PVE lists it" in (said.failure or "")
        assert writes(lab) == []


def test_a_guest_that_is_tried_again_is_checked_again(tmp_path: Path) -> None:
    """A note that it was rolled back is no migration: with retry it is a guest like any other."""
    with migratable(tmp_path, config={"description": ROLLED_BACK}) as lab:
        other = ISO.replace("271", "999")
        planned = migrate(lab, check=True, iso=other, retry=True)
        assert f"? iso       {other} is not there yet" in planned.diff
        assert f"iso={other}: there is no such image" in (migrate(lab, iso=other, retry=True).failure or "")
        lab.faults.ha.add(VMID)
        assert "it is managed by HA" in (migrate(lab, retry=True).failure or "")
        lab.faults.ha.clear()
        assert writes(lab) == []
        assert migrate(lab, retry=True).state == "committed"


def test_one_guests_failure_is_one_guests_failure(tmp_path: Path) -> None:
    """And two names for one guest are a mistake."""
    other = {"vmid": 123, "name": "win2", "running": True, "agent": {"windows": "2016"}, "config": OTHER}
    with both(tmp_path, other) as lab:
        inside(lab, 123).fails = "stage"
        ended = migrate(lab, guests=[named(vmid=VMID), named(name="win2"), named(name="nobody"), named(vmid=999)])
        assert [guest["state"] for guest in ended.guests] == ["committed", "rolled_back", "stuck", "stuck"]
        assert (ended.failure or "").startswith("3 of 4 guests failed.\nwin2 (123 on pve1): ")
        assert "nobody: there is no such guest, or the user may not see it (right VM.Audit)" in (ended.failure or "")
        twice = migrate(lab, guests=[named(vmid=VMID), named(name="win1")])
        assert "guest 122 is named 2 times" in (twice.failure or "")


OTHER = {**CONFIG, "sata0": "local-lvm:vm-123-disk-0,size=64M", "sata1": "tank:vm-123-disk-0,size=64M"}


def both(folder: Path, other: dict[str, Any]) -> Any:
    """A lab with two guests."""
    first = {"vmid": VMID, "name": "win1", "running": True, "agent": {"windows": "2022"}, "config": CONFIG}
    return rig.started(folder, [first, other], files={ISO: {"text": "drivers\n", "times": 1000}})


def named(**who: Any) -> dict[str, Any]:
    """One of several guests, as Ansible hands it on."""
    return {**dict.fromkeys(["vmid", "name", "node", *wishes_spec()]), **who}


ON_GUESTS = ["VM.Audit", "VM.Config.CDROM", "VM.Config.Disk", "VM.Config.HWType", "VM.Config.Options"]
ON_GUESTS += ["VM.GuestAgent.Unrestricted", "VM.PowerMgmt", "VM.Snapshot"]
ON_STORAGES = ["Datastore.AllocateSpace"]
FEWER = {"all": [*ON_GUESTS, *ON_STORAGES]}
FEWER |= {f"without {one}": [right for right in FEWER["all"] if right != one] for one in FEWER["all"]}


def test_least_privileges(tmp_path: Path) -> None:
    """With what the documentation names it works; without one of it nothing is done, and all of it is told."""
    users = {f"u{number}@pve": rights for number, rights in enumerate(FEWER.values())}
    guests = []
    for vmid, _user in enumerate(users, 200):
        config = {key: text.replace("122", str(vmid)) for key, text in {**CONFIG, "scsihw": "lsi"}.items()}
        words = {"running": True, "agent": {"windows": "2022"}, "config": config}
        guests.append({"vmid": vmid, "name": f"win{vmid}", **words})
    tokens = {"tokens": {"t": {"privsep": False}}}
    seed = {
        "files": {ISO: {"text": "drivers\n", "times": 1000}},
        "users": {
            "root@pam": {"tokens": {"test": {"privsep": False}}},
            **dict.fromkeys([*users, "audit@pve"], tokens),
        },
        "roles": {f"R{user[:-4]}": rights for user, rights in users.items()},
        "acl": [
            *({"path": path, "role": f"R{user[:-4]}", "to": user} for user in users for path in ("/vms", "/storage")),
            {"path": "/vms", "role": "PVEAuditor", "to": "audit@pve"},
        ],
    }
    with rig.started(tmp_path, guests, **seed) as lab:
        for vmid, (case, user) in enumerate(zip(FEWER, users, strict=True), 200):
            before = hardware(lab, vmid)
            with client(lab, f"{user}!t") as connection:
                work = WindowsMigrate(connection, parameters(vmid=vmid))
                work.prepare()
                work.execute()
                result = work.result(executed=True)
            if case == "all":
                assert result.failure is None
                continue
            assert case.removeprefix("without ") in (result.failure or "") or "no such guest" in (result.failure or "")
            assert result.data["guests"][0]["state"] in ("refused", "stuck")
            assert hardware(lab, vmid) == before, case
            assert lab.guest(vmid).running
        assert {path for path in writes(lab) if "/200/" not in path} == set(), "before the first write"
        with client(lab, "audit@pve!t") as connection:
            work = WindowsMigrate(connection, parameters(vmid=201))
            work.prepare()
            said = work.result(executed=False).failure or ""
            missing = set(FEWER["all"]) - {"VM.Audit"}
            assert all(right in said for right in missing), said
            assert len(said.splitlines()) == 1
            (standing,) = standings(lab, connection, vmid=[201])
            assert "may not ask its agent" in standing["reason"]
            assert all(right in standing["hindrances"][0] for right in missing - {"Datastore.AllocateSpace"})


def test_a_journal_that_can_not_be_read_is_where_the_guest_stands(tmp_path: Path) -> None:
    """The guest is looked at like others, and said once; while a run is at work, it stays where it is."""
    with migratable(tmp_path, config={"description": DAMAGED}) as lab:
        (win1,) = standings(lab)
        assert (win1["standing"], win1["boot_slot"]) == ("impossible", "sata0")
        assert win1["reason"] == "the journal of its migration, a comment in its notes, was edited and can't be read"
        (hindrance,) = win1["hindrances"]
        assert hindrance.startswith(f"{win1['reason']}; look which slot its disks are in")
    with migratable(tmp_path / "while") as lab:
        came = before_write(lab, 3, lambda: lab.change(VMID, description=DAMAGED))
        ended = migrate(lab)
        assert (came, ended.state) == ([True], "stuck")
        assert "was edited and can't be read" in (ended.failure or "")


def test_rights_on_the_guest_alone_are_enough(tmp_path: Path) -> None:
    """PVE marks those that are not passed on to what is below with a 0."""
    acl = [{"path": path, "role": "Here", "to": "here@pve", "propagate": False} for path in PATHS]
    users = {"root@pam": {"tokens": {"test": {"privsep": False}}}, "here@pve": {"tokens": {"t": {"privsep": False}}}}
    with migratable(tmp_path, seed={"users": users, "roles": {"Here": FEWER["all"]}, "acl": acl}) as lab:
        with client(lab, "here@pve!t") as connection:
            work = WindowsMigrate(connection, parameters())
            work.prepare()
            result = work.result(executed=False)
        assert (result.failure, result.changed) == (None, True)


PATHS = [f"/vms/{VMID}", *(f"/storage/{name}" for name in ("local", "local-lvm", "tank"))]


def test_where_guests_stand(tmp_path: Path) -> None:
    linux = {"vmid": 123, "name": "web1", "config": {"scsi0": "local-lvm:vm-123-disk-0,size=64M"}}
    with both(tmp_path, linux) as lab:
        (win1,) = standings(lab)
        assert (win1["standing"], win1["reason"]) == ("needs_drivers", "vioscsi is not installed")
        assert win1["product"] == "Windows Server 2022 Standard"
        assert (win1["release"], win1["virtio_win"]) == ("2022", "0.1.271")
        assert (win1["agent"], win1["boot_slot"], win1["hindrances"], win1["phase"]) == (True, "sata0", [], None)
        inside(lab).fails = "stage"
        migrate(lab)
        (win1,) = standings(lab, name=["win1", "nobody"], ignore_absent=True)
        assert win1["standing"] == "rolled_back"
        assert "Windows refused (stage)" in win1["reason"]
        assert writes(lab)
