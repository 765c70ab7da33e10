# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From inventories to migrations of Windows guests."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.diskwright.proxmox.plugins.filter.windows import (
    windows_guests,
    windows_isos,
    windows_release,
    windows_wishes,
)

STANDINGS = [
    {"vmid": 122, "name": "win1", "virtio_win": "0.1.271"},
    {"vmid": 123, "name": "old1", "virtio_win": "0.1.173"},
    {"vmid": 124, "name": "none1", "virtio_win": None},
]


def test_a_guest_is_found_by_number_then_by_name_then_by_the_inventorys_name() -> None:
    hostvars = {
        "a": {"proxmox_vmid": "7", "proxmox_windows": {"staging": "offline"}},
        "b": {"proxmox_name": "bee"},
        "c": {},
        "ct1": {"proxmox_vmtype": "lxc"},
        "pve1": {"group_names": ["proxmox_nodes"]},
    }
    assert windows_guests(hostvars, hostvars) == [{"vmid": 7, "staging": "offline"}, {"name": "bee"}, {"name": "c"}]


def test_what_a_host_says_must_be_a_dictionary() -> None:
    with pytest.raises(AnsibleFilterError, match="win1: proxmox_windows is no dictionary; write for example"):
        windows_guests({"win1": {"proxmox_windows": "offline"}}, ["win1"])


def test_each_windows_gets_the_iso_of_its_release_unless_it_names_one() -> None:
    guests = [{"name": "win1"}, {"vmid": 123, "iso": "nfs:iso/mine.iso"}, {"name": "web1"}, {"name": "none1"}]
    assert windows_wishes(guests, STANDINGS, "local", {"122": ["vioscsi"]}) == [
        {"name": "win1", "iso": "local:iso/virtio-win-0.1.271.iso", "injected": ["vioscsi"]},
        {"vmid": 123, "iso": "nfs:iso/mine.iso"},
        {"name": "none1"},
    ]
    assert windows_wishes([{"name": "win1"}], STANDINGS) == [{"name": "win1"}]


def test_an_iso_is_needed_once_on_each_node_by_those_that_get_somewhere() -> None:
    forecasts = [
        {"vmid": 122, "name": "win1", "node": "pve1", "state": "committed"},
        {"vmid": 125, "name": "win2", "node": "pve1", "state": "needs_offline_staging"},
        {"vmid": 126, "name": "win3", "node": "pve2", "state": "needs_verdict"},
        {"vmid": 127, "name": "win4", "node": "pve3", "state": "refused"},
        {"vmid": 128, "name": "win5", "node": "pve3", "state": "rolled_back"},
        {"vmid": 129, "name": "win6", "node": "pve3", "state": "committed"},
        {"vmid": 124, "name": "none1", "node": "pve3", "state": "committed"},
        {"vmid": 130, "name": "gone1", "state": "stuck"},
    ]
    guests = [{"vmid": 129, "iso": "nfs:iso/mine.iso"}, {"name": "win1"}]
    standings = [*STANDINGS, *({"vmid": vmid, "virtio_win": "0.1.271"} for vmid in range(125, 131))]
    assert windows_isos(forecasts, guests, standings) == [
        {"node": "pve1", "virtio_win": "0.1.271", "vmids": [122, 125]},
        {"node": "pve2", "virtio_win": "0.1.271", "vmids": [126]},
    ]


def test_what_a_release_takes_comes_from_the_table() -> None:
    found = windows_release(2022)
    assert (found["ostype"], found["folder"], found["virtio_win"]) == ("win11", "2k22", "0.1.271")
    with pytest.raises(AnsibleFilterError, match="'2024' is not known; known are xp, "):
        windows_release("2024")
