# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ISO images that genisoimage has made, and damaged ones."""

from __future__ import annotations

import contextlib
import struct
import subprocess
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.iso9660 import IsoError, IsoImage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from winguest.media import GENISOIMAGE, write_iso

pytestmark = pytest.mark.skipif(GENISOIMAGE is None, reason="genisoimage is not installed")
# More entries than one sector has room for, a long name, empty and large files.
FILES = {
    **{f"many/folder-number-{number}/x.sys": bytes([number]) for number in range(80)},
    "vioscsi/2k12R2/amd64/vioscsi.sys": b"a driver" * 5000,
    "vioscsi/2k12R2/amd64/empty.cat": b"",
    f"data/{'long' * 25}.json": b"{}",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_iso(tmp_path_factory.mktemp("iso") / "drivers.iso", FILES, "virtio-win-0.1.215")


def test_every_file(image: Path) -> None:
    with IsoImage(str(image)) as iso:
        assert iso.label == "virtio-win-0.1.215"
        assert {name: iso.read(name) for name in FILES} == FILES
        assert iso.read("VIOSCSI/2K12r2/AMD64/VIOSCSI.SYS") == FILES["vioscsi/2k12R2/amd64/vioscsi.sys"]
        assert sorted(iso.names("many")) == sorted(f"folder-number-{number}" for number in range(80))
        assert iso.names("nowhere") == iso.names("vioscsi/2k12R2/amd64/empty.cat") == ()


@pytest.mark.parametrize("options", [["-R"], ["-r"], ["-iso-level", "4"], ["-J", "-r"]])
def test_other_ways_to_make_one(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "tree/vioscsi/2k22").mkdir(parents=True)
    (tmp_path / "tree/vioscsi/2k22/vioscsi.sys").write_bytes(b"a driver")
    command = ["genisoimage", "-quiet", *options, "-o", str(tmp_path / "a.iso"), str(tmp_path / "tree")]
    subprocess.run(command, check=True, capture_output=True)
    with IsoImage(str(tmp_path / "a.iso")) as iso:
        assert iso.read("vioscsi/2k22/vioscsi.sys") == b"a driver"


@pytest.mark.parametrize(
    ("path", "said"),
    [("vioscsi/w11/amd64/a.sys", "vioscsi/w11/amd64/a.sys is not there"), ("vioscsi", "vioscsi is a folder")],
)
def test_what_is_not_there(image: Path, path: str, said: str) -> None:
    with IsoImage(str(image)) as iso, pytest.raises(IsoError, match=said):
        iso.read(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(IsoError, match=r"nothing\.iso: can't be read: No such file"):
        IsoImage(str(tmp_path / "nothing.iso"))


@pytest.mark.parametrize("data", [b"", b"text", bytes(100_000)])
def test_no_iso(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.iso").write_bytes(data)
    with pytest.raises(IsoError, match="is no ISO 9660 image|is cut short or damaged"):
        IsoImage(str(tmp_path / "a.iso"))


def test_cut_short(image: Path, tmp_path: Path) -> None:
    (tmp_path / "short.iso").write_bytes(image.read_bytes()[:100_000])
    with IsoImage(str(tmp_path / "short.iso")) as iso, pytest.raises(IsoError, match="is cut short or damaged"):
        for name in FILES:
            iso.read(name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(place=st.integers(0, 60_000), value=st.binary(min_size=4, max_size=4))
def test_damage_is_refused_or_harmless(image: Path, tmp_path: Path, place: int, value: bytes) -> None:
    data = bytearray(image.read_bytes())
    struct.pack_into("4s", data, 32_768 + place, value)
    (tmp_path / "damaged.iso").write_bytes(data)
    with contextlib.suppress(IsoError), IsoImage(str(tmp_path / "damaged.iso")) as iso:
        for name in list(FILES)[-4:]:
            iso.read(name)
