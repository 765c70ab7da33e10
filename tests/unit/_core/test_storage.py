# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of storage types."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import TABLE, Storage, StorageType

every_type = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)


@every_type
def test_row(row: StorageType) -> None:
    held = {*row.formats, *row.chain_formats}
    assert held <= {"raw", "qcow2", "vmdk"}
    assert set(row.linked_clones) <= held
    assert not (row.importable and row.formats)
    assert row.allocates <= bool(row.formats)
    assert (row.level == "file") == ("vmdk" in row.formats)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"level": "object"}, "x: unknown level or thin"),
        ({"level": "block", "formats": ("raw",), "thin": "maybe"}, "x: unknown level or thin"),
        ({"level": "none", "formats": ("raw",)}, "x: a type that holds disks has formats, and no other has"),
        ({"level": "file"}, "x: a type that holds disks has formats, and no other has"),
        (
            {"level": "block", "formats": ("raw",), "snapshots": ("qcow2",)},
            "x: snapshots of a format that it can't hold",
        ),
    ],
)
def test_table_checks_its_rows(row: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        StorageType("x", **row)  # type: ignore[arg-type]
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("type_", "formats", "chains"),
    [
        ("lvm", ("qcow2", "raw"), True),
        ("lvm", ("raw",), False),
        ("dir", ("raw", "qcow2", "vmdk"), False),
        ("from-the-future", ("qcow2",), False),
    ],
)
def test_volume_chains_are_seen_by_the_formats(type_: str, formats: tuple[str, ...], chains: bool) -> None:
    assert Storage("x", type_, frozenset({"images"}), formats).chains is chains


def test_unknown_type_has_no_row() -> None:
    assert Storage("x", "from-the-future", frozenset(), ()).kind is None
