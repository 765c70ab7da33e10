# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The arguments that name one guest; documented in the fragment ``_guest``."""

from __future__ import annotations

import typing as t

from .runner import Rules

ONE_GUEST: t.Final = Rules(required_one_of=(("vmid", "name"),))


def one_guest_spec() -> dict[str, dict[str, t.Any]]:
    """The arguments that name one guest, a new spec each time."""
    return {"vmid": {"type": "int"}, "name": {"type": "str"}, "node": {"type": "str"}}
