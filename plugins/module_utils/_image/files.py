# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Opens the files of an image, so that what is checked is what is read later, and nothing else is ever opened.

Names come from descriptors and archives that somebody else wrote. Each is one plain name in the source folder; it is
looked at before it is opened, never followed if it is a link, and a FIFO or a device is never opened at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import stat
import typing as t
from dataclasses import dataclass, replace

from .errors import ImageError, ImageRefusedError
from .source import SourceFile

if t.TYPE_CHECKING:
    from collections.abc import Iterator

COPY_AGAIN = "copy it again from where it came from, and compare its checksum with the original's"
NOT_IN_USE = "shut the guest down or end the copy, then try again"
_PLAIN = "allowed is the plain name of a file in the same folder"
#: File descriptors that are left for everything else.
_SPARE = 64


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An open file, or the part of one that is a member of an archive.

    :param base: where the image's file begins in it.
    :param length: bytes of the image's file.
    """

    fd: int
    name: str
    path: str
    base: int
    length: int
    status: os.stat_result
    digest: str = ""

    @property
    def identity(self) -> tuple[int, int]:
        """What makes it this file, whatever it is called."""
        return self.status.st_dev, self.status.st_ino

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the image's file.

        :raises ImageRefusedError: if they are not all there.
        """
        if offset < 0 or offset + length > self.length:
            raise ImageRefusedError(
                "file-truncated",
                self.name,
                f"has {self.length} bytes, but its own tables need bytes {offset} to {offset + length}",
                COPY_AGAIN,
            )
        if not length:
            return b""
        data = self._pread(offset, length)
        while len(data) < length:  # the kernel gives 2 GiB at most
            data += self._pread(offset + len(data), length - len(data))
        return data

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            part = os.pread(self.fd, length, self.base + offset)
        except OSError as error:
            raise ImageError(f"{self.path}: can't be read at byte {self.base + offset}: {error.strerror}") from error
        if not part:
            raise ImageRefusedError("file-changed", self.name, "became shorter while it was read", NOT_IN_USE)
        return part

    def member(self, name: str, base: int, length: int, digest: str) -> ImageFile:
        """The part of this file that is a member of the archive that it is; it shares the open file."""
        return replace(self, name=name, base=base, length=length, digest=digest)

    def facts(self) -> SourceFile:
        """What the source keeps of it."""
        status = self.status
        return SourceFile(
            name=self.name,
            path=self.path,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            inode=status.st_ino,
            device=status.st_dev,
            offset=self.base,
            length=self.length,
            digest=self.digest,
        )


def readable(name: str) -> str:
    r"""A name for people: bytes that are not UTF-8, which no result can hold, are written as ``\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_name(owner: str, name: str) -> None:
    """Refuse what is no plain name.

    :param owner: the file that gives the name, for the message.
    """
    if owner == name and readable(name) != name:
        raise ImageRefusedError("name-not-plain", readable(name), "has a name that is not UTF-8", "rename it")
    if not name or name in {".", ".."} or any(char in '/\\:"' or not char.isprintable() for char in name):
        raise ImageRefusedError(
            "name-not-plain",
            owner,
            f"names the file {name!r}",
            f"{_PLAIN}; copy all files of the image into one folder and correct the name",
        )
    if len(os.fsencode(name)) > 255:
        raise ImageRefusedError("name-not-plain", owner, f"names a file by {len(name)} characters", f"{_PLAIN}")


class Folder:
    """The folder that an image's files are in. A context manager.

    :ivar path: as the user named it.
    """

    def __init__(self, path: str) -> None:
        self.path = path or "."
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"{self.path}: can't be opened as a folder: {error.strerror}") from error

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def names(self) -> list[str]:
        """The names in it, sorted."""
        return sorted(os.listdir(self._fd))

    def status(self, name: str) -> os.stat_result | None:
        """What is there under a name, links not followed; ``None`` for nothing."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return None

    def open(self, name: str, owner: str = "", *, in_use: bool = False) -> ImageFile:
        """Open a file for reading.

        :param owner: the file that names it, or '' for the user.
        :param in_use: allow one that somebody else uses, for a look at what it may be a part of.
        :raises ImageRefusedError: if the name is not plain, if nothing is there, if it is no regular file, or if
            somebody else writes to it or has locked it.
        """
        check_name(owner or name, name)
        before = self.status(name)
        if before is None:
            raise _missing(name, owner)
        _check_regular(name, owner, before)
        file = self._open(name, owner)
        try:
            _check_regular(name, owner, file.status)
            if file.identity != (before.st_dev, before.st_ino):
                raise ImageRefusedError("file-changed", name, "was replaced while it was opened", NOT_IN_USE)
            if not in_use:
                self._check_lock(name)
                check_unwritten(file)
        except BaseException:
            os.close(file.fd)
            raise
        return file

    def _open(self, name: str, owner: str) -> ImageFile:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            fd = os.open(name, flags, dir_fd=self._fd)
        except FileNotFoundError:
            raise _missing(name, owner) from None
        except OSError as error:
            raise ImageError(f"{self._path(name)}: can't be opened: {error.strerror}") from error
        status = os.fstat(fd)
        return ImageFile(fd, name, self._path(name), 0, status.st_size, status)

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _check_lock(self, name: str) -> None:
        """VMware keeps a folder ``NAME.lck`` with a file in it beside each file that a guest or a program uses."""
        lock = self.status(f"{name}.lck")
        if lock is None or (stat.S_ISDIR(lock.st_mode) and not self._has_entries(f"{name}.lck")):
            return
        raise ImageRefusedError(
            "file-locked",
            name,
            f"is locked by VMware: there is {name}.lck",
            "shut the guest down in VMware; remove the lock only if you are sure that nothing uses the image",
        )

    def _has_entries(self, name: str) -> bool:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            return bool(os.listdir(fd))
        finally:
            os.close(fd)


def _missing(name: str, owner: str) -> ImageRefusedError:
    if not owner:
        return ImageRefusedError("file-missing", name, "does not exist", "name an image, or a folder with images")
    return ImageRefusedError(
        "file-missing", owner, f"needs the file {name}, which is not there", f"copy {name} into the same folder"
    )


def _check_regular(name: str, owner: str, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kinds = {
        stat.S_IFLNK: "link",
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFBLK: "block device",
        stat.S_IFCHR: "character device",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode), "special file")
    named = f"names {name}, which is a {kind}" if owner else f"is a {kind}"
    raise ImageRefusedError("file-not-regular", owner or name, named, "allowed is a regular file, no link to one")


def check_unwritten(file: ImageFile) -> None:
    """Refuse a file that somebody has open for writing.

    The kernel says so when it is asked for a read lease, which root and the file's owner may. On file systems without
    leases (NFS, CIFS) the processes of this machine are looked through instead.
    """
    free = _lease(file.fd)
    if free:
        return
    writers = [pid for pid, identity in _open_for_writing() if identity == file.identity]
    # NFS grants a lease only with a delegation of the server's, and says the same when there is none. Elsewhere there
    # is a writer, if not one that shows among the processes: a loop device, or a container's.
    if writers or (free is False and not _is_remote(file.status.st_dev)):
        who = f" (process {', '.join(map(str, writers))})" if writers else ""
        raise ImageRefusedError("file-in-use", file.name, f"is open for writing{who}", NOT_IN_USE)


def _lease(fd: int) -> bool | None:
    """Whether nobody has it open for writing; ``None`` if that can't be told this way."""
    try:
        # A writer that comes between these calls makes the kernel send a signal: one that is ignored by default.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_remote(device: int) -> bool:
    """Whether a file system is on other machines, too."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            fields, _dash, rest = line.partition(" - ")
            if fields.split()[2] == number:
                return rest.startswith(("nfs", "cifs", "smb", "ceph", "fuse", "gluster", "ocfs2", "gfs2"))
    return False


def _open_for_writing() -> Iterator[tuple[int, tuple[int, int]]]:
    """Processes and the files that they have open for writing, as far as this user may see them."""
    own = os.getpid()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid == own:
            continue
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                place = f"/proc/{pid}/fd/{number}"
                with contextlib.suppress(OSError):
                    # The link's own permission bits say how the file was opened.
                    if os.lstat(place).st_mode & stat.S_IWUSR:
                        status = os.stat(place)
                        if stat.S_ISREG(status.st_mode):
                            yield pid, (status.st_dev, status.st_ino)


class Opened:
    """The files of one image, in the order in which they were opened. Closes them unless the image is kept."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.files: list[ImageFile] = []
        self._names: dict[tuple[int, int], str] = {}

    def open(self, name: str, owner: str = "") -> tuple[int, ImageFile]:
        """Open one more file and give its index.

        :raises ImageRefusedError: as ``Folder.open``, and if the image has this file already, by whatever name.
        """
        make_room(len(self.files) + 1, owner or name)
        file = self.folder.open(name, owner)
        twin = self._names.get(file.identity)
        index = self.add(file)
        if twin is not None:
            raise ImageRefusedError(
                "file-twice",
                owner or name,
                f"names {name}, which is the file {twin} that the image has already",
                "each extent and each parent is a file of its own",
            )
        return index, file

    def add(self, file: ImageFile) -> int:
        """Take over an open file."""
        self.files.append(file)
        self._names.setdefault(file.identity, file.name)
        return len(self.files) - 1

    def check_settled(self) -> None:
        """Refuse if a file has changed since it was opened."""
        for file in self.files:
            now, then = os.fstat(file.fd), file.status
            if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
                grown = f"grew from {then.st_size} to {now.st_size} bytes" if now.st_size != then.st_size else "changed"
                raise ImageRefusedError("file-growing", file.name, f"{grown} while it was inspected", NOT_IN_USE)

    def close(self) -> None:
        """Close all of them."""
        for fd in {file.fd for file in self.files}:
            os.close(fd)
        self.files.clear()


def make_room(files: int, name: str) -> None:
    """Allow this process to have so many files open beside its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = files + _SPARE
    if soft == resource.RLIM_INFINITY or need <= soft:
        return
    if hard != resource.RLIM_INFINITY and need > hard:
        raise ImageRefusedError(
            "files-too-many",
            name,
            f"needs more than {hard - _SPARE} files open at once, this process may have {hard}",
            "raise the limit (ulimit -Hn) for the user that runs this",
        )
    wanted = 2 * need if hard == resource.RLIM_INFINITY else min(2 * need, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
