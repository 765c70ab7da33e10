# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab answers what a real PVE 9.2 answered, call by call."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Lab, replay

CLOUD_INIT = "writes the contents of cloud-init drives, which is no work on disks"
LEFT_OUT = {
    ("cloudinit-drive", 5): CLOUD_INIT,
    ("cloudinit-drive", 6): CLOUD_INIT,
    ("cloudinit-drive", 7): CLOUD_INIT,
    ("download-url", 22): "query-url-metadata only helps a person to fill in a dialog",
    ("download-url", 23): "query-url-metadata only helps a person to fill in a dialog",
    ("download-url", 24): "query-url-metadata only helps a person to fill in a dialog",
    ("unknown-targets", 24): "the index of an API folder has nothing to do with guests",
}
"""(scenario, number of the step) -> why the lab does not answer it."""


@pytest.mark.parametrize("name", replay.names())
def test_alike(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    recording = replay.recording(name)
    expected = list(replay.steps_of(recording))
    with Lab(tmp_path) as lab:
        player = replay.Player(lab)
        try:
            answers = player.play(name)
        finally:
            player.close()
    assert len(answers) == len(expected)
    left_out = {number: reason for (scenario, number), reason in LEFT_OUT.items() if scenario == name}
    different = []
    for number, (real, own) in enumerate(zip(expected, answers, strict=True)):
        found = [] if number in left_out else replay.differences(real, own, bool(recording.get("random")))
        if found:
            request = real["request"]
            asked = f"{request['method']} {request['path']} {json.dumps(request['params'])}"
            different.append("\n   ".join([f"step {number}: {asked}", *found]))
    alike = len(expected) - len(left_out) - len(different)
    record_property("lab_steps", [len(expected), alike, list(left_out.values())])
    assert not different, "\n".join(["", *different])


def test_every_recording_has_its_scenario() -> None:
    assert replay.names() == sorted(path.stem for path in (replay.FOLDER / "scenarios").glob("*.json"))
    assert {name for name, _ in LEFT_OUT} <= set(replay.names())
