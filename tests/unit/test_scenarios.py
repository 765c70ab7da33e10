# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The integration targets and the Molecule scenarios are whole. They are run by ./dev check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tools import checkout, integration, molecule_runs

TOP = checkout.TOP
TARGETS = sorted(path for path in (TOP / integration.FOLDER / "targets").iterdir() if path.is_dir())
OF_MODULES = [path for path in TARGETS if not path.name.startswith("setup_")]
SEQUENCE = ["syntax", "create", "check", "converge", "idempotence", "verify", "destroy"]


def text(folder: Path) -> str:
    """All that a target, or a scenario, says."""
    return "\n".join(path.read_text("utf-8") for path in sorted(folder.rglob("*")) if path.is_file())


def words(path: Path) -> list[str]:
    """The lines of a file of aliases."""
    return [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]


def modules_of(target: Path) -> set[str]:
    """The modules that a target is there for, as ansible-test finds out: by its name and its aliases."""
    return {target.name, *words(target / "aliases")} & {path.stem for path in (TOP / "plugins/modules").glob("*.py")}


def test_every_module_has_a_target() -> None:
    modules = {path.stem for path in (TOP / "plugins/modules").glob("*.py")}
    assert {name for target in OF_MODULES for name in modules_of(target)} == modules


def test_no_target_is_called_as_a_role() -> None:
    """Ansible would run the role."""
    assert {path.name for path in TARGETS} & {path.name for path in (TOP / "roles").iterdir()} == set()


@pytest.mark.parametrize("target", OF_MODULES, ids=lambda path: path.name)
def test_the_rhythm_of_a_target(target: Path) -> None:
    """A refusal with its exact message, check mode, and where something is made, everything once more."""
    said, (module,) = text(target), modules_of(target)
    assert re.search(r"- \"?\w+\.msg == '", said)
    assert "check_mode: true" in said
    assert module.endswith("_info") or ", again\n" in said


@pytest.mark.parametrize("name", molecule_runs.names()[:-1])
def test_a_scenario_has_all_that_the_sequence_needs(name: str) -> None:
    folder = molecule_runs.SCENARIOS / name
    assert {"molecule.yml", "lab.yml", "converge.yml", "verify.yml"} <= {path.name for path in folder.iterdir()}
    assert "scenario" not in yaml.safe_load((folder / "molecule.yml").read_text("utf-8"))


def test_the_sequence() -> None:
    shared = yaml.safe_load((molecule_runs.SCENARIOS / "config.yml").read_text("utf-8"))
    assert shared["scenario"]["test_sequence"] == SEQUENCE


def test_the_guide_shows_a_whole_scenario() -> None:
    """./dev check runs it as it stands there."""
    files = molecule_runs.of_the_guide()
    names = ["molecule", "create", "destroy", "converge", "verify"]
    assert list(files) == [f"molecule/disks/{name}.yml" for name in names]
    scenario = yaml.safe_load(files["molecule/disks/molecule.yml"])
    assert scenario["scenario"]["test_sequence"] == SEQUENCE
