# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A home directory for ansible-test, which keeps its virtual environments there and fetches pip on its own terms."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path


def prepare(home: Path, bin_folder: Path) -> None:
    """Makes `home` fit for the ansible-test in `bin_folder`."""
    _offer_get_pip(home / ".ansible" / "test" / "cache", bin_folder)
    _hand_on_pip_settings(home / ".config" / "pip" / "pip.conf")


def _offer_get_pip(cache: Path, bin_folder: Path) -> None:
    """Puts get_pip_shim.py where ansible-test keeps the get-pip.py that it would otherwise download."""
    (source,) = bin_folder.parent.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py")
    cache.mkdir(parents=True, exist_ok=True)
    for version in re.findall(r"\bpip='([0-9.]+)'", source.read_text("utf-8")):
        shutil.copy2(Path(__file__).with_name("get_pip_shim.py"), cache / f"get_pip_{version.replace('.', '_')}.py")


def _hand_on_pip_settings(path: Path) -> None:
    """ansible-test drops PIP_INDEX_URL, PIP_CERT and the like, and cannot see the user's pip.conf from another home."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    settings = configparser.RawConfigParser()
    settings.add_section("global")
    for line in sorted(lines, reverse=True):  # the environment, which wins, comes last
        name, _equals, value = line.partition("=")
        section, _dot, option = name.replace(":env:", "global").partition(".")
        if not settings.has_section(section):
            settings.add_section(section)
        settings.set(section, option, ast.literal_eval(value).replace("\n", "\n "))
    settings.set("global", "quiet", "1")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        settings.write(file)
