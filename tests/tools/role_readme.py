# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the README.md of each role from its argument specs: `python tests/tools/role_readme.py`.

tests/unit/test_documentation.py fails when one does not say what they say.
"""

from __future__ import annotations

import json
import re
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"

HEAD = """\
<!--
SPDX-FileCopyrightText: The diskwright.proxmox authors
SPDX-License-Identifier: GPL-3.0-or-later

Made by tests/tools/role_readme.py from meta/argument_specs.yml; do not edit.
-->
# diskwright.proxmox.{role}
"""
#: Ansible's markup of documentation that stands around a single text: C(code), V(value), E(VARIABLE) and so on.
_CODE = re.compile(r"\b(?:C|V|E|RV)\(([^()]*)\)")
_OPTION = re.compile(r"\bO\((?:[a-z_.]+#[a-z]+:)?([^()]*)\)")
_PLUGIN = re.compile(r"\b(?:P\(([a-z_.]+)#[a-z]+\)|M\(([a-z_.]+)\))")
_LINK = re.compile(r"\bL\(([^,()]+),\s*([^()]+)\)")
_STRONG = re.compile(r"\b[BI]\(([^()]*)\)")


def markdown(text: str) -> str:
    """Ansible's markup as Markdown, on one line that may stand in a table."""
    text = _PLUGIN.sub(lambda found: f"`{found[1] or found[2]}`", text)
    text = _OPTION.sub(r"`\1`", _CODE.sub(r"`\1`", text))
    text = _STRONG.sub(r"*\1*", _LINK.sub(r"[\1](\2)", text))
    return " ".join(text.split()).replace("|", "\\|")


def sentences(value: str | list[str]) -> list[str]:
    return [markdown(text) for text in ([value] if isinstance(value, str) else value)]


def kind(option: dict[str, t.Any]) -> str:
    words = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    return f"{words}, **required**" if option.get("required") else words


def meaning(option: dict[str, t.Any]) -> str:
    text = " ".join(sentences(option["description"]))
    return f"{text} One of {', '.join(f'`{one}`' for one in option['choices'])}." if "choices" in option else text


def rows(options: dict[str, t.Any], inside: str = "") -> Iterator[str]:
    for name, option in options.items():
        default = f"`{json.dumps(option['default'])}`" if "default" in option else ""
        yield f"| `{inside}{name}` | {kind(option)} | {default} | {meaning(option)} |"
        yield from rows(option.get("options", {}), f"{inside}{name}.")


def entry(name: str, spec: dict[str, t.Any]) -> Iterator[str]:
    yield f"\n## Entry `{name}`\n" if name != "main" else ""
    yield f"{markdown(spec['short_description'])}.\n"
    yield from (f"- {text}" for text in sentences(spec.get("description", [])))
    if spec.get("options"):
        yield "\n| variable | type | default | meaning |\n|---|---|---|---|"
        yield from rows(spec["options"])


def example(role: str) -> Iterator[str]:
    """The playbooks of the collection that use the role."""
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        text = path.read_text("utf-8")
        if f"diskwright.proxmox.{role}\n" in text:
            body = text.partition("---\n")[2].strip()
            yield f"\n## Playbook `diskwright.proxmox.{path.stem}`\n\n```yaml\n{body}\n```"


def readme(role: Path) -> str:
    """What the README of a role should be."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text("utf-8"))["argument_specs"]
    lines = [HEAD.format(role=role.name).rstrip()]
    for name, spec in specs.items():
        lines += entry(name, spec)
    return "\n".join([*lines, *example(role.name)]) + "\n"


def roles() -> list[Path]:
    """The folders of all roles."""
    return sorted(path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml"))


def main() -> int:
    """Write them."""
    for role in roles():
        (role / "README.md").write_text(readme(role), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
