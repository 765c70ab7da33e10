# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A guest's snapshots: what it takes to have one, not to have it, or to go back to it, and what stands against that.

Source: pve-guest-common, ``PVE/AbstractConfig.pm`` (snapshot_create, snapshot_delete, snapshot_rollback); qemu-server
9.2.6, ``PVE/QemuConfig.pm`` (has_feature); pve-storage 9.1.7 (volume_rollback_is_possible).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .drive import Drive
from .errors import Refusal
from .guest import Guest
from .slot import Slot
from .storage import Storage

STATES = ("present", "absent", "rolled_back")
#: PVE's ``pve-configid``, with the length of a ``pve-snapshot-name``.
_NAME = re.compile(r"[a-z][a-z0-9_-]{1,39}", re.IGNORECASE)
_RESERVED = frozenset({"current", "pending"})
#: Block storages that go back to the newest snapshot only; so do all storages with volume chains.
_NEWEST_ONLY = frozenset({"zfspool", "zfs"})
#: Keys of a configuration that do not say whether a guest is as its snapshot has it.
_NO_HARDWARE = re.compile(
    r"unused\d+|digest|parent|description|lock|vmgenid|vmstate|snaptime|snapstate|running.*|meta", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One snapshot as PVE lists it.

    :param time: when it was taken, in seconds since 1970.
    :param vmstate: whether the memory is in it.
    :param incomplete: what a job that was interrupted was doing (``prepare``, ``delete``), or an empty string.
    """

    name: str
    parent: str | None = None
    time: int = 0
    vmstate: bool = False
    description: str = ""
    incomplete: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotWish:
    """What is asked.

    :param description: ``None`` to leave it as it is.
    :param vmstate: ``None`` to take it without, and not to care otherwise.
    :param start: whether a guest that was rolled back is started.
    """

    name: str
    state: str = "present"
    description: str | None = None
    vmstate: bool | None = None
    start: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What planning looks at. What is not needed for a wish is left out.

    :param entries: the snapshots, oldest first.
    :param parent: the snapshot that the guest's present state goes back to.
    :param possible: whether PVE says that a snapshot can be taken.
    :param storages: the storages of the guest's node, as far as the user may see them.
    :param chained: storages of which PVE says that snapshots are volume chains.
    :param volumes: what each snapshot names, by its name.
    :param untouched: whether nothing can have happened to the guest since it was rolled back.
    """

    guest: Guest
    entries: tuple[Entry, ...] = ()
    parent: str | None = None
    possible: bool = True
    storages: Mapping[str, Storage] = field(default_factory=lambda: MappingProxyType({}))
    chained: frozenset[str] = frozenset()
    volumes: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    untouched: bool = False

    def find(self, name: str) -> Entry | None:
        """The snapshot of a name, or ``None``."""
        return next((entry for entry in self.entries if entry.name == name), None)


class Step(enum.Enum):
    """What is done."""

    TAKE = "take"
    DESCRIBE = "describe"
    DELETE = "delete"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """What is to be done, or why it is not."""

    step: Step | None = None
    refusals: tuple[Refusal, ...] = ()


def name_refusals(label: str, wish: SnapshotWish) -> tuple[Refusal, ...]:
    """What is wrong with the wish itself, whatever the guest is like."""
    return tuple(_wrong_wish(label, wish))


def _wrong_wish(label: str, wish: SnapshotWish) -> Iterator[Refusal]:
    if not _NAME.fullmatch(wish.name):
        yield Refusal(
            label,
            "",
            "snapshot",
            wish.name,
            "PVE takes no such name",
            "begin with a letter, and use 2 to 40 letters without accents, digits, - and _",
        )
    if wish.name.lower() in _RESERVED:
        yield Refusal(label, "", "snapshot", wish.name, "PVE keeps this name for itself", "choose another one")
    for option, given in (("description", wish.description is not None), ("vmstate", bool(wish.vmstate))):
        if given and wish.state != "present":
            yield Refusal(label, "", option, "", f"state={wish.state} takes no snapshot", "remove it")
    if wish.start and wish.state != "rolled_back":
        yield Refusal(label, "", "start", "true", f"state={wish.state} starts nothing", "remove it")


def find_step(facts: SnapshotFacts, wish: SnapshotWish) -> Step | None:
    """What makes it so; ``None`` when it is so already."""
    entry = facts.find(wish.name)
    if wish.state == "absent":
        return Step.DELETE if entry else None
    if wish.state == "rolled_back":
        return None if facts.untouched and facts.parent == wish.name else Step.ROLL_BACK
    if entry is None:
        return Step.TAKE
    told = wish.description is not None and wish.description.rstrip() != entry.description.rstrip()
    return Step.DESCRIBE if told else None


def plan_snapshot(facts: SnapshotFacts, wish: SnapshotWish) -> SnapshotPlan:
    """Plan what makes it so, or collect everything that stands against it."""
    label = facts.guest.label
    wrong = name_refusals(label, wish)
    step = None if wrong else find_step(facts, wish)
    refusals = (*wrong, *_obstacles(facts, wish, step))
    return SnapshotPlan(None if refusals else step, refusals)


def _obstacles(facts: SnapshotFacts, wish: SnapshotWish, step: Step | None) -> Iterator[Refusal]:
    guest, entry = facts.guest, facts.find(wish.name)
    if wish.state == "present" and entry:
        yield from _not_as_wished(guest, wish, entry)
    if step is None:
        return
    if guest.template:
        yield Refusal(guest.label, "", "", "", "it is a template, which has no snapshots", "use a clone of it")
    if guest.lock:
        yield Refusal(guest.label, "", "", "", f"it is locked ({guest.lock})", _advice(guest.lock))
    if step is Step.TAKE:
        yield from _not_taken(facts, wish)
    if step is Step.ROLL_BACK:
        yield from _no_way_back(facts, wish, entry)


def _advice(lock: str) -> str:
    advice = "wait until the job that locked it ends"
    if lock.startswith("snapshot") or lock == "rollback":
        return f"{advice}; if none is left, look at the guest, and unlock it with qm unlock on its node"
    return advice


def _not_as_wished(guest: Guest, wish: SnapshotWish, entry: Entry) -> Iterator[Refusal]:
    if entry.incomplete:
        yield Refusal(
            guest.label,
            "",
            "snapshot",
            entry.name,
            f"it is there and incomplete ({entry.incomplete}), because a job was interrupted",
            "remove it with state: absent, and take it again",
        )
    if wish.vmstate is not None and wish.vmstate != entry.vmstate:
        has = "with" if entry.vmstate else "without"
        yield Refusal(
            guest.label,
            "",
            "vmstate",
            str(wish.vmstate).lower(),
            f"the snapshot {entry.name} is there {has} the guest's memory, which can't be changed",
            "choose another name, or remove it first",
        )


# ---- taking


def _not_taken(facts: SnapshotFacts, wish: SnapshotWish) -> Iterator[Refusal]:
    guest = facts.guest
    if wish.vmstate and not guest.running:
        yield Refusal(
            guest.label, "", "vmstate", "true", "it is stopped, and has no memory to save", "start it, or leave it out"
        )
    if facts.possible:
        return
    found = list(drives_without_snapshots(facts))
    yield from found
    if not found:
        drives = ", ".join(f"{slot} ({drive.volume})" for slot, drive in disks_of(guest).items())
        yield Refusal(
            guest.label,
            "",
            "snapshot",
            wish.name,
            f"PVE says that at least one of its disks can't be snapshotted, and not which: {drives}",
            "look at their storages",
        )


def disks_of(guest: Guest) -> Mapping[Slot, Drive]:
    """The drives of which a snapshot is taken: all that are no CD-ROM or cloud-init drive, as they are now."""
    return MappingProxyType({slot: drive for slot, drive in guest.live.drives.items() if drive.is_disk})


def drives_without_snapshots(facts: SnapshotFacts) -> Iterator[Refusal]:
    """Each drive of which no snapshot can be taken, and why."""
    for slot, drive in disks_of(facts.guest).items():
        if reason := _hindrance(drive, facts):
            problem, remedy = reason
            yield Refusal(facts.guest.label, str(slot), "", "", problem, remedy)


def _hindrance(drive: Drive, facts: SnapshotFacts) -> tuple[str, str] | None:
    """Why no snapshot can be taken of a drive, and what to do about it; ``None`` if it can, or nobody knows."""
    if drive.storage is None:
        return f"{drive.volume} is passed through, and on no storage that could take a snapshot", "detach it first"
    storage = facts.storages.get(drive.storage)
    if storage is None:
        return (
            f"the user may not see the storage {drive.storage}, and so not whether it can take snapshots",
            "grant Datastore.Audit on it to be told more",
        )
    if storage.kind is None:
        return None
    chained = storage.chains or storage.name in facts.chained
    able = ("qcow2",) if chained else storage.kind.snapshots
    if drive.format in able:
        return None
    where = f"{storage.name}, which is {storage.type}{' with volume chains' if chained else ''}"
    if not able:
        return f"{where}, takes no snapshots", "move it to a storage that does"
    return (
        f"{where}, takes no snapshots of {drive.format}, only of {' and '.join(able)}",
        f"convert it with format={able[0]}, or move it to a storage that does",
    )


# ---- going back


def _no_way_back(facts: SnapshotFacts, wish: SnapshotWish, entry: Entry | None) -> Iterator[Refusal]:
    guest = facts.guest
    if entry is None:
        there = ", ".join(one.name for one in facts.entries) or "none"
        yield Refusal(
            guest.label, "", "snapshot", wish.name, "there is no such snapshot", f"take one first; there are: {there}"
        )
        return
    if entry.incomplete:
        yield Refusal(
            guest.label,
            "",
            "snapshot",
            entry.name,
            f"it is incomplete ({entry.incomplete}), because a job was interrupted",
            "go back to another one",
        )
    for volume in sorted(filter(_is_snapshotted, facts.volumes.get(entry.name, ()))):
        storage = facts.storages.get(volume.partition(":")[0])
        newer = [one.name for one in newer_than(facts, entry) if volume in facts.volumes.get(one.name, ())]
        if storage is not None and newer and _goes_to_newest_only(storage, facts):
            yield Refusal(
                guest.label,
                "",
                "snapshot",
                entry.name,
                f"{storage.name} can go back to the newest snapshot only, and {volume} has newer ones "
                f"({', '.join(newer)})",
                f"remove {'them' if len(newer) > 1 else 'it'} first, if nobody needs what is in there",
            )


def _is_snapshotted(volume: str) -> bool:
    """Whether a volume in a snapshot's configuration is a disk: ISOs and cloud-init drives stay as they are."""
    return not Drive(volume).is_cloudinit and not volume.partition(":")[2].startswith("iso/")


def newer_than(facts: SnapshotFacts, entry: Entry) -> tuple[Entry, ...]:
    """The snapshots that were taken after one: later, or in the same second and going back to it."""
    parents = {one.name: one.parent for one in facts.entries}

    def descends(name: str | None) -> bool:
        seen: set[str] = set()
        while name is not None and name not in seen:
            seen.add(name)
            name = parents.get(name)
            if name == entry.name:
                return True
        return False

    later = (one for one in facts.entries if one.time > entry.time or (one.time == entry.time and descends(one.name)))
    return tuple(later)


def _goes_to_newest_only(storage: Storage, facts: SnapshotFacts) -> bool:
    return storage.type in _NEWEST_ONLY or storage.chains or storage.name in facts.chained


def same_hardware(now: Mapping[str, object], then: Mapping[str, object]) -> bool:
    """Whether a guest's configuration is the one of a snapshot, as far as going back to it would bring that back."""
    return _hardware(now) == _hardware(then)


def _hardware(config: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in config.items() if not _NO_HARDWARE.fullmatch(key)}


def set_aside(guest: Guest, then: frozenset[str]) -> tuple[str, ...]:
    """Slots whose volume becomes an unused one when the guest goes back to a snapshot that does not name it."""
    return tuple(str(slot) for slot, drive in disks_of(guest).items() if drive.storage and drive.volume not in then)
