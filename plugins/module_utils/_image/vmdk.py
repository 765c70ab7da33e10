# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Opens a VMDK: its descriptor, its extents, and the parents of a snapshot, all of them checked."""

from __future__ import annotations

import hashlib
import re
import typing as t
from dataclasses import dataclass, field

from . import vmdk_cowd, vmdk_hosted, vmdk_sesparse
from .errors import ImageRefusedError
from .runs import SECTOR
from .source import Member
from .vmdk_descriptor import MAX_BYTES, NO_PARENT, Descriptor, parse_descriptor
from .vmdk_tables import Extents, Flat, Grains

if t.TYPE_CHECKING:
    from .files import ImageFile, Opened
    from .vmdk_descriptor import Extent

#: VMware allows 32 snapshots of a disk, and some more by linked clones.
MAX_CHAIN = 256
#: How VMware calls extents, and what lies beneath a snapshot, after their image.
_EXTENT_NAME = re.compile(r"(?P<image>.+)-(?P<kind>flat|[fs][0-9]{3,}|delta|sesparse)\.vmdk", re.IGNORECASE)
_CONSOLIDATE = "copy all files of the disk again, or let VMware consolidate its snapshots"


@dataclass(frozen=True, slots=True)
class Opening:
    """One member of a chain, opened and checked.

    :param allocated: bytes of the disk that it stores.
    """

    member: Member
    descriptor: Descriptor
    layer: Extents
    digest: str
    allocated: int


@dataclass(slots=True)
class Vmdk:
    """A VMDK with all its parents, the head first."""

    openings: list[Opening] = field(default_factory=list)

    @property
    def head(self) -> Opening:
        """The image itself."""
        return self.openings[0]


def is_binary(head: bytes) -> bool:
    """Whether a file that begins like this is a sparse extent of some kind."""
    return head.startswith((vmdk_hosted.MAGIC, vmdk_cowd.MAGIC, vmdk_sesparse.MAGIC))


def open_vmdk(opened: Opened, index: int, *, alone: bool = False) -> Vmdk:
    """Open a VMDK whose first file is open already.

    :param opened: takes the files that it needs beside it.
    :param index: of the file that has the descriptor.
    :param alone: whether it is a member of an archive, and must have all in itself.
    :raises ImageRefusedError: if anything about it is not understood, missing, damaged or not to be followed.
    """
    found = Vmdk([_open_one(opened, index, alone=alone)])
    while (child := found.openings[-1].descriptor).parent_cid != NO_PARENT:
        owner = found.openings[-1].member.name
        if alone:
            raise _not_alone(owner, f"is a snapshot of {child.hint!r}")
        if len(found.openings) == MAX_CHAIN:
            raise ImageRefusedError("chain-too-long", owner, f"is parent number {MAX_CHAIN}", _CONSOLIDATE)
        parent = _open_one(opened, _open_parent(opened, child.hint, owner), alone=False)
        _check_parent(owner, child, parent)
        found.openings.append(parent)
    return found


def _open_parent(opened: Opened, hint: str, owner: str) -> int:
    try:
        return opened.open(hint, owner)[0]
    except ImageRefusedError as error:
        if error.code == "file-twice":
            raise ImageRefusedError(
                "parent-cycle", owner, f"has {hint} as its parent, which is part of its own chain", _CONSOLIDATE
            ) from None
        raise


def _check_parent(owner: str, child: Descriptor, parent: Opening) -> None:
    name = parent.member.name
    if child.parent_cid != parent.descriptor.cid:
        raise ImageRefusedError(
            "parent-changed",
            owner,
            f"was made from content {child.parent_cid:08x} of {name}, which now has {parent.descriptor.cid:08x}",
            f"{name} was written to after the snapshot, or is another disk; {_CONSOLIDATE}",
        )
    if child.size != parent.descriptor.size:
        raise ImageRefusedError(
            "parent-capacity",
            owner,
            f"has {child.size} bytes, its parent {name} has {parent.descriptor.size}",
            _CONSOLIDATE,
        )


def _open_one(opened: Opened, index: int, *, alone: bool) -> Opening:
    file = opened.files[index]
    head = file.read(0, min(file.length, 8))
    if head.startswith(vmdk_hosted.MAGIC):
        return _open_embedded(file, index)
    if is_binary(head):
        raise extent_alone(file.name)
    if file.length > MAX_BYTES:
        raise ImageRefusedError(
            "format-unknown",
            file.name,
            f"is no VMDK: {file.length} bytes are too many for a descriptor, and it has no header",
            "if it is an extent, name the small file that describes it",
        )
    text = file.read(0, file.length)
    descriptor = parse_descriptor(file.name, text, embedded=False)
    if alone:
        raise _not_alone(file.name, f"needs the file {descriptor.extents[0].name!r}")
    return _open_extents(opened, file, descriptor, text)


def extent_alone(name: str) -> ImageRefusedError:
    """The refusal of an extent that was named instead of its descriptor."""
    found = _EXTENT_NAME.fullmatch(name)
    likely = f", most likely {found['image']}.vmdk" if found else ""
    return ImageRefusedError(
        "extent-alone",
        name,
        "is an extent without a descriptor, a part of an image",
        f"name the small .vmdk that describes it{likely}; if it is not there, copy it into the same folder",
    )


def is_extent_name(name: str) -> bool:
    """Whether VMware calls its flat extents so, which have no other sign: ``web-flat.vmdk``, ``web-f001.vmdk``."""
    found = _EXTENT_NAME.fullmatch(name)
    return found is not None and found["kind"].lower().startswith("f")


def _not_alone(name: str, problem: str) -> ImageRefusedError:
    return ImageRefusedError(
        "member-not-alone",
        name,
        f"is in an archive, but {problem}",
        "unpack the archive and name the image, or export it again as streamOptimized",
    )


def _open_embedded(file: ImageFile, index: int) -> Opening:
    header = vmdk_hosted.read_header(file)
    text = vmdk_hosted.read_embedded(file, header)
    if not text.strip(b"\0"):
        raise extent_alone(file.name)
    descriptor = parse_descriptor(file.name, text, embedded=True)
    name = descriptor.subformat.name
    if header.compressed is not (name == "streamOptimized"):
        kind = "packed" if header.compressed else "not packed"
        raise ImageRefusedError(
            "subformat-misplaced", file.name, f"has createType={name!r}, but its grains are {kind}", _CONSOLIDATE
        )
    part = vmdk_hosted.open_hosted(file, index, header)
    _check_capacity(file.name, descriptor.extents[0], part)
    return _opening(file, descriptor, [part], (file.name,), text)


def _open_extents(opened: Opened, file: ImageFile, descriptor: Descriptor, text: bytes) -> Opening:
    parts = [_open_extent(opened, extent, file.name) for extent in descriptor.extents]
    names = (file.name, *(extent.name for extent in descriptor.extents))
    return _opening(file, descriptor, parts, names, text)


def _opening(
    file: ImageFile, descriptor: Descriptor, parts: list[Grains | Flat], names: tuple[str, ...], text: bytes
) -> Opening:
    allocated = sum(part.check() for part in parts)
    extents = tuple((part.index, part.capacity // SECTOR) for part in parts if not isinstance(part, Flat))
    member = Member(file.name, descriptor.subformat.name, names, extents)
    return Opening(member, descriptor, Extents(parts), hashlib.sha256(text).hexdigest(), allocated)


def _open_extent(opened: Opened, extent: Extent, owner: str) -> Grains | Flat:
    index, file = opened.open(extent.name, owner)
    if extent.type in {"FLAT", "VMFS"}:
        return _open_flat(file, index, extent)
    part = _open_sparse(file, index, extent.type)
    _check_capacity(owner, extent, part)
    return part


def _open_flat(file: ImageFile, index: int, extent: Extent) -> Flat:
    need = (extent.offset + extent.sectors) * SECTOR
    if file.length < need:
        raise ImageRefusedError(
            "extent-truncated",
            file.name,
            f"has {file.length} bytes, its descriptor needs {need}",
            "copy it again: tools other than this one would read zeros instead of what is missing",
        )
    return Flat(file, index, extent.offset * SECTOR, extent.sectors * SECTOR)


def _open_sparse(file: ImageFile, index: int, kind: str) -> Grains:
    if kind == "VMFSSPARSE":
        return vmdk_cowd.Cowd(file, index)
    if kind == "SESPARSE":
        return vmdk_sesparse.SeSparse(file, index)
    header = vmdk_hosted.read_header(file)
    if header.compressed or vmdk_hosted.read_embedded(file, header).strip(b"\0"):
        raise ImageRefusedError(
            "extent-not-plain",
            file.name,
            "is an image of its own (a stream, or with a descriptor inside)",
            "an extent of a split disk has neither; copy the disk again",
        )
    return vmdk_hosted.open_hosted(file, index, header)


def _check_capacity(owner: str, extent: Extent, part: Grains) -> None:
    if part.capacity != extent.sectors * SECTOR:
        raise ImageRefusedError(
            "capacity-differs",
            owner,
            f"says that {part.file.name} holds {extent.sectors * SECTOR} bytes, the file itself says {part.capacity}",
            "everything behind it would move; copy the disk again",
        )
