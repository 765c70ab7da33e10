# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loop devices in front of the lab's block volumes, for what has to be tried with a real device. Takes root."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path


def _run(*arguments: str) -> str:
    return subprocess.run(["losetup", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def attach(file: Path) -> str:
    """The loop device of a file; made when there is none."""
    return devices(file)[0] if devices(file) else _run("--find", "--show", str(file))


def devices(file: Path) -> list[str]:
    """The loop devices of a file."""
    return _run("--noheadings", "--output", "NAME", "--associated", str(file)).split()


def detach(file: Path) -> None:
    """Takes away the loop devices of a file."""
    for device in devices(file):
        _run("--detach", device)


def detach_below(folder: Path) -> None:
    """Takes away the loop devices of all files below a folder."""
    for file in folder.rglob("*"):
        if file.is_file():
            detach(file)


@functools.cache
def usable() -> str:
    """Why there can be no loop devices here, or ''."""
    if os.geteuid():
        return "loop devices take root"
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1 << 20)
        try:
            _run("--detach", _run("--find", "--show", file.name))
        except (OSError, subprocess.CalledProcessError) as error:
            return f"this machine gives no loop devices: {error}"
    return ""
