# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU is told about a drive, held against what PVE tells it, and against QEMU itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.drive_options import (
    blockdev,
    drive_options,
)

# From the expectations of qemu-server 9.2.6 (src/test/cfg2cmd/scsihw-virtio-scsi-single.conf.cmd,
# simple-virtio-blk.conf.cmd, simple1-template.conf.cmd) and 8.4.10 (simple-lvm.conf.cmd, simple-virtio-blk.conf.cmd,
# simple1-template.conf.cmd), without bootindex, and with detect_zeroes as it is where discard is not configured.
NEW_SCSI = [
    "-object", '{"id":"throttle-drive-scsi0","limits":{},"qom-type":"throttle-group"}',
    "-device", "pci-bridge,id=pci.3,chassis_nr=3,bus=pci.0,addr=0x5",
    "-device", "virtio-scsi-pci,id=virtioscsi0,bus=pci.3,addr=0x1",
    "-blockdev", '{"detect-zeroes":"on","discard":"ignore","driver":"throttle","file":{"cache":{"direct":true,'
    '"no-flush":false},"detect-zeroes":"on","discard":"ignore","driver":"raw","file":{"aio":"native","cache":{'
    '"direct":true,"no-flush":false},"detect-zeroes":"on","discard":"ignore","driver":"host_device","filename":'
    '"/dev/veegee/vm-8006-disk-0","node-name":"e0378a375d635b0f473569544c7c207","read-only":false},"node-name":'
    '"f0378a375d635b0f473569544c7c207","read-only":false},"node-name":"drive-scsi0","read-only":false,'
    '"throttle-group":"throttle-drive-scsi0"}',
    "-device", "scsi-hd,bus=virtioscsi0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,device_id=drive-scsi0,"
    "write-cache=on",
]  # fmt: skip
OLD_SCSI = [
    "-device", "pci-bridge,id=pci.3,chassis_nr=3,bus=pci.0,addr=0x5",
    "-device", "virtio-scsi-pci,id=virtioscsi0,bus=pci.3,addr=0x1",
    "-drive", "file=/dev/veegee/vm-8006-disk-0,if=none,id=drive-scsi0,cache=directsync,aio=native,format=raw,"
    "detect-zeroes=on",
    "-device", "scsi-hd,bus=virtioscsi0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0",
]  # fmt: skip
NEW, OLD = (10, 0), (9, 2)


def drive(bus: str = "scsi", cache: str = "none", aio: str = "native", *, iothread: bool = False) -> Combination:
    return Combination("fast", "raw", bus, cache, aio, iothread)


def test_as_pve_9_says_it() -> None:
    found = drive_options(
        drive(), "/dev/veegee/vm-8006-disk-0", volume="lvm-store:vm-8006-disk-0", block=True, qemu=NEW
    )
    assert list(found) == NEW_SCSI


def test_as_pve_8_says_it() -> None:
    found = drive_options(drive(cache="directsync"), "/dev/veegee/vm-8006-disk-0", block=True, qemu=OLD)
    assert list(found) == OLD_SCSI


@pytest.mark.parametrize(
    ("bus", "old", "new"),
    [
        ("virtio", "virtio-blk-pci,drive=drive-virtio0,id=virtio0,bus=pci.0,addr=0xa,iothread=iothread-virtio0",
         "virtio-blk-pci,drive=drive-virtio0,id=virtio0,bus=pci.0,addr=0xa,iothread=iothread-virtio0,write-cache=on"),
        ("sata", "ide-hd,bus=ahci0.0,drive=drive-sata0,id=sata0",
         "ide-hd,bus=ahci0.0,drive=drive-sata0,id=sata0,write-cache=on"),
        ("ide", "ide-hd,bus=ide.0,unit=0,drive=drive-ide0,id=ide0",
         "ide-hd,bus=ide.0,unit=0,drive=drive-ide0,id=ide0,write-cache=on"),
    ],
)  # fmt: skip
def test_devices(bus: str, old: str, new: str) -> None:
    wanted = drive(bus, iothread=bus == "virtio")
    assert drive_options(wanted, "/x", qemu=OLD)[-2:] == ("-device", old)
    assert drive_options(wanted, "/x", qemu=NEW)[-2:] == ("-device", new)


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_an_io_thread_is_made_before_the_device_that_names_it(bus: str) -> None:
    words = drive_options(drive(bus, iothread=True), "/x")
    name = "iothread-virtioscsi0" if bus == "scsi" else "iothread-virtio0"
    made = words.index(f"iothread,id={name}")
    (user,) = [
        place for place, word in enumerate(words) if word.endswith((f"iothread={name}", f"{name},write-cache=on"))
    ]
    assert made < user


@pytest.mark.parametrize(
    ("cache", "direct", "no_flush", "write_cache"),
    [
        ("none", True, False, "on"),
        ("directsync", True, False, "off"),
        ("writethrough", False, False, "off"),
        ("writeback", False, False, "on"),
        ("unsafe", False, True, "on"),
    ],
)
def test_cache_modes(cache: str, direct: bool, no_flush: bool, write_cache: str) -> None:
    wanted = drive(cache=cache, aio="threads")
    nodes = blockdev(wanted, "/x", "fast:x", block=False)
    expected = {"direct": direct, "no-flush": no_flush}
    assert [nodes["file"]["cache"], nodes["file"]["file"]["cache"]] == [expected, expected]
    assert drive_options(wanted, "/x")[-1].endswith(f",write-cache={write_cache}")


def test_a_comma_in_a_path_stays_in_the_path() -> None:
    assert "file=/a,,b,if=none" in drive_options(drive(), "/a,b", qemu=OLD)[5]


def some() -> list[Combination]:
    """Every bus, format and cache mode once or more."""
    aio = "io_uring" if has_io_uring() else "native"
    return [
        Combination("fast", "raw", "scsi", "none", "native", True),
        Combination("fast", "qcow2", "virtio", "directsync", aio, True),
        Combination("fast", "vmdk", "sata", "writethrough", "threads"),
        Combination("fast", "raw", "ide", "unsafe", "threads"),
        Combination("fast", "qcow2", "scsi", "writeback", "threads"),
    ]


def has_io_uring() -> bool:
    disabled = Path("/proc/sys/kernel/io_uring_disabled")
    return not disabled.exists() or disabled.read_text().strip() == "0"


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed")
@pytest.mark.parametrize("qemu", [NEW, OLD])
def test_qemu_takes_them_and_opens_the_image_so(qemu: tuple[int, int], tmp_path: Path) -> None:
    for wanted in some():
        path = tmp_path / f"{wanted.bus}.{wanted.format}"
        subprocess.run(["qemu-img", "create", "-q", "-f", wanted.format, str(path), "1M"], check=True)
        image, file = nodes_of(drive_options(wanted, str(path), qemu=qemu), wanted.format)
        cache = {"direct": wanted.cache in ("none", "directsync"), "no-flush": wanted.cache == "unsafe"}
        assert [{name: node["cache"][name] for name in cache} for node in (image, file)] == [cache, cache]
        assert (file["file"], image["detect_zeroes"]) == (str(path), "on")


def nodes_of(words: tuple[str, ...], image_format: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The nodes of image and file that QEMU has for a drive; it runs no guest."""
    command = [
        "qemu-system-x86_64",
        "-nodefaults",
        "-display",
        "none",
        "-S",
        "-machine",
        "pc,accel=tcg",
        "-qmp",
        "stdio",
    ]
    asked = '{"execute":"qmp_capabilities"}\n{"execute":"query-named-block-nodes"}\n{"execute":"quit"}\n'
    done = subprocess.run([*command, *words], input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (rows,) = [one["return"] for line in done.stdout.splitlines() if (one := json.loads(line)).get("return")]
    nodes = {row["drv"]: row for row in rows}
    return nodes[image_format], nodes["file"]
