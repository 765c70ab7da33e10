# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed anywhere is finished by the next one.

The run is a process of its own that gets SIGKILL from the lab before its n-th write is answered, after PVE has taken
it up; and at the first also before PVE sees it. Tasks that PVE has started go on, as they do on a real node.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from e2e import rig
from lab import Lab
from lab.api import Call, Route

VMID = 100
RUNNER = """
import json, os, sys
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout, read_layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Client, Endpoint
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.converge import Convergence
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.executor import Limits
import proxmoxer.backends.https  # once for all runs

def run(where, declaration, destroy):
    declared = read_layout(declaration, Layout(allow_destroy=destroy))
    run = Convergence(Client(Endpoint(**where)), [declared], Limits(60), concurrency=1)
    run.prepare()
    run.execute()
    os._exit(1 if any(job.failed for job in run.jobs) else 0)

for line in sys.stdin:
    begin, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(begin, 1)  # until the test knows whom to kill
        run(*json.loads(line))
    print(child, flush=True)
    sys.stdin.readline()
    os.write(go, b".")
    print(os.waitpid(child, 0)[1], flush=True)
    os.close(begin)
    os.close(go)
"""
"""Waits with everything imported; each line on its standard input is one run in a process of its own."""


@dataclass(frozen=True)
class Job:
    """A guest, what is declared for it, and what it has to be at last.

    :param after: what each slot begins with at last, by slot.
    :param gone: volumes that the declaration gives up, or that get a new name.
    :param others: guests that disks come from.
    """

    guest: dict[str, Any]
    declaration: dict[str, Any]
    after: dict[str, str]
    gone: tuple[str, ...] = ()
    destroy: bool = False
    slow: dict[str, float] = field(default_factory=dict)
    others: tuple[dict[str, Any], ...] = ()


OLD = {
    "vmid": 200,
    "name": "old1",
    "config": {
        "boot": "order=scsi1;scsi2",
        "scsi1": "local:200/vm-200-disk-0.qcow2,cache=writeback,size=8M",
        "scsi2": "tank:vm-200-disk-1,iothread=1,ssd=1,size=8M",
    },
    "contents": {"scsi1": "the system", "scsi2": "the data"},
}
JOBS = {
    "import and grow": Job(
        {"config": {"scsi0": "local:100/vm-100-disk-0.raw,size=8M"}, "contents": {"scsi0": "the system"}},
        {
            "disks": [
                {"slot": "scsi1", "storage": "tank", "import_from": "local:import/disk.raw", "size": "80M"},
                {"slot": "scsi2", "storage": "local-lvm", "import_from": "local:import/img.qcow2", "size": "96M"},
            ]
        },
        {"scsi0": "the system", "scsi1": "disk.raw of the lab\n", "scsi2": "img.qcow2 of the lab\n"},
        slow={"qmconfig": 20, "resize": 5},
    ),
    "move": Job(
        {
            "config": {
                "scsi0": "local:100/vm-100-disk-0.qcow2,size=8M",
                "scsi1": "thick:vm-100-disk-0,cache=none,size=8M",
            },
            "contents": {"scsi0": "the system", "scsi1": "the data"},
        },
        {
            "disks": [
                {"slot": "scsi0", "storage": "tank", "size": "16M", "ssd": True},
                {"slot": "scsi1", "storage": "local", "format": "qcow2", "delete_source": True},
            ]
        },
        {"scsi0": "the system", "scsi1": "the data"},
        gone=("thick:vm-100-disk-0",),
        slow={"qmmove": 20},
    ),
    "bus of a running guest": Job(
        {
            "running": True,
            "config": {
                "description": "notes of mine",
                "scsi0": "local:100/vm-100-disk-0.raw,size=8M",
                "scsi3": "local-lvm:vm-100-disk-1,iops_rd=100,ssd=1,size=8M",
                "scsi4": "tank:vm-100-disk-2,discard=on,size=8M",
            },
            "contents": {"scsi0": "the system", "scsi3": "the data", "scsi4": "the logs"},
        },
        {
            "disks": [
                {"slot": "virtio1", "moved_from": "scsi3", "size": "12M"},
                {"slot": "virtio2", "moved_from": "scsi4"},
                {"slot": "scsi5", "storage": "local", "size": "4M"},
            ]
        },
        {"scsi0": "the system", "virtio1": "the data", "virtio2": "the logs", "scsi5": ""},
        slow={"qmconfig": 20},
    ),
    "shut down, bus, start": Job(
        {
            "running": True,
            "config": {
                "description": "notes of mine",
                "sata0": "local-lvm:vm-100-disk-0,cache=none,size=8M",
                "sata1": "local:100/vm-100-disk-1.qcow2,size=8M",
                "ide2": "none,media=cdrom",
                "boot": "order=sata0;ide2",
            },
            "contents": {"sata0": "the system", "sata1": "the data"},
        },
        {
            "power": "stop_if_needed",
            "scsihw": "virtio-scsi-single",
            "disks": [
                {"slot": "scsi0", "moved_from": "sata0", "iothread": True},
                {"slot": "scsi1", "moved_from": "sata1", "size": "20M"},
                {"slot": "sata5", "iso": "none"},
            ],
        },
        {"scsi0": "the system", "scsi1": "the data"},
        slow={"qmshutdown": 10, "qmstart": 10},
    ),
    "destroy": Job(
        {
            "running": True,
            "config": {
                "scsi0": "local:100/vm-100-disk-0.raw,size=8M",
                "scsi1": "local-lvm:vm-100-disk-1,size=8M",
                "virtio2": "tank:vm-100-disk-2,size=8M",
                "unused0": "thick:vm-100-disk-3",
            },
            "contents": {"scsi0": "the system", "scsi1": "rubbish", "virtio2": "the data", "unused0": "more rubbish"},
        },
        {
            "disks": [
                {"slot": "scsi1", "state": "absent"},
                {"slot": "unused0", "state": "absent"},
                {"slot": "scsi5", "storage": "local", "size": "4M"},
            ]
        },
        {"scsi0": "the system", "virtio2": "the data", "scsi5": ""},
        gone=("local-lvm:vm-100-disk-1", "thick:vm-100-disk-3"),
        destroy=True,
        slow={"qmconfig": 20},
    ),
    "grow and change a running guest's disk": Job(
        {
            "running": True,
            "config": {
                "scsi0": "local:100/vm-100-disk-0.qcow2,size=8M",
                "virtio1": "thick:vm-100-disk-1,cache=none,size=8M",
            },
            "contents": {"scsi0": "the system", "virtio1": "the data"},
        },
        {
            "disks": [
                {"slot": "scsi0", "size": "24M", "cache": "writeback", "backup": False},
                {"slot": "virtio1", "size": "10M", "unset": ["cache"]},
            ]
        },
        {"scsi0": "the system", "virtio1": "the data"},
        slow={"resize": 10},
    ),
    "many new disks": Job(
        {"config": {"virtio0": "local:100/vm-100-disk-0.raw,size=8M"}, "contents": {"virtio0": "the system"}},
        {
            "disks": [
                *({"slot": f"scsi{number}", "storage": "local", "size": "4M"} for number in range(4)),
                *({"slot": f"sata{number}", "iso": "none"} for number in range(3)),
            ],
            "boot": ["virtio0", "sata0"],
        },
        {"virtio0": "the system", **{f"scsi{number}": "" for number in range(4)}},
        slow={"qmconfig": 20},
    ),
    "first disks from another guest": Job(
        {"config": {"description": "notes of mine", "boot": " "}},
        {
            "disks": [
                {"slot": "sata0", "moved_from": "scsi1", "moved_from_guest": "old1", "cache": "none", "size": "16M"},
                {
                    "slot": "sata1",
                    "moved_from": "scsi2",
                    "moved_from_guest": 200,
                    "storage": "local",
                    "delete_source": True,
                },
            ]
        },
        {"sata0": "the system", "sata1": "the data"},
        gone=("local:200/vm-200-disk-0.qcow2", "tank:vm-200-disk-1"),
        slow={"qmmove": 20, "qmconfig": 10},
        others=(OLD,),
    ),
    "disks of another guest for one that is shut down for them": Job(
        {
            "running": True,
            "config": {"scsi0": "local:100/vm-100-disk-0.raw,size=8M"},
            "contents": {"scsi0": "our system"},
        },
        {
            "power": "stop_if_needed",
            "disks": [
                {"slot": "virtio5", "moved_from": "scsi1", "moved_from_guest": "old1", "serial": "A1"},
                {"slot": "sata1", "moved_from": "scsi2", "moved_from_guest": "old1", "size": "12M"},
            ],
        },
        {"scsi0": "our system", "virtio5": "the system", "sata1": "the data"},
        gone=("local:200/vm-200-disk-0.qcow2", "tank:vm-200-disk-1"),
        slow={"qmmove": 20, "qmshutdown": 10, "qmstart": 10},
        others=(OLD,),
    ),
}


@contextmanager
def made(folder: Path, job: Job) -> Iterator[Lab]:
    guest = {"vmid": VMID, "name": "db1", **job.guest}
    with rig.started(folder, [guest, *job.others], files={"samples": ["local"]}) as lab:
        yield lab


class Killer:
    """Lets some writes of a process reach PVE and kills it with the next one.

    :param count: the write that it dies of, from 0.
    :param carried_out: whether PVE takes that write up.
    """

    def __init__(self, lab: Lab, count: int, *, carried_out: bool) -> None:
        self._left = count
        self._carried_out = carried_out
        self.pid = 0
        self.killed = False
        self._run = lab.server._run
        lab.server._run = self  # type: ignore[method-assign]

    async def __call__(self, route: Route, match: Any, call: Call, values: dict[str, Any]) -> web.Response:
        """In the place of the lab's own method that runs a call."""
        if call.method == "GET" or self.killed:
            return await self._run(route, match, call, values)
        self._left -= 1
        if self._left >= 0:
            return await self._run(route, match, call, values)
        response = await self._run(route, match, call, values) if self._carried_out else None
        self.killed = True
        os.kill(self.pid, signal.SIGKILL)
        return response or web.Response(status=500)


Runner = subprocess.Popen[str]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Where the runs that are killed come from."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", RUNNER], text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.stdin.close()


def killed_run(runner: Runner, lab: Lab, job: Job, count: int, *, carried_out: bool) -> bool:
    """Runs the job in a process that is killed at a write. :returns: whether it came to that write."""
    assert runner.stdin is not None
    assert runner.stdout is not None
    killer = Killer(lab, count, carried_out=carried_out)
    user, _, token = rig.TOKEN.partition("!")
    where = {"host": lab.host, "port": lab.port, "user": user, "token_id": token, "token_secret": lab.token(rig.TOKEN)}
    words = json.dumps([where, {"vmid": VMID, **job.declaration}, job.destroy])
    print(words, file=runner.stdin, flush=True)
    killer.pid = int(runner.stdout.readline())
    print("go", file=runner.stdin, flush=True)
    ended = int(runner.stdout.readline())
    if killer.killed:
        assert os.WIFSIGNALED(ended)
    else:
        assert ended == 0
    return killer.killed


def finish(lab: Lab, job: Job, contents: dict[str, bytes]) -> None:
    """The next run, and what the guest has to be after it."""
    watch = rig.Watch(lab)
    layout = rig.declared({"vmid": VMID, **job.declaration}, allow_destroy=job.destroy)
    run = rig.converged(lab, layout)
    assert not rig.messages(run)
    lab.cluster.tasks.settle()
    assert watch.seen == []
    assert rig.doubles(lab, VMID) == []
    _check_guest(lab, job, contents)
    rig.assert_settled(lab, layout)


def _check_guest(lab: Lab, job: Job, contents: dict[str, bytes]) -> None:
    config = rig.configured(lab, VMID)
    now = rig.contents(lab)
    for slot, text in job.after.items():
        assert now[rig.volume_in(config, slot)].rstrip(b"\0").decode() == text, (slot, config)
    for volid, content in contents.items():
        assert (volid in now) == (volid not in job.gone), volid
        assert volid in job.gone or now[volid] == content, volid
    drives = {rig.volume_in(config, slot) for slot in job.after}
    assert set(now) - set(contents) <= drives | set(rig.unused(config)), "volumes that no key names"
    assert rig.NOTE not in config.get("description", "")
    assert config.get("description") == job.guest["config"].get("description")
    assert bool(lab.guest(VMID).running) == bool(job.guest.get("running"))
    if "boot" in job.guest["config"]:
        assert config["boot"].partition(";")[0] == f"order={next(iter(job.after))}", config["boot"]
    made_twice = [volid for volid in set(now) - set(contents) if volid not in drives]
    assert made_twice == []


def kill_everywhere(runner: Runner, folder: Path, job: Job, *, slow: bool) -> int:
    """Kills a run at every write, each time on a new guest. :returns: how often.

    To be killed before a write is to be killed after the one before it, except at the first.
    """
    for count in range(100):
        with made(folder / str(count), job) as lab:
            contents = rig.contents(lab)
            if slow:
                lab.faults.task_seconds |= job.slow
            came_so_far = killed_run(runner, lab, job, max(0, count - 1), carried_out=count > 0)
            if not slow:
                lab.cluster.tasks.settle()
            finish(lab, job, contents)
        if not came_so_far:
            return count
    raise AssertionError("a run without end")


@pytest.mark.parametrize("name", JOBS)
def test_killed_at_every_write(name: str, runner: Runner, tmp_path: Path) -> None:
    assert kill_everywhere(runner, tmp_path, JOBS[name], slow=False) >= 2


@pytest.mark.parametrize("name", JOBS)
def test_killed_while_a_slow_task_runs(name: str, runner: Runner, tmp_path: Path) -> None:
    """The next run begins while PVE still works on what the killed one had asked for."""
    assert kill_everywhere(runner, tmp_path, JOBS[name], slow=True) >= 1


def test_a_call_half_done_is_waited_for(tmp_path: Path) -> None:
    """PVE writes what a call has made so far as pending values; while its task runs, they are nobody's left-overs."""
    system = {"config": {"scsi0": "local:100/vm-100-disk-0.raw,size=8M"}, "contents": {"scsi0": "the system"}}
    volume = "tank:vm-100-disk-0"
    disks = [{"slot": slot, "storage": "tank", "size": "4M"} for slot in ("scsi1", "scsi2")]
    with made(tmp_path, Job(system, {}, {})) as lab:
        half = threading.Event()

        def work(_log: object) -> None:
            guest = lab.guest(VMID)
            with lab.cluster.lock(VMID):
                lab.cluster.storages("pve1").adopt(volume, 4 << 20)
                conf = guest.load()
                conf.pending["scsi1"] = f"{volume},size=4M"
                guest.write(conf)
                half.set()
                lab.cluster.clock.sleep(60)
                conf = guest.load()
                conf.values["scsi1"] = conf.pending.pop("scsi1")
                guest.write(conf)

        lab.cluster.tasks.start("pve1", "qmconfig", str(VMID), "root@pam!test", work)
        assert half.wait(10)
        layout = rig.declared({"vmid": VMID, "disks": disks})
        assert not rig.messages(rig.converged(lab, layout))
        assert lab.volumes() == ["local:100/vm-100-disk-0.raw", volume, "tank:vm-100-disk-1"]
        rig.assert_settled(lab, layout)
