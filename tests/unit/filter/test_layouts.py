# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what inventories say of hosts to one declaration of many guests."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.diskwright.proxmox.plugins.filter.layouts import guest_layouts


def test_layers_are_merged_below_the_hosts_own_dictionary() -> None:
    hostvars = {
        "db1": {
            "proxmox_vmid": 120,
            "proxmox_disks__b": {"scsi0": {"cache": "writeback", "ssd": True}},
            "proxmox_disks__a": {"scsi0": {"cache": "unsafe", "iothread": True}, "scsi9": {"size": 1}},
            "proxmox_disks": {"scsi0": {"cache": "none"}},
        }
    }
    scsi0 = {"slot": "scsi0", "cache": "none", "ssd": True, "iothread": True}
    assert guest_layouts(hostvars, ["db1"]) == [{"vmid": 120, "disks": [scsi0, {"slot": "scsi9", "size": 1}]}]


def test_a_guest_is_found_by_number_then_by_name_then_by_the_inventorys_name() -> None:
    disks = {"proxmox_disks": {"scsi0": {}}}
    hostvars = {"a": {"proxmox_vmid": "7", **disks}, "b": {"proxmox_name": "bee", **disks}, "c": disks}
    assert [{k: v for k, v in guest.items() if k != "disks"} for guest in guest_layouts(hostvars, list("abc"))] == [
        {"vmid": 7},
        {"name": "bee"},
        {"name": "c"},
    ]


def test_what_the_inventory_plugin_of_community_proxmox_adds_is_no_guest() -> None:
    disks = {"proxmox_disks__base": {"scsi0": {"cache": "none"}}}
    hostvars = {
        "db1": {"proxmox_vmid": 120, "proxmox_vmtype": "qemu", "group_names": ["proxmox_all_qemu"], **disks},
        "ct1": {"proxmox_vmid": 200, "proxmox_vmtype": "lxc", **disks},
        "pve1": {"group_names": ["proxmox_nodes"], **disks},
        "nothing": {"proxmox_vmid": 1},
    }
    assert [guest["vmid"] for guest in guest_layouts(hostvars, list(hostvars))] == [120]


def test_the_other_options_of_a_guest_and_pves_own_spellings() -> None:
    hostvars = {
        "a": {
            "proxmox_disks_boot": ["scsi0"],
            "proxmox_disks": {"efidisk0": {"pre-enrolled-keys": True, "ms-cert": 2023}},
        }
    }
    efidisk = {"slot": "efidisk0", "pre_enrolled_keys": True, "ms_cert": 2023}
    assert guest_layouts(hostvars, ["a"]) == [{"name": "a", "boot": ["scsi0"], "disks": [efidisk]}]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (["scsi0"], "a: proxmox_disks is no dictionary of slots; write for example proxmox_disks: {scsi0: {sto"),
        ({"scsi0": "local-lvm:32"}, "a: proxmox_disks: scsi0 is no dictionary; write for example scsi0: {storage"),
    ],
)
def test_a_wrong_shape_is_named(layer: object, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        guest_layouts({"a": {"proxmox_disks": layer}}, ["a"])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"proxmox_vmid": "db1"}, "a: proxmox_vmid: 'db1' is no number of a guest"),
        ({"proxmox_vmid": True}, "a: proxmox_vmid: 'True' is no number of a guest"),
        ({"proxmox_need": "database"}, "a: proxmox_need: 'database' is no dictionary"),
        ({"proxmox_disks_facts": ["guest"]}, "a: proxmox_disks_facts: .* is no dictionary"),
        ({"proxmox_need": {"workload": "database"}, "proxmox_disks_facts": {"need": 1}}, "need: '1' is no dictionary"),
    ],
)
def test_a_wrong_variable_is_named(variables: dict[str, object], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        guest_layouts({"a": {"proxmox_disks": {"scsi0": {}}, **variables}}, ["a"])


def test_hosts_that_there_are_not_and_what_is_no_list_of_hosts() -> None:
    with pytest.raises(AnsibleFilterError, match="the inventory has no host 'b'"):
        guest_layouts({"a": {}}, ["b"])
    with pytest.raises(AnsibleFilterError, match="it takes the variables of hosts and a list of names"):
        guest_layouts({"a": {}}, "a")
