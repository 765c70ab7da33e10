# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Fills what a declaration leaves open with what a policy recommends, and remembers which rule said so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .._core.drive import Drive, make_drive
from .._core.guest import Guest
from .._core.layout import Disk, Layout
from .._core.options import TABLE
from .._core.slot import DISK_BUSES, find_slot
from .._core.sources import resolve_volume
from .._core.storage import Storage
from .choices import CHOICES
from .engine import DECIDED, Choice, Policy, Recommendation, recommend
from .known import Known

#: When a policy fills: only drives that a run makes, every declared drive, or none.
ON_CREATE, ALWAYS, NEVER = WHEN = ("on_create", "always", "never")
_OPTIONS = tuple(name for name, row in CHOICES.items() if row.is_option)


@dataclass(frozen=True, slots=True)
class Filled:
    """One value that a policy has filled in.

    :param slot: the slot, or an empty text for the guest as a whole.
    :param value: as PVE keeps it; ``None`` for an option that is removed.
    """

    slot: str
    option: str
    value: str | None
    rule: str
    reason: str
    source: str
    since: str


@dataclass(frozen=True, slots=True)
class Advice:
    """A filled declaration.

    :param warnings: what the policy has against values that the user gave.
    """

    layout: Layout
    filled: tuple[Filled, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adviser:
    """A policy with everything that is known, and when to use it."""

    policy: Policy
    known: Known
    when: str = ON_CREATE
    pve_version: str | None = None

    def is_wanted(self, guest: Guest, layout: Layout) -> bool:
        """Whether there is anything to fill. For a guest that is as declared there seldom is."""
        return any(self._applies(guest, disk) for disk in layout.disks)

    def advise(self, guest: Guest, layout: Layout, storages: Mapping[str, Storage]) -> Advice:
        """Fill what the user left open. What the user said stays; so do drives that are there, unless ``always``."""
        disks, filled, warnings = list(layout.disks), list[Filled](), list[str]()
        scsihw = layout.scsihw
        for number, disk in enumerate(disks):
            if not self._applies(guest, disk):
                continue
            current = _current(guest, disk)
            image = _image(guest, disk, current)
            storage = storages.get(disk.storage or (image.storage if image else None) or "")
            facts = self.known.facts(guest, storage, self.pve_version, layout.facts)
            fixed = _fixed(disk, image, scsihw or _controller(guest))
            found = recommend(fixed, facts, self.policy)
            warnings += _warnings(guest, disk, found)
            new = tuple(_fill(disk, current, found))
            disks[number] = _filled_disk(disk, new)
            filled += new
            if scsihw is None and _may_choose_controller(guest, disk, found):
                scsihw = found.choices["scsihw"].value
                filled.append(_record("", found.choices["scsihw"]))
        return Advice(replace(layout, disks=tuple(disks), scsihw=scsihw), tuple(filled), tuple(warnings))

    def _applies(self, guest: Guest, disk: Disk) -> bool:
        if self.when == NEVER or disk.state != "present" or disk.is_cdrom or disk.cloudinit:
            return False
        if disk.slot.bus not in DISK_BUSES or disk.moved_from_guest is not None:
            return False
        current = _current(guest, disk)
        if current is not None or disk.volume is not None:
            return self.when == ALWAYS and (current is None or current.is_disk)
        return disk.moved_from is None


def _current(guest: Guest, disk: Disk) -> Drive | None:
    drives = guest.configured.drives
    return drives.get(disk.slot) or (drives.get(disk.old_slot) if disk.old_slot else None)


def _image(guest: Guest, disk: Disk, current: Drive | None) -> Drive | None:
    """The volume that the slot will hold, where that is there already: an attached one, or the present one."""
    volume = resolve_volume(guest, disk.volume) if disk.volume else None
    by_number = disk.volume is not None and find_slot(disk.volume) is not None
    return current if volume is None or (by_number and current is not None) else make_drive(volume)


def _controller(guest: Guest) -> str | None:
    """The guest's controller, where that is decided: PVE's default counts as soon as a disk hangs on it."""
    used = any(slot.bus == "scsi" for slot in guest.configured.drives)
    return guest.configured.scsihw or ("lsi" if used else None)


def _fixed(disk: Disk, there: Drive | None, scsihw: str | None) -> dict[str, str | None]:
    """What is decided already: the slot's bus, what the user says, and the format of an image that is there."""
    fixed: dict[str, str | None] = {"bus": disk.slot.bus}
    image = disk.format or (there.format if there is not None else None)
    if image is not None:
        fixed["format"] = image
    if scsihw is not None:
        fixed["scsihw"] = scsihw
    fixed.update({name: value for name, value in disk.options.items() if name in CHOICES})
    fixed.update({name: None for name in disk.unset if name in CHOICES})
    return fixed


def _fill(disk: Disk, current: Drive | None, found: Recommendation) -> Iterator[Filled]:
    choice = found.choices["format"]
    if current is None and disk.volume is None and choice.rule != DECIDED:
        yield _record(str(disk.slot), choice)
    for name in _OPTIONS:
        choice = found.choices[name]
        if choice.rule == DECIDED or disk.slot.bus not in TABLE[name].buses:
            continue
        has = current.get(name) if current is not None else None
        missing = choice.value is not None and (current is None or not TABLE[name].same(has, choice.value))
        if missing or (choice.value is None and has is not None):
            yield _record(str(disk.slot), choice)


def _record(slot: str, choice: Choice) -> Filled:
    return Filled(slot, choice.name, choice.value, choice.rule, choice.reason, choice.source, choice.since)


def _filled_disk(disk: Disk, filled: tuple[Filled, ...]) -> Disk:
    options = {one.option: one.value for one in filled if one.option in _OPTIONS and one.value is not None}
    removed = tuple(one.option for one in filled if one.option in _OPTIONS and one.value is None)
    image = next((one.value for one in filled if one.option == "format"), disk.format)
    return replace(
        disk,
        format=image,
        options=MappingProxyType({**options, **disk.options}),
        unset=(*disk.unset, *removed),
    )


def _may_choose_controller(guest: Guest, disk: Disk, found: Recommendation) -> bool:
    """The controller belongs to all SCSI disks of a guest: chosen for the first one, and left alone after that."""
    return disk.slot.bus == "scsi" and _controller(guest) is None and found.choices["scsihw"].value is not None


def _warnings(guest: Guest, disk: Disk, found: Recommendation) -> Iterator[str]:
    for one in (*found.conflicts, *found.objections):
        shown = CHOICES[one.name].words(one.value)
        if one.name in disk.options or (one.name == "format" and disk.format):
            yield f"{guest.label}: {disk.slot}: {one.name}={shown}: {one.reason} (rule {one.rule}, {one.source})"
