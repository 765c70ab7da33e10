# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver files as on the driver ISO: an INF, an executable that does nothing, and a catalogue that is really signed.

Who signs calls itself Microsoft or the virtio-win project; the keys are made anew in each process.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import struct
from collections.abc import Iterable, Mapping

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

# Folder and stem on the ISO, and the devices that the INF names.
KINDS = {
    "vioscsi": ("vioscsi", "vioscsi"), "viostor": ("viostor", "viostor"), "vioserial": ("vioserial", "vioser"),
    "netkvm": ("NetKVM", "netkvm"), "balloon": ("Balloon", "balloon"),
}  # fmt: skip
FOLDERS = ("2k8", "2k8R2", "w7", "2k12R2", "2k16", "w10", "w11", "2k22", "2k25")
SHA1 = ("2k8", "2k8R2", "w7")  # these can check no other digest
VERSION = "100.95.104.26200"
MICROSOFT = ("Microsoft Windows Hardware Compatibility Publisher", "Microsoft Corporation")
VIRTIO_WIN = ("Red Hat Inc.", "virtio-win")
_DIGESTS = {"sha1": "2b0e03021a", "sha256": "608648016503040201"}
_RSA = "2a864886f70d010101"
_SIGNED_DATA, _CATALOGUE = "2a864886f70d010702", "2b060104018237" + "0a01"
_CONTENT_TYPE, _DIGEST = "2a864886f70d010903", "2a864886f70d010904"


@functools.cache
def standard() -> Mapping[str, bytes]:
    """The ISO that is in a drive when nobody says which."""
    return iso()


def iso(version: str = VERSION, *, signer: tuple[str, str] = MICROSOFT, names: Iterable[str] = KINDS,
        folders: Iterable[str] = FOLDERS, architecture: str = "amd64") -> dict[str, bytes]:  # fmt: skip
    """The files of a driver ISO with their paths on it.

    :param signer: common name and organisation of the certificate that signs.
    """
    found: dict[str, bytes] = {}
    for name in names:
        folder, stem = KINDS[name]
        for release in folders:
            place = f"{folder}/{release}/{architecture}/{stem}"
            digest = "sha1" if release in SHA1 else "sha256"
            found |= {place + suffix: data for suffix, data in package(stem, version, signer, digest).items()}
    return found


def package(
    stem: str, version: str, signer: tuple[str, str] = MICROSOFT, digest: str = "sha256"
) -> dict[str, bytes]:
    """The files of one driver by suffix."""
    image = executable(f"{stem} {version}".encode())
    text = f'[Version]\nSignature="$WINDOWS NT$"\nCatalogFile={stem}.cat\nDriverVer = 08/22/2024,{version}\n'
    return {".inf": text.encode(), ".sys": image, ".cat": catalogue(image, signer, digest)}


def executable(content: bytes) -> bytes:
    """The least that is an executable for amd64."""
    optional = struct.pack("<H", 0x20B).ljust(108, b"\0") + struct.pack("<I", 16) + bytes(16 * 8)
    header = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 0, 0, 0, 0, len(optional), 0x2022) + optional
    return (b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + header + content).ljust(1024, b"\0")


def authenticode(image: bytes, digest: str) -> bytes:
    """The digest that a catalogue lists: all but the checksum and the place of the signature."""
    optional = 0x40 + 24
    entry = optional + 112 + 4 * 8
    return hashlib.new(digest, image[: optional + 64] + image[optional + 68 : entry] + image[entry + 8 :]).digest()


def catalogue(image: bytes, signer: tuple[str, str], digest: str) -> bytes:
    """A signed catalogue that lists an executable."""
    key, certificates = _authority(*signer)
    leaf = certificates[0]
    content = _der(0x30, _der(0x04, authenticode(image, digest)))
    inner = content[2:]  # what is digested has no tag and no length, which is short here
    attributes = _der(0x30, _oid(_CONTENT_TYPE) + _der(0x31, _oid(_CATALOGUE))) + _der(
        0x30, _oid(_DIGEST) + _der(0x31, _der(0x04, hashlib.new(digest, inner).digest()))
    )
    known = hashes.SHA1() if digest == "sha1" else hashes.SHA256()  # what old drivers are signed with
    signature = key.sign(_der(0x31, attributes), padding.PKCS1v15(), known)
    algorithm = _der(0x30, _oid(_DIGESTS[digest]) + b"\x05\x00")
    info = _der(0x30, _der(0x02, b"\x01") + _der(0x30, leaf.issuer.public_bytes() + _serial(leaf)) + algorithm
                + _der(0xA0, attributes) + _der(0x30, _oid(_RSA) + b"\x05\x00") + _der(0x04, signature))  # fmt: skip
    encoded = b"".join(one.public_bytes(serialization.Encoding.DER) for one in certificates)
    body = _der(0x30, _der(0x02, b"\x01") + _der(0x31, algorithm) + _der(0x30, _oid(_CATALOGUE) + _der(0xA0, content))
                + _der(0xA0, encoded) + _der(0x31, info))  # fmt: skip
    return _der(0x30, _oid(_SIGNED_DATA) + _der(0xA0, body))


@functools.cache
def _authority(name: str, organisation: str) -> tuple[rsa.RSAPrivateKey, list[x509.Certificate]]:
    """A key with its certificate and the one of its authority; the virtio-win project vouches for itself."""
    top = rsa.generate_private_key(65537, 2048)
    authority = "Dev CA" if organisation == "virtio-win" else "Microsoft Windows Third Party Component CA"
    above = _names(authority, organisation)
    key = rsa.generate_private_key(65537, 2048)
    below = _names(name, organisation)
    return key, [_certificate(below, above, key, top), _certificate(above, above, top, top)]


def _names(name: str, organisation: str) -> x509.Name:
    unit = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Dev")] if organisation == "virtio-win" else []
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), *unit]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, by: rsa.RSAPrivateKey
) -> x509.Certificate:
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    built = x509.CertificateBuilder(issuer, subject, key.public_key(), 4711, start, start.replace(year=2044))
    return built.sign(by, hashes.SHA256())


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _oid(encoded: str) -> bytes:
    return _der(0x06, bytes.fromhex(encoded))


def _serial(certificate: x509.Certificate) -> bytes:
    number = certificate.serial_number
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
