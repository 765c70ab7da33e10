# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of one tool: `python -m lab.node pvesm STATE NODE alloc local 100 vm-100-disk-0.raw 1024`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lab.node.pvesm import Pvesm, Refused
from lab.storages import Storages
from lab.terms import StorageError


def main(tool: str, state: str, node: str, *arguments: str) -> int:
    """Does what the tool would do; returns its exit status."""
    seed = json.loads(Path(state, "seed.json").read_text())
    storages = Storages(Path(state), seed["storages"], node or str(seed["nodes"][0]))
    pvesm = Pvesm(storages, devices="LAB_DEVICES" in os.environ, dirty="LAB_DIRTY" in os.environ)
    try:
        if tool == "perl":
            pvesm.perl(*arguments)
        else:
            pvesm.call(*arguments)
    except (StorageError, Refused) as error:
        sys.stderr.write(f"{error.message.rstrip()}\n")
        return 255
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
