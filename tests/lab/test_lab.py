# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab does beside answering as recorded: seeds, restarts, faults, rights, the request log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from lab import Lab
from lab.__main__ import SEED as SEED_OF_THE_DEMO
from lab.__main__ import TOP, environment
from lab.agent import agent_of
from lab.seed import SeedError, load

SEED: dict[str, Any] = {
    "nodes": ["pve1", "pve2"],
    "users": {"root@pam": {"tokens": {"test": {"privsep": False}, "sep": {"privsep": True}}}},
    "roles": {"Disks": ["VM.Audit", "VM.Config.Disk"]},
    "acl": [{"path": "/pool/web", "role": "Disks", "to": "root@pam!sep"}],
    "guests": [
        {"vmid": 100, "name": "db1", "running": True, "tags": ["db", "prod"], "pool": "web", "busy": ["scsi1"],
         "config": {"scsi0": "local:100/vm-100-disk-0.qcow2,size=64M", "scsi1": "local-lvm:vm-100-disk-0,size=8M"},
         "contents": {"scsi0": "the first bytes"}, "agent": {}},
        {"vmid": 101, "node": "pve2", "config": {"virtio0": "tank:vm-101-disk-0,size=8M"}, "snapshots": ["before"]},
    ],
}


MISTAKES = [
    ("guests: [{vmid: 100, node: pve7}]", "guest 100 is on node 'pve7'; the nodes are pve1"),
    ("guests: [{name: db1}]", "guest 1 of the list has no vmid; write vmid: 100"),
    ("guests: [{vmid: 100}, {vmid: 100}]", "guest 100 is there twice"),
    ("guests: [{vmid: 100, disks: {}}]", "guest 100 has no 'disks'; it takes vmid, name"),
    ('guests: [{vmid: 100, config: {scsi0: "nowhere:a,size=1G"}}]', "guest 100: scsi0 is on storage 'nowhere'; the"),
    ("guest: []", "there is no 'guest'; it takes nodes"),
    ("- guests", "holds no dictionary"),
    ("guests: [", "is no YAML: while parsing"),
]


def lab_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", "--port", "0", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_in_a_seed_is_told_and_nothing_is_made(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "seed.yml").write_text(text)
    with pytest.raises(SeedError) as told:
        load(tmp_path / "seed.yml")
    assert message in str(told.value) and "\n" not in str(told.value)


def test_the_command_tells_a_mistake_on_one_line(tmp_path: Path) -> None:
    run = lab_command("--state", str(tmp_path / "lab"), "--seed", str(tmp_path / "none.yml"))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"lab: {tmp_path}/none.yml can't be read: No such file or directory\n"
    assert not (tmp_path / "lab").exists()


def test_roots_token_is_there_whatever_users_a_seed_names(tmp_path: Path) -> None:
    path = tmp_path / "seed.yml"
    path.write_text("users: {joe@pve: {password: x}, root@pam: {tokens: {mine: {secret: s}}}}\n")
    with Lab(tmp_path / "lab", load(path)) as lab:
        assert environment(lab)["PROXMOX_TOKEN_SECRET"] == lab.token("root@pam!test") != ""
        assert lab.token("root@pam!mine") == "s"


def test_the_command_says_where_seeds_are_explained() -> None:
    text = " ".join(lab_command("--help").stdout.split())
    named = re.findall(r"(?:tests|\.cache)/[\w/.]+\w", text)
    assert named == [".cache/lab", "tests/demo/seed.yml", "tests/lab/seed.py"]
    assert all((TOP / name).is_file() for name in named[1:])


def test_without_arguments_it_holds_the_demos_guests(tmp_path: Path) -> None:
    with Lab(tmp_path, load(SEED_OF_THE_DEMO)) as lab:
        assert {guest.vmid for guest in lab.cluster.guests()} == {120, 121, 122}
        assert environment(lab)["PROXMOX_VALIDATE_CERTS"] == "true"


def test_what_the_command_prints_makes_a_shell_the_node_of_the_lab(tmp_path: Path) -> None:
    """Whoever pastes it has pvesm, which works on the lab's own storages."""
    command = [sys.executable, "-m", "lab", "--port", "0", "--state", str(tmp_path / "lab")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            pasted = "".join(exports(running))
            alloc, where = "pvesm alloc local 120 vm-120-x.raw 1024 --format raw", "pvesm path local:120/vm-120-x.raw"
            said = subprocess.run(["sh", "-c", f'{pasted}{alloc} && {where} && echo "$PROXMOX_USER"'],
                                  capture_output=True, text=True, check=True).stdout.splitlines()
        finally:
            running.terminate()
    assert said[-3:] == ["successfully created 'local:120/vm-120-x.raw'", said[-2], "root@pam"]
    assert Path(said[-2]).is_relative_to(tmp_path / "lab") and Path(said[-2]).is_file()


def exports(running: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that are to be pasted, up to the last one."""
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("export "):
            yield line
        if line.startswith("export PATH="):
            return
    raise AssertionError("it has ended without the last line")


class Client:
    """Asks with one identity and gives status and data."""

    def __init__(self, lab: Lab, tokenid: str = "root@pam!test") -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(lab.cafile)
        self.session.headers["Authorization"] = f"PVEAPIToken={tokenid}={lab.token(tokenid)}"
        self.base = f"{lab.url}/api2/json"

    def __call__(self, method: str, path: str, **params: Any) -> tuple[int, Any]:
        where = {"params": params} if method in ("GET", "DELETE") else {"data": params}
        response = self.session.request(method, self.base + path, timeout=60, **where)  # type: ignore[arg-type]
        return response.status_code, response.json().get("data") if response.content else None


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, SEED) as lab:
        yield lab


@pytest.fixture
def call(lab: Lab) -> Client:
    return Client(lab)


G = "/nodes/pve1/qemu/100"


def test_volumes_are_real_images(lab: Lab, call: Client) -> None:
    file = lab.file("local:100/vm-100-disk-0.qcow2")
    command = ["qemu-io", "-f", "qcow2", "-c", "read -v 0 16", str(file)]
    assert "the.first.bytes." in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    status, upid = call("POST", G + "/move_disk", disk="scsi0", storage="ceph")
    assert (status, lab.cluster.tasks.wait(upid)) == (200, "OK")
    assert lab.config(100)["scsi0"] == "ceph:vm-100-disk-0,size=64M"
    assert lab.file("ceph:vm-100-disk-0").read_bytes().startswith(b"the first bytes")


def test_a_restarted_lab_goes_on(tmp_path: Path) -> None:
    with Lab(tmp_path, SEED) as lab:
        assert Client(lab)("PUT", "/nodes/pve2/qemu/101/config", cores=3)[0] == 200
        assert Client(lab)("PUT", G + "/config", sata0="local:1")[0] == 200
        secret = lab.token()
    with Lab(tmp_path) as lab:
        assert lab.cluster.nodes == ["pve1", "pve2"]
        assert lab.config(101)["cores"] == "3"
        assert (lab.guest(101).running, lab.guest(100).running is not None) == (None, True)
        assert lab.pending(100).keys() == {"sata0"}
        assert lab.token() == secret
        assert lab.guest(101).conf.snapshots["before"]["virtio0"] == "tank:vm-101-disk-0,size=8M"
        assert lab.cluster.storages("pve2").snapshots("tank:vm-101-disk-0") == ["before"]


def test_nodes_have_their_own_storages(lab: Lab, call: Client) -> None:
    assert "tank:vm-101-disk-0" in lab.volumes("pve2")
    assert "tank:vm-101-disk-0" not in lab.volumes("pve1")
    _, rows = call("GET", "/cluster/resources", type="vm")
    assert {(row["vmid"], row["node"], row["status"], row.get("tags"), row.get("pool")) for row in rows} == {
        (100, "pve1", "running", "db;prod", "web"), (101, "pve2", "stopped", None, None)}


def test_a_slot_that_the_guest_holds(lab: Lab, call: Client) -> None:
    assert call("PUT", G + "/config", delete="scsi1")[0] == 400
    assert lab.pending(100) == {"delete": "scsi1"}
    assert call("PUT", G + "/config", delete="scsi1")[0] == 200
    assert lab.config(100)["unused0"] == "local-lvm:vm-100-disk-0"


def test_an_answer_that_comes_too_late(lab: Lab, call: Client) -> None:
    lab.faults.slow("PUT", "/100/config$", 40)
    assert call("PUT", G + "/config", name="late") == (596, None)
    lab.settle()
    assert lab.config(100)["name"] == "late"
    assert [request.status for request in lab.writes()] == [596]


def test_an_answer_that_gets_lost(lab: Lab, call: Client) -> None:
    lab.faults.lose_answer("PUT", "/100/config$")
    with pytest.raises(requests.ConnectionError):
        call("PUT", G + "/config", name="lost")
    assert lab.config(100)["name"] == "lost"


def test_a_busy_guest_and_a_busy_node(lab: Lab, call: Client) -> None:
    lab.faults.task_seconds["resize"] = 60
    _, upid = call("PUT", G + "/resize", disk="scsi0", size="+1M")
    status = call("PUT", G + "/config", name="other")[0]
    assert (status, lab.cluster.tasks.wait(upid)) == (500, "OK")
    lab.faults.no_worker["resize"] = 1
    assert [call("PUT", G + "/resize", disk="scsi0", size="+1M")[0] for _ in range(2)] == [500, 200]


def test_a_task_that_fails_on_demand(lab: Lab, call: Client) -> None:
    lab.faults.task_errors["qmmove"] = ["no space left"]
    _, upid = call("POST", G + "/move_disk", disk="scsi0", storage="fast")
    assert lab.cluster.tasks.wait(upid) == "no space left"
    assert lab.config(100)["scsi0"].startswith("local:")


def test_errors_of_fakepve_still_work(lab: Lab, call: Client) -> None:
    lab.server.fail("GET", G + "/config", 500, "boom", times=1)
    assert [call("GET", G + "/config")[0] for _ in range(2)] == [500, 200]


def test_a_token_of_root_has_no_rights_of_its_own(lab: Lab) -> None:
    own = Client(lab, "root@pam!sep")
    assert own("GET", G + "/config")[0] == 200
    assert own("PUT", G + "/config", name="x")[0] == 403
    assert own("GET", "/nodes/pve2/qemu/101/config")[0] == 403


def test_the_log_hides_secrets(lab: Lab, call: Client) -> None:
    call("POST", "/access/users", userid="joe@pve", password="hunter2")
    assert lab.requests[-1].params == {"userid": "joe@pve", "password": "***"}
    assert lab.requests[-1].user == "root@pam!test"


def test_an_agent_that_a_seed_gives(lab: Lab, call: Client) -> None:
    agent_of(lab.guest(100)).files["/etc/hostname"] = b"db1\n"
    assert call("GET", G + "/agent/file-read", file="/etc/hostname")[1]["content"] == "db1\n"
    lab.faults.agent_down.add(100)
    assert call("POST", G + "/agent/ping")[0] == 500


def test_what_somebody_else_does(lab: Lab, call: Client) -> None:
    digest = call("GET", G + "/config")[1]["digest"]
    lab.change(100, onboot="1")
    assert call("PUT", G + "/config", name="x", digest=digest)[0] == 500
    lab.change(100, onboot=None, lock="backup")
    assert call("PUT", G + "/config", name="x")[0] == 500


def test_new_values_come_in_any_order(tmp_path: Path) -> None:
    found = set()
    for number in range(6):
        with Lab(tmp_path / str(number), {"guests": [{"vmid": 100}]}, random_seed=number) as lab:
            Client(lab)("PUT", G + "/config", scsi1="local:1", scsi2="local:1", scsi3="local:1")
            found.add(lab.config(100)["scsi1"])
    assert len(found) > 1
