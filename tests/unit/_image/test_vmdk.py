# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMDKs of all sizes: what is looked at grows with the tables, memory does not."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.errors import ImageRefusedError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import inspect
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.runs import Kind
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.vmdk_descriptor import MAX_DISK
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.vmdk_tables import Bitmap, stretches
from hypothesis import given
from hypothesis import strategies as st
from images import vmdk
from images.content import MIB, SECTOR
from images.vmdk import descriptor, write

TIB = 1024**4
# Prints the runs' sum and the most memory that it took beyond what Python had before, in KiB.
MEASURE = """
import resource, sys
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import inspect
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with inspect(sys.argv[1]) as source:
    print(sum(run.length for run in source.runs()), source.allocated)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def huge_hosted(folder: Path) -> Path:
    """A sparse file of 64 TiB, nearly all of which was never written."""
    capacity = MAX_DISK // SECTOR
    tables = capacity // (128 * 512)
    directory = -(-tables * 4 // SECTOR)
    overhead = -(-(21 + directory + 4) // 128) * 128
    path = folder / "disk.vmdk"
    text = descriptor("monolithicSparse", [f'RW {capacity} SPARSE "disk.vmdk"'])
    with path.open("wb") as file:
        file.write(vmdk.header(capacity=capacity, flags=1, directory=21, overhead=overhead))
        file.write(text.encode())
        file.seek(21 * SECTOR + 4 * (tables - 1))  # the last table of the disk is there
        file.write(struct.pack("<I", 21 + directory))
        file.seek((21 + directory) * SECTOR + 4 * 511)
        file.write(struct.pack("<I", overhead))
        file.seek(overhead * SECTOR)
        file.write(b"x" * 65536)
    return path


def huge_sesparse(folder: Path) -> Path:
    """The same as a snapshot of ESXi."""
    capacity = MAX_DISK // SECTOR
    tables = capacity // (8 * 4096)
    directory = tables * 8 // SECTOR
    places = [1, 1, 2, 2, 4, 8, 12, directory, 12 + directory, 64, 12 + directory + 64, 8]
    backmap = 12 + directory + 72
    places += [backmap, 8, backmap + 8, 8]
    with (folder / "disk-s.vmdk").open("wb") as file:
        head = (0xCAFEBABE, 0x200000001, capacity, 8, 64, 0, 0, 0, 0, 0)
        file.write(struct.pack("<26Q", *head, *places))
        file.seek(SECTOR)
        file.write(struct.pack("<4Q", 0xCAFECAFE, 0, 0, 0))
        file.seek(12 * SECTOR + 8 * (tables - 1))
        file.write(struct.pack("<Q", 1 << 60))
        file.seek((12 + directory) * SECTOR + 8 * 4095)
        file.write(struct.pack("<Q", 3 << 60))
        file.seek((backmap + 8) * SECTOR)
        file.write(b"x" * 4096)
    return write(folder, "disk.vmdk", descriptor("seSparse", [f'RW {capacity} SESPARSE "disk-s.vmdk"']))


@pytest.mark.parametrize("make", [huge_hosted, huge_sesparse])
def test_64_tib(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    done = subprocess.run([sys.executable, "-c", MEASURE, path], check=True, capture_output=True, text=True)
    total, allocated, memory = map(int, done.stdout.split())
    assert total == MAX_DISK
    assert allocated <= 65536
    assert memory < 16 * 1024, f"{memory} KiB"
    with inspect(str(path)) as source:
        last = list(source.runs(MAX_DISK - MIB))[-1]
        assert (last.kind, last.end) == (Kind.DATA, MAX_DISK)
        assert os.pread(source.fds[last.file], last.length, last.offset) == b"x" * last.length


def test_larger_than_any(tmp_path: Path) -> None:
    text = descriptor("monolithicSparse", [f'RW {MAX_DISK // SECTOR + 1} SPARSE "disk.vmdk"'])
    path = write(tmp_path, "disk.vmdk", vmdk.hosted(MIB, {}, text=text, capacity=MAX_DISK // SECTOR + 1))
    with pytest.raises(ImageRefusedError, match=str(MAX_DISK // SECTOR + 1)) as caught:
        inspect(str(path))
    assert caught.value.code == "capacity-bad"


def split(folder: Path, count: int) -> Path:
    lines = []
    for number in range(count):
        write(folder, f"disk-f{number:04d}.vmdk", number.to_bytes(4, "big") * 128)
        lines.append(f'RW 1 FLAT "disk-f{number:04d}.vmdk" 0')
    return write(folder, "disk.vmdk", descriptor("twoGbMaxExtentFlat", lines))


def test_1100_extents(tmp_path: Path) -> None:
    """More than a process may have open by default: the limit is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = split(tmp_path, 1100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with inspect(str(path)) as source:
            data = b"".join(os.pread(source.fds[run.file], run.length, run.offset) for run in source.runs())
        assert data == b"".join(number.to_bytes(4, "big") * 128 for number in range(1100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_extents_than_files_may_be_open(tmp_path: Path) -> None:
    path = split(tmp_path, 300)
    program = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import look\n"
        "(found,) = look(sys.argv[1])\nprint(found.refused.code, found.refused.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("files-too-many disk.vmdk: needs more than 192 files open at once")


@given(st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=300), st.sampled_from([1, 8, 128]))
def test_stretches(entries: list[int], step: int) -> None:
    """Taken apart again, stretches are the table."""
    fixed = frozenset({0, 1})
    rebuilt: list[int] = []
    for first, count, value in stretches(array("I", entries), step, fixed):
        assert first == len(rebuilt)
        rebuilt += [value if value in fixed else value + step * number for number in range(count)]
    assert rebuilt == entries


@given(st.integers(0, 2**31), st.integers(1, 1000), st.integers(0, 300))
def test_stretches_are_long(first: int, count: int, zeros: int) -> None:
    entries = array("I", [*range(2 + first, 2 + first + count), *[0] * zeros])
    found = list(stretches(entries, 1, frozenset({0})))
    assert found == [(0, count, 2 + first), *([(count, zeros, 0)] if zeros else [])]


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 9_000)), max_size=8))
def test_bitmap(marks: list[tuple[int, int]]) -> None:
    bitmap, used = Bitmap(), set[int]()
    for first, count in marks:
        wanted = set(range(first, first + count))
        assert bitmap.mark(first, count) == (not used & wanted)
        used |= wanted
