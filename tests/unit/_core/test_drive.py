# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive strings: taken apart without loss, and what a volume's name tells."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive import (
    Drive,
    make_drive,
    new_volume,
    parse_drive,
    volume_base,
    volume_format,
    volume_owner,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from hypothesis import given, settings
from hypothesis import strategies as st

CLONE = "local:9000/base-9000-disk-0.qcow2/104/vm-104-disk-0.qcow2"


@pytest.mark.parametrize(
    "text",
    [
        "tank:vm-100-disk-0,size=32G,cache=none",
        "file=tank:vm-100-disk-0,cache=none,size=32G",
        "cache=none,size=32G,volume=tank:vm-100-disk-0",
        "cache=none,tank:vm-100-disk-0,size=32G,",
    ],
)
def test_spellings_of_one_drive(text: str) -> None:
    assert str(parse_drive(text)) == "tank:vm-100-disk-0,cache=none,size=32G"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' names no volume"),
        ("size=1G", "'size=1G' names no volume"),
        ("tank:1,volume=tank:2", "the volume is given twice in 'tank:1,volume=tank:2'"),
        ("tank:1,ssd=1,ssd=1", "'ssd' is given twice in 'tank:1,ssd=1,ssd=1'"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(ParseError) as raised:
        parse_drive(text)
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tank:vm-100-disk-0,size=1G", "disk"),
        ("/dev/disk/by-id/ata-X", "disk"),
        ("none,media=cdrom", "cdrom"),
        ("cdrom,media=cdrom", "cdrom"),
        ("local:iso/a.iso,media=cdrom", "cdrom"),
        ("local-lvm:vm-100-cloudinit,media=cdrom", "cloudinit"),
        ("local:100/vm-100-cloudinit.qcow2,media=cdrom", "cloudinit"),
        ("local:cloudinit", "cloudinit"),
        ("local:iso/my-cloudinit-tools.iso,media=cdrom", "cdrom"),
    ],
)
def test_kind(text: str, kind: str) -> None:
    drive = parse_drive(text)
    assert [drive.is_disk, drive.is_cdrom, drive.is_cloudinit] == [kind == k for k in ("disk", "cdrom", "cloudinit")]


@pytest.mark.parametrize(
    ("volume", "storage"),
    [("tank:vm-100-disk-0", "tank"), ("/dev/sdb", None), ("/mnt/a:b.raw", None), ("none", None), ("cdrom", None)],
)
def test_storage(volume: str, storage: str | None) -> None:
    assert Drive(volume).storage == storage


@pytest.mark.parametrize(
    ("volume", "format_"),
    [
        ("tank:vm-100-disk-0", "raw"),
        ("local:100/vm-100-disk-0.raw", "raw"),
        ("local:100/vm-100-disk-0.qcow2", "qcow2"),
        ("thickchain:vm-100-disk-0.qcow2", "qcow2"),
        ("local:100/vm-100-disk-0.vmdk", "vmdk"),
        (CLONE, "qcow2"),
    ],
)
def test_format(volume: str, format_: str) -> None:
    assert volume_format(volume) == Drive(volume).format == format_
    assert make_drive(volume, [("format", "raw")]).format == "raw"


@pytest.mark.parametrize(
    ("volume", "owner"),
    [
        ("tank:vm-100-disk-0", 100),
        ("tank:base-9000-disk-0", 9000),
        ("tank:base-9000-disk-0/vm-104-disk-0", 104),
        (CLONE, 104),
        ("local:100/data.raw", 100),
        ("local:100/vm-101-disk-0.raw", 100),
        ("local:iso/vm-100-x.iso", 100),
        ("lun:0.0.1.scsi-1", None),
        ("/dev/disk/100/x", None),
        ("none", None),
    ],
)
def test_owner(volume: str, owner: int | None) -> None:
    assert volume_owner(volume) == owner


@pytest.mark.parametrize(
    ("volume", "base"),
    [
        (CLONE, "local:9000/base-9000-disk-0.qcow2"),
        ("tank:base-9000-disk-0/vm-104-disk-0", "tank:base-9000-disk-0"),
        ("tank:vm-104-disk-0", None),
        ("local:9000/base-9000-disk-0.qcow2", None),
    ],
)
def test_base_of_a_linked_clone(volume: str, base: str | None) -> None:
    assert volume_base(volume) == base


def test_base_volume_of_a_template() -> None:
    assert Drive("tank:base-9000-disk-0").is_base
    assert not Drive(CLONE).is_base


def test_options_are_set_and_removed_and_the_rest_stays() -> None:
    drive = parse_drive("tank:vm-100-disk-0,cache=none,future=7,size=1G")
    changed = drive.with_options({"cache": None, "backup": "0", "absent": None})
    assert str(changed) == "tank:vm-100-disk-0,backup=0,future=7,size=1G"
    assert str(drive.with_size(3 * 1024**3)) == "tank:vm-100-disk-0,cache=none,future=7,size=3G"


@pytest.mark.parametrize(("format_", "name"), [(None, "(new)"), ("raw", "(new)"), ("qcow2", "(new).qcow2")])
def test_volume_that_pve_will_name(format_: str | None, name: str) -> None:
    drive = Drive(new_volume("local", format_))
    assert drive.volume == f"local:{name}"
    assert drive.is_new
    assert drive.format == (format_ or "raw")


words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_%./", min_size=1, max_size=8)
volumes = st.builds("{}:{}".format, words, words)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(volumes, st.dictionaries(words.filter(lambda key: key not in ("file", "volume")), words, max_size=6))
def test_written_drives_are_read_back(volume: str, options: dict[str, str]) -> None:
    drive = make_drive(volume, options.items())
    assert parse_drive(str(drive)) == drive
    assert parse_drive(f"file={volume}," + ",".join(f"{key}={value}" for key, value in options.items())) == drive
