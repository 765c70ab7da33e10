# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests and declarations for property tests: small enough to get in each other's way often."""

from __future__ import annotations

from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import Guest, Volume
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout, read_layout
from hypothesis import assume
from hypothesis import strategies as st
from unit._core.planning import World, make_guest

GIB = 1024**3
SLOTS = ("ide2", "sata0", "sata1", "scsi0", "scsi1", "scsi2", "virtio0", "virtio1")
NAMES = (
    *(f"local:100/vm-100-disk-{number}.{extension}" for number, extension in enumerate(("raw", "qcow2", "raw"))),
    "local:9000/base-9000-disk-0.qcow2/100/vm-100-disk-3.qcow2",
    *(f"local-lvm:vm-100-disk-{number}" for number in range(3)),
    *(f"thickchain:vm-100-disk-{number}.qcow2" for number in range(2)),
)
PATH = "/dev/sdb"
EFI = "local:100/vm-100-disk-9.qcow2,efitype=4m,size=528K"
CLOUDINIT = "local-lvm:vm-100-cloudinit,media=cdrom,size=4M"
ISOS = ("local:iso/debian.iso", "local:iso/virtio-win.iso")
IMPORT = "local:import/web.qcow2"
#: Options with a few of their values; the last one is of a later PVE than this collection knows.
COMMON = {"cache": ("none", "writeback"), "backup": ("0", "1"), "serial": ("A1", "B%20"), "future": ("7",)}
OPTIONS = {
    "ide": {**COMMON, "ssd": ("1",), "model": ("QM",)},
    "sata": {**COMMON, "ssd": ("1",), "wwn": ("0x5000c50015ea71aa",)},
    "scsi": {**COMMON, "iothread": ("0", "1"), "ssd": ("1",), "queues": ("4",)},
    "virtio": {**COMMON, "iothread": ("1",), "ro": ("1",)},
}
FIRMWARE = {"slot": "efidisk0", "storage": "local", "efitype": "4m"}
SEED = {"slot": "ide0", "cloudinit": True, "storage": "local"}
UNKNOWN = frozenset({"future"})
sizes = st.integers(2, 5)


def bus_of(slot: str) -> str:
    return slot.rstrip("0123456789")


@st.composite
def options(draw: st.DrawFn, bus: str, *, known_only: bool = False) -> dict[str, str]:
    table = {name: values for name, values in OPTIONS[bus].items() if not (known_only and name in UNKNOWN)}
    names = draw(st.sets(st.sampled_from(sorted(table)), max_size=3))
    return {name: draw(st.sampled_from(table[name])) for name in sorted(names)}


def text(volume: str, pairs: dict[str, str]) -> str:
    return ",".join([volume, *(f"{key}={value}" for key, value in sorted(pairs.items()))])


@st.composite
def drive_texts(draw: st.DrawFn, slot: str, volume: str) -> str:
    if bus_of(slot) != "virtio" and draw(st.integers(0, 4)) == 0:
        return text(draw(st.sampled_from(("none", *ISOS))), {"media": "cdrom"})
    return text(volume, {**draw(options(bus_of(slot))), "size": f"{draw(sizes)}G"})


@st.composite
def guests(draw: st.DrawFn) -> Guest:
    volumes = list(draw(st.permutations(NAMES)))
    slots = draw(st.lists(st.sampled_from(SLOTS), unique=True, min_size=1, max_size=4))
    config = {slot: draw(drive_texts(slot, volumes.pop())) for slot in slots}
    config |= {f"unused{number}": volumes.pop() for number in draw(st.sets(st.integers(0, 2), max_size=2))}
    config |= draw(st.sampled_from(({}, {"scsihw": "virtio-scsi-single"}, {"description": "web server"})))
    listed = draw(st.lists(st.sampled_from([*slots, "net0"]), unique=True, max_size=3))
    legacy = {"boot": "cdn", "bootdisk": slots[0]}
    config |= draw(st.sampled_from(({}, {"boot": f"order={';'.join(listed)}"}, legacy)))
    config |= {"net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0"}
    config |= draw(st.sampled_from(({}, {}, {}, {"protection": "1"}, {"hotplug": "network"}, {"lock": "backup"})))
    config |= draw(st.sampled_from(({}, {}, {"efidisk0": EFI}, {"ide0": CLOUDINIT}, {"scsi5": f"{PATH},size=1G"})))
    running = draw(st.booleans())
    if not running:
        return make_guest(config)
    pending, deleting = draw(waiting(config, slots, volumes.pop()))
    return make_guest(config, running=True, pending=pending, deleting=deleting)


@st.composite
def waiting(
    draw: st.DrawFn, config: dict[str, str], slots: list[str], spare: str
) -> tuple[dict[str, str], dict[str, int]]:
    """What may wait on a running guest: what PVE can't do at once, and seldom what a failed call has left."""
    pending: dict[str, str] = {}
    deleting: dict[str, int] = {}
    for slot in slots:
        how = draw(st.sampled_from(("no", "no", "option", "delete")))
        disk = "media=cdrom" not in config[slot]
        if how == "option" and disk:
            size = config[slot].rsplit("size=", 1)[1]
            pending[slot] = text(config[slot].split(",")[0], {**draw(options(bus_of(slot))), "size": size})
        elif how == "delete" and bus_of(slot) in ("ide", "sata"):
            deleting[slot] = draw(st.sampled_from((1, 1, 1, 2)))
    free = [slot for slot in ("sata0", "sata1") if slot not in config]
    if free and draw(st.booleans()):
        pending[free[0]] = text(spare, {"size": "3G"})
    return {slot: value for slot, value in pending.items() if value != config.get(slot)}, deleting


@st.composite
def disks(draw: st.DrawFn, slot: str, guest: Guest) -> dict[str, Any]:
    kind = draw(st.sampled_from(("adjust", "adjust", "moved", "attach", "import", "leave", "cdrom", "new")))
    disk: dict[str, Any] = {"slot": slot}
    if kind == "leave":
        return disk | {"state": draw(st.sampled_from(("detached", "absent")))}
    if kind == "cdrom":
        return disk | {"iso": draw(st.sampled_from(("none", *ISOS)))}
    drives = {str(source): drive for source, drive in guest.configured.drives.items()}
    cdroms = [source for source, drive in drives.items() if drive.is_cdrom and source != slot]
    if kind == "moved" and cdroms and bus_of(slot) != "virtio" and draw(st.booleans()):
        return disk | {"moved_from": draw(st.sampled_from(cdroms)), "media": "cdrom"}
    disk |= draw(options(bus_of(slot), known_only=True))
    if draw(st.booleans()):
        disk |= {"size": draw(sizes), "minimum": draw(st.booleans())}
    if kind == "moved":
        disk["moved_from"] = draw(st.sampled_from(SLOTS))
    elif kind == "attach":
        disk["volume"] = draw(st.sampled_from([*sorted(map(str, guest.configured.unused)), *NAMES]))
    elif kind in ("import", "new"):
        disk |= {"storage": draw(st.sampled_from(("local", "local-lvm", "thickchain")))}
        disk |= {"import_from": IMPORT} if kind == "import" else {"size": draw(sizes)}
    if kind in ("adjust", "moved") and draw(st.booleans()):
        disk |= {"storage": draw(st.sampled_from(("local", "local-lvm", "thickchain")))}
    if draw(st.integers(0, 3)) == 0:
        disk |= {"format": draw(st.sampled_from(("raw", "qcow2")))}
    disk |= {"delete_source": draw(st.booleans()), "flatten": draw(st.integers(0, 5)) == 0}
    unset = draw(st.sampled_from(([], [], ["cache"], ["serial"])))
    return disk | {"unset": [name for name in unset if name not in disk]}


@st.composite
def layouts(draw: st.DrawFn, guest: Guest) -> Layout:
    """A declaration that does not contradict itself; what it asks for may still be impossible."""
    slots = draw(st.lists(st.sampled_from(SLOTS), unique=True, max_size=3))
    entries = [draw(disks(slot, guest)) for slot in slots]
    entries += draw(st.sampled_from(([], [], [], [FIRMWARE], [{"slot": "efidisk0", "state": "detached"}], [SEED])))
    if draw(st.integers(0, 3)) == 0:
        entries.append({"slot": draw(st.sampled_from(("unused0", "unused1"))), "state": "absent"})
    data: dict[str, Any] = {"vmid": 100, "name": "web1", "disks": entries}
    if draw(st.integers(0, 3)) == 0:
        data["boot"] = draw(st.lists(st.sampled_from([*SLOTS, "net0"]), unique=True, max_size=2))
    if draw(st.integers(0, 3)) == 0:
        data["scsihw"] = "virtio-scsi-single"
    data["undeclared"] = draw(st.sampled_from(("keep", "keep", "report", "detach")))
    data["revert_leftovers"] = draw(st.booleans())
    data["power"] = draw(st.sampled_from(("never", "stop_if_needed")))
    layout, refusals = read_layout(data, Layout(allow_destroy=draw(st.booleans())))
    assume(not refusals)
    return layout


def world() -> World:
    volumes: dict[str, Volume | None] = {name: Volume(name, 3 * GIB, "raw") for name in (*NAMES, *ISOS)}
    return World(volumes={**volumes, IMPORT: Volume(IMPORT, 3 * GIB, "qcow2")})


@st.composite
def situations(draw: st.DrawFn) -> tuple[Guest, Layout]:
    guest = draw(guests())
    return guest, draw(layouts(guest))
