# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guest that measures is made of, and what it is refused for."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import guest_image
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.archive import Archive
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.errors import BenchError
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.guest_image import Kernel

DEP = """kernel/drivers/virtio/virtio.ko.zst:
kernel/drivers/virtio/virtio_pci.ko.zst: kernel/drivers/virtio/virtio_ring.ko.zst kernel/drivers/virtio/virtio.ko.zst
kernel/drivers/virtio/virtio_ring.ko.zst:
kernel/drivers/block/virtio_blk.ko.zst: kernel/drivers/virtio/virtio_ring.ko.zst kernel/drivers/virtio/virtio.ko.zst
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel's file, as far as its header, and the lists in its folder of modules."""
    image = bytearray(0x8000)
    image[0x202:0x206] = b"HdrS"
    image[0x3000:0x3020] = b"6.14.11-4-pve (build@x) #1\0".ljust(0x20, b"\0")
    struct.pack_into("<H", image, 0x20E, 0x3000 - 0x200)
    (tmp_path / "vmlinuz").write_bytes(image)
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "modules.dep").write_text(DEP)
    (folder / "modules.builtin").write_text("kernel/drivers/scsi/sd_mod.ko\n")
    return guest_image.find_kernel(str(tmp_path / "vmlinuz"), str(folder))


def test_a_kernel_says_its_version(kernel: Kernel) -> None:
    assert kernel.version == "6.14.11-4-pve"


def test_modules_come_after_what_they_need_and_once(kernel: Kernel) -> None:
    found = [
        os.path.basename(path) for path in guest_image.module_files(kernel, ("virtio-pci", "virtio_blk", "sd_mod"))
    ]
    assert found == ["virtio.ko.zst", "virtio_ring.ko.zst", "virtio_pci.ko.zst", "virtio_blk.ko.zst"]


def test_all_missing_modules_are_named_together(kernel: Kernel) -> None:
    with pytest.raises(BenchError) as caught:
        guest_image.module_files(kernel, ("ahci", "virtio_pci", "ata_piix"))
    assert str(caught.value) == (
        "kernel 6.14.11-4-pve has no module ahci, ata_piix; "
        "name another kernel with kernel, or leave out the buses that need it"
    )


def test_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"nowhere: No such file .*; name a kernel with kernel"):
        guest_image.find_kernel(str(tmp_path / "nowhere"))


def test_no_bzimage(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BenchError, match="it is no bzImage"):
        guest_image.find_kernel(str(tmp_path / "text"))


def test_no_folder_of_modules(kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="has no modules.dep.*; name the folder with kernel_modules"):
        guest_image.find_kernel(kernel.image, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("/nowhere/fio", "install Debian's package fio"),
        ("qemu-system-mips9", "run this on a PVE node"),
        ("wooden", "Debian"),
    ],
)
def test_a_missing_program(name: str, remedy: str) -> None:
    with pytest.raises(BenchError, match=f"{name}: there is no such program here; .*{remedy}"):
        guest_image.find_program(name)


@pytest.mark.parametrize(("suffix", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress), ("", bytes)])
def test_modules_are_unpacked(suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / f"ahci.ko{suffix}"
    path.write_bytes(pack(b"a module"))
    assert guest_image.unpacked(str(path)) == ("ahci.ko", b"a module")


def test_a_module_that_nothing_here_unpacks_is_left_to_insmod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ahci.ko.zst").write_bytes(b"packed")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert guest_image.unpacked(str(tmp_path / "ahci.ko.zst")) == ("ahci.ko.zst", b"packed")


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_modules_of_zstd(tmp_path: Path) -> None:
    (tmp_path / "ahci.ko").write_bytes(b"a module")
    subprocess.run(["zstd", "-q", str(tmp_path / "ahci.ko")], check=True)
    assert guest_image.unpacked(str(tmp_path / "ahci.ko.zst")) == ("ahci.ko", b"a module")


def test_libraries_are_there_and_have_the_loader() -> None:
    found = guest_image.libraries(guest_image.find_program("cat"))
    assert all(os.path.isfile(path) for path in found)
    assert any("ld-linux" in path for path in found)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_what_is_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"12345")
    source.chmod(0o755)
    whole = io.BytesIO()
    for name in ("first", "second"):
        archive = Archive(whole)
        archive.console()
        archive.copy("/lib/a/file", str(source))
        archive.copy("/lib/a/file", str(source))
        archive.text(f"job/{name}", name)
        archive.close()
        listed = subprocess.run(["cpio", "-t", "--quiet"], input=whole.getvalue(), capture_output=True, check=True)
        if name == "first":
            assert listed.stdout.decode().split() == [
                "dev",
                "dev/console",
                "lib",
                "lib/a",
                "lib/a/file",
                "job",
                "job/first",
            ]
            subprocess.run(["cpio", "-i", "--quiet"], input=whole.getvalue(), cwd=tmp_path, check=True)
    assert (tmp_path / "lib" / "a" / "file").read_bytes() == b"12345"
    assert stat.S_IMODE((tmp_path / "lib" / "a" / "file").stat().st_mode) == 0o755
    assert (tmp_path / "job" / "first").read_text() == "first"
