# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proofs of image_mount need: disks with known files in them, runs, and eyes on what is attached here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.image_mount import ImageMount
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from images.tables import MIB, gpt, gpt_entry, mbr, place_in

PROGRAMS = {
    "qemu-storage-daemon": "qemu-system-common",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "blkid": "util-linux",
    "losetup": "mount",
}
FILES = {"etc/hostname": b"web1\n", "data/blob": bytes(range(256)) * 4096, "data/leer": b""}
START = 2048
"""Sector at which the first partition of a disk begins."""


def missing() -> str:
    """Why nothing can be mounted on this machine, or an empty text."""
    if os.geteuid() != 0:
        return "mounting needs root"
    for device in ("/dev/loop-control", "/dev/fuse"):
        if not os.access(device, os.R_OK | os.W_OK):
            return f"there is no {device}"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"needs {program} (Debian: {package})"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "this machine does not allow mounts" if done.returncode else ""


needs_mounts = pytest.mark.skipif(bool(missing()), reason=missing())


def needs(program: str, package: str) -> None:
    """Skips a test where a program is missing."""
    if shutil.which(program) is None:
        pytest.skip(f"needs {program} (Debian: {package})")


# ---- disks


def file_system(folder: Path, kind: str = "ext4", size: int = 8 * MIB, label: str = "root") -> Path:
    """An ext file system with FILES in it."""
    content = folder / f"content-{label}"
    for name, data in FILES.items():
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (content / name).write_bytes(data)
    image = folder / f"{label}.fs"
    image.write_bytes(b"")
    command = ["mke2fs", "-q", "-F", "-t", kind, "-L", label, "-d", str(content), str(image), f"{size // 1024}k"]
    subprocess.run(command, check=True, capture_output=True)
    return image


def raw_disk(folder: Path, table: str, system: Path, name: str = "disk.raw") -> Path:
    """A raw disk whose only partition (or 5th, with `logical`) has a file system."""
    size = system.stat().st_size
    sectors, whole = size // 512, size + 4 * MIB
    if table == "none":
        disk = bytearray(system.read_bytes())
    elif table == "gpt":
        disk = gpt(whole, [gpt_entry(START, START + sectors - 1, "root")])
    elif table == "mbr":
        disk = mbr(whole, [(0x83, START, sectors)])
    else:
        disk = mbr(whole, [(5, START - 1, sectors + 1)], [(START, sectors)])
    if table != "none":
        place_in(disk, START * 512, system)
    path = folder / name
    path.write_bytes(disk)
    return path


def two_partitions(folder: Path, first: Path, second: bytes, name: str = "disk.raw") -> Path:
    """A raw disk with a file system in the first partition, and something else in the second."""
    sectors, other = first.stat().st_size // 512, len(second) // 512
    after = START + sectors
    disk = gpt(
        after * 512 + len(second) + 4 * MIB,
        [gpt_entry(START, after - 1, "root"), gpt_entry(after, after + other - 1, "data", number=2)],
    )
    place_in(disk, START * 512, first)
    disk[after * 512 : after * 512 + len(second)] = second
    path = folder / name
    path.write_bytes(disk)
    return path


def converted(disk: Path, name: str, *options: str) -> Path:
    """The same disk in another format, which the name's ending says."""
    target = disk.with_name(name)
    command = ["qemu-img", "convert", "-f", "raw", "-O", target.suffix[1:], *options, str(disk), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def digest(path: Path) -> str:
    """All bytes of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- runs


DEFAULTS: dict[str, Any] = {
    "path": None,
    "member": "",
    "volume": None,
    "partition": None,
    "mountpoint": None,
    "state": "mounted",
    "writable": False,
    "backend": "auto",
}


class Host:
    """A state folder and a mount point, and runs of image_mount as the runner does them."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.place = folder / "mnt"

    def params(self, **params: Any) -> dict[str, Any]:
        """All parameters of a run."""
        words = {key: str(value) if isinstance(value, Path) else value for key, value in params.items()}
        return {**DEFAULTS, "mountpoint": str(self.place), "state_dir": str(self.state), **words}

    def run(self, *, check: bool = False, **params: Any) -> Result:
        """One run."""
        work = ImageMount(self.params(**params))
        work.prepare()
        if not check:
            work.execute()
        return work.result(executed=not check)

    def clean(self) -> None:
        """Unmounts whatever there is."""
        if (self.state / "mounts").exists():
            self.run(state="unmounted")


def seen(place: Path) -> Mapping[str, bytes]:
    """FILES as a mount shows them."""
    return {name: (place / name).read_bytes() for name in FILES}


def attached(folder: Path) -> list[str]:
    """Everything on this machine that comes from files below a folder: mounts, loop devices, processes.

    A process that was killed with its parent may take a moment to end; what stays is what counts.
    """
    for _try in range(200):
        found = _attached(str(folder))
        if not found:
            break
        time.sleep(0.02)
    return found


def shown(folder: Path) -> list[str]:
    """The mounts alone, at once."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def _attached(text: str) -> list[str]:
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if text in line]
    return [*mounts, *_loops(text), *_daemons(text), *_users(text)]


def _loops(text: str) -> list[str]:
    shown = subprocess.run(["losetup", "-l", "-J", "-O", "NAME,BACK-FILE"], capture_output=True, text=True, check=True)
    rows = json.loads(shown.stdout)["loopdevices"] if shown.stdout.strip() else []
    return [str(row) for row in rows if text in str(row["back-file"])]


def _users(text: str) -> list[str]:
    """Other processes with open files there: a look that has outlived its run, say."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name in (str(os.getpid()), str(os.getppid())):
            continue
        for link in _links(folder / "fd"):
            if text in link:
                found.append(f"{folder.name}: {link}")
    return found


def _links(folder: Path) -> list[str]:
    try:
        return [os.readlink(path) for path in folder.iterdir()]
    except OSError:
        return []


def _daemons(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if Path(words[0]).name == "qemu-storage-daemon" and text in " ".join(words):
            found.append(" ".join(words))
    return found


# ---- PVE's tools


def fake_pvesm(folder: Path, volumes: Path) -> Path:
    """A pvesm that knows one storage, a folder; the folder of programs to be put in front of PATH."""
    programs = folder / "bin"
    programs.mkdir()
    script = programs / "pvesm"
    script.write_text(
        "#!/bin/sh\n"
        '[ "$1" = path ] || exit 2\n'
        f'name=$(basename "${{2#*:}}")\n'
        f'[ -e "{volumes}/$name" ] || {{ echo "no such volume \'$2\'" >&2; exit 255; }}\n'
        f'echo "{volumes}/$name"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return programs
