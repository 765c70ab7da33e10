# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver ISOs from nothing, made with genisoimage and upstream's options (virtio-win-pkg-scripts, virtio-win.spec)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE, Release, Signature

from winguest.authenticode import catalogue, driver_file, signed

GENISOIMAGE = shutil.which("genisoimage")
#: What the drivers of a release are signed with, on the ISO that the table names.
SIGNED = {
    Signature.NONE: ("publisher", "sha1"),
    Signature.CROSS_SHA1: ("publisher", "sha1"),
    Signature.CROSS: ("publisher", "sha256"),
    Signature.MICROSOFT: ("microsoft", "sha256"),
}
DEVICES = {"vioscsi": ("1004", "0008", "1048"), "viostor": ("1001", "0002", "1042")}
BUS_TYPES = {"vioscsi": 0x0A, "viostor": 0x01}


def inf_text(driver: str, release: Release, architecture: str, bus_type: int | None = None) -> str:
    """The INF of a storage driver, with what Windows reads of it."""
    old, subsystem, new = DEVICES[driver]
    bus_type = BUS_TYPES[driver] if bus_type is None else bus_type
    decoration = f"NT{architecture}.{release.version}"
    return "\r\n".join(
        [
            "; a driver of the tests",
            "[Version]",
            'Signature="$Windows NT$"',
            "Class=SCSIAdapter",
            "ClassGUID={4D36E97B-E325-11CE-BFC1-08002BE10318}",
            "Provider=%VENDOR%",
            "DriverVer = 07/21/2024,100.0.104.27100 ; a comment",
            f"CatalogFile={driver}.cat",
            "[Manufacturer]",
            f"%VENDOR%   = Models,{decoration}",
            f"[Models.{decoration}]",
            f"%Desc% = scsi_inst, PCI\\VEN_1AF4&DEV_{old}&SUBSYS_{subsystem}1AF4&REV_00, PCI\\VEN_1AF4&DEV_{old}",
            f"%Desc% = scsi_inst, PCI\\VEN_1AF4&DEV_{new}&SUBSYS_11001AF4&REV_01, PCI\\VEN_1AF4&DEV_{new}",
            "[scsi_inst]",
            "CopyFiles=files",
            "[scsi_inst.Services]",
            f"AddService = {driver}, 0x00000002 , Service_Inst, Log_Inst",
            "[Service_Inst]",
            "ServiceType    = %SERVICE_KERNEL_DRIVER%",
            "StartType      = %SERVICE_BOOT_START%",
            "ErrorControl   = %SERVICE_ERROR_NORMAL%",
            f"ServiceBinary  = %12%\\{driver}.sys",
            "LoadOrderGroup = SCSI miniport",
            "AddReg         = params",
            "[params]",
            'HKR, "Parameters\\PnpInterface", "5", %REG_DWORD%, 0x00000001',
            f'HKR, "Parameters", "BusType", %REG_DWORD%, 0x{bus_type:08X}',
            'HKR, "Parameters", "Words", 0x00000000, "one; two"',
            "[Strings]",
            'VENDOR = "Red Hat, Inc."',
            'Desc = "A controller"',
            "REG_DWORD = 0x00010001",
            "SERVICE_KERNEL_DRIVER = 1",
            "SERVICE_BOOT_START = 0",
            "SERVICE_ERROR_NORMAL = 1",
            "",
        ]
    )


def driver_files(driver: str, release: Release, architecture: str) -> dict[str, bytes]:
    """The files of a driver by their names, signed as on the ISO that the table names."""
    who, digest = SIGNED[release.signature]
    plain = driver_file(architecture, f"{driver} for {release.title} {architecture}".encode())
    return {
        f"{driver}.inf": inf_text(driver, release, architecture).encode(),
        f"{driver}.sys": signed(plain, who, digest),
        f"{driver}.cat": catalogue([plain], who, digest),
    }


def write_iso(path: Path, files: Mapping[str, bytes], label: str = "virtio-win-0.1.271") -> Path:
    """An ISO with these files, by their paths."""
    tree = path.with_suffix(".tree")
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    command = ["genisoimage", "-quiet", "-r", "-iso-level", "4", "-V", label, "-o", str(path), str(tree)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return path


def all_files() -> dict[str, bytes]:
    """Both drivers for every release and processor, in upstream's folders; the releases that share one share files."""
    return {
        f"{driver}/{release.folder}/{architecture}/{name}": data
        for release in reversed(TABLE.values())
        for architecture in release.architectures
        for driver in release.drivers
        for name, data in driver_files(driver, release, architecture).items()
    }
