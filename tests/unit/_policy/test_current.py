# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``current`` agrees with Proxmox VE's documentation and source wherever they speak; each test says where that is.

Versions: pve-docs 9.1.3, qemu-server 9.2.6, pve-storage 9.1.7, pve-manager of the same time. ``.adoc`` is in pve-docs.
"""

from __future__ import annotations

import itertools

import pytest
from unit._policy.asking import ask, rejected, values

CURRENT = "current"


@pytest.mark.parametrize("known", [{"os_family": "linux"}, {"os_family": "bsd"}, {"virtio_drivers": True}])
def test_virtio_scsi_single_with_an_io_thread_is_recommended(known: dict[str, str]) -> None:
    """qm.adoc, Bus/Controller: "recommended if you aim for performance … default for newly created Linux VMs"."""
    answer = values(ask(CURRENT, **known))
    assert (answer["bus"], answer["scsihw"], answer["iothread"]) == ("scsi", "virtio-scsi-single", "1")


def test_virtio_block_is_superseded_and_still_better_than_an_emulated_bus() -> None:
    """qm.adoc, Bus/Controller: "superseded by the VirtIO SCSI Controller, in terms of features"."""
    assert ask(CURRENT, virtio_drivers="all").choices["bus"].value == "scsi"
    answer = values(ask(CURRENT, os_release="win10", virtio_drivers="block"))
    assert (answer["bus"], answer["iothread"], answer["ssd"]) == ("virtio", "1", None)


@pytest.mark.parametrize("release", ["w2k", "wxp", "w2k3", "l24"])
def test_ide_for_systems_released_before_2003(release: str) -> None:
    """qm.adoc, Bus/Controller: IDE is "a great choice if you want to run an OS released before 2003"."""
    assert ask(CURRENT, os_release=release).choices["bus"].value == "ide"


@pytest.mark.parametrize("release", ["win7", "win8", "win10", "win11"])
def test_windows_gets_its_driver_from_an_iso_during_installation(release: str) -> None:
    """qm.adoc, Bus/Controller: "you need to provide an extra ISO containing the drivers during the installation"."""
    bus = ask(CURRENT, os_release=release, stage="installing").choices["bus"]
    assert bus.value == "scsi" and "ISO" in bus.reason


@pytest.mark.parametrize("release", ["win7", "win8", "win10", "win11"])
def test_windows_from_elsewhere_starts_on_sata_with_the_controller_ready(release: str) -> None:
    """pve-manager, window/GuestImport.js: "Prepare for VirtIO-SCSI" maps disks to SATA and sets virtio-scsi-single."""
    answer = values(ask(CURRENT, os_release=release, stage="migrated"))
    assert (answer["bus"], answer["scsihw"]) == ("sata", "virtio-scsi-single")


def test_linux_from_elsewhere_can_switch_right_after_importing() -> None:
    """qm.adoc, Import OVF/OVA Through CLI: "you can switch to the paravirtualized drivers right after importing"."""
    assert ask(CURRENT, os_release="l26", stage="migrated").choices["bus"].value == "scsi"
    assert ask(CURRENT, os_release="l26", stage="migrated", virtio_drivers=False).choices["bus"].value == "sata"


@pytest.mark.parametrize("controller", [None, "lsi", "lsi53c810"])
def test_the_default_controller_is_unbootable_with_ovmf(controller: str | None) -> None:
    """qm.adoc, Import of OVA/OVF: "the default is unbootable with OVMF (UEFI)"; scsihw unset is lsi, QemuServer.pm."""
    answer = ask(CURRENT, {"bus": "scsi", "scsihw": controller}, os_family="linux", firmware="ovmf")
    assert "ovmf-without-lsi" in {item.rule for item in answer.objections}


@pytest.mark.parametrize("storage", ["lvm", "lvmthin", "zfspool", "zfs", "rbd", "iscsi"])
def test_storages_that_present_block_devices_require_raw(storage: str) -> None:
    """qm.adoc, Image Format: "Storages which present block devices (LVM, ZFS, Ceph) will require the raw …"."""
    for need in ("snapshots", "linked_clones", "portable"):
        assert ask(CURRENT, **{"type": storage, need: True}).choices["format"].value == "raw"


@pytest.mark.parametrize("storage", ["dir", "nfs", "cifs"])
def test_qcow2_is_the_dialogs_default_where_the_storage_holds_it(storage: str) -> None:
    """pve-manager, form/DiskStorageSelector.js: qcow2 if the storage supports it, else raw."""
    assert ask(CURRENT, type=storage).choices["format"].value == "qcow2"


@pytest.mark.parametrize("storage", ["dir", "nfs", "cifs"])
def test_a_folder_takes_snapshots_of_qcow2_only(storage: str) -> None:
    """pve-storage-dir.adoc: "you cannot create snapshots at the storage level … using the qcow2 file format"."""
    for workload, throughput in itertools.product((None, "database"), (None, "high")):
        answer = ask(CURRENT, type=storage, snapshots=True, workload=workload, throughput=throughput)
        assert answer.choices["format"].value == "qcow2"


def test_raw_may_be_faster() -> None:
    """qm.adoc, Image Format: raw "may, however, be up to 10% faster than the QEMU image format"."""
    for known in ({"workload": "database"}, {"throughput": "high"}):
        assert ask(CURRENT, type="dir", **known).choices["format"].value == "raw"


def test_vmdk_only_makes_sense_for_import_and_export() -> None:
    """qm.adoc, Image Format; pve-storage Plugin.pm: volume_resize and volume_has_feature refuse vmdk."""
    answer = ask(CURRENT, type="dir", portable=True)
    assert answer.choices["format"].value == "raw"
    assert rejected(answer, "format")["vmdk"] == "no-vmdk"


def test_snapshots_on_thick_lvm_are_chains_of_qcow2_volumes() -> None:
    """pve-storage-lvm.adoc, snapshot-as-volume-chain; LVMPlugin.pm holds qcow2 with it only."""
    assert ask(CURRENT, type="lvm", chains=True, snapshots=True).choices["format"].value == "qcow2"
    assert ask(CURRENT, type="lvm", snapshots=True).choices["format"].value == "raw"
    assert ask(CURRENT, type="lvm", chains=True).choices["format"].value == "raw"


def test_chains_need_machine_version_10() -> None:
    """qemu-server, QemuServer.pm, print_drive_commandline_full: "this requires QEMU machine version >= 10.0"."""
    for kind in ("lvm", "dir"):
        answer = ask(CURRENT, type=kind, chains=True, snapshots=True, machine_version="9.2")
        assert answer.choices["format"].value == "raw"
        answer = ask(CURRENT, type=kind, chains=True, snapshots=True, machine_version="10.0")
        assert answer.choices["format"].value == "qcow2"


@pytest.mark.parametrize("storage", ["dir", "nfs", "lvm", "lvmthin", "zfspool", "rbd"])
def test_no_cache_is_a_good_balance(storage: str) -> None:
    """qm.adoc, Cache Mode: the No cache default "provides a good balance between safety and speed"."""
    assert ask(CURRENT, type=storage).choices["cache"].value in (None, "none")


def test_btrfs_without_cache_none() -> None:
    """pve-storage-btrfs.adoc: "VMs should not use cache mode none, otherwise there will be checksum errors"."""
    for workload in (None, "database", "general"):
        answer = ask(CURRENT, type="btrfs", workload=workload, fastest_cache="none")
        assert answer.choices["cache"].value is None
        assert rejected(answer, "cache")["none"] == "btrfs-cache"
    (objection,) = ask(CURRENT, {"cache": "none"}, type="btrfs").objections
    assert objection.severity == "danger"


@pytest.mark.parametrize("storage", ["dir", "nfs", "cifs"])
def test_writeback_where_o_direct_is_not_supported(storage: str) -> None:
    """pve-storage-dir.adoc: "Some storage types do not support O_DIRECT … Simply use cache mode writeback instead"."""
    assert ask(CURRENT, type=storage, direct_io=False, workload="database").choices["cache"].value == "writeback"


def test_modes_that_turn_the_guests_write_cache_off_are_avoided() -> None:
    """qemu-server, QemuServer/DriveDevice.pm: write-cache is off with directsync and writethrough."""
    assert {"directsync", "writethrough"} <= rejected(ask(CURRENT, workload="database"), "cache").keys()


def test_unsafe_drops_flushes() -> None:
    """qemu-server, QemuServer/Blockdev.pm: no-flush with cache=unsafe."""
    (objection,) = ask(CURRENT, {"cache": "unsafe"}, workload="general").objections
    assert (objection.rule, objection.severity) == ("keep-flushes", "danger")


@pytest.mark.parametrize("storage", ["dir", "lvm", "cifs", "rbd", "zfspool", None])
def test_aio_is_left_to_proxmox_ve(storage: str | None) -> None:
    """qemu-server, QemuServer/Drive.pm, aio_cmdline_option: io_uring, else native or threads, by storage and cache."""
    assert ask(CURRENT, type=storage).choices["aio"].value is None


@pytest.mark.parametrize("known", [{"type": "lvm"}, {"type": "cifs"}])
def test_io_uring_is_not_forced_where_proxmox_ve_avoids_it(known: dict[str, str]) -> None:
    """qemu-server, QemuServer/Drive.pm, storage_allows_io_uring_default: not on LVM, CIFS, krbd with a write cache."""
    assert "no-io-uring" in {item.rule for item in ask(CURRENT, {"aio": "io_uring"}, **known).objections}
    fixed = {"aio": "io_uring", "cache": "writeback"}
    assert "no-io-uring" in {item.rule for item in ask(CURRENT, fixed, type="rbd", krbd=True).objections}
    assert ask(CURRENT, {"aio": "io_uring"}, type="rbd", krbd=True).objections == ()


def test_native_with_a_host_cached_mode_does_not_start() -> None:
    """QEMU: "aio=native was specified, but it requires cache.direct=on"; Drive.pm passes an explicit aio unchecked."""
    for mode in ("writeback", "writethrough", "unsafe"):
        conflicts = ask(CURRENT, {"aio": "native", "cache": mode}, durability="disposable").conflicts
        assert {item.rule for item in conflicts} == {"native-needs-direct", "direct-for-native"}
    assert ask(CURRENT, {"aio": "native"}, type="dir", direct_io=True).choices["cache"].value is None


def test_native_on_btrfs_needs_an_explicit_mode() -> None:
    """qemu-server, QemuServer/Drive.pm, drive_uses_cache_direct: without a mode BTRFS goes through the host's cache."""
    assert {item.rule for item in ask(CURRENT, {"aio": "native"}, type="btrfs").conflicts} == {"native-on-btrfs"}


@pytest.mark.parametrize("bus", ["ide", "sata"])
def test_io_threads_only_with_virtio_or_virtio_scsi_single(bus: str) -> None:
    """qm.adoc, IO Thread; qemu-server, QemuServer.pm: otherwise ignored with a warning."""
    assert ask(CURRENT, {"bus": bus}).choices["iothread"].value is None
    for controller in ("lsi", "virtio-scsi-pci", "megasas", None):
        fixed = {"bus": "scsi", "scsihw": controller}
        assert ask(CURRENT, fixed, os_family="linux").choices["iothread"].value is None
        conflicts = ask(CURRENT, {**fixed, "iothread": "1"}, os_family="linux").conflicts
        assert [item.rule for item in conflicts] == ["iothread-needs-single"]


@pytest.mark.parametrize("storage", ["lvmthin", "rbd", "zfspool", "dir"])
def test_discard_on_storages_that_support_thin_provisioning(storage: str) -> None:
    """qm.adoc, Trim/Discard: "If your storage supports thin provisioning … you can activate the Discard option"."""
    assert ask(CURRENT, type=storage).choices["discard"].value == "on"
    assert ask(CURRENT, type="lvm").choices["discard"].value is None


def test_ssd_emulation_is_not_supported_on_virtio_block() -> None:
    """qm.adoc, Trim/Discard: "SSD emulation is not supported on VirtIO Block drives"."""
    for bus in ("ide", "sata", "scsi"):
        assert ask(CURRENT, {"bus": bus}, medium="ssd").choices["ssd"].value == "1"
    assert ask(CURRENT, {"bus": "virtio"}, medium="ssd").choices["ssd"].value is None


#: Proxmox VE's dialog for a new guest: OSDefaults.js, DiskStorageSelector.js, HDEdit.js, CacheTypeSelector.js.
DIALOG = {
    "scsihw": "virtio-scsi-single",
    "cache": None,
    "aio": None,
    "discard": None,
    "ssd": None,
    "detect_zeroes": None,
    "backup": None,
}
#: Where the answer for an ordinary guest differs from the dialog's, and the rules that give the reason.
DEVIATIONS = {
    ("bus", "bus-for-unknown"),  # SATA, not IDE, for systems that nobody has described
    ("bus", "windows-install"),  # the dialog does so too, once the box for the driver ISO is ticked
    ("scsihw", "controller-unused"),
    ("format", "cow-twice"),
    ("format", "database-raw"),
    ("cache", "database-none"),  # what the default means, written down
    ("discard", "thin-discard"),
    ("ssd", "ssd"),
}


def dialog(release: str, storage: str) -> dict[str, str | None]:
    bus = "scsi" if release == "l26" else "ide"
    return {
        **DIALOG,
        "bus": bus,
        "format": "qcow2" if storage in ("dir", "nfs", "cifs", "btrfs") else "raw",
        "iothread": "1" if bus == "scsi" else None,
    }


def test_it_differs_from_the_dialog_only_with_a_stated_reason() -> None:
    releases = ("l26", "win10", "win11", "other")
    storages = ("dir", "nfs", "btrfs", "lvm", "lvmthin", "zfspool", "rbd")
    found = set()
    for release, storage, medium, workload in itertools.product(
        releases, storages, (None, "ssd"), ("general", "database")
    ):
        answer = ask(CURRENT, os_release=release, type=storage, medium=medium, workload=workload, stage="new")
        default = dialog(release, storage)
        for name, choice in answer.choices.items():
            if choice.value != default[name] and not (name == "iothread" and choice.rule == "iothread"):
                found.add((name, choice.rule))
    assert found == DEVIATIONS
