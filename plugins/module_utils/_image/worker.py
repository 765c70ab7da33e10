# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Which process works on something, and whether it still does: told so that no other is taken for it.

A process number is given to others after the process has ended, and after the machine was started anew. With the moment
at which the process began and the machine's start it is one process alone. Source: proc(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_BOOT = "/proc/sys/kernel/random/boot_id"
#: After the name in parentheses, which may have anything in it: the state, and the moment of the start (field 22).
_STATE, _BEGAN = 0, 19
_ENDED = ("Z", "X", "x")


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of one machine.

    :param began: when, in ticks since the machine's start.
    :param boot: the machine's word for that start, '' if it has none.
    """

    pid: int
    began: str
    boot: str

    @staticmethod
    def own() -> Worker:
        """This process."""
        return Worker(os.getpid(), _fields(_read("/proc/self/stat"))[_BEGAN], _read(_BOOT).strip())

    def gone(self, boot: str, stat: str) -> bool:
        """Whether it has ended.

        :param boot: what its machine says now, as ``files`` names it, and so is ``stat``; '' for nothing.
        """
        if self.boot and boot and self.boot != boot.strip():
            return True
        now = _fields(stat)
        return now[_BEGAN] != self.began or now[_STATE] in _ENDED

    def ended_here(self) -> bool:
        """Whether it has ended, if this is its machine."""
        return self.gone(*(_read(path) for path in files(self.pid)))


def files(pid: int) -> tuple[str, str]:
    """The files in which a machine says which start of its own this is, and what a process is."""
    return _BOOT, f"/proc/{pid}/stat"


def _fields(stat: str) -> list[str]:
    found = stat.rpartition(")")[2].split()
    return found if len(found) > _BEGAN else [""] * (_BEGAN + 1)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
