# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads the text that describes a VMDK. Pure.

What is not fully understood is refused. The text is never handed to another program, and where QEMU would understand it
differently (it searches the whole text for some of its keys) it is refused as well.
"""

from __future__ import annotations

import codecs
import re
import typing as t
from dataclasses import dataclass

from .errors import ImageRefusedError
from .runs import SECTOR

#: No descriptor is longer: QEMU reads no further, and 32 characters for each of 32768 extents fit.
MAX_BYTES = 1024 * 1024
#: No disk of VMware or QEMU is larger: 64 TiB.
MAX_DISK = 64 * 1024**4
NO_PARENT = 0xFFFFFFFF

_FIRST_LINE = re.compile(r"#\s*disk\s*descriptor\s*file\s*", re.IGNORECASE)
_EXTENT = re.compile(r"(?P<access>RW|RDONLY|NOACCESS)[ \t]+(?P<sectors>\d{1,18})[ \t]+(?P<type>[A-Za-z]+)(?P<rest>.*)")
_PLACE = re.compile(r'[ \t]+"(?P<name>[^"]*)"(?:[ \t]+(?P<offset>\d{1,18}))?[ \t]*')
_PAIR = re.compile(r"(?P<key>[A-Za-z][A-Za-z0-9_.\-]*)[ \t]*=[ \t]*(?P<value>.*)")
_CID_DIGITS = 8
_CID = re.compile(rf"[0-9A-Fa-f]{{1,{_CID_DIGITS}}}")
# What QEMU looks for by searching the text, comments and values included.
_SEARCHED = ("parentFileNameHint", "parentCID", "createType")
_KEYS = frozenset(
    {"version", "encoding", "CID", "parentCID", "isNativeSnapshot", "createType", "parentFileNameHint"}
    | {"changeTrackPath", "digestConfigured", "digestFilename", "digestType"}
)
# By name without hyphens and underscores. Python's own look-up would import a module by a name that others chose.
_ENCODINGS: t.Final = {
    re.sub(r"[-_]", "", name): name
    for name in (
        "ascii us-ascii utf-8 iso-8859-1 latin-1 iso-8859-15 shift_jis sjis cp932 euc-jp gbk gb2312 gb18030 big5 "
        "euc-kr cp949 cp437 cp850 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258"
    ).split()
}
_WRITTEN_AS = "a descriptor as VMware writes it"
_BY_VMWARE = "let VMware write the image again: vmkfstools -i, ovftool, or vmware-vdiskmanager -r"


@dataclass(frozen=True, slots=True)
class Extent:
    """One line of the description of extents.

    :param type: ``SPARSE``, ``FLAT``, ``VMFS``, ``VMFSSPARSE`` or ``SESPARSE``.
    :param offset: sector of the file at which it begins.
    """

    access: str
    sectors: int
    type: str
    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Subformat:
    """A kind of VMDK, by its ``createType``.

    :param extent: the type that its extents have.
    :param embedded: whether its descriptor is inside its only extent.
    :param single: whether it has just one extent.
    """

    name: str
    extent: str
    embedded: bool
    single: bool


SUBFORMATS: t.Final = {
    row.name: row
    for row in (
        Subformat("monolithicSparse", "SPARSE", embedded=True, single=True),
        Subformat("streamOptimized", "SPARSE", embedded=True, single=True),
        Subformat("monolithicFlat", "FLAT", embedded=False, single=True),
        Subformat("twoGbMaxExtentSparse", "SPARSE", embedded=False, single=False),
        Subformat("twoGbMaxExtentFlat", "FLAT", embedded=False, single=False),
        Subformat("vmfs", "VMFS", embedded=False, single=False),
        Subformat("vmfsSparse", "VMFSSPARSE", embedded=False, single=False),
        Subformat("seSparse", "SESPARSE", embedded=False, single=False),
    )
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What the text says.

    :param parent_cid: ``NO_PARENT`` for a disk that stands alone.
    :param hint: name of the parent's file, '' for none.
    """

    subformat: Subformat
    cid: int
    parent_cid: int
    hint: str
    extents: tuple[Extent, ...]

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return sum(extent.sectors for extent in self.extents) * SECTOR


def looks_like_descriptor(head: bytes) -> bool:
    """Whether a file that begins like this is meant to be a descriptor."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n").lower()
    return text.startswith(b"#") and re.match(rb"#\s*disk\s*descriptor\s*file", text) is not None


def mentioned_names(data: bytes) -> tuple[set[str], set[str]]:
    """The names that a text which may be no good descriptor gives to its extents, and to its parent."""
    text = data.split(b"\0", 1)[0].decode("utf-8", "replace")
    extents = re.findall(r'(?m)^[ \t]*[A-Z]+[ \t]+\d+[ \t]+[A-Z]+[ \t]+"([^"\n]*)"', text)
    parents = re.findall(r'(?m)^[ \t]*parentFileNameHint[ \t]*=[ \t]*"([^"\n]*)"', text)
    return set(extents), set(parents)


def parse_descriptor(name: str, data: bytes, *, embedded: bool) -> Descriptor:
    """Read a descriptor.

    :param name: the file that it is in, for messages.
    :param embedded: whether it is inside a sparse file.
    :raises ImageRefusedError: if it is not understood to the last line, or must not be followed.
    """
    keys, extents = _lines(name, _text(name, data))
    _check_version(name, keys)
    subformat = _subformat(name, keys, embedded=embedded)
    found = tuple(_extent(name, subformat, line) for line in extents)
    _check_extents(name, subformat, found)
    if keys.get("isNativeSnapshot", "no").casefold() != "no":
        raise ImageRefusedError(
            "native-snapshot", name, "is a snapshot that the storage array keeps", "consolidate it in VMware"
        )
    cid, parent_cid = _cid(name, keys, "CID"), _cid(name, keys, "parentCID")
    return Descriptor(subformat, cid, parent_cid, _hint(name, keys, parent_cid), found)


def _text(name: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _bad(name, f"is {len(data)} bytes long", f"allowed are {MAX_BYTES}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ImageRefusedError("descriptor-encoding", name, "is written in UTF-16", "save it as UTF-8")
    text, _nul, rest = data.removeprefix(codecs.BOM_UTF8).partition(b"\0")
    if not _is_left_over(text, rest.rstrip(b"\0")):
        raise _bad(name, "goes on after a NUL byte", _WRITTEN_AS)
    try:
        decoded = text.decode(_encoding(name, text))
    except UnicodeDecodeError as error:
        raise ImageRefusedError(
            "descriptor-encoding",
            name,
            f"has bytes at {error.start} that its encoding does not have",
            'save it as UTF-8 with encoding="UTF-8"',
        ) from None
    return decoded.replace("\r\n", "\n")


def _is_left_over(text: bytes, rest: bytes) -> bool:
    """Whether what follows the NUL byte is nothing, or the end of the text as it stood there before.

    QEMU writes a CID without leading zeros over one that may be longer, and what follows moves up by these few bytes
    (QEMU 7.2 and 10.0, block/vmdk.c, vmdk_write_cid). Nobody reads what it leaves behind the new end.
    """
    return len(rest) < _CID_DIGITS and text.endswith(rest)


def _encoding(name: str, text: bytes) -> str:
    match = re.search(rb'(?m)^encoding[ \t]*=[ \t]*"?([A-Za-z0-9_.\-]+)', text)
    if match is None:
        return "utf-8"
    declared = match[1].decode("ascii")
    found = _ENCODINGS.get(re.sub(r"[-_]", "", declared.lower()).replace("windows", "cp"))
    if found is None:
        raise ImageRefusedError(
            "descriptor-encoding", name, f"has the encoding {declared}, which is not known", "save it as UTF-8"
        )
    return found


def _lines(name: str, text: str) -> tuple[dict[str, str], list[str]]:
    """The pairs and the lines of extents of a descriptor."""
    lines = text.split("\n")
    head = next((line for line in lines if line.strip()), "")
    if not _FIRST_LINE.fullmatch(head.strip()):
        raise _bad(name, f"begins with {_short(head)}", "its first line is: # Disk DescriptorFile")
    keys: dict[str, str] = {}
    extents: list[str] = []
    for number, line in enumerate(lines, 1):
        if any(not char.isprintable() and char != "\t" for char in line):
            raise _bad(name, f"has a control character in line {number}", _WRITTEN_AS)
        if not line.strip() or line.startswith("#"):
            continue
        if _EXTENT.match(line):
            extents.append(line)
        else:
            _pair(name, number, line, keys)
    _check_search(name, text, keys)
    if not any(key.startswith("ddb.") for key in keys):
        raise ImageRefusedError(
            "descriptor-truncated",
            name,
            "ends before its disk data base (ddb.*), so that extents may be missing",
            f"copy it again; {_BY_VMWARE}",
        )
    return keys, extents


def _pair(name: str, number: int, line: str, keys: dict[str, str]) -> None:
    match = _PAIR.fullmatch(line)
    if match is None:
        raise _bad(name, f"has in line {number} {_short(line)}, which is not understood", _WRITTEN_AS)
    key, value = match["key"], match["value"].strip()
    if value.startswith('"'):
        if len(value) < 2 or not value.endswith('"') or '"' in value[1:-1]:
            raise _bad(name, f"has in line {number} a value that is not closed: {_short(line)}", _WRITTEN_AS)
        value = value[1:-1]
    elif '"' in value:
        raise _bad(name, f"has in line {number} a stray quotation mark: {_short(line)}", _WRITTEN_AS)
    if key in keys:
        raise _bad(name, f"has {key} twice", "each key stands there once")
    if key not in _KEYS and not key.startswith("ddb."):
        raise _bad(name, f"has in line {number} the key {key}, which is not known", f"known are {_listed()}, ddb.*")
    if "crypt" in key.casefold() or (key == "ddb.iofilters" and "crypt" in value.casefold()):
        raise ImageRefusedError("encrypted", name, f"is encrypted ({key})", "decrypt it in VMware first")
    keys[key] = value


def _check_search(name: str, text: str, keys: dict[str, str]) -> None:
    """QEMU finds these words wherever they stand; a text in which that is somewhere else has two meanings."""
    for word in _SEARCHED:
        found = text.count(word)
        allowed = 1 if word in keys else 0
        if found != allowed:
            raise ImageRefusedError(
                "descriptor-ambiguous",
                name,
                f"has the word {word} {found} times, {allowed} of them as a key",
                "remove it from comments and from other values: programs differ in what they find",
            )


def _check_version(name: str, keys: dict[str, str]) -> None:
    if keys.get("version") not in {"1", "2", "3"}:
        raise ImageRefusedError(
            "descriptor-version", name, f"has version={keys.get('version', '')}", "known are 1, 2 and 3"
        )


def _subformat(name: str, keys: dict[str, str], *, embedded: bool) -> Subformat:
    given = keys.get("createType", "")
    row = SUBFORMATS.get(given)
    if row is None:
        raise ImageRefusedError(
            "subformat-unknown", name, f"has createType={given!r}", f"known are {', '.join(SUBFORMATS)}; {_BY_VMWARE}"
        )
    if row.embedded is not embedded:
        place = "inside a sparse file" if embedded else "in a file of its own"
        raise ImageRefusedError(
            "subformat-misplaced", name, f"has createType={given!r}, but stands {place}", _BY_VMWARE
        )
    return row


def _extent(name: str, subformat: Subformat, line: str) -> Extent:
    match = _EXTENT.match(line)
    place = match and _PLACE.fullmatch(match["rest"])
    if not match or match["type"] != subformat.extent or not place:
        raise ImageRefusedError(
            "extent-unknown",
            name,
            f"has the extent {_short(line)}",
            f'{subformat.name} has extents like: RW 4192256 {subformat.extent} "name.vmdk"',
        )
    # VMware's exports mark the one extent of a stream so, which nobody could write to.
    if match["access"] != "RW" and subformat.name != "streamOptimized":
        raise ImageRefusedError(
            "extent-not-rw",
            name,
            f"has the extent {_short(line)}",
            "only RW extents are read, since QEMU drops the others and everything behind them moves",
        )
    return Extent(match["access"], int(match["sectors"]), match["type"], place["name"], int(place["offset"] or 0))


def _check_extents(name: str, subformat: Subformat, extents: tuple[Extent, ...]) -> None:
    if not extents or (subformat.single and len(extents) > 1):
        allowed = "has exactly one" if subformat.single else "has at least one"
        raise _bad(name, f"has {len(extents)} extents", f"{subformat.name} {allowed}")
    for extent in extents:
        if extent.sectors == 0:
            raise _bad(name, f"has the extent {extent.name!r} of 0 sectors", "an extent has at least one")
        if extent.offset and subformat.extent not in {"FLAT", "VMFS"}:
            raise _bad(name, f"has the extent {extent.name!r} at sector {extent.offset}", "only flat ones have that")
    size = sum(extent.sectors for extent in extents) * SECTOR
    if size > MAX_DISK or any(extent.offset * SECTOR > MAX_DISK for extent in extents):
        raise ImageRefusedError("disk-too-large", name, f"has a disk of {size} bytes", f"allowed are {MAX_DISK}")


def _cid(name: str, keys: dict[str, str], key: str) -> int:
    text = keys.get(key, "")
    if not _CID.fullmatch(text):
        raise _bad(name, f"has {key}={_short(text)}", "allowed are one to eight hexadecimal digits")
    return int(text, 16)


def _hint(name: str, keys: dict[str, str], parent_cid: int) -> str:
    hint = keys.get("parentFileNameHint", "")
    if parent_cid == NO_PARENT and "parentFileNameHint" in keys:
        raise ImageRefusedError(
            "parent-unexpected",
            name,
            f"names the parent {hint!r}, but parentCID says that it has none",
            "programs differ in which they believe; let VMware consolidate the snapshots",
        )
    if parent_cid != NO_PARENT and not hint:
        raise ImageRefusedError(
            "parent-unnamed",
            name,
            f"has a parent (parentCID={parent_cid:08x}) and does not name it",
            "add parentFileNameHint with the parent's name, or let VMware consolidate the snapshots",
        )
    return hint


def _listed() -> str:
    return ", ".join(sorted(_KEYS))


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _bad(name: str, problem: str, allowed: str) -> ImageRefusedError:
    return ImageRefusedError("descriptor-bad", name, f"the descriptor {problem}", f"{allowed}; {_BY_VMWARE}")
