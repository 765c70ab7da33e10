# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads: fio takes every one of them, and what it answers is read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.fio import JOB_FILE, jobs, measured
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import (
    SMALLEST,
    TABLE,
    TRACE_BYTES,
    Workload,
    parse_workloads,
    trace,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError

SIZE = 64 * 1024**2


def answer(iops: float = 1000.0, sync: int = 0, error: int = 0) -> dict[str, Any]:
    """fio's JSON in the parts that are read, as fio 3.33 gives it."""
    percentile = {"50.000000": 100, "95.000000": 200, "99.000000": 300, "99.900000": 400}
    done = {"total_ios": 5, "iops": iops, "bw_bytes": iops * 4096, "runtime": 2000}
    flow = {**done, "clat_ns": {"percentile": percentile}}
    none = {"total_ios": 0, "iops": 0.0, "bw_bytes": 0, "runtime": 0, "clat_ns": {"min": 0}}
    times = {"percentile": {name: value + 1 for name, value in percentile.items()}}
    return {"jobs": [{"error": error, "read": flow, "write": none, "sync": {"total_ios": sync, "lat_ns": times}}]}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fio") / "image"
    path.write_bytes(b"\xa5" * SIZE)
    return path


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
@pytest.mark.parametrize("workload", TABLE.values(), ids=TABLE)
def test_fio_takes_it_and_its_answer_is_read(workload: Workload, image: Path, tmp_path: Path) -> None:
    files = jobs(workload, str(image), 1, 0, SIZE, str(tmp_path))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    # A memory file system takes no O_DIRECT, and the command line comes last.
    command = ["fio", "--output-format=json", str(tmp_path / JOB_FILE)]
    (tmp_path / JOB_FILE).write_text(files[JOB_FILE].replace("direct=1", "direct=0"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = measured(json.loads(done.stdout), workload)
    assert found.value(workload) > 0
    assert (found.read is None) == (workload.direction == "write")
    assert (found.write is None) == (workload.direction == "read")
    assert (found.sync is not None) == (workload.id == "commit-4k")
    latency = found.latency(workload)
    assert 0 < latency.p50 <= latency.p95 <= latency.p99 <= latency.p999
    assert image.stat().st_size == SIZE


def test_what_a_workload_is_judged_by() -> None:
    found = measured(answer(sync=0), TABLE["randread-4k-q1"])
    assert found.value(TABLE["randread-4k-q1"]) == 100
    assert found.value(TABLE["randread-4k-q32"]) == 1000.0
    assert found.value(TABLE["seqread-1m"]) == 4096000.0
    assert found.sync is None
    assert found.seconds == 2.0


def test_latency_of_flushes_is_that_of_a_workload_that_flushes() -> None:
    found = measured(answer(sync=3), TABLE["randread-4k-q1"])
    assert found.latency(TABLE["randread-4k-q1"]).p999 == 401


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "the answer of fio has not one job"),
        ([], "the answer of fio has not one job"),
        (answer(error=5), r"fio has failed with error 5 \(Input/output error\)"),
        ({"jobs": [{"error": 0}]}, "the answer of fio lacks 'read'"),
    ],
)
def test_answer_that_is_none(document: object, message: str) -> None:
    with pytest.raises(ParseError, match=f"randread-4k-q1: {message}"):
        measured(document, TABLE["randread-4k-q1"])


def test_nothing_done() -> None:
    with pytest.raises(ParseError, match="seqwrite-1m: fio has done no I/O in the time it had; give it more seconds"):
        measured(answer(), TABLE["seqwrite-1m"])


def test_only_direct_io_in_the_guest() -> None:
    for workload in TABLE.values():
        text = jobs(workload, "/dev/sda", 30, 5, SIZE, "/run")[JOB_FILE]
        assert "direct=1\n" in text
        assert ("ramp_time=5\n" in text) != workload.trace


def test_trace_is_the_same_each_time_and_stays_on_the_disk() -> None:
    text = trace("/dev/sda", SMALLEST)
    assert text == trace("/dev/sda", SMALLEST)
    rows = [line.split() for line in text.splitlines()[3:-1]]
    assert all(int(offset) % 4096 == 0 and int(offset) + int(length) <= SMALLEST for *_, offset, length in rows)
    read = sum(int(length) for _device, action, _offset, length in rows if action == "read")
    assert TRACE_BYTES <= read < TRACE_BYTES + 4 * 1024**2
    with pytest.raises(ParseError, match="size: 63 MiB is too small; the workload boot needs 64 MiB"):
        trace("/dev/sda", SMALLEST - 1024**2)


def test_workloads_by_id() -> None:
    assert [row.id for row in parse_workloads(["boot", "commit-4k", "boot"])] == ["commit-4k", "boot"]
    with pytest.raises(ParseError, match="there is no workload 'fast'; there are randread-4k-q1, "):
        parse_workloads(["fast"])
    with pytest.raises(ParseError, match="workloads: none is named"):
        parse_workloads([])
