# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""btrfs: a folder whose raw disks are subvolumes. After pve-storage 9.1.7: Storage/BTRFSPlugin.pm."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lab import images
from lab.filevolumes import FileStorage, image_name
from lab.images import KIB, Place
from lab.terms import Log, StorageError, Volname
from lab.volumes import ALL, Features, round_up


class BtrfsStorage(FileStorage):
    """A raw disk is a subvolume with a file in it, so it has snapshots and clones; the rest is as on dir."""

    formats: ClassVar[tuple[str, tuple[str, ...]]] = ("raw", ("raw", "subvol"))
    features: ClassVar[Features] = {
        "snapshot": {"current": frozenset({"qcow2", "raw"}), "snap": frozenset({"qcow2", "raw"})},
        "clone": {"base": ALL, "current": frozenset({"raw"}), "snap": frozenset({"raw"})},
        "template": {"current": ALL},
        "copy": {"base": ALL, "current": ALL, "snap": frozenset({"qcow2", "raw"})},
        "sparseinit": {"base": ALL, "current": ALL},
        "rename": {"current": ALL},
    }

    def file_name(self, name: Volname, snap: str | None) -> str:
        if name.vtype != "images" or name.format != "raw":
            return name.name
        return name.name.removesuffix(".raw") + (f"@{snap}" if snap else "") + "/disk.raw"

    def names(self, vmid: int) -> list[str]:
        return [path.name for path in self.image_files(vmid) if "@" not in path.name]

    def owned(self, path: Path) -> Volname | None:
        if "@" in path.name or ("." in path.name) == path.is_dir():
            return None
        name = path.name + ("" if "." in path.name else ".raw")
        try:
            fmt, is_base = image_name(name)
        except StorageError:
            return None
        return Volname(self.sid, "images", name, int(path.parent.name), None, is_base, fmt)

    def alloc(self, vmid: int, fmt: str, name: str | None, size: int, log: Log) -> Volname:
        if fmt != "raw":
            return super().alloc(vmid, fmt, name, size, log)
        volume, place = self.new_place(vmid, fmt, name)
        subvolume = Place(place.file.parent, place.shown.removesuffix("/disk.raw"))
        if place.file.exists():
            raise StorageError(f"disk image '{subvolume.shown}' already exists")
        images.sparse(place.file, round_up(size, KIB))
        return volume

    def remove(self, name: Volname, log: Log) -> None:
        if name.format != "raw":
            super().remove(name, log)
            return
        folder = self.place(name).file.parent
        for path in [folder, *folder.parent.glob(f"{folder.name}@*")]:
            (path / "disk.raw").unlink()
            path.rmdir()

    def free(self, name: Volname, log: Log) -> None:
        super().free(name, log)
        folder = self.folder / self.subdir("images") / str(name.owner)
        if name.vtype == "images" and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()

    def _copied(self, source: Place, target: Place) -> None:
        target.file.parent.mkdir(parents=True, exist_ok=True)
        images.copy(source.file, target.file)

    def snapshot(self, name: Volname, snap: str, log: Log) -> None:
        if name.format == "raw":
            self._copied(self.place(name), self.place(name, snap))
        else:
            super().snapshot(name, snap, log)

    def rollback(self, name: Volname, snap: str, log: Log) -> None:
        if name.format == "raw":
            self._copied(self.place(name, snap), self.place(name))
        else:
            super().rollback(name, snap, log)

    def snapshot_delete(self, name: Volname, snap: str, log: Log) -> None:
        if name.format != "raw":
            super().snapshot_delete(name, snap, log)
            return
        path = self.place(name, snap).file
        path.unlink()
        path.parent.rmdir()

    def snapshots(self, name: Volname) -> list[str]:
        if name.format != "raw":
            return super().snapshots(name)
        folder = self.place(name).file.parent
        found = sorted(folder.parent.glob(f"{folder.name}@*"), key=lambda p: (p / "disk.raw").stat().st_mtime_ns)
        return [path.name.partition("@")[2] for path in found]

    def source(self, name: Volname, snap: str | None) -> tuple[Place, str | None]:
        if name.format == "raw":
            return self.place(name, snap), None
        return super().source(name, snap)

    def _move(self, name: Volname, target: Volname) -> None:
        old, new = self.place(name).file, self.place(target).file
        new.parent.parent.mkdir(parents=True, exist_ok=True)
        old.parent.rename(new.parent)

    def create_base(self, name: Volname) -> Volname:
        if name.format != "raw":
            return super().create_base(name)
        base = replace(name, name=re.sub(r"^vm-", "base-", name.name), is_base=True)
        self._move(name, base)
        return base

    def clone(self, name: Volname, vmid: int, log: Log, snap: str | None) -> Volname:
        if name.format != "raw":
            return super().clone(name, vmid, log, snap)
        volume = Volname(self.sid, "images", self.free_name(vmid, "raw"), vmid, None, False, "raw")
        self._copied(self.place(name, snap), self.place(volume))
        return volume

    def rename(self, name: Volname, target_vmid: int) -> Volname:
        if name.format != "raw":
            return super().rename(name, target_vmid)
        volume = replace(name, name=self.free_name(target_vmid, "raw"), owner=target_vmid)
        self._move(name, volume)
        return volume
