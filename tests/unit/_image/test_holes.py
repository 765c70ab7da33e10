# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holes in the files of an image are zeros that nobody has to read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.holes import data, left_out
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.runs import Kind, Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KIB, MIB = 1 << 10, 1 << 20
SIZE = 4 * MIB


def made(folder: Path, written: list[tuple[int, int]]) -> Path:
    """A file of which only these stretches are written: first byte, and how many."""
    path = folder / "sparse"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start, length in written:
            file.seek(start)
            file.write(b"x" * min(length, SIZE - start))
    return path


def read(runs: list[Run], fd: int) -> bytes:
    """What the runs say that the disk has."""
    parts = (bytes(run.length) if run.kind is Kind.ZERO else os.pread(fd, run.length, run.offset) for run in runs)
    return b"".join(parts)


STRETCHES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 300 * KIB)), max_size=4)


@given(STRETCHES, st.integers(0, 2 * MIB), st.integers(1, 2 * MIB), st.integers(0, 1 << 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs_have_the_same_content(
    tmp_path: Path, written: list[tuple[int, int]], offset: int, length: int, start: int
) -> None:
    """Without gaps, each byte at its place."""
    run = Run(start, length, Kind.DATA, 0, offset)
    with made(tmp_path, written).open("rb") as file:
        found = list(left_out([run], [file.fileno()]))
        assert [one.start for one in found] == [start, *(one.end for one in found[:-1])]
        assert found[-1].end == run.end
        assert all(one.offset - offset == one.start - start for one in found if one.kind is Kind.DATA)
        assert read(found, file.fileno()) == read([run], file.fileno())


def test_a_hole_is_not_read(tmp_path: Path) -> None:
    with made(tmp_path, [(2 * MIB, 64 * KIB)]).open("rb") as file:
        if list(data(file.fileno(), 0, SIZE)) == [(0, SIZE)]:
            pytest.skip("the file system here knows of no holes")
        assert list(left_out([Run(0, SIZE, Kind.DATA)], [file.fileno()])) == [
            Run(0, 2 * MIB, Kind.ZERO),
            Run(2 * MIB, 64 * KIB, Kind.DATA, 0, 2 * MIB),
            Run(2 * MIB + 64 * KIB, 2 * MIB - 64 * KIB, Kind.ZERO),
        ]


def test_behind_the_end_there_is_nothing(tmp_path: Path) -> None:
    with made(tmp_path, []).open("rb") as file:
        assert list(data(file.fileno(), SIZE, 2 * SIZE)) == []


def test_other_runs_stay(tmp_path: Path) -> None:
    runs = [Run(0, 2 * MIB, Kind.ZERO), Run(2 * MIB, 64 * KIB, Kind.DEFLATED, 0, 0, 100, 0, 64 * KIB)]
    with made(tmp_path, []).open("rb") as file:
        assert list(left_out(runs, [file.fileno()])) == runs
