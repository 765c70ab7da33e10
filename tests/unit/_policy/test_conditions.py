# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditions: what they mean, and what their authors are told."""

from __future__ import annotations

from typing import Any

import jmespath
import jmespath.functions
import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError, ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy import conditions
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.conditions import compile_condition
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import FACTS, Kind
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "world", "holds"),
    [
        ("`true`", {}, True),
        ("guest.os_family == 'linux'", {"guest.os_family": "linux"}, True),
        ("guest.os_family == 'linux'", {"guest.os_family": "windows"}, False),
        ("guest.os_family == 'linux'", {}, False),
        ("'linux' == guest.os_family", {"guest.os_family": "linux"}, True),
        ("guest.os_family == `null`", {}, True),
        ("guest.os_family == `null`", {"guest.os_family": "bsd"}, False),
        ("need.snapshots", {"need.snapshots": True}, True),
        ("need.snapshots", {"need.snapshots": False}, False),
        ("need.snapshots", {}, False),
        ("need.snapshots == `false`", {"need.snapshots": False}, True),
        ("need.snapshots == `false`", {}, False),
        ("guest.machine_version < `10.0`", {"guest.machine_version": 9.2}, True),
        ("guest.machine_version < `10.0`", {}, False),
        ("`10.0` <= guest.machine_version", {"guest.machine_version": 10.0}, True),
        ("`10.0` > guest.machine_version", {"guest.machine_version": 10.0}, False),
        ("contains(['dir', 'nfs'], storage.type)", {"storage.type": "nfs"}, True),
        ("contains(['dir', 'nfs'], storage.type)", {"storage.type": "lvm"}, False),
        ("contains(['dir', 'nfs'], storage.type)", {}, False),
        ('contains(`["dir", "nfs"]`, storage.type)', {"storage.type": "dir"}, True),
        ("lacks(['dir', 'nfs'], storage.type)", {"storage.type": "lvm"}, True),
        ("lacks(['dir', 'nfs'], storage.type)", {}, False),
        ("contains(storage.formats, 'qcow2')", {"storage.formats": ("raw", "qcow2")}, True),
        ("lacks(storage.formats, 'qcow2')", {"storage.formats": ("raw",)}, True),
        ("lacks(storage.formats, 'qcow2')", {}, False),
        ("need.thin || need.overcommit", {"need.overcommit": True}, True),
        ("need.thin && need.overcommit", {"need.overcommit": True}, False),
        ("need.thin && need.overcommit || need.snapshots", {"need.snapshots": True}, True),
        ("need.thin && (need.overcommit || need.snapshots)", {"need.snapshots": True}, False),
        ("chosen.bus == 'scsi' && chosen.scsihw == `null`", {"chosen.bus": "scsi"}, True),
    ],
)
def test_what_a_condition_means(text: str, world: dict[str, object], holds: bool) -> None:
    assert compile_condition(text).holds(world) is holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the condition is empty; write `true` for a rule that always holds"),
        ("guest.os_family = 'linux'", "write == instead of ="),
        ("need.thin and need.snapshots", "write && instead of and"),
        ("need.thin or need.snapshots", "write || instead of or"),
        ("storage.type in ['dir', 'nfs']", "write contains(['a', 'b'], fact) instead of in"),
        ("guest.os_family == 'linux", "is no condition at column"),
        ("guest.os_family ==", "write for example guest.os_family == 'linux'"),
        ("guest.os_family != 'windows'", "!= is refused: it would be true of what nobody knows"),
        ("!need.snapshots", "! is refused: it would be true of what nobody knows"),
        ("need.thin && !(need.snapshots)", "for example need.snapshots == `false`"),
        ("guest.os_famliy == 'linux'", "there is no fact 'guest.os_famliy', did you mean 'guest.os_family'?"),
        ("guests.os_family == 'linux'", "did you mean 'guest.os_family'?"),
        ("storage.workload == 'database'", "did you mean 'need.workload'?"),
        ("guest.colour == 'red'", "there is no fact 'guest.colour'; guest has os_family, os_release"),
        ("workload == 'database'", "there is no fact 'workload', did you mean 'need.workload'?"),
        ("guest", "guest is a group of facts; name one, guest.os_family"),
        ("guest.os_family == 'Linux'", "is never 'Linux'; it can be linux, windows, bsd, solaris, other, did you mean"),
        ("guest.os_family == linux", "linux stands for a fact here; write guest.os_family == 'linux'"),
        ('guest.os_family == "linux"', "linux stands for a fact here; write guest.os_family == 'linux'"),
        ("guest.os_family == null", "write guest.os_family == `null`"),
        ("need.snapshots == true", "write need.snapshots == `true`"),
        ("need.thin == 'true'", "need.thin is true or false; write need.thin, or need.thin == `false`"),
        ("guest.machine_version > '9.2'", "is a number; put it between backticks, guest.machine_version >= `9.0`"),
        ("guest.os_family > 'a'", "guest.os_family has no order; compare it with =="),
        ("guest.os_family", "is not true or false; compare it with a value, guest.os_family == 'linux'"),
        ("storage.formats == 'raw'", "storage.formats is a list; write contains(storage.formats, 'x')"),
        ("contains(storage.type, 'dir')", "storage.type is no list; write contains(['x', 'y'], storage.type)"),
        ("contains(['raw'], storage.formats)", "storage.formats is a list; write contains(storage.formats, 'x')"),
        ("contains(['dri'], storage.type)", "storage.type is never 'dri'; it can be"),
        ("contains(storage.type)", "contains takes a list and a value, contains(storage.formats, 'qcow2') or"),
        ("has(storage.formats, 'raw')", "there is no function has(); conditions have contains and lacks(list, value)"),
        ("length(storage.formats) > `1`", "one side of > is a fact and the other a value"),
        ("guest.os_family == storage.type", "one side of == is a fact and the other a value"),
        ("chosen.buss == 'scsi'", "there is no choice 'chosen.buss'; there are bus, scsihw,"),
        ("chosen.bus == 'nvme'", "chosen.bus is never 'nvme'; it can be ide, sata, scsi, virtio"),
        ("storage.formats[0] == 'raw'", "one side of == is a fact and the other a value"),
        ("need | thin", "other parts of JMESPath are not used here"),
        ("`false`", "a condition compares facts with values"),
    ],
)
def test_what_the_author_of_a_bad_condition_is_told(text: str, said: str) -> None:
    with pytest.raises(ParseError) as caught:
        compile_condition(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text", [" && ".join(["guest.running"] * 5000), f"{'(' * 5000}guest.running{')' * 5000}", f"guest[{'9' * 5000}]"]
)
def test_a_condition_without_end_is_refused_in_words(text: str) -> None:
    with pytest.raises(ParseError, match="the condition is too long"):
        compile_condition(text)


def test_a_value_that_is_nested_is_no_value() -> None:
    with pytest.raises(ParseError, match="guest.os_family is never"):
        compile_condition('contains(`[[{"a": 1}]]`, guest.os_family)')


def test_all_that_is_wrong_is_reported_together() -> None:
    with pytest.raises(ParseError) as caught:
        compile_condition("guest.a == 'x' && need.b && storage.c == 'y'")
    assert str(caught.value).count("there is no fact") == 3


def test_without_jmespath_the_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "jmespath", None)
    with pytest.raises(DiskwrightError, match="need the Python library jmespath; install it where this runs"):
        compile_condition("need.snapshots || need.throwaway || need.thin")


# ---- the meaning is jmespath's own


class Functions(jmespath.functions.Functions):  # type: ignore[misc]
    """The two functions as jmespath would run them."""

    @jmespath.functions.signature({"types": ["array", "null"]}, {"types": []})  # type: ignore[misc]
    def _func_contains(self, subject: Any, search: Any) -> bool:
        return subject is not None and search is not None and search in subject

    @jmespath.functions.signature({"types": ["array", "null"]}, {"types": []})  # type: ignore[misc]
    def _func_lacks(self, subject: Any, search: Any) -> bool:
        return subject is not None and search is not None and search not in subject


PATHS = [path for path, fact in FACTS.items() if fact.kind is not Kind.TEXT]


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    path = draw(st.sampled_from(PATHS))
    fact = FACTS[path]
    if fact.kind is Kind.BOOL:
        return draw(st.sampled_from((path, f"{path} == `true`", f"{path} == `false`", f"{path} == `null`")))
    if fact.kind in (Kind.VERSION, Kind.NUMBER):
        sign = draw(st.sampled_from(("<", "<=", "==", ">=", ">")))
        number = draw(st.sampled_from(("8.4", "9.0", "10.0")))
        return draw(st.sampled_from((f"{path} {sign} `{number}`", f"`{number}` {sign} {path}")))
    function = draw(st.sampled_from(("contains", "lacks")))
    chosen = draw(st.lists(st.sampled_from(fact.choices), min_size=1, max_size=3, unique=True))
    if fact.kind is Kind.LIST:
        return f"{function}({path}, '{chosen[0]}')"
    listed = ", ".join(f"'{value}'" for value in chosen)
    return draw(st.sampled_from((f"{path} == '{chosen[0]}'", f"{path} == `null`", f"{function}([{listed}], {path})")))


texts = st.recursive(
    comparisons(),
    lambda inner: st.builds(lambda a, sign, b: f"({a} {sign} {b})", inner, st.sampled_from(("&&", "||")), inner),
    max_leaves=5,
)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    world: dict[str, Any] = {}
    for path in PATHS:
        fact = FACTS[path]
        known: dict[Kind, st.SearchStrategy[Any]] = {
            Kind.BOOL: st.booleans(),
            Kind.VERSION: st.sampled_from((8.4, 9.0, 9.2, 10.0)),
            Kind.NUMBER: st.sampled_from((-1.5, 8.4, 9.0, 30.0)),
            Kind.CHOICE: st.sampled_from(fact.choices or ("x",)),
            Kind.LIST: st.lists(st.sampled_from(fact.choices or ("x",)), unique=True),
        }
        world[path] = draw(st.none() | known[fact.kind])
    return world


@settings(max_examples=200, deadline=None)
@given(text=texts, world=worlds())
def test_conditions_mean_what_jmespath_makes_of_them(text: str, world: dict[str, Any]) -> None:
    nested: dict[str, dict[str, Any]] = {}
    for path, value in world.items():
        section, _dot, name = path.partition(".")
        nested.setdefault(section, {})[name] = value
    options = jmespath.Options(custom_functions=Functions())
    expected = jmespath.search(text, nested, options=options)
    assert compile_condition(text).holds(world) is (expected is True)
