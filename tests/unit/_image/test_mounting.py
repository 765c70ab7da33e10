# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What mounting knows without mounting: steps, file systems, records, the kernel's and blkid's words, guests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image import filesystems, guests, mountinfo, pvesm
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.attach import Step, Wanted, steps
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.disk import Stamp
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.errors import ImageError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.filesystems import (
    GUARD,
    OTHERS,
    TABLE,
    Content,
    mount_options,
    obstacle,
    parse_probe,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.guests import Guest, naming, state, volumes
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.mountinfo import Mount
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.mounts import Mounts, Record
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.storage_daemon import writable_node
from hypothesis import given
from hypothesis import strategies as st

# ---- steps


@pytest.mark.parametrize(
    ("backend", "way"),
    [
        ("loop", "place loop mount"),
        ("fuse", "place export loop mount"),
        ("kpartx", "place loop map mount"),
        ("fuse+kpartx", "place export loop map mount"),
    ],
)
def test_steps(backend: str, way: str) -> None:
    assert [step.value for step in steps(backend)] == way.split()


def test_every_way_begins_with_a_place_and_ends_with_the_mount() -> None:
    for backend in ("loop", "fuse", "kpartx", "fuse+kpartx"):
        assert (steps(backend)[0], steps(backend)[-1]) == (Step.PLACE, Step.MOUNT)


# ---- file systems


@pytest.mark.parametrize("kind", TABLE)
def test_options(kind: str) -> None:
    """Whatever the file system, a mount is read-only unless it is asked for otherwise, and always guarded."""
    for driver in TABLE[kind].drivers:
        options = mount_options(kind, driver, writable=False)
        assert options[0] == "ro"
        assert "rw" not in options
        assert set(GUARD) <= set(options)
        if TABLE[kind].writable is not None:
            assert mount_options(kind, driver, writable=True)[0] == "rw"
            assert set(GUARD) <= set(mount_options(kind, driver, writable=True))


def test_options_of_one_driver_alone() -> None:
    assert "norecover" in mount_options("ntfs", "ntfs-3g", writable=True)
    assert mount_options("ntfs", "ntfs3", writable=False) == ("ro", *GUARD)


@pytest.mark.parametrize("kind", ["ext3", "ext4", "xfs", "btrfs", "f2fs", "reiserfs"])
def test_journals_are_not_replayed(kind: str) -> None:
    options = mount_options(kind, TABLE[kind].drivers[0], writable=False)
    assert set(options) & {"noload", "norecovery", "nolog", "rescue=nologreplay"}


@pytest.mark.parametrize(
    ("content", "writable", "words"),
    [
        (Content("ext4"), True, ""),
        (Content("squashfs"), False, ""),
        (Content("squashfs"), True, "mounted read-only; leave out writable"),
        (Content(""), False, "holds nothing that is known"),
        (Content("ambiguous"), False, "marks of more than one"),
        (Content("LVM2_member"), False, "a physical volume of LVM; it is not activated here"),
        (Content("nilfs2"), False, "holds nilfs2, which can't be mounted here; known are btrfs"),
    ],
)
def test_obstacles(content: Content, writable: bool, words: str) -> None:
    said = obstacle(content, writable=writable)
    assert words in said
    assert bool(words) == bool(said)


def test_what_is_no_file_system_is_never_mounted() -> None:
    assert not set(OTHERS) & set(TABLE)
    assert all(obstacle(Content(kind), writable=False) for kind in OTHERS)


def test_a_file_system_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unknown = filesystems.FileSystem(("no-such-driver",))
    monkeypatch.setattr(filesystems, "TABLE", {"nosuch": unknown})
    with pytest.raises(ImageError, match="no driver for nosuch: neither no-such-driver is there"):
        filesystems.find_driver("nosuch")


def test_what_blkid_says() -> None:
    text = (
        "ID_FS_LABEL=_weird_\nID_FS_LABEL_ENC=a\\x20\\x22b\\x0aID_FS_TYPE\\x3dswap\nID_FS_UUID=1-2\n"
        "ID_FS_UUID_ENC=1-2\nID_FS_TYPE=ext4\nID_FS_USAGE=filesystem\nID_PART_TABLE_TYPE=dos\n"
    )
    assert parse_probe(text, ambiguous=False) == Content("ext4", 'a "b?ID_FS_TYPE=swap', "1-2")
    assert parse_probe("ID_FS_LABEL_ENC=M\\xc3\\xbcll\\xff\nID_FS_TYPE=vfat\n", ambiguous=False).label == "Müll\ufffd"
    assert parse_probe("", ambiguous=False) == Content()
    assert parse_probe("ID_FS_TYPE=ext4\n", ambiguous=True).type == "ambiguous"
    assert parse_probe("ID_FS_AMBIVALENT=filesystem:ext4 raid:LVM2\n", ambiguous=False).type == "ambiguous"


@given(st.text())
def test_whatever_blkid_says(text: str) -> None:
    found = parse_probe(text, ambiguous=False)
    assert found.label.isprintable() or not found.label


# ---- mounts


def test_mountinfo() -> None:
    text = (
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "42 22 7:0 / /mnt/with\\040space\\134\\011x ro,nosuid,nodev - fuseblk /dev/loop0 rw,user_id=0\n"
        "43 22 0:39 / /mnt/f rw shared:1 master:2 - fuse.sshfs a@b:\\040c rw\n"
    )
    assert mountinfo.parse(text) == (
        Mount("254:1", "/", ("rw", "relatime"), "ext4", "/dev/vda"),
        Mount("7:0", "/mnt/with space\\\tx", ("ro", "nosuid", "nodev"), "fuseblk", "/dev/loop0"),
        Mount("0:39", "/mnt/f", ("rw",), "fuse.sshfs", "a@b: c"),
    )
    assert [mount.is_fuse for mount in mountinfo.parse(text)] == [False, True, True]


def wanted(**fields: object) -> Wanted:
    base = {
        "tag": "diskwright-1",
        "folder": "/nowhere/1",
        "backend": "loop",
        "mountpoint": "/mnt/x",
        "make": True,
        "number": 1,
        "start": 1024,
        "size": 512,
        "disk_size": 4096,
        "driver": "ext4",
        "options": ("ro", "noload"),
        "writable": False,
    }
    return Wanted(**{**base, **fields})  # type: ignore[arg-type]


def record(**fields: object) -> Record:
    stamp = Stamp("/image", 1, 2, 3, 4)
    return Record("/image", "", "raw", "ext4", wanted(**fields), {"partitions": []}, (stamp,))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.booleans(), st.integers(0, 2**63))
def test_a_record_is_read_as_it_was_written(name: str, writable: bool, number: int) -> None:
    from ansible_collections.diskwright.proxmox.plugins.module_utils._image.mounts import _dump, _record

    made = record(mountpoint=f"/mnt/{name}", writable=writable, start=number)
    assert _record(json.loads(_dump(made))) == made


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1}', '{"version": 1, "wanted": 3}'])
def test_what_is_no_record_is_told(tmp_path: Path, text: str) -> None:
    mounts = Mounts(str(tmp_path))
    path = Path(f"{mounts.folder('/mnt/x')}.json")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ImageError, match="is no record of a mount") as caught:
        mounts.at("/mnt/x")
    assert str(path) in str(caught.value)


def test_tags_fit_into_a_loop_device_and_differ() -> None:
    here, there = Mounts("/var/lib/one"), Mounts("/var/lib/two")
    tags = {mounts.tag(place) for mounts in (here, there) for place in ("/mnt/a", "/mnt/b", "/mnt/a/b")}
    assert len(tags) == 6
    assert all(len(tag) < 64 for tag in tags)


def test_a_stamp_notices_a_write_and_a_replacement(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"1")
    stamp = Stamp.of(str(path))
    assert (stamp.same_file(), stamp.unchanged()) == (True, True)
    path.write_bytes(b"12")
    assert (stamp.same_file(), stamp.unchanged()) == (True, False)
    other = tmp_path / "other"
    other.write_bytes(b"1")
    other.rename(path)
    assert (stamp.same_file(), stamp.unchanged()) == (False, False)
    path.unlink()
    assert (stamp.same_file(), stamp.unchanged()) == (False, False)


def test_a_writable_node_leaves_what_is_behind_it_read_only() -> None:
    node = {
        "driver": "qcow2",
        "read-only": True,
        "file": {"driver": "file", "filename": "a", "read-only": True},
        "backing": {"driver": "raw", "file": {"driver": "file", "filename": "b", "read-only": True}},
    }
    made = writable_node(node)
    assert (made["read-only"], made["file"]["read-only"]) == (False, False)
    assert made["backing"] == node["backing"]
    assert node["read-only"] is True


# ---- guests


CONFIG = """\
agent: 1
boot: order=scsi0
#description with scsi9: local:9/nothing.raw
ide2: local:iso/a.iso,media=cdrom
lock: backup
scsi0: local:100/vm-100-disk-0.qcow2,size=1G
scsi1: file=/dev/sdb,backup=0
unused0: ceph:vm-100-disk-7

[before]
scsi0: local:100/vm-100-disk-9.qcow2,size=1G
"""


def cluster(folder: Path) -> str:
    qemu, other = folder / "nodes" / "pve1" / "qemu-server", folder / "nodes" / "pve2" / "lxc"
    qemu.mkdir(parents=True)
    other.mkdir(parents=True)
    (qemu / "100.conf").write_text(CONFIG)
    (other / "200.conf").write_text("rootfs: local-lvm:vm-200-disk-0,size=8G\nmp0: tank:subvol-200-disk-1,mp=/x\n")
    return str(folder)


def test_volumes_of_a_configuration() -> None:
    assert list(volumes(CONFIG)) == [
        "local:iso/a.iso",
        "local:100/vm-100-disk-0.qcow2",
        "/dev/sdb",
        "ceph:vm-100-disk-7",
        "local:100/vm-100-disk-9.qcow2",
    ]


def test_guests_are_found_by_volume_and_by_path(tmp_path: Path) -> None:
    root = cluster(tmp_path)
    first, second = Guest(100, "pve1", "backup"), Guest(200, "pve2")

    def found(path: str) -> list[Guest]:
        return naming((path, *guests.names_of(path)), root)

    assert naming(("local:100/vm-100-disk-0.qcow2",), root) == [first]
    assert naming(("local-lvm:vm-200-disk-0",), root) == [second]
    assert naming(("local:100/vm-100-disk-1.qcow2",), root) == []
    assert found("/var/lib/vz/images/100/vm-100-disk-0.qcow2") == [first]
    assert found("/var/lib/vz/images/101/vm-101-disk-0.qcow2") == []
    assert found("/dev/sdb") == [first]
    assert found("/dev/pve/vm-200-disk-0") == [second]
    assert found("/root/0.qcow2") == []


def test_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, run = tmp_path / "bin", tmp_path / "run"
    programs.mkdir()
    run.mkdir()
    rows = [{"vmid": 101, "status": "running"}, {"vmid": 102, "status": "stopped"}, {"vmid": 103, "status": "unknown"}]
    (programs / "pvesh").write_text(f"#!/bin/sh\necho '{json.dumps(rows)}'\n")
    (programs / "pvesh").chmod(0o755)
    (run / "100.pid").write_text(f"{os.getpid()}\n")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(pvesm.running, "__defaults__", (str(run),))
    assert [state(Guest(vmid, "elsewhere")) for vmid in (100, 101, 102, 103, 104)] == [
        "running",
        "running",
        "stopped",
        "unknown",
        "unknown",
    ]
    monkeypatch.setenv("PATH", str(run))
    assert state(Guest(102, "elsewhere")) == "unknown"
    assert state(Guest(102, os.uname().nodename.partition(".")[0])) == "stopped"
