# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that must be read, each with what is on its disk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from images import archive, vmdk
from images.content import MIB, changed, difference, disk, grains
from images.vmdk import descriptor, sectors, write

QEMU, DISSECT = "qemu", "dissect"


@dataclass(frozen=True)
class Good:
    """An image that must be read.

    :param make: writes it into a folder and gives its path, and the disk's content.
    :param readers: other programs that can read it: not all can read everything.
    :param subformat: what it is to be recognised as.
    """

    name: str
    make: Callable[[Path], tuple[Path, bytes]]
    readers: tuple[str, ...] = (QEMU, DISSECT)
    format: str = "vmdk"
    subformat: str = ""
    member: str = ""
    chain: int = 1


def _qemu(kind: str, name: str, options: str = "", seed: int = 1) -> Callable[[Path], tuple[Path, bytes]]:
    """Made by qemu-img."""

    def make(folder: Path) -> tuple[Path, bytes]:
        content = disk(seed=seed)
        raw = write(folder, "made-from", content)
        command = ["qemu-img", "convert", "-f", "raw", "-O", kind, *(["-o", options] if options else [])]
        subprocess.run([*command, raw, folder / name], check=True)
        raw.unlink()
        return folder / name, content

    return make


def _own(build: Callable[[Path, bytes], Path], size: int | None = None) -> Callable[[Path], tuple[Path, bytes]]:
    """Made by the writers here."""

    def make(folder: Path) -> tuple[Path, bytes]:
        content = disk(size) if size else disk()
        return build(folder, content), content

    return make


def _extents(
    create_type: str, kind: str, build: Callable[[bytes], bytes], cut: int = 16 * MIB
) -> Callable[[Path], tuple[Path, bytes]]:
    """A descriptor and one or several extents."""

    def make(folder: Path) -> tuple[Path, bytes]:
        content = disk()
        parts = [content[at : at + cut] for at in range(0, len(content), cut)]
        offset = " 0" if kind == "FLAT" else ""
        lines = []
        for number, part in enumerate(parts, 1):
            write(folder, f"disk-s{number:03d}.vmdk", build(part))
            lines.append(f'RW {sectors(len(part))} {kind} "disk-s{number:03d}.vmdk"{offset}')
        return write(folder, "disk.vmdk", descriptor(create_type, lines)), content

    return make


def _zero_marked(folder: Path, content: bytes) -> Path:
    """Grains that are marked as zeros, which older readers take for data at sector 1."""
    marked: dict[int, bytes | None] = {}
    marked.update(grains(content, 65536))
    marked.update({number: None for number in range(3, 300) if number not in marked})
    text = descriptor("monolithicSparse", [f'RW {sectors(len(content))} SPARSE "disk.vmdk"'])
    return write(folder, "disk.vmdk", vmdk.hosted(len(content), marked, text=text, version=2, flags=7))


def _offset_flat(folder: Path, content: bytes) -> Path:
    """A flat extent that begins somewhere in its file."""
    write(folder, "disk-flat.vmdk", b"x" * 5120 + content)
    line = f'RW {sectors(len(content))} FLAT "disk-flat.vmdk" 10'
    return write(folder, "disk.vmdk", descriptor("monolithicFlat", [line]))


def _rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path, bytes], Path]:
    """A descriptor that is written in an unusual way."""

    def build(folder: Path, content: bytes) -> Path:
        path = vmdk.flat(folder, content)
        path.write_bytes(change(path.read_bytes()))
        return path

    return build


def _named(name: str, encoding: str) -> Callable[[Path, bytes], Path]:
    """An extent with a name beyond ASCII."""

    def build(folder: Path, content: bytes) -> Path:
        write(folder, name, content)
        text = descriptor("vmfs", [f'RW {sectors(len(content))} VMFS "{name}"']).replace("UTF-8", encoding)
        path = folder / "disk.vmdk"
        path.write_bytes(text.encode(encoding))
        return path

    return build


def _embedded_delta(folder: Path) -> tuple[Path, bytes]:
    """As VMware Workstation makes a snapshot: each member with its descriptor inside."""
    base, after = disk(), changed(disk())
    vmdk.sparse(folder, base)
    text = descriptor(
        "monolithicSparse",
        [f'RW {sectors(len(base))} SPARSE "disk-000001.vmdk"'],
        cid=0x5,
        parent_cid=vmdk.CID,
        hint="disk.vmdk",
    )
    data = vmdk.hosted(len(base), difference(base, after, 65536), text=text)
    return write(folder, "disk-000001.vmdk", data), after


def _delta(
    create_type: str, kind: str, size: int, build: Callable[[int, dict[int, bytes]], bytes], depth: int = 1
) -> Callable[[Path], tuple[Path, bytes]]:
    """As ESX makes snapshots: on a flat base, one or several on top of each other."""

    def make(folder: Path) -> tuple[Path, bytes]:
        before = disk()
        path = vmdk.flat(folder, before, kind="VMFS", create_type="vmfs")
        cid = vmdk.CID
        for number in range(1, depth + 1):
            after = changed(before, seed=10 + number)
            extent = f"disk-{number:06d}-delta.vmdk"
            write(folder, extent, build(len(after), difference(before, after, size)))
            text = descriptor(
                create_type,
                [f'RW {sectors(len(after))} {kind} "{extent}"'],
                cid=number,
                parent_cid=cid,
                hint=path.name,
            )
            path = write(folder, f"disk-{number:06d}.vmdk", text)
            before, cid = after, number
        return path, before

    return make


def _delta_far(folder: Path) -> tuple[Path, bytes]:
    """The parent is named further down than QEMU looks, which takes the snapshot's holes for zeros then."""
    path, after = _embedded_delta(folder)
    before = vmdk.flat(folder, disk(), "base.vmdk")
    before.write_text(before.read_text().replace("CID=123a4bcd", "CID=00000007", 1))
    write(folder, "far-delta.vmdk", vmdk.cowd(len(after), difference(disk(), after, 512)))
    line = f'RW {sectors(len(after))} VMFSSPARSE "far-delta.vmdk"'
    text = descriptor("vmfsSparse", [line], cid=8, parent_cid=7, hint="base.vmdk")
    filling = "# nothing to see here\n" * 600
    path.unlink()
    (folder / "disk.vmdk").unlink()
    return write(folder, "far.vmdk", text.replace("parentFileNameHint", f"{filling}parentFileNameHint")), after


def _delta_of_stream(folder: Path) -> tuple[Path, bytes]:
    """Small grains over large packed ones: parts of grains are needed."""
    base, after = disk(), changed(disk())
    vmdk.exported(folder, base)
    write(folder, "disk-000001-delta.vmdk", vmdk.cowd(len(base), difference(base, after, 512)))
    line = f'RW {sectors(len(base))} VMFSSPARSE "disk-000001-delta.vmdk"'
    text = descriptor("vmfsSparse", [line], cid=5, parent_cid=vmdk.CID, hint="disk.vmdk")
    return write(folder, "disk-000001.vmdk", text), after


def _unmapped(folder: Path) -> tuple[Path, bytes]:
    """What a guest has given back since the snapshot reads as zeros, not as what it was before."""
    base = disk()
    vmdk.flat(folder, base)
    after = bytes(64 * 1024) + base[64 * 1024 :]
    entries = {number: vmdk.UNMAPPED if number % 2 else vmdk.ZEROED for number in range(16)}
    write(folder, "disk-000001-sesparse.vmdk", vmdk.sesparse(len(base), entries))
    line = f'RW {sectors(len(base))} SESPARSE "disk-000001-sesparse.vmdk"'
    text = descriptor("seSparse", [line], cid=5, parent_cid=vmdk.CID, hint="disk.vmdk")
    return write(folder, "disk-000001.vmdk", text), after


def _ova(kind: str, algorithm: str = "SHA256", end: int = 1024) -> Callable[[Path], tuple[Path, bytes]]:
    """Two disks in an archive; the second is the one to read."""

    def make(folder: Path) -> tuple[Path, bytes]:
        first, second = disk(MIB, seed=3), disk(seed=4)
        parts = []
        for number, content in enumerate((first, second)):
            build = vmdk.exported if kind == "streamOptimized" else vmdk.sparse
            path = build(folder, content, f"db1-disk{number + 1}.vmdk")
            place = {"controller": 3 + number, "address": number}
            parts.append((archive.Disk(path.name, len(content), **place), path.read_bytes()))
            path.unlink()
        return archive.ova(folder / "db1.ova", parts, algorithm=algorithm, end=bytes(end)), second

    return make


def _ovf(folder: Path) -> tuple[Path, bytes]:
    """An OVF beside its disks, one of them with a space in its name, which the OVF writes as %20."""
    content = disk()
    data = vmdk.exported(folder, content, "db 1.vmdk").read_bytes()
    text = archive.ovf([archive.Disk("db%201.vmdk", len(content))])
    write(folder, "db1.ovf", text)
    (folder / "db1.mf").write_bytes(archive.manifest([("db1.ovf", text.encode()), ("db 1.vmdk", data)]))
    return folder / "db1.ovf", content


def _raw(folder: Path, content: bytes) -> Path:
    return write(folder, "disk.img", content)


_STREAM = "streamOptimized"
GOOD: tuple[Good, ...] = (
    Good("hosted", _own(vmdk.sparse), subformat="monolithicSparse"),
    Good("hosted-version-2", _own(lambda f, c: vmdk.sparse(f, c, version=2)), subformat="monolithicSparse"),
    Good("hosted-version-3", _own(lambda f, c: vmdk.sparse(f, c, version=3)), subformat="monolithicSparse"),
    Good("hosted-one-table", _own(lambda f, c: vmdk.sparse(f, c, redundant=False)), subformat="monolithicSparse"),
    Good("hosted-marked-zeros", _own(_zero_marked), subformat="monolithicSparse"),
    Good("hosted-one-sector", _own(vmdk.sparse, 512), subformat="monolithicSparse"),
    Good("hosted-by-qemu", _qemu("vmdk", "disk.vmdk"), subformat="monolithicSparse"),
    Good(
        "hosted-by-qemu-version-2",
        _qemu("vmdk", "disk.vmdk", "zeroed_grain=on,compat6=on"),
        subformat="monolithicSparse",
    ),
    Good("stream-footer", _own(vmdk.exported), subformat=_STREAM),
    Good("stream-footer-version-1", _own(lambda f, c: vmdk.exported(f, c, version=1)), subformat=_STREAM),
    Good("stream-head", _own(lambda f, c: vmdk.exported(f, c, footer=False)), subformat=_STREAM),
    Good("stream-by-qemu", _qemu("vmdk", "disk.vmdk", "subformat=streamOptimized"), subformat=_STREAM),
    Good("flat", _own(vmdk.flat), subformat="monolithicFlat"),
    Good(
        "flat-shorter-cid",  # over a longer one, as QEMU writes it
        _own(_rewritten(lambda text: text.replace(b"CID=123a4bcd", b"CID=5", 1) + b"\0" + text[-6:])),
        subformat="monolithicFlat",
    ),
    Good("flat-offset", _own(_offset_flat), readers=(QEMU,), subformat="monolithicFlat"),
    Good("flat-by-qemu", _qemu("vmdk", "disk.vmdk", "subformat=monolithicFlat"), subformat="monolithicFlat"),
    Good("vmfs", _own(lambda f, c: vmdk.flat(f, c, kind="VMFS", create_type="vmfs")), subformat="vmfs"),
    Good(
        "split-sparse",
        _extents("twoGbMaxExtentSparse", "SPARSE", lambda part: vmdk.hosted(len(part), grains(part, 65536))),
        subformat="twoGbMaxExtentSparse",
    ),
    Good("split-flat", _extents("twoGbMaxExtentFlat", "FLAT", lambda part: part), subformat="twoGbMaxExtentFlat"),
    Good(
        "split-sparse-by-qemu",
        _qemu("vmdk", "disk.vmdk", "subformat=twoGbMaxExtentSparse"),
        subformat="twoGbMaxExtentSparse",
    ),
    Good(
        "split-flat-by-qemu",
        _qemu("vmdk", "disk.vmdk", "subformat=twoGbMaxExtentFlat"),
        subformat="twoGbMaxExtentFlat",
    ),
    Good(
        "cowd",
        _extents("vmfsSparse", "VMFSSPARSE", lambda part: vmdk.cowd(len(part), grains(part, 512)), 64 * MIB),
        subformat="vmfsSparse",
    ),
    Good(
        "sesparse",
        _extents("seSparse", "SESPARSE", lambda part: vmdk.sesparse(len(part), grains(part, 4096)), 64 * MIB),
        subformat="seSparse",
    ),
    Good(
        "sesparse-without-maps",
        _extents(
            "seSparse",
            "SESPARSE",
            lambda part: vmdk.sesparse(len(part), grains(part, 4096), bitmap=(0, 0), backmap=(0, 0)),
            64 * MIB,
        ),
        subformat="seSparse",
    ),
    Good("delta-hosted", _embedded_delta, subformat="monolithicSparse", chain=2),
    Good(
        "delta-cowd",
        _delta("vmfsSparse", "VMFSSPARSE", 512, vmdk.cowd),
        subformat="vmfsSparse",
        chain=2,
    ),
    Good(
        "delta-sesparse-three",
        _delta("seSparse", "SESPARSE", 4096, vmdk.sesparse, depth=3),
        subformat="seSparse",
        chain=4,
    ),
    Good("delta-sesparse-unmapped", _unmapped, readers=(QEMU,), subformat="seSparse", chain=2),
    Good("delta-hint-far", _delta_far, readers=(DISSECT,), subformat="vmfsSparse", chain=2),
    Good("delta-of-stream", _delta_of_stream, subformat="vmfsSparse", chain=2),
    Good(
        "descriptor-crlf",
        _own(_rewritten(lambda text: text.replace(b"\n", b"\r\n"))),
        readers=(QEMU,),
        subformat="monolithicFlat",
    ),
    Good(
        "descriptor-bom",
        _own(_rewritten(lambda text: b"\xef\xbb\xbf" + text)),
        readers=(),
        subformat="monolithicFlat",
    ),
    Good(
        "descriptor-spaces",
        _own(_rewritten(lambda text: text.replace(b"=", b" = ").replace(b" FLAT ", b"\tFLAT  "))),
        readers=(),
        subformat="monolithicFlat",
    ),
    Good(
        "descriptor-filled-up",
        _own(_rewritten(lambda text: text + bytes(9000))),
        readers=(QEMU,),
        subformat="monolithicFlat",
    ),
    Good("name-utf8", _own(_named("größe-平面.vmdk", "utf-8")), readers=(QEMU, DISSECT), subformat="vmfs"),
    Good("name-cp1252", _own(_named("größe.vmdk", "windows-1252")), readers=(), subformat="vmfs"),
    Good("name-gbk", _own(_named("平面.vmdk", "gbk")), readers=(), subformat="vmfs"),
    Good("raw", _own(_raw), readers=(QEMU,), format="raw"),
    Good("ova", _ova(_STREAM), readers=(), subformat=_STREAM, member="db1-disk2.vmdk"),
    Good("ova-sparse", _ova("monolithicSparse"), readers=(), subformat="monolithicSparse", member="db1-disk2.vmdk"),
    Good("ova-sha1", _ova(_STREAM, "SHA1", 10240), readers=(), subformat=_STREAM, member="db1-disk2.vmdk"),
    Good("ova-sha512", _ova(_STREAM, "SHA512"), readers=(), subformat=_STREAM, member="db1-disk2.vmdk"),
    Good("ova-without-manifest", _ova(_STREAM, ""), readers=(), subformat=_STREAM, member="db1-disk2.vmdk"),
    Good("ovf", _ovf, readers=(), subformat=_STREAM, member="db 1.vmdk"),
    Good("qcow2", _qemu("qcow2", "disk.qcow2"), readers=(QEMU,), format="qcow2"),
    Good("qcow2-version-2", _qemu("qcow2", "disk.qcow2", "compat=0.10"), readers=(QEMU,), format="qcow2"),
    Good(
        "qcow2-extended",
        _qemu("qcow2", "disk.qcow2", "extended_l2=on,cluster_size=128k,compression_type=zstd"),
        readers=(QEMU,),
        format="qcow2",
    ),
    Good("vdi", _qemu("vdi", "disk.vdi"), readers=(QEMU,), format="vdi"),
    Good("vdi-fixed", _qemu("vdi", "disk.vdi", "static=on"), readers=(QEMU,), format="vdi"),
    Good("vhd", _qemu("vpc", "disk.vhd", "force_size=on"), readers=(QEMU,), format="vpc"),
    Good("vhd-fixed", _qemu("vpc", "disk.vhd", "subformat=fixed,force_size=on"), readers=(QEMU,), format="vpc"),
    Good("vhdx", _qemu("vhdx", "disk.vhdx"), readers=(QEMU,), format="vhdx"),
)
