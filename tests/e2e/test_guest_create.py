# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_create against the lab: guests appear once, those that are there stay as they are, racers don't collide."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_create import GuestCreate, create_spec
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from e2e import kit
from lab import Lab
from tools.checkout import TOP

SEED = {
    "nodes": ["pve1", "pve2"],
    "files": {},
    "pools": {"web": {}},
    "users": {"root@pam": {"tokens": {"test": {"privsep": False}}}, "few@pve": {"tokens": {"t": {"privsep": False}}}},
    "roles": {"Few": ["VM.Audit", "VM.Allocate", "VM.Config.Memory"]},
    "acl": [{"path": "/vms", "role": "Few", "to": "few@pve"}],
    "guests": [
        {"vmid": 100, "name": "there", "node": "pve2", "config": {"memory": "1024", "net0": "e1000=BC:24:11:00:00:01"}},
        {"vmid": 101, "name": "twin"},
        {"vmid": 102, "name": "twin"},
    ],
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with kit.started(SEED) as lab:
        yield lab


def create(lab: Lab, *, check: bool = False, tokenid: str = "root@pam!test", **params: Any) -> Result:
    given = {**dict.fromkeys(create_spec()), "node": "pve1", "task_timeout": 20, **params}
    with kit.client(lab, tokenid) as client:
        work = GuestCreate(client, given)
        work.prepare()
        if not check:
            work.execute()
        return work.result(executed=not check)


def refused(lab: Lab, **params: Any) -> str:
    """What is said against it. Nothing was written, in check mode as little as really."""
    texts = []
    for check in (True, False):
        with pytest.raises(DiskwrightError) as error:
            create(lab, check=check, **params)
        texts.append(str(error.value))
    assert texts[0] == texts[1]
    assert lab.writes() == []
    return texts[0]


NEW = {
    "name": "web1",
    "memory": 2048,
    "cores": 2,
    "ostype": "l26",
    "agent": "true",
    "pool": "web",
    "net": [{"slot": "net0", "bridge": "vmbr0", "link_down": True}],
}


def test_made_once_with_the_next_number(lab: Lab) -> None:
    planned = create(lab, check=True, **NEW)
    assert lab.writes() == []
    done = create(lab, **NEW)
    assert (planned.data, planned.diff, planned.changed) == (done.data, done.diff, True)
    assert done.data == {"vmid": 103, "name": "web1", "node": "pve1", "different": {}}
    config = lab.config(103)
    assert {key: config[key] for key in ("name", "memory", "cores", "ostype", "agent")} == {
        "name": "web1", "memory": "2048", "cores": "2", "ostype": "l26", "agent": "enabled=1",
    }  # fmt: skip
    assert config["net0"].startswith("virtio=BC:24:11:") and config["net0"].endswith(",bridge=vmbr0,link_down=1")
    again = create(lab, **NEW)
    assert (again.changed, again.diff, again.data) == (False, "", done.data)
    assert len(lab.writes()) == 1


def test_diff(lab: Lab) -> None:
    assert create(lab, check=True, **NEW).diff.splitlines() == [
        "web1 (next free number on pve1, new)",
        "  + memory  2048",
        "  + cores   2",
        "  + ostype  l26",
        "  + agent   enabled=1",
        "  + net0    virtio,bridge=vmbr0,link_down=1",
    ]


def test_one_that_is_there_is_never_changed(lab: Lab) -> None:
    before = lab.config(100)
    found = create(lab, vmid=100, name="there", memory=2048, cores=1, net=[{"slot": "net0"}], pool="web")
    assert not found.changed
    assert found.data["node"] == "pve2"
    assert found.data["different"] == {
        "memory": {"declared": "2048", "actual": "1024"},
        "net0": {"declared": "virtio", "actual": "e1000=BC:24:11:00:00:01"},
        "node": {"declared": "pve1", "actual": "pve2"},
        "pool": {"declared": "web", "actual": None},
    }
    assert (lab.config(100), lab.writes()) == (before, [])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"vmid": 100, "name": "web1"}, "web1 (100): 100 is called there; correct name, or give another number"),
        ({"name": "twin"}, "twin: several guests have this name (101 on pve1, 102 on pve1); give the vmid"),
        ({"name": "new", "node": "pve3"}, "new: node=pve3: there is no such node; write one of pve1, pve2"),
        ({"name": "new", "pool": "db"}, "new: pool=db: there is none that the user may see; write one of web, or"),
        ({"name": "new", "memory": 1, "cores": 0}, "new: cores=0: is not allowed; write a whole number of at least 1"),
    ],
)
def test_refused_before_the_first_write(params: dict[str, Any], message: str, lab: Lab) -> None:
    assert message in refused(lab, **params)


def test_everything_that_is_wrong_is_said_together(lab: Lab) -> None:
    said = refused(lab, name="new", node="pve3", pool="db")
    assert len(said.splitlines()) == 2


def test_a_number_that_cannot_be_seen_is_taken(lab: Lab) -> None:
    lab.cluster.access.acl.clear()
    said = r"vmid=101: it is taken by a container, or by a guest that the user may not see \(right VM\.Audit\)"
    with pytest.raises(DiskwrightError, match=said):
        create(lab, check=True, tokenid="few@pve!t", vmid=101, name="new")


def test_the_rights_of_the_guides_are_enough() -> None:
    """The role that README.md proposes, and what docs/from-vmware.md adds to it, where they say so."""
    texts = [(TOP / name).read_text("utf-8") for name in ("README.md", "docs/from-vmware.md")]
    said = "".join(texts)
    roles = {name: names.split() for name, names in re.findall(r'role add (\S+) --privs "(.*?)"', said)}
    granted = re.findall(r"acl modify (\S+) --users ansible@pve --roles (\S+)", said)
    acl = [{"path": path, "to": "few@pve", "role": role} for path, role in granted]
    assert set(roles) == {"Diskwright", "DiskwrightImport"}
    with kit.started({**SEED, "roles": roles, "acl": acl}) as lab:
        done = create(lab, tokenid="few@pve!t", **NEW)
        assert lab.config(done.data["vmid"])["name"] == "web1"
        assert create(lab, tokenid="few@pve!t", **NEW).data == done.data


def test_a_missing_right_is_named_and_leaves_nothing(lab: Lab) -> None:
    with pytest.raises(DiskwrightError, match=r"VM\.Config\.CPU"):
        create(lab, tokenid="few@pve!t", name="new", memory=64, cores=2)
    assert lab.cluster.find(103) is None


def test_racers_get_a_number_each(lab: Lab) -> None:
    names = [f"r{number}" for number in range(6)]
    ready, found, errors = threading.Barrier(len(names)), dict[str, int](), list[Exception]()

    def race(name: str) -> None:
        ready.wait()
        try:
            found[name] = create(lab, name=name).data["vmid"]
        except DiskwrightError as error:
            errors.append(error)

    threads = [threading.Thread(target=race, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(found.values()) == list(range(103, 109))
    assert {name: lab.config(vmid)["name"] for name, vmid in found.items()} == {name: name for name in names}


def test_a_number_taken_in_between_is_given_up_for_the_next(lab: Lab) -> None:
    taken = "unable to create VM 103 - VM 103 already exists on node 'pve2'"
    lab.server.fail("POST", "/nodes/pve1/qemu", 500, taken, times=2)
    assert create(lab, name="new").data["vmid"] == 103
    assert len(lab.writes()) == 3


def test_a_given_number_taken_in_between_is_an_error(lab: Lab) -> None:
    lab.server.fail("POST", "/nodes/pve1/qemu", 500, "unable to create VM 103 - CT 103 already exists on node 'pve2'")
    with pytest.raises(DiskwrightError, match="CT 103 already exists"):
        create(lab, vmid=103, name="new")


def test_an_answer_that_is_lost_is_looked_for(lab: Lab) -> None:
    lab.faults.lose_answer("POST", "/qemu$")
    assert create(lab, name="new", memory=64).data["vmid"] == 103
    assert lab.config(103)["memory"] == "64"
    assert len(lab.writes()) == 1


def test_two_runs_of_one_name_are_noticed(lab: Lab) -> None:
    given = {**dict.fromkeys(create_spec()), "node": "pve1", "task_timeout": 20, "name": "new"}
    with kit.client(lab) as client:
        work = GuestCreate(client, given)
        work.prepare()  # it has looked, and then the other one is faster
        create(lab, name="new")
        with pytest.raises(DiskwrightError, match="made as 104, and another run has made 103 of the same name"):
            work.execute()


def test_a_half_made_guest_is_named(lab: Lab) -> None:
    lab.faults.no_worker["qmcreate"] = 1
    with pytest.raises(DiskwrightError, match="got no worker upid"):
        create(lab, vmid=103, name="new")
    if lab.cluster.find(103) is None:  # what a busy node leaves behind
        lab.cluster.add_guest(103, "pve1", "lock: create\n")
    with pytest.raises(DiskwrightError, match=r"left half made \(lock: create\).*qm unlock 103 && qm destroy 103"):
        create(lab, vmid=103, name="new")
