# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a conversion needs, against what is free."""

from __future__ import annotations

import os

from .._core.size import human_size
from .errors import ImageError

#: Kept free beside what is needed, so that the storage's own metadata and other writers find room.
MARGIN = 64 * 1024**2


class NoSpaceError(ImageError):
    """There is less room than the conversion needs."""


def needed(
    image_format: str, size: int, stored: int, *, thin: bool, cluster_size: int = 65536, preallocation: str = "off"
) -> int:
    """Bytes that an image takes in the end, at most.

    :param size: bytes of the disk.
    :param stored: bytes of it that are stored in the source.
    :param thin: whether the place below takes only what is written.
    """
    metadata = 0
    if image_format == "qcow2":  # an L2 entry and a refcount for each cluster, and whole clusters for the tables above
        metadata = 10 * -(-size // cluster_size) + 8 * cluster_size
    whole = not thin or preallocation in ("falloc", "full")
    return metadata + (size if whole else min(stored, size))


def available(folder: str) -> int:
    """Bytes that this process may still write to the file system of a folder."""
    found = os.statvfs(folder)
    return found.f_frsize * (found.f_bfree if os.geteuid() == 0 else found.f_bavail)


def require(where: str, need: int, free: int) -> None:
    """Refuse what does not fit.

    :raises NoSpaceError: with both numbers.
    """
    if need + MARGIN > free:
        raise NoSpaceError(
            f"{where}: {human_size(need)} are needed, {human_size(MARGIN)} beside it are to stay free, and "
            f"{human_size(free)} are free; make room or choose another place, then run again"
        )
