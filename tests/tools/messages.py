# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints all that the collection can say when something is refused or goes wrong: `python tests/tools/messages.py`.

Found in the sources: the texts that are given to an error class, to `Refusal`, or to a function that hands a parameter
on to one of them. What is put into a text when it runs stands in braces.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
ROOTS = {"DiskwrightError", "AnsibleFilterError", "AnsibleError"}
REFUSALS = {"Refusal", "Against"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Message:
    """One text, with the file that it is in, relative to plugins/."""

    file: str
    text: str


def trees() -> dict[str, ast.Module]:
    """The sources that can speak, by their place in plugins/."""
    files = sorted(path for path in PLUGINS.rglob("*.py") if path.parent.name not in {"doc_fragments", "modules"})
    return {str(path.relative_to(PLUGINS)): ast.parse(path.read_text("utf-8")) for path in files}


def name_of(node: ast.expr) -> str:
    """The last part of a dotted name."""
    return str(getattr(node, "id", getattr(node, "attr", "")))


def error_classes(sources: Iterable[ast.Module]) -> set[str]:
    """The classes of errors that end up before a user, by inheritance."""
    classes = [node for tree in sources for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found, before = set(ROOTS), set()
    while found != before:
        before = set(found)
        found |= {one.name for one in classes if {name_of(base) for base in one.bases} & found}
    return found


def texts_given(call: ast.Call) -> list[ast.expr]:
    """The arguments of a call."""
    return [*call.args, *(word.value for word in call.keywords)]


def calls_of(node: ast.AST, makers: set[str]) -> Iterator[ast.Call]:
    """Calls in a part of a source that make a message."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and name_of(call.func) in makers:
            yield call


def hands_on(function: Function, makers: set[str]) -> bool:
    """Whether a function gives what it is given to something that makes a message of it."""
    own = {arg.arg for arg in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}
    given = (node for call in calls_of(function, makers) for text in texts_given(call) for node in parts(text))
    return any(isinstance(node, ast.Name) and node.id in own for node in given)


def parts(text: ast.expr) -> Iterator[ast.expr]:
    """What a text consists of, without what only chooses between texts."""
    if isinstance(text, ast.IfExp):
        yield from (*parts(text.body), *parts(text.orelse))
    elif isinstance(text, ast.BinOp) and isinstance(text.op, ast.Add):
        yield from (*parts(text.left), *parts(text.right))
    else:
        yield text


def makers(sources: Iterable[ast.Module]) -> set[str]:
    """All names whose calls make messages."""
    sources = list(sources)
    functions = [node for tree in sources for node in ast.walk(tree) if isinstance(node, Function)]
    found, before = error_classes(sources) | REFUSALS, set()
    while found != before:
        before = set(found)
        found |= {one.name for one in functions if one.name != "__init__" and hands_on(one, found)}
    return found


def said(text: ast.expr) -> Iterator[str]:
    """A text as it reads, once for each way in which it can read."""
    if isinstance(text, ast.Constant):
        yield str(text.value)
    elif isinstance(text, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
            for part in text.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
    elif isinstance(text, ast.IfExp):
        yield from (*said(text.body), *said(text.orelse))
    elif isinstance(text, ast.BinOp) and isinstance(text.op, ast.Add):
        yield from (left + right for left in said(text.left) for right in said(text.right))
    else:
        yield f"{{{ast.unparse(text)}}}"


def messages() -> list[Message]:
    """Every message: the texts of one call, clause by clause, that have words in them."""
    sources = trees()
    names = makers(sources.values())
    found = set()
    for file, tree in sources.items():
        for call in calls_of(tree, names):
            ways = [way for text in texts_given(call) for way in said(text)]
            words = [way for way in ways if " " in way and not (way.startswith("{") and way.endswith("}"))]
            if words:
                found.add(Message(file, "; ".join(words)))
    return sorted(found)


def main() -> None:
    """Print them, file by file."""
    file = ""
    for message in messages():
        if message.file != file:
            file = message.file
            sys.stdout.write(f"\n{file}\n")
        sys.stdout.write(f"  {message.text}\n")


if __name__ == "__main__":
    main()
