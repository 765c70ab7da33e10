# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest agent's stand-in beyond the recordings: what seeds and tests put into a guest."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from lab import Lab
from lab.agent import Inside, Result, agent_of, program
from lab.samples import AGENT_MARK

SEED: dict[str, Any] = {"guests": [
    {"vmid": 100, "running": True, "config": {"agent": 1, "scsi0": "local-lvm:vm-100-disk-0,size=1G",
                                             "virtio1": "local:100/vm-100-disk-0.qcow2,size=3G"},
     "agent": {"files": {"/etc/hostname": "db1\n"}, "answers": {"get-host-name": {"host-name": "db1"}},
               "programs": [{"match": "lsblk .*", "out": "{}"}, {"match": "growpart /dev/sda 1", "exit": 1,
                                                                "err": "NOCHANGE"}]}},
    {"vmid": 101, "running": True, "config": {"agent": 1, "scsi0": "local:101/vm-101-disk-0.qcow2,size=1G"},
     "contents": {"scsi0": AGENT_MARK.decode()}},
    {"vmid": 102, "running": True, "config": {"agent": 1, "scsi0": "local:102/vm-102-disk-0.qcow2,size=1G"}},
]}


class Client:
    """Calls the agent of one guest as root."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        context = ssl.create_default_context(cafile=str(lab.cafile))
        self._connection = http.client.HTTPSConnection(lab.host, lab.port, context=context)

    def __call__(self, method: str, vmid: int, name: str, **fields: Any) -> tuple[int, Any]:
        path, query = f"/api2/json/nodes/pve1/qemu/{vmid}/agent/{name}", urlencode(fields, doseq=True)
        headers = {"Authorization": f"PVEAPIToken=root@pam!test={self.lab.token()}"}
        if method == "GET":
            path, query = f"{path}?{query}", ""
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, query, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        body = json.loads(text) if text else {}
        return answer.status, body.get("data") if answer.status == 200 else body.get("message")

    def run(self, vmid: int, *command: str) -> Any:
        _, started = self("POST", vmid, "exec", command=list(command))
        return self("GET", vmid, "exec-status", pid=started["pid"])[1]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with Lab(tmp_path, SEED) as lab:
        yield Client(lab)


def test_a_seed_says_what_is_inside(client: Client) -> None:
    assert client("GET", 100, "get-host-name") == (200, {"result": {"host-name": "db1"}})
    assert client("GET", 100, "file-read", file="/etc/hostname") == (200, {"content": "db1\n", "bytes-read": 4})
    assert client.run(100, "lsblk", "--json") == {"exited": 1, "exitcode": 0, "out-data": "{}", "out-truncated": 0}
    assert client.run(100, "growpart", "/dev/sda", "1") == {"exited": 1, "exitcode": 1, "err-data": "NOCHANGE",
                                                           "err-truncated": 0}


def test_a_disk_with_an_agent_on_it_has_one(client: Client) -> None:
    assert client("POST", 101, "ping") == (200, {"result": {}})
    assert client("POST", 102, "ping") == (500, "QEMU guest agent is not running\n")


def test_an_agent_can_fall_silent(client: Client) -> None:
    client.lab.faults.agent_down.add(100)
    assert client("POST", 100, "ping") == (500, "QEMU guest agent is not running\n")
    client.lab.faults.agent_down.clear()
    assert client("POST", 100, "ping")[0] == 200


def test_the_guest_sees_its_disks(client: Client) -> None:
    assert client.run(100, "cat", "/sys/block/sda/size", "/sys/block/vda/size")["out-data"] == "2097152\n6291456\n"
    assert client.run(100, "cat", "/sys/block/sdz/size")["exitcode"] == 1


def test_a_test_answers_commands_itself(client: Client) -> None:
    def grow(inside: Inside, match: Any) -> Result:
        inside.agent.files["/grown"] = match[1].encode()
        return Result(out=f"{inside.disks['sda']}\n")

    agent_of(client.lab.guest(100)).programs.insert(0, program(r"resize2fs (\S+)", grow))
    assert client.run(100, "resize2fs", "/dev/sda1")["out-data"] == f"{1 << 30}\n"
    assert client("GET", 100, "file-read", file="/grown")[1]["content"] == "/dev/sda1"


def test_a_command_that_does_not_exist_gets_no_answer(client: Client) -> None:
    assert client("POST", 100, "exec", command=["nosuch"]) == (596, None)
