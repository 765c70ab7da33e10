# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the integration targets run against: the cluster that integration_config.yml names, or a lab of their own."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tools.checkout import TOP, link

if TYPE_CHECKING:
    from lab import Lab

FOLDER = Path("tests", "integration")
CONFIG = FOLDER / "integration_config.yml"
NODE, STORAGE, OTHER, FILES = "pve1", "local-lvm", "tank", "local"


@contextlib.contextmanager
def configured(tree: Path) -> Iterator[str]:
    """Writes the targets' settings into the staged `tree`; gives the name of what they run against."""
    if (TOP / CONFIG).is_file():
        shutil.copy2(TOP / CONFIG, tree / CONFIG)
        yield f"the cluster in {CONFIG}"
        return
    from lab import Lab  # takes a while, and each call of nox reads this file

    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)  # nox makes a log that would show every request
    with tempfile.TemporaryDirectory(prefix="lab-") as state, Lab(state, TOP / FOLDER / "lab.yml") as lab:
        settings = {**_of(lab), **_windows_disk(Path(state))}
        (tree / CONFIG).write_text(yaml.safe_dump(settings), "utf-8")
        yield f"a lab at {lab.url}"


def _of(lab: Lab) -> dict[str, Any]:
    api = {"api_host": lab.host, "api_port": lab.port, "api_user": "root@pam", "api_token_id": "test",
           "api_token_secret": lab.token(), "validate_certs": True, "ca_path": str(lab.cafile)}  # fmt: skip
    return {
        "integration_api": api,
        "integration_node": NODE,
        "integration_storage": STORAGE,
        "integration_other_storage": OTHER,
        "integration_files": FILES,
        "integration_linux": "linux1",
        "integration_windows": "windows1",
        "integration_virtio_iso": "local:iso/virtio-win-0.1.271.iso",
    }


def _windows_disk(folder: Path) -> dict[str, Any]:
    """A disk with a Windows on it and a driver ISO, where this machine has what it takes to make them."""
    sys.path.insert(0, str(link()))
    from e2e import injecting
    from winguest.hivex_here import HIVEX
    from winguest.media import all_files, write_iso

    if injecting.missing() or HIVEX is None or HIVEX.__file__ is None:
        return {}
    iso = write_iso(folder / "virtio-win.iso", all_files())
    disk = injecting.disk_with(folder, injecting.windows_volume(folder / "volume"))
    place = {"path": str(disk), "iso": str(iso), "pythonpath": str(Path(HIVEX.__file__).parents[1])}
    return {"integration_windows_disk": place}
