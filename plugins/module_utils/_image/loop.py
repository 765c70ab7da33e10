# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Loop devices: a part of an open file as a block device.

The kernel is asked directly instead of through ``losetup``, for what that can't say: the device is made from a file
that is open already (what was checked is what is attached), it carries a tag from its first moment, by which a later
run knows it, and it goes away by itself with the last that uses it, so that a run that is killed leaves none behind.
Partitions are never scanned: neither the kernel, udev nor LVM gets to see more than the one partition.

Source: Linux, include/uapi/linux/loop.h; LOOP_CONFIGURE is there since 5.8, PVE 8 has 6.2.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import struct
import typing as t
from dataclasses import dataclass

from .errors import ImageError

if t.TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROL: t.Final = "/dev/loop-control"
_GET_FREE: t.Final = 0x4C82
_CONFIGURE: t.Final = 0x4C0A
_CLEAR: t.Final = 0x4C01
_GET_STATUS: t.Final = 0x4C05
_READ_ONLY: t.Final = 1
_AUTOCLEAR: t.Final = 4
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, 2 x encryption, flags; file name; encryption
_INFO: t.Final = struct.Struct("=QQQQQIIII64s64s32sQQ")
_CONFIG: t.Final = struct.Struct(f"=II{_INFO.size}s64x")
_TRIES: t.Final = 20
#: What FUSE answers for a file whose daemon has ended.
_DEAD: t.Final = (errno.ENOTCONN, errno.ECONNABORTED)


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device that is in use.

    :param device: ``/dev/loop0``.
    :param tag: the name that it was given, up to 63 characters.
    :param backing: device and inode of the file behind it.
    :param offset: where it begins in that file, in bytes.
    """

    device: str
    tag: str
    backing: tuple[int, int]
    offset: int
    read_only: bool


@contextlib.contextmanager
def attached(fd: int, *, tag: str, offset: int, size: int, read_only: bool) -> Iterator[str]:
    """Make a loop device, which lives until this ends and nothing else uses it any more.

    :param fd: the open file. For a writable device it must be open for writing.
    :param offset: in bytes, a multiple of 512, and so is ``size``.
    :returns: the device's path.
    :raises ImageError: if the kernel gives none.
    """
    device, opened = _configure(fd, _config(fd, tag, offset, size, read_only=read_only))
    try:
        yield device
    finally:
        os.close(opened)


def _config(fd: int, tag: str, offset: int, size: int, *, read_only: bool) -> bytes:
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    info = _INFO.pack(0, 0, 0, offset, size, 0, 0, 0, flags, tag.encode(), b"", b"", 0, 0)
    return _CONFIG.pack(fd, 0, info)


def _configure(fd: int, config: bytes) -> tuple[str, int]:
    """Take the first free device. Somebody else may take it before us: then the next one."""
    for _try in range(_TRIES):
        try:
            with open(_CONTROL, "rb") as control:
                device = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            opened = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"there is no loop device to be had: {error}; as root: modprobe loop") from error
        try:
            fcntl.ioctl(opened, _CONFIGURE, config)
            return device, opened
        except OSError as error:
            os.close(opened)
            if error.errno != errno.EBUSY:
                raise ImageError(f"{device} can't be attached to the image: {error}") from error
    raise ImageError(f"no loop device could be taken in {_TRIES} tries: others were faster each time; run again")


def in_use() -> Iterator[Loop]:
    """Every loop device that has a file behind it."""
    for folder in sorted(glob.glob("/sys/block/loop*/loop")):
        found = _status(f"/dev/{folder.split('/')[3]}")
        if found is not None:
            yield found


def tagged(tag: str) -> list[Loop]:
    """The loop devices that carry a tag."""
    return [loop for loop in in_use() if loop.tag == tag]


def of_file(device: int, inode: int) -> list[Loop]:
    """The loop devices that have a file behind them, which is known by its device and inode."""
    return [loop for loop in in_use() if loop.backing == (device, inode)]


def clear(device: str) -> None:
    """Detach a loop device; one that is in use goes when it no longer is, and one that is gone is no error."""
    with contextlib.suppress(OSError), open(device, "rb") as opened:
        fcntl.ioctl(opened, _CLEAR)


def _orphan(device: str) -> Loop | None:
    """A device over the export of a daemon that is dead, by what the kernel keeps of it.

    The tag is not among that, but the export is in a folder that is called like it.
    """
    folder = f"/sys/block/{os.path.basename(device)}"
    try:
        path, offset, read_only = (
            _text(f"{folder}/{name}") for name in ("loop/backing_file", "loop/offset", "ro")
        )
    except OSError:
        return None  # now it did go away
    return Loop(device, os.path.basename(os.path.dirname(path)), (0, 0), int(offset), read_only == "1")


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")


def _status(device: str) -> Loop | None:
    try:
        with open(device, "rb") as opened:
            raw = fcntl.ioctl(opened, _GET_STATUS, bytes(_INFO.size))
    except OSError as error:
        # It went away meanwhile; or its file can't be asked, because the program that shows it is dead.
        return _orphan(device) if error.errno in _DEAD else None
    fields = _INFO.unpack(raw)
    tag = fields[9].split(b"\0", 1)[0].decode("utf-8", "replace")
    return Loop(device, tag, (fields[0], fields[1]), fields[3], bool(fields[8] & _READ_ONLY))
