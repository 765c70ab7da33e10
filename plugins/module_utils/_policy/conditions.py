# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Conditions of rules: the part of JMESPath in which nothing unknown is taken for a no, checked before it is used.

A condition compares facts with values (``==``, ``<``, ``<=``, ``>``, ``>=``), names a fact that is true or false, joins
such parts with ``&&`` and ``||``, and may call ``contains(list, value)`` and ``lacks(list, value)``. Both are false as
long as one of their arguments is unknown. Negation (``!=``, ``!``) is refused, because it would be true of the unknown.
"""

from __future__ import annotations

import operator
import typing as t
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from .._core.errors import DiskwrightError, ParseError
from .choices import CHOICES
from .facts import FACTS, SECTIONS, Kind, nearest, unknown_fact

try:
    import jmespath
    import jmespath.exceptions
except ImportError:  # modules say so when they need it, and ansible-test imports this file without it
    jmespath = None

#: Paths beside the facts: what is decided already, and what of that the user decided.
CHOSEN, FIXED = "chosen", "fixed"
_COMPARISONS = {"eq": "==", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_TURNED = {"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}
_ORDERS: Mapping[str, t.Callable[[t.Any, t.Any], bool]] = MappingProxyType(
    {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}
)
_FUNCTIONS = ("contains", "lacks")
_NOT = "it would be true of what nobody knows; say which values are meant"
_Node = t.Mapping[str, t.Any]
Test = t.Callable[[t.Mapping[str, object]], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A condition that was checked and compiled.

    :param literals: the facts that it looks at, ``chosen.…`` and ``fixed.…`` among them, and with what it compares
        each of them.
    :param needs_choices: whether it looks at choices, and not at facts only.
    :param holds: whether it is true of values by path; what a path has no value for is unknown.
    """

    text: str
    literals: Mapping[str, frozenset[object]]
    needs_choices: bool
    holds: Test

    def decided(self, group: str = CHOSEN) -> frozenset[str]:
        """The choices that it looks at."""
        return frozenset(path.partition(".")[2] for path in self.literals if path.startswith(f"{group}."))


@lru_cache(maxsize=4096)
def compile_condition(text: str) -> Condition:
    """Check and compile a condition.

    :raises ParseError: with everything that is wrong with it, in words for its author.
    :raises DiskwrightError: the library jmespath is missing.
    """
    if jmespath is None:
        raise DiskwrightError("policies need the Python library jmespath; install it where this runs")
    try:
        expression = jmespath.compile(text)
        literals: dict[str, set[object]] = {}
        problems = list(dict.fromkeys(_check(expression.parsed, literals)))
        test = None if problems else _test(expression.parsed)
    except jmespath.exceptions.JMESPathError as error:
        raise ParseError(_syntax(text, error)) from error
    except (RecursionError, ValueError) as error:
        raise ParseError("the condition is too long, or holds a number that is; make several rules of it") from error
    if test is None:
        raise ParseError("; ".join(problems))
    frozen = {path: frozenset(values) for path, values in literals.items()}
    needs_choices = any(path.partition(".")[0] in (CHOSEN, FIXED) for path in frozen)
    return Condition(text, MappingProxyType(frozen), needs_choices, test)


def _test(node: _Node) -> Test:
    """The checked part as a function. jmespath's own interpreter would take 50 times as long, for a thousand guests."""
    kind, children = node["type"], node["children"]
    if kind == "literal":
        return lambda world: True
    if kind in ("and_expression", "or_expression"):
        left, right = map(_test, children)
        if kind == "and_expression":
            return lambda world: left(world) and right(world)
        return lambda world: left(world) or right(world)
    if kind == "comparator":
        return _comparison(node)
    if kind == "function_expression":
        return _call(node)
    path = str(_path(node))
    return lambda world: world.get(path) is True


def _comparison(node: _Node) -> Test:
    left, right = node["children"]
    name = node["value"]
    if left["type"] == "literal":
        left, right, name = right, left, _TURNED.get(name, name)
    path, value = str(_path(left)), right["value"]
    if name == "eq":
        # In JSON, and so in JMESPath, true is not 1.
        return lambda world: world.get(path) == value and isinstance(world.get(path), bool) == isinstance(value, bool)
    compare = _ORDERS[name]

    def ordered(world: Mapping[str, object]) -> bool:
        actual = world.get(path)
        return actual is not None and compare(actual, value)

    return ordered


def _call(node: _Node) -> Test:
    wanted = node["value"] == "contains"
    first, second = node["children"]
    path = _path(first)
    if path is not None:
        listed, item = path, (_literal_list(second) or [None])[0]

        def holds_item(world: Mapping[str, object]) -> bool:
            actual = world.get(listed)
            return isinstance(actual, (list, tuple)) and (item in actual) == wanted

        return holds_item
    fact, values = str(_path(second)), frozenset(map(_hashable, _literal_list(first) or []))

    def is_one(world: Mapping[str, object]) -> bool:
        actual = world.get(fact)
        return actual is not None and (actual in values) == wanted

    return is_one


_SLIPS = (
    (" and ", "write && instead of and"),
    (" or ", "write || instead of or"),
    (" not ", "say which values are meant instead of not"),
    (" in ", "write contains(['a', 'b'], fact) instead of in"),
)


def _syntax(text: str, error: Exception) -> str:
    """What jmespath says about a text that is none of its expressions, and what people usually meant."""
    hints = [hint for slip, hint in _SLIPS if slip in f" {text} "]
    single = text.replace("==", "").replace("<=", "").replace(">=", "").replace("!=", "")
    if "=" in single:
        hints.append("write == instead of =")
    column = getattr(error, "lex_position", None)
    where = f" at column {column + 1}" if isinstance(column, int) else ""
    if not text.strip():
        return "the condition is empty; write `true` for a rule that always holds"
    return f"'{text}' is no condition{where}; {' and '.join(hints) or 'write for example ' + _EXAMPLE}"


_EXAMPLE = "guest.os_family == 'linux' && storage.level == 'file'"


def _path(node: _Node) -> str | None:
    """``guest.os_family`` of the node that stands for it."""
    if node["type"] == "field":
        return str(node["value"])
    if node["type"] == "subexpression" and all(child["type"] == "field" for child in node["children"]):
        return ".".join(str(child["value"]) for child in node["children"])
    return None


def _check(node: _Node, literals: dict[str, set[object]]) -> Iterator[str]:
    """What is wrong with a part that is to be true or false."""
    kind, children = node["type"], node["children"]
    if kind in ("and_expression", "or_expression"):
        for child in children:
            yield from _check(child, literals)
    elif kind == "comparator":
        yield from _check_comparison(node, literals)
    elif kind == "function_expression":
        yield from _check_function(node, literals)
    elif kind == "not_expression" or (kind == "subexpression" and children[0]["type"] == "not_expression"):
        yield f"! is refused: {_NOT}, for example need.snapshots == `false`, or lacks(['windows'], guest.os_family)"
    elif _path(node) is not None:
        yield from _check_flag(str(_path(node)), literals)
    elif kind != "literal" or node["value"] is not True:
        yield f"a condition compares facts with values, {_EXAMPLE}; other parts of JMESPath are not used here"


def _check_flag(path: str, literals: dict[str, set[object]]) -> Iterator[str]:
    problem = _unknown(path)
    literals.setdefault(path, set())
    if problem:
        yield problem
    elif _kind(path) is not Kind.BOOL:
        yield f"{path} is not true or false; compare it with a value, {path} == '{_values(path)[0] or 'x'}'"


def _check_comparison(node: _Node, literals: dict[str, set[object]]) -> Iterator[str]:
    left, right = node["children"]
    if node["value"] == "ne":
        yield f"!= is refused: {_NOT}, for example lacks(['windows'], guest.os_family)"
        return
    if left["type"] == "literal":
        left, right = right, left
    path = _path(left)
    if path is None or right["type"] != "literal":
        other = _path(right)
        if path and other and "." not in other and not _unknown(path):
            quoted = f"`{other}`" if other in ("null", "true", "false") or other.isdigit() else f"'{other}'"
            yield f"{other} stands for a fact here; write {path} == {quoted}"
        else:
            yield f"one side of {_COMPARISONS[node['value']]} is a fact and the other a value; write {_EXAMPLE}"
        return
    literals.setdefault(path, set()).add(_hashable(right["value"]))
    problem = _unknown(path) or _bad_value(path, right["value"], node["value"])
    if problem:
        yield problem


def _check_function(node: _Node, literals: dict[str, set[object]]) -> Iterator[str]:
    name, arguments = node["value"], node["children"]
    if name not in _FUNCTIONS:
        near = nearest(str(name), _FUNCTIONS)
        yield f"there is no function {name}(); conditions have {' and '.join(_FUNCTIONS)}(list, value){near}"
        return
    values = [_literal_list(argument) for argument in arguments]
    paths = [_path(argument) for argument in arguments]
    if len(arguments) == 2 and paths[0] and values[1] is not None and len(values[1]) == 1:
        path, listed, inside = paths[0], values[1], True  # contains(storage.formats, 'qcow2')
    elif len(arguments) == 2 and paths[1] and values[0] is not None:
        path, listed, inside = paths[1], values[0], False  # contains(['win10', 'win11'], guest.os_release)
    else:
        examples = f"{name}(storage.formats, 'qcow2') or {name}(['win10', 'win11'], guest.os_release)"
        yield f"{name} takes a list and a value, {examples}"
        return
    literals.setdefault(path, set()).update(map(_hashable, listed))
    problem = _unknown(path)
    if problem:
        yield problem
    elif inside != (_kind(path) is Kind.LIST):
        is_list = "is a list" if _kind(path) is Kind.LIST else "is no list"
        right = f"{name}({path}, 'x')" if _kind(path) is Kind.LIST else f"{name}(['x', 'y'], {path})"
        yield f"{path} {is_list}; write {right}"
    else:
        yield from (problem for value in listed if (problem := _bad_value(path, value, "in")))


def _literal_list(node: _Node) -> list[object] | None:
    """The values of ``['a', 'b']``, of a literal list, or of a single literal."""
    if node["type"] == "literal":
        return list(node["value"]) if isinstance(node["value"], list) else [node["value"]]
    if node["type"] == "multi_select_list" and all(child["type"] == "literal" for child in node["children"]):
        return [child["value"] for child in node["children"]]
    return None


def _hashable(value: object) -> object:
    return tuple(map(_hashable, value)) if isinstance(value, list) else str(value) if isinstance(value, dict) else value


def _unknown(path: str) -> str | None:
    """What is wrong with a path, or ``None``."""
    section, _dot, name = path.partition(".")
    if path in FACTS or (section in (CHOSEN, FIXED) and name in CHOICES):
        return None
    if section in (CHOSEN, FIXED):
        return f"there is no choice '{path}'; there are {', '.join(CHOICES)}{nearest(name, CHOICES)}"
    if not name:
        text = "" if section in SECTIONS else f"; if it is a text, put it between single quotes: '{section}'"
        return f"{unknown_fact(path)}{text}" if text else f"{path} is a group of facts; name one, {_first(path)}"
    return unknown_fact(path)


def _first(section: str) -> str:
    return next(path for path in FACTS if path.startswith(f"{section}."))


def _kind(path: str) -> Kind:
    return FACTS[path].kind if path in FACTS else Kind.CHOICE


def _values(path: str) -> tuple[str, ...]:
    """What a path can be compared with; empty if anything goes."""
    return FACTS[path].choices if path in FACTS else CHOICES[path.partition(".")[2]].values


def _bad_value(path: str, value: object, comparison: str) -> str | None:
    """What is wrong with comparing a path with a value, or ``None``."""
    kind, ordered = _kind(path), comparison not in ("eq", "in")
    numeric = kind in (Kind.NUMBER, Kind.VERSION)
    if value is None and comparison == "eq":
        return None  # unknown, on purpose
    if ordered and not numeric:
        return f"{path} has no order; compare it with =="
    if kind is Kind.BOOL:
        return None if isinstance(value, bool) else f"{path} is true or false; write {path}, or {path} == `false`"
    if numeric:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return None if number else f"{path} is a number; put it between backticks, {path} >= `9.0`"
    if kind is Kind.LIST and comparison == "eq":
        return f"{path} is a list; write contains({path}, 'x')"
    if _values(path) and value not in _values(path):
        return f"{path} is never '{value}'; it can be {', '.join(_values(path))}{nearest(str(value), _values(path))}"
    return None
