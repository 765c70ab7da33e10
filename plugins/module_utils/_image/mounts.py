# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The mounts that this collection keeps on a host, each with a record that survives a crash.

The record is written before anything is attached and removed after everything is detached. What it says is what is
wanted; what is there is looked at. So a run that finds a record whose mount is not whole first takes away what is left
of it, and then does what it was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import typing as t
from dataclasses import asdict, dataclass

from . import attach, mountinfo, qemu
from .disk import Stamp
from .errors import ImageError
from .journal import sync_folder, write_atomic
from .lock import held

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .disk import Disk

#: Where journals are kept unless the user says otherwise.
STATE_DIR: t.Final = "/var/lib/diskwright"
VERSION: t.Final = 1
_LOCK_SECONDS: t.Final = 120.0


@dataclass(frozen=True, slots=True)
class Record:
    """One mount.

    :param name: the image's path or the volume id, as it was asked for, links resolved.
    :param member: of an archive.
    :param content: what the partition holds: name of the file system.
    :param listing: what the disk has, for results of runs that find everything done.
    :param stamps: the image's files as they were.
    """

    name: str
    member: str
    format: str
    content: str
    wanted: attach.Wanted
    listing: dict[str, t.Any]
    stamps: tuple[Stamp, ...]
    version: int = VERSION

    def data(self) -> dict[str, t.Any]:
        """For results."""
        wanted = self.wanted
        return {
            "mountpoint": wanted.mountpoint,
            "image": self.name,
            "member": self.member,
            "partition": wanted.number,
            "filesystem": self.content,
            "options": list(wanted.options),
            "backend": wanted.backend,
            "writable": wanted.writable,
        }


class Mounts:
    """The records in a state folder."""

    def __init__(self, state_dir: str = STATE_DIR) -> None:
        self._folder = os.path.join(os.path.realpath(state_dir), "mounts")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other run away while this one attaches or detaches."""
        with held(os.path.join(self._folder, "lock"), "mounting of images", _LOCK_SECONDS):
            yield

    def tag(self, mountpoint: str) -> str:
        """What marks all that belongs to the mount at a place."""
        digest = hashlib.sha256(f"{self._folder}\0{mountpoint}".encode("utf-8", "surrogateescape")).hexdigest()
        return f"diskwright-{digest[:20]}"

    def folder(self, mountpoint: str) -> str:
        """The mount's own folder."""
        return os.path.join(self._folder, self.tag(mountpoint))

    def all(self) -> list[Record]:
        """Every record, by mount point."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        found = [_load(os.path.join(self._folder, name)) for name in names if name.endswith(".json")]
        return sorted((record for record in found if record), key=lambda record: record.wanted.mountpoint)

    def at(self, mountpoint: str) -> Record | None:
        """The record of the mount at a place."""
        return _load(self._path(mountpoint))

    def of(self, name: str) -> list[Record]:
        """The records of all mounts of an image."""
        return [record for record in self.all() if record.name == name]

    def mount(self, record: Record, disk: Disk) -> None:
        """Mount, and take back what was done if that fails.

        :raises ImageError: if it fails, with the reason.
        """
        left = self.at(record.wanted.mountpoint)
        if left is not None:
            attach.detach(left.wanted)
        write_atomic(self._path(record.wanted.mountpoint), _dump(record))
        try:
            attach.attach(record.wanted, disk)
        except ImageError:
            attach.detach(record.wanted)
            self._forget(record)
            raise

    def unmount(self, record: Record) -> list[str]:
        """Unmount, detach everything and look at the image.

        :returns: what is wrong with the image since.
        :raises ImageError: if something is still in use; the record stays, and a later run goes on.
        """
        attach.detach(record.wanted)
        problems = _look_after(record)
        self._forget(record)
        return problems

    def _forget(self, record: Record) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(record.wanted.mountpoint))
        sync_folder(self._folder)

    def _path(self, mountpoint: str) -> str:
        return f"{self.folder(mountpoint)}.json"


def is_whole(record: Record) -> bool:
    """Whether a mount is there as its record says."""
    return attach.is_mounted(record.wanted)


def check_unmounted(mountpoint: str) -> str:
    """What is mounted at a place, or an empty text."""
    found = mountinfo.at(mountpoint)
    return found[-1].source if found else ""


def check_mountpoint(mountpoint: str) -> bool:
    """Whether the mount point has to be made.

    :raises ImageError: if it can't be one: anything but an empty folder, or nothing yet.
    """
    if mountinfo.at(mountpoint):
        other = mountinfo.at(mountpoint)[-1]
        raise ImageError(f"mountpoint {mountpoint}: {other.source} is mounted there; unmount it or name another folder")
    try:
        names = os.listdir(mountpoint)
    except FileNotFoundError:
        return True
    except OSError as error:
        reason = "is no folder" if error.errno == errno.ENOTDIR else str(error.strerror)
        raise ImageError(f"mountpoint {mountpoint}: {reason}; name an empty folder, or one that is made") from error
    if names:
        raise ImageError(f"mountpoint {mountpoint}: is not empty ({sorted(names)[0]}); name an empty folder")
    return False


def _look_after(record: Record) -> list[str]:
    """After a read-only mount the files must be as they were; after a writable one a qcow2 must be whole."""
    problems = []
    for stamp in record.stamps:
        if not stamp.same_file():
            problems.append(f"{stamp.path} is not there any more, or was replaced while it was mounted")
        elif not record.wanted.writable and not stamp.unchanged():
            problems.append(f"{stamp.path} was written to while it was mounted read-only, by something else")
    if record.wanted.writable and record.format == "qcow2" and not problems:
        problems += _damage(record.stamps[0].path)
    return problems


def _damage(path: str) -> list[str]:
    with open(path, "rb") as file:
        try:
            qemu.check(file.fileno())
        except qemu.QemuError as error:
            return [f"{path}: {error}"]
    return []


def _dump(record: Record) -> str:
    return json.dumps(asdict(record), indent=1) + "\n"


def _load(path: str) -> Record | None:
    try:
        with open(path, encoding="utf-8") as file:
            return _record(json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ImageError(
            f"{path} is no record of a mount ({error}); look with losetup -l and findmnt for what is attached, detach "
            "it by hand, then remove the file"
        ) from error


def _record(data: t.Any) -> Record:
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError("it was written by another version of diskwright.proxmox")
    wanted = {**data["wanted"], "options": tuple(data["wanted"]["options"])}
    stamps = tuple(Stamp(**stamp) for stamp in data["stamps"])
    return Record(**{**data, "wanted": attach.Wanted(**wanted), "stamps": stamps})
