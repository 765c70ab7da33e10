# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real guest for slow tests: Debian's kernel and tools in an initramfs, run by QEMU, with the real qemu-ga.

Nothing is installed: Debian's packages are downloaded with apt-get and unpacked into .cache/miniguest. QEMU itself must
be there (`apt-get install --no-install-recommends qemu-system-x86`, never on a Proxmox VE node).
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.checkout import TOP

CACHE = TOP / ".cache" / "miniguest"
# What the guest has, and the libraries of that.
PACKAGES = """busybox-static linux-image-cloud-amd64 qemu-guest-agent util-linux util-linux-extra mount fdisk e2fsprogs
xfsprogs btrfs-progs lvm2 dmsetup""".split()
# Dependencies that the programs below do not need.
LEFT_OUT = """adduser apparmor debconf dpkg dpkg-dev initramfs-tools kmod libicu72 linux-base perl perl-base
python3 systemd udev init-system-helpers libpam0g libpam-modules login lsb-base tar gcc-12-base""".split()
PROGRAMS = """busybox qemu-ga lsblk findmnt sfdisk partx flock blkid mkfs.ext4 mke2fs dumpe2fs resize2fs mkfs.xfs
xfs_growfs mkfs.btrfs btrfs lvm pvs vgs lvs pvcreate vgcreate lvcreate pvresize lvextend
vgchange dmsetup blockdev mkswap mount umount lsblk""".split()
MODULES = """virtio_pci virtio_scsi virtio_blk virtio_console sd_mod ext4 xfs btrfs dm-mod crc32c_generic
crc32c-intel""".split()
INIT = """#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
mkdir -p /run/lock /run/lvm /mnt/a /mnt/b /mnt/c /tmp
for module in MODULES; do modprobe $module 2>/dev/null; done
ln -sf /proc/mounts /etc/mtab
for try in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/vport1p1 ] || [ -e /dev/vport0p1 ] && break; sleep 0.2; done
port=$(ls /dev/vport*p1 | head -1)
echo "miniguest: agent on $port" >/dev/console
qemu-ga --method virtio-serial --path "$port" --statedir /run >/dev/console 2>&1
poweroff -f
"""
BOOT_SECONDS = 300


def missing() -> str:
    """Why there can be no such guest here, or an empty string."""
    for name in ("qemu-system-x86_64", "qemu-img", "apt-get", "dpkg", "cpio"):
        if shutil.which(name) is None:
            return f"{name} is not installed"
    return ""


# ---- its kernel and initramfs


def built() -> tuple[Path, Path]:
    """Kernel and initramfs, made once."""
    kernel, initramfs = CACHE / "vmlinuz", CACHE / "initramfs"
    if not initramfs.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            _build(Path(folder), kernel, initramfs)
    return kernel, initramfs


def _build(folder: Path, kernel: Path, initramfs: Path) -> None:
    unpacked, root = folder / "unpacked", folder / "root"
    _unpack(folder / "packages", unpacked)
    (found,) = unpacked.glob("boot/vmlinuz-*")
    shutil.copyfile(found, kernel)
    for name in "bin sbin etc/lvm proc sys dev run mnt usr/bin usr/sbin var/run lib64".split():
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        _take_program(unpacked, root, name)
    _take_libraries(unpacked, root)
    _take_modules(unpacked, root, found.name.removeprefix("vmlinuz-"))
    (root / "etc/lvm/lvm.conf").write_text("devices { use_devicesfile = 0 }\nglobal { locking_type = 1 }\n"
                                           "activation { udev_sync = 0 udev_rules = 0 verify_udev_operations = 0 }\n")
    init = root / "init"
    init.write_text(INIT.replace("MODULES", " ".join(MODULES)))
    init.chmod(0o755)
    archive = 'find . -print0 | cpio --null --quiet -o -H newc >"$1"'  # without KVM, unpacking it would take longer
    subprocess.run(["sh", "-c", archive, "archive", f"{initramfs}.new"], cwd=root, check=True)
    initramfs.with_name("initramfs.new").replace(initramfs)


def _unpack(packages: Path, unpacked: Path) -> None:
    packages.mkdir()
    command = ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
               "--no-replaces", "--no-enhances", *PACKAGES]  # fmt: skip
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line for line in listed.splitlines() if line and not line.startswith((" ", "<"))}
    wanted = sorted(name for name in names if name not in LEFT_OUT and ":" not in name)
    subprocess.run(["apt-get", "-q", "download", *wanted], cwd=packages, check=True, capture_output=True)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True)


def _take_program(unpacked: Path, root: Path, name: str) -> None:
    for place in ("bin", "sbin", "usr/bin", "usr/sbin"):
        source = unpacked / place / name
        if source.is_symlink() or source.exists():
            target = root / place / name
            if not target.exists():
                shutil.copy2(source, target, follow_symlinks=False)
            return
    raise FileNotFoundError(f"{name} is in none of the packages")


def _take_libraries(unpacked: Path, root: Path) -> None:
    """What the loader finds for the programs that were taken."""
    places = [unpacked / place / "x86_64-linux-gnu" for place in ("lib", "usr/lib")]
    loader = unpacked / "lib" / "x86_64-linux-gnu" / "ld-linux-x86-64.so.2"
    target = root / "lib" / "x86_64-linux-gnu"
    target.mkdir(parents=True, exist_ok=True)
    search = ":".join(map(str, places))
    for program in [*root.glob("*bin/*"), *root.glob("usr/*bin/*")]:
        listed = subprocess.run([str(loader), "--library-path", search, "--list", str(program)],
                                capture_output=True, text=True, check=False)  # fmt: skip
        for line in listed.stdout.splitlines():
            name, _arrow, path = line.strip().partition(" => ")
            if path and not (target / name).exists():
                shutil.copyfile(path.split(" (")[0], target / name)
                (target / name).chmod(0o755)
    shutil.copy2(loader.resolve(), target / loader.name)
    (root / "lib64" / loader.name).symlink_to(f"/lib/x86_64-linux-gnu/{loader.name}")


def _take_modules(unpacked: Path, root: Path, version: str) -> None:
    """The modules and what they depend on, in the order in which they are loaded."""
    tree = unpacked / "lib" / "modules" / version
    subprocess.run([str(root / "bin/busybox"), "depmod", "-b", str(unpacked), version], check=True)
    needs = dict(line.split(":", 1) for line in (tree / "modules.dep").read_text().splitlines())
    paths = {Path(path).stem.replace("_", "-"): path for path in needs}
    for module in MODULES:
        path = paths.get(module.replace("_", "-"))
        for one in [path, *needs[path].split()] if path else []:
            target = root / "lib" / "modules" / version / one
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / one, target)
    subprocess.run([str(root / "bin/busybox"), "depmod", "-b", str(root), version], check=True)


# ---- running


@dataclass
class Drive:
    """A disk of the guest: its slot, and the raw image."""

    slot: str
    image: Path


class MiniGuest:
    """A running guest."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._qga = Line(folder / "qga")
        self._qmp = Line(folder / "qmp")

    @property
    def console(self) -> str:
        """What it said on its console."""
        return (self._folder / "console").read_text(errors="replace")

    def wait(self) -> None:
        """Waits until qemu-ga answers."""
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise AssertionError(f"QEMU has ended: {self.console}")
            try:
                self._qga.ask("guest-sync", {"id": 4711})
                break
            except OSError:
                self._qga.close()
                time.sleep(0.2)
        else:
            raise AssertionError(f"qemu-ga does not answer: {self.console}")
        self._qmp.greeting()

    def agent(self, command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks qemu-ga: `return`, or `error`."""
        return self._qga.ask(command, arguments)

    def resize(self, slot: str, size: int) -> None:
        """Tells the guest that a disk has grown, as PVE does."""
        answer = self._qmp.ask("block_resize", {"device": f"drive-{slot}", "size": size})
        assert "return" in answer, answer

    def sh(self, script: str) -> str:
        """Runs a shell script in it, which must succeed."""
        arguments = {"path": "/bin/sh", "arg": ["-ec", script], "capture-output": True}
        pid = self.agent("guest-exec", arguments)["return"]["pid"]
        while not (status := self.agent("guest-exec-status", {"pid": pid})["return"])["exited"]:
            time.sleep(0.05)
        out, err = (base64.b64decode(status.get(name, "")).decode() for name in ("out-data", "err-data"))
        assert status.get("exitcode") == 0, f"{script}\n{out}{err}"
        return out

    def close(self) -> None:
        """Pulls the plug."""
        self._qga.close()
        self._qmp.close()
        self._process.kill()
        self._process.wait()


class Line:
    """JSON lines on a socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends a command; its answer, without events in between."""
        text = json.dumps({"execute": command, **({"arguments": dict(arguments)} if arguments else {})})
        self._connected().sendall(text.encode() + b"\n")
        while True:
            answer = self._next()
            if "return" in answer or "error" in answer:
                return answer

    def greeting(self) -> None:
        """QMP's way to begin."""
        self._connected()
        self._next()
        self.ask("qmp_capabilities")

    def close(self) -> None:
        """The next one begins anew."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(120)
            self._socket.connect(str(self._path))
        return self._socket

    def _next(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            data = self._connected().recv(1 << 20)
            if not data:
                raise ConnectionError("the other side has hung up")
            self._buffer += data
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def running(folder: Path, drives: Sequence[Drive]) -> Iterator[MiniGuest]:
    """A guest with these disks, whose agent answers."""
    kernel, initramfs = built()
    command = ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "512", "-nodefaults", "-display", "none",
               "-no-reboot", "-kernel", str(kernel), "-initrd", str(initramfs),
               "-append", "console=ttyS0 quiet panic=-1",
               "-serial", f"file:{folder}/console", "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
               "-chardev", f"socket,id=qga0,path={folder}/qga,server=on,wait=off",
               "-device", "virtio-serial", "-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0",
               ]  # fmt: skip
    for drive in drives:
        command += _device(drive)
    with open(folder / "qemu.log", "wb") as log:
        guest = MiniGuest(subprocess.Popen(command, stdout=log, stderr=log), folder)
    try:
        guest.wait()
        yield guest
    finally:
        guest.close()


def _device(drive: Drive) -> list[str]:
    """A drive as qemu-server 9.2.6 gives it to QEMU (QemuServer/DriveDevice.pm, PCI.pm)."""
    slot, number = drive.slot, int("".join(filter(str.isdigit, drive.slot)))
    name = f"drive-{slot}"
    given = ["-drive", f"if=none,id={name},format=raw,file={drive.image}"]
    if slot.startswith("scsi"):
        controller = f"virtioscsi{number}"
        return [*given, "-device", f"virtio-scsi-pci,id={controller}", "-device",
                f"scsi-hd,bus={controller}.0,channel=0,scsi-id=0,lun={number},drive={name},id={slot},device_id={name}"]
    return [*given, "-device", f"virtio-blk-pci,drive={name},id={slot},addr=0x{10 + number:x}"]
