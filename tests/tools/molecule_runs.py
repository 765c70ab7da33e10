# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Molecule's scenarios: those in extensions/molecule, and the one that docs/molecule.md shows to users."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.checkout import HEADER, TOP

SCENARIOS = TOP / "extensions" / "molecule"
GUIDE = TOP / "docs" / "molecule.md"
GUIDES_SCENARIO = "guide"
"""The name by which the guide's is called among the others."""


def names() -> list[str]:
    """All scenarios, that of the guide last."""
    return [*sorted(path.parent.name for path in SCENARIOS.glob("*/molecule.yml")), GUIDES_SCENARIO]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def of_the_guide() -> dict[str, str]:
    """The files that the guide shows, by the names in their first lines."""
    blocks = re.findall(r"(?ms)^```yaml\n(.*?)^```$", GUIDE.read_text("utf-8"))
    return {block.partition("\n")[0].removeprefix("# "): block for block in blocks}


@contextlib.contextmanager
def users_repository() -> Iterator[tuple[Path, dict[str, str]]]:
    """A repository with the guide's scenario, and the environment that leads it to a lab of its own."""
    from lab import Lab  # takes a while, and each call of nox reads this file
    from lab.__main__ import environment

    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)  # nox makes a log that would show every request
    with tempfile.TemporaryDirectory(prefix="molecule-") as folder, Lab(Path(folder, "lab"), {"files": {}}) as lab:
        repository = Path(folder, "repository")
        for name, text in of_the_guide().items():
            path = repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{HEADER}---\n{text}", "utf-8")
        yield repository, environment(lab)
