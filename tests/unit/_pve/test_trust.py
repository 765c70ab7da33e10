# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of trusted checksums: nothing is lost, whoever else records, and a person can read its changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.trust import Trusted, TrustFile

ONE, TWO = Trusted("1" * 64, 1), Trusted("2" * 64, 2)


def test_one_line_for_each_file(tmp_path: Path) -> None:
    file = tmp_path / "trusted.json"
    TrustFile(str(file)).record("b.iso", TWO)
    file.chmod(0o600)
    TrustFile(str(file)).record("a.iso", ONE)
    assert file.read_text() == (
        f'{{\n "a.iso": {{"sha256": "{"1" * 64}", "size": 1}},\n "b.iso": {{"sha256": "{"2" * 64}", "size": 2}}\n}}\n'
    )
    assert file.stat().st_mode & 0o777 == 0o600
    again = TrustFile(str(file))
    assert (again.find("a.iso"), again.find("c.iso")) == (ONE, None)
    assert [path.name for path in tmp_path.iterdir()] == ["trusted.json"]


def test_many_at_once(tmp_path: Path) -> None:
    file = tmp_path / "trusted.json"

    def record(number: int) -> None:
        TrustFile(str(file)).record(f"{number}.iso", Trusted(f"{number:064x}", number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(40)))
    records = TrustFile(str(file))
    assert [records.find(f"{number}.iso") for number in range(40)] == [
        Trusted(f"{number:064x}", number) for number in range(40)
    ]


def test_what_is_recorded_stays(tmp_path: Path) -> None:
    file = tmp_path / "trusted.json"
    TrustFile(str(file)).record("a.iso", ONE)
    TrustFile(str(file)).record("a.iso", ONE)
    before = file.read_bytes()
    with pytest.raises(
        DiskwrightError, match=r"a\.iso has just been recorded with another checksum \(1{64}, here 2{64}"
    ):
        TrustFile(str(file)).record("a.iso", TWO)
    assert file.read_bytes() == before


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DiskwrightError, match="it can't be read"):
        TrustFile(str(tmp_path))
