# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PVE tells QEMU of drives is understood, and a difference is seen."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.host import Software
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.showcmd import check, compare, said

# From qemu-server 9.2.6, src/test/cfg2cmd/simple-virtio-blk.conf.cmd and scsihw-virtio-scsi-single.conf.cmd, and from
# 8.4.10, simple-virtio-blk.conf.cmd: what concerns drives.
NEW_VIRTIO = r"""/usr/bin/kvm -id 8006 -object 'iothread,id=iothread-virtio0'
-object '{"id":"throttle-drive-virtio0","limits":{},"qom-type":"throttle-group"}'
-device 'ide-cd,bus=ide.1,unit=0,id=ide2,bootindex=200'
-blockdev '{"detect-zeroes":"unmap","discard":"unmap","driver":"throttle","file":{"cache":{"direct":true,"no-flush":false},"detect-zeroes":"unmap","discard":"unmap","driver":"qcow2","file":{"aio":"io_uring","cache":{"direct":true,"no-flush":false},"detect-zeroes":"unmap","discard":"unmap","driver":"file","filename":"/var/lib/vz/images/8006/vm-8006-disk-0.qcow2","node-name":"edd19f6c1b3a6d5a6248c3376a91a16","read-only":false},"node-name":"fdd19f6c1b3a6d5a6248c3376a91a16","read-only":false},"node-name":"drive-virtio0","read-only":false,"throttle-group":"throttle-drive-virtio0"}'
-device 'virtio-blk-pci,drive=drive-virtio0,id=virtio0,bus=pci.0,addr=0xa,iothread=iothread-virtio0,bootindex=100,write-cache=on'
"""  # noqa: E501 - as it is
NEW_SCSI = r"""/usr/bin/kvm -id 8006 -device 'virtio-scsi-pci,id=virtioscsi0,bus=pci.3,addr=0x1'
-blockdev '{"detect-zeroes":"unmap","discard":"unmap","driver":"throttle","file":{"cache":{"direct":true,"no-flush":false},"detect-zeroes":"unmap","discard":"unmap","driver":"raw","file":{"aio":"native","cache":{"direct":true,"no-flush":false},"detect-zeroes":"unmap","discard":"unmap","driver":"host_device","filename":"/dev/veegee/vm-8006-disk-0","node-name":"e0378a375d635b0f473569544c7c207","read-only":false},"node-name":"f0378a375d635b0f473569544c7c207","read-only":false},"node-name":"drive-scsi0","read-only":false,"throttle-group":"throttle-drive-scsi0"}'
-device 'scsi-hd,bus=virtioscsi0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,device_id=drive-scsi0,bootindex=100,write-cache=on'
"""  # noqa: E501 - as it is
OLD_VIRTIO = """/usr/bin/kvm -id 8006 -object 'iothread,id=iothread-virtio0'
-drive 'file=/var/lib/vz/images/8006/vm-8006-disk-0.qcow2,if=none,id=drive-virtio0,discard=on,format=qcow2,cache=none,aio=io_uring,detect-zeroes=unmap'
-device 'virtio-blk-pci,drive=drive-virtio0,id=virtio0,bus=pci.0,addr=0xa,iothread=iothread-virtio0,bootindex=100'
"""  # noqa: E501 - as it is
VIRTIO = {"virtio0": "local:8006/vm-8006-disk-0.qcow2,discard=on,iothread=1,size=104858K", "scsihw": "virtio-scsi-pci"}
SCSI = {"scsi0": "lvm-store:vm-8006-disk-0,discard=on,size=104858K", "scsihw": "virtio-scsi-single"}
NEW, OLD = (10, 1), (9, 2)


@pytest.mark.parametrize(
    ("text", "config", "qemu", "slot"),
    [(NEW_VIRTIO, VIRTIO, NEW, "virtio0"), (NEW_SCSI, SCSI, NEW, "scsi0"), (OLD_VIRTIO, VIRTIO, OLD, "virtio0")],
)
def test_pve_says_what_is_said_here(text: str, config: dict[str, str], qemu: tuple[int, int], slot: str) -> None:
    assert list(compare(shlex.split(text), config, qemu)) == [(slot, [])]


@pytest.mark.parametrize(
    ("there", "instead", "problem"),
    [
        ('"no-flush":false', '"no-flush":true', "no_flush is on there and off in this benchmark"),
        ("write-cache=on", "write-cache=off", "write_cache is off there and on in this benchmark"),
        ("iothread=iothread-virtio0,", "", "iothread is not said there and iothread-virtio0 in this benchmark"),
    ],
)
def test_a_difference_is_named(there: str, instead: str, problem: str) -> None:
    ((slot, problems),) = compare(shlex.split(NEW_VIRTIO.replace(there, instead)), VIRTIO, NEW)
    assert (slot, problems) == ("virtio0", [problem])


@pytest.mark.parametrize(
    ("text", "config"),
    [
        (OLD_VIRTIO, VIRTIO),  # an older machine version than new guests have
        (NEW_SCSI, {**SCSI, "scsihw": "lsi"}),
        (NEW_VIRTIO, {"ide2": "none,media=cdrom"}),
        ("/usr/bin/kvm -id 1", SCSI),
    ],
)
def test_what_would_not_be_measured_is_not_compared(text: str, config: dict[str, str]) -> None:
    assert list(compare(shlex.split(text), config, NEW)) == []


def test_a_comma_in_a_name() -> None:
    words = [
        "-drive",
        "file=/a,,b,if=none,id=drive-ide0,format=raw,aio=threads",
        "-device",
        "ide-hd,drive=drive-ide0,id=ide0",
    ]
    found = said(words, "ide0")
    assert found is not None
    assert (found.aio, found.direct, found.write_cache) == ("threads", "off", "on")


@pytest.fixture
def qm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with one guest that runs and one that does not."""
    (tmp_path / "showcmd").write_text(NEW_SCSI.replace("\n", " "))
    script = tmp_path / "qm"
    script.write_text(
        "#!/bin/sh\ncase $1 in\n"
        "list) printf '      VMID NAME  STATUS     MEM(MB)    BOOTDISK(GB) PID\\n'\n"
        "      printf '       120 db1   running    512        32.00        4711\\n       121 db2 stopped 1 1 0\\n';;\n"
        f"showcmd) [ $2 = 120 ] && cat {tmp_path}/showcmd;;\n"
        f"config) printf 'scsi0: {SCSI['scsi0']}\\nscsihw: virtio-scsi-single\\n';;\nesac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


SOFTWARE = Software("/usr/bin/qemu-system-x86_64", NEW, "10.1.2", "/usr/bin/fio", "fio-3.39")


def test_guests_that_run_are_asked(qm: Path) -> None:
    assert check(SOFTWARE) == ("Compared with qm showcmd of 120 scsi0: the same.", ())


def test_differences_are_notes(qm: Path) -> None:
    (qm / "showcmd").write_text(NEW_SCSI.replace("write-cache=on", "write-cache=off"))
    sentence, notes = check(SOFTWARE)
    assert sentence == "Compared with qm showcmd of 120 scsi0: differences, see the notes."
    assert notes == ("Guest 120, scsi0: write_cache is off there and on in this benchmark",)


def test_no_pve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check(SOFTWARE)[0].endswith("there is no Proxmox VE here.")
