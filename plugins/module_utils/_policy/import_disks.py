# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The disks of one imported guest: storage, format, options and slot of each, and what is against it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType

from .._core.errors import ParseError
from .._core.guest import Guest
from .._core.layout import option_names, read_layout
from .._core.options import read_boolean
from .._core.size import human_size, parse_size
from .._core.slot import DISK_BUSES, SLOT_COUNT, Slot, parse_slot
from .._core.storage import Storage
from .choices import CHOICES, read_fixed
from .engine import DECIDED, Recommendation, recommend
from .explain import recommendation_data
from .facts import Facts
from .import_guest import API, NODE, Around, DiskPlan, Subject, is_whole, label_of, ours, own_disks, told
from .import_sources import LIKELY, Against, Image, Source, as_mapping

#: What PVE's API imports. Source: pve-storage 9.1.7, PVE/Storage.pm and PVE/Storage/Plugin.pm.
_API_FORMATS = ("raw", "qcow2", "vmdk")
_API_SUBFORMATS = ("monolithicSparse", "streamOptimized")
_API_NAME = re.compile(r"[a-zA-Z0-9\-.+=_]+")
_UPLOAD_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
#: What is said of a disk beside the options of its drive.
_WORDS = ("slot", "storage", "format", "size", "skip", "unset")


class Disks:
    """Decides about the disks of one guest.

    :param there: the guest, if there is one.
    :ivar against: why they can't be as they are wanted; complete after :meth:`plan`, and so are the warnings.
    :ivar misplaced: whether a slot that the user has written makes no sense, so that others are not what is meant.
    :ivar scsihw: the guest's controller, once it is decided.
    """

    def __init__(self, subject: Subject, around: Around, there: Guest | None) -> None:
        self._subject = subject
        self._source = subject.source
        self._around = around
        self._there = there
        self._taken = set(there.configured.drives) if there else set[Slot]()
        self._ours = ours(there) if there else {}
        self.against: list[Against] = []
        self.warnings: list[str] = []
        self.misplaced = False
        self.scsihw = self._controller()
        self._whole = around.route == API and there is not None and is_whole(subject, there)

    def plan(self) -> tuple[DiskPlan, ...]:
        """Every disk that has a place."""
        return tuple(self._placed([self._wants(image) for image in self._subject.images]))

    def _refuse(self, code: str, file: str, reason: str) -> None:
        self.against.append(Against(code, file, reason))

    def _controller(self) -> str | None:
        """The controller of a guest that is there, where disks hang on it already."""
        if self._there is None:
            return None
        used = any(slot.bus == "scsi" for slot in self._there.configured.drives)
        return self._there.configured.scsihw or ("lsi" if used else None)

    def _wants(self, image: Image) -> DiskPlan | None:
        """An image with everything but its slot, whose number may be changed yet; ``None`` for one that is refused."""
        if image.refused is not None:
            self.against.append(image.refused)
            return None
        words = self._words(image)
        storage = self._storage(image, words)
        if self._around.route == API:
            self.against += _against_api(self._source, image)
            self._check_place(image, words)
        try:
            found = recommend(self._fixed(image, words), self._facts(storage), self._around.policy)
        except ParseError as error:
            self._refuse("not-understood", image.name, str(error))
            return None
        for one in found.conflicts:
            self._refuse("not-possible", image.name, f"{one.name}={CHOICES[one.name].words(one.value)}: {one.reason}")
        if self.scsihw is None:  # a Windows on SATA gets the controller that it will be moved to
            self.scsihw = found.choices["scsihw"].value
        return self._disk(image, words, found)

    def _storage(self, image: Image, words: Mapping[str, object]) -> Storage | None:
        name = self._storage_name(words)
        storage = self._around.storages.get(name)
        able = sorted(one.name for one in self._around.storages.values() if "images" in one.content and one.active)
        if not name:
            self._refuse("storage-missing", image.name, f"no storage is given; write one of {', '.join(able)}")
        elif storage is None or "images" not in storage.content or not storage.active:
            problem = "is not there" if storage is None else "is not active" if not storage.active else "holds no disks"
            remedy = f"write one of {', '.join(able)}"
            self._refuse("storage-unusable", image.name, f"storage={name} {problem} on {self._around.node}; {remedy}")
        return storage

    def _storage_name(self, words: Mapping[str, object]) -> str:
        return str(words.get("storage") or self._source.get("storage") or "")

    def _words(self, image: Image) -> dict[str, object]:
        """What the user says of a disk, without what nothing is called."""
        words = dict(self._source.disk(image))
        known = (*_WORDS, *option_names())
        for name in [name for name in words if name not in known]:
            likely = get_close_matches(str(name), known, n=1, cutoff=LIKELY)
            remedy = f"did you mean {likely[0]}?" if likely else f"write {', '.join(_WORDS)}, or an option of the drive"
            self._refuse("not-understood", image.name, f"{name}: there is no such option; {remedy}")
            del words[name]
        return words

    def _fixed(self, image: Image, words: dict[str, object]) -> dict[str, str | None]:
        """What is decided already. What makes no sense is refused, and taken out of the words."""
        if self._source.get("format"):
            words.setdefault("format", self._source.get("format"))
        for name in [name for name in words if name in CHOICES or name in ("slot", "skip")]:
            try:
                if name == "skip":
                    read_boolean(words[name])
                else:
                    read_fixed({name: words[name]})
            except ParseError as error:
                text = str(error) if name != "skip" else f"skip={words[name]} is not allowed; write true or false"
                self._refuse("not-understood", image.name, text)
                self.misplaced = self.misplaced or name == "slot"
                del words[name]
        decided = {name: value for name, value in words.items() if name in (*CHOICES, "slot", "unset")}
        return read_fixed(decided, self.scsihw)

    def _check_options(self, image: Image, words: Mapping[str, object], slot: Slot) -> None:
        """Options that no policy decides about: whether the bus has them, and their values."""
        given = {name: value for name, value in words.items() if name not in (*CHOICES, *_WORDS)}
        where = Slot(slot.bus, max(slot.index, 0))
        for one in read_layout({"disks": [{"slot": str(where), **given}]})[1]:
            self.against.append(told(one, image.name))

    def _facts(self, storage: Storage | None) -> Facts:
        guest = self._there or Guest(0, self._subject.name, self._around.node)
        strange = self._there is None or not own_disks(self._there)
        extra: dict[str, dict[str, object]] = {"need": dict(as_mapping(self._source.get("need")))}
        extra["guest"] = {"stage": "migrated"} if strange else {}
        if self._source.get("virtio_drivers") is not None:
            extra["guest"]["virtio_drivers"] = self._source.get("virtio_drivers")
        word = self._subject.word
        guest = replace(
            guest,
            ostype=_text(word("ostype")) or guest.ostype,
            machine=_text(word("machine")) or guest.machine,
            bios=_text(word("bios")) or guest.bios,
        )
        return self._around.known.facts(guest, storage, None, extra)

    def _disk(self, image: Image, words: Mapping[str, object], found: Recommendation) -> DiskPlan:
        chosen = {name: choice.value for name, choice in found.choices.items()}
        data = recommendation_data(found)["declaration"]
        options = {name: value for name, value in as_mapping(data).items() if name != "format"}
        extra = {name: value for name, value in words.items() if name not in (*CHOICES, *_WORDS)}
        rules = dict.fromkeys(
            choice.rule for choice in found.choices.values() if choice.rule != DECIDED and choice.value is not None
        )
        if chosen["format"] == "vmdk" and self._around.route == NODE:
            self._refuse("format-not-made", image.name, "format=vmdk: disks are made raw or qcow2; write one of them")
        named = words.get("slot") and words["slot"] not in DISK_BUSES  # it was read before, so it is a slot
        size = self._size(image, words)
        slot = parse_slot(str(words["slot"])) if named else Slot(str(chosen["bus"]), -1)
        self._check_options(image, words, slot)
        return DiskPlan(
            image=image,
            slot=slot,
            storage=self._storage_name(words),
            format=str(chosen["format"]),
            size=size,
            options=MappingProxyType({**options, **extra}),
            rules=tuple(rules),
        )

    def _size(self, image: Image, words: Mapping[str, object]) -> int:
        if not words.get("size"):
            return image.virtual_size
        try:
            size = parse_size(str(words["size"]))
        except ParseError as error:
            self._refuse("size-not-understood", image.name, str(error))
            return image.virtual_size
        if size < image.virtual_size:
            reason = f"size={words['size']}: the disk has {human_size(image.virtual_size)}; write that or more"
            self._refuse("size-too-small", image.name, reason)
            return image.virtual_size
        return size

    def _placed(self, wants: Sequence[DiskPlan | None]) -> Iterator[DiskPlan]:
        """The disks in their slots: those that are there, then those that the user places, then the others."""
        if self._whole:
            yield from (replace(disk, attached=True) for disk in wants if disk is not None)
            return
        taken = set(self._taken)
        placed: dict[int, DiskPlan] = {}
        open_ones = [(number, disk) for number, disk in enumerate(wants) if disk is not None]
        for number, disk in open_ones:
            there = self._ours.get(disk.image.fingerprint[:8]) if disk.image.fingerprint else None
            if there is not None:
                placed[number] = replace(disk, slot=there[0], attached=True)
        for number, disk in open_ones:
            if number not in placed and disk.slot.index >= 0:
                placed[number] = self._in_named_slot(disk, taken)
                taken.add(disk.slot)
        for number, disk in open_ones:
            if number not in placed:
                slot = self._free_slot(disk, taken)
                if slot is not None:
                    placed[number] = replace(disk, slot=slot)
                    taken.add(slot)
        for number in sorted(placed):
            self._check_change(placed[number])
            yield placed[number]

    def _in_named_slot(self, disk: DiskPlan, taken: set[Slot]) -> DiskPlan:
        if disk.slot not in taken:
            return disk
        if self._around.route == API and disk.slot in self._taken:
            return replace(disk, attached=True)  # the API leaves no other trace of what a volume came from
        self._refuse("slot-taken", disk.image.name, f"{disk.slot} holds another disk; give another slot, or free it")
        return disk

    def _free_slot(self, disk: DiskPlan, taken: set[Slot]) -> Slot | None:
        """The first free slot on the disk's bus; where that is full, one on SCSI, which has the most."""
        for bus in dict.fromkeys((disk.slot.bus, "scsi")):
            for index in range(SLOT_COUNT[bus]):
                if Slot(bus, index) not in taken:
                    if bus != disk.slot.bus:
                        self.warnings.append(
                            f"{disk.image.name} goes to {bus}{index}, since {disk.slot.bus} is full: the guest sees it "
                            "once it has the driver"
                        )
                    return Slot(bus, index)
        self._refuse("no-slot-left", disk.image.name, f"{disk.slot.bus} and scsi are full; leave disks out (skip)")
        return None

    def _check_place(self, image: Image, words: Mapping[str, object]) -> None:
        """Where PVE itself imports, only its slot tells whether a guest has a disk already."""
        if self._there is not None and own_disks(self._there) and not self._whole and not words.get("slot"):
            reason = f"{self._there.label} has disks, and which of them came from here can't be seen; give its slot"
            self._refuse("api-slot", image.name, reason)

    def _check_change(self, disk: DiskPlan) -> None:
        """A source that was imported and has changed since would be attached a second time."""
        label = label_of(disk.image)
        old = [slot for slot, name in self._ours.values() if name == label]
        if old and not disk.attached and not self._source.disk(disk.image).get("slot"):
            reason = (
                f"{old[0]} was made from an image of this name that was not as this one is; take the source out of the "
                "list, or if it is another disk, give its slot"
            )
            self._refuse("source-changed", disk.image.name, reason)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _against_api(source: Source, image: Image) -> Iterator[Against]:
    """What PVE's API would refuse, or worse, take although it is damaged."""
    if source.given.get("path"):
        remedy = "use upload_from, volume, or the route node"
        yield Against("needs-node", image.name, f"the API can't read a file of a node; {remedy}")
    if image.format == "ova":
        reason = "what is in an OVA can't be seen from here; use upload_from, or the route node"
        yield Against("api-unseen", image.name, reason)
        return
    if source.given.get("upload_from") and image.path != source.path:
        yield Against("api-folder", image.name, "the API takes single files; name each of them as a source")
    uploaded = source.path.rpartition("/")[2] if source.given.get("upload_from") else ""
    if not _UPLOAD_NAME.fullmatch(uploaded or "x"):
        yield Against("api-name", uploaded, "PVE would give it another name; use letters, digits and ._- only")
    if image.format not in _API_FORMATS:
        what = f"the API imports {', '.join(_API_FORMATS)}, and this is {image.format}"
        yield Against("api-format", image.name, f"{what}; use the route node")
    elif image.format == "vmdk" and (image.subformat not in (*_API_SUBFORMATS, "") or image.chain > 1):
        able = " or ".join(_API_SUBFORMATS)
        what = "a chain of snapshots" if image.chain > 1 else image.subformat
        reason = f"the API imports {able} VMDKs, and this is {what}; use the route node"
        yield Against("api-subformat", image.name, reason)
    if not _API_NAME.fullmatch(image.name) or not image.name.endswith(f".{image.format}"):
        what = f"the API imports files whose names are letters, digits and -.+=_ and end in .{image.format}"
        yield Against("api-name", image.name, f"{what}; rename it")
