# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: guests, and the playbooks that declare their disks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DISKS_PER_GUEST = 4
FIRST = 1000
NODE = "pve1"

Declaration = list[dict[str, Any]]


def seed(guests: int, *, images: bool) -> dict[str, Any]:
    """A lab of guests with four disks each; with `images` the volumes are there too."""
    return {
        "nodes": [NODE],
        "files": {},
        "images": images,
        "guests": [{"vmid": vmid, "name": f"guest{vmid}", "config": _config(vmid)} for vmid in vmids(guests)],
    }


def _config(vmid: int) -> dict[str, str]:
    disks = {
        f"scsi{number}": f"local:{vmid}/vm-{vmid}-disk-{number}.raw,cache=none,discard=on,iothread=1,size=1G,ssd=1"
        for number in range(DISKS_PER_GUEST)
    }
    return {**disks, "cores": "2", "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0"}


def vmids(guests: int) -> range:
    """The numbers of the guests."""
    return range(FIRST, FIRST + guests)


def declaration(guests: Sequence[int], **more: object) -> Declaration:
    """The disks of all guests as they are, with further options."""
    disk = {"storage": "local", "size": "1G", "cache": "none", "discard": "on", "iothread": True, "ssd": True, **more}
    return [_guest(vmid, 0, disk) for vmid in guests]


def new_disks(guests: Sequence[int], first_slot: int) -> Declaration:
    """Four more disks for each guest."""
    return [_guest(vmid, first_slot, {"storage": "local", "size": "1G"}) for vmid in guests]


def _guest(vmid: int, first_slot: int, disk: dict[str, object]) -> dict[str, Any]:
    slots = range(first_slot, first_slot + DISKS_PER_GUEST)
    return {"vmid": vmid, "disks": [{"slot": f"scsi{number}", **disk} for number in slots]}


def config_path(vmid: int) -> str:
    return f"/nodes/{NODE}/qemu/{vmid}/config"


def pending_path(vmid: int) -> str:
    return f"/nodes/{NODE}/qemu/{vmid}/pending"


def posts_for_option(guests: Sequence[int], name: str, value: str) -> dict[str, dict[str, str]]:
    """What a bare client posts to change one option of every disk."""
    return {
        config_path(vmid): {
            slot: f"{text},{name}={value}" for slot, text in _config(vmid).items() if slot.startswith("scsi")
        }
        for vmid in guests
    }


def posts_for_new(guests: Sequence[int], first_slot: int) -> dict[str, dict[str, str]]:
    """What a bare client posts to make four more disks for each guest."""
    slots = range(first_slot, first_slot + DISKS_PER_GUEST)
    return {config_path(vmid): {f"scsi{number}": "local:1" for number in slots} for vmid in guests}


def _play(tasks: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"hosts": "localhost", "gather_facts": False, "vars": dict(variables), "tasks": list(tasks)}]


def empty() -> list[dict[str, Any]]:
    """A playbook that does nothing."""
    return _play([{"ansible.builtin.meta": "noop"}], {})


def ping() -> list[dict[str, Any]]:
    """A playbook with the smallest module that there is."""
    return _play([{"ansible.builtin.ping": {}}], {})


def only_read(guests: Declaration) -> list[dict[str, Any]]:
    """A playbook that does nothing with a declaration that is written out."""
    return _play([{"ansible.builtin.meta": "noop"}], {"layout": guests})


def ours(guests: Declaration) -> list[dict[str, Any]]:
    """One task for all guests, which have the same disks: an expression makes the declaration of each.

    Written out, the same declaration takes Ansible longer to read than everything else takes.
    """
    disks, vmids = guests[0]["disks"], [guest["vmid"] for guest in guests]
    each = f"range({vmids[0]}, {vmids[-1] + 1}) | zip([disks] * {len(vmids)})"
    layout = f"{{{{ dict({each}) | dict2items(key_name='vmid', value_name='disks') }}}}"
    return _play([{"diskwright.proxmox.guest_disks": {"guests": layout}}], {"disks": disks})


def peers(guests: Declaration, disks: int) -> list[dict[str, Any]]:
    """A loop over the first disks, which is how community.proxmox is used."""
    items = [_peer_item(guest["vmid"], disk) for guest in guests for disk in guest["disks"]][:disks]
    arguments = {name: f"{{{{ item.{name} }}}}" for name in items[0]}
    task = {"community.proxmox.proxmox_disk": {**arguments, "state": "present"}, "loop": "{{ disks }}"}
    return _play([task], {"disks": items})


def _peer_item(vmid: int, disk: Mapping[str, Any]) -> dict[str, Any]:
    names = {"slot": "disk"}
    item = {names.get(name, name): value for name, value in disk.items()}
    return {"vmid": vmid, **item, "size": str(item["size"]).removesuffix("G")}
