# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``guest_create``: from its parameters to its result."""

from __future__ import annotations

import typing as t
from dataclasses import asdict

from .._core.definition import FIRMWARES, NIC_MODELS, OSTYPES, read_definition
from .._core.layout import CONTROLLERS
from .._pve.creation import Creation, GuestRefusedError
from .runner import Result

if t.TYPE_CHECKING:
    from .._core.definition import Definition
    from .._pve.client import Client
    from .._pve.creation import Made

_NIC = {
    "slot": {"type": "str", "required": True},
    "model": {"type": "str", "default": "virtio", "choices": list(NIC_MODELS)},
    "macaddr": {"type": "str"},
    "bridge": {"type": "str"},
    "tag": {"type": "int"},
    "firewall": {"type": "bool"},
    "link_down": {"type": "bool"},
    "mtu": {"type": "int"},
    "queues": {"type": "int"},
    "rate": {"type": "float"},
    "trunks": {"type": "str"},
}


def create_spec() -> dict[str, dict[str, t.Any]]:
    """The arguments of the module."""
    return {
        "vmid": {"type": "int"},
        "name": {"type": "str"},
        "node": {"type": "str", "required": True},
        "memory": {"type": "int"},
        "cores": {"type": "int"},
        "sockets": {"type": "int"},
        "cpu": {"type": "str"},
        "ostype": {"type": "str", "choices": list(OSTYPES)},
        "bios": {"type": "str", "choices": list(FIRMWARES)},
        "machine": {"type": "str"},
        "scsihw": {"type": "str", "choices": list(CONTROLLERS)},
        "agent": {"type": "str"},
        "tags": {"type": "list", "elements": "str"},
        "description": {"type": "str"},
        "onboot": {"type": "bool"},
        "net": {"type": "list", "elements": "dict", "options": _NIC},
        "pool": {"type": "str"},
    }


class GuestCreate:
    """Makes a guest that is not there."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        self._definition, refusals = read_definition(params)
        if refusals:
            raise GuestRefusedError(refusals)
        self._creation = Creation(client, self._definition, float(params["task_timeout"]))

    def prepare(self) -> None:
        """Look whether it is there, and whether it can be made."""
        self._creation.prepare()

    def execute(self) -> None:
        """Make it."""
        self._creation.execute()

    def result(self, *, executed: bool) -> Result:  # noqa: ARG002 - the same in both modes
        """The guest, and what it has otherwise than declared."""
        made = t.cast("Made", self._creation.made)
        data = {"vmid": made.vmid, "name": made.name, "node": made.node}
        different = {name: asdict(one) for name, one in sorted(made.different.items())}
        diff = _diff_text(self._definition) if made.created else ""
        return Result(data={**data, "different": different}, changed=made.created, diff=diff)


def _diff_text(definition: Definition) -> str:
    """What is made, the same with and without check mode, so without a number that PVE has still to choose."""
    texts = definition.texts
    number = str(definition.vmid or "next free number")
    width = max(map(len, texts), default=0)
    lines = [f"{definition.name or definition.vmid} ({number} on {definition.node}, new)"]
    return "\n".join([*lines, *(f"  + {name:<{width}}  {text}" for name, text in texts.items())]) + "\n"
