# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a guest's operating system is called in an OVF, and what Proxmox VE calls it (``ostype``).

Sources: DMTF, CIM_OperatingSystem 2.55 (numbers); VMware vSphere API, VirtualMachineGuestOsIdentifier (words);
pve-storage 9.1, PVE/GuestImport/OVF.pm and PVE/Storage/ESXiPlugin.pm.
"""

from __future__ import annotations

import re
import typing as t

#: By CIM's number.
BY_NUMBER: t.Final = {
    number: ostype
    for ostype, numbers in (
        ("solaris", (29, 81)),
        ("l24", (97, 98)),
        ("l26", (36, 79, 80, *range(82, 86), 87, *range(89, 97), 99, 100, 101, 106, 107, 108, 109)),
        ("wxp", (18, 67, 71, 72, 75)),
        ("w2k", (58,)),
        ("w2k3", (69, 70)),
        ("wvista", (73, 74)),
        ("w2k8", (76, 77)),
        ("win7", (103, 105)),
        ("win8", (111, 112, 113, 114, 115, 117, 118)),
        ("win10", (116, 119, 120, 121)),
        ("win11", (122, 123)),
    )
    for number in numbers
}

#: By VMware's word, the first that fits. It says more than the number, which has no entry for what is new.
BY_WORD: t.Final = tuple(
    (re.compile(pattern, re.IGNORECASE), ostype)
    for pattern, ostype in (
        (r"windows(11|12|2022|2025)|windows2019srvNext", "win11"),
        (r"windows(9|2016|2019)", "win10"),
        (r"windows8", "win8"),
        (r"windows7", "win7"),
        (r"winLonghorn", "w2k8"),
        (r"winVista", "wvista"),
        (r"winNet", "w2k3"),
        (r"win2000", "w2k"),
        (r"winXP|winNT", "wxp"),
        (r"other24xLinux", "l24"),
        (r"solaris|opensolaris", "solaris"),
        (
            r"linux|rhel|redhat|centos|oracleLinux|sles|suse|opensuse|debian|ubuntu|fedora|asianux|coreos|vmwarePhoton"
            r"|mandr|turboLinux|sjds|nld|oes|rockylinux|almalinux|amazonlinux|crxPod|crxSys|.*Linux",
            "l26",
        ),
    )
)


def find_ostype(number: str, word: str) -> str:
    """The ``ostype``.

    :param number: of CIM, as text.
    :param word: of VMware, such as ``windows9Server64Guest``, or ''.
    """
    for pattern, ostype in BY_WORD:
        if word and pattern.match(word):
            return ostype
    return BY_NUMBER.get(int(number), "other") if re.fullmatch(r"[0-9]{1,6}", number) else "other"
