# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Defects that users of other modules suffer from do not exist here; numbered as they were collected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.argspec import disk_spec
from e2e.kit import HERE, Client, client, converge, disks, started
from lab import Lab

CASES = yaml.safe_load((HERE / "peer_defects.yml").read_text())["cases"]
FIRST = 200
MANY = range(110, 120)


def filled(data: Any, vmid: int) -> Any:
    """Data with the guest's number in its texts."""
    if isinstance(data, str):
        return data.replace("{vmid}", str(vmid))
    if isinstance(data, Mapping):
        return {key: filled(value, vmid) for key, value in data.items()}
    return [filled(value, vmid) for value in data] if isinstance(data, list) else data


def guest(vmid: int, config: Mapping[str, str], **more: Any) -> dict[str, Any]:
    return {"vmid": vmid, "name": f"g{vmid}", "config": filled(config, vmid), **more}


SEED = {
    "files": {"samples": ["local"], "local:iso/debian.iso": {"text": "an installer\n", "times": 1000}},
    "guests": [
        *(guest(FIRST + number, case["config"]) for number, case in enumerate(CASES)),
        guest(100, {"scsi0": "local-lvm:vm-{vmid}-disk-0,size=64M", "boot": "order=scsi0"}, running=True),
        guest(101, {"scsi0": "local-lvm:vm-{vmid}-disk-0,size=64M"}),
        guest(102, {"scsi0": "local-lvm:vm-{vmid}-disk-0,size=64M"}),
        guest(
            103,
            {"sata0": "local-lvm:vm-{vmid}-disk-0,size=64M", "scsihw": "virtio-scsi-pci", "boot": "order=sata0"},
            running=True,
        ),
        guest(105, {"scsi0": "/dev/disk/by-id/nvme-eui.01,backup=0,size=64M"}),
        guest(104, {"scsi0": "local-lvm:vm-{vmid}-disk-0,cache=none,future=7,size=64M"}),
        *(
            guest(vmid, {f"scsi{n}": f"local-lvm:vm-{vmid}-disk-{n},size=4M" for n in range(3)})
            for vmid in range(110, 120)
        ),
    ],
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with started(SEED) as lab:
        yield lab


@pytest.fixture(scope="module")
def connection(lab: Lab) -> Iterator[Client]:
    with client(lab) as connection:
        yield connection


def configured(lab: Lab, vmid: int) -> dict[str, str]:
    return {key: value for key, value in lab.config(vmid).items() if key != "digest"}


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["name"] for case in CASES])
def test_case(number: int, lab: Lab, connection: Client) -> None:
    case, vmid = CASES[number], FIRST + number
    declared = {"vmid": vmid, "disks": filled(case["disks"], vmid)}
    before, then = configured(lab, vmid), filled(case.get("then", {}), vmid)
    lab.requests.clear()
    check = converge(connection, declared, check=True)
    assert lab.writes() == []
    outcome = converge(connection, declared)
    assert outcome.failure is None
    changes = {key: value for key, value in then.items() if value is not None}
    expected = {key: value for key, value in {**before, **changes}.items() if then.get(key, "") is not None}
    after = configured(lab, vmid)
    assert {**after, "boot": ""} == {**expected, "boot": ""}  # the first disk of a guest comes into its boot order
    assert outcome.changed == check.changed == bool(then)
    assert outcome.diff == check.diff
    lab.requests.clear()
    again = converge(connection, declared)
    assert (again.failure, again.changed, again.diff) == (None, False, "")
    assert lab.writes() == []


def test_d3_obsolete_options_are_not_offered() -> None:
    spec = disk_spec()
    assert not {"cyls", "heads", "secs", "trans"} & set(spec)
    assert "cow" not in spec["format"]["choices"]


def test_d8_an_option_of_a_disk_that_is_passed_through(lab: Lab) -> None:
    """As far as the plan: the lab has no devices that it could attach."""
    with client(lab, api_password=lab.password) as own:
        outcome = converge(own, {"vmid": 105, "disks": disks("slot: scsi0, discard: 'on'")}, check=True)
    assert outcome.failure is None
    assert outcome.guest(105)["after"]["scsi0"] == "/dev/disk/by-id/nvme-eui.01,backup=0,discard=on,size=64M"


def test_d9_a_bus_is_no_slot(lab: Lab, connection: Client) -> None:
    outcome = converge(connection, {"vmid": 101, "disks": disks("slot: scsi, size: 1G")})
    assert outcome.errors == [
        "g101 (101 on pve1): scsi: slot 'scsi' does not exist; the slots are ide0-3, sata0-5, scsi0-30, virtio0-15, "
        "efidisk0, tpmstate0, unused0-255"
    ]


def test_d10_warnings_of_a_task_are_success(lab: Lab, connection: Client) -> None:
    """The start after the change ends with WARNINGS: 1."""
    declared = {"vmid": 103, "disks": disks("slot: scsi0, moved_from: sata0, iothread: true")}
    outcome = converge(connection, declared, power="stop_if_needed")
    assert outcome.failure is None
    assert outcome.changed
    assert lab.guest(103).running is not None
    assert any("iothread is only valid" in warning for warning in outcome.warnings)


def test_d11_a_timeout_names_the_task_and_the_next_run_waits_for_nothing(lab: Lab, connection: Client) -> None:
    declared = {"vmid": 101, "disks": disks("slot: scsi0, storage: local, delete_source: true")}
    lab.faults.task_seconds["qmmove"] = 300
    outcome = converge(connection, declared, task_timeout=1)
    lab.faults.task_seconds.clear()
    one = outcome.guest(101)
    assert one["upid"].startswith("UPID:pve1:")
    assert "qmmove" in one["upid"]
    assert one["upid"] in one["errors"][0]
    assert [step["state"] for step in one["actions"]] == ["failed"]
    lab.cluster.tasks.settle()
    again = converge(connection, declared)
    assert again.failure is None
    assert lab.config(101)["scsi0"].startswith("local:101/")


def test_d11_a_failed_task_says_why(lab: Lab, connection: Client) -> None:
    lab.faults.task_errors["resize"] = ["no space left on thin pool"]
    outcome = converge(connection, {"vmid": 102, "disks": disks("slot: scsi0, size: 128M")})
    assert outcome.failure is not None
    assert "the task resize of 102 on pve1 failed: no space left on thin pool" in outcome.failure
    assert "UPID:pve1:" in outcome.failure
    assert not outcome.changed


def test_d15_nothing_to_do_costs_one_list_and_one_read_a_guest(lab: Lab, connection: Client) -> None:
    declared = [
        {"vmid": vmid, "disks": disks(*(f"slot: scsi{n}, size: 4M" for n in range(3)))} for vmid in range(110, 120)
    ]
    lab.requests.clear()
    outcome = converge(connection, *declared)
    assert (outcome.failure, outcome.changed) == (None, False)
    assert sorted(request.path for request in lab.requests) == sorted(
        ["/cluster/resources", *(f"/nodes/pve1/qemu/{vmid}/pending" for vmid in MANY)]
    )


def test_d15_all_disks_of_a_guest_in_one_write_with_a_digest(lab: Lab, connection: Client) -> None:
    declared = {"vmid": 110, "disks": disks(*(f"slot: scsi{n}, cache: none, backup: false" for n in range(3)))}
    lab.requests.clear()
    converge(connection, declared)
    (write,) = lab.writes()
    assert {"scsi0", "scsi1", "scsi2", "digest"} == set(write.params)


def test_d18_every_write_that_can_carry_a_digest_does(lab: Lab, connection: Client) -> None:
    lab.requests.clear()
    declared = {
        "vmid": 111,
        "disks": disks("slot: scsi0, size: 8M", "slot: scsi1, storage: local", "slot: scsi2, state: absent"),
    }
    outcome = converge(connection, declared, allow_destroy=True)
    assert outcome.failure is None
    assert [request.path.rpartition("/")[2] for request in lab.writes()]
    assert all(re.fullmatch("[0-9a-f]{40}", str(request.params.get("digest"))) for request in lab.writes())


def test_unknown_options_are_carried_through(lab: Lab, connection: Client) -> None:
    """An option of a later PVE: kept verbatim, in the plan at least, for this PVE would refuse to have it written."""
    declared = {"vmid": 104, "disks": disks("slot: scsi0, cache: unsafe")}
    outcome = converge(connection, declared, check=True)
    assert outcome.guest(104)["after"]["scsi0"] == "local-lvm:vm-104-disk-0,cache=unsafe,future=7,size=64M"
    same = converge(connection, {"vmid": 104, "disks": disks("slot: scsi0, cache: none, size: 64M")})
    assert (same.failure, same.changed) == (None, False)


def test_what_waits_is_reported_until_the_guest_has_taken_it_up(lab: Lab, connection: Client) -> None:
    declared = {"vmid": 100, "disks": disks("slot: scsi0, cache: none")}
    first, second = converge(connection, declared), converge(connection, declared)
    assert (first.changed, second.changed) == (True, False)
    assert first.guest(100)["restart_required"] == second.guest(100)["restart_required"] == ["scsi0.cache"]
