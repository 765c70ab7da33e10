# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What it takes for a Windows guest to use all of a disk that has grown."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .._core.growth import MIB, Growth, Seen, Step, Todo
from .._core.size import human_size

_GPT, _MBR = 2, 1
_RECOVERY = "{de94bba4-06d1-4d40-a16a-bfd50179d6ac}"
_RECOVERY_MBR = 0x27
_GROWS = ("NTFS", "ReFS")
#: What lies behind the last partition of a GPT, and is no space.
_BACKUP = MIB
_MBR_LIMIT = 1 << 41
_BY_HAND = "extend the volume by hand in Disk Management"


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition. Bytes.

    :param maximum: how large Windows would make it at most, ``None`` if it does not say.
    """

    disk: int
    number: int
    offset: int
    size: int
    maximum: int | None
    letter: str
    filesystem: str
    recovery: bool

    @property
    def name(self) -> str:
        """How people call it."""
        return self.letter or f"partition {self.number}"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk. Bytes."""

    number: int
    size: int
    style: int
    offline: bool
    read_only: bool
    partitions: tuple[Partition, ...] = ()

    @property
    def free(self) -> int:
        """What is unused after the last partition."""
        end = max((one.offset + one.size for one in self.partitions), default=0)
        usable = self.size - _BACKUP if self.style == _GPT else min(self.size, _MBR_LIMIT)
        return max(0, usable - end)


@dataclass(frozen=True, slots=True)
class Extension:
    """What ``Resize-Partition`` is told."""

    disk: int
    partition: int
    size: int


def read_space(answer: Mapping[str, t.Any]) -> tuple[dict[str, Disk], tuple[Seen, ...]]:
    """Disks by number, and what may tell which is which slot, from what the script ``space`` answers."""
    disks: dict[str, Disk] = {}
    seen = []
    partitions = [_partition(row) for row in answer["partitions"]]
    for row in answer["disks"]:
        number = int(row["number"])
        mine = tuple(one for one in partitions if one.disk == number)
        disks[str(number)] = Disk(
            number, int(row["size"]), int(row["style"] or 0), bool(row["offline"]), bool(row["read_only"]), mine
        )
        marks = f"{row.get('unique_id') or ''} {row.get('location') or ''}"
        seen.append(Seen(str(number), int(row["size"]), str(row.get("serial") or "").strip(), marks))
    return disks, tuple(seen)


def _partition(row: Mapping[str, t.Any]) -> Partition:
    gpt = str(row.get("gpt_type") or "").lower()
    return Partition(
        disk=int(row["disk"]),
        number=int(row["number"]),
        offset=int(row["offset"]),
        size=int(row["size"]),
        maximum=None if row.get("maximum") is None else int(row["maximum"]),
        letter=str(row.get("letter") or ""),
        filesystem=str(row.get("filesystem") or ""),
        recovery=gpt == _RECOVERY or row.get("mbr_type") == _RECOVERY_MBR,
    )


def plan_space(disks: Mapping[str, Disk], names: Iterable[str]) -> dict[str, tuple[Growth, tuple[Extension, ...]]]:
    """What it takes for each of these disks to be used to their ends.

    :param names: numbers of disks.
    """
    return {name: _plan(disks[name]) for name in names}


def _plan(disk: Disk) -> tuple[Growth, tuple[Extension, ...]]:
    if not disk.partitions or disk.free < MIB:
        return Growth(), ()
    name = f"disk {disk.number}"
    if disk.style not in (_GPT, _MBR):
        return _stop(name, "it has no partition table that is known here", _BY_HAND)
    if disk.offline or disk.read_only:
        return _stop(name, "it is offline or read-only", "bring it online, and run again")
    last = max(disk.partitions, key=lambda one: one.offset)
    if last.recovery:
        return _stop(
            last.name, "a recovery partition lies at the end of the disk, before the space",
            "run reagentc /disable, remove that partition, and run again; then make a new one if it is needed",
        )  # fmt: skip
    if last.filesystem not in _GROWS:
        content = last.filesystem or "nothing known"
        return _stop(last.name, f"it is the last on the disk, and has {content} on it", _BY_HAND)
    if last.maximum is None:
        return _stop(last.name, "Windows does not say how large it may become", _BY_HAND)
    if last.maximum - last.size < MIB:
        return _stop(last.name, "Windows lets it grow no further", _BY_HAND)
    text = f"{last.filesystem} {human_size(last.size)} -> {human_size(last.maximum)}, to the end of disk {disk.number}"
    return Growth((Step(last.name, text),)), (Extension(disk.number, last.number, last.maximum),)


def _stop(what: str, problem: str, remedy: str) -> tuple[Growth, tuple[Extension, ...]]:
    return Growth(todo=Todo(what, problem, remedy)), ()
