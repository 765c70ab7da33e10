# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A disk of another guest becomes this guest's: what keeps PVE from it, and how the drive arrives.

PVE renames the volume, takes the drive out of its old slot and puts it into the new one, in one task. It carries all
options over, and refuses the whole thing when the new bus does not have one of them. Source: qemu-server 9.2.6,
``PVE/API2/Qemu.pm``, ``move_vm_disk`` with ``target-vmid``; and the same on a PVE 9.2.11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .actions import Reassign
from .draft import Draft
from .drive import Drive, make_drive, new_volume
from .errors import Refusal
from .guards import find_leftovers
from .guest import Guest
from .layout import Disk, Layout
from .options import STRUCTURAL, TABLE
from .plan import Giver
from .projection import can_hotplug
from .slot import Slot, find_slot
from .sources import wanted_options

_Problem = tuple[str, str]


def find_givers(layout: Layout) -> frozenset[str]:
    """The guests that a declaration takes disks from, as it names them."""
    return frozenset(guest for _disk, guest, _slot in _takings(layout))


def _takings(layout: Layout) -> Iterator[tuple[Disk, str, Slot]]:
    for disk in layout.disks:
        if disk.moved_from_guest is not None and disk.moved_from is not None and disk.state == "present":
            yield disk, disk.moved_from_guest, disk.moved_from


def drive_at(guest: Guest, slot: Slot) -> Drive | None:
    """The drive in a slot; of an ``unusedN`` the volume without options."""
    if not slot.is_unused:
        return guest.configured.drives.get(slot)
    volume = guest.configured.unused.get(slot)
    return None if volume is None else make_drive(volume)


def still_there(draft: Draft, disk: Disk) -> Drive | None:
    """The drive in the other guest's slot although this guest's slot has one.

    A guest that is gone by now has given its disk, and the number of an unused volume says nothing in a second run.
    """
    giver = draft.facts.givers.get(disk.moved_from_guest or "")
    if giver is None or giver.guest is None or disk.moved_from is None or disk.moved_from.is_unused:
        return None
    return drive_at(giver.guest, disk.moved_from)


def reassign(draft: Draft, disk: Disk) -> Drive | None:
    """Plan that a disk of another guest comes into an empty slot.

    :returns: the drive as it arrives, or ``None`` when that is refused.
    """
    giver = draft.facts.givers.get(disk.moved_from_guest or "", Giver(None))
    source = disk.moved_from or disk.slot
    if giver.guest is None or giver.guest.vmid == draft.guest.vmid:
        own = ("it is this guest itself", "remove moved_from_guest")
        problem = own if giver.guest is not None else giver.problem or ("it was not read", "run again")
        draft.refuse(disk.slot, "moved_from_guest", disk.moved_from_guest, *problem)
        return None
    before = drive_at(giver.guest, source)
    problems = [_no_disk(draft, disk, giver.guest)] if before is None else list(_problems(draft, giver, source, before))
    for problem in problems:
        draft.refuse(disk.slot, "moved_from", source, *problem)
    if problems or before is None:
        return None
    if disk.slot.is_firmware:
        draft.needs_stop(disk.slot, "moved_from", source, f"{disk.slot} can't be added while the guest runs")
    return _add_reassign(draft, disk, giver.guest, source, before)


def _add_reassign(draft: Draft, disk: Disk, giver: Guest, source: Slot, before: Drive) -> Drive:
    prepared = before.with_options(_prepared(draft, disk, source, before))
    format_ = before.format if before.get("format") is None else None
    earlier = sum(isinstance(action, Reassign) for action in draft.actions)
    drive = prepared.with_volume(new_volume(before.storage or "", format_, number=earlier or None))
    volume = draft.facts.volumes.get(before.volume)
    if source.is_unused and volume is not None and volume.size:
        drive = drive.with_size(volume.size)
    draft.add(Reassign(disk.slot, giver, source, before, prepared, drive))
    return drive


def _prepared(draft: Draft, disk: Disk, source: Slot, before: Drive) -> Mapping[str, str | None]:
    """What has to be changed about a drive in its old slot, so that PVE can carry it over.

    What the new bus does not have goes. What is declared beside it comes afterwards, in one call with everything else;
    but a running guest that takes the disk up at once would take some of it up only at its next start, so there it
    comes before, as far as the old bus has it.
    """
    changes: dict[str, str | None] = {
        key: None
        for key, _value in before.options
        if key in TABLE and key not in STRUCTURAL and disk.slot.bus not in TABLE[key].buses
    }
    if draft.guest.running and can_hotplug(disk.slot, draft.guest) and not source.is_unused:
        for name, value in wanted_options(disk).items():
            if source.bus in TABLE[name].buses and not TABLE[name].same(before.get(name), value):
                changes[name] = value
    return changes


def _no_disk(draft: Draft, disk: Disk, giver: Guest) -> _Problem:
    source = disk.moved_from or disk.slot
    if source in giver.configured.unreadable:
        return f"PVE has '{giver.configured.unreadable[source]}' there, which can't be read", "correct it in PVE first"
    if source in giver.live.drives:
        return f"its removal from {giver.label} waits", "stop that guest, or settle what waits there in PVE"
    there = [*(slot for slot, drive in giver.configured.drives.items() if drive.is_disk), *giver.configured.unused]
    return (
        f"neither {disk.slot} nor {source} of {giver.label} holds a disk",
        f"{giver.name} has {', '.join(map(str, there)) or 'none'}; if the disk has left there and is in no slot, "
        f"'qm disk rescan --vmid {draft.guest.vmid}' on the node makes it an unused one of this guest",
    )


def _problems(draft: Draft, giver: Giver, source: Slot, before: Drive) -> Iterator[_Problem]:
    """Why PVE would not hand a drive over, or should not."""
    if giver.guest is None:
        return
    yield from _problems_of_guest(draft, giver.guest, source)
    yield from _problems_of_drive(giver.guest, source, before)
    yield from _problems_of_storage(draft, before)
    holding = [snapshot.name for snapshot in giver.snapshots if before.volume in snapshot.volumes]
    if holding:
        yield f"snapshot {holding[0]} of {giver.guest.label} needs {before.volume}", "delete its snapshots first"
    for missing in giver.missing:
        yield f"the user lacks {missing}", "grant it"
    for action in draft.actions:
        if isinstance(action, Reassign) and (action.giver.vmid, action.source) == (giver.guest.vmid, source):
            yield f"{action.slot} takes it too", "one disk can't become two"


def _problems_of_guest(draft: Draft, giver: Guest, source: Slot) -> Iterator[_Problem]:
    if giver.node != draft.guest.node:
        yield (
            f"{giver.label} is on another node, and PVE hands disks over on one node only",
            "migrate one of the two guests first",
        )
    if giver.template:
        yield f"{giver.label} is a template, and linked clones may depend on its disks", "copy it with import_from"
    if giver.lock:
        yield f"{giver.label} is locked ({giver.lock})", "wait until the job that locked it ends"
    if giver.protection:
        yield f"{giver.label} is protected, and keeps its disks", "remove its protection for the change"
    if giver.running and not source.is_unused:
        yield (
            f"{giver.label} runs",
            "stop it first, or detach the disk there (state: detached) and write moved_from with its unusedN",
        )
    waiting = find_leftovers(giver) if not giver.running else ()
    if waiting:
        yield f"{', '.join(waiting)} of {giver.label} waits from an earlier call", "settle it in PVE first"


def _problems_of_drive(giver: Guest, source: Slot, before: Drive) -> Iterator[_Problem]:
    others = {*giver.configured.slots_of(before.volume), *giver.live.slots_of(before.volume)} - {source}
    if before.is_cdrom:
        yield "it is a CD-ROM drive, which PVE hands over to no other guest", "declare one with iso"
    elif before.is_cloudinit:
        yield "it is the cloud-init drive of that guest", "make one with cloudinit: true"
    elif before.storage is None:
        yield f"{before.volume} is not a volume of PVE", "attach it by its path with volume:"
    elif before.is_base:
        yield f"{before.volume} is a base volume, and linked clones may depend on it", "copy it with import_from"
    elif before.owner != giver.vmid:
        owner = f"to guest {before.owner}" if before.owner is not None else "to no guest"
        yield f"{before.volume} belongs {owner}", "copy it with import_from"
    elif others:
        yield f"{before.volume} is in {min(others)} of {giver.label} too", f"detach it from {min(others)} there first"


def _problems_of_storage(draft: Draft, before: Drive) -> Iterator[_Problem]:
    storage = (draft.facts.storages or {}).get(before.storage or "")
    if storage is None:
        return
    if not (storage.enabled and storage.active):
        yield f"{storage.name} is not active on {draft.guest.node}", "see why the node can't reach it"
    if storage.kind is not None and not storage.kind.renames:
        yield f"{storage.name} ({storage.type}) can't rename volumes", "copy it with import_from"


@dataclass(frozen=True, slots=True)
class Declared:
    """One of the declarations of a run, with the guest that it means.

    :param label: how messages call the guest.
    :param givers: the numbers of the guests that it names as ``moved_from_guest``.
    """

    vmid: int
    label: str
    layout: Layout
    givers: Mapping[str, int]

    @property
    def takings(self) -> Iterator[tuple[Disk, int, Slot]]:
        """What it takes from others: its disk, the number of the other guest, the slot there."""
        for disk, guest, slot in _takings(self.layout):
            if guest in self.givers:
                yield disk, self.givers[guest], slot


def taken_slots(declared: Sequence[Declared], vmid: int) -> frozenset[Slot]:
    """The slots of a guest whose drive others of the same run take."""
    return frozenset(slot for one in declared for _disk, giver, slot in one.takings if giver == vmid)


def linked(declared: Sequence[Declared]) -> list[frozenset[int]]:
    """The guests that have to be changed one after the other, because disks go from one to another."""
    groups: list[frozenset[int]] = []
    for one in declared:
        numbers = frozenset({one.vmid, *(giver for _disk, giver, _slot in one.takings)})
        if len(numbers) > 1:
            apart = [group for group in groups if not group & numbers]
            groups = [*apart, numbers.union(*(group for group in groups if group & numbers))]
    return groups


def rivalries(declared: Sequence[Declared]) -> Iterator[tuple[int, Refusal]]:
    """Where two declarations of a run want the same disk: the number of the guest that takes it, and why it may not."""
    taken: dict[tuple[int, Slot], Declared] = {}
    by_number = {one.vmid: one for one in declared}
    for one in declared:
        for disk, giver, slot in one.takings:
            first = taken.setdefault((giver, slot), one)
            other = by_number.get(giver)
            problem = None
            if first is not one:
                problem = f"{first.label} takes it too", "one disk can't become two"
            elif other is not None and other is not one:
                problem = _rival(other, slot)
            if problem is not None:
                yield one.vmid, Refusal(one.label, str(disk.slot), "moved_from", str(slot), *problem)


def _rival(giver: Declared, slot: Slot) -> _Problem | None:
    """What the declaration of the guest that is to give a disk says against it."""
    for disk in giver.layout.disks:
        if disk.slot == slot and disk.state != "detached":
            return (
                f"{giver.label} declares {slot} with state: {disk.state}, so a second run could not tell what was done",
                f"remove the declaration of {slot} there, and add it again afterwards",
            )
        if slot in (disk.old_slot, _slot_named(disk)):
            return f"{giver.label} brings it to {disk.slot}", "one disk can't become two"
    return None


def _slot_named(disk: Disk) -> Slot | None:
    return find_slot(disk.volume) if disk.volume is not None else None
