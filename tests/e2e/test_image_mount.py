# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_mount on real images: what is seen is what was put in, nothing is written, nothing stays attached."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image import attach, guests, pvesm
from e2e import mounting
from e2e.documented import examples_of
from e2e.kit import play, run_playbook
from e2e.mounting import (
    FILES,
    Host,
    attached,
    converted,
    digest,
    file_system,
    needs,
    raw_disk,
    seen,
    shown,
    two_partitions,
)
from images import archive
from images.tables import MIB
from tools.checkout import TOP

pytestmark = mounting.needs_mounts


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system with FILES in it."""
    return file_system(tmp_path_factory.mktemp("system"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.clean()
    assert attached(tmp_path) == []


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with volumes."""
    folder = tmp_path / "images" / "100"
    folder.mkdir(parents=True)
    programs = mounting.fake_pvesm(tmp_path, folder)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return folder


# ---- mounting


@pytest.mark.parametrize("table", ["gpt", "mbr", "logical", "none"])
@pytest.mark.parametrize("suffix", ["raw", "qcow2"])
def test_mount_and_unmount(tmp_path: Path, host: Host, system: Path, table: str, suffix: str) -> None:
    disk = raw_disk(tmp_path, table, system)
    if suffix == "qcow2":
        disk = converted(disk, "disk.qcow2")
    before = digest(disk)
    params = {"path": disk}

    planned = host.run(check=True, **params)
    assert not host.place.exists()
    assert attached(tmp_path) == []
    done = host.run(**params)
    assert (done.changed, done.diff, done.data) == (planned.changed, planned.diff, planned.data)
    assert done.changed
    assert seen(host.place) == FILES
    (part,) = done.data["partitions"]
    number = {"gpt": 1, "mbr": 1, "logical": 5, "none": 0}[table]
    assert (part["number"], part["filesystem"], part["label"]) == (number, "ext4", "root")
    assert done.data["mount"]["backend"] == ("loop" if suffix == "raw" else "fuse")
    assert done.diff == f"+ {host.place}  {part_words(number)} of {disk} (ext4, 8 MiB), read-only\n"
    with pytest.raises(OSError, match="Read-only"):
        (host.place / "new").write_bytes(b"x")

    again = host.run(**params)
    assert (again.changed, again.diff, again.data) == (False, "", done.data)

    planned = host.run(check=True, state="unmounted")
    gone = host.run(state="unmounted")
    assert (gone.changed, gone.diff, gone.data) == (planned.changed, planned.diff, planned.data)
    assert gone.changed
    assert gone.failure is None
    assert attached(tmp_path) == []
    assert not host.place.exists()
    assert os.listdir(host.state / "mounts") == ["lock"]
    assert digest(disk) == before
    again = host.run(state="unmounted")
    assert (again.changed, again.diff) == (False, "")


def part_words(number: int) -> str:
    return f"partition {number}" if number else "the whole disk"


def test_raw_through_fuse(tmp_path: Path, host: Host, system: Path) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    assert host.run(path=disk, backend="fuse").data["mount"]["backend"] == "fuse"
    assert seen(host.place) == FILES
    assert not host.run(path=disk).changed
    with pytest.raises(DiskwrightError, match="is mounted there, and backend=loop is asked for; unmount it first"):
        host.run(path=disk, backend="loop")


def test_guards(tmp_path: Path, host: Host, system: Path) -> None:
    """Nothing in an image is run, and its devices and setuid bits are dead."""
    host.run(path=raw_disk(tmp_path, "gpt", system))
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(host.place) in line]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))


def test_a_journal_is_not_replayed(tmp_path: Path, host: Host, system: Path) -> None:
    """A disk as a crashed guest leaves it: its files are seen, its bytes stay."""
    crashed = tmp_path / "crashed.fs"
    crashed.write_bytes(system.read_bytes())
    live = tmp_path / "live"
    live.mkdir()
    subprocess.run(["mount", "-o", "loop", crashed, live], check=True)
    try:
        (live / "late").write_bytes(b"after the crash\n")
        os.sync()
        copy = tmp_path / "copy.fs"
        copy.write_bytes(crashed.read_bytes())
    finally:
        subprocess.run(["umount", live], check=True)
    shown = subprocess.run(["dumpe2fs", "-h", copy], capture_output=True, text=True, check=True).stdout
    assert "needs_recovery" in shown
    disk = raw_disk(tmp_path, "gpt", copy)
    before = digest(disk)
    host.run(path=disk)
    assert seen(host.place) == FILES
    assert host.run(state="unmounted").failure is None
    assert digest(disk) == before


@pytest.mark.parametrize("suffix", ["raw", "qcow2"])
def test_writable(tmp_path: Path, host: Host, system: Path, suffix: str) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    if suffix == "qcow2":
        disk = converted(disk, "disk.qcow2")
    assert host.run(path=disk, writable=True).changed
    (host.place / "new").write_bytes(b"written\n" * 1000)
    assert not host.run(path=disk, writable=True).changed
    with pytest.raises(DiskwrightError, match="writable=false is asked for"):
        host.run(path=disk)
    assert host.run(state="unmounted").failure is None
    if suffix == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", disk], check=True)
    host.run(path=disk)
    assert (host.place / "new").read_bytes() == b"written\n" * 1000


def test_a_folder_that_was_there_stays(tmp_path: Path, host: Host, system: Path) -> None:
    host.place.mkdir()
    host.run(path=raw_disk(tmp_path, "gpt", system))
    host.run(state="unmounted")
    assert host.place.is_dir()


def test_two_mounts_of_one_image(tmp_path: Path, host: Host, system: Path) -> None:
    other = file_system(tmp_path, label="data")
    disk = converted(two_partitions(tmp_path, system, other.read_bytes()), "disk.qcow2")
    host.run(path=disk, partition=1)
    second = str(tmp_path / "mnt2")
    both = host.run(path=disk, partition=2, mountpoint=second)
    assert [mount["partition"] for mount in both.data["mounts"]] == [1, 2]
    assert seen(Path(second)) == FILES
    gone = host.run(path=disk, mountpoint=None, state="unmounted")
    assert gone.data["mounts"] == []
    assert gone.diff.count("\n") == 2
    assert attached(tmp_path) == []


def test_gathered(tmp_path: Path, host: Host, system: Path) -> None:
    other = file_system(tmp_path, "ext2", label="mit \u00dcml\u00e4ut")
    disk = converted(two_partitions(tmp_path, system, other.read_bytes()), "disk.qcow2")
    found = host.run(path=disk, state="gathered", mountpoint=None)
    assert (found.changed, found.diff) == (False, "")
    rows = [(row["number"], row["filesystem"], row["label"], row["name"]) for row in found.data["partitions"]]
    assert rows == [(1, "ext4", "root", "root"), (2, "ext2", "mit \u00dcml\u00e4ut", "data")]
    assert [row["size"] for row in found.data["partitions"]] == [8 * MIB, 8 * MIB]
    assert all(len(row["filesystem_uuid"]) == 36 for row in found.data["partitions"])
    assert not host.state.exists()


# ---- other file systems


def test_ntfs(tmp_path: Path, host: Host) -> None:
    needs("mkntfs", "ntfs-3g")
    image = tmp_path / "win.fs"
    image.write_bytes(bytes(16 * MIB))
    subprocess.run(["mkntfs", "-q", "-Q", "-F", "-L", "Volume", image], check=True, capture_output=True)
    live = tmp_path / "live"
    live.mkdir()
    subprocess.run(["mount", "-t", "ntfs-3g", "-o", "loop", image, live], check=True)
    (live / "boot.ini").write_bytes(b"[boot]\r\n")
    subprocess.run(["umount", live], check=True)
    for _try in range(100):  # ntfs-3g ends a moment after its mount
        if not mounting._loops(str(image)):
            break
        time.sleep(0.05)
    disk = converted(raw_disk(tmp_path, "mbr", image), "disk.qcow2")
    before = digest(disk)
    done = host.run(path=disk)
    assert done.data["partitions"][0]["filesystem"] == "ntfs"
    assert (host.place / "boot.ini").read_bytes() == b"[boot]\r\n"
    assert host.run(state="unmounted").failure is None
    assert digest(disk) == before
    host.run(path=disk, writable=True)
    (host.place / "boot.ini").write_bytes(b"[changed]\r\n")
    assert host.run(state="unmounted").failure is None
    host.run(path=disk)
    assert (host.place / "boot.ini").read_bytes() == b"[changed]\r\n"


def test_xfs_beside_its_copy(tmp_path: Path, host: Host) -> None:
    """Two disks with the same UUID, as a snapshot or a template and its clone have."""
    needs("mkfs.xfs", "xfsprogs")
    image = tmp_path / "xfs.fs"
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    subprocess.run(["mkfs.xfs", "-q", image], check=True, capture_output=True)
    first = tmp_path / "first.raw"
    second = tmp_path / "second.raw"
    for disk in (first, second):
        subprocess.run(["cp", "--sparse=always", image, disk], check=True)
    host.run(path=first)
    host.run(path=second, mountpoint=str(tmp_path / "mnt2"))
    assert len(host.run(path=first).data["mounts"]) == 2
    host.run(state="unmounted", mountpoint=str(tmp_path / "mnt2"))


# ---- volumes


def test_a_volume_and_a_linked_clone(tmp_path: Path, host: Host, system: Path, volumes: Path) -> None:
    raw_disk(volumes, "gpt", system, "base-100-disk-0.raw")
    clone = volumes / "vm-101-disk-0.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
    subprocess.run([*create, "-b", "base-100-disk-0.raw", str(clone)], check=True)
    before = digest(clone)
    assert host.run(volume="local:101/vm-101-disk-0.qcow2").data["image"] == "local:101/vm-101-disk-0.qcow2"
    assert seen(host.place) == FILES
    assert host.run(state="unmounted").failure is None
    assert digest(clone) == before
    base = digest(volumes / "base-100-disk-0.raw")
    host.run(volume="local:101/vm-101-disk-0.qcow2", writable=True)
    (host.place / "new").write_bytes(b"in the clone alone")
    assert host.run(state="unmounted").failure is None
    assert digest(volumes / "base-100-disk-0.raw") == base
    assert digest(clone) != before


def test_a_volume_whose_chain_leads_elsewhere(tmp_path: Path, host: Host, system: Path, volumes: Path) -> None:
    raw_disk(tmp_path, "gpt", system, "secret.raw")
    clone = volumes / "vm-101-disk-0.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
    subprocess.run([*create, "-b", str(tmp_path / "secret.raw"), str(clone)], check=True)
    refused(host, ["has the backing file", "secret.raw", "in its own storage"], volume="local:101/vm-101-disk-0.qcow2")


def test_a_volume_on_a_block_device(tmp_path: Path, host: Host, system: Path, volumes: Path) -> None:
    """As on LVM: the volume is a link to a device."""
    disk = raw_disk(tmp_path, "gpt", system)
    shown = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=True)
    device = shown.stdout.strip()
    try:
        (volumes / "vm-100-disk-0").symlink_to(device)
        host.run(volume="local-lvm:vm-100-disk-0")
        assert seen(host.place) == FILES
        assert host.run(state="unmounted").failure is None
        host.run(volume="local-lvm:vm-100-disk-0", writable=True)
        (host.place / "new").write_bytes(b"x")
        assert host.run(state="unmounted").failure is None
        live = tmp_path / "live"
        live.mkdir()
        subprocess.run(["mount", "-o", f"loop,offset={mounting.START * 512}", device, live], check=True)
        try:
            words = ["writable=true: local-lvm:vm-100-disk-0 is in use by loop device"]
            refused(host, words, volume="local-lvm:vm-100-disk-0", writable=True)
        finally:
            subprocess.run(["umount", live], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_volume_that_is_not_there(host: Host, volumes: Path) -> None:
    refused(host, ["no such volume 'local:100/nothing.raw'"], volume="local:100/nothing.raw")


def test_a_raw_volume_is_raw_whatever_its_guest_wrote(tmp_path: Path, host: Host, volumes: Path) -> None:
    """A guest that writes a qcow2 header with a backing file to its disk gets nothing of it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret)]
    subprocess.run([*create, str(volumes / "vm-100-disk-0.raw"), "1M"], check=True)
    words = ["holds nothing that is known", "look at it there with: lsblk -f"]
    refused(host, words, volume="local:100/vm-100-disk-0.raw")


# ---- refused


def refused(host: Host, words: list[str], **params: object) -> None:
    """A run is refused in check mode and really, with the same words, and nothing is done."""
    texts = []
    for check in (True, False):
        with pytest.raises(DiskwrightError) as caught:
            host.run(check=check, **params)
        texts.append(str(caught.value))
        assert not shown(host.place)
        assert not list(host.state.glob("mounts/*.json"))
    assert texts[0] == texts[1]
    for word in words:
        assert word in texts[0], texts[0]


def test_several_partitions_and_none_named(tmp_path: Path, host: Host, system: Path) -> None:
    disk = two_partitions(tmp_path, system, bytes(MIB))
    words = [f"partition is missing: {disk} has 1 (ext4 'root', 8 MiB), 2 (unknown, 1 MiB); name one of them"]
    refused(host, words, path=disk)
    refused(host, ["partition=7", "has no such partition; it has 1 (ext4"], path=disk, partition=7)
    refused(host, ["partition 2", "holds nothing that is known"], path=disk, partition=2)


def physical_volume() -> bytes:
    """What LVM writes at the beginning of a physical volume. Below 1.44 MiB blkid looks for none."""
    label = bytearray(2 * MIB)
    label[512:520] = b"LABELONE"
    label[520:528] = (1).to_bytes(8, "little")
    label[532:536] = (32).to_bytes(4, "little")
    label[536:544] = b"LVM2 001"
    label[544:576] = b"0123456789abcdefghijklmnopqrstuv"
    crc = ~zlib.crc32(label[532:1024], ~0xF597A6CF & 0xFFFFFFFF) & 0xFFFFFFFF
    label[528:532] = crc.to_bytes(4, "little")
    return bytes(label)


@pytest.mark.parametrize("suffix", ["raw", "qcow2"])
def test_lvm_is_reported_and_never_shown_to_the_host(tmp_path: Path, host: Host, system: Path, suffix: str) -> None:
    disk = two_partitions(tmp_path, system, physical_volume())
    if suffix == "qcow2":
        disk = converted(disk, "disk.qcow2")
    found = host.run(path=disk, state="gathered", mountpoint=None)
    assert [row["filesystem"] for row in found.data["partitions"]] == ["ext4", "LVM2_member"]
    refused(host, ["holds a physical volume of LVM", "rescue guest"], path=disk, partition=2)
    host.run(path=disk, partition=1)
    shown = subprocess.run(["losetup", "-l", "-n", "-O", "BACK-FILE,OFFSET,SIZELIMIT"], capture_output=True, text=True)
    ours = [line.split()[1:] for line in shown.stdout.splitlines() if str(tmp_path) in line]
    assert ours == [[str(mounting.START * 512), str(8 * MIB)]], "the host sees more than the one partition"


def test_bad_mountpoints(tmp_path: Path, host: Host, system: Path) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    host.place.write_bytes(b"a file")
    refused(host, ["mountpoint", "is no folder"], path=disk)
    host.place.unlink()
    host.place.mkdir()
    (host.place / "kept").write_bytes(b"kept")
    refused(host, ["mountpoint", "is not empty (kept)"], path=disk)
    assert (host.place / "kept").read_bytes() == b"kept"
    refused(host, ["is no absolute path"], path=disk, mountpoint="mnt")
    refused(host, ["mountpoint is missing"], path=disk, mountpoint=None)
    refused(host, ["path or volume is missing"])
    refused(host, ["member=x.vmdk"], volume="local:x", member="x.vmdk")
    refused(host, ["/proc: proc is mounted there"], path=disk, mountpoint="/proc")
    words = ["/proc: proc is mounted there, and not by this module; unmount it with: umount /proc"]
    refused(host, words, state="unmounted", mountpoint="/proc")


def test_another_user_than_root(tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: 1000)
        refused(host, ["needs root; add become: true"], path=tmp_path / "disk.raw")


def test_all_refusals_at_once(tmp_path: Path, host: Host, system: Path) -> None:
    disk = converted(raw_disk(tmp_path, "gpt", system), "disk.vhdx")
    host.place.write_bytes(b"a file")
    words = ["is no folder", "backend=loop", "only raw and qcow2 can be written to", "partition=3"]
    refused(host, words, path=disk, backend="loop", writable=True, partition=3)


def test_another_image_at_the_same_place(tmp_path: Path, host: Host, system: Path) -> None:
    first, second = (raw_disk(tmp_path, "gpt", system, name) for name in ("a.raw", "b.raw"))
    host.run(path=first)
    with pytest.raises(DiskwrightError) as error:
        host.run(path=second, writable=True)
    assert str(error.value) == (
        f"mountpoint {host.place}: partition 1 of {first} (ext4, 8 MiB), read-only, is mounted there, and {second} "
        "with writable=true is asked for; unmount it first, or name another mountpoint"
    )
    first.unlink()
    second.rename(first)
    with pytest.raises(DiskwrightError, match="its file was replaced since"):
        host.run(path=first)
    gone = host.run(state="unmounted")
    assert "was replaced while it was mounted" in str(gone.failure)
    assert attached(tmp_path) == []


def test_a_disk_in_use_is_not_mounted_writable(tmp_path: Path, host: Host, system: Path) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    with disk.open("rb"), subprocess.Popen(["sleep", "60"], stdin=disk.open("rb")) as user:
        try:
            refused(host, [f"is in use by process {user.pid} (sleep)"], path=disk, writable=True)
        finally:
            user.kill()
    host.run(path=disk)
    second = str(tmp_path / "mnt2")
    with pytest.raises(DiskwrightError, match="is in use by loop device"):
        host.run(path=disk, writable=True, mountpoint=second)


def test_a_busy_mount_is_not_torn_away(tmp_path: Path, host: Host, system: Path) -> None:
    disk = converted(raw_disk(tmp_path, "gpt", system), "disk.qcow2")
    host.run(path=disk)
    with subprocess.Popen(["sleep", "60"], cwd=host.place) as user:
        try:
            with pytest.raises(DiskwrightError, match=rf"in use by process {user.pid} \(sleep\)"):
                host.run(state="unmounted")
            assert seen(host.place) == FILES
            assert not host.run(path=disk).changed
        finally:
            user.kill()
    assert host.run(state="unmounted").changed


# ---- crashes


EVENTS = {"subprocess.Popen", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.ioctl", "fcntl.flock"}


def killed_at(number: int, host: Host, **params: object) -> bool:
    """A run that kills itself just before its nth act; whether it came so far.

    An act is anything that changes the machine: a program, a folder, a renamed file, a call to a device.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, _arguments: object) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == number:
                    os.kill(os.getpid(), 9)

        sys.addaudithook(watch)
        try:
            host.run(**params)  # type: ignore[arg-type]
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the parent shows it
            print(error, file=sys.stderr)  # noqa: T201
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    assert status in (0, 9), status
    return status == 9


# Every act takes minutes on a busy machine; some are looked at each time, all of them when slow tests are asked for.
STRIDES = [pytest.param(3, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(
    ("suffix", "writable"), [("raw", False), ("qcow2", False), ("qcow2", True)], ids=["raw", "qcow2", "writable"]
)
def test_killed_while_mounting(
    tmp_path: Path, host: Host, system: Path, suffix: str, writable: bool, stride: int
) -> None:
    """The next run mounts, or unmounting leaves nothing; in turn."""
    disk = raw_disk(tmp_path, "gpt", system)
    if suffix == "qcow2":
        disk = converted(disk, "disk.qcow2")
    number, params = 1, {"path": disk, "writable": writable}
    while killed_at(number, host, **params):
        if number % 2:
            planned = host.run(check=True, **params)
            done = host.run(**params)
            assert (planned.changed, planned.diff) == (done.changed, done.diff), number
            assert seen(host.place) == FILES, number
            assert not host.run(**params).changed, number
        host.run(state="unmounted")
        assert attached(tmp_path) == [], number
        assert not host.run(state="unmounted").changed, number
        number += stride
    assert number > 10
    host.run(state="unmounted")
    assert not host.place.exists()


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("suffix", ["raw", "qcow2"])
def test_killed_while_unmounting(tmp_path: Path, host: Host, system: Path, suffix: str, stride: int) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    if suffix == "qcow2":
        disk = converted(disk, "disk.qcow2")
    before = digest(disk)
    number = 1
    host.run(path=disk)
    while killed_at(number, host, state="unmounted"):
        if number % 2:
            host.run(state="unmounted")
            assert attached(tmp_path) == [], number
        host.run(path=disk)
        assert seen(host.place) == FILES, number
        number += stride
    assert number > 5
    assert attached(tmp_path) == []
    assert digest(disk) == before


def test_killed_at_any_time(tmp_path: Path, host: Host, system: Path) -> None:
    """By the clock instead of by act: also while a program that it started is at work."""
    disk = converted(raw_disk(tmp_path, "gpt", system), "disk.qcow2")
    for step in range(10):
        child = os.fork()
        if child == 0:
            host.run(path=disk)
            os._exit(0)
        time.sleep(0.02 * step)
        os.kill(child, 9)
        os.waitpid(child, 0)
        host.run(state="unmounted")
        assert attached(tmp_path) == [], step


def test_after_a_reboot(tmp_path: Path, host: Host, system: Path) -> None:
    """Only what is on disks is left: the record, a folder, an image."""
    disk = converted(raw_disk(tmp_path, "gpt", system), "disk.qcow2")
    host.run(path=disk)
    kept = {path: path.read_bytes() for path in (host.state / "mounts").iterdir() if path.is_file()}
    host.run(state="unmounted")
    for path, data in kept.items():
        path.write_bytes(data)
    host.place.mkdir()
    again = host.run(path=disk)
    assert again.changed
    assert "what an interrupted run has left" in again.diff
    assert seen(host.place) == FILES


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("state", ["mounted", "unmounted"])
def test_the_daemon_is_gone(tmp_path: Path, host: Host, system: Path, state: str, late: bool) -> None:
    """Killed by the system for want of memory, say: what is left of the mount is cleared away."""
    disk = converted(raw_disk(tmp_path, "gpt", system), "disk.vmdk")
    host.run(path=disk)
    (pid,) = [int(p.name) for p in Path("/proc").glob("[0-9]*") if str(host.state) in _command(p)]
    os.kill(pid, 9)
    for _try in range(100):
        if not mounting._daemons(str(host.state)):
            break
        time.sleep(0.02)
    if late:  # the kernel forgets what it knew of the file
        (line,) = shown(host.place)
        wait_until_dead(line.partition(" - ")[2].split()[1])
    assert host.run(path=disk, state=state).changed
    if state == "mounted":
        assert seen(host.place) == FILES
    else:
        assert attached(tmp_path) == []


def wait_until_dead(device: str) -> None:
    """Until the kernel does not answer for a loop device any more, because it can't ask for the file behind it."""
    with open(device, "rb") as file:
        for _try in range(1000):
            try:
                fcntl.ioctl(file, 0x4C05, bytes(232))  # LOOP_GET_STATUS64
            except OSError as error:
                assert error.errno == errno.ENOTCONN
                return
            time.sleep(0.02)
    pytest.fail(f"{device} still answers")


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def test_a_damaged_record_is_told(tmp_path: Path, host: Host, system: Path) -> None:
    host.run(path=raw_disk(tmp_path, "gpt", system))
    (record,) = (host.state / "mounts").glob("*.json")
    text = record.read_text()
    record.write_text("{}")
    try:
        with pytest.raises(DiskwrightError, match="is no record of a mount"):
            host.run(state="unmounted")
    finally:
        record.write_text(text)


# ---- images from elsewhere


@pytest.mark.parametrize(
    "subformat", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]
)
def test_vmdk(tmp_path: Path, host: Host, system: Path, subformat: str) -> None:
    folder = tmp_path / "vmware"
    folder.mkdir()
    disk = converted(raw_disk(folder, "mbr", system), "web1.vmdk", "-o", f"subformat={subformat}")
    (folder / "disk.raw").unlink()
    before = {path.name: digest(path) for path in folder.iterdir()}
    host.run(path=disk)
    assert seen(host.place) == FILES
    assert host.run(state="unmounted").failure is None
    assert {path.name: digest(path) for path in folder.iterdir()} == before
    refused(host, ["only raw and qcow2 can be written to; convert it first"], path=disk, writable=True)


def test_a_disk_in_an_archive(tmp_path: Path, host: Host, system: Path) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    size = disk.stat().st_size
    image = converted(disk, "web1-disk1.vmdk", "-o", "subformat=streamOptimized")
    text = archive.ovf([archive.Disk(image.name, size)])
    ova = tmp_path / "web1.ova"
    ova.write_bytes(archive.tar([("web1.ovf", text.encode()), (image.name, image.read_bytes())]))
    done = host.run(path=ova, member=image.name)
    assert (done.data["member"], done.data["virtual_size"]) == (image.name, size)
    assert seen(host.place) == FILES
    assert not host.run(path=ova, member=image.name).changed
    with pytest.raises(DiskwrightError, match=r"other\.vmdk is asked for"):
        host.run(path=ova, member="other.vmdk")


@pytest.mark.parametrize("suffix", ["vhdx", "vdi"])
def test_other_formats(tmp_path: Path, host: Host, system: Path, suffix: str) -> None:
    host.run(path=converted(raw_disk(tmp_path, "gpt", system), f"disk.{suffix}"))
    assert seen(host.place) == FILES


def test_a_hostile_image_is_refused(tmp_path: Path, host: Host, system: Path) -> None:
    """Nothing is started for an image that the inspection refuses."""
    raw_disk(tmp_path, "gpt", system, "secret.raw")
    clone = tmp_path / "clone.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "secret.raw", str(clone)]
    subprocess.run(create, check=True)
    refused(host, ["clone.qcow2", "backing"], path=clone)
    link = tmp_path / "link.raw"
    link.symlink_to("secret.raw")
    refused(host, ["link.raw", "link"], path=link)


def test_a_damaged_table_is_refused(tmp_path: Path, host: Host, system: Path) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    data = bytearray(disk.read_bytes())
    data[512 + 40] ^= 1
    disk.write_bytes(data)
    found = host.run(path=disk)
    assert seen(host.place) == FILES
    (warning,) = found.warnings
    assert "the copy at the end of the disk is whole and was read" in warning
    host.run(state="unmounted")
    refused(host, ["does not fit its checksum", "repair the table first"], path=disk, writable=True)
    data[-512 + 40] ^= 1
    disk.write_bytes(data)
    refused(host, ["GPT: its header does not fit its checksum"], path=disk)


# ---- guests


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster's configuration, with the guest 100, which runs, and 101, which is locked."""
    configs, run = tmp_path / "pve" / "nodes" / "pve1" / "qemu-server", tmp_path / "run"
    configs.mkdir(parents=True)
    run.mkdir()
    (configs / "100.conf").write_text("scsi0: local:100/vm-100-disk-0.raw,size=8M\n")
    (configs / "101.conf").write_text("scsi0: local:101/vm-101-disk-0.raw,size=8M\nlock: backup\n")
    (run / "100.pid").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(guests.naming, "__defaults__", (str(tmp_path / "pve"),))
    monkeypatch.setattr(pvesm.running, "__defaults__", (str(run),))
    return configs


def test_a_guest_that_runs(tmp_path: Path, host: Host, system: Path, volumes: Path, cluster: Path) -> None:
    raw_disk(volumes, "gpt", system, "vm-100-disk-0.raw")
    volume = "local:100/vm-100-disk-0.raw"
    words = [f"writable=true: guest 100 on pve1 has {volume} and runs; shut it down"]
    refused(host, words, volume=volume, writable=True)
    done = host.run(volume=volume)
    (warning,) = done.warnings
    assert warning.startswith(f"guest 100 on pve1 runs and writes to {volume}")
    assert seen(host.place) == FILES


def test_a_guest_that_runs_is_known_by_its_file_too(
    tmp_path: Path, host: Host, system: Path, volumes: Path, cluster: Path
) -> None:
    path = raw_disk(volumes, "gpt", system, "vm-100-disk-0.raw")
    refused(host, ["writable=true: guest 100 on pve1 has", "and runs"], path=path, writable=True)


def test_a_guest_that_is_locked(tmp_path: Path, host: Host, system: Path, volumes: Path, cluster: Path) -> None:
    raw_disk(volumes, "gpt", system, "vm-101-disk-0.raw")
    words = ["guest 101 on pve1", "is locked (backup)", "may run, which can't be found out from here"]
    refused(host, words, volume="local:101/vm-101-disk-0.raw", writable=True)


# ---- kpartx


@pytest.fixture
def kpartx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kpartx that makes loop devices where the device mapper is missing, and links where the real one has nodes."""
    mapper, programs = tmp_path / "mapper", tmp_path / "programs"
    mapper.mkdir()
    programs.mkdir()
    (mapper / "control").touch()
    script = programs / "kpartx"
    start, size = mounting.START * 512, 8 * MIB
    script.write_text(
        "#!/bin/sh\nset -e\nfor last; do :; done\n"
        f'part={mapper}/$(basename "$last")p1\n'
        'case $1 in\n-a) ro=; [ "$3" = -r ] && ro=-r\n'
        f'ln -s "$(losetup $ro -f --show -o {start} --sizelimit {size} "$last")" "$part" ;;\n'
        '-d) [ ! -e "$part" ] || { losetup -d "$(readlink "$part")"; rm "$part"; } ;;\nesac\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(attach, "_MAPPER", str(mapper))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return mapper


@pytest.mark.parametrize("suffix", ["raw", "qcow2"])
def test_kpartx(tmp_path: Path, host: Host, system: Path, kpartx: Path, suffix: str) -> None:
    disk = raw_disk(tmp_path, "gpt", system)
    if suffix == "qcow2":
        disk = converted(disk, "disk.qcow2")
    before = digest(disk)
    done = host.run(path=disk, backend="kpartx")
    assert done.data["mount"]["backend"].endswith("kpartx")
    assert seen(host.place) == FILES
    assert not host.run(path=disk, backend="kpartx").changed
    assert host.run(state="unmounted").failure is None
    assert sorted(path.name for path in kpartx.iterdir()) == ["control"]
    assert attached(tmp_path) == []
    assert digest(disk) == before


def test_kpartx_shows_nothing_to_lvm(tmp_path: Path, host: Host, system: Path, kpartx: Path) -> None:
    disk = two_partitions(tmp_path, system, physical_volume())
    words = ["backend=kpartx", "would take 2 (LVM2_member, 2 MiB) for its own; use auto"]
    refused(host, words, path=disk, partition=1, backend="kpartx")


def test_kpartx_without_partitions_or_device_mapper(
    tmp_path: Path, host: Host, system: Path, kpartx: Path
) -> None:
    disk = raw_disk(tmp_path, "none", system)
    refused(host, ["backend=kpartx", "has no partitions; use auto"], path=disk, backend="kpartx")
    (kpartx / "control").unlink()
    refused(host, ["backend=kpartx: there is no", "modprobe dm-mod, or use auto"], path=disk, backend="kpartx")


# ---- as it is documented


def test_examples(tmp_path: Path, system: Path) -> None:
    """In check mode, really, and again; in a folder of this test instead of /mnt and /root."""
    folder = tmp_path / "vmware" / "web1"
    folder.mkdir(parents=True)
    converted(raw_disk(folder, "gpt", system), "web1.vmdk")
    text = yaml.safe_dump(examples_of("image_mount"))
    for old, new in (("/mnt/vmware", tmp_path / "vmware"), ("/mnt/web1", tmp_path / "web1"), ("/root", tmp_path)):
        text = text.replace(old, str(new))
    state = {"diskwright.proxmox.image_mount": {"state_dir": str(tmp_path / "state")}}
    tasks = []
    for task in yaml.safe_load(text):
        if "diskwright.proxmox.image_mount" in task:
            tasks.append({**task, "name": f"{task['name']} [check]", "check_mode": True})
            tasks.append(task)
            tasks.append({**task, "name": f"{task['name']} [again]"})
        else:
            tasks.append(task)
    ran = run_playbook(play(tasks, module_defaults=state), {}, "--diff")
    assert ran.code == 0, ran.text
    for task in (task for task in tasks if "diskwright.proxmox.image_mount" in task and "[" not in task["name"]):
        check, real, again = (ran.task(task["name"] + suffix) for suffix in (" [check]", "", " [again]"))
        assert (check.changed, check.diff) == (real.changed, real.diff)
        assert (again.changed, again.diff) == (False, "")
    assert (tmp_path / "web1-hostname").read_bytes() == FILES["etc/hostname"]
    assert "+ " in ran.task("Show its files").diff
    assert attached(tmp_path) == []


def test_the_guide(tmp_path: Path, system: Path, volumes: Path) -> None:
    """Every task of docs/mounting.md, in their order, in a folder of this test."""
    folder = tmp_path / "vmware" / "web1"
    folder.mkdir(parents=True)
    converted(raw_disk(folder, "mbr", system), "web1.vmdk")
    converted(raw_disk(volumes, "gpt", system), "vm-120-disk-0.qcow2")
    parts = re.findall(r"(?ms)^```yaml\n(.*?)^```$", (TOP / "docs" / "mounting.md").read_text())
    text = "".join(parts)
    for old, new in (("/mnt/vmware", tmp_path / "vmware"), ("/mnt/rescue", tmp_path / "rescue"), ("/root", tmp_path)):
        text = text.replace(old, str(new))
    state = {"diskwright.proxmox.image_mount": {"state_dir": str(tmp_path / "state")}}
    ran = run_playbook(play(yaml.safe_load(text), module_defaults=state), {"PATH": os.environ["PATH"]}, "--diff")
    assert ran.code == 0, ran.text
    assert (tmp_path / "rescued" / "hostname").read_bytes() == FILES["etc/hostname"]
    assert all(task.changed for task in ran.tasks if task.task not in ("What is on the disk of db1?", "Say so"))
    assert attached(tmp_path) == []
    host = Host(tmp_path)
    host.run(volume="local:120/vm-120-disk-0.qcow2")
    try:
        assert (host.place / "etc" / "nologin").read_text() == "nobody can log in\n"
    finally:
        host.clean()


def test_arguments_are_checked(tmp_path: Path) -> None:
    both = {"path": "/x.raw", "volume": "local:x", "mountpoint": "/mnt/x"}
    asked = {"Both": both, "None": {"state": "unmounted"}}
    tasks = [
        {"name": name, "diskwright.proxmox.image_mount": words, "ignore_errors": True} for name, words in asked.items()
    ]
    ran = run_playbook(play(tasks), {})
    assert "parameters are mutually exclusive: path|volume" in ran.task("Both").result["msg"]
    assert "one of the following is required: path, volume, mountpoint" in ran.task("None").result["msg"]
