# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Whether a VMDK is the state of a disk before a snapshot: what beside it names it as its parent."""

from __future__ import annotations

import os
import typing as t

from .errors import ImageError
from .files import Folder
from .probe import named_format
from .runs import SECTOR
from .vmdk_descriptor import MAX_BYTES, mentioned_names

if t.TYPE_CHECKING:
    from collections.abc import Iterable

#: Where a descriptor names its parent: far ahead of its extents. Most of what lies in a folder is no descriptor.
_HEAD = 64 * 1024


def descriptor_text(folder: Folder, name: str, most: int = MAX_BYTES) -> bytes:
    """What may be the descriptor in a file, at most so many bytes of it; b"" if the file can't be read."""
    try:
        file = folder.open(name, in_use=True)
    except ImageError:
        return b""
    try:
        start = SECTOR if file.read(0, min(4, file.length)) == b"KDMV" else 0
        return file.read(start, max(0, min(file.length - start, most)))
    except ImageError:
        return b""
    finally:
        os.close(file.fd)


def last_snapshots(path: str) -> tuple[str, ...]:
    """The last snapshots of a VMDK, by the names of their files in its folder; none if it is no snapshot's parent."""
    place, name = os.path.split(path)
    if named_format(name) != "vmdk":
        return ()
    try:
        names = sorted(other for other in os.listdir(place or ".") if named_format(other) == "vmdk" and other != name)
        with Folder(place) as folder:
            parents = {other: mentioned_names(descriptor_text(folder, other, _HEAD))[1] for other in names}
    except (ImageError, OSError):
        return ()
    later = _descendants(name, parents)
    return tuple(one for one in names if one in later and not any(one in parents[other] for other in later))


def _descendants(name: str, parents: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    newest: Iterable[str] = [name]
    while newest:
        newest = {child for child, above in parents.items() if child not in found and above & {*newest}}
        found |= newest
    return found


def old_state(path: str) -> list[str]:
    """A warning if there are snapshots of an image beside it, which was named without them."""
    later = last_snapshots(path)
    name = os.path.basename(path)
    if not later:
        return []
    return [f"{path}: {' and '.join(later)} beside it goes on from it, so the disk is as it was before that snapshot; "
            f"for its last state name {' or '.join(later)} instead of {name}"]  # fmt: skip
