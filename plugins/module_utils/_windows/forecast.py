# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a migration will do, told before it does it: the state machine is played through as if every step succeeded."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .._core.actions import Line
from .._core.drive import Drive, make_drive, parse_drive
from .._core.guest import Boot, Guest, parse_boot
from .._core.slot import Slot, find_slot
from .assessment import driver_of
from .inside import Disk, DriverState, Service, Windows
from .migration import next_step, remember
from .note import write_note
from .placement import Keys
from .situation import Situation, boot_slot
from .steps import Awaited, Configure, Destroy, End, Inside, Note, Power, Revert, Snapshot, Stage, State, Step, Wait

#: More than any way through the machine has.
_MOST_STEPS = 60


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to come.

    :param lines: for people; empty when nothing is done.
    :param end: how it ends if every step succeeds.
    :param changes: whether anything is done.
    :param idle: whether there is nothing to wait for either.
    :param steps: what leads to the end.
    """

    lines: tuple[Line, ...]
    end: End
    changes: bool
    idle: bool
    steps: tuple[Step, ...] = ()


def foretell(now: Situation) -> Forecast:
    """Play a migration through from where it stands.

    An ISO that is not there yet may be brought by then; a real run looks, and is refused without it.
    """
    lines: list[Line] = []
    if not now.iso_exists:
        lines.append(Line("?", "iso", f"{now.wishes.iso} is not there yet", "without it the run is refused"))
        now = replace(now, iso_exists=True)
    play = _Play(now)
    end = play.through()
    if not play.changes:
        return Forecast((), end, changes=False, idle=not play.steps)
    return Forecast((*lines, *play.lines, *_what_then(play.now, end)), end, changes=True, idle=False, steps=play.steps)


class _Play:
    """The state machine, played through from a situation to an end."""

    def __init__(self, now: Situation) -> None:
        self.now = now
        self.lines: list[Line] = []
        self.steps: tuple[Step, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything was done but waiting."""
        return any(not isinstance(step, Wait) for step in self.steps)

    def through(self) -> End:
        """To the end."""
        windows = self.now.windows or _UNKNOWN
        for _number in range(_MOST_STEPS):
            now = self.now
            step = next_step(now)
            if isinstance(step, End):
                return step
            self.steps = (*self.steps, step)
            self.lines.extend(step.lines)
            if isinstance(step, Wait) and now.journal is not None and now.journal.online and windows is _UNKNOWN:
                self.lines.append(Line("?", "windows", "is asked then, and guarded as far as it needs that"))
            if now.windows is not None:
                windows = now.windows
            after = _carried_out(now, step, windows)
            self.now = replace(after, memory=remember(after.memory, step, now.journal))
        raise AssertionError("the migration's state machine does not come to an end")


def _what_then(now: Situation, end: End) -> tuple[Line, ...]:
    """What comes after the end of this run, by another one: nothing of it is done before it was told."""
    if end.state is State.NEEDS_VERDICT:
        return (Line("?", "then", end.reason),)
    if end.state is not State.NEEDS_INJECTION:
        return ()
    first = Line("?", "then", end.reason, "with it, a later run does this:")
    wishes = replace(now.wishes, injected=now.wishes.injected | {now.wishes.driver})
    later = _Play(replace(now, wishes=wishes))
    return (first, *_after(later))


def _after(play: _Play) -> tuple[Line, ...]:
    end = play.through()
    return (*play.lines, *_what_then(play.now, end))


def _carried_out(now: Situation, step: Step, windows: Windows) -> Situation:
    """The situation after a step that went well.

    :param windows: what Windows said last, for when it answers again.
    """
    if isinstance(step, Note):
        notes = write_note(now.guest.configured.description, step.journal)
        return replace(_with_state(now, description=notes), journal=step.journal)
    if isinstance(step, Revert):
        return replace(now, guest=replace(now.guest, configured=now.guest.live, waiting=frozenset(), deleting=_NOTHING))
    if isinstance(step, Configure):
        return _configured(now, step)
    if isinstance(step, Destroy):
        unused = {slot: name for slot, name in now.guest.configured.unused.items() if name != step.volume}
        return _with_state(now, unused=MappingProxyType(unused))
    if isinstance(step, Snapshot):
        names = now.snapshots - {step.name} if step.gone else now.snapshots | {step.name}
        return replace(now, snapshots=names)
    if isinstance(step, Power):
        return replace(now, guest=replace(now.guest, running=step.on), windows=None)
    return _inside(now, step, windows)


_NOTHING: Mapping[str, int] = MappingProxyType({})
#: A driver that Windows would start from, and a Windows that nobody has asked yet.
_INSTALLED = DriverState(service=Service(start=0, devices=1), exists=True, image=True)
_UNKNOWN = Windows("Windows", None, "", 0, server=False, architecture=None, release=None)


def _inside(now: Situation, step: Step, windows: Windows) -> Situation:
    if isinstance(step, Wait) and step.what is Awaited.UNLOCKED:
        return replace(now, guest=replace(now.guest, lock=None))
    if isinstance(step, Wait):
        if now.journal is not None and not (now.journal.answered or now.journal.online):
            return replace(now, memory=replace(now.memory, late=now.memory.late | {step.what.value}))
        slot = boot_slot(now.guest)
        service = driver_of(now.guest, slot) if slot else None
        disk = replace(windows.boot_disk or Disk(0, None, None), service=service or "storahci")
        return replace(now, windows=replace(windows, boot_disk=disk))
    if isinstance(step, Stage):
        drivers = {**windows.drivers, **dict.fromkeys(step.drivers, _INSTALLED)}
        return replace(now, windows=replace(windows, drivers=MappingProxyType(drivers)))
    if isinstance(step, Inside):
        return replace(now, windows=_set(windows, step.settings))
    return now


def _set(windows: Windows, settings: Mapping[str, object]) -> Windows:
    changes: dict[str, object] = {name: settings[name] for name in ("fast_startup", "san_policy") if name in settings}
    if "bitlocker" in settings:
        state = "on" if settings["bitlocker"] == "resumed" else "suspended"
        named = t.cast("list[str]", settings["bitlocker_volumes"])
        changes["bitlocker"] = MappingProxyType({**(windows.bitlocker or {}), **dict.fromkeys(named, state)})
    if "online" in settings:
        changes["disks"] = tuple(replace(disk, offline=False) for disk in windows.disks)
    return replace(windows, **changes)  # type: ignore[arg-type]


def _with_state(now: Situation, **changes: object) -> Situation:
    guest = now.guest
    states = {name: replace(getattr(guest, name), **changes) for name in ("configured", "live")}
    return replace(now, guest=replace(guest, **states))


def _configured(now: Situation, step: Configure) -> Situation:
    state = now.guest.configured
    drives, unused = dict(state.drives), dict(state.unused)
    others: dict[str, object] = {}
    for key, text in step.keys.items():
        slot = find_slot(key)
        if slot is None:
            others[key] = text if text is None or key != "boot" else parse_boot(text)
        elif text is None:
            drives.pop(slot, None)
        else:
            drives[slot] = _arrived(now.guest, parse_drive(text))
    if "boot" not in step.keys and state.boot is not None:
        others["boot"] = _with_media(state.boot, step.keys)
    held = {drive.volume for drive in drives.values()}
    kept = {name: slot for slot, name in unused.items() if name not in held}
    for drive in state.drives.values():
        if drive.is_disk and drive.volume not in held and drive.volume not in kept:
            kept[drive.volume] = _unused_slot(kept)
    unused = {slot: name for name, slot in kept.items()}
    after = replace(
        state,
        drives=MappingProxyType(dict(sorted(drives.items()))),
        unused=MappingProxyType(unused),
        **others,  # type: ignore[arg-type]
    )
    return replace(now, guest=replace(now.guest, configured=after, live=after))


def _with_media(boot: Boot, keys: Keys) -> Boot:
    """PVE appends a CD-ROM drive that is set. Source: qemu-server 9.2.6, ``PVE/API2/Qemu.pm``, update_vm_api."""
    media = [key for key, text in keys.items() if text is not None and find_slot(key) and parse_drive(text).is_cdrom]
    new = (key for key in media if key not in boot.devices)
    return Boot((*boot.devices, *new)) if boot.devices else boot


def _arrived(guest: Guest, drive: Drive) -> Drive:
    """A drive as PVE will have it: what is asked for as ``storage:size`` gets a name of its own."""
    storage, _colon, name = drive.volume.partition(":")
    return make_drive(f"{storage}:vm-{guest.vmid}-helper", drive.options) if name.isdigit() else drive


def _unused_slot(taken: Mapping[str, Slot]) -> Slot:
    numbers = {slot.index for slot in taken.values()}
    return Slot("unused", next(number for number in range(256) if number not in numbers))
