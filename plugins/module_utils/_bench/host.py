# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads what the machine is, what runs on it, and whether it is quiet enough to measure."""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from dataclasses import dataclass

from .drive_options import BLOCKDEV_SINCE
from .errors import BenchError
from .guest_image import find_program
from .results import Environment

if t.TYPE_CHECKING:
    from .guest_image import Kernel

QEMU: t.Final = "qemu-system-x86_64"
QEMU_IMG: t.Final = "qemu-img"
#: What a run calls beside these: of Debian's packages util-linux and coreutils.
TOOLS: t.Final = (QEMU_IMG, "setpriv", "ldd")
_IO_URING_SWITCH: t.Final = "/proc/sys/kernel/io_uring_disabled"
_REFUSED: t.Final = re.compile(r"io_uring|native|aio|invalid parameter value", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Software:
    """The programs of a run.

    :param qemu: path of QEMU.
    :param version: of QEMU, the first two numbers.
    :param qemu_text: what it says of itself.
    """

    qemu: str
    version: tuple[int, int]
    qemu_text: str
    fio: str
    fio_text: str


def software(fio: str = "fio") -> tuple[Software | None, list[str]]:
    """The programs that a run needs, and what is missing of them, all of it together."""
    problems = [problem for name in (QEMU, fio, *TOOLS) for problem in _missing(name)]
    if problems:
        return None, problems
    qemu, path = find_program(QEMU), find_program(fio)
    text = _said([qemu, "--version"]).splitlines()[0]
    return Software(
        qemu, version(text), text.removeprefix("QEMU emulator version "), path, _said([path, "--version"])
    ), []


def _missing(name: str) -> list[str]:
    try:
        find_program(name)
    except BenchError as error:
        return [str(error)]
    return []


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def version(text: str) -> tuple[int, int]:
    """The first two numbers of QEMU's version."""
    found = re.search(r"(\d+)\.(\d+)", text)
    if not found:
        raise BenchError(f"{QEMU} says '{text}', which names no version")
    return int(found[1]), int(found[2])


def missing_aios(image: str = "/dev/null") -> dict[str, str]:
    """The kinds of I/O that QEMU can't do on this machine, each with the reason."""
    found = {}
    for name in ("io_uring", "native"):
        options = f"driver=file,filename={image},aio={name},cache.direct=on"
        if name == "io_uring":
            options = f"driver=file,filename={image},aio={name}"
        command = [QEMU_IMG, "info", "-U", "--image-opts", options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode and _REFUSED.search(done.stderr.replace(options, "")):
            found[name] = f"QEMU can't use aio={name} here: {done.stderr.strip().splitlines()[-1]}"
    switch = _read(_IO_URING_SWITCH)
    if switch not in ("", "0"):
        found["io_uring"] = f"The kernel setting io_uring_disabled is {switch} on this node."
    return found


def load() -> float:
    """How many processes ran or waited for a disk during the last minute, for each processor."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def load_problems(most: float) -> list[str]:
    """Whether the machine is too busy for results that mean anything."""
    now = load()
    if now <= most:
        return []
    return [
        f"this machine is busy: its load in the last minute was {now:.2f} for each processor, allowed is {most:.2f}; "
        "run this when the node is quiet, or allow more with max_load and trust the results less"
    ]


def environment(found: Software, kernel: Kernel, accelerator: str, checked: str) -> Environment:
    """The record of this machine, without its places.

    :param checked: what ``qm showcmd`` of guests that run here says, see ``showcmd``.
    """
    own, versions = os.uname(), packages()
    said = "-blockdev, as from machine version 10.0 on" if found.version >= BLOCKDEV_SINCE else "-drive"
    return Environment(
        node=own.nodename,
        accelerator=accelerator,
        pve=versions.get("pve-manager", ""),
        qemu_server=versions.get("qemu-server", ""),
        qemu=found.qemu_text,
        kernel=own.release,
        guest_kernel=kernel.version,
        fio=found.fio_text,
        cpu=_processor(),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        load=round(os.getloadavg()[0], 2),
        drives=f"QEMU is told of drives by {said}, as qemu-server does. {checked}",
    )


def packages() -> dict[str, str]:
    """The versions of PVE's packages, by ``pveversion``; nothing where there is no PVE."""
    rows = (line.partition(": ") for line in _said(["pveversion", "--verbose"]).splitlines())
    return {name: rest.split(" (")[0] for name, _colon, rest in rows}


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
