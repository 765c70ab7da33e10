# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What is mounted where, as the kernel says. Source: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount.

    :param device: ``major:minor``.
    :param place: where it is mounted.
    :param options: of the mount itself, such as ``ro``.
    :param type: the file system's.
    :param source: what is mounted, such as ``/dev/loop0``.
    """

    device: str
    place: str
    options: tuple[str, ...]
    type: str
    source: str

    @property
    def is_fuse(self) -> bool:
        """Whether a program shows it."""
        return self.type.partition(".")[0] in ("fuse", "fuseblk")


def read(pid: int | str = "self") -> tuple[Mount, ...]:
    """What a process sees mounted, in the order in which it came; nothing if the process is gone."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return parse(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return ()


def parse(text: str) -> tuple[Mount, ...]:
    """Read the lines of a ``mountinfo``."""
    return tuple(_line(line) for line in text.splitlines() if " - " in line)


def at(place: str) -> tuple[Mount, ...]:
    """What is mounted at a place, the uppermost last."""
    return tuple(mount for mount in read() if mount.place == place)


def _line(line: str) -> Mount:
    front, _dash, back = line.partition(" - ")
    fields, behind = front.split(" "), back.split(" ")
    return Mount(fields[2], _plain(fields[4]), tuple(fields[5].split(",")), behind[0], _plain(behind[1]))


def _plain(text: str) -> str:
    r"""Undo the kernel's ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
