# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where a guest's drives are, held against where they should be: the difference is one configuration call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from .._core.drive import Drive, parse_drive
from .._core.guest import Guest, Hardware, parse_boot
from .._core.slot import Slot, find_slot

Keys = Mapping[str, "str | None"]

#: The serial number by which a disk is known as ours, made only for Windows to install its driver for.
HELPER_SERIAL = "diskwright-helper"


def value_of(state: Hardware, key: str) -> str | None:
    """What a state has under a key (a slot, ``boot``, ``scsihw``), as PVE writes it; ``None`` for nothing."""
    slot = find_slot(key)
    if slot is not None:
        drive = state.drives.get(slot)
        return str(drive) if drive else state.unreadable.get(slot)
    value = {"boot": state.boot, "bootdisk": state.bootdisk, "scsihw": state.scsihw}[key]
    return None if value is None else str(value)


def differing(state: Hardware, keys: Keys, ours: frozenset[str] | None = None) -> tuple[str, ...]:
    """The keys that a state has otherwise.

    A drive counts by its volume: an option that somebody has changed meanwhile is theirs, and PVE itself writes sizes.

    :param ours: volumes that are moved about. A slot that should be empty and holds another disk is somebody else's,
        and no difference. ``None`` when it matters whatever is there.
    """
    wrong = (key for key, wanted in keys.items() if not _same(key, value_of(state, key), wanted))
    return tuple(key for key in wrong if ours is None or keys[key] is not None or not _foreign(state, key, ours))


def _foreign(state: Hardware, key: str, ours: frozenset[str]) -> bool:
    slot = find_slot(key)
    drive = state.drives.get(slot) if slot else None
    return drive is not None and drive.is_disk and drive.volume not in ours and not is_helper(drive)


def _same(key: str, found: str | None, wanted: str | None) -> bool:
    if found is None or wanted is None:
        return found == wanted
    if find_slot(key) is not None:
        drive, other = parse_drive(found), parse_drive(wanted)
        return drive.volume == other.volume or (is_helper(drive) and is_helper(other))
    if key == "boot":
        return parse_boot(found) == parse_boot(wanted)
    return found == wanted


def change(state: Hardware, keys: Keys) -> dict[str, str]:
    """The parameters of the one configuration call that brings the keys about; empty when they are so already."""
    wrong = differing(state, keys)
    values = {key: str(keys[key]) for key in wrong if keys[key] is not None}
    gone = [key for key in wrong if keys[key] is None]
    return {**values, **({"delete": ",".join(sorted(gone))} if gone else {})}


def disks_in(keys: Keys) -> dict[str, Drive]:
    """The disks that keys name, by slot; CD-ROM drives are none."""
    drives = {key: parse_drive(text) for key, text in keys.items() if text is not None and find_slot(key) is not None}
    return {key: drive for key, drive in drives.items() if drive.is_disk}


def is_helper(drive: Drive) -> bool:
    """Whether a drive is our temporary disk."""
    return drive.get("serial") == HELPER_SERIAL


def helper_of(guest: Guest) -> Drive | None:
    """Our temporary disk in a slot, or waiting for one."""
    states = (guest.configured, guest.live)
    return next((drive for state in states for drive in state.drives.values() if is_helper(drive)), None)


def doubles(state: Hardware, keys: Keys = MappingProxyType({})) -> tuple[str, ...]:
    """Volumes that are in two slots. A guest must never be started with one.

    :param keys: what the state has otherwise when it is looked at.
    """
    kept = (drive for slot, drive in state.drives.items() if str(slot) not in keys and drive.is_disk)
    times = Counter(drive.volume for drive in (*kept, *disks_in(keys).values()))
    return tuple(sorted(volume for volume, count in times.items() if count > 1))


def places_of(state: Hardware, keys: Keys) -> dict[str, str]:
    """Where the disks are now that keys put elsewhere, by their new slot."""
    now = {drive.volume: str(slot) for slot, drive in state.drives.items() if drive.is_disk}
    now = {**{volume: str(slot) for slot, volume in state.unused.items()}, **now}
    disks = {slot: now.get(drive.volume) for slot, drive in disks_in(keys).items()}
    return {slot: place for slot, place in disks.items() if place is not None and place != slot}


def lost(guest: Guest, keys: Keys) -> tuple[str, ...]:
    """Volumes that keys name and that are neither in a slot nor unused any more, now or at the next start."""
    states = (guest.live, guest.configured)
    known = {drive.volume for state in states for drive in state.drives.values()}
    known |= {volume for state in states for volume in state.unused.values()}
    return tuple(sorted({drive.volume for drive in disks_in(keys).values()} - known))


def occupied(state: Hardware, keys: Keys, ours: frozenset[str]) -> tuple[str, ...]:
    """Slots that keys need and where now is a disk that belongs to somebody else.

    :param ours: volumes that are moved about.
    """
    return tuple(key for key in differing(state, keys, ours) if _foreign(state, key, ours))


def free_slots(state: Hardware, bus: str, numbers: Iterable[int]) -> list[Slot]:
    """Slots of a bus where nothing is."""
    slots = [Slot(bus, number) for number in numbers]
    return [slot for slot in slots if slot not in state.drives and slot not in state.unreadable]
