# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where an image is written to: a raw file or device, or a qcow2 image in one.

QEMU makes a qcow2 image with all its clusters in place and says where each of them is; the content is then written
there, as into a raw file, and the image's own metadata never changes. So it is consistent at every moment. Only an
image that is to have no clusters for zeros, or compressed ones, is written by QEMU, from slices that are staged.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import tempfile
import threading
import typing as t
from dataclasses import dataclass

from . import holes, qemu
from .errors import ImageError
from .file_errors import named

if t.TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1024**3
_PUNCH_HOLE_KEEP_SIZE = 0x03  # linux/falloc.h
_BLKZEROOUT = 0x127F  # linux/fs.h
_BLKGETSIZE64 = 0x80081272
_ZEROS = bytes(1024**2)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the target's disk, and where its bytes are. All numbers are bytes."""

    start: int
    length: int
    fd: int
    offset: int


def is_block(fd: int) -> bool:
    """Whether a descriptor is that of a block device."""
    return stat.S_ISBLK(os.fstat(fd).st_mode)


def length_of(fd: int) -> int:
    """Bytes of a file or block device."""
    if not is_block(fd):
        return os.fstat(fd).st_size
    found: int = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0]
    return found


class Target:
    """A raw file or block device, open for reading and writing, as large as the disk or larger.

    :ivar zeroed: what was never written reads as zeros.
    :ivar window: bytes of the disk that ``stored`` is best asked for at once.
    :ivar slice: bytes of content after which ``commit`` is due.
    """

    window = 64 * GIB
    slice = GIB

    def __init__(self, fd: int, size: int, *, zeroed: bool) -> None:
        self.fd = fd
        self.size = size
        self.zeroed = zeroed
        self.block = is_block(fd)

    def resume(self, start: int) -> None:
        """Get ready to write from ``start`` on, where an earlier run may have written already."""

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Where to write the disk's bytes from ``start`` to ``end``."""
        yield Piece(start, end - start, self.fd, start)

    def clear(self, start: int, end: int) -> None:
        """Make the disk read as zeros from ``start`` to ``end``, if it does not anyway."""
        if not self.zeroed:
            for piece in self.pieces(start, end):
                write_zeros(piece.fd, piece.offset, piece.length)

    def commit(self, start: int, end: int) -> None:
        """Make what was written from ``start`` to ``end`` last, and let the next read come from the medium."""
        with named(self.fd):
            os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def stored(self, start: int, end: int) -> Iterator[Piece]:
        """Where the disk's bytes can be read, in order; what is left out reads as zeros."""
        if self.block:
            yield Piece(start, end - start, self.fd, start)
        else:
            yield from _data(self.fd, start, end)

    def close(self) -> None:
        """Close what is open. A second time does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class NoTarget(Target):
    """Takes everything and keeps nothing: for reading a source only."""

    def __init__(self, size: int) -> None:
        super().__init__(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), size, zeroed=True)

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        return iter(())

    def commit(self, start: int, end: int) -> None:
        """There is nothing to make last."""


class Qcow2Target(Target):
    """A qcow2 image all of whose clusters are in place."""

    window = 2 * GIB

    def __init__(self, fd: int, size: int) -> None:
        super().__init__(fd, size, zeroed=not is_block(fd))
        self._lock = threading.Lock()
        self._known: tuple[int, list[qemu.Extent]] = (-1, [])

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        while start < end:
            number = start // self.window
            stop = min(end, (number + 1) * self.window)
            yield from _located(self.fd, self._extents(number), start, stop)
            start = stop

    def _extents(self, number: int) -> list[qemu.Extent]:
        with self._lock:
            if self._known[0] != number:
                begin = number * self.window
                found = qemu.extents("qcow2", self.fd, begin, min(begin + self.window, self.size))
                self._known = (number, found)
            return self._known[1]

    def stored(self, start: int, end: int) -> Iterator[Piece]:
        for extent in qemu.extents("qcow2", self.fd, start, end):
            if not extent.zero:
                yield _piece(self.fd, extent, extent.start, extent.end)


class PackedTarget(Target):
    """A qcow2 image whose clusters QEMU lays out, compressed if wanted.

    :param staging: folder for the slices that are on their way.
    """

    window = GIB // 4
    slice = GIB // 4

    def __init__(self, fd: int, size: int, staging: str, *, compress: bool, cluster_size: int) -> None:
        super().__init__(fd, size, zeroed=True)
        self._staging = Staging(staging, size)
        self._compress = compress
        self._cluster_size = cluster_size

    def resume(self, start: int) -> None:
        """Give back clusters that a killed run left, and take out what it wrote behind ``start``.

        A compressed cluster can't be written a second time.
        """
        qemu.check(self.fd, leaks=True)
        self._staging.empty()
        start = -(-start // self._cluster_size) * self._cluster_size
        if start < self.size:
            self._convert(start, self.size, qemu.node("qcow2", self.fd, discard="unmap"), [])

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        yield Piece(start, end - start, self._staging.fd, start)

    def commit(self, start: int, end: int) -> None:
        image = qemu.node("qcow2", self.fd, discard="unmap")
        if self._compress:
            image = {"driver": "compress", "file": image}
            end = min(-(-end // self._cluster_size) * self._cluster_size, self.size)
            self._fill_clusters(start, end)
        self._convert(start, end, image, ["--target-is-zero", "-S", str(self._cluster_size)])
        self._staging.empty()
        super().commit(start, end)

    def _fill_clusters(self, start: int, end: int) -> None:
        """Store the zeros around the content of each cluster, too: a compressed one can't be written in parts."""
        whole, filled = self._cluster_size, start
        pieces = list(_data(self._staging.fd, start, end))
        starts = [*(piece.start for piece in pieces), end]
        for piece, after in zip(pieces, starts[1:], strict=True):
            stop = piece.start + piece.length
            begin, filled = max(piece.start // whole * whole, filled), min(-(-stop // whole) * whole, after)
            os.pwrite(self._staging.fd, bytes(piece.start - begin), begin)
            os.pwrite(self._staging.fd, bytes(filled - stop), stop)

    def _convert(self, start: int, end: int, image: dict[str, t.Any], options: list[str]) -> None:
        source = qemu.window({"driver": "raw", "file": {"filename": qemu.place(self._staging.fd)}}, start, end)
        arguments = ["convert", "-n", *options, "-f", "raw", "-O", "raw", source, qemu.window(image, start, end)]
        qemu.run(arguments, [self.fd, self._staging.fd], "writing the qcow2 image")

    def stored(self, start: int, end: int) -> Iterator[Piece]:
        """The staged content, which is good until the next call."""
        yield from self._staging.load(qemu.node("qcow2", self.fd), self.fd, start, end)

    def close(self) -> None:
        self._staging.close()
        super().close()


class Staging:
    """A sparse file without a name, in which a part of a disk is for a while, at its own offset.

    :param folder: where it takes its room.
    :param size: bytes of the disk.
    """

    def __init__(self, folder: str, size: int) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, prefix="staging-")  # noqa: SIM115 - closed by close
        self._size = size
        self.fd = self._file.fileno()
        self.empty()

    def empty(self) -> None:
        """Forget all content."""
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, self._size)

    def load(self, image: dict[str, t.Any], fd: int, start: int, end: int) -> Iterator[Piece]:
        """Let QEMU read a part of an image. What was loaded before is forgotten.

        :param fd: the image's file.
        """
        self.empty()
        target = qemu.window({"driver": "raw", "file": {"filename": qemu.place(self.fd)}}, start, end)
        arguments = ["convert", "-U", "-n", "--target-is-zero", "-f", "raw", "-O", "raw"]
        qemu.run([*arguments, qemu.window(image, start, end), target], [fd, self.fd], "reading the image")
        yield from _data(self.fd, start, end)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


def _located(fd: int, extents: list[qemu.Extent], start: int, end: int) -> Iterator[Piece]:
    for extent in extents:
        if extent.start < end and start < extent.end:
            yield _piece(fd, extent, max(start, extent.start), min(end, extent.end))


def _piece(fd: int, extent: qemu.Extent, start: int, end: int) -> Piece:
    if extent.offset is None:
        raise ImageError(
            f"QEMU says that the qcow2 image has no place for byte {start} of the disk; it was changed by somebody "
            "else. Remove it and run again"
        )
    return Piece(start, end - start, fd, extent.offset + start - extent.start)


def in_place(fd: int, size: int) -> bool:
    """Whether every cluster of a fresh qcow2 image has its place already."""
    found = qemu.extents("qcow2", fd, 0, size)
    return bool(found) and all(extent.offset is not None for extent in found)


def _data(fd: int, start: int, end: int) -> Iterator[Piece]:
    """What is no hole in a file."""
    for begin, stop in holes.data(fd, start, end):
        yield Piece(begin, stop - begin, fd, begin)


def write_zeros(fd: int, offset: int, length: int) -> None:
    """Make a stretch of a file or block device read as zeros, in the cheapest way that it knows."""
    if _punch(fd, offset, length):
        return
    if is_block(fd) and offset % 512 == 0 and length % 512 == 0:
        try:
            fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", offset, length))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
                raise
        else:
            return
    write_all(fd, memoryview(_ZEROS), offset, length)


def write_all(fd: int, data: memoryview, offset: int, length: int) -> None:
    """Write ``data`` again and again until ``length`` bytes are written."""
    end = offset + length
    while offset < end:
        count = min(len(data), end - offset)
        done = 0
        while done < count:
            done += os.pwrite(fd, data[done:count], offset + done)
        offset += count


_libc = ctypes.CDLL(None, use_errno=True)


def _punch(fd: int, offset: int, length: int) -> bool:
    """Whether the file system or device could drop the stretch, so that it reads as zeros."""
    numbers = (ctypes.c_int(_PUNCH_HOLE_KEEP_SIZE), ctypes.c_int64(offset), ctypes.c_int64(length))
    if _libc.fallocate(ctypes.c_int(fd), *numbers) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code))
