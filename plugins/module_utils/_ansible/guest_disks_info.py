# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``guest_disks_info``: reads a cluster's guests, drives, snapshots and storages."""

from __future__ import annotations

import typing as t

from .._core.drive_data import drive_data
from .._core.errors import DiskwrightError
from .._core.guards import find_leftovers
from .._core.projection import restart_keys
from .._core.slot import find_slot
from .._pve.client import ApiError, AuthenticationError, ConnectionFailedError, path
from .._pve.reads import Cluster, GuestEntry, Surroundings, read_guests, read_snapshots
from .policy import make_audit
from .report import state_of
from .runner import Result

if t.TYPE_CHECKING:
    from .._core.guest import Guest, Hardware
    from .._core.storage import Storage
    from .._pve.client import Client

#: What can be read, in the order of the documentation.
GATHER = ("guests", "snapshots", "storages")
#: What can be read beside it, by those who ask for it.
MORE = ("bridges", "pools")


class GuestDisksInfo:
    """Reads, and never writes."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        self._client = client
        self._params = params
        self._guests: list[dict[str, t.Any]] = []
        self._storages: dict[str, list[dict[str, t.Any]]] = {}
        self._more: dict[str, t.Any] = {}
        self._findings: list[dict[str, t.Any]] = []
        self._warnings: list[str] = []
        self._audit = make_audit(params)

    def prepare(self) -> None:
        """Read everything that was asked for."""
        cluster = Cluster(self._client)
        self._check_named(cluster)
        chosen = [entry for _vmid, entry in sorted(cluster.guests.items()) if self._chosen(entry)]
        gather = self._params["gather"]
        surroundings = Surroundings(self._client, may_use_paths=False)
        guests = read_guests(self._client, chosen) if {"guests", "snapshots"} & {*gather} or self._audit else []
        if "guests" in gather or "snapshots" in gather:
            self._guests = [self._guest(entry, guest) for entry, guest in zip(chosen, guests, strict=True)]
        if "storages" in gather:
            for node in self._nodes(chosen):
                self._storages[node] = self._storages_of(surroundings, node)
        if "bridges" in gather:
            self._more["bridges"] = {node: self._bridges_of(node) for node in self._nodes(chosen)}
        if "pools" in gather:
            self._more["pools"] = sorted(str(row["poolid"]) for row in self._client.get(path("pools")))
        if self._audit is not None:
            readable = [guest for guest in guests if not isinstance(guest, ApiError)]
            self._findings = self._audit.findings(self._client, surroundings, readable)

    def _storages_of(self, surroundings: Surroundings, node: str) -> list[dict[str, t.Any]]:
        """A node's storages; none, and a warning, when the node does not answer."""
        try:
            return [_storage_data(row) for row in surroundings.storages(node).values()]
        except (AuthenticationError, ConnectionFailedError):
            raise
        except ApiError as error:
            self._warnings.append(f"{node}: its storages could not be read: {error}")
            return []

    def _bridges_of(self, node: str) -> list[str] | None:
        """The bridges of a node that guests may use, those of SDN among them; None, and a warning, if it is silent."""
        try:
            rows = self._client.get(path("nodes", node, "network"), {"type": "any_bridge"})
        except (AuthenticationError, ConnectionFailedError):
            raise
        except ApiError as error:
            self._warnings.append(f"{node}: its bridges could not be read: {error}")
            return None
        return sorted(str(row["iface"]) for row in rows)

    def execute(self) -> None:
        """Nothing: it only reads."""

    def result(self, *, executed: bool) -> Result:  # noqa: ARG002 - the same in both modes
        """What was read."""
        return Result(data=self._data(), warnings=self._warnings)

    def _data(self) -> dict[str, t.Any]:
        data: dict[str, t.Any] = {"guests": self._guests, "storages": self._storages, **self._more}
        return data if self._audit is None else data | {"findings": self._findings}

    def _check_named(self, cluster: Cluster) -> None:
        """A guest that was asked for by number or name exists, or the task fails: a slip is no empty result."""
        if self._missing(cluster):
            cluster.ask_nodes()
        missing = self._missing(cluster)
        if missing:
            raise DiskwrightError(
                f"there is no such guest, or the user may not see it (right VM.Audit): {', '.join(missing)}"
            )

    def _missing(self, cluster: Cluster) -> list[str]:
        names = {entry.name for entry in cluster.guests.values()}
        missing = [str(vmid) for vmid in self._params["vmid"] or () if vmid not in cluster.guests]
        return missing + [name for name in self._params["name"] or () if name not in names]

    def _chosen(self, entry: GuestEntry) -> bool:
        wanted = self._params
        tests = (
            (wanted["vmid"], {entry.vmid}),
            (wanted["name"], {entry.name}),
            (wanted["node"], {entry.node}),
            (wanted["pool"], {entry.pool}),
            (wanted["tag"], set(entry.tags)),
        )
        return all(values is None or found & set(values) for values, found in tests)

    def _nodes(self, chosen: list[GuestEntry]) -> list[str]:
        return sorted({*(self._params["node"] or ()), *(entry.node for entry in chosen)})

    def _guest(self, entry: GuestEntry, guest: Guest | ApiError) -> dict[str, t.Any]:
        base: dict[str, t.Any] = {
            "vmid": entry.vmid,
            "name": entry.name,
            "node": entry.node,
            "tags": list(entry.tags),
            "pool": entry.pool,
        }
        if isinstance(guest, ApiError):
            self._warnings.append(f"{entry.name} ({entry.vmid} on {entry.node}): {guest}")
            return base | {"error": str(guest)}
        base |= _guest_data(guest)
        if "snapshots" in self._params["gather"]:
            try:
                found = read_snapshots(self._client, guest) if guest.has_snapshots else ()
            except (AuthenticationError, ConnectionFailedError):
                raise
            except ApiError as error:
                self._warnings.append(f"{guest.label}: its snapshots could not be read: {error}")
                return base
            base["snapshots"] = [{"name": snap.name, "volumes": sorted(snap.volumes)} for snap in found]
        return base


def _guest_data(guest: Guest) -> dict[str, t.Any]:
    configured = guest.configured
    return {
        "status": guest.state,
        "lock": guest.lock,
        "protection": guest.protection,
        "scsihw": configured.scsihw,
        "boot": list(configured.boot.devices) if configured.boot else [],
        "drives": {str(slot): drive_data(drive) for slot, drive in configured.drives.items()},
        "unused": {str(slot): volume for slot, volume in configured.unused.items()},
        "unreadable": {str(slot): text for slot, text in configured.unreadable.items()},
        "config": state_of(configured),
        "waiting": _waiting(guest, configured),
        "restart_required": sorted(restart_keys(guest, ())),
        "leftovers": list(find_leftovers(guest)),
        "digest": guest.digest,
    }


def _waiting(guest: Guest, configured: Hardware) -> dict[str, dict[str, str | None]]:
    """What waits for the next start: the text in force and the one to come, ``None`` for nothing."""
    live, later = state_of(guest.live), state_of(configured)
    keys = [key for key in sorted(guest.changed_keys) if find_slot(key) is not None or key in live or key in later]
    return {key: {"now": live.get(key), "then": later.get(key)} for key in keys}


def _storage_data(storage: Storage) -> dict[str, t.Any]:
    kind = storage.kind
    return {
        "storage": storage.name,
        "type": storage.type,
        "level": kind.level if kind else None,
        "content": sorted(storage.content),
        "formats": list(storage.formats),
        "snapshot_formats": list(("qcow2",) if storage.chains else kind.snapshots if kind else ()),
        "thin": kind.thin if kind else None,
        "shared": storage.shared,
        "enabled": storage.enabled,
        "active": storage.active,
        "available": storage.available,
        "total": storage.total,
    }
