# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Everything that a decision about a migration depends on, as values."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .._core.guest import Guest
from .._core.slot import Slot, find_slot
from .inside import Windows
from .note import Journal, UnreadableNoteError
from .releases import DRIVER_OF_BUS

STAGING = ("auto", "online", "offline")
SNAPSHOT = ("required", "if_possible", "never")
VERDICT = ("agent", "commit", "roll_back")
BUSES = tuple(DRIVER_OF_BUS)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants of one guest's migration; the options of the module ``windows_migrate``.

    :param injected: drivers that were made boot-critical in the stopped guest's disk.
    """

    bus: str = "scsi"
    data_disks: bool = True
    staging: str = "auto"
    iso: str | None = None
    snapshot: str = "required"
    keep_snapshot: bool = False
    injected: frozenset[str] = frozenset()
    switch_without_proof: bool = False
    verdict: str = "agent"
    retry: bool = False
    force_stop: bool = False

    @property
    def driver(self) -> str:
        """The driver that Windows has to start from."""
        return DRIVER_OF_BUS[self.bus]


def boot_slot(guest: Guest) -> Slot | None:
    """The slot of the disk that the guest starts from, or ``None`` when the configuration does not tell."""
    state = guest.configured
    disks = [slot for slot, drive in state.drives.items() if drive.is_disk and not slot.is_firmware]
    names = (*(state.boot.devices if state.boot else ()), state.bootdisk or "")
    listed = [find_slot(name) for name in names]
    return next((slot for slot in listed if slot in disks), disks[0] if len(disks) == 1 else None)


def can_start(windows: Windows, driver: str) -> bool:
    """Whether Windows would start from a disk on a driver."""
    state = windows.drivers.get(driver)
    return state is not None and not state.missing(driver)


def missing(windows: Windows, driver: str) -> str:
    """What stands against that, in words."""
    state = windows.drivers.get(driver)
    return "; ".join(state.missing(driver)) if state else f"{driver} is not installed"


def online_disks(windows: Windows, *, online: bool) -> tuple[str, ...]:
    """The identifiers of the disks that are online, or of those that are not."""
    return tuple(disk.identity for disk in windows.disks if disk.identity and (not disk.offline) == online)


@dataclass(frozen=True, slots=True)
class Memory:
    """What this run has done and met. A run that is killed loses it; nothing but patience depends on it.

    :param done: names of steps inside Windows that were carried out.
    :param late: what was waited for in vain, since the last step.
    :param stagings: how often the drivers were installed.
    :param starts: how often the guest was started, since the drivers were installed.
    :param trouble: why the last step failed, empty if it did not.
    """

    done: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    stagings: int = 0
    starts: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """One guest's situation at one moment.

    :param damage: why the journal can't be read, if there is one that can't.
    :param windows: ``None`` as long as the agent does not answer.
    :param heard: what went wrong when it was asked, empty if nobody is there to answer.
    :param snapshots: names of the guest's snapshots.
    :param unsnappable: why PVE can't make a snapshot of it; empty if it can.
    :param iso_exists: whether the ISO that the user names is there.
    :param held: the user's rights by path, ``None`` when nobody has asked.
    :param ha: whether PVE's HA manager starts and stops the guest.
    """

    guest: Guest
    wishes: Wishes = field(default_factory=Wishes)
    journal: Journal | None = None
    damage: UnreadableNoteError | None = None
    windows: Windows | None = None
    heard: str = ""
    snapshots: frozenset[str] = frozenset()
    unsnappable: tuple[str, ...] = ()
    iso_exists: bool = True
    held: Mapping[str, frozenset[str]] | None = None
    ha: bool = False
    memory: Memory = field(default_factory=Memory)

    def noting(self, **changes: t.Any) -> Journal:
        """The journal with changes."""
        if self.journal is None:
            raise ValueError("there is no journal to change")
        return replace(self.journal, **changes)
