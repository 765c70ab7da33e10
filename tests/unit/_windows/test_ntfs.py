# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a volume was left, compared with what ntfs-3g says of the same bytes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.ntfs import (
    NtfsState,
    Read,
    is_bitlocker,
    is_ntfs,
    read_state,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from winguest.volumes import MKNTFS, encrypt, leave_log_open, make_ntfs, mark_dirty

PROBE = shutil.which("ntfs-3g.probe", path="/usr/bin:/bin:/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(MKNTFS is None or PROBE is None, reason="mkntfs (package ntfs-3g) is not installed")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return make_ntfs(tmp_path / "volume", 2 << 20)


def reader(path: Path) -> Read:
    data = path.read_bytes()
    return lambda offset, length: data[offset : offset + length]


def probe(path: Path) -> int:
    return subprocess.run([str(PROBE), "--readwrite", str(path)], capture_output=True, check=False).returncode


def state(path: Path) -> NtfsState:
    return read_state(reader(path))


def test_clean(volume: Path) -> None:
    found = state(volume)
    assert (found.dirty, found.log_clean, probe(volume)) == (False, True, 0)
    serial = volume.read_bytes()[72:80]
    assert found.serial == serial[::-1].hex()
    assert is_ntfs(reader(volume))
    assert not is_bitlocker(reader(volume))


def test_dirty(volume: Path) -> None:
    mark_dirty(volume)
    found = state(volume)
    assert (found.dirty, found.log_clean, probe(volume)) == (True, True, 13)


def test_unfinished_journal(volume: Path) -> None:
    leave_log_open(volume)
    found = state(volume)
    assert (found.dirty, found.log_clean, probe(volume)) == (False, False, 15)


def test_encrypted(volume: Path) -> None:
    encrypt(volume)
    assert is_bitlocker(reader(volume))
    assert not is_ntfs(reader(volume))
    with pytest.raises(ParseError, match="it is no NTFS volume"):
        state(volume)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data.__setitem__(slice(13, 14), b"\0"), "boot sector makes no sense"),
        (lambda data: data.__setitem__(slice(48, 56), b"\xff" * 8), "master file table is not there|ends too early"),
        (lambda data: data.__setitem__(slice(data.find(b"FILE") + 3 * 1024, None), b"BAAD"), "is not there"),
    ],
)
def test_damaged(volume: Path, damage: Callable[[bytearray], None], said: str) -> None:
    data = bytearray(volume.read_bytes())
    damage(data)
    with pytest.raises(ParseError, match=said):
        read_state(lambda offset, length: bytes(data[offset : offset + length]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(volume: Path, data: st.DataObject) -> None:
    """Whatever the boot sector and the first records hold: an answer or a refusal, nothing else."""
    content = bytearray(volume.read_bytes())
    table = content.find(b"FILE")
    for start, size in ((0, 512), (table, 4096)):
        for place in data.draw(st.lists(st.integers(0, size - 1), max_size=4)):
            content[start + place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ParseError):
        read_state(lambda offset, length: bytes(content[offset : offset + length]))
