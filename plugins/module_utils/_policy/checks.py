# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What is no matter of taste: mistakes that any policy would name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType

from .._core.drive import Drive
from .._core.guards import find_leftovers
from .._core.guest import Guest
from .._core.projection import restart_keys
from .._core.size import human_size
from .._core.slot import Slot
from .findings import Finding, Place, Surroundings, Verdict, finding, mend_disk

_QEMU_SERVER = "qemu-server 9.2.6"
_SNAPSHOT_OPTION_ENDS = 10
_PVE_WITH_IT = 9
_HOST_CACHED = ("writethrough", "writeback", "unsafe")
#: Rules that an audit knows by name.
NATIVE_AIO, TWO_SLOTS, LSI = "aio-native-host-cache", "volume-in-two-slots", "lsi-controller"
RESTART, _SNAPSHOT, _BOOT = "restart-required", "snapshot-option", "boot-names-nothing"
#: Rules about how a guest starts, which are nothing to one that runs.
AT_START = (NATIVE_AIO, _SNAPSHOT, _BOOT)

#: Every verdict of this file, by its id.
VERDICTS = MappingProxyType(
    {
        verdict.rule: verdict
        for verdict in (
            Verdict(
                "cache-unsafe",
                "danger",
                "The guest's flushes are thrown away: when the host crashes or loses power, what the guest believes to "
                "be on disk is lost, and its file systems and databases are likely to be damaged.",
                f"{_QEMU_SERVER}, PVE/QemuServer/Blockdev.pm (no-flush)",
            ),
            Verdict(
                NATIVE_AIO,
                "danger",
                "QEMU refuses native AIO beside a host-cached mode: the guest will not start again.",
                "QEMU block/file-posix.c (aio=native was specified, but it requires cache.direct=on)",
            ),
            Verdict(
                TWO_SLOTS,
                "danger",
                "Two slots hold the same volume. As soon as the guest writes through both, its contents are destroyed.",
                f"{_QEMU_SERVER}, PVE/API2/Qemu.pm accepts it",
            ),
            Verdict(
                "leftover",
                "danger",
                "A call that failed has left this waiting. The next change, whatever it is about, would apply it.",
                f"{_QEMU_SERVER}, PVE/API2/Qemu.pm (update_vm_api applies all that is pending)",
            ),
            Verdict(
                _SNAPSHOT,
                "danger",
                "With machine version 10 or newer QEMU no longer throws writes away for snapshot=1, and the guest does "
                "not start.",
                f"{_QEMU_SERVER}, PVE/QemuServer/Blockdev.pm",
                since="9.0",
            ),
            Verdict(
                LSI,
                "warning",
                "The emulated LSI controller has had no driver in Windows since XP, is slow everywhere, and holds "
                "seven disks. PVE takes it when the configuration names none.",
                "PVE qm.adoc (SCSI controller); qemu-server 9.2.6, PVE/QemuServer.pm (scsihw default lsi)",
            ),
            Verdict(
                _BOOT,
                "warning",
                "The boot order names a device that the guest does not have.",
                f"{_QEMU_SERVER}, PVE/API2/Qemu.pm (invalid bootorder)",
            ),
            Verdict(
                "unreadable-drive",
                "warning",
                "The drive's text can't be read, so nothing is known or changed about it.",
                "the grammar of PVE's drive strings",
            ),
            Verdict(
                "unused-volume",
                "info",
                "No slot uses this volume, and it still takes space.",
                f"{_QEMU_SERVER}, PVE/QemuServer.pm (unusedN)",
            ),
            Verdict(
                "not-in-backup",
                "info",
                "Backups leave this disk out. If its data can't be made again, they should not.",
                "PVE vzdump (backup=0)",
            ),
            Verdict(
                RESTART,
                "info",
                "The running guest has not taken this up yet. It will at its next start.",
                f"{_QEMU_SERVER}, PVE/QemuServer.pm (vmconfig_hotplug_pending)",
            ),
        )
    }
)


def check_guest(guest: Guest, around: Surroundings) -> Iterator[Finding]:
    """Everything that is wrong with one guest whatever its policy."""
    for place, rule in _places(guest, around):
        yield finding(place, VERDICTS[rule])


def _places(guest: Guest, around: Surroundings) -> Iterator[tuple[Place, str]]:
    for slot, drive in guest.configured.drives.items():
        if drive.is_disk:
            yield from _disk(guest, slot, drive, around)
    yield from _shared(guest)
    yield from _controller(guest)
    yield from _boot(guest)
    yield from _waiting(guest)
    for slot, volume in guest.configured.unused.items():
        size = around.sizes.get(volume)
        shown = f"{volume} ({human_size(size)})" if size else volume
        yield (
            Place(guest, str(slot), "volume", shown, mend=mend_disk(slot, {"state": "absent"}), bytes=size),
            "unused-volume",
        )
    for slot, text in guest.configured.unreadable.items():
        yield Place(guest, str(slot), "drive", text), "unreadable-drive"


def _disk(guest: Guest, slot: Slot, drive: Drive, around: Surroundings) -> Iterator[tuple[Place, str]]:
    cache = drive.get("cache")
    if cache == "unsafe":
        yield Place(guest, str(slot), "cache", cache, "none", mend_disk(slot, {"cache": "none"})), "cache-unsafe"
    if drive.get("aio") == "native" and cache in _HOST_CACHED:
        mend = mend_disk(slot, {"unset": ["aio"]})
        yield Place(guest, str(slot), "aio", f"native with cache={cache}", "PVE's default", mend), NATIVE_AIO
    if drive.get("snapshot") == "1" and _machine_version(guest, around) >= _SNAPSHOT_OPTION_ENDS:
        mend = mend_disk(slot, {"unset": ["snapshot"]})
        yield Place(guest, str(slot), "snapshot", "true", "false", mend), _SNAPSHOT
    if drive.get("backup") == "0" and not slot.is_firmware:
        yield Place(guest, str(slot), "backup", "false", "true", mend_disk(slot, {"backup": True})), "not-in-backup"


def _machine_version(guest: Guest, around: Surroundings) -> int:
    """The major version of the machine type; one that is not pinned is the newest: 10 and up since PVE 9."""
    match = re.search(r"-(\d+)\.\d+", guest.machine or "")
    if match is not None:
        return int(match[1])
    return _SNAPSHOT_OPTION_ENDS if around.pve_version is not None and around.pve_version >= _PVE_WITH_IT else 0


def _shared(guest: Guest) -> Iterator[tuple[Place, str]]:
    """Each slot but one, which stays: the one that the guest boots from, else the first."""
    booting = guest.configured.boot.devices if guest.configured.boot else ()
    for volume in {drive.volume: None for drive in guest.configured.drives.values() if drive.is_disk}:
        slots = guest.configured.slots_of(volume)
        stays = min(slots, key=lambda slot: str(slot) not in booting)
        others = [slot for slot in slots if slot != stays]
        mend = {"proxmox_disks": {str(slot): {"state": "detached"} for slot in others}}
        for slot in others:
            yield Place(guest, str(slot), "volume", f"{volume}, which is in {stays} too", "", mend), TWO_SLOTS


def _controller(guest: Guest) -> Iterator[tuple[Place, str]]:
    hardware = guest.configured
    disks = [slot for slot, drive in hardware.drives.items() if slot.bus == "scsi" and drive.is_disk]
    if not disks or (hardware.scsihw or "lsi") not in ("lsi", "lsi53c810"):
        return
    # Linux brings the driver of every controller; another system might not find its disks again.
    known = guest.ostype == "l26"
    mend = {"proxmox_disks_scsihw": "virtio-scsi-single"} if known else None
    actual = hardware.scsihw or "lsi (PVE's default)"
    yield Place(guest, "scsihw", "scsihw", actual, "virtio-scsi-single", mend), LSI


def _boot(guest: Guest) -> Iterator[tuple[Place, str]]:
    boot = guest.configured.boot
    present = {*map(str, guest.configured.drives), *guest.devices}
    missing = [name for name in (boot.devices if boot else ()) if name not in present]
    if boot is not None and missing:
        kept = boot.without(missing)
        mend = {"proxmox_disks_boot": list(kept.devices)} if kept.devices else None
        yield (
            Place(guest, "boot", "boot", f"{boot} names {', '.join(missing)}", str(kept).strip(), mend),
            _BOOT,
        )


def _waiting(guest: Guest) -> Iterator[tuple[Place, str]]:
    leftovers = find_leftovers(guest)
    if leftovers:
        mend = {"proxmox_disks_revert_leftovers": True}
        yield Place(guest, "pending", "pending", ", ".join(leftovers), "", mend), "leftover"
    waiting = sorted(key for key in restart_keys(guest, ()) if key.partition(".")[0] not in leftovers)
    if waiting:
        yield Place(guest, "restart", "restart", ", ".join(waiting), "restart the guest"), RESTART
