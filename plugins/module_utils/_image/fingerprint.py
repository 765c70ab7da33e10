# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The fingerprint of an image: the same as long as nothing about the image has changed."""

from __future__ import annotations

import hashlib
import json
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .files import ImageFile

_EDGE = 1024**2


def fingerprint(layout: dict[str, t.Any], files: Sequence[ImageFile]) -> str:
    """Hex SHA-256 over what an image is made of.

    :param layout: format, sizes, digests of descriptors: whatever was understood of it.
    :param files: its files, in order. What counts are names, sizes, times, inodes and the bytes at both ends, but not
        the folder that they are in: the image may be reached by another path.
    """
    digest = hashlib.sha256(json.dumps(layout, sort_keys=True).encode())
    for file in files:
        status = file.status
        facts = (file.name, file.base, file.length, status.st_size, status.st_mtime_ns, status.st_ino)
        digest.update(json.dumps(facts).encode())
        edge = min(_EDGE, file.length)
        digest.update(file.read(0, edge))
        digest.update(file.read(file.length - edge, edge))
    return digest.hexdigest()
