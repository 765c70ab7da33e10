# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads what a place is: a storage of PVE or a folder, what it can hold, and the disks below it.

Sources: storage.cfg as PVE writes it (pve-common, PVE/SectionConfig.pm), sysfs (Documentation/ABI/stable/sysfs-block).
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import typing as t
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .._core.storage import TABLE, Storage
from .._image import mountinfo, pvesm
from .errors import BenchError
from .matrix import Place, folder_place, storage_place
from .results import PlaceRecord, Text

ROOT: t.Final = "/etc/pve"
_SECRET: t.Final = re.compile("password|secret|key|token|username|fingerprint", re.IGNORECASE)
_SYS: t.Final = "/sys"
#: Types of storages that QEMU reaches without a device of the node's, how, and what can be done.
_LIBRARIES: t.Final = {
    "rbd": ("librbd", "set krbd for the storage, or name another one"),
    "zfs": ("libiscsi", "name another storage"),
}
_DEPTH: t.Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A place, and the record of it."""

    place: Place
    record: PlaceRecord


def find(name: str, root: str = ROOT, sys: str = _SYS) -> Found:
    """A storage by its name, or a folder by its absolute path.

    :raises DiskwrightError: if there is no such place, or no scratch volume can be made on it.
    """
    return _folder(name, sys) if name.startswith("/") else _storage(name, root, sys)


def _folder(path: str, sys: str) -> Found:
    folder = os.path.realpath(path)
    if not os.path.isdir(folder):
        raise BenchError(f"place {path}: it is no folder; make it first, or name a storage")
    if not os.access(folder, os.W_OK):
        raise BenchError(f"place {path}: it can't be written to; run this as root, or name another folder")
    free = os.statvfs(folder)
    mount = _mount(folder)
    record = PlaceRecord(
        folder,
        "folder",
        options=tuple(Text(*one.partition("=")[::2]) for one in mount.options) if mount else (),
        filesystem=mount.type if mount else "",
        total=free.f_frsize * free.f_blocks,
        free=free.f_frsize * free.f_bavail,
    )
    record = _with_disks(record, _below_folder(folder, sys))
    return Found(folder_place(folder, direct_io(folder)), record)


def _storage(name: str, root: str, sys: str) -> Found:
    status = pvesm.status(name)
    if not status.active:
        raise BenchError(f"place {name}: the storage is not active on this node; see 'pvesm status'")
    options = definition(name, root)
    kind = TABLE.get(status.type)
    formats = kind.formats if kind else ()
    if kind and "snapshot-as-volume-chain" in options:
        formats = (*formats, *(one for one in kind.chain_formats if one not in formats))
    storage = Storage(name, status.type, frozenset(("images",)), formats, available=status.available)
    krbd = options.get("krbd") == "1"
    if status.type == "zfs" or (status.type == "rbd" and not krbd):
        library, remedy = _LIBRARIES[status.type]
        raise BenchError(
            f"place {name}: QEMU would reach this storage by itself, through {library}, which is not measured; {remedy}"
        )
    folder = options.get("path", f"/mnt/pve/{name}") if kind and kind.level == "file" else ""
    folder = folder if folder and os.path.isdir(folder) else ""
    record = PlaceRecord(
        name,
        status.type,
        options=tuple(Text(key, options[key]) for key in sorted(options) if not _SECRET.search(key)),
        filesystem=_file_system(folder) if folder else "",
        free=status.available,
    )
    disks = _below_folder(folder, sys) if folder else _below_pool(status.type, options, sys)
    record = _with_disks(record, disks)
    return Found(storage_place(storage, direct_io(folder) if folder else None, krbd), record)


def definition(name: str, root: str = ROOT) -> dict[str, str]:
    """The options of a storage in ``storage.cfg``; nothing if it is not there."""
    try:
        with open(os.path.join(root, "storage.cfg"), encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    for section in re.split(r"\n(?=\S)", text):
        head, *lines = section.splitlines() or [""]
        if re.fullmatch(rf"\S+:\s*{re.escape(name)}\s*", head):
            pairs = (line.split(None, 1) for line in lines if line.strip())
            return {pair[0]: pair[1].strip() if len(pair) > 1 else "1" for pair in pairs}
    return {}


def direct_io(folder: str) -> bool | None:
    """Whether the file system takes O_DIRECT, tried with a file that has no name; ``None`` where there are none."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return False if error.errno == errno.EINVAL else None
    return True


def _mount(folder: str) -> mountinfo.Mount | None:
    """The mount that a folder is in: the last one with the longest path above it."""
    found = [one for one in mountinfo.read() if f"{folder}/".startswith(f"{one.place.rstrip('/')}/")]
    return max(found, key=lambda one: len(one.place), default=None)


def _file_system(folder: str) -> str:
    mount = _mount(folder)
    return mount.type if mount else ""


def _below_folder(folder: str, sys: str) -> tuple[Disk, ...]:
    number = os.stat(folder).st_dev
    names = [f"{os.major(number)}:{os.minor(number)}"]
    mount = _mount(folder)
    if mount and mount.type == "zfs":
        return _below_pool("zfspool", {"pool": mount.source}, sys)
    if mount and not os.path.exists(f"{sys}/dev/block/{names[0]}") and mount.source.startswith("/dev/"):
        names = [_number(mount.source)]
    return _devices(names, sys)


def _below_pool(kind: str, options: dict[str, str], sys: str) -> tuple[Disk, ...]:
    """The disks of a volume group, or of a ZFS pool, as far as their tools tell."""
    if kind in ("lvm", "lvmthin"):
        command = ["pvs", "--noheadings", "-o", "pv_name", "-S", f"vg_name={options.get('vgname', '')}"]
    elif kind == "zfspool":
        command = ["zpool", "list", "-vHPL", options.get("pool", "").split("/")[0]]
    else:
        return ()
    paths = [word for word in _said(command).split() if word.startswith("/dev/")]
    return _devices([number for number in map(_number, paths) if number], sys)


def _said(command: list[str]) -> str:
    """What a program says, or nothing if it is not there or fails: the record then lacks these disks."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _number(path: str) -> str:
    try:
        found = os.stat(path).st_rdev
    except OSError:
        return ""
    return f"{os.major(found)}:{os.minor(found)}" if found else ""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk below a place, as the node's kernel tells it. What it does not tell is an empty text."""

    name: str
    model: str
    medium: str
    write_cache: str
    scheduler: str


def _devices(numbers: list[str], sys: str) -> tuple[Disk, ...]:
    """The disks at the bottom of block devices, each once."""
    found: dict[str, Disk] = {}
    for number in numbers:
        for folder in _bottom(os.path.realpath(f"{sys}/dev/block/{number}"), _DEPTH):
            disk = read_disk(folder)
            found.setdefault(disk.name, disk)
    return tuple(found[name] for name in sorted(found))


def _with_disks(record: PlaceRecord, found: tuple[Disk, ...]) -> PlaceRecord:
    """The record with what it says of the disks; values that differ stand behind one another."""
    return replace(
        record,
        device=", ".join(f"{one.name} ({one.model})" if one.model else one.name for one in found),
        medium=_joined(one.medium for one in found),
        write_cache=_joined(one.write_cache for one in found),
        scheduler=_joined(one.scheduler for one in found),
    )


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _bottom(folder: str, depth: int) -> list[str]:
    if not os.path.isdir(folder) or not depth:
        return []
    if os.path.exists(f"{folder}/partition"):
        return _bottom(os.path.dirname(folder), depth - 1)
    slaves = sorted(os.listdir(f"{folder}/slaves")) if os.path.isdir(f"{folder}/slaves") else []
    below = [one for name in slaves for one in _bottom(os.path.realpath(f"{folder}/slaves/{name}"), depth - 1)]
    return below or [folder]


def read_disk(folder: str) -> Disk:
    """What sysfs tells of a disk."""
    name, rotational = os.path.basename(folder), _read(folder, "queue/rotational")
    chosen = re.search(r"\[(.+)\]", _read(folder, "queue/scheduler"))
    medium = "nvme" if name.startswith("nvme") else {"0": "ssd", "1": "hdd"}.get(rotational, "")
    firmware = _read(folder, "device/firmware_rev") or _read(folder, "device/rev")
    model = " ".join(filter(None, [_read(folder, "device/model"), firmware]))
    return Disk(name, model, medium, _read(folder, "queue/write_cache"), chosen[1] if chosen else "")


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            return " ".join(file.read().split())
    except OSError:
        return ""
