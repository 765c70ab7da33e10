# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every kind of storage has in common, after pve-storage's Storage/Plugin.pm (9.1.7): names, numbers, features."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from lab import images
from lab.images import KIB, Place
from lab.terms import Log, StorageError, Volname, VolumeInfo

MAX_VOLUMES = 1024
PERL = "/usr/share/perl5/PVE/Storage"
"""Where PVE's own messages say that they come from."""

ALL = frozenset({"raw", "qcow2", "vmdk"})
Features = Mapping[str, Mapping[str, frozenset[str]]]
"""feature -> state of the volume (current, base, snap) -> formats that have it."""


def round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class Backend(ABC):
    """One storage of one node. Its volumes are real files below `folder`; `shown` paths are PVE's."""

    formats: ClassVar[tuple[str, tuple[str, ...]]] = ("raw", ("raw",))
    features: ClassVar[Features] = {}
    sequential: ClassVar[bool] = False
    """Only the newest snapshot can be rolled back."""

    def __init__(self, sid: str, config: Mapping[str, Any], folder: Path) -> None:
        self.sid = sid
        self.config = config
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    # ---- names

    @abstractmethod
    def parse(self, volname: str) -> Volname:
        """Takes a volume name apart, or raises "unable to parse … volume name"."""

    @abstractmethod
    def place(self, name: Volname, snap: str | None = None) -> Place:
        """Where a volume, or its snapshot where that is a file of its own, is."""

    @abstractmethod
    def volid(self, name: Volname) -> str: ...

    @abstractmethod
    def names(self, vmid: int) -> list[str]:
        """The names that count when the lowest free disk number is looked for."""

    def free_name(self, vmid: int, fmt: str) -> str:
        """The next "vm-100-disk-0"; which names collide differs between the kinds of storage."""
        suffix = self.suffix(fmt)
        shares = "subvol" in self.formats[1]
        used = re.compile(rf"(?:vm|base)-{vmid}-disk-(\d+)" + ("" if shares else re.escape(suffix)))
        taken = {int(m[1]) for name in self.names(vmid) if (m := used.search(name))}
        for number in range(MAX_VOLUMES):
            if number not in taken:
                return f"vm-{vmid}-disk-{number}{suffix}"
        raise StorageError(f"unable to allocate an image name for VM {vmid} in storage '{self.sid}'")

    def suffix(self, fmt: str) -> str:
        return f".{fmt}"

    # ---- volumes

    @abstractmethod
    def activate(self, name: Volname) -> None:
        """Raises what PVE says when the volume is not there."""

    @abstractmethod
    def alloc(self, vmid: int, fmt: str, name: str | None, size: int, log: Log) -> Volname: ...

    @abstractmethod
    def free(self, name: Volname, log: Log) -> None: ...

    @abstractmethod
    def resize(self, name: Volname, size: int, log: Log) -> None: ...

    @abstractmethod
    def row(self, name: Volname) -> VolumeInfo:
        """The facts of an existing volume."""

    @abstractmethod
    def rows(self, vmid: int | None) -> Iterable[VolumeInfo]: ...

    def files(self, vtype: str) -> Iterable[VolumeInfo]:
        """ISO files and the like; only folders have them."""
        return ()

    def no_size(self, name: Volname, volid: str) -> str:
        """What PVE says when it asks for the size of a volume that is not there."""
        return f"volume_size_info on '{volid}' failed - no format"

    def occupied(self) -> int:
        """Bytes that are taken."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*") if path.is_file())

    def adopt(self, name: Volname, size: int) -> None:
        """Makes an empty volume, or a linked clone of an existing base, under exactly this name, as seeds need it."""
        place = self.place(name)
        place.file.parent.mkdir(parents=True, exist_ok=True)
        if name.base:
            self.adopt_clone(name, replace(name, name=name.base, owner=name.base_owner, base=None, is_base=True), size)
        elif name.format == "raw":
            images.sparse(place.file, self.rounded(size))
        else:
            images.create(place, name.format, round_up(size, KIB), lambda _: None)

    @abstractmethod
    def adopt_clone(self, name: Volname, base: Volname, size: int) -> None:
        """Makes a linked clone for `adopt`."""

    def rounded(self, size: int) -> int:
        """The size that a raw volume really gets."""
        return round_up(size, KIB)

    # ---- snapshots

    @abstractmethod
    def snapshot(self, name: Volname, snap: str, log: Log) -> None: ...

    @abstractmethod
    def rollback(self, name: Volname, snap: str, log: Log) -> None: ...

    @abstractmethod
    def snapshot_delete(self, name: Volname, snap: str, log: Log) -> None: ...

    @abstractmethod
    def snapshots(self, name: Volname) -> list[str]:
        """The names of the snapshots, oldest first."""

    def called(self, name: Volname) -> str:
        """How rollback refusals name the volume."""
        return self.volid(name).partition(":")[2]

    def rollback_possible(self, name: Volname, snap: str) -> None:
        if not self.sequential:
            return
        present = self.snapshots(name)
        if snap not in present:
            raise StorageError(f"can't rollback, snapshot '{snap}' does not exist on '{self.called(name)}'")
        if present[-1] != snap:
            raise StorageError(f"can't rollback, '{snap}' is not most recent snapshot on '{self.called(name)}'")

    # ---- bases and clones

    @abstractmethod
    def create_base(self, name: Volname) -> Volname: ...

    @abstractmethod
    def clone(self, name: Volname, vmid: int, log: Log, snap: str | None) -> Volname: ...

    @abstractmethod
    def rename(self, name: Volname, target_vmid: int) -> Volname: ...

    def used_by_clones(self, name: Volname) -> bool:
        """Whether a volume id of this storage names `name` as its base. On LVM-thin and btrfs none ever does."""
        if not name.is_base:
            return False
        parsed = (self.parse(info.volid.partition(":")[2]) for info in self.rows(None))
        return any(p.base == name.name and p.base_owner == name.owner for p in parsed)

    def has_feature(self, feature: str, name: Volname, snap: str | None) -> bool:
        state = "snap" if snap else "base" if name.is_base else "current"
        return name.format in self.features.get(feature, {}).get(state, frozenset())

    def source(self, name: Volname, snap: str | None) -> tuple[Place, str | None]:
        """The image to read for a copy, and the internal snapshot in it."""
        return self.place(name, snap), None
