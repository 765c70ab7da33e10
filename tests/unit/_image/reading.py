# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How tests read a source: by its runs, and by other people's programs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ansible_collections.diskwright.proxmox.plugins.module_utils._image.runs import Kind, Run, inflate
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.source import Source
from dissect.hypervisor.disk.vmdk import VMDK


def read_runs(source: Source, start: int = 0, end: int | None = None) -> bytes:
    """What is on the disk from ``start`` to ``end``."""
    return b"".join(bytes_of(source, run) for run in source.runs(start, end))


def bytes_of(source: Source, run: Run) -> bytes:
    """What a run stands for, read from where it says."""
    if run.kind is Kind.ZERO:
        return bytes(run.length)
    fd, file = source.fds[run.file], source.files[run.file]
    assert file.offset <= run.offset
    length = run.stored if run.kind is Kind.DEFLATED else run.length
    assert run.offset + length <= file.offset + file.length, "outside of its file"
    data = os.pread(fd, length, run.offset)
    assert len(data) == length
    return inflate(run, data, file.name) if run.kind is Kind.DEFLATED else data


def check_laws(source: Source) -> list[Run]:
    """Runs are in order, without gaps, merged, and of the three kinds that a source gives."""
    runs = list(source.runs())
    assert [run.start for run in runs] == [0, *(run.end for run in runs)][:-1]
    assert runs[-1].end == source.virtual_size
    assert all(run.length > 0 for run in runs)
    for one, two in zip(runs, runs[1:], strict=False):
        joined = one.kind is two.kind and (
            one.kind is Kind.ZERO
            or (one.kind is Kind.DATA and (one.file, one.offset + one.length) == (two.file, two.offset))
        )
        assert not joined, (one, two)
    return runs


def by_dissect(path: Path) -> bytes:
    """The disk as dissect.hypervisor reads it."""
    disk = VMDK(path)
    places = range(0, disk.sector_count, 8192)
    return b"".join(disk.read_sectors(place, min(8192, disk.sector_count - place)) for place in places)


def by_qemu(path: Path, image_format: str) -> bytes:
    """The disk as qemu-img reads it: only for images that are known to be harmless."""
    out = path.with_name("by-qemu")
    subprocess.run(["qemu-img", "convert", "-f", image_format, "-O", "raw", path, out], check=True)
    data = out.read_bytes()
    out.unlink()
    return data


def qemu_size(path: Path, image_format: str) -> int:
    """The size of the disk as qemu-img sees it."""
    command = ["qemu-img", "info", "-f", image_format, "--output=json", path]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["virtual-size"])
