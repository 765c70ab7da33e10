# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example in the documentation is run: in check mode, then really, then once more. All in one playbook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.documented import examples_of, filter_examples, filters, modules, playbooks, uses_api
from e2e.kit import HERE, Run, play, run_playbook, started, token_env
from lab import Lab
from unit._bench.recorded import BASE, QCOW2, results

OURS = "diskwright.proxmox."
# Modules that do something each time they are run, with the reason.
REPEATED: dict[str, str] = {}
# How the lines begin that Ansible prints around what a task says.
NOISE = ("TASK [", "ok:", "changed:", "skipping:", "included:")


@dataclass
class Ran:
    """All examples' run, and the lab afterwards."""

    run: Run
    lab: Lab


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    seed = yaml.safe_load((HERE / "examples.yml").read_text())
    beside = {**seed.pop("controller"), **benchmarks()}
    tasks: list[dict[str, Any]] = []
    for module in filter(uses_api, modules()):
        tasks += three_times(module, examples_of(module))
    for path in filters():
        tasks += [named(path.stem, task) for task, _answer in filter_examples(path)]
    with started(seed) as lab:
        yield Ran(run_playbook(play(tasks), token_env(lab), beside=beside), lab)


def benchmarks() -> dict[str, str]:
    """The files of benchmarks that examples speak of."""
    before, now = results({BASE: 1, QCOW2: 1}), results({BASE: 1, QCOW2: 1}, seed=2)
    documents = {"pve1-before": before, "pve1": now}
    return {f"disk-benchmark/{name}.json": json.dumps(found.as_json()) for name, found in documents.items()}


def named(plugin: str, task: dict[str, Any], stage: str = "") -> dict[str, Any]:
    """A task under a name that tells examples apart. A failure does not hide what comes after it."""
    return {**task, "name": title(plugin, task["name"], stage), "ignore_errors": True}


def title(plugin: str, name: str, stage: str = "") -> str:
    return f"{plugin}: {name}" + (f" [{stage}]" if stage else "")


def is_ours(task: dict[str, Any]) -> bool:
    return any(key.startswith(OURS) for key in task)


def three_times(module: str, tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The tasks of this collection in check mode, really and again; the others, which look at results, once."""
    for task in tasks:
        if not is_ours(task):
            yield named(module, task)
            continue
        quiet = {key: value for key, value in task.items() if key != "register"}  # what looks at it means the real run
        yield {**named(module, task, "check"), "check_mode": True, "diff": True}
        yield {**named(module, task, "real"), "diff": True}
        yield {**named(module, quiet, "again"), "diff": True}


@pytest.mark.parametrize("module", modules())
def test_examples_of_modules(module: str, ran: Ran) -> None:
    if not uses_api(module):
        pytest.skip(f"{module} works on the files of a node, which the lab's API does not give")
    mine = [task for task in ran.run.tasks if task.task.startswith(f"{module}: ")]
    assert mine, ran.run.text
    assert [(task.task, task.result.get("msg")) for task in mine if task.status == "failed"] == []
    for example in filter(is_ours, examples_of(module)):
        check_and_real_agree(ran.run, module, example["name"])
        if module not in REPEATED:
            again = ran.run.task(title(module, example["name"], "again"))
            assert not again.changed, again.result
            assert not again.diff, again.diff


def check_and_real_agree(run: Run, module: str, name: str) -> None:
    check, real = run.task(title(module, name, "check")), run.task(title(module, name, "real"))
    assert check.changed == real.changed, name
    assert check.diff == real.diff, name
    assert bool(real.diff) == real.changed, name
    for planned, done in zip(check.result.get("guests", ()), real.result.get("guests", ()), strict=True):
        assert [{**step, "state": "done"} for step in planned.get("actions", ())] == done.get("actions", []), name
        assert all(step["state"] == "done" for step in done.get("actions", ())), name


def test_examples_change_what_they_say(ran: Ran) -> None:
    """The examples of guest_disks are about something: each changes the guests of this seed."""
    run, lab = ran.run, ran.lab
    reals = [task for task in run.tasks if task.task.startswith("guest_disks: ") and task.task.endswith("[real]")]
    assert reals
    assert [task.task for task in reals if not task.changed] == []
    assert lab.file(volume(lab, 120, "scsi2")).read_bytes().startswith(b"data of db1")
    assert lab.config(120)["boot"].startswith("order=scsi2;")
    assert volume(lab, 121, "virtio1") == "local:121/vm-121-disk-0.qcow2"
    assert lab.config(122)["efidisk0"].endswith(",efitype=4m,pre-enrolled-keys=1,size=4M")
    assert set(lab.config(123)) & {"scsi1", "scsi2"} == set()
    assert lab.config(123)["unused0"] == "local-lvm:vm-123-disk-1"
    assert "local-lvm:vm-123-disk-2" not in lab.volumes()
    assert [task.result["results"] for task in run.tasks if "Say which" in task.task]


def volume(lab: Lab, vmid: int, slot: str) -> str:
    return lab.config(vmid)[slot].partition(",")[0]


@pytest.mark.parametrize("path", filters(), ids=lambda path: path.stem)
def test_examples_of_filters(path: Path, ran: Ran) -> None:
    """The comment beneath an example is what it shows."""
    for example, answer in filter_examples(path):
        task = ran.run.task(title(path.stem, example["name"]))
        assert task.status == "ok", task.result
        if answer is not None:
            assert task.result["msg"] == answer


@pytest.mark.parametrize("playbook", playbooks(), ids=lambda path: path.stem)
def test_playbooks(playbook: Path, tmp_path: Path) -> None:
    """As people run them, by name: with --check --diff, then without --check, then once more; and so the roles.

    What one prints is compared with playbooks.yml where that knows it.
    """
    data = yaml.safe_load((HERE / "playbooks.yml").read_text())
    for name, text in benchmarks().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    expected = data["playbooks"].get(playbook.stem, {})
    flags = ["--diff", *expected.get("flags", [])]
    with started(data["seed"]) as lab:
        check, real, again = (
            run_playbook(
                f"{OURS}{playbook.stem}", token_env(lab), *flags, *mode, inventory=data["inventory"], cwd=tmp_path
            )
            for mode in (["--check"], [], [])
        )
    assert (check.code, real.code, again.code) == (0, 0, 0), check.text + real.text + again.text
    assert lines(real) == lines(check)
    if "prints" in expected:
        assert lines(check) == expected["prints"].splitlines()
    assert lines(again) == (lines(check) if expected.get("reads") else [])
    assert "changed=0" in again.stdout


def lines(run: Run) -> list[str]:
    """What --diff prints, between the headlines of tasks and their status."""
    body = run.stdout.partition("TASK [")[2].partition("\n")[2].partition("PLAY RECAP")[0]
    return [line for line in body.splitlines() if line and not line.startswith(NOISE)]
