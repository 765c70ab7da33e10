# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of where something was measured, as JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.environment import (
    Device,
    Environment,
    PlaceRecord,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError

DISK = Device("nvme0n1", "Fast 980", "3B2", rotational=False, write_cache="write back", scheduler="none", size=10**12)
PLACE = PlaceRecord("local", "dir", (("path", "/var/lib/vz"),), "ext4", 10**11, None, (DISK,))
HERE = Environment("pve1", "9.1.2", "10.1.2", "9.1.1", "6.17.4-1-pve", "fio-3.39", "6.17.4-1-pve", "kvm", "A CPU", 8,
                   2**34, 0.05, "blockdev", "120: as expected", (PLACE,))  # fmt: skip


def test_as_json_and_back() -> None:
    assert Environment.from_json(json.loads(json.dumps(HERE.as_json()))) == HERE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node": 1}, "environment.node: 1 is not of its kind, str"),
        ({"load": "much"}, "environment.load: 'much' is not of its kind, float"),
        ({"nodes": 1}, "environment: there is no nodes; there are node, "),
        ({"places": 3}, "environment.places: it is no list"),
        ({"places": [{"name": "x"}]}, "environment.places[0]: type is missing"),
        ({"places": [{"name": "x", "type": "dir", "options": []}]}, "environment.places[0]: options is no table"),
        ({"places": [{"name": "x", "type": "dir", "devices": [{"name": "a", "rotational": 1}]}]},
         "environment.places[0].devices[0].rotational: 1 is not of its kind, bool | None"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_by_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParseError) as caught:
        Environment.from_json({**HERE.as_json(), **change})
    assert str(caught.value).startswith(message)


def test_something_missing() -> None:
    data = HERE.as_json()
    del data["qemu"], data["fio"]
    with pytest.raises(ParseError, match="^environment: qemu, fio is missing$"):
        Environment.from_json(data)
