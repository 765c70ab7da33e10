# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What must stand in a SYSTEM hive so that Windows loads a storage driver while it boots, and gives it its device.

Windows loads the services that start at boot, and finds out in a database which of them drives a device that it has
never seen: ``CriticalDeviceDatabase`` up to Windows 7, ``DriverDatabase`` since Windows 8. A driver whose device was
missing at an earlier boot may be switched off by a key ``StartOverride``, whatever its ``Start`` says. All of it is
pure: a hive in, edits out.

Sources: the INFs of the drivers (values of the service); libguestfs-common, ``mlcustomize/inject_virtio_win.ml`` (keys
of the databases, names that do not get in the way of ``pnputil``), of which this writes a superset: names of devices
with their subsystem too, ``BusType`` and ``PnpInterface``, and all drivers, not one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .drivers import DRIVERS
from .hivedata import (
    BINARY,
    Change,
    Edit,
    Path,
    Registry,
    Value,
    expandable,
    find_value,
    number,
    removed,
    text,
    texts,
    wanted,
)
from .inf import DriverInf
from .installed import Windows

#: ``BusType`` of each driver. Windows stops with 0x7B when vioscsi has that of viostor.
BUS_TYPES = {"vioscsi": 0x0A, "viostor": 0x01}
#: Windows' own drivers of IDE and SATA, which it may switch off once it has booted from elsewhere.
LEGACY = ("atapi", "intelide", "pciide", "msahci", "storahci")
#: The class of storage controllers.
CLASS = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
#: How our entries are called, so that they are told from Windows' own.
PREFIX = "diskwright"
_RANKS = {True: Value(BINARY, b"\x01\xff\x00\x00"), False: Value(BINARY, b"\x02\xff\x00\x00")}
_OEM = re.compile(r"oem\d+\.inf", re.IGNORECASE)
_ID = re.compile(r"PCI\\(VEN_[0-9A-F]{4}&DEV_([0-9A-F]{4}))", re.IGNORECASE)
# Without it, Windows 10 and Server 2016 do not look at the package: flags, the class's GUID, no date and no version.
_VERSION_HEAD, _VERSION_TAIL = bytes.fromhex("00ff090000000000"), bytes(24)


@dataclass(frozen=True, slots=True)
class Presence:
    """What a hive says about a driver.

    :param start: the service's ``Start``, ``None`` without a service.
    :param overridden: whether ``StartOverride`` switches it off.
    :param installed: whether Windows itself has installed it: then its file and its database are Windows' own.
    """

    start: int | None
    overridden: bool
    installed: bool


def presence(system: Registry, windows: Windows, inf: DriverInf) -> Presence:
    """What a hive says about a driver, in the control set that Windows boots from next."""
    service = (windows.control_sets[0], "Services", inf.service)
    start = find_value(system, service, "Start")
    override = system.values((*service, "StartOverride"))
    return Presence(
        start=start.number if start is not None else None,
        overridden=bool(override) and any(value.number for value in (override or {}).values()),
        installed=installed_by_windows(system, windows.control_sets[0], inf.service),
    )


def installed_by_windows(system: Registry, control_set: str, service: str) -> bool:
    """Whether Windows has installed a driver for a device: its service has an owner, or its class has the device."""
    owners = find_value(system, (control_set, "Services", service), "Owners")
    if owners is not None and _OEM.search(owners.data.decode("utf-16-le", "replace")):
        return True
    path = (control_set, "Control", "Class", CLASS)
    return any(_is_for(system, (*path, name), service) for name in system.keys(path))


def _is_for(system: Registry, path: Path, service: str) -> bool:
    """Whether a key of a class is that of a device of a driver, and comes from an INF that Windows has installed."""
    source, device = (find_value(system, path, name) for name in ("InfPath", "MatchingDeviceId"))
    if source is None or device is None or not _OEM.fullmatch(source.text):
        return False
    devices = DRIVERS[service].devices if service in DRIVERS else ()
    return any(device.text.lower().startswith(f"pci\\ven_1af4&dev_{one}".lower()) for one in devices)


def make_boot_critical(system: Registry, windows: Windows, inf: DriverInf) -> Change:
    """What to change so that a driver is loaded while Windows boots; nothing when it is."""
    change = Change()
    for control_set in windows.control_sets:
        installed = installed_by_windows(system, control_set, inf.service)
        change += _service(system, control_set, inf)
        if not windows.database and not installed:
            change += Change(tuple(_critical_devices(system, control_set, inf)))
    if windows.database and not installed_by_windows(system, windows.control_sets[0], inf.service):
        change += Change(tuple(_driver_database(system, windows.architecture, inf)))
    return change


def keep_legacy(system: Registry, windows: Windows) -> Change:
    """What to change so that Windows can boot from IDE and SATA again; nothing when it can."""
    change = Change()
    for control_set in windows.control_sets:
        for service in LEGACY:
            change += removed(system, (control_set, "Services", service, "StartOverride"))
    return change


def device_ids(inf: DriverInf) -> tuple[str, ...]:
    """The names of a driver's devices without the bus: with subsystem and revision, and with the revision alone."""
    names = [one.partition("\\")[2].upper() for one in inf.hardware_ids]
    for one in inf.hardware_ids:
        found = _ID.match(one)
        if found:
            # VirtIO 0.9 has the devices 1000 to 103F with revision 0, VirtIO 1 those above with revision 1.
            names.append(f"{found[1].upper()}&REV_{'00' if int(found[2], 16) < 0x1040 else '01'}")
    return tuple(dict.fromkeys(names))


def _service(system: Registry, control_set: str, inf: DriverInf) -> Change:
    path = (control_set, "Services", inf.service)
    binary = f"system32\\drivers\\{inf.binary}"
    edits = [
        *wanted(system, path, "Type", number(inf.type)),
        *wanted(system, path, "Start", number(0)),
        *wanted(system, path, "ErrorControl", number(inf.error_control)),
        *wanted(system, path, "Group", text(inf.group)),
    ]
    if _plain(find_value(system, path, "ImagePath")) != binary.lower():
        edits += wanted(system, path, "ImagePath", expandable(binary))
    for one in inf.parameters:
        edits += wanted(system, (*path, *one.key), one.name, number(one.value))
    return Change(tuple(edits)) + removed(system, (*path, "StartOverride"))


def _plain(image: Value | None) -> str:
    """The path of a driver file below Windows' folder, however it is written."""
    written = image.text.lower() if image is not None else ""
    for root in ("\\systemroot\\", "%systemroot%\\"):
        written = written.removeprefix(root)
    return written


def _critical_devices(system: Registry, control_set: str, inf: DriverInf) -> Iterator[Edit]:
    for one in device_ids(inf):
        path = (control_set, "Control", "CriticalDeviceDatabase", f"PCI#{one}")
        yield from wanted(system, path, "Service", text(inf.service))
        yield from wanted(system, path, "ClassGUID", text(inf.class_guid))


def _driver_database(system: Registry, architecture: str, inf: DriverInf) -> Iterator[Edit]:
    """A package of our own, as small as Windows accepts it."""
    name = f"{PREFIX}_{inf.service}.inf"
    label, configuration = f"{name}_{architecture}_0000000000000000", f"{PREFIX}_{inf.service}"
    files = ("DriverDatabase", "DriverInfFiles", name)
    package = ("DriverDatabase", "DriverPackages", label)
    yield from wanted(system, files, "", texts(label))
    yield from wanted(system, files, "Active", text(label))
    yield from wanted(system, files, "Configurations", texts(configuration))
    yield from wanted(system, package, "Version", Value(BINARY, _VERSION_HEAD + _guid(inf.class_guid) + _VERSION_TAIL))
    yield from wanted(system, (*package, "Configurations", configuration), "ConfigFlags", number(0))
    yield from wanted(system, (*package, "Configurations", configuration), "Service", text(inf.service))
    compatible = [one.partition("\\")[2].upper() for one in inf.compatible_ids]
    for one, precise in [*((one, True) for one in device_ids(inf)), *((one, False) for one in compatible)]:
        yield from wanted(system, ("DriverDatabase", "DeviceIds", "PCI", one), name, _RANKS[precise])
        yield from wanted(system, (*package, "Descriptors", "PCI", one), "Configuration", text(configuration))


def _guid(written: str) -> bytes:
    """A GUID as Windows stores it: the first three parts with the lowest byte first."""
    parts = [bytes.fromhex(part) for part in written.strip("{}").split("-")]
    return b"".join(part[::-1] for part in parts[:3]) + b"".join(parts[3:])
