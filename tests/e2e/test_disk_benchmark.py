# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_benchmark as playbooks run it, on a lab's storages, with stand-ins for QEMU and fio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import load
from e2e.documented import examples_of
from e2e.kit import play, run_playbook
from lab import Lab, node
from unit._bench import pretend

BENCHMARK = "diskwright.proxmox.disk_benchmark"


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The examples, for a machine that has little room and is never quiet."""
    machine = pretend.machine(tmp_path / "pretend", monkeypatch)
    (tmp_path / "fast").mkdir()
    text = yaml.safe_dump(examples_of("disk_benchmark"), sort_keys=False).replace("/mnt/fast", str(tmp_path / "fast"))
    found: list[dict[str, Any]] = yaml.safe_load(text)
    for task in found:
        task[BENCHMARK] |= {"state_dir": str(tmp_path / "state")}
        if task[BENCHMARK].get("state") != "absent":
            task[BENCHMARK] |= {**machine, "size": "64M", "repetitions": 3}
        if "poll" in task:
            task["poll"] = 1
    return found


def test_examples(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", {"files": {}})
    env = {"PATH": node.environment(lab.state, tmp_path / "bin")["PATH"]}
    planned, measured, forgotten = tasks
    again = {key: value for key, value in measured.items() if key not in ("async", "poll")}
    run = run_playbook(play([planned, measured, {**again, "check_mode": True}, again, forgotten, forgotten]), env)
    assert run.code == 0, run.text
    assert [task.changed for task in run.tasks] == [True, True, False, False, True, False]
    plan, done, *same = (task.result for task in run.tasks[:4])
    assert {one.split("/")[0] for one in plan["plan"]["combinations"]} == {"local-lvm", "tank"}
    assert plan["plan"]["trials"] == 3 * (len(plan["plan"]["combinations"]) + 2)
    found = load(done["benchmark"])
    assert {row.error for row in found.runs} == {""}
    assert [row.crash for row in found.durability] == ["qemu"] * 6 + ["host"] * 6
    assert [row.lost for row in found.durability if "/raw/" in row.combination] == [0] * 10
    assert [one["benchmark"] for one in same] == [done["benchmark"]] * 2
    assert list((tmp_path / "fast").iterdir()) == []
