# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a file is, by its name and its content. Both must agree, so that nothing passes for what it is not."""

from __future__ import annotations

import os
import typing as t

from .errors import ImageRefusedError
from .vmdk import extent_alone, is_binary, is_extent_name
from .vmdk_descriptor import looks_like_descriptor

if t.TYPE_CHECKING:
    from .files import ImageFile

#: Formats by the ends of names.
EXTENSIONS: t.Final = {
    ".vmdk": "vmdk",
    ".raw": "raw",
    ".img": "raw",
    ".dd": "raw",
    ".qcow2": "qcow2",
    ".vhd": "vpc",
    ".vpc": "vpc",
    ".vhdx": "vhdx",
    ".vdi": "vdi",
    ".ova": "ova",
    ".ovf": "ovf",
}
# What other files begin with, and what they are.
_BEGINNINGS: t.Final = (
    (b"QFI\xfb", "qcow2"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"QED\0", "QED"),
    (b"WithoutFreeSpace", "Parallels"),
    (b"WithouFreSpacExt", "Parallels"),
    (b"Bochs Virtual HD Image", "Bochs"),
    (b"OOOM", "UML COW"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"PK\x03\x04", "ZIP"),
    (b"Rar!\x1a\x07", "RAR"),
)
_HEAD = 4096
_VDI_AT, _VDI = 0x40, b"\x7f\x10\xda\xbe"
_TAR_AT = 257


def named_format(name: str) -> str:
    """The format that a name promises, '' for none."""
    return EXTENSIONS.get(os.path.splitext(name)[1].lower(), "")


def content_format(file: ImageFile) -> str:
    """The format that a file's content shows, '' for none: raw has no sign."""
    head = file.read(0, min(_HEAD, file.length))
    if is_binary(head) or looks_like_descriptor(head):
        return "vmdk"
    for beginning, format_name in _BEGINNINGS:
        if head.startswith(beginning):
            return format_name
    if head[_VDI_AT : _VDI_AT + 4] == _VDI:
        return "vdi"
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "ova"
    return _tail_format(file)


def _tail_format(file: ImageFile) -> str:
    """A fixed VHD has its only sign at the end, where a few old programs left out one byte."""
    tail = file.read(file.length - min(512, file.length), min(512, file.length))
    if tail.startswith(b"conectix") or tail[1:].startswith(b"conectix"):
        return "vpc"
    return "Apple disk image" if tail.startswith(b"koly") else ""


def find_format(file: ImageFile) -> str:
    """The format of a file.

    :raises ImageRefusedError: if its name and its content don't agree, or if it is no image that is known.
    """
    named, content = named_format(file.name), content_format(file)
    if file.length == 0:
        raise ImageRefusedError("file-empty", file.name, "is empty", "copy it again")
    if not named:
        raise ImageRefusedError(
            "format-unknown",
            file.name,
            "has a name that promises no known format",
            f"known are {', '.join(EXTENSIONS)}",
        )
    if named == "raw" and content:
        raise ImageRefusedError(
            "format-disguised",
            file.name,
            f"is called raw, but its content is {content}: a guest may have written that to mislead",
            f"if you know that it is {content}, give it the name that goes with it",
        )
    if named == "vmdk" and not content and is_extent_name(file.name):
        raise extent_alone(file.name)
    if named not in {"raw", "ovf"} and content != named:
        raise ImageRefusedError(
            "format-disguised" if content else "format-unknown",
            file.name,
            f"is called {named}, but its content is {content or 'something else'}",
            "give it the name that goes with its content, or copy it again",
        )
    return named
