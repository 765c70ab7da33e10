# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every image that must not be used is refused: with the right code, in words that help, and without opening anything
else than the regular files of its own folder, without a program and without a connection.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from images import BAD, Bad
from images.bad import SECRET

# All of them take seconds; one that makes the inspector hang is to fail, not to stop the tests.
SECONDS = 240


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path, set[str]]]:
    """How the inspection of each ended, the image's folder, and what regular files were there."""
    top = tmp_path_factory.mktemp("bad")
    asked, folders, files = [], {}, {}
    for number, bad in enumerate(BAD):
        folder = top / f"{number:03d}" / "source"
        folder.mkdir(parents=True)
        (folder.parent / "secret").write_bytes(SECRET)
        path = bad.make(folder)
        asked.append(json.dumps([str(path), bad.member]))
        folders[bad.name] = folder
        files[bad.name] = {name for name in os.listdir(folder) if stat.S_ISREG(os.lstat(folder / name).st_mode)}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("watch.py")],
        input="\n".join(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    results = map(json.loads, done.stdout.splitlines())
    return {bad.name: (result, folders[bad.name], files[bad.name]) for bad, result in zip(BAD, results, strict=True)}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad(bad: Bad, outcomes: dict[str, tuple[dict[str, Any], Path, set[str]]]) -> None:
    result, folder, files = outcomes[bad.name]
    assert result.get("code") == bad.code, result
    assert bad.says in result["message"]
    check_words(result["message"])
    check_opened(result["events"], folder, files)
    assert result["leaked"] == 0


def check_words(message: str) -> None:
    """A file, what is wrong, and what to do; nothing of what it must not read, and on one line."""
    file, _colon, rest = message.partition(": ")
    problem, _semicolon, remedy = rest.partition("; ")
    assert file, message
    assert len(problem) > 5, message
    assert len(remedy) > 5, message
    assert "secret of another" not in message
    assert message.isprintable(), message


def check_opened(events: list[list[str]], folder: Path, files: set[str]) -> None:
    """Only the folder and regular files in it, to read, and what the kernel says about this machine's processes."""
    for event, path, *_mode in events:
        if event == "os.listdir":
            assert path.startswith("/proc") or path.isdigit(), (event, path)
            continue
        assert event == "open", (event, path)
        names = files | {str(folder), *(f"{name}.lck" for name in files)}
        assert path in names, f"opened {path}"


def test_names_are_unique() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD)
