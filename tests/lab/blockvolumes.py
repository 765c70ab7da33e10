# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block storages: what they share, ZFS and RBD. In the lab a block device is a sparse file.

After pve-storage 9.1.7: ZFSPoolPlugin.pm, RBDPlugin.pm. LVM is in `lab.lvm`.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lab import images
from lab.images import KIB, MIB, Place
from lab.terms import Log, StorageError, Volname, VolumeInfo
from lab.volumes import PERL, Backend, Features, round_up

RAW = frozenset({"raw"})


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
        """Makes the volume of `alloc`."""
        self.check_room(name, self.rounded(size))
        images.sparse(place.file, self.rounded(size))

    def is_thick(self) -> bool:
        """Whether a volume takes its whole size from the start."""
        return False

    def check_room(self, name: Volname, needed: int, growing: bool = False) -> None:
        """Refuses what does not fit, where the storage is thick and the definition says `total`."""
        if not self.is_thick() or "total" not in self.config:
            return
        left = int(self.config["total"]) - self.occupied()
        if needed > left:
            raise StorageError(self.no_room(name, needed, left, growing))

    def no_room(self, name: Volname, needed: int, left: int, growing: bool) -> str:
        """What PVE says when a volume, or what it is to grow by, does not fit."""
        return f"{self.mark} error: out of space"

    def occupied(self) -> int:
        if not self.is_thick():
            return super().occupied()
        return sum(self.rounded((self.folder / file).stat().st_size) for file in self.names(0))

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
        path = self.place(name).file
        self.check_room(name, self.rounded(size) - path.stat().st_size, growing=True)
        os.truncate(path, self.rounded(size))

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
            if "@" not in file and self.own_name.match(file):
                name = self.parse(file)
                if vmid in (None, name.owner):
                    yield self.row(self._with_base(name))

    def _with_base(self, name: Volname) -> Volname:
        """The volume with the base that it was cloned from."""
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

    def adopt_clone(self, name: Volname, base: Volname, size: int) -> None:
        images.copy(self.place(base).file, self.place(name).file)
        os.truncate(self.place(name).file, self.rounded(max(size, self.place(base).file.stat().st_size)))
        self._origin(name).write_text(base.name)

    def tell_clone(self, name: Volname, target: Volname, snap: str | None, log: Log) -> None:
        """Tells the log, where PVE does."""

    def rename(self, name: Volname, target_vmid: int) -> Volname:
        target = self.parse(self.free_name(target_vmid, name.format))
        target = replace(target, base=name.base, base_owner=name.base_owner)
        self._renamed(name, target)
        return target


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

    def is_thick(self) -> bool:
        return not self.config.get("sparse")

    def no_room(self, name: Volname, needed: int, left: int, growing: bool) -> str:
        path = f"{self.config['pool']}/{name.name}"
        if growing:
            return f"zfs error: cannot set property for '{path}': size is greater than available space"
        return f"zfs error: cannot create '{path}': out of space"

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
