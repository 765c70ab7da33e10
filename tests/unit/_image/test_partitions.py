# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partition tables: good ones are read as fdisk reads them, bad ones are refused, and none is read beyond the disk."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.partitions import (
    Partition,
    PartitionTableError,
    Table,
    read_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from images.tables import MIB, SECTOR, gpt, gpt_entry, mbr, mbr_entry, mbr_sector

SIZE = 8 * MIB


def table_of(disk: bytes | bytearray, size: int | None = None) -> Table:
    """Reads a table, and watches that nothing beyond the disk is asked for."""
    length = len(disk) if size is None else size

    def read(offset: int, count: int) -> bytes:
        assert offset >= 0 and count >= 0 and offset + count <= length, (offset, count)
        return bytes(disk[offset : offset + count])

    return read_table(read, length)


def places(table: Table) -> list[tuple[int, int, int]]:
    return [(part.number, part.start // SECTOR, part.size // SECTOR) for part in table.partitions]


# ---- as fdisk reads them


def sfdisk(tmp_path: Path, script: str) -> tuple[bytes, dict[str, object]]:
    if shutil.which("sfdisk") is None:
        pytest.skip("needs sfdisk (Debian: fdisk)")
    file = tmp_path / "disk"
    file.write_bytes(bytes(SIZE))
    subprocess.run(["sfdisk", "-q", file], input=script, text=True, check=True, capture_output=True)
    shown = subprocess.run(["sfdisk", "-J", file], text=True, check=True, capture_output=True)
    return file.read_bytes(), json.loads(shown.stdout)["partitiontable"]


@pytest.mark.parametrize(
    "script",
    [
        "label: gpt\nstart=2048, size=2048, name=\"ein Name\"\nstart=6144, size=1024, type=swap\n",
        "label: gpt\n3: start=2048, size=64\n1: start=4096, size=64\n",
        "label: dos\nstart=2048, size=2048, type=83, bootable\nstart=8192, size=64, type=c\n",
        "label: dos\nstart=64, size=64\nstart=2048, size=8192, type=5\nstart=4096, size=512\nstart=8192, size=64\n"
        "start=9000, size=100\n",
        "label: dos\nstart=2048, size=8192, type=f\nstart=4096, size=512\n",
    ],
    ids=["gpt", "gpt-out-of-order", "mbr", "logical", "one-logical"],
)
def test_as_fdisk_reads_it(tmp_path: Path, script: str) -> None:
    disk, shown = sfdisk(tmp_path, script)
    table = table_of(disk)
    assert table.scheme == {"dos": "mbr", "gpt": "gpt"}[str(shown["label"])]
    assert table.damage == ()
    rows = [
        row for row in shown["partitions"] if row["type"] not in ("5", "f")  # type: ignore[attr-defined]
    ]
    numbers = [int(row["node"].rpartition("disk")[2]) for row in rows]
    assert places(table) == [(n, row["start"], row["size"]) for n, row in zip(numbers, rows, strict=True)]
    assert [part.name for part in table.partitions] == [row.get("name", "") for row in rows]
    if table.scheme == "gpt":
        assert [part.uuid.upper() for part in table.partitions] == [row["uuid"] for row in rows]
        assert [part.kind.upper() for part in table.partitions] == [row["type"] for row in rows]
    else:
        assert [int(part.kind, 16) for part in table.partitions] == [int(row["type"], 16) for row in rows]
        identity = int(str(shown["id"]), 16)
        assert [part.uuid for part in table.partitions] == [f"{identity:08x}-{n:02x}" for n in numbers]


# ---- whole disks


@pytest.mark.parametrize(
    "disk",
    [
        bytes(SIZE),
        bytes(100),
        bytes(510) + b"\x55\xaa" + bytes(SIZE - 512),
        b"\xeb\x52\x90NTFS    ".ljust(446, b"\x11") + b"\x80\xff" * 32 + b"\x55\xaa" + bytes(SIZE - 512),
        (b"\xeb\x3c\x90mkfs.fat".ljust(54, b"\0") + b"FAT16   ").ljust(510, b"\x22") + b"\x55\xaa" + bytes(SIZE - 512),
        mbr_sector([mbr_entry(0x83, 1, 5, status=0x21)]) + bytes(SIZE - 512),
    ],
    ids=["zeros", "tiny", "empty table", "ntfs", "fat", "boot code instead of a table"],
)
def test_a_disk_without_partitions_is_partition_0(disk: bytes) -> None:
    assert table_of(disk) == Table("none", (Partition(0, 0, len(disk)),))


# ---- refused


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0x83, 1, 100), (0x83, 50, 100)], "partitions 1 and 2 overlap at 25600"),
        ([(0x83, 0, 100)], "512 to 8388608 are allowed"),
        ([(0x83, 1, 2**32 - 1)], "the image is cut short"),
        ([(5, 1, 100), (15, 200, 100)], "two extended partitions"),
        ([(5, 1, 100)], "no list of logical partitions at byte 512"),
    ],
)
def test_a_bad_mbr_is_refused(rows: Sequence[tuple[int, int, int]], words: str) -> None:
    with pytest.raises(PartitionTableError, match=words):
        table_of(mbr(SIZE, rows))


def with_list(*sectors: tuple[int, Sequence[bytes]]) -> bytearray:
    """A disk whose extended partition has sectors 100 to 1100, with lists written by hand."""
    disk = mbr(SIZE, [(5, 100, 1000)])
    for place, entries in sectors:
        disk[place * SECTOR : (place + 1) * SECTOR] = mbr_sector(entries, 0)
    return disk


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (with_list((100, [mbr_entry(5, 10, 10)]), (110, [mbr_entry(5, 10, 10)])), "circles"),
        (with_list((100, [mbr_entry(5, 0, 10)])), "outside the extended"),
        (with_list((100, [mbr_entry(5, 5000, 10)])), "outside the extended"),
        (with_list((100, [mbr_entry(0x83, 1, 5), mbr_entry(0x83, 8, 5)])), "more than one at a time"),
        (with_list((100, [mbr_entry(0x83, 1, 5000)])), "logical partitions: partition 5"),
        (with_list((100, [mbr_entry(0x83, 5, 50), mbr_entry(5, 20, 50)]), (120, [])), "overlap"),
    ],
    ids=["circle", "itself", "outside", "two", "too long", "over a list"],
)
def test_a_bad_list_of_logical_partitions_is_refused(disk: bytearray, words: str) -> None:
    with pytest.raises(PartitionTableError, match=words):
        table_of(disk)


GOOD = [gpt_entry(64, 127, "root"), gpt_entry(2048, 4095, "data", number=2)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"length": 91}, "92 to 512"),
        ({"length": 513}, "92 to 512"),
        ({"header_crc": 1}, "header does not fit its checksum"),
        ({"entries_crc": 1}, "entries do not fit their checksum"),
        ({"revision": 0x20000}, "revision"),
        ({"place": 2}, "lies in sector 1 and says 2"),
        ({"entry": 120}, "a power of two"),
        ({"count": 2**32 - 1}, "at most 256"),
        ({"entries_place": 2**60}, "outside the disk"),
        ({"entries_place": 0}, "outside the disk"),
        ({"entries_place": 100}, "where partitions may be"),
        ({"last": 2**63}, "said to be usable"),
    ],
)
def test_a_bad_gpt_is_read_from_its_copy_and_says_so(wrong: dict[str, int], words: str) -> None:
    table = table_of(gpt(SIZE, GOOD, **wrong))
    assert places(table) == [(1, 64, 64), (2, 2048, 2048)]
    (said,) = table.damage
    assert words in said
    assert "the copy at the end of the disk is whole" in said


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([gpt_entry(64, 127), gpt_entry(100, 200)], "partitions 1 and 2 overlap"),
        ([gpt_entry(2, 127)], "partition 1 lies at bytes 1024"),
        ([gpt_entry(64, 2**40)], "the image is cut short"),
        ([gpt_entry(127, 64)], "begins in sector 127 and ends in sector 64"),
    ],
)
def test_a_gpt_whose_entries_contradict_themselves_is_refused(entries: Sequence[bytes], words: str) -> None:
    with pytest.raises(PartitionTableError, match=words):
        table_of(gpt(SIZE, entries))


def test_a_gpt_without_a_good_copy_is_refused() -> None:
    with pytest.raises(PartitionTableError, match="does not fit its checksum"):
        table_of(gpt(SIZE, GOOD, header_crc=1)[: SIZE // 2])
    with pytest.raises(PartitionTableError, match="none at either end"):
        table_of(mbr(SIZE, [(0xEE, 1, 100)]))


def test_a_gpt_without_its_mbr_is_refused() -> None:
    disk = gpt(SIZE, GOOD)
    disk[:SECTOR] = bytes(SECTOR)
    with pytest.raises(PartitionTableError, match="no protective MBR"):
        table_of(disk)


def test_a_disk_that_has_grown_since_is_whole() -> None:
    """The copy lies where the disk ended once: what Proxmox VE's resize leaves."""
    table = table_of(gpt(SIZE, GOOD) + bytes(SIZE))
    assert places(table) == [(1, 64, 64), (2, 2048, 2048)]
    assert table.damage == ()


def test_a_damaged_copy_is_told() -> None:
    disk = gpt(SIZE, GOOD)
    disk[-SECTOR:] = bytes(SECTOR)
    (said,) = table_of(disk).damage
    assert "copy of the GPT" in said


def test_sectors_of_4096_bytes() -> None:
    table = table_of(gpt(SIZE, [gpt_entry(16, 31, "4Kn")], sector=4096))
    assert places(table) == [(1, 128, 128)]
    assert table.damage == ()


def test_names_are_printable() -> None:
    (part,) = table_of(gpt(SIZE, [gpt_entry(64, 127, "a\x1b[2J\u202eb")])).partitions
    assert part.name == "a?[2J?b"


# ---- laws


def layouts() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Partitions that do not overlap, as first sector and length."""
    cuts = st.lists(st.integers(64, 8000), min_size=2, max_size=12, unique=True).map(sorted)
    return cuts.map(lambda c: [(a, b - a) for a, b in zip(c[::2], c[1::2], strict=False)])


@given(layouts())
def test_every_gpt_is_read_back(parts: list[tuple[int, int]]) -> None:
    entries = [gpt_entry(start, start + length - 1, f"p{n}", number=n) for n, (start, length) in enumerate(parts, 1)]
    assert places(table_of(gpt(SIZE, entries))) == [(n, *part) for n, part in enumerate(parts, 1)]


@given(layouts())
def test_every_chain_of_logical_partitions_is_read_back(parts: list[tuple[int, int]]) -> None:
    inner = [(start + 1, length - 1) for start, length in parts if length > 1]
    if inner:
        table = table_of(mbr(SIZE, [(5, 62, 8000)], inner))
        assert places(table) == [(n, *part) for n, part in enumerate(inner, 5)]


def mutated(make: Callable[[], bytearray], changes: dict[int, int]) -> bytearray:
    disk = make()
    for place, value in changes.items():
        disk[place % len(disk)] = value
    return disk


@settings(max_examples=200)
@given(
    st.sampled_from([0, 1, 2]),
    st.dictionaries(
        st.one_of(st.integers(440, 640), st.integers(1024, 1300), st.integers(-640, -1)), st.integers(0, 255)
    ),
    st.integers(0, 3 * MIB),
)
def test_whatever_is_written_over_a_table(which: int, changes: dict[int, int], cut: int) -> None:
    """Either partitions that lie inside the disk and not on each other, or a refusal; never anything else."""
    makers = (
        lambda: gpt(3 * MIB, GOOD[:1] + [gpt_entry(2048, 4095, number=2)]),
        lambda: mbr(3 * MIB, [(0x83, 1, 1), (5, 2, 5000)], [(4, 100), (200, 300)]),
        lambda: bytearray(3 * MIB),
    )
    disk = mutated(makers[which], changes)
    size = max(len(disk) - cut, 0) if cut % 3 == 0 else len(disk)
    try:
        table = table_of(disk[:size])
    except PartitionTableError as error:
        assert str(error)
        return
    end = 0
    for part in sorted(table.partitions, key=lambda part: part.start):
        assert end <= part.start <= part.end <= size
        end = part.end
