# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Inspects images: the only way to a source, and so to any image's content.

Every decision is made here, by parsers of our own, before a tool opens the file; no tool of QEMU ever opens a VMDK or a
raw image by its own understanding.
"""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass, replace

from . import qemu
from .checksum import content_sha256
from .errors import ImageError, ImageRefusedError
from .files import COPY_AGAIN, Folder, Opened, readable
from .fingerprint import fingerprint
from .package import Package, open_package
from .probe import find_format, named_format
from .probe_qcow2 import check_qcow2
from .probe_vdi import check_vdi
from .probe_vhd import check_vhd
from .probe_vhdx import check_vhdx
from .runs import SECTOR
from .snapshots import descriptor_text, last_snapshots
from .source import Member, Source
from .verify import manifest
from .vmdk import Vmdk, open_vmdk
from .vmdk_descriptor import MAX_DISK, mentioned_names
from .vmdk_tables import Flat

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .files import ImageFile
    from .ovf import Machine, OvfDisk

#: QEMU reads these, after a check of our own that gives the size of the disk.
_CHECKS: t.Final[dict[str, Callable[[ImageFile], t.Any]]] = {
    "qcow2": check_qcow2,
    "vpc": check_vhd,
    "vhdx": check_vhdx,
    "vdi": check_vdi,
}
#: What a file is refused for that is no image of its own, but may be a part of one.
_PARTS = frozenset({"extent-alone", "format-unknown", "file-not-regular"})
#: What VMware calls the list of the blocks that changed since a backup. It has the same extension, and is no image.
_CHANGE_TRACKING = "-ctk.vmdk"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an image must not be used.

    :param code: a stable word in kebab case.
    :param reason: for people, with what to do.
    """

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """An image that was found: facts, or why it must not be used.

    :param path: the file; for a disk of an OVA or OVF, that.
    :param member: name of the disk in the OVA or beside the OVF, else ''.
    :param files: names of all its files, below the folder of ``path``.
    :param checksum: hex SHA-256 of the disk's content, '' if it was not asked for.
    :param disk: what the OVF says of it.
    :param snapshots: the last snapshots of it, files beside the one that was named: what was named is an old state.
    """

    path: str
    member: str
    format: str = ""
    subformat: str = ""
    virtual_size: int = 0
    allocated: int = 0
    files: tuple[str, ...] = ()
    chain: tuple[Member, ...] = ()
    fingerprint: str = ""
    checksum: str = ""
    disk: OvfDisk | None = None
    machine: str = ""
    refused: Refused | None = None
    snapshots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundMachine:
    """A guest in an OVA or OVF.

    :param path: that file.
    """

    path: str
    machine: Machine


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is at a path."""

    images: tuple[Found, ...] = ()
    machines: tuple[FoundMachine, ...] = ()


def inspect(path: str, member: str = "") -> Source:
    """Inspect an image and hold it open.

    :param path: a file; or an OVA or OVF, with ``member``.
    :param member: name of the disk in the OVA, or of the file that the OVF refers to. May be left out if there is one.
    :returns: a context manager.
    :raises ImageRefusedError: if it must not be used, or is none.
    """
    folder, name = os.path.split(path)
    with Folder(folder) as place:
        opened = Opened(place)
        try:
            return _inspect(opened, name, member)
        except BaseException:
            opened.close()
            raise


def _inspect(opened: Opened, name: str, member: str) -> Source:
    named = named_format(name)
    if named in {"ova", "ovf"}:
        return _inspect_packed(opened, name, member, archive=named == "ova")
    if member:
        raise ImageRefusedError(
            "member-unknown", name, f"is no archive that could have {member!r} in it", "leave it out"
        )
    opened.open(name)
    return _source(opened, archived=False)


def _inspect_packed(opened: Opened, name: str, member: str, *, archive: bool) -> Source:
    file = opened.folder.open(name)
    keep = False
    try:
        package = _read_package(opened, file, archive=archive)
        chosen = package.choose(member)
        if archive:
            place = package.members[chosen]
            opened.add(file.member(chosen, file.base + place.offset, place.size, package.digests.get(chosen, "")))
            keep = True
        else:
            index, disk = opened.open(chosen, name)
            opened.files[index] = replace(disk, digest=package.digests.get(chosen, ""))
    finally:
        if not keep:
            os.close(file.fd)
    source = _source(opened, archived=archive)
    package.check_capacity(chosen, source.virtual_size)
    return source


def _read_package(opened: Opened, file: ImageFile, *, archive: bool) -> Package:
    if archive:
        find_format(file)
    return open_package(opened, file, archive=archive)


def _source(opened: Opened, *, archived: bool) -> Source:
    """The image whose first file is open."""
    file = opened.files[0]
    image_format = find_format(file)
    if image_format == "vmdk":
        source = _vmdk_source(opened, open_vmdk(opened, 0, alone=archived))
    elif image_format == "raw":
        source = _raw_source(opened, file)
    elif image_format in _CHECKS and not archived:
        source = _foreign_source(opened, file, image_format)
    else:
        raise ImageRefusedError(
            "member-format",
            file.name,
            f"is {image_format} in an archive, where only VMDK and raw are read",
            "unpack it",
        )
    opened.check_settled()
    return source


def _make(
    opened: Opened,
    image_format: str,
    size: int,
    allocated: int,
    chain: tuple[Member, ...],
    layers: tuple[t.Any, ...],
    digests: list[str],
) -> Source:
    layout = {
        "format": image_format,
        "size": size,
        "chain": [[member.name, member.subformat, list(member.files)] for member in chain],
        "descriptors": digests,
    }
    return Source(
        format=image_format,
        subformat=chain[0].subformat,
        virtual_size=size,
        allocated=allocated,
        files=tuple(file.facts() for file in opened.files),
        fds=tuple(file.fd for file in opened.files),
        chain=chain,
        fingerprint=fingerprint(layout, opened.files),
        layers=layers,
    )


def _vmdk_source(opened: Opened, found: Vmdk) -> Source:
    openings = found.openings
    return _make(
        opened,
        "vmdk",
        found.head.descriptor.size,
        min(sum(one.allocated for one in openings), found.head.descriptor.size),
        tuple(one.member for one in openings),
        tuple(one.layer for one in openings),
        [one.digest for one in openings],
    )


def _raw_source(opened: Opened, file: ImageFile) -> Source:
    size = file.length
    if size % SECTOR or size > MAX_DISK:
        raise ImageRefusedError(
            "size-odd",
            file.name,
            f"has {size} bytes",
            f"a raw image is a whole number of sectors of {SECTOR} bytes, at most {MAX_DISK}; {COPY_AGAIN}",
        )
    chain = (Member(file.name, "", (file.name,)),)
    return _make(opened, "raw", size, size, chain, (Flat(file, 0, 0, size),), [])


def _foreign_source(opened: Opened, file: ImageFile, image_format: str) -> Source:
    """An image that QEMU reads: after our check, and with the same answer about its size."""
    size = _CHECKS[image_format](file)
    sizes = size if isinstance(size, tuple) else (size,)
    try:
        seen = qemu.virtual_size(image_format, file.fd)
    except qemu.QemuError as error:
        raise ImageRefusedError("qemu-refuses", file.name, f"can't be read by QEMU ({error})", COPY_AGAIN) from None
    if seen not in sizes:
        raise ImageRefusedError(
            "capacity-differs", file.name, f"has a disk of {sizes[0]} bytes, QEMU sees {seen}", COPY_AGAIN
        )
    chain = (Member(file.name, "", (file.name,)),)
    return _make(opened, image_format, seen, file.status.st_blocks * 512, chain, (), [])


def look(path: str, *, checksum: bool = False) -> list[Found]:
    """Every image of a file or a folder. See ``survey``."""
    return list(survey(path, checksum=checksum).images)


def survey(path: str, *, checksum: bool = False) -> Survey:
    """Every image and every guest of a file or a folder, each image once, in the order of their names.

    The files of an image (extents, parents, disks of an OVF) are not listed as images of their own. Folders in the
    folder are looked through too; an image's files are in one folder.

    :param checksum: whether to read every disk for the checksum of its content.
    :raises ImageError: if there is no such path.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ImageError(f"{path}: can't be looked at: {error.strerror}") from error
    surveys = list(_folders(path, checksum)) if stat.S_ISDIR(mode) else [_Look(*os.path.split(path), checksum).one()]
    return Survey(
        tuple(replace(found, path=readable(found.path)) for one in surveys for found in one.images),
        tuple(found for one in surveys for found in one.machines),
    )


def _folders(path: str, checksum: bool) -> Iterator[Survey]:
    problems: list[OSError] = []
    for folder, below, names in os.walk(path, onerror=problems.append):
        if readable(folder) != folder:  # no task could name what is in it
            reason = f"{readable(folder)}: has a name that is not UTF-8; rename it"
            yield Survey((Found(folder, "", refused=Refused("name-not-plain", reason)),))
            below.clear()
            continue
        below[:] = sorted(name for name in below if not name.endswith(".lck"))
        # os.walk takes a link to a folder for a folder; one that is called like an image is looked at as a file.
        links = [name for name in below if os.path.islink(os.path.join(folder, name))]
        yield _Look(folder, "", checksum).all(sorted([*names, *links]))
    for error in problems:
        reason = f"{readable(str(error.filename))}: can't be looked into: {error.strerror}"
        yield Survey((Found(str(error.filename), "", refused=Refused("unreadable", reason)),))


class _Look:
    """Looks at the images of one folder."""

    def __init__(self, folder: str, name: str, checksum: bool) -> None:
        self._folder = folder
        self._name = name
        self._checksum = checksum
        self._machines: list[FoundMachine] = []

    def one(self) -> Survey:
        """The file that was named."""
        path = os.path.join(self._folder, self._name)
        images = (replace(image, snapshots=last_snapshots(path)) for image in self._file(self._name))
        return Survey(tuple(images), tuple(self._machines))

    def all(self, names: list[str]) -> Survey:
        """All files that are called like images."""
        wanted = [name for name in names if named_format(name)]
        found = {name: list(self._file(name)) for name in wanted}
        parts = {file for images in found.values() for image in images for file in self._parts(image)}
        mentioned, parents = self._mentioned(found)
        images: list[Found] = []
        for name in wanted:
            for image in found[name]:
                if name in parts and not image.member:
                    continue
                a_part = name in mentioned or name.endswith(_CHANGE_TRACKING)
                if a_part and image.refused and image.refused.code in _PARTS:
                    continue
                if name in parents and not image.refused:
                    image = _base_of_refused(image, parents[name])
                images.append(image)
        return Survey(tuple(images), tuple(self._machines))

    @staticmethod
    def _parts(image: Found) -> set[str]:
        """The files that belong to an image, and are none of their own."""
        if image.member:
            return {image.member, *image.files}
        return set(image.files) - {os.path.basename(image.path)}

    def _mentioned(self, found: dict[str, list[Found]]) -> tuple[set[str], dict[str, str]]:
        """Names that descriptors give to extents, and those that refused ones give to parents."""
        extents: set[str] = set()
        parents: dict[str, str] = {}
        for name, images in found.items():
            if named_format(name) != "vmdk" or not any(image.refused for image in images):
                continue
            names, above = mentioned_names(self._text(name))
            extents |= names - {name}
            parents |= dict.fromkeys(above, name)
        return extents, parents

    def _text(self, name: str) -> bytes:
        """What may be the descriptor in a file, b"" if it can't be opened."""
        try:
            with Folder(self._folder) as folder:
                return descriptor_text(folder, name)
        except ImageError:
            return b""

    def _file(self, name: str) -> Iterator[Found]:
        """The images of a file: one, or the disks of an OVA or OVF."""
        if named_format(name) not in {"ova", "ovf"}:
            yield self._image(name, "", None, "")
            return
        path = os.path.join(self._folder, name)
        try:
            package = self._package(name)
        except ImageError as error:
            yield Found(path, "", refused=_refused(error))
            return
        self._machines += [FoundMachine(path, machine) for machine in package.machines]
        owners = {disk.href: machine.name for machine in package.machines for disk in machine.disks}
        for member, disk in package.disks.items():
            yield self._image(name, member, disk, owners[member])

    def _package(self, name: str) -> Package:
        with Folder(self._folder) as folder:
            file = folder.open(name)
            try:
                return _read_package(Opened(folder), file, archive=named_format(name) == "ova")
            finally:
                os.close(file.fd)

    def _image(self, name: str, member: str, disk: OvfDisk | None, machine: str) -> Found:
        path = os.path.join(self._folder, name)
        try:
            with inspect(path, member) as source:
                manifest(source)
                return Found(
                    path=path,
                    member=member,
                    format=source.format,
                    subformat=source.subformat,
                    virtual_size=source.virtual_size,
                    allocated=source.allocated,
                    files=tuple(file.name for file in source.files),
                    chain=source.chain,
                    fingerprint=source.fingerprint,
                    checksum=content_sha256(source) if self._checksum else "",
                    disk=disk,
                    machine=machine,
                )
        except ImageError as error:
            return Found(path, member, disk=disk, machine=machine, refused=_refused(error))


def _refused(error: ImageError) -> Refused:
    code = error.code if isinstance(error, ImageRefusedError) else "unreadable"
    return Refused(code, str(error))


def _base_of_refused(image: Found, child: str) -> Found:
    """A parent whose child can't be used would bring back an old state of the disk, without a word."""
    name = os.path.basename(image.path)
    error = ImageRefusedError(
        "parent-of-refused",
        name,
        f"is the parent of {child}, which is refused: without it the disk is as it was before the snapshot",
        f"mend {child}; or, if that old state is what you want, move {child} away",
    )
    return Found(image.path, image.member, disk=image.disk, machine=image.machine, refused=_refused(error))
