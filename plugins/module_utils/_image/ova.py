# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads an OVA: a tar archive with an OVF, its disks and a manifest. Nothing is unpacked; a disk is a part of the file.

What tar can do beyond plain files is refused, since it is there to reach other files or to hide some: links, devices,
FIFOs, sparse files, long names, paths, names that stand there twice, and members behind the archive's end.
"""

from __future__ import annotations

import hashlib
import re
import typing as t
from dataclasses import dataclass

from .errors import ImageRefusedError
from .files import COPY_AGAIN, check_name

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .files import ImageFile

_BLOCK = 512
#: An archive with more files is no guest.
_MAX_MEMBERS = 1024
#: tar fills up with zeros to 10 KiB, some programs to more.
_MAX_TAIL = 1024**2
#: An OVF has some kilobytes, a manifest a line for each file.
MAX_TEXT = 8 * 1024**2
_OCTAL = re.compile(rb"[0-7]+")
_PAX_LINE = re.compile(rb"(\d{1,6}) ([^=\n]+)=([^\n]*)\n")
# What tar writes besides, and what changes nothing about the content.
_HARMLESS = re.compile(rb"[acm]time|[ug]id|[ug]name|comment|LIBARCHIVE\.creationtime|SCHILY\.(dev|ino|nlink)")
_LINE = re.compile(r"(SHA1|SHA256|SHA512)\s*\((.+)\)\s*=\s*([0-9A-Fa-f]+)")
_REPACK = "make the archive again with ovftool, or with tar --format=ustar and plain names"


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in an archive.

    :param offset: byte of the archive at which its content begins.
    """

    name: str
    offset: int
    size: int


def read_members(file: ImageFile) -> tuple[TarMember, ...]:
    """The files of an archive, in order.

    :raises ImageRefusedError: if there is anything else in it than plain files with plain names, each once.
    """
    members: dict[str, TarMember] = {}
    offset, size, extended = 0, None, False
    while True:
        block = file.read(offset, _BLOCK)
        if not any(block):
            _check_end(file, offset)
            return tuple(members.values())
        name, kind, stated = _read_header(file.name, offset, block)
        if kind == b"x":
            if extended:
                raise _bad(file.name, "archive-damaged", "has two extended headers for one file", _REPACK)
            extended = True
            size = _pax_size(file.name, file.read(offset + _BLOCK, min(stated, 65536)))
            offset += _BLOCK + -(-stated // _BLOCK) * _BLOCK
            continue
        member = TarMember(name, offset + _BLOCK, stated if size is None else size)
        _check_member(file, member, kind, members)
        members[name] = member
        offset = member.offset + -(-member.size // _BLOCK) * _BLOCK
        size, extended = None, False


def _read_header(archive: str, offset: int, block: bytes) -> tuple[str, bytes, int]:
    """Name, type and size that a header states."""
    if block[257:262] != b"ustar" or _number(archive, block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
        raise _bad(archive, "archive-damaged", f"has no valid header at byte {offset}", COPY_AGAIN)
    kind = block[156:157]
    prefix = block[345:500].rstrip(b"\0") if block[257:263] == b"ustar\0" else b""
    raw = block[:100].split(b"\0", 1)[0]
    if prefix:
        raw = prefix + b"/" + raw
    return raw.decode("utf-8", "surrogateescape"), kind, _number(archive, block[124:136])


def _number(archive: str, field: bytes) -> int:
    """A number of a header: octal digits, or for large files binary behind a set bit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not _OCTAL.fullmatch(digits):
        raise _bad(archive, "archive-damaged", f"has the number {field!r} in a header", COPY_AGAIN)
    return int(digits, 8)


def _pax_size(archive: str, data: bytes) -> int | None:
    """What an extended header says about the next file's size; anything else that matters is refused."""
    size: int | None = None
    rest = data.rstrip(b"\0")
    while rest:
        match = _PAX_LINE.match(rest)
        if match is None or int(match[1]) != match.end():
            raise _bad(archive, "archive-damaged", "has an extended header that is not understood", _REPACK)
        if match[2] == b"size" and match[3].isdigit():
            size = int(match[3])
        elif not _HARMLESS.fullmatch(match[2]):
            raise _bad(
                archive, "member-special", f"has an extended header for {match[2].decode(errors='replace')!r}", _REPACK
            )
        rest = rest[match.end() :]
    return size


def _check_member(file: ImageFile, member: TarMember, kind: bytes, before: Mapping[str, TarMember]) -> None:
    if kind not in {b"0", b"\0"}:
        kinds = {b"1": "hard link", b"2": "link", b"3": "device", b"4": "device", b"5": "folder", b"6": "FIFO"}
        what = kinds.get(kind, f"member of type {kind.decode('latin-1')!r}")
        raise _bad(file.name, "member-special", f"has the {what} {member.name!r} in it", _REPACK)
    check_name(file.name, member.name)
    if member.name in before:
        raise _bad(file.name, "member-twice", f"has {member.name!r} in it twice", _REPACK)
    if len(before) == _MAX_MEMBERS:
        raise _bad(file.name, "archive-damaged", f"has more than {_MAX_MEMBERS} files in it", _REPACK)
    if member.offset + member.size > file.length:
        raise _bad(
            file.name,
            "archive-truncated",
            f"is cut off: {member.name} goes up to byte {member.offset + member.size}, the file has {file.length}",
            COPY_AGAIN,
        )


def _check_end(file: ImageFile, offset: int) -> None:
    """Two blocks of zeros end an archive. Nothing but zeros follows them."""
    rest = file.length - offset
    if rest < 2 * _BLOCK:
        raise _bad(file.name, "archive-truncated", "is cut off: its end is missing", COPY_AGAIN)
    if rest > _MAX_TAIL or any(file.read(offset, rest)):
        raise _bad(file.name, "archive-hidden", f"goes on behind its end at byte {offset}", _REPACK)


def find_ovf(archive: str, names: Iterable[str]) -> str:
    """The OVF of an archive, which comes first.

    :raises ImageRefusedError: if it does not, or if there is more than one.
    """
    listed = list(names)
    found = [name for name in listed if name.lower().endswith(".ovf")]
    if len(found) != 1 or listed[0] != found[0]:
        where = "not at its beginning" if len(found) == 1 else f"{len(found)} OVF files"
        raise _bad(archive, "archive-order", f"has its OVF {where}" if found else "has no OVF", _REPACK)
    return found[0]


def find_manifest(archive: str, ovf: str, names: Iterable[str]) -> str:
    """The manifest that belongs to an OVF, '' for none."""
    wanted = ovf[: -len(".ovf")].lower() + ".mf"
    found = [name for name in names if name.lower() == wanted]
    if len(found) > 1:
        raise _bad(archive, "manifest-bad", f"has {len(found)} manifests", "there is one")
    return found[0] if found else ""


def read_manifest(name: str, data: bytes, names: Iterable[str]) -> dict[str, str]:
    """The digests of a manifest by file: ``sha256:0f3a…``.

    :param names: the files that there are.
    :raises ImageRefusedError: if a line is not understood, or names a file that is not there.
    """
    there, digests = set(names), dict[str, str]()
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or len(match[3]) != hashlib.new(match[1], usedforsecurity=False).digest_size * 2:
            raise _bad(
                name, "manifest-bad", f"has the line {line[:80]!r}", "a line is: SHA256(name)= hexadecimal digits"
            )
        if match[2] in digests:
            raise _bad(name, "manifest-bad", f"has {match[2]!r} twice", "each file stands there once")
        if match[2] not in there:
            raise _bad(
                name, "manifest-missing", f"names {match[2]!r}, which is not there", "copy all files of the guest"
            )
        digests[match[2]] = f"{match[1].lower()}:{match[3].lower()}"
    return digests


def check_text(name: str, data: bytes, digest: str) -> None:
    """Hold a small file against the manifest.

    :param digest: as ``read_manifest`` gives it, '' for none.
    """
    kind, _colon, wanted = digest.partition(":")
    if digest and (found := hashlib.new(kind, data, usedforsecurity=False).hexdigest()) != wanted:
        raise manifest_mismatch(name, kind, found, wanted)


def manifest_mismatch(name: str, kind: str, found: str, wanted: str) -> ImageRefusedError:
    """The refusal of a file that is not the one that the manifest speaks of."""
    return _bad(
        name,
        "manifest-mismatch",
        f"its {kind} is {found}, the manifest says {wanted}",
        "copy or export it again; if it was changed on purpose, correct or remove the manifest",
    )


def _bad(name: str, code: str, problem: str, remedy: str) -> ImageRefusedError:
    return ImageRefusedError(code, name, problem, remedy)
