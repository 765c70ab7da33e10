# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a declaration for the inside of a Windows takes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.drivers import DRIVERS, bus_of
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.inside import (
    Disk,
    DriverState,
    Service,
    UnreadableWindowsError,
    Volume,
    Windows,
    find_iso_drive,
    read_windows,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.staging import (
    Package,
    Wish,
    guard_values,
    make_plan,
    read_package,
)
from lab.driverfiles import MICROSOFT, VIRTIO_WIN, package

SYSTEM_ID, DATA_ID = "0b7e5f0c-0000-0000-0000-000000000001", "0b7e5f0c-0000-0000-0000-000000000002"
WINDOWS = Windows(
    product="Windows Server 2022 Standard", edition="ServerStandard", version="10.0.20348", build=20348, server=True,
    architecture="amd64", release=TABLE["2022"], powershell="5.1", fast_startup=False, san_policy="offline_shared",
    disks=(Disk(0, "aa", "storahci", offline=False), Disk(1, "bb", "vioscsi", offline=True, read_only=True)),
    drivers={name: DriverState() for name in DRIVERS},
    controllers={"storahci": Service(0, 3), "atapi": Service(0), "LSI_SAS": Service(3)},
    bitlocker={"C:": "on", "D:": "suspended"},
    volumes=(Volume(SYSTEM_ID, "C:", "", "NTFS", 1, True), Volume(DATA_ID, "E:", "", "NTFS", 1, True),
             Volume("cd", "D:", "", "CDFS", 1, False)),
    iso=("F:", "virtio-win-0.1.271"),
)  # fmt: skip


def built(name: str, version: str = "100.95.104.26200", signer: tuple[str, str] = MICROSOFT) -> Package:
    files = package(DRIVERS[name].stem, version, signer)
    return read_package(name, rf"F:\{name}.inf", (files[".inf"], files[".sys"], files[".cat"]))


def plan(wish: Wish, windows: Windows = WINDOWS, *packages: Package) -> Any:
    return make_plan("win1 (100 on pve1)", windows, wish, {one.name: one for one in packages})


def steps(wish: Wish, windows: Windows = WINDOWS, *packages: Package) -> list[tuple[str, str]]:
    found = plan(wish, windows, *packages)
    assert not found.refusals, found.refusals
    return [(step.what, step.text) for step in found.steps]


def refusal(wish: Wish, windows: Windows = WINDOWS, *packages: Package) -> str:
    found = plan(wish, windows, *packages)
    (only,) = found.refusals
    return str(only).removeprefix("win1 (100 on pve1): ")


def with_driver(**state: Any) -> Windows:
    return replace(WINDOWS, drivers={**WINDOWS.drivers, "vioscsi": DriverState(**state)})


# ---- whether it would start


@pytest.mark.parametrize(
    ("state", "missing"),
    [
        (DriverState(), ("vioscsi is not installed",)),
        (
            DriverState(store={"oem1.inf": "1"}),
            ("vioscsi is in the driver store, and was never installed for a device",),
        ),
        (DriverState(Service(0, None, 1), True, {"oem1.inf": "1"}, True), ()),
        (DriverState(Service(3, None, 1), True, image=True), ("vioscsi starts with 3 and not at boot",)),
        (DriverState(Service(0, 3, 1), True, image=True), ("Windows has overridden its start with 3",)),
        (
            DriverState(Service(0, 0, 0), True),
            ("Windows has overridden its start with 0", "vioscsi.sys is not there",
             "vioscsi drives no device now, so that it works is not proven"),
        ),
    ],
)  # fmt: skip
def test_what_keeps_windows_from_starting(state: DriverState, missing: tuple[str, ...]) -> None:
    assert state.missing("vioscsi") == missing
    assert state.data("vioscsi")["boot_critical"] is not missing


def test_buses_by_service() -> None:
    assert [bus_of(name) for name in ("vioscsi", "viostor", "storahci", "ATAPI", "LSI_SAS", "stornvme", "nosuch")] == [
        "scsi", "virtio", "sata", "ide", "scsi", None, None,
    ]  # fmt: skip


# ---- drivers


def test_a_driver_is_staged_once() -> None:
    wish, new = Wish(drivers=("vioscsi",)), built("vioscsi")
    assert steps(wish, WINDOWS, new) == [("vioscsi", r"100.95.104.26200 staged from F:\vioscsi.inf")]
    assert steps(wish, with_driver(store={"oem1.inf": "100.95.104.26200"}), new) == []
    assert steps(wish, with_driver(store={"oem1.inf": "100.9.104.26200", "oem2.inf": "100.100"}), new) == []


def test_an_older_driver_is_replaced_and_a_device_without_driver_gets_one() -> None:
    wish, new = Wish(drivers=("vioscsi",)), built("vioscsi")
    assert steps(wish, with_driver(store={"oem1.inf": "100.9.104.26200"}), new)
    assert steps(wish, with_driver(store={"oem1.inf": "100.95.104.26200"}, hardware=1), new)


def test_a_test_signed_driver_is_refused_and_can_be_permitted() -> None:
    bad = built("vioscsi", signer=VIRTIO_WIN)
    assert refusal(Wish(drivers=("vioscsi",)), WINDOWS, bad) == (
        "drivers=vioscsi: Windows Server 2022 Standard does not load F:\\vioscsi.inf, which is signed by Red Hat Inc., "
        "certified by itself (sha256, in the catalogue); take the ISO 0.1.271, or permit it with allow_test_signed"
    )
    assert steps(Wish(drivers=("vioscsi",), allow_test_signed=True), WINDOWS, bad)
    assert steps(Wish(drivers=("vioscsi",)), with_driver(store={"oem1.inf": "100.95.104.26200"}), bad) == []


def test_a_driver_that_is_not_what_was_signed_is_refused_whatever_is_permitted() -> None:
    files = package("vioscsi", "1.2")
    changed = read_package("vioscsi", "x.inf", (files[".inf"], files[".sys"].replace(b"1.2", b"1.3"), files[".cat"]))
    text = refusal(Wish(drivers=("vioscsi",), allow_test_signed=True), WINDOWS, changed)
    assert text == "drivers=vioscsi: x.inf: its catalogue does not list it; take another ISO"


def test_all_refusals_together() -> None:
    found = plan(Wish(drivers=("vioscsi", "viostor"), online=("zz",), letters={"10": SYSTEM_ID, "K:": "zz"}))
    assert [str(one).partition(": ")[2] for one in found.refusals] == [
        "drivers=vioscsi: there is none for Windows Server 2022, amd64, where it was looked for; "
        "attach the ISO that has it, or name a folder that has it",
        "drivers=viostor: there is none for Windows Server 2022, amd64, where it was looked for; "
        "attach the ISO that has it, or name a folder that has it",
        "online=zz: there is no such disk; there are aa, bb",
        "letters=10: it is no drive letter; write it as E:",
        "letters=K: zz: there is no such volume; bring its disk online first",
    ]


# ---- what is guarded


def test_bitlocker() -> None:
    assert steps(Wish(bitlocker="suspended")) == [("C:", "BitLocker suspended for 3 starts")]
    assert steps(Wish(bitlocker="resumed")) == [("D:", "BitLocker resumed")]
    assert steps(Wish(bitlocker="resumed", volumes=("c:", "E:"))) == []
    locked, unknown = replace(WINDOWS, bitlocker={"C:": "locked"}), replace(WINDOWS, bitlocker=None)
    assert refusal(Wish(bitlocker="suspended"), locked) == "bitlocker_volumes=C:: the volume is locked; unlock it"
    assert "does not tell what BitLocker does" in refusal(Wish(bitlocker="suspended"), unknown)


def test_settings() -> None:
    assert steps(Wish(fast_startup=False, san_policy="offline_shared")) == []
    services = ("storahci", "atapi", "lsi_sas", "nosuch")
    found = plan(Wish(fast_startup=True, san_policy="online_all", boot_start=services))
    assert [(step.what, step.text) for step in found.steps] == [
        ("fast startup", "on"),
        ("SAN policy", "offline_shared -> online_all"),
        ("storahci", "can start Windows again"),
        ("lsi_sas", "can start Windows again"),
    ]
    assert guard_values(found, 3) == {
        "san_policy": 1, "fast_startup": 1, "suspend": (), "resume": (), "reboots": 3, "online": (), "letters": {},
        "boot_start": ("storahci", "lsi_sas"),
    }  # fmt: skip


def test_disks_and_letters() -> None:
    found = plan(Wish(online=("AA", "bb"), letters={"e": SYSTEM_ID, "D:\\": DATA_ID.upper()}))
    assert [(step.what, step.text) for step in found.steps] == [
        ("disk 1", "online and writable"),
        ("E:", f"is the letter of volume {SYSTEM_ID}"),
        ("D:", f"is the letter of volume {DATA_ID}"),
    ]
    values = guard_values(found, 3)
    assert (values["online"], values["letters"]) == ((1,), {"E:": SYSTEM_ID, "D:": DATA_ID})
    assert steps(Wish(online=("aa",), letters={"C:": SYSTEM_ID, "E:": DATA_ID})) == []


def test_without_powershell_nothing_can_be_set() -> None:
    old = replace(WINDOWS, powershell=None)
    text = refusal(Wish(fast_startup=False), old)
    assert text.startswith("this Windows has no PowerShell, so nothing can be set; use windows_inject")
    assert steps(Wish(), old) == []


# ---- what Windows answers


def test_an_answer_that_lacks_something_is_named() -> None:
    with pytest.raises(UnreadableWindowsError, match="^what Windows answered lacks system; run again, and if it stays"):
        read_windows({})
    with pytest.raises(UnreadableWindowsError, match="^what Windows answered has another form than it should; run"):
        read_windows({"system": []})


def test_the_iso_is_found_by_its_label() -> None:
    media = [("D:", "SSS_X64FREE"), ("F:", "virtio-win-0.1.285")]
    assert find_iso_drive(media) == ("F:", "virtio-win-0.1.285")
    assert find_iso_drive(media[:1]) is None
