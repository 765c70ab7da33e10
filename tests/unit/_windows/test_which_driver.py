# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guide to the driver ISOs says what the table says, and its example is one that the module takes."""

from __future__ import annotations

import importlib
import re

import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import ISOS, TABLE
from tools import windows_table

MODULE = "ansible_collections.diskwright.proxmox.plugins.modules.storage_file"


def test_the_page_is_made_from_the_table() -> None:
    assert windows_table.PAGE.read_text("utf-8") == windows_table.page(), "run: .venv/bin/nox -s generate"


def test_every_release_and_every_iso_is_on_the_page() -> None:
    text = windows_table.page()
    assert [row.title for row in TABLE.values() if f"**{row.title}**" not in text] == []
    assert [iso.version for iso in ISOS.values() if iso.url not in text] == []
    assert [row.key for row in TABLE.values() if row.because not in text] == []
    assert [iso.version for iso in ISOS.values() if iso.defect not in text] == []


def test_the_example_is_one_that_the_module_takes() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", windows_table.page(), re.DOTALL)
    (task,) = yaml.safe_load(block)
    options = yaml.safe_load(importlib.import_module(MODULE).DOCUMENTATION)["options"]
    given = task["diskwright.proxmox.storage_file"]
    assert set(given) <= set(options)
    assert given["virtio_win"] in ISOS
