# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results to test with: made of numbers that are known, so that what is found in them can be judged."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.fio import Flow, Latency, Measured
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.plan import Costs, Settings, make_plan
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import (
    Environment,
    Method,
    PlaceRecord,
    Results,
    Run,
    Text,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import Workload, parse_workloads

BASE = Combination("fast", "raw", "scsi", "none", "io_uring", True)
QCOW2 = Combination("fast", "qcow2", "scsi", "none", "io_uring", True)
VIRTIO = Combination("fast", "raw", "virtio", "none", "io_uring", True)
SATA = Combination("fast", "raw", "sata", "none", "io_uring")
WRITEBACK = Combination("fast", "raw", "scsi", "writeback", "io_uring", True)
UNSAFE = Combination("fast", "raw", "scsi", "unsafe", "io_uring", True)
THREADS = Combination("fast", "raw", "scsi", "none", "threads", True)
WORKLOADS = ("randread-4k-q1", "randwrite-4k-q32", "seqread-1m", "commit-4k")
# What the base does: nanoseconds, operations in a second, bytes in a second.
LEVELS = {"latency": 200_000.0, "iops": 50_000.0, "bandwidth": 2e9}


def latency(median: float) -> Latency:
    """Latencies with this median, and a tail."""
    return Latency(*(int(median * factor) for factor in (1, 2, 4, 10)))


def measured(workload: Workload, speed: float) -> Measured:
    """What a disk of this speed gives, 1 being that of the base."""
    flow = Flow(LEVELS["iops"] * speed, LEVELS["bandwidth"] * speed, latency(LEVELS["latency"] / speed))
    both = workload.direction == "both"
    half = Flow(flow.iops / 2, flow.bandwidth / 2, flow.latency) if both else flow
    return Measured(
        None if workload.direction == "write" else half,
        None if workload.direction == "read" else half,
        latency(LEVELS["latency"] / speed) if workload.id == "commit-4k" else None,
        20.0,
    )


def results(
    speeds: Mapping[Combination, float],
    spread: float = 0.01,
    rounds: int = 5,
    workloads: Sequence[str] = WORKLOADS,
    seed: int = 1,
    name: str = "2026-01-05-fast",
) -> Results:
    """A benchmark of combinations that are this fast, whose runs vary by `spread` around that.

    :param speeds: 1 for as fast as the base; the first is the one of the null comparison.
    """
    dice = random.Random(seed)
    settings = Settings(parse_workloads(workloads), rounds=rounds, size=1024**3)
    plan = make_plan(list(speeds), settings, Costs(5, 1, 1e8))
    rows = {row.id: row for row in settings.workloads}
    runs = [
        Run(
            trial.number,
            trial.round,
            trial.combination.key,
            trial.side,
            workload,
            f"2026-01-05T10:{trial.number % 60:02}:00Z",
            measured(rows[workload], speeds[trial.combination] * (1 + spread * dice.uniform(-1, 1))),
        )
        for trial in plan.trials
        for workload in trial.workloads
    ]
    return Results(
        name,
        "2026-01-05T10:00:00Z",
        "2026-01-05T11:00:00Z",
        environment(sorted({one.place for one in speeds})),
        Method(rounds, 20, 3, 1024**3, 1, "Every round in a random order of its own.",
               "The host's cache was emptied before each start.", plan.nulls, len(plan.trials), plan.seconds_left()),
        tuple(speeds),
        tuple(rows),
        tuple(runs),
    )  # fmt: skip


def environment(places: Sequence[str] = ("fast",)) -> Environment:
    """A node that there is not."""
    return Environment(
        "pve1", "kvm", "9.2.11", "10.1.2", "6.17.2-1-pve", "6.17.2-1-pve", "3.39", "EPYC 7302P", 32, 128 * 1024**3, 0.1,
        places=tuple(
            PlaceRecord(name, "dir", (Text("path", f"/mnt/{name}"),), "ext4", "MICRON_7450", "nvme", "write through",
                        "none", 10**12, 5 * 10**11)
            for name in places
        ),
    )  # fmt: skip
