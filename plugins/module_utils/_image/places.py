# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where a converted image will be: a file, or a volume of a guest. Made under a name that says it is not finished."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import typing as t
from dataclasses import dataclass

from .._core.storage import TABLE
from . import guests, pvesm, space
from .disk import Stamp
from .errors import ImageError
from .file_errors import named
from .journal import sync_folder
from .lock import BusyError, identity
from .target import length_of

if t.TYPE_CHECKING:
    from .pvesm import Listed

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
#: What PVE calls the feature sparseinit: a new volume reads as zeros (its plugins' volume_has_feature).
_ZEROED_TYPES = frozenset({"lvmthin", "zfspool", "zfs", "rbd"})
_CEPH_DEVICES = "/dev/rbd"
SECTOR = 512
KIB = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a place.

    :param size: bytes of the file, or of a volume's disk.
    :param stamp: size, mtime_ns and inode of a file, nothing for a volume.
    """

    size: int
    format: str = ""
    stamp: tuple[int, ...] = ()


class Place(t.Protocol):
    """A place for one image."""

    #: How the journal knows it, whatever the source.
    key: str
    #: How people know it.
    shown: str
    #: Whether a new image there reads as zeros.
    zeroed: bool
    #: Whether space is taken only by what is written.
    thin: bool
    #: Whether PVE makes the image, as the storage is set up.
    prepared: bool

    def rounded(self, size: int) -> int:
        """The size that an image of at least so many bytes gets."""

    def free(self) -> int:
        """Bytes that can still be written to it."""

    def finished(self) -> Found | None:
        """The finished image, if it is there."""

    def unfinished(self) -> Found | None:
        """The image that is not finished, if it is there."""

    def make(self, size: int, image_format: str) -> int:
        """Make what will become the image, and open it. Nothing of the kind may be there."""

    def open(self, *, finished: bool = False) -> int:
        """Open the image that is not finished, or the finished one for reading."""

    def check_kept(self) -> None:
        """Whether what this has opened for writing is still what is found there.

        :raises ImageError: if it was removed or replaced meanwhile.
        """

    def finish(self) -> str:
        """Give the image its name; nothing is ever replaced.

        :returns: what it is called from now on.
        :raises ImageError: as ``check_kept``.
        """

    def discard(self) -> None:
        """Remove the image that is not finished, and only that."""

    def release(self) -> None:
        """Take away what was needed to open it."""


def check_unused(path: str) -> None:
    """Refuse a file or device that anybody else has in use.

    :raises BusyError: with who it is.
    """
    users = guests.on_this_machine(Stamp.of(path))
    if users:
        raise BusyError(f"{path} is in use by {', '.join(users)}; it is not touched. End that, then run again")


class _Written:
    """What was opened for writing, by its identity: a name can be given to something else."""

    def __init__(self) -> None:
        self._path = ""
        self._identity = (0, 0)

    def note(self, path: str, fd: int) -> int:
        self._path, self._identity = path, identity(os.fstat(fd))
        return fd

    def check(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not self._path or identity(os.stat(self._path)) == self._identity:
                return
        raise ImageError(
            f"{self._path} was removed or replaced by something else while it was written; what was converted is lost. "
            "See what did that, then run again: it begins anew"
        )


class FilePlace:
    """A file, which is called ``NAME.partial`` until it is finished."""

    zeroed = True
    thin = True
    prepared = False

    def __init__(self, dest: str) -> None:
        self._dest = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(dest))), os.path.basename(dest))
        self._folder = os.path.dirname(self._dest)
        self._partial = f"{self._dest}.partial"
        self.key = f"file {self._dest}"
        self.shown = self._dest
        self._written = _Written()
        if not os.path.isdir(self._folder):
            raise ImageError(f"dest {dest}: {self._folder} is no folder; make it first")

    def rounded(self, size: int) -> int:
        return -(-size // SECTOR) * SECTOR

    def free(self) -> int:
        own = os.lstat(self._partial).st_blocks * 512 if os.path.lexists(self._partial) else 0
        return space.available(self._folder) + own

    def finished(self) -> Found | None:
        return _found(self._dest)

    def unfinished(self) -> Found | None:
        return _found(self._partial)

    def make(self, size: int, image_format: str) -> int:
        fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if image_format == "raw":
            with named(fd):
                os.ftruncate(fd, size)
        sync_folder(self._folder)
        return self._written.note(self._partial, fd)

    def open(self, *, finished: bool = False) -> int:
        if finished:
            return os.open(self._dest, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        check_unused(self._partial)
        return self._written.note(self._partial, os.open(self._partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))

    def check_kept(self) -> None:
        self._written.check()

    def finish(self) -> str:
        self.check_kept()
        if os.path.lexists(self._partial):
            rename_noreplace(self._partial, self._dest)
        elif not os.path.lexists(self._dest):
            raise ImageError(f"{self._partial} was removed before it got its name; run again: it begins anew")
        sync_folder(self._folder)
        return self._dest

    def discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            check_unused(self._partial)
            os.unlink(self._partial)
            sync_folder(self._folder)

    def release(self) -> None:
        """Nothing was needed."""


def _found(path: str) -> Found | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{path} is there and is no plain file; it is not touched. Remove it or name another dest")
    return Found(found.st_size, stamp=(found.st_size, found.st_mtime_ns, found.st_ino))


def rename_noreplace(old: str, new: str) -> None:
    """Rename a file, unless the new name is taken.

    :raises FileExistsError: if it is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = (_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new))
    if libc.renameat2(*names, ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):  # these file systems (NFS) can't do that, but have hard links
        raise OSError(code, os.strerror(code), old, None, new)
    os.link(old, new, follow_symlinks=False)
    os.unlink(old)


class VolumePlace:
    """A volume of a guest. It has its name from the start, and no guest's configuration names it before it is finished.

    :param name: ``vm-<vmid>-<label>-<fingerprint>``, without an ending.
    :raises ImageError: if the storage can't hold such an image.
    """

    prepared = True

    def __init__(self, storage: str, vmid: int, name: str, image_format: str, key: str) -> None:
        self._status = pvesm.status(storage)
        kind = TABLE.get(self._status.type)
        if not self._status.active:
            raise ImageError(f"storage {storage} is not active on this node; see 'pvesm status'")
        if kind is not None and image_format not in (*kind.formats, *kind.chain_formats):
            allowed = " or ".join(word for word in (*kind.formats, *kind.chain_formats) if word != "vmdk") or "no disks"
            raise ImageError(f"storage {storage} ({self._status.type}) can't hold {image_format}; it holds {allowed}")
        self._storage = storage
        self._vmid = vmid
        # A storage of files wants the format in the name; of the others, only LVM's chains with qcow2 do.
        plain = image_format == "raw" and kind is not None and kind.level == "block"
        self._name = name if plain else f"{name}.{image_format}"
        self.key = key
        self.shown = f"{storage}:{self._name}"
        self.zeroed = self._status.type in _ZEROED_TYPES
        self.thin = kind is None or kind.thin != "never"
        self._mapped = False
        self._written = _Written()
        self._listed: Listed | None = None
        self._looked = False

    def rounded(self, size: int) -> int:
        return -(-size // KIB) * KIB

    def free(self) -> int:
        return self._status.available

    def finished(self) -> Found | None:
        if not self._looked:  # each question to pvesm takes half a second
            self._listed, self._looked = self._volume(), True
        return Found(self._listed.size, self._listed.format) if self._listed else None

    unfinished = finished  # the journal knows the difference

    def _volume(self) -> Listed | None:
        found = pvesm.find(self._storage, self._vmid, self._name)
        if found is not None:
            self.shown = found.volid
        return found

    def make(self, size: int, image_format: str) -> int:
        self.shown = pvesm.allocate(self._storage, self._vmid, self._name, size, image_format)
        fd = self._open(os.O_RDWR)
        if image_format == "raw" and length_of(fd) < size:
            os.close(fd)
            raise ImageError(f"{self.shown} is smaller than the {size} bytes that pvesm was asked for")
        return fd

    def open(self, *, finished: bool = False) -> int:
        if finished:
            return self._open(os.O_RDONLY)
        self._check_unused()
        return self._open(os.O_RDWR)

    def _open(self, flags: int) -> int:
        path = pvesm.path(self.shown)
        self._mapped = path.startswith(_CEPH_DEVICES)
        fd = os.open(path, flags | os.O_CLOEXEC)
        return self._written.note(path, fd) if flags & os.O_RDWR else fd

    def _check_unused(self) -> None:
        named = guests.naming((self.shown,))
        if named:
            raise BusyError(
                f"{self.shown} is not finished, and guest {', '.join(map(str, named))} names it already; it is not "
                "touched. Take it out of the guest's configuration, then run again"
            )
        check_unused(pvesm.path(self.shown))

    def check_kept(self) -> None:
        self._written.check()

    def finish(self) -> str:
        self.check_kept()
        return self.shown

    def discard(self) -> None:
        if self._volume() is not None:
            self._check_unused()
            self.release()
            pvesm.free(self.shown)

    def release(self) -> None:
        if self._mapped:
            self._mapped = False
            pvesm.unmap(self.shown)
