# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From an inventory to the declaration of many guests."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError

if t.TYPE_CHECKING:
    from collections.abc import Callable

_NAME = "diskwright.proxmox.guest_layouts"
_DISKS = "proxmox_disks"
_LAYER = f"{_DISKS}__"
# The group in which the inventory plugin of community.proxmox puts the nodes.
_NODES = "proxmox_nodes"
_NEED = "proxmox_need"
_SETTINGS = ("scsihw", "boot", "undeclared", "power", "revert_leftovers")


def guest_layouts(hostvars: Mapping[str, Mapping[str, t.Any]], hosts: Iterable[str]) -> list[dict[str, t.Any]]:
    """The ``guests`` of the module ``guest_disks`` for the hosts that declare disks, in their order."""
    if not isinstance(hostvars, Mapping) or isinstance(hosts, (str, bytes)) or not isinstance(hosts, Iterable):
        raise AnsibleFilterError(
            f"{_NAME}: it takes the variables of hosts and a list of names; write hostvars | {_NAME}(hosts)"
        )
    return [layout for host in hosts if (layout := _layout(str(host), _variables(hostvars, host)))]


def _variables(hostvars: Mapping[str, t.Any], host: t.Any) -> Mapping[str, t.Any]:
    variables = hostvars[host] if isinstance(host, str) and host in hostvars else None
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError(f"{_NAME}: the inventory has no host '{host}'")
    return variables


def _layout(host: str, variables: Mapping[str, t.Any]) -> dict[str, t.Any] | None:
    """One host's declaration; ``None`` for a host that declares none, or that is a container."""
    disks = _merged(host, variables)
    settings = {name: variables[f"{_DISKS}_{name}"] for name in _SETTINGS if f"{_DISKS}_{name}" in variables}
    if (not disks and not settings) or not _is_guest(variables):
        return None
    vmid = variables.get("proxmox_vmid")
    if vmid is not None and not re.fullmatch("[0-9]{1,9}", str(vmid).strip()):
        raise AnsibleFilterError(f"{_NAME}: {host}: proxmox_vmid: '{vmid}' is no number of a guest")
    who = {"vmid": int(str(vmid))} if vmid is not None else {"name": variables.get("proxmox_name") or host}
    facts = _facts(host, variables)
    if facts:
        settings["facts"] = facts
    return {**who, **settings, "disks": [{"slot": slot, **options} for slot, options in disks.items()]}


def _facts(host: str, variables: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What a host says for a policy: its need by itself, the other groups together."""
    facts = dict(_mapping(host, f"{_DISKS}_facts", variables.get(f"{_DISKS}_facts")))
    if variables.get(_NEED):
        said = _mapping(host, f"{_DISKS}_facts: need", facts.get("need"))
        facts["need"] = {**said, **_mapping(host, _NEED, variables[_NEED])}
    return facts


def _mapping(host: str, name: str, value: t.Any) -> Mapping[str, t.Any]:
    if value is None or isinstance(value, Mapping):
        return value or {}
    raise AnsibleFilterError(f"{_NAME}: {host}: {name}: '{value}' is no dictionary")


def _is_guest(variables: Mapping[str, t.Any]) -> bool:
    """Whether a host may be a virtual machine; containers and nodes are what the inventory plugin tells as such."""
    return variables.get("proxmox_vmtype", "qemu") == "qemu" and _NODES not in (variables.get("group_names") or ())


def _merged(host: str, variables: Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """The layers of a host's disks on top of each other: by name, and the one without a suffix last."""
    layers = sorted(name for name in variables if str(name).startswith(_LAYER))
    layers += [_DISKS] if _DISKS in variables else []
    disks: dict[str, dict[str, t.Any]] = {}
    for name in layers:
        for slot, options in _checked(host, name, variables[name]).items():
            disks[slot] = {**disks.get(slot, {}), **options}
    return disks


def _checked(host: str, name: str, layer: t.Any) -> dict[str, dict[str, t.Any]]:
    if not isinstance(layer, Mapping):
        raise AnsibleFilterError(
            f"{_NAME}: {host}: {name} is no dictionary of slots; write for example "
            f"{name}: {{scsi0: {{storage: local-lvm, size: 32G}}}}"
        )
    for slot, options in layer.items():
        if not isinstance(options, Mapping):
            raise AnsibleFilterError(
                f"{_NAME}: {host}: {name}: {slot} is no dictionary; write for example "
                f"{slot}: {{storage: local-lvm, size: 32G}}"
            )
    # Arguments have underscores; an inventory may also have PVE's own spelling of pre-enrolled-keys and ms-cert.
    return {
        str(slot): {str(name).replace("-", "_"): value for name, value in options.items()}
        for slot, options in layer.items()
    }


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """What Ansible asks for."""
        return {"guest_layouts": guest_layouts}
