# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster: its nodes, their storages and guests, and the calls that list them."""

from __future__ import annotations

import random
import re
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fakepve.shapes import FINGERPRINT

from lab.access import Access
from lab.api import ApiError, Call, Route, bad
from lab.clock import Clock, GuestLock
from lab.content import resource_rows
from lab.drives import bootdisk_size
from lab.faults import Faults
from lab.guest import Guest
from lab.storages import Storages
from lab.tasks import Tasks

GIB = 1024**3
NODE_USAGE = {"cpu": 0.02, "maxcpu": 4, "mem": 2 * GIB, "maxmem": 8 * GIB, "disk": 4 * GIB, "maxdisk": 64 * GIB,
              "uptime": 3600}
VERSION = {"version": "9.2.11", "release": "9.2", "repoid": "14a22df3"}


class Cluster:
    """Everything behind the API. `root` is the state folder; what is in there is taken up again."""

    def __init__(self, root: Path, nodes: list[str], definitions: Mapping[str, Mapping[str, Any]], *,
                 password: str = "secret", time_scale: float = 1.0, seed: int = 0) -> None:
        self.root = root
        self.nodes = nodes
        self.definitions = definitions
        self.clock = Clock(time_scale)
        self.faults = Faults(self.clock)
        self.tasks = Tasks(self)
        self.access = Access(root / "access.json", password)
        self.random = random.Random(seed)
        """Decides the order in which a config call handles its new values, as Perl's hash order does in PVE."""
        self.bridges = {"vmbr0"}
        self.web: dict[str, bytes] = {}
        """What nodes find at a URL."""
        self.crashes: list[str] = []
        """Tracebacks of the lab's own mistakes."""
        self._storages = {node: Storages(root, definitions, node) for node in nodes}
        self._locks: dict[int, GuestLock] = {}
        self._mutex = threading.RLock()
        self._guests: dict[int, Guest] = {}
        for node in nodes:
            for path in sorted(self.folder(node).glob("*.conf")):
                self._guests[int(path.stem)] = Guest(int(path.stem), node, path)

    # ---- guests

    def folder(self, node: str) -> Path:
        """Where the configurations of a node's guests are."""
        return self.root / "nodes" / node / "qemu-server"

    def storages(self, node: str) -> Storages:
        """The storages that a node sees."""
        return self._storages[node]

    def guests(self, node: str | None = None) -> list[Guest]:
        """The guests, of one node or all, by id."""
        with self._mutex:
            return [g for _, g in sorted(self._guests.items()) if node is None or g.node == node]

    def find(self, vmid: int) -> Guest | None:
        """The guest of an id, on whatever node."""
        return self._guests.get(vmid)

    def guest(self, vmid: int, node: str) -> Guest:
        """The guest of an id on a node, or PVE's 500."""
        guest = self._guests.get(vmid)
        if guest is None or guest.node != node:
            raise ApiError(f"Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")
        return guest

    def on_node(self, vmid: int, node: str) -> Guest:
        """The same with the words of the calls that look whether the guest runs first."""
        guest = self._guests.get(vmid)
        if guest is None or guest.node != node:
            raise ApiError(f"unable to find configuration file for VM {vmid} on node '{node}'")
        return guest

    def add_guest(self, vmid: int, node: str, text: str) -> Guest:
        """Puts a configuration in place."""
        with self._mutex:
            guest = Guest(vmid, node, self.folder(node) / f"{vmid}.conf")
            guest.store(text)
            self._guests[vmid] = guest
        return guest

    def add_new_guest(self, vmid: int, node: str, text: str) -> bool:
        """The same unless there is one: of several that try at once, one does it."""
        with self._mutex:
            if vmid in self._guests:
                return False
            self.add_guest(vmid, node, text)
            return True

    def remove_guest(self, vmid: int) -> None:
        """Takes a configuration away."""
        with self._mutex:
            guest = self._guests.pop(vmid)
            guest.path.unlink()

    def lock(self, vmid: int, timeout: float = 10, shared: bool = False) -> AbstractContextManager[None]:
        """The lock on a guest's configuration, whether or not the guest exists."""
        with self._mutex:
            path = f"/var/lock/qemu-server/lock-{vmid}.conf"
            lock = self._locks.setdefault(vmid, GuestLock(path, self.clock))
        return lock.hold(timeout, shared)

    def crash(self, error: BaseException) -> None:
        """Notes a mistake of the lab itself, so that a test can show it."""
        self.crashes.append("".join(traceback.format_exception(error)))


# ---- the calls


def _version(call: Call) -> dict[str, str]:
    return dict(VERSION)


def _node_usage(call: Call, node: str) -> dict[str, Any]:
    return NODE_USAGE if call.allowed(f"/nodes/{node}", "Sys.Audit") else {}


def _nodes(call: Call) -> list[dict[str, Any]]:
    return [{"node": node, "id": f"node/{node}", "status": "online", "type": "node", "level": "",
             "ssl_fingerprint": FINGERPRINT, **_node_usage(call, node)} for node in call.cluster.nodes]


def memory_of(guest: Guest) -> int:
    """The memory of a guest in MiB."""
    found = re.search(r"\d+", guest.conf.values.get("memory", "512"))
    return int(found[0]) if found else 512


def _usage(guest: Guest) -> dict[str, Any]:
    """The fields that the list, the status and the resources of a guest share."""
    values, running = guest.conf.values, guest.running
    used = 64 * 1024**2 if running else 0
    cpus = int(values.get("vcpus") or int(values.get("sockets", 1)) * int(values.get("cores", 1)))
    return {"vmid": guest.vmid, "name": guest.name, "status": "running" if running else "stopped",
            "maxmem": memory_of(guest) * 1024**2, "maxdisk": bootdisk_size(values), "disk": 0, "cpu": 0, "mem": used,
            "memhost": used, "netin": 0, "netout": 0, "cpus": cpus,
            "uptime": int(time.time() - running.since) if running else 0,
            **{key: values[key] for key in ("lock", "tags") if key in values},
            **({"template": 1} if guest.conf.is_template else {}),
            **({"serial": 1} if any(re.fullmatch(r"serial\d", key) for key in values) else {})}


def _live(guest: Guest) -> dict[str, Any]:
    """What a running guest adds: process and pressure."""
    if not guest.running:
        return {}
    pressures = {f"pressure{what}{who}": 0.0 if what == "cpu" else 0
                 for what in ("cpu", "io", "memory") for who in ("some", "full")}
    return {"pid": guest.running.pid, **pressures}


def _full(guest: Guest) -> dict[str, Any]:
    """The status with what QEMU itself says."""
    return {**_usage(guest), **_live(guest), "qmpstatus": guest.running.status if guest.running else "stopped"}


def _list(call: Call) -> list[dict[str, Any]]:
    full = bool(call.values.get("full"))
    return [_full(guest) if full else {**_usage(guest), **_live(guest)} for guest in call.cluster.guests(call.node)
            if call.allowed(f"/vms/{guest.vmid}", "VM.Audit")]


def _status(call: Call) -> dict[str, Any]:
    guest = call.guest
    status = {**_full(guest), "ha": {"managed": int(guest.vmid in call.cluster.faults.ha)}}
    if re.search(r"(^|,)(enabled=)?1(,|$)", guest.conf.values.get("agent", "")):
        status["agent"] = 1
    return status


def _resource(call: Call, guest: Guest) -> dict[str, Any]:
    row = {**_usage(guest), "id": f"qemu/{guest.vmid}", "type": "qemu", "node": guest.node, "diskread": 0,
           "diskwrite": 0, "template": int(guest.conf.is_template)}
    row["maxcpu"] = row.pop("cpus")
    row.pop("serial", None)
    pool = call.cluster.access.pool_of(guest.vmid)
    return {**row, "pool": pool} if pool else row


def _resources(call: Call) -> list[dict[str, Any]]:
    kind, rows = call.values.get("type"), []
    if kind in (None, "vm"):
        rows += [_resource(call, guest) for guest in call.cluster.guests()
                 if call.allowed(f"/vms/{guest.vmid}", "VM.Audit")]
    if kind in (None, "node"):
        rows += [{"id": f"node/{node}", "type": "node", "node": node, "status": "online", "level": "",
                  "cgroup-mode": 2, **_node_usage(call, node)} for node in call.cluster.nodes]
    if kind in (None, "storage"):
        rows += resource_rows(call)
    return rows


def _next_id(call: Call) -> str:
    wanted = call.values.get("vmid")
    if wanted is None:
        return str(next(vmid for vmid in range(100, 10**9) if call.cluster.find(vmid) is None))
    if call.cluster.find(int(wanted)) is not None:
        raise bad(vmid=f"VM {wanted} already exists")
    return str(wanted)


def _containers(call: Call) -> list[dict[str, Any]]:
    """None: the lab has no containers. Inventory plugins ask all the same."""
    return []


def _bridges(call: Call) -> list[dict[str, Any]]:
    """The node's bridges, whatever type is asked for: the lab has no other interfaces."""
    return [{"iface": name, "type": "bridge", "active": 1, "autostart": 1, "method": "manual", "method6": "manual"}
            for name in sorted(call.cluster.bridges)
            if any(call.allowed(f"/sdn/zones/localnetwork/{name}", right) for right in ("SDN.Use", "SDN.Audit"))]


def _pools(call: Call) -> list[dict[str, Any]]:
    pools = sorted(call.cluster.access.pools)
    return [{"poolid": name} for name in pools if call.allowed(f"/pool/{name}", "Pool.Audit")]


def _pool(call: Call) -> dict[str, Any]:
    members = call.cluster.access.pools.get(call.values["poolid"], set())
    guests = [_resource(call, guest) for guest in call.cluster.guests() if f"/vms/{guest.vmid}" in members]
    return {"members": guests}


ROUTES = [
    Route("GET", "/nodes/{node}/lxc", _containers, quick=True),
    Route("GET", "/nodes/{node}/network", _bridges),
    Route("GET", "/pools", _pools),
    Route("GET", "/pools/{poolid}", _pool),
    Route("GET", "/version", _version, quick=True),
    Route("GET", "/nodes", _nodes, quick=True),
    Route("GET", "/cluster/resources", _resources),
    Route("GET", "/cluster/nextid", _next_id, quick=True),
    Route("GET", "/nodes/{node}/qemu", _list),
    Route("GET", "/nodes/{node}/qemu/{vmid}/status/current", _status, quick=True),
]
