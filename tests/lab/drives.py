# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive strings: parsing, printing, sizes, boot order.

fakepve's schema knows which option a bus takes and in which form; this module adds what PVE does with a parsed drive
(qemu-server, Drive.pm: parse_drive, print_drive; JSONSchema.pm: parse_property_string, parse_size, format_size).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab import schema as pve_schema

LIMITS = {"ide": 4, "scsi": 31, "virtio": 16, "sata": 6, "efidisk": 1, "tpmstate": 1}
"""Slots of each bus, in the order in which PVE looks for a boot disk."""
SLOTS = tuple(f"{bus}{index}" for bus, count in LIMITS.items() for index in range(count))
_SLOTS = frozenset(SLOTS)
UNUSED = re.compile(r"unused(?:[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])")
NEW_DISK = re.compile(r"(?:(?P<storage>[^/:\s]+):)?(?P<size>\d+(?:\.\d+)?)")
CLOUDINIT = re.compile(r"[:/](?:vm-\d+-)?cloudinit(?:\.(?:raw|qcow|qed|qcow2|vmdk|cloop))?$")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NEEDS = [("mbps_max", "mbps"), ("mbps_rd_max", "mbps_rd"), ("mbps_wr_max", "mbps_wr"), ("bps_max_length", "mbps_max"),
          ("bps_rd_max_length", "mbps_rd_max"), ("bps_wr_max_length", "mbps_wr_max"), ("iops_max_length", "iops_max"),
          ("iops_rd_max_length", "iops_rd_max"), ("iops_wr_max_length", "iops_wr_max")]
_EXCLUDES = [("mbps_rd", "mbps"), ("mbps_wr", "mbps"), ("iops_rd", "iops"), ("iops_wr", "iops")]


@dataclass
class Drive:
    """A parsed drive string. `size` is in bytes; `options` has everything else but the volume."""

    slot: str
    file: str
    size: int | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def bus(self) -> str:
        """ide, sata, scsi, virtio, efidisk, tpmstate or unused."""
        return self.slot.rstrip("0123456789")

    @property
    def is_cloudinit(self) -> bool:
        """A cloud-init drive, existing or to be made."""
        return bool(CLOUDINIT.search(self.file))

    @property
    def is_cdrom(self) -> bool:
        """Anything with media=cdrom, cloud-init drives too."""
        return self.options.get("media") == "cdrom"

    @property
    def is_medium(self) -> bool:
        """A cdrom that is no cloud-init drive."""
        return self.is_cdrom and not self.is_cloudinit

    def copy(self, **changes: Any) -> Drive:
        """The same drive with some fields replaced."""
        values = {"slot": self.slot, "file": self.file, "size": self.size, "options": dict(self.options), **changes}
        return Drive(**values)

    def __str__(self) -> str:
        options = {**self.options, **({"size": format_size(self.size)} if self.size is not None else {})}
        return ",".join([self.file, *(f"{key}={options[key]}" for key in sorted(options))])


def is_drive(key: str) -> bool:
    """Whether the key is a slot (unusedN is none)."""
    return key in _SLOTS


def parse_size(text: str) -> int | None:
    """A size of a drive string in bytes, or None when it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])?", text)
    return int(float(found[1]) * UNITS[found[2] or ""]) if found else None


def format_size(size: int) -> str:
    """The size in the largest unit that divides it; 0 is 0T in PVE."""
    for unit in ("", "K", "M", "G"):
        if size % 1024:
            return f"{size}{unit}"
        size //= 1024
    return f"{size}T"


@functools.cache
def _schema(slot: str) -> dict[str, Any]:
    """The options of a slot with their schemas."""
    if UNUSED.fullmatch(slot):
        return {"file": {"default_key": 1}, "volume": {"alias": "file"}}
    fmt = (pve_schema.option_schema(slot) or {}).get("format")
    found = pve_schema.registered(fmt) if isinstance(fmt, str) else fmt
    return dict(found or {})


def parse_options(schema: Mapping[str, Mapping[str, Any]], text: str) -> dict[str, str] | None:
    """The keys and values of a property string as its schema has them, or None when they break the schema."""
    if pve_schema.property_string(dict(schema), text, "") is not None:
        return None
    default = next((key for key, entry in schema.items() if entry.get("default_key")), None)
    values: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not part.strip():
            continue
        if not equals:
            key, value = str(default), part
        entry = schema.get(key, {})
        if entry.get("alias"):
            key = entry["alias"]
            entry = schema.get(key, {})
        values[key] = str(pve_schema.parse_boolean(value) or value) if entry.get("type") == "boolean" else value
    return values


@functools.lru_cache(maxsize=65536)
def _parsed(slot: str, text: str) -> tuple[str, int | None, tuple[tuple[str, str], ...]] | None:
    values = parse_options(_schema(slot), text)
    if values is None or any(key in values for key in ("bps", "bps_rd", "bps_wr")):
        return None
    if any(values.get(key) and not values.get(other) for key, other in _NEEDS):
        return None
    if any(_set(values, key) and _set(values, other) for key, other in _EXCLUDES):
        return None
    if values.get("media") == "cdrom" and (
            _set(values, "snapshot") or _set(values, "format") or slot.startswith("virtio")):
        return None
    size = values.pop("size", None)
    number = parse_size(size) if size is not None else None
    if size is not None and number is None:
        return None
    return values.pop("file"), number, tuple(values.items())


def _set(values: Mapping[str, str], key: str) -> bool:
    return values.get(key) not in (None, "", "0")


def parse_drive(slot: str, text: str) -> Drive | None:
    """A drive, or None where PVE's parse_drive returns nothing."""
    found = _parsed(slot, text)
    if found is None:
        return None
    file, size, options = found
    return Drive(slot, file, size, dict(options))


def drives(values: Mapping[str, str], unused: bool = False) -> Iterator[tuple[str, Drive]]:
    """The drives of a configuration in PVE's order of slots, with `unused` the unused volumes after them."""
    keys = [slot for slot in SLOTS if slot in values]
    if unused:
        keys += sorted((key for key in values if UNUSED.fullmatch(key)), key=lambda key: int(key[6:]))
    for key in keys:
        drive = parse_drive(key, values[key])
        if drive is not None:
            yield key, drive


# ---- boot order


def boot_order(values: Mapping[str, str]) -> list[str]:
    """The devices of `boot: order=…`; empty for other forms."""
    text = values.get("boot", "")
    if not text.startswith("order="):
        return []
    return [device for device in re.split(r"[,;\s]+", text[len("order="):]) if device]


def print_boot(devices: list[str]) -> str:
    """The value of `boot`; PVE writes an empty one as a blank."""
    return "order=" + ";".join(devices) if devices else " "


def boot_disks(values: Mapping[str, str]) -> list[str]:
    """The slots that a running guest may not lose."""
    text = values.get("boot", "").strip()
    if not text.startswith("order="):
        return [values["bootdisk"]] if values.get("bootdisk") else []
    return [device for device in boot_order(values) if is_drive(device)]


def default_boot(values: Mapping[str, str]) -> list[str]:
    """What create puts into `boot`: the first disk, the first cdrom, the first network card."""
    first: dict[bool, str] = {}
    for slot, drive in drives(values):
        if drive.bus not in ("efidisk", "tpmstate"):
            first.setdefault(drive.is_cdrom, slot)
    nets = sorted((key for key in values if re.fullmatch(r"net\d+", key)), key=lambda key: int(key[3:]))
    return [first[kind] for kind in (False, True) if kind in first] + nets[:1]


def bootdisk_size(values: Mapping[str, str]) -> int:
    """The size that lists show as `maxdisk`."""
    for slot in boot_disks(values):
        drive = parse_drive(slot, values[slot]) if slot in values else None
        if drive is not None and not drive.is_cdrom:
            return drive.size or 0
    return 0
