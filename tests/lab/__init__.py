# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Proxmox VE lookalike over HTTPS that holds real images. Tests use `Lab`, people `python -m lab`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.service import Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> Any:
    """The server and all that it needs, only for those who start it: the node's tools (`lab.node`) have to be quick."""
    if name == "Lab":
        from lab.service import Lab

        return Lab
    raise AttributeError(name)
