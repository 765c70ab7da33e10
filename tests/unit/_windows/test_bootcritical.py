# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a driver boot-critical, as pure data: whatever a registry holds before, once is enough."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows import record
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.bootcritical import (
    BUS_TYPES,
    LEGACY,
    device_ids,
    keep_legacy,
    make_boot_critical,
    presence,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.hivedata import (
    Change,
    Edit,
    Path,
    Value,
    expandable,
    find_value,
    number,
    text,
    texts,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.inf import DriverInf, read_inf
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.installed import (
    NoWindowsError,
    Windows,
    read_windows,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE
from hypothesis import given
from hypothesis import strategies as st
from winguest.media import inf_text

SERVICES = ("ControlSet001", "Services")
CURRENT = ("Microsoft", "Windows NT", "CurrentVersion")


def _low(path: Path) -> tuple[str, ...]:
    return tuple(part.lower() for part in path)


@dataclass
class Memory:
    """A registry in memory; names are compared without regard to case, as in a hive."""

    tree: dict[tuple[str, ...], dict[str, Value]] = field(default_factory=dict)

    def keys(self, path: Path) -> tuple[str, ...]:
        low, depth = _low(path), len(path)
        return tuple(dict.fromkeys(one[depth] for one in self.tree if one[:depth] == low and len(one) > depth))

    def values(self, path: Path) -> Mapping[str, Value] | None:
        low = _low(path)
        return self.tree.get(low, {} if any(one[: len(low)] == low for one in self.tree) else None)

    def apply(self, change: Change) -> None:
        for edit in change.edits:
            values = self.tree.setdefault(_low(edit.path), {})
            assert find_value(self, edit.path, edit.name) == edit.before
            for name in [name for name in values if name.lower() == edit.name.lower()]:
                del values[name]
            if edit.after is not None:
                values[edit.name] = edit.after
        for path in change.keys:
            assert not self.keys(path)
            assert not self.tree.pop(_low(path), {})


@functools.cache
def inf_of(driver: str, key: str = "2022") -> DriverInf:
    return read_inf(inf_text(driver, TABLE[key], "amd64").encode(), "amd64")


def windows(key: str) -> Windows:
    release = TABLE[key]
    database = release.number >= (6, 2)
    return Windows(release, release.title, release.version, release.builds[0], "amd64", ("ControlSet001",), database)


VALUES = st.one_of(st.integers(0, 5).map(number), st.sampled_from(["", "x", "SCSI miniport"]).map(text))
NAMES = st.sampled_from(["Start", "start", "Type", "Group", "ImagePath", "ErrorControl", "Tag"])
OVERRIDES = st.dictionaries(st.sampled_from(["0", "1"]), st.integers(0, 3).map(number), max_size=2)


@given(
    st.sampled_from(sorted(BUS_TYPES)),
    st.sampled_from(["7", "2022"]),
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.one_of(st.none(), OVERRIDES),
)
def test_once_is_enough(driver: str, key: str, service: dict[str, Value], override: dict[str, Value] | None) -> None:
    plain = {name.lower(): (name, value) for name, value in service.items()}  # a key has each name once
    system = Memory({_low((*SERVICES, driver)): dict(plain.values())})
    if override is not None:
        system.tree[_low((*SERVICES, driver, "StartOverride"))] = override
    inf, guest = inf_of(driver), windows(key)
    system.apply(make_boot_critical(system, guest, inf))
    assert not make_boot_critical(system, guest, inf)
    found = presence(system, guest, inf)
    assert (found.start, found.overridden, found.installed) == (0, False, False)
    bus_type = find_value(system, (*SERVICES, driver, "Parameters"), "BusType")
    assert bus_type is not None
    assert bus_type.number == BUS_TYPES[driver]
    tag = {name: value for name, value in service.items() if name == "Tag"}
    assert {name: value for name, value in (system.values((*SERVICES, driver)) or {}).items() if name == "Tag"} == tag


def test_both_drivers_do_not_get_in_each_others_way() -> None:
    system, guest = Memory(), windows("2022")
    for driver in BUS_TYPES:
        system.apply(make_boot_critical(system, guest, inf_of(driver)))
    assert [driver for driver in BUS_TYPES if make_boot_critical(system, guest, inf_of(driver))] == []


@pytest.mark.parametrize(
    "image", ["\\SystemRoot\\System32\\drivers\\vioscsi.sys", "%SystemRoot%\\system32\\DRIVERS\\VIOSCSI.SYS"]
)
def test_a_path_that_is_written_in_another_way_is_left_alone(image: str) -> None:
    system = Memory({_low((*SERVICES, "vioscsi")): {"ImagePath": expandable(image)}})
    edits = make_boot_critical(system, windows("2022"), inf_of("vioscsi")).edits
    assert [edit for edit in edits if edit.name == "ImagePath"] == []


def test_devices() -> None:
    assert device_ids(inf_of("viostor")) == (
        "VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00",
        "VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01",
        "VEN_1AF4&DEV_1001&REV_00",
        "VEN_1AF4&DEV_1042&REV_01",
    )


def test_only_drivers_that_are_there_are_switched_on_again() -> None:
    system = Memory({_low((*SERVICES, name, "StartOverride")): {"0": number(3)} for name in ("storahci", "disk")})
    change = keep_legacy(system, windows("2022"))
    assert [edit.path[2] for edit in change.edits] == ["storahci"]
    assert "storahci" in LEGACY


def test_an_edit_in_words() -> None:
    edit = Edit(("ControlSet001", "Services", "vioscsi"), "Start", number(3), number(0))
    assert str(edit) == "ControlSet001\\Services\\vioscsi: Start 0x3 -> 0x0"
    assert str(Edit(("A",), "", None, texts("b"))) == "A: (default) absent -> 620000000000"


@pytest.mark.parametrize(
    ("system", "software", "said"),
    [
        ({}, {}, "has no control set to boot from"),
        ({("select",): {"Default": number(1)}, ("controlset001", "x"): {}}, {}, "version '' and build ''"),
        (
            {("select",): {"Default": number(1)}, ("controlset001", "x"): {}},
            {_low(CURRENT): {"CurrentVersion": text("6.1"), "CurrentBuild": text("7601")}},
            "the product type ''; WinNT, ServerNT and LanmanNT are known",
        ),
    ],
)
def test_a_registry_that_says_too_little(
    system: dict[Path, dict[str, Value]], software: dict[Path, dict[str, Value]], said: str
) -> None:
    with pytest.raises(NoWindowsError, match=said):
        read_windows(Memory(system), Memory(software))


EDITS = st.builds(
    Edit,
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4).map(tuple),
    st.text(max_size=5),
    st.one_of(st.none(), st.builds(Value, st.integers(0, 11), st.binary(max_size=8))),
    st.one_of(st.none(), st.builds(Value, st.integers(0, 11), st.binary(max_size=8))),
)
NAME = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
FILES = st.builds(record.FileChange, st.lists(NAME, min_size=1, max_size=4).map(tuple), st.none() | NAME, st.text())


@given(st.lists(EDITS, max_size=4), st.lists(FILES, max_size=3))
def test_a_record_is_read_as_it_was_written(edits: list[Edit], files: list[record.FileChange]) -> None:
    keys = tuple(edit.path for edit in edits)
    whole = record.Record("tank:vm-120-disk-0", "injected", tuple(edits), keys, tuple(files))
    assert record._from_data(json.loads(json.dumps(record._data(whole)))) == whole


UNIQUE = st.lists(EDITS, max_size=4, unique_by=lambda edit: (edit.path, edit.name))


@given(UNIQUE, UNIQUE)
def test_what_was_first_stays_first(one: list[Edit], other: list[Edit]) -> None:
    """A value that two runs have changed goes back to what it was before the first."""
    merged = record.Record("a", "injected", tuple(one)).merged(record.Record("a", "injected", tuple(other)))
    before = {(edit.path, edit.name): edit.before for edit in [*other, *one]}
    after = {(edit.path, edit.name): edit.after for edit in [*one, *other]}
    assert {(edit.path, edit.name): edit.before for edit in merged.edits} == before
    assert {(edit.path, edit.name): edit.after for edit in merged.edits} == after
