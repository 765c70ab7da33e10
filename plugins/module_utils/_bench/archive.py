# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Writes cpio archives in the format ``newc``, which Linux unpacks when it starts.

Several of them behind one another are one initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import os
import shutil
import stat
import typing as t

_ALIGNED: t.Final = 4
_CONSOLE: t.Final = (5, 1)


class Archive:
    """One archive, written to a file as it grows."""

    def __init__(self, file: t.BinaryIO) -> None:
        self._file = file
        self._number = 0
        self._names: set[str] = set()

    def folder(self, name: str) -> None:
        """A folder, and those above it; what is there already stays."""
        parts = name.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            self._once("/".join(parts[:depth]), stat.S_IFDIR | 0o755)

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        """A file with this text."""
        self.data(name, text.encode(), mode)

    def data(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """A file with these bytes."""
        self._above(name)
        if self._once(name, stat.S_IFREG | mode, len(content)):
            self._file.write(content)
            self._align(len(content))

    def copy(self, name: str, source: str) -> None:
        """A file as it is on this machine, links followed."""
        self._above(name)
        with open(source, "rb") as file:
            found = os.fstat(file.fileno())
            if self._once(name, stat.S_IFREG | stat.S_IMODE(found.st_mode), found.st_size):
                shutil.copyfileobj(file, self._file, 1 << 20)
                self._align(found.st_size)

    def console(self) -> None:
        """``/dev/console``, which the kernel opens before anything is mounted."""
        self.folder("dev")
        self._once("dev/console", stat.S_IFCHR | 0o600, device=_CONSOLE)

    def close(self) -> None:
        """Write what ends an archive; the file stays open."""
        self._once("TRAILER!!!", 0)

    def _above(self, name: str) -> None:
        if "/" in name.strip("/"):
            self.folder(name.strip("/").rpartition("/")[0])

    def _once(self, name: str, mode: int, size: int = 0, device: tuple[int, int] = (0, 0)) -> bool:
        name = name.strip("/")
        if name in self._names:
            return False
        self._names.add(name)
        self._number += 1
        encoded = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, size, 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._file.write(header + encoded)
        self._align(len(header) + len(encoded))
        return True

    def _align(self, written: int) -> None:
        self._file.write(bytes(-written % _ALIGNED))
