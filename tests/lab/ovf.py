# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GET import-metadata: what PVE reads from an OVA's description. After pve-storage 9.1.7, GuestImport/OVF.pm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from lab import images
from lab.api import Call, Route
from lab.content import check_volume
from lab.images import Place
from lab.terms import StorageError

OVF = {"ovf": "http://schemas.dmtf.org/ovf/envelope/1", "vmw": "http://www.vmware.com/schema/ovf",
       "rasd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"}
HARDWARE = "ovf:VirtualSystem/ovf:VirtualHardwareSection"
PROCESSOR, MEMORY, NIC, DISK = "3", "4", "10", "17"
CONTROLLERS = {"5": "ide", "6": "scsi", "20": "sata"}
SYSTEMS = {"l24": "97 98", "win7": "103 105", "win8": "111 112 113 114 115 117 118", "win10": "116 119 120 121",
           "win11": "122 123", "l26": "36 79 80 82 83 84 85 87 89 90 91 92 93 94 95 96 99 100 101 106 107 108 109"}
"""PVE's ostype -> CIM operating system ids; the systems from before 2009 are left out."""
NICS = ("e1000", "e1000e", "vmxnet3")


def metadata(call: Call) -> dict[str, Any]:
    """GET import-metadata: what PVE reads from an OVA's description. Wants the volume name without the storage."""
    storages, sid, volname = call.storages, str(call.values["storage"]), str(call.values["volume"])
    storages.backend(sid)
    name = storages.parse_volname(f"{sid}:{volname}")
    check_volume(call, name, f"{sid}:{volname}")
    if name.format not in ("ova", "ovf"):
        raise StorageError("invalid format")
    root = ElementTree.fromstring(_description(storages.place(f"{sid}:{volname}")))
    arguments = _arguments(root)
    disks: dict[str, Any] = {slot: {"volid": f"{sid}:{volname}/{file}", **({"size": size} if size else {})}
                             for slot, file, size in _disks(root)}
    warnings = [{"type": "ova-needs-extracting"}]
    if disks:
        arguments["boot"] = "order=" + ";".join(disks)
    if arguments.get("bios") == "ovmf":
        disks["efidisk0"] = 1
        warnings.append({"type": "efi-state-lost", "key": "bios", "value": "ovmf"})
    return {"type": "vm", "source": volname, "create-args": arguments, "disks": disks, "warnings": warnings,
            "net": _nets(root)}


def _description(place: Place) -> str:
    options = ["--wildcards", "--occurrence=1"]
    done = images.run(["tar", "-xO", *options, "-f", str(place.file), "*.ovf"])
    if done.returncode:
        raise StorageError(f"command 'tar -xO --wildcards '--occurrence=1' -f {place.shown} '*.ovf'' failed: "
                           f"exit code {done.returncode}")
    return done.stdout


def _items(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [item for item in root.findall(f"{HARDWARE}/ovf:Item", OVF)
            if item.findtext("rasd:ResourceType", "", OVF) == kind]


def _amount(root: ElementTree.Element, kind: str) -> str:
    return "".join(item.findtext("rasd:VirtualQuantity", "", OVF) for item in _items(root, kind))


def _attribute(element: ElementTree.Element | None, space: str, name: str) -> str:
    return "" if element is None else element.get(f"{{{OVF[space]}}}{name}", "")


def _arguments(root: ElementTree.Element) -> dict[str, str]:
    """What of the guest's hardware PVE takes over."""
    system = root.find("ovf:VirtualSystem", OVF)
    name = root.findtext("ovf:VirtualSystem/ovf:Name", "", OVF) or _attribute(system, "ovf", "id")
    cim = _attribute(root.find("ovf:VirtualSystem/ovf:OperatingSystemSection", OVF), "ovf", "id")
    ostype = next((kind for kind, ids in SYSTEMS.items() if cim in ids.split()), "other")
    found = {"name": re.sub(r"[^a-zA-Z0-9\-.]", "", re.sub(r"\s+", "-", name)), "cores": _amount(root, PROCESSOR),
             "memory": _amount(root, MEMORY), "ostype": ostype}
    for config in root.findall(f"{HARDWARE}/vmw:Config", OVF):
        if _attribute(config, "vmw", "key") == "firmware" and _attribute(config, "vmw", "value") == "efi":
            found["bios"] = "ovmf"
    return found


def _disks(root: ElementTree.Element) -> Iterator[tuple[str, str, int | None]]:
    """Slot, file and size of each disk, from the four elements that describe it together."""
    kinds = {item.findtext("rasd:InstanceID", "", OVF): item.findtext("rasd:ResourceType", "", OVF)
             for item in root.findall(f"{HARDWARE}/ovf:Item", OVF)}
    described = {_attribute(disk, "ovf", "diskId"): disk for disk in root.findall("ovf:DiskSection/ovf:Disk", OVF)}
    files = {_attribute(file, "ovf", "id"): _attribute(file, "ovf", "href")
             for file in root.findall("ovf:References/ovf:File", OVF)}
    for item in _items(root, DISK):
        disk = described.get(item.findtext("rasd:HostResource", "", OVF).rpartition("/")[2])
        bus = CONTROLLERS.get(kinds.get(item.findtext("rasd:Parent", "", OVF), ""))
        file = files.get(_attribute(disk, "ovf", "fileRef"))
        if disk is None or bus is None or not file:
            continue
        unit = re.fullmatch(r"\s*byte\s*\*\s*(\d+)\s*\^\s*(\d+)\s*", _attribute(disk, "ovf", "capacityAllocationUnits"))
        size = int(_attribute(disk, "ovf", "capacity")) * int(unit[1]) ** int(unit[2]) if unit else None
        yield bus + item.findtext("rasd:AddressOnParent", "", OVF), file, size


def _nets(root: ElementTree.Element) -> dict[str, dict[str, str]]:
    models = [item.findtext("rasd:ResourceSubType", "", OVF).lower() for item in _items(root, NIC)]
    return {f"net{number}": {"model": model if model in NICS else "e1000"} for number, model in enumerate(models)}


ROUTES = [Route("GET", "/nodes/{node}/storage/{storage}/import-metadata", metadata)]
