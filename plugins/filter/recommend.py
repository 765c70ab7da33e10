# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that choose and explain."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ..module_utils._core.errors import DiskwrightError, ParseError
from ..module_utils._policy import engine, explain
from ..module_utils._policy.choices import read_fixed
from ..module_utils._policy.facts import read_facts
from ..module_utils._policy.load import load_policy

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # before ansible-core 2.19, and should it ever move: errors then name a rule by its number
    Origin = None

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _recommend(
    disk: t.Any,
    facts: Mapping[str, t.Any] | None = None,
    policy: str = "current",
    rules: Sequence[t.Any] | None = None,
) -> dict[str, object]:
    if disk is not None and not isinstance(disk, Mapping):
        raise ParseError(f"{disk!r} is no dictionary; give a disk as proxmox_disks declares it, or {{}}")
    known = read_facts(facts)
    version = t.cast("float | None", known.get("storage.pve_version"))
    places = [_place(rule) for rule in rules] if isinstance(rules, (list, tuple)) else ()
    loaded = load_policy(policy, rules or (), version, places)
    return explain.recommendation_data(engine.recommend(read_fixed(disk or {}), known, loaded))


def _explain(recommendation: t.Any, style: str = "text") -> str:
    if not isinstance(recommendation, Mapping):
        raise ParseError(f"{recommendation!r} is no dictionary; explain takes what recommend returns")
    return explain.explain(explain.read_recommendation(recommendation), style)


def _place(rule: t.Any) -> str:
    """Where a rule was written, as far as Ansible knows: each release remembers it elsewhere."""
    origin = Origin.get_tag(rule) if Origin is not None else None
    if origin is not None and origin.path:
        return f"{origin.path}, line {origin.line_num}" if origin.line_num else str(origin.path)
    source, line, _column = getattr(rule, "ansible_pos", None) or ("", 0, 0)
    return f"{source}, line {line}" if source else ""


def _failing_well(name: str, function: Callable[..., t.Any]) -> Callable[..., t.Any]:
    """The function as a filter, with errors that name it."""

    def filter_(*args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return function(*args, **kwargs)
        except DiskwrightError as error:
            raise AnsibleFilterError(f"diskwright.proxmox.{name}: {error}") from error

    return filter_


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """What Ansible asks for."""
        functions: dict[str, Callable[..., t.Any]] = {"recommend": _recommend, "explain": _explain}
        return {name: _failing_well(name, function) for name, function in functions.items()}
