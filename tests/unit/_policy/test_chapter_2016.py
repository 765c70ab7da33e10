# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chapter of 2016 says comes out of ``chapter-2016`` as it says it: one test for each of its statements."""

from __future__ import annotations

import itertools

import pytest
from unit._policy.asking import ask, rejected, values

CHAPTER = "chapter-2016"
FILES = ("dir", "nfs", "cifs")
SYNC = ("directsync", "writethrough")


@pytest.mark.parametrize("storage", ["dir", "nfs", "lvm", "lvmthin", "zfspool", "rbd"])
def test_raw_with_no_cache_on_virtio_for_databases_on_spinning_disks(storage: str) -> None:
    answer = values(ask(CHAPTER, os_family="linux", type=storage, medium="hdd", workload="database"))
    assert (answer["format"], answer["cache"], answer["bus"]) == ("raw", "none", "virtio")


@pytest.mark.parametrize("feature", ["snapshots", "linked_clones", "throwaway"])
@pytest.mark.parametrize("storage", FILES)
def test_qcow2_when_its_features_are_needed(storage: str, feature: str) -> None:
    answer = ask(CHAPTER, **{"type": storage, "medium": "hdd", feature: True})
    assert answer.choices["format"].value == "qcow2"
    assert answer.choices["format"].rule == "features-qcow2"


@pytest.mark.parametrize("storage", ["lvmthin", "zfspool", "rbd", "btrfs"])
def test_no_qcow2_for_features_that_the_storage_below_gives(storage: str) -> None:
    assert ask(CHAPTER, type=storage, medium="hdd", snapshots=True).choices["format"].value == "raw"


@pytest.mark.parametrize("storage", FILES)
def test_thin_provisioning_is_a_feature_of_qcow2_and_raw_has_a_fixed_size(storage: str) -> None:
    assert ask(CHAPTER, **{"type": storage, "thin@need": True}).choices["format"].value == "qcow2"
    assert ask(CHAPTER, type=storage).choices["format"].value == "raw"


@pytest.mark.parametrize("medium", ["ssd", "nvme"])
@pytest.mark.parametrize("workload", ["database", "general", "file_server"])
def test_on_ssd_the_difference_between_raw_and_qcow2_mostly_vanishes(medium: str, workload: str) -> None:
    answer = ask(CHAPTER, type="dir", medium=medium, workload=workload, throughput="high")
    assert answer.choices["format"].value == "qcow2"
    assert "vanishes" in answer.choices["format"].reason


def test_raw_is_the_fastest_and_is_chosen_where_throughput_matters() -> None:
    answer = ask(CHAPTER, **{"type": "dir", "medium": "hdd", "throughput": "high", "formats@team": ["qcow2"]})
    assert answer.choices["format"].value == "raw"


def test_raw_can_be_mounted_with_kpartx() -> None:
    answer = ask(CHAPTER, type="dir", medium="ssd", mount_on_host=True)
    assert answer.choices["format"].value == "raw"
    assert "kpartx" in answer.choices["format"].reason


@pytest.mark.parametrize("storage", ["lvm", "iscsi"])
def test_raw_on_lvm_and_iscsi(storage: str) -> None:
    for medium, workload in itertools.product((None, "hdd", "ssd"), ("database", "general")):
        assert ask(CHAPTER, type=storage, medium=medium, workload=workload).choices["format"].value == "raw"


@pytest.mark.parametrize("storage", [*FILES, "btrfs"])
def test_vmdk_is_never_recommended_for_a_new_disk(storage: str) -> None:
    for need in ("portable", "snapshots", "mount_on_host"):
        for team in (None, ["vmdk"]):
            answer = ask(CHAPTER, **{"type": storage, need: True, "formats@team": team})
            assert answer.choices["format"].value != "vmdk"
            assert rejected(answer, "format")["vmdk"] == "no-vmdk"


def test_linux_brings_the_virtio_drivers() -> None:
    assert ask(CHAPTER, os_release="l26").choices["bus"].value == "virtio"


@pytest.mark.parametrize("drivers", ["all", "block", "scsi"])
def test_a_paravirtualised_bus_whenever_the_guest_has_a_driver(drivers: str) -> None:
    assert ask(CHAPTER, os_release="win10", virtio_drivers=drivers).choices["bus"].value in ("virtio", "scsi")


@pytest.mark.parametrize("known", [{"virtio_drivers": "none"}, {"os_release": "win7"}, {}])
def test_ide_or_sata_only_without_drivers(known: dict[str, str]) -> None:
    assert ask(CHAPTER, **known).choices["bus"].value in ("ide", "sata")


@pytest.mark.parametrize("stage", ["new", "installing"])
def test_windows_needs_signed_drivers_from_an_iso_already_during_setup(stage: str) -> None:
    bus = ask(CHAPTER, os_release="win10", stage=stage).choices["bus"]
    assert bus.value == "virtio"
    assert "ISO" in bus.reason and "setup" in bus.reason


@pytest.mark.parametrize("release", ["l26", "win7", "win10"])
def test_the_exception_a_converted_machine_starts_on_a_legacy_bus(release: str) -> None:
    bus = ask(CHAPTER, os_release=release, stage="migrated").choices["bus"]
    assert bus.value in ("ide", "sata")
    assert bus.rule == "converted"
    assert ask(CHAPTER, os_release=release, stage="migrated", virtio_drivers="all").choices["bus"].value == "virtio"


def test_no_cache_is_the_default() -> None:
    assert ask(CHAPTER).choices["cache"].value == "none"


@pytest.mark.parametrize("workload", ["database", "general", "file_server", "desktop", "archive"])
@pytest.mark.parametrize("storage", ["dir", "lvm", "zfspool"])
def test_none_with_raw(storage: str, workload: str) -> None:
    answer = values(ask(CHAPTER, type=storage, medium="hdd", workload=workload))
    assert (answer["format"], answer["cache"]) == ("raw", "none")


@pytest.mark.parametrize("mode", SYNC)
def test_directsync_and_writethrough_are_avoided(mode: str) -> None:
    assert rejected(ask(CHAPTER, type="dir"), "cache")[mode] == "sync-caches"
    against = ask(CHAPTER, {"cache": mode}, type="dir").objections
    assert [(item.rule, item.severity) for item in against] == [("sync-caches", "info")]


@pytest.mark.parametrize("known", [{"type": "zfspool"}, {"raid": "hardware"}, {"raid": "software"}])
@pytest.mark.parametrize("mode", SYNC)
def test_above_all_over_zfs_and_raid(mode: str, known: dict[str, str]) -> None:
    against = {item.rule: item.severity for item in ask(CHAPTER, {"cache": mode}, **known).objections}
    assert against["sync-caches-zfs-raid"] == "warning"


def test_unsafe_only_for_data_that_nobody_would_miss() -> None:
    for durability, throughput in itertools.product((None, "strict", "normal"), (None, "high", "low")):
        answer = ask(CHAPTER, durability=durability, throughput=throughput)
        assert answer.choices["cache"].value != "unsafe"
        assert rejected(answer, "cache")["unsafe"] == "unsafe"
    assert ask(CHAPTER, durability="disposable", throughput="high").choices["cache"].value == "unsafe"


def test_what_do_the_administrators_know() -> None:
    for known in ("raw", "qcow2"):
        assert ask(CHAPTER, **{"type": "dir", "formats@team": [known]}).choices["format"].value == known


def test_capacity_that_is_tight_asks_for_thin_provisioning() -> None:
    assert ask(CHAPTER, type="dir", capacity="tight").choices["format"].value == "qcow2"
    assert ask(CHAPTER, type="dir", capacity="ample").choices["format"].value == "raw"


def test_what_the_chapter_does_not_speak_of_is_left_to_proxmox_ve() -> None:
    choices = ask(CHAPTER, os_family="linux", type="lvmthin", medium="ssd").choices
    for name in ("aio", "iothread", "discard", "ssd", "detect_zeroes", "backup"):
        assert choices[name].value is None
        assert "says nothing" in choices[name].reason
