# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""windows_inject beside virt-v2v-in-place: what that one writes to make a driver boot-critical, ours writes too.

Slow, and only where virt-v2v is installed: it boots a small Linux to look into the image.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows import virt_v2v
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE, Release
from e2e import injecting
from e2e.injecting import Node, disk_with, seen, windows_volume
from images.tables import MIB
from winguest.authenticode import driver_file
from winguest.media import all_files, write_iso

PROGRAM = shutil.which(virt_v2v.PROGRAM, path=f"{os.environ['PATH']}:{virt_v2v.PLACES}")
pytestmark = [
    injecting.needs_it,
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="virt-v2v-in-place is not installed (Debian 13: virt-v2v, rhsrvany)"),
]
# Names of our own, and theirs, for the same things.
SIZE = 160 * MIB  # it refuses to work on less
THEIRS, OURS = "guestor", "diskwright_vioscsi"


def complete(root: Path) -> None:
    """What libguestfs wants to see before it takes a folder for a Windows."""
    (root / "Windows/System32/cmd.exe").write_bytes(driver_file("amd64"))
    (root / "Windows/System32/drivers/etc").mkdir()
    (root / "Windows/System32/drivers/etc/hosts").write_text("")
    for folder in ("Program Files", "Windows/Temp"):
        (root / folder).mkdir()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield Node(tmp_path, write_iso(tmp_path / "virtio-win.iso", all_files()))


@pytest.mark.parametrize("key", ["2022", "7"])
def test_ours_writes_what_theirs_does(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    release: Release = TABLE[key]
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
    volume = windows_volume(tmp_path / "volume", release, change=complete, size=SIZE)
    theirs, ours = (disk_with(tmp_path, volume, name=f"{name}.raw") for name in ("theirs", "ours"))
    before = seen(theirs, tmp_path, size=SIZE)[0]
    options: dict[str, Any] = {"path": theirs, "drivers": ["vioscsi"], "backend": virt_v2v.PROGRAM}
    assert node.run(check=True, **options).changed
    done = node.run(**options)
    assert (done.changed, done.data["injected"]) == (True, ["vioscsi"])
    assert not node.run(**options).changed
    node.run(path=ours, drivers=["vioscsi"])
    (theirs_now, their_files), (ours_now, our_files) = (
        seen(disk, tmp_path, size=SIZE) for disk in (theirs, ours)
    )
    file = "Windows/System32/drivers/vioscsi.sys"
    assert {name.lower(): data for name, data in their_files.items()}[file.lower()] == our_files[file]
    missing = {
        (path, name): value
        for path, values in about(theirs_now, before, THEIRS).items()
        for name, value in values.items()
        if comparable(ours_now, OURS).get(path, {}).get(name) != value
    }
    assert missing == {}


def about(now: dict[str, Any], before: dict[str, Any], word: str) -> dict[str, Any]:
    """What has been written about drivers, in names that can be compared."""
    parts = ("\\Services\\vioscsi", "\\DriverDatabase", "\\CriticalDeviceDatabase")
    changed = {path: values for path, values in now.items() if before.get(path) != values}
    return {
        path: values
        for path, values in comparable(changed, word).items()
        if any(part.lower() in path.lower() for part in parts)
    }


def comparable(tree: dict[str, Any], word: str) -> dict[str, Any]:
    """Keys in lower case, and one word for what each calls in its own way."""
    found: dict[str, Any] = {}
    for path, values in tree.items():
        found[_plain(path, word)] = {_plain(name, word): _plain(str(value), word) for name, value in values.items()}
    return found


def _plain(text: str, word: str) -> str:
    """Their label is ``guestor.inf_tmp`` or has the form of ours, by release; their configuration is called _conf."""
    plain = text.lower().replace(f"{word}_conf", "driver").replace(f"{word}.inf_tmp", "driver.label")
    plain = plain.replace(f"{word}.inf_amd64_0000000000000000", "driver.label").replace(f"{word}.inf", "driver.inf")
    return plain.replace(word, "driver")
