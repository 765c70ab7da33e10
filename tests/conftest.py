# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes `ansible_collections.diskwright.proxmox` importable, here and in the programs that tests start, wherever this
checkout lies. tests/ itself is on the path by pyproject.toml.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools import checkout

COLLECTIONS = str(checkout.link())
sys.path.insert(0, COLLECTIONS)
os.environ["ANSIBLE_COLLECTIONS_PATH"] = COLLECTIONS
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), COLLECTIONS])
