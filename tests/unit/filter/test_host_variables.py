# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every variable of a host that the role looks at is in the guide and in the role's documentation."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.filter import layouts
from tools.checkout import TOP

SETTINGS = [f"proxmox_disks_{name}" for name in (*layouts._SETTINGS, "facts")]
VARIABLES = ["proxmox_vmid", "proxmox_name", "proxmox_need", "proxmox_disks", *SETTINGS]


@pytest.mark.parametrize("name", VARIABLES)
def test_it_is_documented(name: str) -> None:
    guide = (TOP / "docs" / "declaring.rst").read_text("utf-8")
    table = guide.partition(".. list-table::")[2].partition("\n----")[0]
    role = (TOP / "roles" / "guest_disks" / "README.md").read_text("utf-8")
    assert f"``{name}``" in table
    assert f"`{name}`" in role
