# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Holds ``drive_options`` against what this node's PVE really says: ``qm showcmd`` of guests that run here.

Only what decides about speed and safety is compared. Guests are only read; those that are switched off are left out,
because PVE would activate their volumes for an answer.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import typing as t
from dataclasses import dataclass, fields

from .._core.drive import parse_drive
from .._core.errors import ParseError
from .combination import Combination
from .drive_options import BLOCKDEV_SINCE, drive_options, slot

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .host import Software

#: So many guests are looked at; one answer takes about a second.
_MOST_GUESTS: t.Final = 5
_DISKS: t.Final = ("scsi0", "virtio0", "sata0", "ide0")
_NO_PVE: t.Final = "Whether guests are told so could not be compared: there is no Proxmox VE here."


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line says of a drive.

    :param nodes: the drivers of its block nodes, the uppermost first.
    """

    style: str
    nodes: tuple[str, ...]
    direct: str
    no_flush: str
    aio: str
    device: str
    write_cache: str
    iothread: str


def check(software: Software) -> tuple[str, tuple[str, ...]]:
    """Compare with the guests that run here.

    :returns: a sentence for the record, and a note for each difference.
    """
    if not _output(["qm", "list"]):
        return _NO_PVE, ()
    compared: list[str] = []
    notes: list[str] = []
    for vmid in _running()[:_MOST_GUESTS]:
        command = shlex.split(_output(["qm", "showcmd", vmid]))
        for name, problems in compare(command, _config(vmid), software.version):
            compared.append(f"{vmid} {name}")
            notes += [f"Guest {vmid}, {name}: {problem}" for problem in problems]
    if not compared:
        return "Whether guests are told so could not be compared: none with such a drive runs here.", ()
    found = "the same" if not notes else "differences, see the notes"
    return f"Compared with qm showcmd of {', '.join(compared)}: {found}.", tuple(notes)


def compare(
    command: Sequence[str], config: Mapping[str, str], qemu: tuple[int, int]
) -> Iterator[tuple[str, list[str]]]:
    """The drives of a guest that are first on their bus, each with what is said otherwise than here.

    :param command: the words of its command line.
    :param config: its configuration.
    """
    for name in _DISKS:
        theirs = said(command, name)
        combination = _combination(config, name, theirs)
        if theirs is None or combination is None:
            continue
        if theirs.style != ("blockdev" if qemu >= BLOCKDEV_SINCE else "drive"):
            continue  # of an older machine version, which new guests do not have
        block = "host_device" in theirs.nodes
        ours = said(drive_options(combination, "/image", block=block, qemu=qemu), name)
        if ours is not None:
            yield name, list(_differences(ours, theirs))


def _differences(ours: Said, theirs: Said) -> Iterator[str]:
    for item in fields(Said):
        here, there = getattr(ours, item.name), getattr(theirs, item.name)
        if here != there:
            yield f"{item.name} is {there or 'not said'} there and {here or 'not said'} in this benchmark"


def _combination(config: Mapping[str, str], name: str, theirs: Said | None) -> Combination | None:
    """The drive of a configuration, as it would be measured; ``None`` if it is none of these."""
    if name not in config or theirs is None or not theirs.aio:
        return None
    try:
        drive = parse_drive(config[name])
    except ParseError:
        return None
    options = dict(drive.options)
    bus = name.rstrip("0")
    if options.get("media") == "cdrom" or (bus == "scsi" and config.get("scsihw") != "virtio-scsi-single"):
        return None
    image = [one for one in theirs.nodes if one in ("raw", "qcow2", "vmdk")]
    cache = options.get("cache") or ("none" if theirs.direct == "on" else "writeback")
    thread = options.get("iothread") in ("1", "on", "yes", "true")
    found = Combination("", image[0] if image else "raw", bus, cache, theirs.aio, thread)
    return found if slot(found) == name else None


def said(command: Sequence[str], name: str) -> Said | None:
    """What a command line says of the drive in a slot, or ``None``."""
    pairs = [(word, after) for word, after in zip(command, command[1:], strict=False) if word.startswith("-")]
    device = next((_words(text) for word, text in pairs if word == "-device" and f",id={name}" in f"{text},"), None)
    if device is None or device.get("id") != name:
        return None
    model, thread = device[""], device.get("iothread", "")
    controller = device.get("bus", "").rpartition(".")[0]
    for word, text in pairs:
        if word == "-device" and controller and _words(text).get("id") == controller:
            thread = _words(text).get("iothread", thread)
    for word, text in pairs:
        if word == "-blockdev" and (top := _node(text)).get("node-name") == f"drive-{name}":
            return _from_nodes(top, model, device.get("write-cache", ""), thread)
        if word == "-drive" and _words(text).get("id") == f"drive-{name}":
            return _from_drive(_words(text), model, thread)
    return None


def _words(text: str) -> dict[str, str]:
    """``virtio-blk-pci,drive=drive-virtio0,id=virtio0``; the word in front has the empty name."""
    first, *rest = re.split(r"(?<!,),(?!,)", text)
    found = dict(word.partition("=")[::2] for word in rest)
    return {**found, **(dict([first.partition("=")[::2]]) if "=" in first else {"": first})}


def _node(text: str) -> dict[str, t.Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _from_nodes(top: dict[str, t.Any], model: str, write_cache: str, thread: str) -> Said:
    chain = [top]
    while isinstance(chain[-1].get("file"), dict):
        chain.append(chain[-1]["file"])
    cache = chain[-1].get("cache", {})
    direct, no_flush = ("on" if cache.get(key) else "off" for key in ("direct", "no-flush"))
    drivers = tuple(str(one.get("driver", "")) for one in chain)
    return Said("blockdev", drivers, direct, no_flush, str(chain[-1].get("aio", "")), model, write_cache, thread)


def _from_drive(words: dict[str, str], model: str, thread: str) -> Said:
    cache = words.get("cache", "writeback")
    direct = "on" if cache in ("none", "off", "directsync") else "off"
    through = "off" if cache in ("writethrough", "directsync") else "on"
    flush = "on" if cache == "unsafe" else "off"
    return Said("drive", (words.get("format", ""),), direct, flush, words.get("aio", ""), model, through, thread)


def _running() -> list[str]:
    rows = [line.split() for line in _output(["qm", "list"]).splitlines()[1:]]
    return [row[0] for row in rows if "running" in row and row[0].isdigit()]


def _config(vmid: str) -> dict[str, str]:
    lines = _output(["qm", "config", vmid, "--current", "1"]).splitlines()
    return dict(line.partition(": ")[::2] for line in lines)


def _output(command: list[str]) -> str:
    """What a program says; nothing if it is not there or fails, because nothing depends on this check."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""
