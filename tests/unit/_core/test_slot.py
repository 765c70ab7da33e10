# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots: which there are, their order."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import (
    SLOT_COUNT,
    Slot,
    find_slot,
    parse_slot,
)


@pytest.mark.parametrize(("bus", "count"), SLOT_COUNT.items())
def test_first_and_last_slot_of_each_bus(bus: str, count: int) -> None:
    assert parse_slot(f"{bus}0") == Slot(bus, 0)
    assert str(parse_slot(f"{bus}{count - 1}")) == f"{bus}{count - 1}"
    assert find_slot(f"{bus}{count}") is None


@pytest.mark.parametrize(
    "text",
    ["", "scsi", "scsi01", "scsi-1", "scsi1 ", "SCSI0", "nvme0", f"scsi{'9' * 5000}", "scsihw", "net0", "unused"],
)
def test_what_is_no_slot(text: str) -> None:
    assert find_slot(text) is None
    with pytest.raises(ParseError, match=f"slot '{text}' does not exist; "):
        parse_slot(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scsi31", "slot 'scsi31' does not exist; scsi has scsi0 to scsi30"),
        ("ide4", "slot 'ide4' does not exist; ide has ide0 to ide3"),
        ("efidisk1", "slot 'efidisk1' does not exist; efidisk has efidisk0"),
        (
            "disk0",
            "slot 'disk0' does not exist; the slots are ide0-3, sata0-5, scsi0-30, virtio0-15, efidisk0, tpmstate0, "
            "unused0-255",
        ),
    ],
)
def test_message_names_what_there_is(text: str, problem: str) -> None:
    with pytest.raises(ParseError) as raised:
        parse_slot(text)
    assert str(raised.value) == problem


def test_numbers_are_sorted_as_numbers() -> None:
    slots = sorted(parse_slot(text) for text in ("virtio1", "scsi10", "scsi2", "ide0"))
    assert [str(slot) for slot in slots] == ["ide0", "scsi2", "scsi10", "virtio1"]


def test_kinds() -> None:
    assert [slot.is_unused for slot in (Slot("unused", 3), Slot("scsi", 0))] == [True, False]
    assert [Slot(bus, 0).is_firmware for bus in ("efidisk", "tpmstate", "ide")] == [True, True, False]
