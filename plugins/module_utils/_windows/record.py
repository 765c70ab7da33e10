# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What an injection has changed, so that it can be taken back, here or on another node, and by hand.

A folder on the guest's volume has it, and a folder of the node: the record, the SYSTEM hive as it was, and files that
were replaced. It is complete before the first change is made.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t
from dataclasses import dataclass

from .._core.errors import DiskwrightError
from . import tree
from .hivedata import Edit, Path, Value

VERSION: t.Final = 1
#: The folder on the volume, below Windows' own.
FOLDER: t.Final = "diskwright"
#: The hive as it was before the first injection.
HIVE: t.Final = "SYSTEM"
_RECORD: t.Final = "record.json"
_README: t.Final = "README.txt"
_HOW: t.Final = (
    "diskwright.proxmox (Ansible) has made VirtIO storage drivers boot-critical in this Windows.\r\n"
    "SYSTEM is the registry hive as it was before. To go back by hand, in the recovery console:\r\n"
    "  copy C:\\Windows\\diskwright\\SYSTEM C:\\Windows\\System32\\config\\SYSTEM\r\n"
    "record.json lists every value and every file that was changed.\r\n"
    "When Windows runs well from its VirtIO disk, this folder may be deleted.\r\n"
)


class RecordError(DiskwrightError):
    """A record that can't be read."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that was written.

    :param parts: where it is on the volume.
    :param before: the name of the file that it has replaced, in the record's folder, or ``None``.
    :param after: the SHA-256 of what was written.
    """

    parts: tuple[str, ...]
    before: str | None
    after: str


@dataclass(frozen=True, slots=True)
class Record:
    """What was changed on a volume.

    :param state: ``applying`` until everything is written, then ``injected``.
    :param edits: values, with what they were and what they were made.
    :param keys: keys that were not there before.
    """

    volume: str
    state: str
    edits: tuple[Edit, ...] = ()
    keys: tuple[Path, ...] = ()
    files: tuple[FileChange, ...] = ()

    def merged(self, other: Record) -> Record:
        """This record with what another run has changed on top: what was before stays what it was."""
        first = {(edit.path, edit.name): edit for edit in self.edits}
        for edit in other.edits:
            known = first.get((edit.path, edit.name))
            before = known.before if known is not None else edit.before
            first[edit.path, edit.name] = Edit(edit.path, edit.name, before, edit.after)
        files = {change.parts: change for change in self.files}
        for change in other.files:
            known_file = files.get(change.parts)
            files[change.parts] = dataclasses.replace(change, before=known_file.before) if known_file else change
        keys = tuple(dict.fromkeys((*self.keys, *other.keys)))
        return Record(other.volume, other.state, tuple(first.values()), keys, tuple(files.values()))


def load(folder: str | None) -> Record | None:
    """The record in a folder, or ``None`` when there is none.

    :raises RecordError: when there is one that can't be read.
    """
    if folder is None:
        return None
    path = os.path.join(folder, _RECORD)
    try:
        return _from_data(json.loads(tree.read(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(f"{path} is no record of an injection ({error}); move it away if it is not needed") from error


def save(folder: str, record: Record, like: str | None = None) -> None:
    """Write a record, and for people what it is.

    :param like: a file whose security descriptor the files get.
    """
    tree.write(os.path.join(folder, _README), _HOW.encode("ascii"), like)
    tree.write(os.path.join(folder, _RECORD), (json.dumps(_data(record), indent=1) + "\n").encode("ascii"), like)


def _data(record: Record) -> dict[str, t.Any]:
    return {
        "version": VERSION,
        "volume": record.volume,
        "state": record.state,
        "edits": [
            {"path": list(edit.path), "name": edit.name, "before": _value(edit.before), "after": _value(edit.after)}
            for edit in record.edits
        ],
        "keys": [list(path) for path in record.keys],
        "files": [
            {"path": list(change.parts), "before": change.before, "after": change.after} for change in record.files
        ],
    }


def _value(value: Value | None) -> list[t.Any] | None:
    return None if value is None else [value.type, value.data.hex()]


def _from_data(data: t.Any) -> Record:
    if data["version"] != VERSION:
        raise ValueError(f"version {data['version']}, and {VERSION} is known")
    return Record(
        volume=str(data["volume"]),
        state=str(data["state"]),
        edits=tuple(
            Edit(tuple(one["path"]), one["name"], _from_value(one["before"]), _from_value(one["after"]))
            for one in data["edits"]
        ),
        keys=tuple(tuple(path) for path in data["keys"]),
        files=tuple(_file(one) for one in data["files"]),
    )


def _file(data: t.Any) -> FileChange:
    """The record lies on the guest's volume, where its owner may write: names must not lead anywhere else."""
    names = [*data["path"], *([] if data["before"] is None else [data["before"]])]
    if not all(map(tree.is_name, names)):
        raise ValueError(f"{data['path']} and {data['before']} are no names")
    return FileChange(tuple(data["path"]), data["before"], str(data["after"]))


def _from_value(data: t.Any) -> Value | None:
    return None if data is None else Value(int(data[0]), bytes.fromhex(data[1]))
