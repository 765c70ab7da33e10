# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that is made from tables says what the tables say."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import drive_fragment, role_readme


def test_the_drive_fragment_is_made_from_the_tables() -> None:
    written = (drive_fragment.ROOT / "plugins" / "doc_fragments" / "_drive.py").read_text()
    assert written == drive_fragment.fragment(), "run: .venv/bin/nox -s generate"


@pytest.mark.parametrize("role", role_readme.roles(), ids=lambda path: path.name)
def test_the_readme_of_a_role_is_made_from_its_argument_specs(role: Path) -> None:
    assert (role / "README.md").read_text("utf-8") == role_readme.readme(role), "run: .venv/bin/nox -s generate"


def test_every_role_has_argument_specs() -> None:
    assert role_readme.roles() == sorted(path for path in role_readme.ROLES.iterdir() if path.is_dir())
