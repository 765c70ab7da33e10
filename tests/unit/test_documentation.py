# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that is made from tables says what the tables say."""

from __future__ import annotations

from tools import drive_fragment


def test_the_drive_fragment_is_made_from_the_tables() -> None:
    written = (drive_fragment.ROOT / "plugins" / "doc_fragments" / "_drive.py").read_text()
    assert written == drive_fragment.fragment(), "run: python tests/tools/drive_fragment.py"
