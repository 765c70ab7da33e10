# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs: cutting, joining and resolving them changes nothing about the bytes that they stand for."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.errors import ImageRefusedError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.runs import (
    Kind,
    Run,
    clip,
    inflate,
    merge,
    resolve,
)
from hypothesis import given
from hypothesis import strategies as st

GRAIN = 8
#: Two files; every byte of them is another. The packed grains of file 1 are computed from their place.
FILES = (bytes(range(128)), bytes(range(128, 256)))


def unpacked(offset: int) -> bytes:
    return bytes((offset + number) % 251 for number in range(GRAIN))


def byte_at(run: Run, place: int) -> int | None:
    """The byte of the disk at a place of a run; ``None`` if only the parent knows."""
    at = place - run.start
    if run.kind is Kind.DATA:
        return FILES[run.file][run.offset + at]
    if run.kind is Kind.DEFLATED:
        return unpacked(run.offset)[run.skip + at]
    return 0 if run.kind is Kind.ZERO else None


def disk_of(runs: Iterable[Run]) -> list[int | None]:
    found: list[int | None] = []
    for run in runs:
        assert run.start == len(found), "a gap or an overlap"
        assert run.length > 0
        found += [byte_at(run, place) for place in range(run.start, run.end)]
    return found


@st.composite
def members(draw: st.DrawFn, size: int = 48) -> tuple[Run, ...]:
    """The runs of one member of a chain."""
    runs: list[Run] = []
    at = 0
    while at < size:
        kind = draw(st.sampled_from(list(Kind)))
        length = min(draw(st.integers(1, 20 if kind is not Kind.DEFLATED else GRAIN)), size - at)
        offset = draw(st.integers(0, 100))
        if kind is Kind.DATA:
            runs.append(Run(at, length, kind, draw(st.integers(0, 1)), offset))
        elif kind is Kind.DEFLATED:
            skip = draw(st.integers(0, GRAIN - length))
            runs.append(Run(at, length, kind, 1, offset, 5, skip, GRAIN))
        else:
            runs.append(Run(at, length, kind))
        at += length
    return tuple(runs)


@dataclass(frozen=True)
class Fixed:
    """A layer whose runs are given."""

    all: tuple[Run, ...]

    def runs(self, start: int, end: int) -> Iterator[Run]:
        return (clip(run, start, end) for run in self.all if run.end > start and run.start < end)


@given(members(), st.integers(0, 47), st.integers(1, 48))
def test_clip(runs: tuple[Run, ...], start: int, length: int) -> None:
    end = min(start + length, 48)
    cut = list(Fixed(runs).runs(start, end))
    assert (cut[0].start, cut[-1].end) == (start, end)
    assert [byte_at(run, at) for run in cut for at in range(run.start, run.end)] == disk_of(runs)[start:end]


@given(members())
def test_merge(runs: tuple[Run, ...]) -> None:
    merged = list(merge(runs))
    assert disk_of(merged) == disk_of(runs)
    assert list(merge(merged)) == merged
    assert list(merge(clip(run, at, at + 1) for run in runs for at in range(run.start, run.end))) == merged or any(
        run.kind is Kind.DEFLATED for run in runs
    )


@given(st.lists(members(), min_size=1, max_size=4))
def test_resolve(chain: list[tuple[Run, ...]]) -> None:
    layers = tuple(map(Fixed, chain))
    found = disk_of(resolve(layers, 0, 48))
    disks = [disk_of(runs) for runs in chain]
    for place, byte in enumerate(found):
        assert byte == next((disk[place] for disk in disks if disk[place] is not None), 0)


def packed(run: Run, data: bytes) -> bytes:
    return inflate(run, data, "disk.vmdk")


def test_inflate() -> None:
    data = bytes(range(64)) * 4
    stored = zlib.compress(data)
    run = Run(0, 256, Kind.DEFLATED, 0, 9, len(stored), 0, 256)
    assert packed(run, stored) == data
    assert packed(Run(5, 7, Kind.DEFLATED, 0, 9, len(stored), 3, 256), stored) == data[3:10]


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"x" * 20,
        zlib.compress(bytes(257)),
        zlib.compress(bytes(255)),
        zlib.compress(bytes(256))[:-1],
        zlib.compress(bytes(256))[:-4] + b"1234",
        zlib.compress(bytes(10_000_000)),
    ],
    ids=["empty", "garbage", "long", "short", "cut", "checksum", "bomb"],
)
def test_inflate_damaged(stored: bytes) -> None:
    with pytest.raises(ImageRefusedError, match=r"^disk\.vmdk: the compressed grain at byte 9 is damaged") as caught:
        packed(Run(0, 256, Kind.DEFLATED, 0, 9, len(stored), 0, 256), stored)
    assert caught.value.code == "grain-damaged"
