# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What can go wrong with images, as types."""

from __future__ import annotations

from .._core.errors import DiskwrightError


class ImageError(DiskwrightError):
    """Something about an image went wrong."""


class ImageRefusedError(ImageError):
    """An image that must not be used.

    :param code: a stable word in kebab case, for machines: ``extent-truncated``.
    :param file: the name of the file that is at fault, below the source folder.
    :param problem: what is wrong with it, with the value: a clause without full stop.
    :param remedy: what is allowed and what to do: a clause without full stop.
    """

    def __init__(self, code: str, file: str, problem: str, remedy: str) -> None:
        self.code = code
        self.file = file
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{file}: {problem}; {remedy}")
