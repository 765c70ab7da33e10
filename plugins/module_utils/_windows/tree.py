# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Files on a guest's mounted volume: found without regard to case, and written in one step.

The guest's owner may have put anything there. No link is ever followed: it could lead out of the volume.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import typing as t

from .._core.errors import DiskwrightError

#: Names from the root of a volume downward, in any case.
Parts = tuple[str, ...]

# What ntfs-3g calls a file's security descriptor and its DOS attributes (ntfs-3g(8), "extended attributes").
_DESCRIPTOR, _ATTRIBUTES = "system.ntfs_acl", "system.ntfs_attrib"
_NEW = ".diskwright-new"
_CHUNK: t.Final = 1 << 20


class TreeError(DiskwrightError):
    """A file on a guest's volume that is not there or can't be written."""


def is_name(text: object) -> bool:
    """Whether a text is the name of a file and nothing else."""
    return isinstance(text, str) and text not in ("", ".", "..") and not set(text) & set("/\\\0")


def find(root: str, parts: Parts) -> str | None:
    """The path of a file or folder, or ``None`` when it is not there.

    :raises TreeError: when there is a link on the way.
    """
    path = root
    for part in parts:
        try:
            names = os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        fitting = sorted((name for name in names if name.lower() == part.lower()), key=lambda name: name != part)
        if not fitting:
            return None
        path = os.path.join(path, fitting[0])
        if os.path.islink(path):
            raise TreeError(f"{'/'.join(parts)} on the volume is a link, and links are not followed")
    return path


def place(root: str, parts: Parts) -> str:
    """The path at which a file is or would be; its folder must be there.

    :raises TreeError: when the folder is not there.
    """
    if not all(map(is_name, parts)):
        raise TreeError(f"{'/'.join(parts)} is no place on the volume")
    found = find(root, parts)
    if found is not None:
        return found
    folder = find(root, parts[:-1])
    if folder is None or not os.path.isdir(folder):
        raise TreeError(f"the volume has no folder {'/'.join(parts[:-1])}")
    return os.path.join(folder, parts[-1])


def make_folder(root: str, parts: Parts, like: str) -> str:
    """The path of a folder, which is made when it is not there.

    :param like: a folder whose security descriptor it gets then.
    """
    path = place(root, parts)
    if not os.path.isdir(path):
        os.mkdir(path, mode=0o700)
        _protect(path, like)
        _sync(os.path.dirname(path))
    return path


def reader(path: str) -> t.BinaryIO:
    """A file, open to be read.

    :raises TreeError: when it is a link, or no plain file.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TreeError(f"{path}: can't be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise TreeError(f"{path}: is no plain file")
    return file


def read(path: str) -> bytes:
    """The content of a file."""
    with reader(path) as file:
        return file.read()


def digest(path: str) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    found = hashlib.sha256()
    with reader(path) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def write(path: str, data: bytes, like: str | None = None) -> None:
    """Write a file in one step: whoever looks sees the old one or the new one.

    :param like: a file whose security descriptor it gets; by default that of the file which it replaces.
    """
    with _writer(temporary(path)) as file:
        file.write(data)
    replace(temporary(path), path, like)


def copy(source: str, path: str, like: str | None = None) -> None:
    """Copy a file in one step.

    :param like: as for :func:`write`.
    """
    with reader(source) as file, _writer(temporary(path)) as writer:
        while chunk := file.read(_CHUNK):
            writer.write(chunk)
    replace(temporary(path), path, like)


def _writer(path: str) -> t.BinaryIO:
    """A new file. What an earlier run has left there, or a guest has laid there, goes first."""
    remove(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def replace(new: str, path: str, like: str | None = None) -> None:
    """Put a finished file in another's place, with that one's security descriptor and attributes.

    Without a model, ntfs-3g lets everybody in the guest do everything with a new file.
    """
    model = path if os.path.exists(path) else like
    if model is not None:
        _protect(new, model)
    with reader(new) as file:
        os.fsync(file.fileno())
    os.replace(new, path)
    _sync(os.path.dirname(path))


def _protect(path: str, model: str) -> None:
    names = (_DESCRIPTOR,) if os.path.isdir(path) else (_DESCRIPTOR, _ATTRIBUTES)
    for name in names:
        try:
            os.setxattr(path, name, os.getxattr(model, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA):  # a file system that is not NTFS has none
                raise TreeError(f"{path}: can't be protected as {model} is: {error.strerror}") from error


def remove(path: str) -> None:
    """Remove a file; one that is not there is not missed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        _sync(os.path.dirname(path))


def remove_folder(path: str) -> None:
    """Remove a folder of files; one that is not there is not missed."""
    with contextlib.suppress(FileNotFoundError):
        for entry in list(os.scandir(path)):
            os.unlink(entry.path)
        os.rmdir(path)
        _sync(os.path.dirname(path))


def temporary(path: str) -> str:
    """Where a file is made before :func:`replace` puts it in place."""
    return path + _NEW


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # FUSE file systems may have nothing to do here
            os.fsync(fd)
    finally:
        os.close(fd)
