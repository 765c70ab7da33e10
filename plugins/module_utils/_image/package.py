# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A guest that was exported: an OVA, or an OVF with its disks beside it. Its texts read, its disks found by name."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, replace
from urllib.parse import unquote

from . import ova
from .errors import ImageRefusedError
from .files import check_name
from .ovf import parse_ovf

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .files import Folder, ImageFile, Opened
    from .ovf import Machine, OvfDisk


@dataclass(frozen=True, slots=True)
class Package:
    """An OVF and what belongs to it.

    :param machines: the guests in it.
    :param disks: their disks by the name of the file, in order; empty disks are not among them.
    :param digests: what the manifest says, by file.
    :param members: where files are in the archive; empty for an OVF beside its disks.
    """

    name: str
    machines: tuple[Machine, ...]
    disks: dict[str, OvfDisk]
    digests: dict[str, str]
    members: dict[str, ova.TarMember]

    def choose(self, member: str) -> str:
        """The disk that the user means.

        :param member: its name; '' if there is just one.
        """
        if not member and len(self.disks) == 1:
            return next(iter(self.disks))
        if member not in self.disks:
            problem = f"has no disk {member!r}" if member else f"has {len(self.disks)} disks"
            listed = ", ".join(self.disks) or "none"
            raise ImageRefusedError("member-unknown", self.name, problem, f"name one as member: {listed}")
        return member

    def check_capacity(self, member: str, size: int) -> None:
        """Refuse an image that is no disk of the size that the OVF gives it."""
        disk = self.disks[member]
        if disk.capacity and -(-size // disk.unit) * disk.unit != disk.capacity:
            raise ImageRefusedError(
                "capacity-differs",
                member,
                f"holds a disk of {size} bytes, {self.name} says {disk.capacity}",
                "it belongs to another guest, or was changed after the export; export the guest again",
            )


def open_package(opened: Opened, file: ImageFile, *, archive: bool) -> Package:
    """Read an OVA, or an OVF and its manifest.

    :raises ImageRefusedError: if something in it is not understood, or is not where it should be.
    """
    return _open_archive(file) if archive else _open_folder(opened.folder, file)


def _open_archive(file: ImageFile) -> Package:
    members = {member.name: member for member in ova.read_members(file)}
    name = ova.find_ovf(file.name, members)

    def read(wanted: str) -> bytes:
        member = members[wanted]
        _check_text(wanted, member.size)
        return file.read(member.offset, member.size)

    return _package(file.name, name, members, read, members)


def _open_folder(folder: Folder, file: ImageFile) -> Package:
    def read(wanted: str) -> bytes:
        if wanted == file.name:
            _check_text(wanted, file.length)
            return file.read(0, file.length)
        other = folder.open(wanted, file.name)
        try:
            _check_text(wanted, other.length)
            return other.read(0, other.length)
        finally:
            os.close(other.fd)

    return _package(file.name, file.name, folder.names(), read, {})


def _package(
    owner: str,
    ovf: str,
    names: Iterable[str],
    read: Callable[[str], bytes],
    members: dict[str, ova.TarMember],
) -> Package:
    listed = list(names)
    text = read(ovf)
    manifest = ova.find_manifest(owner, ovf, listed)
    digests = ova.read_manifest(manifest, read(manifest), listed) if manifest else {}
    ova.check_text(ovf, text, digests.get(ovf, ""))
    machines = tuple(_found(machine, owner, listed) for machine in parse_ovf(ovf, text))
    disks = {disk.href: disk for machine in machines for disk in machine.disks if disk.href}
    if len(disks) != sum(bool(disk.href) for machine in machines for disk in machine.disks):
        raise ImageRefusedError("ovf-bad", ovf, "uses one file for disks of two guests", "export the guests again")
    if manifest:
        machines = tuple(_warned(machine, manifest, digests) for machine in machines)
    return Package(owner, machines, disks, digests, members)


def _found(machine: Machine, owner: str, names: list[str]) -> Machine:
    """The guest with the names that its files have."""
    return replace(
        machine,
        disks=tuple(replace(disk, href=_file_name(disk.href, owner, names)) for disk in machine.disks),
    )


def _file_name(href: str, owner: str, names: list[str]) -> str:
    """The file that a link means. VMware writes a space as %20."""
    if not href:
        return ""
    name = href if href in names else unquote(href)
    check_name(owner, name)
    if name not in names:
        raise ImageRefusedError(
            "file-missing", owner, f"needs the file {name}, which is not there", f"copy {name} into the same place"
        )
    return name


def _warned(machine: Machine, manifest: str, digests: dict[str, str]) -> Machine:
    unsaid = [disk.href for disk in machine.disks if disk.href and disk.href not in digests]
    warnings = [f"{manifest} has no digest of {name}: only its structure can be checked" for name in unsaid]
    return replace(machine, warnings=(*machine.warnings, *warnings))


def _check_text(name: str, size: int) -> None:
    if size > ova.MAX_TEXT:
        raise ImageRefusedError("ovf-bad", name, f"has {size} bytes", f"allowed are {ova.MAX_TEXT}")
