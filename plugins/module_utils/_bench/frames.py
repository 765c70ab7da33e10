# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What comes back over a serial port: frames with a digest, found in whatever else may stand around them. Pure.

A frame is one line: ``@diskwright KIND SHA256 BASE64 @``. The digest is that of the content, the base64 that of the
content packed by gzip. The guest sends each twice; a damaged one is passed over, and so is the twin of a good one.
Short messages, such as the number of a write that was acknowledged, are lines ``@diskwright KIND TEXT .``.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import re
import typing as t
import zlib
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from collections.abc import Iterator

_LONG: t.Final = re.compile(rb"@diskwright ([a-z]+) ([0-9a-f]{64})\s+-?\s*([A-Za-z0-9+/=]+) @")
_SHORT: t.Final = re.compile(rb"@diskwright ([a-z]+) ([a-z0-9:]+) \.")
_LONGEST: t.Final = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the guest."""

    kind: str
    text: str


class Reader:
    """Finds frames in the bytes of a serial port as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._last: tuple[str, str] = ("", "")

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            self._rest = b""
        for line in lines:
            frame = self._frame(line)
            if frame is not None:
                yield frame

    def _frame(self, line: bytes) -> Frame | None:
        short = _SHORT.search(line)
        if short:
            return Frame(short[1].decode(), short[2].decode())
        long = _LONG.search(line)
        if not long:
            return None
        twin = (long[1].decode(), long[2].decode())
        text = _unpacked(long[3], long[2])
        if text is None or twin == self._last:
            return None
        self._last = twin
        return Frame(long[1].decode(), text)


def _unpacked(packed: bytes, digest: bytes) -> str | None:
    try:
        content = gzip.decompress(base64.b64decode(packed, validate=True))
    except (binascii.Error, OSError, EOFError, zlib.error):
        return None
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    return content.decode("utf-8", "replace")
