# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's python3-hivex for the Python of .venv: there is none on PyPI (the hivex there is something else)."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

DEBIAN = Path("/usr/lib/python3/dist-packages")


def find_hivex() -> ModuleType | None:
    """The module, or None where Debian's is not installed or is for another Python than this one."""
    tag = sys.implementation.cache_tag.removeprefix("cpython-")
    libraries = list(DEBIAN.glob(f"libhivexmod.cpython-{tag}-*.so"))
    if libraries and (DEBIAN / "hivex").is_dir() and "hivex" not in sys.modules:
        folder = Path(tempfile.mkdtemp(prefix="hivex-"))  # nothing else of Debian's Python gets on the path
        for source in (*libraries, DEBIAN / "hivex"):
            (folder / source.name).symlink_to(source)
        sys.path.append(str(folder))
    try:
        return importlib.import_module("hivex")
    except ImportError:
        return None


HIVEX = find_hivex()
REASON = f"python3-hivex is not installed, or not for Python {sys.version_info[0]}.{sys.version_info[1]}"
