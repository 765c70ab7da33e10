# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""PVE's own tools on a node: storages and volumes.

What they print is read as ``PVE/CLI/pvesm.pm`` (pve-storage 9.1.7) prints it.
"""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from dataclasses import dataclass

from .errors import ImageError
from .lock import inherited

if t.TYPE_CHECKING:
    from collections.abc import Sequence

KIB = 1024
#: The process ids of this node's running guests.
PIDS = "/run/qemu-server"

#: There is no ``pvesm activate``. Mapping gives a Ceph image a device, and all others their path.
_ACTIVATE = """
my ($volid) = @ARGV;
my $cfg = PVE::Storage::config();
PVE::Storage::activate_volumes($cfg, [$volid]);
print PVE::Storage::map_volume($cfg, $volid), "\\n";
"""
_UNMAP = "PVE::Storage::unmap_volume(PVE::Storage::config(), $ARGV[0]);"


class PveError(ImageError):
    """One of PVE's tools refused."""


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """A storage as ``pvesm status`` shows it; sizes in bytes."""

    name: str
    type: str
    active: bool
    available: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A volume as ``pvesm list`` shows it; ``size`` is that of the disk, in bytes."""

    volid: str
    format: str
    size: int


def _run(command: Sequence[str], what: str) -> str:
    try:
        done = subprocess.run(
            list(command),
            pass_fds=inherited(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise PveError(
            f"{what}: there is no {command[0]} here; "
            "a storage can only be used on a PVE node, elsewhere use dest"
        ) from error
    if done.returncode:
        raise PveError(f"{what}: {done.stderr.strip() or done.stdout.strip() or f'{command[0]} failed'}")
    return done.stdout


def status(storage: str) -> StorageStatus:
    """What a storage is, and what is free on it.

    :raises PveError: if it does not exist.
    """
    try:
        rows = _rows(["pvesm", "status", "--storage", storage], storage)
    except PveError:
        there = [row[0] for row in _rows(["pvesm", "status"], storage)]  # this one can be asked for by everybody
        if storage in there:
            raise
        raise _unknown(storage, there) from None
    for row in rows:
        if row[0] == storage:
            return StorageStatus(storage, row[1], row[2] == "active", int(row[5]) * KIB)
    raise _unknown(storage, [row[0] for row in _rows(["pvesm", "status"], storage)])


def _rows(command: Sequence[str], storage: str) -> list[list[str]]:
    """The storages that ``pvesm status`` shows, in words."""
    lines = (line.split() for line in _run(command, f"storage {storage}").splitlines()[1:])
    return [words for words in lines if len(words) >= 6]


def _unknown(storage: str, there: Sequence[str]) -> PveError:
    names = ", ".join(sorted(there)) or "none"
    return PveError(f"storage {storage}: this node has no such storage; it has {names}. Name one of them")


def volumes(storage: str, vmid: int) -> list[Listed]:
    """The volumes of a guest on a storage."""
    text = _run(["pvesm", "list", storage, "--vmid", str(vmid)], f"volumes of {vmid} on {storage}")
    rows = (line.rsplit(None, 4) for line in text.splitlines()[1:])
    return [Listed(row[0], row[1], int(row[3].lstrip("~"))) for row in rows if len(row) == 5 and row[4] == str(vmid)]


def find(storage: str, vmid: int, name: str) -> Listed | None:
    """A guest's volume by its name, which a storage of files shows behind the guest's folder."""
    found = [one for one in volumes(storage, vmid) if re.split("[:/]", one.volid)[-1] == name]
    return found[0] if found else None


def allocate(storage: str, vmid: int, name: str, size: int, image_format: str) -> str:
    """Make a volume.

    :param size: bytes, a whole number of KiB.
    :returns: its volume id.
    """
    command = ["pvesm", "alloc", storage, str(vmid), name, str(size // KIB), "--format", image_format]
    text = _run(command, f"making volume {name} on {storage}")
    found = re.search(r"successfully created '([^']+)'", text)
    if not found:
        raise PveError(f"making volume {name} on {storage}: pvesm said '{text.strip()}', which names no volume")
    return found[1]


def free(volid: str) -> None:
    """Destroy a volume."""
    _run(["pvesm", "free", volid], f"removing volume {volid}")


def path(volid: str) -> str:
    """The file or device of a volume, which is activated if it has to be (after a reboot, LVM volumes are not active).

    :raises PveError: if the storage gives this machine neither.
    """
    shown = _run(["pvesm", "path", volid], f"volume {volid}").strip()
    if not (shown.startswith("/") and os.path.exists(shown)):
        shown = _run(["perl", "-MPVE::Storage", "-e", _ACTIVATE, volid], f"activating {volid}").strip()
    if not (shown.startswith("/") and os.path.exists(shown)):
        raise PveError(
            f"volume {volid} is '{shown}' here, which is no file or device of this node; "
            "convert to a storage that gives one (file, LVM, ZFS, Ceph), or to dest and import that"
        )
    return shown


def unmap(volid: str) -> None:
    """Take away the device that ``path`` gave a Ceph image."""
    _run(["perl", "-MPVE::Storage", "-e", _UNMAP, volid], f"releasing {volid}")


def running(vmid: int, pids: str = PIDS) -> bool:
    """Whether a guest runs on this node (``check_running`` in ``PVE/QemuServer/Helpers.pm``)."""
    try:
        with open(f"{pids}/{vmid}.pid", encoding="ascii") as file:
            return os.path.exists(f"/proc/{int(file.read())}")
    except (FileNotFoundError, ValueError):
        return False
