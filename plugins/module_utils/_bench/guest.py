# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Runs the guest that measures: QEMU with one drive, the job as a part of the initramfs, frames back over serial."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
import typing as t
from dataclasses import dataclass

from .._image.lock import inherited
from .errors import BenchError, GuestError
from .frames import Reader
from .guest_image import write_job

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .frames import Frame

QEMU: t.Final = "qemu-system-x86_64"
KVM: t.Final = "/dev/kvm"
#: How long a guest may take until it has started its job, in seconds.
BOOT_SECONDS: t.Final[Mapping[str, float]] = {"kvm": 60.0, "tcg": 300.0}
_PROBE_SECONDS: t.Final = 20.0
_MEMORY: t.Final = 1024  # MiB
_TAIL: t.Final = 2000


@dataclass(frozen=True, slots=True)
class Machine:
    """How guests are started here.

    :param qemu: path of the program.
    :param accelerator: ``kvm``, or ``tcg`` where there is none.
    :param kernel: path of the kernel's image.
    :param initramfs: path of the archive that ``guest_image.build`` has written.
    :param memory: MiB.
    """

    qemu: str
    accelerator: str
    kernel: str
    initramfs: str
    memory: int = _MEMORY
    processors: int = 2

    def arguments(self, initramfs: str, console: str) -> list[str]:
        """The command without drives. The job's serial port is the second one, on standard output."""
        cpu = "host" if self.accelerator == "kvm" else "qemu64"
        return [self.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-machine", f"type=pc,accel={self.accelerator}", "-cpu", cpu, "-smp", str(self.processors),
                "-m", str(self.memory), "-kernel", self.kernel, "-initrd", initramfs,
                "-append", "console=ttyS0 quiet panic=-1",
                "-chardev", f"file,id=console,path={console}", "-serial", "chardev:console",
                "-chardev", "stdio,id=frames,signal=off", "-serial", "chardev:frames"]  # fmt: skip


class Guest:
    """A guest that was started. Use ``started``."""

    def __init__(self, process: subprocess.Popen[bytes], console: str, errors: t.BinaryIO) -> None:
        self._process, self._console, self._errors = process, console, errors
        self._reader = Reader()
        self._out = t.cast("t.IO[bytes]", process.stdout).fileno()

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    def frames(self, until: float) -> Iterator[Frame]:
        """What it sends, as it comes, until QEMU ends.

        :param until: a time of ``time.monotonic``.
        :raises GuestError: at that time.
        """
        while True:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise GuestError(f"the guest did not finish in time; {self.said()}")
            data = os.read(self._out, 1 << 16)
            if not data:
                return
            yield from self._reader.feed(data)

    def kill(self) -> None:
        """End QEMU as a crash would, with what it has not given to the kernel."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """The end of what QEMU and the guest's kernel said, for messages."""
        self._errors.seek(0)
        qemu = self._errors.read().decode("utf-8", "replace").strip()
        with open(self._console, encoding="utf-8", errors="replace") as file:
            kernel = file.read().strip()
        return f"QEMU said: {qemu[-_TAIL:] or 'nothing'}; its kernel: {kernel[-_TAIL:] or 'nothing'}"


@contextlib.contextmanager
def started(
    machine: Machine,
    drives: Sequence[str],
    script: str,
    files: Mapping[str, str] | None = None,
) -> Iterator[Guest]:
    """Start a guest with these drives and this job (``guest_image.write_job``); at the end it is killed if it runs.

    QEMU holds the locks of this process, and is killed by the kernel when this process dies.
    """
    with (
        tempfile.TemporaryDirectory(prefix="diskwright-bench-") as folder,
        open(os.path.join(folder, "errors"), "w+b") as errors,
        _with_job(machine.initramfs, script, files or {}) as initramfs,
    ):
        console = os.path.join(folder, "console")
        command = [*machine.arguments(f"/proc/self/fd/{initramfs}", console), *drives]
        open(console, "wb").close()
        process = _start(command, errors, (initramfs, *inherited()))
        guest = Guest(process, console, errors)
        try:
            yield guest
        finally:
            guest.kill()
            t.cast("t.IO[bytes]", process.stdout).close()


def _start(command: Sequence[str], errors: t.BinaryIO, fds: Sequence[int]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=tuple(fds),
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise BenchError("setpriv: there is no such program here; install Debian's package util-linux") from error


@contextlib.contextmanager
def _with_job(initramfs: str, script: str, files: Mapping[str, str]) -> Iterator[int]:
    """Both archives in one file, which is only in memory, so that no disk has to write it while another is measured."""
    fd = os.memfd_create("initramfs", 0)
    with open(fd, "wb") as whole:
        with open(initramfs, "rb") as first:
            while os.sendfile(fd, first.fileno(), None, 1 << 30):
                pass
        write_job(whole, script, files)
        whole.flush()
        yield fd


def accelerator(machine: Machine, kvm: str = KVM, processors: str = "/proc/cpuinfo") -> str:
    """Whether KVM works here, which is known only once a guest has started with it: ``kvm`` or ``tcg``."""
    if not os.access(kvm, os.R_OK | os.W_OK) or not _virtualizes(processors):
        return "tcg"
    try:
        with started(machine, (), "echo ready > /tmp/ready; send ready /tmp/ready") as guest:
            frames = guest.frames(time.monotonic() + _PROBE_SECONDS)
            return "kvm" if any(frame.kind == "ready" for frame in frames) else "tcg"
    except GuestError:
        return "tcg"


def _virtualizes(processors: str) -> bool:
    with open(processors, encoding="utf-8", errors="replace") as file:
        return any(line.startswith("flags") and {"vmx", "svm"} & set(line.split()) for line in file)
