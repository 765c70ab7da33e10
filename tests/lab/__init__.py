# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Proxmox VE lookalike over HTTPS that holds real images."""

from __future__ import annotations
