# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storages that are folders: dir, nfs, cifs, and the same with volume chains.

After pve-storage 9.1.7: Storage/Plugin.pm, DirPlugin.pm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lab import images
from lab.chains import Chain
from lab.images import KIB, MIB, Place
from lab.terms import Log, StorageError, Volname, VolumeInfo
from lab.volumes import ALL, Backend, Features, round_up

NAME = re.compile(r"^((vm-|base-|subvol-)(\d+)-[^/\s]+\.(raw|qcow2|vmdk|subvol))$")
OTHER_NAME = re.compile(r"^((base-)?[^/\s]+\.(raw|qcow2|vmdk|subvol))$")
OWN_USE = 64 * MIB
"""What the file system below takes for itself."""
SAFE, SAFE_SPACE = r"[a-zA-Z0-9\-.+=_]", r"[ a-zA-Z0-9\-.+=_]"
IMPORT_EXT = r"\.(ova|ovf|qcow2|raw|vmdk)"
FILES = {
    "iso": re.compile(r"^([^/]+\.(?:iso|img))$", re.I),
    "vztmpl": re.compile(r"^([^/]+\.tar(?:\.(?:gz|xz|zst|bz2))?)$"),
    "backup": re.compile(r"^([^/]+\.(?:tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?))$"),
    "snippets": re.compile(r"^([^/]+)$"),
    "import": re.compile(rf"^({SAFE_SPACE}+{IMPORT_EXT})$"),
}
"""Content types that are plain files, and the names they take."""
SUBDIRS = {"images": "images", "rootdir": "private", "iso": "template/iso", "vztmpl": "template/cache",
           "backup": "dump", "snippets": "snippets", "import": "import"}
OVA_MEMBER = re.compile(rf"^({SAFE_SPACE}+\.ova/{SAFE_SPACE}+\.(qcow2|raw|vmdk))$")
LINKED = re.compile(r"^(\d+)/(\S+)/(\d+)/(\S+)$")
PLAIN = re.compile(r"^(\d+)/(\S+)$")


def image_name(name: str) -> tuple[str, bool]:
    """The format in a file name and whether it is a base; raises PVE's text (parse_name_dir)."""
    if found := NAME.match(name):
        return found[4], found[2] == "base-"
    if re.match(r"^snap-.*\.qcow2$", name):
        raise StorageError(f"'{name}' is a snapshot filename, not a volume!")
    if found := OTHER_NAME.match(name):
        return found[3], bool(found[2])
    raise StorageError(f"unable to parse volume filename '{name}'")


class FileStorage(Backend):
    """dir, nfs, cifs. Snapshots are internal to a qcow2, linked clones are overlays."""

    formats: ClassVar[tuple[str, tuple[str, ...]]] = ("raw", ("raw", "qcow2", "vmdk", "subvol"))
    features: ClassVar[Features] = {
        "snapshot": {"current": frozenset({"qcow2"}), "snap": frozenset({"qcow2"})},
        "clone": {"base": ALL},
        "template": {"current": ALL},
        "copy": {"base": ALL, "current": ALL, "snap": frozenset({"qcow2"})},
        "sparseinit": {"base": ALL, "current": ALL},
        "rename": {"current": ALL},
    }

    # ---- names

    def parse(self, volname: str) -> Volname:
        if found := LINKED.match(volname):
            image_name(found[2])
            fmt, is_base = image_name(found[4])
            return Volname(self.sid, "images", found[4], int(found[3]), found[2], is_base, fmt, int(found[1]))
        if found := PLAIN.match(volname):
            fmt, is_base = image_name(found[2])
            return Volname(self.sid, "images", found[2], int(found[1]), None, is_base, fmt)
        vtype, _, rest = volname.partition("/")
        if vtype == "import" and (found := OVA_MEMBER.match(rest)):
            return Volname(self.sid, "import", rest, None, None, False, f"ova+{found[2]}")
        if vtype in FILES and FILES[vtype].match(rest):
            return Volname(self.sid, vtype, rest, None, None, False,
                           rest.rpartition(".")[2] if vtype == "import" else "raw")
        raise StorageError(f"unable to parse directory volume name '{volname}'")

    def volid(self, name: Volname) -> str:
        if name.owner is None:
            return f"{self.sid}:{name.vtype}/{name.name}"
        base = f"{name.base_owner}/{name.base}/" if name.base else ""
        return f"{self.sid}:{base}{name.owner}/{name.name}"

    def subdir(self, vtype: str) -> str:
        """The content type's folder below the storage's path."""
        given = dict(part.split("=", 1) for part in str(self.config.get("content-dirs", "")).split(",") if "=" in part)
        return given.get(vtype, SUBDIRS[vtype])

    def at(self, relative: str) -> Place:
        return Place(self.folder / relative, f"{self.config['path']}/{relative}")

    def file_name(self, name: Volname, snap: str | None) -> str:
        return name.name

    def place(self, name: Volname, snap: str | None = None) -> Place:
        owner = f"{name.owner}/" if name.vtype == "images" else ""
        return self.at(f"{self.subdir(name.vtype)}/{owner}{self.file_name(name, snap)}")

    def image_files(self, vmid: int | None) -> list[Path]:
        wanted = "[0-9][0-9]*" if vmid is None else str(vmid)
        return sorted(self.folder.glob(f"{self.subdir('images')}/{wanted}/*"))

    def names(self, vmid: int) -> list[str]:
        return [path.name for path in self.image_files(vmid) if not path.name.startswith("snap-")]

    # ---- volumes

    def activate(self, name: Volname) -> None:
        if not self.place(name).file.exists():
            raise StorageError(f"volume '{self.volid(name)}' does not exist")

    def new_place(self, vmid: int, fmt: str, name: str | None) -> tuple[Volname, Place]:
        """The checks of a new image's name; makes its folder."""
        name = name or self.free_name(vmid, fmt)
        found, is_base = image_name(name)
        if found != fmt:
            raise StorageError(f"illegal name '{name}' - wrong extension for format ('{found} != '{fmt}')")
        volume = Volname(self.sid, "images", name, vmid, None, is_base, fmt)
        place = self.place(volume)
        place.file.parent.mkdir(parents=True, exist_ok=True)
        return volume, place

    def alloc(self, vmid: int, fmt: str, name: str | None, size: int, log: Log) -> Volname:
        volume, place = self.new_place(vmid, fmt, name)
        if place.file.exists():
            raise StorageError(f"disk image '{place.shown}' already exists")
        images.create(place, fmt, round_up(size, KIB), log)
        return volume

    def free(self, name: Volname, log: Log) -> None:
        place = self.place(name)
        if not place.file.exists():
            log(f"disk image '{place.shown}' does not exist")
            return
        self.remove(name, log)
        if name.vtype == "images" and place.file.parent.exists() and not any(place.file.parent.iterdir()):
            place.file.parent.rmdir()

    def remove(self, name: Volname, log: Log) -> None:
        self.place(name).file.unlink()

    def resize(self, name: Volname, size: int, log: Log) -> None:
        if name.format not in ("raw", "qcow2"):
            raise StorageError("can't resize this image format")
        place = self.place(name)
        if name.is_base:  # PVE sets the immutable flag on it
            log(f"qemu-img: Could not open '{place.shown}': Could not open '{place.shown}': Operation not permitted")
            raise StorageError(images.resize_failure(place, name.format, size))
        images.resize(place, name.format, size, log)

    def row(self, name: Volname) -> VolumeInfo:
        place = self.place(name)
        image = images.inspect(place, name.format)
        parent = re.match(r"^\.\./(\d+)/([^/]+\.(?:raw|qcow2|vmdk))$", image.backing or "")
        volume = replace(name, base=parent[2], base_owner=int(parent[1])) if parent else name
        return VolumeInfo(self.volid(volume), name.format, image.size, image.used, image.backing, name.owner,
                          int(place.file.stat().st_ctime))

    def owned(self, path: Path) -> Volname | None:
        """The volume that a file in an image folder is, or None."""
        try:
            fmt, is_base = image_name(path.name)
        except StorageError:
            return None
        if fmt not in self.formats[1]:
            return None
        return Volname(self.sid, "images", path.name, int(path.parent.name), None, is_base, fmt)

    def rows(self, vmid: int | None) -> Iterator[VolumeInfo]:
        for path in self.image_files(vmid):
            if name := self.owned(path):
                yield self.row(name)

    def files(self, vtype: str) -> Iterator[VolumeInfo]:
        for path in self.folder.glob(f"{self.subdir(vtype)}/*"):
            if vtype in FILES and FILES[vtype].match(path.name) and path.is_file():
                stat, name = path.stat(), self.parse(f"{vtype}/{path.name}")
                yield VolumeInfo(self.volid(name), name.format, stat.st_size, None, None, None, int(stat.st_ctime))

    def occupied(self) -> int:
        return OWN_USE + super().occupied()

    # ---- snapshots

    def needs_qcow2(self, name: Volname, doing: str) -> None:
        """Only qcow2 has snapshots inside."""
        if name.format != "qcow2":
            raise StorageError(f"can't {doing} this image format")

    def snapshot(self, name: Volname, snap: str, log: Log) -> None:
        self.needs_qcow2(name, "snapshot")
        images.snapshot(self.place(name), "-c", snap)

    def rollback(self, name: Volname, snap: str, log: Log) -> None:
        self.needs_qcow2(name, "rollback snapshot")
        images.snapshot(self.place(name), "-a", snap)

    def snapshot_delete(self, name: Volname, snap: str, log: Log) -> None:
        self.needs_qcow2(name, "delete snapshot for")
        images.snapshot(self.place(name), "-d", snap)

    def snapshots(self, name: Volname) -> list[str]:
        return list(images.inspect(self.place(name), name.format).snapshots)

    def source(self, name: Volname, snap: str | None) -> tuple[Place, str | None]:
        return self.place(name), snap

    # ---- bases and clones

    def create_base(self, name: Volname) -> Volname:
        if name.is_base:
            raise StorageError("create_base not possible with base image")
        base = replace(name, name=re.sub(r"^vm-", "base-", name.name), is_base=True)
        target = self.place(base)
        if target.file.exists():
            raise StorageError(f"file '{target.shown}' already exists")
        self.place(name).file.rename(target.file)
        return base

    def clone(self, name: Volname, vmid: int, log: Log, snap: str | None) -> Volname:
        if snap:
            raise StorageError("this storage type does not support clone_image on snapshot")
        if not name.is_base:
            raise StorageError("clone_image only works on base images")
        new = self.free_name(vmid, "qcow2")
        own = self.volid(name).partition(":")[2]
        log(f"clone {own}: images, {new}, {vmid} to {new} (base=../{name.owner}/{name.name})")
        volume = Volname(self.sid, "images", new, vmid, name.name, False, "qcow2", name.owner)
        place = self.place(volume)
        place.file.parent.mkdir(parents=True, exist_ok=True)
        images.create_backed(place, f"../{name.owner}/{name.name}", name.format, log)
        return volume

    def adopt_clone(self, name: Volname, base: Volname, size: int) -> None:
        fmt, _ = image_name(base.name)
        images.create_backed(self.place(name), f"../{base.owner}/{base.name}", fmt, lambda _: None)
        if size > images.inspect(self.place(name), "qcow2").size:
            images.resize(self.place(name), "qcow2", round_up(size, KIB), lambda _: None)

    def rename(self, name: Volname, target_vmid: int) -> Volname:
        volume = replace(name, name=self.free_name(target_vmid, name.format), owner=target_vmid, is_base=False)
        target = self.place(volume).file
        target.parent.mkdir(parents=True, exist_ok=True)
        self.place(name).file.rename(target)
        return volume


class ShareStorage(FileStorage):
    """nfs and cifs: the same without subvolumes, so each format counts its disk numbers alone."""

    formats: ClassVar[tuple[str, tuple[str, ...]]] = ("raw", ("raw", "qcow2", "vmdk"))


class ChainStorage(Chain, FileStorage):
    """A folder with volume chains."""

    def file_name(self, name: Volname, snap: str | None) -> str:
        return f"snap-{snap}-{name.name}" if snap else name.name

    def swap(self, name: Volname, old: str | None, new: str | None, log: Log) -> None:
        source, target = self.place(name, old), self.place(name, new)
        log(f"rename {source.shown} to {target.shown}")
        source.file.rename(target.file)

    def drop(self, name: Volname, snap: str | None, log: Log) -> None:
        self.place(name, snap).file.unlink()

    def merge(self, name: Volname, snap: str, child: str | None, log: Log) -> None:
        self.commit(name, child, log)
        self.swap(name, snap, child, log)

    def snapshot(self, name: Volname, snap: str, log: Log) -> None:
        self.needs_qcow2(name, "snapshot")
        super().snapshot(name, snap, log)

    def rollback(self, name: Volname, snap: str, log: Log) -> None:
        self.needs_qcow2(name, "rollback snapshot")
        super().rollback(name, snap, log)

    def snapshot_delete(self, name: Volname, snap: str, log: Log) -> None:
        self.needs_qcow2(name, "delete snapshot for")
        super().snapshot_delete(name, snap, log)

    def remove(self, name: Volname, log: Log) -> None:
        chain, place = self.snapshots(name), self.place(name)
        linked = name.format == "qcow2" and not chain and images.inspect(place, "qcow2").backing
        for snap in [None, *chain]:
            self.drop(name, snap, log)
        if linked:  # PVE takes the base for a snapshot without a name, and so for the volume itself
            log(f"unlink '{place.shown}' failed - No such file or directory")

    def source(self, name: Volname, snap: str | None) -> tuple[Place, str | None]:
        return self.place(name, snap), None

    def rename(self, name: Volname, target_vmid: int) -> Volname:
        if self.snapshots(name):
            raise StorageError("we can't rename volume if a snapshot backed by a volume-chain exists")
        return super().rename(name, target_vmid)
