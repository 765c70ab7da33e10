# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The import files that the recordings' server had: same names, formats, virtual sizes and file sizes, tiny on disk."""

from __future__ import annotations

import functools
import io
import os
import tarfile
import tempfile
from pathlib import Path

from lab import images
from lab.images import GIB, MIB, Place
from lab.storages import Storages
from lab.terms import StorageError

AGENT_MARK = b"lab guest with an agent\n"
"""A guest whose boot disk begins so runs a guest agent (lab.agent)."""
OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
 <References><File ovf:id="file1" ovf:href="disk1.vmdk"/></References>
 <DiskSection><Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="67108864"/></DiskSection>
 <VirtualSystem ovf:id="ovavm"><Name>ovavm</Name><OperatingSystemSection ovf:id="101"/>
  <VirtualHardwareSection>
   <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>
    <rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
   <Item><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>
    <rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>
   <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType><rasd:Parent>3</rasd:Parent>
    <rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource></Item>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
"""
SAMPLES = {
    "so.vmdk": (64 * MIB, 8519680, b"so.vmdk of the lab\n", ["-o", "subformat=streamOptimized"]),
    "img.qcow2": (64 * MIB, 8716288, b"img.qcow2 of the lab\n", []),
    "disk.raw": (64 * MIB, 67108864, b"disk.raw of the lab\n", []),
    "test.vmdk": (GIB, 196608, b"", []),
    "tinylinux.qcow2": (80 * MIB, 18939904, AGENT_MARK, []),
}
"""name -> virtual size, file size, first bytes, options of qemu-img convert."""
OVA_SIZE = 8529920


@functools.cache
def _made() -> tempfile.TemporaryDirectory[str]:
    """The samples of this process; every lab gets sparse copies."""
    folder = tempfile.TemporaryDirectory(prefix="lab-samples-")
    for name in SAMPLES:
        _image(Path(folder.name, name), name)
    _ova(Path(folder.name, "test.ova"), Path(folder.name, "so.vmdk"))
    return folder


def make(storages: Storages, sid: str = "local") -> None:
    """Puts the samples that are not there yet into a storage's import content."""
    for name in (*SAMPLES, "test.ova"):
        target = storages.file(f"{sid}:import/{name}")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            images.copy(Path(_made().name, name), target)


def _image(target: Path, name: str) -> None:
    size, length, content, options = SAMPLES[name]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        raw, made = Path(folder, "raw"), Path(folder, name)
        images.sparse(raw, size)
        images.write(Place(raw, "raw"), "raw", content)
        fmt = name.rpartition(".")[2]
        done = images.run(["qemu-img", "convert", "-f", "raw", "-O", fmt, *options, str(raw), str(made)])
        if done.returncode:
            raise StorageError(done.stderr.strip())
        _lengthen(made, fmt, length)
        made.rename(target)


def _lengthen(image: Path, fmt: str, length: int) -> None:
    """Gives an image the recorded file size with a hole; it goes before the end marker of a streamOptimized VMDK."""
    size = image.stat().st_size
    with image.open("r+b") as file:
        if fmt == "vmdk" and size < length:
            file.seek(-1536, os.SEEK_END)
            footer = file.read()
            file.truncate(size - 1536)
            file.seek(length - 1536)
            file.write(footer)
        file.truncate(length)


def _ova(target: Path, disk: Path) -> None:
    """An OVA around so.vmdk; sparse, since tar's blocks of zeros can be holes."""
    member = tarfile.TarInfo("disk1.vmdk")
    member.size = disk.stat().st_size
    description = tarfile.TarInfo("test.ovf")
    description.size = len(OVF)
    with tarfile.open(target, "w") as archive:
        archive.addfile(description, io.BytesIO(OVF.encode()))
        with disk.open("rb") as stream:
            archive.addfile(member, stream)
    os.truncate(target, OVA_SIZE)
    images.run(["fallocate", "--dig-holes", str(target)])
