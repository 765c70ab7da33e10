# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The planner: facts and a declaration in, a plan out. Pure: it knows nothing of Ansible, of PVE's API or of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce

from .actions import (
    Action,
    Attach,
    BootDisk,
    BootOrder,
    Call,
    CallKind,
    Controller,
    Create,
    Destroy,
    Detach,
    Note,
    Reassign,
    Resize,
    Revert,
    Switch,
)
from .changes import adjust, destroy, detach
from .cutting import cut_calls, finish_power, power_down, switches_left
from .draft import Draft
from .drive import Drive, make_drive
from .guards import (
    check_combinations,
    find_leftovers,
    find_warnings,
    guest_refusals,
    reused_numbers,
    shared_volumes,
    stop_refusals,
    without_place,
)
from .guest import Boot, Guest
from .journal import write_journal
from .layout import Disk, Layout
from .plan import Facts, Giver, Needs, Plan
from .projection import Knowledge, project, restart_keys
from .reassign import drive_at, reassign, still_there
from .slot import DISK_BUSES, Slot, find_slot
from .sources import create, media, resolve_volume, survives_unplugging, switch


def find_needs(guest: Guest, layout: Layout, givers: Mapping[str, Giver] | None = None) -> Needs:
    """What has to be read before this guest can be planned; nothing when it is already as declared.

    :param givers: the guests that it takes disks from, see :func:`~.reassign.find_givers`.
    """
    drives = guest.configured.drives
    storages, volumes, snapshots = False, set[str](), False
    for disk in layout.disks:
        current = drives.get(disk.slot) or (drives.get(disk.old_slot) if disk.old_slot else None)
        if disk.state == "absent":
            snapshots = snapshots or guest.has_snapshots
        if disk.state != "present":
            continue
        if current is None or _moves(disk, current):
            storages = True
            snapshots = snapshots or guest.has_snapshots
        volumes |= set(_volumes_needed(guest, disk, current))
        if current is None and disk.moved_from_guest is not None:
            volumes |= set(_volumes_without_size(disk, (givers or {}).get(disk.moved_from_guest)))
    return Needs(storages, frozenset(volumes), snapshots)


def _moves(disk: Disk, current: Drive) -> bool:
    other_place = disk.storage is not None and disk.storage != current.storage
    other_format = disk.format is not None and disk.format != current.format
    return other_place or other_format or (disk.flatten and current.base is not None)


def _volumes_needed(guest: Guest, disk: Disk, current: Drive | None) -> Iterator[str]:
    wanted = resolve_volume(guest, disk.volume) if disk.volume else None
    taken = current is not None and (current.volume == wanted or find_slot(disk.volume or "") is not None)
    if wanted and not taken and not wanted.startswith("/"):
        yield wanted
    if disk.iso and ":" in disk.iso and (current is None or current.volume != disk.iso):
        yield disk.iso
    if disk.import_from and current is None and not disk.import_from.startswith("/"):
        yield disk.import_from
    if current is not None and current.size is None and disk.size is not None and current.storage is not None:
        yield current.volume


def _volumes_without_size(disk: Disk, giver: Giver | None) -> Iterator[str]:
    """The volume of another guest that is to come, where its configuration does not say how large it is."""
    if giver is not None and giver.guest is not None and disk.moved_from is not None:
        drive = drive_at(giver.guest, disk.moved_from)
        if drive is not None and drive.size is None and drive.storage is not None:
            yield drive.volume


def make_plan(facts: Facts, layout: Layout) -> Plan:
    """Plan what makes a guest as it is declared.

    The same facts and the same declaration always give the same plan, in check mode and without.
    """
    before = facts.guest
    leftovers = find_leftovers(before)
    reverted, calls = _revert_first(before, layout, leftovers)
    draft = _draft(facts, layout, reverted)
    if draft.stops and layout.power == "stop_if_needed" and not draft.refusals:
        stop = power_down(reverted)
        draft = _draft(facts, layout, reduce(project, stop, reverted))
        calls += stop
    calls += cut_calls(draft) + finish_power(draft)
    draft.refusals.extend(stop_refusals(draft))
    draft.refusals.extend(guest_refusals(before, layout, calls, leftovers))
    knowledge = Knowledge({name: volume for name, volume in facts.volumes.items() if volume is not None})
    after = reduce(lambda guest, call: project(guest, call, knowledge), calls, before)
    draft.refusals.extend(shared_volumes(before, after))
    draft.refusals.extend(without_place(before, after, calls))
    if calls:
        already = {refusal.slot for refusal in draft.refusals}
        draft.refusals.extend(refusal for refusal in reused_numbers(after, layout) if refusal.slot not in already)
    undeclared = _undeclared(before, layout, draft)
    refused = bool(draft.refusals)
    calls, after = ((), before) if refused else (calls, after)
    return Plan(
        before=before,
        after=after,
        calls=calls,
        refusals=tuple(sorted(set(draft.refusals))),
        warnings=tuple(dict.fromkeys(draft.warnings + find_warnings(before, after, layout, leftovers))),
        undeclared=undeclared,
        report_undeclared=layout.undeclared != "keep",
        leftovers=leftovers,
        restart_required=restart_keys(after, _since_start(calls)),
    )


def _since_start(calls: tuple[Call, ...]) -> Iterator[Action]:
    """The steps that a start within the plan has not brought into force."""
    starts = [index for index, call in enumerate(calls) if call.kind is CallKind.START]
    for call in calls[starts[-1] if starts else 0 :]:
        yield from call.actions


def _draft(facts: Facts, layout: Layout, guest: Guest) -> Draft:
    draft = Draft(facts, layout, guest, consumed=set(facts.taken))
    for disk in sorted(layout.disks, key=lambda disk: disk.slot):
        if disk.state == "present":
            _plan_present(draft, disk)
    for disk in sorted(layout.disks, key=lambda disk: disk.slot):
        if disk.state != "present" and disk.slot not in draft.consumed:
            _plan_leaving(draft, disk)
    if layout.undeclared == "detach":
        _detach_undeclared(draft)
    _plan_controller(draft)
    _plan_boot(draft)
    check_combinations(draft)
    return draft


def _plan_present(draft: Draft, disk: Disk) -> None:
    drives = draft.guest.configured.drives
    current = drives.get(disk.slot)
    if disk.slot in draft.guest.configured.unreadable:
        text = draft.guest.configured.unreadable[disk.slot]
        draft.refuse(disk.slot, "", None, f"PVE has '{text}' there, which can't be read", "correct it in PVE first")
    elif disk.moved_from_guest is not None:
        _plan_taken(draft, disk, current)
    elif disk.moved_from is not None and current is None:
        _plan_moved(draft, disk, disk.moved_from)
    elif disk.moved_from is not None and disk.moved_from in drives:
        draft.refuse(
            disk.slot,
            "moved_from",
            disk.moved_from,
            f"{disk.slot} holds {current.volume if current else ''} "
            f"and {disk.moved_from} still holds {drives[disk.moved_from].volume}",
            "empty one of the slots first (state: detached)",
        )
    elif disk.is_cdrom:
        media(draft, disk, current)
    elif current is None:
        create(draft, disk)
        _adjust_arrived(draft, disk)
    else:
        adjust(draft, disk, current)
        _adjust_arrived(draft, disk)


def _plan_taken(draft: Draft, disk: Disk, current: Drive | None) -> None:
    """Plan a disk that comes from another guest, or that has come from there."""
    there = still_there(draft, disk) if current is not None else None
    if there is not None:
        draft.refuse(
            disk.slot,
            "moved_from",
            disk.moved_from,
            f"{disk.slot} holds {current.volume if current else ''} and {disk.moved_from} of guest "
            f"{disk.moved_from_guest} still holds {there.volume}",
            "empty one of the slots first (state: detached), or remove moved_from if the disk has moved",
        )
        return
    arrived = current or reassign(draft, disk)
    if arrived is not None:
        adjust(draft, disk, arrived)


def _plan_moved(draft: Draft, disk: Disk, source: Slot) -> None:
    before = draft.guest.configured.drives.get(source)
    if before is None:
        noted = draft.journal.switches.get(disk.slot)
        before = noted if noted is not None and _is_left(draft.guest, noted) else None
    if before is None and source in draft.guest.live.drives:
        draft.refuse(
            disk.slot,
            "moved_from",
            source,
            f"the running guest still holds {draft.guest.live.drives[source].volume} there, and its removal waits",
            "stop the guest, or write revert_leftovers: true to begin anew",
        )
        return
    if before is None:
        unused = ", ".join(f"{slot} is {volume}" for slot, volume in draft.guest.configured.unused.items())
        draft.refuse(
            disk.slot,
            "moved_from",
            source,
            f"neither {disk.slot} nor {source} holds a disk",
            f"name its volume with volume: ({unused or 'the guest has no unused volumes'})",
        )
        return
    switch(draft, disk, source, before)
    switched = next(action.drive for action in draft.actions if isinstance(action, Switch) and action.slot == disk.slot)
    if not disk.is_cdrom:
        adjust(draft, replace(disk, options={}, unset=()), switched)


def _is_left(guest: Guest, noted: Drive) -> bool:
    """Whether a drive that was unplugged to be plugged elsewhere is where PVE leaves it.

    The journal stands in the notes, which others may write: what it names is taken only if it can do no harm.
    """
    return survives_unplugging(noted, guest.vmid) and (
        noted.is_cdrom or guest.configured.unused_slot_of(noted.volume) is not None
    )


def _adjust_arrived(draft: Draft, disk: Disk) -> None:
    """A disk that was imported, attached or switched becomes what else is declared once it is there."""
    arrived = [action for action in draft.actions if action.slot == disk.slot]
    if not arrived:
        return
    rest = replace(disk, volume=None, options={}, unset=())
    for action in arrived:
        if isinstance(action, Create) and action.source and disk.size is not None:
            if action.size is None or disk.size > action.size:
                draft.add(Resize(disk.slot, action.size, disk.size))
        elif isinstance(action, Attach):
            volume = draft.facts.volumes.get(action.drive.volume)
            adjust(draft, rest, action.drive.with_size(volume.size) if volume and volume.size else action.drive)
        elif isinstance(action, Switch) and disk.volume is not None:
            adjust(draft, rest, action.drive)


def _plan_leaving(draft: Draft, disk: Disk) -> None:
    configured = draft.guest.configured
    if disk.slot.is_unused:
        volume = configured.unused.get(disk.slot)
        arriving = {action.drive.volume for action in draft.actions if isinstance(action, (Attach, Switch))}
        if volume is not None and volume not in arriving:
            destroy(draft, disk.slot, make_drive(volume))
        return
    current = configured.drives.get(disk.slot)
    if disk.slot in configured.unreadable:
        draft.refuse(
            disk.slot, "state", disk.state, "PVE has a drive there that can't be read", "correct it in PVE first"
        )
    elif current is not None:
        (detach if disk.state == "detached" else destroy)(draft, disk.slot, current)


def _detach_undeclared(draft: Draft) -> None:
    for slot in _undeclared(draft.guest, draft.layout, draft):
        drive = draft.guest.configured.drives[slot]
        if slot.bus in DISK_BUSES and drive.is_disk:
            detach(draft, slot, drive)


def _undeclared(guest: Guest, layout: Layout, draft: Draft) -> tuple[Slot, ...]:
    declared = {disk.slot for disk in layout.disks} | draft.consumed
    return tuple(slot for slot in guest.configured.drives if slot not in declared)


def _plan_controller(draft: Draft) -> None:
    wanted, current = draft.layout.scsihw, draft.guest.configured.scsihw
    if wanted is not None and wanted != (current or "lsi"):
        draft.add(Controller(None, current, wanted))


def _plan_boot(draft: Draft) -> None:
    """The declared boot order, or the present one with the new names of drives that move."""
    configured = draft.guest.configured
    switches = [action for action in draft.actions if isinstance(action, Switch)]
    renames = {str(a.source): str(a.slot) for a in switches if not a.drive.is_cdrom}
    if draft.layout.boot is not None:
        after = reduce(project, cut_calls(draft), draft.guest)
        _check_boot(draft, after)
        wanted = Boot(draft.layout.boot)
        if after.configured.boot != wanted:
            draft.add(BootOrder(None, configured.boot, wanted))
        return
    if configured.boot == Boot():
        _fill_empty_order(draft)
    if draft.boot_to_note is not None or (draft.journal.boot is not None and draft.actions):
        left = replace(draft.journal, boot=None, switches=switches_left(draft))
        draft.add(Note(None, write_journal(configured.description, left)))
    if configured.bootdisk in renames:
        draft.add(BootDisk(None, configured.bootdisk or "", renames[configured.bootdisk or ""]))
    if configured.boot is not None and any(name in renames for name in configured.boot.devices):
        gone = {str(a.slot) for a in draft.actions if isinstance(a, (Detach, Destroy))}
        draft.add(BootOrder(None, configured.boot, configured.boot.renamed(renames).without(gone)))
    for action in switches:
        if action.drive.is_cdrom and action.boot_follows:  # PVE takes it out of the order and puts it in again
            draft.warn(action.slot, "as a CD-ROM drive it comes last in the boot order; write boot to say where")


def _fill_empty_order(draft: Draft) -> None:
    """Put a guest's first disk into its empty boot order; where it has disks, the order may be empty on purpose."""
    arriving = [
        action.slot
        for action in draft.actions
        if isinstance(action, (Create, Attach, Reassign))
        and action.drive.is_disk
        and action.slot
        and not action.slot.is_firmware
    ]
    noted = draft.journal.boot
    if noted is not None and noted in draft.guest.configured.drives:
        draft.add(BootOrder(None, Boot(), Boot((str(noted),))))
        return
    if not arriving:
        return
    if any(drive.is_disk and not slot.is_firmware for slot, drive in draft.guest.configured.drives.items()):
        draft.warn(None, f"its boot order is empty, and {arriving[0]} is not put into it; write boot to start from it")
        return
    draft.add(BootOrder(None, Boot(), Boot((str(arriving[0]),))))


def _check_boot(draft: Draft, after: Guest) -> None:
    refused = {refusal.slot for refusal in draft.refusals}  # whose drives are missing for a reason that is told
    for name in draft.layout.boot or ():
        slot = find_slot(name)
        if str(slot) in refused:
            continue
        bootable = [slot for slot in after.configured.drives if not slot.is_firmware]
        if slot is None and name not in after.devices or slot is not None and slot not in bootable:
            present = [*map(str, bootable), *sorted(after.devices)]
            remedy = f"it will have {', '.join(present)}" if present else "it will have none; leave boot out"
            draft.refuse(None, "boot", name, "the guest has no such device", remedy)


def _revert_first(guest: Guest, layout: Layout, leftovers: tuple[str, ...]) -> tuple[Guest, tuple[Call, ...]]:
    if not leftovers or not layout.revert_leftovers:
        return guest, ()
    keys = tuple(sorted({*leftovers, *({"boot"} & guest.changed_keys)}))
    call = Call(CallKind.REVERT, (Revert(None, keys),), (("revert", ",".join(keys)),))
    return project(guest, call), (call,)
