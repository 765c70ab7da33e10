# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Holds guests against a policy, and finds what is no matter of taste."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from .._core.drive import Drive
from .._core.guest import Guest
from .._core.options import TABLE
from .._core.slot import DISK_BUSES, SLOT_COUNT, Slot
from .._core.storage import Storage
from .checks import check_guest
from .choices import CHOICES
from .engine import DECIDED, Choice, Policy, Recommendation, recommend
from .findings import Finding, Mend, Place, Surroundings, Verdict, finding, mend_disk
from .known import Known

#: What a finding about a whole guest's controller goes by, whoever found it.
_CONTROLLER = "scsihw"
_OPTIONS = tuple(name for name, row in CHOICES.items() if row.is_option)


@dataclass(frozen=True, slots=True)
class Auditor:
    """A policy with everything that is known.

    :param storages: by node and name.
    :param pve_version: PVE's text, ``9.2.11``, or ``None``.
    """

    policy: Policy
    known: Known
    storages: Mapping[str, Mapping[str, Storage]]
    around: Surroundings
    pve_version: str | None = None

    def audit(self, guests: Iterable[Guest]) -> tuple[Finding, ...]:
        """Every finding, the worst first."""
        found = [one for guest in guests for one in self._guest(guest)]
        return tuple(sorted(found, key=lambda one: one.rank))

    def _guest(self, guest: Guest) -> Iterator[Finding]:
        views = [] if guest.template else [self._view(guest, slot, drive) for slot, drive in _disks(guest)]
        wanted = {(str(view.slot), name): choice.value for view in views for name, choice in view.open.choices.items()}
        checks = [
            one for one in check_guest(guest, self.around) if wanted.get((one.slot, one.option), "") != _stored(one)
        ]
        named = {(one.slot, one.option) for one in checks}
        yield from checks
        yield from (one for one in self._against_policy(views) if (one.slot, one.option) not in named)

    def _view(self, guest: Guest, slot: Slot, drive: Drive) -> _View:
        storage = self.storages.get(guest.node, {}).get(drive.storage or "")
        facts = self.known.facts(guest, storage, self.pve_version)
        decided: dict[str, str | None] = {}
        if facts.get("guest.virtio_drivers") is None and facts.get("guest.stage") is None:
            decided["bus"] = slot.bus  # the guest works as it is, and nobody knows what else it has drivers for
        if storage is None:
            decided["format"] = drive.format
        best = recommend(decided, facts, self.policy)
        fixed = {"bus": slot.bus, "format": drive.format, "scsihw": best.choices["scsihw"].value}
        safe = str(facts.get("guest.virtio_drivers")) in ("scsi", "all")
        return _View(guest, slot, drive, best, recommend(fixed, facts, self.policy), safe)

    def _against_policy(self, views: list[_View]) -> Iterator[Finding]:
        taken = {view.guest.vmid: {*view.guest.configured.drives} for view in views}
        for view in views:
            yield from _format(view)
            yield from _bus(view, taken[view.guest.vmid])
            yield from _options(view)
        for _vmid, group in groupby(views, key=lambda view: view.guest.vmid):
            yield from _controller(list(group))


@dataclass(frozen=True, slots=True)
class _View:
    """One disk as it is and as it should be.

    :param open: what the policy would choose if everything were open.
    :param here: the same on the bus and in the format that the disk has.
    :param has_scsi_driver: whether it is known that the guest starts from VirtIO SCSI.
    """

    guest: Guest
    slot: Slot
    drive: Drive
    open: Recommendation
    here: Recommendation
    has_scsi_driver: bool


def _disks(guest: Guest) -> Iterator[tuple[Slot, Drive]]:
    for slot, drive in guest.configured.drives.items():
        if slot.bus in DISK_BUSES and drive.is_disk:
            yield slot, drive


def _stored(one: Finding) -> str | None:
    """What a disk has, as a policy would have chosen it: a finding about that is none for this policy."""
    return {"true": "1", "false": "0"}.get(one.actual, one.actual)


def _verdict(choice: Choice) -> Verdict:
    return Verdict(choice.rule, choice.severity, choice.reason, choice.source, choice.since)


def _format(view: _View) -> Iterator[Finding]:
    choice, actual = view.open.choices["format"], view.drive.format
    if choice.rule == DECIDED or choice.value is None or choice.value == actual or view.drive.storage is None:
        return
    mend = mend_disk(view.slot, {"format": choice.value})
    yield finding(Place(view.guest, str(view.slot), "format", actual, choice.value, mend), _verdict(choice))


def _bus(view: _View, taken: set[Slot]) -> Iterator[Finding]:
    choice = view.open.choices["bus"]
    if choice.value is None or choice.value == view.slot.bus:
        return
    target = _free_slot(choice.value, view.slot.index, taken)
    mend: Mend | None = None
    if target is not None:
        taken.add(target)
        mend = mend_disk(target, {"moved_from": str(view.slot), **_changes(view.drive, view.open, choice.value)})
    yield finding(Place(view.guest, str(view.slot), "bus", view.slot.bus, choice.value, mend), _verdict(choice))


def _free_slot(bus: str, index: int, taken: set[Slot]) -> Slot | None:
    """The slot of the same number if it is free, else the first free one."""
    numbers = [index, *range(SLOT_COUNT[bus])]
    slots = (Slot(bus, number) for number in numbers if number < SLOT_COUNT[bus])
    return next((slot for slot in slots if slot not in taken), None)


def _options(view: _View) -> Iterator[Finding]:
    for name in _OPTIONS:
        choice, actual = view.here.choices[name], view.drive.get(name)
        if not _differs(name, actual, choice.value, view.slot.bus):
            continue
        mend = mend_disk(view.slot, _declared(name, choice.value))
        place = Place(
            view.guest, str(view.slot), name, CHOICES[name].words(actual), CHOICES[name].words(choice.value), mend
        )
        yield finding(place, _verdict(choice))


def _differs(name: str, actual: str | None, wanted: str | None, bus: str) -> bool:
    return bus in TABLE[name].buses and not TABLE[name].same(actual, wanted)


def _declared(name: str, value: str | None) -> dict[str, object]:
    return {"unset": [name]} if value is None else {name: CHOICES[name].native(value)}


def _changes(drive: Drive, wanted: Recommendation, bus: str) -> dict[str, object]:
    """The options that a disk needs once it hangs on another bus."""
    changes: dict[str, object] = {}
    unset: list[str] = []
    for name in _OPTIONS:
        value, actual = wanted.choices[name].value, drive.get(name)
        if not _differs(name, actual, value, bus):
            continue
        if value is None:
            unset.append(name)
        else:
            changes[name] = CHOICES[name].native(value)
    return {**changes, "unset": unset} if unset else changes


def _controller(views: list[_View]) -> Iterator[Finding]:
    """The controller of a guest that has, or should have, disks on it."""
    view = next((one for one in views if "scsi" in (one.slot.bus, one.open.choices["bus"].value)), None)
    if view is None:
        return
    choice, actual = view.open.choices["scsihw"], view.guest.configured.scsihw
    if choice.value is None or choice.value == (actual or "lsi"):
        return
    mend = {"proxmox_disks_scsihw": choice.value} if view.has_scsi_driver else None
    shown = actual or "lsi (PVE's default)"
    yield finding(Place(view.guest, _CONTROLLER, _CONTROLLER, shown, choice.value, mend), _verdict(choice))
