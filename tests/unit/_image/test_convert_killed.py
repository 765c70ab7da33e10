# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at random moments: the next run completes, the bytes are right, and nothing is left over."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image import target
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.copy import Throttle
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.plans import Action
from lab import Lab, node
from lab.node import loop
from unit._image.converting import MIB, content, convert, read_back, source

#: How often each kind of target is killed; twenty times all of them with `-m slow`.
MOMENTS = {"raw": 20, "qcow2": 20, "qcow2-packed": 5, "device": 4}
MANY = 20
TARGETS: dict[str, dict[str, Any]] = {
    "raw": {"format": "raw"},
    "qcow2": {"format": "qcow2"},
    "qcow2-packed": {"format": "qcow2", "compress": True},
    "device": {"storage": "thick", "vmid": 120},
}


@pytest.fixture(autouse=True)
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many commits in a small image."""
    for kind in (target.Target, target.PackedTarget):
        monkeypatch.setattr(kind, "slice", MIB // 2)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Storages of a node whose block volumes are real devices with remains of other guests."""
    found = Lab(tmp_path / "lab", {"files": {}})
    monkeypatch.setenv("PATH", node.environment(found.state, tmp_path / "bin")["PATH"])
    monkeypatch.setenv("LAB_DEVICES", "1")
    monkeypatch.setenv("LAB_DIRTY", "1")
    yield found
    loop.detach_below(found.state)


def started(state: Path, path: Path, words: dict[str, Any]) -> int:
    """A conversion in a process of its own, which leads a group; its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    status = 1
    with contextlib.suppress(BaseException):
        status = bool(convert(state, path, **words).error)
    os._exit(status)


def killed(state: Path, path: Path, words: dict[str, Any], seconds: float, *, group: bool) -> bool:
    """Kills a conversion after a while: the process alone, or all that it has started, as when the power fails.

    :returns: whether it had not ended before.
    """
    pid = started(state, path, words)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        if group:
            os.killpg(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def duration(state: Path, path: Path, words: dict[str, Any]) -> float:
    begun = time.monotonic()
    assert os.waitpid(started(state, path, words), 0)[1] == 0
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("name", "moments"),
    [*MOMENTS.items(), *(pytest.param(name, MANY, marks=pytest.mark.slow) for name in ("qcow2-packed", "device"))],
)
def test_killed_at_random_moments(name: str, moments: int, lab: Lab, tmp_path: Path) -> None:
    if name == "device" and loop.usable():
        pytest.skip(loop.usable())
    path, choice = source(tmp_path / "source"), random.Random(f"{name}{moments}")
    words = {"throttle": Throttle(40 * MIB), **TARGETS[name]}

    def own(number: int) -> dict[str, Any]:
        return (
            {**words, "vmid": 120 + number} if name == "device" else {**words, "dest": str(tmp_path / f"out{number}")}
        )

    whole = duration(tmp_path / "measured", path, own(moments))
    hits = resumed = 0
    for number in range(moments):
        state = tmp_path / f"state{number}"
        moment = choice.uniform(0, whole)
        hits += killed(state, path, own(number), moment, group=name == "device" or number % 2 == 0)
        done = convert(state, path, patience=30, **{**own(number), "throttle": Throttle(0)})
        assert (done.error, done.verified, done.notes) == ("", True, []), f"killed after {moment} s"
        resumed += done.resumed
        assert convert(state, path, patience=30, **own(number)).action is Action.NOTHING
        assert_right(name, lab, done.target, tmp_path)
        assert {entry.suffix for entry in (state / "convert").iterdir()} == {".json", ".digests", ".lock"}
        assert not list((state / "staging").glob("*")) if (state / "staging").exists() else True
    assert hits > 0
    assert resumed > 0
    assert not list(tmp_path.glob("*.partial"))


def assert_right(name: str, lab: Lab, place: str, folder: Path) -> None:
    """The bytes are those of the source, and the place is the only one."""
    storages, image_format = lab.cluster.storages("pve1"), TARGETS[name].get("format", "raw")
    if name == "device":
        owner = storages.parse_volname(place).owner
        assert [info.volid for info in storages.list("thick", owner)] == [place]
    file = storages.file(place) if name == "device" else Path(place)
    assert read_back(file, image_format, folder).rstrip(b"\0") == content().rstrip(b"\0")
    if image_format == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(file)], check=True)
    file.unlink() if name != "device" else loop.detach(file)


def test_orphaned_qemu_img_keeps_the_next_run_away(tmp_path: Path) -> None:
    """A killed run's qemu-img may still be writing into the image: the lock is its, too."""
    tools = tmp_path / "tools"
    tools.mkdir()
    real = subprocess.check_output(["which", "qemu-img"], text=True).strip()
    slow = f'#!/bin/sh\ncase "$*" in *target-is-zero*) sleep 3 ;; esac\nexec {real} "$@"\n'
    (tools / "qemu-img").write_text(slow)
    (tools / "qemu-img").chmod(0o755)
    path, state = source(tmp_path / "source"), tmp_path / "state"
    words = {"dest": str(tmp_path / "out"), "format": "qcow2", "compress": True}
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}:{before}"
    try:
        assert killed(state, path, dict(words), 1.5, group=False)
    finally:
        os.environ["PATH"] = before
    found = convert(state, path, **words)
    assert "is being worked on by another run" in found.error
    again = convert(state, path, patience=30, **words)
    assert (again.error, again.verified) == ("", True)
    assert read_back(tmp_path / "out", "qcow2", tmp_path).rstrip(b"\0") == content().rstrip(b"\0")
