# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storages of one node: PVE's names, refusals and log lines over real images in a folder.

`Storages` is the door to everything that the lab keeps on disk. It knows storage.cfg, sends each call to the kind
of storage behind the volume id (`lab.filevolumes`, `lab.lvm` …), and raises `StorageError` with PVE's text.
"""

from __future__ import annotations

import builtins
import re
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import images, imports
from lab.blockvolumes import RbdStorage, ZfsStorage
from lab.btrfs import BtrfsStorage
from lab.filevolumes import ChainStorage, FileStorage, ShareStorage
from lab.images import GIB, Place
from lab.lvm import ChainLvmStorage, LvmStorage, ThinStorage
from lab.terms import Log, StorageError, Volname, VolumeInfo
from lab.volumes import Backend

__all__ = ["Log", "StorageError", "Storages", "Volname", "VolumeInfo"]


@dataclass(frozen=True)
class Kind:
    """A storage type: its class, with volume chains and without, and what storage.cfg means when it is silent."""

    plain: type[Backend]
    chained: type[Backend]
    content: str
    shared: bool = False


KINDS = {
    "dir": Kind(FileStorage, ChainStorage, "images,rootdir"),
    "nfs": Kind(ShareStorage, ChainStorage, "images", shared=True),
    "cifs": Kind(ShareStorage, ChainStorage, "images", shared=True),
    "btrfs": Kind(BtrfsStorage, BtrfsStorage, "images,rootdir"),
    "lvmthin": Kind(ThinStorage, ThinStorage, "images,rootdir"),
    "lvm": Kind(LvmStorage, ChainLvmStorage, "images"),
    "zfspool": Kind(ZfsStorage, ZfsStorage, "images,rootdir"),
    "rbd": Kind(RbdStorage, RbdStorage, "images", shared=True),
}
FILE_TYPES = frozenset({"dir", "nfs", "cifs", "btrfs"})
OWN_KEYS = frozenset({"total", "offline"})
"""What the lab adds to storage.cfg's keys: `total` bytes (no thick volume goes beyond), `offline` (unreachable)."""

VOLID = re.compile(r"^([a-z][a-z0-9\-_.]*[a-z0-9]):(.+)$", re.I)

_locks: dict[Path, threading.RLock] = {}
_locks_lock = threading.Lock()


def _lock_of(folder: Path) -> threading.RLock:
    """One lock for one folder, so that two nodes' views of a shared storage exclude each other."""
    with _locks_lock:
        return _locks.setdefault(folder.resolve(), threading.RLock())


class Storages:
    """Every storage that one node sees. Thread-safe and synchronous; sizes are bytes.

    `root`/storages holds a folder for each node, and `shared` for the storages that all nodes see. Definitions are as
    in storage.cfg (type, path, vgname, content, nodes, disable, snapshot-as-volume-chain …), plus OWN_KEYS.
    """

    def __init__(self, root: Path, definitions: Mapping[str, Mapping[str, Any]], node: str) -> None:
        self.root = root
        self.node = node
        self.definitions = {sid: self._complete(sid, given) for sid, given in definitions.items()}
        self._backends: dict[str, Backend] = {}

    @staticmethod
    def _complete(sid: str, given: Mapping[str, Any]) -> dict[str, Any]:
        kind = KINDS[given["type"]]
        full: dict[str, Any] = {"content": kind.content, **given}
        if given["type"] in FILE_TYPES:
            full.setdefault("path", "/var/lib/vz" if sid == "local" else f"/mnt/pve/{sid}")
        if kind.shared:
            full["shared"] = 1
        return full

    # ---- configuration

    def get(self, sid: str) -> Mapping[str, Any]:
        if sid not in self.definitions:
            raise StorageError(f"storage '{sid}' does not exist")
        return self.definitions[sid]

    def config(self, sid: str) -> dict[str, Any]:
        """What storage.cfg says: the definition without the lab's own keys."""
        return {key: value for key, value in self.get(sid).items() if key not in OWN_KEYS}

    def enabled(self, sid: str) -> bool:
        config = self.get(sid)
        nodes = [n for n in re.split(r"[,; ]+", str(config.get("nodes", ""))) if n]
        return not config.get("disable") and (not nodes or self.node in nodes)

    def active(self, sid: str) -> bool:
        return self.enabled(sid) and not self.get(sid).get("offline")

    def require_enabled(self, sid: str) -> Mapping[str, Any]:
        config = self.get(sid)
        if config.get("disable"):
            raise StorageError(f"storage '{sid}' is disabled")
        if not self.enabled(sid):
            raise StorageError(f"storage '{sid}' is not available on node '{self.node}'")
        return config

    def backend(self, sid: str) -> Backend:
        """The storage, activated: raises when it is not defined, disabled, not for this node, or unreachable."""
        config = self.require_enabled(sid)
        if config.get("offline"):
            raise StorageError(f"storage '{sid}' is not online")
        return self._named(sid)

    def _named(self, sid: str) -> Backend:
        config = self.get(sid)
        if sid not in self._backends:
            kind = KINDS[config["type"]]
            folder = self.root / "storages" / ("shared" if config.get("shared") else self.node) / sid
            chained = config.get("snapshot-as-volume-chain")
            self._backends[sid] = (kind.chained if chained else kind.plain)(sid, config, folder)
        return self._backends[sid]

    def content_types(self, sid: str) -> builtins.list[str]:
        return [part for part in str(self.get(sid)["content"]).split(",") if part]

    def file_based(self, sid: str) -> bool:
        return self.get(sid)["type"] in FILE_TYPES

    def formats(self, sid: str) -> tuple[str, tuple[str, ...]]:
        default, supported = self._named(sid).formats
        return str(self.get(sid).get("format") or default), supported

    def usable_format(self, sid: str, fmt: str | None) -> str:
        """`fmt` where the storage can hold it, else the storage's default (resolve_format_hint)."""
        default, supported = self.formats(sid)
        return fmt if fmt and fmt in supported else default

    def space(self, sid: str) -> tuple[int, int, int]:
        """Bytes in all, used and left; nothing when the storage is not active."""
        if not self.active(sid):
            return 0, 0, 0
        total = int(self.get(sid).get("total", 100 * GIB))
        used = min(self._named(sid).occupied(), total)
        return total, used, total - used

    # ---- names

    def parse_volid(self, volid: str) -> tuple[str, str]:
        """Storage and volume name; raises for what is no volume id."""
        found = VOLID.match(volid)
        if not found:
            raise StorageError(f"unable to parse volume ID '{volid}'")
        return found[1], found[2]

    def parse_volname(self, volid: str) -> Volname:
        sid, volname = self.parse_volid(volid)
        return self._named(sid).parse(volname)

    def place(self, volid: str, snap: str | None = None) -> Place:
        name = self.parse_volname(volid)
        return self._named(name.storage).place(name, snap)

    def file(self, volid: str) -> Path:
        """The real file."""
        return self.place(volid).file

    def shown_path(self, volid: str) -> str:
        """The path that PVE has for it."""
        return self.place(volid).shown

    def real_path(self, shown: str) -> Place:
        """The file behind one of PVE's absolute paths. Only what is on a storage is found, never this machine's own."""
        for sid, config in self.definitions.items():
            path = str(config.get("path", ""))
            if path and self.active(sid) and shown.startswith(f"{path}/") and ".." not in shown.split("/"):
                return Place(self._named(sid).folder / shown.removeprefix(f"{path}/"), shown)
        return Place(self.root / "absent", shown)

    # ---- volumes

    def _volume(self, volid: str) -> tuple[Backend, Volname]:
        sid, volname = self.parse_volid(volid)
        backend = self.backend(sid)
        return backend, backend.parse(volname)

    def _present(self, volid: str) -> tuple[Backend, Volname]:
        backend, name = self._volume(volid)
        backend.activate(name)
        return backend, name

    def activate(self, volid: str) -> None:
        """Raises PVE's text when the volume is not there."""
        self._present(volid)

    def exists(self, volid: str) -> bool:
        backend, name = self._volume(volid)
        return backend.place(name).file.exists()

    def alloc(self, sid: str, vmid: int, fmt: str | None, name: str | None, size_bytes: int, log: Log) -> str:
        backend = self.backend(sid)
        with _lock_of(backend.folder):
            return backend.volid(backend.alloc(vmid, fmt or self.formats(sid)[0], name, size_bytes, log))

    def adopt(self, volid: str, size: int, content: bytes | None = None) -> None:
        """Makes a volume under exactly this id, with `content` as its first bytes: for seeds."""
        backend, name = self._volume(volid)
        with _lock_of(backend.folder):
            backend.adopt(name, size)
        if content:
            images.write(backend.place(name), name.format, content)

    def free(self, volid: str, log: Log) -> None:
        backend, name = self._volume(volid)
        with _lock_of(backend.folder):
            if backend.used_by_clones(name):
                raise StorageError(f"base volume '{volid.partition(':')[2]}' is still in use by linked clones")
            backend.free(name, log)

    def resize(self, volid: str, size: int, log: Log, running: bool = False) -> None:
        """Grows a volume to `size`, rounded up as the storage does. QEMU does it in a running guest: same result."""
        backend, name = self._volume(volid)
        quiet = running and (backend.config["type"] != "lvm")
        backend.resize(name, images.KIB * -(-size // images.KIB), (lambda _: None) if quiet else log)

    def info(self, volid: str) -> VolumeInfo:
        """Facts of one volume, an ISO or an import file; raises PVE's text when it is not there."""
        backend, name = self._present(volid)
        if name.vtype in ("images", "rootdir"):
            return backend.row(name)
        place = backend.place(name)
        stat = place.file.stat()
        return VolumeInfo(volid, name.format, stat.st_size, None, None, None, int(stat.st_ctime))

    def list(self, sid: str, vmid: int | None = None) -> builtins.list[VolumeInfo]:
        """The images on a storage, sorted as PVE does."""
        backend = self.backend(sid)
        with _lock_of(backend.folder):
            return sorted(backend.rows(vmid), key=lambda row: row.volid.lower())

    def files(self, sid: str, vtype: str) -> builtins.list[VolumeInfo]:
        """ISO files, templates, import files and the like: what is no image."""
        backend = self.backend(sid)
        return sorted(backend.files(vtype), key=lambda row: row.volid.lower())

    def size_info(self, volid: str) -> tuple[int, str, int]:
        """Virtual size, format and bytes used of any volume, import files too; raises when it is not there."""
        backend, name = self._volume(volid)
        place = backend.place(name)
        if not place.file.is_file():
            raise StorageError(backend.no_size(name, volid))
        fmt = name.format if name.format in ("raw", "qcow2", "vmdk") else "raw"
        image = images.inspect(place, fmt)
        return image.size, fmt, image.used

    # ---- snapshots

    def snapshot(self, volid: str, snap: str, log: Log) -> None:
        backend, name = self._present(volid)
        with _lock_of(backend.folder):
            backend.snapshot(name, snap, log)

    def rollback_possible(self, volid: str, snap: str) -> None:
        """Raises when the storage can only go back to a newer snapshot."""
        backend, name = self._present(volid)
        backend.rollback_possible(name, snap)

    def rollback(self, volid: str, snap: str, log: Log) -> None:
        backend, name = self._present(volid)
        with _lock_of(backend.folder):
            backend.rollback_possible(name, snap)
            backend.rollback(name, snap, log)

    def snapshot_delete(self, volid: str, snap: str, log: Log) -> None:
        backend, name = self._present(volid)
        with _lock_of(backend.folder):
            backend.snapshot_delete(name, snap, log)

    def snapshots(self, volid: str) -> builtins.list[str]:
        backend, name = self._present(volid)
        return backend.snapshots(name)

    # ---- bases, clones, copies

    def create_base(self, volid: str) -> str:
        backend, name = self._present(volid)
        with _lock_of(backend.folder):
            return backend.volid(backend.create_base(name))

    def clone(self, volid: str, vmid: int, log: Log, snap: str | None = None) -> str:
        """A linked clone."""
        backend, name = self._present(volid)
        with _lock_of(backend.folder):
            return backend.volid(backend.clone(name, vmid, log, snap))

    def rename(self, volid: str, target_vmid: int) -> str:
        """Hands a volume to another guest, under that guest's next number."""
        backend, name = self._present(volid)
        with _lock_of(backend.folder):
            return backend.volid(backend.rename(name, target_vmid))

    def used_by_clones(self, volid: str) -> bool:
        backend, name = self._volume(volid)
        return backend.used_by_clones(name)

    def has_feature(self, feature: str, volid: str, snap: str | None = None) -> bool:
        name = self.parse_volname(volid)
        return self._named(name.storage).has_feature(feature, name, snap)

    def source(self, source: str | Path, snap: str | None = None) -> tuple[Place, str | None, str | None]:
        """The image to read, its format (None: qemu-img finds out), and the internal snapshot in it."""
        if isinstance(source, Path):
            place = self.real_path(str(source))
            end = place.shown.rpartition(".")[2]
            return place, end if end in ("raw", "qcow2", "vmdk") else None, None
        backend, name = self._present(source)
        place, inner = backend.source(name, snap)
        return place, name.format, inner

    def copy(self, source: str | Path, target: str, log: Log, snap: str | None = None) -> None:
        """Copies what the guest sees of `source` into the existing, empty volume `target`."""
        origin, fmt, inner = self.source(source, snap)
        backend, name = self._present(target)
        images.convert(origin, fmt, backend.place(name), name.format, log, inner)

    def size(self, source: str | Path, snap: str | None = None) -> int:
        """The virtual size of a volume (or of a snapshot that is a file of its own), or of one of PVE's paths."""
        place, fmt, _ = self.source(source, snap)
        return images.inspect(place, fmt).size

    def convert(self, source: str | Path, sid: str, vmid: int, fmt: str | None, log: Log, name: str | None = None,
                snap: str | None = None, size: int | None = None) -> str:
        """A full copy as a new volume of `vmid` on `sid`; `fmt` falls back to the storage's default.

        A `Path` is one of PVE's absolute paths. A copy that fails leaves nothing behind.
        """
        target = self.alloc(sid, vmid, self.usable_format(sid, fmt), name,
                            self.size(source, snap) if size is None else size, log)
        try:
            self.copy(source, target, log, snap)
        except StorageError:
            self.free(target, log)
            raise
        return target

    def import_source(self, source: str, sid: str, vmid: int, log: Log,
                      working: str | None = None) -> AbstractContextManager[str | Path]:
        """The checked image behind an `import-from`; an OVA's member is there until the end of the `with`."""
        return imports.import_source(self, source, sid, vmid, log, working)
