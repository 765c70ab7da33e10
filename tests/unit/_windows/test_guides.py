# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides about Windows name nothing that there is not: options, variables, messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tools.checkout import TOP

GUIDES = ("windows-install.md", "windows-from-vmware.md", "windows-back.md")
OURS = "diskwright.proxmox."
SPECS = yaml.safe_load((TOP / "roles/windows_virtio/meta/argument_specs.yml").read_text("utf-8"))["argument_specs"]
VARIABLES = {name for entry in SPECS.values() for name in entry["options"]}
TEXTS = {name: (TOP / "docs" / name).read_text("utf-8") for name in GUIDES}


def examples(name: str) -> list[Any]:
    blocks = re.findall(r"(?ms)^ *```yaml\n(.*?)^ *```$", TEXTS[name])
    return [yaml.safe_load(block) for block in blocks]


def documentation(module: str) -> dict[str, Any]:
    for node in ast.parse((TOP / f"plugins/modules/{module}.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION":
            return dict(yaml.safe_load(ast.literal_eval(node.value)))
    raise AssertionError(module)


def tasks(example: Any) -> Iterator[dict[str, Any]]:
    for one in example if isinstance(example, list) else []:
        inner = [task for key in ("tasks", "block", "always") for task in one.get(key, [])]
        yield from tasks(inner) if inner else [one]


@pytest.mark.parametrize("name", GUIDES)
def test_tasks_use_options_that_there_are(name: str) -> None:
    for example in examples(name):
        for task in tasks(example):
            for key, options in task.items():
                if key.startswith(OURS):
                    words = documentation(key.removeprefix(OURS))
                    fragments = {"vmid", "name", "node", "disks", "power"}
                    known = set(words["options"]) | fragments
                    assert set(options) <= known, (key, set(options) - known)


@pytest.mark.parametrize("name", GUIDES)
def test_variables_are_the_roles(name: str) -> None:
    own = {"windows_virtio_guests", "windows_virtio_driver_paths", "windows_virtio_hosts"}
    named = set(re.findall(r"\bwindows_virtio_\w+\b", TEXTS[name]))
    assert named <= VARIABLES | own, named - VARIABLES - own


def test_what_a_host_says_are_options_of_the_module() -> None:
    known = set(documentation("windows_migrate")["options"]["guests"]["suboptions"])
    said = [one["proxmox_windows"] for one in examples("windows-from-vmware.md") if "proxmox_windows" in one]
    assert said
    assert all(set(one) <= known for one in said)


def test_messages_are_those_of_the_code() -> None:
    """The table of messages in the guide quotes what the role says."""
    sources = [*(TOP / "plugins/module_utils/_windows").glob("*.py"), TOP / "plugins/module_utils/_pve/power.py"]
    texts = " ".join("".join(re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text("utf-8"))) for path in sources)
    words = re.sub(r"\{[^{}]*\}", "…", texts)
    words += "".join(path.read_text("utf-8") for path in (TOP / "roles/windows_virtio/tasks").glob("*.yml"))
    for quoted in re.findall(r"(?m)^\| `([^`]+)` \|", TEXTS["windows-back.md"]):
        assert re.sub(r"\bX\b|\bD:|\bvioscsi\b", "…", quoted) in words, quoted
