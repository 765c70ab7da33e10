# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PVE's schema as fakepve has it, with what its pinned version lacks for drives.

fakepve keeps its helpers for property strings private; the lab needs them to parse drives with the very schema that
requests are checked with, so they are named here once.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from fakepve import formats
from fakepve import schema as fake

Match = fake.Match
load = fake.load
validate = fake.validate
prop = fake._prop
registered = fake.registered
parse_boolean = fake.parse_boolean
_known_keys = fake._property_string
NOT_DEFINED = "property is not defined in schema and the schema does not allow additional properties"

BOOT_DEVICE = re.compile(r"ide[0-3]|sata[0-5]|scsi([0-9]|[12][0-9]|30)|virtio([0-9]|1[0-5])|net\d+|usb\d+|hostpci\d+")


def _boot_device(text: str) -> str | None:
    return None if BOOT_DEVICE.fullmatch(text) else f"invalid boot device '{text}'"


def property_string(sub: dict[str, Any], text: str, path: str) -> str | None:
    """What PVE 9.2 says against a property string, or None. fakepve stops at an unknown key; PVE goes on."""
    parts = text.split(",")
    unknown = [key for key, equals, value in (part.partition("=") for part in parts) if equals and value and key
               and key not in sub]
    if not unknown:
        found: str | None = _known_keys(sub, text, path)
        return found
    rest = ",".join(part for part in parts if part.partition("=")[0] not in unknown)
    why = _known_keys(sub, rest, path) or "format error\n"
    if not why.startswith("format error\n"):
        return str(why)
    return why + "".join(f"{path}.{key}: {NOT_DEFINED}\n" for key in unknown)


def _perl_patterns(node: Any) -> None:
    """Rewrites Perl's `(?^:…)`, which Python does not know, in every pattern."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            node["pattern"] = re.sub(r"\(\?\^([a-z]*):", r"(?\1:", node["pattern"])
        for value in node.values():
            _perl_patterns(value)
    elif isinstance(node, list):
        for value in node:
            _perl_patterns(value)


formats.NAMED["pve-qm-bootdev"] = _boot_device
fake._property_string = property_string
_perl_patterns(load().paths)


@functools.cache
def option_schema(key: str) -> dict[str, Any] | None:
    """The schema of a configuration option, or None when PVE has no such option."""
    extra = {"parent": "string", "vmstate": "string", "snaptime": "integer", "runningmachine": "string",
             "runningcpu": "string", "running-nets-host-mtu": "string", "meta": "string"}
    if key in extra:
        return {"type": extra[key]}
    if key in ("vmid", "node", "digest", "delete", "revert", "force", "skiplock", "background_delay",
               "import-working-storage"):
        return None
    properties = load().paths["/nodes/{node}/qemu/{vmid}/config"]["POST"]["parameters"]["properties"]
    found: dict[str, Any] | None = prop(properties, key)
    return found
