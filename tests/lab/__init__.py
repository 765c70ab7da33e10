# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Proxmox VE lookalike over HTTPS that holds real images. Tests use `Lab`, people `python -m lab`."""

from __future__ import annotations

from lab.service import Lab

__all__ = ["Lab"]
