# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can't be done is refused before the first write, in words that a user can act on. The cases are data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.plan import Plan
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.executor import Executor, Outcome
from e2e.kit import HERE, Client, client, converge, play, run_playbook, started, token_env
from lab import Lab

DATA = yaml.safe_load((HERE / "refusals.yml").read_text())
GOOD = {"vmid": 110, "disks": [{"slot": "scsi0", "cache": "none"}]}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with started(DATA["seed"]) as lab:
        yield lab


@pytest.fixture(scope="module")
def connection(lab: Lab) -> Iterator[Client]:
    with client(lab) as connection:
        yield connection


def guests_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    return list(case.get("guests") or [{"vmid": 100, "disks": case["disks"]}])


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: case["name"])
def test_refused_in_words_and_nothing_written(case: dict[str, Any], lab: Lab, connection: Client) -> None:
    lab.requests.clear()
    outcome = converge(connection, *guests_of(case), **case.get("params", {}))
    assert outcome.errors == case["errors"]
    assert lab.writes() == []
    assert not outcome.changed
    assert all(guest["failed"] and not guest["actions"] for guest in outcome.guests)
    assert outcome.failure is not None
    assert all(error in outcome.failure for error in case["errors"])


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: case["name"])
def test_refused_alike_in_check_mode(case: dict[str, Any], connection: Client) -> None:
    outcome = converge(connection, *guests_of(case), check=True, **case.get("params", {}))
    assert outcome.errors == case["errors"]
    assert not outcome.changed


def test_case_names_are_unique() -> None:
    names = [case["name"] for case in DATA["cases"]]
    assert len(set(names)) == len(names)


def test_other_guests_are_converged(lab: Lab) -> None:
    """All cases that can stand in one run, and one guest without fault: it is changed, the others are not touched."""
    once = {guests_of(case)[0].get("vmid"): case for case in reversed(DATA["cases"]) if not case.get("params")}
    cases = [case for vmid, case in once.items() if vmid not in (None, 999)]
    declared = [guests_of(case)[0] for case in cases]
    lab.change(110, scsi0="local-lvm:vm-110-disk-0,size=64M")
    lab.requests.clear()
    outcome = converge(lab, *declared, GOOD)
    assert len(declared) > 6
    assert [guest["failed"] for guest in outcome.guests] == [True] * len(declared) + [False]
    assert outcome.guest(110)["changed"]
    assert lab.config(110)["scsi0"] == "local-lvm:vm-110-disk-0,cache=none,size=64M"
    assert {request.path for request in lab.writes()} == {"/nodes/pve1/qemu/110/config"}
    failure = outcome.failure or ""
    assert failure.startswith(
        f"{len(declared)} of {len(declared) + 1} guests failed, 1 was changed, 0 are as declared."
    )
    again = converge(lab, *declared, GOOD, check=True).failure or ""
    assert again.startswith(
        f"{len(declared)} of {len(declared) + 1} guests failed, 0 would be changed, 1 is as declared."
    )


@pytest.mark.parametrize("limits", [{"concurrency": 0}, {"task_timeout": 0}, {"task_timeout": -1}, {"bwlimit": -1}])
def test_limits_that_are_none(limits: dict[str, int], connection: Client) -> None:
    with pytest.raises(DiskwrightError, match=f"^{next(iter(limits))}={next(iter(limits.values()))}: "):
        converge(connection, GOOD, **limits)


def test_a_mistake_of_ours_is_that_guests_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has become of the others must not be lost for it."""
    execute = Executor.execute

    def stumbling(self: Executor, layout: Layout, plan: Plan) -> Outcome:
        if layout.vmid == 107:
            raise KeyError("vmid")
        return execute(self, layout, plan)

    monkeypatch.setattr(Executor, "execute", stumbling)
    lab.change(110, scsi0="local-lvm:vm-110-disk-0,size=64M")
    leave = {"vmid": 107, "revert_leftovers": True, "disks": [{"slot": "scsi0", "cache": "none"}]}
    outcome = converge(lab, leave, GOOD)
    assert [guest["failed"] for guest in outcome.guests] == [True, False]
    assert (
        "stale1 (107 on pve1): this should not happen, please report it: KeyError: 'vmid' (test_refusals.py, line"
        in (outcome.failure or "")
    )
    assert lab.config(110)["scsi0"] == "local-lvm:vm-110-disk-0,cache=none,size=64M"


def test_through_ansible(lab: Lab) -> None:
    """The same words, the exit code, and the guests that went well, as a user of Ansible sees them."""
    names = ("shrinking", "option that the bus does not have", "locked guest", "destroying without consent")
    cases = [case for case in DATA["cases"] if case["name"] in names]
    lab.change(110, scsi0="local-lvm:vm-110-disk-0,size=64M")
    lab.requests.clear()
    tasks = [
        {"name": case["name"], "diskwright.proxmox.guest_disks": {"guests": guests_of(case)}, "ignore_errors": True}
        for case in cases
    ]
    tasks.append({"name": "mixed", "diskwright.proxmox.guest_disks": {"guests": [*guests_of(cases[0]), GOOD]}})
    run = run_playbook(play(tasks), token_env(lab))
    assert run.code == 2, run.text
    for case in cases:
        assert run.task(case["name"]).status == "failed"
        assert run.task(case["name"]).result["msg"] == "\n".join(case["errors"])
        assert not run.task(case["name"]).changed
    mixed = run.task("mixed")
    assert mixed.status == "failed"
    assert mixed.changed
    assert [guest["failed"] for guest in mixed.guests] == [True, False]
    assert mixed.result["msg"] == "\n".join(
        ["1 of 2 guests failed, 1 was changed, 0 are as declared.", *cases[0]["errors"]]
    )
    assert {request.path for request in lab.writes()} == {"/nodes/pve1/qemu/110/config"}


def test_a_typo_is_one_guests_refusal_through_ansible(lab: Lab) -> None:
    """What Ansible itself would stop every guest for, in the arguments and by way of the role's filter."""
    lab.change(110, scsi0="local-lvm:vm-110-disk-0,size=64M")
    lab.requests.clear()
    wrong = {"cahce": "none", "iothread": "maybe", "format": "qcow3", "iops": "many", "discard": True}
    hosts = {"db1": {"proxmox_vmid": 100, "proxmox_disks": {"scsi0": wrong, "scsi1": {"unset": ["x"]}}}}
    hosts["good1"] = {"proxmox_vmid": 110, "proxmox_disks": {"scsi0": {"cache": "none"}}}
    tasks = [
        {
            "name": "many",
            "vars": {"inventory": hosts},
            "diskwright.proxmox.guest_disks": {
                "guests": "{{ inventory | diskwright.proxmox.guest_layouts(inventory) }}"
            },
            "ignore_errors": True,
        },
        {"name": "one", "diskwright.proxmox.guest_disks": {"vmid": 100, "disks": [{"cahce": "none"}]}},
    ]
    run = run_playbook(play(tasks), token_env(lab))
    many = run.task("many")
    assert [guest["failed"] for guest in many.guests] == [True, False]
    said = many.guests[0]["errors"]
    assert sorted(said[:4]) == [
        "db1 (100 on pve1): scsi0: cahce: there is no such option; did you mean cache?",
        "db1 (100 on pve1): scsi0: format=qcow3: is not known; write one of raw, qcow2, vmdk",
        "db1 (100 on pve1): scsi0: iops=many: is not allowed; write a whole number of at least 0",
        "db1 (100 on pve1): scsi0: iothread=maybe: is not allowed; write true or false",
    ]
    assert len(said) == 5
    assert said[4].startswith("db1 (100 on pve1): scsi1: unset=x: scsi has no such option")
    assert run.task("one").result["msg"].startswith("db1 (100 on pve1): slot '' does not exist; ")
    assert {request.path for request in lab.writes()} == {"/nodes/pve1/qemu/110/config"}
