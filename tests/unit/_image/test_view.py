# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A confined view shows the image's content to QEMU, and QEMU opens nothing but the inspected files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import images
import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import inspect
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.view import View, confined
from images import GOOD, Good

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img (Debian: qemu-utils)")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk with data and holes."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    path.write_bytes(images.disk())
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


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_every_image(tmp_path: Path, good: Good) -> None:
    """Also those that QEMU does not read by itself: with odd descriptors, in archives, with names in old encodings."""
    path, content = good.make(tmp_path)
    plain = tmp_path / "content-of-the-disk"
    plain.write_bytes(content)
    with inspect(str(path), good.member) as source, confined(source) as view:
        shows(view, plain)


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
