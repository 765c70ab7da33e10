# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a conversion is made of: chunks, digests, slices, journals, locks, limits, orders, progress."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image import lock, progress, space
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.chunks import BLOCK, CHUNK, Buffer, Digests, cut
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.copy import Pool, Throttle
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.journal import Journal, Record, records
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.orders import Order, problems
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.places import rename_noreplace
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.progress import Progress, Report
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.reader import STAGED, staged_parts
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.runs import Kind, Run
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.target import Piece, write_zeros
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.verify import in_chunks
from hypothesis import given, settings
from hypothesis import strategies as st
from unit._image.converting import MIB, content_id

RECORD = Record("f" * 64, "/srv/a.vmdk", "", "/srv/a.raw", "raw", 0, "", False, 10 * MIB, 10 * MIB)


# ---- chunks and digests

lengths = st.integers(1, 3 * CHUNK) | st.sampled_from([CHUNK, 2 * CHUNK, 40 * CHUNK])


@st.composite
def runs(draw: st.DrawFn) -> list[Run]:
    """Neighbouring runs from a chunk's border on."""
    position, found = draw(st.integers(0, 3)) * CHUNK, []
    for length, kind in draw(st.lists(st.tuples(lengths, st.sampled_from([Kind.DATA, Kind.ZERO])), min_size=1)):
        found.append(Run(position, length, kind, 0, position + 77 if kind is Kind.DATA else 0))
        position += length
    return found


@settings(deadline=None)
@given(runs())
def test_cut_loses_nothing(given_runs: list[Run]) -> None:
    chunks = list(cut(given_runs))
    position = given_runs[0].start
    for chunk in chunks:
        assert chunk.start == position
        assert chunk.start % CHUNK == 0
        assert chunk.end - chunk.start <= CHUNK or not chunk.stored
        for run in chunk.runs:
            assert run.start == position
            assert run.kind is Kind.ZERO or run.offset == run.start + 77
            position = run.end
        assert position == chunk.end
    assert position == given_runs[-1].end
    assert sum(chunk.stored for chunk in chunks) == sum(run.length for run in given_runs if run.kind is Kind.DATA)


def test_a_disk_of_zeros_is_one_chunk() -> None:
    """So that an empty disk of 62 TiB costs nothing."""
    chunks = list(cut([Run(0, 62 << 40, Kind.ZERO), Run(62 << 40, 512, Kind.ZERO)]))
    assert [(chunk.start, chunk.end) for chunk in chunks] == [(0, 62 << 40), (62 << 40, (62 << 40) + 512)]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_content_id_is_as_documented(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 2 * CHUNK + 1000))
    disk = bytearray(size)
    for place in data.draw(st.lists(st.integers(0, size - 1), max_size=4)):
        disk[place] = 1 + place % 255
    path = Path(os.environ.get("TMPDIR", "/tmp"), f"digests-{os.getpid()}")
    digests, buffer = Digests(str(path), size), Buffer()
    try:
        digests.restart(0)
        for start in range(0, size, CHUNK):
            part = disk[start : start + CHUNK]
            buffer.resize(len(part))
            buffer.view[:] = part
            digests.put(start, buffer)
            assert digests.fits(start, buffer)
        assert digests.content_id() == content_id(bytes(disk))
        digests.restart(size)  # a run that was killed when everything was copied
        assert digests.content_id() == content_id(bytes(disk))
        first = next((at // CHUNK * CHUNK for at, byte in enumerate(disk) if byte), None)
        assert digests.first_not_zero(0, size) == first
    finally:
        digests.close()
        path.unlink()


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=64), st.integers(1, BLOCK))
def test_stretches_find_zeros_by_blocks(blocks: list[bool], last: int) -> None:
    buffer = Buffer()
    buffer.resize((len(blocks) - 1) * BLOCK + last)
    buffer.clear(0, len(buffer.view))
    for number, full in enumerate(blocks):
        if full:
            buffer.view[min(number * BLOCK + BLOCK, len(buffer.view)) - 1] = 1
    found = list(buffer.stretches())
    assert [start for start, _end, _zero in found] == [0, *(end for _start, end, _zero in found[:-1])]
    assert found[-1][1] == len(buffer.view)
    for start, end, zero in found:
        assert {not blocks[at // BLOCK] for at in range(start, end, BLOCK)} == {zero}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200))), st.integers(0, CHUNK - 1))
def test_staged_parts_cover_the_content(gaps: list[tuple[int, int]], odd: int) -> None:
    position, content = odd, []
    for gap, length in gaps:
        content.append((position + gap * MIB, position + (gap + length) * MIB))
        position = content[-1][1]
    end = position + 12345
    parts = staged_parts(content, end)
    assert all(stop - start <= STAGED and start % CHUNK == 0 for start, stop in parts)
    assert all(one[1] <= other[0] for one, other in zip(parts, parts[1:], strict=False))
    covered = {at for start, stop in parts for at in range(start // CHUNK, -(-stop // CHUNK))}
    assert covered == {at for start, stop in content for at in range(start // CHUNK, -(-stop // CHUNK))}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2 * CHUNK), st.integers(1, 3 * CHUNK)), max_size=6))
def test_pieces_by_chunks(gaps: list[tuple[int, int]]) -> None:
    position, pieces = 0, []
    for gap, length in gaps:
        pieces.append(Piece(position + gap, length, 3, 1000 + position))
        position += gap + length
    found = list(in_chunks(iter(pieces), position))
    assert [start for start, _stop, _parts in found] == sorted({start for start, _stop, _parts in found})
    parts = [part for start, stop, own in found for part in own if start <= part.start and part.start < stop]
    assert sum(part.length for part in parts) == sum(piece.length for piece in pieces)
    for part in parts:
        assert part.start // CHUNK == (part.start + part.length - 1) // CHUNK


@pytest.mark.parametrize("refused", [False, True])
def test_zeros_are_written(refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Punched out, or written where the file system can't do that."""
    if refused:
        monkeypatch.setattr(
            "ansible_collections.diskwright.proxmox.plugins.module_utils._image.target._punch", lambda *arguments: False
        )
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3 * MIB)
    with path.open("r+b") as file:
        write_zeros(file.fileno(), 5000, 2 * MIB)
    assert path.read_bytes() == b"x" * 5000 + bytes(2 * MIB) + b"x" * (MIB - 5000)


# ---- journal, lock, names


def test_journal_keeps_what_it_was_given(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "state" / "convert"), "file /srv/größe \udcff")
    assert journal.load() is None
    record = replace(RECORD, done=CHUNK, stamp=(1, 2, 3), path="/srv/größe")
    journal.save(record)
    assert journal.load() == record
    assert records(os.path.dirname(journal.path)) == [(journal.path, record)]
    assert (tmp_path / "state" / "convert").stat().st_mode & 0o777 == 0o700
    journal.forget()
    journal.forget()
    assert journal.load() is None
    assert records(str(tmp_path / "none")) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}', '{"version": 1}', "\x00"])
def test_journal_that_is_none(text: str, tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "x")
    Path(journal.path).write_text(text)
    with pytest.raises(
        DiskwrightError, match="is no journal of a conversion .*; if nothing is being converted, remove"
    ):
        journal.load()


def test_lock_goes_on_with_a_program(tmp_path: Path) -> None:
    path = str(tmp_path / "locks" / "x.lock")
    with lock.held(path, "it"):
        assert len(lock.inherited()) == 1
        child = subprocess.Popen(["sleep", "30"], pass_fds=lock.inherited())
    assert lock.inherited() == ()
    try:
        with pytest.raises(lock.BusyError, match=f"it is being worked on by another run .process {os.getpid()}."):
            lock.held(path, "it").__enter__()
    finally:
        child.kill()
        child.wait()
    with lock.held(path, "it"):
        pass


def test_holders(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    os.link(path, tmp_path / "other")
    with path.open() as file:
        assert lock.holders(str(path)) == ()
        child = subprocess.Popen(["sleep", "30"], pass_fds=[file.fileno()])
    try:
        assert lock.holders(str(tmp_path / "other")) == (child.pid,)
    finally:
        child.kill()
        child.wait()
    assert lock.holders(str(path)) == ()


def test_rename_replaces_nothing(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    new.write_text("new")
    with pytest.raises(FileExistsError):
        rename_noreplace(str(old), str(new))
    assert (old.read_text(), new.read_text()) == ("old", "new")
    new.unlink()
    rename_noreplace(str(old), str(new))
    assert new.read_text() == "old"


# ---- space, orders, limits


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"image_format": "raw", "thin": True}, 3 << 30),
        ({"image_format": "raw", "thin": False}, 32 << 30),
        ({"image_format": "raw", "thin": True, "preallocation": "full"}, 32 << 30),
        ({"image_format": "qcow2", "thin": True}, (3 << 30) + 10 * (32 << 14) + 8 * 65536),
    ],
)
def test_space_needed(words: dict[str, Any], expected: int) -> None:
    assert space.needed(size=32 << 30, stored=3 << 30, **words) == expected


def test_a_qcow2_never_takes_more_than_was_said(tmp_path: Path) -> None:
    for size in (MIB, 5 << 30, 40 << 30):
        path = tmp_path / "x.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, str(size)], check=True
        )
        assert path.stat().st_blocks * 512 <= space.needed("qcow2", size, 0, thin=True)
        path.unlink()


@given(st.text(), st.text(), st.integers(1, 10**9))
def test_volume_names_are_what_pve_takes(path: str, member: str, vmid: int) -> None:
    name = Order(path, member, storage="local", vmid=vmid).volume_name("0123456789abcdef")
    assert name.isascii()
    assert all(letter.isalnum() or letter == "-" for letter in name)
    assert name.startswith(f"vm-{vmid}-")
    assert name.endswith("-01234567")
    assert len(name) < 100


def test_all_problems_of_an_order_are_told_together() -> None:
    found = problems(Order("/srv/a.vmdk", format="raw", compress=True, cluster_size=3, preallocation="metadata"))
    assert len(found) == 6
    assert all(line.startswith("/srv/a.vmdk: ") and "; " in line or "say either" in line for line in found)


def test_throttle_keeps_the_rate() -> None:
    throttle, begun = Throttle(100 * MIB), time.monotonic()
    for _number in range(6):
        throttle.take(5 * MIB)
    assert time.monotonic() - begun >= 0.25
    Throttle(0).take(1 << 60)


def test_pool_stops_at_an_error() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise OSError("broken")
        done.append(number)

    pool = Pool(2)
    with pytest.raises(OSError, match="broken"):
        for number in range(1000):
            pool.submit(work, number)
        pool.drain()
    pool.stop()
    assert len(done) < 100


# ---- progress


def test_lines() -> None:
    one = Progress("web.vmdk", "convert", 1288490189, 4 << 30, skipped=1 << 30, seconds=2.0)
    assert progress.line(one) == "web.vmdk  convert  1.2 GiB / 4 GiB  30 %  102.4 MiB/s  28 s left"
    assert progress.line(replace(one, seconds=0)) == "web.vmdk  convert  1.2 GiB / 4 GiB  30 %"
    assert progress.line(replace(one, phase="done")) == "web.vmdk  done"
    assert replace(one, done=(4 << 30) - 1).percent == 99
    assert replace(one, done=9 << 30).percent == 100


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (3570, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_log_gets_few_lines() -> None:
    report, one = Report(host="pve1"), Progress("a", "convert", 0, 1000)
    said = []
    for done in range(1001):
        one.done = done
        said.append(report.text([one]))
    assert len([text for text in said if text]) == 11
    assert said[0] == "[pve1] a  convert  0 B / 1000 B  0 %\n"
    one.phase = "done"
    assert report.text([one]) == "[pve1] a  done\n"
    assert report.text([one]) == ""


def test_terminal_lines_are_renewed_in_place() -> None:
    report = Report(width=40)
    images = [Progress(f"disk{number}.vmdk", "convert", 500, 1000) for number in range(30)]
    first, second = report.text(images), report.text(images)
    assert first.count("\n") == 11
    assert first.endswith("0 of 30 images done\n")
    assert second.startswith("\x1b[11A\r\x1b[J")
    assert max(map(len, first.splitlines())) < 40
    for one in images:
        one.phase = "done"
    assert report.text(images) == "\x1b[11A\r\x1b[J30 of 30 images done\n"


def test_progress_file(tmp_path: Path) -> None:
    path = tmp_path / "progress" / "x.json"
    images = [Progress("a"), Progress("b")]
    with progress.reported(str(path), images, every=0.01):
        images[1].enter("convert", 10, 4)
        images[1].done = 7
        time.sleep(0.1)
        seen = progress.read(path.read_text())
    assert [(one.name, one.phase, one.done, one.total, one.skipped) for one in seen] == [
        ("a", "wait", 0, 0, 0),
        ("b", "convert", 7, 10, 4),
    ]
    assert progress.read(path.read_text())[1].seconds > 0
    assert json.loads(path.read_text())["pid"] == os.getpid()
    assert [progress.read(text) for text in ("", "{", "{}", '{"images": [1]}')] == [[], [], [], []]


def test_reader_that_is_gone(tmp_path: Path) -> None:
    seen, now = tmp_path / "x.seen", [0.0]
    reader = progress.Reader(str(seen), lambda: now[0])
    now[0] = 10_000
    assert not reader.gone()  # nobody ever said that he waits
    for _look in range(3):
        seen.touch()
        os.utime(seen, ns=(int(now[0]), int(now[0])))
        assert not reader.gone()
        now[0] += progress.PATIENCE - 1
        assert not reader.gone()
    now[0] += 2
    assert reader.gone()
