# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Linux guest, made here: a raw disk that boots, says on its serial console what its disks hold, and ends.

Kernel and modules are Debian's cloud kernel, unpacked and not installed; the rest is busybox. The boot disk has two
partitions: FAT with SYSLINUX, and one without a file system that is full of the payload.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tools import checkout

MIB = 1024**2
SECTOR = 512
SIZE = 96 * MIB
_FAT, _PAYLOAD = (1 * MIB, 47 * MIB), (48 * MIB, 8 * MIB)
# What the disks of a guest on PVE hang on. The cloud kernel has no AHCI.
_MODULES = ("virtio_pci", "virtio_scsi", "virtio_blk", "sd_mod", "ata_piix")
_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "syslinux": "syslinux",
    "mformat": "mtools",
    "busybox": "busybox-static",
}
_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")  # syslinux-common
_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module; done
for second in 1 2 3 4 5 6 7 8 9 10; do
    count=$(/bin/busybox ls /sys/block | /bin/busybox grep -c '^[sv]d')
    [ "$count" -ge {disks} ] && break
    /bin/busybox sleep 1
done
for disk in $(/bin/busybox ls /sys/block | /bin/busybox grep '^[sv]d'); do
    part=/dev/$disk
    [ -e "${{part}}2" ] && part=${{part}}2
    sum=$(/bin/busybox sha256sum < "$part")
    echo "PAYLOAD $disk ${{sum%% *}}" > /dev/console
done
echo BOOT-OK > /dev/console
/bin/busybox poweroff -f
"""


@dataclass(frozen=True)
class Drive:
    """A disk of a guest as QEMU is to see it: PVE's slot, and the file."""

    slot: str
    file: Path
    format: str


def missing() -> str:
    """Why the guest can't be made or started here; an empty text if it can."""
    lacking = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    lacking += [] if _MBR.exists() else ["syslinux-common"]
    if lacking:
        return f"booting needs Debian's {' '.join(lacking)}; as root: apt-get install {' '.join(lacking)}"
    return "" if _kernel() else "booting needs Debian's linux-image-cloud-amd64, and apt-get download does not give it"


def require() -> None:
    """Skips the test where there is nothing to boot with, and says what is lacking."""
    if reason := missing():
        pytest.skip(reason)


@functools.cache
def _kernel() -> Path | None:
    """The folder of an unpacked kernel package, kept below .cache."""
    top = checkout.TOP / ".cache" / "kernel"
    with checkout.alone("kernel"):
        if not (top / "boot").is_dir():
            _unpack(top)
    return top if (top / "boot").is_dir() else None


def _unpack(top: Path) -> None:
    ask = ["apt-cache", "depends", "linux-image-cloud-amd64"]
    shown = subprocess.run(ask, capture_output=True, text=True, check=False)
    name = re.search(r"Depends: (linux-image-\S+)", shown.stdout)
    if name is None:
        return
    with tempfile.TemporaryDirectory(dir=top.parent) as folder:
        loaded = subprocess.run(["apt-get", "-q", "download", name[1]], cwd=folder, capture_output=True, check=False)
        for package in Path(folder).glob("*.deb"):
            fresh = Path(folder, "fresh")
            if loaded.returncode == 0:
                subprocess.run(["dpkg-deb", "-x", str(package), str(fresh)], check=True)
                fresh.rename(top)
                return


def payload(seed: int, size: int = _PAYLOAD[1]) -> bytes:
    """Bytes that no other seed gives, half of them zeros."""
    return b"".join(random.Random(seed).randbytes(MIB) if number % 2 else bytes(MIB) for number in range(size // MIB))


def data_disk(file: Path, seed: int, size: int = 16 * MIB) -> str:
    """Writes a disk without partitions; returns the sum that the guest will say."""
    content = payload(seed, size)
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def boot_disk(file: Path, seed: int, disks: int = 1) -> str:
    """Writes a raw disk that boots and waits for so many disks; returns the sum of the payload that it will say."""
    content = payload(seed)
    with file.open("wb") as disk:
        disk.truncate(SIZE)
        disk.write(_table())
        disk.seek(_PAYLOAD[0])
        disk.write(content)
    with tempfile.TemporaryDirectory() as folder:
        kernel, initrd, config = Path(folder, "linux"), Path(folder, "initrd"), Path(folder, "syslinux.cfg")
        shutil.copy(_boot_file("vmlinuz-*"), kernel)
        initrd.write_bytes(_initrd(disks))
        config.write_text("DEFAULT linux\nLABEL linux\n KERNEL linux\n APPEND initrd=initrd console=ttyS0 quiet\n")
        place = f"{file}@@{_FAT[0]}"
        _run("mformat", "-i", place, "-T", str(_FAT[1] // SECTOR), "-h", "16", "-s", "63", "::")
        _run("syslinux", "--install", "--offset", str(_FAT[0]), str(file))
        _run("mcopy", "-i", place, str(kernel), str(initrd), str(config), "::")
    return hashlib.sha256(content).hexdigest()


def _run(*command: str) -> None:
    # MTOOLS_SKIP_CHECK: mtools distrusts a file system that does not begin with its file
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})


def _table() -> bytes:
    """A master boot record with SYSLINUX's code and two partitions."""
    entries = b"".join(
        struct.pack("<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // SECTOR, size // SECTOR)
        for flag, kind, (start, size) in ((0x80, 0x0E, _FAT), (0, 0x83, _PAYLOAD))
    )
    return _MBR.read_bytes().ljust(446, b"\0") + entries.ljust(64, b"\0") + b"\x55\xaa"


def _boot_file(pattern: str) -> Path:
    (found,) = (_kernel() or Path()).joinpath("boot").glob(pattern)
    return found


def _initrd(disks: int) -> bytes:
    """busybox, the modules in the order in which they need each other, and a script."""
    modules = list(_with_dependencies(_MODULES))
    busybox = shutil.which("busybox") or ""
    files = {"bin/busybox": Path(busybox).read_bytes()}
    files |= {f"modules/{file.name}": file.read_bytes() for file in modules}
    files["init"] = _INIT.format(modules=" ".join(file.name for file in modules), disks=disks).encode()
    return gzip.compress(_archive(files), 1)


def _with_dependencies(names: Sequence[str]) -> Iterator[Path]:
    top = _kernel() or Path()
    files = {file.name.partition(".")[0].replace("-", "_"): file for file in top.rglob("*.ko")}
    done: set[str] = set()

    def need(name: str) -> Iterator[Path]:
        if name in done or name not in files:  # some are built into the kernel
            return
        done.add(name)
        depends = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for other in depends[1].decode().split(",") if depends else ():
            yield from need(other.replace("-", "_"))
        yield files[name]

    for name in names:
        yield from need(name)


def _archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive in the form that the kernel reads."""
    folders = dict.fromkeys(str(parent) for name in files for parent in Path(name).parents if str(parent) != ".")
    entries = [(name, 0o040755, b"") for name in folders]
    entries += [(name, 0o100755, content) for name, content in files.items()]
    packed = b""
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        head = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        packed += _padded(b"070701" + b"".join(b"%08X" % value for value in head) + name.encode() + b"\0")
        packed += _padded(content)
    return packed


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def boot(drives: Sequence[Drive], seconds: float = 300) -> str:
    """Starts a guest with PVE's kind of controllers, without acceleration; returns what its serial console said.

    The first drive is started from. What the guest writes is thrown away.
    """
    command = ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "256", "-display", "none", "-no-reboot"]
    command += ["-nodefaults", "-serial", "stdio", "-net", "none"]
    for number, drive in enumerate(drives):
        command += ["-drive", f"if=none,id=d{number},format={drive.format},snapshot=on,file={drive.file}"]
        command += _device(number, drive.slot)
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, **quiet, timeout=seconds, check=False)
    return done.stdout + done.stderr


def _device(number: int, slot: str) -> list[str]:
    bus = slot.rstrip("0123456789")
    if bus == "scsi":  # virtio-scsi-single: a controller for each disk
        device = f"scsi-hd,bus=c{number}.0"
        controller = ["-device", f"virtio-scsi-pci,id=c{number}"]
    else:
        device, controller = {"virtio": "virtio-blk-pci", "ide": "ide-hd"}[bus], []
    return [*controller, "-device", f"{device},drive=d{number},bootindex={number + 1}"]
