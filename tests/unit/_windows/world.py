# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest with a Windows in it, as small as a migration sees it: PVE's configuration, and what Windows starts from.

It shares no code with what it tests, except for how PVE's answers are read. Calls behave as in the recordings of a real
PVE: a stopped guest takes everything, deletions first; a running one takes what can be plugged, and the rest waits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import PendingRow, read_guest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.inside import (
    Disk,
    DriverState,
    Service,
    Volume,
    Windows,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.migration import next_step, remember
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.note import read_note, write_note
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.situation import Memory, Situation, Wishes
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.steps import (
    Awaited,
    Configure,
    Destroy,
    End,
    Inside,
    Note,
    Power,
    Revert,
    Snapshot,
    Stage,
    Step,
    Wait,
)

ISO = "local:iso/virtio-win-0.1.271.iso"
SLOT = re.compile(r"(ide|sata|scsi|virtio)\d+")
LEGACY = {"ide": "intelide", "sata": "storahci"}
VIRTIO = {"scsi": "vioscsi", "virtio": "viostor"}
CONFIG = {
    "ostype": "win11",
    "agent": "1",
    "boot": "order=sata0;net0",
    "net0": "virtio=BC:24:11:00:01:22",
    "sata0": "local-lvm:vm-122-disk-0,cache=writeback,size=32G,ssd=1",
    "sata1": "tank:vm-122-disk-1,size=100G",
    "ide2": "none,media=cdrom",
    "description": "notes of mine",
}


class TroubleError(Exception):
    """A step failed; the text is what the run would see."""


class KilledError(Exception):
    """The run is dead."""


@dataclass
class Inner:
    """What is inside."""

    installed: set[str] = field(default_factory=set)
    """Drivers that Windows loads while it boots."""
    works: bool = True
    """Whether it really comes up with them."""
    agent: bool = True
    deaf: bool = False
    bitlocker: str = "on"
    fast_startup: bool = True
    san_policy: str = "offline_shared"
    letters: dict[str, str] = field(default_factory=lambda: {"C:": "volume-c", "D:": "volume-d"})
    offline: set[str] = field(default_factory=set)
    seen: bool = False
    """Whether the disk with the data was online on its new bus; Windows remembers it."""

    def own(self) -> tuple[Any, ...]:
        """The settings that must be as they were at the end."""
        return self.bitlocker, self.fast_startup, self.san_policy, dict(self.letters), set(self.offline)


class World:
    """One guest on one PVE."""

    def __init__(self, config: Mapping[str, str] | None = None, *, running: bool = True, **inner: Any) -> None:
        self.config = dict(CONFIG if config is None else config)
        self.pending: dict[str, str] = {}
        self.deleting: set[str] = set()
        self.live: dict[str, str] | None = None
        self.snapshots: dict[str, dict[str, str]] = {}
        self.inner = Inner(**inner)
        self.volumes = {volume(text) for key, text in self.config.items() if SLOT.fullmatch(key)} - {"none"}
        self.lock: str | None = None
        self.unsnappable: tuple[str, ...] = ()
        self.history: list[Step] = []
        if running:
            self.start()

    # ---- PVE

    def start(self) -> None:
        """PVE does not look whether a volume is in two slots; this does."""
        self._apply()
        assert not doubles(self.config), f"started with a volume in two slots: {self.config}"
        self.live = dict(self.config)
        if self.up() and self._data_on_new_bus() and not self.inner.seen:
            if self.inner.san_policy == "offline_shared":
                self.inner.offline.add("data")
            else:
                self.inner.seen = True

    def stop(self) -> None:
        self.live = None
        self._apply()

    def _apply(self) -> None:
        pending, deleting = self.pending, self.deleting
        self.pending, self.deleting = {}, set()
        self._set(pending, sorted(deleting))

    def call(self, params: Mapping[str, str], *, after_deletions: str = "") -> None:
        """POST config. With `after_deletions` it fails after these, and what it got to stays waiting."""
        values = {key: text for key, text in params.items() if key not in ("delete", "digest")}
        gone = [key for key in params.get("delete", "").split(",") if key]
        assert not set(gone) & set(values), params
        if after_deletions:
            self.deleting |= set(gone)
            self._order([name for name in self._boot() if name not in gone])  # PVE leaves it out at once
            raise TroubleError(after_deletions)
        if self.live is None:
            self._apply()
            self._set(values, gone)
            return
        for key in gone:
            self._unplug(key)
        for key, text in values.items():
            self._plug(key, text)

    def _unplug(self, key: str) -> None:
        assert self.live is not None
        if key == "description" or key.startswith("unused"):
            self._set({}, [key])
        elif key.startswith(("scsi", "virtio")) and key in self.config:
            assert key not in self.config.get("boot", ""), "PVE can't unplug the boot disk"
            self._set({}, [key])
            del self.live[key]
        elif key in self.config:
            self.deleting.add(key)
        else:
            self.pending.pop(key, None)

    def _plug(self, key: str, text: str) -> None:
        assert self.live is not None
        medium = "media=cdrom" in text and "media=cdrom" in self.live.get(key, "")
        if key == "description" or medium or (SLOT.fullmatch(key) and key.startswith(("scsi", "virtio"))):
            self._set({key: text}, [])
            self.live[key] = self.config[key]
            assert not doubles(self.live), self.live
        else:
            self.pending[key] = text

    def _set(self, values: Mapping[str, str], gone: list[str]) -> None:
        for key in gone:
            old = self.config.pop(key, None)
            if old is not None and key.startswith("unused"):
                self.volumes.discard(volume(old))
            elif old is not None and SLOT.fullmatch(key):
                self._keep(old)
                self._order([name for name in self._boot() if name != key])
        for key, text in values.items():
            if not SLOT.fullmatch(key):
                self.config[key] = text
                continue
            old = self.config.get(key)
            self.config[key] = self._allocated(text)
            if old is not None and volume(old) != volume(self.config[key]):
                self._keep(old)
            self._forget_unused(volume(self.config[key]))
            if "media=cdrom" in text and old is None and "boot" not in values:
                self._order([*self._boot(), key])

    def _allocated(self, text: str) -> str:
        name = volume(text)
        if not re.fullmatch(r"[^:]+:\d+", name):
            return text
        number = next(n for n in range(99) if not any(v.endswith(f"-disk-{n}") for v in self.volumes))
        new = f"{name.partition(':')[0]}:vm-122-disk-{number}"
        self.volumes.add(new)
        return text.replace(name, new, 1)

    def _keep(self, text: str) -> None:
        name = volume(text)
        used = {volume(other) for key, other in self.config.items() if SLOT.fullmatch(key) or key.startswith("unused")}
        if "media=cdrom" not in text and name not in used:
            self.config[next(f"unused{n}" for n in range(99) if f"unused{n}" not in self.config)] = name

    def _forget_unused(self, name: str) -> None:
        for key in [key for key, text in self.config.items() if key.startswith("unused") and text == name]:
            del self.config[key]

    def _boot(self) -> list[str]:
        return [name for name in self.config.get("boot", "").removeprefix("order=").strip().split(";") if name]

    def _order(self, names: list[str]) -> None:
        if "boot" in self.config:
            self.config["boot"] = f"order={';'.join(names)}" if names else " "

    def revert(self, keys: tuple[str, ...]) -> None:
        """Values that wait are forgotten; PVE has taken deleted drives out of the boot order already."""
        for key in keys:
            self.deleting.discard(key)
            self.pending.pop(key, None)

    # ---- Windows

    def system(self) -> str | None:
        """The slot that it was started from."""
        live = self.live or {}
        order = live.get("boot", "").removeprefix("order=").split(";")
        return next((name for name in order if SLOT.fullmatch(name) and "cdrom" not in live.get(name, "cdrom")), None)

    def service(self, slot: str) -> str | None:
        bus = slot.rstrip("0123456789")
        if bus == "scsi" and not (self.live or self.config).get("scsihw", "").startswith("virtio"):
            return None
        return LEGACY.get(bus) or VIRTIO[bus]

    def up(self) -> bool:
        """Whether Windows has come up."""
        slot = self.system()
        service = self.service(slot) if slot else None
        return service in LEGACY.values() or (service in self.inner.installed and self.inner.works)

    def sees(self, driver: str) -> bool:
        return any(self.service(key) == driver for key in self.live or {} if SLOT.fullmatch(key))

    def _data_on_new_bus(self) -> bool:
        return any("disk-1" in text and self.service(key) in VIRTIO.values() for key, text in (self.live or {}).items()
                   if SLOT.fullmatch(key))

    def windows(self) -> Windows | None:
        """What the agent tells."""
        inner = self.inner
        if self.live is None or not inner.agent or not self.up():
            return None
        iso = ("E:", "virtio-win-0.1.271")
        system = Disk(0, "system", self.service(self.system() or ""))
        return Windows(
            product="Windows Server 2022",
            edition="ServerStandard",
            version="10.0.20348",
            build=20348,
            server=True,
            architecture="amd64",
            release=TABLE["2022"],
            powershell="5.1",
            boot_disk=system,
            disks=(system, Disk(1, "data", None, offline="data" in inner.offline)),
            drivers={name: self._driver(name) for name in VIRTIO.values()},
            controllers={"storahci": Service(0, devices=int(self.sees("storahci")))},
            bitlocker={"C:": inner.bitlocker},
            fast_startup=inner.fast_startup,
            san_policy=inner.san_policy,
            volumes=tuple(self._volumes()),
            iso=iso if any("virtio-win" in text for text in self.live.values()) else None,
        )

    def _volumes(self) -> Iterator[Volume]:
        for letter, name in self.inner.letters.items():
            if not (name == "volume-d" and "data" in self.inner.offline):
                yield Volume(name, letter, None, "NTFS", None, fixed=True)

    def _driver(self, name: str) -> DriverState:
        there = name in self.inner.installed
        return DriverState(Service(0 if there else None, devices=int(self.sees(name))), exists=there, image=there)

    def _settings(self, settings: Mapping[str, Any]) -> None:
        inner = self.inner
        if "bitlocker" in settings:
            inner.bitlocker = "on" if settings["bitlocker"] == "resumed" else "suspended"
        inner.fast_startup = settings.get("fast_startup", inner.fast_startup)
        inner.san_policy = settings.get("san_policy", inner.san_policy)
        inner.seen = inner.seen or "data" in settings.get("online", ())
        inner.offline -= set(settings.get("online", ()))
        inner.letters |= settings.get("letters", {})

    # ---- the run

    def situation(self, wishes: Wishes, memory: Memory) -> Situation:
        """What a run reads."""
        waiting, gone = self.pending, self.deleting
        rows = [PendingRow(key, text, waiting.get(key), int(key in gone)) for key, text in self.config.items()]
        rows += [PendingRow(key, None, text) for key, text in self.pending.items() if key not in self.config]
        rows += [PendingRow("lock", self.lock)] if self.lock else []
        rows += [PendingRow("digest", "59c4c1d1a1e1c9c1")]
        guest = read_guest(122, "win1", "pve1", rows, running=self.live is not None)
        return Situation(
            guest=guest,
            wishes=wishes,
            journal=read_note(guest.configured.description),
            windows=self.windows(),
            snapshots=frozenset(self.snapshots),
            unsnappable=self.unsnappable,
            memory=memory,
        )

    def perform(self, step: Step, now: Situation, *, partly: bool = False) -> Memory:
        """Carry a step out. :returns: the memory after it. :raises TroubleError: it failed."""
        self.history.append(step)
        memory = remember(now.memory, step, now.journal)
        if isinstance(step, Wait):
            return self._wait(step, memory)
        if isinstance(step, Note):
            self.note(write_note(self.config.get("description"), step.journal))
        elif isinstance(step, Configure):
            gone = [key for key, text in step.keys.items() if text is None and key in self.config]
            params = {key: text for key, text in step.keys.items() if text is not None}
            params |= {"delete": ",".join(gone)} if gone else {}
            self.call(params, after_deletions="torn" if partly else "")
        elif isinstance(step, Revert):
            self.revert(step.keys)
        elif isinstance(step, Destroy):
            self.call({"delete": next(key for key, text in self.config.items() if text == step.volume)})
        elif isinstance(step, Snapshot):
            self._snapshot(step)
        elif isinstance(step, Power):
            self._power(step)
        else:
            self._inside(step)
        return memory

    def note(self, text: str) -> None:
        """PVE takes the notes of a running guest at once."""
        self.config.pop("description", None)
        if text:
            self.config["description"] = text
        if self.live is not None:
            self.live["description"] = text

    def _snapshot(self, step: Snapshot) -> None:
        assert self.live is None or step.gone
        if step.gone:
            del self.snapshots[step.name]
        else:
            self.snapshots[step.name] = {k: v for k, v in self.config.items() if k != "description"}

    def _power(self, step: Power) -> None:
        if step.on:
            self.start()
        elif self.up() and self.inner.deaf and not step.hard:
            raise TroubleError("it did not shut down in 180 s")
        elif not self.up() and not step.hard:
            raise TroubleError("a Windows that is not up does not shut down")
        else:
            self.stop()

    def _wait(self, step: Wait, memory: Memory) -> Memory:
        if step.what is Awaited.UNLOCKED:
            self.lock = None
        elif step.what is Awaited.VOLUMES or self.windows() is None:
            return replace(memory, late=memory.late | {step.what.value})
        return memory

    def _inside(self, step: Step) -> None:
        if self.windows() is None:
            raise TroubleError("the agent does not answer")
        if isinstance(step, Stage):
            self.inner.installed |= {name for name in step.drivers if self.sees(name)}
        elif isinstance(step, Inside):
            self._settings(step.settings)


def volume(text: str) -> str:
    """The volume of a drive string."""
    return text.partition(",")[0]


def doubles(config: Mapping[str, str]) -> list[str]:
    """Volumes in two slots."""
    disks = [volume(text) for key, text in config.items() if SLOT.fullmatch(key) and "media=cdrom" not in text]
    return [name for name, times in Counter(disks).items() if times > 1]


def run(world: World, wishes: Wishes, most: int = 80) -> End:
    """A run to its end, when nothing goes wrong from outside."""
    memory = Memory()
    for _number in range(most):
        now = world.situation(wishes, memory)
        step = next_step(now)
        if isinstance(step, End):
            return step
        try:
            memory = world.perform(step, now)
        except TroubleError as error:
            memory = replace(memory, trouble=str(error))
    raise AssertionError(f"no end: {world.history[-6:]}")
