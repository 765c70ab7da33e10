# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The tiny Linux that measures: a kernel, and an initramfs of this machine's own programs, libraries and modules.

Nothing is installed and nothing is fetched. The programs are those that every Debian has, and fio. The guest's init
sends frames over its second serial port (``frames``), does the job that the second archive of the initramfs holds
(``job``), and switches off.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import struct
import subprocess
import typing as t
from dataclasses import dataclass

from .archive import Archive
from .errors import BenchError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: What init and the jobs call.
PROGRAMS: t.Final = (
    "sh",
    "mount",
    "insmod",
    "base64",
    "gzip",
    "sha256sum",
    "cat",
    "stty",
    "sleep",
    "uname",
    "dd",
    "mkdir",
)
#: The modules that a disk of each bus needs.
BUS_MODULES: t.Final[Mapping[str, tuple[str, ...]]] = {
    "scsi": ("virtio_pci", "virtio_scsi", "sd_mod"),
    "virtio": ("virtio_pci", "virtio_blk"),
    "sata": ("ahci", "sd_mod"),
    "ide": ("ata_piix", "sd_mod"),
}
_SEARCH: t.Final = "/usr/local/sbin:/usr/sbin:/sbin"  # root's, which a task may lack
_VERSION_POINTER: t.Final = 0x20E  # Documentation/arch/x86/boot.rst, kernel_version
_HEADER: t.Final = 0x200
_MAGIC: t.Final = (0x202, b"HdrS")

INIT: t.Final = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
stty -F /dev/ttyS1 raw -echo
while read module; do insmod "/modules/$module" || echo "no $module"; done < /modules/order
send() { # kind, file: twice, so that one may be damaged on the way
    frame="@diskwright $1 $(sha256sum < "$2") $(gzip -c "$2" | base64 -w 0) @"
    printf '%s\\n%s\\n' "$frame" "$frame" > /dev/ttyS1
}
. /job/run
echo o > /proc/sysrq-trigger
sleep 60
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its modules.

    :param image: path of the bzImage.
    :param modules: folder that has its ``modules.dep``.
    """

    image: str
    modules: str
    version: str


def own_kernel() -> str:
    """Where Debian and PVE have the kernel that runs here."""
    return f"/boot/vmlinuz-{os.uname().release}"


def find_kernel(image: str = "", modules: str = "") -> Kernel:
    """The kernel for the guest: a given one, or the one that runs here.

    :raises BenchError: if there is none, or no folder of its modules.
    """
    image = image or own_kernel()
    version = kernel_version(image)
    folder = modules or f"/lib/modules/{version}"
    if not os.path.isfile(os.path.join(folder, "modules.dep")):
        raise BenchError(
            f"kernel {image}: {folder} has no modules.dep, so it is no folder of its modules; "
            "name the folder with kernel_modules"
        )
    return Kernel(image, folder, version)


def kernel_version(image: str) -> str:
    """What a bzImage says in its header that it is: ``6.14.11-4-pve``.

    :raises BenchError: if it is none.
    """
    try:
        with open(image, "rb") as file:
            head = file.read(0x8000)
    except OSError as error:
        raise BenchError(
            f"kernel {image}: {error.strerror}; name a kernel with kernel, and its modules with kernel_modules"
        ) from error
    place, magic = _MAGIC
    if head[place : place + len(magic)] != magic:
        raise BenchError(f"kernel {image}: it is no bzImage; allowed is a Linux kernel for x86, as in /boot")
    start = struct.unpack_from("<H", head, _VERSION_POINTER)[0] + _HEADER
    return head[start : head.index(b"\0", start)].decode("ascii", "replace").split()[0]


def find_program(name: str) -> str:
    """The path of a program.

    :raises BenchError: if this machine has none of that name.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SEARCH}")
    if found is None:
        raise BenchError(f"{name}: there is no such program here; {_remedy(name)}")
    return found


def _remedy(name: str) -> str:
    base = os.path.basename(name)
    if base == "fio":
        return "install Debian's package fio (it needs none of Proxmox VE's), or name the program with fio"
    if base.startswith("qemu-system"):
        return "run this on a PVE node, which has it; elsewhere install Debian's package qemu-system-x86"
    return "every Debian has it; see which package was removed"


def module_files(kernel: Kernel, names: Iterable[str]) -> list[str]:
    """The files of modules and of all that they need, relative to the kernel's folder, in the order of loading.

    :raises BenchError: naming those that the kernel neither has as files nor built in.
    """
    needs = dict(_lines(kernel, "modules.dep"))
    files = {_module_name(path): path for path in needs}
    built_in = {_module_name(path) for path, _rest in _lines(kernel, "modules.builtin")}
    order: list[str] = []
    missing = []
    for name in names:
        wanted = name.replace("-", "_")
        if wanted in files:
            path = files[wanted]
            order += [one for one in (*reversed(needs[path].split()), path) if one not in order]
        elif wanted not in built_in:
            missing.append(name)
    if missing:
        raise BenchError(
            f"kernel {kernel.version} has no module {', '.join(dict.fromkeys(missing))}; "
            "name another kernel with kernel, or leave out the buses that need it"
        )
    return order


def _lines(kernel: Kernel, name: str) -> list[tuple[str, str]]:
    try:
        with open(os.path.join(kernel.modules, name), encoding="utf-8") as file:
            pairs = [line.rstrip("\n").partition(":") for line in file]
    except FileNotFoundError:
        return []
    return [(path, rest) for path, _colon, rest in pairs]


def _module_name(path: str) -> str:
    return os.path.basename(path).split(".ko", 1)[0].replace("-", "_")


def libraries(program: str) -> list[str]:
    """The loader and the libraries that a program is started with, by ``ldd``; none for a static one."""
    done = subprocess.run(["ldd", program], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    words = [line.replace("=>", " ").split(" (")[0].split() for line in done.stdout.splitlines()]
    lost = [line.strip() for line in done.stdout.splitlines() if "not found" in line]
    if lost:
        raise BenchError(f"{program}: it can't be started here: {'; '.join(lost)}; install the libraries")
    return [row[-1] for row in words if row and row[-1].startswith("/")]


def unpacked(path: str) -> tuple[str, bytes]:
    """A module's file name and content, unpacked if it can be: what unpacks it may be no library of ``insmod``."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    with open(path, "rb") as file:
        content = file.read()
    if suffix == ".xz":
        return stem, lzma.decompress(content)
    if suffix == ".gz":
        return stem, gzip.decompress(content)
    if suffix == ".zst" and shutil.which("zstd"):
        command = ["zstd", "-dc", path]
        return stem, subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    return os.path.basename(path), content


def build(file: t.BinaryIO, kernel: Kernel, modules: Sequence[str], programs: Sequence[str]) -> None:
    """Write the first archive of the initramfs: all that does not change from job to job.

    :param modules: names, see ``BUS_MODULES``.
    :param programs: paths or names beside ``PROGRAMS``.
    """
    archive = Archive(file)
    archive.console()
    for folder in ("proc", "sys", "tmp", "job", "bin"):
        archive.folder(folder)
    for name in (*PROGRAMS, *programs):
        _add_program(archive, find_program(name))
    names = []
    for path in module_files(kernel, modules):
        name, content = unpacked(os.path.join(kernel.modules, path))
        archive.data(f"modules/{name}", content)
        names.append(name)
    archive.text("modules/order", "".join(f"{name}\n" for name in names))
    archive.text("init", INIT, 0o755)
    archive.close()


def _add_program(archive: Archive, path: str) -> None:
    """Under its own name, which is what a program such as kmod goes by."""
    archive.copy(f"bin/{os.path.basename(path)}", path)
    for library in libraries(path):
        archive.copy(library, library)


def write_job(file: t.BinaryIO, script: str, files: Mapping[str, str]) -> None:
    """Write the second archive: what the guest does this time.

    :param script: for ``sh``; ``send KIND FILE`` sends a frame.
    :param files: texts in ``/job``, by name.
    """
    archive = Archive(file)
    archive.text("job/run", script)
    for name, text in files.items():
        archive.text(f"job/{name}", text)
    archive.close()
