# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""This checkout as Ansible wants to see it: below ansible_collections/diskwright/proxmox."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[2]
NAME = Path("ansible_collections", "diskwright", "proxmox")
HEADER = "# SPDX-FileCopyrightText: The diskwright.proxmox authors\n# SPDX-License-Identifier: GPL-3.0-or-later\n"


def link() -> Path:
    """A folder from which Ansible and Python find this checkout as a collection, through a symlink."""
    root = TOP / ".cache" / "collections"
    place = root / NAME
    if not (place.is_symlink() and place.resolve() == TOP):
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".new-{os.getpid()}")  # renamed into place: several test runs may start at once
        fresh.symlink_to(TOP)
        fresh.replace(place)
    return root


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """One process at a time in this checkout does what `name` stands for; the others wait."""
    path = TOP / ".cache" / f"{name}.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def files() -> list[Path]:
    """What belongs to the project: committed, or new and not ignored. Relative to the checkout."""
    # safe.directory: the checkout may belong to somebody else, as when root works in a container.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout
    return sorted({Path(name) for name in output.split("\0") if name and (TOP / name).is_file()})


def shipped(*also: str) -> list[Path]:
    """The files that go into the artifact: `files` without galaxy.yml's build_ignore, apart from the folders `also`."""
    ignored = yaml.safe_load((TOP / "galaxy.yml").read_text("utf-8"))["build_ignore"]
    ignored = [pattern for pattern in ignored if pattern not in also]

    def is_ignored(path: Path) -> bool:
        parts = [path, *path.parents]
        return any(fnmatch.fnmatch(str(part), pattern) for part in parts for pattern in ignored)

    return [path for path in files() if not is_ignored(path)]


def stage(root: Path, *also: str) -> Path:
    """Copies what is shipped, and the folders `also`, below `root`: ansible-test refuses a symlink, and must not see
    the rest.

    The copy is a git repository of its own, as ansible-test would otherwise find this checkout's, which ignores .cache,
    and report success on no file at all.
    """
    shutil.rmtree(root, ignore_errors=True)
    tree = root / NAME
    for path in shipped(*also):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TOP / path, tree / path)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(tree)], check=True)
    return tree


def packages() -> list[str]:
    """The names of the plugin packages that are there, as mypy takes them."""
    folders = (TOP / "plugins" / kind for kind in ("module_utils", "filter", "modules", "action"))
    return [".".join([*NAME.parts, "plugins", folder.name]) for folder in folders if any(folder.rglob("*.py"))]


def docs_source(root: Path) -> Path:
    """A fresh Sphinx source folder with the configuration and the guides of docs/, and the texts beside README.md."""
    shutil.rmtree(root, ignore_errors=True)
    source = root / "source"
    shutil.copytree(TOP / "docs", source)
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy2(TOP / name, source / name.lower())
    source.chmod(0o700)  # antsibull-docs refuses a folder that others can read
    return source


def write_pins(path: Path, pins: str) -> None:
    origin = f"# Exact pins, made from {path.with_suffix('.in').name} by: nox -s lock\n"
    path.write_text(HEADER + origin + pins, "utf-8")
