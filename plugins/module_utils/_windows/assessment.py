# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where a guest stands before anything is done to it, and what a migration to VirtIO would be.

What is wrong with the guest as such makes it impossible; what is only wrong with how it was asked is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from .._core.drive import make_drive, parse_drive
from .._core.errors import Refusal
from .._core.guest import Guest
from .._core.layout import Disk, Layout
from .._core.plan import Facts, Plan
from .._core.planner import make_plan
from .._core.power import agent_enabled
from .._core.projection import can_hotplug
from .._core.slot import SLOT_COUNT, Slot, find_slot
from .inside import Windows
from .note import LONGEST_DESCRIPTION, Guard, Journal, Phase, write_note
from .placement import HELPER_SERIAL, Keys, differing, free_slots, is_helper, value_of
from .releases import DRIVER_OF_BUS, releases_of
from .rights import lacking, may_ask
from .situation import Situation, Wishes, boot_slot, can_start, missing, online_disks

#: PVE allocates in GiB; Windows only has to see the disk.
_HELPER_SIZE = "1"
#: How a PVE calls systems that are a Windows. Source: qemu-server 9.2.6, ``PVE/QemuServer/Helpers.pm``.
_WINDOWS = ("win", "w2k", "wxp", "wvista")
#: On q35 the other IDE slots share a channel that Windows does not always find. Source: pve-manager, GuestImport.js.
_Q35_IDE = (2, 0)
_PC_IDE = (2, 0, 3, 1)
_ROOM_TO_GROW = 512
#: What a person has to do who is asked for a verdict.
LOOK_AT_IT = (
    "it was started from VirtIO and has no agent to say how it is: look at its console, then run again with"
    " verdict: commit or verdict: roll_back"
)


class Standing(str, Enum):
    """Where a guest stands."""

    ON_VIRTIO = "on_virtio"
    STAGED = "staged"
    NEEDS_DRIVERS = "needs_drivers"
    IMPOSSIBLE = "impossible"
    UNDER_WAY = "under_way"
    NEEDS_VERDICT = "needs_verdict"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found.

    :param reason: why it stands there, a clause; empty where the standing says it all.
    :param refusals: what keeps a migration from beginning, the impossible included.
    :param journal: where a migration would begin, ``None`` when there is nothing to do or it can't.
    """

    standing: Standing
    reason: str = ""
    refusals: tuple[Refusal, ...] = ()
    journal: Journal | None = None


def is_windows(guest: Guest) -> bool:
    """Whether PVE takes the guest for a Windows."""
    return (guest.ostype or "").startswith(_WINDOWS)


def has_virtio_controller(guest: Guest) -> bool:
    """Whether the SCSI disks of a guest hang on VirtIO."""
    return (guest.configured.scsihw or "lsi").startswith("virtio-scsi")


def is_paravirtual(guest: Guest, slot: Slot) -> bool:
    """Whether a slot hangs on VirtIO."""
    return slot.bus == "virtio" or (slot.bus == "scsi" and has_virtio_controller(guest))


def driver_of(guest: Guest, slot: Slot) -> str | None:
    """The VirtIO driver that a slot needs, ``None`` for none."""
    return DRIVER_OF_BUS[slot.bus] if is_paravirtual(guest, slot) else None


def assess(now: Situation) -> Assessment:
    """Where a guest stands. With a journal that has not ended, the journal decides and not this."""
    guest, wishes = now.guest, now.wishes
    if now.journal is not None and now.journal.phase is not Phase.ROLLED_BACK:
        if _awaits_verdict(now, now.journal):
            return Assessment(Standing.NEEDS_VERDICT, LOOK_AT_IT)
        return Assessment(Standing.UNDER_WAY, f"in the phase {now.journal.phase.value}")
    impossible = tuple(_impossible(now))
    boot = boot_slot(guest)
    if impossible or boot is None:
        reasons = "; ".join(refusal.problem for refusal in impossible)
        return Assessment(Standing.IMPOSSIBLE, reasons, impossible)
    wanted = _wanted(guest, boot, wishes)
    if not wanted:
        return Assessment(Standing.ON_VIRTIO)
    if now.journal is not None and not wishes.retry:
        return Assessment(Standing.ROLLED_BACK, now.journal.reason)
    move = _Move.of(guest, boot, wanted, wishes)
    proof = _proof(now, boot)
    refusals = [*move.refusals, *_refusals(now, move, proof)]
    journal = None if refusals else _begin(now, move, proof)
    if journal is not None and (too_long := _too_long(guest, journal)):
        refusals, journal = [too_long], None
    standing = Standing.STAGED if proof else Standing.NEEDS_DRIVERS
    return Assessment(standing, _why(now, proof), tuple(refusals), journal)


def _awaits_verdict(now: Situation, journal: Journal) -> bool:
    """Whether it was started from its new slots, and neither an agent nor a person has said how it is."""
    started = journal.phase is Phase.PROBATION and now.guest.running and not differing(now.guest.live, journal.after)
    return started and now.windows is None and not journal.answered


def in_one_line(refusals: tuple[Refusal, ...]) -> str:
    """Refusals of one guest, without its name: for a reason, which is told beside it."""
    return ". ".join(str(refusal).removeprefix(f"{refusal.guest}: ") for refusal in refusals)


def _why(now: Situation, proof: str) -> str:
    if proof:
        return proof
    if now.windows is not None:
        return missing(now.windows, now.wishes.driver)
    seen = "its agent does not answer" if now.guest.running else "it is stopped"
    if now.guest.running and not may_ask(now.held, now.guest):
        seen = "the user may not ask its agent"
    return f"{seen}, so nobody can say which drivers it has"


def _refusal(guest: Guest, problem: str, remedy: str, option: str = "", value: str = "", slot: str = "") -> Refusal:
    return Refusal(guest.label, slot, option, value, problem, remedy)


# ---- what is impossible


def _impossible(now: Situation) -> Iterator[Refusal]:
    guest = now.guest
    if now.damage is not None:
        yield _refusal(guest, now.damage.problem, now.damage.remedy)
        return
    if not is_windows(guest):
        found = guest.ostype or "none"
        yield _refusal(guest, f"it is no Windows (its ostype is {found})", "set the ostype in PVE if it is one")
        return
    if guest.template:
        yield _refusal(guest, "it is a template, and linked clones may depend on its disks", "migrate a clone instead")
    for slot, text in guest.configured.unreadable.items():
        yield _refusal(guest, f"PVE has '{text}' there, which can't be read", "correct it in PVE first", slot=str(slot))
    if boot_slot(guest) is None:
        yield _refusal(guest, "it is not known which disk it starts from", "put the disk into the boot order in PVE")
    yield from _without_driver(guest, now.windows, now.wishes)


def _without_driver(guest: Guest, windows: Windows | None, wishes: Wishes) -> Iterator[Refusal]:
    """For some Windows there is no driver at all, for some only the one of the other bus."""
    known = windows.release if windows else None
    rows = (known,) if known else releases_of(guest.ostype or "")
    if not rows and guest.ostype in ("w2k", "other"):
        yield _refusal(guest, "there are no VirtIO drivers for this Windows", "leave it on IDE")
    if rows and not any(wishes.driver in row.drivers for row in rows):
        title = rows[0].title
        yield _refusal(
            guest, f"there is no {wishes.driver} for {title}", "write bus: virtio", option="bus", value=wishes.bus
        )


# ---- what moves where


def _wanted(guest: Guest, boot: Slot, wishes: Wishes) -> list[Slot]:
    """The disks that are not on VirtIO, the boot disk first."""
    slots = [
        slot
        for slot, drive in guest.configured.drives.items()
        if drive.is_disk and not slot.is_firmware and not is_paravirtual(guest, slot)
    ]
    return sorted((slot for slot in slots if wishes.data_disks or slot == boot), key=lambda slot: slot != boot)


@dataclass(frozen=True, slots=True)
class _Move:
    """What goes where.

    :param targets: new slots and the slots that their disks come from.
    :param plan: how the module guest_disks would do it.
    """

    targets: Mapping[Slot, Slot]
    controller: str | None
    plan: Plan | None
    refusals: tuple[Refusal, ...] = ()

    @classmethod
    def of(cls, guest: Guest, boot: Slot, wanted: list[Slot], wishes: Wishes) -> _Move:
        moving = [slot for slot in wanted if slot.bus != wishes.bus]
        free = free_slots(guest.configured, wishes.bus, range(SLOT_COUNT[wishes.bus]))
        if len(free) < len(moving):
            reason = f"{len(moving)} disks need slots on {wishes.bus}, and {len(free)} are free"
            refusal = _refusal(guest, reason, "write data_disks: false", option="bus", value=wishes.bus)
            return cls({}, None, None, (refusal,))
        targets = dict(zip(free, moving, strict=False))
        changes = wishes.bus == "scsi" and not has_virtio_controller(guest)
        controller = "virtio-scsi-single" if changes else None
        order = None
        if guest.configured.boot is None and guest.configured.bootdisk is None:
            # PVE would take the first disk that it finds, which may be another one in the new slots.
            order = (str(next((new for new, old in targets.items() if old == boot), boot)),)
        layout = Layout(
            vmid=guest.vmid,
            disks=tuple(Disk(new, moved_from=old) for new, old in targets.items()),
            scsihw=controller,
            boot=order,
        )
        plan = make_plan(Facts(_stopped(guest)), layout)
        return cls(MappingProxyType(targets), controller, plan, plan.refusals)

    @property
    def after(self) -> Keys:
        """The keys that change, as they will be."""
        if self.plan is None:
            return MappingProxyType({})
        slots = {str(slot) for pair in self.targets.items() for slot in pair}
        before, after = self.plan.before.configured, self.plan.after.configured
        others = {key for key in ("boot", "bootdisk", "scsihw") if value_of(before, key) != value_of(after, key)}
        return MappingProxyType({key: value_of(after, key) for key in sorted(slots | others)})


def _stopped(guest: Guest) -> Guest:
    """The guest as it will be when the switch is made."""
    nothing: Mapping[str, int] = MappingProxyType({})
    return replace(guest, running=False, live=guest.configured, waiting=frozenset(), deleting=nothing)


# ---- what is refused


def _proof(now: Situation, boot: Slot) -> str:
    """How it is known that Windows can start from the new slot, empty when it is not."""
    wishes, windows = now.wishes, now.windows
    if driver_of(now.guest, boot) == wishes.driver:
        return f"it starts from {boot} already"
    if windows is not None and can_start(windows, wishes.driver):
        return f"{windows.product} starts {wishes.driver} while it boots"
    if wishes.driver in wishes.injected:
        return f"{wishes.driver} was put into the stopped guest's disk"
    if wishes.switch_without_proof:
        return "nothing but switch_without_proof"
    return ""


def _refusals(now: Situation, move: _Move, proof: str) -> Iterator[Refusal]:
    guest, wishes = now.guest, now.wishes
    if guest.changed_keys:
        keys = ", ".join(sorted(guest.changed_keys))
        yield _refusal(guest, f"{keys} waits for the next start", "restart it, or take the change back, first")
    # A Windows that may not be asked could turn out to need all that it takes.
    online = not proof and (_goes_online(now) or (guest.running and not may_ask(now.held, guest)))
    if lacks := lacking(now.held, guest, wishes, online=online):
        yield _refusal(guest, f"the user lacks {lacks}", "grant it for the migration")
    if now.ha and not wishes.force_stop:
        reason = "it is managed by HA, which stops a guest by force when it does not shut down in time"
        yield _refusal(guest, reason, "write force_stop: true, or take it out of HA")
    if wishes.iso is not None and not now.iso_exists:
        yield _refusal(guest, "there is no such image", "name an ISO as PVE lists it", option="iso", value=wishes.iso)
    if wishes.snapshot == "required" and now.unsnappable:
        reason = f"no snapshot can be made of it ({'; '.join(now.unsnappable)})"
        remedy = "write snapshot: if_possible, and have a backup"
        yield _refusal(guest, reason, remedy, option="snapshot", value=wishes.snapshot)
    if now.heard and wishes.staging != "offline":  # that it has no agent would be a wrong guess
        remedy = "see to its agent, or write staging: offline"
        yield _refusal(guest, f"its agent is there, and Windows can't be asked: {now.heard}", remedy)
    if now.windows is not None and not (now.windows.boot_disk and now.windows.boot_disk.service):
        reason = "Windows can't say which driver its system disk hangs on, so nobody could tell afterwards"
        yield _refusal(guest, reason, "repair its WMI, or take the agent out of its options in PVE and say yourself")
    if not proof and _goes_online(now):
        yield from _online_refusals(now, move)


def _goes_online(now: Situation) -> bool:
    return now.wishes.staging == "online" or (now.wishes.staging == "auto" and now.windows is not None)


def _online_refusals(now: Situation, move: _Move) -> Iterator[Refusal]:
    guest, wishes = now.guest, now.wishes
    staging = {"option": "staging", "value": wishes.staging}
    if now.windows is None and guest.running and not now.heard and may_ask(now.held, guest):
        yield _refusal(guest, "its guest agent does not answer", "write staging: offline", **staging)
    if now.windows is not None and now.windows.powershell is None:
        yield _refusal(guest, f"{now.windows.product} has no PowerShell", "write staging: offline", **staging)
    if not agent_enabled(guest):
        yield _refusal(guest, "its configuration has no guest agent", "enable it, or write staging: offline", **staging)
    if move.controller and any(slot.bus == "scsi" and d.is_disk for slot, d in guest.configured.drives.items()):
        held = guest.configured.scsihw or "lsi"
        reason = f"its disks are on {held}, and Windows can't see another controller beside it"
        yield _refusal(guest, reason, "write staging: offline", **staging)
    elif not move.targets:
        yield _refusal(guest, "no slot changes, so Windows can't see its new place before", "write staging: offline")
    if now.windows is not None and now.windows.iso:
        return
    if wishes.iso is None:
        yield _refusal(guest, "Windows needs the driver ISO", "name it with iso, as a storage calls it", option="iso")
    elif _medium_slot(guest, wishes.iso) is None:
        yield _refusal(guest, "no slot is free for a CD-ROM drive", "insert the ISO yourself", "iso", wishes.iso)


def _too_long(guest: Guest, journal: Journal) -> Refusal | None:
    length = len(write_note(guest.configured.description, journal)) + _ROOM_TO_GROW
    if length <= LONGEST_DESCRIPTION:
        return None
    reason = f"its notes would have {length} characters with the journal, and PVE takes {LONGEST_DESCRIPTION}"
    return _refusal(guest, reason, "shorten its notes")


# ---- where a migration begins


def _begin(now: Situation, move: _Move, proof: str) -> Journal:
    guest, wishes = now.guest, now.wishes
    online = not proof and _goes_online(now)
    equipment = _equipment(now, move) if online else {}
    keys = {*move.after, *equipment}
    if equipment:
        keys.add("boot")  # a new CD-ROM drive puts itself into it
    before = {key: value_of(guest.configured, key) for key in sorted(keys)}
    snapshot = wishes.snapshot != "never" and not now.unsnappable
    return Journal(
        phase=Phase.PREPARE,
        driver=wishes.driver,
        before=MappingProxyType(before),
        after=move.after,
        equipment=MappingProxyType(equipment),
        online=online,
        ran=guest.running,
        answered=now.windows is not None,
        snapshot=f"before_virtio_{guest.digest[:8]}" if snapshot else "",
        proof=proof,
        guard=guard_of(now.windows) if now.windows is not None else None,
    )


def guard_of(windows: Windows) -> Guard:
    """What Windows has now, to be restored at the end."""
    return Guard(
        bitlocker=protected(windows),
        fast_startup=windows.fast_startup,
        san_policy=windows.san_policy,
        online=online_disks(windows, online=True),
        letters=MappingProxyType(windows.letters),
        controllers=tuple(name for name, service in windows.controllers.items() if service.devices),
    )


def protected(windows: Windows) -> tuple[str, ...]:
    """The volumes whose BitLocker protection is on."""
    return tuple(sorted(volume for volume, state in (windows.bitlocker or {}).items() if state == "on"))


def _equipment(now: Situation, move: _Move) -> dict[str, str | None]:
    """What Windows has to see while its drivers are installed: the ISO, and a disk in the boot disk's new slot."""
    guest, wishes = now.guest, now.wishes
    equipment: dict[str, str | None] = {}
    if wishes.iso is not None and not (now.windows is not None and now.windows.iso):
        slot = _medium_slot(guest, wishes.iso)
        drive = guest.configured.drives.get(slot) if slot else None
        if slot is not None and (drive is None or drive.volume != wishes.iso):
            equipment[str(slot)] = str(make_drive(wishes.iso, [("media", "cdrom")]))
    target, source = next(iter(move.targets.items()))
    storage = guest.configured.drives[source].storage
    options = [("backup", "0"), ("serial", HELPER_SERIAL)]
    equipment[str(target)] = str(make_drive(f"{storage}:{_HELPER_SIZE}", options))
    if move.controller:
        equipment["scsihw"] = move.controller
    return equipment


def _medium_slot(guest: Guest, iso: str) -> Slot | None:
    """Where the ISO goes: the drive that holds it, else an empty drive, which needs no restart, else a free slot."""
    state = guest.configured
    drives = {slot: drive for slot, drive in state.drives.items() if drive.is_cdrom}
    holding = [slot for slot, drive in drives.items() if drive.volume == iso]
    empty = [slot for slot, drive in drives.items() if drive.volume == "none"]
    q35 = (guest.machine or "").startswith(("q35", "pc-q35"))
    free = free_slots(state, "ide", _Q35_IDE if q35 else _PC_IDE) + free_slots(state, "sata", range(SLOT_COUNT["sata"]))
    return next(iter([*holding, *empty, *free]), None)


def can_equip_running(guest: Guest, equipment: Keys) -> bool:
    """Whether a running guest takes its equipment up at once.

    Disks on SCSI and VirtIO can be plugged and the medium of a drive exchanged; other things wait for the next start.
    """
    for key in differing(guest.live, equipment):
        slot = find_slot(key)
        text = equipment[key]
        if slot is None or text is None:
            return False
        current = guest.live.drives.get(slot)
        helper = is_helper(parse_drive(text))
        if helper and not can_hotplug(slot, guest):
            return False
        if not helper and (current is None or not current.is_cdrom):
            return False
    return True
