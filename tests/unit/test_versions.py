# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Ansible, Python and libraries are needed is said in many places, and everywhere the same."""

from __future__ import annotations

import ast
import re
from typing import Any

import tomllib
import yaml
from tools import checkout
from unit.test_collection import LIBRARIES, PLUGINS

TOP = checkout.TOP
README = (TOP / "README.md").read_text("utf-8")
# Brought along by another library, needed on the controller, where Ansible brings it, or for charts alone.
NOT_ASKED_FOR = {"ansible", "urllib3", "matplotlib"}


def data(name: str) -> Any:
    return yaml.safe_load((TOP / name).read_text("utf-8"))


def cores() -> dict[str, tuple[str, ...]]:
    """What ./dev check runs on, from noxfile.py."""
    for node in ast.parse((TOP / "noxfile.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CORES":
            return dict(ast.literal_eval(node.value))
    raise AssertionError("noxfile.py has no CORES")


def needed(name: str = "requirements.txt") -> dict[str, str]:
    """The least version of each package."""
    return dict(re.findall(r"(?m)^([\w.-]+)>=([\d.]+)$", (TOP / name).read_text("utf-8")))


def short(version: str) -> str:
    """The first two numbers."""
    return ".".join(version.split(".")[:2])


def test_the_oldest_ansible_core() -> None:
    oldest = short(next(iter(cores())))
    assert data("meta/runtime.yml")["requires_ansible"] == f">={oldest}.0"
    assert f"ansible-core {oldest} or newer" in README


def test_the_tests_run_on_releases_that_are_checked() -> None:
    pins = re.findall(r"(?m)^ansible-core==([\d.]+)", (TOP / "tests/requirements/ansible.txt").read_text("utf-8"))
    assert pins
    assert set(pins) <= cores().keys()


def test_the_oldest_python() -> None:
    oldest = data("tests/config.yml")["modules"]["python_requires"].removeprefix(">=")
    settings = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]
    assert settings["mypy"]["python_version"] == oldest
    assert settings["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"Python {oldest}\nor newer" in README


def test_the_libraries() -> None:
    imported = {name for names in LIBRARIES.values() for name in names} - NOT_ASKED_FOR
    assert needed().keys() == imported
    assert [name for name in needed() if f"`{name}`" not in README] == []


def test_the_documentation_asks_for_what_is_needed() -> None:
    fragments = "".join(path.read_text("utf-8") for path in (PLUGINS / "doc_fragments").glob("*.py"))
    asked = re.findall(r'(?m)^  - "(\w+)(?: >= ([\d.]+))?(?: \(.*\))?"$', fragments)
    assert {name for name, _version in asked} == needed().keys()
    assert {name: version for name, version in asked if version} == {"proxmoxer": short(needed()["proxmoxer"])}


def test_an_execution_environment_finds_what_it_is_told_to_read() -> None:
    """Relative to the collection, among the files that are shipped; in the form that ansible-builder reads."""
    definition = data("meta/execution-environment.yml")
    assert definition == {"version": 1, "dependencies": {"python": "requirements.txt", "system": "bindep.txt"}}
    assert set(definition["dependencies"].values()) <= set(map(str, checkout.shipped()))
    lines = [line for line in (TOP / "bindep.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w.+-]+ \[platform:(rpm|dpkg)\]", line)] == []


def test_the_version() -> None:
    """Once there are releases, the newest is the one that galaxy.yml names."""
    released = data("changelogs/changelog.yaml")["releases"]
    assert not released or data("galaxy.yml")["version"] in released
