# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images damaged at random: refused, or read as an independent reader reads them. Nothing else, and nothing hangs."""

from __future__ import annotations

import collections
import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images.mutate import LARGE, NUMBERS, Edit, Seed, attempt, seeds
from unit._image.reading import by_dissect

_WRITTEN = st.one_of(
    st.sampled_from(NUMBERS).map(lambda number: number.to_bytes(4, "little")),
    st.sampled_from(LARGE).map(lambda number: number.to_bytes(8, "little")),
    st.binary(max_size=16),
    st.sampled_from(
        [b"\n", b"#", b'"', b"=", b"RW ", b"../x", b"\0", b"/", b"%2e", b"<!DOCTYPE x>", b"CID=0", b"&lt;"]
    ),
)
EDITS = st.lists(st.builds(Edit, st.integers(0, 3), st.integers(0, 999), _WRITTEN), min_size=1, max_size=3)
FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=5_000)


@functools.lru_cache(maxsize=1)
def every_seed() -> dict[str, Seed]:
    return {seed.name: seed for seed in seeds()}


NAMES = ["hosted", "stream", "stream-head", "flat", "split", "cowd", "sesparse", "ova"]


@pytest.mark.parametrize("name", NAMES)
def test_undamaged(name: str, tmp_path: Path) -> None:
    assert attempt(tmp_path, every_seed()[name], [], by_dissect) == "accepted"


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(edits=EDITS)
def test_damaged(name: str, tmp_path: Path, edits: list[Edit]) -> None:
    attempt(tmp_path, every_seed()[name], edits, by_dissect)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@MANY
@given(edits=EDITS)
def test_damaged_long(name: str, tmp_path: Path, edits: list[Edit]) -> None:
    attempt(tmp_path, every_seed()[name], edits, by_dissect)


@pytest.mark.parametrize("name", NAMES)
def test_cut_off_anywhere(name: str, tmp_path: Path) -> None:
    """Nothing of a disk is missing without a refusal."""
    seed = every_seed()[name]
    assert attempt(tmp_path, seed, [], None) == "accepted"
    whole = by_dissect(tmp_path / seed.path) if seed.independent else None
    codes: collections.Counter[str] = collections.Counter()
    for number in range(len(seed.files)):
        for place in range(0, 1000, 7):
            codes[attempt(tmp_path, seed, [Edit(number, place, b"")], lambda path: whole)] += 1
    assert codes.total() > codes["accepted"]
