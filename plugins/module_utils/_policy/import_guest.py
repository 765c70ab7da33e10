# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""One guest of an import: what it comes from, what is around it, and what is planned for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .._core.drive import volume_name
from .._core.errors import Refusal
from .._core.guest import Guest
from .._core.slot import DISK_BUSES, Slot
from .._core.storage import Storage
from .engine import Policy
from .import_sources import Against, Image, Machine, Source, guest_name
from .known import Known

#: How images get to the storage: by the modules that work on a node, or by PVE's API alone.
NODE, API = ROUTES = ("node", "api")
_LABEL = 40
_OURS = "vm-{vmid}-(?P<label>.+)-(?P<print>[0-9a-f]{{8}})"


@dataclass(frozen=True, slots=True)
class Around:
    """What is there already, and what decides where the user does not.

    :param node: the node on which guests are made and images are converted.
    :param storages: what that node sees.
    :param guests: all guests of the cluster that the user may see.
    :param route: ``node`` or ``api``.
    :param bridges: those of the node that the user may see, ``None`` where nobody has looked; so too the pools.
    """

    node: str
    storages: Mapping[str, Storage]
    guests: tuple[Guest, ...]
    policy: Policy
    known: Known
    route: str = NODE
    bridges: tuple[str, ...] | None = None
    pools: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """One image and where it goes.

    :param size: bytes of the disk, larger than the image's where the user wants it.
    :param options: of the drive, as ``guest_disks`` takes them.
    :param rules: the rules that chose slot, format and options.
    :param attached: whether the guest has it already.
    """

    image: Image
    slot: Slot
    storage: str
    format: str
    size: int
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[str, ...] = ()
    attached: bool = False


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """One guest and its disks.

    :param key: what it is called in this run; two guests never have the same.
    :param vmid: its number, ``None`` for a new guest that gets the next free one.
    :param new: whether it has to be made.
    :param definition: what ``guest_create`` is told.
    :param firmware: disks without an image: ``efidisk0``, ``tpmstate0``, as ``guest_disks`` takes them.
    :param boot: its boot order, ``None`` to leave that alone; so too the controller.
    :param against: why it is not imported.
    :param elsewhere: whether its images are still to be uploaded.
    """

    key: str
    source: Source
    vmid: int | None = None
    name: str = ""
    node: str = ""
    new: bool = False
    definition: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    disks: tuple[DiskPlan, ...] = ()
    firmware: tuple[Mapping[str, object], ...] = ()
    boot: tuple[str, ...] | None = None
    scsihw: str | None = None
    against: tuple[Against, ...] = ()
    warnings: tuple[str, ...] = ()
    elsewhere: bool = False

    @property
    def todo(self) -> bool:
        """Whether there is anything to do, if nothing is against it."""
        return self.new or any(not disk.attached for disk in self.disks)


@dataclass(frozen=True, slots=True)
class Subject:
    """One guest of a source, before anything is decided.

    :param strays: what the user says of disks that the source does not have.
    """

    source: Source
    images: tuple[Image, ...]
    machine: Machine | None = None
    folder: str = ""
    alone: bool = True
    elsewhere: bool = False
    unseen: bool = False
    strays: tuple[Against, ...] = ()

    def word(self, key: str) -> object:
        """What the user says, or else the OVF, or else the defaults."""
        for layer in (self.source.given, self.machine.hardware if self.machine else {}, self.source.fallback):
            if layer.get(key) is not None:
                return layer[key]
        return None

    @property
    def name(self) -> str:
        """The guest's name: the user's, or one made from what the machine or the file is called."""
        if self.source.given.get("name") and self.alone:
            return str(self.source.given["name"])
        called = self.machine.name if self.machine else ""
        return guest_name(called or self.folder or stem(self.images[0].path if self.images else self.source.path))

    @property
    def vmid(self) -> int | None:
        vmid = self.source.given.get("vmid")
        return int(str(vmid)) if vmid is not None and self.alone else None


def stem(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    return re.sub(r"\.(vmdk|ova|ovf|qcow2|raw|img|dd|vhdx?|vdi)$", "", name, flags=re.IGNORECASE)


def ours(guest: Guest) -> dict[str, tuple[Slot, str]]:
    """The guest's volumes that an import made: by the first eight digits of the fingerprint, slot and label."""
    pattern = re.compile(_OURS.format(vmid=guest.vmid) + r"(?:\.\w+)?")
    found = {}
    for slot, drive in guest.configured.drives.items():
        match = pattern.fullmatch(volume_name(drive.volume)) if drive.is_disk else None
        if match:
            found[match["print"]] = (slot, match["label"])
    return found


def label_of(image: Image) -> str:
    """The word in a volume's name that tells its image, as ``image_convert`` makes it."""
    base = re.sub(r"\.[A-Za-z0-9]+$", "", image.name.rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9]+", "-", base).strip("-").lower()[:_LABEL].strip("-") or "image"


def own_disks(guest: Guest) -> list[Slot]:
    """The slots of a guest's disks that no import made."""
    made = {slot for slot, _label in ours(guest).values()}
    drives = guest.configured.drives.items()
    return [slot for slot, drive in drives if drive.is_disk and slot.bus in DISK_BUSES and slot not in made]


def is_whole(subject: Subject, guest: Guest) -> bool:
    """Whether a guest of the source's name has as many disks as the source.

    All that there is to go by where PVE itself imports, since its volumes do not tell what they were made from.
    """
    return guest.name == subject.name and len(own_disks(guest)) >= len(subject.images)


def told(refusal: Refusal, file: str, code: str = "not-understood") -> Against:
    """What the core refuses, of a disk or of the guest as a whole: its own words without the guest's name."""
    where = "" if file else refusal.slot
    text = str(replace(refusal, guest=where or "guest", slot=""))
    return Against(code, file, text if where else text.removeprefix("guest: "))
