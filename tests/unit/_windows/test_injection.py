# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers become boot-critical in hives of every Windows, read back by regipy; and all of it is taken back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from winguest.hivex_here import HIVEX, REASON

if HIVEX is None:
    pytest.skip(REASON, allow_module_level=True)

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows import injection, installation, record, tree
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.iso9660 import IsoImage
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.package import Shelf
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE, Release
from winguest.hives import edit_hive, read_with_regipy
from winguest.media import BUS_TYPES, DEVICES, GENISOIMAGE, all_files, write_iso
from winguest.systems import CLASS, EVERY
from winguest.volumes import CATALOGUES, CONFIG, DRIVERS, MKNTFS, FolderVolume, content, make_ntfs, make_windows

pytestmark = pytest.mark.skipif(
    GENISOIMAGE is None or MKNTFS is None, reason="genisoimage or mkntfs (package ntfs-3g) is not installed"
)
SET = "\\ControlSet001"
NAME = "tank:vm-120-disk-0"


@pytest.fixture(scope="session")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_iso(tmp_path_factory.mktemp("iso") / "virtio-win.iso", all_files())


@pytest.fixture(scope="session")
def ntfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ntfs(tmp_path_factory.mktemp("ntfs") / "volume")


@dataclass
class Guest:
    """A Windows on a plain folder, and what the module does with it, step by step."""

    volume: FolderVolume
    store: Path
    iso: Path

    @property
    def root(self) -> Path:
        return self.volume.root

    def find(self) -> installation.Installation:
        place = installation.find_windows(self.volume, None)
        return installation.read_installation(self.volume, str(self.root), place, str(self.store))

    def plan(self, *drivers: str, legacy: bool = True) -> injection.Plan:
        found = self.find()
        with IsoImage(str(self.iso)) as image:
            shelf = Shelf(image, found.windows, NAME, allow_test_signed=False)
            packages = [package for name in drivers if (package := shelf.take(name))]
        assert shelf.refusals == []
        plan = injection.plan_injection(found, str(self.root), packages, volume=NAME, legacy=legacy)
        self.digest = found.digest
        return plan

    def inject(self, *drivers: str, legacy: bool = True) -> injection.Plan:
        plan = self.plan(*(drivers or self.release_drivers()), legacy=legacy)
        if plan:
            injection.carry_out(plan, str(self.root), str(self.store), self.digest)
        return plan

    def release_drivers(self) -> tuple[str, ...]:
        return self.find().windows.release.drivers

    def revert(self) -> injection.Plan:
        found = self.find()
        plan = injection.plan_reversal(found, str(self.root), str(self.store), legacy=True)
        if plan:
            injection.carry_out(plan, str(self.root), str(self.store), found.digest)
        return plan

    def system(self) -> dict[str, dict[str, Any]]:
        return read_with_regipy(self.root / CONFIG / "SYSTEM")

    def edit(self, changes: dict[str, Any]) -> None:
        edit_hive(self.root / CONFIG / "SYSTEM", changes)


def make_guest(tmp_path: Path, iso: Path, ntfs: Path, release: Release, architecture: str = "amd64") -> Guest:
    root = tmp_path / "volume"
    make_windows(root, release, architecture)
    return Guest(FolderVolume(root, ntfs, NAME), tmp_path / "store", iso)


@pytest.fixture
def server(tmp_path: Path, iso: Path, ntfs: Path) -> Guest:
    return make_guest(tmp_path, iso, ntfs, TABLE["2022"])


@pytest.mark.parametrize(("release", "architecture"), EVERY, ids=[f"{row.key}-{arch}" for row, arch in EVERY])
def test_every_windows(release: Release, architecture: str, tmp_path: Path, iso: Path, ntfs: Path) -> None:
    guest = make_guest(tmp_path, iso, ntfs, release, architecture)
    before, files = guest.system(), content(guest.root)
    assert guest.inject()
    system = guest.system()
    for driver in release.drivers:
        check_service(system, driver)
        if release.number >= (6, 2):
            check_driver_database(system, driver, architecture)
        else:
            check_critical_devices(system, driver)
        with IsoImage(str(iso)) as image:
            written = (guest.root / DRIVERS / f"{driver}.sys").read_bytes()
            assert written == image.read(f"{driver}/{release.folder}/{architecture}/{driver}.sys")
    assert {path: values for path, values in system.items() if path in before} == before
    assert not guest.inject()  # a second run changes nothing
    assert guest.revert()
    assert guest.system() == before
    after = content(guest.root)
    hive = str(CONFIG / "SYSTEM")  # the same keys and values, in other places of the file
    assert {**after, hive: b""} == {**files, hive: b""}
    assert not guest.store.exists()
    assert not guest.revert()


def check_service(system: dict[str, dict[str, Any]], driver: str) -> None:
    service = f"{SET}\\Services\\{driver}"
    assert system[service] == {
        "Type": ("REG_DWORD", 1),
        "Start": ("REG_DWORD", 0),
        "ErrorControl": ("REG_DWORD", 1),
        "Group": ("REG_SZ", "SCSI miniport"),
        "ImagePath": ("REG_EXPAND_SZ", f"system32\\drivers\\{driver}.sys"),
    }
    assert system[f"{service}\\Parameters"] == {"BusType": ("REG_DWORD", BUS_TYPES[driver])}
    assert system[f"{service}\\Parameters\\PnpInterface"] == {"5": ("REG_DWORD", 1)}


def device_names(driver: str) -> list[str]:
    """As a device on PCI is called, with what virt-v2v writes among them (without the subsystem)."""
    old, subsystem, new = DEVICES[driver]
    return [
        f"VEN_1AF4&DEV_{old}&SUBSYS_{subsystem}1AF4&REV_00",
        f"VEN_1AF4&DEV_{new}&SUBSYS_11001AF4&REV_01",
        f"VEN_1AF4&DEV_{old}&REV_00",
        f"VEN_1AF4&DEV_{new}&REV_01",
    ]


def check_critical_devices(system: dict[str, dict[str, Any]], driver: str) -> None:
    assert "\\DriverDatabase" not in system
    for name in device_names(driver):
        assert system[f"{SET}\\Control\\CriticalDeviceDatabase\\PCI#{name}"] == {
            "Service": ("REG_SZ", driver),
            "ClassGUID": ("REG_SZ", "{4D36E97B-E325-11CE-BFC1-08002BE10318}"),
        }


def check_driver_database(system: dict[str, dict[str, Any]], driver: str, architecture: str) -> None:
    assert f"{SET}\\Control\\CriticalDeviceDatabase" not in system
    database, inf = "\\DriverDatabase", f"diskwright_{driver}.inf"
    label, configuration = f"{inf}_{architecture}_0000000000000000", f"diskwright_{driver}"
    files = system[f"{database}\\DriverInfFiles\\{inf}"]
    assert files["Active"] == ("REG_SZ", label)
    assert files["(default)"] == ("REG_MULTI_SZ", [label])
    assert files["Configurations"] == ("REG_MULTI_SZ", [configuration])
    package = f"{database}\\DriverPackages\\{label}"
    version = "00ff090000000000" + "7be9364d25e3ce11bfc108002be10318" + "00" * 24
    assert system[package] == {"Version": ("REG_BINARY", version)}
    assert system[f"{package}\\Configurations\\{configuration}"] == {
        "ConfigFlags": ("REG_DWORD", 0),
        "Service": ("REG_SZ", driver),
    }
    for name in device_names(driver):
        assert system[f"{database}\\DeviceIds\\PCI\\{name}"][inf] == ("REG_BINARY", "01ff0000")
        assert system[f"{package}\\Descriptors\\PCI\\{name}"] == {"Configuration": ("REG_SZ", configuration)}


# ---- what is there already


def test_a_switched_off_driver_is_switched_on(server: Guest) -> None:
    server.edit({"ControlSet001": {"Services": {"vioscsi": {"Start": 3, "StartOverride": {"0": 3}}}}})
    before = server.system()
    assert server.inject("vioscsi")
    assert f"{SET}\\Services\\vioscsi\\StartOverride" not in server.system()
    assert server.system()[f"{SET}\\Services\\vioscsi"]["Start"] == ("REG_DWORD", 0)
    server.revert()
    assert server.system() == before


def test_windows_own_drivers_for_the_way_back(server: Guest) -> None:
    server.edit({"ControlSet001": {"Services": {"storahci": {"StartOverride": {"0": 3}}}}})
    assert server.plan("vioscsi", legacy=False).change
    server.inject("vioscsi", legacy=False)
    assert f"{SET}\\Services\\storahci\\StartOverride" in server.system()
    assert [edit.path for edit in server.inject("vioscsi").change.edits] == [
        ("ControlSet001", "Services", "storahci", "StartOverride")
    ]
    assert f"{SET}\\Services\\storahci\\StartOverride" not in server.system()
    server.edit({"ControlSet001": {"Services": {"storahci": {"StartOverride": {"0": 3}}}}})
    server.revert()
    assert f"{SET}\\Services\\storahci\\StartOverride" not in server.system()


def installed_by_windows(driver: str, old: str) -> dict[str, Any]:
    device = f"pci\\ven_1af4&dev_{old}&subsys_00081af4&rev_00"
    service = {
        "Type": 1,
        "Start": 0,
        "ErrorControl": 1,
        "Group": "SCSI miniport",
        "ImagePath": (2, f"\\SystemRoot\\System32\\drivers\\{driver}.sys\0".encode("utf-16-le")),
        "Owners": (7, "oem3.inf\0\0".encode("utf-16-le")),
        "Parameters": {"BusType": BUS_TYPES[driver], "PnpInterface": {"5": 1}},
    }
    return {
        "ControlSet001": {
            "Services": {driver: service},
            "Control": {"Class": {CLASS: {"0001": {"InfPath": "oem3.inf", "MatchingDeviceId": device}}}},
        }
    }


def test_a_driver_that_windows_has_installed_is_left_alone(server: Guest) -> None:
    server.edit(installed_by_windows("vioscsi", "1004"))
    (server.root / DRIVERS / "vioscsi.sys").write_bytes(b"a newer driver")
    assert not server.inject("vioscsi")
    server.edit({"ControlSet001": {"Services": {"vioscsi": {"StartOverride": {"0": 3}}}}})
    plan = server.inject("vioscsi")
    assert [str(edit) for edit in plan.change.edits] == [
        "ControlSet001\\Services\\vioscsi\\StartOverride: 0 0x3 -> absent"
    ]
    assert (server.root / DRIVERS / "vioscsi.sys").read_bytes() == b"a newer driver"


def test_what_windows_has_made_its_own_is_not_taken_back(server: Guest) -> None:
    server.inject("vioscsi")
    server.edit(installed_by_windows("vioscsi", "1004"))
    (server.root / DRIVERS / "vioscsi.sys").write_bytes(b"a newer driver")
    plan = server.revert()
    assert "Windows\\System32\\drivers\\vioscsi.sys" in plan.kept
    assert (server.root / DRIVERS / "vioscsi.sys").read_bytes() == b"a newer driver"
    system = server.system()
    assert system[f"{SET}\\Services\\vioscsi"]["Start"] == ("REG_DWORD", 0)
    assert [path for path in system if "diskwright" in path] == []


def test_another_iso_replaces_the_driver_and_the_first_backup_stays(server: Guest, tmp_path: Path, iso: Path) -> None:
    (server.root / DRIVERS / "viostor.sys").write_bytes(b"left over from long ago")
    before, files = server.system(), content(server.root)
    server.inject("viostor")
    other = all_files()
    with IsoImage(str(iso)) as image:
        first = image.read("viostor/2k22/amd64/viostor.sys")
    assert (server.root / DRIVERS / "viostor.sys").read_bytes() == first
    for end in ("inf", "sys", "cat"):  # that of another release is another driver
        other[f"viostor/2k22/amd64/viostor.{end}"] = other[f"viostor/2k19/amd64/viostor.{end}"]
    server.iso = write_iso(tmp_path / "other.iso", other)
    plan = server.inject("viostor")
    assert [file.parts[-1] for file in plan.files] == ["viostor.sys"]
    assert (server.root / DRIVERS / "viostor.sys").read_bytes() != first
    server.revert()
    assert server.system() == before
    assert (server.root / DRIVERS / "viostor.sys").read_bytes() == b"left over from long ago"
    assert content(server.root).keys() == files.keys()


def test_both_control_sets_are_written_when_they_differ(server: Guest) -> None:
    server.edit({"Select": {"Default": 2}, "ControlSet002": {"Control": {}, "Services": {}}})
    environment = {"Environment": {"PROCESSOR_ARCHITECTURE": "AMD64"}}
    control = {"ProductOptions": {"ProductType": "ServerNT"}, "Session Manager": environment}
    server.edit({"ControlSet002": {"Control": control}})
    server.inject("vioscsi")
    for control_set in ("ControlSet001", "ControlSet002"):
        assert server.system()[f"\\{control_set}\\Services\\vioscsi"]["Start"] == ("REG_DWORD", 0)


def test_catalogue_is_put_in_place_when_its_signature_counts(server: Guest, tmp_path: Path) -> None:
    """A driver that carries its publisher's signature alone, and whose catalogue Microsoft has signed."""
    from winguest.authenticode import catalogue, driver_file, signed

    files = all_files()
    plain = driver_file("amd64", b"signed twice")
    files["vioscsi/2k22/amd64/vioscsi.sys"] = signed(plain, "publisher")
    files["vioscsi/2k22/amd64/vioscsi.cat"] = catalogue([plain], "microsoft")
    server.iso = write_iso(tmp_path / "catalogue.iso", files)
    before = content(server.root)
    server.inject("vioscsi")
    placed = server.root / CATALOGUES / "diskwright-vioscsi.cat"
    assert placed.read_bytes() == files["vioscsi/2k22/amd64/vioscsi.cat"]
    assert not server.inject("vioscsi")
    server.revert()
    assert content(server.root).keys() == before.keys()


# ---- backups and accidents


def test_backups_are_on_the_volume_and_on_the_node(server: Guest) -> None:
    before = (server.root / CONFIG / "SYSTEM").read_bytes()
    server.inject()
    for folder in (server.root / "Windows" / "diskwright", server.store):
        assert (folder / "SYSTEM").read_bytes() == before
        known = record.load(str(folder))
        assert known is not None
        assert known.state == "injected"
        assert ("Windows", "System32", "drivers", "vioscsi.sys") in [change.parts for change in known.files]
    assert b"recovery console" in (server.root / "Windows" / "diskwright" / "README.txt").read_bytes()


def test_the_way_back_by_hand(server: Guest) -> None:
    before = server.system()
    server.inject()
    shutil.copy(server.root / "Windows" / "diskwright" / "SYSTEM", server.root / CONFIG / "SYSTEM")
    assert server.system() == before


class Cut(BaseException):
    """The machine stops here."""


STEPS = ["copy", "write", "replace", "remove", "remove_folder", "make_folder"]


@pytest.mark.parametrize("way", ["inject", "revert"])
def test_a_run_that_is_cut_off_anywhere_is_finished_by_the_next(
    way: str, tmp_path: Path, iso: Path, ntfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before every single step that writes; then the run is repeated, and ends as if nothing had happened."""
    reference = make_guest(tmp_path / "reference", iso, ntfs, TABLE["2022"])
    original = reference.system()
    reference.inject()
    expected = reference.system()
    count = 0
    while True:
        guest = make_guest(tmp_path / f"cut{count}", iso, ntfs, TABLE["2022"])
        if way == "revert":
            guest.inject()
        with monkeypatch.context() as patch:
            calls = cut_at(patch, count)
            try:
                getattr(guest, way)()
                break  # it came to its end: every step was cut once
            except Cut:
                pass
        assert len(calls) == count
        getattr(guest, way)()
        assert not getattr(guest, way)()
        assert guest.system() == (expected if way == "inject" else original)
        if way == "inject":
            guest.revert()
            assert guest.system() == original
        assert [name for name in content(guest.root) if "diskwright" in name] == []
        count += 1
    assert count > 5


def cut_at(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Makes step `number` raise instead of being done; the list has the steps that were reached."""
    calls: list[str] = []
    for name in STEPS:
        real = getattr(tree, name)

        def step(*arguments: Any, _real: Any = real, _name: str = name, **keys: Any) -> Any:
            if len(calls) == number:
                raise Cut
            calls.append(_name)
            return _real(*arguments, **keys)

        patch.setattr(tree, name, step)
    return calls


def test_a_hive_that_is_missing_after_a_crash_is_made_from_its_backup(server: Guest) -> None:
    server.inject()
    expected = server.system()
    (server.root / CONFIG / "SYSTEM").unlink()
    shutil.rmtree(server.root / "Windows" / "diskwright")
    assert server.inject()
    assert server.system() == expected


def test_a_volume_that_was_restored_meanwhile_is_begun_anew(server: Guest, tmp_path: Path) -> None:
    """The node's records are of the volume as it was, and must not be mixed with it as it is."""
    shutil.copytree(server.root, tmp_path / "backup")
    server.inject()
    shutil.rmtree(server.root)
    shutil.copytree(tmp_path / "backup", server.root)
    server.edit({"ControlSet001": {"Services": {"vioscsi": {"Start": 4}}}})
    before = server.system()
    server.inject()
    assert read_with_regipy(server.store / "SYSTEM") == before
    server.revert()
    assert server.system() == before


def test_windows_7_has_made_a_driver_its_own(tmp_path: Path, iso: Path, ntfs: Path) -> None:
    """It does not write who owns a service; the device's class says it."""
    guest = make_guest(tmp_path, iso, ntfs, TABLE["7"])
    guest.inject("viostor")
    device = {"InfPath": "oem7.inf", "MatchingDeviceId": "pci\\ven_1af4&dev_1001&subsys_00021af4&rev_00"}
    guest.edit({"ControlSet001": {"Control": {"Class": {CLASS: {"0001": device}}}}})
    plan = guest.revert()
    assert "ControlSet001\\Services\\viostor: Start" in plan.kept
    assert guest.system()[f"{SET}\\Services\\viostor"]["Start"] == ("REG_DWORD", 0)


def test_somebody_else_who_writes_meanwhile_is_noticed(server: Guest) -> None:
    plan = server.plan("vioscsi")
    server.edit({"ControlSet001": {"Services": {"another": {"Start": 3}}}})
    before = content(server.root)
    with pytest.raises(DiskwrightError, match="somebody else writes to this volume"):
        injection.carry_out(plan, str(server.root), str(server.store), server.digest)
    assert content(server.root) == before


# ---- a guest's owner who means harm


def test_links_on_the_volume_lead_nowhere(server: Guest, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    (server.root / DRIVERS / "vioscsi.sys").symlink_to(secret)
    with pytest.raises(tree.TreeError, match="vioscsi.sys on the volume is a link, and links are not followed"):
        server.inject("vioscsi")
    (server.root / DRIVERS / "vioscsi.sys").unlink()
    (server.root / DRIVERS / "vioscsi.sys.diskwright-new").symlink_to(secret)
    (server.root / CONFIG / "SYSTEM.diskwright-new").symlink_to(secret)
    server.inject("vioscsi")
    assert secret.read_text() == "of the host"
    shutil.rmtree(server.root / "Windows" / "diskwright")
    (server.root / "Windows" / "diskwright").symlink_to(tmp_path)
    with pytest.raises(tree.TreeError, match="is a link"):
        server.revert()


@pytest.mark.parametrize(
    ("path", "before"),
    [(["..", "secret"], None), (["Windows", "a/../../b"], None), (["Windows", "x"], "../../secret"), ([""], None)],
)
def test_a_forged_record_leads_nowhere(server: Guest, path: list[str], before: str | None) -> None:
    import json

    server.inject("vioscsi")
    file = server.root / "Windows" / "diskwright" / "record.json"
    data = json.loads(file.read_text())
    data["files"] = [{"path": path, "before": before, "after": "0" * 64}]
    file.write_text(json.dumps(data))
    with pytest.raises(record.RecordError, match="is no record of an injection"):
        server.revert()
