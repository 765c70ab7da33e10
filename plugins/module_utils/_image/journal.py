# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What must survive a crash: small records, each in a file of its own, written with fsync and rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import typing as t
from dataclasses import asdict, dataclass, fields

from .errors import ImageError
from .file_errors import named

VERSION = 1
_STATES = ("begun", "naming", "copied", "verified")
#: Characters of a wrong value that a message shows.
_SHOWN = 40


def sync_folder(folder: str) -> None:
    """Make what was renamed, linked or removed in a folder last."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: str, text: str) -> None:
    """Replace a file so that, whenever the machine stops, it has the old text or the new one. Its folder is made."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file, named(fd):
        file.write(text)
        file.flush()
        os.fsync(fd)
    os.replace(new, path)
    sync_folder(folder)


@dataclass(slots=True)
class Record:
    """How far one conversion is. All sizes are bytes.

    :param fingerprint: the source's, as it was when the conversion began.
    :param path: the source, with ``member``.
    :param target: the file, or the volume id.
    :param virtual_size: of the source.
    :param size: of the target.
    :param state: ``begun`` (nothing was there before, so what is there under the target's name was made by this
        conversion, and may be written to and removed), ``naming`` (complete, about to get its name), or finished:
        ``copied``, ``verified``.
    :param done: everything before this byte of the disk is in the target, on the medium.
    :param digests: the digest of every chunk before ``done`` is in the digest file.
    :param stamp: size, mtime_ns and inode of a file that is complete.
    """

    fingerprint: str
    path: str
    member: str
    target: str
    format: str
    cluster_size: int
    preallocation: str
    compress: bool
    virtual_size: int
    size: int
    state: str = "begun"
    done: int = 0
    digests: bool = False
    strict: bool = False
    content_id: str = ""
    checksum: str = ""
    stamp: tuple[int, ...] = ()
    finished: str = ""
    version: int = VERSION

    @property
    def settled(self) -> bool:
        """Whether the target is finished."""
        return self.state in ("copied", "verified")


class Journal:
    """The record of one target, in a folder for all of them."""

    def __init__(self, folder: str, target: str) -> None:
        name = hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        self.path = os.path.join(folder, f"{name}.json")
        self.digest_path = os.path.join(folder, f"{name}.digests")
        self.lock_path = os.path.join(folder, f"{name}.lock")

    def load(self) -> Record | None:
        """The record, or ``None``.

        :raises ImageError: if the file is there and is no record.
        """
        return _load(self.path)

    def save(self, record: Record) -> None:
        """Write the record so that it lasts."""
        write_atomic(self.path, json.dumps(asdict(record), indent=1, ensure_ascii=True) + "\n")

    def forget(self) -> None:
        """Remove the record and the digests."""
        for path in (self.path, self.digest_path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        if os.path.isdir(os.path.dirname(self.path)):
            sync_folder(os.path.dirname(self.path))


def records(folder: str) -> list[tuple[str, Record]]:
    """Every record of a folder with its file, by the file's name."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    paths = [os.path.join(folder, name) for name in names if name.endswith(".json")]
    return [(path, record) for path in paths if (record := _load(path)) is not None]


def _load(path: str) -> Record | None:
    try:
        with open(path, encoding="utf-8") as file:
            return _record(json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ImageError(
            f"{path} is no journal of a conversion ({error}); if nothing is being converted, remove it and run again"
        ) from error


def _record(data: t.Any) -> Record:
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError("it was written by another version of diskwright.proxmox")
    known = {item.name: str(item.type) for item in fields(Record) if item.name in data}
    for name, kind in known.items():
        if not _fits(data[name], kind):
            raise ValueError(f"its {name} is {json.dumps(data[name])[:_SHOWN]}")
    record = Record(**{**{name: data[name] for name in known}, "stamp": tuple(data.get("stamp", ()))})
    if record.state not in _STATES or not 0 <= record.done <= max(record.size, record.virtual_size):
        raise ValueError(f"its state is {record.state[:_SHOWN]!r}, after {record.done} of {record.size} bytes")
    return record


def _fits(value: object, kind: str) -> bool:
    """Whether a value is of a record's type: a text, a number that is no truth value, a truth value, numbers."""
    if isinstance(value, list):
        return kind.startswith("tuple") and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    return type(value).__name__ == kind
