# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small world to plan in: a guest as PVE lists it, storages, volumes and snapshots; and what a plan makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.actions import Call
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import (
    Guest,
    PendingRow,
    Snapshot,
    Volume,
    read_guest,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout, read_layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.plan import Facts, Giver, Plan
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.planner import find_needs, make_plan
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.projection import (
    Knowledge,
    project,
    project_giver,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.reassign import find_givers
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.size import parse_size
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import Storage

CASES = Path(__file__).parent / "cases"


def read_storages(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Storage]:
    """The storages of a node, by name."""
    return {
        name: Storage(
            name=name,
            type=row["type"],
            content=frozenset(row.get("content", ["images"])),
            formats=tuple(row.get("formats", ())),
            enabled=row.get("enabled", True),
            active=row.get("active", True),
            available=parse_size(row["available"]) if "available" in row else None,
        )
        for name, row in data.items()
    }


STORAGES = read_storages(yaml.safe_load((CASES / "storages.yml").read_text("utf-8")))


@dataclass(frozen=True)
class World:
    """What is there besides the guest.

    :param volumes: by volume id; the guest's own drives need not be named.
    """

    storages: Mapping[str, Storage] = field(default_factory=lambda: STORAGES)
    volumes: Mapping[str, Volume | None] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    may_use_paths: bool = False
    givers: Mapping[str, Giver] = field(default_factory=dict)

    def facts(self, guest: Guest, layout: Layout) -> Facts:
        """Only what the planner says that it needs."""
        givers = {name: self.givers[name] for name in find_givers(layout) if name in self.givers}
        needs = find_needs(guest, layout, givers)
        known = {**_own_volumes(guest), **self.volumes}
        return Facts(
            guest,
            self.storages if needs.storages else None,
            {name: known.get(name) for name in sorted(needs.volumes)},
            self.snapshots if needs.snapshots else (),
            self.may_use_paths,
            givers=givers,
        )

    def once(self, calls: Sequence[Call]) -> World:
        """The world after these calls, which may have taken disks from other guests."""
        givers = {
            name: giver if giver.guest is None else replace(giver, guest=reduce(project_giver, calls, giver.guest))
            for name, giver in self.givers.items()
        }
        return replace(self, givers=givers)

    def plan(self, guest: Guest, layout: Layout) -> Plan:
        return make_plan(self.facts(guest, layout), layout)

    def after(self, guest: Guest, calls: Sequence[Call]) -> Iterator[Guest]:
        """The guest after each of the calls."""
        known = {**_own_volumes(guest), **self.volumes}
        knowledge = Knowledge({name: volume for name, volume in known.items() if volume is not None})
        for count in range(1, len(calls) + 1):
            yield reduce(lambda before, call: project(before, call, knowledge), calls[:count], guest)


def _own_volumes(guest: Guest) -> dict[str, Volume | None]:
    drives = [*guest.live.drives.values(), *guest.configured.drives.values()]
    return {drive.volume: Volume(drive.volume, drive.size, drive.format) for drive in drives if drive.size is not None}


def make_guest(
    config: Mapping[str, str],
    *,
    running: bool = False,
    pending: Mapping[str, str] | None = None,
    deleting: Mapping[str, int] | None = None,
    parent: str | None = None,
    vmid: int = 100,
    name: str = "web1",
    node: str = "pve1",
) -> Guest:
    """A guest from PVE's texts: what is in force, what waits, and what waits to be deleted."""
    waiting, gone = pending or {}, deleting or {}
    texts = {**config, **({"parent": parent} if parent else {})}
    keys = [*texts, *(key for key in waiting if key not in texts)]
    rows = [PendingRow(key, texts.get(key), waiting.get(key), gone.get(key, 0)) for key in keys]
    return read_guest(vmid, name, node, rows, running=running)


def _guest_of(data: Mapping[str, Any], **more: Any) -> Guest:
    snapshots = data.get("snapshots", {})
    return make_guest(
        data["config"],
        running=data.get("running", False),
        pending=data.get("pending"),
        deleting=data.get("deleting"),
        parent=list(snapshots)[-1] if snapshots else None,
        **more,
    )


def read_giver(name: str, data: Mapping[str, Any]) -> Giver:
    """Another guest of a case: its number, and the rest as of the guest itself; or why there is none."""
    if "problem" in data:
        return Giver(None, tuple(data["problem"]))
    guest = _guest_of(data, vmid=data["vmid"], name=name, node=data.get("node", "pve1"))
    named = tuple(Snapshot(name, frozenset(names)) for name, names in data.get("snapshots", {}).items())
    return Giver(guest, snapshots=named, missing=tuple(data.get("missing", ())))


@dataclass(frozen=True)
class Case:
    """One case file, read."""

    guest: Guest
    layout: Layout
    world: World
    wrong: tuple[str, ...]


def read_case(data: Mapping[str, Any]) -> Case:
    guest_data = data["guest"]
    snapshots = guest_data.get("snapshots", {})
    guest = _guest_of(guest_data)
    volumes = {
        name: None if row is None else Volume(name, parse_size(row["size"]), row.get("format", "raw"))
        for name, row in data.get("volumes", {}).items()
    }
    world = World(
        {**STORAGES, **read_storages(data.get("storages", {}))},
        volumes,
        tuple(Snapshot(name, frozenset(names)) for name, names in snapshots.items()),
        data.get("may_use_paths", False),
        {declared: read_giver(row.get("name", declared), row) for declared, row in data.get("givers", {}).items()},
    )
    declared = dict(data["declare"])
    defaults = Layout(allow_destroy=declared.pop("allow_destroy", False))
    layout, wrong = read_layout({"vmid": 100, "name": "web1", **declared}, defaults)
    return Case(guest, layout, world, tuple(str(refusal) for refusal in sorted(set(wrong))))


def shape(call: Call) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What a call is about, without the names of volumes, which only PVE knows beforehand."""
    return call.kind.value, tuple(sorted((action.verb, str(action.slot)) for action in call.actions))


def outcome(case: Case) -> dict[str, Any]:
    """What a case file states, as it is."""
    if case.wrong:
        return {"refused": list(case.wrong)}
    plan = case.world.plan(case.guest, case.layout)
    found: dict[str, Any] = {}
    if plan.refusals:
        found["refused"] = [str(refusal) for refusal in plan.refusals]
    else:
        found["calls"] = [{call.kind.value: dict(call.parameters)} for call in plan.calls]
        lines = [action.line for action in plan.actions]
        found["lines"] = [[line.sign, line.subject, line.what, line.detail] for line in lines if line is not None]
    found["warnings"] = list(plan.warnings)
    found["restart_required"] = sorted(plan.restart_required)
    return {key: value for key, value in found.items() if value or key == "calls"}


def without_digest(guest: Guest) -> Guest:
    return replace(guest, digest="")
