# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every block of code in the guides is sound: it names modules, options, variables and commands that there are.

Most of them are run as well, each by the tests of its guide.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import checkout

TOP = checkout.TOP
OURS = "diskwright.proxmox."
PAGES = sorted([*(TOP / "docs").glob("*.md"), *(TOP / "docs").glob("*.rst"), *TOP.glob("*.md")])
FENCED = re.compile(r"(?ms)^( *)```([\w+]*)\n(.*?)^ *```$")
DIRECTIVE = re.compile(r"(?m)^\.\. code-block:: (\w+)\n\n((?:    .*\n|\n)+)")
LANGUAGES = {"yaml", "yaml+jinja", "console", "text"}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each block."""
    text = page.read_text("utf-8")
    if page.suffix == ".rst":
        yield from ((language, textwrap.dedent(body)) for language, body in DIRECTIVE.findall(text))
    else:
        yield from ((language, textwrap.dedent(body)) for _indent, language, body in FENCED.findall(text))


@cache
def options() -> dict[str, Any]:
    """The options of each module, as documented."""
    names = [OURS + path.stem for path in (TOP / "plugins" / "modules").glob("*.py")]
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", "--type", "module", *names]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {name: page["doc"]["options"] for name, page in found.items()}


@cache
def variables() -> frozenset[str]:
    """The variables of all roles."""
    specs = [yaml.safe_load(path.read_text("utf-8")) for path in (TOP / "roles").glob("*/meta/argument_specs.yml")]
    return frozenset(name for spec in specs for entry in spec["argument_specs"].values() for name in entry["options"])


def prefixes() -> tuple[str, ...]:
    return tuple(f"{path.name}_" for path in (TOP / "roles").iterdir())


def mistakes(value: Any, known: dict[str, Any] | None = None) -> Iterator[str]:
    """What is wrong in a piece of YAML; `known` are the options that a dictionary may have."""
    if isinstance(value, list):
        for one in value:
            yield from mistakes(one, known)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        row = (known or {}).get(key)
        if known is not None and row is None:
            yield f"there is no option {key}"
        elif str(key).startswith(OURS):
            yield from mistakes(inner, options().get(key, {}))
        elif str(key) == "proxmox_disks" or str(key).startswith("proxmox_disks__"):
            yield from mistakes(list((inner or {}).values()), disk_options())
        elif str(key).startswith(prefixes()) and key not in variables():
            yield f"there is no variable {key}"
        elif known is None or (row or {}).get("suboptions"):
            yield from mistakes(inner, (row or {}).get("suboptions"))


def disk_options() -> dict[str, Any]:
    """What a slot takes in an inventory."""
    return dict(options()[f"{OURS}guest_disks"]["disks"]["suboptions"])


def sessions() -> set[str]:
    return set(re.findall(r"(?m)^def (\w+)\(session: nox", (TOP / "noxfile.py").read_text("utf-8")))


def wrong_commands(text: str) -> Iterator[str]:
    """What commands name that there is not."""
    commands = re.sub(r"\\\n", " ", text)
    playbooks = {path.stem for path in (TOP / "playbooks").glob("*.yml")}
    for line in re.findall(r"(?m)^[$#] (.*)$", commands):
        for name in re.findall(r"ansible-playbook .*?\bdiskwright\.proxmox\.(\w+)", line):
            if name not in playbooks:
                yield f"there is no playbook {name}"
        for name in re.findall(r"-e (\w+)=", line):
            if name.startswith(prefixes()) and name not in variables():
                yield f"there is no variable {name}"
        for name in [*re.findall(r"^\./dev (\w+)", line), *re.findall(r"nox -s (\w+)", line)]:
            if name not in sessions():
                yield f"there is no session {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_blocks(page: Path) -> None:
    found = []
    for language, text in blocks(page):
        if language.startswith("yaml"):
            found += [f"{one} in:\n{text}" for document in yaml.safe_load_all(text) for one in mistakes(document)]
        elif language == "console":
            found += [f"{one} in:\n{text}" for one in wrong_commands(text)]
        elif language not in LANGUAGES:
            found.append(f"no language, or one that nobody checks: {language!r} in:\n{text}")
    assert found == []


def test_mistakes_are_found() -> None:
    bad = {"diskwright.proxmox.guest_disks": {"vmid": 1, "disks": [{"slot": "scsi0", "cahce": "none"}]}}
    assert list(mistakes([{"name": "x", **bad}])) == ["there is no option cahce"]
    assert list(mistakes({"proxmox_disks": {"scsi0": {"sise": "1G"}}})) == ["there is no option sise"]
    assert list(mistakes({"guest_disks_polisy": 1})) == ["there is no variable guest_disks_polisy"]
    assert list(wrong_commands("$ ansible-playbook diskwright.proxmox.convergence\n")) == [
        "there is no playbook convergence"
    ]


def test_blocks_are_found() -> None:
    assert sum(1 for page in PAGES for _block in blocks(page)) > 100
