# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Combinations: which are measured, which are left out, and why."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import DIMENSIONS, Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.matrix import (
    Place,
    Wanted,
    folder_place,
    matrix,
    parse_format,
    storage_place,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import Storage
from hypothesis import given
from hypothesis import strategies as st

FOLDER = folder_place("/srv/bench")
LVM = Place("vg", "lvm", ("raw",), "block")
EVERYTHING = Wanted(formats=("raw", "qcow2", "vmdk", "qcow2,cluster_size=2M,preallocation=metadata"), vary="all")

names = st.sampled_from(["fast", "/srv/a", "tank"])
combinations = st.builds(
    Combination,
    place=names,
    format=st.sampled_from(["raw", "qcow2", "vmdk"]),
    bus=st.sampled_from(["scsi", "virtio", "sata", "ide"]),
    cache=st.sampled_from(TABLE["cache"].choices),
    aio=st.sampled_from(TABLE["aio"].choices),
    iothread=st.booleans(),
    format_options=st.sampled_from([(), (("cluster_size", "2M"),), (("cluster_size", "2M"), ("preallocation", "off"))]),
)


def test_key_is_the_text_that_results_are_kept_under() -> None:
    one = Combination("fast", "qcow2", "scsi", "none", "io_uring", True, (("cluster_size", "2M"),))
    assert one.key == "fast/qcow2,cluster_size=2M/scsi+iothread/none/io_uring"
    assert one.layout == "fast/qcow2,cluster_size=2M"


@given(combinations, combinations)
def test_key_stands_for_one_combination(one: Combination, other: Combination) -> None:
    assert (one.key == other.key) == (one == other)
    assert Combination.from_json(one.as_json()) == one


def test_combination_of_other_data_is_refused() -> None:
    with pytest.raises(ParseError, match="cache, iothread of a combination: missing or not of its kind"):
        Combination.from_json({"place": "a", "format": "raw", "bus": "scsi", "aio": "native", "iothread": 1})


def test_each_varies_one_thing_at_a_time() -> None:
    found = matrix([FOLDER], Wanted())
    base = found.combinations[0]
    assert base.key == "/srv/bench/raw/scsi+iothread/none/io_uring"
    assert all(sum(base.part(name) != one.part(name) for name in DIMENSIONS) == 1 for one in found.combinations[1:])
    assert len(found.combinations) == 1 + 1 + 5 + 4 + 2
    assert found.left_out == ()


def test_all_leaves_out_what_qemu_refuses() -> None:
    found = matrix([FOLDER], EVERYTHING)
    assert len(found.combinations) + len(found.left_out) == 4 * 6 * 5 * 3
    assert {row.reason for row in found.left_out} == {
        "aio=native needs a cache mode without the host's cache. Proxmox VE takes the pair, and the guest does not"
        " start."
    }
    assert all(
        one.cache in ("none", "directsync") for one in found.combinations if one.aio == "native"
    )


def test_base_is_the_first_that_can_be_measured() -> None:
    """A file system without O_DIRECT: what is compared begins with a mode that works there."""
    found = matrix([folder_place("/dev/shm", direct_io=False)], Wanted())
    assert found.combinations[0].cache == "writethrough"
    reasons = {row.what: row.reason for row in found.left_out}
    assert "does not take O_DIRECT" in reasons["/dev/shm/raw/scsi+iothread/none/io_uring"]
    assert "aio=native needs" in reasons["/dev/shm/raw/scsi+iothread/writethrough/native"]


def test_lvm() -> None:
    found = matrix([LVM], Wanted(formats=("raw", "qcow2", "raw,preallocation=full"), vary="all"))
    reasons = {row.what: row.reason for row in found.left_out}
    assert reasons["vg/qcow2/scsi+iothread/none/native"] == "The storage can't hold qcow2 images."
    assert "known to hang" in reasons["vg/raw/scsi/none/io_uring"]
    assert "take no options of qemu-img" in reasons["vg/raw,preallocation=full/scsi/none/native"]
    assert {one.aio for one in found.combinations} == {"native", "threads"}


def test_rbd_mapped_by_the_kernel_hangs_with_a_write_cache_only() -> None:
    rbd = Place("ceph", "rbd", ("raw",), "block", krbd=True)
    found = matrix([rbd], Wanted(aios=("io_uring",), vary="all"))
    assert {one.cache for one in found.combinations} == {"none", "directsync"}


def test_chains_hold_qcow2() -> None:
    storage = Storage("vg", "lvm", frozenset({"images"}), ("raw", "qcow2"))
    found = matrix([storage_place(storage)], Wanted(aios=("native",)))
    assert "vg/qcow2/scsi+iothread/none/native" in {one.key for one in found.combinations}


def test_kind_of_io_that_the_node_lacks() -> None:
    found = matrix([FOLDER], Wanted(), {"io_uring": "The kernel forbids io_uring."})
    assert found.combinations[0].aio == "native"
    assert {row.reason for row in found.left_out} >= {"The kernel forbids io_uring."}


def test_iothread_on_a_bus_without() -> None:
    found = matrix([FOLDER], Wanted(buses=("scsi", "sata+iothread")))
    assert [row.reason for row in found.left_out] == ["Disks on sata do not have the option iothread."]


def test_storage_without_disks() -> None:
    with pytest.raises(ParseError, match="storage backup: no volume can be made on a storage of type pbs; name one of"):
        storage_place(Storage("backup", "pbs", frozenset({"backup"}), ()))


def test_all_that_is_wrong_is_said_together() -> None:
    wanted = Wanted(formats=("vdi", "qcow2,cluster_size=3M"), buses=("nvme",), caches=(), aios=("uring",), vary="some")
    with pytest.raises(ParseError) as raised:
        matrix([FOLDER], wanted)
    assert str(raised.value).splitlines() == [
        "formats: 'vdi' is not allowed; write one of raw, qcow2, vmdk, and options of qemu-img behind it",
        "formats: 'cluster_size=3M' is not allowed; cluster_size takes a power of two from 512 to 2M",
        "buses: 'nvme' is not allowed; write one of ide, sata, scsi, virtio, scsi+iothread, virtio+iothread",
        "caches: the list is empty; name at least one, or leave it out",
        "aios: 'uring' is not allowed; aio takes one of native, threads, io_uring",
        "vary: 'some' is not allowed; write one of each, all",
    ]


def test_nothing_left() -> None:
    with pytest.raises(ParseError, match="no combination is left that can be measured:\nvg/vmdk/.*can't hold vmdk"):
        matrix([LVM], Wanted(formats=("vmdk",), aios=("native",)))
    with pytest.raises(ParseError, match="places: none is named"):
        matrix([], Wanted())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raw,cluster_size=64K", "'cluster_size=64K' is not allowed behind raw; it takes preallocation"),
        ("qcow2,preallocation=some", "preallocation takes off, metadata, falloc, full"),
        ("qcow2,cluster_size=4K,extended_l2=on", "extended_l2 needs a cluster_size of at least 16K"),
        ("qcow2,cluster_size=" + "9" * 99, "takes a power of two from 512 to 2M"),
    ],
)
def test_format_that_qemu_img_would_refuse(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_format(text)


def test_format_options_are_sorted_and_sizes_spelled_alike() -> None:
    assert parse_format("qcow2,preallocation=off,cluster_size=2048k") == parse_format(
        "qcow2,cluster_size=2M,preallocation=off"
    )
