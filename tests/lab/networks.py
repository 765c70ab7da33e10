# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network cards: only as much as a guest with disks needs, which is an address of its own."""

from __future__ import annotations

import random

from fakepve.qemu import NET_MODELS


def parts(value: str) -> tuple[str, str | None, dict[str, str]]:
    """Model, MAC address and options of a netN value."""
    model, mac, options = "", None, {}
    for part in value.split(","):
        key, _, text = part.partition("=")
        if key in NET_MODELS:
            model, mac = key, text or None
        elif key == "model":
            model = text
        elif key == "macaddr":
            mac = text
        elif part:
            options[key] = text
    return model, mac, options


def with_mac(value: str, source: random.Random, fresh: bool = False) -> str:
    """The value as PVE writes it: model and address first, options sorted; `fresh` changes the address."""
    model, mac, options = parts(value)
    if mac is None or fresh:
        mac = "BC:24:11:" + ":".join(f"{source.randrange(256):02X}" for _ in range(3))
    return ",".join([f"{model}={mac.upper()}", *(f"{key}={options[key]}" for key in sorted(options))])
