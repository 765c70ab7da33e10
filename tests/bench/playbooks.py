# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of ansible-playbook: with this collection, and with community.proxmox in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tools import checkout

PLACE = checkout.TOP / ".cache" / "bench"

# Runs a module and notes its peak memory: the kernel counts it for each process that has been waited for.
_WATCH = """#!{python} -I
import os, sys
pid = os.posix_spawn({python!r}, [{python!r}, *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
with open({note!r}, "a") as note:
    note.write(str(usage.ru_maxrss) + "\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Ansible:
    """An environment with ansible-playbook.

    :param folder: where its programs are.
    :param collections: where Ansible looks for collections beside its own package's.
    """

    def __init__(self, folder: Path, collections: str = "") -> None:
        self.python = folder / "python"
        self._program = folder / "ansible-playbook"
        self._home = tempfile.TemporaryDirectory(prefix="diskwright-bench-ansible-")
        self._collections = collections
        self._books = 0

    def book(self, play: list[dict[str, Any]]) -> Path:
        """Write a playbook, outside of what is measured."""
        self._books += 1
        path = Path(self._home.name, f"{self._books}.yml")
        path.write_text(yaml.dump(play, Dumper=yaml.CSafeDumper, sort_keys=False), "utf-8")
        return path

    def seconds(self, book: Path, server: Mapping[str, str], python: Path | None = None) -> float:
        """How long a playbook takes.

        :param server: the environment that names the PVE API.
        :param python: what runs the modules.
        """
        command = [str(self._program), "-i", "localhost,", "-c", "local"]
        command += ["-e", json.dumps({"ansible_python_interpreter": str(python or self.python)}), str(book)]
        begun = time.perf_counter()
        done = subprocess.run(command, env=self._environment(server), capture_output=True, text=True, check=False)
        took = time.perf_counter() - begun
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return took

    def peak_memory(self, book: Path, server: Mapping[str, str]) -> float:
        """The most memory that a module of a playbook held at any time, in MB."""
        note, watch = Path(self._home.name, "memory"), Path(self._home.name, "watching-python")
        watch.write_text(_WATCH.format(python=str(self.python), note=str(note)), "utf-8")
        watch.chmod(0o755)
        self.seconds(book, server, watch)
        return max(int(line) for line in note.read_text("utf-8").split()) * 1024 / 1e6

    def _environment(self, server: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PROXMOX_"))}
        own = {
            "ANSIBLE_HOME": self._home.name,
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_COLLECTIONS_PATH": self._collections,
        }
        return {**kept, **own, **server}


def ours() -> Ansible:
    """This checkout, with the ansible-core that its tests run with."""
    return Ansible(Path(sys.executable).parent, str(checkout.link()))


def peer() -> Ansible:
    """community.proxmox from the package `ansible`, with the same ansible-core, proxmoxer and requests."""
    folder = PLACE / "peer"
    requirements = checkout.TOP / "tests" / "requirements"
    if not (folder / "stamp").exists():
        print("installing the package ansible, which has community.proxmox; this takes minutes, once", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pins = [word for name in ("ansible", "test") for word in ("-c", str(requirements / f"{name}.txt"))]
        wanted = ["ansible", "-r", str(checkout.TOP / "requirements.txt"), *pins]
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted])
        (folder / "stamp").touch()
    return Ansible(folder / "bin")


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})


def peer_version(ansible: Ansible) -> str:
    """The version of community.proxmox."""
    statement = "import pathlib, ansible_collections as a; print(pathlib.Path(a.__path__[0]))"
    found = subprocess.run([ansible.python, "-I", "-c", statement], check=True, capture_output=True, text=True)
    manifest = Path(found.stdout.strip(), "community", "proxmox", "MANIFEST.json")
    return str(yaml.safe_load(manifest.read_text("utf-8"))["collection_info"]["version"])
