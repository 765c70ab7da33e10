# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every good specimen converts to its bytes; of every bad or hostile one, nothing is made, and no tool opens it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.orders import Verify
from images import BAD, GOOD, Bad, Good
from images.bad import SECRET
from unit._image.converting import content_id, convert, snapshot

#: These end where QEMU's formats begin: a header that our parser takes is then read by qemu-img, told the format.
QEMUS = (".qcow2", ".vdi", ".vhd", ".vhdx", ".vpc")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of all calls of qemu-img."""
    calls, real = tmp_path / "calls", shutil.which("qemu-img")
    tool = tmp_path / "bin" / "qemu-img"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$*" >>{calls}\nexec {real} "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    return calls


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_good(good: Good, tmp_path: Path, recorded: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    path, disk = good.make(folder)
    before = snapshot(folder)
    recorded.unlink(missing_ok=True)
    done = convert(tmp_path / "state", path, member=good.member, dest=str(tmp_path / "out"))
    assert done.error == ""
    found = (tmp_path / "out").read_bytes()
    assert found[: len(disk)] == disk
    assert not found[len(disk) :].strip(b"\0")
    assert done.content_id == content_id(disk.ljust(done.virtual_size, b"\0"))
    assert snapshot(folder) == before
    native = good.format in ("vmdk", "raw")
    assert recorded.exists() is not native, "QEMU opens no VMDK and no raw image"


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad(bad: Bad, tmp_path: Path, recorded: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    path = bad.make(folder)
    recorded.unlink(missing_ok=True)
    done = convert(tmp_path / "state", path, member=bad.member, dest=str(tmp_path / "out"), verify=Verify.YES)
    assert done.code == bad.code
    assert bad.says in done.error
    assert not list(tmp_path.glob("out*"))
    assert not list((tmp_path / "state" / "convert").glob("*.json"))
    if recorded.exists():
        assert path.suffix in QEMUS, recorded.read_text()
