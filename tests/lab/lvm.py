# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""LVM-thin, LVM, LVM with volume chains. After pve-storage 9.1.7: LvmThinPlugin.pm, LVMPlugin.pm.

What LVM's own tools say is not PVE's text; callers must not match on it, and neither do the recordings.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from lab import images
from lab.blockvolumes import RAW, BlockStorage
from lab.chains import Chain
from lab.images import KIB, MIB, Place
from lab.terms import Log, StorageError, Volname, VolumeInfo
from lab.volumes import PERL, Backend, Features, round_up

BOTH = frozenset({"raw", "qcow2"})


class ThinStorage(BlockStorage):
    """LVM-thin. Clones are independent in PVE's eyes: their names do not tell the base."""

    unit: ClassVar[int] = 4 * MIB
    mark: ClassVar[str] = "lvm"
    own_name: ClassVar[re.Pattern[str]] = re.compile(r"^()()?((vm|base)-(\d+)-\S+)$")

    def parse(self, volname: str) -> Volname:
        legal_lvm_name(volname)
        return replace(super().parse(volname), base=None, base_owner=None)

    def device(self, name: str) -> str:
        return f"/dev/{self.config['vgname']}/{name}"

    def snap_name(self, name: Volname, snap: str) -> str:
        return f"snap_{name.name}_{snap}"

    def activate(self, name: Volname) -> None:
        if not self.place(name).file.exists():
            raise StorageError(f"no such logical volume {self.config['vgname']}/{name.name}")

    def no_size(self, name: Volname, volid: str) -> str:
        if name.format == "qcow2":
            return super().no_size(name, volid)
        return (f"can't get size of '{self.place(name).shown}':   Failed to find logical volume "
                f'"{self.config["vgname"]}/{name.name}"')

    def check_new(self, vmid: int, fmt: str, name: str | None) -> str:
        if fmt != "raw":
            raise StorageError(f"unsupported format '{fmt}' at {PERL}/LvmThinPlugin.pm line 102.")
        return super().check_new(vmid, fmt, name)

    def exists_text(self, name: str) -> str:
        volume_group = self.config["vgname"]
        return (f"lvcreate '{volume_group}/{name}' error:   Logical Volume \"{name}\" already exists in volume group "
                f'"{volume_group}"')

    def make(self, place: Place, name: Volname, size: int, log: Log) -> None:
        super().make(place, name, size, log)
        log(f'  Logical volume "{name.name}" created.')

    def freed(self, name: str, log: Log) -> None:
        log(f'  Logical volume "{name}" successfully removed.')

    def resize(self, name: Volname, size: int, log: Log) -> None:
        self.activate(name)
        super().resize(name, size, log)
        log(f"  Logical volume {self.config['vgname']}/{name.name} successfully resized.")

    def ctime(self, when: float) -> int | str | None:
        return str(int(when))

    def clone(self, name: Volname, vmid: int, log: Log, snap: str | None) -> Volname:
        volume = super().clone(name, vmid, log, snap)
        self._origin(volume).unlink(missing_ok=True)
        return replace(volume, base=None, base_owner=None)


def legal_lvm_name(name: str) -> None:
    if not re.match(r"^[a-z0-9][a-z0-9\-_.]*[a-z0-9]$", name, re.I):
        raise StorageError(f"lvm name '{name}' contains illegal characters")


class LvmStorage(ThinStorage):
    """Thick LVM: neither snapshots nor bases nor clones."""

    own_name: ClassVar[re.Pattern[str]] = re.compile(r"^()()?((vm)-(\d+)-\S+)$")
    features: ClassVar[Features] = {"copy": {"base": RAW, "current": RAW}, "rename": {"current": RAW}}

    def activate(self, name: Volname) -> None:
        place = self.place(name)
        if not place.file.exists():
            raise StorageError(f"can't activate LV '{place.shown}':   Failed to find logical volume "
                               f'"{self.config["vgname"]}/{name.name}"')

    def check_new(self, vmid: int, fmt: str, name: str | None) -> str:
        """A name is free here; only its end has to fit the format."""
        name = name or self.free_name(vmid, fmt)
        if fmt in BOTH and (found := self.parse(name).format) != fmt:
            stem = name.removesuffix(f".{found}")
            fitting = f"{stem}.qcow2" if fmt == "qcow2" else stem
            raise StorageError(f"volume name '{name}' does not match requested format '{fmt}' "
                               f"(did you mean '{fitting}'?)")
        if fmt not in BOTH:
            raise StorageError(f"unsupported format '{fmt}' at {PERL}/LVMPlugin.pm line 696.")
        if fmt == "qcow2" and "qcow2" not in self.formats[1]:
            raise StorageError("snapshot-as-volume-chain option need to be enabled to use qcow2 format "
                               f"at {PERL}/LVMPlugin.pm line 700.")
        return name

    def is_thick(self) -> bool:
        return True

    def no_room(self, name: Volname, needed: int, left: int, growing: bool) -> str:
        wanted, free = round_up(needed, self.unit) // self.unit, left // self.unit
        if growing:
            return (f"error resizing volume '{self.place(name).shown}':   Insufficient free space: {wanted} extents "
                    f"needed, but only {free} available")
        volume_group = self.config["vgname"]
        return (f"lvcreate '{volume_group}/{name.name}' error:   Volume group \"{volume_group}\" has insufficient "
                f"free space ({free} extents): {wanted} required.")

    def parse(self, volname: str) -> Volname:
        name = super().parse(volname)
        return replace(name, format="qcow2") if volname.endswith(".qcow2") else name

    def suffix(self, fmt: str) -> str:
        return ".qcow2" if fmt == "qcow2" else ""

    def free(self, name: Volname, log: Log) -> None:
        place, volume_group = self.place(name), self.config["vgname"]
        if not place.file.exists():
            raise StorageError(f"lvremove '{volume_group}/{name.name}' error:   Failed to find logical volume "
                               f'"{volume_group}/{name.name}"')
        super().free(name, log)

    def snapshot(self, name: Volname, snap: str, log: Log) -> None:
        raise StorageError("can't snapshot 'raw' volume")

    def rollback_possible(self, name: Volname, snap: str) -> None:
        raise StorageError("can't rollback snapshot for 'raw' volume")

    def create_base(self, name: Volname) -> Volname:
        raise StorageError("can't create base images in lvm storage")

    def clone(self, name: Volname, vmid: int, log: Log, snap: str | None) -> Volname:
        raise StorageError("can't clone images in lvm storage")


class ChainLvmStorage(Chain, LvmStorage):
    """LVM with volume chains: qcow2 on a volume, each snapshot a volume below an overlay."""

    formats: ClassVar[tuple[str, tuple[str, ...]]] = ("qcow2", ("raw", "qcow2"))
    features: ClassVar[Features] = {
        "copy": {"base": BOTH, "current": BOTH, "snap": frozenset({"qcow2"})},
        "rename": {"current": BOTH},
        "snapshot": {"current": frozenset({"qcow2"}), "snap": frozenset({"qcow2"})},
    }

    def activate(self, name: Volname) -> None:
        if name.format == "raw":
            super().activate(name)
        elif not self.place(name).file.exists():
            raise StorageError(f"volume {self.volid(name)} does not exist")

    def snap_name(self, name: Volname, snap: str) -> str:
        return f"snap_{name.name.removesuffix('.qcow2')}_{snap}.qcow2"

    def make(self, place: Place, name: Volname, size: int, log: Log) -> None:
        if name.format == "raw":
            super().make(place, name, size, log)
            return
        self.check_room(name, size)
        log(f'  Logical volume "{name.name}" created.')
        images.create(place, "qcow2", round_up(size, KIB), log)

    def row(self, name: Volname) -> VolumeInfo:
        row = super().row(name)
        if name.format == "raw":
            return row
        return replace(row, format="qcow2", size=images.inspect(self.place(name), "qcow2").size)

    def resize(self, name: Volname, size: int, log: Log) -> None:
        if name.format == "raw":
            super().resize(name, size, log)
            return
        self.activate(name)
        self._grow(self.place(name), size, log)

    def _grow(self, place: Place, size: int, log: Log) -> None:
        log(f"  Logical volume {place.shown.removeprefix('/dev/')} successfully resized.")
        images.resize(place, "qcow2", size, log)

    def swap(self, name: Volname, old: str | None, new: str | None, log: Log) -> None:
        source, target = self.place(name, old).file, self.place(name, new).file
        log(f'  Renamed "{source.name}" to "{target.name}" in volume group "{self.config["vgname"]}"')
        source.rename(target)

    def drop(self, name: Volname, snap: str | None, log: Log) -> None:
        file = self.place(name, snap).file
        file.unlink()
        self.freed(file.name, log)

    def overlay(self, name: Volname, snap: str, log: Log) -> None:
        log(f'  Logical volume "{name.name}" created.')
        super().overlay(name, snap, log)

    def merge(self, name: Volname, snap: str, child: str | None, log: Log) -> None:
        old, new, called = self.place(name, snap), self.place(name, child), child or "current"
        before, after = images.inspect(old, "qcow2").size, images.inspect(new, "qcow2").size
        if after > before:
            log(f"resize '{snap}' ({before} bytes) to match '{called}' ({after} bytes)")
            self._grow(old, after, log)
        self.commit(name, child, log)
        log(f"delete {new.file.name}")
        self.drop(name, child, log)
        log(f"rename {old.file.name} to {new.file.name}")
        self.swap(name, snap, child, log)

    def snapshot(self, name: Volname, snap: str, log: Log) -> None:
        if name.format == "raw":
            raise StorageError("can't snapshot 'raw' volume")
        super().snapshot(name, snap, log)

    def rollback_possible(self, name: Volname, snap: str) -> None:
        if name.format == "raw":
            raise StorageError("can't rollback snapshot for 'raw' volume")
        Backend.rollback_possible(self, name, snap)

    def rename(self, name: Volname, target_vmid: int) -> Volname:
        if self.snapshots(name):
            raise StorageError(f"can't rename volume '{name.name}' - external snapshot exists")
        return super().rename(name, target_vmid)
