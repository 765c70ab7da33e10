# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration that is killed anywhere is finished by the next run, from whatever machine.

The run is a process of its own that gets SIGKILL from the lab before its n-th write is answered, after PVE has taken
it up; and at the first also before PVE sees it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e import rig
from e2e.migrations import (
    assert_data,
    hardware,
    inside,
    journal,
    migratable,
    migrate,
    notes,
    own_settings,
    parameters,
    switched,
)
from e2e.test_killed import Killer
from e2e.test_windows_migrate import does_not_come_up
from lab import Lab
from lab.api import Call, Route

RUNNER = """
import json, os, sys
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.windows_migrate import WindowsMigrate
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve import agent, power, tasks
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Client, Endpoint
import proxmoxer.backends.https  # once for all runs

agent._FIRST_POLL = tasks._FIRST_POLL = power._FIRST_LOOK = 0.002  # the lab answers at once

def run(where, params):
    work = WindowsMigrate(Client(Endpoint(**where)), params)
    work.prepare()
    work.execute()
    os._exit(0)

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


class GuestKiller(Killer):
    """Counts what is written to the guest, and lets the scripts that ask Windows pass."""

    async def __call__(self, route: Route, match: Any, call: Call, values: dict[str, Any]) -> Any:
        if "/agent/" in call.template:
            return await self._run(route, match, call, values)
        return await super().__call__(route, match, call, values)


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    """Where the runs that are killed come from."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", RUNNER], text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.stdin.close()


def killed_run(runner: subprocess.Popen[str], lab: Lab, count: int, *, carried_out: bool) -> bool:
    """A run in a process that is killed at a write. :returns: whether it came to that write."""
    assert runner.stdin is not None
    assert runner.stdout is not None
    killer = GuestKiller(lab, count, carried_out=carried_out)
    user, _, token = rig.TOKEN.partition("!")
    where = {"host": lab.host, "port": lab.port, "user": user, "token_id": token, "token_secret": lab.token(rig.TOKEN)}
    print(json.dumps([where, parameters()]), file=runner.stdin, flush=True)
    killer.pid = int(runner.stdout.readline())
    print("go", file=runner.stdin, flush=True)
    ended = int(runner.stdout.readline())
    assert os.WIFSIGNALED(ended) if killer.killed else ended == 0
    return killer.killed


def works(_lab: Lab) -> None:
    """Nothing is wrong with it."""


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("spoil", "config"), [(works, {"scsihw": "lsi"}), (does_not_come_up, {})], ids=["good", "bad"])
def test_killed_at_every_write(
    spoil: Callable[[Lab], None],
    config: dict[str, str],
    stride: int,
    runner: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    for count in range(0, 60, stride):
        with migratable(tmp_path / str(count), {"release": "2022", "bitlocker": {"C:": "on"}}, config) as lab:
            before, own = hardware(lab), own_settings(lab)
            spoil(lab)
            watch = rig.Watch(lab)
            came_so_far = killed_run(runner, lab, max(0, count - 1), carried_out=count > 0)
            lab.cluster.tasks.settle()
            lab.server.log = watch
            state = finished(lab)
            assert watch.seen == []
            assert hardware(lab) == (switched(before) if state == "on_virtio" else before)
            assert state == ("on_virtio" if spoil is works else "rolled_back")
            assert bool(journal(lab)) == (state == "rolled_back")
            assert notes(lab) == "notes of mine"
            assert own_settings(lab) == own
            assert inside(lab).up
            assert lab.guest(122).conf.snapshots == {}
            assert_data(lab)
        if not came_so_far:
            assert count > 10
            return
    raise AssertionError("a run without end")


def finished(lab: Lab) -> str:
    """The next run, and one more, which has nothing to do. :returns: where the guest stands then."""
    migrate(lab)
    again = migrate(lab)
    assert (again.changed, again.failure) == (False, None)
    return again.state
