# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""From sources and what was found there to guests: each with its disks in their slots, or with what is against it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from .._core.definition import read_definition
from .._core.guest import Guest
from .._core.slot import Slot
from .import_disks import Disks
from .import_guest import API, NODE, Around, DiskPlan, GuestPlan, Subject, is_whole, ours, own_disks
from .import_rehearsal import rehearse
from .import_sources import HARDWARE, Against, Found, Image, Nic, Source, as_mapping

#: What a new guest gets where nobody says anything. Source: pve-manager 9, www/manager6 (its own dialogs).
_CPU, _UEFI_MACHINE = "x86-64-v2-AES", "q35"
#: With these a disk has no place or no origin, and what attaching it would be refused for can't be told.
_NO_PLACE = ("storage-missing", "storage-unusable", "slot-taken", "needs-node")


def make_plans(sources: Sequence[tuple[Source, Found]], around: Around) -> tuple[GuestPlan, ...]:
    """Plan every guest of every source. Nothing that is against one keeps another from being planned."""
    subjects = [
        replace(subject, elsewhere=found.elsewhere, unseen=found.unseen, strays=tuple(_strays(source, found)))
        for source, found in sources
        if not source.mistakes
        for subject in _subjects(source, found)
    ]
    plans = [_plan(subject, around) for subject in subjects]
    return (*_unusable(sources), *_without_doubles(plans))


def _strays(source: Source, found: Found) -> Iterator[Against]:
    """What the user says of disks that are not there, which may be what was to be left out."""
    there = {name for image in found.images for name in (image.name, image.path)}
    has = ", ".join(dict.fromkeys(image.name for image in found.images))
    for name in map(str, as_mapping(source.given.get("disks"))):
        if name not in there:
            yield Against("disk-unknown", "", f"disks: there is no {name}; write one of {has}")


def _unusable(sources: Iterable[tuple[Source, Found]]) -> Iterator[GuestPlan]:
    for source, found in sources:
        if source.mistakes:
            yield _hopeless(source, *(Against("source-wrong", "", mistake) for mistake in source.mistakes))
        elif found.error:
            yield _hopeless(source, Against("not-inspected", "", found.error))
        elif not found.images and not found.machines:
            yield _hopeless(source, Against("no-image", "", "there is no image and no OVF there; correct the path"))
        elif not found.machines and all(map(source.skips, found.images)):
            yield _hopeless(
                source, Against("no-image", "", "all of its disks are left out (skip); take it off the list")
            )
        elif found.machines:
            yield from _undescribed(source, found)


def _undescribed(source: Source, found: Found) -> Iterator[GuestPlan]:
    """Images beside OVFs that none of them describes: whose are they?"""
    described = {(machine.path, name) for machine in found.machines for name in machine.disks}
    for image in found.images:
        if (image.path, image.member) not in described and not source.skips(image):
            reason = "no OVF says which guest it belongs to; name it as a source of its own, or leave it out (skip)"
            yield _hopeless(source, Against("not-described", image.name, reason))


def _hopeless(source: Source, *against: Against) -> GuestPlan:
    return GuestPlan(str(source.given.get("name") or source.path or "a source"), source, against=against)


def _subjects(source: Source, found: Found) -> Iterator[Subject]:
    """The guests of a source: one for each OVF, else one for each folder that has images."""
    images = tuple(image for image in found.images if not source.skips(image))
    for machine in found.machines:
        by_member = {image.member: image for image in images if image.path == machine.path}
        mine = tuple(by_member[name] for name in machine.disks if name in by_member)
        yield Subject(source, mine, machine, alone=len(found.machines) == 1)
    if not found.machines:
        yield from _without_ovf(source, images)


def _without_ovf(source: Source, images: Sequence[Image]) -> Iterator[Subject]:
    """Images that nothing describes: all of a guest that the user names, else those in one folder are one guest's."""
    named = bool(source.given.get("name") or source.given.get("vmid"))
    folders = sorted({"" if named else _folder(source, image) for image in images})
    for folder in folders:
        mine = tuple(image for image in images if named or _folder(source, image) == folder)
        yield Subject(source, mine, folder=folder, alone=len(folders) == 1)


def _folder(source: Source, image: Image) -> str:
    """The folder that an image is in, where the source is a folder; an empty text for a file."""
    parent = image.path.rpartition("/")[0]
    return parent.rpartition("/")[2] if image.path != source.path and parent else ""


def _without_doubles(plans: Sequence[GuestPlan]) -> Iterator[GuestPlan]:
    """One guest can't come from two sources."""
    numbers = Counter(plan.vmid for plan in plans if plan.vmid is not None)
    keys = Counter(plan.key for plan in plans)
    for number, plan in enumerate(plans):
        if (plan.vmid is not None and numbers[plan.vmid] > 1) or keys[plan.key] > 1:
            problem = Against("guest-twice", "", f"{plan.key} would come from several sources; name them differently")
            plan = replace(plan, key=f"{plan.key} [{number}]", against=(*plan.against, problem))  # noqa: PLW2901
        yield plan


def _plan(subject: Subject, around: Around) -> GuestPlan:
    there, against = _existing(subject, around)
    maker = _Maker(subject, around, there, list(against))
    return maker.plan()


def _existing(subject: Subject, around: Around) -> tuple[Guest | None, tuple[Against, ...]]:
    """The guest that is meant, if there is one, and what is against using it."""
    if not subject.alone and (subject.source.given.get("name") or subject.source.given.get("vmid")):
        reason = "the source holds several guests, so name and vmid can't be given; name each of its files as a source"
        return None, (Against("several-guests", "", reason),)
    found = [
        guest
        for guest in around.guests
        if (guest.vmid == subject.vmid if subject.vmid is not None else guest.name == subject.name)
    ]
    if len(found) > 1:
        numbers = ", ".join(str(guest.vmid) for guest in found)
        return None, (Against("guest-ambiguous", "", f"{subject.name} is {numbers}; give the vmid"),)
    if not found:
        if subject.source.get("create") is False:
            return None, (Against("guest-missing", "", "there is no such guest; make it, or leave create out"),)
        return None, ()
    return found[0], tuple(_against_guest(subject, found[0], around))


def _against_guest(subject: Subject, guest: Guest, around: Around) -> Iterator[Against]:
    given = subject.source.given
    if given.get("name") and guest.name != given["name"]:
        reason = f"{guest.vmid} is called {guest.name}, not {given['name']}; correct one of the two"
        yield Against("other-name", "", reason)
    if guest.template or guest.lock:
        what = "is a template" if guest.template else f"is locked ({guest.lock})"
        yield Against("guest-not-free", "", f"{guest.label} {what}; it must be an ordinary guest without a lock")
    own = own_disks(guest)
    known = ours(guest) or (around.route == API and is_whole(subject, guest))
    if subject.vmid is None and subject.source.get("create") is not False and own and not known:
        reason = (
            f"{guest.label} has disks of its own ({', '.join(map(str, own))}); write vmid: {guest.vmid} to add disks "
            "to it, or give another name"
        )
        yield Against("guest-exists", "", reason)
    if guest.node != around.node:
        local = sorted(_wanted_storages(subject, around) - _shared(around))
        if local and around.route == NODE:
            what = f"{guest.label} is not on {around.node}, and {', '.join(local)} is not shared"
            reason = f"{what}; let its own node handle it (host)"
            yield Against("other-node", "", reason)


def _shared(around: Around) -> set[str]:
    return {name for name, storage in around.storages.items() if storage.shared}


def _wanted_storages(subject: Subject, around: Around) -> set[str]:
    default = subject.source.get("storage")
    names = {str(subject.source.disk(image).get("storage") or default) for image in subject.images}
    return names & set(around.storages)


class _Maker:
    """Decides about one guest, and collects what is against it."""

    def __init__(self, subject: Subject, around: Around, there: Guest | None, against: Iterable[Against]) -> None:
        self._subject = subject
        self._source = subject.source
        self._around = around
        self._there = there
        self._against = list(against)
        self._against_guest = bool(self._against)
        self._warnings = list(subject.machine.warnings if subject.machine else ())

    def plan(self) -> GuestPlan:
        """The plan, whole."""
        subject, there = self._subject, self._there
        decided = Disks(subject, self._around, there)
        disks = decided.plan()
        self._against += decided.against
        if subject.unseen:
            self._warnings.append("it was not inspected: PVE takes damaged images, too")
        self._warnings += decided.warnings
        self._against += subject.strays
        usable = not self._against_guest and not any(one.code in _NO_PLACE for one in decided.against)
        definition = self._definition(decided.scsihw) if there is None else {}
        todo = there is None or any(not disk.attached for disk in disks)
        made = GuestPlan(
            key=(there.name if there else subject.name) or str(subject.vmid),
            source=self._source,
            vmid=there.vmid if there else subject.vmid,
            name=there.name if there else subject.name,
            node=there.node if there else self._around.node,
            new=there is None,
            definition=MappingProxyType(definition),
            disks=disks,
            firmware=tuple(self._firmware(disks)) if todo else (),
            boot=None if decided.misplaced else self._boot(disks),
            scsihw=decided.scsihw if there is None or there.configured.scsihw is None else None,
            warnings=tuple(dict.fromkeys(self._warnings)),
            elsewhere=subject.elsewhere,
        )
        if todo and usable and len(disks) == len(subject.images):
            said = {_topic(one) for one in self._against}
            self._against += [one for one in rehearse(made, self._around, there) if _topic(one) not in said]
        return replace(made, against=tuple(dict.fromkeys(self._against)))

    def _refuse(self, code: str, file: str, reason: str) -> None:
        self._against.append(Against(code, file, reason))

    def _definition(self, scsihw: str | None) -> dict[str, object]:
        word = self._subject.word
        data: dict[str, object] = {"node": self._around.node, "vmid": self._subject.vmid, "name": self._subject.name}
        data |= {key: word(key) for key in HARDWARE if word(key) is not None}
        data.setdefault("cpu", _CPU)
        if data.get("bios") == "ovmf":
            data.setdefault("machine", _UEFI_MACHINE)
        data.setdefault("scsihw", scsihw)
        if "memory" not in data and not any(image.refused for image in self._subject.images):
            self._refuse(
                "memory-unknown",
                "",
                "no OVF says how much memory the guest has; write memory, in MiB, here or in the defaults",
            )
        if data.get("ostype", "other") == "other" and self._source.given.get("ostype") is None:
            self._warnings.append("no OVF says what system the guest has; write ostype for the right bus and card")
        data["net"] = [self._nic(number, nic) for number, nic in enumerate(self._nics())]
        _read, refusals = read_definition(data)
        for one in refusals:
            self._refuse("not-understood", "", f"{one.option}={one.value} {one.problem}; {one.remedy}")
        self._check_names(data)
        return {key: value for key, value in data.items() if value not in (None, [])}

    def _check_names(self, data: Mapping[str, object]) -> None:
        """The pool and the bridges are there: PVE would not miss a bridge before the guest starts."""
        around = self._around
        if problem := _absent("pool", data.get("pool"), around.pools, ""):
            self._refuse("pool-unknown", "", problem)
        for card in data["net"] if isinstance(data["net"], list) else ():
            if problem := _absent("bridge", card.get("bridge"), around.bridges, f" on {around.node}"):
                self._refuse("bridge-unknown", "", f"{card['slot']}: {problem}")

    def _nics(self) -> tuple[Nic, ...]:
        return self._subject.machine.nics if self._subject.machine else ()

    def _nic(self, number: int, nic: Nic) -> dict[str, object]:
        """One card: connected where its network is mapped, and with its cable pulled where it is not."""
        networks = as_mapping(self._source.get("networks"))
        mapped = networks.get(nic.network, networks.get("*"))
        card: dict[str, object] = {"slot": f"net{number}", "model": self._model()}
        if mapped is None:
            self._warnings.append(f"net{number} is not connected: networks does not say what '{nic.network}' is here")
            return {**card, "link_down": True}
        return {**card, **(mapped if isinstance(mapped, Mapping) else {"bridge": str(mapped)})}

    def _model(self) -> str:
        """VirtIO where the guest brings the driver, else the card that its system knows."""
        ostype = _text(self._subject.word("ostype")) or "other"
        drivers = self._source.get("virtio_drivers")
        if ostype == "l26" or drivers in ("all", "scsi", "block", True):
            return "virtio"
        return "rtl8139" if ostype in ("w2k", "wxp") else "e1000"

    def _firmware(self, disks: Sequence[DiskPlan]) -> Iterator[Mapping[str, object]]:
        """UEFI keeps its boot entries, and a TPM its keys, on disks of their own, beside the boot disk."""
        if not disks or self._has_own_disks():
            return
        there = set(self._there.configured.drives) if self._there else set[Slot]()
        if self._subject.word("bios") == "ovmf" and Slot("efidisk", 0) not in there:
            keys = self._subject.machine is not None and self._subject.machine.secure_boot
            yield {"slot": "efidisk0", "storage": disks[0].storage, "efitype": "4m", "pre_enrolled_keys": keys}
        if self._subject.word("tpm") is True and Slot("tpmstate", 0) not in there:
            yield {"slot": "tpmstate0", "storage": disks[0].storage, "version": "v2.0"}

    def _has_own_disks(self) -> bool:
        return self._there is not None and bool(own_disks(self._there))

    def _boot(self, disks: Sequence[DiskPlan]) -> tuple[str, ...] | None:
        """The order that the user gives, else the first disk, of a guest whose boot disk comes with this import."""
        if not disks or disks[0].attached or self._has_own_disks():
            return None
        given = self._source.get("boot") or str(disks[0].slot)
        return tuple(map(str, given)) if isinstance(given, (list, tuple)) else tuple(re.split(r"[;,\s]+", str(given)))


def _topic(one: Against) -> tuple[str, str]:
    """The disk and the option that a reason is about."""
    return one.file, one.reason.partition("=")[0]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _absent(what: str, name: object, known: tuple[str, ...] | None, place: str) -> str:
    """What is wrong with a name of which nothing is called; nothing if something is, or nobody has looked."""
    if name is None or known is None or str(name) in known:
        return ""
    there = f"write one of {', '.join(known)}" if known else "make one, or leave it out"
    return f"{what}={name}: there is no such {what}{place} that the user may see; {there}"
