# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A Windows without PowerShell (XP, 2003, Vista, 2008 as installed), read through ``reg.exe``.

Its output has keys, names, types and data that are not translated; other lines (a heading, "End of search") are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from .drivers import CONTROLLERS, DRIVERS, bus_of
from .inside import Disk, DriverState, Service, Windows, read_system

_NT = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_CONTROL = r"HKLM\SYSTEM\CurrentControlSet\Control"
_SERVICES = r"HKLM\SYSTEM\CurrentControlSet\Services"
_LINE = re.compile(r"\s+(?P<name>.+?)\s+(?P<type>REG_[A-Z_]+)(\s+(?P<data>.*))?")

#: Keys to query, and whether with all that is below.
QUERIES: tuple[tuple[str, bool], ...] = (
    (_NT, False),
    (_CONTROL, False),
    (rf"{_CONTROL}\ProductOptions", False),
    (rf"{_CONTROL}\Session Manager\Environment", False),
    (rf"{_CONTROL}\Session Manager\Power", False),
    (rf"{_SERVICES}\partmgr\Parameters", False),
    *((rf"{_SERVICES}\{row.service}", True) for row in DRIVERS.values()),
    *((rf"{_SERVICES}\{name}", True) for name in CONTROLLERS),
)

Values = Mapping[str, Mapping[str, str]]


def query(key: str, *, deep: bool) -> list[str]:
    """The command that shows a key."""
    return ["reg.exe", "query", key, *(["/s"] if deep else [])]


def read_output(text: str) -> dict[str, dict[str, str]]:
    """Keys of ``reg.exe query`` with their values, names in lower case."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("HKEY_"):
            current = found.setdefault(line.strip().lower(), {})
        elif match := _LINE.fullmatch(line.rstrip()):
            current[match["name"].lower()] = match["data"] or ""
    return found


def read_registry(values: Values) -> Windows:
    """What the registry tells of a Windows; what it does not tell is ``None``."""
    base = read_system(
        {
            "product": _value(values, _NT, "ProductName") or "Windows",
            "edition": _value(values, _NT, "EditionID"),
            "build": _value(values, _NT, "CurrentBuildNumber") or "0",
            "version": _value(values, _NT, "CurrentVersion") or "",
            "product_type": _value(values, rf"{_CONTROL}\ProductOptions", "ProductType"),
            "architecture": _value(values, rf"{_CONTROL}\Session Manager\Environment", "PROCESSOR_ARCHITECTURE"),
            "start_options": _value(values, _CONTROL, "SystemStartOptions"),
            "fast_startup": _number(values, rf"{_CONTROL}\Session Manager\Power", "HiberbootEnabled"),
            "san_policy": _number(values, rf"{_SERVICES}\partmgr\Parameters", "SanPolicy"),
        }
    )
    drivers = {name: _driver(values, row.service) for name, row in DRIVERS.items()}
    controllers = {name: _service(values, name) for name in CONTROLLERS if _has(values, name)}
    return replace(base, drivers=MappingProxyType(drivers), controllers=MappingProxyType(controllers), bitlocker=None)


def with_boot_disk(windows: Windows, bus_type: str | None) -> Windows:
    """The same with the boot disk, whose bus the guest agent tells.

    The agent calls vioscsi ``sas`` and viostor ``scsi`` (their INF files' BusType; qga/commands-win32.c, win2qemu).
    Old SCSI controllers are called so too, so the driver is named only if it alone has devices.

    :param bus_type: ``bus-type`` of the disk below C: in ``guest-get-fsinfo``.
    """
    buses = {"ide": {"ide"}, "sata": {"sata"}, "sas": {"scsi"}, "scsi": {"scsi", "virtio"}}.get(bus_type or "", set())
    busy = [name for name, service in windows.controllers.items() if service.devices]
    busy += [DRIVERS[name].service for name, state in windows.drivers.items() if state.service.devices]
    fitting = [name for name in busy if bus_of(name) in buses]
    if not fitting:
        return windows
    disk = Disk(number=0, identity=None, service=fitting[0] if len(fitting) == 1 else None)
    return replace(windows, boot_disk=disk, disks=(disk,))


def _keys(key: str) -> str:
    return key.replace("HKLM\\", "HKEY_LOCAL_MACHINE\\").lower()


def _value(values: Values, key: str, name: str) -> str | None:
    return values.get(_keys(key), {}).get(name.lower())


def _number(values: Values, key: str, name: str) -> int | None:
    text = _value(values, key, name)
    return int(text, 16) if text else None


def _has(values: Values, service: str) -> bool:
    return _keys(rf"{_SERVICES}\{service}") in values


def _service(values: Values, name: str) -> Service:
    key = rf"{_SERVICES}\{name}"
    return Service(
        start=_number(values, key, "Start"),
        start_override=_number(values, rf"{key}\StartOverride", "0"),
        devices=_number(values, rf"{key}\Enum", "Count") or 0,
    )


def _driver(values: Values, service: str) -> DriverState:
    """Whether its file is there cannot be asked here; a service that has devices has it."""
    state = _service(values, service)
    return DriverState(service=state, exists=_has(values, service), image=state.devices > 0, hardware=None)


def outputs(texts: Iterator[str]) -> dict[str, dict[str, str]]:
    """Several outputs in one."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        found.update(read_output(text))
    return found
