# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What the work on a stopped guest's disk needs of that disk. The room of images has what attaches it.

Attaching is not this room's business, so that everything here runs on any mounted folder.
"""

from __future__ import annotations

import typing as t
from contextlib import AbstractContextManager

from .ntfs import Read


class Volume(t.Protocol):
    """A disk that no running guest uses."""

    @property
    def name(self) -> str:
        """What the user called it: a path or a volume id."""

    @property
    def partitions(self) -> tuple[int, ...]:
        """The numbers of its partitions; 0 is a disk without any."""

    def opened(self, partition: int) -> AbstractContextManager[Read]:
        """The bytes of a partition, to be read. Nothing is written."""

    def mounted(self, partition: int, *, writable: bool) -> AbstractContextManager[str]:
        """The folder at which a partition is mounted meanwhile. With ``writable`` false, nothing is written."""
