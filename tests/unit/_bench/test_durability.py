# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which crashes are tried, how, and that a lost write is seen. Real crashes are in e2e/test_benchmark_real.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.durability import (
    content,
    crashes,
    daemon,
    host_script,
    lost,
    writer,
)

BLOCK, STRIDE = 4096, 17


def drive(image: str = "raw", cache: str = "none", bus: str = "scsi", aio: str = "threads") -> Combination:
    return Combination("/fast", image, bus, cache, aio)


def test_one_crash_of_each_kind_for_each_format_and_cache_mode() -> None:
    combinations = [drive(image, cache, bus) for image in ("raw", "vmdk") for cache in ("none", "unsafe")
                    for bus in ("scsi", "sata")]  # fmt: skip
    found = [
        (one.kind, one.combination.format, one.combination.cache, one.combination.bus) for one in crashes(combinations)
    ]
    assert found == [
        ("qemu", "raw", "none", "scsi"),
        ("qemu", "raw", "unsafe", "scsi"),
        ("qemu", "vmdk", "none", "scsi"),
        ("qemu", "vmdk", "unsafe", "scsi"),
        ("host", "raw", "none", "scsi"),
        ("host", "raw", "unsafe", "scsi"),
    ]


def test_places_share_the_crashes_of_the_host_which_has_none_of_them() -> None:
    found = crashes([drive(), Combination("/slow", "raw", "scsi", "none", "threads")])
    assert [one.kind for one in found] == ["qemu", "qemu", "host"]


@pytest.mark.parametrize("image", ["raw", "qcow2", "vmdk"])
def test_what_is_not_there_is_lost(image: str, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    with open(raw, "wb") as file:
        file.truncate(64 * 1024**2)
        for number in range(1, 101):
            file.seek(number * STRIDE * BLOCK)
            file.write(content(number if number != 7 else 8) if number not in (50, 99) else b"")
    path = raw
    if image != "raw":
        path = tmp_path / f"disk.{image}"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image, str(raw), str(path)], check=True)
    assert lost(str(path), image, 100) == 3
    assert lost(str(path), image, 98) == 2
    assert lost(str(path), image, 6) == 0


@pytest.mark.parametrize(("cache", "through"), [("none", "off"), ("directsync", "on"), ("unsafe", "off")])
def test_the_playing_host_has_the_nodes_of_pve(cache: str, through: str) -> None:
    words = daemon(drive("qcow2", cache))
    nodes = json.loads(words[words.index("--blockdev") + 1])
    assert nodes["file"]["cache"] == {"direct": cache != "unsafe", "no-flush": cache == "unsafe"}
    assert (nodes["file"]["driver"], nodes["file"]["file"]["filename"]) == ("qcow2", "/dev/vda")
    assert words[words.index("--export") + 1].endswith(f"mountpoint=/tmp/disk,writable=on,writethrough={through}")


@pytest.mark.parametrize("text", [writer(drive(bus="virtio")), host_script(drive())])
def test_scripts_are_shell(text: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text(text)
    subprocess.run(["sh", "-n", str(tmp_path / "run")], check=True)
    assert not {"DEVICE", "TARGET", "FLAGS", "MOST", "STRIDE", "DAEMON"} & set(text.replace("/", " ").split())


def test_the_writer_writes_what_is_looked_for(tmp_path: Path) -> None:
    """Its own lines, run here on a file in place of the disk."""
    (tmp_path / "disk").write_bytes(b"")
    lines = writer(drive()).partition("number=0")[1:]
    text = "".join(lines).replace("/tmp/", f"{tmp_path}/").replace("/dev/sda", str(tmp_path / "disk"))
    text = text.replace("/dev/ttyS1", f"{tmp_path}/said").replace("> ", ">> ").replace("oflag=direct", "")
    text = text.replace(f">> {tmp_path}/block", f"> {tmp_path}/block").replace("-lt 962", "-lt 20")
    subprocess.run(["sh", "-ec", f"send() {{ :; }}\n{text}"], check=True)
    assert (tmp_path / "said").read_text().splitlines()[-1] == "@diskwright written 20 ."
    assert lost(str(tmp_path / "disk"), "raw", 20) == 0
