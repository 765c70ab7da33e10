# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The rules of this collection, by policy. The tables are beside this file; the conditions are in ``conditions.py``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .chapter_2016 import CHAPTER_2016
from .constraints import CONSTRAINTS
from .current import CURRENT
from .rule import HARD, SITE, Rule

__all__ = ["CONSTRAINTS", "HARD", "POLICIES", "SITE", "Rule"]

#: By the name of the policy, without the hard constraints.
POLICIES: Mapping[str, tuple[Rule, ...]] = MappingProxyType({"current": CURRENT, "chapter-2016": CHAPTER_2016})
