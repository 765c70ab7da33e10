# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that stand in for QEMU, fio and a kernel, so that runs take milliseconds: see `machine`.

What is between them and the images is real. The stand-in for QEMU reads the job out of its initramfs as a guest would,
answers with frames, and, when it is to write, writes to the image that it was given.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

# Set in the environment, these change what the guest does.
LOG, SLOW, SILENT, FAILING, LOSING, VERSION, CACHE = (
    f"PRETEND_{name}" for name in ("LOG", "SLOW", "SILENT", "FAILING", "LOSING", "VERSION", "CACHE")
)
MODULES = "virtio_pci virtio_scsi virtio_blk sd_mod ahci ata_piix fuse".split()
_QEMU = """#!{python}
import sys
sys.path.insert(0, {tests!r})
from unit._bench import pretend
pretend.qemu()
"""


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts the stand-ins into a folder and in front of PATH; the options that name the kernel."""
    programs = folder / "programs"
    programs.mkdir(parents=True)
    tests = str(Path(__file__).parents[2])
    _script(programs / "qemu-system-x86_64", _QEMU.format(python=sys.executable, tests=tests))
    _script(programs / "fio", "#!/bin/sh\necho fio-3.39\n")
    _script(programs / "qemu-storage-daemon", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(LOG, str(folder / "log"))
    return {"kernel": str(kernel(folder)), "kernel_modules": str(folder / "modules"), "max_load": 1e6}


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def kernel(folder: Path, version: str = "6.14.11-4-pve") -> Path:
    """A kernel as far as its header, which has all modules built in."""
    image = bytearray(0x8000)
    image[0x202:0x206] = b"HdrS"
    image[0x3000:0x3040] = f"{version} (build@x) #1\0".encode().ljust(0x40, b"\0")
    struct.pack_into("<H", image, 0x20E, 0x3000 - 0x200)
    (folder / "vmlinuz").write_bytes(image)
    (folder / "modules").mkdir(exist_ok=True)
    (folder / "modules" / "modules.dep").write_text("")
    (folder / "modules" / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in MODULES))
    return folder / "vmlinuz"


def starts(folder: Path) -> list[str]:
    """The images that guests were started with, in order."""
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


# ---- what runs as QEMU


def qemu() -> None:
    """The guest."""
    if "--version" in sys.argv:
        print(f"QEMU emulator version {os.environ.get(VERSION, '10.1.2 (pve-qemu-kvm_10.1.2-1)')}")  # noqa: T201
        return
    words = sys.argv[1:]
    job = Path(words[words.index("-initrd") + 1]).read_bytes().rpartition(b"job/run")[2]
    if b"echo ready" in job:  # only whether guests can be started is to be seen
        if SILENT not in os.environ:
            _send("ready", "ready\n")
        return
    image = _image(words)
    with open(os.environ[LOG], "a", encoding="utf-8") as log:
        log.write(f"{image}\n")
    if SILENT in os.environ:
        return
    if b"diskwright write" in job:
        _write(image)
        return
    _send("ready", f"6.14.11-4-pve\n{os.environ.get(CACHE, _write_cache(words))}\n")
    found = re.search(rb"for workload in ([a-z0-9 -]+); do", job)
    assert found
    for name in found[1].decode().split():
        _measure(name)


def _image(words: list[str]) -> str:
    for word, text in zip(words, words[1:], strict=False):
        if word == "-blockdev":
            filename: str = json.loads(text)["file"]["file"]["filename"]
            return filename
        if word == "-drive":
            return text.removeprefix("file=").partition(",")[0]
    raise AssertionError(f"no drive in {words}")


def _write_cache(words: list[str]) -> str:
    return "write through" if any("write-cache=off" in word for word in words) else "write back"


def frame(text: str, kind: str = "result") -> bytes:
    """A frame as the guest sends it, without the end of its line."""
    content = text.encode()
    digest = hashlib.sha256(content).hexdigest()
    return f"@diskwright {kind} {digest}  - {base64.b64encode(gzip.compress(content)).decode()} @".encode()


def _send(kind: str, text: str) -> None:
    line = frame(text, kind) + b"\n"
    sys.stdout.buffer.write(b"noise\r" + line + line)
    sys.stdout.buffer.flush()


def _measure(name: str) -> None:
    time.sleep(float(os.environ.get(SLOW, "0")))
    if os.environ.get(FAILING) == name:
        _send("result", f"{name} 1\nfio: looks like your file system does not support direct=1")
        return
    percentiles = {f"{part}000000": 1000 for part in ("50.", "95.", "99.")} | {"99.900000": 2000}
    flow = {
        "total_ios": 10,
        "iops": 5000.5,
        "bw_bytes": 20482048,
        "runtime": 1000,
        "clat_ns": {"percentile": percentiles},
    }
    sync = {"total_ios": 10, "lat_ns": {"percentile": percentiles}}
    job = {"error": 0, "read": flow, "write": flow, "sync": sync}
    _send("result", f"{name} 0\nfio: a warning\n" + json.dumps({"jobs": [job]}))


def _write(image: str) -> None:
    """Says that it writes; with LOSING it keeps a part of it to itself."""
    from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import durability

    with open(image, "r+b", buffering=0) as disk:
        for number in range(1, 900):
            if LOSING not in os.environ or number % 2:
                disk.seek(number * durability._STRIDE * durability._BLOCK)
                disk.write(durability.content(number))
            sys.stdout.buffer.write(f"@diskwright written {number} .\r\n".encode())
            sys.stdout.buffer.flush()
