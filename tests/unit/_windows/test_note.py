# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a migration in a guest's notes: what is written is read, and what the user wrote stays."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.journal import Journal as OtherJournal
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.journal import read_journal, write_journal
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.note import (
    Guard,
    Journal,
    Phase,
    UnreadableNoteError,
    read_note,
    write_note,
)
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
KEYS = st.dictionaries(st.sampled_from(["sata0", "scsi0", "boot", "scsihw"]), st.none() | TEXTS, max_size=4)
GUARDS = st.builds(
    Guard,
    bitlocker=st.lists(TEXTS, max_size=2).map(tuple),
    fast_startup=st.none() | st.booleans(),
    san_policy=st.none() | TEXTS,
    online=st.lists(TEXTS, max_size=2).map(tuple),
    letters=st.dictionaries(TEXTS, TEXTS, max_size=2),
    controllers=st.lists(TEXTS, max_size=2).map(tuple),
)
JOURNALS = st.builds(
    Journal,
    phase=st.sampled_from([phase for phase in Phase if phase is not Phase.ROLLED_BACK]),
    before=KEYS,
    after=KEYS,
    driver=TEXTS,
    equipment=KEYS,
    online=st.booleans(),
    ran=st.booleans(),
    answered=st.booleans(),
    snapshot=TEXTS,
    proof=TEXTS,
    guard=st.none() | GUARDS,
    helper=TEXTS,
    settled=st.booleans(),
    switched=st.booleans(),
    reason=TEXTS,
)
NOTES = st.sampled_from(["", "notes of mine", "two\nlines", "ends with a break\n", "<!-- a comment -->", "-->"])


@given(JOURNALS, NOTES)
def test_what_is_written_is_read_and_the_users_words_stay(journal: Journal, notes: str) -> None:
    written = write_note(notes, journal)
    assert read_note(written) == journal
    assert write_note(written, None) == notes
    assert written.startswith(notes)
    assert written.count("-->") == notes.count("-->") + 1


@given(JOURNALS, JOURNALS, NOTES)
def test_one_journal_takes_the_place_of_another(first: Journal, second: Journal, notes: str) -> None:
    assert write_note(write_note(notes, first), second) == write_note(notes, second)


@given(JOURNALS, NOTES)
def test_the_journal_of_guest_disks_beside_it(journal: Journal, notes: str) -> None:
    """Neither takes the other's for its own."""
    both = write_journal(write_note(notes, journal), OtherJournal(start=True))
    assert (read_note(both), read_journal(both)) == (journal, OtherJournal(start=True))
    assert write_note(both, None).lstrip("\n") == write_journal(notes, OtherJournal(start=True)).lstrip("\n")
    assert write_journal(both, OtherJournal()) == write_note(notes, journal)


def test_what_is_left_of_a_migration_that_was_rolled_back() -> None:
    ended = Journal(Phase.ROLLED_BACK, {"sata0": "a:b"}, {"sata0": None}, reason="it did not answer")
    assert read_note(write_note("", ended)) == Journal(Phase.ROLLED_BACK, {}, {}, reason="it did not answer")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"v":0,"phase":"prepare","before":{},"after":{}}', '{"v":1,"phase":"dance"}',
     '{"v":1,"phase":"prepare","before":{"sata0":7},"after":{}}', '{"v":1,"phase":"prepare","before":{}}'],
)  # fmt: skip
def test_a_journal_that_was_edited_is_an_error(text: str) -> None:
    """Nobody knows where such a guest stands, so it must not count as one without a journal."""
    with pytest.raises(UnreadableNoteError, match="look which slot its disks are in"):
        read_note(f"notes\n<!-- diskwright-windows: {text} -->")


def test_no_journal() -> None:
    assert read_note(None) is read_note("") is read_note("<!-- diskwright: {} -->") is None


def test_the_journal_of_a_newer_version_is_not_taken_for_an_edited_one() -> None:
    with pytest.raises(UnreadableNoteError, match=r"its format is 2, and 1 is known\); update the collection$"):
        read_note('<!-- diskwright-windows: {"v":2,"phase":"prepare","before":{},"after":{}} -->')
