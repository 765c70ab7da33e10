# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""From what guests are to what an inventory would declare of them: the way back from facts to a layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from .errors import ParseError
from .options import TABLE, Option
from .size import format_pve_size
from .slot import Slot, parse_slot

Data = Mapping[str, object]
_TEMPLATE = re.compile(r"\{[{%#]")


def declare_guests(guests: Iterable[Data]) -> dict[str, dict[str, object]]:
    """The variables of each guest's host, which declare its disks as they are.

    :param guests: ``guests`` as the module ``guest_disks_info`` returns them. Templates, whose disks nobody may change,
        and guests that could not be read are left out.
    :returns: variables by host: the guest's name, with its number where two have the same or it has none.
    :raises ParseError: a guest that the module did not return so.
    """
    readable = [guest for guest in guests if "error" not in guest and guest.get("status") != "template"]
    names = Counter(str(guest.get("name") or "") for guest in readable)
    hosts: dict[str, dict[str, object]] = {}
    for guest in readable:
        variables, host = _variables(guest), _host(guest, names)
        while host in hosts:  # a guest may be called what another one got for its name and number
            host = f"{host}-{guest['vmid']}"
        hosts[host] = variables
    return hosts


def _host(guest: Data, names: Mapping[str, int]) -> str:
    name = str(guest.get("name") or "")
    if not name:
        return f"vm{guest['vmid']}"
    return name if names[name] == 1 else f"{name}-{guest['vmid']}"


def _variables(guest: Data) -> dict[str, object]:
    drives = guest.get("drives")
    whole = isinstance(drives, Mapping) and all(isinstance(drive, Mapping) for drive in drives.values())
    if not isinstance(drives, Mapping) or not whole or "vmid" not in guest:
        raise ParseError("a guest has no 'vmid' and 'drives'; give the guests that guest_disks_info returns")
    disks = {str(slot): _disk(parse_slot(str(slot)), drive) for slot, drive in drives.items()}
    settings = {"proxmox_disks_scsihw": guest["scsihw"]} if guest.get("scsihw") else {}
    kept = {slot: words for slot, words in disks.items() if not any(map(_is_template, words.values()))}
    return {"proxmox_vmid": guest["vmid"], **settings, "proxmox_disks": kept}


def _is_template(value: object) -> bool:
    """Whether Ansible would compute with a text that is only a name. Such a drive is not declared, and so kept."""
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def _disk(slot: Slot, drive: Data) -> dict[str, object]:
    return {**_content(slot, drive), **_options(slot, drive)}


def _content(slot: Slot, drive: Data) -> dict[str, object]:
    """Where a drive's content is: what would be made again if it were lost, and what would be moved or grown."""
    if drive["media"] == "cdrom":
        return {"iso": drive["volume"]}
    if drive["media"] == "cloudinit":
        return {"cloudinit": True, "storage": drive["storage"]}
    if not drive.get("storage"):
        return {"volume": drive["volume"]}  # a disk of the node that is passed through
    words = {"storage": drive["storage"]}
    if slot.is_firmware:
        return words  # the firmware decides format and size
    if isinstance(size := drive.get("size"), int):
        words["size"] = format_pve_size(size)
    return words | ({"format": drive["format"]} if drive.get("format") else {})


def _options(slot: Slot, drive: Data) -> dict[str, object]:
    """Options that can be declared. What this version does not know stays at the drive all the same."""
    options = drive.get("options")
    known = options if isinstance(options, Mapping) else {}
    return {
        name.replace("-", "_"): known[name]
        for name, row in sorted(TABLE.items())
        if name in known and slot.bus in row.buses and _is_allowed(row, known[name])
    }


def _is_allowed(row: Option, value: object) -> bool:
    try:
        row.canonical(value)
    except ParseError:
        return False
    return True
