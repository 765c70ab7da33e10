# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel for the guest that measures, where the machine's own is none of Debian's: for slow tests.

Nothing is installed: the package is downloaded with apt-get and unpacked into .cache/benchguest.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.checkout import TOP

CACHE = TOP / ".cache" / "benchguest"
#: The whole kernel: the one for clouds has no AHCI.
PACKAGE = "linux-image-amd64"


def missing() -> str:
    """Why there can be no such guest here, or an empty string."""
    for name in ("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img", "fio", "apt-get", "dpkg", "busybox"):
        if shutil.which(name) is None:
            return f"{name} is not installed"
    return ""


def kernel() -> tuple[Path, Path]:
    """The kernel's image, and the folder of its modules, fetched once."""
    if not (CACHE / "ready").exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as packages:
            _fetch(Path(packages))
        (CACHE / "ready").touch()
    (image,) = CACHE.glob("boot/vmlinuz-*")
    return image, CACHE / "lib" / "modules" / image.name.removeprefix("vmlinuz-")


def _fetch(packages: Path) -> None:
    listed = subprocess.run(["apt-cache", "depends", PACKAGE], capture_output=True, text=True, check=True).stdout
    (name,) = [line.split()[1] for line in listed.splitlines() if "Depends: linux-image-" in line]
    subprocess.run(["apt-get", "-q", "download", name], cwd=packages, check=True, capture_output=True)
    (package,) = packages.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(CACHE)], check=True)
    version = name.removeprefix("linux-image-")
    subprocess.run(["busybox", "depmod", "-b", str(CACHE), version], check=True)
