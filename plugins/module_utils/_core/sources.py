# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where a declared drive comes from: allocated, imported, attached, moved from another slot."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from .actions import Attach, Create, Media, Switch, drive_request
from .draft import Draft
from .drive import Drive, make_drive, new_volume
from .guest import Guest
from .layout import Disk
from .options import STRUCTURAL, TABLE
from .projection import TPM_SIZE, can_hotplug, keeps_volume, new_drive
from .size import allocation_gib, human_size
from .slot import Slot, find_slot
from .storage import Storage

# What stands before the name of a file that is no guest's volume.
_FOLDERS = ("iso/", "import/")
# How many volumes a message names.
_SHOWN = 3


def resolve_volume(guest: Guest, volume: str) -> str | None:
    """The volume id that a declaration's ``volume`` means; ``None`` for an ``unusedN`` that does not exist."""
    slot = find_slot(volume)
    return volume if slot is None else guest.configured.unused.get(slot)


def target_storage(draft: Draft, disk: Disk, name: str, format_: str | None) -> Storage | None:
    """The storage that a new volume is to be made on, once it is clear that it can hold it; else a refusal."""
    storages = draft.facts.storages or {}
    storage = storages.get(name)
    if storage is None:
        known = ", ".join(sorted(other.name for other in storages.values() if not _storage_problem(other))) or "none"
        unknown = f"{draft.guest.node} has no such storage, or the user may not see it (right Datastore.AllocateSpace)"
        draft.refuse(disk.slot, "storage", name, unknown, f"it can use {known}")
        return None
    problem = _storage_problem(storage)
    if problem:
        draft.refuse(disk.slot, "storage", name, *problem)
        return None
    if format_ is not None and storage.formats and format_ not in storage.formats:
        what = "write " + " or ".join(storage.formats)
        draft.refuse(
            disk.slot, "format", format_, f"{name} ({storage.type}) can't hold it", f"{what}, or use another storage"
        )
        return None
    return storage


def _storage_problem(storage: Storage) -> tuple[str, str] | None:
    if not storage.enabled:
        return "is disabled", "enable it, or use another storage"
    if not storage.active:
        return "is not active on the node", "see why the node can't reach it, or use another storage"
    if storage.kind is not None and not storage.kind.allocates:
        return f"is of type {storage.type}, where PVE can't make volumes", "use another storage"
    if "images" not in storage.content:
        return "does not have the content type images", "add it to the storage's content, or use another storage"
    return None


def _absent(draft: Draft, name: str, kind: str) -> tuple[str, str]:
    """Why a volume can't be used that is not there, and what its storage has instead."""
    storage = name.partition(":")[0]
    listed = draft.facts.listed.get(storage, ())
    prefix = next((prefix for folder in _FOLDERS if name.startswith(prefix := f"{storage}:{folder}")), None)
    if prefix is not None:
        there = [other for other in listed if other.startswith(prefix)]
        likely = get_close_matches(name.removeprefix(prefix), [other.removeprefix(prefix) for other in there], n=1)
        advice = f"did you mean {prefix}{likely[0]}?" if likely else _some_of(storage, there)
    else:  # disks are told from each other by a number, so that the most alike is as likely the wrong one
        taken = {drive.volume for drive in draft.guest.configured.drives.values()}
        owner = make_drive(name).owner or draft.guest.vmid
        advice = _some_of(storage, [o for o in listed if make_drive(o).owner == owner and o not in taken])
    advice = advice or f"name {'an image' if kind == 'image' else 'a volume'} as PVE lists it"
    empty = " (none empties the drive)" if kind == "image" else ""
    return f"there is no such {kind} on {draft.guest.node}", f"{advice}{empty}"


def _some_of(storage: str, volumes: list[str]) -> str:
    more = f" and {len(volumes) - _SHOWN} more" if len(volumes) > _SHOWN else ""
    return f"{storage} has {', '.join(volumes[:_SHOWN])}{more}" if volumes else ""


def enough_space(draft: Draft, disk: Disk, storage: Storage, size: int) -> bool:
    """Whether a thick volume fits; on thin storages that can't be told, and the answer is yes."""
    thick = storage.kind is not None and storage.kind.thin == "never"
    if not thick or storage.available is None or size <= storage.available:
        return True
    draft.refuse(
        disk.slot,
        "size",
        human_size(size),
        f"{storage.name} has {human_size(storage.available)} free",
        "free some space, or use another storage",
    )
    return False


def _content_of(volume: str) -> str | None:
    """What PVE keeps a volume for when that is no disk, told by its name; ``None`` for a guest's volume.

    Source: pve-storage 9.1.7, ``parse_volname`` of ``Plugin.pm``.
    """
    folder, slash, _name = volume.partition(":")[2].partition("/")
    return folder if slash and folder in ("iso", "import", "vztmpl", "backup", "snippets") else None


def create(draft: Draft, disk: Disk) -> None:
    """Plan a drive in an empty slot."""
    if disk.volume is not None:
        attach(draft, disk, None)
    elif disk.slot.is_firmware or disk.cloudinit:
        _create_special(draft, disk)
    elif disk.import_from is not None:
        _create_import(draft, disk)
    else:
        _create_empty(draft, disk)


def _create_empty(draft: Draft, disk: Disk) -> None:
    missing = [name for name, value in (("storage", disk.storage), ("size", disk.size)) if value is None]
    if missing or disk.storage is None or disk.size is None:
        draft.refuse(
            disk.slot,
            " and ".join(missing),
            None,
            "the slot is empty, and a new disk needs it",
            "write storage and size, or volume, import_from or moved_from",
        )
        return
    storage = target_storage(draft, disk, disk.storage, disk.format)
    if storage is None or not enough_space(draft, disk, storage, disk.size):
        return
    if disk.format == "vmdk":
        draft.warn(
            disk.slot, "vmdk can't be resized or snapshotted by PVE; raw or qcow2 is the better choice for a new disk"
        )
    request = dict(disk.options) | ({"format": disk.format} if disk.format else {})
    _add_create(draft, disk, storage, allocation_gib(disk.size), request, disk.size)


def _add_create(
    draft: Draft,
    disk: Disk,
    storage: Storage,
    amount: str,
    request: Mapping[str, str],
    size: int | None,
    source: str | None = None,
) -> None:
    format_ = disk.format or (storage.formats[0] if storage.formats and source is None else None)
    draft.add(
        Create(
            disk.slot,
            drive=new_drive(storage.name, size, disk.options, format_),
            request=drive_request(storage.name, amount, request),
            size=size,
            format=format_,
            source=source,
        )
    )


def _create_special(draft: Draft, disk: Disk) -> None:
    """An EFI or TPM volume or a cloud-init drive: PVE decides the size."""
    if disk.storage is None:
        draft.refuse(disk.slot, "storage", None, "the slot is empty", "say on which storage to make the volume")
        return
    storage = target_storage(draft, disk, disk.storage, disk.format)
    if storage is None:
        return
    if disk.slot.is_firmware:
        draft.needs_stop(disk.slot, "state", "present", f"{disk.slot} can't be added while the guest runs")
    if disk.cloudinit:
        others = [slot for slot, drive in draft.guest.configured.drives.items() if drive.is_cloudinit]
        others += [a.slot for a in draft.actions if isinstance(a, Create) and a.slot and a.drive.is_cloudinit]
        if others:
            draft.refuse(
                disk.slot, "cloudinit", "true", f"{others[0]} is the cloud-init drive already", "a guest can have one"
            )
            return
        drive = make_drive(
            new_volume(storage.name, disk.format, cloudinit=True), [*disk.options.items(), ("media", "cdrom")]
        )
        request = drive_request(storage.name, "cloudinit", dict(disk.options) | _format(disk))
        draft.add(Create(disk.slot, drive=drive, request=request, size=None, format=disk.format))
        return
    size = TPM_SIZE if disk.slot.bus == "tpmstate" else None
    _add_create(draft, disk, storage, "1", dict(disk.options) | _format(disk), size)


def _format(disk: Disk) -> dict[str, str]:
    return {"format": disk.format} if disk.format else {}


def _create_import(draft: Draft, disk: Disk) -> None:
    source, name = disk.import_from or "", disk.storage or ""
    storage = target_storage(draft, disk, name, disk.format)
    if storage is None:
        return
    if source.startswith("/") and not draft.facts.may_use_paths:
        draft.refuse(
            disk.slot,
            "import_from",
            source,
            "PVE takes absolute paths only from root@pam with a password",
            "put the image on a storage with the content type import and name the volume",
        )
        return
    volume = draft.facts.volumes.get(source)
    if volume is None and not source.startswith("/"):
        draft.refuse(disk.slot, "import_from", source, *_absent(draft, source, "volume"))
        return
    if _content_of(source) not in (None, "import"):
        problem = f"PVE imports disks and images, and this is of the content type {_content_of(source)}"
        draft.refuse(disk.slot, "import_from", source, problem, "put the image where the content type is import")
        return
    size = volume.size if volume else None
    if size is not None and disk.size is not None and disk.size < size and not disk.minimum:
        draft.refuse(
            disk.slot,
            "size",
            human_size(disk.size),
            f"{source} has {human_size(size)}, and disks can't shrink",
            "write a size that is not smaller, or minimum: true",
        )
        return
    grows = disk.size is not None and (size is None or disk.size > size)
    kept = volume.format if volume and volume.format in storage.formats else "raw"
    if grows and (disk.format or kept) == "vmdk":
        remedy = "write format: raw or qcow2"
        draft.refuse(disk.slot, "size", human_size(disk.size or 0), "PVE can't resize vmdk", remedy)
    request = dict(disk.options) | {"import-from": source} | _format(disk)
    _add_create(draft, disk, storage, "0", request, size, source)
    if grows and not can_hotplug(disk.slot, draft.guest):
        draft.needs_stop(
            disk.slot, "size", human_size(disk.size or 0), "a disk that waits for the next start can't be resized"
        )


def attach(draft: Draft, disk: Disk, current: Drive | None) -> None:
    """Plan an existing volume in a slot, empty or holding another volume."""
    volume = resolve_volume(draft.guest, disk.volume or "")
    if volume is None:
        unused = draft.guest.configured.unused
        names = ", ".join(f"{slot} ({name})" for slot, name in unused.items()) or "none"
        draft.refuse(disk.slot, "volume", disk.volume, "the guest has no such unused volume", f"it has {names}")
        return
    holders = [slot for slot in draft.guest.configured.slots_of(volume) if slot != disk.slot]
    if holders and _switched_by_volume(draft, disk, current, holders[0], volume):
        return
    leaving = [slot for slot in draft.guest.live.slots_of(volume) if slot != disk.slot and slot not in holders]
    if leaving:
        draft.needs_stop(disk.slot, "volume", volume, f"{leaving[0]} holds it until the guest stops")
    if not _may_attach(draft, disk, volume):
        return
    if current is not None:
        _check_replacing(draft, disk, holders)
    base = (
        make_drive(volume)
        if current is None
        else current.with_volume(volume).with_options({"size": None, "format": None})
    )
    elsewhere = {resolve_volume(draft.guest, other.volume) for other in draft.layout.disks if other.volume}
    swapped = current is not None and current.volume in elsewhere
    kept = current is None or keeps_volume(current, draft.guest.vmid)
    draft.add(Attach(disk.slot, base.with_options(wanted_options(disk)), current, swapped, kept))


def _may_attach(draft: Draft, disk: Disk, volume: str) -> bool:
    """Whether a volume can come to a slot: it exists, is this guest's or nobody's, and goes nowhere else."""
    moving = [action for action in draft.actions if isinstance(action, (Attach, Switch))]
    arriving = [action.slot for action in moving if action.drive.volume == volume]
    owner = make_drive(volume).owner
    if arriving:
        draft.refuse(disk.slot, "volume", volume, f"{arriving[0]} is to receive it too", "declare it for one slot")
    elif draft.facts.volumes.get(volume) is None and not volume.startswith("/"):
        draft.refuse(disk.slot, "volume", volume, *_absent(draft, volume, "volume"))
    elif (content := _content_of(volume)) is not None:
        remedy = {"iso": f"write iso: {volume}", "import": f"write import_from: {volume}"}
        problem = f"it is no disk's volume, but of the content type {content}"
        draft.refuse(disk.slot, "volume", volume, problem, remedy.get(content, "name a disk's volume"))
    elif owner is not None and owner != draft.guest.vmid:
        draft.refuse(
            disk.slot,
            "volume",
            volume,
            f"it belongs to guest {owner}, which could be deleted together with it",
            f"write moved_from, its slot there, and moved_from_guest: {owner}, or import a copy with import_from",
        )
    else:
        return True
    return False


def _switched_by_volume(draft: Draft, disk: Disk, current: Drive | None, holder: Slot, volume: str) -> bool:
    """Deal with a volume that another slot holds: a switch in other words, a swap, or a volume in two slots."""
    other = draft.declared(holder)
    if other is not None and other.state == "detached" and current is None:
        switch(draft, disk, holder, draft.guest.configured.drives[holder])
        return True
    if other is not None and other.volume is not None and resolve_volume(draft.guest, other.volume) != volume:
        return False  # that slot is declared with another volume: a swap
    draft.refuse(
        disk.slot,
        "volume",
        volume,
        f"it is in {holder}, and a volume in two slots is destroyed by both",
        f"write moved_from: {holder}, or declare {holder} with state: detached as well",
    )
    return True


def _check_replacing(draft: Draft, disk: Disk, holders: list[Slot]) -> None:
    guest = draft.guest
    if not can_hotplug(disk.slot, guest):
        draft.needs_stop(disk.slot, "volume", disk.volume, f"{disk.slot} can't be exchanged while the guest runs")
    elif draft.is_boot_disk(disk.slot):
        draft.needs_stop(disk.slot, "volume", disk.volume, "the guest was started from it")
    elif holders:
        draft.needs_stop(disk.slot, "volume", disk.volume, f"it would be in {holders[0]} and {disk.slot} for a moment")


def switch(draft: Draft, disk: Disk, source: Slot, before: Drive) -> None:
    """Plan that a drive comes from another slot, with the options that the new bus has."""
    kept = {
        key: value
        for key, value in before.options
        if key in STRUCTURAL or key not in TABLE or disk.slot.bus in TABLE[key].buses
    }
    drive = make_drive(before.volume, kept.items()).with_options(wanted_options(disk))
    unplugged = source not in draft.guest.configured.drives
    if draft.guest.running and not unplugged:
        _check_live_switch(draft, disk, source, before)
    listed = draft.guest.configured.boot
    follows = listed is not None and str(source) in listed.devices
    draft.consumed.add(source)
    draft.add(Switch(disk.slot, source, before, drive, boot_follows=follows, unplugged=unplugged))


def wanted_options(disk: Disk) -> dict[str, str | None]:
    """The options that a declaration sets, and with ``None`` those that it removes."""
    return {**disk.options, **dict.fromkeys(disk.unset)}


def survives_unplugging(drive: Drive, vmid: int) -> bool:
    """Whether a drive can be found again between the two calls that move it to another slot of a running guest.

    PVE keeps the guest's own volumes as unused ones, and an image is nobody's. The volume of another guest and a path
    would be named by the notes alone, which anybody who may edit the guest can write.
    """
    if drive.is_cdrom:
        return drive.owner is None and not drive.volume.startswith("/")
    return keeps_volume(drive, vmid)


def _check_live_switch(draft: Draft, disk: Disk, source: Slot, before: Drive) -> None:
    if not survives_unplugging(before, draft.guest.vmid):
        reason = f"PVE does not keep {before.volume} as an unused volume while it is in no slot"
        draft.needs_stop(disk.slot, "moved_from", source, reason)
        return
    for slot in (source, disk.slot):
        if not can_hotplug(slot, draft.guest):
            draft.needs_stop(
                disk.slot, "moved_from", source, f"{slot} can't be plugged or unplugged while the guest runs"
            )
            return
    if draft.is_boot_disk(source):
        draft.needs_stop(disk.slot, "moved_from", source, "the guest was started from it")


def media(draft: Draft, disk: Disk, current: Drive | None) -> None:
    """Plan a CD-ROM drive and what is in it; without ``iso`` the medium is left alone."""
    if current is not None and not current.is_cdrom:
        kind = "the cloud-init drive" if current.is_cloudinit else "a disk"
        draft.refuse(
            disk.slot,
            "media",
            "cdrom",
            f"the slot holds {kind} ({current.volume})",
            "detach it first, or use another slot",
        )
        return
    if current is None:
        wanted = make_drive(disk.iso or "none", [*disk.options.items(), ("media", "cdrom")])
    else:
        same = disk.iso is None or disk.iso == current.volume
        base = current if same else current.with_volume(disk.iso or "none").with_options({"size": None})
        wanted = base.with_options(wanted_options(disk))
    if wanted == current:
        return
    changes = current is None or wanted.volume != current.volume
    known = ("none", "cdrom") if wanted.storage is None else (name for name, one in draft.facts.volumes.items() if one)
    if changes and wanted.volume not in known and not wanted.volume.startswith("/"):
        draft.refuse(disk.slot, "iso", wanted.volume, *_absent(draft, wanted.volume, "image"))
        return
    if changes and wanted.owner is not None:
        problem = f"it is the volume of a disk of guest {wanted.owner}"
        draft.refuse(disk.slot, "iso", wanted.volume, problem, "name an image as PVE lists it, or none")
        return
    draft.add(Media(disk.slot, wanted, current))
