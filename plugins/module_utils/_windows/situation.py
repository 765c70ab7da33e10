# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Everything that a decision about a migration depends on, as values."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .._core.guest import Guest
from .note import Journal
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


@dataclass(frozen=True, slots=True)
class Driver:
    """How far a driver is installed.

    :param critical: whether Windows would start from a disk on it.
    :param missing: what stands against it, in words.
    """

    critical: bool
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Windows:
    """What a running Windows tells through the guest agent. ``None`` and empty stand for what it can't tell.

    :param release: key of the release in releases.py.
    :param service: the driver of the disk that it was started from.
    :param bitlocker: encrypted volumes: ``on``, ``suspended`` or ``locked``.
    :param online: identifiers of the disks that are online, and so on for ``offline``.
    :param controllers: services of the storage controllers that Windows brings along.
    :param has_iso: whether it sees the driver ISO.
    """

    product: str = "Windows"
    release: str | None = None
    service: str | None = None
    drivers: Mapping[str, Driver] = field(default_factory=lambda: MappingProxyType({}))
    bitlocker: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fast_startup: bool | None = None
    san_policy: str | None = None
    letters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    online: tuple[str, ...] = ()
    offline: tuple[str, ...] = ()
    controllers: tuple[str, ...] = ()
    has_iso: bool = False

    def critical(self, driver: str) -> bool:
        """Whether Windows would start from a disk on a driver."""
        return driver in self.drivers and self.drivers[driver].critical

    def missing(self, driver: str) -> str:
        """What stands against that, in words."""
        known = self.drivers.get(driver)
        return "; ".join(known.missing) if known and known.missing else f"{driver} is not installed"


def read_windows(gathered: Mapping[str, t.Any]) -> Windows:
    """What matters of ``gathered``, a result of the module ``windows_drivers``."""
    disks = gathered["disks"]
    boot = gathered["boot_disk"] or {}
    return Windows(
        product=gathered["product"] or "Windows",
        release=gathered["release"],
        service=boot.get("service"),
        drivers=MappingProxyType(
            {name: Driver(one["boot_critical"], tuple(one["missing"])) for name, one in gathered["drivers"].items()}
        ),
        bitlocker=MappingProxyType(dict(gathered["bitlocker"] or {})),
        fast_startup=gathered["fast_startup"],
        san_policy=gathered["san_policy"],
        letters=MappingProxyType(dict(gathered["letters"])),
        online=tuple(disk["id"] for disk in disks if disk["id"] and not disk["offline"]),
        offline=tuple(disk["id"] for disk in disks if disk["id"] and disk["offline"]),
        controllers=tuple(gathered["controllers"]),
        has_iso=gathered["iso"] is not None,
    )


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

    :param windows: ``None`` as long as the agent does not answer.
    :param snapshots: names of the guest's snapshots.
    :param unsnappable: why PVE can't make a snapshot of it; empty if it can.
    :param iso_exists: whether the ISO that the user names is there.
    :param ha: whether PVE's HA manager starts and stops the guest.
    """

    guest: Guest
    wishes: Wishes = field(default_factory=Wishes)
    journal: Journal | None = None
    windows: Windows | None = None
    snapshots: frozenset[str] = frozenset()
    unsnappable: tuple[str, ...] = ()
    iso_exists: bool = True
    ha: bool = False
    memory: Memory = field(default_factory=Memory)

    def noting(self, **changes: t.Any) -> Journal:
        """The journal with changes."""
        if self.journal is None:
            raise ValueError("there is no journal to change")
        return replace(self.journal, **changes)
