# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Inspects images: the only way to a source."""

from __future__ import annotations

from .source import Source


def inspect(path: str, member: str = "") -> Source:
    """Inspect an image and hold it open.

    :param path: a file; or an OVA or OVF, with ``member``.
    :param member: name of the disk in the OVA, or of the file that the OVF refers to.
    :raises ImageRefusedError: if it must not be used, or is none.
    """
    raise NotImplementedError
