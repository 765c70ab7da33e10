# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What PVE will have made of a guest after a call: the state that check mode shows and a real run is compared with.

Source: qemu-server 9.2.6, ``PVE/API2/Qemu.pm`` ``update_vm_api`` and ``PVE/QemuServer.pm``
``vmconfig_hotplug_pending``, as seen on a PVE 9.2.11.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .actions import (
    Action,
    Attach,
    Call,
    CallKind,
    Change,
    Create,
    Media,
    Move,
    Note,
    Prepare,
    Reassign,
    Resize,
    Switch,
)
from .drive import NEW_VOLUME, Drive, make_drive, new_volume
from .guest import HARDWARE_KEYS, Boot, Guest, Hardware, Volume, parse_boot
from .options import TABLE, Effect
from .slot import SLOT_COUNT, Slot, find_slot

TPM_SIZE = 4 * 1024**2
#: Options of old configurations that PVE leaves out when it writes a drive again. Source: Drive.pm.
_DROPPED = ("cyls", "heads", "secs", "trans")


class _State:
    """A hardware state while a call changes it.

    :param order: the boot order in force; PVE edits this one, not one that waits, when a listed drive goes or a
        CD-ROM drive comes.
    :param vmid: the guest, which keeps no volumes but its own.
    """

    def __init__(self, hardware: Hardware, order: Boot | None, vmid: int) -> None:
        self.vmid = vmid
        self.drives = dict(hardware.drives)
        self.unused = dict(hardware.unused)
        self.boot = hardware.boot
        self.order = order
        self.bootdisk = hardware.bootdisk
        self.scsihw = hardware.scsihw
        self.description = hardware.description
        self.unreadable = hardware.unreadable

    def frozen(self) -> Hardware:
        return Hardware(
            MappingProxyType(dict(sorted(self.drives.items()))),
            MappingProxyType(dict(sorted(self.unused.items()))),
            self.boot,
            self.bootdisk,
            self.scsihw,
            self.description,
            self.unreadable,
        )

    def keep(self, volume: str) -> None:
        """Make a volume unused, under the lowest free number, unless something still uses it."""
        if volume in self.unused.values() or any(drive.volume == volume for drive in self.drives.values()):
            return
        free = (Slot("unused", number) for number in range(SLOT_COUNT["unused"]))
        slot = next((slot for slot in free if slot not in self.unused), None)
        if slot is not None:
            self.unused[slot] = volume

    def put(self, slot: Slot, drive: Drive) -> None:
        before = self.drives.get(slot)
        self.drives[slot] = drive
        self.unused = {key: volume for key, volume in self.unused.items() if volume != drive.volume}
        if before is not None and before.volume != drive.volume and keeps_volume(before, self.vmid):
            self.keep(before.volume)
        if drive.is_cdrom:
            self._edit_order(slot, listed=True)

    def drop(self, slot: Slot, *, destroy: bool) -> None:
        if slot.is_unused:
            self.unused.pop(slot, None)
            return
        before = self.drives.pop(slot, None)
        self._edit_order(slot, listed=False)
        if before is not None and keeps_volume(before, self.vmid) and not destroy:
            self.keep(before.volume)

    def give(self, slot: Slot) -> None:
        """Let a drive go to another guest."""
        self.unused.pop(slot, None)
        if self.drives.pop(slot, None) is not None:
            self._edit_order(slot, listed=False)

    def _edit_order(self, slot: Slot, *, listed: bool) -> None:
        order, name = self.order, str(slot)
        if order is None or not order.devices or (name in order.devices) == listed:
            return
        self.order = Boot((*order.devices, name)) if listed else order.without([name])
        self.boot = self.order


def keeps_volume(drive: Drive, vmid: int) -> bool:
    """Whether PVE keeps the volume of an emptied slot as ``unusedN``: only a volume that the guest owns."""
    return drive.is_disk and drive.storage is not None and (drive.is_new or drive.owner == vmid)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What else a projection has to know.

    :param volumes: existing volumes by volume id, for the size of what is attached.
    """

    volumes: Mapping[str, Volume] = field(default_factory=lambda: MappingProxyType({}))


def project(guest: Guest, call: Call, knowledge: Knowledge | None = None) -> Guest:
    """The guest after a call that succeeds.

    Volumes that PVE will name have :data:`~.drive.NEW_VOLUME` as their name; the numbers of new ``unusedN`` entries
    are PVE's choice and only probable here.
    """
    known = knowledge or Knowledge()
    if call.giver is not None and call.kind is not CallKind.REASSIGN:
        return guest
    if call.kind is CallKind.REVERT:
        return _project_revert(guest, call)
    if call.kind is CallKind.SHUTDOWN:
        return _project_stop(guest)
    if call.kind is CallKind.START:
        return replace(guest, running=True)
    configured = _apply(guest, guest.configured, call, known, call.actions)
    if not guest.running:
        return replace(guest, configured=configured, live=configured)
    now = tuple(action for action in call.actions if written_at_once(action, guest))
    live = replace(_apply(guest, guest.live, call, known, now), boot=guest.live.boot)
    unused = _unused_while_running(guest.vmid, configured, live)
    return _with_waiting(
        replace(guest, configured=replace(configured, unused=unused), live=replace(live, unused=unused))
    )


def project_giver(guest: Guest, call: Call) -> Guest:
    """Another guest after a call of a plan that takes a disk from it."""
    if call.giver is None or call.giver.vmid != guest.vmid:
        return guest
    state = _State(guest.configured, guest.configured.boot, guest.vmid)
    for action in call.actions:
        if isinstance(action, Prepare) and action.slot is not None:
            state.drives[action.slot] = action.after
        elif isinstance(action, Reassign):
            state.give(action.source)
    hardware = state.frozen()
    if not guest.running:
        return replace(guest, configured=hardware, live=hardware)
    live = replace(guest.live, unused=hardware.unused)  # a running guest gives only what no slot uses
    return replace(guest, configured=hardware, live=live)


def _unused_while_running(vmid: int, configured: Hardware, live: Hardware) -> Mapping[Slot, str]:
    """The unused entries of both states: a volume whose deletion or replacement waits is used until the stop."""
    state = _State(configured, None, vmid)
    arriving = {drive.volume for drive in configured.drives.values()}
    state.unused = {slot: volume for slot, volume in live.unused.items() if volume not in arriving}
    used = {drive.volume for drive in live.drives.values()}
    for volume in configured.unused.values():
        if volume not in used:
            state.keep(volume)
    return state.frozen().unused


def _project_stop(guest: Guest) -> Guest:
    """What waits comes into force, and the volumes that lose their slots by that become unused."""
    state = _State(guest.configured, None, guest.vmid)
    for slot, drive in guest.live.drives.items():
        if keeps_volume(drive, guest.vmid) and guest.deleting.get(str(slot)) != 2:
            state.keep(drive.volume)
    hardware = state.frozen()
    return replace(
        guest,
        running=False,
        configured=hardware,
        live=hardware,
        waiting=frozenset(),
        deleting=MappingProxyType({}),
    )


def _project_revert(guest: Guest, call: Call) -> Guest:
    keys = frozenset((call.parameter("revert") or "").split(","))
    state = _State(guest.configured, None, guest.vmid)
    for key in sorted(keys):
        slot = find_slot(key)
        if slot is not None and slot in guest.live.drives:
            state.put(slot, guest.live.drives[slot])
        elif slot is not None and slot in state.drives:
            state.drop(slot, destroy=False)
    state.boot = guest.live.boot if "boot" in keys else state.boot
    state.bootdisk = guest.live.bootdisk if "bootdisk" in keys else state.bootdisk
    state.scsihw = guest.live.scsihw if "scsihw" in keys else state.scsihw
    live = replace(guest.live, unused=MappingProxyType(dict(state.unused)))
    kept = {key: how for key, how in guest.deleting.items() if key not in keys}
    return _with_waiting(
        replace(
            guest, configured=state.frozen(), live=live, waiting=guest.waiting - keys, deleting=MappingProxyType(kept)
        )
    )


def _with_waiting(guest: Guest) -> Guest:
    """The guest with its waiting keys as the difference of its two states; keys without a disk are kept."""
    before, after = guest.live, guest.configured
    waiting = {key for key in guest.waiting if find_slot(key) is None and key not in HARDWARE_KEYS}
    waiting |= {str(slot) for slot, drive in after.drives.items() if before.drives.get(slot) != drive}
    waiting |= {
        key for key in HARDWARE_KEYS if getattr(before, key) != getattr(after, key) and getattr(after, key) is not None
    }
    deleting = {key: how for key, how in guest.deleting.items() if find_slot(key) is None}
    deleting |= {str(slot): guest.deleting.get(str(slot), 1) for slot in before.drives if slot not in after.drives}
    return replace(guest, waiting=frozenset(waiting), deleting=MappingProxyType(deleting))


def _apply(guest: Guest, hardware: Hardware, call: Call, known: Knowledge, done: tuple[Action, ...]) -> Hardware:
    """A state of the guest after steps of one call, deletions first, in the order in which PVE handles them."""
    state = _State(hardware, guest.live.boot, guest.vmid)
    values = {key: value for action in done for key, value in action.settings}
    for key in sorted(key for action in done for key in action.deletions):
        slot = find_slot(key)
        if slot is not None:
            state.drop(slot, destroy=call.kind is CallKind.DESTROY)
        elif key == "description":
            state.description = None
    waiting = guest.changed_keys if hardware is guest.configured else frozenset[str]()
    for action in done:
        if not (isinstance(action, Resize) and str(action.slot) in waiting):  # what waits keeps the size that it names
            _apply_action(state, action, known)
    if "boot" in values:
        state.boot = parse_boot(values["boot"])
        state.bootdisk = None if state.boot.text is None else state.bootdisk
    state.scsihw = values.get("scsihw", state.scsihw)
    state.bootdisk = values.get("bootdisk", state.bootdisk)
    state.description = values.get("description", state.description)
    return state.frozen()


def _apply_action(state: _State, action: Action, known: Knowledge) -> None:
    slot = action.slot
    if slot is None:
        return
    if isinstance(action, (Create, Switch, Reassign)):
        state.put(slot, action.drive)
    elif isinstance(action, (Attach, Media)):
        volume = known.volumes.get(action.drive.volume)
        state.put(slot, action.drive.with_size(volume.size) if volume and volume.size else action.drive)
    elif isinstance(action, Change):
        state.put(slot, action.after)
    elif isinstance(action, Resize) and slot in state.drives:
        state.drives[slot] = state.drives[slot].with_size(action.after)
    elif isinstance(action, Move) and slot in state.drives:
        _move(state, slot, action)


def _move(state: _State, slot: Slot, action: Move) -> None:
    before = state.drives[slot]
    volume = new_volume(action.storage, action.new_format, cloudinit=before.is_cloudinit)
    state.drives[slot] = before.with_volume(volume).with_options({"format": None})
    if not action.delete_source and before.is_disk:  # PVE keeps no cloud-init drive's volume
        state.keep(before.volume)


def written_at_once(action: Action, guest: Guest) -> bool:
    """Whether the configuration in force has a change at once; for a running guest it may wait instead.

    What PVE writes at once but QEMU does not take up counts as at once here; see :func:`restart_keys`.
    """
    slot = action.slot
    if not guest.running or isinstance(action, (Resize, Move, Note)):
        return True
    if slot is None:
        return False
    if slot.is_unused:
        return True
    current = guest.live.drives.get(slot)
    if isinstance(action, Change) and current is not None and current.volume == action.after.volume:
        return all(effect_of(name) is not Effect.RESTART for name in Change(slot, current, action.after).names)
    if isinstance(action, Media) and current is not None and current.is_cdrom:
        return True
    return can_hotplug(slot, guest)


def restart_keys(guest: Guest, actions: Iterable[Action]) -> frozenset[str]:
    """What a running guest takes up only at its next start.

    :param guest: the guest as it is after the steps.
    :param actions: the steps of this run: what PVE wrote at once although QEMU did not take it up is told by them
        alone, because PVE shows it nowhere.
    """
    if not guest.running:
        return frozenset()
    keys = {
        f"{action.slot}.{name}"
        for action in actions
        if isinstance(action, Change)
        for name in action.names
        if effect_of(name) is Effect.SILENT
    }
    for key in guest.changed_keys:
        slot = find_slot(key)
        before, after = (state.drives.get(slot) if slot else None for state in (guest.live, guest.configured))
        if slot is None or before is None or after is None or before.volume != after.volume:
            keys.add(key)
        else:
            keys.update(f"{key}.{name}" for name in Change(slot, before, after).names)
    return frozenset(keys)


def can_hotplug(slot: Slot | None, guest: Guest) -> bool:
    """Whether PVE plugs and unplugs this slot of a running guest."""
    return slot is not None and slot.bus in ("scsi", "virtio") and guest.hotplug_disks


def effect_of(name: str) -> Effect:
    """What a change of an option does on a running guest; sizes and unknown options count as live."""
    return TABLE[name].effect if name in TABLE else Effect.LIVE


def new_drive(storage: str, size: int | None, options: Mapping[str, str], format_: str | None = None) -> Drive:
    """The projected drive of a volume that PVE will allocate; its size is left out where PVE decides it."""
    drive = make_drive(new_volume(storage, format_), options.items())
    return drive if size is None else drive.with_size(size)


def differences(projected: Hardware, actual: Hardware) -> tuple[str, ...]:
    """What of a projected state the real one does not have, in words; empty when they agree.

    Names of new volumes, sizes that PVE decides and the numbers of unused entries are not compared.
    """
    return tuple(_differences(projected, actual))


def _differences(projected: Hardware, actual: Hardware) -> Iterator[str]:
    for slot in sorted({*projected.drives, *actual.drives}):
        wanted, found = projected.drives.get(slot), actual.drives.get(slot)
        if wanted is None or found is None or not _same_drive(wanted, found):
            yield f"{slot}: expected {wanted or 'nothing'}, found {found or 'nothing'}"
    if not _same_volumes(projected.unused.values(), actual.unused.values()):
        expected, found_names = (
            ", ".join(sorted(side)) or "none" for side in (projected.unused.values(), actual.unused.values())
        )
        yield f"unused volumes: expected {expected}, found {found_names}"
    if projected.boot is not None and projected.boot != actual.boot:
        yield f"boot: expected '{projected.boot}', found '{actual.boot}'"
    if projected.scsihw != actual.scsihw:
        yield f"scsihw: expected {projected.scsihw}, found {actual.scsihw}"


def _same_drive(wanted: Drive, found: Drive) -> bool:
    same_volume = wanted.storage == found.storage if wanted.is_new else wanted.volume == found.volume
    rounded = wanted.size is not None and found.size is not None and found.made_of(wanted.size, found.size)
    ignored = {"format", *_DROPPED} | ({"size"} if wanted.size is None or rounded else set())
    return same_volume and _compared(wanted, ignored) == _compared(found, ignored)


def _compared(drive: Drive, ignored: set[str]) -> list[tuple[str, str]]:
    return [(key, value) for key, value in drive.options if key not in ignored]


def _same_volumes(wanted: Iterable[str], found: Iterable[str]) -> bool:
    def plain(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if not re.search(re.escape(NEW_VOLUME), name))

    names, others = plain(wanted), plain(found)
    return len(list(wanted)) == len(list(found)) and set(names) <= set(others)
