# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storages of one node: PVE's names, refusals and log lines over real images in a folder.

`Storages` is the door to everything that the lab keeps on disk. It knows storage.cfg, sends each call to
the kind of storage behind the volume id (`lab.volumes`), and raises `StorageError` with PVE's own text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Log = Callable[[str], None]


class StorageError(Exception):
    """A refusal in PVE's words: an HTTP error (status, errors) in a call, the exit status in a task."""

    def __init__(self, message: str, status: int = 500, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.errors = errors


@dataclass(frozen=True)
class Volname:
    """What a volume's name says. `base` is the name of the base volume of a linked clone, `base_owner` its guest."""

    storage: str
    vtype: str
    name: str
    owner: int | None
    base: str | None
    is_base: bool
    format: str
    base_owner: int | None = None


@dataclass(frozen=True)
class VolumeInfo:
    """One row of a content listing. Sizes in bytes; `parent` as PVE shows it; `ctime` a string on LVM."""

    volid: str
    format: str
    size: int
    used: int | None
    parent: str | None
    owner: int | None
    ctime: int | str | None


class Storages:
    """Every storage that one node sees. Thread-safe and synchronous; sizes are bytes."""

    def __init__(self, root: Path, definitions: Mapping[str, Mapping[str, Any]], node: str) -> None: ...

    def get(self, sid: str) -> Mapping[str, Any]: ...
    def require_enabled(self, sid: str) -> Mapping[str, Any]: ...
    def parse_volid(self, volid: str) -> tuple[str, str]: ...
    def parse_volname(self, volid: str) -> Volname: ...
    def file(self, volid: str) -> Path: ...
    def shown_path(self, volid: str) -> str: ...
    def formats(self, sid: str) -> tuple[str, tuple[str, ...]]: ...
    def alloc(self, sid: str, vmid: int, fmt: str, name: str | None, size_bytes: int, log: Log) -> str: ...
    def free(self, volid: str, log: Log) -> None: ...
    def resize(self, volid: str, size: int, log: Log, running: bool = False) -> None: ...
    def info(self, volid: str) -> VolumeInfo: ...
    def list(self, sid: str, vmid: int | None = None) -> list[VolumeInfo]: ...
    def snapshot(self, volid: str, snap: str, log: Log) -> None: ...
    def rollback_possible(self, volid: str, snap: str) -> None: ...
    def rollback(self, volid: str, snap: str, log: Log) -> None: ...
    def snapshot_delete(self, volid: str, snap: str, log: Log) -> None: ...
    def snapshots(self, volid: str) -> list[str]: ...
    def create_base(self, volid: str) -> str: ...
    def clone(self, volid: str, vmid: int, log: Log, snap: str | None = None) -> str: ...
    def rename(self, volid: str, target_vmid: int) -> str: ...
    def used_by_clones(self, volid: str) -> bool: ...
    def has_feature(self, feature: str, volid: str, snap: str | None = None) -> bool: ...
    def convert(self, source: str | Path, sid: str, vmid: int, fmt: str | None, log: Log, name: str | None = None,
                snap: str | None = None) -> str: ...
    def import_source(self, source: str, sid: str, vmid: int, log: Log,
                      working: str | None = None) -> AbstractContextManager[str | Path]: ...
