# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laws of the house that can be read off the sources: who may import whom, licences, the action group."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from tools import checkout

PLUGINS = checkout.TOP / "plugins"
COLLECTION = ".".join(checkout.NAME.parts)
UTILS = f"{COLLECTION}.plugins.module_utils"
# A room may import itself and what stands here. Each may use all that lies further in.
ROOMS = {
    "_core": set(),
    "_policy": {"_core"},
    "_pve": {"_policy", "_core"},
    "_image": {"_policy", "_core"},
    "_windows": {"_policy", "_core"},
    "_bench": {"_image", "_policy", "_core"},
    "_ansible": {"_bench", "_pve", "_image", "_windows", "_policy", "_core"},
    "modules": {"_ansible", "_bench", "_pve", "_image", "_windows", "_policy", "_core"},
    "action": {"_image", "_policy", "_core"},
    "filter": {"_bench", "_windows", "_policy", "_core"},
    "doc_fragments": set(),
}
# What a room may import beside the standard library.
LIBRARIES = {
    "_policy": {"jmespath"},
    "_bench": {"matplotlib"},
    "_pve": {"proxmoxer", "requests", "urllib3"},
    "_ansible": {"ansible"},
    "action": {"ansible"},
    "filter": {"ansible"},
}
# Without the SPDX- in front, which reuse would take for this file's own.
HEADER = ("FileCopyrightText: The diskwright.proxmox authors", "License-Identifier: GPL-3.0-or-later")


def sources() -> list[Path]:
    return [path for path in checkout.files() if path.parts[0] == "plugins" and path.suffix == ".py"]


def room_of(path: Path) -> str:
    """`plugins/module_utils/_core/drive.py` is in `_core`, `plugins/modules/guest_disks.py` in `modules`."""
    return path.parts[2] if path.parts[1] == "module_utils" else path.parts[1]


def imports(path: Path) -> Iterator[str]:
    """The full dotted name of all that a file imports, wherever in the file it does."""
    package = [*checkout.NAME.parts, *path.parts[:-1]]
    for node in ast.walk(ast.parse((checkout.TOP / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def foreign(path: Path) -> set[str]:
    """The rooms of this collection that a file reaches into, and the libraries that it uses."""
    found = set()
    for name in imports(path):
        if name.startswith(f"{UTILS}."):
            found.add(name.removeprefix(f"{UTILS}.").split(".")[0])
        elif name.startswith(f"{COLLECTION}.plugins."):
            found.add(name.removeprefix(f"{COLLECTION}.plugins.").split(".")[0])
        elif (library := name.split(".")[0]) not in sys.stdlib_module_names:
            found.add(library)
    return found - {room_of(path)}


def modules() -> list[Path]:
    return [path for path in sources() if path.parts[1] == "modules"]


def documentation(path: Path) -> dict[str, object]:
    for node in ast.parse((checkout.TOP / path).read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{path} has no DOCUMENTATION")


def test_every_file_is_in_a_known_room() -> None:
    assert {room_of(path) for path in sources()} <= ROOMS.keys()


def test_dependencies_point_inwards() -> None:
    allowed = {room: inner | LIBRARIES.get(room, set()) for room, inner in ROOMS.items()}
    forbidden = {str(path): foreign(path) - allowed[room_of(path)] for path in sources()}
    assert {path: names for path, names in forbidden.items() if names} == {}


def test_only_the_ansible_room_knows_ansiblemodule() -> None:
    def mentions(path: Path) -> bool:
        tree = ast.parse((checkout.TOP / path).read_text("utf-8"))
        return any("AnsibleModule" in (getattr(node, "id", ""), getattr(node, "attr", "")) for node in ast.walk(tree))

    assert [str(path) for path in sources() if room_of(path) != "_ansible" and mentions(path)] == []


def test_action_group_is_the_modules_with_connection_options() -> None:
    runtime = yaml.safe_load((checkout.TOP / "meta" / "runtime.yml").read_text("utf-8"))
    fragment = "diskwright.proxmox._connection"
    connected = {
        path.stem
        for path in modules()
        if any(name.startswith(fragment) for name in documentation(path).get("extends_documentation_fragment", []))
    }
    assert set(runtime["action_groups"]["api"]) == connected


def test_tests_are_not_shipped() -> None:
    """But for what ansible-test reads, which says on which Pythons the modules run."""
    assert [str(path) for path in checkout.shipped() if path.parts[0] == "tests"] == ["tests/config.yml"]


def needs_header(path: Path) -> bool:
    if path.parts[0] in {"LICENSES", "COPYING", "CHANGELOG.md"} or path == Path("changelogs/changelog.yaml"):
        return False
    return path.suffix in {".py", ".sh", ".yml", ".yaml", ".toml", ".md", ".j2", ".cfg", ""}


def has_header(path: Path) -> bool:
    head = "\n".join((checkout.TOP / path).read_text("utf-8").split("\n", 6)[:6])
    return all(f"SPDX-{line}" in head for line in HEADER)


def test_licence() -> None:
    """`reuse lint` looks into more formats; this holds what people write by hand to a header of their own."""
    assert [str(path) for path in checkout.files() if needs_header(path) and not has_header(path)] == []
