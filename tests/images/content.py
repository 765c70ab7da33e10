# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on the disks."""

from __future__ import annotations

import functools
import random

SECTOR = 512
MIB = 1024**2
#: No whole number of grains, and more than one grain table of every format but hosted.
SIZE = 33 * MIB + 3 * SECTOR


@functools.lru_cache(maxsize=8)
def disk(size: int = SIZE, seed: int = 1, parts: int = 12) -> bytes:
    """A disk with data of every kind at both ends and in between, and zeros elsewhere."""
    source = random.Random(seed)
    content = bytearray(size)
    places = [0, size - 700, *(source.randrange(size) for _part in range(parts))]
    for number, place in enumerate(places):
        length = min(source.choice((1, 511, 4096, 70_000, 200_000)), size - place)
        text = f"part {number} of seed {seed}\n".encode()
        data = source.randbytes(length) if number % 2 == 0 else (text * (length // len(text) + 1))[:length]
        content[place : place + length] = data
    return bytes(content)


@functools.lru_cache(maxsize=8)
def changed(content: bytes, seed: int = 2, parts: int = 6) -> bytes:
    """The same disk after its guest wrote something, zeros over data among it."""
    source = random.Random(seed)
    after = bytearray(content)
    after[0:SECTOR] = source.randbytes(SECTOR)
    for _part in range(parts):
        place = source.randrange(len(content) // SECTOR) * SECTOR
        length = min(source.choice((SECTOR, 4096, 100_000)), len(content) - place)
        after[place : place + length] = source.randbytes(length)
    zeros = min(300_000, len(content) // 2)
    after[4096 : 4096 + zeros] = bytes(zeros)
    return bytes(after)


def grains(content: bytes, size: int) -> dict[int, bytes]:
    """The grains of a disk that are not all zeros."""
    cut = {at // size: content[at : at + size] for at in range(0, len(content), size)}
    return {number: data for number, data in cut.items() if any(data)}


def difference(before: bytes, after: bytes, size: int) -> dict[int, bytes]:
    """The grains in which a disk differs from its parent."""
    return {
        at // size: after[at : at + size]
        for at in range(0, len(after), size)
        if before[at : at + size] != after[at : at + size]
    }
