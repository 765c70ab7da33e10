# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running lab, for tests in the same process: `with Lab(folder, seed=..., time_scale=0.01) as lab: ...`."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from fakepve.certs import make_cert

from lab import (
    access,
    agent,
    clones,
    cluster,
    config,
    content,
    create,
    operations,
    power,
    snapshots,
    tasks,
    transfers,
)
from lab import seed as seeds
from lab.api import Route
from lab.faults import Faults
from lab.guest import Conf, Guest
from lab.server import LabServer, Request

ROUTES: list[Route] = [route for module in (access, tasks, cluster, config, create, operations, clones, snapshots,
                                            power, content, transfers, agent) for route in module.ROUTES]


class Lab:
    """A cluster in a state folder behind an HTTPS port of this machine.

    The folder is seeded when it is new; otherwise the lab goes on where it was. `time_scale` shortens every time
    that PVE waits; real work takes as long as it takes. `random_seed` decides the order of new values in one config
    call, which PVE leaves to chance.
    """

    def __init__(self, state: Path | str, seed: seeds.Seed | Path | str | None = None, *, time_scale: float = 0.01,
                 host: str = "127.0.0.1", port: int = 0, random_seed: int = 0) -> None:
        self.state = Path(state)
        self.state.mkdir(parents=True, exist_ok=True)
        self.seed = self._seed(seed)
        self.cluster = cluster.Cluster(self.state, list(self.seed["nodes"]), self.seed["storages"],
                                       password=str(self.seed["password"]), time_scale=time_scale, seed=random_seed)
        if self._new:
            seeds.plant(self.cluster, self.seed)
            self._kept.write_text(json.dumps(self.seed, indent=1, default=str))
        else:
            seeds.take_up_running(self.cluster, self._running)
        seeds.wake(self.cluster, self.seed)
        self.server = LabServer(self.cluster, ROUTES, host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def _kept(self) -> Path:
        return self.state / "seed.json"

    @property
    def _running(self) -> Path:
        return self.state / "running.json"

    def _seed(self, seed: seeds.Seed | Path | str | None) -> dict[str, Any]:
        self._new = not self._kept.exists()
        if self._new:
            return seeds.read(seed)
        kept: dict[str, Any] = json.loads(self._kept.read_text())
        return kept

    # ---- life

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listens; returns when requests are answered."""
        certificate, key, _ = make_cert(str(self.state), "lab", [self.server.host])
        loop = self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        def serve() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self.server.start(certificate, key))
            ready.set()
            loop.run_forever()

        self._thread = threading.Thread(target=serve, name="lab", daemon=True)
        self._thread.start()
        if not ready.wait(30):
            raise RuntimeError("the lab does not listen")

    def stop(self) -> None:
        """Lets tasks end and stops listening. Mistakes of the lab itself are raised now."""
        self.settle()
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self.server.stop(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()
            self._loop = self._thread = None
            seeds.keep_running(self.cluster, self._running)
        if self.cluster.crashes:
            raise RuntimeError("the lab made mistakes:\n" + "\n".join(self.cluster.crashes))

    def settle(self) -> None:
        """Waits until the work behind answers that came too late is done, and all tasks."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.server.finish_late(), self._loop).result(60)
        self.cluster.tasks.settle()

    # ---- how to reach it

    @property
    def url(self) -> str:
        """https://host:port."""
        return str(self.server.url)

    @property
    def host(self) -> str:
        """The address."""
        return str(self.server.host)

    @property
    def port(self) -> int:
        """The port that was chosen."""
        return int(self.server.port)

    @property
    def cafile(self) -> Path:
        """The certificate to trust."""
        return self.state / "lab.crt"

    @property
    def password(self) -> str:
        """The password of root@pam."""
        return str(self.cluster.access.users["root@pam"].password)

    def token(self, tokenid: str = "root@pam!test") -> str:
        """The secret of an API token."""
        user, _, name = tokenid.partition("!")
        return self.cluster.access.users[user].tokens[name][0]

    # ---- what it holds

    @property
    def requests(self) -> list[Request]:
        """Every request since the start, in order; `lab.requests.clear()` forgets them."""
        return self.server.log

    def writes(self, pattern: str = "") -> list[Request]:
        """The requests that were no GETs and whose path matches the regular expression."""
        return self.server.requests_of(pattern, writes=True)

    @property
    def faults(self) -> Faults:
        """What goes wrong on demand; errors for a path and network trouble: `lab.server.fail(...)` of fakepve."""
        return self.cluster.faults

    def guest(self, vmid: int) -> Guest:
        """The guest of an id."""
        found = self.cluster.find(vmid)
        if found is None:
            raise KeyError(vmid)
        return found

    def config(self, vmid: int) -> dict[str, str]:
        """The configuration as the file has it, without pending values."""
        return dict(self.guest(vmid).conf.values)

    def pending(self, vmid: int) -> dict[str, str]:
        """The pending values; `delete` has PVE's form (`!` before a forced one)."""
        return dict(self.guest(vmid).conf.pending)

    def change(self, vmid: int, **values: str | None) -> None:
        """Somebody else's change: sets options, or removes those that are None, without PVE's checks."""
        guest = self.guest(vmid)
        with self.cluster.lock(vmid):
            conf: Conf = guest.load()
            for key, value in values.items():
                conf.values.pop(key, None)
                if value is not None:
                    conf.values[key] = value
            guest.write(conf)

    def run(self, vmid: int) -> None:
        """Makes a guest run as it is, without a task."""
        seeds.run(self.guest(vmid))

    def volumes(self, node: str | None = None) -> list[str]:
        """The volume ids of all images on the storages of a node."""
        storages = self.cluster.storages(node or self.cluster.nodes[0])
        return [row.volid for sid in storages.definitions if storages.active(sid) for row in storages.list(sid)]

    def file(self, volid: str, node: str | None = None) -> Path:
        """The real file of a volume."""
        return self.cluster.storages(node or self.cluster.nodes[0]).file(volid)
