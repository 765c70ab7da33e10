# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reg.exe shows, on releases that have no PowerShell."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.reg_exe import (
    outputs,
    read_output,
    read_registry,
    with_boot_disk,
)

NT = r"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
SERVICES = r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services"
# As Windows XP prints: a heading, tabs, a name with blanks, an empty value; and as Vista prints.
XP = (
    "\r\n! REG.EXE VERSION 3.0\r\n\r\n"
    + NT
    + "\r\n\t<KEIN NAME>\tREG_SZ\t\r\n\tCurrentBuildNumber\tREG_SZ\t2600\r\n\tCurrentVersion\tREG_SZ\t5.1\r\n"
    "\tProductName\tREG_SZ\tMicrosoft Windows XP\r\n\r\n" + NT + "\\Accessibility\r\n"
)
VISTA = f"""
{SERVICES}\\viostor
    Type    REG_DWORD    0x1
    Start    REG_DWORD    0x0
    ImagePath    REG_EXPAND_SZ    system32\\DRIVERS\\viostor.sys

{SERVICES}\\viostor\\Enum
    0    REG_SZ    PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00\\3&13c0b0c5&0&28
    Count    REG_DWORD    0x1

Ende der Suche: 2 Übereinstimmungen gefunden.
"""


def test_old_and_new_output() -> None:
    found = read_output(XP)
    assert found[NT.lower()] == {
        "<kein name>": "", "currentbuildnumber": "2600", "currentversion": "5.1", "productname": "Microsoft Windows XP",
    }  # fmt: skip
    assert found[f"{NT}\\Accessibility".lower()] == {}
    assert read_output(VISTA)[f"{SERVICES}\\viostor\\Enum".lower()]["count"] == "0x1"


def test_a_windows_without_powershell() -> None:
    options = "HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Control\\ProductOptions"
    product = f"{options}\r\n    ProductType    REG_SZ    WinNT"
    windows = read_registry(outputs(iter([XP, VISTA, product])))
    assert windows.release is not None
    assert windows.release.key == "xp"
    assert (windows.powershell, windows.bitlocker, windows.volumes) == (None, None, ())
    assert windows.drivers["viostor"].service.devices == 1
    assert windows.drivers["viostor"].missing("viostor") == ()
    assert windows.drivers["vioscsi"].missing("vioscsi") == ("vioscsi is not installed",)


@pytest.mark.parametrize(
    ("bus_type", "service"), [("scsi", "viostor"), ("sas", None), ("ide", None), (None, None), ("sata", None)]
)
def test_the_boot_disk_is_named_only_if_one_driver_fits(bus_type: str | None, service: str | None) -> None:
    windows = with_boot_disk(read_registry(outputs(iter([XP, VISTA]))), bus_type)
    assert (windows.boot_disk.service if windows.boot_disk else None) == service
