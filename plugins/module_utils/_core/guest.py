# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A guest as PVE has it: what is configured, what runs, and what waits between the two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .drive import Drive, parse_drive
from .errors import ParseError
from .slot import Slot, find_slot

#: Other keys than drives that decide about a guest's disks. The description carries the journal, see journal.py.
HARDWARE_KEYS = ("boot", "bootdisk", "scsihw", "description")
_DEVICE = re.compile(r"(net|usb|hostpci)\d+")


@dataclass(frozen=True, slots=True)
class Boot:
    """A guest's boot order.

    :param devices: what ``order=`` lists, in its order; network cards are among them.
    :param text: the whole value when it is not of the form ``order=``, that is PVE's older one (``cdn``).
    """

    devices: tuple[str, ...] = ()
    text: str | None = None

    def __str__(self) -> str:
        return self.text if self.text is not None else f"order={';'.join(self.devices)}" if self.devices else " "

    def without(self, names: Iterable[str]) -> Boot:
        """The order after PVE has dropped deleted devices."""
        gone = set(names)
        return self if self.text is not None else Boot(tuple(name for name in self.devices if name not in gone))

    def renamed(self, names: Mapping[str, str]) -> Boot:
        """The order with devices under their new names."""
        return self if self.text is not None else Boot(tuple(names.get(name, name) for name in self.devices))


def parse_boot(text: str) -> Boot:
    """Read PVE's ``boot``: ``order=scsi0;ide2``, a blank for nothing, or the older form."""
    stripped = text.strip()
    if not stripped:
        return Boot()
    match = re.fullmatch(r"(?:.*,)?order=([^,]*)(?:,.*)?", stripped)
    if match is None:
        return Boot(text=text)
    return Boot(tuple(name for name in re.split(r"[;\s]+", match[1]) if name))


@dataclass(frozen=True, slots=True)
class Hardware:
    """One state of what belongs to a guest's disks.

    :param drives: by slot, ``efidisk0`` and ``tpmstate0`` among them.
    :param unused: volumes that no slot uses, by their ``unusedN``.
    :param boot: the boot order, ``None`` when the configuration has none.
    :param bootdisk: the boot disk of PVE's older form.
    :param scsihw: the SCSI controller, ``None`` when the configuration names none (PVE takes ``lsi`` then).
    :param description: the guest's notes.
    :param unreadable: keys of drives that could not be parsed, with their text; never written.
    """

    drives: Mapping[Slot, Drive] = field(default_factory=lambda: MappingProxyType({}))
    unused: Mapping[Slot, str] = field(default_factory=lambda: MappingProxyType({}))
    boot: Boot | None = None
    bootdisk: str | None = None
    scsihw: str | None = None
    description: str | None = None
    unreadable: Mapping[Slot, str] = field(default_factory=lambda: MappingProxyType({}))

    def slots_of(self, volume: str) -> tuple[Slot, ...]:
        """The slots that use a volume."""
        return tuple(slot for slot, drive in sorted(self.drives.items()) if drive.volume == volume)

    def unused_slot_of(self, volume: str) -> Slot | None:
        """The ``unusedN`` that keeps a volume, or ``None``."""
        return next((slot for slot, name in sorted(self.unused.items()) if name == volume), None)


def read_hardware(config: Mapping[str, str]) -> Hardware:
    """Pick what belongs to disks out of a configuration (key → PVE's text)."""
    drives: dict[Slot, Drive] = {}
    unused: dict[Slot, str] = {}
    unreadable: dict[Slot, str] = {}
    for key, text in config.items():
        slot = find_slot(key)
        if slot is None:
            continue
        try:
            drive = parse_drive(text)
        except ParseError:
            unreadable[slot] = text
            continue
        if slot.is_unused:
            unused[slot] = drive.volume
        else:
            drives[slot] = drive
    boot = config.get("boot")
    return Hardware(
        drives=MappingProxyType(dict(sorted(drives.items()))),
        unused=MappingProxyType(dict(sorted(unused.items()))),
        boot=None if boot is None else parse_boot(boot),
        bootdisk=config.get("bootdisk"),
        scsihw=config.get("scsihw"),
        description=config.get("description"),
        unreadable=MappingProxyType(unreadable),
    )


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest and its two states.

    :param configured: the configuration with everything that waits merged in: what the next start will see.
    :param live: the configuration without what waits: what a running guest has (PVE's ``current``).
    :param waiting: keys whose new value waits for the next start.
    :param deleting: keys whose deletion waits: 1, or 2 when the volume is to be destroyed with it.
    :param digest: PVE's digest of the configuration that was read.
    :param has_snapshots: whether the configuration names a parent snapshot.
    :param hotplug_disks: whether PVE may plug disks into the running guest.
    :param devices: names of other devices that can stand in a boot order, ``net0`` and the like.
    :param ostype: PVE's name of the guest's operating system, ``None`` when the configuration names none.
    :param machine: the machine type and version, ``None`` when the configuration names none (PVE takes ``pc`` then).
    :param bios: ``seabios`` or ``ovmf``.
    :param agent: PVE's text about the guest agent, ``None`` when the configuration has none.
    """

    vmid: int
    name: str
    node: str
    running: bool = False
    template: bool = False
    lock: str | None = None
    protection: bool = False
    digest: str = ""
    configured: Hardware = field(default_factory=Hardware)
    live: Hardware = field(default_factory=Hardware)
    waiting: frozenset[str] = frozenset()
    deleting: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    has_snapshots: bool = False
    hotplug_disks: bool = True
    devices: frozenset[str] = frozenset()
    ostype: str | None = None
    machine: str | None = None
    bios: str = "seabios"
    agent: str | None = None

    @property
    def label(self) -> str:
        """How messages call the guest: ``db1 (120 on pve2)``."""
        return f"{self.name} ({self.vmid} on {self.node})"

    @property
    def state(self) -> str:
        """``template``, ``running`` or ``stopped``."""
        return "template" if self.template else "running" if self.running else "stopped"

    @property
    def changed_keys(self) -> frozenset[str]:
        """Every key, drive or not, whose configured value is not the one in force."""
        return self.waiting | frozenset(self.deleting)


@dataclass(frozen=True, slots=True)
class PendingRow:
    """One row of ``GET …/pending``: the value in force, the one that waits, whether a deletion waits."""

    key: str
    value: str | None = None
    pending: str | None = None
    delete: int = 0


def read_guest(
    vmid: int, name: str, node: str, rows: Iterable[PendingRow], *, running: bool, template: bool = False
) -> Guest:
    """Make a guest from the rows of ``GET /nodes/{node}/qemu/{vmid}/pending``, which hold all states at once."""
    live: dict[str, str] = {}
    configured: dict[str, str] = {}
    waiting: set[str] = set()
    deleting: dict[str, int] = {}
    for row in rows:
        if row.value is not None:
            live[row.key] = row.value
        if row.delete:
            deleting[row.key] = row.delete
        elif row.pending is not None:
            waiting.add(row.key)
            configured[row.key] = row.pending
        elif row.value is not None:
            configured[row.key] = row.value
    hotplug = live.get("hotplug", "network,disk,usb")
    in_force = read_hardware(live)
    return Guest(
        vmid=vmid,
        name=configured.get("name", name),
        node=node,
        running=running,
        template=template or live.get("template") == "1",
        lock=live.get("lock"),
        protection=live.get("protection") == "1",
        digest=live.get("digest", ""),
        configured=in_force if configured == live else read_hardware(configured),
        live=in_force,
        waiting=frozenset(waiting),
        deleting=MappingProxyType(deleting),
        has_snapshots="parent" in live,
        hotplug_disks=hotplug == "1" or "disk" in re.split(r"[,;\s]+", hotplug),
        devices=frozenset(key for key in configured if _DEVICE.fullmatch(key)),
        ostype=configured.get("ostype"),
        machine=configured.get("machine"),
        bios=configured.get("bios", "seabios"),
        agent=configured.get("agent"),
    )


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as ``GET /nodes/{node}/storage/{storage}/content/{volume}`` shows it.

    :param size: bytes; ``None`` for a member of an OVA, whose size PVE tells only once it has unpacked it.
    """

    volid: str
    size: int | None
    format: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of a guest and the volumes that its configuration names."""

    name: str
    volumes: frozenset[str]
