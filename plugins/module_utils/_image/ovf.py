# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads an OVF: which guests there are, what hardware they have, and which file is which disk. Pure.

Source: DMTF DSP0243 (Open Virtualization Format 1.1 and 2.1), and what VMware and VirtualBox write.
"""

from __future__ import annotations

import re
import typing as t
import xml.etree.ElementTree as ET  # expat 2.4.1 and later bounds expansion; a DOCTYPE, which it takes, is refused
from dataclasses import dataclass, field

from .errors import ImageRefusedError
from .ovf_os import find_ostype
from .vmdk_descriptor import MAX_DISK

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAMESPACES = ("http://schemas.dmtf.org/ovf/envelope/1", "http://schemas.dmtf.org/ovf/envelope/2")
_VMWARE = "http://www.vmware.com/schema/ovf"
_PROCESSOR, _MEMORY, _NETWORK, _DISK = "3", "4", "10", "17"
_CONTROLLERS = {"5": "ide", "6": "scsi", "20": "sata"}
_UNIT = re.compile(r"byte(?:\s*\*\s*(\d{1,4})\s*\^\s*(\d{1,2}))?", re.IGNORECASE)
_UNIT_WORDS = {"bytes": 1, "kilobytes": 1024, "megabytes": 1024**2, "gigabytes": 1024**3}
_RESOURCE = re.compile(r"(?:ovf:)?/?(disk|file)/([^/]+)")
#: No guest of VMware has a tenth of it.
_MAX_ITEMS = 2048
_EXPORT = "export the guest again"


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """A disk of a guest.

    :param href: the file, as the OVF names it; '' for an empty disk.
    :param capacity: bytes.
    :param unit: bytes that the capacity is a multiple of, by how it is written.
    :param controller: ``ide``, ``scsi``, ``sata`` or ``nvme``.
    :param controller_index: which controller of this kind, from 0.
    :param model: what VMware calls the controller, in small letters, such as ``lsilogicsas``; '' if it does not say.
    :param address: of the disk on its controller.
    """

    href: str
    capacity: int
    unit: int
    controller: str
    controller_index: int
    model: str
    address: int


@dataclass(frozen=True, slots=True)
class OvfNic:
    """A network card.

    :param network: name of the network that it was connected to.
    :param model: such as ``vmxnet3``, in small letters.
    :param mac: its address, '' if the OVF leaves that open.
    """

    name: str
    network: str
    model: str
    mac: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A guest.

    :param memory: MiB; 0 if the OVF does not say.
    :param cores: of each socket.
    :param firmware: ``bios`` or ``efi``.
    :param ostype: as Proxmox VE calls it.
    :param os_description: in words, '' for none.
    """

    name: str
    memory: int
    cores: int
    sockets: int
    firmware: str
    secure_boot: bool
    tpm: bool
    ostype: str
    os_description: str
    disks: tuple[OvfDisk, ...]
    nics: tuple[OvfNic, ...]
    warnings: tuple[str, ...] = ()


class _Builder(ET.TreeBuilder):
    """Makes the tree, and refuses what could make it large or lead elsewhere."""

    ovf = ""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002 - expat calls it so
        raise ImageRefusedError(
            "ovf-doctype",
            self.ovf,
            "has a DOCTYPE, which an OVF never has",
            "do not use it unless you know who made it",
        )


def parse_ovf(name: str, data: bytes) -> tuple[Machine, ...]:
    """Read an OVF.

    :raises ImageRefusedError: if it is no OVF, has a DOCTYPE, or does not fit together.
    """
    return _Envelope(name, _parse(name, data)).machines()


def _parse(name: str, data: bytes) -> ET.Element:
    builder = _Builder()
    builder.ovf = name
    parser = ET.XMLParser(target=builder)
    try:
        parser.feed(data)
        root: ET.Element = parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise _bad(name, f"is no XML ({error})") from None
    if root.tag not in {f"{{{namespace}}}Envelope" for namespace in _NAMESPACES}:
        raise _bad(name, f"is no OVF of version 1 or 2: it begins with {root.tag!r}")
    return root


def _bad(name: str, problem: str) -> ImageRefusedError:
    return ImageRefusedError("ovf-bad", name, problem, _EXPORT)


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


@dataclass(frozen=True, slots=True)
class _Item:
    """One piece of hardware."""

    element: ET.Element
    kind: str
    id: str
    values: dict[str, str] = field(default_factory=dict)

    def get(self, key: str) -> str:
        return self.values.get(key, "")


class _Envelope:
    def __init__(self, name: str, root: ET.Element) -> None:
        self._name = name
        self._root = root
        self._space = root.tag.rpartition("}")[0] + "}"
        self._files = self._by_id(self._section("References"), "File", "id")
        self._disks = self._by_id(self._section("DiskSection"), "Disk", "diskId")

    def machines(self) -> tuple[Machine, ...]:
        systems = list(self._root.iter(f"{self._space}VirtualSystem"))
        if not systems:
            raise _bad(self._name, "has no guest in it (VirtualSystem)")
        return tuple(self._machine(system) for system in systems)

    def _section(self, tag: str) -> ET.Element | None:
        found = self._root.findall(f"{self._space}{tag}")
        if len(found) > 1:
            raise _bad(self._name, f"has the section {tag} {len(found)} times")
        return found[0] if found else None

    def _by_id(self, section: ET.Element | None, tag: str, attribute: str) -> dict[str, ET.Element]:
        found: dict[str, ET.Element] = {}
        for element in section.findall(f"{self._space}{tag}") if section is not None else ():
            key = self._attribute(element, attribute)
            if not key or key in found:
                raise _bad(self._name, f"has a {tag} with {attribute} {key!r}, which is empty or there twice")
            found[key] = element
        return found

    def _attribute(self, element: ET.Element, name: str) -> str:
        return element.get(f"{self._space}{name}") or element.get(name) or ""

    def _machine(self, system: ET.Element) -> Machine:
        sections = system.findall(f"{self._space}VirtualHardwareSection")
        if len(sections) != 1:
            raise _bad(self._name, f"describes the hardware of a guest {len(sections)} times")
        items = self._items(sections[0])
        config = dict(self._config(system))
        cores, sockets = self._processors(items)
        system_section = system.find(f"{self._space}OperatingSystemSection")
        warnings: list[str] = []
        disks = self._sorted(self._disk(item, items) for item in items.values() if item.kind == _DISK)
        self._check_addresses(disks)
        self._find_loose(disks, warnings)
        return Machine(
            name=self._text(system, "Name") or self._attribute(system, "id"),
            memory=self._memory(items),
            cores=cores,
            sockets=sockets,
            firmware="efi" if config.get("firmware", "").lower() == "efi" or self._is_efi(system) else "bios",
            secure_boot=_is_true(config, "uefi.secureboot.enabled", "bootoptions.efisecurebootenabled"),
            tpm=any("vtpm" in item.get("ResourceSubType").lower() for item in items.values()),
            ostype=self._ostype(system_section),
            os_description=self._text(system_section, "Description") if system_section is not None else "",
            disks=disks,
            nics=tuple(_nic(item) for item in items.values() if item.kind == _NETWORK),
            warnings=tuple(warnings),
        )

    def _text(self, parent: ET.Element, tag: str) -> str:
        return (parent.findtext(f"{self._space}{tag}") or "").strip()

    def _ostype(self, section: ET.Element | None) -> str:
        if section is None:
            return "other"
        return find_ostype(self._attribute(section, "id"), section.get(f"{{{_VMWARE}}}osType") or "")

    @staticmethod
    def _config(system: ET.Element) -> Iterator[tuple[str, str]]:
        """VMware's own settings."""
        for tag in ("Config", "ExtraConfig"):
            for element in system.iter(f"{{{_VMWARE}}}{tag}"):
                key = element.get(f"{{{_VMWARE}}}key") or ""
                yield key.lower(), element.get(f"{{{_VMWARE}}}value") or ""

    @staticmethod
    def _is_efi(system: ET.Element) -> bool:
        """VirtualBox has an element of its own for it."""
        return any(
            _local(element) == "Firmware" and (element.get("type") or "").upper().startswith("EFI")
            for element in system.iter()
        )

    def _items(self, hardware: ET.Element) -> dict[str, _Item]:
        items: dict[str, _Item] = {}
        chosen = self._configuration()
        for element in hardware:
            if element.tag not in {f"{self._space}{tag}" for tag in ("Item", "StorageItem", "EthernetPortItem")}:
                continue
            configurations = self._attribute(element, "configuration").split()
            if self._attribute(element, "bound") or (configurations and chosen not in configurations):
                continue  # a range that is allowed, or for another size of the guest
            values: dict[str, str] = {}
            for child in element:
                values.setdefault(_local(child), (child.text or "").strip())
            key = values.get("InstanceID") or values.get("InstanceId") or ""
            if not key or key in items:
                raise _bad(self._name, f"has hardware with the number {key!r}, which is empty or there twice")
            if len(items) == _MAX_ITEMS:
                raise _bad(self._name, f"has more than {_MAX_ITEMS} pieces of hardware in one guest")
            items[key] = _Item(element, values.get("ResourceType", ""), key, values)
        return items

    def _configuration(self) -> str:
        """Which of several sizes of the guest is the default."""
        section = self._section("DeploymentOptionSection")
        options = section.findall(f"{self._space}Configuration") if section is not None else []
        default = [one for one in options if self._attribute(one, "default").lower() in {"true", "1"}]
        return self._attribute((default or options)[0], "id") if options else ""

    def _processors(self, items: dict[str, _Item]) -> tuple[int, int]:
        found = [item for item in items.values() if item.kind == _PROCESSOR]
        if not found:
            return 1, 1
        total = self._number(found[0].get("VirtualQuantity") or "1", "number of processors", 4096)
        cores = self._number(found[0].get("CoresPerSocket") or str(total), "number of cores", 4096)
        return (cores, total // cores) if total % cores == 0 else (total, 1)

    def _memory(self, items: dict[str, _Item]) -> int:
        found = [item for item in items.values() if item.kind == _MEMORY]
        if not found:
            return 0
        quantity = self._number(found[0].get("VirtualQuantity"), "amount of memory", 1 << 50)
        unit = self._unit(found[0].get("AllocationUnits") or "byte * 2^20", "memory")
        return quantity * unit // 1024**2

    def _number(self, text: str, what: str, most: int) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not 0 < int(text) <= most:
            raise _bad(self._name, f"has {text!r} as a {what}; allowed are 1 to {most}")
        return int(text)

    def _unit(self, text: str, what: str) -> int:
        match = _UNIT.fullmatch(text.strip())
        unit = _UNIT_WORDS.get(text.strip().lower(), 0)
        if match:
            unit = int(match[1]) ** int(match[2]) if match[1] else 1
        if not 0 < unit <= 1 << 60:
            raise _bad(self._name, f"gives {what} in {text!r}, which is no unit that is known")
        return unit

    def _disk(self, item: _Item, items: dict[str, _Item]) -> OvfDisk:
        href, capacity, unit = self._medium(item)
        controller = items.get(item.get("Parent"))
        kind = self._controller(controller)
        if controller is None or not kind:
            raise _bad(
                self._name, f"has disk {item.id} on {item.get('Parent')!r}, which is no controller that is known"
            )
        address = item.get("AddressOnParent") or "0"
        if not re.fullmatch(r"[0-9]{1,4}", address):
            raise _bad(self._name, f"has disk {item.id} at the address {address!r}")
        return OvfDisk(
            href=href,
            capacity=capacity,
            unit=unit,
            controller=kind,
            controller_index=self._peers(kind, items).index(controller.id),
            model=controller.get("ResourceSubType").lower(),
            address=int(address),
        )

    def _peers(self, kind: str, items: dict[str, _Item]) -> list[str]:
        """The controllers of a kind, by their own addresses where each has one, else as they are listed."""
        peers = [one for one in items.values() if self._controller(one) == kind]
        addresses = [one.get("Address") for one in peers]
        if len(set(addresses)) == len(peers) and all(re.fullmatch(r"[0-9]{1,4}", text) for text in addresses):
            peers.sort(key=lambda one: int(one.get("Address")))
        return [one.id for one in peers]

    @staticmethod
    def _controller(item: _Item | None) -> str:
        """What kind of controller a piece of hardware is, '' for none."""
        if item is None:
            return ""
        if item.kind == "20" and "nvme" in item.get("ResourceSubType").lower():
            return "nvme"
        return _CONTROLLERS.get(item.kind, "")

    def _medium(self, item: _Item) -> tuple[str, int, int]:
        """The file of a disk, its capacity, and the unit that this is given in."""
        match = _RESOURCE.fullmatch(item.get("HostResource"))
        if match is None:
            raise _bad(self._name, f"has disk {item.id} from {item.get('HostResource')!r}, which is not understood")
        if match[1] == "file":
            return self._href(match[2], item.id), 0, 0
        disk = self._disks.get(match[2])
        if disk is None:
            raise _bad(self._name, f"has disk {item.id} from {match[2]!r}, which DiskSection does not have")
        if self._attribute(disk, "parentRef"):
            raise ImageRefusedError("ovf-snapshot", self._name, f"has disk {match[2]} as a difference", _EXPORT)
        unit = self._unit(self._attribute(disk, "capacityAllocationUnits") or "byte", f"the capacity of {match[2]}")
        capacity = unit * self._number(self._attribute(disk, "capacity"), f"capacity of {match[2]}", MAX_DISK // unit)
        reference = self._attribute(disk, "fileRef")
        return (self._href(reference, match[2]) if reference else ""), capacity, unit

    def _href(self, reference: str, disk: str) -> str:
        file = self._files.get(reference)
        if file is None:
            raise _bad(self._name, f"has disk {disk} in file {reference!r}, which References does not have")
        href = self._attribute(file, "href")
        compression = self._attribute(file, "compression")
        if compression not in {"", "identity"}:
            raise ImageRefusedError(
                "member-compressed",
                href or self._name,
                f"is packed ({compression})",
                "unpack it beside the OVF and remove ovf:compression, or export the guest without compression",
            )
        if self._attribute(file, "chunkSize"):
            raise ImageRefusedError(
                "member-chunked",
                href or self._name,
                "is split into several files",
                "export the guest without chunkSize",
            )
        return href

    @staticmethod
    def _sorted(disks: Iterable[OvfDisk]) -> tuple[OvfDisk, ...]:
        """By their places; kinds of controllers in the order in which their first disks are listed."""
        listed = list(disks)
        kinds = list(dict.fromkeys(disk.controller for disk in listed))
        return tuple(
            sorted(listed, key=lambda disk: (kinds.index(disk.controller), disk.controller_index, disk.address))
        )

    def _check_addresses(self, disks: tuple[OvfDisk, ...]) -> None:
        places = [(disk.controller, disk.controller_index, disk.address) for disk in disks]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise _bad(self._name, f"has two disks at {twice[0]} {twice[1]}:{twice[2]}")
        hrefs = [disk.href for disk in disks if disk.href]
        if len(set(hrefs)) != len(hrefs):
            raise _bad(self._name, "uses one file for two disks")

    def _find_loose(self, disks: tuple[OvfDisk, ...], warnings: list[str]) -> None:
        """Disks that are described, and in no guest."""
        used = {disk.href for disk in disks}
        for key, disk in self._disks.items():
            reference = self._attribute(disk, "fileRef")
            file = self._files.get(reference)
            if reference and (file is None or self._attribute(file, "href") not in used):
                warnings.append(f"{self._name}: disk {key} is described, but not part of this guest's hardware")


def _is_true(config: dict[str, str], *keys: str) -> bool:
    return any(config.get(key, "").lower() in {"true", "1", "yes"} for key in keys)


def _nic(item: _Item) -> OvfNic:
    address = item.get("Address")
    return OvfNic(
        name=item.get("ElementName"),
        network=item.get("Connection"),
        model=item.get("ResourceSubType").lower(),
        mac=address if re.fullmatch(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", address) else "",
    )
