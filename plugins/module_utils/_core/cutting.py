# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Cuts the steps of a plan into calls: as few as possible, in an order in which none of PVE's hazards can arise.

PVE's configuration calls are not atomic. What is unsafe or has no fixed order in one call goes into several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from .actions import (
    Action,
    BootOrder,
    Call,
    CallKind,
    Change,
    Destroy,
    Media,
    Move,
    Note,
    Power,
    Prepare,
    Reassign,
    Resize,
    Switch,
    Unplug,
    config_call,
)
from .draft import Draft
from .drive import Drive, new_volume
from .guest import Guest
from .journal import read_journal, write_journal
from .size import format_pve_size
from .slot import Slot


def cut_calls(draft: Draft) -> tuple[Call, ...]:
    """Cut the steps into calls, in an order in which none of PVE's hazards can arise.

    Copies and resizes of a running guest's drives come before changes that will wait for its next start: the waiting
    value would otherwise name the old volume or size, and bring it back at that start. What comes from other guests
    comes first: options, sizes and boot orders that are declared beside it need a drive that is there.
    """
    changed = {action.slot for action in draft.actions if isinstance(action, Change)}
    copies = [action for action in draft.actions if isinstance(action, (Resize, Move))]
    early = [action for action in copies if draft.guest.running and action.slot in changed]
    late = [action for action in copies if action not in early]
    destroys = tuple(action for action in draft.actions if isinstance(action, Destroy))
    main = [action for action in draft.actions if not isinstance(action, (Resize, Move, Destroy, Reassign))]
    calls = list(_reassign_calls(draft))
    calls.extend(_copy_call(action) for action in early)
    calls.extend(_config_calls(draft, [_after_copies(action, early) for action in main]))
    if destroys:
        gone = ",".join(str(action.slot) for action in destroys)
        drives = [action for action in destroys if action.slot and not action.slot.is_unused]
        force = (("force", "1"),) if drives else ()
        calls.append(Call(CallKind.DESTROY, destroys, (("delete", gone), *force)))
    calls.extend(_copy_call(action) for action in late)
    return tuple(calls)


def _after_copies(action: Action, early: list[Resize | Move]) -> Action:
    """A change of options as it has to be sent after the drive has been resized or moved."""
    for copy in early:
        if isinstance(action, Change) and copy.slot == action.slot:
            action = _changed_after(action, copy)
    return action


def _changed_after(action: Change, copy: Resize | Move) -> Change:
    if isinstance(copy, Resize) and action.after.size == copy.after:
        return action
    if isinstance(copy, Resize):
        return replace(action, before=action.before.with_size(copy.after), after=action.after.with_size(copy.after))
    volume = new_volume(copy.storage, copy.new_format)
    return replace(
        action,
        before=action.before.with_volume(volume).with_options({"format": None}),
        after=action.after.with_volume(volume).with_options({"format": None}),
    )


def _copy_call(action: Resize | Move) -> Call:
    if isinstance(action, Resize):
        return Call(CallKind.RESIZE, (action,), (("disk", str(action.slot)), ("size", format_pve_size(action.after))))
    parameters = [("disk", str(action.slot)), ("storage", action.storage)]
    if action.format is not None:
        parameters.append(("format", action.format))
    if action.delete_source:
        parameters.append(("delete", "1"))
    return Call(CallKind.MOVE, (action,), tuple(parameters))


def _reassign_calls(draft: Draft) -> Iterator[Call]:
    """The calls that bring other guests' disks, each in its old slot made ready for it."""
    if draft.boot_to_note is not None and draft.boot_to_note != draft.journal.boot:
        journal = replace(draft.journal, boot=draft.boot_to_note)
        yield config_call((Note(None, write_journal(draft.guest.configured.description, journal)),))
    for action in draft.actions:
        if not isinstance(action, Reassign):
            continue
        if action.prepared != action.before:
            ready = Prepare(action.source, action.prepared)
            yield replace(config_call((ready,)), giver=action.giver)
        target = (("target-vmid", str(draft.guest.vmid)), ("target-disk", str(action.slot)))
        yield Call(CallKind.REASSIGN, (action,), (("disk", str(action.source)), *target), action.giver)


def _config_calls(draft: Draft, actions: list[Action]) -> Iterator[Call]:
    """One call for everything, except where PVE's handling of one call is unsafe or has no fixed order."""
    live = [a for a in actions if isinstance(a, Switch) and (draft.guest.running or a.unplugged)]
    rest = [action for action in actions if action not in live]
    if live:
        yield from _switch_calls(draft, live)
    yield from _ordered_calls(draft, rest)


def _ordered_calls(draft: Draft, actions: list[Action]) -> Iterator[Call]:
    """CD-ROM drives join the boot order in PVE's random order, and against one set in the same call: one a call.

    A declared order comes after them. One that follows a drive to its new slot comes before: it has to be in the call
    that takes the drive's old name out of the order, where it would be lost if the run ended there.
    """
    listed = draft.guest.live.boot.devices if draft.guest.live.boot else ()
    cdroms = [a for a in actions if isinstance(a, (Media, Switch)) and a.drive.is_cdrom and str(a.slot) not in listed]
    orders = [action for action in actions if isinstance(action, BootOrder)]
    follows = bool(orders) and draft.layout.boot is None
    apart: list[Action] = [*(cdroms if follows else cdroms[1:])]
    if cdroms and listed and not follows:
        apart.extend(orders)
    together = tuple(action for action in actions if action not in apart)
    if together:
        yield config_call(together)
    for action in apart:
        yield config_call((action,))


def _switch_calls(draft: Draft, live: list[Switch]) -> Iterator[Call]:
    """A running guest's drives change their slots in two calls, so that no volume is in two slots for a moment."""
    description = draft.guest.configured.description
    plugged = [action for action in live if not action.unplugged]
    if plugged:
        noted = {action.slot: action.before for action in live if action.slot is not None}
        journal = replace(draft.journal, switches={**draft.journal.switches, **noted})
        unplugs = tuple(Unplug(action.source, action.before) for action in plugged)
        yield config_call((*unplugs, Note(None, write_journal(description, journal))))
    done = tuple(replace(action, unplugged=True) for action in live)
    cleared = Note(None, write_journal(description, replace(draft.journal, switches=switches_left(draft))))
    yield config_call((*done, cleared))


def power_down(guest: Guest) -> tuple[Call, ...]:
    """Calls that shut a guest down, after a note in the guest so that a killed run can be finished."""
    description = guest.configured.description
    noted = write_journal(description, replace(read_journal(description), start=True))
    note = () if noted == description else (config_call((Note(None, noted),)),)
    return (*note, Call(CallKind.SHUTDOWN, (Power(None, start=False),)))


def finish_power(draft: Draft) -> tuple[Call, ...]:
    """Calls that start a guest which was shut down only for its changes, by this run or by one that was killed."""
    if not draft.journal.start or draft.layout.power != "stop_if_needed":
        return ()
    left = replace(draft.journal, start=False, boot=None, switches=switches_left(draft))
    cleared = Note(None, write_journal(draft.guest.configured.description, left))
    start = () if draft.guest.running else (Call(CallKind.START, (Power(None, start=True),)),)
    return (*start, config_call((cleared,)))


def switches_left(draft: Draft) -> Mapping[Slot, Drive]:
    """What the journal says about slots to which no step of this plan brings their drive."""
    done = {action.slot for action in draft.actions if isinstance(action, Switch)}
    return {slot: drive for slot, drive in draft.journal.switches.items() if slot not in done}
