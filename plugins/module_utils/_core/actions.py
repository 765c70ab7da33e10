# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The steps of a plan, as values: what a user sees of them, and what is sent for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from .drive import Drive
from .guest import Boot, Guest
from .options import TABLE, Kind
from .size import format_pve_size, human_size
from .slot import Slot


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plan for people.

    :param sign: ``+`` new, ``~`` changed, ``>`` moved, ``-`` taken away, ``!`` destroyed, ``?`` only noticed.
    :param subject: the slot, or what else changes.
    :param what: the change.
    :param detail: more about it, or what remains to be done.
    """

    sign: str
    subject: str
    what: str
    detail: str = ""


def option_words(drive: Drive) -> str:
    """The options of a drive in words: ``cache none, iothread, no backup, ssd``."""
    words = []
    for name, value in drive.options:
        row = TABLE.get(name)
        if row is None:
            continue
        if row.kind is Kind.BOOLEAN:
            words.append(name if value == "1" else f"no {name}")
        else:
            words.append(name if (name, value) == ("discard", "on") else f"{name} {value}")
    return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Action:
    """The base of all steps.

    :param slot: the slot that it is about, ``None`` for the guest as a whole.
    """

    slot: Slot | None

    @property
    def verb(self) -> str:
        """The name of the step in results: ``create``, ``resize`` …"""
        return type(self).__name__.lower()

    @property
    def line(self) -> Line | None:
        """The step for people, or ``None`` when it is only a means for another one."""
        return None

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        """What a configuration call sets for it."""
        yield from ()

    @property
    def deletions(self) -> Iterator[str]:
        """What a configuration call deletes for it."""
        yield from ()


@dataclass(frozen=True, slots=True)
class Create(Action):
    """A new, empty or imported disk, EFI or TPM volume, or cloud-init drive."""

    drive: Drive
    request: str
    size: int | None
    format: str | None
    source: str | None = None

    @property
    def line(self) -> Line:
        what = [human_size(self.size)] if self.size else []
        if self.drive.is_cloudinit:
            what.append("cloud-init drive")
        elif self.format:
            what.append(self.format)
        what.append(f"on {self.drive.storage}")
        if self.source:
            what.append(f"from {self.source}")
        return Line("+", str(self.slot), " ".join(what), option_words(self.drive))

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield str(self.slot), self.request


@dataclass(frozen=True, slots=True)
class Attach(Action):
    """An existing volume comes into a slot.

    :param swapped: whether the volume that it replaces goes to another slot in the same plan.
    :param kept: whether PVE keeps the volume that it replaces as ``unusedN``, which it does with the guest's own.
    """

    drive: Drive
    replaces: Drive | None = None
    swapped: bool = False
    kept: bool = True

    @property
    def line(self) -> Line:
        fate = "is kept as unused" if self.kept else "stays as it is"
        fate = "goes to another slot" if self.swapped else fate
        kept = f"instead of {self.replaces.volume}, which {fate}" if self.replaces else ""
        detail = "; ".join(part for part in (option_words(self.drive), kept) if part)
        return Line("~" if self.replaces else "+", str(self.slot), f"volume {self.drive.volume}", detail)

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield str(self.slot), str(self.drive)


@dataclass(frozen=True, slots=True)
class Media(Action):
    """A CD-ROM drive is added, or its medium changes."""

    drive: Drive
    before: Drive | None

    @property
    def line(self) -> Line:
        medium = "empty" if self.drive.volume == "none" else self.drive.volume
        if self.before is None:
            return Line("+", str(self.slot), f"CD-ROM drive, {medium}", option_words(self.drive))
        before = "empty" if self.before.volume == "none" else self.before.volume
        if before == medium:
            return Change(self.slot, self.before, self.drive).line
        return Line("~", str(self.slot), f"CD-ROM {before} -> {medium}")

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield str(self.slot), str(self.drive)


@dataclass(frozen=True, slots=True)
class Change(Action):
    """Options of a drive change; the volume stays."""

    before: Drive
    after: Drive

    @property
    def names(self) -> tuple[str, ...]:
        """The options that change."""
        keys = {key for key, _value in (*self.before.options, *self.after.options)}
        return tuple(sorted(key for key in keys if self.before.get(key) != self.after.get(key)))

    @property
    def line(self) -> Line:
        words = [_changed(name, self.before.get(name), self.after.get(name)) for name in self.names]
        return Line("~", str(self.slot), ", ".join(words))

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield str(self.slot), str(self.after)


def _lacking(slot: Slot | None, drive: Drive) -> list[str]:
    """The options of a drive that the bus of a slot does not have."""
    return [key for key, _value in drive.options if slot and key in TABLE and slot.bus not in TABLE[key].buses]


def _changed(name: str, before: str | None, after: str | None) -> str:
    shown = [_shown(name, before), _shown(name, after)]
    if shown[0] == shown[1]:  # the default, written out or left to PVE
        shown = [
            f"{word} (default)" if value is None else word for word, value in zip(shown, (before, after), strict=True)
        ]
    return f"{name} {' -> '.join(shown)}"


def _shown(name: str, value: str | None) -> str:
    if value is None:
        default = TABLE[name].default if name in TABLE else None
        return _shown(name, default) if default is not None else "(unset)"
    if name in TABLE and TABLE[name].kind is Kind.BOOLEAN:
        return {"1": "true", "0": "false"}.get(value, value)
    return value


@dataclass(frozen=True, slots=True)
class Switch(Action):
    """A volume comes to another slot; nothing is copied.

    :param unplugged: whether an earlier call has taken it from its old slot already (see :class:`Unplug`).
    """

    source: Slot
    before: Drive
    drive: Drive
    boot_follows: bool = False
    unplugged: bool = False

    @property
    def line(self) -> Line:
        dropped = sorted({key for key, _value in self.before.options} - {key for key, _value in self.drive.options})
        notes = ["same volume"]
        if self.boot_follows and not self.drive.is_cdrom:
            notes.append("boot order follows")
        if dropped and self.slot is not None:
            notes.append(f"without {', '.join(dropped)}, which {self.slot.bus} does not have")
        changed = Change(self.slot, self.before.with_options(dict.fromkeys(dropped)), self.drive)
        if changed.names:
            notes.append(changed.line.what)
        return Line(">", str(self.slot), f"was {self.source}", ", ".join(notes))

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield str(self.slot), str(self.drive)

    @property
    def deletions(self) -> Iterator[str]:
        if not self.unplugged:
            yield str(self.source)


@dataclass(frozen=True, slots=True)
class Prepare(Action):
    """What PVE does not carry over is taken off a drive of another guest, while it is still in its slot there."""

    after: Drive

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield str(self.slot), str(self.after)


@dataclass(frozen=True, slots=True)
class Reassign(Action):
    """A volume of another guest becomes this guest's: PVE renames it, nothing is copied.

    :param giver: the other guest.
    :param source: the slot that the volume has there, which may be an ``unusedN``.
    :param before: the drive as it is there.
    :param prepared: the drive as it has to be there for PVE to carry it over.
    :param drive: the drive as it arrives.
    """

    giver: Guest
    source: Slot
    before: Drive
    prepared: Drive
    drive: Drive

    @property
    def line(self) -> Line:
        notes = ["same volume under a new name"]
        dropped = _lacking(self.slot, self.before)
        if dropped and self.slot is not None:
            notes.append(f"without {', '.join(dropped)}, which {self.slot.bus} does not have")
        changed = Change(self.slot, self.before.with_options(dict.fromkeys(dropped)), self.prepared)
        if changed.names:
            notes.append(changed.line.what)
        boot = self.giver.configured.boot
        if boot is not None and str(self.source) in boot.devices:
            notes.append(f"leaves the boot order of {self.giver.name}")
        return Line(
            ">", str(self.slot), f"was {self.source} of {self.giver.name} ({self.giver.vmid})", ", ".join(notes)
        )


@dataclass(frozen=True, slots=True)
class Unplug(Action):
    """The first half of a :class:`Switch` of a running guest: its old slot is emptied in a call of its own."""

    drive: Drive

    @property
    def deletions(self) -> Iterator[str]:
        yield str(self.slot)


@dataclass(frozen=True, slots=True)
class Detach(Action):
    """A slot is emptied.

    :param kept: whether PVE keeps the volume as ``unusedN``, which it does with the guest's own.
    """

    drive: Drive
    kept: bool = True

    @property
    def line(self) -> Line:
        if self.drive.is_cdrom:
            return Line("-", str(self.slot), "CD-ROM drive removed")
        fate = "kept as unused" if self.kept else "stays as it is"
        return Line("-", str(self.slot), "detached", f"{self.drive.volume} {fate}")

    @property
    def deletions(self) -> Iterator[str]:
        yield str(self.slot)


@dataclass(frozen=True, slots=True)
class Destroy(Action):
    """A volume is destroyed, and its slot emptied."""

    volume: str
    size: int | None = None

    @property
    def line(self) -> Line:
        size = f" ({human_size(self.size)})" if self.size else ""
        return Line("!", str(self.slot), f"volume {self.volume}{size} is destroyed")

    @property
    def deletions(self) -> Iterator[str]:
        yield str(self.slot)


@dataclass(frozen=True, slots=True)
class Resize(Action):
    """A disk grows. Sizes in bytes."""

    before: int | None
    after: int

    @property
    def line(self) -> Line:
        words = [human_size(self.before) if self.before else "?", human_size(self.after)]
        if words[0] == words[1] and self.before:  # too little to be seen in two decimals
            words = [format_pve_size(self.before), format_pve_size(self.after)]
        return Line("~", str(self.slot), " -> ".join(words), "then guest_grow for partitions and file systems")


@dataclass(frozen=True, slots=True)
class Move(Action):
    """A disk is copied to another storage or into another format.

    :param again: whether an earlier step has made the volume that is copied.
    """

    drive: Drive
    storage: str
    format: str | None
    new_format: str
    delete_source: bool
    again: bool = False

    @property
    def line(self) -> Line:
        places = [f"{self.drive.storage} -> {self.storage}"] if self.drive.storage != self.storage else []
        if self.drive.format != self.new_format:
            places.append(f"{self.drive.format} -> {self.new_format}")
        source = self.drive.volume
        if self.drive.is_new:
            source = "the copy" if self.again else "its old volume"
        fate = "destroyed" if self.delete_source else "kept as unused"
        if self.drive.is_cloudinit:
            fate = "destroyed, its content is made anew"
        return Line("~", str(self.slot), ", ".join(places) or f"copied on {self.storage}", f"{source} {fate}")

    @property
    def loss(self) -> Line | None:
        """The volume that is destroyed once it is copied, as a line of its own."""
        if not self.delete_source or self.drive.is_new:
            return None
        return Line("!", str(self.slot), f"volume {self.drive.volume} is destroyed", "once it is copied")


@dataclass(frozen=True, slots=True)
class Controller(Action):
    """The SCSI controller changes."""

    before: str | None
    after: str

    @property
    def line(self) -> Line:
        return Line("~", "scsihw", f"{self.before or 'lsi (default)'} -> {self.after}")

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield "scsihw", self.after


@dataclass(frozen=True, slots=True)
class BootOrder(Action):
    """The boot order changes, because it was declared or because a listed drive moved."""

    before: Boot | None
    after: Boot

    @property
    def line(self) -> Line:
        before = "(unset)" if self.before is None else self.before.text or " ".join(self.before.devices)
        return Line("~", "boot", f"{before or '(nothing)'} -> {' '.join(self.after.devices) or '(nothing)'}")

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield "boot", str(self.after)


@dataclass(frozen=True, slots=True)
class BootDisk(Action):
    """The boot disk of PVE's older form follows its drive."""

    before: str
    after: str

    @property
    def line(self) -> Line:
        return Line("~", "bootdisk", f"{self.before} -> {self.after}")

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        yield "bootdisk", self.after


@dataclass(frozen=True, slots=True)
class Note(Action):
    """The journal in the guest's notes is written or cleared (see journal.py)."""

    description: str

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        if self.description:
            yield "description", self.description

    @property
    def deletions(self) -> Iterator[str]:
        if not self.description:
            yield "description"


@dataclass(frozen=True, slots=True)
class Revert(Action):
    """Pending values that somebody left behind are taken back."""

    keys: tuple[str, ...]

    @property
    def line(self) -> Line:
        return Line("~", "pending", f"{', '.join(self.keys)} taken back")


@dataclass(frozen=True, slots=True)
class Power(Action):
    """The guest is shut down or started, because the task allows it."""

    start: bool

    @property
    def verb(self) -> str:
        return "start" if self.start else "shutdown"

    @property
    def line(self) -> Line:
        return Line("~", "power", "started again" if self.start else "shut down")


class CallKind(str, Enum):
    """Which call of PVE carries steps out."""

    REVERT = "revert"
    CONFIG = "config"
    DESTROY = "destroy"
    RESIZE = "resize"
    MOVE = "move"
    REASSIGN = "reassign"
    SHUTDOWN = "shutdown"
    START = "start"


@dataclass(frozen=True, slots=True)
class Call:
    """One call and the steps that it carries out.

    :param parameters: as PVE takes them, without the digest.
    :param giver: the guest that it is sent to, where that is not the one that is planned for.
    """

    kind: CallKind
    actions: tuple[Action, ...]
    parameters: tuple[tuple[str, str], ...] = ()
    giver: Guest | None = None

    def parameter(self, name: str) -> str | None:
        """The value of a parameter, or ``None``."""
        return dict(self.parameters).get(name)


def config_call(actions: tuple[Action, ...]) -> Call:
    """One ``POST config`` that carries all the given steps."""
    values: dict[str, str] = {}
    gone: list[str] = []
    for action in actions:
        values.update(action.settings)
        gone.extend(action.deletions)
    if gone:
        values["delete"] = ",".join(gone)
    return Call(CallKind.CONFIG, actions, tuple(values.items()))


def drive_request(storage: str, amount: str, options: Mapping[str, str]) -> str:
    """The drive string that makes PVE allocate: ``tank:500,cache=none``."""
    return ",".join([f"{storage}:{amount}", *(f"{key}={value}" for key, value in sorted(options.items()))])
