# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What fio is told, and what is taken from its answer. Pure.

Sources: fio's manual page (job files, JSON output), and what fio 3.33 and 3.39 answer.
"""

from __future__ import annotations

import os
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass

from .._core.errors import ParseError
from .workloads import Workload, trace

#: The name of the job file among the files of a workload.
JOB_FILE: t.Final = "job.fio"
_TRACE_FILE: t.Final = "trace.log"
# fio's own percentiles, 50 to 99.9, in the order of :class:`Latency`.
_PERCENTILES: t.Final = ("50.000000", "95.000000", "99.000000", "99.900000")


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one operation took, in nanoseconds: median and percentiles."""

    p50: int
    p95: int
    p99: int
    p999: int


@dataclass(frozen=True, slots=True)
class Flow:
    """All reads, or all writes, of one workload.

    :param iops: operations in a second.
    :param bandwidth: bytes in a second.
    :param latency: from the submission of an operation to its completion.
    """

    iops: float
    bandwidth: float
    latency: Latency


@dataclass(frozen=True, slots=True)
class Measured:
    """What one workload gave. What it did not do is ``None``.

    :param sync: how long flushes took.
    :param seconds: how long it was measured.
    """

    read: Flow | None
    write: Flow | None
    sync: Latency | None
    seconds: float

    def value(self, workload: Workload) -> float:
        """What the workload is judged by, in :attr:`Workload.unit`."""
        flows = [flow for flow in self._flows(workload.direction) if flow is not None]
        if workload.measures == "latency":
            return float(flows[0].latency.p50)
        return sum(flow.iops if workload.measures == "iops" else flow.bandwidth for flow in flows)

    def latency(self, workload: Workload) -> Latency:
        """The latencies of what the workload is judged by; of flushes, if it flushes, and of reads, if it does both."""
        if self.sync is not None:
            return self.sync
        return next(flow.latency for flow in self._flows(workload.direction) if flow is not None)

    def _flows(self, direction: str) -> tuple[Flow | None, ...]:
        return {"read": (self.read,), "write": (self.write,), "both": (self.read, self.write)}[direction]


def jobs(workload: Workload, device: str, seconds: int, ramp: int, size: int, folder: str) -> dict[str, str]:
    """The files that fio needs for a workload, by name; the first, :data:`JOB_FILE`, is what it is started with.

    The guest's own cache is left out (``direct=1``), so that the disk is measured and not the guest's memory. What is
    written can't be compressed, and is another in each block, so that no storage below can save the work.

    :param device: the disk in the guest, ``/dev/sda``.
    :param seconds: how long it is measured. A replayed trace may end sooner.
    :param ramp: seconds before that, which do not count.
    :param size: the bytes of the disk that are used.
    :param folder: where the files are in the guest.
    """
    options = {
        "filename": device,
        "size": str(size),
        "direct": "1",
        "ioengine": "libaio",
        "runtime": str(seconds),
        "randrepeat": "0",
        "norandommap": "1",
        "refill_buffers": "1",
        "percentile_list": "50:95:99:99.9",
        "allow_file_create": "0",
        **dict(workload.options),
    }
    if not workload.trace:
        options |= {"time_based": "1", "ramp_time": str(ramp)}
        return {JOB_FILE: _text(workload.id, options)}
    options |= {"read_iolog": f"{folder}/{_TRACE_FILE}", "replay_no_stall": "1"}
    return {JOB_FILE: _text(workload.id, options), _TRACE_FILE: trace(device, size)}


def _text(name: str, options: Mapping[str, str]) -> str:
    return "\n".join([f"[{name}]", *(f"{option}={value}" for option, value in options.items()), ""])


def measured(document: object, workload: Workload) -> Measured:
    """What fio's JSON says of a workload.

    :raises ParseError: fio has failed, did nothing of what the workload is judged by, or this is not its answer.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("jobs"), list) or len(document["jobs"]) != 1:
        raise ParseError(f"{workload.id}: the answer of fio has not one job: {str(document)[:200]}")
    job = document["jobs"][0]
    if job.get("error"):
        raise ParseError(f"{workload.id}: fio has failed with error {job['error']} ({_words(job['error'])})")
    try:
        found = Measured(_flow(job["read"]), _flow(job["write"]), _sync(job.get("sync", {})), _seconds(job))
    except (KeyError, TypeError, ValueError) as error:
        raise ParseError(f"{workload.id}: the answer of fio lacks {error}") from error
    if (workload.direction != "write" and found.read is None) or (workload.direction == "write" and not found.write):
        raise ParseError(f"{workload.id}: fio has done no I/O in the time it had; give it more seconds")
    return found


def _words(error: object) -> str:
    return os.strerror(error) if isinstance(error, int) else str(error)


def _flow(data: Mapping[str, t.Any]) -> Flow | None:
    if not data["total_ios"]:
        return None
    return Flow(float(data["iops"]), float(data["bw_bytes"]), _latency(data["clat_ns"]["percentile"]))


def _sync(data: Mapping[str, t.Any]) -> Latency | None:
    times = data.get("lat_ns", {})
    return _latency(times["percentile"]) if data.get("total_ios") and "percentile" in times else None


def _latency(percentiles: Mapping[str, t.Any]) -> Latency:
    return Latency(*(int(percentiles[name]) for name in _PERCENTILES))


def _seconds(job: Mapping[str, t.Any]) -> float:
    return max(int(job[name]["runtime"]) for name in ("read", "write")) / 1000
