# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Slots: the places where a drive can be, ``scsi0``, ``virtio3``, ``efidisk0``, ``unused12``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from .errors import ParseError

#: How many slots each bus has. Source: qemu-server 9.2.6, PVE/QemuServer/Drive.pm (MAX_*_DISKS).
SLOT_COUNT = MappingProxyType(
    {"ide": 4, "sata": 6, "scsi": 31, "virtio": 16, "efidisk": 1, "tpmstate": 1, "unused": 256}
)
#: The buses that a guest's ordinary drives hang on.
DISK_BUSES = ("ide", "sata", "scsi", "virtio")
_SLOT = re.compile(r"(?P<bus>ide|sata|scsi|virtio|efidisk|tpmstate|unused)(?P<index>0|[1-9][0-9]{0,2})")


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One slot. Sorted by bus and number, so that ``scsi2`` comes before ``scsi10``."""

    bus: str
    index: int

    def __str__(self) -> str:
        return f"{self.bus}{self.index}"

    @property
    def is_unused(self) -> bool:
        """Whether this is an ``unusedN`` entry, where PVE keeps volumes that no slot uses."""
        return self.bus == "unused"

    @property
    def is_firmware(self) -> bool:
        """Whether this is ``efidisk0`` or ``tpmstate0``."""
        return self.bus in ("efidisk", "tpmstate")


@lru_cache(maxsize=1024)  # every guest of a cluster has the same few keys
def find_slot(text: str) -> Slot | None:
    """Read the name of a slot that exists in PVE, or ``None``: used to pick drives out of a configuration."""
    match = _SLOT.fullmatch(text)
    if match is None or int(match["index"]) >= SLOT_COUNT[match["bus"]]:
        return None
    return Slot(match["bus"], int(match["index"]))


def parse_slot(text: str) -> Slot:
    """Read the name of a slot.

    :raises ParseError: when there is no such slot; the text names what there is.
    """
    slot = find_slot(text)
    if slot is not None:
        return slot
    match = re.fullmatch(r"([a-z]+)\d+", text)
    count = SLOT_COUNT.get(match[1]) if match else None
    if match and count:
        names = f"{match[1]}0" if count == 1 else f"{match[1]}0 to {match[1]}{count - 1}"
        raise ParseError(f"slot '{text}' does not exist; {match[1]} has {names}")
    names = ", ".join(f"{bus}0-{count - 1}" if count > 1 else f"{bus}0" for bus, count in SLOT_COUNT.items())
    raise ParseError(f"slot '{text}' does not exist; the slots are {names}")
