# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs from their plan to their end, with stand-ins for QEMU and fio (`pretend`) and real images and volumes."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.disk_benchmark import DiskBenchmark, spec
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import prepare, scratch
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import run as execution
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import Results, load
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from lab import Lab, node
from lab.node import loop
from lab.storages import Storages
from unit._bench import pretend

SMALL = {
    "size": "64M",
    "formats": ["raw"],
    "buses": ["scsi+iothread"],
    "caches": ["none"],
    "aios": ["threads"],
    "workloads": ["commit-4k", "randread-4k-q32"],
    "repetitions": 3,
    "seconds": 1,
    "ramp": 0,
}
#: One combination, as A and as B, in three rounds.
TRIALS = 6


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def options(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options for a small run with the stand-ins."""
    monkeypatch.setattr(prepare, "accelerator", lambda machine: "tcg")  # the stand-ins would do with KVM as well
    monkeypatch.setattr(scratch, "PATTERN_BYTES", 4 * scratch.MIB)
    found = pretend.machine(tmp_path / "pretend", monkeypatch)
    return {**SMALL, **found, "places": [str(place)], "state_dir": str(tmp_path / "state")}


def work(options: dict[str, Any]) -> DiskBenchmark:
    defaults = {name: row.get("default") for name, row in spec().items()}
    assert options.keys() <= defaults.keys()
    return DiskBenchmark({**defaults, **options})


def run(options: dict[str, Any], *, check: bool = False) -> Result:
    benchmark = work(options)
    benchmark.prepare()
    if not check:
        benchmark.execute()
    return benchmark.result(executed=not check)


def refused(options: dict[str, Any]) -> str:
    with pytest.raises(DiskwrightError) as caught:
        run(options)
    return str(caught.value)


def document(result: Result) -> Results:
    return load(json.loads(Path(result.data["results_file"]).read_text()))


def folder(options: dict[str, Any]) -> Path:
    return Path(options["state_dir"], "benchmarks", "benchmark")


def starts(tmp_path: Path) -> int:
    return len(pretend.starts(tmp_path / "pretend"))


# ---- from plan to results


def test_check_mode_plans_and_writes_nothing(options: dict[str, Any], place: Path, tmp_path: Path) -> None:
    result = run({**options, "aios": ["threads", "native"]}, check=True)
    assert result.changed
    assert result.data["plan"]["trials"] == 9
    assert result.data["plan"]["left_out"] == []
    assert result.data["plan"]["summary"].startswith("2 combinations x 3 rounds x 2 workloads of 1 s: 9 starts")
    assert result.diff.splitlines()[1] == f"+ {place}/raw  scratch volume of 64 MiB, freed at the end"
    assert (list(place.iterdir()), (tmp_path / "state").exists(), starts(tmp_path)) == ([], False, 0)


def test_a_run_measures_all_and_frees_its_volumes(options: dict[str, Any], place: Path, tmp_path: Path) -> None:
    caches = {**options, "caches": ["none", "unsafe"]}
    planned, result = run(caches, check=True), run(caches)
    found = document(result)
    assert (result.changed, result.diff, result.data["plan"] | {"done": 0}) == (
        True, planned.diff, planned.data["plan"]
    )  # fmt: skip
    assert result.data["benchmark"] == found.as_json()
    assert (len(found.runs), {row.error for row in found.runs}) == (9 * 2, {""})
    assert [row.trial for row in found.runs] == [number for number in range(1, 10) for _twice in range(2)]
    assert {row.side for row in found.runs} == {"A", "B", ""}
    assert found.runs[0].measured is not None
    assert found.environment.places[0].name == str(place)
    assert found.environment.qemu == "10.1.2 (pve-qemu-kvm_10.1.2-1)"
    assert "-blockdev" in found.environment.drives
    assert (list(place.iterdir()), starts(tmp_path)) == ([], 9)
    assert sorted(path.name for path in folder(options).iterdir()) == [
        "results.json", "run.json", "scratch.json", "trials"
    ]  # fmt: skip


def test_what_makes_results_worth_less_is_said(options: dict[str, Any]) -> None:
    kvm = "There is no KVM: QEMU translates the guest's instructions, so that latencies mean little"
    memory = "The volumes are smaller than the node's memory: with the cache modes that use it (unsafe, writeback), "
    asked = {**options, "caches": ["none", "unsafe", "writeback"]}
    assert run(asked, check=True).warnings == [kvm]
    result = run(asked)
    assert result.warnings == [kvm, f"{memory}reads are measured from memory as soon as they have come once."]
    assert list(document(result).notes) == result.warnings[1:]
    assert run({**options, "name": "direct"}).warnings == [kvm]


def test_a_second_run_gives_the_results_and_starts_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    first = run(options)
    for check in (True, False):
        again = run({**options, "max_load": 0.000001}, check=check)
        assert (again.changed, again.diff, again.warnings) == (False, "", [])
        assert again.data["benchmark"] == first.data["benchmark"]
    assert starts(tmp_path) == TRIALS


def test_the_volume_is_full_before_it_is_measured(
    options: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretend.SILENT, "1")
    seen: list[bytes] = []
    original = os.unlink

    def look(path: Any, *rest: Any, **more: Any) -> None:
        if str(path).startswith(str(place)):
            seen.append(Path(path).read_bytes())
        original(path, *rest, **more)

    monkeypatch.setattr(os, "unlink", look)
    refused(options)
    (content,) = seen
    assert len(content) == 64 * 1024**2
    assert all(content[start : start + 65536].strip(b"\0") for start in range(0, len(content), 65536))


def test_formats_and_their_options(options: dict[str, Any], place: Path) -> None:
    formats = ["raw", "qcow2,cluster_size=2M", "vmdk,subformat=monolithicFlat"]
    found = document(run({**options, "formats": formats, "caches": ["none"]}))
    assert [one.format_text for one in found.combinations] == [formats[1], "raw", formats[2]]
    assert {row.error for row in found.runs} == {""}
    assert list(place.iterdir()) == []


def test_one_workload_that_fails_is_an_entry(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pretend.FAILING, "commit-4k")
    found = document(result := run(options))
    errors = {row.workload: row.error for row in found.runs}
    assert errors["randread-4k-q32"] == ""
    assert errors["commit-4k"].startswith("fio ended with status 1 and said: fio: looks like your file system")
    assert f"{TRIALS} of {2 * TRIALS} measurements have failed; their reasons are in the table." in result.warnings


def test_a_disk_that_is_another_one_than_was_asked_for_is_noted(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretend.CACHE, "write through")
    notes = document(run(options)).notes
    note = (
        f"{options['places'][0]}/raw/scsi+iothread/none/threads: the guest sees 'write through' and not 'write back'."
    )
    assert notes.count(note) == 1


def test_guests_that_measure_nothing_end_the_run(
    options: dict[str, Any], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretend.SILENT, "1")
    assert "3 starts of the guest in a row measured nothing" in refused(options)
    assert (list(place.iterdir()), starts(tmp_path)) == ([], 3)
    monkeypatch.delenv(pretend.SILENT)
    assert {row.error for row in document(run(options)).runs} == {""}
    assert starts(tmp_path) == 3 + TRIALS


def test_the_time_limit_holds_when_guests_are_slower_than_planned(
    options: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = run(options, check=True).data["plan"]["seconds"]
    monkeypatch.setattr(time, "monotonic", Ticking(planned / TRIALS * 1.5, monkeypatch))
    found = document(run({**options, "time_limit": planned}))
    assert 0 < len(found.runs) < 2 * TRIALS
    assert found.finished == ""
    assert found.left_out[0].what == f"starts of the guest {len(found.runs) // 2 + 1} to {TRIALS}"
    assert found.left_out[0].reason == f"time_limit, {planned} seconds, was over."
    assert list(place.iterdir()) == []


class Ticking:
    """A clock that jumps ahead by so many seconds at each start of a guest."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self._really, self._ahead = time.monotonic, 0.0
        original = execution.started

        def started(*words: Any, **more: Any) -> Any:
            self._ahead += seconds
            return original(*words, **more)

        monkeypatch.setattr(execution, "started", started)

    def __call__(self) -> float:
        return self._really() + self._ahead


# ---- refusals, before anything is written


def test_all_refusals_come_together(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    changed = {"kernel": "/nowhere/vmlinuz", "fio": "/nowhere/fio", "places": ["/nowhere", "/proc/version"],
               "max_load": 0.3, "repetitions": 2, "size": "1M"}  # fmt: skip
    lines = refused({**options, **changed}).splitlines()
    beginnings = (
        "repetitions: 2 is too few",
        "size: 1 MiB is too small",
        "/nowhere/fio: there is no such program here; install Debian's package fio",
        "kernel /nowhere/vmlinuz: No such file or directory; name a kernel with kernel",
        "place /nowhere: it is no folder; make it first, or name a storage",
        "place /proc/version: it is no folder",
        "this machine is busy: its load in the last minute was 8.00 for each processor, allowed is 0.30",
    )
    assert [line for line, start in zip(lines, beginnings, strict=True) if not line.startswith(start)] == []
    assert not (tmp_path / "state").exists()


def test_options_that_cant_be_read_come_together(options: dict[str, Any], tmp_path: Path) -> None:
    changed = {"name": "../x", "places": [], "workloads": ["sleep"], "size": "big", "vmid": 1, "max_load": 0}
    message = refused({**options, **changed})
    beginnings = (
        "name '../x': allowed are",
        "places: none is named",
        "vmid 1: allowed is",
        "max_load 0: allowed is",
        "there is no workload 'sleep'; there are randread",
        "size 'big'",
    )
    lines = zip(message.splitlines(), beginnings, strict=True)
    assert [line for line, start in lines if not line.startswith(start)] == []
    assert not (tmp_path / "state").exists()


def test_no_space(options: dict[str, Any], place: Path, tmp_path: Path) -> None:
    message = refused({**options, "size": "900T", "formats": ["raw", "qcow2"]})
    assert re.match(rf"{place}: [0-9.]+ [TP]iB are needed for scratch volumes and [0-9.]+ [MGT]iB are free;", message)
    assert message.endswith("; name fewer formats, a smaller size, or another place")
    assert (list(place.iterdir()), (tmp_path / "state").exists()) == ([], False)


def test_a_place_twice(options: dict[str, Any], place: Path) -> None:
    message = refused({**options, "places": [str(place), f"{place}/../place"]})
    assert message == f"places: {place} is named twice; name it once"


def test_a_kernel_without_a_module(options: dict[str, Any], place: Path) -> None:
    Path(options["kernel_modules"], "modules.builtin").write_text("kernel/virtio_pci.ko\n")
    assert refused({**options, "buses": ["scsi", "sata"], "durability": True}).splitlines()[0] == (
        "kernel 6.14.11-4-pve has no module virtio_scsi, sd_mod, ahci; "
        "name another kernel with kernel, or leave out the buses that need it"
    )
    assert list(place.iterdir()) == []


def test_crashes_need_a_module_more(options: dict[str, Any]) -> None:
    modules = Path(options["kernel_modules"], "modules.builtin")
    modules.write_text(modules.read_text().replace("kernel/fuse.ko\n", ""))
    assert refused({**options, "durability": True}).startswith("durability: kernel 6.14.11-4-pve has no module fuse;")


def test_another_request_by_the_same_name(options: dict[str, Any]) -> None:
    run(options)
    message = refused({**options, "seconds": 2})
    assert message.startswith("name benchmark: a benchmark of that name, begun at 20")
    assert message.endswith("measures something else; take another name, or remove that one with state=absent")


def test_another_run_at_work(options: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "LOCK_SECONDS", 0.1)
    lock = folder(options).parent / "lock"
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refused(options).startswith("a benchmark on this machine is being worked on by another run")
    assert list(place.iterdir()) == []


# ---- interruptions


@pytest.fixture
def child(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Starts the run in a process of its own, which comes to its third start of a guest and stays there."""
    monkeypatch.setenv(pretend.SLOW, "0.15")
    started = []

    def start() -> subprocess.Popen[str]:
        code = "import sys, json; from unit._bench import test_run; test_run.run(json.loads(sys.argv[1]))"
        process = subprocess.Popen([sys.executable, "-c", code, json.dumps(options)], stderr=subprocess.PIPE, text=True)
        started.append(process)
        before = starts(tmp_path)
        while starts(tmp_path) < before + 3 and process.poll() is None:
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_killed_and_run_again(
    options: dict[str, Any], place: Path, child: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = child()
    (guest,) = guests_of(process.pid)
    process.kill()
    process.communicate()
    wait_for_end(guest)
    (left,) = place.iterdir()
    monkeypatch.delenv(pretend.SLOW)
    planned = run({**options, "max_load": 0.000001}, check=True)  # the load may be the run's own
    assert planned.data["plan"]["done"] == 2
    with monkeypatch.context() as context:
        context.setenv(pretend.VERSION, "11.0.1")
        message = refused(options)
    assert "can't go on: QEMU was 10.1.2 (pve-qemu-kvm_10.1.2-1) and is 11.0.1." in message
    assert message.endswith("Take another name, or remove it with state=absent")
    assert list(place.iterdir()) == [left]
    found = document(run(options))
    assert ([row.trial for row in found.runs][::2], {row.error for row in found.runs}) == ([1, 2, 3, 4, 5, 6], {""})
    assert starts(tmp_path) == 3 + TRIALS - 2
    assert list(place.iterdir()) == []


def guests_of(parent: int) -> list[int]:
    """The stand-ins for QEMU that a process has started."""
    found = []
    for pid in Path("/proc").iterdir():
        if pid.name.isdigit() and status_of(pid)[1:2] == [str(parent)]:
            found += [int(pid.name)] if b"-initrd" in (pid / "cmdline").read_bytes() else []
    return found


def wait_for_end(pid: int) -> None:
    """The kernel ends a guest whose parent has died; nobody else does."""
    for _tries in range(2000):
        if status_of(Path(f"/proc/{pid}"))[:1] in ([], ["Z"]):
            return
        time.sleep(0.01)
    raise AssertionError("the guest still runs")


def status_of(pid: Path) -> list[str]:
    """State and parent of a process, and more; nothing if there is none."""
    try:
        return (pid / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end(number: int, place: Path, child: Callable[[], Any], options: dict[str, Any]) -> None:
    process = child()
    process.send_signal(number)
    message = process.communicate()[1].strip().splitlines()[-1]
    assert "its volumes are freed. Run it again, and it goes on" in message
    assert list(place.iterdir()) == []
    assert run(options, check=True).data["plan"]["done"] >= 2


@pytest.mark.parametrize("name", ["run.json", "trials/1.json", "scratch.json", "results.json"])
def test_a_damaged_journal_is_named(name: str, options: dict[str, Any], place: Path) -> None:
    run(options)
    if name != "results.json":
        (folder(options) / "results.json").unlink()
    (folder(options) / name).write_text('{"version": 1')
    assert refused(options).startswith(str(folder(options) / name))
    assert list(place.iterdir()) == []


# ---- crashes


@pytest.mark.parametrize("losing", [False, True])
def test_crashes_are_counted(
    losing: bool, options: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if losing:
        monkeypatch.setenv(pretend.LOSING, "1")
    asked = {**options, "durability": True, "workloads": ["commit-4k"]}
    planned = run({**asked, "buses": ["scsi+iothread", "ide"]}, check=True).data["plan"]["crashes"]
    assert planned == [f"{kind}: {place}/raw/scsi+iothread/none/threads" for kind in ("qemu", "host")]
    rows = document(run(asked)).durability
    assert [row.crash for row in rows] == ["qemu", "host"]
    for row, enough in zip(rows, (200, 40), strict=True):
        assert row.acknowledged >= enough
        assert row.lost == (row.acknowledged // 2 if losing else 0)
    assert list(place.iterdir()) == []


# ---- storages of a node


@pytest.fixture
def storages(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Storages:
    """A lab's storages behind a node's pvesm."""
    lab = Lab(tmp_path / "lab", {"files": {}})
    monkeypatch.setenv("PATH", node.environment(lab.state, tmp_path / "bin")["PATH"])
    return lab.cluster.storages("pve1")


@pytest.fixture
def devices(storages: Storages, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storages]:
    """The same, with a loop device for each volume of a block storage."""
    if loop.usable():
        pytest.skip(loop.usable())
    monkeypatch.setenv("LAB_DEVICES", "1")
    yield storages
    loop.detach_below(storages.root)


def test_storages_of_files_and_of_devices(options: dict[str, Any], devices: Storages) -> None:
    places = ["local", "local-lvm"]
    formats = ["raw", "qcow2,cluster_size=2M"]
    asked = {**options, "places": places, "formats": formats, "workloads": ["commit-4k"]}
    nodes = set(Path("/dev").glob("loop*"))
    result = run(asked)
    found = document(result)
    assert nodes <= set(Path("/dev").glob("loop*"))  # a volume is freed by PVE alone, its device is nobody's to remove
    assert [one.layout for one in found.combinations] == [
        "local-lvm/raw", "local/qcow2,cluster_size=2M", "local/raw"
    ]  # fmt: skip
    assert [row.what for row in found.left_out] == ["local-lvm/qcow2,cluster_size=2M/scsi+iothread/none/threads"]
    assert {row.error for row in found.runs} == {""}
    assert [one.type for one in found.environment.places] == ["dir", "lvmthin"]
    assert [info.volid for sid in places for info in devices.list(sid)] == []


def test_absent_frees_the_volumes_of_a_run_that_was_killed(
    options: dict[str, Any], place: Path, storages: Storages
) -> None:
    sids = ["local-lvm", "local"]
    code = (
        "import sys, json, os; from unit._bench import test_run; from ansible_collections.diskwright.proxmox.plugins"
        ".module_utils._bench import run; run.Execution._trial = lambda *_: os.kill(os.getpid(), 9)\n"
        "test_run.run(json.loads(sys.argv[1]))"
    )
    asked = json.dumps({**options, "places": [*sids, str(place)]})
    done = subprocess.run([sys.executable, "-c", code, asked], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr

    def left() -> list[int]:
        return [*(len(list(storages.list(sid))) for sid in sids), len(list(place.iterdir()))]

    gone = {"state": "absent", "state_dir": options["state_dir"]}
    assert left() == [1, 1, 1]
    assert (run(gone, check=True).changed, left()) == (True, [1, 1, 1])
    removed = run(gone)
    assert (removed.changed, removed.diff) == (True, "- benchmark benchmark, its results and scratch volumes\n")
    assert (left(), folder(options).exists()) == ([0, 0, 0], False)
    assert not run(gone).changed


def test_volumes_that_are_there_already(options: dict[str, Any], storages: Storages) -> None:
    subprocess.run(["pvesm", "alloc", "local-lvm", "999999999", "vm-999999999-disk-0", "4096"], check=True)
    message = refused({**options, "places": ["local-lvm"]})
    assert message == (
        "local-lvm: there are volumes of guest 999999999 already (local-lvm:vm-999999999-disk-0); name another vmid"
    )


def test_a_number_that_a_guest_has(
    options: dict[str, Any], storages: Storages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "taken", functools.partial(scratch.taken, root=options["state_dir"]))
    config = Path(options["state_dir"], "nodes", "pve2", "qemu-server", "120.conf")
    config.parent.mkdir(parents=True)
    config.touch()
    assert refused({**options, "places": ["local-lvm"], "vmid": 120}) == (
        "vmid 120: there is a guest with this number; name one that no guest has"
    )


def test_storages_that_hold_nothing(options: dict[str, Any], storages: Storages) -> None:
    message = refused({**options, "places": ["nowhere", "ceph"]})
    assert "nowhere" in message
    assert "ceph: QEMU would reach this storage by itself, through librbd, which is not measured; set krbd" in message
