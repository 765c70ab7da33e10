# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""PVE's property strings: comma-separated ``key=value`` pairs, one of which may be bare."""

from __future__ import annotations

from .errors import ParseError

Pairs = tuple[tuple[str, str], ...]


def parse(text: str, bare_key: str) -> Pairs:
    """Split a property string into its pairs, in their order.

    :param text: for instance ``local-lvm:vm-100-disk-0,size=32G``.
    :param bare_key: the key of the value that may stand without one.
    :raises ParseError: for a key that comes twice or an empty key. A trailing comma is forgiven, as PVE does.
    """
    pairs: list[tuple[str, str]] = []
    seen: set[str] = set()
    for part in text.split(","):
        if not part:
            continue
        key, sign, value = part.partition("=")
        if not sign:
            key, value = bare_key, part
        if not key:
            raise ParseError(f"'{part}' in '{text}' has no name before the equals sign")
        if key in seen:
            raise ParseError(f"'{key}' is given twice in '{text}'")
        seen.add(key)
        pairs.append((key, value))
    return tuple(pairs)


def join(pairs: Pairs, bare_key: str) -> str:
    """Write pairs as a property string: the bare value first, the others in their order."""
    bare = [value for key, value in pairs if key == bare_key]
    named = [f"{key}={value}" for key, value in pairs if key != bare_key]
    return ",".join(bare + named)
