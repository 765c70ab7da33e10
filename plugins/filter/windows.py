# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters for Windows guests: from an inventory to those that are to be migrated, and what each release takes."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ..module_utils._windows.releases import TABLE

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_VARIABLE = "proxmox_windows"
# The group in which the inventory plugin of community.proxmox puts the nodes.
_NODES = "proxmox_nodes"
# How a migration is foretold to end that is not refused, is not turned back, and has something to do.
_GOING = ("committed", "needs_offline_staging", "needs_verdict")


def windows_guests(hostvars: Mapping[str, Mapping[str, t.Any]], hosts: Iterable[str]) -> list[dict[str, t.Any]]:
    """The ``guests`` of the module ``windows_migrate`` for hosts of an inventory, in their order."""
    return [_guest(str(host), hostvars[host]) for host in hosts if _is_guest(hostvars[host])]


def windows_wishes(
    guests: Iterable[Mapping[str, t.Any]],
    standings: Iterable[Mapping[str, t.Any]],
    iso_storage: str = "",
    injected: Mapping[t.Any, list[str]] | None = None,
) -> list[dict[str, t.Any]]:
    """Of these guests those that are a Windows, each with the driver ISO for its release.

    :param standings: what the module ``windows_migrate_info`` returns.
    :param iso_storage: where the ISOs are; empty to name none.
    :param injected: drivers that were put into a stopped guest's disk, by number.
    """
    known = {key: one for one in standings for key in (one["vmid"], one["name"])}
    done = {str(vmid): drivers for vmid, drivers in (injected or {}).items()}
    found = []
    for guest in guests:
        one = known.get(guest.get("vmid", guest.get("name")))
        if one is None:
            continue
        wishes = dict(guest)
        if iso_storage and one.get("virtio_win"):
            wishes.setdefault("iso", f"{iso_storage}:iso/virtio-win-{one['virtio_win']}.iso")
        if str(one["vmid"]) in done:
            wishes["injected"] = done[str(one["vmid"])]
        found.append(wishes)
    return found


def windows_isos(
    forecasts: Iterable[Mapping[str, t.Any]],
    guests: Iterable[Mapping[str, t.Any]],
    standings: Iterable[Mapping[str, t.Any]],
) -> list[dict[str, t.Any]]:
    """The driver ISOs that a migration takes, each once for each node, with the guests that take it.

    :param forecasts: what the module ``windows_migrate`` returns in check mode.
    :param guests: what it was asked for, before ``windows_wishes``; those that name an ISO take that one.
    :param standings: what the module ``windows_migrate_info`` returns.
    """
    versions = {one["vmid"]: one.get("virtio_win") for one in standings}
    own = {guest.get("vmid", guest.get("name")) for guest in guests if guest.get("iso")}
    takers: dict[tuple[str, str], list[int]] = {}
    for one in forecasts:
        version = versions.get(one["vmid"])
        if version and one["state"] in _GOING and own.isdisjoint((one["vmid"], one["name"])):
            takers.setdefault((one["node"], version), []).append(one["vmid"])
    return [{"node": node, "virtio_win": version, "vmids": vmids} for (node, version), vmids in takers.items()]


def _guest(host: str, variables: Mapping[str, t.Any]) -> dict[str, t.Any]:
    wishes = variables.get(_VARIABLE) or {}
    if not isinstance(wishes, Mapping):
        raise AnsibleFilterError(
            f"diskwright.proxmox.windows_guests: {host}: {_VARIABLE} is no dictionary; write for example "
            f"{_VARIABLE}: {{staging: offline}}"
        )
    vmid = variables.get("proxmox_vmid")
    who = {"vmid": int(vmid)} if vmid is not None else {"name": variables.get("proxmox_name") or host}
    return {**who, **wishes}


def _is_guest(variables: Mapping[str, t.Any]) -> bool:
    """Whether a host may be a virtual machine; containers and nodes are what the inventory plugin tells as such."""
    return variables.get("proxmox_vmtype", "qemu") == "qemu" and _NODES not in variables.get("group_names", ())


def windows_release(key: t.Any) -> dict[str, t.Any]:
    """What a release of Windows takes.

    :param key: its key in the table of releases, for example ``2022``.
    """
    row = TABLE.get(str(key))
    if row is None:
        raise AnsibleFilterError(
            f"diskwright.proxmox.windows_release: '{key}' is not known; known are {', '.join(TABLE)}"
        )
    return {
        "title": row.title,
        "ostype": row.ostype,
        "folder": row.folder,
        "architectures": list(row.architectures),
        "buses": list(row.buses),
        "virtio_win": row.iso,
        "because": row.because,
    }


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """What Ansible asks for."""
        return {
            "windows_guests": windows_guests,
            "windows_isos": windows_isos,
            "windows_release": windows_release,
            "windows_wishes": windows_wishes,
        }
