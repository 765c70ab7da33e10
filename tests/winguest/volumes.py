# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes with a Windows on them: as a plain folder, and as real NTFS in a disk image."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.ntfs import Read
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import Release

from winguest.hives import write_hive
from winguest.systems import software_tree, system_tree

MKNTFS = shutil.which("mkntfs", path="/usr/sbin:/sbin:/usr/bin")
CONFIG = Path("Windows/System32/config")
DRIVERS = Path("Windows/System32/drivers")
CATALOGUES = Path("Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}")


def make_windows(root: Path, release: Release, architecture: str = "amd64") -> None:
    """The files of a Windows that this collection looks at."""
    for folder in (CONFIG, DRIVERS, CATALOGUES):
        (root / folder).mkdir(parents=True)
    write_hive(root / CONFIG / "SYSTEM", system_tree(release, architecture))
    write_hive(root / CONFIG / "SOFTWARE", software_tree(release))
    (root / DRIVERS / "disk.sys").write_bytes(b"the driver of disks")
    (root / "hiberfil.sys").write_bytes(bytes(4096))


def content(root: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def make_ntfs(path: Path, size: int = 8 << 20) -> Path:
    """An empty NTFS volume in a file."""
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(size)
    assert MKNTFS is not None
    command = [MKNTFS, "-F", "-Q", "-q", "-s", "512", "-p", "2048", "-H", "255", "-S", "63", "-L", "Windows", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


# ---- what Windows leaves on a volume


def mark_dirty(path: Path, offset: int = 0) -> None:
    """Windows wants to check the volume: the flag in the record of $Volume."""
    record = _record(path, offset, 3)
    position = record.find(struct.pack("<I", 0x70))
    value = position + struct.unpack_from("<H", record, position + 20)[0]
    _write(path, _table(path, offset) + 3 * 1024 + value + 10, struct.pack("<H", 1))


def leave_log_open(path: Path, offset: int = 0) -> None:
    """Changes wait in the volume's journal: its restart pages have a client in use, and are not marked clean."""
    place, size = _log_place(path, offset)
    page = bytearray(4096)
    struct.pack_into("<4sHHQIIHHH", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, 64, 1, 1)
    # LSN; one client, none free, the first in use, no flags; bits, lengths, size of the log
    struct.pack_into("<QHHHH", page, 64, 5000, 1, 0xFFFF, 0, 0)
    struct.pack_into("<IHHqIHHII", page, 80, 67 - size.bit_length(), 224, 64, size, 0, 48, 64, 1, 0)
    struct.pack_into("<QQHHHHIIQ", page, 128, 5000, 5000, 0xFFFF, 0xFFFF, 0, 0, 0, 8, 0)
    page[160:168] = "NTFS".encode("utf-16-le")
    for copy in (0, 4096):
        _write(path, offset + place + copy, bytes(page))


def encrypt(path: Path, offset: int = 0) -> None:
    """What the first sector of a volume says when BitLocker has encrypted it."""
    _write(path, offset + 3, b"-FVE-FS-")


def _boot(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(512)


def _table(path: Path, offset: int) -> int:
    boot = _boot(path, offset)
    return offset + struct.unpack_from("<Q", boot, 48)[0] * boot[13] * 512


def _record(path: Path, offset: int, number: int) -> bytes:
    with path.open("rb") as file:
        file.seek(_table(path, offset) + number * 1024)
        return file.read(1024)


def _log_place(path: Path, offset: int) -> tuple[int, int]:
    """Where the journal begins on its volume, and how large it is."""
    record = _record(path, offset, 2)
    position = record.find(struct.pack("<I", 0x80))
    runs = position + struct.unpack_from("<H", record, position + 32)[0]
    lengths, offsets = record[runs] & 15, record[runs] >> 4
    cluster = int.from_bytes(record[runs + 1 + lengths : runs + 1 + lengths + offsets], "little", signed=True)
    (size,) = struct.unpack_from("<Q", record, position + 48)
    return cluster * _boot(path, offset)[13] * 512, size


def _write(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


# ---- a volume without attaching anything


@dataclass
class FolderVolume:
    """A volume whose files are a folder, and whose bytes are an NTFS volume of its own.

    :param mounts: each mount, as whether it was writable.
    """

    root: Path
    image: Path
    name: str = "tank:vm-120-disk-0"
    partitions: tuple[int, ...] = (1, 2)
    mounts: list[bool] = field(default_factory=list)

    @contextlib.contextmanager
    def opened(self, partition: int) -> Iterator[Read]:
        """Partition 2 is the NTFS volume, 1 is something else."""
        with self.image.open("rb") as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length) if partition == 2 else bytes(length)

            yield read

    @contextlib.contextmanager
    def mounted(self, partition: int, *, writable: bool) -> Iterator[str]:
        """The folder. What was written although it must not be written to is found out by whoever compares."""
        assert partition == 2
        self.mounts.append(writable)
        before = content(self.root)
        yield str(self.root)
        if not writable:
            assert content(self.root) == before
