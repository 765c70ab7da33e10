# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Short ways to ask a policy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.engine import Policy, Recommendation, recommend
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import FACTS, Facts, read_facts
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.load import load_policy


@cache
def policy(name: str) -> Policy:
    return load_policy(name, pve_version="9.2")


def facts(**known: Any) -> Facts:
    """Facts by their last names, ``facts(os_family="linux", type="dir")``; ``thin@need`` where that is not enough."""
    nested: dict[str, dict[str, Any]] = {}
    for key, value in known.items():
        name, _at, group = key.partition("@")
        (path,) = [path for path in FACTS if path.partition(".")[2] == name and path.startswith(group)]
        nested.setdefault(path.partition(".")[0], {})[name] = value
    return read_facts(nested)


def ask(name: str, fixed: Mapping[str, str | None] | None = None, /, **known: Any) -> Recommendation:
    return recommend(fixed or {}, facts(**known), policy(name))


def values(recommendation: Recommendation) -> dict[str, str | None]:
    return {name: choice.value for name, choice in recommendation.choices.items()}


def rejected(recommendation: Recommendation, choice: str) -> dict[str | None, str]:
    """What was rejected for a choice, with the rule that was against it."""
    return {item.value: item.rule for item in recommendation.choices[choice].rejected}
