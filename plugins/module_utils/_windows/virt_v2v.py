# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""``virt-v2v-in-place`` as another way to put a driver in, for those who have it anyway.

It does more (guest agent, a first-boot service) and knows less: one driver at a time, no ``BusType``, nothing to go
back with, and "on failure the image is in an unknown, possibly corrupted state". Sources: virt-v2v-in-place(1) of 2.2.0
(Debian 12) and 2.6.0 (Debian 13).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t

from .._core.errors import DiskwrightError

PROGRAM: t.Final = "virt-v2v-in-place"
#: Where it is, on Debian, beside what PATH has.
PLACES: t.Final = "/usr/bin:/usr/libexec:/usr/lib/virt-v2v"
_BLOCK_DRIVERS: t.Final = {"vioscsi": "virtio-scsi", "viostor": "virtio-blk"}


class VirtV2vError(DiskwrightError):
    """The program is not there, can't do what was asked, or failed."""


def check(state: str, drivers: list[str] | None) -> None:
    """Whether it can do what is asked for.

    :raises VirtV2vError: when it can't.
    """
    if state != "injected":
        raise VirtV2vError(f"backend={PROGRAM}: it can't take anything back; restore a snapshot or a backup")
    if drivers is None or len(drivers) != 1:
        raise VirtV2vError(f"backend={PROGRAM}: it puts one driver in; name vioscsi or viostor in drivers")
    program = _find()
    if drivers[0] == "vioscsi" and "--block-driver" not in _said(program, "--help"):
        raise VirtV2vError(f"backend={PROGRAM}: this release can't put vioscsi in; use viostor, or backend: own")


def run(path: str, image_format: str, iso: str, driver: str) -> None:
    """Convert an image in place.

    :raises VirtV2vError: when it fails. The image may be damaged then.
    """
    program = _find()
    command = [program, "-i", "disk", "-if", image_format, path]
    if "--block-driver" in _said(program, "--help"):
        command += ["--block-driver", _BLOCK_DRIVERS[driver]]
    environment = {**os.environ, "VIRTIO_WIN": iso, "LIBGUESTFS_BACKEND": "direct", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        env=environment,
    )  # fmt: skip
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise VirtV2vError(
            f"{' '.join(command)}: failed ({done.returncode}); the image may be damaged: restore a snapshot or a backup"
            f" before the guest is started\n{last}"
        )


def _find() -> str:
    found = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}:{PLACES}")
    if found is None:
        raise VirtV2vError(
            f"{PROGRAM} is not there; as root: apt-get install --no-install-recommends virt-v2v, and never together"
            " with a package of QEMU, as apt would remove proxmox-ve; or leave out backend"
        )
    return found


def _said(*command: str) -> str:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
