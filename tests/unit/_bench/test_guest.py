# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How guests are started and ended, with a stand-in for QEMU; real ones are in e2e/test_benchmark_real.py."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import guest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.errors import GuestError
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.guest import Machine
from unit._bench import pretend

FLAGS = "processor\t: 0\nflags\t\t: fpu vme svm lm\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    pretend.machine(tmp_path / "pretend", monkeypatch)
    (tmp_path / "initramfs").write_bytes(b"")
    (tmp_path / "kvm").touch()
    (tmp_path / "cpuinfo").write_text(FLAGS)
    qemu = tmp_path / "pretend" / "programs" / "qemu-system-x86_64"
    return Machine(str(qemu), "kvm", "/vmlinuz", str(tmp_path / "initramfs"))


def accelerator(machine: Machine, tmp_path: Path) -> str:
    return guest.accelerator(machine, str(tmp_path / "kvm"), str(tmp_path / "cpuinfo"))


def test_kvm_works_where_a_guest_has_started_with_it(machine: Machine, tmp_path: Path) -> None:
    assert accelerator(machine, tmp_path) == "kvm"


def test_no_kvm_where_the_guest_does_not_start(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretend.SILENT, "1")
    assert accelerator(machine, tmp_path) == "tcg"


@pytest.mark.parametrize("lacking", ["kvm", "cpuinfo"])
def test_no_kvm_without_device_or_processor(
    lacking: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvm").unlink() if lacking == "kvm" else (tmp_path / "cpuinfo").write_text("flags\t: fpu lm\n")
    monkeypatch.setattr(guest, "started", None)  # it is not even tried
    assert accelerator(machine, tmp_path) == "tcg"


def test_a_guest_that_takes_too_long_is_killed_and_says_where_it_was(tmp_path: Path, machine: Machine) -> None:
    script = tmp_path / "qemu"
    script.write_text("#!/bin/sh\necho 'no disk' >&2\necho '@diskwright written 1 .'\nexec sleep 600\n")
    script.chmod(0o755)
    slow = Machine(str(script), "tcg", "/vmlinuz", machine.initramfs)
    with guest.started(slow, (), "") as one, pytest.raises(GuestError) as caught:
        for frame in one.frames(time.monotonic() + 1):
            assert frame.text == "1"
    assert str(caught.value) == "the guest did not finish in time; QEMU said: no disk; its kernel: nothing"
    assert not os.path.exists(f"/proc/{one.pid}")


def test_the_job_is_behind_what_all_jobs_have(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "initramfs").write_bytes(b"first archive")
    script = tmp_path / "qemu"
    script.write_text(f'#!/bin/sh\nwhile [ $1 != -initrd ]; do shift; done\ncat "$2" > {tmp_path}/seen\n')
    script.chmod(0o755)
    (tmp_path / "more").write_text("more")
    quick = Machine(str(script), "tcg", "/vmlinuz", machine.initramfs)
    with guest.started(quick, (), "the job", {"a/b": "text"}) as one:
        assert list(one.frames(time.monotonic() + 60)) == []
    seen = (tmp_path / "seen").read_bytes()
    assert seen.startswith(b"first archive070701")
    assert [word for word in (b"job/run\0", b"the job", b"job/a/b\0", b"text") if word not in seen] == []
