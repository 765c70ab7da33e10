# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters for PVE's drive strings and sizes."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ..module_utils._core.drive import parse_drive
from ..module_utils._core.drive_data import drive_data, drive_text
from ..module_utils._core.errors import ParseError
from ..module_utils._core.size import human_size, parse_size

if t.TYPE_CHECKING:
    from collections.abc import Callable


def _failing_well(name: str, function: Callable[[t.Any], t.Any]) -> Callable[[t.Any], t.Any]:
    """The function as a filter, with errors that name it."""

    def filter_(value: t.Any) -> t.Any:
        try:
            return function(value)
        except ParseError as error:
            raise AnsibleFilterError(f"diskwright.proxmox.{name}: {error}") from error

    return filter_


def _parse_drive(value: t.Any) -> dict[str, object]:
    if not isinstance(value, str):
        raise ParseError(f"{value!r} is no text; give a drive as PVE writes it")
    return drive_data(parse_drive(value))


def _format_drive(value: t.Any) -> str:
    if not isinstance(value, Mapping):
        raise ParseError(f"{value!r} is no dictionary; give a drive as parse_drive returns it")
    return drive_text(value)


def _human_size(value: t.Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ParseError(f"{value!r} is no number of bytes")
    return human_size(
        value if isinstance(value, int) else int(value) if re.fullmatch(r"[0-9]{1,30}", value) else parse_size(value)
    )


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[[t.Any], t.Any]]:
        """What Ansible asks for."""
        functions = {
            "parse_drive": _parse_drive,
            "format_drive": _format_drive,
            "to_bytes": parse_size,
            "human_size": _human_size,
        }
        return {name: _failing_well(name, function) for name, function in functions.items()}
