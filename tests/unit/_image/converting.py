# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of conversions need: sources of many kinds, conversions, and what is in a target by qemu-img's word."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._image.convert import Conversion
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.copy import Throttle
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.orders import Order
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.progress import Progress
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.work import Outcome, Settings

MIB = 1 << 20
SIZE = 14 * MIB + 3 * 512
#: Options of qemu-img for each kind of source that it can write.
KINDS = {
    "monolithicSparse": ("vmdk", "subformat=monolithicSparse"),
    "monolithicFlat": ("vmdk", "subformat=monolithicFlat"),
    "twoGbMaxExtentSparse": ("vmdk", "subformat=twoGbMaxExtentSparse"),
    "twoGbMaxExtentFlat": ("vmdk", "subformat=twoGbMaxExtentFlat"),
    "streamOptimized": ("vmdk", "subformat=streamOptimized"),
    "raw": ("raw", ""),
    "qcow2": ("qcow2", ""),
    "vpc": ("vpc", "force_size=on"),
    "vhdx": ("vhdx", ""),
    "vdi": ("vdi", ""),
}
NATIVE = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized", "raw")


def content(size: int = SIZE, seed: int = 7) -> bytes:
    """A disk with data that can't be packed, data that can, zeros among data, and large holes."""
    source, disk = random.Random(seed), bytearray(size)
    for place, length in ((0, 4096), (5 * MIB + 512, 2 * MIB), (8 * MIB, 70_000), (10 * MIB - 100, MIB)):
        disk[place : place + length] = source.randbytes(length)
    disk[12 * MIB : 13 * MIB] = (b"packs well " * MIB)[:MIB]
    disk[6 * MIB : 6 * MIB + 200_000] = bytes(200_000)
    disk[size - 700 :] = source.randbytes(700)
    return bytes(disk)


def source(folder: Path, kind: str = "monolithicSparse", disk: bytes | None = None) -> Path:
    """An image of a kind."""
    image_format, options = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder.with_name(f"{folder.name}.content")
    raw.write_bytes(content() if disk is None else disk)
    path = folder / f"web.{'vhd' if image_format == 'vpc' else image_format}"
    chosen = ["-o", options] if options else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, *chosen, raw, path], check=True)
    raw.unlink()
    return path


def settings(state: Path, **words: Any) -> Settings:
    return Settings(**{"state_dir": str(state), "throttle": Throttle(0), **words})


def conversion(state: Path, path: Path, words: dict[str, Any]) -> Conversion:
    own = {key: words.pop(key) for key in ("patience", "throttle") if key in words}
    return Conversion(Order(str(path), **words), settings(state, **own), Progress(path.name))


def convert(state: Path, path: Path, **words: Any) -> Outcome:
    """Converts one image as the module does."""
    return conversion(state, path, words).run()


def look(state: Path, path: Path, **words: Any) -> Outcome:
    """What check mode would say."""
    return conversion(state, path, words).look()


def read_back(path: Path, image_format: str, folder: Path, size: int | None = None) -> bytes:
    """The content of an image, or its first bytes, as QEMU sees it."""
    raw, part = folder / "read-back", {} if size is None else {"size": size}
    image = {"driver": "raw", **part, "file": {"driver": image_format, "file": {"filename": str(path)}}}
    subprocess.run(["qemu-img", "convert", "-O", "raw", f"json:{json.dumps(image)}", str(raw)], check=True)
    found = raw.read_bytes()
    raw.unlink()
    return found


def content_id(disk: bytes) -> str:
    """As the module's documentation describes it."""
    digest = hashlib.sha256(f"{len(disk)}\n".encode())
    for start in range(0, len(disk), 4 * MIB):
        part = disk[start : start + 4 * MIB]
        blocks = {number: part[number * 65536 :][:65536] for number in range(64)}
        stored = {number: block for number, block in blocks.items() if block.strip(b"\0")}
        mask = sum(1 << number for number in stored).to_bytes(8, "little")
        digest.update(hashlib.sha256(mask + b"".join(stored.values())).digest() if stored else bytes(32))
    return digest.hexdigest()


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file of a folder: size, time of change, digest."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
