# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block storages: LVM, LVM with volume chains, LVM-thin, ZFS, RBD. In the lab a block device is a sparse file.

After pve-storage 9.1.7: LVMPlugin.pm, LvmThinPlugin.pm, ZFSPoolPlugin.pm, RBDPlugin.pm. What LVM itself says is not
PVE's text; callers must not match on it, and neither do the recordings.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lab import images
from lab.chains import Chain
from lab.images import KIB, MIB, Place
from lab.terms import Log, StorageError, Volname, VolumeInfo
from lab.volumes import PERL, Backend, Features, round_up

RAW = frozenset({"raw"})
BOTH = frozenset({"raw", "qcow2"})


class BlockStorage(Backend):
    """Raw volumes in one flat name space; a snapshot is a copy of its own."""

    unit: ClassVar[int] = MIB
    mark: ClassVar[str] = ""
    """How log lines and messages call the kind."""
    own_name: ClassVar[re.Pattern[str]] = re.compile(r"^(?:(base-(\d+)-\S+)/)?((base|vm)-(\d+)-\S+)$")
    features: ClassVar[Features] = {
        "snapshot": {"current": RAW, "snap": RAW},
        "clone": {"base": RAW, "snap": RAW},
        "template": {"current": RAW},
        "copy": {"base": RAW, "current": RAW, "snap": RAW},
        "sparseinit": {"base": RAW, "current": RAW},
        "rename": {"current": RAW},
    }

    # ---- names

    def parse(self, volname: str) -> Volname:
        found = self.own_name.match(volname)
        if not found:
            raise StorageError(f"unable to parse {self.mark} volume name '{volname}'")
        return Volname(self.sid, "images", found[3], int(found[5]), found[1], found[4] == "base", "raw",
                       int(found[2]) if found[2] else None)

    def volid(self, name: Volname) -> str:
        return f"{self.sid}:{name.base}/{name.name}" if name.base else f"{self.sid}:{name.name}"

    @abstractmethod
    def device(self, name: str) -> str:
        """PVE's path of the device."""

    def snap_name(self, name: Volname, snap: str) -> str:
        return f"{name.name}@{snap}"

    def place(self, name: Volname, snap: str | None = None) -> Place:
        own = self.snap_name(name, snap) if snap else name.name
        return Place(self.folder / own, self.device(own))

    def names(self, vmid: int) -> list[str]:
        return [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]

    def suffix(self, fmt: str) -> str:
        return ""

    # ---- volumes

    def rounded(self, size: int) -> int:
        return round_up(round_up(size, KIB), self.unit)

    def check_new(self, vmid: int, fmt: str, name: str | None) -> str:
        if name and not name.startswith(f"vm-{vmid}-"):
            raise StorageError(f"illegal name '{name}' - should be 'vm-{vmid}-*'")
        return name or self.free_name(vmid, fmt)

    def alloc(self, vmid: int, fmt: str, name: str | None, size: int, log: Log) -> Volname:
        volume = self.parse(self.check_new(vmid, fmt, name))
        place = self.place(volume)
        if place.file.exists():
            raise StorageError(self.exists_text(volume.name))
        self.make(place, volume, size, log)
        return volume

    def exists_text(self, name: str) -> str:
        return f"{self.mark} error: {name}: already exists"

    def make(self, place: Place, name: Volname, size: int, log: Log) -> None:
        images.sparse(place.file, self.rounded(size))

    def free(self, name: Volname, log: Log) -> None:
        file = self.place(name).file
        if file.exists():
            for snap in self.snapshots(name):
                self.place(name, snap).file.unlink()
            file.unlink()
            self._origin(name).unlink(missing_ok=True)
            self.freed(name.name, log)

    def freed(self, name: str, log: Log) -> None:
        """Tells the log, where the tool below does."""

    def resize(self, name: Volname, size: int, log: Log) -> None:
        with self.place(name).file.open("r+b") as file:
            file.truncate(self.rounded(size))

    def row(self, name: Volname) -> VolumeInfo:
        stat = self.place(name).file.stat()
        parent = f"{name.base}@__base__" if name.base else None
        return VolumeInfo(self.volid(name), "raw", stat.st_size, self.used(stat.st_blocks * 512), parent, name.owner,
                          self.ctime(stat.st_ctime))

    def used(self, size: int) -> int | None:
        """A content listing has `used` for files only."""
        return None

    def ctime(self, when: float) -> int | str | None:
        return None

    def rows(self, vmid: int | None) -> Iterator[VolumeInfo]:
        for file in sorted(self.names(vmid or 0)):
            if "@" not in file and (name := self.listed(file)) and vmid in (None, name.owner):
                yield self.row(name)

    def listed(self, file: str) -> Volname | None:
        """The volume that a file is, with the base that it was cloned from; None for snapshots and strangers."""
        if not self.own_name.match(file):
            return None
        name = self.parse(file)
        origin = self._origin(name)
        if not origin.exists():
            return name
        base = self.parse(origin.read_text())
        return replace(name, base=base.name, base_owner=base.owner)

    # ---- snapshots

    def snapshot(self, name: Volname, snap: str, log: Log) -> None:
        images.copy(self.place(name).file, self.place(name, snap).file)

    def rollback(self, name: Volname, snap: str, log: Log) -> None:
        images.copy(self.place(name, snap).file, self.place(name).file)

    def snapshot_delete(self, name: Volname, snap: str, log: Log) -> None:
        self.place(name, snap).file.unlink()

    def snapshots(self, name: Volname) -> list[str]:
        start = self.snap_name(name, "")
        found = [path for path in self.folder.iterdir() if path.name.startswith(start)]
        return [path.name[len(start):] for path in sorted(found, key=lambda p: p.stat().st_mtime_ns)]

    # ---- bases and clones

    def _origin(self, name: Volname) -> Path:
        """The file that remembers what a volume was cloned from, as zfs and rbd themselves do."""
        return self.folder / f".{name.name}.origin"

    def create_base(self, name: Volname) -> Volname:
        if name.is_base:
            raise StorageError("create_base not possible with base image")
        base = replace(name, name=re.sub(r"^vm-", "base-", name.name), is_base=True)
        self._renamed(name, base)
        return base

    def _renamed(self, name: Volname, target: Volname) -> None:
        """The volume with its snapshots, as zfs and rbd rename them."""
        for snap in self.snapshots(name):
            self.place(name, snap).file.rename(self.place(target, snap).file)
        self.place(name).file.rename(self.place(target).file)
        if self._origin(name).exists():
            self._origin(name).rename(self._origin(target))

    def clone(self, name: Volname, vmid: int, log: Log, snap: str | None) -> Volname:
        if not name.is_base and not snap:
            raise StorageError("clone_image only works on base images")
        volume = replace(self.parse(self.free_name(vmid, "raw")), base=None if snap else name.name,
                         base_owner=None if snap else name.owner)
        self.tell_clone(name, volume, snap, log)
        images.copy(self.place(name, snap).file, self.place(volume).file)
        if volume.base:
            self._origin(volume).write_text(volume.base)
        return volume

    def tell_clone(self, name: Volname, target: Volname, snap: str | None, log: Log) -> None:
        """Tells the log, where PVE does."""

    def rename(self, name: Volname, target_vmid: int) -> Volname:
        target = self.parse(self.free_name(target_vmid, name.format))
        target = replace(target, base=name.base, base_owner=name.base_owner)
        self._renamed(name, target)
        return target


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


class ZfsStorage(BlockStorage):
    """A ZFS pool: volumes in whole MiB, clones that name their base, rollback to the newest snapshot only."""

    formats: ClassVar[tuple[str, tuple[str, ...]]] = ("raw", ("raw", "subvol"))
    mark: ClassVar[str] = "zfs"
    sequential: ClassVar[bool] = True
    features: ClassVar[Features] = {
        **{key: value for key, value in BlockStorage.features.items() if key not in ("clone", "copy")},
        "clone": {"base": RAW},
        "copy": {"base": RAW, "current": RAW},
        "replicate": {"base": RAW, "current": RAW},
    }

    def device(self, name: str) -> str:
        return f"/dev/zvol/{self.config['pool']}/{name}"

    def called(self, name: Volname) -> str:
        return self.volid(name)

    def activate(self, name: Volname) -> None:
        if not self.place(name).file.exists():
            raise StorageError(f"timeout: no zvol device link for '{self.volid(name).partition(':')[2]}' found "
                               "after 10 sec.")

    def no_size(self, name: Volname, volid: str) -> str:
        return f"zfs error: cannot open '{self.config['pool']}/{name.name}': dataset does not exist"

    def check_new(self, vmid: int, fmt: str, name: str | None) -> str:
        if fmt != "raw":
            raise StorageError(f"unsupported format '{fmt}' at {PERL}/ZFSPoolPlugin.pm line 292.")
        return super().check_new(vmid, fmt, name)

    def exists_text(self, name: str) -> str:
        return f"zfs error: cannot create '{self.config['pool']}/{name}': dataset already exists"


class RbdStorage(BlockStorage):
    """A Ceph pool: volumes in whole MiB, clones that name their base."""

    mark: ClassVar[str] = "rbd"

    def device(self, name: str) -> str:
        return f"rbd:{self.config.get('pool', 'rbd')}/{name}"

    def activate(self, name: Volname) -> None:
        if not self.place(name).file.exists():
            raise StorageError(self.no_size(name, self.volid(name)))

    def no_size(self, name: Volname, volid: str) -> str:
        return f"rbd error: rbd: error opening image {name.name}: (2) No such file or directory"

    def check_new(self, vmid: int, fmt: str, name: str | None) -> str:
        return super().check_new(vmid, "raw", name)

    def exists_text(self, name: str) -> str:
        return f"rbd create '{name}' error: rbd: create error: (17) File exists"

    def tell_clone(self, name: Volname, target: Volname, snap: str | None, log: Log) -> None:
        own = self.volid(name).partition(":")[2]
        log(f"clone {own}: {name.name} snapname {snap or '__base__'} to {target.name}")
