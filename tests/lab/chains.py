# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`snapshot-as-volume-chain`: a snapshot is the old image under another name, below a new qcow2 overlay."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from lab import images
from lab.terms import Log, StorageError, Volname
from lab.volumes import Backend


class Chain(Backend):
    """What a folder and a volume group with chains have in common; only their naming and log lines differ."""

    sequential: ClassVar[bool] = True

    @abstractmethod
    def drop(self, name: Volname, snap: str | None, log: Log) -> None:
        """Removes one image of the chain; without `snap` the newest."""

    @abstractmethod
    def swap(self, name: Volname, old: str | None, new: str | None, log: Log) -> None:
        """Renames one image of the chain."""

    @abstractmethod
    def merge(self, name: Volname, snap: str, child: str | None, log: Log) -> None:
        """Deletes the oldest snapshot: its child is written into it, and it takes the child's name."""

    def overlay(self, name: Volname, snap: str, log: Log) -> None:
        """The new newest image, over a snapshot."""
        images.create_backed(self.place(name), self.place(name, snap).file.name, "qcow2", log)

    def snapshots(self, name: Volname) -> list[str]:
        """Follows the chain from the volume down."""
        if name.format != "qcow2":
            return []
        found: list[str] = []
        start, end = self.place(name, "\0").file.name.split("\0")
        snap: str | None = None
        while True:
            backing = images.inspect(self.place(name, snap), "qcow2").backing or ""
            if not (backing.startswith(start) and backing.endswith(end)):
                return found[::-1]
            snap = backing[len(start):len(backing) - len(end)]
            found.append(snap)

    def snapshot(self, name: Volname, snap: str, log: Log) -> None:
        self.swap(name, None, snap, log)
        self.overlay(name, snap, log)

    def rollback(self, name: Volname, snap: str, log: Log) -> None:
        self.drop(name, None, log)
        self.overlay(name, snap, log)

    def snapshot_delete(self, name: Volname, snap: str, log: Log) -> None:
        present = self.snapshots(name)
        if snap not in present:
            raise StorageError(f"volume {self.place(name, snap).shown} is missing")
        index = present.index(snap)
        child = present[index + 1] if index + 1 < len(present) else None
        called = self.volid(name).partition(":")[2]
        if index == 0:
            log(f"{called}: deleting snapshot '{snap}' by commiting snapshot '{child or 'current'}'")
            self.merge(name, snap, child, log)
            return
        parent, target = present[index - 1], self.place(name, child)
        backing = self.place(name, parent).file.name
        log(f"{called}: deleting snapshot '{snap}' by rebasing '{child or 'current'}' on top of '{parent}'")
        log(f"running '/usr/bin/qemu-img rebase -b {backing} -F qcow2 -f qcow2 {target.shown}'")
        images.rebase(target, backing)
        self.drop(name, snap, log)

    def commit(self, name: Volname, child: str | None, log: Log) -> None:
        """Writes an image into the one below it."""
        place = self.place(name, child)
        log(f"running 'qemu-img commit {place.shown}'")
        log(images.commit(place))
