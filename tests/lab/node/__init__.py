# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools of a node, for what runs there and not over HTTPS: `pvesm`, and the Perl that activates a volume.

They work on the storages in a lab's state folder, whether or not the lab runs, with PVE's output and error texts:

    with Lab(tmp_path / "state", seed) as lab:
        env = node.environment(lab.state, tmp_path / "bin")        # PATH with `pvesm` and `perl` in front
        subprocess.run(["pvesm", "status"], env=env)

A block device is a sparse file in the lab, and that is the path that the tools give; with LAB_DEVICES in the
environment it is a loop device, and with LAB_DIRTY a new one is not empty.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

TOOLS = ("pvesm", "perl")
_TESTS = Path(__file__).parents[2]


def environment(state: Path | str, folder: Path, node: str = "") -> dict[str, str]:
    """The environment of a node's programs.

    :param state: the lab's state folder.
    :param folder: where the tools are put; made when missing.
    :param node: the node; the lab's first when it is not given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOOLS:
        command = shlex.join([sys.executable, "-S", "-m", "lab.node", name, str(Path(state).resolve()), node])
        script = folder / name
        path = shlex.quote(os.pathsep.join([str(_TESTS), *(entry for entry in sys.path if "site-packages" in entry)]))
        script.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {command} "$@"\n')
        script.chmod(0o755)
    return {**os.environ, "PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}
