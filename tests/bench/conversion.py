# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversions of images, beside what qemu-img takes for them, and beside a plain copy of the same bytes.

Every contestant is a program of its own that starts with nothing, and is done when its target is on the disk. The
sources are in the page cache for all of them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.rounds import Rounds, aim

GIB, MIB = 1 << 30, 1 << 20
#: Subformat, and the most that our time may be of PVE's call: without verification, and with.
SUBFORMATS = {
    "monolithicSparse": (0.5, 1.0),
    "streamOptimized": (0.5, 1.0),
    "twoGbMaxExtentSparse": (0.5, 1.0),
    "monolithicFlat": (1.1, 1.5),
    "twoGbMaxExtentFlat": (1.1, 1.5),
}
CONVERT = """
import sys
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.convert import Conversion, run_all
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.copy import Throttle
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.orders import Order, Verify
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.progress import Progress
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.work import Settings
state, verify, image_format, *pairs = sys.argv[1:]
work = [Conversion(Order(source, dest=dest, format=image_format, verify=Verify(verify)),
                   Settings(state, Throttle(0)), Progress(source))
        for source, dest in zip(pairs[::2], pairs[1::2])]
sys.exit("\\n".join(done.error for done in run_all(work, len(work), write=True) if done.error) or 0)
"""


def free_gib(folder: Path) -> float:
    """GiB that are free below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free / GIB


class Conversions:
    """The sources and the contestants.

    :param gib: GiB of data in each source. The disk is four times as large.
    """

    def __init__(self, folder: Path, gib: float, rounds: int) -> None:
        self.folder = folder / "conversion"
        self.size = int(4 * gib * GIB) // (64 * MIB) * 64 * MIB
        self.gib = gib
        self.rounds = rounds
        self.peak = 0.0
        self.cpu = 0.0

    def run(self) -> None:
        """Measure all."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            raw = self._content()
            print(f"\nConversion of {self.gib:g} GiB on a disk of {self.size / GIB:g} GiB, until it is all written")
            for name in SUBFORMATS:
                self._subformat(name, raw)
            print("\nfrom monolithicSparse to qcow2")
            self._compare("qcow2", self._source("monolithicSparse", raw), raw, (1.1, 1.5))
            self._two(self._source("streamOptimized", raw))
            aim("peak memory of a conversion (ru_maxrss, by wait4)", self.peak, 150, unit=" MB")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- sources

    def _content(self) -> Path:
        """A quarter of the disk is data, half of it text and half of it noise, in stretches of 2 MiB."""
        source, path = random.Random(4), self.folder / "content.raw"
        words = [source.randbytes(6).hex().encode() for _word in range(4096)]
        with path.open("wb") as file:
            file.truncate(self.size)
            for start in range(0, self.size, 16 * MIB):
                text = b" ".join(source.choices(words, k=2 * MIB // 13 + 1))[: 2 * MIB]
                file.seek(start)
                file.write(text.ljust(2 * MIB))
                file.seek(start + 6 * MIB)
                file.write(source.randbytes(2 * MIB))
        return path

    def _source(self, subformat: str, raw: Path) -> Path:
        folder = self.folder / subformat
        if not folder.exists():
            folder.mkdir()
            options = ["-O", "vmdk", "-o", f"subformat={subformat}"]
            subprocess.run(["qemu-img", "convert", "-f", "raw", *options, raw, folder / "disk.vmdk"], check=True)
        return folder / "disk.vmdk"

    # ---- contestants

    def _subformat(self, name: str, raw: Path) -> None:
        print(f"\nfrom {name} to raw")
        source = self._source(name, raw)
        self._compare("raw", source, raw, SUBFORMATS[name])
        if name not in ("monolithicSparse", "streamOptimized"):
            shutil.rmtree(source.parent)

    def _compare(self, image_format: str, source: Path, raw: Path, limits: tuple[float, float]) -> None:
        rounds, processor = Rounds(), Rounds()
        contestants: dict[str, Callable[[Path], list[list[str]]]] = {
            "ours": lambda out: [self._ours("false", image_format, (source, out))],
            "verified": lambda out: [self._ours("true", image_format, (source, out))],
            "qemu-img": lambda out: [["qemu-img", "convert", "-f", "vmdk", "-O", image_format, str(source), str(out)]],
            "pve": lambda out: self._pve(image_format, source, out),
            "copy": lambda out: [["cp", "--sparse=auto", "--reflink=never", str(raw), str(out)]],
        }
        for number in range(self.rounds):
            for name, commands in contestants.items():
                out = self.folder / "out"
                rounds.add(name, self._seconds(commands(out), out))
                processor.add(name, self.cpu)
                if not number and name in ("ours", "verified"):
                    compare = ["qemu-img", "compare", "-q", "-f", "raw", "-F", image_format, str(raw), str(out)]
                    subprocess.run(compare, check=True)
                out.unlink()
        print(rounds.line("ours", "image_convert, verify: false"))
        print(rounds.line("verified", "image_convert, verified"))
        print(rounds.line("qemu-img", "qemu-img convert, without verification"))
        print(rounds.line("pve", "the same as Proxmox VE calls it"))
        print(rounds.line("copy", "a copy of the raw file with its holes"))
        pve = rounds.median("pve")
        aim("image_convert, verify: false / Proxmox VE's call", rounds.median("ours") / pve, limits[0])
        aim("image_convert, verified / Proxmox VE's call", rounds.median("verified") / pve, limits[1])
        used = (f"{processor.median(name):.2f}" for name in ("ours", "verified", "pve"))
        print(f"  processor seconds of the same, and of Proxmox VE's call: {', '.join(used)}")

    def _ours(self, verify: str, image_format: str, *pairs: tuple[Path, Path]) -> list[str]:
        state = self.folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        words = [str(path) for pair in pairs for path in pair]
        return [sys.executable, "-c", CONVERT, str(state), verify, image_format, *words]

    def _pve(self, image_format: str, source: Path, out: Path) -> list[list[str]]:
        """`-n` into a volume that was made before. Its driver zeroinit is --target-is-zero elsewhere."""
        options = ["-o", "preallocation=metadata"] if image_format == "qcow2" else []
        make = ["qemu-img", "create", "-q", "-f", image_format, *options, str(out), str(self.size)]
        call = [
            "qemu-img",
            "convert",
            "-n",
            "--target-is-zero",
            "-f",
            "vmdk",
            "-O",
            image_format,
            str(source),
            str(out),
        ]
        return [make, call]

    def _two(self, source: Path) -> None:
        """Two images in one task, beside one after the other."""
        rounds, outs = Rounds(), [self.folder / "out1", self.folder / "out2"]
        for _number in range(self.rounds):
            pairs = [(source, out) for out in outs]
            rounds.add("two", self._seconds([self._ours("false", "raw", *pairs)], *outs))
            rounds.add("serial", sum(self._seconds([self._ours("false", "raw", pair)], pair[1]) for pair in pairs))
            call = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(source)]
            rounds.add("qemu", sum(self._seconds([[*call, str(out)]], out) for out in outs))
        print("\ntwo streams")
        print(rounds.line("two", "image_convert, both in one task"))
        print(rounds.line("serial", "image_convert, one after the other"))
        print(rounds.line("qemu", "qemu-img convert, one after the other"))
        aim("both in one task / qemu-img, one after the other", rounds.median("two") / rounds.median("qemu"), 0.5)

    def _seconds(self, commands: Sequence[Sequence[str]], *outs: Path) -> float:
        """Wall seconds until the targets are on the disk. Old targets are removed before."""
        for out in outs:
            out.unlink(missing_ok=True)
        os.sync()
        begun, self.cpu = time.perf_counter(), 0.0
        for command in commands:
            process = subprocess.Popen(command)
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu += usage.ru_utime + usage.ru_stime
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            if command[0] == sys.executable:
                self.peak = max(self.peak, usage.ru_maxrss * 1024 / 1e6)
        for out in outs:
            with out.open("rb") as file:
                os.fsync(file.fileno())
        return time.perf_counter() - begun
