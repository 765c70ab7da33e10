# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""disk_benchmark with a real guest, QEMU and fio, and real crashes: minutes, even where there is no KVM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import benchguest
import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import durability, guest, host
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.drive_options import drive_options
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.guest_image import (
    BUS_MODULES,
    build,
    find_kernel,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.job import (
    files,
    outcome,
    script,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.matrix import Wanted
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.plan import Settings, Trial
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.prepare import Request, prepare
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import load
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.scratch import Scratch
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.statistics import analyse
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import TABLE
from unit._bench.test_run import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(benchguest.missing()), reason=f"needs a guest: {benchguest.missing()}"),
]
MIB = 1024**2


def real(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """Options of a small run with the real programs."""
    image, modules = benchguest.kernel()
    (tmp_path / "place").mkdir(exist_ok=True)
    small = {
        "formats": ["raw", "qcow2"],
        "buses": ["scsi+iothread"],
        "caches": ["none"],
        "aios": ["threads"],
        "workloads": ["randread-4k-q1", "commit-4k"],
        "repetitions": 3,
        "seconds": 2,
        "ramp": 1,
        "size": "64M",
    }
    machine = {"kernel": str(image), "kernel_modules": str(modules), "max_load": 1e6}
    return {**small, **machine, "places": [str(tmp_path / "place")], "state_dir": str(tmp_path / "state"), **more}


def test_a_reduced_matrix_is_killed_and_goes_on_to_its_end(tmp_path: Path) -> None:
    options = real(tmp_path)
    trials = tmp_path / "state" / "benchmarks" / "benchmark" / "trials"
    code = "import sys, json; from unit._bench import test_run; test_run.run(json.loads(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", code, json.dumps(options)]) as process:
        while not (trials / "2.json").exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    kept = {path.name: path.read_bytes() for path in trials.iterdir() if path.suffix == ".json"}
    result = run(options)
    found = load(result.data["benchmark"])
    assert {name: (trials / name).read_bytes() for name in kept} == kept
    assert ({row.error for row in found.runs}, len(found.runs)) == ({""}, 9 * 2)
    assert list((tmp_path / "place").iterdir()) == []
    for row in found.runs:
        assert row.measured is not None
        assert row.measured.value(TABLE[row.workload]) > 0
        assert (row.measured.sync is not None) == (row.workload == "commit-4k")
    # The first notes: no KVM where there is none, volumes smaller than the memory. None about a write cache.
    assert [note for note in found.notes if "the guest sees" in note] == []
    # The same combination against itself: more than the rounds differ anyway would be a mistake in the method.
    nulls = analyse(found).nulls.values()
    assert len(nulls) == 2
    assert [null for null in nulls if abs(null.difference) > 3 * null.expected + 0.05] == []


@pytest.fixture(scope="module")
def machine() -> guest.Machine:
    """The guest, with the modules of all buses."""
    image, modules = benchguest.kernel()
    found = find_kernel(str(image), str(modules))
    fd = os.memfd_create("guest", 0)
    with open(os.dup(fd), "wb") as file:
        build(file, found, [name for names in BUS_MODULES.values() for name in names], ["fio"])
    made = guest.Machine("qemu-system-x86_64", "kvm", found.image, f"/proc/self/fd/{fd}")
    return guest.Machine(made.qemu, guest.accelerator(made), made.kernel, made.initramfs)


@pytest.mark.parametrize(("bus", "qemu"), [("scsi", (10, 0)), ("virtio", (9, 2)), ("sata", (10, 0)), ("ide", (9, 2))])
def test_every_workload_on_every_bus(bus: str, qemu: tuple[int, int], machine: guest.Machine, tmp_path: Path) -> None:
    settings = Settings(tuple(TABLE.values()), 3, 1, 0, 64 * MIB)
    combination = Combination(str(tmp_path), "raw", bus, "writethrough", "threads", bus in ("scsi", "virtio"))
    trial = Trial(1, 1, combination, "", tuple(TABLE))
    (tmp_path / "disk").write_bytes(os.urandom(64 * MIB))
    drives = drive_options(combination, str(tmp_path / "disk"), qemu=qemu)
    frames = []
    with guest.started(machine, drives, script(trial), files(trial, settings)) as one:
        for frame in one.frames(time.monotonic() + 900):
            frames.append(frame)
            if len(frames) == 1 + len(TABLE):
                break
    assert frames[0].text.splitlines()[-1] == "write through"
    found = [outcome(frame.text) for frame in frames[1:]]
    assert [(one.workload, one.error) for one in found] == [(name, "") for name in TABLE]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plan with all cache modes that are to be tried."""
    place = tmp_path_factory.mktemp("place")
    image, modules = benchguest.kernel()
    wanted = Wanted(("raw", "qcow2"), ("scsi+iothread",), CACHES, ("threads",), "all")
    settings = Settings((TABLE["commit-4k"],), 3, 1, 0, 64 * MIB)
    return prepare(Request("crash", (str(place),), wanted, settings, True, kernel=str(image),
                           kernel_modules=str(modules), max_load=1e6), resumed=False)  # fmt: skip


CACHES = ("none", "writethrough", "directsync", "writeback", "unsafe")


@pytest.mark.parametrize("number", range(2 * 2 * len(CACHES)))
def test_crashes_lose_what_they_must_and_nothing_else(number: int, prepared: Any, tmp_path: Path) -> None:
    """What the host has in its memory is lost with the host: acknowledged writes only with `unsafe`."""
    crash = prepared.crashes[number]
    volumes = Scratch(str(tmp_path), 100, "crash")
    row = crash.go(prepared, volumes)
    volumes.free()
    assert row.acknowledged >= durability.ENOUGH[row.crash]
    if (row.crash, crash.combination.cache) == ("host", "unsafe"):
        assert row.lost > row.acknowledged / 2, row
    else:
        assert row.lost == 0, row


def test_kvm_is_believed_only_when_a_guest_has_run(machine: guest.Machine, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t: fpu\n")
    assert guest.accelerator(machine, processors=str(tmp_path / "cpuinfo")) == "tcg"
    assert guest.accelerator(machine, kvm="/dev/null/none") == "tcg"
    assert host.software()[1] == []
