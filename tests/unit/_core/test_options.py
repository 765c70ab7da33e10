# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of drive options: what it promises, and how values are compared."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import (
    ALIASES,
    STRUCTURAL,
    TABLE,
    Effect,
    Kind,
    Option,
    options_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SCSI = frozenset({"scsi"})
every_option = pytest.mark.parametrize("option", TABLE.values(), ids=TABLE)


@every_option
def test_row(option: Option) -> None:
    assert option.buses <= {"ide", "sata", "scsi", "virtio", "efidisk", "tpmstate"}
    assert option.about
    assert not option.about.endswith(".")
    assert option.name not in STRUCTURAL
    assert option.same(None, option.default)
    for other in (option.needs, *option.excludes):
        assert other is None or option.buses <= TABLE[other].buses
    for other in option.excludes:
        assert option.name in TABLE[other].excludes
    assert (option.effect is Effect.FIXED) == (not option.buses & {"ide", "sata", "scsi", "virtio"})


@pytest.mark.parametrize(
    ("bus", "only", "never"),
    [
        ("ide", {"model", "ssd", "wwn"}, {"iothread", "ro", "queues"}),
        ("sata", {"ssd", "wwn"}, {"iothread", "ro", "model"}),
        ("scsi", {"iothread", "product", "queues", "ro", "scsiblock", "ssd", "vendor", "wwn"}, {"model"}),
        ("virtio", {"iothread", "ro"}, {"ssd", "wwn", "queues"}),
        ("efidisk", {"efitype", "ms-cert", "pre-enrolled-keys"}, {"cache", "backup"}),
        ("tpmstate", {"version"}, {"cache"}),
        ("unused", set(), {"cache"}),
    ],
)
def test_options_of_a_bus(bus: str, only: set[str], never: set[str]) -> None:
    assert only <= set(options_of(bus))
    assert not never & set(options_of(bus))


def test_what_waits_for_the_next_start() -> None:
    """As qemu-server's vmconfig_update_disk has it."""
    waiting = {name for name, option in TABLE.items() if option.effect is Effect.RESTART}
    assert waiting == set("aio discard iothread queues product cache ssd vendor ro".split())
    silent = {name for name, option in TABLE.items() if option.effect is Effect.SILENT}
    assert silent == set("detect_zeroes model rerror scsiblock serial shared snapshot werror wwn".split())


def test_aliases_are_names_of_options() -> None:
    assert set(ALIASES.values()) <= set(TABLE)
    assert not set(ALIASES) & set(TABLE)


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        *(("backup", value, "1") for value in (True, "yes", "On", "true", "1", 1)),
        *(("backup", value, "0") for value in (False, "no", "off", "FALSE", "0", 0)),
        ("discard", True, "on"),
        ("discard", "on", "on"),
        ("cache", "none", "none"),
        ("queues", "4", "4"),
        ("queues", 4.0, "4"),
        ("iops", "1e3", "1000"),
        ("mbps", 10, "10"),
        ("mbps", "10.0", "10"),
        ("mbps", 1.50, "1.5"),
        ("mbps", "100", "100"),
        ("serial", "A B/1", "A%20B%2F1"),
        ("wwn", "0x5000c50015ea71aa", "0x5000c50015ea71aa"),
        ("product", "my disk", "my disk"),
        ("ms-cert", 2023, "2023"),
    ],
)
def test_canonical(name: str, value: object, stored: str) -> None:
    assert TABLE[name].canonical(value) == stored


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("backup", "2", "true or false"),
        ("cache", "bad", "one of none, writethrough, writeback, unsafe, directsync"),
        ("discard", False, "one of ignore, on"),
        ("queues", "1", "a whole number of at least 2"),
        ("queues", "2.5", "a whole number of at least 2"),
        ("iops_max_length", "0", "a whole number of at least 1"),
        ("mbps", "-1", "a number of at least 0"),
        ("mbps", "abc", "a number of at least 0"),
        ("mbps", "inf", "a number of at least 0"),
        ("mbps", "NaN", "a number of at least 0"),
        ("serial", "", "a text of 1 to 20 characters"),
        ("serial", "x" * 21, "a text of 1 to 20 characters"),
        ("wwn", "5000c50015ea71aa", r"a text that matches 0x[0-9a-fA-F]{16}"),
        ("vendor", "ninechars", r"a text that matches [A-Za-z0-9\-_ \t]{1,8}"),
        ("product", "two\nlines", r"a text that matches [A-Za-z0-9\-_ \t]{1,16}"),
        ("iops", "1e99999", "a whole number of at least 0"),
        ("mbps", "1e18", "a number of at least 0"),
    ],
)
def test_what_is_not_allowed(name: str, value: object, allowed: str) -> None:
    text = "0" if value is False else value
    with pytest.raises(ParseError) as raised:
        TABLE[name].canonical(value)
    assert str(raised.value) == f"'{text}' is not allowed; {name} takes {allowed}"


@pytest.mark.parametrize(
    ("name", "left", "right", "same"),
    [
        ("backup", None, "1", True),
        ("backup", "yes", "1", True),
        ("backup", None, "0", False),
        ("cache", None, "none", False),
        ("discard", None, "ignore", True),
        ("mbps", "10.00", "10", True),
        ("serial", "A%20B", "A%20B", True),
        ("serial", "a%2fb", "a%2Fb", True),
        ("serial", None, None, True),
        ("efitype", None, "2m", True),
        ("cache", "newmode", "newmode", True),
        ("cache", "newmode", "none", False),
    ],
)
def test_same(name: str, left: str | None, right: str | None, same: bool) -> None:
    assert TABLE[name].same(left, right) is same
    assert TABLE[name].same(right, left) is same


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"kind": Kind.CHOICE}, "x: choices belong to the kind 'choice' and to no other"),
        ({"kind": Kind.BOOLEAN, "choices": ("a",)}, "x: choices belong to the kind 'choice' and to no other"),
        ({"kind": Kind.PATTERN}, "x: a pattern belongs to the kind 'pattern' and to no other"),
        ({"kind": Kind.BOOLEAN, "buses": frozenset()}, "x: no bus has it"),
        ({"kind": Kind.BOOLEAN, "default": "yes"}, "x: the default 'yes' is not in canonical form"),
    ],
)
def test_table_checks_its_rows(row: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        Option(**{"name": "x", "buses": SCSI, "about": "", **row})  # type: ignore[arg-type]
    assert str(raised.value) == problem


values = st.one_of(st.booleans(), st.integers(0, 10**6), st.text(max_size=24), st.sampled_from(["0x" + "a" * 16, "on"]))


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(TABLE)), values)
def test_canonical_values_stay_as_they_are(name: str, value: object) -> None:
    option = TABLE[name]
    try:
        stored = option.canonical(value)
    except ParseError:
        return
    assert option.same(stored, stored)
    assert "," not in stored
    if option.kind is not Kind.ENCODED:
        assert option.canonical(stored) == stored
