# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures of drivers, made here by other means than those that read them."""

from __future__ import annotations

import random
import struct

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows import der
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.pe import read_executable
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import Signature
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.signer import (
    Kind,
    Signer,
    find_signers,
    would_load,
)
from hypothesis import given
from hypothesis import strategies as st
from winguest.authenticode import catalogue, driver_file, identity, oid, signed, tlv

PLAIN = driver_file()


def signers(file: bytes, cat: bytes | None = None) -> list[tuple[Kind, str, bool]]:
    return [(one.kind, one.digest, one.catalogue) for one in find_signers(read_executable(file), cat)]


@pytest.mark.parametrize("architecture", ["x86", "amd64", "ARM64"])
def test_architecture(architecture: str) -> None:
    assert read_executable(driver_file(architecture)).architecture == architecture


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        ("microsoft", Kind.MICROSOFT),
        ("publisher", Kind.PUBLISHER),
        ("test", Kind.TEST),
        ("wdk", Kind.TEST),
    ],
)
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_who_has_signed(who: str, kind: Kind, digest: str) -> None:
    assert signers(signed(PLAIN, who, digest)) == [(kind, digest, False)]


def test_nobody() -> None:
    assert signers(PLAIN) == [(Kind.NONE, "", False)]
    assert str(Signer(Kind.NONE)) == "nobody"


def test_in_words() -> None:
    (test,) = find_signers(read_executable(signed(PLAIN, "test")))
    assert str(test) == "Red Hat Inc., certified by itself (sha256)"
    (other,) = find_signers(read_executable(signed(PLAIN, "publisher", "sha1")))
    assert str(other) == "Red Hat, Inc., certified by VeriSign Class 3 Code Signing 2010 CA (sha1)"


def test_signed_twice() -> None:
    """As Microsoft adds its signature to one that is there."""
    file = signed(PLAIN, "publisher", "sha1", nested="microsoft")
    assert signers(file) == [(Kind.PUBLISHER, "sha1", False), (Kind.MICROSOFT, "sha256", False)]


def test_in_the_catalogue() -> None:
    cat = catalogue([driver_file("x86"), PLAIN], "microsoft")
    assert signers(PLAIN, cat) == [(Kind.MICROSOFT, "sha256", True)]
    assert signers(signed(PLAIN, "test"), cat) == [(Kind.TEST, "sha256", False), (Kind.MICROSOFT, "sha256", True)]


def test_a_catalogue_of_other_files_is_refused() -> None:
    with pytest.raises(ParseError, match="its catalogue does not list it"):
        signers(PLAIN, catalogue([driver_file(text=b"another")], "microsoft"))


@pytest.mark.parametrize("place", [0x50, 0x200, 0x401])
def test_a_changed_file_is_refused(place: int) -> None:
    file = bytearray(signed(PLAIN, "microsoft"))
    file[place] ^= 1
    with pytest.raises(ParseError, match="it was changed after it was signed"):
        signers(bytes(file))


def test_the_checksum_may_change() -> None:
    """It lies outside of what is signed, as the place of the signature does."""
    file = bytearray(signed(PLAIN, "microsoft"))
    optional = struct.unpack_from("<I", file, 0x3C)[0] + 24
    file[optional + 64] ^= 0xFF
    assert signers(bytes(file)) == [(Kind.MICROSOFT, "sha256", False)]


def test_a_signature_of_another_file_is_refused() -> None:
    one, other = signed(PLAIN, "microsoft"), signed(driver_file(text=b"b driver"), "microsoft")
    with pytest.raises(ParseError, match="it was changed after it was signed"):
        signers(one[: len(PLAIN)] + other[len(PLAIN) :])


def test_a_signature_by_another_key_is_refused() -> None:
    """Somebody takes Microsoft's certificate and signs with a key of their own."""
    from dataclasses import replace

    from winguest import authenticode

    liar = replace(identity("microsoft"), key=identity("test").key)
    about = tlv(0x30, oid("1.3.6.1.4.1.311.2.1.15"), tlv(0x30, tlv(0x03, b"\0")))
    digest = tlv(0x04, authenticode.digest_of(PLAIN, "sha256"))
    content = about + tlv(0x30, authenticode._algorithm("sha256"), digest)
    forged = authenticode.signed_data(liar, authenticode.INDIRECT_DATA, content, "sha256")
    with pytest.raises(ParseError, match="its signature was not made by Microsoft Windows Hardware Compatibility"):
        signers(authenticode._appended(PLAIN, forged))


def test_a_certificate_that_its_issuer_never_signed_is_refused() -> None:
    from dataclasses import replace

    from winguest import authenticode

    real, liar = identity("microsoft"), identity("publisher")
    # The publisher's certificate is exchanged for one of the same names with a key that nobody has vouched for.
    name, issuer = real.certificate.subject, real.certificate.issuer
    own = authenticode._certificate(name, issuer, "publisher", "publisher")
    forged = replace(liar, certificate=own, chain=(own, real.chain[1]))
    about = tlv(0x30, oid("1.3.6.1.4.1.311.2.1.15"), tlv(0x30, tlv(0x03, b"\0")))
    digest = tlv(0x04, authenticode.digest_of(PLAIN, "sha256"))
    content = about + tlv(0x30, authenticode._algorithm("sha256"), digest)
    data = authenticode.signed_data(forged, authenticode.INDIRECT_DATA, content, "sha256")
    with pytest.raises(ParseError, match="was not issued by Microsoft Windows Third Party Component CA 2014"):
        signers(authenticode._appended(PLAIN, data))


@pytest.mark.parametrize(
    ("wanted", "loaded"),
    [
        (Signature.NONE, {"nobody", "test", "publisher-sha1", "publisher-sha256", "microsoft"}),
        (Signature.CROSS_SHA1, {"publisher-sha1"}),
        (Signature.CROSS, {"publisher-sha1", "publisher-sha256", "microsoft"}),
        (Signature.MICROSOFT, {"microsoft"}),
    ],
)
def test_what_a_windows_loads(wanted: Signature, loaded: set[str]) -> None:
    known = {
        "nobody": Signer(Kind.NONE),
        "test": Signer(Kind.TEST, "a", "a", "sha256"),
        "publisher-sha1": Signer(Kind.PUBLISHER, "a", "b", "sha1"),
        "publisher-sha256": Signer(Kind.PUBLISHER, "a", "b", "sha256"),
        "microsoft": Signer(Kind.MICROSOFT, "a", "b", "sha256"),
    }
    assert {name for name, signer in known.items() if would_load(wanted, signer)} == loaded


@pytest.mark.parametrize("data", [b"", b"MZ", b"MZ" + bytes(100), b"\x7fELF" + bytes(1000), bytes(5000)])
def test_what_is_no_driver_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError, match="it is no Windows executable"):
        read_executable(data)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_damage_is_never_taken_for_a_signature(seed: int, count: int) -> None:
    """Bytes anywhere in a signed driver are changed: it is refused, or what counts of it is the same."""
    chance = random.Random(seed)
    whole = signed(PLAIN, "microsoft", "sha256", nested="publisher")
    file = bytearray(whole)
    for _number in range(count):
        file[chance.randrange(len(file))] = chance.randrange(256)
    try:
        read = read_executable(bytes(file))
        found = find_signers(read)
    except ParseError:
        return
    if found != (Signer(Kind.NONE),):
        kept = [(start, end) for start, end in read_executable(whole).signed if start < len(PLAIN)]
        assert [file[start:end] for start, end in kept] == [whole[start:end] for start, end in kept]


@given(st.binary(max_size=64))
def test_der_is_read_whole_or_refused(data: bytes) -> None:
    try:
        nodes = list(der.read_all(data))
    except ParseError:
        return
    assert b"".join(node.encoded for node in nodes) == data
