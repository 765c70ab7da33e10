# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes: what people write, what PVE writes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.size import (
    GIB,
    allocation_gib,
    format_pve_size,
    human_size,
    parse_pve_size,
    parse_size,
)
from hypothesis import given, settings
from hypothesis import strategies as st

bounded = settings(max_examples=200, deadline=None, derandomize=True, database=None)
kib = st.integers(1, 2**45)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (64, 64 * GIB),
        ("64", 64 * GIB),
        (0.5, GIB // 2),
        ("64G", 64 * GIB),
        ("64GiB", 64 * GIB),
        (" 64 GiB ", 64 * GIB),
        ("65536M", 64 * GIB),
        ("1.5T", 1536 * GIB),
        ("1P", 1024**5),
        ("1024K", 1024**2),
        ("512B", 1024),
        ("1B", 1024),
        ("1.7", 1782580 * 1024),
        ("0.001", 1049 * 1024),
        ("0", 0),
    ],
)
def test_user_sizes(written: str | float, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written",
    [
        "",
        "G",
        "\N{SUPERSCRIPT TWO}G",
        "9" * 5000,
        "9" * 5000 + "G",
        "0." + "1" * 5000,
        "-1",
        "-1G",
        "+5G",
        "1e3",
        "64g",
        ".5",
        "5.",
        "1,5G",
        "64Gi",
        "inf",
        "1 2",
    ],
)
def test_what_is_no_size(written: str) -> None:
    with pytest.raises(ParseError, match="is not understood; write a number with K, M, G, T or P"):
        parse_size(written)


@pytest.mark.parametrize("written", ["8192P", "99999999P", "9" * 30])
def test_what_no_disk_can_have(written: str) -> None:
    with pytest.raises(ParseError, match="is more than a disk can have; write less than 8192P"):
        parse_size(written)


@pytest.mark.parametrize(("written", "advice"), [("64GB", "64G"), ("1.5 TB", "1.5 T"), ("512kB", "512K")])
def test_decimal_units_are_ambiguous(written: str, advice: str) -> None:
    with pytest.raises(ParseError, match=f"could mean powers of 1000 or of 1024; write {advice} for powers of 1024"):
        parse_size(written)


@pytest.mark.parametrize("value", [True, False])
def test_boolean_is_no_size(value: bool) -> None:
    with pytest.raises(ParseError, match="is a boolean"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32G", 32 * GIB),
        ("528K", 528 * 1024),
        ("1782580K", 1782580 * 1024),
        ("2199023256", 2199023256),
        ("0T", 0),
        ("1.75G", 7 * GIB // 4),
        ("", None),
        ("4Q", None),
        ("-1G", None),
    ],
)
def test_sizes_in_drive_strings(text: str, size: int | None) -> None:
    assert parse_pve_size(text) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (512 * 1024**2, "512M"),
        (1536 * 1024**2, "1536M"),
        (1782580 * 1024, "1782580K"),
        (2199023256, "2199023256"),
        (2 * 1024**5, "2048T"),
        (0, "0"),
    ],
)
def test_size_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    assert format_pve_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(500 * GIB, "500"), (GIB // 2, "0.5"), (1024, "0.00000095367431640625"), (10**9 * GIB, "1000000000")],
)
def test_allocation(size: int, text: str) -> None:
    assert allocation_gib(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1000, "1000 B"),
        (528 * 1024, "528 KiB"),
        (500 * GIB, "500 GiB"),
        (1536 * GIB, "1.5 TiB"),
        (1782580 * 1024, "1.7 GiB"),
        (2000 * 1024**5, "2000 PiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human_size(size) == text


@bounded
@given(kib)
def test_written_sizes_are_read_back(blocks: int) -> None:
    size = blocks * 1024
    assert parse_pve_size(format_pve_size(size)) == size
    assert parse_size(f"{size}B") == size
    assert parse_size(format_pve_size(size)) == size


@bounded
@given(kib)
def test_allocation_is_exact(blocks: int) -> None:
    text = allocation_gib(blocks * 1024)
    assert set(text) <= set("0123456789.")
    assert parse_size(text) == blocks * 1024
    assert Decimal(text).as_integer_ratio() == (Decimal(blocks) / 2**20).as_integer_ratio() or len(text) > 27
