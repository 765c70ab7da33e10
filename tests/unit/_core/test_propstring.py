# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PVE's property strings."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.propstring import Pairs, join, parse


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        ("tank:1", (("file", "tank:1"),)),
        ("tank:1,size=1G", (("file", "tank:1"), ("size", "1G"))),
        ("size=1G,tank:1,", (("size", "1G"), ("file", "tank:1"))),
        ("tank:1,,size=1G", (("file", "tank:1"), ("size", "1G"))),
        ("serial=a=b", (("serial", "a=b"),)),
        ("serial=", (("serial", ""),)),
    ],
)
def test_parse(text: str, pairs: Pairs) -> None:
    assert parse(text, "file") == pairs


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a:1,cache=none,cache=none", "'cache' is given twice in 'a:1,cache=none,cache=none'"),
        ("a:1,b:2", "'file' is given twice in 'a:1,b:2'"),
        ("file=a:1,b:2", "'file' is given twice in 'file=a:1,b:2'"),
        ("=x", "'=x' in '=x' has no name before the equals sign"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(ParseError) as raised:
        parse(text, "file")
    assert str(raised.value) == problem


def test_bare_value_is_written_first() -> None:
    assert join((("size", "1G"), ("file", "tank:1"), ("cache", "none")), "file") == "tank:1,size=1G,cache=none"
