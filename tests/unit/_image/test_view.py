# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A confined view shows the image's content to QEMU, and QEMU opens nothing but the inspected files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import inspect
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.view import View, confined
from images import archive

MIB = 1024**2
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img (Debian: qemu-utils)")
SUBFORMATS = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk with data and holes."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    noise = random.Random(4)
    with path.open("wb") as file:
        file.truncate(6 * MIB)
        for _piece in range(20):
            file.seek(noise.randrange(90) * 65536)
            file.write(noise.randbytes(noise.randrange(1, 65536)))
    return path


def made(disk: Path, folder: Path, subformat: str, name: str = "disk.vmdk") -> Path:
    options = ["-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}"]
    subprocess.run(["qemu-img", "convert", *options, str(disk), str(folder / name)], check=True)
    return folder / name


def shows(view: View, disk: Path) -> None:
    """QEMU reads the disk's bytes through the view."""
    command = ["qemu-img", "compare", "-F", "raw", view.filename, str(disk)]
    done = subprocess.run(command, pass_fds=view.fds, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_every_kind_of_vmdk(tmp_path: Path, disk: Path, subformat: str) -> None:
    with inspect(str(made(disk, tmp_path, subformat))) as source, confined(source) as view:
        shows(view, disk)


@pytest.mark.parametrize("image_format", ["qcow2", "vpc", "vhdx", "vdi", "raw"])
def test_every_other_format(tmp_path: Path, disk: Path, image_format: str) -> None:
    image = tmp_path / f"disk.{'vhd' if image_format == 'vpc' else image_format}"
    options = ["-o", "force_size=on"] if image_format == "vpc" else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, *options, disk, image], check=True)
    with inspect(str(image)) as source, confined(source) as view:
        assert source.format == image_format
        shows(view, disk)


def test_a_member_of_an_archive_in_place(tmp_path: Path, disk: Path) -> None:
    image = made(disk, tmp_path, "streamOptimized", "guest-disk1.vmdk")
    text = archive.ovf([archive.Disk(image.name, disk.stat().st_size)])
    ova = tmp_path / "guest.ova"
    ova.write_bytes(archive.tar([("guest.ovf", text.encode()), (image.name, image.read_bytes())]))
    with inspect(str(ova), image.name) as source, confined(source) as view:
        shows(view, disk)


def test_what_was_checked_is_what_is_opened(tmp_path: Path, disk: Path) -> None:
    """Files that are put in the place of the inspected ones are not read, nor is the image's own descriptor."""
    image = made(disk, tmp_path, "monolithicFlat")
    with inspect(str(image)) as source, confined(source) as view:
        for path in tmp_path.iterdir():
            path.rename(path.with_suffix(".moved"))
            path.write_bytes(b"something else")
        shows(view, disk)


def test_a_hint_in_the_image_is_not_followed(tmp_path: Path, disk: Path) -> None:
    """Even if the inspection had let it pass: a backing file that comes in afterwards is not opened."""
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image], check=True)
    with inspect(str(image)) as source, confined(source) as view:
        command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", str(tmp_path / "missing"), str(image)]
        subprocess.run(command, check=True)
        shows(view, disk)


def test_nothing_is_left(tmp_path: Path, disk: Path) -> None:
    image = made(disk, tmp_path, "twoGbMaxExtentFlat")
    before = len(os.listdir("/proc/self/fd"))
    for _time in range(3):
        with inspect(str(image)) as source, confined(source):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
