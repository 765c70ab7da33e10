# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every refusal has a code, and the guide explains every code, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.checkout import TOP

UTILS = TOP / "plugins" / "module_utils"
GUIDE = (TOP / "docs" / "from-vmware.md").read_text("utf-8").partition("## How to read a refusal")[2]
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# Refusals about a volume that is to be mounted, and about what does not come by way of an import.
OTHERS = {"backing-elsewhere", "backing-name", "external-data-file", "no-qcow2"}


def name_of(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def codes_in(tree: ast.AST, made_by: set[str]) -> Iterator[str]:
    """What stands as a code in calls of these names: the first text of them that looks like one."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if name_of(call) in made_by:
            texts = (arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
            yield from list(filter(CODE.fullmatch, texts))[:1]


def makers_in(tree: ast.AST) -> Iterator[str]:
    """Functions that are given a code, and classes that are made with one."""
    for node in ast.walk(tree):
        functions = node.body if isinstance(node, ast.ClassDef) else [node]
        for function in functions:
            if isinstance(function, ast.FunctionDef) and "code" in {arg.arg for arg in function.args.args}:
                made_by = node if function.name == "__init__" else function
                yield str(getattr(made_by, "name", ""))


def image_codes() -> set[str]:
    """The codes of refused images."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (UTILS / "_image").glob("*.py")]
    makers = {name for tree in trees for name in makers_in(tree)} - {"__init__"}
    return {code for tree in trees for code in codes_in(tree, makers)}


def plan_codes() -> set[str]:
    """The codes of guests that are not imported."""
    found: set[str] = set()
    for path in (UTILS / "_policy").glob("import_*.py"):
        found |= {*codes_in(ast.parse(path.read_text("utf-8")), {"Against", "_refuse"})}
    return found


def test_the_guide_explains_every_code_and_no_other() -> None:
    rows = [row for row in GUIDE.splitlines() if row.startswith("| `")]
    explained = [code for row in rows for code in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1])]
    assert len(explained) == len(set(explained))
    assert set(explained) == (image_codes() | plan_codes()) - OTHERS


def test_the_codes_are_found() -> None:
    assert {"extent-truncated", "header-bad", "grain-overlap", "ovf-doctype"} <= image_codes()
    assert {"guest-exists", "memory-unknown", "slot-taken", "api-subformat"} <= plan_codes()
