# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Plain data and frozen dataclasses, either way: what a class says of its attributes is what the data must be. Pure."""

from __future__ import annotations

import types
import typing as t
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache

from .._core.errors import ParseError

_Type = t.TypeVar("_Type")
_WORDS: t.Final = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def as_data(value: t.Any) -> t.Any:
    """A dataclass, and all that is in it, as dictionaries, lists, texts and numbers."""
    if hasattr(value, "as_json"):
        return value.as_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_data(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple):
        return [as_data(one) for one in value]
    return value


def read_data(kind: type[_Type], data: object, where: str) -> _Type:
    """What :func:`as_data` gave, as the dataclass that it was. What is missing has the default of its attribute.

    :param where: what the data is called in messages.
    :raises ParseError: with everything that is not as the class says; each line names where it is.
    """
    problems: list[str] = []
    found = _read(kind, data, where, problems)
    if problems:
        raise ParseError("\n".join(problems))
    return t.cast("_Type", found)


@lru_cache(maxsize=64)
def _hints(kind: type) -> Mapping[str, t.Any]:
    return t.get_type_hints(kind)


def _read(kind: t.Any, data: object, where: str, problems: list[str]) -> t.Any:
    origin, inner = t.get_origin(kind), t.get_args(kind)
    if origin in (t.Union, types.UnionType):
        real = next(one for one in inner if one is not type(None))
        return None if data is None else _read(real, data, where, problems)
    if origin is tuple:
        return _read_list(inner[0], data, where, problems)
    if hasattr(kind, "from_json"):
        return _read_own(kind, data, where, problems)
    if is_dataclass(kind):
        return _read_object(t.cast("type", kind), data, where, problems)
    return _read_plain(kind, data, where, problems)


def _read_list(kind: t.Any, data: object, where: str, problems: list[str]) -> t.Any:
    if not isinstance(data, (list, tuple)):
        problems.append(f"{where} is not a list")
        return ()
    return tuple(_read(kind, one, f"{where}[{number}]", problems) for number, one in enumerate(data))


def _read_own(kind: t.Any, data: object, where: str, problems: list[str]) -> t.Any:
    try:
        if isinstance(data, Mapping):
            return kind.from_json(data)
        problems.append(f"{where} is not a dictionary")
    except ParseError as error:
        problems.append(f"{where}: {error}")
    return None


def _read_object(kind: type, data: object, where: str, problems: list[str]) -> t.Any:
    if not isinstance(data, Mapping):
        problems.append(f"{where} is not a dictionary")
        return None
    hints, before = _hints(kind), len(problems)
    known = {item.name: item for item in fields(kind)}
    problems.extend(f"{where}.{name} is not known; there are {', '.join(known)}" for name in data if name not in known)
    values = {name: _read(hints[name], data[name], f"{where}.{name}", problems) for name in known if name in data}
    lacking = [name for name, item in known.items() if name not in data and item.default is MISSING]
    problems.extend(f"{where}.{name} is missing" for name in lacking)
    return kind(**values) if len(problems) == before else None


def _read_plain(kind: t.Any, data: object, where: str, problems: list[str]) -> t.Any:
    whole = isinstance(data, int) and not isinstance(data, bool)
    if kind is float and whole:
        return float(t.cast("int", data))
    if (kind is int and whole) or (kind is not int and isinstance(data, kind)):
        return data
    problems.append(f"{where} is not {_WORDS[kind]}")
    return None
