# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What can go wrong while storage is measured, as types."""

from __future__ import annotations

from .._core.errors import DiskwrightError


class BenchError(DiskwrightError):
    """Something about a benchmark went wrong."""


class GuestError(BenchError):
    """The guest that measures did not do what it was to do."""
