# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Who has signed a driver, and whether a Windows would load it.

What is proven: the file, or the catalogue that lists its digest, is what was signed, and the signature was made with
the key of the certificate that it names; where issuers' certificates are brought along, theirs as well. What is not:
that a certificate which calls itself Microsoft's is Microsoft's. No Debian knows Microsoft's roots. The check finds
drivers that Windows would refuse; against a forged ISO only the ISO's checksum helps.

Sources: Microsoft, "Windows Authenticode Portable Executable Signature Format" and "Driver signing policy"; the
drivers in virtio-win-pkg-scripts fe58e15, data/old-drivers.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import ParseError
from . import der
from .pe import Executable
from .pkcs7 import Certificate, Signed, digest_name, name_of, read_signed
from .releases import Signature

_INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"
_CATALOGUE = "1.3.6.1.4.1.311.10.1"


class Kind(enum.Enum):
    """What kind of signature a driver has."""

    #: Microsoft's own, as from its hardware programme.
    MICROSOFT = "microsoft"
    #: A publisher's, with a certificate that another authority has issued.
    PUBLISHER = "publisher"
    #: With a certificate that nobody but its owner vouches for: loaded only where test signing is switched on.
    TEST = "test"
    #: None at all.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who has signed a driver.

    :param name: the certificate's owner, empty without a signature.
    :param issuer: who issued the certificate.
    :param digest: the digest algorithm, ``sha1`` or ``sha256``.
    :param catalogue: whether it is the catalogue that is signed.
    """

    kind: Kind
    name: str = ""
    issuer: str = ""
    digest: str = ""
    catalogue: bool = False

    def __str__(self) -> str:
        if self.kind is Kind.NONE:
            return "nobody"
        by = "itself" if self.name == self.issuer else self.issuer
        return f"{self.name}, certified by {by} ({self.digest}{', in the catalogue' if self.catalogue else ''})"


def find_signers(file: Executable, catalogue: bytes | None = None) -> tuple[Signer, ...]:
    """Who has signed a driver: in the file itself, and in its catalogue.

    :param catalogue: the content of the ``.cat`` beside it, if there is one.
    :raises ParseError: when a signature does not belong to the file, or can't be checked.
    """
    found = [_signer(one) for one in _embedded(file)]
    if catalogue is not None:
        signed = read_signed(catalogue)
        if signed.kind != _CATALOGUE or not _lists(signed.content.content, file):
            raise ParseError("its catalogue does not list it")
        found.append(_signer(signed, catalogue=True))
    return tuple(found) or (Signer(Kind.NONE),)


def would_load(wanted: Signature, signer: Signer) -> bool:
    """Whether a Windows that wants such a signature loads a driver of this signer, without test signing."""
    if wanted is Signature.NONE:
        return True
    if wanted is Signature.MICROSOFT:
        return signer.kind is Kind.MICROSOFT
    signed = signer.kind in (Kind.MICROSOFT, Kind.PUBLISHER)
    return signed and (wanted is Signature.CROSS or signer.digest == "sha1")


def _embedded(file: Executable) -> Iterator[Signed]:
    """The signatures in a file: those of its table, and those that are nested in them."""
    for encoded in file.signatures:
        signed = read_signed(encoded)
        _check_file(signed, file)
        yield signed
        for nested in signed.nested:
            other = read_signed(nested)
            _check_file(other, file)
            yield other


def _check_file(signed: Signed, file: Executable) -> None:
    if signed.kind != _INDIRECT_DATA:
        raise ParseError("its signature is none of a file")
    info = signed.content.child(1, der.SEQUENCE)
    algorithm = digest_name(info.child(0, der.SEQUENCE))
    if info.child(1, der.OCTET_STRING).content != _digest(file, algorithm):
        raise ParseError("it was changed after it was signed")


def _digest(file: Executable, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm)
    for part in file.parts():
        digest.update(part)
    return digest.digest()


def _lists(catalogue: bytes, file: Executable) -> bool:
    """Whether the content of a catalogue has the file's digest in one of its members."""
    digests = (_digest(file, algorithm) for algorithm in ("sha1", "sha256"))
    return any(bytes([der.OCTET_STRING, len(digest)]) + digest in catalogue for digest in digests)


def _signer(signed: Signed, *, catalogue: bool = False) -> Signer:
    leaf = signed.leaf
    return Signer(_kind(signed), name_of(leaf.subject), name_of(leaf.issuer), signed.digest, catalogue)


def _kind(signed: Signed) -> Kind:
    """Microsoft's, a publisher's, or one that nobody else vouches for, by the names along the chain."""
    leaf = signed.leaf
    if leaf.own or _is_test(signed.chain[-1]):
        return Kind.TEST
    microsoft = leaf.subject.get("O") == leaf.issuer.get("O") == "Microsoft Corporation"
    return Kind.MICROSOFT if microsoft else Kind.PUBLISHER


def _is_test(top: Certificate) -> bool:
    """Whether a chain ends with a test authority: the virtio-win project's own, or one that Microsoft's kits make."""
    names = " ".join((*top.subject.values(), *top.issuer.values()))
    return top.issuer.get("OU") == "Dev" or "Test" in names or top.issuer.get("O") == "virtio-win"
