# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role disk_benchmark as it measures, on a folder, with stand-ins for QEMU and fio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import load
from e2e.kit import Run, play, run_playbook
from unit._bench import pretend


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Variables for a small run on a machine that is never quiet."""
    machine = pretend.machine(tmp_path / "pretend", monkeypatch)
    (tmp_path / "fast").mkdir()
    return {
        "disk_benchmark_places": [str(tmp_path / "fast")],
        "disk_benchmark_buses": ["scsi+iothread"],
        "disk_benchmark_caches": ["none"],
        "disk_benchmark_aios": ["threads"],
        "disk_benchmark_workloads": ["commit-4k"],
        "disk_benchmark_repetitions": 3,
        "disk_benchmark_seconds": 1,
        "disk_benchmark_size": "64M",
        "disk_benchmark_charts": False,
        "disk_benchmark_folder": str(tmp_path / "report"),
        "disk_benchmark_state_dir": str(tmp_path / "state"),
        **{f"disk_benchmark_{name}": value for name, value in machine.items()},
    }


def measure(words: dict[str, Any], *flags: str, **more: Any) -> Run:
    role = {"import_role": {"name": "diskwright.proxmox.disk_benchmark"}, "vars": {**words, **more}}
    return run_playbook(play([role]), {}, *flags)


def said(run: Run) -> str:
    return str(next(task.result["msg"] for task in run.tasks if "Say what" in task.task and task.status == "ok"))


def test_it_tells_the_plan_measures_writes_the_report_and_is_done(words: dict[str, Any], tmp_path: Path) -> None:
    check = measure(words, "--check")
    assert check.code == 0, check.text
    assert said(check).startswith("2 combinations x 3 rounds x 1 workload of 1 s: 9 starts of the guest, about ")
    assert not (tmp_path / "report").exists() and not (tmp_path / "state").exists()
    assert pretend.starts(tmp_path / "pretend") == []

    real = measure(words)
    assert real.code == 0, real.text
    names = {path.suffix: path for path in (tmp_path / "report").iterdir()}
    assert set(names) == {".html", ".md", ".json", ".yml"}
    found = load(json.loads(names[".json"].read_text()))
    assert len(found.runs) == 9 and found.finished
    assert said(real).endswith(f"See {names['.html']}")
    assert yaml.safe_load(names[".yml"].read_text()) == {"guest_disks_facts": {"storages": {}}}
    assert list((tmp_path / "fast").iterdir()) == []

    again = measure(words)
    assert again.code == 0 and "changed=0" in again.stdout, again.text
    assert len(pretend.starts(tmp_path / "pretend")) == 9


def test_nothing_named(words: dict[str, Any], tmp_path: Path) -> None:
    run = measure(words, disk_benchmark_places=[])
    assert run.code != 0
    assert "Nothing is named to measure. Set disk_benchmark_places to storages or folders of the node, or" in run.text
    assert not (tmp_path / "report").exists()


def test_what_the_module_refuses_is_told_and_nothing_is_written(words: dict[str, Any], tmp_path: Path) -> None:
    run = measure(words, disk_benchmark_repetitions=1, disk_benchmark_formats=["vdi"])
    assert run.code != 0
    assert "repetitions: 1 is too few to tell a difference from noise; write 3 or more" in run.text
    assert not (tmp_path / "report").exists()
    assert list((tmp_path / "fast").iterdir()) == []
