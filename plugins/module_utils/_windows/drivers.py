# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The VirtIO drivers by name, as the driver ISO and Windows know them: one row each.

Source: virtio-win-pkg-scripts fe58e15, ``util/filemap.py`` (folders) and ``data/old-drivers`` (INF files).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Driver:
    """One driver.

    :param name: how options and results call it.
    :param folder: its folder on the ISO.
    :param stem: of its files, ``vioscsi.inf``, ``vioscsi.sys``, ``vioscsi.cat``.
    :param service: its service in Windows.
    :param devices: the PCI device ids that it drives, vendor 1AF4.
    :param bus: the bus of PVE whose disks hang on it, or an empty string.
    """

    name: str
    folder: str
    stem: str
    service: str
    devices: tuple[str, str]
    bus: str = ""

    @property
    def inf(self) -> str:
        """The file that describes it."""
        return f"{self.stem}.inf"

    def place(self, release: str, architecture: str, separator: str = "\\") -> str:
        """The folder of its files on the ISO.

        :param release: the folder of the Windows release, ``2k22``.
        """
        return separator.join((self.folder, release, architecture))


_ROWS = (
    Driver("vioscsi", "vioscsi", "vioscsi", "vioscsi", ("1004", "1048"), "scsi"),
    Driver("viostor", "viostor", "viostor", "viostor", ("1001", "1042"), "virtio"),
    Driver("vioserial", "vioserial", "vioser", "VirtioSerial", ("1003", "1043")),
    Driver("netkvm", "NetKVM", "netkvm", "netkvm", ("1000", "1041")),
    Driver("balloon", "Balloon", "balloon", "BALLOON", ("1002", "1045")),
)
#: By name.
DRIVERS: Mapping[str, Driver] = MappingProxyType({row.name: row for row in _ROWS})

#: Services of the controllers that a disk without VirtIO drivers hangs on, and the bus of PVE that each means.
#: All come with Windows, pvscsi with VMware's tools. Disks of ``lsi`` and ``pvscsi`` are SCSI disks for PVE.
CONTROLLERS: Mapping[str, str] = MappingProxyType(
    {
        "storahci": "sata",
        "msahci": "sata",
        "iastorv": "sata",
        "atapi": "ide",
        "intelide": "ide",
        "pciide": "ide",
        "lsi_scsi": "scsi",
        "symc8xx": "scsi",
        "sym_hi": "scsi",
        "lsi_sas": "scsi",
        "lsi_sas2": "scsi",
        "lsi_sas2i": "scsi",
        "megasas": "scsi",
        "pvscsi": "scsi",
        "stornvme": "",
    }
)


def bus_of(service: str) -> str | None:
    """The bus of PVE that a controller's service means, ``None`` for others."""
    found = CONTROLLERS.get(service.lower()) or next(
        (row.bus for row in _ROWS if row.service.lower() == service.lower()), ""
    )
    return found or None
