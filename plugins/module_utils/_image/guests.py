# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Who uses a disk: guests of the whole cluster, and whatever on this machine has it open.

Source: pmxcfs(8), /etc/pve/nodes/NODE/qemu-server/VMID.conf and lxc.
"""

from __future__ import annotations

import glob
import json
import os
import re
import socket
import stat
import subprocess
import typing as t
from dataclasses import dataclass

from . import loop, mountinfo, pvesm
from .lock import holders

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .disk import Stamp

#: Where the cluster's configuration is.
ROOT: t.Final = "/etc/pve"
_CONFIGS: t.Final = ("nodes/*/qemu-server/*.conf", "nodes/*/lxc/*.conf")
_SLOT: t.Final = r"(?:ide|sata|scsi|virtio|efidisk|tpmstate|unused|rootfs|mp)\d*"
_DRIVE: t.Final = re.compile(rf"{_SLOT}: (?:file=|volume=)?([^,\s]+)")


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest whose configuration names a volume, now or in a snapshot.

    :param lock: what it is locked for, or ''.
    """

    vmid: int
    node: str
    lock: str = ""

    def __str__(self) -> str:
        return f"{self.vmid} on {self.node}"


def naming(names: tuple[str, ...], root: str = ROOT) -> list[Guest]:
    """The guests that name a volume or a path.

    :param names: volume ids and paths. A name that begins with ``:`` fits any storage.
    """
    found = []
    for pattern in _CONFIGS:
        for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            text = _read(path)
            if any(_fits(volume, names) for volume in volumes(text)):
                lock = re.search(r"^lock: (\S+)", text, re.MULTILINE)
                found.append(Guest(int(os.path.basename(path)[:-5]), path.split("/")[-3], lock[1] if lock else ""))
    return found


def names_of(path: str) -> tuple[str, ...]:
    """How a guest's configuration may call what is at a path: by the path, or as a volume of any storage."""
    folder, base = os.path.split(os.path.abspath(path))
    return (path, os.path.abspath(path), f":{base}", f":{os.path.basename(folder)}/{base}")


def volumes(config: str) -> Iterator[str]:
    """The volumes and paths in the text of a guest's configuration, those of its snapshots among them."""
    for line in config.splitlines():
        match = _DRIVE.match(line)
        if match is not None:
            yield match[1]


def _fits(volume: str, names: tuple[str, ...]) -> bool:
    return any(volume.endswith(name) if name.startswith(":") else volume == name for name in names)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # removed meanwhile


def state(guest: Guest) -> str:
    """Whether a guest runs: ``running``, ``stopped`` or ``unknown``.

    On this node its process is looked for; of another node PVE is asked, which may know nothing of it.
    """
    if pvesm.running(guest.vmid):
        return "running"
    status = _status(guest)
    if status is None:
        return "stopped" if guest.node == socket.gethostname().partition(".")[0] else "unknown"
    return "stopped" if status == "stopped" else "running"


def _status(guest: Guest) -> str | None:
    command = ["pvesh", "get", "/cluster/resources", "--type", "vm", "--output-format", "json"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        rows = json.loads(done.stdout)
    except (OSError, ValueError):
        return None
    found = [str(row["status"]) for row in rows if row.get("vmid") == guest.vmid and row.get("status") != "unknown"]
    return found[0] if found else None


def on_this_machine(stamp: Stamp) -> list[str]:
    """What on this machine has a file or block device in use, in words."""
    found = [f"process {pid} ({_command(pid)})" for pid in holders(stamp.path)]
    found += [f"loop device {one.device}" for one in loop.of_file(stamp.device, stamp.inode)]
    status = os.stat(stamp.path)
    if stat.S_ISBLK(status.st_mode):
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        found += [f"mount {mount.place}" for mount in mountinfo.read() if mount.device == number]
        found += [f"device {os.path.basename(path)}" for path in glob.glob(f"/sys/dev/block/{number}/holders/*")]
    return found


def _command(pid: int) -> str:
    return _read(f"/proc/{pid}/comm").strip() or "?"
