# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The SHA-256 of what is on a disk: the same for every format that the disk is kept in."""

from __future__ import annotations

import hashlib
import os
import typing as t

from . import qemu
from .errors import ImageError, ImageRefusedError
from .files import NOT_IN_USE
from .runs import Kind, Run, inflate

if t.TYPE_CHECKING:
    from .source import Source

_PIECE = 1024**2
_SLICE = 64 * _PIECE
_ZEROS = bytes(_PIECE)


def content_sha256(source: Source) -> str:
    """Read the whole disk.

    :returns: hex SHA-256 over ``virtual_size`` bytes.
    :raises ImageError: if it can't be read to its end.
    """
    digest = hashlib.sha256()
    if source.native:
        for run in source.runs():
            _add(digest, source, run)
    else:
        _add_by_qemu(digest, source)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, source: Source, run: Run) -> None:
    fd, name = source.fds[run.file], source.files[run.file].name
    if run.kind is Kind.DEFLATED:
        digest.update(inflate(run, _read(fd, run.offset, run.stored, name), name))
        return
    for at in range(0, run.length, _PIECE):
        count = min(_PIECE, run.length - at)
        digest.update(_read(fd, run.offset + at, count, name) if run.kind is Kind.DATA else _ZEROS[:count])


def _read(fd: int, offset: int, count: int, name: str) -> bytes:
    parts = b""
    while len(parts) < count:
        try:
            part = os.pread(fd, count - len(parts), offset + len(parts))
        except OSError as error:
            raise ImageError(f"{name}: can't be read at byte {offset}: {error.strerror}") from error
        if not part:
            raise ImageRefusedError("file-changed", name, "became shorter while it was read", NOT_IN_USE)
        parts = parts + part if parts else part
    return parts


def _add_by_qemu(digest: hashlib._Hash, source: Source) -> None:
    """Piece by piece, through a file in memory."""
    image, fd = qemu.node(source.format, source.fds[0]), os.memfd_create("diskwright-checksum")
    try:
        for start in range(0, source.virtual_size, _SLICE):
            end = min(start + _SLICE, source.virtual_size)
            os.ftruncate(fd, 0)  # holes are zeros, whatever was there before
            os.ftruncate(fd, end - start)
            arguments = ["convert", "-U", "-n", "-O", "raw", "-S", "4k", qemu.window(image, start, end), qemu.place(fd)]
            qemu.run(arguments, [*source.fds, fd], f"reading {source.files[0].name}")
            for at in range(0, end - start, _PIECE):
                digest.update(_read(fd, at, min(_PIECE, end - start - at), source.files[0].name))
    finally:
        os.close(fd)
