# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's storages, looked at from inside: what qemu-img says of the files, and the bytes that a guest would read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import images, samples
from lab.images import GIB, KIB, MIB
from lab.storages import StorageError, Storages

DEFINITIONS: dict[str, dict[str, Any]] = {
    "local": {"type": "dir", "content": "images,iso,import"},
    "fast": {"type": "dir", "content": "images"},
    "nas": {"type": "nfs"},
    "dirchain": {"type": "dir", "snapshot-as-volume-chain": 1},
    "btrfs": {"type": "btrfs"},
    "local-lvm": {"type": "lvmthin", "vgname": "pve", "thinpool": "data"},
    "thick": {"type": "lvm", "vgname": "vgthick"},
    "thickchain": {"type": "lvm", "vgname": "vgchain", "snapshot-as-volume-chain": 1},
    "tank": {"type": "zfspool", "pool": "tank"},
    "ceph": {"type": "rbd", "pool": "rbd"},
    "disabled": {"type": "dir", "disable": 1},
    "elsewhere": {"type": "dir", "nodes": "pve2,pve3"},
    "unplugged": {"type": "nfs", "offline": 1},
}
EVERY = [("local", "raw"), ("local", "qcow2"), ("local", "vmdk"), ("nas", "qcow2"), ("dirchain", "raw"),
         ("dirchain", "qcow2"), ("btrfs", "raw"), ("btrfs", "qcow2"), ("local-lvm", "raw"), ("thick", "raw"),
         ("thickchain", "raw"), ("thickchain", "qcow2"), ("tank", "raw"), ("ceph", "raw")]
"""Each storage with the formats that it can hold."""
WITH_SNAPSHOTS = [("local", "qcow2"), ("nas", "qcow2"), ("dirchain", "qcow2"), ("btrfs", "raw"), ("btrfs", "qcow2"),
                  ("local-lvm", "raw"), ("thickchain", "qcow2"), ("tank", "raw"), ("ceph", "raw")]
SEQUENTIAL = ("dirchain", "thickchain", "tank")
WITH_TEMPLATES = [(sid, fmt) for sid, fmt in EVERY if sid not in ("thick", "thickchain")]
SIZE = 8 * MIB


@pytest.fixture
def storages(tmp_path: Path) -> Storages:
    return Storages(tmp_path, DEFINITIONS, "pve1")


@pytest.fixture
def log() -> list[str]:
    return []


def quiet(line: str) -> None:
    """A log that nobody reads."""


def qemu_info(file: Path, fmt: str) -> dict[str, Any]:
    done = subprocess.run(["qemu-img", "info", "-f", fmt, "--output=json", str(file)], capture_output=True, check=True)
    info: dict[str, Any] = json.loads(done.stdout)
    return info


def put(storages: Storages, volid: str, text: str) -> None:
    """Writes as a guest would, without losing what is behind."""
    place, fmt = storages.place(volid), storages.info(volid).format
    sector = storages.root / "sector"
    sector.write_bytes(text.encode().ljust(512, b"."))
    subprocess.run(["qemu-io", "-f", fmt, "-c", f"write -s {sector} 1M 512", str(place.file)], check=True,
                   capture_output=True)


def got(storages: Storages, volid: str, snap: str | None = None) -> str:
    """What a guest reads where `put` wrote."""
    place, fmt, _ = storages.source(volid, snap)
    return images.read(place, str(fmt), 512, MIB).decode().rstrip(".\0")


def filled(storages: Storages, sid: str, fmt: str, text: str = "data", vmid: int = 100) -> str:
    volid = storages.alloc(sid, vmid, fmt, None, SIZE, quiet)
    put(storages, volid, text)
    return volid


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(StorageError) as caught:
        call(*args)
    return caught.value.message


# ---- images


@pytest.mark.parametrize(("sid", "fmt"), EVERY)
def test_a_new_volume_is_a_real_image(storages: Storages, log: list[str], sid: str, fmt: str) -> None:
    volid = storages.alloc(sid, 100, fmt, None, SIZE, log.append)
    real = qemu_info(storages.file(volid), fmt)
    assert (real["format"], real["virtual-size"]) == (fmt, SIZE)
    info = storages.info(volid)
    assert (info.volid, info.format, info.size, info.owner) == (volid, fmt, SIZE, 100)
    assert storages.list(sid) == storages.list(sid, 100) == [info]
    assert storages.list(sid, 101) == []
    storages.free(volid, log.append)
    assert storages.list(sid) == []
    assert not storages.file(volid).exists()


@pytest.mark.parametrize(("sid", "size", "real"), [
    ("local", MIB + 1, MIB + KIB), ("btrfs", MIB + 1, MIB + KIB), ("local-lvm", MIB, 4 * MIB),
    ("thick", 4 * MIB + 1, 8 * MIB), ("tank", MIB + 1, 2 * MIB), ("ceph", 5 * KIB, MIB), ("local-lvm", 0, 0)])
def test_sizes_are_rounded_as_the_storage_does(storages: Storages, sid: str, size: int, real: int) -> None:
    volid = storages.alloc(sid, 100, "raw", None, size, quiet)
    assert storages.info(volid).size == real == storages.file(volid).stat().st_size


def test_a_big_disk_takes_no_room(storages: Storages) -> None:
    for sid, fmt in EVERY:
        volid = storages.alloc(sid, 100, fmt, None, 1024 * GIB, quiet)
        assert storages.info(volid).size == 1024 * GIB
        assert storages.file(volid).stat().st_blocks * 512 < MIB


@pytest.mark.parametrize(("sid", "fmt"), [pair for pair in EVERY if pair[1] != "vmdk"])
def test_resize_keeps_the_data(storages: Storages, log: list[str], sid: str, fmt: str) -> None:
    volid = filled(storages, sid, fmt)
    storages.resize(volid, 2 * SIZE, log.append)
    assert storages.info(volid).size == 2 * SIZE == qemu_info(storages.file(volid), fmt)["virtual-size"]
    assert got(storages, volid) == "data"


def test_what_cannot_be_resized(storages: Storages, log: list[str]) -> None:
    volid = storages.alloc("local", 100, "vmdk", None, SIZE, log.append)
    assert refusal(storages.resize, volid, 2 * SIZE, log.append) == "can't resize this image format"
    base = storages.create_base(storages.alloc("local", 100, "qcow2", None, SIZE, log.append))
    assert refusal(storages.resize, base, 2 * SIZE, log.append) == (
        "command '/usr/bin/qemu-img resize '--preallocation=metadata' -f qcow2 "
        f"/var/lib/vz/images/100/base-100-disk-1.qcow2 {2 * SIZE}' failed: exit code 1")


def test_log_lines_have_the_paths_of_a_node(storages: Storages, log: list[str]) -> None:
    storages.alloc("local", 100, "qcow2", None, GIB, log.append)
    storages.alloc("fast", 100, "raw", None, GIB, log.append)
    storages.alloc("thickchain", 100, "qcow2", None, GIB, log.append)
    assert log == [
        "Formatting '/var/lib/vz/images/100/vm-100-disk-0.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off "
        "preallocation=metadata compression_type=zlib size=1073741824 lazy_refcounts=off refcount_bits=16",
        "Formatting '/mnt/pve/fast/images/100/vm-100-disk-0.raw', fmt=raw size=1073741824 preallocation=off",
        '  Logical volume "vm-100-disk-0.qcow2" created.',
        "Formatting '/dev/vgchain/vm-100-disk-0.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off "
        "preallocation=metadata compression_type=zlib size=1073741824 lazy_refcounts=off refcount_bits=16"]


# ---- names


def test_disk_numbers(storages: Storages) -> None:
    def new(sid: str, fmt: str) -> str:
        return storages.alloc(sid, 100, fmt, None, MIB, quiet).partition(":")[2]

    assert [new("local", "raw"), new("local", "qcow2"), new("local", "vmdk")] == [
        "100/vm-100-disk-0.raw", "100/vm-100-disk-1.qcow2", "100/vm-100-disk-2.vmdk"]
    assert [new("nas", "raw"), new("nas", "qcow2")] == ["100/vm-100-disk-0.raw", "100/vm-100-disk-0.qcow2"]
    assert [new("thickchain", "qcow2"), new("thickchain", "raw"), new("thickchain", "qcow2")] == [
        "vm-100-disk-0.qcow2", "vm-100-disk-1", "vm-100-disk-1.qcow2"]
    storages.free("local:100/vm-100-disk-1.qcow2", quiet)
    assert new("local", "raw") == "100/vm-100-disk-1.raw"
    storages.alloc("local-lvm", 1000, "raw", None, MIB, quiet)
    assert new("local-lvm", "raw") == "vm-100-disk-0"


@pytest.mark.parametrize(("volid", "text"), [
    ("local:abc", "unable to parse directory volume name 'abc'"),
    ("local:0", "unable to parse directory volume name '0'"),
    ("local:100/vm-100-disk-0.vhdx", "unable to parse volume filename 'vm-100-disk-0.vhdx'"),
    ("local:100/snap-s1-vm-100-disk-0.qcow2", "'snap-s1-vm-100-disk-0.qcow2' is a snapshot filename, not a volume!"),
    ("local-lvm:abc", "unable to parse lvm volume name 'abc'"),
    ("thick:base-100-disk-0", "unable to parse lvm volume name 'base-100-disk-0'"),
    ("tank:abc", "unable to parse zfs volume name 'abc'"),
    ("ceph:abc", "unable to parse rbd volume name 'abc'"),
    ("nosuch:abc", "storage 'nosuch' does not exist"),
    ("unused0", "unable to parse volume ID 'unused0'"),
])
def test_malformed_names(storages: Storages, volid: str, text: str) -> None:
    assert refusal(storages.parse_volname, volid) == text


@pytest.mark.parametrize(("volid", "text"), [
    ("local:100/vm-100-disk-9.qcow2", "volume 'local:100/vm-100-disk-9.qcow2' does not exist"),
    ("local-lvm:vm-100-disk-9", "no such logical volume pve/vm-100-disk-9"),
    ("thick:vm-100-disk-9", "can't activate LV '/dev/vgthick/vm-100-disk-9':   Failed to find logical volume "
                            '"vgthick/vm-100-disk-9"'),
    ("thickchain:vm-100-disk-9.qcow2", "volume thickchain:vm-100-disk-9.qcow2 does not exist"),
    ("disabled:100/vm-100-disk-0.raw", "storage 'disabled' is disabled"),
    ("elsewhere:100/vm-100-disk-0.raw", "storage 'elsewhere' is not available on node 'pve1'"),
    ("unplugged:100/vm-100-disk-0.raw", "storage 'unplugged' is not online"),
])
def test_volumes_that_are_not_there(storages: Storages, volid: str, text: str) -> None:
    assert refusal(storages.info, volid) == text


@pytest.mark.parametrize(("sid", "fmt", "name", "text"), [
    ("local", "qed", None, "unable to parse volume filename 'vm-100-disk-0.qed'"),
    ("local-lvm", "qcow2", None,
     "unsupported format 'qcow2' at /usr/share/perl5/PVE/Storage/LvmThinPlugin.pm line 102."),
    ("thick", "qcow2", None, "snapshot-as-volume-chain option need to be enabled to use qcow2 format "
                             "at /usr/share/perl5/PVE/Storage/LVMPlugin.pm line 700."),
    ("thickchain", "vmdk", None, "unsupported format 'vmdk' at /usr/share/perl5/PVE/Storage/LVMPlugin.pm line 696."),
    ("thickchain", "qcow2", "vm-100-disk-5",
     "volume name 'vm-100-disk-5' does not match requested format 'qcow2' (did you mean 'vm-100-disk-5.qcow2'?)"),
    ("local-lvm", "raw", "vm-101-disk-0", "illegal name 'vm-101-disk-0' - should be 'vm-100-*'"),
])
def test_what_a_storage_cannot_make(storages: Storages, sid: str, fmt: str, name: str | None, text: str) -> None:
    assert refusal(storages.alloc, sid, 100, fmt, name, MIB, quiet) == text


def test_a_full_storage(tmp_path: Path, log: list[str]) -> None:
    small = {sid: {**DEFINITIONS[sid], "total": 16 * MIB} for sid in ("thick", "local-lvm", "tank")}
    storages = Storages(tmp_path, small, "pve1")
    thick = storages.alloc("thick", 100, "raw", None, 8 * MIB, log.append)
    assert refusal(storages.alloc, "thick", 100, "raw", None, 12 * MIB, log.append) == (
        "lvcreate 'vgthick/vm-100-disk-1' error:   Volume group \"vgthick\" has insufficient free space (2 extents): "
        "3 required.")
    assert refusal(storages.resize, thick, 20 * MIB, log.append) == (
        "error resizing volume '/dev/vgthick/vm-100-disk-0':   Insufficient free space: 3 extents needed, but only 2 "
        "available")
    assert storages.space("thick") == (16 * MIB, 8 * MIB, 8 * MIB)
    assert [row.size for row in storages.list("thick")] == [8 * MIB]
    assert refusal(storages.alloc, "tank", 100, "raw", None, 17 * MIB, log.append) == (
        "zfs error: cannot create 'tank/vm-100-disk-0': out of space")
    thin = storages.alloc("local-lvm", 100, "raw", None, GIB, log.append)
    assert storages.info(thin).size == GIB


# ---- snapshots


@pytest.mark.parametrize(("sid", "fmt"), EVERY)
def test_features(storages: Storages, sid: str, fmt: str) -> None:
    volid = storages.alloc(sid, 100, fmt, None, MIB, quiet)
    assert storages.has_feature("snapshot", volid) is ((sid, fmt) in WITH_SNAPSHOTS)
    assert storages.has_feature("template", volid) is ((sid, fmt) in WITH_TEMPLATES)
    assert storages.has_feature("copy", volid)


@pytest.mark.parametrize(("sid", "fmt"), WITH_SNAPSHOTS)
def test_rollback_brings_the_data_back(storages: Storages, log: list[str], sid: str, fmt: str) -> None:
    volid = filled(storages, sid, fmt, "first")
    storages.snapshot(volid, "s1", log.append)
    put(storages, volid, "second")
    storages.snapshot(volid, "s2", log.append)
    put(storages, volid, "third")
    assert storages.snapshots(volid) == ["s1", "s2"]
    assert [row.volid for row in storages.list(sid)] == [volid]
    storages.rollback(volid, "s2", log.append)
    assert got(storages, volid) == "second"
    if sid in SEQUENTIAL:
        assert refusal(storages.rollback, volid, "s1", log.append).startswith(
            "can't rollback, 's1' is not most recent snapshot on '")
        storages.snapshot_delete(volid, "s2", log.append)
    storages.rollback(volid, "s1", log.append)
    assert got(storages, volid) == "first"
    storages.snapshot_delete(volid, "s1", log.append)
    assert got(storages, volid) == "first"


@pytest.mark.parametrize(("sid", "fmt"), WITH_SNAPSHOTS)
def test_deleting_snapshots_keeps_the_newest_data(storages: Storages, sid: str, fmt: str) -> None:
    volid = filled(storages, sid, fmt, "zero")
    for snap in ("s1", "s2", "s3"):
        storages.snapshot(volid, snap, quiet)
        put(storages, volid, f"after {snap}")
    storages.resize(volid, 2 * SIZE, quiet)
    for snap in ("s2", "s1", "s3"):
        storages.snapshot_delete(volid, snap, quiet)
        assert got(storages, volid) == "after s3"
        assert storages.info(volid).size == 2 * SIZE
    assert storages.snapshots(volid) == []
    storages.free(volid, quiet)
    assert not [path for path in storages.backend(sid).folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("sid", "fmt"), WITH_SNAPSHOTS)
def test_a_volume_goes_with_its_snapshots(storages: Storages, sid: str, fmt: str) -> None:
    volid = filled(storages, sid, fmt)
    storages.snapshot(volid, "s1", quiet)
    storages.snapshot(volid, "s2", quiet)
    storages.free(volid, quiet)
    assert storages.list(sid) == []
    assert not [path for path in storages.backend(sid).folder.rglob("*") if path.is_file()]


def test_no_snapshot_of_a_thick_volume(storages: Storages, log: list[str]) -> None:
    raw = storages.alloc("local", 100, "raw", None, MIB, log.append)
    assert refusal(storages.snapshot, raw, "s1", log.append) == "can't snapshot this image format"
    thick = storages.alloc("thick", 100, "raw", None, MIB, log.append)
    assert refusal(storages.snapshot, thick, "s1", log.append) == "can't snapshot 'raw' volume"


# ---- bases, clones, copies


@pytest.mark.parametrize(("sid", "fmt"), WITH_TEMPLATES)
def test_linked_clones_read_their_base_and_write_their_own(storages: Storages, log: list[str], sid: str,
                                                           fmt: str) -> None:
    base = storages.create_base(filled(storages, sid, fmt, "base"))
    assert "base-100-disk-0" in base
    clone = storages.clone(base, 101, log.append)
    assert got(storages, clone) == "base"
    put(storages, clone, "clone")
    assert (got(storages, base), got(storages, clone)) == ("base", "clone")
    tied = sid != "local-lvm" and (sid, fmt) != ("btrfs", "raw")
    assert storages.used_by_clones(base) is tied
    assert {row.volid for row in storages.list(sid)} == {base, clone}
    if tied:
        assert refusal(storages.free, base, log.append) == (
            f"base volume '{base.partition(':')[2]}' is still in use by linked clones")
    moved = storages.rename(clone, 102)
    assert got(storages, moved) == "clone"
    storages.free(moved, log.append)
    storages.free(base, log.append)
    assert storages.list(sid) == []


def test_names_of_linked_clones(storages: Storages) -> None:
    names = {}
    for sid, fmt in WITH_TEMPLATES:
        names[sid, fmt] = storages.clone(storages.create_base(filled(storages, sid, fmt)), 101, quiet)
    assert names["local", "qcow2"] == "local:100/base-100-disk-1.qcow2/101/vm-101-disk-1.qcow2"
    assert names["local", "raw"] == "local:100/base-100-disk-0.raw/101/vm-101-disk-0.qcow2"
    assert names["local-lvm", "raw"] == "local-lvm:vm-101-disk-0"
    assert names["btrfs", "raw"] == "btrfs:101/vm-101-disk-0.raw"
    assert names["tank", "raw"] == "tank:base-100-disk-0/vm-101-disk-0"
    assert names["ceph", "raw"] == "ceph:base-100-disk-0/vm-101-disk-0"


@pytest.mark.parametrize(("sid", "fmt", "target", "to"), [
    *((sid, fmt, "fast", "qcow2") for sid, fmt in EVERY),
    *(("local", "qcow2", sid, fmt) for sid, fmt in EVERY if fmt in ("raw", "vmdk"))])
def test_a_copy_has_the_guests_data(storages: Storages, log: list[str], sid: str, fmt: str, target: str,
                                    to: str) -> None:
    copy = storages.convert(filled(storages, sid, fmt), target, 200, to, log.append)
    assert (storages.info(copy).format, storages.info(copy).size) == (to, SIZE)
    assert got(storages, copy) == "data"


@pytest.mark.parametrize(("sid", "fmt"), WITH_SNAPSHOTS)
def test_a_copy_of_a_snapshot(storages: Storages, sid: str, fmt: str) -> None:
    volid = filled(storages, sid, fmt, "then")
    storages.snapshot(volid, "s1", quiet)
    put(storages, volid, "now")
    assert got(storages, storages.convert(volid, "fast", 200, "raw", quiet, snap="s1")) == "then"
    assert got(storages, storages.convert(volid, "fast", 200, "raw", quiet)) == "now"


@pytest.mark.parametrize(("sid", "fmt"), [("thick", "raw"), ("local", "qcow2")])
@pytest.mark.parametrize("to", ["raw", "qcow2"])
def test_a_smaller_target_gets_the_beginning(storages: Storages, sid: str, fmt: str, to: str) -> None:
    volid = filled(storages, sid, fmt)
    target = storages.alloc("fast", 200, to, None, 2 * MIB, quiet)
    storages.copy(volid, target, quiet)
    assert storages.info(target).size == 2 * MIB
    assert got(storages, target) == "data"


def test_a_format_that_the_target_lacks_becomes_its_default(storages: Storages) -> None:
    assert [storages.usable_format(sid, "qcow2") for sid in ("local", "local-lvm", "thickchain", "btrfs")] == [
        "qcow2", "raw", "qcow2", "raw"]
    assert storages.usable_format("thickchain", "vmdk") == "qcow2"


def test_another_guest_gets_the_next_number(storages: Storages) -> None:
    storages.alloc("local", 101, "raw", None, MIB, quiet)
    volid = filled(storages, "local", "qcow2")
    moved = storages.rename(volid, 101)
    assert moved == "local:101/vm-101-disk-1.qcow2"
    assert got(storages, moved) == "data"


def test_nodes_share_what_is_shared(tmp_path: Path) -> None:
    one, two = (Storages(tmp_path, DEFINITIONS, node) for node in ("pve1", "pve2"))
    volid = filled(one, "nas", "qcow2", "seen by both")
    assert got(two, volid) == "seen by both"
    filled(one, "local", "raw")
    assert two.list("local") == []


# ---- seeds and imports


def test_a_seed_puts_volumes_in_place(storages: Storages) -> None:
    for volid in ("local:100/vm-100-disk-3.qcow2", "btrfs:100/vm-100-disk-2.raw", "local-lvm:vm-100-disk-7"):
        storages.adopt(volid, SIZE, b"marked")
        assert storages.info(volid).size == SIZE
        assert images.read(storages.place(volid), storages.info(volid).format, 6) == b"marked"


@pytest.mark.parametrize(("base", "clone"), [
    ("local:100/base-100-disk-0.qcow2", "local:100/base-100-disk-0.qcow2/101/vm-101-disk-0.qcow2"),
    ("local:100/base-100-disk-0.raw", "local:100/base-100-disk-0.raw/101/vm-101-disk-0.qcow2"),
    ("tank:base-100-disk-0", "tank:base-100-disk-0/vm-101-disk-0"),
])
def test_a_seed_may_have_linked_clones(storages: Storages, base: str, clone: str) -> None:
    storages.adopt(base, SIZE, b"marked")
    storages.adopt(clone, 2 * SIZE)
    assert storages.info(clone).size == 2 * SIZE
    assert images.read(storages.place(clone), storages.info(clone).format, 6) == b"marked"
    assert {row.volid for row in storages.list(base.partition(":")[0])} == {base, clone}
    assert storages.used_by_clones(base)


@pytest.fixture
def imports(storages: Storages) -> Storages:
    samples.make(storages)
    return storages


def test_the_samples_are_the_recorded_ones(imports: Storages) -> None:
    rows = {row.volid.partition("/")[2]: row for row in imports.files("local", "import")}
    assert {name: row.size for name, row in rows.items()} == {
        "disk.raw": 67108864, "img.qcow2": 8716288, "so.vmdk": 8519680, "test.ova": 8529920, "test.vmdk": 196608,
        "tinylinux.qcow2": 18939904}
    for name in ("img.qcow2", "so.vmdk", "disk.raw"):
        assert imports.size_info(f"local:import/{name}")[:2] == (64 * MIB, name.rpartition(".")[2])
    used = sum(imports.file(row.volid).stat().st_blocks for row in rows.values()) * 512
    assert used < MIB


@pytest.mark.parametrize("source", ["local:import/so.vmdk", "local:import/test.ova/disk1.vmdk",
                                    "/var/lib/vz/import/so.vmdk"])
@pytest.mark.parametrize("sid", ["local", "local-lvm"])
def test_imports_bring_the_data(imports: Storages, log: list[str], source: str, sid: str) -> None:
    with imports.import_source(source, sid, 100, log.append) as image:
        volid = imports.convert(image, sid, 100, None, log.append)
    assert imports.info(volid).size == 64 * MIB
    assert images.read(imports.place(volid), "raw", 19) == b"so.vmdk of the lab\n"
    assert [row.volid for row in imports.list(sid)] == [volid]


@pytest.mark.parametrize(("source", "text"), [
    ("local:import/nosuch.vmdk", "failed to stat '/var/lib/vz/import/nosuch.vmdk'"),
    ("/var/lib/vz/import/nosuch.raw", "can't find file '/var/lib/vz/import/nosuch.raw'"),
    ("/etc/passwd", "can't find file '/etc/passwd'"),
    ("/var/lib/vz/import/../../../../etc/passwd", "can't find file '/var/lib/vz/import/../../../../etc/passwd'"),
])
def test_sources_that_are_not_there(imports: Storages, source: str, text: str) -> None:
    with pytest.raises(StorageError) as caught, imports.import_source(source, "local", 100, quiet):
        pass
    assert caught.value.message == text


def test_a_missing_member_of_an_ova(imports: Storages) -> None:
    source = "local:import/test.ova/nosuch.vmdk"
    with pytest.raises(StorageError) as caught, imports.import_source(source, "local", 100, quiet):
        pass
    assert caught.value.message.startswith("error during extraction: command 'tar -x --force-local --no-same-owner "
                                           "-C /var/lib/vz/images/100/tmp_")
    assert imports.list("local") == []


@pytest.mark.parametrize(("name", "options", "text"), [
    ("back.qcow2", ["-f", "qcow2", "-b", "img.qcow2", "-F", "qcow2"],
     "backing file not allowed for untrusted image '/var/lib/vz/import/back.qcow2'!"),
    ("data.qcow2", ["-f", "qcow2", "-o", "data_file=data.raw"],
     "/var/lib/vz/import/data.qcow2: 'data-file' references are not allowed!"),
    ("split.vmdk", ["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
     "/var/lib/vz/import/split.vmdk: multiple children or extents are not allowed!"),
])
def test_images_that_are_not_trusted(imports: Storages, name: str, options: list[str], text: str) -> None:
    file = imports.file(f"local:import/{name}")
    subprocess.run(["qemu-img", "create", *options, name, "5G"], cwd=file.parent, check=True, capture_output=True)
    with (pytest.raises(StorageError) as caught,
          imports.import_source(f"local:import/{name}", "local", 100, quiet)):
        pass
    assert caught.value.message == text
