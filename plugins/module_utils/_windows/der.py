# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads DER, the encoding of certificates and signatures: strictly, and no more of it than those use (ITU-T X.690)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import ParseError

#: Tags as they stand in the first byte.
BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
SEQUENCE, SET = 0x30, 0x31
#: Texts, with the codec of each.
TEXTS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}


@dataclass(frozen=True, slots=True)
class Node:
    """One value: its tag, its content, and the bytes of the whole."""

    tag: int
    content: bytes
    encoded: bytes

    def children(self) -> tuple[Node, ...]:
        """The values inside a constructed one."""
        return tuple(read_all(self.content))

    def child(self, index: int, tag: int) -> Node:
        """The value at an index, which must have this tag.

        :raises ParseError: when it is not there or another.
        """
        nodes = self.children()
        if index >= len(nodes) or nodes[index].tag != tag:
            raise ParseError(f"DER: value {index} has not the tag 0x{tag:02x}")
        return nodes[index]

    @property
    def number(self) -> int:
        """The value of an INTEGER."""
        return int.from_bytes(self.content, "big", signed=True)

    @property
    def oid(self) -> str:
        """The value of an OBJECT IDENTIFIER, as numbers with dots."""
        return _oid(self.content)

    @property
    def text(self) -> str:
        """The value of any text."""
        return self.content.decode(TEXTS.get(self.tag, "latin-1"), "replace")


def read(data: bytes) -> Node:
    """The value at the start of data; what follows it is left out.

    :raises ParseError: when data is no DER.
    """
    for node in read_all(data):
        return node
    raise ParseError("DER: no data")


def read_all(data: bytes) -> Iterator[Node]:
    """The values that data consists of, one after the other.

    :raises ParseError: when data is no DER.
    """
    position = 0
    while position < len(data):
        start, end = _extent(data, position)
        yield Node(data[position], data[start:end], data[position:end])
        position = end


def _extent(data: bytes, position: int) -> tuple[int, int]:
    """Where the content of the value at a position begins and ends."""
    if len(data) < position + 2 or data[position] & 0x1F == 0x1F:
        raise ParseError(f"DER: no value at byte {position}")
    length, start = data[position + 1], position + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or len(data) < start + size:
            raise ParseError(f"DER: no length at byte {position}")
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    if start + length > len(data):
        raise ParseError(f"DER: the value at byte {position} ends beyond the data")
    return start, start + length


def _oid(content: bytes) -> str:
    parts: list[int] = []
    number = 0
    for byte in content:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            parts.append(number)
            number = 0
    if not parts:
        raise ParseError("DER: an empty object identifier")
    first = min(parts[0] // 40, 2)
    return ".".join(map(str, (first, parts[0] - 40 * first, *parts[1:])))
