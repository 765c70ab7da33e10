# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on storages: what is planned, and that texts lose what may be secret."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import Storage
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.stored_file import (
    ALGORITHMS,
    Checksum,
    FileFacts,
    FileWish,
    Source,
    Step,
    Verdict,
    hide_secrets,
    host_in_url,
    name_in_url,
    parse_checksum,
    plan_file,
)
from hypothesis import given
from hypothesis import strategies as st

LOCAL = Storage("local", "dir", frozenset({"iso", "import"}), ("raw",), available=1000)
SUM = Checksum("sha256", "0" * 64)


def wish(**words: object) -> FileWish:
    return FileWish("pve1", "local", "iso", "a.iso", **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "size", "verdict", "steps"),
    [
        (wish(source=Source.UPLOAD), None, None, [Step.UPLOAD]),
        (wish(source=Source.DOWNLOAD), None, None, [Step.DOWNLOAD]),
        (wish(source=Source.DOWNLOAD, trusts=True), None, None, [Step.DOWNLOAD, Step.RECORD]),
        (wish(source=Source.DOWNLOAD, trusts=True, checksum=SUM), None, None, [Step.DOWNLOAD]),
        (wish(trusts=True), 5, Verdict.PRESENCE, [Step.RECORD]),
        (wish(), 5, Verdict.PRESENCE, []),
        (wish(source=Source.UPLOAD, replace=True), 5, Verdict.DIFFERENT, [Step.UPLOAD]),
        (wish(source=Source.DOWNLOAD, replace=True), 5, Verdict.DIFFERENT, [Step.DELETE, Step.DOWNLOAD]),
        (wish(source=Source.DOWNLOAD, replace=True), 5, Verdict.CHECKSUM, []),
        (wish(state="absent"), 5, Verdict.PRESENCE, [Step.DELETE]),
        (wish(state="absent"), None, None, []),
    ],
)
def test_steps(one: FileWish, size: int | None, verdict: Verdict | None, steps: list[Step]) -> None:
    plan = plan_file(one, FileFacts(LOCAL, size, verdict))
    assert (list(plan.steps), plan.refusals) == (steps, ())


def test_laws() -> None:
    """Never both steps and refusals; another file is never touched without leave; done means done."""
    verdicts = [None, *Verdict]
    for source, replace, trusts, state, verdict in itertools.product(
        [None, *Source], [False, True], [False, True], ["present", "absent"], verdicts
    ):
        one = wish(source=source, replace=replace, trusts=trusts, state=state)
        plan = plan_file(one, FileFacts(LOCAL, None if verdict is None else 5, verdict))
        assert not (plan.steps and plan.refusals)
        if state == "present" and verdict is Verdict.DIFFERENT and not replace:
            assert plan.steps == ()
        if state == "present" and verdict in (Verdict.CHECKSUM, Verdict.SIZE, Verdict.PRESENCE):
            assert set(plan.steps) <= {Step.RECORD}


def test_everything_that_is_wrong_is_told_together() -> None:
    off = Storage("local", "dir", frozenset({"images"}), ("raw",), enabled=False)
    plan = plan_file(FileWish("pve1", "local", "iso", "ä.iso"), FileFacts(off))
    assert len(plan.refusals) == 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_checksums(algorithm: str) -> None:
    text = "aB" * (ALGORITHMS[algorithm] // 2)
    assert parse_checksum(f" {text}\n", algorithm) == Checksum(algorithm, text.lower())
    for bad in (text[1:], text + "0", "g" + text[1:], ""):
        with pytest.raises(ParseError, match=f"{algorithm} has {ALGORITHMS[algorithm]} hexadecimal digits"):
            parse_checksum(bad, algorithm)


@pytest.mark.parametrize(
    ("url", "name", "host"),
    [
        ("https://example.com/a/b.iso", "b.iso", "example.com"),
        ("http://joe:pw@example.com:81/b%20c.iso?x=/y.iso#/z", "b c.iso", "example.com"),
        ("https://[2001:db8::1]/b.iso", "b.iso", "2001:db8::1"),
        ("https://example.com", "", "example.com"),
    ],
)
def test_urls(url: str, name: str, host: str) -> None:
    assert (name_in_url(url), host_in_url(url)) == (name, host)


@pytest.mark.parametrize("url", ["ftp://example.com/x", "example.com/x", "https://", "https://[::1", "file:///x", ""])
def test_no_urls(url: str) -> None:
    with pytest.raises(ParseError, match="url: PVE downloads from"):
        host_in_url(url)


def test_secrets_are_hidden() -> None:
    text = "downloading https://joe:pw@example.com:81/a.iso?token=t#f to /x; Location: HTTPS://cdn/y?sig=s [following]"
    assert hide_secrets(text) == ("downloading https://example.com:81/a.iso to /x; Location: https://cdn/y [following]")
    assert hide_secrets("http://[::1/x?token=t") == "http://…"
    assert hide_secrets("nothing to hide") == "nothing to hide"


# What may stand in a URL, marked so that it can be found again.
words = st.text("abcXYZ019-._~%!$&()*+,;=:@", max_size=12)


@given(words, words, words, st.text("abc ", max_size=5))
def test_no_secret_survives(user: str, password: str, query: str, before: str) -> None:
    """Whatever is before the host or behind the path of a URL is gone."""
    hidden = hide_secrets(f"{before}https://S1{user}:S2{password}@example.com/p.iso?S3{query}#S4 end")
    assert not any(mark in hidden for mark in ("S1", "S2", "S3", "S4"))
    assert hidden.endswith(" end")
