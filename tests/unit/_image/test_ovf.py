# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests in OVFs: hardware, disks on their controllers, operating systems."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.errors import ImageRefusedError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import survey
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.ovf import Machine, OvfNic, parse_ovf
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.ovf_os import BY_NUMBER, BY_WORD, find_ostype
from hypothesis import given, settings
from hypothesis import strategies as st
from images import archive, vmdk
from images.archive import Disk
from images.content import MIB, disk

# PVE::QemuServer's ostype.
OSTYPES = {"other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26", "solaris"}


def machine(text: str) -> Machine:
    (found,) = parse_ovf("db1.ovf", text.encode())
    return found


def test_hardware() -> None:
    found = machine(archive.ovf([Disk("a.vmdk", 64 * MIB)]))
    assert (found.name, found.memory, found.cores, found.sockets) == ("db1", 2048, 2, 2)
    assert (found.firmware, found.secure_boot, found.tpm) == ("efi", False, False)
    assert (found.ostype, found.os_description) == ("l26", "Debian GNU/Linux 12 (64-bit)")
    assert found.nics == (OvfNic("Network adapter 1", "VM Network", "vmxnet3", "00:50:56:ab:cd:ef"),)
    assert found.warnings == ()


def test_disks_on_controllers_of_every_kind() -> None:
    """In the order of their places; PVE's own import takes two SCSI controllers for one."""
    disks = [
        Disk("nvme.vmdk", 1, 7, 0),
        Disk("scsi-1-0.vmdk", 2, 4, 0),
        Disk("scsi-0-12.vmdk", 3, 3, 12),
        Disk("scsi-0-2.vmdk", 4, 3, 2),
        Disk("ide.vmdk", 5, 5, 1),
        Disk("sata.vmdk", 6, 6, 3),
        Disk("", 7, 6, 4, "byte * 2^30"),
    ]
    found = machine(archive.ovf(disks)).disks
    assert [
        (one.href, one.capacity, one.controller, one.controller_index, one.model, one.address) for one in found
    ] == [
        ("nvme.vmdk", 1, "nvme", 0, "vmware.nvme.controller", 0),
        ("scsi-0-2.vmdk", 4, "scsi", 0, "lsilogicsas", 2),
        ("scsi-0-12.vmdk", 3, "scsi", 0, "lsilogicsas", 12),
        ("scsi-1-0.vmdk", 2, "scsi", 1, "virtualscsi", 0),
        ("ide.vmdk", 5, "ide", 0, "", 1),
        ("sata.vmdk", 6, "sata", 0, "vmware.sata.ahci", 3),
        ("", 7 * 1024**3, "sata", 0, "vmware.sata.ahci", 4),
    ]


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("byte", 1),
        ("bytes", 1),
        ("byte * 2^20", 2**20),
        ("byte*2^30", 2**30),
        ("byte * 10^9", 10**9),
        ("KiloBytes", 1024),
        ("MegaBytes", 1024**2),
        ("GigaBytes", 1024**3),
    ],
)
def test_capacity_units(unit: str, factor: int) -> None:
    (found,) = machine(archive.ovf([Disk("a.vmdk", 3, unit=unit)])).disks
    assert (found.capacity, found.unit) == (3 * factor, factor)


@pytest.mark.parametrize(
    ("processors", "expected"),
    [
        ("<rasd:VirtualQuantity>4</rasd:VirtualQuantity>", (4, 1)),
        ("<rasd:VirtualQuantity>6</rasd:VirtualQuantity><vmw:CoresPerSocket>3</vmw:CoresPerSocket>", (3, 2)),
        ("<rasd:VirtualQuantity>5</rasd:VirtualQuantity><vmw:CoresPerSocket>2</vmw:CoresPerSocket>", (5, 1)),
        ("", (1, 1)),
    ],
)
def test_processors(processors: str, expected: tuple[int, int]) -> None:
    found = machine(archive.ovf([], processors=processors))
    assert (found.cores, found.sockets) == expected


def test_firmware_and_what_goes_with_it() -> None:
    keys = {"firmware": "efi", "bootOptions.efiSecureBootEnabled": "true"}
    more = "".join(f'<vmw:Config vmw:key="{key}" vmw:value="{value}"/>' for key, value in keys.items())
    tpm = (
        "<Item><rasd:InstanceID>50</rasd:InstanceID><rasd:ResourceSubType>vmware.vtpm</rasd:ResourceSubType>"
        "<rasd:ResourceType>1</rasd:ResourceType></Item>"
    )
    found = machine(archive.ovf([], more=more + tpm))
    assert (found.firmware, found.secure_boot, found.tpm) == ("efi", True, True)
    assert machine(archive.ovf([], more="")).firmware == "bios"
    vbox = '<x:Machine xmlns:x="http://www.virtualbox.org/ovf/machine"><x:Firmware type="EFI64"/></x:Machine>'
    assert machine(archive.ovf([], more=vbox)).firmware == "efi"


def test_other_sizes_of_the_guest_are_left_out() -> None:
    """An appliance lists its hardware for several configurations; ranges are no hardware."""
    options = (
        "<DeploymentOptionSection><Info/><Configuration ovf:id='small'/>"
        "<Configuration ovf:id='large' ovf:default='true'/></DeploymentOptionSection>"
    )
    memory = (
        "<Item ovf:configuration='small'><rasd:InstanceID>60</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>"
        "<rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>"
        "<Item ovf:bound='min'><rasd:InstanceID>61</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>"
        "<rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>"
    )
    text = archive.ovf([]).replace("<NetworkSection>", f"{options}<NetworkSection>")
    text = text.replace("<Info>Hardware</Info>", f"<Info>Hardware</Info>{memory}")
    assert machine(text).memory == 2048


@pytest.mark.parametrize(
    ("number", "word", "ostype"),
    [
        ("1", "windows9Server64Guest", "win10"),
        ("1", "windows2019srv_64Guest", "win10"),
        ("1", "windows2019srvNext_64Guest", "win11"),
        ("1", "windows2022srvNext_64Guest", "win11"),
        ("1", "windows11_64Guest", "win11"),
        ("1", "windows8Server64Guest", "win8"),
        ("1", "windows7Server64Guest", "win7"),
        ("1", "winLonghorn64Guest", "w2k8"),
        ("1", "winNetEnterpriseGuest", "w2k3"),
        ("1", "winXPProGuest", "wxp"),
        ("36", "other24xLinux64Guest", "l24"),
        ("1", "other5xLinux64Guest", "l26"),
        ("1", "rockylinux_64Guest", "l26"),
        ("1", "ubuntu64Guest", "l26"),
        ("1", "freebsd13_64Guest", "other"),
        ("1", "solaris11_64Guest", "solaris"),
        ("18", "", "wxp"),
        ("94", "", "l26"),
        ("116", "", "win10"),
        ("123", "", "win11"),
        ("86", "", "other"),
        ("", "", "other"),
        ("x", "", "other"),
    ],
)
def test_operating_systems(number: str, word: str, ostype: str) -> None:
    assert find_ostype(number, word) == ostype


def test_operating_systems_are_known_to_proxmox() -> None:
    assert {*BY_NUMBER.values(), *(ostype for _pattern, ostype in BY_WORD)} <= OSTYPES


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=12)), min_size=1, max_size=4))
def test_damaged(edits: list[tuple[int, bytes]]) -> None:
    """Whatever the bytes are, it is an OVF or refused."""
    text = bytearray(archive.ovf([Disk("a.vmdk", MIB), Disk("b.vmdk", MIB, 4, 1)]).encode())
    for place, data in edits:
        text[place : place + len(data)] = data
    try:
        found = parse_ovf("db1.ovf", bytes(text))
    except ImageRefusedError as error:
        assert error.code.startswith(("ovf-", "member-"))
        return
    for one in found:
        assert one.ostype in OSTYPES
        assert all(drive.controller in {"ide", "scsi", "sata", "nvme"} for drive in one.disks)


@pytest.mark.parametrize("declaration", ["utf-16", "latin-1"])
def test_encodings(declaration: str) -> None:
    text = archive.ovf([], name="größe").replace("UTF-8", declaration)
    (found,) = parse_ovf("x.ovf", text.encode(declaration))
    assert found.name == "größe"


def test_a_guest_and_its_disks_in_a_survey(tmp_path: Path) -> None:
    """The archive's disks carry what the OVF says of them; what it does not say is a warning."""
    parts = []
    for number in range(2):
        path = vmdk.exported(tmp_path, disk(MIB, seed=number), f"d{number}.vmdk")
        parts.append((Disk(path.name, MIB, 3 + number), path.read_bytes()))
        path.unlink()
    text = archive.ovf([one for one, _data in parts])
    members = [("db1.ovf", text.encode()), ("db1.mf", archive.manifest([(parts[0][0].file, parts[0][1])]))]
    ova = tmp_path / "db1.ova"
    ova.write_bytes(archive.tar([*members, *((one.file, data) for one, data in parts)]))
    found = survey(str(ova), checksum=True)
    assert [(one.member, one.refused, one.machine, one.files) for one in found.images] == [
        ("d0.vmdk", None, "db1", ("d0.vmdk",)),
        ("d1.vmdk", None, "db1", ("d1.vmdk",)),
    ]
    assert [one.disk and (one.disk.controller, one.disk.controller_index) for one in found.images] == [
        ("scsi", 0),
        ("scsi", 1),
    ]
    assert len({one.checksum for one in found.images}) == len({one.fingerprint for one in found.images}) == 2
    (guest,) = found.machines
    assert guest.path == str(ova)
    assert guest.machine.warnings == ("db1.mf has no digest of d1.vmdk: only its structure can be checked",)
