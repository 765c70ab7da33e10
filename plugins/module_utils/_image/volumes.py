# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Opens volumes of PVE's storages: raw or qcow2, files or block devices, linked clones and chains among them.

A volume's format is what its name says, as for PVE (pve-storage 9.1.7, PVE/Storage/Plugin.pm, parse_name_dir): a guest
can write anything into a raw disk, also what looks like the header of another format. Unlike an image that came from
somewhere, a qcow2 volume may have a backing file: another volume of the same storage. Nothing else is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import typing as t
from dataclasses import replace

from . import pvesm
from .disk import Disk, Stamp, of_source
from .errors import ImageError, ImageRefusedError
from .inspect import inspect
from .qemu import place
from .target import length_of
from .view import View

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .view import Node

_MAGIC: t.Final = b"QFI\xfb"
_HEADER: t.Final = struct.Struct(">4sIQIIQI")
_FEATURES_OFFSET: t.Final = 72
_DATA_FILE: t.Final = 1 << 2
_LONGEST_NAME: t.Final = 1023
_LONGEST_CHAIN: t.Final = 64


def opened(volid: str) -> contextlib.AbstractContextManager[Disk]:
    """A volume, held open.

    :param volid: such as ``local-lvm:vm-100-disk-0``.
    :raises ImageError: if there is no such volume, or it can't be opened.
    """
    return opened_path(volid, pvesm.path(volid))


@contextlib.contextmanager
def opened_path(volid: str, path: str) -> Iterator[Disk]:
    """The same, where the volume's path is known."""
    suffix = os.path.splitext(volid)[1]
    if suffix == ".vmdk":
        with inspect(path) as source, of_source(volid, source) as disk:
            yield disk
        return
    with contextlib.ExitStack() as stack:
        yield _Opener(volid, stack).disk(path, "qcow2" if suffix == ".qcow2" else "raw")


class _Opener:
    def __init__(self, volid: str, stack: contextlib.ExitStack) -> None:
        self._volid, self._stack = volid, stack
        self._fds: list[int] = []
        self._stamps: list[Stamp] = []

    def disk(self, path: str, image_format: str) -> Disk:
        node, size = self._node(path, image_format)
        plain = (self._fds[0], 0) if image_format == "raw" else None
        view = View({**node, "read-only": True}, tuple(self._fds))
        return Disk(self._volid, image_format, size, tuple(self._stamps), view, plain)

    def _node(self, path: str, image_format: str) -> tuple[Node, int]:
        fd = self._open(path)
        driver = "host_device" if stat.S_ISBLK(os.fstat(fd).st_mode) else "file"
        file: Node = {"driver": driver, "filename": place(fd), "read-only": True}
        if image_format == "raw":
            return {"driver": "raw", "file": file}, length_of(fd)
        size, behind = self._header(path, fd)
        backing = None if behind is None else self._node(behind, _format_of(behind))[0]
        return {"driver": "qcow2", "file": file, "backing": backing}, size

    def _open(self, path: str) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ImageError(f"{self._volid}: {path} can't be opened: {error.strerror}") from error
        self._stack.callback(os.close, fd)
        self._stamps.append(replace(Stamp.of(place(fd)), path=path))
        if len(self._fds) >= _LONGEST_CHAIN:
            raise self._refused("chain-too-long", path, f"is the {len(self._fds)}th file of a chain, or it is a circle")
        self._fds.append(fd)
        return fd

    def _header(self, path: str, fd: int) -> tuple[int, str | None]:
        """The size of a qcow2, and the path of its backing file."""
        raw = os.pread(fd, 4096, 0)
        if len(raw) < _FEATURES_OFFSET + 8 or raw[:4] != _MAGIC:
            raise self._refused("no-qcow2", path, "is no qcow2 image, as its name says")
        _magic, version, offset, length, _bits, size, _crypt = _HEADER.unpack_from(raw)
        features = struct.unpack_from(">Q", raw, _FEATURES_OFFSET)[0] if version > 2 else 0
        if features & _DATA_FILE:
            raise self._refused("external-data-file", path, "keeps its data in another file")
        if not offset:
            return size, None
        if length > _LONGEST_NAME:
            raise self._refused("backing-name", path, f"names a backing file by {length} bytes")
        return size, self._backing(path, os.pread(fd, length, offset))

    def _backing(self, path: str, name: bytes) -> str:
        """Where a backing file is: in the same folder or in one beside it, which is where PVE puts them."""
        folder = os.path.dirname(path)
        found = os.path.normpath(os.path.join(folder, os.fsdecode(name)))
        near = os.path.dirname(found) == folder or os.path.dirname(os.path.dirname(found)) == os.path.dirname(folder)
        if b"\0" in name or not near:
            raise self._refused("backing-elsewhere", path, f"has the backing file {os.fsdecode(name)!r}")
        return found

    def _refused(self, code: str, path: str, problem: str) -> ImageRefusedError:
        remedy = "allowed is a volume whose chain lies in its own storage; see: qemu-img info --backing-chain"
        return ImageRefusedError(code, f"{self._volid} ({path})", problem, remedy)


def _format_of(path: str) -> str:
    return "qcow2" if path.endswith(".qcow2") else "raw"
