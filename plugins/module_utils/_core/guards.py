# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What keeps a plan from being carried out, or is worth a warning, beyond the decision about a single slot."""

from __future__ import annotations

from collections.abc import Iterator

from .actions import Call, Change, Destroy, Detach, Move, Switch, Unplug
from .draft import Draft
from .drive import Drive
from .errors import Refusal
from .guest import Guest
from .journal import read_journal
from .layout import Layout
from .options import TABLE
from .projection import can_hotplug, keeps_volume
from .slot import SLOT_COUNT, Slot, find_slot


def find_leftovers(guest: Guest) -> tuple[str, ...]:
    """Keys that wait although they should not: the next call would apply them, whatever it is about.

    On a stopped guest nothing waits after a call that succeeded. On a running one a deletion with destruction, and
    one of a drive that PVE can unplug, are what a refused call leaves behind.
    """
    if not guest.running:
        return tuple(sorted(guest.changed_keys))
    stuck = []
    for key, how in guest.deleting.items():
        slot = find_slot(key)
        if slot is not None and (how == 2 or can_hotplug(slot, guest)):
            stuck.append(key)
    return tuple(sorted(stuck))


def check_combinations(draft: Draft) -> None:
    """Refuse drives that PVE does not take as a whole, and those that it takes and QEMU then refuses at the start."""
    for action in draft.actions:
        drive = getattr(action, "after", None) if isinstance(action, Change) else getattr(action, "drive", None)
        if not isinstance(drive, Drive) or isinstance(action, (Move, Detach, Unplug)):
            continue
        if drive.get("aio") == "native" and drive.get("cache") in ("writethrough", "writeback", "unsafe"):
            draft.refuse(
                action.slot,
                "aio",
                "native",
                f"QEMU does not start with it beside cache={drive.get('cache')}",
                "write cache: none or directsync, or aio: io_uring or threads",
            )
        if drive.volume.startswith("/") and not draft.facts.may_use_paths:
            draft.refuse(
                action.slot,
                "volume",
                drive.volume,
                "PVE takes absolute paths only from root@pam with a password",
                "leave the drive as it is, or log in as root@pam with a password for this change",
            )
        for name, value in drive.options:
            _check_company(draft, action.slot, drive, name, value)


def _check_company(draft: Draft, slot: Slot | None, drive: Drive, name: str, value: str) -> None:
    row = TABLE.get(name)
    if row is None:
        return
    if row.needs and value != "0" and drive.get(row.needs) in (None, "0"):
        draft.refuse(slot, name, value, f"PVE takes it only together with {row.needs}", f"set {row.needs} too")
    clash = [other for other in row.excludes if drive.get(other) not in (None, "0")]
    if clash and value != "0" and name < clash[0]:
        draft.refuse(
            slot, name, value, f"PVE refuses it beside {clash[0]}", f"write unset: [{clash[0]}], or remove {name}"
        )


def stop_refusals(draft: Draft) -> Iterator[Refusal]:
    for slot, option, value, reason in draft.stops:
        yield Refusal(
            draft.guest.label,
            str(slot or ""),
            option,
            value,
            reason,
            "stop the guest first, or write power: stop_if_needed",
        )


def guest_refusals(
    guest: Guest, layout: Layout, calls: tuple[Call, ...], leftovers: tuple[str, ...]
) -> Iterator[Refusal]:
    if not calls:
        return
    if guest.template:
        yield Refusal(
            guest.label,
            "",
            "",
            "",
            "it is a template, and linked clones may depend on its disks",
            "change a clone instead",
        )
    if guest.lock:
        yield Refusal(guest.label, "", "", "", f"it is locked ({guest.lock})", "wait until the job that locked it ends")
    emptied = [str(a.slot) for call in calls for a in call.actions if isinstance(a, (Detach, Switch, Unplug, Destroy))]
    if guest.protection and emptied:
        yield Refusal(
            guest.label,
            "",
            "protection",
            "1",
            f"PVE empties no slot of a protected guest ({', '.join(dict.fromkeys(emptied))})",
            "remove the guest's protection for the change",
        )
    dangerous = [key for key in leftovers if not guest.running or guest.deleting.get(key) == 2]
    if dangerous and not layout.revert_leftovers:
        yield Refusal(
            guest.label,
            "",
            "pending",
            ", ".join(dangerous),
            "an earlier call has left this behind, and the next one would apply it",
            "write revert_leftovers: true to take it back, or settle it in PVE",
        )


def shared_volumes(before: Guest, after: Guest) -> Iterator[Refusal]:
    """A volume in two slots, where the plan would bring it there or touch it."""
    if before == after:
        return
    for drive in {drive.volume: drive for drive in after.configured.drives.values()}.values():
        slots = after.configured.slots_of(drive.volume)
        if drive.is_disk and not drive.is_new and len(slots) > 1:
            yield Refusal(
                before.label,
                str(slots[1]),
                "volume",
                drive.volume,
                f"it is in {slots[0]} too",
                "detach it from one of them first",
            )


def without_place(before: Guest, after: Guest, calls: tuple[Call, ...]) -> Iterator[Refusal]:
    """Volumes that lose their slot when all numbers of unused volumes are taken: PVE fails in the middle of it."""
    if len(before.configured.unused) + len(before.configured.drives) <= SLOT_COUNT["unused"]:
        return
    gone = {action.volume for call in calls for action in call.actions if isinstance(action, Destroy)}
    gone |= {a.drive.volume for call in calls for a in call.actions if isinstance(a, Move) and a.delete_source}
    there = {drive.volume for state in (after.configured, after.live) for drive in state.drives.values()}
    there |= gone | set(after.configured.unused.values())
    for slot, drive in before.configured.drives.items():
        if keeps_volume(drive, before.vmid) and drive.volume not in there:
            yield Refusal(
                before.label,
                str(slot),
                "volume",
                drive.volume,
                f"it would become unused, and PVE keeps {SLOT_COUNT['unused']} unused volumes of a guest at most",
                "attach or destroy some of them first",
            )


def reused_numbers(after: Guest, layout: Layout) -> Iterator[Refusal]:
    """An ``unusedN`` to be destroyed that the plan gives to another volume: a second run would destroy that one."""
    for disk in layout.disks:
        volume = after.configured.unused.get(disk.slot)
        if volume is not None and disk.state == "absent":
            yield Refusal(
                after.label,
                str(disk.slot),
                "state",
                "absent",
                f"the plan leaves a volume there ({volume}), which a second run would destroy",
                "do one after the other, or write delete_source: true where a disk is moved",
            )


def find_warnings(before: Guest, after: Guest, layout: Layout, leftovers: tuple[str, ...]) -> list[str]:
    found = []
    if leftovers and not layout.revert_leftovers:
        found.append(
            f"{before.label}: {', '.join(leftovers)} still waits from an earlier call; revert_leftovers takes it back"
        )
    journal = read_journal(after.configured.description)
    for slot, drive in journal.switches.items():
        if after.configured.slots_of(drive.volume):
            continue
        found.append(
            f"{before.label}: {slot} was to receive {drive.volume} and never did; declare it with moved_from or volume"
        )
    if journal.start and not before.running:
        found.append(
            f"{before.label}: it was shut down for a change and not started again; "
            "start it, or write power: stop_if_needed"
        )
    for slot, drive in after.configured.drives.items():
        single = after.configured.scsihw == "virtio-scsi-single"
        changed = before.configured.drives.get(slot) != drive
        if changed and slot.bus == "scsi" and drive.get("iothread") == "1" and not single:
            found.append(f"{before.label}: {slot}: iothread has no effect without scsihw: virtio-scsi-single")
    return found
