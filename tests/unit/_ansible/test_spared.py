# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations reach the core as they were written, and what AnsibleModule has to refuse it still refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.argspec import layout_spec
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.spared import SparingModule

testing = pytest.importorskip(
    "ansible.module_utils.testing", reason="ansible-core 2.18 has no way to give a module arguments in a test"
)
DISKS = [{"slot": "scsi0", "iothread": "maybe", "cahce": "none"}, {"size": 4}]


def made(**params: Any) -> SparingModule:
    with testing.patch_module_args(params):
        return SparingModule(argument_spec=layout_spec(), mutually_exclusive=[("guests", "disks")])


def test_disks_are_left_to_the_core() -> None:
    assert made(disks=DISKS).params["disks"] == DISKS
    (guest,) = made(guests=[{"vmid": "100", "disks": DISKS, "pwoer": 1}]).params["guests"]
    assert (guest["vmid"], guest["disks"], guest["pwoer"]) == (100, DISKS, 1)


def test_what_must_not_be_given_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        made(guests=[{"vmid": 100}], disks=DISKS)
    assert "mutually exclusive: guests|disks" in json.loads(capsys.readouterr().out)["msg"]
