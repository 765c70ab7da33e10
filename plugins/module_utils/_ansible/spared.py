# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Mistakes in one guest's declaration are that guest's. AnsibleModule would end the run of all guests for them.

They are set aside before it looks at the arguments, and put back afterwards for the core, which names guest and slot.
So are all disks: the core checks each option of theirs anyway, and twice is half of the time for a thousand guests.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.validation import check_type_bool, check_type_float, check_type_int

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_Spec = dict[str, dict[str, t.Any]]
_Path = tuple[t.Any, ...]

# What declares guests, and within them disks. A guest that can't be told from others stays AnsibleModule's matter.
_DISKS = "disks"
_DECLARING = ("guests", _DISKS)
_IDENTITY = ("vmid", "facts")
_CHECKS: Mapping[str, Callable[[t.Any], object]] = {
    "bool": check_type_bool,
    "int": check_type_int,
    "float": check_type_float,
}


class SparingModule(AnsibleModule):
    """An AnsibleModule that leaves mistakes in the declarations of guests to the guests."""

    def __init__(self, **kwargs: t.Any) -> None:
        self._declaring: _Spec = {name: row for name, row in kwargs["argument_spec"].items() if name in _DECLARING}
        self._aside: list[tuple[_Path, t.Any]] = []
        super().__init__(**kwargs)
        for path, value in self._aside:
            _put_back(self.params, path, value)

    def _load_params(self) -> None:
        super()._load_params()
        self._aside = list(_take_entries(self._declaring, self.params, ()))


def _take_entries(spec: _Spec, holder: dict[str, t.Any], path: _Path) -> Iterator[tuple[_Path, t.Any]]:
    """Take what does not fit out of the lists of dictionaries that a dictionary holds."""
    for name, row in spec.items():
        entries = holder.get(name)
        if "options" not in row or not isinstance(entries, list):
            continue
        if name == _DISKS and all(isinstance(entry, dict) for entry in entries):
            yield (*path, name), entries
            holder[name] = []  # still there, for what must not be given together
            continue
        for index, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield from _take(row["options"], entry, (*path, name, index))


def _take(spec: _Spec, entry: dict[str, t.Any], path: _Path) -> Iterator[tuple[_Path, t.Any]]:
    for name in list(entry):
        if name not in _IDENTITY and not _fits(spec.get(name), entry[name]):
            yield (*path, name), entry.pop(name)
    for name, row in spec.items():
        if row.get("required"):
            entry.setdefault(name, "")
    yield from _take_entries(spec, entry, path)


def _fits(row: Mapping[str, t.Any] | None, value: t.Any) -> bool:
    """Whether AnsibleModule would take a value; a doubt is left to the core, which has the same words for it."""
    if row is None or value is None:
        return row is not None
    if row.get("choices") and str(value) not in row["choices"]:
        return False
    try:
        _CHECKS.get(row["type"], str)(value)
    except (TypeError, ValueError):
        return False
    return True


def _put_back(params: dict[str, t.Any], path: _Path, value: t.Any) -> None:
    holder: t.Any = params
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
