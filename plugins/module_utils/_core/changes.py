# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What is to be changed about a drive that is there: options, size, storage, format; or how it goes."""

from __future__ import annotations

from .actions import Change, Destroy, Detach, Move, Resize
from .draft import Draft
from .drive import Drive, new_volume, volume_base
from .guest import Guest
from .layout import Disk
from .options import TABLE, Effect
from .projection import can_hotplug, keeps_volume
from .size import format_pve_size, human_size
from .slot import Slot, find_slot
from .sources import attach, target_storage, wanted_options


def adjust(draft: Draft, disk: Disk, current: Drive) -> None:
    """Plan what a drive needs to become as it is declared.

    A slot that is taken has nothing left to do for ``volume: unusedN``: PVE gives these numbers to other volumes, so
    they can't tell in a second run what has been done.

    :param current: the drive as it is configured, or as it will be after a switch that is planned already.
    """
    if not current.is_disk and not (disk.cloudinit and current.is_cloudinit):
        kind = "the cloud-init drive" if current.is_cloudinit else "a CD-ROM drive"
        draft.refuse(disk.slot, "media", "disk", f"the slot holds {kind}", "declare it as that, or detach it first")
        return
    if disk.cloudinit and not current.is_cloudinit:
        draft.refuse(disk.slot, "cloudinit", "true", f"the slot holds {current.volume}", "use another slot")
        return
    by_number = disk.volume is not None and find_slot(disk.volume) is not None
    if disk.volume is not None and not by_number and disk.volume != current.volume:
        attach(draft, disk, current)
        return
    moved = _move(draft, disk, current)
    _resize(draft, disk, current, moved)
    _change(draft, disk, current)


def _change(draft: Draft, disk: Disk, current: Drive) -> None:
    """Plan changed options; what the user does not name stays."""
    wanted: dict[str, str | None] = {}
    for name, value in wanted_options(disk).items():
        row = TABLE[name]
        if row.same(current.get(name), value):
            if value is None and current.get(name) is not None:
                wanted[name] = None  # the same in effect, but the user wants the key gone
            continue
        if row.effect is Effect.FIXED:
            draft.refuse(
                disk.slot,
                name,
                value or "(unset)",
                f"the volume was made with {current.get(name) or row.default}, and PVE can't change that",
                "correct the declaration, or detach the volume and make a new one",
            )
            continue
        wanted[name] = value
    after = _refreshed(draft.guest, disk.slot, current).with_options(wanted)
    grown = next((a.after for a in draft.actions if isinstance(a, Resize) and a.slot == disk.slot), None)
    if grown is not None and draft.guest.running and str(disk.slot) in draft.guest.waiting:
        after = after.with_size(grown)  # the value that waits would bring the old size back
    if after != current:
        draft.add(Change(disk.slot, current, after))


def _refreshed(guest: Guest, slot: Slot, current: Drive) -> Drive:
    """The drive with the size in force.

    A value that waits carries the size from before a resize, and would bring it back.
    """
    live = guest.live.drives.get(slot)
    if live is None or live.volume != current.volume or live.size is None:
        return current
    if current.size is not None and current.made_of(live.size, current.size):
        return current
    return current.with_size(live.size)


def real_size(draft: Draft, slot: Slot, current: Drive) -> int | None:
    """The size of a drive's volume in bytes: as the configuration in force records it, else as the storage says."""
    live = draft.guest.live.drives.get(slot)
    recorded = (
        live.size if live is not None and live.volume == current.volume and live.size is not None else current.size
    )
    if recorded is not None:
        return recorded
    volume = draft.facts.volumes.get(current.volume)
    return volume.size if volume else None


def _resize(draft: Draft, disk: Disk, current: Drive, moved_format: str | None) -> None:
    """Plan that a disk grows, or refuse that it shrinks."""
    if disk.size is None:
        return
    size = real_size(draft, disk.slot, current)
    if size is not None and disk.size <= size:
        if not disk.minimum and not current.made_of(disk.size, size):
            draft.refuse(
                disk.slot,
                "size",
                human_size(disk.size),
                f"the disk has {human_size(size)}, and disks can't shrink",
                f"write {format_pve_size(size)}, or minimum: true if larger is fine",
            )
        return
    if (moved_format or current.format) == "vmdk":
        draft.refuse(
            disk.slot,
            "size",
            human_size(disk.size),
            "PVE can't resize vmdk",
            "convert it: format: raw or format: qcow2",
        )
        return
    if draft.guest.running and disk.slot not in draft.guest.live.drives and not _arrives_live(draft, disk):
        draft.needs_stop(
            disk.slot, "size", human_size(disk.size), "a disk that waits for the next start can't be resized"
        )
    if disk.slot.is_firmware:
        draft.needs_stop(disk.slot, "size", human_size(disk.size), f"{disk.slot} can't be resized while the guest runs")
    draft.add(Resize(disk.slot, size, disk.size))


def _arrives_live(draft: Draft, disk: Disk) -> bool:
    """Whether an earlier step of the plan plugs the drive into the running guest."""
    return can_hotplug(disk.slot, draft.guest) and any(action.slot == disk.slot for action in draft.actions)


def _move(draft: Draft, disk: Disk, current: Drive) -> str | None:
    """Plan that a disk moves to another storage or format.

    :returns: the format that it will have, or ``None`` when it stays.
    """
    storage_name = disk.storage or current.storage
    flatten = disk.flatten and volume_base(current.volume) is not None
    other_place = disk.storage is not None and disk.storage != current.storage
    other_format = disk.format is not None and disk.format != current.format
    if not (other_place or other_format or flatten):
        return None
    if storage_name is None or current.storage is None:
        draft.refuse(
            disk.slot, "storage", disk.storage, f"{current.volume} is not on a storage of PVE", "import it instead"
        )
        return None
    storage = target_storage(draft, disk, storage_name, disk.format)
    if storage is None or not _may_move(draft, disk, current):
        return None
    if not (other_place or other_format):
        return _flatten_in_place(draft, disk, current, storage.formats)
    keeps = current.format in storage.formats or not storage.formats
    new_format = disk.format or (current.format if keeps else storage.formats[0])
    draft.add(Move(disk.slot, current, storage_name, disk.format, new_format, disk.delete_source))
    return new_format


def _may_move(draft: Draft, disk: Disk, current: Drive) -> bool:
    option = "storage" if disk.storage != current.storage and disk.storage else "format"
    value = disk.storage if option == "storage" else disk.format
    holding = draft.facts.snapshots_with(current.volume)
    if holding and disk.delete_source:
        draft.refuse(
            disk.slot,
            "delete_source",
            "true",
            f"snapshot {holding[0]} needs {current.volume}",
            "delete the snapshots first, or keep the source with delete_source: false",
        )
        return False
    if disk.delete_source and not _may_delete_source(draft, disk, current):
        return False
    if holding:
        draft.warn(disk.slot, f"snapshots ({', '.join(holding)}) stay with {current.volume} and do not move")
    if disk.slot.is_firmware:
        draft.needs_stop(disk.slot, option, value, f"{disk.slot} can't be moved while the guest runs")
    if draft.guest.running and disk.slot not in draft.guest.live.drives and not _arrives_live(draft, disk):
        draft.needs_stop(disk.slot, option, value, "a disk that waits for the next start can't be moved")
    elif draft.guest.running and str(disk.slot) in draft.guest.changed_keys:
        draft.needs_stop(
            disk.slot,
            option,
            value,
            "it has a change that waits for the next start, which would bring the old volume back",
        )
    return True


def _may_delete_source(draft: Draft, disk: Disk, current: Drive) -> bool:
    """Whether the volume that a move leaves is this drive's alone. PVE deletes the volume of another guest as well."""
    others = set(draft.guest.configured.slots_of(current.volume)) - {disk.slot, disk.moved_from}
    if others:
        problem = f"{current.volume} is in {min(others)} too"
    elif current.owner not in (None, draft.guest.vmid):
        problem = f"{current.volume} belongs to guest {current.owner}"
    else:
        return True
    draft.refuse(disk.slot, "delete_source", "true", problem, "keep the source with delete_source: false")
    return False


def _flatten_in_place(draft: Draft, disk: Disk, current: Drive, formats: tuple[str, ...]) -> str | None:
    """Make a linked clone independent on its own storage: PVE copies only into another format, so there and back."""
    between = next((name for name in ("raw", "qcow2") if name in formats and name != current.format), None)
    if between is None:
        draft.refuse(
            disk.slot,
            "flatten",
            "true",
            f"PVE can copy it only to another storage ({current.storage} holds one format)",
            "write storage as well",
        )
        return None
    if disk.format is None or not disk.delete_source:
        draft.refuse(
            disk.slot,
            "flatten",
            "true",
            f"PVE copies on one storage only into another format, so it takes two copies by way of {between}",
            f"write format: {current.format} and delete_source: true, or only format: {between} for one copy",
        )
        return None
    storage = current.storage or ""
    draft.add(Move(disk.slot, current, storage, between, between, delete_source=True))
    copy = current.with_volume(new_volume(storage, between))
    draft.add(Move(disk.slot, copy, storage, current.format, current.format, delete_source=True, again=True))
    return current.format


def detach(draft: Draft, slot: Slot, current: Drive) -> None:
    """Plan that a slot is emptied and its volume kept."""
    if current.is_cloudinit:
        draft.refuse(
            slot,
            "state",
            "detached",
            "PVE does not keep a cloud-init drive's volume",
            "write state: absent with allow_destroy: true",
        )
        return
    if slot.is_firmware:
        draft.needs_stop(slot, "state", "detached", f"{slot} can't be detached while the guest runs")
    elif can_hotplug(slot, draft.guest) and draft.is_boot_disk(slot):
        draft.needs_stop(slot, "state", "detached", "the guest was started from it")
    draft.add(Detach(slot, current, keeps_volume(current, draft.guest.vmid)))


def destroy(draft: Draft, slot: Slot, current: Drive) -> None:
    """Plan that a drive's volume is destroyed; every doubt refuses."""
    if current.is_cdrom:
        detach(draft, slot, current)
        return
    if current.storage is None:
        draft.refuse(slot, "state", "absent", f"{current.volume} is not a volume of PVE", "write state: detached")
        return
    problem = _destroy_problem(draft, slot, current.volume)
    if problem:
        draft.refuse(slot, "state", "absent", *problem)
        return
    if not can_hotplug(slot, draft.guest) and not slot.is_unused:
        draft.needs_stop(slot, "state", "absent", f"{slot} can't be unplugged while the guest runs")
    elif draft.is_boot_disk(slot):
        draft.needs_stop(slot, "state", "absent", "the guest was started from it")
    draft.add(Destroy(slot, current.volume, real_size(draft, slot, current)))


def _destroy_problem(draft: Draft, slot: Slot, volume: str) -> tuple[str, str] | None:
    guest = draft.guest
    if not draft.layout.allow_destroy:
        other = f"take {slot} out of the declaration" if slot.is_unused else "state: detached"
        return f"it would destroy {volume}", f"write allow_destroy: true for the task, or {other} to keep the volume"
    others = {*guest.configured.slots_of(volume), *guest.live.slots_of(volume)} - {slot}
    if others:
        return f"{volume} is in {min(others)} too", f"detach it from {min(others)} first"
    holding = draft.facts.snapshots_with(volume)
    if holding:
        return f"snapshot {holding[0]} needs {volume}", "delete the snapshots first, or write state: detached"
    owner = Drive(volume).owner
    if owner != guest.vmid:
        whose = f"to guest {owner}" if owner is not None else "to no guest"
        return f"{volume} belongs {whose}, and PVE would only empty the slot", "write state: detached"
    return None
