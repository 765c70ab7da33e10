# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for get-pip.py, for ansible-test.

ansible-test downloads get-pip.py from a site of its own, which many companies' networks and build machines do not
reach although they reach a package index. Python itself carries a pip: that one installs the release asked for.
ansible-test runs this file with every Python that it finds, so it keeps to what Python 3.8 knows.
"""

from __future__ import annotations

import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
# get-pip.py's own options; pip does not know them.
arguments = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *arguments]))
