# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples that users find in the documentation, found by looking: what is added later is tested by itself."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import yaml
from tools.checkout import TOP

PLUGINS = "ansible_collections.diskwright.proxmox.plugins"


def modules() -> list[str]:
    """The modules of the collection."""
    return sorted(path.stem for path in (TOP / "plugins/modules").glob("*.py") if path.stem != "__init__")


def uses_api(module: str) -> bool:
    """Whether a module talks to the PVE API; the others work on a node."""
    words = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{module}").DOCUMENTATION)
    return "diskwright.proxmox._connection" in words.get("extends_documentation_fragment", [])


def examples_of(module: str) -> list[dict[str, Any]]:
    """The tasks of a module's examples."""
    return list(yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{module}").EXAMPLES))


def filters() -> list[Path]:
    """The documentation of each filter."""
    return sorted((TOP / "plugins/filter").glob("*.yml"))


def filter_examples(path: Path) -> list[tuple[dict[str, Any], str | None]]:
    """A filter's examples, each with the answer that a comment beneath it promises."""
    found: list[tuple[dict[str, Any], str | None]] = []
    text = yaml.safe_load(path.read_text())["EXAMPLES"]
    for part in re.split(r"(?m)^(?=- name:)", text):
        tasks = yaml.safe_load(part)
        answer = re.search(r"(?m)^\s*# (.+)$", part)
        found += [(task, answer[1] if answer else None) for task in tasks or []]
    return found


def playbooks() -> list[Path]:
    """The playbooks that users run by name."""
    return sorted((TOP / "playbooks").glob("*.yml"))
