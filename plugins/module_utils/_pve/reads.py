# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads PVE's answers into the values that the core knows. Nothing here writes."""

from __future__ import annotations

import re
import threading
import typing as t
from dataclasses import dataclass
from types import MappingProxyType

from .._core.errors import DiskwrightError
from .._core.guest import Guest, PendingRow, Snapshot, Volume, read_guest
from .._core.layout import Layout
from .._core.plan import Facts, Giver
from .._core.planner import find_needs
from .._core.reassign import drive_at, find_givers
from .._core.storage import Storage
from .client import ApiError, AuthenticationError, ConnectionFailedError, path

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .._core.slot import Slot
    from .client import Client

# What PVE says of a node that is not in the cluster.
_NO_NODE = "hostname lookup"
_ABSENT = re.compile(
    r"does not exist|[Nn]o such|can't activate LV|unable to parse|[Ff]ailed to find|not found|not a QEMU image|"
    r"failed - no format"  # an image of the content type import
)
_OVA_MEMBER = re.compile(r"(?P<archive>[^:]+:import/[^/]+\.ova)/[^/]+\.(?P<format>raw|qcow2|vmdk)")


@dataclass(frozen=True, slots=True)
class GuestEntry:
    """A guest as PVE's lists show it."""

    vmid: int
    name: str
    node: str
    running: bool
    template: bool
    tags: tuple[str, ...] = ()
    pool: str | None = None


class Cluster:
    """The guests of a cluster, listed once, and found by number or name.

    :param client: the connection; PVE shows only what its user may see.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked_nodes = False
        self.guests: dict[int, GuestEntry] = {}
        for row in client.get(path("cluster", "resources"), {"type": "vm"}):
            if row.get("type") == "qemu":
                self._remember(_entry(row, str(row["node"])))

    def _remember(self, entry: GuestEntry) -> None:
        self.guests[entry.vmid] = entry

    def find(self, layout: Layout) -> GuestEntry:
        """The guest that a declaration means.

        :raises DiskwrightError: there is none, there are several, or it is on another node than declared.
        """
        found = self._search(layout)
        if not found:
            self.ask_nodes()
            found = self._search(layout)
        if not found:
            raise DiskwrightError(
                f"{layout.label}: there is no such guest, or the user may not see it (right VM.Audit)"
            )
        if len(found) > 1:
            where = ", ".join(f"{entry.vmid} on {entry.node}" for entry in found)
            raise DiskwrightError(f"{layout.label}: several guests have this name ({where}); give the vmid")
        entry = found[0]
        if layout.node is not None and layout.node != entry.node:
            raise DiskwrightError(
                f"{layout.label}: it is on {entry.node}, not on {layout.node}; correct or remove node"
            )
        if layout.name is not None and layout.vmid is not None and layout.name != entry.name:
            raise DiskwrightError(
                f"{layout.label}: {entry.vmid} is called {entry.name}; correct name, or give only the vmid"
            )
        return entry

    def giver(self, text: str) -> GuestEntry | tuple[str, str]:
        """The guest that a declaration names by number or name, or why there is none to be had, and what to do."""
        layout = Layout(vmid=int(text)) if text.isdecimal() else Layout(name=text)
        if not self._search(layout):
            self.ask_nodes()
        found = self._search(layout)
        if not found:
            return (
                "there is no such guest, or the user may not see it (right VM.Audit)",
                "name the guest that has the disk",
            )
        if len(found) > 1:
            where = ", ".join(f"{entry.vmid} on {entry.node}" for entry in found)
            return f"several guests have this name ({where})", "give the number"
        return found[0]

    def _search(self, layout: Layout) -> list[GuestEntry]:
        if layout.vmid is not None:
            entry = self.guests.get(layout.vmid)
            return [entry] if entry else []
        return [entry for entry in self.guests.values() if entry.name == layout.name]

    def ask_nodes(self) -> None:
        """Ask every node for its guests, once: the cluster's list may be 10 s old, the nodes' own lists are not."""
        if self._asked_nodes:
            return
        self._asked_nodes = True
        for node in self._client.get(path("nodes")):
            if node.get("status") == "online":
                for row in self._guests_on(str(node["node"])):
                    self._remember(_entry(row, str(node["node"])))

    def _guests_on(self, node: str) -> list[Mapping[str, t.Any]]:
        """A node's own list; empty when the node does not answer, which says nothing about the others."""
        try:
            return list(self._client.get(path("nodes", node, "qemu")))
        except (AuthenticationError, ConnectionFailedError):
            raise
        except ApiError:
            return []


def _entry(row: Mapping[str, t.Any], node: str) -> GuestEntry:
    return GuestEntry(
        vmid=int(row["vmid"]),
        name=str(row.get("name", "")),
        node=node,
        running=row.get("status") == "running",
        template=bool(row.get("template")),
        tags=tuple(filter(None, re.split(r"[;,\s]+", str(row.get("tags") or "")))),
        pool=row.get("pool"),
    )


def pending_path(entry: GuestEntry) -> str:
    """The call that shows every state of a guest's configuration at once."""
    return path("nodes", entry.node, "qemu", entry.vmid, "pending")


def guest_of(entry: GuestEntry, rows: Iterable[Mapping[str, t.Any]]) -> Guest:
    """The guest that an answer of :func:`pending_path` describes."""
    read = (
        PendingRow(str(row["key"]), _text(row.get("value")), _text(row.get("pending")), int(row.get("delete") or 0))
        for row in rows
    )
    return read_guest(entry.vmid, entry.name, entry.node, read, running=entry.running, template=entry.template)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def read_guests(client: Client, entries: Sequence[GuestEntry]) -> list[Guest | ApiError]:
    """Every guest's configuration, in the order of the entries; an error stands where one could not be read."""
    answers = client.get_many([pending_path(entry) for entry in entries])
    return [
        answer if isinstance(answer, ApiError) else guest_of(entry, answer)
        for entry, answer in zip(entries, answers, strict=True)
    ]


def find_guest(client: Client, layout: Layout) -> Guest:
    """The one guest that a declaration means, as it is now.

    :raises DiskwrightError: see :meth:`Cluster.find`.
    """
    entry = Cluster(client).find(layout)
    return read_again(client, guest_of(entry, ()))


def read_again(client: Client, guest: Guest) -> Guest:
    """The guest as it is now, its power state included, which the cluster's list may show 10 s late."""
    status = client.get(path("nodes", guest.node, "qemu", guest.vmid, "status", "current"))
    entry = GuestEntry(guest.vmid, guest.name, guest.node, status.get("status") == "running", guest.template)
    return guest_of(entry, client.get(pending_path(entry)))


class Surroundings:
    """What is read besides guests, each thing once for all guests of a run.

    :ivar givers: the guests that declarations take disks from, as they name them; or why there is none, and what to do.
    :ivar taken: by guest, the slots whose drive other guests of the run take.
    """

    def __init__(self, client: Client, *, may_use_paths: bool) -> None:
        self._client = client
        self._may_use_paths = may_use_paths
        self._lock = threading.Lock()
        self._storages: dict[str, Mapping[str, Storage]] = {}
        self.givers: dict[str, GuestEntry | tuple[str, str]] = {}
        self.taken: dict[int, frozenset[Slot]] = {}

    def facts(self, guest: Guest, layout: Layout) -> Facts:
        """Everything that planning this guest needs, and no more."""
        givers = {name: self._giver(name, guest, layout) for name in sorted(find_givers(layout))}
        needs = find_needs(guest, layout, givers)
        volumes = {volume: self.volume(guest.node, volume) for volume in sorted(needs.volumes)}
        absent = {name.partition(":")[0] for name, volume in volumes.items() if volume is None and ":" in name}
        return Facts(
            guest=guest,
            storages=self.storages(guest.node) if needs.storages else None,
            volumes=MappingProxyType(volumes),
            snapshots=read_snapshots(self._client, guest) if needs.snapshots else (),
            may_use_paths=self._may_use_paths,
            listed=MappingProxyType({storage: self.listed(guest.node, storage) for storage in sorted(absent)}),
            givers=MappingProxyType(givers),
            taken=self.taken.get(guest.vmid, frozenset()),
        )

    def _giver(self, name: str, guest: Guest, layout: Layout) -> Giver:
        """A guest that a disk is to come from: as it is now, and what is in the way."""
        entry = self.givers.get(name)
        if not isinstance(entry, GuestEntry):
            return Giver(None, entry)
        giver = read_again(self._client, guest_of(entry, ()))
        coming = [
            disk.moved_from
            for disk in layout.disks
            if disk.moved_from_guest == name and disk.moved_from and disk.slot not in guest.configured.drives
        ]
        if not coming:
            return Giver(giver)
        drives = [drive_at(giver, slot) for slot in coming]
        storages = {drive.storage for drive in drives if drive is not None and drive.storage is not None}
        return Giver(
            giver,
            snapshots=read_snapshots(self._client, giver) if giver.has_snapshots else (),
            missing=tuple(self._missing_rights((guest, giver), sorted(storages))),
        )

    def _missing_rights(self, guests: Sequence[Guest], storages: Sequence[str]) -> Iterator[str]:
        """What PVE wants for handing a disk over, and would say only once other things have been done."""
        wanted = [(f"/vms/{guest.vmid}", "VM.Config.Disk") for guest in guests]
        wanted += [(f"/storage/{storage}", "Datastore.AllocateSpace") for storage in storages]
        for where, right in wanted:
            held = self._client.get(path("access", "permissions"), {"path": where}).get(where, {})
            if not held.get(right):
                yield f"{right} on {where}"

    def storages(self, node: str) -> Mapping[str, Storage]:
        """The storages as a node sees them. Free space is as it was at the first look."""
        with self._lock:
            if node not in self._storages:
                rows = self._rows(node)
                self._storages[node] = MappingProxyType({str(row["storage"]): _storage(row) for row in rows})
            return self._storages[node]

    def _rows(self, node: str) -> list[Mapping[str, t.Any]]:
        try:
            return list(self._client.get(path("nodes", node, "storage"), {"format": 1}))
        except ApiError as error:
            if _NO_NODE not in error.text:
                raise
            known = sorted(str(row["node"]) for row in self._client.get(path("nodes")))
            if node in known:
                raise
            problem = f"node={node}: there is no such node; write one of {', '.join(known)}"
            raise DiskwrightError(problem) from error

    def volume(self, node: str, volid: str) -> Volume | None:
        """A volume, or ``None`` when there is none of that name."""
        storage, colon, _name = volid.partition(":")
        if not colon:
            return None
        member = _OVA_MEMBER.fullmatch(volid)  # PVE shows the archive only
        shown = member["archive"] if member else volid
        try:
            data = self._client.get(path("nodes", node, "storage", storage, "content", shown))
        except ApiError as error:
            if error.status in (400, 500) and _ABSENT.search(error.text):
                return None
            raise
        if member:
            return Volume(volid, None, member["format"])
        return Volume(volid, int(data.get("size") or 0), str(data.get("format", "raw")))

    def listed(self, node: str, storage: str) -> tuple[str, ...]:
        """The volume ids on a storage, for advice; none when it can't be listed."""
        try:
            rows = self._client.get(path("nodes", node, "storage", storage, "content"))
        except ApiError:
            return ()
        return tuple(sorted(str(row["volid"]) for row in rows))

    def sizes(self, node: str, storage: str) -> Mapping[str, int]:
        """The sizes in bytes of all guests' volumes on a storage, by volume id. A slow call: PVE looks into each."""
        rows = self._client.get(path("nodes", node, "storage", storage, "content"), {"content": "images"})
        return {str(row["volid"]): int(row.get("size") or 0) for row in rows}


def _storage(row: Mapping[str, t.Any]) -> Storage:
    formats = row.get("formats") or {}
    supported = [str(name) for name in formats.get("supported", ()) if name != "subvol"]
    default = formats.get("default")
    ordered = ([str(default)] if default in supported else []) + sorted(name for name in supported if name != default)
    return Storage(
        name=str(row["storage"]),
        type=str(row.get("type", "")),
        content=frozenset(str(row.get("content", "")).split(",")),
        formats=tuple(ordered),
        enabled=bool(row.get("enabled", 1)),
        active=bool(row.get("active", 1)),
        shared=bool(row.get("shared", 0)),
        available=None if row.get("avail") is None else int(row["avail"]),
        total=None if row.get("total") is None else int(row["total"]),
    )


def read_snapshots(client: Client, guest: Guest) -> tuple[Snapshot, ...]:
    """A guest's snapshots with the volumes that they name, newest state excluded."""
    base = ("nodes", guest.node, "qemu", guest.vmid, "snapshot")
    names = [str(row["name"]) for row in client.get(path(*base)) if row["name"] != "current"]
    configs = client.get_many([path(*base, name, "config") for name in names])
    found = []
    for name, config in zip(names, configs, strict=True):
        if isinstance(config, ApiError):
            raise config
        rows = [PendingRow(str(key), str(value)) for key, value in config.items()]
        state = read_guest(guest.vmid, guest.name, guest.node, rows, running=False).configured
        found.append(Snapshot(name, frozenset(drive.volume for drive in state.drives.values())))
    return tuple(found)
