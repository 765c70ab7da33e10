# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""An import's plan for people, and as plain data for playbooks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .._core.size import human_size
from .import_guest import DiskPlan, GuestPlan
from .import_sources import MIB, Against, as_mapping

_HARDWARE = ("ostype", "bios", "machine", "cpu", "scsihw", "pool")


def plan_data(plans: Sequence[GuestPlan], policy: str) -> dict[str, object]:
    """Plans as data: ``guests``, ``lines`` for people, every reason of ``refused`` in a line, paths of ``uploads``."""
    return {
        "guests": [guest_data(plan) for plan in plans],
        "uploads": [plan.source.path for plan in plans if plan.todo and not plan.against and _is_uploaded(plan)],
        "lines": [line for plan in plans for line in guest_lines(plan, policy)],
        "refused": [_with_guest(plan, one) for plan in plans for one in plan.against],
    }


def _is_uploaded(plan: GuestPlan) -> bool:
    return bool(plan.source.given.get("upload_from"))


def _refusal(one: Against) -> str:
    """A reason with the file that it is about, which images' own reasons begin with."""
    file = "" if one.reason.startswith(f"{one.file}: ") else one.file
    return f"{': '.join(filter(None, (file, one.reason)))} ({one.code})"


def _with_guest(plan: GuestPlan, one: Against) -> str:
    """A reason with the guest, unless that is the path with which the reason begins."""
    text = _refusal(one)
    return text if text.startswith(f"{plan.key}: ") else f"{plan.key}: {text}"


def guest_data(plan: GuestPlan) -> dict[str, object]:
    """One guest's plan as data."""
    return {
        "key": plan.key,
        "source": plan.source.path,
        "vmid": plan.vmid,
        "name": plan.name,
        "node": plan.node,
        "new": plan.new,
        "todo": plan.todo and not plan.against,
        "uploaded": _is_uploaded(plan),
        "elsewhere": plan.elsewhere,
        "definition": dict(plan.definition),
        "disks": [_disk_data(disk) for disk in plan.disks],
        "firmware": [dict(disk) for disk in plan.firmware],
        "boot": None if plan.boot is None else list(plan.boot),
        "scsihw": plan.scsihw,
        "refused": [{"code": one.code, "file": one.file, "reason": one.reason} for one in plan.against],
        "warnings": list(plan.warnings),
    }


def _disk_data(disk: DiskPlan) -> dict[str, object]:
    return {
        "file": disk.image.name,
        "path": disk.image.path,
        "member": disk.image.member,
        "slot": str(disk.slot),
        "storage": disk.storage,
        "format": disk.format,
        "virtual_size": disk.image.virtual_size,
        "size": disk.size if disk.size > disk.image.virtual_size else None,
        "options": dict(disk.options),
        "rules": list(disk.rules),
        "attached": disk.attached,
    }


def guest_lines(plan: GuestPlan, policy: str) -> Iterator[str]:
    """One guest's plan, a line for each thing; nothing for a guest that has everything."""
    if not plan.todo and not plan.against:
        return
    yield _heading(plan)
    rows = list(_rows(plan, policy))
    widths = [max((len(row[column]) for row in rows), default=0) for column in (1, 2)]
    for sign, subject, what, detail in rows:
        yield f"  {sign} {subject:<{widths[0]}}  {what:<{widths[1]}}  {detail}".rstrip()
    if plan.elsewhere:
        yield "  ? it is uploaded first"
    yield from (f"  ? {text}" for text in plan.warnings)
    yield from (f"  x {_refusal(one)}" for one in plan.against)


def _heading(plan: GuestPlan) -> str:
    """The guest and where it comes from; of a source that no guest could be made of, that is all there is."""
    number = f" ({plan.vmid or 'next free number'} on {plan.node}{', new' if plan.new else ''})" if plan.node else ""
    return plan.key if plan.key == plan.source.path else f"{plan.key}{number}  {plan.source.path}".rstrip()


def _rows(plan: GuestPlan, policy: str) -> Iterator[tuple[str, str, str, str]]:
    if plan.new and plan.definition:
        said = (str(plan.definition[key]) for key in _HARDWARE if key in plan.definition)
        yield "+", "guest", _hardware(plan), ", ".join(said)
    for disk in plan.disks:
        if not disk.attached:
            yield "+", str(disk.slot), _volume(disk), _details(disk, policy)
    for drive in plan.firmware:
        options = ", ".join(f"{key} {_said(value)}" for key, value in drive.items() if key not in ("slot", "storage"))
        yield "+", str(drive["slot"]), f"on {drive['storage']}", options
    cards = plan.definition.get("net")
    for card in cards if isinstance(cards, list) else ():
        nic = as_mapping(card)
        where = f"on {nic['bridge']}" if nic.get("bridge") else "not connected"
        vlan = f", VLAN {nic['tag']}" if nic.get("tag") else ""
        yield "+", str(nic["slot"]), str(nic["model"]), where + vlan


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hardware(plan: GuestPlan) -> str:
    """Memory and cores; nothing of what was refused."""
    memory, cores, sockets = (_count(plan.definition.get(name)) for name in ("memory", "cores", "sockets"))
    total = (cores or 1) * (sockets or 1)
    parts = [human_size(memory * MIB)] if memory else []
    return ", ".join([*parts, f"{total} {'core' if total == 1 else 'cores'}"])


def _count(value: object) -> int | None:
    return int(str(value)) if re.fullmatch(r"[0-9]{1,12}", str(value)) else None


def _volume(disk: DiskPlan) -> str:
    size = f"{human_size(disk.size)} " if disk.size else ""
    return f"{size}{disk.format} {f'on {disk.storage}' if disk.storage else 'without a storage'}"


def _details(disk: DiskPlan, policy: str) -> str:
    made_of = " ".join(filter(None, (disk.image.format, disk.image.subformat)))
    return f"{disk.image.name} ({made_of})   ({policy}: {', '.join(disk.rules)})"
