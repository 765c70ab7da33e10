# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver files from nothing, signed as Windows wants it, by authorities of our own that bear the real ones' names.

The cryptography is that of the package of this name; what Windows adds is put together here, after Microsoft's "Windows
Authenticode Portable Executable Signature Format".
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import struct
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}
DIGEST_OIDS = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1"}
INDIRECT_DATA, CATALOGUE = "1.3.6.1.4.1.311.2.1.4", "1.3.6.1.4.1.311.10.1"
MACHINES = {"x86": 0x14C, "amd64": 0x8664, "ARM64": 0xAA64}


# ---- certificates


@dataclass(frozen=True)
class Identity:
    """A key with its certificate, and the certificates that it brings along."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]


@functools.cache
def _key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common: str, organization: str, unit: str = "") -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, organization), (NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]
    parts.append((NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text])


def _certificate(subject: x509.Name, issuer: x509.Name, key: str, issuing_key: str) -> x509.Certificate:
    start = datetime.datetime(2020, 1, 1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(_key(key).public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=3650))
    return builder.sign(_key(issuing_key), hashes.SHA256())


@functools.cache
def identity(who: str) -> Identity:
    """``microsoft``, ``publisher`` (cross-signed), ``test`` (self-signed, as virtio-win's own builds) or ``wdk``."""
    if who == "test":
        name = _name("Red Hat Inc.", "virtio-win", "Dev")
        own = _certificate(name, name, "test", "test")
        return Identity(_key("test"), own, (own,))
    names = {
        "microsoft": (
            _name("Microsoft Windows Hardware Compatibility Publisher", "Microsoft Corporation"),
            _name("Microsoft Windows Third Party Component CA 2014", "Microsoft Corporation"),
        ),
        "publisher": (
            _name("Red Hat, Inc.", "Red Hat, Inc."),
            _name("VeriSign Class 3 Code Signing 2010 CA", "VeriSign, Inc."),
        ),
        "wdk": (_name("WDKTestCert builder", "builder"), _name("WDK Test Authority", "builder")),
    }
    leaf, authority = names[who]
    root = _name(f"Root of {who}", "Roots")
    middle = _certificate(authority, root, "authority", "root")
    certificate = _certificate(leaf, authority, who, "authority")
    return Identity(_key(who), certificate, (certificate, middle))


# ---- DER


def tlv(tag: int, *parts: bytes) -> bytes:
    """A value of DER."""
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else _long(size)
    return bytes([tag]) + length + content


def _long(size: int) -> bytes:
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits


def oid(text: str) -> bytes:
    """An object identifier."""
    return x509.ObjectIdentifier(text) and _oid([int(part) for part in text.split(".")])


def _oid(numbers: list[int]) -> bytes:
    content = bytes([40 * numbers[0] + numbers[1]])
    for number in numbers[2:]:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.insert(0, number & 0x7F | 0x80)
        content += bytes(groups)
    return tlv(0x06, content)


def _algorithm(name: str) -> bytes:
    return tlv(0x30, oid(DIGEST_OIDS[name]), b"\x05\x00")


def signed_data(who: Identity, kind: str, content: bytes, digest: str, nested: bytes | None = None) -> bytes:
    """A PKCS #7 signature.

    :param content: the content of the SEQUENCE that is signed.
    :param nested: a further signature of the same thing, as ``signtool /as`` adds it.
    """
    attributes = b"".join(
        [
            tlv(0x30, oid("1.2.840.113549.1.9.3"), tlv(0x31, oid(kind))),
            tlv(0x30, oid("1.2.840.113549.1.9.4"), tlv(0x31, tlv(0x04, hashlib.new(digest, content).digest()))),
        ]
    )
    signature = who.key.sign(tlv(0x31, attributes), padding.PKCS1v15(), HASHES[digest])
    issuer = who.certificate.issuer.public_bytes()
    serial = who.certificate.serial_number
    number = tlv(0x02, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
    info = [
        tlv(0x02, b"\x01"),
        tlv(0x30, issuer, number),
        _algorithm(digest),
        tlv(0xA0, attributes),
        tlv(0x30, oid("1.2.840.113549.1.1.1"), b"\x05\x00"),
        tlv(0x04, signature),
    ]
    if nested is not None:
        info.append(tlv(0xA1, tlv(0x30, oid("1.3.6.1.4.1.311.2.4.1"), tlv(0x31, nested))))
    certificates = b"".join(one.public_bytes(serialization.Encoding.DER) for one in who.chain)
    body = tlv(
        0x30,
        tlv(0x02, b"\x01"),
        tlv(0x31, _algorithm(digest)),
        tlv(0x30, oid(kind), tlv(0xA0, tlv(0x30, content))),
        tlv(0xA0, certificates),
        tlv(0x31, tlv(0x30, *info)),
    )
    return tlv(0x30, oid("1.2.840.113549.1.7.2"), tlv(0xA0, body))


# ---- driver files


def driver_file(architecture: str = "amd64", text: bytes = b"a driver") -> bytes:
    """A file that has the headers of a driver, and no code. Its size is a multiple of eight, as signing wants it."""
    wide = architecture != "x86"
    optional = struct.pack("<H", 0x20B if wide else 0x10B).ljust(112 if wide else 96, b"\0")
    optional = optional[:-4] + struct.pack("<I", 16) + bytes(16 * 8)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0"
    head += struct.pack("<HHIIIHH", MACHINES[architecture], 1, 0, 0, 0, len(optional), 0x22)
    return (head + optional).ljust(0x400, b"\0") + text.ljust((len(text) + 7) // 8 * 8, b"\0")


def signed(file: bytes, who: str, digest: str = "sha256", nested: str | None = None) -> bytes:
    """A driver file with a signature in it.

    :param nested: who has signed it, too, after ``who``.
    """
    inner = _file_signature(file, nested, "sha256") if nested else None
    signature = _file_signature(file, who, digest, inner)
    return _appended(file, signature)


def digest_of(file: bytes, digest: str) -> bytes:
    """What is signed of an unsigned file: all but the checksum and the place of the signature."""
    checksum, entry = _places(file)
    return hashlib.new(digest, file[:checksum] + file[checksum + 4 : entry] + file[entry + 8 :]).digest()


def _places(file: bytes) -> tuple[int, int]:
    optional = struct.unpack_from("<I", file, 0x3C)[0] + 24
    wide = struct.unpack_from("<H", file, optional)[0] == 0x20B
    return optional + 64, optional + (112 if wide else 96) + 32


def _file_signature(file: bytes, who: str, digest: str, nested: bytes | None = None) -> bytes:
    about = tlv(0x30, oid("1.3.6.1.4.1.311.2.1.15"), tlv(0x30, tlv(0x03, b"\0")))
    content = about + tlv(0x30, _algorithm(digest), tlv(0x04, digest_of(file, digest)))
    return signed_data(identity(who), INDIRECT_DATA, content, digest, nested)


def _appended(file: bytes, signature: bytes) -> bytes:
    size = (8 + len(signature) + 7) // 8 * 8
    _checksum, entry = _places(file)
    whole = bytearray(file)
    whole[entry : entry + 8] = struct.pack("<II", len(file), size)
    return bytes(whole) + (struct.pack("<IHH", size, 0x200, 2) + signature).ljust(size, b"\0")


def catalogue(files: list[bytes], who: str, digest: str = "sha256") -> bytes:
    """A catalogue that lists unsigned files."""
    members = [tlv(0x30, tlv(0x30, _algorithm(digest), tlv(0x04, digest_of(file, digest)))) for file in files]
    return signed_data(identity(who), CATALOGUE, b"".join(members), digest)
