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
property_string = fake._property_string
registered = fake.registered
parse_boolean = fake.parse_boolean

BOOT_DEVICE = re.compile(r"ide[0-3]|sata[0-5]|scsi([0-9]|[12][0-9]|30)|virtio([0-9]|1[0-5])|net\d+|usb\d+|hostpci\d+")


def _boot_device(text: str) -> str | None:
    return None if BOOT_DEVICE.fullmatch(text) else f"invalid boot device '{text}'"


formats.NAMED["pve-qm-bootdev"] = _boot_device


@functools.lru_cache(maxsize=None)
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
