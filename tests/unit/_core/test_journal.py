# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal in a guest's notes."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive import parse_drive
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.journal import (
    Journal,
    read_journal,
    write_journal,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import Slot
from hypothesis import given, settings
from hypothesis import strategies as st

DRIVE = parse_drive("tank:vm-100-disk-0,serial=a%2Cb,size=1G")
SWITCH = Journal({Slot("scsi", 1): DRIVE})
FULL = Journal({Slot("scsi", 1): DRIVE, Slot("virtio", 0): parse_drive("none,media=cdrom")}, start=True)
NOTE = '<!-- diskwright: {"switch": {"scsi1": "tank:vm-100-disk-0,serial=a%2Cb,size=1G"}} -->'


@pytest.mark.parametrize(
    ("notes", "written"),
    [
        (None, NOTE),
        ("", NOTE),
        ("web server", f"web server\n{NOTE}"),
        ("# Web\n\nserver\n", f"# Web\n\nserver\n\n{NOTE}"),
    ],
)
def test_notes_stay_and_come_back(notes: str | None, written: str) -> None:
    assert write_journal(notes, SWITCH) == written
    assert read_journal(written) == SWITCH
    assert write_journal(written, Journal()) == (notes or "")


@pytest.mark.parametrize("journal", [SWITCH, FULL, Journal(start=True)])
def test_written_journals_are_read_back(journal: Journal) -> None:
    assert read_journal(write_journal("notes", journal)) == journal
    assert bool(journal)


def test_journal_replaces_the_one_before() -> None:
    notes = write_journal(write_journal("notes", FULL), SWITCH)
    assert notes == f"notes\n{NOTE}"


@pytest.mark.parametrize(
    "notes",
    [
        None,
        "",
        "notes",
        "<!-- diskwright: {broken} -->",
        f'<!-- diskwright: {{"switch": {"[" * 3000}{"]" * 3000}}} -->',
        '<!-- diskwright: {"switch": {"scsi1": ""}} -->',
        '<!-- diskwright: {"switch": ["scsi1"]} -->',
        '<!-- diskwright: {"start": "yes"} -->',
        '<!-- diskwright: {"switch": {"nvme0": "tank:vm-100-disk-0"}} -->',
    ],
)
def test_nothing_or_something_damaged_is_an_empty_journal(notes: str | None) -> None:
    assert not read_journal(notes)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=40))
def test_any_notes_survive(notes: str) -> None:
    assert write_journal(write_journal(notes, FULL), Journal()) == notes
