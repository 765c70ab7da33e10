# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words that the lab's rooms share: a volume's name, its facts, and a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Log = Callable[[str], None]
"""Takes the lines that PVE would write into the task's log."""


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
    """One row of a content listing. Sizes in bytes; `parent` as PVE shows it; `ctime` is a string on LVM."""

    volid: str
    format: str
    size: int
    used: int | None
    parent: str | None
    owner: int | None
    ctime: int | str | None
