# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads and checks a PKCS #7 signature as Windows uses it: one signer, RSA, its certificates brought along.

Sources: Microsoft, "Windows Authenticode Portable Executable Signature Format"; RFC 2315 (PKCS #7), RFC 5280
(certificates), RFC 8017 (RSA).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from .._core.errors import ParseError
from . import der

_SIGNED_DATA = "1.2.840.113549.1.7.2"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_NESTED = "1.3.6.1.4.1.311.2.4.1"
_RSA = "1.2.840.113549.1.1.1"
_DIGESTS = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_RSA_DIGESTS = {
    "1.2.840.113549.1.1.5": "sha1",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
_NAMES = {"2.5.4.3": "CN", "2.5.4.10": "O", "2.5.4.11": "OU"}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is needed of a certificate; names by ``CN``, ``O`` and ``OU``."""

    signed: bytes
    signature: bytes
    digest: str
    serial: bytes
    subject: Mapping[str, str]
    subject_encoded: bytes
    issuer: Mapping[str, str]
    issuer_encoded: bytes
    modulus: int
    exponent: int

    @property
    def own(self) -> bool:
        """Whether it is issued by itself."""
        return self.subject_encoded == self.issuer_encoded

    def issued(self, other: Certificate) -> bool:
        """Whether another certificate carries this one's signature."""
        return verified(self, other.digest, other.signed, other.signature)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that was checked: ``leaf``'s key has signed ``content``.

    :param kind: the object identifier of what the content is.
    :param chain: the certificates from the signer's upward, as far as they were brought along.
    :param nested: further signatures of the same thing, not checked yet.
    """

    kind: str
    content: der.Node
    digest: str
    chain: tuple[Certificate, ...]
    nested: tuple[bytes, ...] = ()

    @property
    def leaf(self) -> Certificate:
        """The signer's certificate."""
        return self.chain[0]


def read_signed(encoded: bytes) -> Signed:
    """Read a PKCS #7 signature and check it.

    :raises ParseError: when it is none, or was not made with the key of its certificate.
    """
    try:
        return _read(encoded)
    except (ValueError, IndexError, OverflowError) as error:
        raise ParseError("its signature can't be read") from error


def digest_name(algorithm: der.Node) -> str:
    """The name of a digest algorithm, as :mod:`hashlib` knows it.

    :raises ParseError: for one that no Windows driver is signed with.
    """
    oid = algorithm.child(0, der.OID).oid
    if oid not in _DIGESTS:
        raise ParseError(f"its signature uses an unknown digest ({oid})")
    return _DIGESTS[oid]


def name_of(name: Mapping[str, str]) -> str:
    """Who a name means, as people call them."""
    return name.get("CN") or name.get("OU") or name.get("O") or "somebody without a name"


def _read(encoded: bytes) -> Signed:
    outer = der.read(encoded)
    if outer.tag != der.SEQUENCE or outer.child(0, der.OID).oid != _SIGNED_DATA:
        raise ParseError("its signature is no PKCS #7")
    body = outer.child(1, 0xA0).child(0, der.SEQUENCE)
    certificates = [_certificate(node) for node in _optional(body, 0xA0)]
    infos = body.children()[-1]
    if infos.tag != der.SET or len(infos.children()) != 1:
        raise ParseError("its signature has no signer, or several")
    (info,) = infos.children()
    inner = body.child(2, der.SEQUENCE)
    content = inner.child(1, 0xA0).child(0, der.SEQUENCE)
    leaf = _leaf(info, certificates)
    digest = _check(info, content, leaf)
    nested = tuple(one.encoded for one in _attribute(_optional_node(info, 0xA1), _NESTED))
    return Signed(inner.child(0, der.OID).oid, content, digest, _chain(leaf, certificates), nested)


def _optional(parent: der.Node, tag: int) -> tuple[der.Node, ...]:
    node = _optional_node(parent, tag)
    return node.children() if node else ()


def _optional_node(parent: der.Node, tag: int) -> der.Node | None:
    return next((node for node in parent.children() if node.tag == tag), None)


def _leaf(info: der.Node, certificates: list[Certificate]) -> Certificate:
    """The certificate that a SignerInfo names by issuer and serial number."""
    named = info.child(1, der.SEQUENCE)
    issuer, serial = named.child(0, der.SEQUENCE).encoded, named.child(1, der.INTEGER).content
    for one in certificates:
        if (one.issuer_encoded, one.serial) == (issuer, serial):
            return one
    raise ParseError("its signature does not bring its certificate along")


def _check(info: der.Node, content: der.Node, leaf: Certificate) -> str:
    """Check that a SignerInfo signs the content with the leaf's key; the digest's name."""
    algorithm = digest_name(info.child(2, der.SEQUENCE))
    attributes = info.child(3, 0xA0)
    digests = [node.content for node in _attribute(attributes, _MESSAGE_DIGEST)]
    if digests != [hashlib.new(algorithm, content.content).digest()]:
        raise ParseError("its signature is of something else")
    if info.child(4, der.SEQUENCE).child(0, der.OID).oid not in (_RSA, *_RSA_DIGESTS):
        raise ParseError("its signature is not RSA, and can't be checked here")
    # What is signed has the tag of a set, not that of the field (RFC 2315, 9.3).
    signed = bytes([der.SET]) + attributes.encoded[1:]
    if not verified(leaf, algorithm, signed, info.child(5, der.OCTET_STRING).content):
        raise ParseError(f"its signature was not made by {name_of(leaf.subject)}")
    return algorithm


def _attribute(attributes: der.Node | None, oid: str) -> tuple[der.Node, ...]:
    for attribute in attributes.children() if attributes else ():
        if attribute.child(0, der.OID).oid == oid:
            return attribute.child(1, der.SET).children()
    return ()


def _chain(leaf: Certificate, certificates: list[Certificate]) -> tuple[Certificate, ...]:
    """From the leaf upward. A certificate that names an issuer which is there carries that one's signature."""
    chain = [leaf]
    while not (last := chain[-1]).own:
        above = [one for one in certificates if one.subject_encoded == last.issuer_encoded and one not in chain]
        if not above:
            break
        issuers = [one for one in above if one.issued(last)]
        if not issuers:
            raise ParseError(f"the certificate of {name_of(last.subject)} was not issued by {name_of(last.issuer)}")
        chain.append(issuers[0])
    return tuple(chain)


def _names(node: der.Node) -> Mapping[str, str]:
    """The parts of a name that have a meaning here; of several of a kind, the first."""
    found: dict[str, str] = {}
    for part in node.children():
        pair = part.child(0, der.SEQUENCE)
        kind = _NAMES.get(pair.child(0, der.OID).oid)
        if kind is not None and kind not in found:
            found[kind] = pair.children()[1].text
    return found


def _certificate(node: der.Node) -> Certificate:
    body = node.child(0, der.SEQUENCE)
    fields = [field for field in body.children() if field.tag != 0xA0]  # without the version, which may be missing
    serial, _algorithm, issuer, _validity, subject, key = fields[:6]
    modulus = exponent = 0  # of another kind of key, which no signature is checked with
    if key.child(0, der.SEQUENCE).child(0, der.OID).oid == _RSA:
        numbers = der.read(key.child(1, der.BIT_STRING).content[1:])
        modulus, exponent = (numbers.child(index, der.INTEGER).number for index in (0, 1))
    return Certificate(
        signed=body.encoded,
        signature=node.child(2, der.BIT_STRING).content[1:],
        digest=_RSA_DIGESTS.get(node.child(1, der.SEQUENCE).child(0, der.OID).oid, ""),
        serial=serial.content,
        subject=_names(subject),
        subject_encoded=subject.encoded,
        issuer=_names(issuer),
        issuer_encoded=issuer.encoded,
        modulus=modulus,
        exponent=exponent,
    )


def verified(certificate: Certificate, algorithm: str, data: bytes, signature: bytes) -> bool:
    """Whether the key of a certificate has signed data (RSASSA-PKCS1-v1_5, RFC 8017, 8.2.2)."""
    size = (certificate.modulus.bit_length() + 7) // 8
    if not algorithm or certificate.modulus <= 0 or not 0 < certificate.exponent < 1 << 64 or size > 1024:
        return False
    found = pow(int.from_bytes(signature, "big"), certificate.exponent, certificate.modulus).to_bytes(size, "big")
    oid = _encoded_oid(next(one for one, name in _DIGESTS.items() if name == algorithm))
    digest = hashlib.new(algorithm, data).digest()
    # The parameters of the digest may be NULL or missing (RFC 8017, appendix B.1).
    return found in {_padded(oid + tail, digest, size) for tail in (b"\x05\x00", b"")}


def _padded(algorithm: bytes, digest: bytes, size: int) -> bytes:
    """What RSA signs: the digest with its algorithm, filled up to the key's size."""
    info = _tagged(der.SEQUENCE, _tagged(der.SEQUENCE, algorithm) + _tagged(der.OCTET_STRING, digest))
    return b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info


def _tagged(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content  # all of these are shorter than 128 bytes


def _encoded_oid(oid: str) -> bytes:
    numbers = [int(part) for part in oid.split(".")]
    content = bytes([40 * numbers[0] + numbers[1]])
    for number in numbers[2:]:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.insert(0, number & 0x7F | 0x80)
        content += bytes(groups)
    return _tagged(der.OID, content)
