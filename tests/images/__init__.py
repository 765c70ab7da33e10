# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images for tests, made when they are needed: good ones of every kind, broken ones, hostile ones.

``GOOD`` and ``BAD`` list specimens; ``vmdk`` and ``archive`` make images to measure. The writers share no code with the
collection's readers: they follow the formats' descriptions, and other programs read what they write.
"""

from __future__ import annotations

from images.bad import BAD, Bad
from images.content import disk
from images.good import GOOD, Good

__all__ = ["BAD", "GOOD", "Bad", "Good", "disk"]
