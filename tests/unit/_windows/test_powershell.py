# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts for Windows as texts: values stay data, and nothing is used that PowerShell 2.0 lacks or translates.

No PowerShell runs here. What only a Windows can prove is in the guide "Windows: when something goes wrong".
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.powershell import literal, script
from hypothesis import given
from hypothesis import strategies as st
from lab.windows import read_variables

VALUES: dict[str, dict[str, Any]] = {
    "gather": {"drivers": {"vioscsi": "vioscsi;vioscsi;1004|1048"}, "controllers": ["storahci"]},
    "stage": {"infs": [r"E:\vioscsi\2k22\amd64\vioscsi.inf"]},
    "guard": {
        "san_policy": 1, "fast_startup": -1, "suspend": ["C:"], "resume": [], "reboots": 3, "boot_start": ["storahci"],
        "online": [1], "letters": {"E:": "0b7e5f0c-0000-0000-0000-100000000000"},
    },
    "space": {},
    "extend": {"sizes": {"0;3": "34252783616"}},
}  # fmt: skip
SCRIPTS = {name: script(name, **values) for name, values in VALUES.items()}
ALWAYS = ("ErrorActionPreference", "services", "control")
# Of the modules that came later than PowerShell 2.0, with the test that stands before each.
LATER = {"Set-Disk": "guard", "Get-PartitionSupportedSize": "space", "Update-HostStorageCache": "space",
         "Resize-Partition": "extend"}  # fmt: skip
# What PowerShell 2.0 has, by Microsoft's "Cmdlet reference" of that release.
COMMANDS = {
    "Remove-Item", "Get-Item", "Get-ChildItem", "Get-WmiObject", "Where-Object", "ForEach-Object", "Move-Item",
    "New-Object", "Test-Path", "New-Item", "New-ItemProperty", "Out-Null", "Get-AuthenticodeSignature", "Get-Command",
}  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
values = st.one_of(
    texts, st.integers(-99999, 99999), st.lists(texts, max_size=4), st.dictionaries(texts, texts, max_size=4)
)


@given(values)
def test_a_value_stays_the_value_that_it_is(value: Any) -> None:
    assert read_variables(f"$it = {literal(value)}\n") == {"it": value}


@pytest.mark.parametrize("text", ["'; Remove-Item C:\\ #", "\u2019; exit #", "$(exit)", "`n", '"', "\u201b\u201a"])
def test_no_text_becomes_code(text: str) -> None:
    written = literal(text)
    assert written[0] == written[-1] == "'"
    inside = re.sub("(['\u2018\u2019\u201a\u201b])\\1", "", written[1:-1])
    assert not set(inside) & set("'\u2018\u2019\u201a\u201b")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_variable_is_given_and_used(name: str) -> None:
    assigned = read_variables(SCRIPTS[name])
    assert {key: value for key, value in assigned.items() if key not in ALWAYS} == VALUES[name]
    for variable in VALUES[name]:
        assert len(re.findall(rf"\${variable}\b", SCRIPTS[name])) > 1, variable
    with pytest.raises(ValueError, match=f"{name} takes "):
        script(name, nosuch=1)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_keeps_the_contract_of_the_agent(name: str) -> None:
    """It removes its own file before anything can fail, waits for others, and moves its result into place."""
    lines = SCRIPTS[name].splitlines()
    assert lines[0] == f"# diskwright: {name}"
    assert lines[1] == "param([string]$Script, [string]$Result)"
    assert lines[2] == "Remove-Item -LiteralPath $Script"
    tail = SCRIPTS[name][SCRIPTS[name].index("$mutex = "):]
    assert re.search(r"WaitOne.*\$answer = Main.*WriteAllText\(\"\$Result\.new\".*Move-Item .*ReleaseMutex", tail, re.S)


@pytest.mark.parametrize("name", SCRIPTS)
def test_only_what_powershell_2_has(name: str) -> None:
    own = set(re.findall(r"function ([A-Z]\w+-\w+)", SCRIPTS[name]))
    code = re.sub(r"(?m)#.*$", "", SCRIPTS[name])
    used = set(re.findall(r"(?<![\w\\-])([A-Z][a-z]+-[A-Z]\w+)", code))
    later = {word for word, where in LATER.items() if where == name}
    assert used - own - COMMANDS == later & used
    for word in later & used - {"Resize-Partition", "Update-HostStorageCache"}:
        assert f"Get-Command {word} -ErrorAction SilentlyContinue" in code


@pytest.mark.parametrize("name", SCRIPTS)
def test_brackets_and_quotes_close(name: str) -> None:
    """The nearest to a parser that there is here: texts and comments are taken out, brackets must pair."""
    code = re.sub(r"(?m)^\s*#.*$", "", SCRIPTS[name])
    code = re.sub(r"'(?:[^']|'')*'", "''", code)
    open_ones: list[str] = []
    pairs = {")": "(", "}": "{", "]": "["}
    for char in code:
        if char in "({[":
            open_ones.append(char)
        elif char in pairs:
            assert open_ones.pop() == pairs[char]
    assert not open_ones
    assert code.count('"') % 2 == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_depends_on_translated_words(name: str) -> None:
    """No output of a program is read, and no name that Windows translates is compared with."""
    code = SCRIPTS[name]
    assert re.findall(r"&\s+\"\$env:SystemRoot[^|\n]*(?!\| Out-Null)$", code) == []
    for word in ("Get-PnpDevice", "Status -eq", "FriendlyName", "Caption", "Name -eq '", "Get-EventLog", "manage-bde"):
        assert word not in code
    assert code.isascii()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_fits_into_one_call(name: str) -> None:
    assert len(SCRIPTS[name].encode()) < 45 << 10
