# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pythons of this machine that can make virtual environments, from PATH and from pyenv."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

VERSIONS = tuple(f"3.{minor}" for minor in range(8, 16))


def search_path() -> list[str]:
    """PATH without pyenv's shims: they name every version that is installed, whether it can be called or not."""
    return [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder).name != "shims"]


def _works(python: str, version: str) -> bool:
    code = f"import ensurepip, sys, venv; assert '%d.%d' % sys.version_info[:2] == {version!r}"
    result = subprocess.run([python, "-c", code], check=False, capture_output=True)
    return result.returncode == 0


@functools.cache
def find() -> dict[str, str]:
    """`{"3.11": "/path/to/python3.11", ...}`, oldest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {}
    for version in VERSIONS:
        on_path = shutil.which(f"python{version}", path=os.pathsep.join(search_path()))
        from_pyenv = sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}")))
        for candidate in [*([on_path] if on_path else []), *from_pyenv]:
            if version not in found and _works(candidate, version):
                found[version] = candidate
    return found


def folder(path: Path) -> Path:
    """Fills `path` with a link for each Python that works, for tools that look for them by name on PATH."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    for version, python in find().items():
        (path / f"python{version}").symlink_to(python)
    return path
