# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis strategies: a guest with drives on all kinds of storages, and a declaration that changes some of it.

What a declaration has to lead to is noted beside it, by other means than the planner's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

MIB = 1024**2
PLACES = (
    ("local", "raw"),
    ("local", "qcow2"),
    ("local-lvm", "raw"),
    ("thick", "raw"),
    ("thickchain", "qcow2"),
    ("thickchain", "raw"),
    ("tank", "raw"),
    ("btrfs", "raw"),
)
FORMATS = {
    "local": ("raw", "qcow2"),
    "local-lvm": ("raw",),
    "thick": ("raw",),
    "thickchain": ("qcow2", "raw"),
    "tank": ("raw",),
    "btrfs": ("raw",),
}
"""The first is what a new disk gets."""
IN_FOLDERS = ("local", "btrfs")
SLOTS = ("scsi0", "scsi1", "scsi2", "scsi3", "scsi10", "virtio0", "virtio1", "sata0", "sata1", "ide0", "ide2")
ISO = "local:iso/tools.iso"
IMPORTS = {"disk.raw": "raw", "img.qcow2": "qcow2", "so.vmdk": "raw"}
"""Samples of the lab, 64 MiB each, and the format they get on a folder with format: left out (vmdk is asked away)."""

BOOLEANS = {"yes": "1", "off": "0", "1": "1", "false": "0"}


def bus_of(slot: str) -> str:
    return slot.rstrip("0123456789")


def volume_id(place: tuple[str, str], vmid: int, number: int) -> str:
    """A volume's name as PVE would have given it."""
    storage, format_ = place
    if storage in IN_FOLDERS:
        return f"{storage}:{vmid}/vm-{vmid}-disk-{number}.{format_}"
    return f"{storage}:vm-{vmid}-disk-{number}{'.qcow2' if format_ == 'qcow2' else ''}"


@dataclass
class Disk:
    """A disk that is there."""

    slot: str
    volume: str
    place: tuple[str, str]
    size: int
    options: dict[str, str]

    def __str__(self) -> str:
        options = {**self.options, "size": f"{self.size // MIB}M"}
        return ",".join([self.volume, *(f"{key}={value}" for key, value in options.items())])

    @property
    def mark(self) -> str:
        """What its first bytes say."""
        return f"the content of {self.volume}"


@dataclass
class Expected:
    """What a slot has to hold at last."""

    mark: str | None = None
    storage: str | None = None
    format: str | None = None
    size: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    medium: str | None = None


@dataclass
class Case:
    """One guest, what is declared for it, and what has to become of it."""

    seed: dict[str, Any]
    declaration: dict[str, Any]
    disks: list[Disk]
    slots: dict[str, Expected] = field(default_factory=dict)
    """The slots that the declaration names; all others stay as they are, unless undeclared says otherwise."""
    gone: set[str] = field(default_factory=set)
    """Slots that are empty at last."""
    destroyed: set[str] = field(default_factory=set)
    """Volumes that the declaration gives up."""
    allow_destroy: bool = False

    @property
    def vmid(self) -> int:
        return int(self.seed["vmid"])


def _choices(bus: str) -> dict[str, tuple[str, ...]]:
    """Options of a bus with values in PVE's spelling."""
    found: dict[str, tuple[str, ...]] = {
        "cache": ("none", "writeback", "directsync", "writethrough"),
        "aio": ("io_uring", "threads", "native"),
        "discard": ("on", "ignore"),
        "backup": ("0", "1"),
        "serial": ("SN1", "a%20b"),
        "mbps_rd": ("10", "2.5"),
        "iops_wr": ("100",),
        "werror": ("report",),
        "detect_zeroes": ("0",),
    }
    if bus != "virtio":
        found["ssd"] = ("1", "0")
    if bus in ("scsi", "virtio"):
        found |= {"iothread": ("1", "0"), "ro": ("1",)}
    return found


@st.composite
def options(draw: st.DrawFn, bus: str, most: int = 3) -> dict[str, str]:
    """A few options that a bus has, none of which QEMU refuses beside another."""
    known = _choices(bus)
    names = draw(st.lists(st.sampled_from(sorted(known)), unique=True, max_size=most))
    found = {name: draw(st.sampled_from(known[name])) for name in names}
    if found.get("aio") == "native" and found.get("cache") in ("writeback", "writethrough"):
        del found["aio"]
    return found


def spelled(draw: st.DrawFn, name: str, value: str) -> Any:
    """A stored value as a user may write it."""
    if name in ("backup", "ssd", "iothread", "ro", "detect_zeroes"):
        return draw(st.sampled_from([key for key, stored in BOOLEANS.items() if stored == value]))
    return "a b" if value == "a%20b" else float(value) if name == "mbps_rd" else value


@st.composite
def cases(draw: st.DrawFn, vmid: int) -> Case:
    """A guest with a declaration."""
    running = draw(st.booleans())
    slots = draw(st.lists(st.sampled_from(SLOTS), unique=True, min_size=1, max_size=5))
    config: dict[str, Any] = {"scsihw": draw(st.sampled_from(["virtio-scsi-single", "virtio-scsi-pci", None]))}
    if draw(st.booleans()):
        config["description"] = "mail: the one\nwith two lines"
    disks, numbers = [], iter(range(20))
    for slot in slots:
        if bus_of(slot) in ("ide", "sata") and draw(st.booleans()):
            config[slot] = draw(st.sampled_from(["none,media=cdrom", f"{ISO},media=cdrom"]))
            continue
        place = draw(st.sampled_from(PLACES))
        size = draw(st.sampled_from([4, 8, 20])) * MIB
        disk = Disk(slot, volume_id(place, vmid, next(numbers)), place, size, draw(options(bus_of(slot))))
        disks.append(disk)
        config[slot] = str(disk)
    for number in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from(PLACES))
        disk = Disk(f"unused{number}", volume_id(place, vmid, next(numbers)), place, 1024 * MIB, {})  # as in the lab
        disks.append(disk)
        config[disk.slot] = disk.volume
    if draw(st.booleans()):
        order = draw(st.permutations([*slots, "net0"]))[: draw(st.integers(0, 4))]
        config["net0"] = "virtio=BC:24:11:00:00:01,bridge=vmbr0"
        config["boot"] = f"order={';'.join(order)}" if order else " "
    seed = {
        "vmid": vmid,
        "name": f"guest{vmid}",
        "running": running,
        "config": config,
        "contents": {disk.slot: disk.mark for disk in disks},
    }
    case = Case(seed, {"vmid": vmid, "disks": []}, disks)
    _declare(draw, case)
    return case


def _declare(draw: st.DrawFn, case: Case) -> None:
    free = [slot for slot in SLOTS if slot not in case.seed["config"]]
    case.allow_destroy = draw(st.integers(0, 3)) > 0
    if draw(st.integers(0, 3)) > 0:
        case.declaration["power"] = "stop_if_needed"
    if draw(st.integers(0, 3)) == 0:
        case.declaration["scsihw"] = draw(st.sampled_from(["virtio-scsi-single", "virtio-scsi-pci"]))
    for disk in case.disks:
        kinds = ["destroy", "attach", "attach", None, None] if disk.slot.startswith("unused") else [*_KINDS, None]
        kind = draw(st.sampled_from(kinds))
        if kind is not None:
            entry = _MAKERS[kind](draw, case, disk, free)
            if entry is not None:
                case.declaration["disks"].append(entry)
    for kind in draw(st.lists(st.sampled_from(["create", "import", "cdrom"]), max_size=2)):
        entry = _NEW[kind](draw, case, free)
        if entry is not None:
            case.declaration["disks"].append(entry)
    _declare_boot(draw, case)


def _declare_boot(draw: st.DrawFn, case: Case) -> None:
    there = [*case.slots, *(disk.slot for disk in case.disks if disk.slot not in case.gone)]
    slots = sorted({slot for slot in there if slot in SLOTS})
    if slots and draw(st.integers(0, 3)) == 0:
        case.declaration["boot"] = draw(st.permutations(slots))[: draw(st.integers(1, 3))]


# ---- what is declared for a disk that is there


def _keep(draw: st.DrawFn, _case: Case, disk: Disk, _free: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"slot": disk.slot}
    if draw(st.booleans()):
        entry |= {"storage": disk.place[0], "size": f"{disk.size // MIB}MiB", "format": disk.place[1]}
    return entry


def _expect(case: Case, disk: Disk, slot: str | None = None, **changes: Any) -> None:
    values = {"mark": disk.mark, "storage": disk.place[0], "format": disk.place[1], "size": disk.size, **changes}
    values.setdefault("options", dict(disk.options))
    case.slots[slot or disk.slot] = Expected(**values)


def _change(draw: st.DrawFn, case: Case, disk: Disk, free: list[str]) -> dict[str, Any]:
    wanted = draw(options(bus_of(disk.slot), 4))
    removed = draw(st.lists(st.sampled_from(sorted(_choices(bus_of(disk.slot)))), unique=True, max_size=2))
    removed = [name for name in removed if name not in wanted]
    after = {key: value for key, value in {**disk.options, **wanted}.items() if key not in removed}
    grown = disk.size + draw(st.sampled_from([0, 4, 6])) * MIB
    entry = _keep(draw, case, disk, free)
    entry |= {key: spelled(draw, key, value) for key, value in wanted.items()}
    if removed:
        entry["unset"] = removed
    if grown != disk.size or "size" in entry:
        entry["size"] = f"{grown // MIB}M"
    _expect(case, disk, options=after, without=tuple(removed), size=grown)
    return entry


def _move(draw: st.DrawFn, case: Case, disk: Disk, free: list[str]) -> dict[str, Any]:
    entry = _change(draw, case, disk, free)
    storage = draw(st.sampled_from(sorted(FORMATS)))
    format_ = draw(st.sampled_from([None, *FORMATS[storage]]))
    kept = disk.place[1] if disk.place[1] in FORMATS[storage] else FORMATS[storage][0]
    entry |= {"storage": storage, "format": format_, "delete_source": draw(st.booleans())}
    expected = case.slots[disk.slot]
    expected.storage, expected.format = storage, format_ or kept
    if entry["delete_source"] and (expected.storage, expected.format) != disk.place:
        case.destroyed.add(disk.volume)
    return entry


def _detach(_draw: st.DrawFn, case: Case, disk: Disk, _free: list[str]) -> dict[str, Any]:
    case.gone.add(disk.slot)
    return {"slot": disk.slot, "state": "detached"}


def _destroy(_draw: st.DrawFn, case: Case, disk: Disk, _free: list[str]) -> dict[str, Any]:
    case.gone.add(disk.slot)
    case.destroyed.add(disk.volume)
    return {"slot": disk.slot, "state": "absent"}


def _switch(draw: st.DrawFn, case: Case, disk: Disk, free: list[str]) -> dict[str, Any] | None:
    if not free:
        return None
    slot = free.pop(draw(st.integers(0, len(free) - 1)))
    wanted = draw(options(bus_of(slot), 2))
    known = _choices(bus_of(slot))
    kept = {key: value for key, value in disk.options.items() if key in known}
    case.gone.add(disk.slot)
    grown = disk.size + draw(st.sampled_from([0, 8])) * MIB
    _expect(case, disk, slot, options={**kept, **wanted}, size=grown)
    entry = {"slot": slot, "moved_from": disk.slot, **{k: spelled(draw, k, v) for k, v in wanted.items()}}
    return entry | ({"size": f"{grown // MIB}M"} if grown != disk.size or draw(st.booleans()) else {})


def _attach(draw: st.DrawFn, case: Case, disk: Disk, free: list[str]) -> dict[str, Any] | None:
    if not free:
        return None
    slot = free.pop(draw(st.integers(0, len(free) - 1)))
    wanted = draw(options(bus_of(slot), 2))
    case.gone.add(disk.slot)
    grown = disk.size + draw(st.sampled_from([0, 4])) * MIB
    _expect(case, disk, slot, options=wanted, size=grown)
    entry = {"slot": slot, "volume": draw(st.sampled_from([disk.slot, disk.volume]))}
    entry |= {key: spelled(draw, key, value) for key, value in wanted.items()}
    return entry | ({"size": f"{grown // MIB}M"} if grown != disk.size else {})


_MAKERS = {
    "keep": _keep,
    "change": _change,
    "move": _move,
    "detach": _detach,
    "destroy": _destroy,
    "switch": _switch,
    "attach": _attach,
}
_KINDS = ("keep", "change", "change", "move", "detach", "destroy", "switch", "switch")


# ---- what is new


def _create(draw: st.DrawFn, case: Case, free: list[str]) -> dict[str, Any] | None:
    if not free:
        return None
    slot = free.pop(draw(st.integers(0, len(free) - 1)))
    storage = draw(st.sampled_from(sorted(FORMATS)))
    format_ = draw(st.sampled_from([None, *FORMATS[storage]]))
    size = draw(st.sampled_from([1, 5, 8])) * MIB
    wanted = draw(options(bus_of(slot)))
    case.slots[slot] = Expected("", storage, format_ or FORMATS[storage][0], size, wanted)
    written = draw(st.sampled_from([f"{size // MIB}M", f"{size // 1024} KiB"]))
    entry = {"slot": slot, "storage": storage, "size": written}
    entry |= {"format": format_} if format_ else {}
    return entry | {key: spelled(draw, key, value) for key, value in wanted.items()}


def _import(draw: st.DrawFn, case: Case, free: list[str]) -> dict[str, Any] | None:
    if not free:
        return None
    slot = free.pop(draw(st.integers(0, len(free) - 1)))
    name = draw(st.sampled_from(sorted(IMPORTS)))
    storage = draw(st.sampled_from(sorted(FORMATS)))
    format_ = draw(st.sampled_from(FORMATS[storage]))
    size = draw(st.sampled_from([64, 65])) * MIB
    wanted = draw(options(bus_of(slot), 2))
    case.slots[slot] = Expected(f"{name} of the lab", storage, format_, size, wanted)
    entry = {"slot": slot, "storage": storage, "format": format_, "import_from": f"local:import/{name}"}
    entry |= {"size": f"{size // MIB}M"} if size > 64 * MIB or draw(st.booleans()) else {}
    return entry | {key: spelled(draw, key, value) for key, value in wanted.items()}


def _cdrom(draw: st.DrawFn, case: Case, free: list[str]) -> dict[str, Any] | None:
    config = case.seed["config"]
    there = [slot for slot in config if "media=cdrom" in str(config[slot]) and slot not in case.slots]
    fitting = [*there, *(slot for slot in free if bus_of(slot) != "virtio")]
    if not fitting:
        return None
    slot = draw(st.sampled_from(fitting))
    if slot in free:
        free.remove(slot)
    elif draw(st.integers(0, 2)) == 0:
        case.gone.add(slot)
        case.slots.pop(slot, None)
        return None if slot in case.slots else {"slot": slot, "state": "absent"}
    medium = draw(st.sampled_from([ISO, "none"]))
    case.slots[slot] = Expected(medium=medium)
    return {"slot": slot, "iso": medium}


_NEW = {"create": _create, "import": _import, "cdrom": _cdrom}
