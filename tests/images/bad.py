# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that must not be used: broken on the way, made by mistake, or to mislead; each with its refusal's code."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import archive, vmdk
from images.content import MIB, SECTOR, changed, difference, disk, grains
from images.vmdk import descriptor, sectors, write

SIZE = 3 * MIB
#: What a hostile image tries to get at. It lies outside of the image's folder.
SECRET = b"the secret of another guest " * 4096


@dataclass(frozen=True)
class Bad:
    """An image that must not be used.

    :param make: writes it into a folder, beside which is the file ``secret``, and gives its path.
    :param says: words of the message.
    :param member: disk of an archive.
    """

    name: str
    code: str
    make: Callable[[Path], Path]
    says: str = ""
    member: str = ""


def content() -> bytes:
    """A small disk."""
    return disk(SIZE, seed=7, parts=5)


def _sparse(**fields: Any) -> Callable[[Path], Path]:
    return lambda folder: vmdk.sparse(folder, content(), **fields)


def _stream(**fields: Any) -> Callable[[Path], Path]:
    return lambda folder: vmdk.exported(folder, content(), **fields)


def _edited(make: Callable[[Path], Path], *edits: tuple[int, bytes], file: str = "") -> Callable[[Path], Path]:
    """With other bytes in places; a negative place counts from the end."""

    def build(folder: Path) -> Path:
        path = make(folder)
        target = folder / file if file else path
        data = bytearray(target.read_bytes())
        for place, new in edits:
            at = place if place >= 0 else len(data) + place
            data[at : at + len(new)] = new
        target.write_bytes(data)
        return path

    return build


def _cut(make: Callable[[Path], Path], size: int, file: str = "") -> Callable[[Path], Path]:
    """Cut off; a negative size is how much is missing."""

    def build(folder: Path) -> Path:
        path = make(folder)
        target = folder / file if file else path
        os.truncate(target, size if size >= 0 else target.stat().st_size + size)
        return path

    return build


def _flat(change: Callable[[str], str], data: bytes | None = None) -> Callable[[Path], Path]:
    """A flat image with another descriptor."""

    def build(folder: Path) -> Path:
        path = vmdk.flat(folder, content() if data is None else data)
        path.write_text(change(path.read_text()))
        return path

    return build


def _line(line: str) -> Callable[[Path], Path]:
    """A flat image with another line of an extent."""
    return _flat(lambda text: text.replace(f'RW {SIZE // SECTOR} FLAT "disk-flat.vmdk" 0', line))


def _reaching(name: str, kind: str = "FLAT") -> Callable[[Path], Path]:
    """An extent that is somewhere else: ``{}`` stands for the folder's parent."""

    def build(folder: Path) -> Path:
        reached = name.format(folder.parent)
        return write(
            folder,
            "disk.vmdk",
            descriptor("monolithicFlat", [f'RW {len(SECRET) // SECTOR} {kind} "{reached}" 0']),
        )

    return build


def _special(make: Callable[[Path], object]) -> Callable[[Path], Path]:
    """An extent that is no file."""

    def build(folder: Path) -> Path:
        path = vmdk.flat(folder, content())
        extent = folder / "disk-flat.vmdk"
        extent.unlink()
        make(extent)
        return path

    return build


def _socket(path: Path) -> None:
    # The path of a socket may have 107 characters, so it is made from within the folder.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _locked(folder: Path) -> Path:
    path = vmdk.flat(folder, content())
    (folder / "disk-flat.vmdk.lck").mkdir()
    write(folder / "disk-flat.vmdk.lck", "M12345.lck", "xU\n")
    return path


def _split(number: int, change: Callable[[bytes], bytes] = lambda data: data, line: str = "") -> Callable[[Path], Path]:
    """A split image; one extent is changed, or has another line."""

    def build(folder: Path) -> Path:
        data, lines = content(), []
        for at in range(3):
            part = data[at * MIB : (at + 1) * MIB]
            extent = vmdk.hosted(len(part), grains(part, 65536))
            write(folder, f"disk-s{at + 1:03d}.vmdk", change(extent) if at == number else extent)
            usual = f'RW 2048 SPARSE "disk-s{at + 1:03d}.vmdk"'
            lines.append(line if line and at == number else usual)
        return write(folder, "disk.vmdk", descriptor("twoGbMaxExtentSparse", lines))

    return build


def _cowd(change: Callable[[bytes], bytes] = lambda data: data, **fields: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write(folder, "disk-delta.vmdk", change(vmdk.cowd(SIZE, grains(content(), 512), **fields)))
        line = f'RW {SIZE // SECTOR} VMFSSPARSE "disk-delta.vmdk"'
        return write(folder, "disk.vmdk", descriptor("vmfsSparse", [line]))

    return build


def _sesparse(change: Callable[[bytes], bytes] = lambda data: data, **fields: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write(folder, "disk-sesparse.vmdk", change(vmdk.sesparse(SIZE, grains(content(), 4096), **fields)))
        line = f'RW {SIZE // SECTOR} SESPARSE "disk-sesparse.vmdk"'
        return write(folder, "disk.vmdk", descriptor("seSparse", [line]))

    return build


def _sesparse_entry(entry: int) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write(folder, "disk-sesparse.vmdk", vmdk.sesparse(SIZE, {0: bytes(4096), 3: entry}))
        line = f'RW {SIZE // SECTOR} SESPARSE "disk-sesparse.vmdk"'
        return write(folder, "disk.vmdk", descriptor("seSparse", [line]))

    return build


def _delta(change: Callable[[str], str], base: Callable[[str], str] = lambda text: text) -> Callable[[Path], Path]:
    """A snapshot whose descriptor is changed, or its parent's."""

    def build(folder: Path) -> Path:
        before = content()
        parent = vmdk.flat(folder, before)
        parent.write_text(base(parent.read_text()))
        write(folder, "disk-1-delta.vmdk", vmdk.cowd(SIZE, difference(before, changed(before), 512)))
        line = f'RW {SIZE // SECTOR} VMFSSPARSE "disk-1-delta.vmdk"'
        text = descriptor("vmfsSparse", [line], cid=5, parent_cid=vmdk.CID, hint="disk.vmdk")
        return write(folder, "disk-1.vmdk", change(text))

    return build


def _hint(new: str) -> Callable[[Path], Path]:
    return _delta(lambda text: text.replace('Hint="disk.vmdk"', f'Hint="{new}"'))


def _cycle(folder: Path) -> Path:
    write(folder, "a-flat.vmdk", vmdk.cowd(SIZE, {}))
    write(folder, "b-flat.vmdk", vmdk.cowd(SIZE, {}))
    for name, other in (("a", "b"), ("b", "a")):
        line = f'RW {SIZE // SECTOR} VMFSSPARSE "{name}-flat.vmdk"'
        text = descriptor("vmfsSparse", [line], cid=5, parent_cid=5, hint=f"{other}.vmdk")
        write(folder, f"{name}.vmdk", text)
    return folder / "a.vmdk"


def _long_chain(folder: Path) -> Path:
    for number in range(257):
        write(folder, f"{number}-d.vmdk", vmdk.cowd(SECTOR, {}))
        line = f'RW 1 VMFSSPARSE "{number}-d.vmdk"'
        write(
            folder,
            f"{number}.vmdk",
            descriptor("vmfsSparse", [line], cid=5, parent_cid=5, hint=f"{number + 1}.vmdk"),
        )
    return folder / "0.vmdk"


def _decoy(folder: Path) -> Path:
    """A descriptor at sector 1, where QEMU looks for the parent, and another where the header says."""
    path = vmdk.sparse(folder, content(), descriptor=10, descriptor_size=10)
    real = descriptor("monolithicSparse", [f'RW {SIZE // SECTOR} SPARSE "disk.vmdk"'])
    decoy = descriptor("monolithicSparse", [f'RW {SIZE // SECTOR} SPARSE "disk.vmdk"'], parent_cid=1, hint="../secret")
    data = bytearray(path.read_bytes())
    data[SECTOR : 21 * SECTOR] = decoy.encode().ljust(9 * SECTOR, b"\0") + real.encode().ljust(11 * SECTOR, b"\0")
    path.write_bytes(data)
    return path


def _empty_shell(folder: Path) -> Path:
    """A header of capacity 0: QEMU then follows the descriptor inside it."""
    text = descriptor("monolithicFlat", [f'RW {len(SECRET) // SECTOR} FLAT "../secret" 0'])
    data = vmdk.header(directory=21) + text.encode().ljust(20 * SECTOR, b"\0") + bytes(128 * SECTOR)
    return write(folder, "disk.vmdk", data)


def _table(number: int, value: int) -> Callable[[Path], Path]:
    """A sparse image without second tables; one number of the first grain table is another."""
    make = _sparse(redundant=False)
    return _edited(make, (22 * SECTOR + 4 * number, struct.pack("<I", value)))


def _stream_cut_at_grain(folder: Path) -> Path:
    """Cut off between two grains, so that each of the rest is whole."""
    path = vmdk.exported(folder, content(), footer=False)
    data = path.read_bytes()
    at, last = 128 * SECTOR, 0
    while at < len(data):
        last = at
        at += sectors(12 + struct.unpack_from("<QI", data, at)[1]) * SECTOR
    path.write_bytes(data[:last])
    return path


def _stream_extra(folder: Path) -> Path:
    """A grain twice: a reader of tables sees one, a reader of the stream the other."""
    path = vmdk.exported(folder, content(), footer=False)
    path.write_bytes(path.read_bytes() + vmdk.packed(0, b"x" * 65536))
    return path


def _stream_entry(value: int) -> Callable[[Path], Path]:
    """A stream with tables at its beginning; the number of the first grain is another."""
    return _edited(_stream(footer=False), (22 * SECTOR, struct.pack("<I", value)))


def _footer_edit(place: int, data: bytes) -> Callable[[Path], Path]:
    return _edited(_stream(), (-2 * SECTOR + place, data))


def _raw(data: bytes, name: str = "disk.raw") -> Callable[[Path], Path]:
    return lambda folder: write(folder, name, data)


def _qemu(name: str, *command: str) -> Callable[[Path], Path]:
    """Made by qemu-img, in the folder."""

    def build(folder: Path) -> Path:
        write(folder, "made-from", content())
        for part in " ".join(command).split(" ; "):
            subprocess.run(["qemu-img", *part.split()], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        return folder / name

    return build


def _members(*members: tuple[str, bytes, bytes, str], end: bytes = bytes(1024)) -> Callable[[Path], Path]:
    """An archive of an OVF, a disk, and what else is given: name, content, type, link."""

    def build(folder: Path) -> Path:
        path = vmdk.exported(folder, content(), "db1.vmdk")
        text = archive.ovf([archive.Disk("db1.vmdk", SIZE)]).encode()
        data = archive.tar_member("db1.ovf", text) + archive.tar_member("db1.vmdk", path.read_bytes())
        path.unlink()
        return write(folder, "db1.ova", data + b"".join(archive.tar_member(*one) for one in members) + end)

    return build


def _ova(text: str = "", manifest: bytes | None = None, cut: int = 0, **disk_fields: Any) -> Callable[[Path], Path]:
    """An OVA with another OVF or manifest."""

    def build(folder: Path) -> Path:
        path = vmdk.exported(folder, content(), "db1.vmdk")
        data = path.read_bytes()
        path.unlink()
        fields = {"file": "db1.vmdk", "capacity": SIZE} | disk_fields
        described = (text or archive.ovf([archive.Disk(**fields)])).encode()
        members = [
            ("db1.ovf", described),
            *([("db1.mf", manifest)] if manifest is not None else []),
            ("db1.vmdk", data),
        ]
        whole = archive.tar(members)
        return write(folder, "db1.ova", whole[: len(whole) - cut])

    return build


def _ordered(folder: Path) -> Path:
    path = _ova()(folder)
    text, data = archive.ovf([archive.Disk("db1.vmdk", SIZE)]).encode(), vmdk.exported(folder, content()).read_bytes()
    (folder / "disk.vmdk").unlink()
    path.write_bytes(archive.tar([("db1.vmdk", data), ("db1.ovf", text)]))
    return path


def _damaged_member(folder: Path) -> Path:
    """A byte of a disk is another than when the manifest was made, at a place that no table knows."""
    path = vmdk.exported(folder, content(), "db1.vmdk")
    data = path.read_bytes()
    path.unlink()
    archive.ova(folder / "db1.ova", [(archive.Disk("db1.vmdk", SIZE), data)])
    whole = bytearray((folder / "db1.ova").read_bytes())
    at = whole.find(b"KDMV") + 120 * SECTOR
    whole[at] ^= 1
    (folder / "db1.ova").write_bytes(whole)
    return folder / "db1.ova"


def _compressed(folder: Path) -> Path:
    text = archive.ovf([archive.Disk("db1.vmdk.gz", SIZE, file_attributes='ovf:compression="gzip"')])
    return write(folder, "db1.ova", archive.tar([("db1.ovf", text.encode()), ("db1.vmdk.gz", b"\x1f\x8b" + bytes(99))]))


def _in_archive(name: str, data: Callable[[Path], Path], capacity: int = SIZE) -> Callable[[Path], Path]:
    """An archive with a disk of another kind."""

    def build(folder: Path) -> Path:
        path = data(folder)
        raw = path.read_bytes()
        for other in folder.iterdir():
            other.unlink()
        return archive.ova(folder / "db1.ova", [(archive.Disk(name, capacity), raw)])

    return build


def _ovf_beside(href: str) -> Callable[[Path], Path]:
    return lambda folder: write(folder, "db1.ovf", archive.ovf([archive.Disk(href, SIZE)]))


_L = f'RW {SIZE // SECTOR} FLAT "disk-flat.vmdk" 0'
_HEAD, _KEYS = "# Extent description", 'createType="monolithicFlat"'
_XXE = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
_BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
_CONTROLLER_TWICE = archive._CONTROLLERS + "<Item><rasd:InstanceID>3</rasd:InstanceID></Item>"


def _descriptors() -> Iterator[Bad]:
    """Texts that are not what VMware writes."""
    yield Bad(
        "descriptor-no-first-line", "format-unknown", _flat(lambda text: text.replace("# Disk Descr", "# Disc Descr"))
    )
    yield Bad("descriptor-garbage", "descriptor-bad", _flat(lambda text: text + "what is this\n"), "not understood")
    yield Bad("descriptor-unknown-key", "descriptor-bad", _flat(lambda text: text + "flavour=sweet\n"), "flavour")
    yield Bad("descriptor-key-case", "descriptor-bad", _flat(lambda text: text.replace("createType", "CREATETYPE")))
    yield Bad("descriptor-key-twice", "descriptor-bad", _flat(lambda text: text + "version=1\n"), "version twice")
    yield Bad("descriptor-two-types", "descriptor-bad", _flat(lambda text: text + 'createType="vmfs"\n'), "twice")
    yield Bad("descriptor-quote", "descriptor-bad", _flat(lambda text: text.replace('Flat"\n', "Flat\n")), "not closed")
    yield Bad("descriptor-control", "descriptor-bad", _flat(lambda text: text.replace("#DDB", "#DDB\x07")), "control")
    yield Bad(
        "descriptor-lone-cr", "descriptor-bad", _flat(lambda text: text.replace(_HEAD, "# x\r" + _HEAD)), "control"
    )
    yield Bad("descriptor-after-nul", "descriptor-bad", _flat(lambda text: text + "\0" + _L), "NUL")
    yield Bad("descriptor-end-after-nul", "descriptor-bad", _flat(lambda text: text + "\0" + text[-8:]), "NUL")
    yield Bad("descriptor-other-end-after-nul", "descriptor-bad", _flat(lambda text: text + "\0x\n"), "NUL")
    yield Bad("descriptor-no-extents", "descriptor-bad", _flat(lambda text: text.replace(_L, "")), "0 extents")
    yield Bad("descriptor-cid", "descriptor-bad", _flat(lambda text: text.replace("CID=123a4bcd", "CID=xyz")))
    yield Bad("descriptor-no-cid", "descriptor-bad", _flat(lambda text: text.replace("CID=123a4bcd\n", "", 1)))
    yield Bad("descriptor-long", "format-unknown", _flat(lambda text: text + "#" * MIB), "too many")
    yield Bad(
        "descriptor-version-4", "descriptor-version", _flat(lambda text: text.replace("version=1", "version=4", 1))
    )
    yield Bad("descriptor-utf16", "format-unknown", lambda f: write(f, "disk.vmdk", _text().encode("utf-16")))
    yield Bad(
        "descriptor-bad-utf8", "descriptor-encoding", lambda f: write(f, "disk.vmdk", _text().encode() + b"# \xff\n")
    )
    yield Bad("descriptor-encoding", "descriptor-encoding", _flat(lambda text: text.replace("UTF-8", "rot13")), "rot13")
    yield Bad("descriptor-encrypted", "encrypted", _flat(lambda text: text + 'ddb.encryption.keys = "x"\n'))
    yield Bad(
        "descriptor-native", "native-snapshot", _flat(lambda text: text.replace('Snapshot="no"', 'Snapshot="yes"'))
    )
    yield Bad("extent-tab-first", "descriptor-bad", _line(f"\t{_L}"))
    yield Bad("descriptor-cut", "descriptor-truncated", _split_cut, "extents may be missing")
    for name, line, code in (
        ("rdonly", _L.replace("RW", "RDONLY"), "extent-not-rw"),
        ("noaccess", _L.replace("RW", "NOACCESS"), "extent-not-rw"),
        ("lower-case", _L.replace("RW", "rw"), "descriptor-bad"),
        ("unknown-access", _L.replace("RW", "WO"), "descriptor-bad"),
        ("zero", f"RW {SIZE // SECTOR} ZERO", "extent-unknown"),
        ("device", _L.replace("FLAT", "VMFSRDM"), "extent-unknown"),
        ("other-kind", _L.replace("FLAT", "SPARSE"), "extent-unknown"),
        ("no-name", f"RW {SIZE // SECTOR} FLAT", "extent-unknown"),
        ("more-behind", f"{_L} 1f-uuid /dev/sda", "extent-unknown"),
        ("negative", _L.replace("RW ", "RW -"), "descriptor-bad"),
        ("hexadecimal", _L.replace("RW ", "RW 0x"), "descriptor-bad"),
        ("no-sectors", _L.replace(str(SIZE // SECTOR), "0"), "descriptor-bad"),
        ("huge", _L.replace(str(SIZE // SECTOR), str(2**62)), "descriptor-bad"),
        ("too-large", _L.replace(str(SIZE // SECTOR), str(2**38)), "disk-too-large"),
        ("far-offset", _L.replace('" 0', f'" {10**17}'), "disk-too-large"),
        ("two-for-one", f"{_L}\n{_L}", "descriptor-bad"),
        ("truncated-offset", _L.replace('" 0', '" 1'), "extent-truncated"),
    ):
        yield Bad(f"extent-{name}", code, _line(line))
    yield Bad("extent-rdonly-among-rw", "extent-not-rw", _split(1, line='RDONLY 2048 SPARSE "disk-s002.vmdk"'))
    yield Bad("extent-zero-among-rw", "extent-unknown", _split(1, line="RW 2048 ZERO"))
    yield Bad("extent-twice", "file-twice", _split(1, line='RW 2048 SPARSE "disk-s001.vmdk"'), "disk-s001.vmdk")
    yield Bad("extent-is-descriptor", "file-twice", _line('RW 1 FLAT "disk.vmdk" 0'), "disk.vmdk")
    for kind in (
        "vmfsThin",
        "vmfsRawDeviceMap",
        "vmfsPassthroughRawDeviceMap",
        "fullDevice",
        "partitionedDevice",
        "custom",
    ):
        make = _flat(lambda text, kind=kind: text.replace("monolithicFlat", kind))
        yield Bad(f"type-{kind}", "subformat-unknown", make, kind)
    yield Bad("type-spaces", "subformat-unknown", _flat(lambda text: text.replace("monolithicFlat", " monolithicFlat")))
    yield Bad("type-case", "subformat-unknown", _flat(lambda text: text.replace("monolithicFlat", "MonolithicFlat")))
    yield Bad("type-missing", "subformat-unknown", _flat(lambda text: text.replace(_KEYS, "")))
    yield Bad(
        "type-sparse-in-text",
        "subformat-misplaced",
        _flat(lambda text: text.replace("monolithicFlat", "monolithicSparse")),
    )


def _split_cut(folder: Path) -> Path:
    """Cut off behind the first extent: what is left is a smaller disk, which nothing contradicts."""
    path = _split(9)(folder)
    text = path.read_text()
    path.write_text(text[: text.index("RW 2048", text.index("RW 2048") + 1)])
    return path


def _text() -> str:
    return descriptor("monolithicFlat", [_L])


def _files() -> Iterator[Bad]:
    """Files that are not there, elsewhere, or no files."""
    yield Bad("flat-truncated", "extent-truncated", _cut(_flat(str), -1, "disk-flat.vmdk"), "disk-flat.vmdk")
    yield Bad("flat-empty", "extent-truncated", _cut(_flat(str), 0, "disk-flat.vmdk"))
    yield Bad("extent-missing", "file-missing", _line(_L.replace("disk-flat", "other")), "other.vmdk")
    for name, path in (
        ("absolute", "{0}/secret"),
        ("above", "../secret"),
        ("above-windows", "..\\secret"),
        ("windows", "C:\\vm\\secret"),
        ("nbd", "nbd://127.0.0.1:1/x"),
        ("json", "json:{{}}"),
        ("below", "sub/secret"),
        ("dots", ".."),
        ("empty", ""),
        ("device", "/dev/vda"),
        ("vmfs", "/vmfs/volumes/ds1/secret.vmdk"),
    ):
        yield Bad(f"reaching-{name}", "name-not-plain", _reaching(path))
    yield Bad("link", "file-not-regular", _special(lambda path: path.symlink_to("../secret")), "link")
    yield Bad("link-inside", "file-not-regular", _special(_link_inside), "link")
    yield Bad("folder", "file-not-regular", _special(Path.mkdir), "folder")
    yield Bad("fifo", "file-not-regular", _special(os.mkfifo), "FIFO")
    yield Bad("socket", "file-not-regular", _special(_socket), "socket")
    yield Bad("image-link", "file-not-regular", _image_link, "link")
    yield Bad("image-fifo", "file-not-regular", _image_fifo, "FIFO")
    yield Bad("locked", "file-locked", _locked, "disk-flat.vmdk.lck")
    yield Bad("extent-alone", "extent-alone", lambda f: write(f, "disk.vmdk", vmdk.hosted(SIZE, {})))
    yield Bad("cowd-alone", "extent-alone", lambda f: write(f, "disk.vmdk", vmdk.cowd(SIZE, {})))
    yield Bad("sesparse-alone", "extent-alone", lambda f: write(f, "disk.vmdk", vmdk.sesparse(SIZE, {})))
    yield Bad("flat-alone", "extent-alone", lambda f: write(f, "disk-flat.vmdk", content()), "likely disk.vmdk")
    yield Bad("split-alone", "extent-alone", lambda f: write(f, "d-f001.vmdk", content()), "most likely d.vmdk; if it")
    yield Bad("no-vmdk", "format-unknown", lambda f: write(f, "disk-first.vmdk", content()), "something else")
    yield Bad("empty", "file-empty", lambda f: write(f, "disk.vmdk", b""))


def _link_inside(path: Path) -> None:
    write(path.parent, "real", content())
    path.symlink_to("real")


def _image_link(folder: Path) -> Path:
    write(folder, "real.vmdk", _text())
    (folder / "disk.vmdk").symlink_to("real.vmdk")
    return folder / "disk.vmdk"


def _image_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "disk.vmdk")
    return folder / "disk.vmdk"


def _parents() -> Iterator[Bad]:
    """Snapshots that don't fit together."""
    other = "CID=123a4bcd"
    yield Bad(
        "delta-no-hint", "parent-unnamed", _delta(lambda text: text.replace('parentFileNameHint="disk.vmdk"\n', ""))
    )
    yield Bad("delta-empty-hint", "parent-unnamed", _hint(""))
    yield Bad("delta-missing", "file-missing", _hint("other.vmdk"), "other.vmdk")
    yield Bad("delta-absolute", "name-not-plain", _hint("/vmfs/volumes/ds1/disk.vmdk"))
    yield Bad("delta-above", "name-not-plain", _hint("../secret"))
    yield Bad("delta-windows", "name-not-plain", _hint("C:\\vm\\disk.vmdk"))
    yield Bad("delta-network", "name-not-plain", _hint("nbd://127.0.0.1:1/x"))
    yield Bad("delta-itself", "parent-cycle", _hint("disk-1.vmdk"), "own chain")
    yield Bad("delta-cycle", "parent-cycle", _cycle, "own chain")
    yield Bad("delta-long", "chain-too-long", _long_chain)
    yield Bad(
        "delta-changed", "parent-changed", _delta(str, lambda text: text.replace(other, "CID=deadbeef", 1)), "deadbeef"
    )
    yield Bad("delta-smaller", "parent-capacity", _delta(str, lambda text: text.replace(str(SIZE // SECTOR), "2048")))
    yield Bad("delta-parent-broken", "extent-truncated", _cut(_delta(str), 5, "disk-flat.vmdk"))
    yield Bad(
        "delta-parent-hostile", "name-not-plain", _delta(str, lambda text: text.replace("disk-flat.vmdk", "../secret"))
    )
    yield Bad(
        "hint-in-comment", "descriptor-ambiguous", _flat(lambda text: text + '# parentFileNameHint="../secret"\n')
    )
    yield Bad(
        "hint-in-value", "descriptor-ambiguous", _flat(lambda text: text + 'ddb.x = "parentFileNameHint=secret"\n')
    )
    yield Bad("hint-twice", "descriptor-bad", _delta(lambda text: text + 'parentFileNameHint="../secret"\n'))
    yield Bad("hint-without-cid", "parent-unexpected", _flat(lambda text: text + 'parentFileNameHint="../secret"\n'))
    yield Bad("parentcid-in-comment", "descriptor-ambiguous", _flat(lambda text: text + "# parentCID=00000001\n"))
    yield Bad("decoy-descriptor", "header-bad", _decoy, "sector 10")
    yield Bad("empty-shell", "capacity-bad", _empty_shell)


def _hosted() -> Iterator[Bad]:
    """Sparse files of VMware's desktop products."""
    for version in (0, 4, 2**31):
        yield Bad(f"hosted-version-{version}", "version-unknown", _sparse(version=version), str(version))
    yield Bad("hosted-truncated", "grain-outside", _cut(_sparse(), -1), "cut short")
    yield Bad("hosted-truncated-tables", "file-truncated", _cut(_sparse(), 40 * SECTOR))
    yield Bad("hosted-truncated-header", "file-truncated", _cut(_sparse(), 100))
    yield Bad("hosted-capacity-line", "capacity-differs", _sparse(capacity=SIZE // SECTOR - 1))
    yield Bad("hosted-capacity-huge", "capacity-bad", _sparse(capacity=2**55))
    yield Bad("hosted-capacity-max", "capacity-bad", _sparse(capacity=2**64 - 1))
    yield Bad("hosted-tables-many", "header-bad", _sparse(capacity=2**36, grain=8), "grain tables")
    yield Bad("hosted-flags", "header-bad", _sparse(flags=0x43))
    yield Bad("hosted-compressed", "header-bad", _sparse(flags=0x10003))
    yield Bad("hosted-algorithm", "header-bad", _sparse(compression=1))
    yield Bad("hosted-no-descriptor", "extent-alone", _sparse(descriptor=0, descriptor_size=0))
    yield Bad("hosted-descriptor-size", "header-bad", _sparse(descriptor_size=2**40))
    yield Bad("hosted-descriptor-large", "header-bad", _sparse(descriptor_size=1000))
    yield Bad("hosted-descriptor-overlap", "table-overlap", _edited(_sparse(), (48, struct.pack("<Q", 20))))
    for grain in (0, 1, 3, 127, 2**21, 2**63):
        yield Bad(f"hosted-grain-{grain}", "header-bad", _edited(_sparse(), (20, struct.pack("<Q", grain))))
    for count in (0, 1, 511, 2**32 - 1):
        yield Bad(f"hosted-per-table-{count}", "header-bad", _sparse(per_table=count))
    yield Bad("hosted-newlines", "newlines-changed", _sparse(newlines=b"\n \n\n"), "text mode")
    yield Bad("hosted-unclean", "unclean", _sparse(unclean=1))
    yield Bad("hosted-reserved", "header-bad", _edited(_sparse(), (300, b"\1")))
    for place in (0, 2**20, 2**55, 2**64 - 2):
        yield Bad(f"hosted-directory-{place}", "table-outside", _sparse(directory=place, redundant=False))
    yield Bad("hosted-directory-at-end", "header-bad", _sparse(directory=2**64 - 1))
    yield Bad("hosted-second-directory", "table-outside", _edited(_sparse(), (48, struct.pack("<Q", 2**40))))
    yield Bad("hosted-directory-twice", "table-overlap", _edited(_sparse(), (48, struct.pack("<Q", 26))))
    yield Bad("hosted-overhead", "file-truncated", _sparse(overhead=2**40))
    yield Bad("hosted-overhead-small", "table-outside", _sparse(overhead=22))
    for sector in (2**32 - 1, 2**20, 127):
        edit = _edited(_sparse(redundant=False), (21 * SECTOR, struct.pack("<I", sector)))
        yield Bad(f"hosted-table-{sector}", "table-outside", edit)
    yield Bad("hosted-table-on-header", "table-overlap", _edited(_sparse(redundant=False), (21 * SECTOR, b"\1\0\0\0")))
    for value in (2**32 - 1, 2**24):
        yield Bad(f"hosted-entry-{value}", "grain-outside", _table(0, value))
    for value in (1, 2, 127):
        yield Bad(f"hosted-entry-{value}", "grain-overlap", _table(0, value), "among its tables")
    yield Bad("hosted-grain-twice", "grain-overlap", _table(1, 128), "twice")
    yield Bad("hosted-grain-askew", "grain-misaligned", _table(1, 129 + 128))
    yield Bad("hosted-behind-end", "grain-outside", _table(511, 128), "behind the end")
    yield Bad("hosted-tables-differ", "tables-differ", _edited(_sparse(), (22 * SECTOR + 400, b"\x80\1\0\0")))
    yield Bad("hosted-zero-without-flag", "grain-overlap", _table(2, 1))
    yield Bad(
        "hosted-is-stream",
        "subformat-misplaced",
        _edited(_sparse(), (SECTOR, _swapped("monolithicSparse", "streamOptimized "))),
    )
    yield Bad("split-truncated", "grain-outside", _split(1, lambda data: data[:-1]), "disk-s002.vmdk")
    yield Bad("split-capacity", "capacity-differs", _split(1, lambda data: data[:12] + b"\1" + data[13:]))
    yield Bad("split-wrong-kind", "header-bad", _split(1, lambda data: b"x" * len(data)))
    yield Bad("split-with-descriptor", "extent-not-plain", _split(1, lambda data: data[:512] + b"x" + data[513:]))


def _swapped(old: str, new: str) -> bytes:
    text = descriptor("monolithicSparse", [f'RW {SIZE // SECTOR} SPARSE "disk.vmdk"'])
    return text.replace(f'"{old}"', f'"{new.strip()}"').encode() + b"\n"


def _streams() -> Iterator[Bad]:
    """Streams made for transport."""
    yield Bad("stream-truncated", "stream-truncated", _cut(_stream(), -512))
    yield Bad("stream-truncated-half", "stream-truncated", _cut(_stream(), 100_000))
    yield Bad("stream-head-truncated", "grain-outside", _cut(_stream(footer=False), -600))
    yield Bad("stream-head-cut-at-grain", "markers-differ", _stream_cut_at_grain)
    yield Bad("stream-grain-twice", "grain-misplaced", _stream_extra)
    yield Bad("stream-footer-version", "version-unknown", _footer_edit(4, b"\x09"))
    yield Bad("stream-footer-capacity", "footer-differs", _footer_edit(12, b"\x01"))
    yield Bad("stream-footer-grain", "footer-differs", _footer_edit(20, b"\x40"))
    yield Bad("stream-footer-magic", "header-bad", _footer_edit(0, b"X"))
    yield Bad("stream-footer-nowhere", "footer-differs", _footer_edit(56, b"\xff" * 8))
    yield Bad("stream-footer-directory", "table-outside", _footer_edit(56, struct.pack("<Q", 2**40)))
    yield Bad("stream-footer-other-directory", "table-outside", _footer_edit(56, struct.pack("<Q", 130)))
    yield Bad("stream-end-marker", "stream-truncated", _edited(_stream(), (-512, b"\1")))
    yield Bad("stream-marker-type", "marker-unknown", _marker_type)
    yield Bad("stream-directory-elsewhere", "grain-misplaced", _directory_entry(128))
    yield Bad("stream-directory-empty", "grain-misplaced", _directory_entry(0))
    yield Bad("stream-marker-sector", "grain-misplaced", _edited(_stream(), (128 * SECTOR, b"\x80")))
    yield Bad("stream-marker-askew", "grain-misplaced", _edited(_stream(), (128 * SECTOR, b"\1")))
    yield Bad("stream-marker-behind-end", "grain-misplaced", _edited(_stream(), (128 * SECTOR + 5, b"\1")))
    yield Bad("stream-marker-size", "grain-outside", _edited(_stream(), (128 * SECTOR + 8, b"\xff\xff\xff\x7f")))
    yield Bad("stream-entry-outside", "grain-misplaced", _stream_entry(2**31))
    yield Bad("stream-entry-table", "grain-misplaced", _stream_entry(21))
    yield Bad("stream-entry-missing", "grain-misplaced", _stream_entry(0))
    yield Bad("stream-not-packed", "header-bad", _edited(_stream(), (8, struct.pack("<I", 0x20001))))
    yield Bad("stream-tail", "marker-unknown", _tail)
    yield Bad("stream-unclean", "unclean", _edited(_stream(), (72, b"\1")))


def _tail(folder: Path) -> Path:
    path = vmdk.exported(folder, content(), footer=False)
    path.write_bytes(path.read_bytes() + bytes(5000) + b"x")
    return path


def _marker_type(folder: Path) -> Path:
    """The marker of the first grain table says that it is something else."""
    path = vmdk.exported(folder, content())
    data = bytearray(path.read_bytes())
    at = data.index(vmdk.marker(4, 1))
    data[at + 12] = 9
    path.write_bytes(data)
    return path


def _directory_entry(value: int) -> Callable[[Path], Path]:
    return _edited(_stream(), (-4 * SECTOR, struct.pack("<I", value)))


def _esx() -> Iterator[Bad]:
    """The snapshots of ESX and ESXi."""
    yield Bad("cowd-truncated", "file-truncated", _cowd(lambda data: data[:-1]))
    yield Bad("cowd-free-small", "table-outside", _cowd(free=60))
    yield Bad("cowd-free-none", "file-truncated", _cowd(free=0))
    yield Bad("cowd-magic", "version-unknown", _cowd(magic=b"XOWD"))
    yield Bad("cowd-version", "version-unknown", _cowd(version=2))
    yield Bad("cowd-flags", "version-unknown", _cowd(flags=7))
    yield Bad("cowd-unclean", "unclean", _cowd(unclean=1))
    yield Bad("cowd-capacity", "capacity-differs", _cowd(capacity=SIZE // SECTOR - 8))
    yield Bad("cowd-grain", "header-bad", _cowd(lambda data: data[:16] + b"\0" + data[17:]))
    yield Bad("cowd-directory", "header-bad", _cowd(directory=1))
    yield Bad("cowd-directory-far", "file-truncated", _cowd(directory=2**31))
    yield Bad("cowd-count", "header-bad", _cowd(count=0))
    yield Bad(
        "cowd-table-outside", "table-outside", _cowd(lambda data: data[:2048] + b"\xff\xff\xff\x7f" + data[2052:])
    )
    yield Bad("cowd-table-twice", "table-overlap", _cowd(lambda data: data[:2052] + data[2048:2052] + data[2056:]))
    yield Bad("cowd-entry", "grain-outside", _cowd(lambda data: data[:2560] + b"\xff\xff\xff\x7f" + data[2564:]))
    yield Bad("cowd-entry-table", "grain-overlap", _cowd(lambda data: data[:2560] + b"\5\0\0\0" + data[2564:]))
    yield Bad("sesparse-truncated", "grain-outside", _sesparse(lambda data: data[:-1]))
    yield Bad("sesparse-truncated-tables", "table-outside", _sesparse(lambda data: data[:20000]))
    yield Bad("sesparse-version", "version-unknown", _sesparse(version=1))
    yield Bad("sesparse-magic", "header-bad", _sesparse(magic=5))
    yield Bad("sesparse-flags", "header-bad", _sesparse(flags=1))
    yield Bad("sesparse-grain", "header-bad", _sesparse(grain=16))
    yield Bad("sesparse-table", "header-bad", _sesparse(table=32))
    yield Bad("sesparse-capacity", "capacity-differs", _sesparse(capacity=SIZE // SECTOR - 8))
    yield Bad("sesparse-capacity-huge", "capacity-bad", _sesparse(capacity=2**63))
    yield Bad("sesparse-journal", "unclean", _sesparse(replay=1))
    yield Bad("sesparse-pad", "header-bad", _sesparse(lambda data: data[:300] + b"\1" + data[301:]))
    yield Bad("sesparse-volatile", "header-bad", _sesparse(lambda data: data[:512] + b"\0" + data[513:]))
    yield Bad("sesparse-overlap", "table-overlap", _sesparse(journal=(12, 8)))
    yield Bad("sesparse-region-huge", "table-outside", _sesparse(directory=(12, 2**60)))
    yield Bad("sesparse-grains-size", "grain-outside", _sesparse(grains=(93, 8)))
    yield Bad(
        "sesparse-directory", "table-outside", _sesparse(lambda data: data[: 12 * 512] + b"\x05" + data[12 * 512 + 1 :])
    )
    yield Bad(
        "sesparse-directory-type", "table-outside", _sesparse(lambda d: d[: 12 * 512 + 7] + b"\x20" + d[12 * 512 + 8 :])
    )
    yield Bad("sesparse-entry-type", "grain-unknown", _sesparse_entry(4 << 60 | 1))
    yield Bad("sesparse-entry-unallocated", "grain-unknown", _sesparse_entry(7))
    yield Bad("sesparse-entry-outside", "grain-outside", _sesparse_entry(3 << 60 | 1 << 40))
    yield Bad("sesparse-entry-twice", "grain-overlap", _sesparse_entry(3 << 60))


def _others() -> Iterator[Bad]:
    """Raw images that are something else, and the formats that QEMU reads."""
    yield Bad("raw-odd", "size-odd", _raw(b"x" * 1000), "1000")
    yield Bad("raw-empty", "file-empty", _raw(b""))
    yield Bad("raw-qcow2", "format-disguised", _raw(b"QFI\xfb\0\0\0\3" + bytes(504)), "qcow2")
    yield Bad("raw-vmdk", "format-disguised", _raw(b"KDMV" + bytes(508)), "vmdk")
    yield Bad("raw-descriptor", "format-disguised", _raw(_text().encode().ljust(1024)), "vmdk")
    yield Bad("raw-vhd", "format-disguised", _raw(bytes(512) + b"conectix" + bytes(504)), "vpc")
    yield Bad("raw-vhdx", "format-disguised", _raw(b"vhdxfile" + bytes(504)), "vhdx")
    yield Bad("raw-vdi", "format-disguised", _raw(bytes(64) + b"\x7f\x10\xda\xbe" + bytes(444)), "vdi")
    yield Bad("raw-gzip", "format-disguised", _raw(b"\x1f\x8b" + bytes(510), "disk.img"), "gzip")
    yield Bad("raw-xz", "format-disguised", _raw(b"\xfd7zXZ\0" + bytes(506), "disk.dd"), "xz")
    yield Bad("vmdk-is-qcow2", "format-disguised", _qemu("x.vmdk", "create -q -f qcow2 x.vmdk 1M"), "qcow2")
    yield Bad("name-unknown", "format-unknown", _raw(content(), "disk.bin"), "known are")
    yield Bad("missing", "file-missing", lambda folder: folder / "disk.raw")
    yield Bad("member-of-none", "member-unknown", _raw(content()), "no archive", member="x.vmdk")
    yield Bad("qcow2-backing", "backing-file", _qemu("x.qcow2", "create -q -f qcow2 -u -b ../secret -F raw x.qcow2 1M"))
    yield Bad("qcow2-data-file", "data-file", _qemu("x.qcow2", "create -q -f qcow2 -o data_file=x.data x.qcow2 1M"))
    convert = "convert -f raw -O qcow2 made-from x.qcow2"
    yield Bad("qcow2-encrypted", "encrypted", _edited(_qemu("x.qcow2", convert), (35, b"\2")))
    yield Bad("qcow2-truncated", "grain-outside", _cut(_qemu("x.qcow2", convert), -(2**17)))
    yield Bad("qcow2-tables-cut", "file-truncated", _cut(_qemu("x.qcow2", convert), 2**17))
    yield Bad("qcow2-table-twice", "table-overlap", _qcow2_table_twice)
    yield Bad("qcow2-dirty", "unclean", _edited(_qemu("x.qcow2", convert), (79, b"\1")))
    yield Bad("qcow2-corrupt", "unclean", _edited(_qemu("x.qcow2", convert), (79, b"\2")))
    yield Bad("qcow2-features", "features-unknown", _edited(_qemu("x.qcow2", convert), (78, b"\1")))
    yield Bad("qcow2-version", "version-unknown", _edited(_qemu("x.qcow2", convert), (7, b"\1")))
    yield Bad("qcow2-cluster", "header-bad", _edited(_qemu("x.qcow2", convert), (23, b"\x28")))
    yield Bad("qcow2-size", "header-bad", _edited(_qemu("x.qcow2", convert), (24, b"\x7f")))
    yield Bad("qcow2-extension", "features-unknown", _edited(_qemu("x.qcow2", convert), (112, b"DATA\0\0\0\0")))
    vdi = _qemu("x.vdi", "convert -f raw -O vdi made-from x.vdi")
    yield Bad("vdi-truncated", "grain-outside", _cut(vdi, -(2**20)))
    yield Bad("vdi-difference", "backing-file", _edited(vdi, (0x4C, b"\4")))
    yield Bad("vdi-parent", "backing-file", _edited(vdi, (0x1A8, b"\1")))
    yield Bad("vdi-version", "version-unknown", _edited(vdi, (0x44, b"\2")))
    yield Bad("vdi-size", "header-bad", _edited(vdi, (0x176, b"\1")))
    yield Bad("vdi-block-twice", "grain-overlap", _edited(vdi, (512, bytes(8))))
    vhd = _qemu("x.vhd", "convert -f raw -O vpc -o force_size=on made-from x.vhd")
    yield Bad("vhd-truncated", "file-truncated", _cut(vhd, -512))
    yield Bad("vhd-footer", "header-bad", _edited(vhd, (-512 + 40, b"\7")))
    yield Bad("vhd-difference", "backing-file", lambda folder: _vhd_difference(vhd(folder)))
    fixed = _qemu("x.vhd", "convert -f raw -O vpc -o subformat=fixed,force_size=on made-from x.vhd")
    yield Bad("vhd-fixed-short", "file-truncated", lambda folder: _vhd_short(fixed(folder)))
    vhdx = _qemu("x.vhdx", "convert -f raw -O vhdx made-from x.vhdx")
    yield Bad("vhdx-truncated", "grain-outside", _cut(vhdx, -(2**20)))
    yield Bad("vhdx-headers", "header-bad", _edited(vhdx, (65540, b"\1\2\3"), (131076, b"\1\2\3")))
    yield Bad("vhdx-regions", "header-bad", _edited(vhdx, (196616, b"\x44")))
    yield Bad("vhdx-parent", "backing-file", lambda folder: _vhdx_parent(vhdx(folder)))


def _qcow2_table_twice(folder: Path) -> Path:
    """Two parts of the disk by one table; a list of millions would keep a reader busy for hours."""
    path = _qemu("x.qcow2", "create -q -f qcow2 -o preallocation=metadata,cluster_size=4k x.qcow2 8M")(folder)
    data = bytearray(path.read_bytes())
    (place,) = struct.unpack_from(">Q", data, 40)
    data[place + 8 : place + 16] = data[place : place + 8]
    path.write_bytes(data)
    return path


def _vhd_difference(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    for at in (0, len(data) - 512):
        data[at + 63] = 4
        data[at + 64 : at + 68] = bytes(4)
        data[at + 64 : at + 68] = struct.pack(">I", ~sum(data[at : at + 512]) & 0xFFFFFFFF)
    path.write_bytes(data)
    return path


def _vhd_short(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: -512 - 4096] + data[-512:])
    return path


def _vhdx_parent(path: Path) -> Path:
    """The flag that says so, in the file's parameters: they stand in the metadata, whose list names their place."""
    data = bytearray(path.read_bytes())
    item = data.index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"))
    table = data.rindex(b"metadata", 0, item)
    data[table + struct.unpack_from("<I", data, item + 16)[0] + 4] |= 2
    path.write_bytes(data)
    return path


def _archives() -> Iterator[Bad]:
    """OVAs and OVFs. The disk of a good one is db1.vmdk."""
    disk_name = "db1.vmdk"
    for name, kind, link in (
        ("link", b"2", "/etc/passwd"),
        ("hard-link", b"1", "db1.ovf"),
        ("fifo", b"6", ""),
        ("device", b"3", ""),
        ("block-device", b"4", ""),
        ("folder", b"5", ""),
        ("sparse", b"S", ""),
        ("long-name", b"L", ""),
        ("global-header", b"g", ""),
        ("unknown", b"Z", ""),
    ):
        yield Bad(f"ova-{name}", "member-special", _members(("x.vmdk", b"", kind, link)), member=disk_name)
    for name in ("/etc/passwd", "../x.vmdk", "sub/x.vmdk", "a:b", "c\\d", ".."):
        yield Bad(f"ova-name-{name}", "name-not-plain", _members((name, b"x", b"0", "")), member=disk_name)
    yield Bad("ova-twice", "member-twice", _members((disk_name, b"x", b"0", "")), member=disk_name)
    yield Bad("ova-two-ovfs", "archive-order", _members(("b.ovf", b"x", b"0", "")), "2 OVF")
    yield Bad("ova-order", "archive-order", _ordered, "not at its beginning")
    yield Bad(
        "ova-pax-path",
        "member-special",
        _members(("x", b"20 path=/etc/passwd\n", b"x", "")),
    )
    yield Bad("ova-pax-broken", "archive-damaged", _members(("x", b"99 path=x\n", b"x", "")))
    pax = archive.tar_member("x", b"20 mtime=1700000000\n", b"x")
    yield Bad(
        "ova-pax-twice", "archive-damaged", lambda f: write(f, "db1.ova", pax + pax + bytes(1024)), "two extended"
    )
    yield Bad("ova-hidden", "archive-hidden", _members(end=bytes(1024) + archive.tar([("y", b"y")])))
    yield Bad("ova-no-end", "file-truncated", _members(end=b""))
    yield Bad("ova-half-end", "archive-truncated", _members(end=bytes(512)))
    yield Bad("ova-cut", "archive-truncated", _ova(cut=20_000))
    yield Bad("ova-checksum", "archive-damaged", _edited(_ova(), (148, b"000000")))
    yield Bad("ova-no-tar", "format-unknown", _raw(content(), "db1.ova"))
    yield Bad("ova-gzip", "format-disguised", _raw(b"\x1f\x8b" + bytes(510), "db1.ova"), "gzip")
    yield Bad(
        "ova-negative-size",
        "archive-truncated",
        lambda f: write(f, "db1.ova", archive.tar_header("db1.ovf", 2**88 - 1) + bytes(9216)),
    )
    yield Bad("ova-doctype", "ovf-doctype", _ova(archive.ovf([archive.Disk(disk_name, SIZE)], before=_XXE)))
    yield Bad("ova-bomb", "ovf-doctype", _ova(archive.ovf([archive.Disk(disk_name, SIZE)], before=_BOMB)))
    yield Bad("ova-no-xml", "ovf-bad", _ova("<Envelope"), "no XML")
    yield Bad("ova-other-xml", "ovf-bad", _ova("<x/>"), "no OVF")
    yield Bad("ova-missing-disk", "file-missing", _ova(file="other.vmdk"), "other.vmdk")
    yield Bad("ova-other-member", "member-unknown", _ova(), "db1.vmdk", member="other.vmdk")
    yield Bad("ova-capacity", "capacity-differs", _ova(capacity=SIZE + 1), str(SIZE + 1))
    yield Bad("ova-capacity-unit", "ovf-bad", _ova(unit="bytes * 10"), "no unit")
    yield Bad("ova-capacity-word", "ovf-bad", _ova(capacity="${size}"), "capacity")  # type: ignore[arg-type]
    yield Bad("ova-difference", "ovf-snapshot", _ova(attributes='ovf:parentRef="other"'))
    yield Bad("ova-compressed", "member-compressed", _compressed, "gzip")
    yield Bad("ova-chunked", "member-chunked", _ova(file_attributes='ovf:chunkSize="1000"'))
    yield Bad("ova-no-controller", "ovf-bad", _ova(controller=99), "99")
    yield Bad(
        "ova-controller-twice", "ovf-bad", _ova(archive.ovf([archive.Disk(disk_name, SIZE)], items=_CONTROLLER_TWICE))
    )
    two = [archive.Disk(disk_name, SIZE), archive.Disk("", SIZE)]
    yield Bad("ova-same-address", "ovf-bad", _ova(archive.ovf(two)), "two disks at scsi 0:0")
    crowd = "".join(f"<Item><rasd:InstanceID>{number}</rasd:InstanceID></Item>" for number in range(100, 2200))
    yield Bad("ova-crowd", "ovf-bad", _ova(archive.ovf([archive.Disk(disk_name, SIZE)], more=crowd)), "more than 2048")
    yield Bad("ova-manifest-line", "manifest-bad", _ova(manifest=b"hello\n"), "hello")
    yield Bad("ova-manifest-short", "manifest-bad", _ova(manifest=b"SHA256(db1.vmdk)= abcd\n"))
    yield Bad("ova-manifest-md5", "manifest-bad", _ova(manifest=b"MD5(db1.vmdk)= " + b"0" * 32))
    yield Bad("ova-manifest-missing", "manifest-missing", _ova(manifest=archive.manifest([("x.vmdk", b"")])), "x.vmdk")
    yield Bad("ova-manifest-ovf", "manifest-mismatch", _ova(manifest=archive.manifest([("db1.ovf", b"")])), "db1.ovf")
    yield Bad("ova-manifest-disk", "manifest-mismatch", _damaged_member, "db1.vmdk")
    yield Bad("ova-qcow2", "member-format", _in_archive("x.qcow2", _qemu("y.qcow2", "create -q -f qcow2 y.qcow2 3M")))
    yield Bad("ova-text-descriptor", "member-not-alone", _in_archive("x.vmdk", _flat(str)))
    yield Bad("ova-truncated-disk", "stream-truncated", _in_archive("x.vmdk", _cut(_stream(), -512)))
    yield Bad("ovf-absolute", "name-not-plain", _ovf_beside("/etc/passwd"))
    yield Bad("ovf-above", "name-not-plain", _ovf_beside("../secret"))
    yield Bad("ovf-encoded", "name-not-plain", _ovf_beside("%2e%2e%2fsecret"))
    yield Bad("ovf-url", "name-not-plain", _ovf_beside("https://example.com/x.vmdk"))
    yield Bad("ovf-missing", "file-missing", _ovf_beside("x.vmdk"), "x.vmdk")


BAD: tuple[Bad, ...] = (
    *_descriptors(),
    *_files(),
    *_parents(),
    *_hosted(),
    *_streams(),
    *_esx(),
    *_others(),
    *_archives(),
)
