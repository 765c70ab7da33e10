# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Holds guests against a policy, and finds what is no matter of taste."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .._core.guards import find_leftovers
from .._core.guest import Guest
from .._core.slot import SLOT_COUNT, Slot
from .._core.storage import Storage
from .checks import AT_START, LSI, NATIVE_AIO, RESTART, TWO_SLOTS, check_guest
from .choices import CHOICES
from .engine import Choice, Policy
from .findings import Finding, Mend, Place, Surroundings, finding, mend_disk
from .known import Known
from .views import DEFAULT_CONTROLLER, View, disks_of, make_view

#: What a finding about a whole guest's controller goes by, whoever found it.
_CONTROLLER = "scsihw"


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
        found = [*self._found(guest)]
        for one in found:
            if one.rule == RESTART:
                yield _until_then(one, found, self._found(_as_it_runs(guest)))
            else:  # PVE lets nobody change a template's disks
                yield replace(one, mend=None, decides=None) if guest.template else one

    def _found(self, guest: Guest) -> Iterator[Finding]:
        """What is found about a guest as it is configured."""
        checks = list(check_guest(guest, self.around))
        doubled = {one.slot for one in checks if one.rule == TWO_SLOTS}  # nothing else matters about such a slot
        aside = {*doubled, *find_leftovers(guest)}  # nor about one that should be taken back
        views = [self._view(guest, slot, drive.storage) for slot, drive in disks_of(guest, without=aside)]
        checks = [one for one in checks if one.rule == TWO_SLOTS or one.slot not in aside]
        checks = [kept for one in checks if (kept := _as_the_policy_has_it(one, views)) is not None]
        return _joined(checks, [] if guest.template else [*_advice(views)])

    def _view(self, guest: Guest, slot: Slot, name: str | None) -> View:
        storage = self.storages.get(guest.node, {}).get(name or "")
        facts = self.known.facts(guest, storage, self.pve_version)
        return make_view(self.policy, facts, guest, (slot, guest.configured.drives[slot]), storage)


def _as_it_runs(guest: Guest) -> Guest:
    """The guest as if what it runs with were all that it has."""
    return replace(guest, configured=guest.live, waiting=frozenset(), deleting=MappingProxyType({}))


def _until_then(restart: Finding, found: list[Finding], running: Iterable[Finding]) -> Finding:
    """What waits is as bad as what the running guest has in its place.

    :param found: about the guest as it is configured: what a restart would not mend.
    :param running: about the guest as it runs.
    """
    waiting = {*restart.actual.split(", ")}
    stays = {(one.slot, one.option, one.rule) for one in found}
    still = [
        one
        for one in running
        if one.severity != restart.severity
        and one.rule not in AT_START
        and not waiting.isdisjoint((one.slot, f"{one.slot}.{one.option}"))
        and (one.slot, one.option, one.rule) not in stays
    ]
    if not still:
        return restart
    still.sort(key=lambda one: one.rank)
    named = ", ".join(f"{_place(one)} {one.actual} ({one.rule})" for one in still)
    why = " ".join({one.reason: None for one in still})
    return replace(restart, severity=still[0].severity, reason=f"{restart.reason} Until then it has {named}. {why}")


def _place(one: Finding) -> str:
    return one.slot if one.option == one.slot else f"{one.slot} {one.option}"


def _as_the_policy_has_it(one: Finding, views: list[View]) -> Finding | None:
    """A finding of a check beside a policy: it is none about what the policy wants so."""
    if one.rule == LSI:
        behind = [view for view in views if view.slot.bus == "scsi"]
        safe = all(view.may_switch and view.controller.value is not None for view in behind)
        if {view.controller.value for view in behind} == {one.actual.split()[0]}:
            return None
        return one if safe else replace(one, mend=None, decides=next((view.decides for view in behind), None))
    view = next((view for view in views if str(view.slot) == one.slot), None)
    if view is None or one.option not in view.here.choices:
        return one
    choice = view.here.choices[one.option]
    if choice.value is None or choice.value != view.drive.get(one.option):
        return one
    if one.rule == NATIVE_AIO:  # native may stay where the cache mode goes
        return replace(one, option="cache", actual=f"{view.drive.get('cache')} with aio=native")
    return None


def _joined(checks: list[Finding], advice: list[Finding]) -> Iterator[Finding]:
    """Both say the same in another way: the more severe one speaks, and the policy's advice mends it."""
    by_place = {(one.slot, one.option): one for one in advice}
    for one in checks:
        other = by_place.pop((one.slot, one.option), None)
        if other is None:
            yield one
            continue
        louder = min((one, other), key=lambda found: found.rank[0])
        yield replace(louder, recommended=other.recommended, mend=other.mend, decides=other.decides)
    yield from by_place.values()


def _advice(views: list[View]) -> Iterator[Finding]:
    """What a policy has against the disks of a guest."""
    taken = {*views[0].guest.configured.drives} if views else set()
    for view in views:
        mend = _bus_mend(view, taken)
        yield from _format(view)
        yield from _bus(view, mend)
        yield from _options(view, moves=mend is not None)
    yield from _controller(views)


def _format(view: View) -> Iterator[Finding]:
    choice = view.image
    if choice is None or view.drive.storage is None:
        return
    mend: Mend | None = None
    if not view.guest.has_snapshots:  # they would stay behind, with the old volume
        mend = mend_disk(view.slot, {"format": choice.value})
    place = Place(view.guest, str(view.slot), "format", view.drive.format or "", choice.value or "", mend)
    yield finding(place, view.verdict(choice, view.drive.format))


def _bus(view: View, mend: Mend | None) -> Iterator[Finding]:
    choice = view.bus
    if choice is not None:
        verdict = view.verdict(choice, view.slot.bus)
        if verdict.rule == "virtio-scsi" and view.slot.bus == "virtio":
            verdict = replace(verdict, severity="info")  # the guest is well off on either, and a move is a risk
        decides = view.decides if choice.value == "scsi" and mend is None else None
        place = Place(view.guest, str(view.slot), "bus", view.slot.bus, choice.value or "", mend, decides=decides)
        yield finding(place, verdict)


def _bus_mend(view: View, taken: set[Slot]) -> Mend | None:
    """The slot that a disk should move to, with all that it needs there; ``None`` where it should or can not."""
    bus = view.bus.value if view.bus is not None else None
    if bus is None or (bus == "scsi" and not view.may_switch):
        return None
    target = _free_slot(bus, view.slot.index, taken)
    if target is None:
        return None
    taken.add(target)
    changes: dict[str, object] = {"moved_from": str(view.slot)}
    changes.update(_declared(view.differences(view.open, bus)))
    switch = {"proxmox_disks_scsihw": view.switch} if bus == "scsi" and view.switch else {}
    return {**mend_disk(target, changes), **switch}


def _free_slot(bus: str, index: int, taken: set[Slot]) -> Slot | None:
    """The slot of the same number if it is free, else the first free one."""
    numbers = [index, *range(SLOT_COUNT[bus])]
    slots = (Slot(bus, number) for number in numbers if number < SLOT_COUNT[bus])
    return next((slot for slot in slots if slot not in taken), None)


def _declared(choices: Iterable[Choice]) -> dict[str, object]:
    """Options as an inventory declares them; those that are left to PVE below ``unset``."""
    listed = list(choices)
    unset = [choice.name for choice in listed if choice.value is None]
    declared = {one.name: CHOICES[one.name].native(one.value) for one in listed if one.value is not None}
    return {**declared, "unset": unset} if unset else declared


def _options(view: View, *, moves: bool) -> Iterator[Finding]:
    """What the disk's options should be where it is.

    :param moves: the disk is to move to another bus; then only what it needs there as well.
    """
    for choice in view.differences(view.here, view.slot.bus):
        if moves and view.open.choices[choice.name].value != choice.value:
            continue
        mend = mend_disk(view.slot, _declared([choice]))
        if choice.name == "iothread" and choice.value == "1" and view.slot.bus == "scsi" and view.switch:
            mend = {**mend, "proxmox_disks_scsihw": view.switch}
        actual = view.drive.get(choice.name)
        shown, wanted = CHOICES[choice.name].words(actual), CHOICES[choice.name].words(choice.value)
        place = Place(view.guest, str(view.slot), choice.name, shown, wanted, mend)
        yield finding(place, view.verdict(choice, actual))


def _controller(views: list[View]) -> Iterator[Finding]:
    """The controller of a guest that has, or should have, disks on it."""
    on_it = (view for view in views if "scsi" in (view.slot.bus, view.open.choices["bus"].value))
    view = next((view for view in on_it if view.switch), None)
    if view is None:
        return
    actual = view.guest.configured.scsihw
    mend = {"proxmox_disks_scsihw": view.switch} if view.may_switch else None
    shown = actual or f"{DEFAULT_CONTROLLER} (PVE's default)"
    place = Place(view.guest, _CONTROLLER, _CONTROLLER, shown, view.switch or "", mend, decides=view.decides)
    yield finding(place, view.verdict(view.controller, actual))
