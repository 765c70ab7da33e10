# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a process still works, and what the controller makes of a module that is gone from its node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

from ansible_collections.diskwright.proxmox.plugins.module_utils._image import progress
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.progress import Progress
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.watch import Watch
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.worker import Worker


class Node:
    """A node with a module on it, which is a process that can be killed, and looks as the action plugin has them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "x.json"
        self.now = 0.0
        self.watch = Watch(lambda: self.now)
        self.process = subprocess.Popen(["sleep", "600"])
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        self.worker = replace(Worker.own(), pid=self.process.pid, began=stat[19])

    def report(self) -> None:
        one = Progress("web.vmdk", "convert", 1 << 30, 4 << 30)
        self.path.write_text(json.dumps({**asdict(self.worker), "images": [asdict(one)]}))

    def look(self, seconds: float = 1.0, boot: str = "") -> list[Progress]:
        self.now += seconds
        said = subprocess.check_output(["sh", "-c", self.watch.command(str(self.path))], text=True)
        lines = said.split("\n")
        return self.watch.look("\n".join([lines[0], boot or lines[1], *lines[2:]]))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_a_process_is_told_from_all_others() -> None:
    own = Worker.own()
    assert (own.pid, own.ended_here()) == (os.getpid(), False)
    assert replace(own, began="1").ended_here()  # its number was given to another
    assert replace(own, boot="before the power failed").ended_here()
    child = subprocess.Popen(["sleep", "600"])
    os.kill(child.pid, signal.SIGKILL)
    for _try in range(500):  # it is not waited for, so that it stays as a zombie
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        if stat.rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    assert Worker(child.pid, stat.rpartition(")")[2].split()[19], own.boot).ended_here()
    child.wait()


def test_a_module_that_was_killed_is_missed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert node.look() == []
    node.report()
    for _look in range(5):  # however long it takes
        assert [one.name for one in node.look(600)] == ["web.vmdk"]
        assert not node.watch.gone
    node.kill()
    node.look()
    assert (node.watch.gone, node.watch.lost) == (True, False)  # its result may be on the way
    node.look(11)
    assert node.watch.lost
    assert "web.vmdk  convert  1 GiB / 4 GiB  25 %" in node.watch.loss
    assert "run again: it goes on from there" in node.watch.loss


def test_a_node_that_was_started_anew(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.report()
    node.look()
    node.look()
    node.look(boot="another")
    node.look(11, boot="another")
    assert node.watch.lost
    node.kill()


def test_a_module_that_never_began(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for _look in range(5):
        node.look(60)
        assert not node.watch.lost
    node.look()
    assert node.watch.lost
    node.kill()


def test_a_node_that_does_not_answer_is_not_a_module_that_is_gone(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.report()
    node.look()
    for _look in range(5):
        node.now += 100
        assert node.watch.look("") == []
        assert not node.watch.lost
    node.kill()


def test_what_killed_runs_have_left_is_swept_away(tmp_path: Path) -> None:
    node = Node(tmp_path)
    old = time.time() - progress.PATIENCE - 1
    texts = {
        "alive": json.dumps({**asdict(node.worker), "images": []}),
        "ended": json.dumps({**asdict(replace(node.worker, began="1")), "images": []}),
        "broken": "{",
    }
    names = {word: f"{number:032x}.json" for number, word in enumerate((*texts, "fresh", "mark"))}
    for word, text in {**texts, "fresh": texts["ended"]}.items():
        (tmp_path / names[word]).write_text(text)
    for word in (*texts, "mark"):
        (tmp_path / f"{names[word]}.seen").touch()
    (tmp_path / f"{names['ended']}.4711").touch()
    (tmp_path / "my-own.json").write_text(texts["ended"])
    for path in tmp_path.iterdir():
        if path.name != names["fresh"]:
            os.utime(path, (old, old))
    progress.sweep(str(tmp_path))
    kept = {"my-own.json", names["alive"], f"{names['alive']}.seen", names["fresh"]}
    assert {path.name for path in tmp_path.iterdir()} == kept
    progress.sweep(str(tmp_path / "none"))
    node.kill()
