# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes OVFs, manifests and OVAs, block by block: also those that no archiver would write."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

BLOCK = 512


def tar_header(name: str, size: int, kind: bytes = b"0", link: str = "", *, magic: bytes = b"ustar\x0000") -> bytes:
    """The header of a member."""
    number = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block = bytearray(BLOCK)
    block[0 : len(name.encode())] = name.encode()
    block[100:124] = b"0000644\x000000000\x000000000\0"
    block[124:136] = number
    block[136:148] = b"%011o\0" % 1_700_000_000
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(link)] = link.encode()
    block[257:265] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_member(name: str, data: bytes, kind: bytes = b"0", link: str = "") -> bytes:
    """A member with its content."""
    return tar_header(name, len(data), kind, link) + data + bytes(-len(data) % BLOCK)


def tar(members: list[tuple[str, bytes]], *, end: bytes = bytes(2 * BLOCK)) -> bytes:
    """An archive."""
    return b"".join(tar_member(name, data) for name, data in members) + end


@dataclass(frozen=True)
class Disk:
    """A disk in an OVF.

    :param controller: InstanceID of its controller.
    """

    file: str
    capacity: int
    controller: int = 3
    address: int = 0
    unit: str = "byte"
    attributes: str = ""
    file_attributes: str = ""


_CONTROLLERS = """
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI Controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogicsas</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:Address>1</rasd:Address><rasd:ElementName>SCSI Controller 1</rasd:ElementName>
        <rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>IDE 0</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceType>5</rasd:ResourceType></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SATA 0</rasd:ElementName>
        <rasd:InstanceID>6</rasd:InstanceID><rasd:ResourceSubType>vmware.sata.ahci</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>NVMe 0</rasd:ElementName>
        <rasd:InstanceID>7</rasd:InstanceID><rasd:ResourceSubType>vmware.nvme.controller</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType></Item>"""


def ovf(
    disks: list[Disk],
    *,
    name: str = "db1",
    os: str = 'ovf:id="101" vmw:osType="debian12_64Guest"',
    description: str = "Debian GNU/Linux 12 (64-bit)",
    processors: str = "<rasd:VirtualQuantity>4</rasd:VirtualQuantity><vmw:CoresPerSocket>2</vmw:CoresPerSocket>",
    more: str = '<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>',
    before: str = "",
    items: str = _CONTROLLERS,
) -> str:
    """An OVF as VMware's ovftool writes it."""
    files = "".join(
        f'<File ovf:href="{disk.file}" ovf:id="file{number}" {disk.file_attributes}/>\n'
        for number, disk in enumerate(disks)
        if disk.file
    )
    section = "".join(
        f'<Disk ovf:capacity="{disk.capacity}" ovf:capacityAllocationUnits="{disk.unit}" ovf:diskId="vmdisk{number}"'
        + (f' ovf:fileRef="file{number}"' if disk.file else "")
        + f" {disk.attributes}/>\n"
        for number, disk in enumerate(disks)
    )
    hardware = "".join(
        f"""<Item><rasd:AddressOnParent>{disk.address}</rasd:AddressOnParent>
        <rasd:ElementName>Hard Disk {number}</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk{number}</rasd:HostResource><rasd:InstanceID>{20 + number}</rasd:InstanceID>
        <rasd:Parent>{disk.controller}</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>\n"""
        for number, disk in enumerate(disks)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>{before}
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>{files}</References>
  <DiskSection><Info>Disks</Info>{section}</DiskSection>
  <NetworkSection><Info>Networks</Info><Network ovf:name="VM Network"/></NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>A virtual machine</Info><Name>{name}</Name>
    <OperatingSystemSection {os}><Info>OS</Info><Description>{description}</Description></OperatingSystemSection>
    <VirtualHardwareSection><Info>Hardware</Info>
      <Item><rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits><rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>{processors}</Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>2048</rasd:VirtualQuantity></Item>{items}
      {hardware}
      <Item><rasd:Address>00:50:56:ab:cd:ef</rasd:Address><rasd:Connection>VM Network</rasd:Connection>
        <rasd:ElementName>Network adapter 1</rasd:ElementName><rasd:InstanceID>40</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
      {more}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""


def manifest(members: list[tuple[str, bytes]], algorithm: str = "SHA256") -> bytes:
    """The manifest of files."""
    lines = [f"{algorithm}({name})= {hashlib.new(algorithm, data).hexdigest()}\n" for name, data in members]
    return "".join(lines).encode()


def ova(
    path: Path,
    disks: list[tuple[Disk, bytes]],
    *,
    algorithm: str = "SHA256",
    end: bytes = bytes(2 * BLOCK),
    text: str | None = None,
) -> Path:
    """An OVA with a manifest ('' for none), as VMware's ovftool makes it."""
    description = (text or ovf([disk for disk, _data in disks])).encode()
    members = [(f"{path.stem}.ovf", description)]
    files = [(disk.file, data) for disk, data in disks if disk.file]
    if algorithm:
        members.append((f"{path.stem}.mf", manifest([*members, *files], algorithm)))
    path.write_bytes(tar([*members, *files], end=end))
    return path
