# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small images to be damaged at random, and what must hold for whatever comes out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.diskwright.proxmox.plugins.module_utils._image.errors import ImageRefusedError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import inspect
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.runs import Kind, inflate
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.source import Source
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.verify import manifest

from images import archive, vmdk
from images.content import changed, difference, disk, grains

SIZE = 200 * 1024
#: So much is read and compared; of larger disks only their runs are looked at.
_READ = 4 * 1024**2
#: Numbers that parsers stumble over.
NUMBERS = (0, 1, 2, 3, 7, 8, 20, 127, 128, 255, 511, 512, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
LARGE = (2**32, 2**40, 2**53, 2**55, 2**60, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Seed:
    """An image before it is damaged.

    :param files: by name.
    :param path: the one to inspect.
    :param independent: whether dissect.hypervisor can read it.
    """

    name: str
    files: dict[str, bytes]
    path: str
    member: str = ""
    independent: bool = True


@dataclass(frozen=True)
class Edit:
    """One damage.

    :param file: which file, by its number.
    :param place: where, in thousandths of the part of the file that has its tables.
    :param data: what is written there; b"" cuts the file off there.
    """

    file: int
    place: int
    data: bytes


def seeds() -> tuple[Seed, ...]:
    """One of each kind that is parsed here."""
    content = disk(SIZE, seed=5, parts=3)
    makers: dict[str, Callable[[Path], Path]] = {
        "hosted": lambda folder: _hosted(folder, content),
        "stream": lambda folder: vmdk.exported(folder, content),
        "stream-head": lambda folder: vmdk.exported(folder, content, footer=False),
        "flat": lambda folder: vmdk.flat(folder, content),
        "split": lambda folder: _split(folder, content),
        "cowd": lambda folder: _delta(folder, content, "vmfsSparse", "VMFSSPARSE", 512),
        "sesparse": lambda folder: _delta(folder, content, "seSparse", "SESPARSE", 4096),
    }
    found = [_seed(name, make) for name, make in makers.items()]
    found.append(_seed("ova", lambda folder: _ova(folder, content), "disk.vmdk"))
    return tuple(found)


def _seed(name: str, make: Callable[[Path], Path], member: str = "") -> Seed:
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder))
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    return Seed(name, files, path.name, member, independent=name != "ova")


def _hosted(folder: Path, content: bytes) -> Path:
    text = vmdk.descriptor("monolithicSparse", [f'RW {vmdk.sectors(SIZE)} SPARSE "disk.vmdk"'])
    return vmdk.write(folder, "disk.vmdk", vmdk.hosted(SIZE, grains(content, 4096), text=text, grain=8))


def _split(folder: Path, content: bytes) -> Path:
    half, lines = SIZE // 2, []
    for number in range(2):
        part = content[number * half : (number + 1) * half]
        vmdk.write(folder, f"disk-s{number}.vmdk", vmdk.hosted(half, grains(part, 4096), grain=8))
        lines.append(f'RW {vmdk.sectors(half)} SPARSE "disk-s{number}.vmdk"')
    return vmdk.write(folder, "disk.vmdk", vmdk.descriptor("twoGbMaxExtentSparse", lines))


def _delta(folder: Path, content: bytes, create_type: str, kind: str, size: int) -> Path:
    vmdk.flat(folder, content)
    after = difference(content, changed(content), size)
    data = vmdk.cowd(SIZE, after) if kind == "VMFSSPARSE" else vmdk.sesparse(SIZE, after)
    vmdk.write(folder, "disk-1-delta.vmdk", data)
    line = f'RW {vmdk.sectors(SIZE)} {kind} "disk-1-delta.vmdk"'
    text = vmdk.descriptor(create_type, [line], cid=5, parent_cid=vmdk.CID, hint="disk.vmdk")
    return vmdk.write(folder, "disk-1.vmdk", text)


def _ova(folder: Path, content: bytes) -> Path:
    path = vmdk.exported(folder, content)
    data = path.read_bytes()
    path.unlink()
    return archive.ova(folder / "db1.ova", [(archive.Disk("disk.vmdk", SIZE), data)])


def attempt(folder: Path, seed: Seed, edits: Iterable[Edit], read_independently: Callable[[Path], bytes] | None) -> str:
    """Damage an image and inspect it.

    It is refused, or its runs are in order and inside its files, and say what an independent reader reads. Anything
    else raises.

    :returns: the code of the refusal, or "accepted".
    """
    files = {name: bytearray(data) for name, data in seed.files.items()}
    names = sorted(files)
    for edit in edits:
        _damage(files[names[edit.file % len(names)]], edit)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = folder / seed.path
    try:
        with inspect(str(path), seed.member) as source:
            content = _content(source)
            manifest(source)
    except ImageRefusedError as error:
        assert str(error).isprintable(), error
        return error.code
    if content is not None and read_independently is not None and seed.independent:
        assert read_independently(path) == content, "differs from the independent reader"
    return "accepted"


def _damage(data: bytearray, edit: Edit) -> None:
    tables = min(len(data), 24 * 1024)
    # Two thirds at the beginning, the rest at the end, where streams and archives have what counts.
    place = edit.place * tables // 667 if edit.place < 667 else len(data) - 1 - (edit.place - 667) * 2048 // 333
    place = max(0, min(place, len(data)))
    if edit.data:
        data[place : place + len(edit.data)] = edit.data
    else:
        del data[place:]


def _content(source: Source) -> bytes | None:
    """What is on the disk, ``None`` for a large one; the runs' laws hold either way."""
    if not source.native:
        return None
    position, parts = 0, []
    for run in source.runs():
        assert run.start == position, run
        assert run.length > 0, run
        assert run.kind is not Kind.ABSENT, run
        position = run.end
        if run.kind is not Kind.ZERO:
            file = source.files[run.file]
            stored = run.stored if run.kind is Kind.DEFLATED else run.length
            assert file.offset <= run.offset, run
            assert run.offset + stored <= file.offset + file.length, run
        if source.virtual_size <= _READ:
            parts.append(_bytes(source, run))
    assert position == source.virtual_size
    return b"".join(parts) if source.virtual_size <= _READ else None


def _bytes(source: Source, run) -> bytes:
    if run.kind is Kind.ZERO:
        return bytes(run.length)
    if run.kind is Kind.DATA:
        return os.pread(source.fds[run.file], run.length, run.offset)
    return inflate(run, os.pread(source.fds[run.file], run.stored, run.offset), "grain")
