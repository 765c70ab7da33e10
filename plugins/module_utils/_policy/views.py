# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""One disk of a guest as it is, and as a policy would have it: what an audit compares."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .._core.drive import Drive
from .._core.guest import Guest
from .._core.options import TABLE
from .._core.slot import DISK_BUSES, Slot
from .._core.storage import Storage
from .choices import CHOICES
from .engine import DECIDED, Choice, Policy, Recommendation, recommend
from .facts import Facts
from .findings import GuestFacts, Verdict
from .rule import SITE

#: What PVE takes when the configuration names no controller.
DEFAULT_CONTROLLER = "lsi"
#: When a guest's bus is still to be chosen although nobody knows what it has drivers for.
_BEFORE_DRIVERS = ("new", "installing", "migrated")
_OPTIONS = tuple(name for name, row in CHOICES.items() if row.is_option)


@dataclass(frozen=True, slots=True)
class View:
    """One disk as it is and as it should be.

    :param open: what the policy would choose if everything were open that can be changed.
    :param here: the same on the bus that the disk has.
    :param controller: the choice of the guest's controller.
    :param may_switch: whether the guest is known to find its disks again behind that controller.
    :param drivers_known: whether it is known what VirtIO drivers the guest has.
    """

    policy: Policy
    guest: Guest
    slot: Slot
    drive: Drive
    storage: Storage | None
    open: Recommendation
    here: Recommendation
    controller: Choice
    may_switch: bool
    drivers_known: bool

    @property
    def image(self) -> Choice | None:
        """The choice of the format, when the disk has another one."""
        choice = self.open.choices["format"]
        return None if choice.rule == DECIDED or choice.value in (None, self.drive.format) else choice

    @property
    def bus(self) -> Choice | None:
        """The choice of the bus, when the disk is on another one."""
        choice = self.open.choices["bus"]
        return None if choice.value in (None, self.slot.bus) else choice

    @property
    def switch(self) -> str | None:
        """The controller that the guest should have, when it has another one."""
        return None if self.controller.value in (None, actual_controller(self.guest)) else self.controller.value

    @property
    def decides(self) -> GuestFacts | None:
        """What would have to be known of the guest to switch its controller; ``None`` where that is not what lacks."""
        known = self.may_switch or self.drivers_known or not (self.controller.value or "").startswith("virtio-scsi")
        return None if known else {"guest": {"virtio_drivers": "all"}}

    def differences(self, wanted: Recommendation, bus: str) -> Iterator[Choice]:
        """The choices about options that the disk does not have as it should on a bus."""
        for name in _OPTIONS:
            choice = wanted.choices[name]
            if bus in TABLE[name].buses and not self._same(name, self.drive.get(name), choice.value):
                yield choice

    def _same(self, name: str, actual: str | None, wanted: str | None) -> bool:
        if name == "cache" and self.storage is not None and self.storage.type != "btrfs":
            return (actual or "none") == (wanted or "none")  # what PVE takes without a cache mode
        return TABLE[name].same(actual, wanted)

    def verdict(self, choice: Choice, actual: str | None) -> Verdict:
        """Why a disk should not have a value: the rule that forbids it, else the one that chose another."""
        rules = self.policy.rules
        against = (rules.get(one.rule) for one in choice.rejected if one.value == actual)
        rule = next((one for one in against if one is not None and actual in one.forbids.get(choice.name, ())), None)
        if rule is not None:
            return Verdict(rule.id, rule.severity, rule.because, rule.source, rule.since)
        chosen = rules.get(choice.rule)
        milder = chosen is not None and bool(chosen.forbids.get(choice.name))  # it is severe about what it forbids
        severity = "info" if milder else choice.severity
        return Verdict(choice.rule, severity, choice.reason, choice.source, choice.since)


def actual_controller(guest: Guest) -> str:
    """The controller that the guest has or will have."""
    return guest.configured.scsihw or DEFAULT_CONTROLLER


def scsi_disks(guest: Guest) -> list[Slot]:
    """The slots of disks behind the guest's controller."""
    return [slot for slot, drive in guest.configured.drives.items() if slot.bus == "scsi" and drive.is_disk]


def disks_of(guest: Guest, without: Collection[str] = ()) -> Iterator[tuple[Slot, Drive]]:
    """The guest's disks, without firmware volumes and CD-ROM drives."""
    for slot, drive in guest.configured.drives.items():
        if slot.bus in DISK_BUSES and drive.is_disk and str(slot) not in without:
            yield slot, drive


def make_view(policy: Policy, facts: Facts, guest: Guest, place: tuple[Slot, Drive], storage: Storage | None) -> View:
    """Ask a policy about one disk."""
    slot, drive = place
    decided: dict[str, str | None] = {} if storage is not None else {"format": drive.format}
    best = recommend(decided, facts, policy)
    if _keeps_bus(guest, slot, facts, best, policy):
        decided["bus"] = slot.bus
        best = recommend(decided, facts, policy)
    controller = best.choices["scsihw"]
    may_switch = _may_switch(guest, facts, controller.value)
    if not may_switch:
        decided["scsihw"] = actual_controller(guest)
        best = recommend(decided, facts, policy)
    behind = controller.value if may_switch and controller.value is not None else actual_controller(guest)
    here = {"bus": slot.bus, "format": best.choices["format"].value, "scsihw": behind if slot.bus == "scsi" else None}
    known = facts.get("guest.virtio_drivers") is not None
    wanted = recommend(here, facts, policy)
    return View(policy, guest, slot, drive, storage, best, wanted, controller, may_switch, known)


def _keeps_bus(guest: Guest, slot: Slot, facts: Facts, best: Recommendation, policy: Policy) -> bool:
    """Whether a disk stays on its bus because a policy can't know better: the guest works with the one that it has."""
    rule = policy.rules.get(best.choices["bus"].rule)
    if rule is not None and rule.rank >= SITE:
        return False
    drivers = facts.get("guest.virtio_drivers")
    if drivers is None:
        return facts.get("guest.stage") not in _BEFORE_DRIVERS
    # That it boots from VirtIO Block is known, and a second disk shows that it has the other driver as well.
    return drivers == "block" and slot.bus == "scsi" and actual_controller(guest).startswith("virtio-scsi")


def _may_switch(guest: Guest, facts: Facts, wanted: str | None) -> bool:
    if wanted is None or not scsi_disks(guest):
        return True
    same_driver = wanted.startswith("virtio-scsi") and actual_controller(guest).startswith("virtio-scsi")
    return same_driver or (wanted.startswith("virtio-scsi") and facts.get("guest.virtio_drivers") in ("scsi", "all"))
