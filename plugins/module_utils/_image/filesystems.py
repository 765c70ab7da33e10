# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""File systems: which ones can be mounted, with what options nothing is written, and what else a partition may hold."""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from dataclasses import dataclass
from types import MappingProxyType

from .errors import ImageError

if t.TYPE_CHECKING:
    from collections.abc import Mapping

#: What every mount gets: nothing in an image is run, and no device node in it opens a device of the host.
GUARD: t.Final = ("nosuid", "nodev", "noexec")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """How one kind of file system is mounted.

    :param drivers: names for ``mount -t``, the best first.
    :param read_only: options with which nothing is written, not even a journal replayed.
    :param writable: options for a writable mount, or ``None`` where that is not offered.
    :param first: options that the first driver alone knows.
    """

    drivers: tuple[str, ...]
    read_only: tuple[str, ...] = ()
    writable: tuple[str, ...] | None = None
    first: tuple[str, ...] = ()


#: By the name that blkid gives. Sources: mount(8), ext4(5), xfs(5), btrfs(5), ntfs-3g(8), Documentation/filesystems.
TABLE: t.Final[Mapping[str, FileSystem]] = MappingProxyType(
    {
        "btrfs": FileSystem(("btrfs",), ("rescue=nologreplay",), ()),
        "erofs": FileSystem(("erofs",)),
        "exfat": FileSystem(("exfat",), (), ()),
        "ext2": FileSystem(("ext2", "ext4"), (), ()),
        "ext3": FileSystem(("ext4",), ("noload",), ()),
        "ext4": FileSystem(("ext4",), ("noload",), ()),
        "f2fs": FileSystem(("f2fs",), ("norecovery",), ()),
        "hfsplus": FileSystem(("hfsplus",)),
        "iso9660": FileSystem(("iso9660",)),
        "jfs": FileSystem(("jfs",)),
        # norecover: a volume that Windows has not left cleanly is not repaired; it can then be read, not written. The
        # kernel's ntfs3 does so without being told.
        "ntfs": FileSystem(("ntfs-3g", "ntfs3"), (), (), first=("norecover",)),
        "reiserfs": FileSystem(("reiserfs",), ("nolog",)),
        "squashfs": FileSystem(("squashfs",)),
        "udf": FileSystem(("udf",)),
        "vfat": FileSystem(("vfat",), (), ()),
        # nouuid: the guest's own disk, a copy or a snapshot of it may be mounted at the same time.
        "xfs": FileSystem(("xfs",), ("norecovery", "nouuid"), ("nouuid",)),
    }
)

#: What is no file system, by blkid's name: what it is, and what to do instead.
OTHERS: t.Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "LVM2_member": (
            "a physical volume of LVM",
            "it is not activated here, where its names could collide with the node's own; start the guest, or attach "
            "the disk to a rescue guest",
        ),
        "LVM1_member": ("a physical volume of LVM", "attach the disk to a rescue guest"),
        "linux_raid_member": ("a member of a software RAID", "attach all its disks to a rescue guest"),
        "ddf_raid_member": ("a member of a RAID", "attach all its disks to a rescue guest"),
        "isw_raid_member": ("a member of a RAID", "attach all its disks to a rescue guest"),
        "zfs_member": ("a part of a ZFS pool", "it is not imported on the node; attach the disk to a rescue guest"),
        "crypto_LUKS": ("encrypted (LUKS)", "attach the disk to a rescue guest and open it there"),
        "BitLocker": ("encrypted (BitLocker)", "start the guest, or attach the disk to a Windows guest"),
        "bcache": ("a part of a bcache", "attach all its disks to a rescue guest"),
        "ceph_bluestore": ("a Ceph OSD", "attach the disk to a rescue guest"),
        "swap": ("swap space", "it has no files"),
        "swsuspend": ("a hibernated system's memory", "it has no files"),
    }
)
#: What :func:`probe` gives if blkid finds the marks of more than one.
AMBIGUOUS: t.Final = "ambiguous"


@dataclass(frozen=True, slots=True)
class Content:
    """What a partition holds.

    :param type: blkid's name: a file system's, another's, ``ambiguous``, or '' if nothing is recognised.
    """

    type: str = ""
    label: str = ""
    uuid: str = ""


def probe(path: str, start: int, size: int, pass_fds: tuple[int, ...] = ()) -> Content:
    """Find out what lies in a stretch of a file, by ``blkid -p``, which only reads.

    It looks at the file, not at a device: what udev or LVM would act on is known before there is a device.

    :param start: bytes, and so is ``size``.
    :param pass_fds: files to be inherited, where the path is ``/proc/self/fd/N``.
    """
    command = ["blkid", "-p", "-o", "udev", "-O", str(start), "-S", str(size), path]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment, pass_fds=pass_fds
        )
    except OSError as error:
        raise ImageError(f"blkid can't be run: {error}; it is in the package util-linux, or fdisk's") from error
    if done.returncode not in (0, 2, 8):
        raise ImageError(f"blkid failed ({done.returncode}) on bytes {start} to {start + size}: {done.stderr.decode()}")
    return parse_probe(done.stdout.decode("utf-8", "replace"), ambiguous=done.returncode == 8)


def parse_probe(text: str, *, ambiguous: bool) -> Content:
    """Read what ``blkid -o udev`` prints."""
    found = dict(line.partition("=")[::2] for line in text.splitlines())
    if ambiguous or "ID_FS_AMBIVALENT" in found:
        return Content(AMBIGUOUS)
    label, identity = (_decode(found.get(f"ID_FS_{name}_ENC", "")) for name in ("LABEL", "UUID"))
    return Content(found.get("ID_FS_TYPE", ""), label, identity)


def _decode(encoded: str) -> str:
    r"""Undo the ``\x20`` of udev; what can't be printed becomes a question mark."""
    raw = re.sub(
        rb"\\x([0-9a-f]{2})",
        lambda match: bytes([int(match[1], 16)]),
        encoded.encode("utf-8", "replace"),
    )
    return "".join(char if char.isprintable() else "?" for char in raw.decode("utf-8", "replace"))


def obstacle(content: Content, *, writable: bool) -> str:
    """Why a partition can't be mounted, in a clause that says what to do, or an empty text."""
    kind = content.type
    if kind in OTHERS:
        return "holds {}; {}".format(*OTHERS[kind])
    if not kind:
        return "holds nothing that is known; attach the disk to a rescue guest, and look at it there with: lsblk -f"
    if kind == AMBIGUOUS:
        return "has the marks of more than one file system; find out with wipefs, on a copy, which one is old"
    if kind not in TABLE:
        return f"holds {kind}, which can't be mounted here; known are {', '.join(TABLE)}"
    if writable and TABLE[kind].writable is None:
        return f"holds {kind}, which is mounted read-only; leave out writable"
    return ""


def find_driver(kind: str) -> str:
    """The driver for a file system that this machine has.

    :param kind: a file system of the table.
    :raises ImageError: if it has none.
    """
    for driver in TABLE[kind].drivers:
        if os.access(f"/sbin/mount.{driver}", os.X_OK) or _kernel_has(driver):
            return driver
    names = " nor ".join(TABLE[kind].drivers)
    extra = "; install the package ntfs-3g" if kind == "ntfs" else ""
    raise ImageError(f"this machine has no driver for {kind}: neither {names} is there{extra}")


def _kernel_has(driver: str) -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        if driver in file.read().split():
            return True
    command = ["modprobe", "-q", "--dry-run", f"fs-{driver}"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def mount_options(kind: str, driver: str, *, writable: bool) -> tuple[str, ...]:
    """The options for ``mount -o``.

    :param driver: one of the file system's drivers.
    """
    system = TABLE[kind]
    first = system.first if driver == system.drivers[0] else ()
    if writable:
        return ("rw", *(system.writable or ()), *first, *GUARD)
    return ("ro", *system.read_only, *first, *GUARD)
