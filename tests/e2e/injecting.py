# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proofs of windows_inject need: disks with a Windows on real NTFS, runs, and what is on them afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.windows_inject import WindowsInject
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE, Release
from e2e import mounting
from images.tables import MIB, gpt, gpt_entry, mbr, place_in
from winguest.hives import read_with_regipy
from winguest.hivex_here import HIVEX, REASON
from winguest.media import GENISOIMAGE
from winguest.volumes import CONFIG, MKNTFS, make_ntfs, make_windows

START = 2048
SIZE = 12 * MIB
DEFAULTS: dict[str, Any] = {
    "path": None,
    "volume": None,
    "partition": None,
    "state": "injected",
    "drivers": None,
    "allow_test_signed": False,
    "legacy_boot": True,
    "backend": "own",
}


def missing() -> str:
    """Why this can't be tested on this machine, or an empty text."""
    if HIVEX is None:
        return REASON
    if MKNTFS is None or shutil.which("ntfs-3g") is None:
        return "needs ntfs-3g (Debian: ntfs-3g)"
    return mounting.missing() if GENISOIMAGE else "needs genisoimage (Debian: genisoimage)"


needs_it = pytest.mark.skipif(bool(missing()), reason=missing())


@contextlib.contextmanager
def mounted(volume: Path) -> Iterator[Path]:
    """An NTFS volume in a file of its own, writable."""
    place = volume.with_name(f"{volume.name}.mnt")
    place.mkdir(exist_ok=True)
    subprocess.run(["ntfs-3g", str(volume), str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def windows_volume(
    path: Path,
    release: Release = TABLE["2022"],
    architecture: str = "amd64",
    change: Callable[[Path], None] | None = None,
    size: int = SIZE,
) -> Path:
    """An NTFS volume with a Windows on it.

    :param change: what else is done to its files.
    """
    make_ntfs(path, size)
    with mounted(path) as root:
        make_windows(root, release, architecture)
        if change is not None:
            change(root)
    return path


def disk_with(folder: Path, volume: Path, table: str = "mbr", name: str = "disk.raw") -> Path:
    """A disk whose first partition is the small one that Windows starts from, and whose second has the volume.

    :param name: a name that ends with ``.qcow2`` makes it one.
    """
    size = volume.stat().st_size // 512
    first, second = START, START + 2048
    whole = (second + size) * 512 + 2 * MIB
    if table == "mbr":
        disk = mbr(whole, [(0x07, first, 2048), (0x07, second, size)])
    elif table == "gpt":
        entries = [gpt_entry(first, first + 2047, "EFI"), gpt_entry(second, second + size - 1, "Windows", number=2)]
        disk = gpt(whole, entries)
    else:
        disk = bytearray(volume.read_bytes())
    if table != "none":
        place_in(disk, second * 512, volume)
    raw = folder / "disk.raw"
    raw.write_bytes(disk)
    return mounting.converted(raw, name) if name.endswith(".qcow2") else raw.rename(folder / name)


def volume_of(disk: Path, folder: Path, table: str = "mbr", size: int = SIZE) -> Path:
    """The NTFS volume of such a disk, copied out of it by qemu-img."""
    raw = folder / "out.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(raw)], check=True)
    start = 0 if table == "none" else (START + 2048) * 512
    out = folder / "out.ntfs"
    with raw.open("rb") as source, out.open("wb") as target:
        source.seek(start)
        target.write(source.read(size))
    return out


def seen(
    disk: Path, folder: Path, table: str = "mbr", size: int = SIZE
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The SYSTEM hive as regipy reads it, and all files."""
    volume = volume_of(disk, folder, table, size)
    probe = subprocess.run(["ntfs-3g.probe", "--readwrite", str(volume)], capture_output=True, check=False)
    assert probe.returncode == 0, probe.stderr
    with mounted(volume) as root:
        files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        return read_with_regipy(root / CONFIG / "SYSTEM"), files


class Node:
    """A state folder, a driver ISO, and runs of the module as its runner does them."""

    def __init__(self, folder: Path, iso: Path) -> None:
        self.state = folder / "state"
        self.iso = iso

    def params(self, **params: Any) -> dict[str, Any]:
        """All parameters of a run."""
        words = {key: str(value) if isinstance(value, Path) else value for key, value in params.items()}
        return {**DEFAULTS, "iso": str(self.iso), "state_dir": str(self.state), **words}

    def run(self, *, check: bool = False, **params: Any) -> Result:
        """One run."""
        work = WindowsInject(self.params(**params))
        work.prepare()
        if not check:
            work.execute()
        return work.result(executed=not check)


def descriptor(path: Path) -> bytes:
    """A file's security descriptor, as ntfs-3g shows it."""
    return os.getxattr(path, "system.ntfs_acl")
