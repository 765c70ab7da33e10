# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads files from an ISO image without mounting it: nothing to attach, nothing to clean up, nothing that needs root.

The virtio-win ISO is made with ``mkisofs -r -iso-level 4`` (virtio-win-pkg-scripts, ``virtio-win.spec``): ISO 9660 with
names of its own (level 4) and again in Rock Ridge. Names are compared without regard to case, as Windows does.

Sources: ECMA-119 (ISO 9660), IEEE P1281 (``CE``) and P1282 (Rock Ridge, ``NM``).
"""

from __future__ import annotations

import os
import struct
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import DiskwrightError

_SECTOR: t.Final = 2048
_FIRST_DESCRIPTOR: t.Final = 16
_PRIMARY, _END = 1, 255
_MOST_DESCRIPTORS: t.Final = 32
_MOST_CONTINUED: t.Final = 8
_DIRECTORY: t.Final = 0x02
_MULTI_EXTENT: t.Final = 0x80
#: No folder and no driver is larger; an image that says so is damaged.
_LARGEST: t.Final = 64 * 1024 * 1024


class IsoError(DiskwrightError):
    """An ISO image that can't be read, or does not have what is looked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder: where it is, in bytes from the beginning of the image."""

    name: str
    start: int
    size: int
    is_folder: bool


class IsoImage:
    """An open ISO image; a context manager.

    :raises IsoError: when the file is none.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise IsoError(f"{path}: can't be read: {error.strerror}") from error
        try:
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
            descriptor = self._primary()
        except IsoError:
            os.close(self._fd)
            raise
        self.label = descriptor[40:72].decode("ascii", "replace").strip(" \0")
        self._root = _entry(descriptor[156:190])

    def __enter__(self) -> IsoImage:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)

    def read(self, path: str) -> bytes:
        """The content of a file.

        :param path: with slashes, without regard to case.
        :raises IsoError: when there is no such file.
        """
        entry = self._find(path)
        if entry.is_folder:
            raise IsoError(f"{self._path}: {path} is a folder")
        return self._content(entry)

    def names(self, path: str) -> tuple[str, ...]:
        """What a folder holds; nothing when it is not there."""
        try:
            folder = self._find(path)
        except IsoError:
            return ()
        return tuple(entry.name for entry in self._entries(folder)) if folder.is_folder else ()

    def _primary(self) -> bytes:
        for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MOST_DESCRIPTORS):
            descriptor = self._bytes(number * _SECTOR, _SECTOR)
            if descriptor[1:6] != b"CD001":
                break
            if descriptor[0] == _PRIMARY:
                return descriptor
            if descriptor[0] == _END:
                break
        raise IsoError(f"{self._path}: is no ISO 9660 image")

    def _bytes(self, start: int, size: int) -> bytes:
        if not 0 <= size <= _LARGEST or start + size > self._size:
            raise IsoError(f"{self._path}: is cut short or damaged: bytes {start} to {start + size} of {self._size}")
        data = os.pread(self._fd, size, start)
        if len(data) != size:
            raise IsoError(f"{self._path}: can't be read at byte {start}")
        return data

    def _content(self, entry: Entry) -> bytes:
        return self._bytes(entry.start, entry.size)

    def _find(self, path: str) -> Entry:
        entry = self._root
        for part in filter(None, path.split("/")):
            found = [one for one in self._entries(entry) if one.name.lower() == part.lower()] if entry.is_folder else []
            if not found:
                raise IsoError(f"{self._path}: {path} is not there")
            entry = found[0]
        return entry

    def _entries(self, folder: Entry) -> Iterator[Entry]:
        data = self._content(folder)
        position = 0
        while position < len(data):
            length = data[position]
            if length == 0:  # a record never crosses a sector; the rest of this one is empty
                position = (position // _SECTOR + 1) * _SECTOR
                continue
            record = data[position : position + length]
            position += length
            if len(record) < 34 or len(record) < 33 + record[32]:
                raise IsoError(f"{self._path}: the folder at byte {folder.start} is damaged")
            if record[33 : 33 + record[32]] not in (b"\0", b"\1"):
                yield self._named(record)

    def _named(self, record: bytes) -> Entry:
        plain = _entry(record)
        if record[25] & _MULTI_EXTENT:
            raise IsoError(f"{self._path}: {plain.name} is in several pieces, as no driver is")
        fields = self._system_use(record[33 + record[32] + (record[32] + 1) % 2 :])
        names = b"".join(field[5:] for field in fields if field[:2] == b"NM" and not field[4] & 0x06)
        return Entry(names.decode("utf-8", "replace"), plain.start, plain.size, plain.is_folder) if names else plain

    def _system_use(self, area: bytes, depth: int = 0) -> Iterator[bytes]:
        """The fields behind a record's name, and those that are continued elsewhere, as a long name is."""
        position = 0
        while position + 4 <= len(area) and area[position + 2] >= 4:
            field = area[position : position + area[position + 2]]
            position += area[position + 2]
            if field[:2] == b"CE" and len(field) == 28 and depth < _MOST_CONTINUED:
                sector, offset, size = (int.from_bytes(field[place : place + 4], "little") for place in (4, 12, 20))
                yield from self._system_use(self._bytes(sector * _SECTOR + offset, size), depth + 1)
            elif len(field) >= 5:
                yield field


def _entry(record: bytes) -> Entry:
    sector, size = struct.unpack_from("<I4xI", record, 2)
    name = record[33 : 33 + record[32]].decode("latin-1").partition(";")[0].rstrip(".")
    return Entry(name, sector * _SECTOR, size, bool(record[25] & _DIRECTORY))
