# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a crash costs: something is written, flushed, and said to be; then something is killed, and it is looked for.

There are two crashes. When QEMU is killed, what it had given to the node's kernel is still there. The host is played by
a guest, in which QEMU's block layer (``qemu-storage-daemon``) has the drive on a disk of that guest, with the very
nodes that PVE gives a drive; when the guest is killed, all that the playing host had in memory is gone, as it is when a
node loses its power. A second guest in the first one would need minutes to start without KVM, and would flush by the
same calls. What a disk's own cache would lose is not tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import tempfile
import time
import typing as t
from dataclasses import dataclass, replace

from .._image import qemu
from .combination import Combination
from .drive_options import blockdev, drive_options, guest_device
from .errors import BenchError, GuestError
from .guest import BOOT_SECONDS, started
from .guest_image import BUS_MODULES, build, find_kernel, find_program, module_files
from .job import WAIT, expected_write_cache
from .results import Durability

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .guest import Guest
    from .guest_image import Kernel
    from .prepare import Prepared
    from .scratch import Scratch

_MIB: t.Final = 1024**2
#: Bytes of the disk that is written to, and of the device below it when it is an image in one.
SIZE: t.Final = 64 * _MIB
_DEVICE_SIZE: t.Final = 96 * _MIB
_BLOCK: t.Final = 4096
#: Blocks from one write to the next: more than a cluster, so that a qcow2 image has to take a new one for each.
_STRIDE: t.Final = 17
_MOST_WRITES: t.Final = SIZE // _BLOCK // _STRIDE - 1
#: After so many flushed writes something is killed.
ENOUGH: t.Final = {"qemu": 200, "host": 40}
#: Seconds until then, at most, beside those until guests have started.
_WRITE_SECONDS: t.Final = 300.0
_DAEMON: t.Final = "qemu-storage-daemon"
_OUTER_MEMORY: t.Final = 768

_WRITER: t.Final = """number=0
while [ $number -lt MOST ]; do
    number=$((number + 1))
    printf '%-BLOCKs\\n' "diskwright write $number" > /tmp/block
    dd if=/tmp/block of=TARGET bs=4096 count=1 seek=$((number * STRIDE)) FLAGS conv=notrunc,fdatasync \\
        2> /tmp/error || break
    echo "@diskwright written $number ." > /dev/ttyS1
done
send failed /tmp/error
"""
#: The host that is played writes nothing by itself, which Linux would do after 5 to 30 seconds.
_PLAY_HOST: t.Final = """tries=0
echo 360000 > /proc/sys/vm/dirty_expire_centisecs
echo 360000 > /proc/sys/vm/dirty_writeback_centisecs
: > /tmp/disk
DAEMON 2> /tmp/error &
while [ ! -s /tmp/disk ] && [ $tries -lt 600 ]; do sleep 0.1; tries=$((tries + 1)); done
"""
HOW: t.Final = {
    "qemu": "The guest wrote 4 KiB at a time and flushed each; QEMU was killed (SIGKILL) in the middle of that.",
    "host": (
        "A guest played the host, and QEMU's storage daemon had the drive on its disk, with the block nodes that PVE "
        "gives a drive. 4 KiB at a time were written and flushed; the playing host was killed in the middle of that, "
        "with all that it had in memory. It was kept from writing by itself, which Linux does after 5 to 30 seconds. "
        "Caches of real disks were not tried."
    ),
}


@dataclass(frozen=True, slots=True)
class Crash:
    """One crash of one combination.

    :param kind: ``qemu`` or ``host``.
    """

    combination: Combination
    kind: str

    def seconds(self, boot: float) -> float:
        """How long it takes, about.

        :param boot: seconds that a guest takes to start here.
        """
        return boot + 10

    def go(self, prepared: Prepared, volumes: Scratch) -> Durability:
        """Let it happen, and look.

        :raises GuestError: if the guest did not come to writing.
        """
        lost, written = (self._qemu if self.kind == "qemu" else self._host)(prepared, volumes)
        return Durability(self.combination.key, self.kind, written, lost, HOW[self.kind])

    def _qemu(self, prepared: Prepared, volumes: Scratch) -> tuple[int, int]:
        combination = self.combination
        volume = volumes.make(combination, prepared.place(combination).place, SIZE)
        drives = drive_options(
            combination, volume.path, volume=volume.volume, block=volume.block, qemu=prepared.software.version
        )
        with started(prepared.machine, drives, writer(combination)) as guest:
            written = _written(guest, ENOUGH["qemu"], BOOT_SECONDS[prepared.machine.accelerator] + _WRITE_SECONDS)
        return lost(volume.path, combination.format, written), written

    def _host(self, prepared: Prepared, volumes: Scratch) -> tuple[int, int]:
        combination, version = self.combination, prepared.software.version
        with (
            tempfile.TemporaryDirectory(prefix="crash-", dir=volumes.folder) as folder,
            open(os.memfd_create("host", 0), "w+b") as initramfs,
        ):
            _build_host(initramfs, prepared)
            disk = os.path.join(folder, "disk")
            _make_disk(disk, combination)
            drives = drive_options(Combination(folder, "raw", "virtio", "writeback", "threads"), disk, qemu=version)
            machine = replace(prepared.machine, initramfs=qemu.place(initramfs.fileno()), memory=_OUTER_MEMORY)
            with started(machine, drives, host_script(combination)) as guest:
                written = _written(guest, ENOUGH["host"], BOOT_SECONDS[machine.accelerator] + _WRITE_SECONDS)
            return lost(disk, combination.format, written), written


def needs(kernel: Kernel) -> list[str]:
    """What is missing for the crashes: a program, or the kernel's module."""
    found = []
    for look in (lambda: find_program(_DAEMON), lambda: module_files(kernel, (*BUS_MODULES["virtio"], "fuse"))):
        try:
            look()
        except BenchError as error:
            found.append(f"durability: {error}")
    return found


def crashes(combinations: Sequence[Combination]) -> tuple[Crash, ...]:
    """A crash of QEMU and one of the host for each format and cache mode, in the first combination that has them."""
    first = {(one.place, one.format_text, one.cache): one for one in reversed(combinations)}
    chosen = [one for one in combinations if one in first.values()]
    hosts = {(one.format, one.cache): one for one in reversed(chosen)}
    return (
        *(Crash(one, "qemu") for one in chosen),
        *(Crash(one, "host") for one in chosen if one in hosts.values() and one.format != "vmdk"),
    )


def writer(combination: Combination) -> str:
    """The job of the guest that writes to its disk, past its own cache."""
    device = guest_device(combination)
    return WAIT.replace("DEVICE", device) + _writes(f"/dev/{device}", "oflag=direct")


def host_script(combination: Combination) -> str:
    """The job of the guest that plays the host."""
    return (
        WAIT.replace("DEVICE", "vda")
        + _PLAY_HOST.replace("DAEMON", shlex.join(daemon(combination)))
        + _writes("/tmp/disk", "")
    )


def daemon(combination: Combination) -> list[str]:
    """The storage daemon with the nodes of a drive on ``/dev/vda``, shown as the file ``/tmp/disk``.

    A device that PVE gives ``write-cache=off`` flushes by itself after each write; so does an export that writes
    through.
    """
    nodes = blockdev(combination, "/dev/vda", "/dev/vda", block=True)
    through = "on" if expected_write_cache(combination) == "write through" else "off"
    export = f"type=fuse,id=disk,node-name={nodes['node-name']},mountpoint=/tmp/disk,writable=on,writethrough={through}"
    group = f"throttle-group,id={nodes['throttle-group']}"
    return [_DAEMON, "--object", group, "--blockdev", json.dumps(nodes), "--export", export]


def _writes(target: str, flags: str) -> str:
    words = {"TARGET": target, "FLAGS": flags, "MOST": _MOST_WRITES, "BLOCK": _BLOCK - 1, "STRIDE": _STRIDE}
    text = _WRITER
    for word, value in words.items():
        text = text.replace(word, str(value))
    return text


def content(number: int) -> bytes:
    """What the guest writes as its write of this number."""
    return f"diskwright write {number}".ljust(_BLOCK - 1).encode() + b"\n"


def _written(guest: Guest, enough: int, seconds: float) -> int:
    """Wait for so many writes, kill, and give the number of the last one that the guest said was flushed."""
    last, until = 0, time.monotonic() + seconds
    for frame in guest.frames(until):
        if frame.kind == "failed":
            raise GuestError(f"a write has failed: {frame.text.strip()}; {guest.said()}")
        if frame.kind == "written":
            last = int(frame.text)
            if last >= enough:
                guest.kill()  # what it had said before is still read
    if not last:
        raise GuestError(f"the guest has written nothing; {guest.said()}")
    return last


def lost(path: str, image_format: str, written: int) -> int:
    """How many of the writes are not there."""
    with _raw(path, image_format) as fd:
        return sum(
            os.pread(fd, _BLOCK, number * _STRIDE * _BLOCK) != content(number) for number in range(1, written + 1)
        )


@contextlib.contextmanager
def _raw(path: str, image_format: str) -> Iterator[int]:
    """The disk in an image, as bytes."""
    if image_format == "raw":
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    with tempfile.TemporaryFile() as file:
        arguments = ["convert", "-f", image_format, "-O", "raw", path, qemu.place(file.fileno())]
        qemu.run(arguments, [file.fileno()], "reading what is left after the crash")
        yield file.fileno()


# ---- a host that is played


def _build_host(file: t.BinaryIO, prepared: Prepared) -> None:
    program = find_program(_DAEMON)
    kernel = find_kernel(prepared.request.kernel, prepared.request.kernel_modules)
    build(file, kernel, (*BUS_MODULES["virtio"], "fuse"), [program])
    file.flush()


def _make_disk(path: str, combination: Combination) -> None:
    if combination.format != "raw":
        options = ",".join(f"{name}={value}" for name, value in combination.format_options)
        more = ["-o", options] if options else []
        qemu.run(["create", "-q", "-f", combination.format, *more, path, str(SIZE)], [], f"making {path}")
    with open(path, "ab") as file:
        file.truncate(_DEVICE_SIZE)
