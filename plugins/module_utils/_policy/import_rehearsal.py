# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What attaching an import's disks would be refused for, asked of the planner before anything is made or converted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from .._core.definition import read_definition
from .._core.guest import Guest, Volume, read_hardware
from .._core.layout import read_layout
from .._core.plan import Facts
from .._core.planner import make_plan
from .import_guest import Around, DiskPlan, GuestPlan, label_of, told
from .import_sources import Against, as_mapping
from .import_state import Results, State
from .import_text import guest_data

#: What stands for the number of a guest that gets the next free one.
_ANY = 100
#: Devices beside drives that can be started from; of a guest that is there they are not known.
_OTHERS = re.compile(r"(net|usb|hostpci)\d+")


def rehearse(plan: GuestPlan, around: Around, there: Guest | None) -> Iterator[Against]:
    """What ``guest_disks`` would refuse of the layout that it will be given.

    :param plan: with a place and a storage for each of its disks.
    :param there: the guest, if there is one.
    """
    vmid = plan.vmid or _ANY
    data = _layout(plan, around.route, vmid)
    layout, wrong = read_layout(data)
    guest = _new(plan, vmid) if there is None else replace(there, devices=frozenset(_others(layout.boot or ())))
    facts = Facts(guest, around.storages, MappingProxyType(dict(_volumes(plan, data))))
    files = {str(disk.slot): disk.image.name for disk in plan.disks}
    for one in wrong or make_plan(facts, layout).refusals:
        yield told(one, files.get(one.slot, ""), "not-understood" if wrong else "not-possible")


def _layout(plan: GuestPlan, route: str, vmid: int) -> Mapping[str, object]:
    """What is attached once everything is made and converted."""
    guest = {**guest_data(plan), "vmid": vmid, "todo": True, "elsewhere": False}
    rows = [
        {"path": disk.image.path, "member": disk.image.member, "vmid": vmid, "volume": _volume(disk, vmid)}
        for disk in plan.disks
    ]
    stage = State({"guests": [guest]}, Results(converted={"images": rows}), route, check=False).data()["layouts"]
    return as_mapping(stage[0] if isinstance(stage, list) else None)


def _volume(disk: DiskPlan, vmid: int) -> str:
    return f"{disk.storage}:vm-{vmid}-{label_of(disk.image)}-{disk.image.fingerprint[:8] or disk.slot}"


def _new(plan: GuestPlan, vmid: int) -> Guest:
    """The guest as it is made: without disks, but with devices that it can be started from."""
    texts = read_definition(plan.definition)[0].texts
    hardware = read_hardware(texts)
    return Guest(vmid, plan.name, plan.node, configured=hardware, live=hardware, devices=frozenset(_others(texts)))


def _others(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if _OTHERS.fullmatch(name))


def _volumes(plan: GuestPlan, data: Mapping[str, object]) -> Iterator[tuple[str, Volume]]:
    """What the layout attaches or imports, as if it were there already."""
    rows = data.get("disks")
    images = {str(disk.slot): disk.image for disk in plan.disks}
    for row in map(as_mapping, rows if isinstance(rows, list) else ()):
        volume, image = str(row.get("volume") or row.get("import_from") or ""), images.get(str(row.get("slot")))
        if volume and image is not None:
            yield volume, Volume(volume, image.virtual_size or None, image.format)
