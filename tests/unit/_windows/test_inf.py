# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""INFs of storage drivers, in the spellings that upstream's have had since Windows XP."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.inf import read_inf
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE
from winguest.media import inf_text

TEXT = inf_text("vioscsi", TABLE["2022"], "amd64")


def test_what_windows_would_install() -> None:
    inf = read_inf(TEXT.encode(), "amd64")
    assert (inf.service, inf.binary, inf.start, inf.type, inf.error_control) == ("vioscsi", "vioscsi.sys", 0, 1, 1)
    assert (inf.group, inf.catalogue) == ("SCSI miniport", "vioscsi.cat")
    assert inf.class_guid == "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
    assert inf.version == "07/21/2024,100.0.104.27100"
    assert inf.hardware_ids == (
        "PCI\\VEN_1AF4&DEV_1004&SUBSYS_00081AF4&REV_00",
        "PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01",
    )
    assert inf.compatible_ids == ("PCI\\VEN_1AF4&DEV_1004", "PCI\\VEN_1AF4&DEV_1048")
    assert inf.parameter("Parameters", "BusType") == 10
    assert inf.parameter("Parameters", "PnpInterface", "5") == 1
    assert inf.parameter("Parameters", "Words") is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(encoding: str) -> None:
    assert read_inf(TEXT.encode(encoding), "amd64") == read_inf(TEXT.encode(), "amd64")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Models,NTamd64.10.0", "Models,NTAMD64"),
        ("Models,NTamd64.10.0", "Models, NTx86.10.0, NTamd64.10.0...16299"),
        ("[Models.NTamd64.10.0]", "[MODELS.ntamd64.10.0] ; a comment"),
        ("%12%\\vioscsi.sys", "%12%\\\\\r\nvioscsi.sys"),
        ('"Parameters", "BusType"', "Parameters, BusType"),
        ("0x0000000A", "10"),
    ],
)
def test_spellings(old: str, new: str) -> None:
    assert old in TEXT
    changed = TEXT.replace(old, new)
    if "Models,NTamd64.10.0" in old:  # the section is called as its line says
        changed = changed.replace("[Models.NTamd64.10.0]", f"[Models.{new.rpartition(',')[2].strip()}]")
    inf = read_inf(changed.encode(), "amd64")
    assert inf.parameter("Parameters", "BusType") == 10
    assert inf.service == "vioscsi"


def test_windows_xp_has_no_decoration() -> None:
    text = TEXT.replace("Models,NTamd64.10.0", "Models").replace("[Models.NTamd64.10.0]", "[Models]")
    assert read_inf(text.encode(), "x86").service == "vioscsi"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("NTamd64", "NTx86", "the INF has no devices for amd64"),
        ("AddService", "DelService", "the INF adds no service"),
        ("StartType      = %SERVICE_BOOT_START%", "", "the INF gives starttype no number: ''"),
        ("SERVICE_BOOT_START = 0", "SERVICE_BOOT_START = soon", "the INF gives starttype no number: 'soon'"),
        ("0x0000000A", "ten", "the INF gives BusType no number: 'ten'"),
    ],
)
def test_what_says_too_little_is_refused(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ParseError, match=said):
        read_inf(TEXT.replace(old, new).encode(), "amd64")


def test_two_services_are_refused() -> None:
    more = "\r\n[Models.NTamd64.10.0]\r\n%Desc% = other_inst, PCI\\VEN_1AF4&DEV_1001\r\n[other_inst.Services]\r\n"
    text = TEXT + more + "AddService = other, 2, Service_Inst\r\n"
    with pytest.raises(ParseError, match="the INF adds 2 services, and one is known"):
        read_inf(text.encode(), "amd64")
