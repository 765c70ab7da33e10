# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of each Windows release, as far as this collection reads and writes it."""

from __future__ import annotations

from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import (
    TABLE,
    Edition,
    Registry,
    Release,
)

CLASS = "{4d36e97b-e325-11ce-bfc1-08002be10318}"


def system_tree(release: Release, architecture: str = "amd64") -> dict[str, Any]:
    """What the SYSTEM hive of a release holds after an installation on SATA or IDE."""
    product = "WinNT" if release.edition is Edition.CLIENT else "ServerNT"
    legacy = "atapi" if release.legacy_bus == "ide" else "storahci"
    control: dict[str, Any] = {
        "ProductOptions": {"ProductType": product},
        "Session Manager": {"Environment": {"PROCESSOR_ARCHITECTURE": architecture.upper().replace("X86", "x86")}},
        "Class": {CLASS: {"0000": {"InfPath": "mshdc.inf", "MatchingDeviceId": "pci\\cc_0106"}}},
    }
    tree: dict[str, Any] = {
        "Select": {"Current": 1, "Default": 1, "Failed": 0, "LastKnownGood": 1},
        "ControlSet001": {
            "Control": control,
            "Services": {legacy: {"Type": 1, "Start": 0, "ErrorControl": 3, "Group": "SCSI Miniport"}},
        },
    }
    if release.registry is Registry.DRIVER_DATABASE:
        ids = {"PCI": {"CC_0106": {"mshdc.inf": b"\x02\xff\x00\x00"}}}
        tree["DriverDatabase"] = {"DeviceIds": ids, "DriverInfFiles": {}, "DriverPackages": {}}
    else:
        control["CriticalDeviceDatabase"] = {"pci#cc_0101": {"Service": "atapi", "ClassGUID": CLASS}}
    return tree


def software_tree(release: Release) -> dict[str, Any]:
    """What the SOFTWARE hive of a release says about it. Windows 10 and later leave 6.3 in CurrentVersion."""
    major, minor = release.number
    current: dict[str, Any] = {
        "ProductName": release.title,
        "CurrentBuildNumber": str(release.builds[0]),
        "CurrentVersion": "6.3" if major == 10 else release.version,
    }
    if release.number >= (6, 1):
        current["InstallationType"] = release.edition.value.title()
    if major == 10:
        current |= {"CurrentMajorVersionNumber": major, "CurrentMinorVersionNumber": minor}
    return {"Microsoft": {"Windows NT": {"CurrentVersion": current}}}


#: Every release with each processor that there are drivers for.
EVERY = [(row, architecture) for row in TABLE.values() for architecture in row.architectures]
