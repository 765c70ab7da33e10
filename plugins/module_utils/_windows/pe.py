# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads what matters of a driver file: for which processor it is, what is signed of it, and its signature.

Source: Microsoft, "PE Format" and "Windows Authenticode Portable Executable Signature Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import ParseError

#: The processor that a file is for, by the name of the folder on the ISO.
MACHINES = {0x014C: "x86", 0x8664: "amd64", 0xAA64: "ARM64"}
# Where the checksum and the certificates' directory entry stand, by the optional header's magic number.
_CHECKSUM = 64
_DIRECTORIES = {0x10B: 96, 0x20B: 112}
_SECURITY = 4
_PKCS7 = 2


@dataclass(frozen=True, slots=True)
class Executable:
    """A driver file.

    :param architecture: ``x86``, ``amd64`` or ``ARM64``.
    :param signed: the stretches of the file that a signature covers, as (start, end).
    :param signatures: the entries of its table of certificates, each a PKCS #7 as DER.
    """

    data: bytes
    architecture: str
    signed: tuple[tuple[int, int], ...]
    signatures: tuple[bytes, ...]

    def parts(self) -> Iterator[bytes]:
        """What a signature covers, to be digested."""
        for start, end in self.signed:
            yield self.data[start:end]


def read_executable(data: bytes) -> Executable:
    """Read a driver file.

    :raises ParseError: when it is no Windows executable, or its headers contradict its size.
    """
    try:
        return _read(data)
    except struct.error as error:
        raise ParseError("it is no Windows executable: its headers end too early") from error


def _read(data: bytes) -> Executable:
    (header,) = struct.unpack_from("<I", data, 0x3C)
    if data[:2] != b"MZ" or data[header : header + 4] != b"PE\0\0":
        raise ParseError("it is no Windows executable")
    (machine,) = struct.unpack_from("<H", data, header + 4)
    optional = header + 24
    (magic,) = struct.unpack_from("<H", data, optional)
    if machine not in MACHINES or magic not in _DIRECTORIES:
        raise ParseError(f"it is an executable for an unknown processor (0x{machine:04x})")
    checksum, entry = optional + _CHECKSUM, optional + _DIRECTORIES[magic] + 8 * _SECURITY
    (directories,) = struct.unpack_from("<I", data, optional + _DIRECTORIES[magic] - 4)
    start, size = struct.unpack_from("<II", data, entry) if directories > _SECURITY else (0, 0)
    end = start if size else len(data)
    if size and not entry + 8 <= start <= start + size <= len(data):
        raise ParseError("its signature lies outside the file")
    signed = [(0, checksum), (checksum + 4, entry), (entry + 8, end)]
    if size and start + size < len(data):
        signed.append((start + size, len(data)))
    return Executable(data, MACHINES[machine], tuple(signed), tuple(_certificates(data, start, start + size)))


def _certificates(data: bytes, position: int, end: int) -> Iterator[bytes]:
    """The PKCS #7 entries of the table of certificates; each begins at a multiple of eight bytes."""
    while position + 8 <= end:
        length, _revision, kind = struct.unpack_from("<IHH", data, position)
        if not 8 <= length <= end - position:
            raise ParseError("its table of signatures contradicts itself")
        if kind == _PKCS7:
            yield data[position + 8 : position + length]
        position += (length + 7) // 8 * 8
