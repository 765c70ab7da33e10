# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversions of real images into files: bytes, second runs, changes, damage, refusals."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image import copy, space, target, verify
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.lock import held
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.orders import Verify
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.plans import Action
from images import GOOD
from unit._image.converting import (
    KINDS,
    MIB,
    NATIVE,
    SIZE,
    content,
    content_id,
    convert,
    look,
    read_back,
    snapshot,
    source,
)

#: Every way to write a target, as the options of an order.
TARGETS: dict[str, dict[str, Any]] = {
    "raw": {"format": "raw"},
    "raw-falloc": {"format": "raw", "preallocation": "falloc"},
    "raw-full": {"format": "raw", "preallocation": "full"},
    "qcow2": {"format": "qcow2"},
    "qcow2-falloc": {"format": "qcow2", "preallocation": "falloc"},
    "qcow2-full": {"format": "qcow2", "preallocation": "full"},
    "qcow2-off": {"format": "qcow2", "preallocation": "off"},
    "qcow2-compressed": {"format": "qcow2", "compress": True},
    "qcow2-4k": {"format": "qcow2", "cluster_size": 4096},
    "qcow2-2m": {"format": "qcow2", "cluster_size": 2 * MIB},
    "qcow2-2m-compressed": {"format": "qcow2", "cluster_size": 2 * MIB, "compress": True},
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return source(tmp_path / "source")


def only(folder: Path) -> list[str]:
    """What is in the target's folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_the_same_bytes(kind: str, state: Path, tmp_path: Path) -> None:
    disk = content(32 * MIB if kind == "vpc" else SIZE)
    path = source(tmp_path / "source", kind, disk)
    before = snapshot(path.parent)
    ids = set()
    for image_format, way in (("raw", Verify.YES), ("qcow2", Verify.STRICT)):
        dest = tmp_path / f"out.{image_format}"
        outcome = convert(state, path, dest=str(dest), format=image_format, verify=way, checksum=True)
        assert outcome.error == ""
        assert (outcome.changed, outcome.verified, outcome.target) == (True, True, str(dest))
        size = outcome.virtual_size
        assert read_back(dest, image_format, tmp_path)[:size] == disk.ljust(size, b"\0")
        assert outcome.checksum == hashlib.sha256(disk.ljust(size, b"\0")).hexdigest()
        assert outcome.content_id == content_id(disk.ljust(size, b"\0"))
        ids.add(outcome.content_id)
    assert len(ids) == 1
    assert snapshot(path.parent) == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("kind", "name", "way"),
    [
        *(("streamOptimized", name, Verify.YES) for name in TARGETS),
        *(("monolithicSparse", name, Verify.NO) for name in ("raw", "qcow2", "qcow2-off", "qcow2-2m-compressed")),
        *(("qcow2", name, Verify.NO) for name in ("qcow2-off", "qcow2-compressed")),
    ],
)
def test_every_target_has_the_bytes(kind: str, name: str, way: Verify, state: Path, tmp_path: Path) -> None:
    path, dest = source(tmp_path / "source", kind), tmp_path / "out"
    outcome = convert(state, path, dest=str(dest), verify=way, **TARGETS[name])
    assert outcome.error == ""
    assert outcome.verified is (way is Verify.YES)
    image_format = TARGETS[name]["format"]
    assert read_back(dest, image_format, tmp_path).rstrip(b"\0") == content().rstrip(b"\0")
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(dest)]))
    assert info["format"] == image_format
    assert info["virtual-size"] == outcome.size
    if TARGETS[name].get("cluster_size"):
        assert info["cluster-size"] == TARGETS[name]["cluster_size"]
    if image_format == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(dest)], check=True)
    thin = TARGETS[name].get("preallocation", "") not in ("full", "falloc")
    assert (dest.stat().st_blocks * 512 < 7 * MIB) is thin or "2m" in name  # large clusters, large tables


@pytest.mark.parametrize("kind", NATIVE)
def test_zeros_stay_holes(kind: str, state: Path, tmp_path: Path) -> None:
    outcome = convert(state, source(tmp_path / "source", kind), dest=str(tmp_path / "out"))
    assert outcome.error == ""
    disk = content()
    stored = sum(1 for at in range(0, SIZE, 65536) if disk[at : at + 65536].strip(b"\0")) * 65536
    assert (tmp_path / "out").stat().st_blocks * 512 <= stored + MIB


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_larger(image_format: str, state: Path, web: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    outcome = convert(state, web, dest=str(dest), format=image_format, size=40 * MIB)
    assert (outcome.error, outcome.size, outcome.virtual_size) == ("", 40 * MIB, SIZE)
    assert read_back(dest, image_format, tmp_path) == content().ljust(40 * MIB, b"\0")


def test_nothing_but_zeros(state: Path, tmp_path: Path) -> None:
    path = source(tmp_path / "source", disk=bytes(9 * MIB))
    outcome = convert(state, path, dest=str(tmp_path / "out"), format="qcow2", verify=Verify.STRICT)
    assert (outcome.error, outcome.content_id) == ("", content_id(bytes(9 * MIB)))
    assert read_back(tmp_path / "out", "qcow2", tmp_path) == bytes(9 * MIB)


# ---- second runs


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_second_run_changes_nothing_and_reads_no_data(
    image_format: str, state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"dest": str(tmp_path / "out"), "format": image_format}
    assert look(state, web, **words).action is Action.CONVERT
    assert not state.exists()
    first = convert(state, web, **words)
    before = snapshot(tmp_path)
    monkeypatch.setattr(verify, "load", None)  # whoever read the target would fail
    for again in (look(state, web, **words), convert(state, web, **words)):
        assert (again.error, again.changed, again.action, again.verified) == ("", False, Action.NOTHING, True)
        assert again.content_id == first.content_id
    locks = {name for name in snapshot(tmp_path) if name.endswith(".lock")}
    assert {k: v for k, v in snapshot(tmp_path).items() if k not in locks} == {
        k: v for k, v in before.items() if k not in locks
    }


def test_check_mode_writes_nothing_and_says_the_same(state: Path, web: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    planned = look(state, web, dest=str(tmp_path / "out"))
    assert snapshot(tmp_path) == before
    done = convert(state, web, dest=str(tmp_path / "out"))
    for name in ("action", "changed", "target", "size", "virtual_size", "fingerprint", "needed", "error"):
        assert getattr(planned, name) == getattr(done, name), name


def test_verified_later(state: Path, web: Path, tmp_path: Path) -> None:
    words = {"dest": str(tmp_path / "out")}
    assert not convert(state, web, verify=Verify.NO, **words).verified
    assert convert(state, web, verify=Verify.NO, **words).action is Action.NOTHING
    before = (tmp_path / "out").stat()
    later = convert(state, web, **words)
    assert (later.error, later.action, later.changed, later.verified) == ("", Action.VERIFY, False, True)
    assert later.content_id == content_id(content())
    strict = convert(state, web, verify=Verify.STRICT, checksum=True, **words)
    assert (strict.error, strict.action) == ("", Action.VERIFY)
    assert strict.checksum == hashlib.sha256(content()).hexdigest()
    assert (tmp_path / "out").stat().st_mtime_ns == before.st_mtime_ns
    assert convert(state, web, verify=Verify.STRICT, checksum=True, **words).action is Action.NOTHING


def test_verified_later_and_different(state: Path, web: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    convert(state, web, dest=str(dest), verify=Verify.NO)
    with dest.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(b"x")
    later = convert(state, web, dest=str(dest))
    assert "differs from the source in the 4 MiB at byte 8388608" in later.error
    assert "remove it to have it converted again" in later.error
    assert dest.exists()


# ---- changes and damage


def test_changed_source_is_noticed(state: Path, web: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    convert(state, web, dest=str(dest))
    other = content(seed=8)
    source(web.parent, disk=other)
    for found in (look(state, web, dest=str(dest)), convert(state, web, dest=str(dest))):
        assert f"{web} has changed since it was converted to {dest}" in found.error
        assert f"Remove {dest} to have the new one converted" in found.error
    assert read_back(dest, "raw", tmp_path) == content()
    dest.unlink()
    again = convert(state, web, dest=str(dest))
    assert (again.error, again.changed) == ("", True)
    assert read_back(dest, "raw", tmp_path) == other


def test_missing_file_is_made_again(state: Path, web: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    convert(state, web, dest=str(dest))
    dest.unlink()
    again = convert(state, web, dest=str(dest))
    assert (again.error, again.changed) == ("", True)
    assert "is gone and is made again" in again.notes[0]
    assert read_back(dest, "raw", tmp_path) == content()


def test_damaged_target_is_noticed(state: Path, web: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    convert(state, web, dest=str(dest))
    os.utime(dest)  # only touched: it is read, and found to be what it was
    assert convert(state, web, dest=str(dest)).action is Action.REREAD
    assert convert(state, web, dest=str(dest)).action is Action.NOTHING
    with dest.open("r+b") as file:
        file.seek(10 * MIB)
        file.write(b"damage")
    found = convert(state, web, dest=str(dest))
    assert "it was written to since, or it is damaged" in found.error
    assert "remove it to have it converted again" in found.error
    os.truncate(dest, 5 * MIB)
    found = convert(state, web, dest=str(dest))
    assert f"{dest} is damaged: it has {5 * MIB} bytes, and had {SIZE}" in found.error
    assert not found.changed
    assert dest.stat().st_size == 5 * MIB


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"format": "qcow2"}, "format was raw, is qcow2"),
        ({"size": 64 * MIB}, "size was 14 MiB, is 64 MiB"),
        ({"preallocation": "full"}, "preallocation was not given, is full"),
    ],
)
def test_other_wishes_for_a_finished_target(
    words: dict[str, Any], says: str, state: Path, web: Path, tmp_path: Path
) -> None:
    convert(state, web, dest=str(tmp_path / "out"))
    before = snapshot(tmp_path)
    found = look(state, web, dest=str(tmp_path / "out"), **words)
    assert says in found.error
    assert "Remove it to have it made anew, or ask for what it is" in found.error
    assert snapshot(tmp_path) == before


def test_source_that_changes_under_way(state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest, real = tmp_path / "out", verify.Comparison.run

    def meddle(self: verify.Comparison) -> None:
        real(self)
        with web.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")

    with monkeypatch.context() as patched:
        patched.setattr(verify.Comparison, "run", meddle)
        found = convert(state, web, dest=str(dest))
    assert f"{web} was changed while it was converted; nothing of it is used" in found.error
    assert not dest.exists()
    again = convert(state, web, dest=str(dest))
    assert (again.error, again.resumed) == ("", False)
    assert f"{web} has changed" in again.notes[0]
    assert read_back(dest, "raw", tmp_path) == read_back(web, "vmdk", tmp_path)
    assert only(tmp_path) == ["out", "source", "state"]


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_target_that_is_taken_away_under_way(
    image_format: str, how: str, state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was verified is not what is there: that is no success, and what is there is not touched."""
    dest, partial, real = tmp_path / "out", tmp_path / "out.partial", verify.Comparison.run

    def meddle(self: verify.Comparison) -> None:
        real(self)
        partial.unlink()
        if how == "replaced":
            partial.write_bytes(bytes(SIZE))

    words = {"dest": str(dest), "format": image_format}
    with monkeypatch.context() as patched:
        patched.setattr(verify.Comparison, "run", meddle)
        found = convert(state, web, **words)
    assert f"{partial} was removed or replaced by something else while it was written" in found.error
    assert "run again: it begins anew" in found.error
    assert not found.verified
    assert not dest.exists()
    again = convert(state, web, **words)
    assert (again.error, again.verified) == ("", True)
    assert read_back(dest, image_format, tmp_path) == content()


@pytest.mark.parametrize("name", ["out", "out.partial"])
def test_something_else_in_the_place_of_what_is_complete(name: str, state: Path, web: Path, tmp_path: Path) -> None:
    """Killed just before or after the renaming; before the next run, somebody puts another file there."""
    words = {"dest": str(tmp_path / "out")}
    convert(state, web, **words)
    (journal,) = (state / "convert").glob("*.json")
    journal.write_text(json.dumps({**json.loads(journal.read_text()), "state": "naming"}))
    (tmp_path / "out").unlink()
    (tmp_path / name).write_bytes(bytes(SIZE))
    before = snapshot(tmp_path)
    for found in (look(state, web, **words), convert(state, web, **words)):
        assert f"{name} was changed or replaced by something else since it was complete" in found.error
    assert {key: value for key, value in snapshot(tmp_path).items() if not key.endswith(".lock")} == {
        key: value for key, value in before.items() if not key.endswith(".lock")
    }


def test_target_of_another_image(state: Path, web: Path, tmp_path: Path) -> None:
    """It is not this image that has changed, and the advice is not to remove a good conversion of the other."""
    other = source(tmp_path / "other", disk=content(seed=8))
    dest, words = tmp_path / "out", {"dest": str(tmp_path / "out")}
    convert(state, other, **words)
    for found in (look(state, web, **words), convert(state, web, **words)):
        assert f"{web}: {dest} was made from {other} on " in found.error
        assert "Choose another dest" in found.error
        assert "emove" not in found.error
    (journal,) = (state / "convert").glob("*.json")
    journal.write_text(json.dumps({**json.loads(journal.read_text()), "state": "begun", "done": 0, "finished": ""}))
    dest.rename(tmp_path / "out.partial")
    for found in (look(state, web, **words), convert(state, web, **words)):
        assert f"{web}: {dest}.partial was made from {other}, not from this image; it is not touched" in found.error
    assert read_back(tmp_path / "out.partial", "raw", tmp_path) == content(seed=8)


def test_source_that_is_renamed_under_way(
    state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = copy.Copier.run, tmp_path / "away.vmdk"

    def meddle(self: copy.Copier, start: int) -> None:
        real(self, start)
        web.rename(away)

    with monkeypatch.context() as patched:
        patched.setattr(copy.Copier, "run", meddle)
        found = convert(state, web, dest=str(tmp_path / "out"))
    assert f"{web} was renamed, moved or removed while {web} was converted. Put it back" in found.error
    away.rename(web)
    again = convert(state, web, dest=str(tmp_path / "out"))
    assert (again.error, again.resumed, again.notes) == ("", True, [])
    assert read_back(tmp_path / "out", "raw", tmp_path) == content()


def test_slow_copy_has_not_run_in_vain(
    state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done lasts after a while, however little it is; and nothing done is nothing gone on with."""
    words = {"dest": str(tmp_path / "out")}
    commits: list[int] = []
    real, broken = os.pwrite, [12 * MIB]

    def failing(fd: int, data: bytes, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".partial") and offset >= broken[0]:
            raise OSError(5, "Input/output error")
        return real(fd, data, offset)

    def saved() -> dict[str, Any]:
        (journal,) = (state / "convert").glob("*.json")
        found: dict[str, Any] = json.loads(journal.read_text())
        return found

    monkeypatch.setattr(os, "pwrite", failing)
    assert "Input/output error" in convert(state, web, **words).error
    assert saved()["done"] == 0
    again = convert(state, web, **words)
    assert (again.action, again.resumed) == (Action.CONVERT, False)
    monkeypatch.setattr(copy, "COMMIT_SECONDS", 0.0)
    convert(state, web, **words)
    commits.append(saved()["done"])
    assert commits[0] in (8 * MIB, 12 * MIB)
    monkeypatch.undo()
    again = convert(state, web, **words)
    assert (again.error, again.action, again.resumed) == ("", Action.RESUME, True)
    assert read_back(tmp_path / "out", "raw", tmp_path) == content()


def test_bad_memory_or_disk(state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that does not give back what was written: written once more, then given up."""
    dest, real = tmp_path / "out", os.pwrite

    def lossy(fd: int, data: bytes, offset: int) -> int:
        lost = os.readlink(f"/proc/self/fd/{fd}").endswith(".partial") and offset > 8 * MIB
        return real(fd, bytes(len(data)) if lost else data, offset)

    monkeypatch.setattr(os, "pwrite", lossy)
    found = convert(state, web, dest=str(dest))
    assert "the target differs from the source in the 4 MiB at byte" in found.error
    assert "written once more" in found.notes[0]
    assert only(tmp_path) == ["source", "state"]
    assert [path.suffix for path in (state / "convert").iterdir()] == [".lock"]
    monkeypatch.undo()
    assert convert(state, web, dest=str(dest)).error == ""


# ---- refusals: each with its words, and nothing written


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({}, "say either dest (a file) or storage and vmid (a volume)"),
        ({"storage": "local"}, "storage needs vmid"),
        ({"storage": "local", "vmid": 5}, "vmid=5 is out of range; Proxmox VE numbers guests from 100 to 999999999"),
        ({"dest": "out.raw"}, "dest=out.raw is no absolute path; begin it with /"),
        ({"dest": "D/out.qcow2"}, "promises qcow2 by its ending, and format=raw is made; choose format=qcow2"),
        ({"dest": "D/out.vmdk"}, "and format=raw is made; choose a name that ends in .raw"),
        ({"dest": "D/out.img", "format": "qcow2"}, "promises raw by its ending, and format=qcow2 is made"),
        ({"dest": "D/out", "vmid": 100}, "vmid goes with storage, not with dest"),
        ({"dest": "D/out", "size": 5 * MIB}, "size=5 MiB is smaller than the disk, which has 14 MiB"),
        ({"dest": "D/out", "compress": True}, "compress=true is for qcow2; leave it out or choose format=qcow2"),
        ({"dest": "D/out", "cluster_size": 65536}, "cluster_size=65536 is for qcow2"),
        ({"dest": "D/out", "preallocation": "metadata"}, "preallocation=metadata is for qcow2"),
        (
            {"dest": "D/out", "format": "qcow2", "compress": True, "preallocation": "full"},
            "preallocation=full and compress=true contradict each other",
        ),
        ({"dest": "D/none/out"}, "none is no folder; make it first"),
        ({"dest": "D/there"}, "there is there already, and nothing in"),
        ({"dest": "D/half"}, "half.partial is there already, and nothing in"),
        ({"dest": "D/link"}, "link is there and is no plain file"),
        ({"dest": "D/source"}, "source is there and is no plain file"),
    ],
)
def test_refusals(words: dict[str, Any], says: str, state: Path, web: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / "half.partial").write_text("somebody's")
    (tmp_path / "link").symlink_to("there")
    before = snapshot(tmp_path)
    given = {key: value.replace("D", str(tmp_path)) if key == "dest" else value for key, value in words.items()}
    for found in (look(state, web, **given), convert(state, web, **given)):
        assert says in found.error
        assert not found.changed
    after = {name: facts for name, facts in snapshot(tmp_path).items() if not name.endswith(".lock")}
    assert after == before


def test_source_that_is_refused(state: Path, web: Path, tmp_path: Path) -> None:
    os.truncate(web, web.stat().st_size - 100_000)
    found = convert(state, web, dest=str(tmp_path / "out"))
    assert found.code
    assert found.error
    assert only(tmp_path) == ["source", "state"]


def test_damaged_grain_is_found_while_unpacking(state: Path, tmp_path: Path) -> None:
    path = source(tmp_path / "source", "streamOptimized")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 0x5A for byte in data[middle : middle + 64])
    path.write_bytes(data)
    found = convert(state, path, dest=str(tmp_path / "out"))
    assert (found.code, found.changed) != ("", None)
    assert "copy the file again" in found.error
    assert only(tmp_path) == ["source", "state"]


def test_journal_of_another_making(state: Path, web: Path, tmp_path: Path) -> None:
    words = {"dest": str(tmp_path / "out")}
    convert(state, web, **words)
    (journal,) = (state / "convert").glob("*.json")
    record = json.loads(journal.read_text())
    wrong = {
        "{}": "another version",
        "garbage": "Expecting value",
        "[]": "another version",
        json.dumps({**record, "size": "abc"}): 'its size is "abc"',
        json.dumps({**record, "done": True}): "its done is true",
        json.dumps({**record, "stamp": ["x"]}): 'its stamp is ["x"]',
        json.dumps({**record, "member": None}): "its member is null",
        json.dumps({**record, "state": "ready"}): "its state is 'ready'",
        json.dumps({**record, "done": -1}): "after -1 of",
        json.dumps({name: value for name, value in record.items() if name != "size"}): "'size'",
    }
    for text, says in wrong.items():
        journal.write_text(text)
        for found in (look(state, web, **words), convert(state, web, **words)):
            assert f"{journal} is no journal of a conversion (" in found.error
            assert says in found.error
            assert "remove it and run again" in found.error
    assert read_back(tmp_path / "out", "raw", tmp_path) == content()


def test_two_runs_at_a_time(state: Path, web: Path, tmp_path: Path) -> None:
    words = {"dest": str(tmp_path / "out")}
    convert(state, web, **words)
    (lock,) = (state / "convert").glob("*.lock")
    with held(str(lock), "it"):
        found = convert(state, web, **words)
        assert f"is being worked on by another run (process {os.getpid()})" in found.error
    assert convert(state, web, **words).error == ""


# ---- space


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12M", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("place", ["convert", "staging"])
def test_full_state_folder_is_named(place: str, web: Path, small: Path, tmp_path: Path) -> None:
    """It is neither the source nor the target that has no room."""
    name = "qcow2-off" if place == "staging" else "raw"
    state, words = small / "state", {"dest": str(tmp_path / "out"), **TARGETS[name]}
    (small / "ballast").write_bytes(bytes(11 * MIB))
    with contextlib.suppress(OSError), (small / "more").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    if place == "staging":  # enough for the journal
        os.truncate(small / "more", (small / "more").stat().st_size - (1 << 17))
    found = convert(state, web, **words)
    where = r"\S*" if place == "convert" else ""
    assert re.match(rf"{small}/state/{place}{where}: no room left \(No space left on device\), which is", found.error)
    assert f"which is needed for {tmp_path}/out" in found.error or f"which is needed for {web}" in found.error
    assert not (tmp_path / "out").exists()
    for name in ("ballast", "more"):
        (small / name).unlink()
    assert convert(state, web, **words).error == ""
    assert read_back(tmp_path / "out", words["format"], tmp_path).rstrip(b"\0") == content().rstrip(b"\0")


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_too_little_room_is_refused_first(image_format: str, state: Path, web: Path, small: Path) -> None:
    for found in (
        look(state, web, dest=str(small / "out"), format=image_format),
        convert(state, web, dest=str(small / "out"), format=image_format),
    ):
        assert re.search(r"out: 4\.\d+ MiB are needed, 64 MiB beside it are to stay free, and ", found.error)
        assert "12 MiB are free; make room or choose another place" in found.error
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("name", ["raw", "qcow2", "qcow2-off"])
def test_full_disk_keeps_what_is_done(
    name: str, state: Path, web: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "MARGIN", 0)
    for kind in (target.Target, target.PackedTarget):
        monkeypatch.setattr(kind, "slice", 1)
    (small / "ballast").write_bytes(bytes(2 * MIB))
    words = {"dest": str(small / "out"), **TARGETS[name]}
    with monkeypatch.context() as patched:
        patched.setattr(space, "available", lambda folder: 1 << 40)  # as if it had been free a moment ago
        (small / "more").write_bytes(bytes(7 * MIB))
        found = convert(state, web, **words)
    full = f"{small}/out.partial: no room left (No space left on device); what is safely written is kept"
    assert full in found.error or "failed with status 1" in found.error
    assert not (small / "out").exists()
    assert (small / "out.partial").exists()
    (small / "more").unlink()
    again = convert(state, web, **words)
    assert (again.error, again.resumed) == ("", True)
    assert read_back(small / "out", TARGETS[name]["format"], tmp_path) == content()
    assert only(small) == ["ballast", "out"]


def test_file_size_limit(state: Path, web: Path, tmp_path: Path) -> None:
    """A full disk without being root: this process may not make files larger than 9 MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = {"dest": str(tmp_path / "out")}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9 * MIB, hard))
        found = convert(state, web, **words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{tmp_path}/out.partial: no room left (File too large); " in found.error
    assert "run again: it goes on from there" in found.error
    assert not (tmp_path / "out").exists()
    again = convert(state, web, **words)
    assert (again.error, again.resumed) == ("", False)  # the file could not even be made
    assert read_back(tmp_path / "out", "raw", tmp_path) == content()


def test_interrupted_target_that_was_tampered_with(state: Path, web: Path, tmp_path: Path) -> None:
    """Whatever became of the unfinished file, the target is right in the end."""
    words = {"dest": str(tmp_path / "out"), "format": "qcow2"}
    convert(state, web, **words)
    (journal,) = (state / "convert").glob("*.json")
    record = json.loads(journal.read_text())
    for partial in (b"", b"garbage" * 1000, None):
        journal.write_text(json.dumps({**record, "state": "begun", "done": 8 * MIB, "stamp": []}))
        (tmp_path / "out").unlink()
        if partial is not None:
            (tmp_path / "out.partial").write_bytes(partial)
        again = convert(state, web, **words)
        assert again.error == ""
        assert read_back(tmp_path / "out", "qcow2", tmp_path) == content()


def test_named_but_not_noted(state: Path, web: Path, tmp_path: Path) -> None:
    """Killed between the renaming and the journal; and just before the renaming."""
    words = {"dest": str(tmp_path / "out")}
    convert(state, web, **words)
    (journal,) = (state / "convert").glob("*.json")
    record = json.loads(journal.read_text())
    for name in ("out", "out.partial"):
        journal.write_text(json.dumps({**record, "state": "naming", "stamp": [], "finished": ""}))
        shutil.move(tmp_path / "out", tmp_path / name)
        again = convert(state, web, **words)
        assert (again.error, again.action, again.verified) == ("", Action.NAME, True)
        assert only(tmp_path) == ["out", "source", "state"]
        assert convert(state, web, **words).action is Action.NOTHING


def test_target_that_appears_meanwhile(state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest, real = tmp_path / "out", verify.Comparison.run

    def meddle(self: verify.Comparison) -> None:
        real(self)
        dest.write_text("precious")

    monkeypatch.setattr(verify.Comparison, "run", meddle)
    found = convert(state, web, dest=str(dest))
    assert "was made by somebody else meanwhile; nothing is overwritten" in found.error
    assert dest.read_text() == "precious"


def test_an_old_state_is_converted_with_a_warning_that_names_the_last_one(state: Path, tmp_path: Path) -> None:
    """Once, when it is converted; the last state itself comes without."""
    good = {one.name: one for one in GOOD}["delta-sesparse-three"]
    folder, dest = tmp_path / "chain", tmp_path / "old.raw"
    folder.mkdir()
    head, last = good.make(folder)
    base = folder / "disk.vmdk"
    planned, done = look(state, base, dest=str(dest)), convert(state, base, dest=str(dest))
    assert planned.notes == done.notes == [
        f"{base}: disk-000003.vmdk beside it goes on from it, so the disk is as it was before that snapshot; for its "
        "last state name disk-000003.vmdk instead of disk.vmdk"
    ]  # fmt: skip
    assert dest.read_bytes() != last
    assert convert(state, base, dest=str(dest)).notes == []
    assert convert(state, head, dest=str(tmp_path / "new.raw")).notes == []
    assert (tmp_path / "new.raw").read_bytes() == last
