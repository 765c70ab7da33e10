# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real qemu-ga, reached through the lab: commands, files, and guest_grow on real partitions and file systems.

Slow: `./dev test -m slow tests/e2e/test_real_agent.py`.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_grow import GuestGrow
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.agent import POSIX, Agent
from e2e.kit import client
from lab import Lab
from lab.agent import agent_of
from miniguest import Drive, MiniGuest, missing, running

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
MIB = 1 << 20
OPTIONS = {"vmid": 100, "name": None, "node": None, "slot": None, "logical_volume": None, "task_timeout": 900}
SMALL, LARGE = 400 * MIB, 600 * MIB
SLOTS = ("scsi0", "scsi1", "virtio1", "virtio2")
VOLUMES = {slot: f"local-lvm:vm-100-disk-{number}" for number, slot in enumerate(SLOTS)}


TIDY = """
for place in /mnt/a /mnt/b; do umount $place 2>/dev/null || true; done
vgchange -an >/dev/null
for disk in sda sdb vda vdb; do
    for node in /dev/$disk[0-9] /dev/$disk; do
        [ ! -b $node ] || dd if=/dev/zero of=$node bs=1M count=1 2>/dev/null || true  # an extended one is smaller
    done
    blockdev --rereadpt /dev/$disk
done
"""


class World:
    """A lab with one guest, and the real guest behind its agent."""

    def __init__(self, lab: Lab, guest: MiniGuest, images: dict[str, Path]) -> None:
        self.lab, self.guest, self.images = lab, guest, images

    def grow_disk(self, slot: str, size: int = LARGE) -> None:
        """What PVE's resize does: image, configuration, and a word to the guest."""
        self.guest.resize(slot, size)
        self.lab.change(100, **{slot: f"{VOLUMES[slot]},size={size >> 20}M"})

    def grow(self, *, check: bool = False, **options: Any) -> Result:
        """A run of guest_grow."""
        with client(self.lab) as connection:
            work = GuestGrow(connection, {**OPTIONS, **options})
            work.prepare()
            if not check:
                work.execute()
            return work.result(executed=not check)

    def thrice(self, **options: Any) -> Result:
        """Check mode changes nothing and says what the real run does; a second run has nothing to do."""
        before = self.state()
        check = self.grow(check=True, **options)
        assert self.state() == before
        real = self.grow(**options)
        assert (check.diff, check.changed) == (real.diff, real.changed)
        again = self.grow(**options)
        assert not again.changed, again.diff
        return real

    def state(self) -> str:
        """All partitions and volumes with their sizes, and where they are mounted."""
        return self.guest.sh(
            "lsblk -b -o NAME,SIZE,MOUNTPOINT; df -P -k | awk '{ print $1, $2, $6 }'\n"
            "for disk in /dev/sd[a-z] /dev/vd[a-z]; do sfdisk -d $disk 2>/dev/null || true; done"
        )


@contextmanager
def world(folder: Path) -> Iterator[World]:
    images = {slot: folder / f"{slot}.raw" for slot in SLOTS}
    for image in images.values():
        image.touch()
        with image.open("r+b") as file:
            file.truncate(SMALL)
    drives = {slot: f"{volume},size={SMALL >> 20}M" for slot, volume in VOLUMES.items()}
    seed = {"guests": [{"vmid": 100, "name": "mini", "running": True, "agent": {},
                        "config": {"agent": 1, "scsihw": "virtio-scsi-single", **drives}}]}  # fmt: skip
    with running(folder, [Drive(slot, image) for slot, image in images.items()]) as guest, Lab(
        folder / "lab", seed, time_scale=0.01
    ) as lab:
        agent_of(lab.guest(100)).bridge = guest.agent
        yield World(lab, guest, images)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("mini")) as found:
        yield found


@pytest.fixture
def clean(real: World) -> Iterator[World]:
    """Disks as new and small, for the next test."""
    yield real
    real.guest.sh(TIDY)
    for slot in SLOTS:
        real.grow_disk(slot, SMALL)


# ---- the agent itself


def test_commands_and_files(real: World) -> None:
    with client(real.lab) as connection:
        agent = Agent(connection, "pve1", 100, "mini", 60)
        done = agent.run(["sh", "-c", "cat; echo größer >&2; exit 3"], "süß\n".encode())
        assert (done.exit, done.out, done.err) == (3, "süß\n".encode(), "größer\n".encode())
        data = random.Random(5).randbytes(150_000)
        agent.write("/run/large", data)
        assert agent.read("/run/large") == data
        assert hashlib.md5(data).hexdigest() in real.guest.sh("md5sum /run/large")
        assert agent.read("/run/nosuch") is None
        assert not agent.is_windows()
        assert not agent.disabled() & {"exec", "exec-status", "file-open", "file-read", "file-write"}
        assert agent.script('rm -f "$0"; echo hello >"$1.new"; mv "$1.new" "$1"', POSIX) == b"hello\n"
        assert real.guest.sh("ls /run | grep -c diskwright- || true").strip() == "0"


def test_commands_that_are_not_there(real: World) -> None:
    with client(real.lab) as connection, pytest.raises(DiskwrightError, match="mini: /nosuch: "):
        Agent(connection, "pve1", 100, "mini", 60).run(["/nosuch"])


# ---- growing


MAKE = {"ext4": "mkfs.ext4 -q -F", "xfs": "mkfs.xfs -q -f", "btrfs": "mkfs.btrfs -q -f"}


@pytest.mark.parametrize("fstype", MAKE)
@pytest.mark.parametrize(("slot", "node"), [("scsi0", "sda"), ("virtio1", "vda")])
def test_gpt(clean: World, fstype: str, slot: str, node: str) -> None:
    """A table of two partitions; the data are the same afterwards, identifiers too, and sfdisk finds nothing wrong."""
    part = f"/dev/{node}2"
    clean.guest.sh(
        f"printf 'label: gpt\\nsize=8M,name=first\\ntype=L,name=root,attrs=GUID:59\\n' | sfdisk -q /dev/{node}\n"
        f"{MAKE[fstype]} {part}; mount -t {fstype} {part} /mnt/a; head -c 1000000 /dev/urandom >/mnt/a/data; sync"
    )
    digest = clean.guest.sh("md5sum </mnt/a/data")
    uuids = clean.guest.sh(f"sfdisk -d /dev/{node} | grep -o 'uuid=.*'; sfdisk -d /dev/{node} | grep label-id")
    clean.grow_disk(slot)
    result = clean.thrice(slot=[slot])
    (disk,) = result.data["disks"]
    assert (disk["device"], disk["todo"]) == (node, None)
    assert [action["what"] for action in disk["actions"]] == [f"{node}2", "/mnt/a"]
    assert "label: gpt" in disk["table"]
    assert clean.guest.sh("md5sum </mnt/a/data") == digest
    assert clean.guest.sh(f"sfdisk -d /dev/{node} | grep -o 'uuid=.*'; sfdisk -d /dev/{node} | grep label-id") == uuids
    assert "No errors detected" in clean.guest.sh(f"sfdisk --verify /dev/{node}")
    kibibytes = int(clean.guest.sh("df -P -k /mnt/a | tail -1").split()[1])
    assert kibibytes * 1024 > 0.8 * LARGE


def test_mbr_with_a_logical_partition_in_lvm(clean: World) -> None:
    """Debian's guided LVM of old: /boot, and an extended partition around the physical volume."""
    clean.guest.sh(
        "printf '%s\\n' 'label: dos' start=2048,size=16384 start=20480,type=5 start=22528,type=8e"
        " | sfdisk -q /dev/sda\n"
        "pvcreate -q -y /dev/sda5; vgcreate -q vg0 /dev/sda5; lvcreate -q -y -L 64M -n swap vg0;"
        "lvcreate -q -y -l 70%FREE -n root vg0; mkswap -q /dev/vg0/swap || mkswap /dev/vg0/swap;"
        "mkfs.ext4 -q /dev/vg0/root; mount /dev/vg0/root /mnt/a; echo data >/mnt/a/file"
    )
    free = clean.guest.sh("vgs --noheadings -o vg_free_count vg0").strip()
    assert free != "0"
    clean.grow_disk("scsi0")
    result = clean.thrice()
    names = [action["what"] for disk in result.data["disks"] for action in disk["actions"]]
    assert names == ["sda5", "sda5", "vg0/root", "/mnt/a"]
    assert clean.guest.sh("vgs --noheadings -o vg_free_count,vg_tags vg0").split() == [free]
    assert clean.guest.sh("cat /mnt/a/file") == "data\n"


def test_a_physical_volume_on_the_whole_disk(clean: World) -> None:
    clean.guest.sh(
        "pvcreate -q -y /dev/vdb; vgcreate -q vg1 /dev/vdb; lvcreate -q -y -l 50%FREE -n one vg1;"
        "lvcreate -q -y -l 100%FREE -n two vg1; mkfs.xfs -q -f /dev/vg1/one; mkfs.ext4 -q /dev/vg1/two;"
        "mount /dev/vg1/one /mnt/a; mount /dev/vg1/two /mnt/b"
    )
    clean.grow_disk("virtio2")
    with pytest.raises(DiskwrightError, match="several logical volumes could take the space: vg1/one, vg1/two; name"):
        clean.grow(slot=["virtio2"])
    before = clean.state()
    assert [text for text in clean.grow().warnings if "several logical volumes" in text]
    assert clean.state() == before
    result = clean.thrice(logical_volume="vg1/one")
    assert [action["what"] for action in result.data["disks"][-1]["actions"]] == ["vdb", "vg1/one", "/mnt/a"]


@pytest.mark.parametrize("commands", [1, 2, 3, 4])
def test_a_run_that_is_cut_short_is_finished_by_the_next(clean: World, commands: int) -> None:
    """The guest is left after each step, as if it had been switched off there."""
    clean.guest.sh(
        "echo 'label: gpt\n,,L' | sfdisk -q /dev/sdb; pvcreate -q -y /dev/sdb1; vgcreate -q vg2 /dev/sdb1;"
        "lvcreate -q -y -l 80%FREE -n root vg2; mkfs.ext4 -q /dev/vg2/root; mount /dev/vg2/root /mnt/a"
    )
    free = clean.guest.sh("vgs --noheadings -o vg_free_count vg2").strip()
    clean.grow_disk("scsi1")
    with client(clean.lab) as connection:
        work = GuestGrow(connection, {**OPTIONS, "slot": ["scsi1"]})
        work.prepare()
        steps = work._steps()
        assert len(steps) == 4
        assert work._inside.carry_out(steps[:commands]) == (commands, "")
    clean.grow(slot=["scsi1"])
    assert not clean.grow(slot=["scsi1"]).changed
    assert clean.guest.sh("vgs --noheadings -o vg_free_count,vg_tags vg2").split() == [free]
    assert int(clean.guest.sh("lvs --noheadings --units b --nosuffix -o lv_size vg2/root")) > SMALL


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("mkswap /dev/sda1", "sda1: it is the last on the disk, and is swap"),
        ("mkfs.ext4 -q /dev/sda1", "sda1: its ext4 is not mounted"),
        ("true", "sda1: it is the last on the disk, and has unknown content"),
        ("mkfs.ext4 -q /dev/sda1; mount -o ro /dev/sda1 /mnt/a", "sda1: its ext4 is mounted read-only"),
    ],
    ids=["swap", "unmounted", "unknown", "read-only"],
)
def test_where_it_would_not_be_safe_nothing_happens(clean: World, script: str, message: str) -> None:
    clean.guest.sh(f"echo 'label: gpt\n,,L' | sfdisk -q /dev/sda; {script}")
    clean.grow_disk("scsi0")
    before = clean.state()
    with pytest.raises(DiskwrightError, match=re.escape(message)):
        clean.grow(slot=["scsi0"])
    result = clean.grow()
    assert not result.changed
    assert [text for text in result.warnings if message in text]
    assert clean.state() == before


def test_what_the_guest_says_is_kept_for_the_fast_tests(real: World) -> None:
    """The recorded answer in tests/unit/_core/growth was made so; this shows that it still looks like that."""
    from ansible_collections.diskwright.proxmox.plugins.module_utils._core.growth_linux import look, read_system

    with client(real.lab) as connection:
        answer = Agent(connection, "pve1", 100, "mini", 60).script(look(), POSIX).decode()
    system, seen = read_system(answer)
    assert set(system.disks) == {"sda", "sdb", "vda", "vdb"}
    assert system.tools == {"sfdisk", "partx", "resize2fs", "xfs_growfs", "btrfs", "pvresize", "lvextend"}
    assert [disk.size for disk in seen] == [json.loads(json.dumps(SMALL))] * 4
