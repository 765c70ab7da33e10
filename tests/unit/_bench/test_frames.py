# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames survive what else comes over a serial port."""

from __future__ import annotations

from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.frames import Frame, Reader
from hypothesis import given
from hypothesis import strategies as st
from unit._bench.pretend import frame

noise = st.binary(max_size=200).filter(lambda data: b"@diskwright" not in data)


def read(data: bytes, *cuts: int) -> list[Frame]:
    reader, found, start = Reader(), [], 0
    for cut in (*sorted(cuts), len(data)):
        found += reader.feed(data[start:cut])
        start = max(start, cut)
    return found


@given(st.text(), noise, noise, st.lists(st.integers(0, 400), max_size=5))
def test_a_frame_is_found_in_noise_and_however_it_is_cut(
    text: str, before: bytes, after: bytes, cuts: list[int]
) -> None:
    data = before + frame(text) + b"\r\n" + after.replace(b"\n", b" ")
    assert read(data, *cuts) == [Frame("result", text)]


@given(st.text(min_size=1), st.integers(0, 10**6), st.binary(min_size=1, max_size=1))
def test_a_damaged_frame_is_never_taken_for_another(text: str, place: int, byte: bytes) -> None:
    good = frame(text)
    place = 75 + place % (len(good) - 77)
    bad = good[:place] + byte + good[place + 1 :]
    assert read(bad + b"\n" + good + b"\n") == [Frame("result", text)]


def test_twins_are_one() -> None:
    line = frame("once") + b"\n"
    assert read(line + line) == [Frame("result", "once")]


def test_the_same_again_later_is_another() -> None:
    first, second = frame("a") + b"\n", frame("b") + b"\n"
    assert [one.text for one in read(first + first + second + second + first)] == ["a", "b", "a"]


def test_short_messages_need_no_digest() -> None:
    assert read(b"junk @diskwright ack 17 .\r\n@diskwright ack 18") == [Frame("ack", "17")]
