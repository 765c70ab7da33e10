# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Trust on first use: a file of JSON that says which checksum each file had when it was seen first.

It is made to be kept with the playbooks, under version control: one file a line, sorted by name, without dates.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from .._core.errors import DiskwrightError

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is known of a file."""

    sha256: str
    size: int


class TrustFile:
    """The records of one file, which need not exist yet.

    :raises DiskwrightError: its folder does not exist, or what is in there is not to be understood.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if not self._path.parent.is_dir():
            raise DiskwrightError(f"trust_file={path}: the folder {self._path.parent} does not exist; make it first")
        self._read()

    def find(self, name: str) -> Trusted | None:
        """What is known of a file of this name, or ``None``."""
        return self._read().get(name)

    def check_writable(self) -> None:
        """:raises DiskwrightError: a record could not be written."""
        if not os.access(self._path.parent, os.W_OK):
            raise DiskwrightError(f"trust_file={self._path}: the folder {self._path.parent} can't be written to")

    def record(self, name: str, trusted: Trusted) -> None:
        """Remember a file. Safe against others who record at the same time, and against a crash.

        :raises DiskwrightError: somebody has just recorded another checksum, or it can't be written.
        """
        try:
            with self._alone():
                records = dict(self._read())
                known = records.setdefault(name, trusted)
                if known != trusted:
                    raise DiskwrightError(
                        f"trust_file={self._path}: {name} has just been recorded with another checksum "
                        f"({known.sha256}, here {trusted.sha256}); find out which one is right"
                    )
                self._write(records)
        except OSError as error:
            raise DiskwrightError(f"trust_file={self._path}: it can't be written ({error.strerror})") from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody else records. The folder is what is locked: the file is replaced by each."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, records: Mapping[str, Trusted]) -> None:
        rows = {name: {"sha256": one.sha256, "size": one.size} for name, one in sorted(records.items())}
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        folder, prefix = self._path.parent, f".{self._path.name}."
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=prefix, delete=False) as new:
            new.write(f"{{\n{lines}\n}}\n")
            new.flush()
            os.fsync(new.fileno())
        mode = self._path.stat().st_mode if self._path.exists() else 0o644
        os.chmod(new.name, mode & 0o777)
        os.rename(new.name, self._path)

    def _read(self) -> Mapping[str, Trusted]:
        try:
            rows = json.loads(self._path.read_text("utf-8"))
            return {str(name): _trusted(row) for name, row in rows.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DiskwrightError(f"trust_file={self._path}: it can't be read ({error.strerror})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DiskwrightError(
                f"trust_file={self._path}: it is damaged, or no file of this kind; it is JSON, and each name has "
                '{"sha256": …, "size": …}; restore it, or remove it to trust anew'
            ) from error


def _trusted(row: t.Any) -> Trusted:
    if not _SHA256.fullmatch(row["sha256"]) or isinstance(row["size"], bool) or not isinstance(row["size"], int):
        raise ValueError(row)
    return Trusted(row["sha256"], row["size"])
