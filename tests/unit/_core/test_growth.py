# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes for a Linux guest to use a disk that has grown, and where it is better left alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.growth import (
    MIB,
    Device,
    Disk,
    Growth,
    LogicalVolume,
    Partition,
    PhysicalVolume,
    Plugged,
    Seen,
    System,
    VolumeGroup,
    edit_dump,
    last_sector,
    match_slots,
    plan_growth,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.growth_linux import (
    carry_out,
    look,
    read_outcome,
    read_system,
)
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
TOOLS = frozenset("sfdisk partx resize2fs xfs_growfs btrfs pvresize lvextend".split())
EXTENT = 4 * MIB


def part(number: int, start: int, size: int, kind: str = "", disk: str = "sda") -> Partition:
    """A partition; MiB."""
    return Partition(f"/dev/{disk}{number}", number, start * 2048, size * 2048, kind)


def disk(*parts: Partition, table: str | None = "gpt", size: int = 4 * GIB, name: str = "sda") -> Disk:
    lines = [f"label: {table}", "last-lba: 9"]
    lines += [f"{one.node} : start={one.start:12}, size={one.size:12}, type={one.type or 'L'}" for one in parts]
    return Disk(name, size, 512, table, parts, "\n".join(lines))


def device(path: str, fstype: str, size: int, mount: str = "", **more: Any) -> Device:
    """A device; MiB."""
    values = {"filesystem": size * MIB, **more}
    return Device(path, size * MIB, fstype, (mount,) if mount else (), **values)


def system(disks: Iterable[Disk], *devices: Device, **more: Any) -> System:
    return System({one.name: one for one in disks}, {one.path: one for one in devices}, tools=TOOLS, **more)


def volume(name: str, size: int) -> LogicalVolume:
    return LogicalVolume("vg0", name, f"/dev/vg0/{name}", f"/dev/mapper/vg0-{name}", size * MIB, plain=True)


def lvm(*, free: int = 0, pv: int = 1020, lv: int = 1020, names: str = "root", **more: Any) -> System:
    """A physical volume on sda1 of a disk of 4 GiB; MiB."""
    logical = tuple(volume(name, lv) for name in names.split())
    tags = more.pop("tags", ())
    devices = [device(one.device, "ext4", lv, "/" if one.name == "root" else f"/{one.name}") for one in logical]
    start = more.pop("size", 1022)
    return system(
        [disk(part(1, 1, start))], device("/dev/sda1", "LVM2_member", start, filesystem=None), *devices,
        physical={"/dev/sda1": PhysicalVolume("/dev/sda1", "vg0", pv * MIB, MIB)},
        groups={"vg0": VolumeGroup("vg0", EXTENT, free, tags, **more)}, logical=logical,
    )  # fmt: skip


def plan(world: System, chosen: str | None = None) -> Growth:
    return plan_growth(world, ["sda"], chosen)["sda"]


def lines(growth: Growth) -> list[str]:
    assert growth.todo is None, growth.todo
    return [f"{step.what}: {step.text}" for step in growth.steps]


# ---- partitions and file systems


@pytest.mark.parametrize(
    ("fstype", "command"),
    [("ext4", "resize2fs /dev/sda2"), ("ext3", "resize2fs /dev/sda2"), ("xfs", "xfs_growfs '/my data'"),
     ("btrfs", "btrfs filesystem resize 1:max '/my data'")],
)  # fmt: skip
def test_the_last_partition_and_its_file_system(fstype: str, command: str) -> None:
    growth = plan(system([disk(part(1, 1, 100), part(2, 101, 900))], device("/dev/sda2", fstype, 900, "/my data")))
    assert lines(growth) == [
        "sda2: 900 MiB -> 3.9 GiB, to the end of sda",
        f"/my data: {fstype} 900 MiB -> 3.9 GiB",
    ]
    assert growth.steps[1].command == command
    assert "start=      206848, size=8179712" in growth.steps[0].command
    assert growth.steps[0].command.endswith("--force /dev/sda && partx --update --nr 2 /dev/sda")


def test_nothing_to_do() -> None:
    full = disk(part(1, 1, 4094))
    assert plan(system([full], device("/dev/sda1", "ext4", 4094, "/"))) == Growth()
    assert plan(system([full], device("/dev/sda1", "swap", 4094))) == Growth()
    assert plan(system([disk(table=None)], device("/dev/sda", "", 4096))) == Growth()
    assert plan(system([disk()])) == Growth()


def test_what_an_earlier_run_has_left_is_finished() -> None:
    growth = plan(system([disk(part(1, 1, 4094))], device("/dev/sda1", "ext4", 4094, "/", filesystem=GIB)))
    assert lines(growth) == ["/: ext4 1 GiB -> 4 GiB"]


def test_a_file_system_on_the_whole_disk() -> None:
    growth = plan(system([disk(table=None)], device("/dev/sda", "xfs", 4096, "/srv", filesystem=GIB)))
    assert lines(growth) == ["/srv: xfs 1 GiB -> 4 GiB"]


def test_an_mbr_with_a_logical_partition() -> None:
    parts = (part(1, 1, 100, "83"), part(2, 101, 900, "f"), part(5, 102, 899, "83"))
    growth = plan(system([disk(*parts, table="dos")], device("/dev/sda5", "ext4", 899, "/")))
    assert lines(growth)[0] == "sda5: 899 MiB -> 3.9 GiB, to the end of sda"
    assert "/dev/sda2 : start=      206848, size=8181760" in growth.steps[0].command
    assert "/dev/sda5 : start=      208896, size=8179712" in growth.steps[0].command


def test_an_mbr_ends_at_two_tebibytes() -> None:
    large = disk(part(1, 1, 900, "83"), table="dos", size=3 << 40)
    growth = plan(system([large], device("/dev/sda1", "ext4", 900, "/")))
    assert growth.steps[0].text == "900 MiB -> 2 TiB, to the end of sda"
    assert str(growth.todo) == "sda: its partition table (MBR) ends at 2 TiB; only a GPT reaches further"


@pytest.mark.parametrize(
    ("world", "todo"),
    [
        (device("/dev/sda1", "swap", 900), "sda1: it is the last on the disk, and is swap; move swap away"),
        (device("/dev/sda1", "crypto_LUKS", 900), "sda1: it is the last on the disk, and is encrypted (LUKS); grow"),
        (device("/dev/sda1", "linux_raid_member", 900), "sda1: it is the last on the disk, and belongs to a RAID (mdr"),
        (device("/dev/sda1", "zfs_member", 900), "sda1: it is the last on the disk, and belongs to ZFS; grow it by"),
        (device("/dev/sda1", "hfsplus", 900), "sda1: it is the last on the disk, and has unknown content (hfsplus)"),
        (device("/dev/sda1", "", 900), "sda1: it is the last on the disk, and has unknown content (nothing r"),
        (device("/dev/sda1", "LVM2_member", 900), "sda1: it is a physical volume of no group; run pvresize on it"),
        (device("/dev/sda1", "ext4", 900), "sda1: its ext4 is not mounted, and can't grow safely; run e2fsck"),
        (device("/dev/sda1", "xfs", 900), "sda1: its xfs is not mounted, and can't grow safely; mount it, and"),
        (device("/dev/sda1", "xfs", 900, "/", read_only=True), "sda1: its xfs is mounted read-only; remount it"),
    ],
    ids=lambda value: value.fstype if isinstance(value, Device) else None,
)  # fmt: skip
def test_what_would_not_be_safe_is_left_alone(world: Device, todo: str) -> None:
    growth = plan(system([disk(part(1, 1, 900))], world))
    assert growth.steps == ()
    assert str(growth.todo).startswith(todo)


@pytest.mark.parametrize(
    ("tool", "todo"),
    [("sfdisk", "sda: the guest has no sfdisk or partx; install util-linux and fdisk in it"),
     ("resize2fs", "sda1: the guest has no resize2fs; install e2fsprogs in it")],
)  # fmt: skip
def test_tools_that_are_missing(tool: str, todo: str) -> None:
    world = system([disk(part(1, 1, 900))], device("/dev/sda1", "ext4", 900, "/"))
    growth = plan(replace(world, tools=TOOLS - {tool}))
    assert (growth.steps, str(growth.todo)) == ((), todo)


def test_an_empty_extended_partition_is_in_the_way() -> None:
    world = disk(part(1, 1, 900, "83"), part(2, 1000, 100, "5"), table="dos")
    growth = plan(system([world], device("/dev/sda1", "ext4", 900, "/")))
    assert str(growth.todo) == "sda1: an empty extended partition lies after it; remove that, and run again"


# ---- LVM


def test_physical_and_logical_volume() -> None:
    growth = plan(lvm(free=7))
    assert lines(growth) == [
        "sda1: 1022 MiB -> 4 GiB, to the end of sda",
        "sda1: physical volume 1020 MiB -> 4 GiB",
        "vg0/root: 1020 MiB -> 4 GiB",
        "/: ext4 1020 MiB -> 4 GiB",
    ]
    assert growth.steps[1].command == "vgchange --addtag diskwright_free_7 vg0 && pvresize /dev/sda1"
    assert growth.steps[2].command == (
        'more=$(($(vgs --noheadings -o vg_free_count vg0) - 7)) && { [ "$more" -lt 1 ] || '
        'lvextend -l "+$more" /dev/vg0/root; } && vgchange --deltag diskwright_free_7 vg0'
    )


def test_space_that_was_free_before_stays_free() -> None:
    assert plan(lvm(free=100, pv=4092, size=4094)) == Growth()


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (lvm(free=0, tags=("diskwright_free_0",), size=4094),
         ["sda1: physical volume 1020 MiB -> 4 GiB", "vg0/root: 1020 MiB -> 4 GiB",
          "/: ext4 1020 MiB -> 4 GiB"]),
        (lvm(free=775, tags=("mine", "diskwright_free_7"), pv=4092, size=4094),
         ["vg0/root: 1020 MiB -> 4 GiB", "/: ext4 1020 MiB -> 4 GiB"]),
        (lvm(free=7, tags=("diskwright_free_7",), pv=4092, size=4094, lv=4064),
         ["vg0: what an earlier run has noted is removed"]),
    ],
    ids=["noted", "pv-grown", "lv-grown"],
)  # fmt: skip
def test_a_run_that_was_cut_short_is_finished(world: System, expected: list[str]) -> None:
    assert lines(plan(world)) == expected


def test_several_logical_volumes() -> None:
    growth = plan(lvm(names="root home"))
    assert (growth.steps, str(growth.todo)) == (
        (), "vg0: several logical volumes could take the space: vg0/root, vg0/home; name one with logical_volume",
    )  # fmt: skip
    for chosen in ("home", "vg0/home", "/dev/vg0/home", "/dev/mapper/vg0-home"):
        growth = plan(lvm(names="root home"), chosen)
        assert [step.what for step in growth.steps] == ["sda1", "sda1", "vg0/home", "/home"]


def test_a_group_that_is_not_whole_or_not_alone() -> None:
    assert "is shared, exported or incomplete" in str(plan(lvm(healthy=False)).todo)


def test_no_logical_volume_that_can_grow() -> None:
    world = lvm()
    assert "none of its logical volumes has a file system" in str(plan(replace(world, logical=())).todo)


def test_two_disks_of_one_group() -> None:
    """Both physical volumes grow, and then the logical volume, once."""
    one = lvm(free=3)
    second = disk(part(1, 1, 1022, disk="sdb"), name="sdb")
    world = replace(
        one, disks={**one.disks, "sdb": second},
        devices={**one.devices, "/dev/sdb1": device("/dev/sdb1", "LVM2_member", 1022)},
        physical={**one.physical, "/dev/sdb1": PhysicalVolume("/dev/sdb1", "vg0", 1020 * MIB, MIB)},
    )  # fmt: skip
    found = plan_growth(world, ["sda", "sdb"])
    assert [step.what for step in found["sda"].steps] == ["sda1", "sda1"]
    assert [step.what for step in found["sdb"].steps] == ["sdb1", "sdb1", "vg0/root", "/"]
    assert found["sdb"].steps[2].text == "1020 MiB -> 7 GiB"
    assert "addtag" not in found["sdb"].steps[1].command


# ---- tables


@given(st.integers(4 * MIB, 1 << 44), st.sampled_from([512, 4096]), st.sampled_from(["gpt", "dos"]))
def test_a_partition_ends_within_the_table(size: int, sector: int, table: str) -> None:
    end = last_sector(Disk("sda", size, sector, table))
    backup = 1 + 128 * 128 // sector if table == "gpt" else 0
    assert (end + 1) * sector <= size - backup * sector
    assert (end + 1) * sector % MIB == 0
    assert table == "gpt" or end < 1 << 32


def test_a_dump_keeps_all_but_the_size_and_the_end() -> None:
    dump = (
        "label: gpt\nlabel-id: 6F1B\nunit: sectors\nfirst-lba: 2048\nlast-lba: 524254\nsector-size: 512\n\n"
        '/dev/sda1 : start=        2048, size=       16384, type=0FC6, uuid=77, name="size=1, /dev/sda2 :"\n'
        '/dev/sda2 : start=       18432, size=      503808, type=0FC6, uuid=78, attrs="GUID:59"\n'
    )
    last = Partition("/dev/sda2", 2, 18432, 503808)
    world = Disk("sda", GIB, 512, "gpt", (Partition("/dev/sda1", 1, 2048, 16384), last), dump)
    assert edit_dump(world, last, replace(last, size=700000)) == dump.replace("last-lba: 524254\n", "").replace(
        "size=      503808", "size=700000"
    )


# ---- slots


def test_disks_are_told_by_serial_by_name_by_place_by_size_and_by_what_is_left() -> None:
    plugged = [
        Plugged("scsi0", GIB), Plugged("scsi10", GIB), Plugged("virtio1", GIB), Plugged("sata0", GIB, "mine"),
        Plugged("sata1", 2 * GIB), Plugged("sata2", 3 * GIB),
    ]  # fmt: skip
    seen = [
        Seen("sda", GIB, marks="0 QEMU drive-scsi10"), Seen("sdb", GIB, marks="0 QEMU drive-scsi0"),
        Seen("vda", GIB, marks="/sys/devices/pci0000:00/0000:00:0b.0/virtio3/block/vda"), Seen("sdc", GIB, " mine "),
        Seen("sdd", 2 * GIB, "QM00005"), Seen("sde", GIB, "QM00007"),
    ]  # fmt: skip
    assert match_slots(plugged, seen) == {
        "scsi0": "sdb", "scsi10": "sda", "virtio1": "vda", "sata0": "sdc", "sata1": "sdd", "sata2": "sde",
    }  # fmt: skip


def test_disks_that_are_alike_are_not_guessed() -> None:
    assert match_slots([Plugged("sata0", GIB), Plugged("sata1", GIB)], [Seen("sda", GIB), Seen("sdb", GIB)]) == {}


# ---- the scripts


def test_what_a_real_debian_answered() -> None:
    """Recorded from the guest of test_real_agent: four disks that have grown from 400 to 600 MiB."""
    text = (Path(__file__).parent / "growth" / "debian-12.txt").read_text()
    world, seen = read_system(text)
    assert world.tools == TOOLS
    assert [(one.name, one.serial, one.marks.split("/")[0].strip()) for one in seen] == [
        ("sda", "", "drive-scsi0"), ("sdb", "", "drive-scsi1"), ("vda", "", ""), ("vdb", "", ""),
    ]  # fmt: skip
    drives = [Plugged(slot, 600 * MIB) for slot in ("scsi0", "scsi1", "virtio1", "virtio2")]
    devices = match_slots(drives, seen)
    assert devices == {"scsi0": "sda", "scsi1": "sdb", "virtio1": "vda", "virtio2": "vdb"}
    found = {name: lines(growth) for name, growth in plan_growth(world, devices.values()).items()}
    assert found == {
        "sda": ["sda2: 390 MiB -> 590 MiB, to the end of sda", "/mnt/a: ext4 390 MiB -> 590 MiB"],
        "sdb": [
            "sdb5: 389 MiB -> 589 MiB, to the end of sdb",
            "sdb5: physical volume 388 MiB -> 588 MiB",
            "vg0/root: 224 MiB -> 424 MiB",
            "/mnt/b: ext4 224 MiB -> 424 MiB",
        ],
        "vda": ["/mnt/c: btrfs 400 MiB -> 600 MiB"],
        "vdb": ["vdb1: 398 MiB -> 598 MiB, to the end of vdb", "/mnt/my data: xfs 398 MiB -> 598 MiB"],
    }


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_commands_are_carried_out_until_one_fails(tmp_path: Path, shell: str) -> None:
    fails = "echo out; echo 'no such disk' >&2; false"
    text = carry_out([f"echo one >>{tmp_path}/ran", fails, f"echo three >>{tmp_path}/ran"])
    script, result = tmp_path / "script", tmp_path / "result"
    script.write_text(text.replace("/run/diskwright.lock", str(tmp_path / "lock")))
    subprocess.run([shell, str(script), str(result)], check=True)
    assert (tmp_path / "ran").read_text() == "one\n"
    assert read_outcome(result.read_text()) == (1, "out\nno such disk")
    assert not script.exists()
    assert not result.with_suffix(".new").exists()


def test_commands_that_all_succeed(tmp_path: Path) -> None:
    script, result = tmp_path / "script", tmp_path / "result"
    words = "printf %s 'it'\\''s $HOME'"
    script.write_text(carry_out([words, "true && cd /"]).replace("/run/diskwright.lock", str(tmp_path / "lock")))
    subprocess.run(["sh", str(script), str(result)], check=True)
    assert read_outcome(result.read_text()) == (2, "")


def test_the_scripts_are_shell() -> None:
    for text in (look(), carry_out(["true"])):
        assert text.startswith("# diskwright: ")
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_a_guest_whose_tools_are_too_old() -> None:
    with pytest.raises(ParseError, match=r"lsblk gives no JSON in this guest; it takes util-linux 2.27 or newer"):
        read_system("\n== tools\nsfdisk\n\n== lsblk\n\n== findmnt\n\n")
