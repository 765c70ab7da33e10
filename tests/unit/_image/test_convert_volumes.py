# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversions into volumes of PVE: a lab's storages behind a node's pvesm, block storages with real devices."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image import guests, pvesm, verify
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.orders import Verify
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.plans import Action
from lab import Lab, node
from lab.node import loop
from lab.storages import Storages
from unit._image.converting import MIB, SIZE, content, convert, look, read_back, source

#: Storages of the lab, and the format of a volume on each.
FILES = [("local", "raw"), ("local", "qcow2"), ("btrfs", "raw"), ("nas", "qcow2")]
BLOCKS = [("local-lvm", "raw"), ("thick", "raw"), ("thickchain", "qcow2"), ("tank", "raw"), ("ceph", "raw")]


@pytest.fixture
def storages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storages:
    """The storages of a node, which `pvesm` works on, too."""
    lab = Lab(tmp_path / "lab", {"files": {}})
    monkeypatch.setenv("PATH", node.environment(lab.state, tmp_path / "bin")["PATH"])
    monkeypatch.setattr(guests, "naming", functools.partial(guests.naming, root=str(tmp_path / "pve")))
    return lab.cluster.storages("pve1")


@pytest.fixture
def devices(storages: Storages, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storages]:
    """The same, with a loop device for each volume of a block storage, and none of them empty when it is new."""
    if loop.usable():
        pytest.skip(loop.usable())
    monkeypatch.setenv("LAB_DEVICES", "1")
    monkeypatch.setenv("LAB_DIRTY", "1")
    yield storages
    loop.detach_below(storages.root)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return source(tmp_path / "source")


def config(tmp_path: Path, vmid: int, text: str) -> Path:
    """A guest's configuration file."""
    path = tmp_path / "pve" / "nodes" / "pve1" / "qemu-server" / f"{vmid}.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def volumes(storages: Storages, sid: str) -> list[str]:
    return [info.volid for info in storages.list(sid)]


def assert_holds(storages: Storages, volid: str, image_format: str, folder: Path) -> None:
    """The volume has the content, and behind it zeros."""
    found = read_back(storages.file(volid), image_format, folder)
    assert found[:SIZE] == content()
    assert found[SIZE:].strip(b"\0") == b""


@pytest.mark.parametrize(("sid", "image_format"), [*FILES, *BLOCKS])
def test_every_storage(sid: str, image_format: str, storages: Storages, state: Path, web: Path, tmp_path: Path) -> None:
    words = {"storage": sid, "vmid": 120, "format": image_format}
    planned = look(state, web, **words)
    assert (planned.error, planned.action) == ("", Action.CONVERT)
    assert volumes(storages, sid) == []
    done = convert(state, web, **words)
    assert (done.error, done.changed, done.verified) == ("", True, True)
    assert done.target.rpartition("/")[2].rpartition(":")[2].startswith(f"vm-120-web-{done.fingerprint[:8]}")
    assert planned.target.rpartition(":")[2] == done.target.rpartition("/")[2].rpartition(":")[2]
    assert volumes(storages, sid) == [done.target]
    assert_holds(storages, done.target, image_format, tmp_path)
    again = convert(state, web, **words)
    assert (again.error, again.changed, again.action, again.target) == ("", False, Action.NOTHING, done.target)


@pytest.mark.parametrize(("sid", "image_format"), BLOCKS)
@pytest.mark.parametrize("way", [Verify.YES, Verify.NO])
def test_devices_that_are_not_empty(
    way: Verify, sid: str, image_format: str, devices: Storages, state: Path, tmp_path: Path
) -> None:
    """Thick LVM gives what its blocks held before; where a storage is known to zero them and has not, it is found."""
    if way is Verify.NO and sid not in ("thick", "thickchain"):
        pytest.skip("such a storage hands out zeros, and nobody looks whether it has")
    path = source(tmp_path / "source", "streamOptimized")
    done = convert(state, path, storage=sid, vmid=120, format=image_format, verify=way, size=20 * MIB)
    assert done.error == ""
    assert done.verified is (way is Verify.YES)
    written_twice = sid not in ("thick", "thickchain")
    assert any("written once more, with every zero" in note for note in done.notes) is written_twice
    assert_holds(devices, done.target, image_format, tmp_path)


@pytest.mark.parametrize(("kind", "way"), [("qcow2", Verify.STRICT), ("monolithicFlat", Verify.STRICT)])
def test_device_compared_by_qemu(kind: str, way: Verify, devices: Storages, state: Path, tmp_path: Path) -> None:
    done = convert(state, source(tmp_path / "source", kind), storage="thick", vmid=120, verify=way)
    assert (done.error, done.verified) == ("", True)
    assert_holds(devices, done.target, "raw", tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"storage": "nosuch"}, "storage nosuch: this node has no such storage; it has btrfs, ceph, "),
        ({"storage": "disabled"}, "storage disabled is not active on this node"),
        ({"storage": "tank", "format": "qcow2"}, "storage tank (zfspool) can't hold qcow2; it holds raw"),
        ({"storage": "thick", "format": "qcow2"}, "snapshot-as-volume-chain option need to be enabled"),
    ],
)
def test_refusals(words: dict[str, Any], says: str, storages: Storages, state: Path, web: Path) -> None:
    found = convert(state, web, vmid=120, **words)
    assert says in found.error
    for sid in ("local", "tank", "thick"):
        assert volumes(storages, sid) == []


@pytest.mark.parametrize(("vmid", "limit"), [(99, "minimum value of 100"), (10**9, "maximum value of 999999999")])
def test_numbers_that_pve_takes_for_no_guest(vmid: int, limit: str, storages: Storages) -> None:
    with pytest.raises(pvesm.PveError, match=f"vmid: value must have a {limit}"):
        pvesm.allocate("local", vmid, f"vm-{vmid}-web.raw", MIB, "raw")
    assert volumes(storages, "local") == []


def test_thick_storage_needs_the_whole_size(state: Path, web: Path, tmp_path: Path, monkeypatch: Any) -> None:
    thick = {"type": "lvm", "vgname": "vg", "content": "images", "total": 50 * MIB}
    lab = Lab(tmp_path / "lab", {"files": {}, "storages": {"thick": thick}})
    monkeypatch.setenv("PATH", node.environment(lab.state, tmp_path / "bin")["PATH"])
    found = look(state, web, storage="thick", vmid=120, size=40 * MIB)
    assert "thick:vm-120-web-" in found.error
    assert "40 MiB are needed, 64 MiB beside it are to stay free, and 50 MiB are free; make room" in found.error


def test_without_pve(state: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = convert(state, web, storage="local", vmid=120)
    assert "there is no pvesm here; a storage can only be used on a PVE node, elsewhere use dest" in found.error


def test_volume_of_unknown_origin(storages: Storages, state: Path, web: Path) -> None:
    """The journal is lost: what is there may be anybody's."""
    done = convert(state, web, storage="local-lvm", vmid=120)
    for path in (state / "convert").iterdir():
        path.unlink()
    found = convert(state, web, storage="local-lvm", vmid=120)
    assert f"{done.target} is there already, and nothing in {state}/convert says that it was made from" in found.error
    assert volumes(storages, "local-lvm") == [done.target]


def test_missing_volume_is_not_made_a_second_time(storages: Storages, state: Path, web: Path) -> None:
    words = {"storage": "local-lvm", "vmid": 120}
    done = convert(state, web, **words)
    storages.free(done.target, lambda text: None)
    found = convert(state, web, **words)
    assert f"was converted to {done.target} on" in found.error
    journal = found.error.rpartition("to have it converted again, remove ")[2]
    Path(journal).unlink()
    assert convert(state, web, **words).error == ""


def test_changed_source(storages: Storages, state: Path, web: Path) -> None:
    words = {"storage": "local", "vmid": 120, "format": "qcow2"}
    done = convert(state, web, **words)
    source(web.parent, disk=content(seed=8))
    found = convert(state, web, **words)
    assert f"{web} has changed since it was converted to {done.target}" in found.error
    assert volumes(storages, "local") == [done.target]
    storages.free(done.target, lambda text: None)
    again = convert(state, web, **words)
    assert again.error == ""
    assert volumes(storages, "local") == [again.target] != [done.target]


def unfinished(state: Path) -> None:
    """As if the run had been killed after 4 MiB."""
    (journal,) = (state / "convert").glob("*.json")
    record = {**json.loads(journal.read_text()), "state": "begun", "done": 4 * MIB, "content_id": "", "stamp": []}
    journal.write_text(json.dumps(record))


@pytest.mark.parametrize(("sid", "image_format"), [("local", "qcow2"), ("thick", "raw"), ("thickchain", "qcow2")])
def test_resumed(sid: str, image_format: str, devices: Storages, state: Path, web: Path, tmp_path: Path) -> None:
    words = {"storage": sid, "vmid": 120, "format": image_format}
    done = convert(state, web, **words)
    unfinished(state)
    again = convert(state, web, **words)
    assert (again.error, again.resumed, again.target) == ("", True, done.target)
    assert volumes(devices, sid) == [done.target]
    assert_holds(devices, done.target, image_format, tmp_path)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_volume_that_is_taken_away_under_way(
    how: str, storages: Storages, state: Path, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verify.Comparison.run

    def meddle(self: verify.Comparison) -> None:
        real(self)
        (volid,) = volumes(storages, "local")
        size = storages.file(volid).stat().st_size
        storages.file(volid).unlink()
        if how == "replaced":
            storages.file(volid).write_bytes(bytes(size))

    monkeypatch.setattr(verify.Comparison, "run", meddle)
    found = convert(state, web, storage="local", vmid=120)
    assert "was removed or replaced by something else while it was written" in found.error
    assert not found.verified
    monkeypatch.undo()


def test_unfinished_volume_of_a_source_that_changed(storages: Storages, state: Path, web: Path, tmp_path: Path) -> None:
    words = {"storage": "local-lvm", "vmid": 120}
    convert(state, web, **words)
    unfinished(state)
    source(web.parent, disk=content(seed=8))
    again = convert(state, web, **words)
    assert (again.error, again.resumed) == ("", False)
    assert "is begun anew" in again.notes[0]
    assert volumes(storages, "local-lvm") == [again.target]


@pytest.mark.parametrize("changed", [False, True])
def test_unfinished_volume_that_a_guest_names(
    changed: bool, storages: Storages, state: Path, web: Path, tmp_path: Path
) -> None:
    words = {"storage": "local-lvm", "vmid": 120}
    done = convert(state, web, **words)
    unfinished(state)
    if changed:
        source(web.parent, disk=content(seed=8))
    before = storages.file(done.target).read_bytes()
    named = config(tmp_path, 777, f"scsi0: {done.target},size=1G\n")
    found = convert(state, web, **words)
    assert f"{done.target} is not finished, and guest 777 on pve1 names it already; it is not touched" in found.error
    assert storages.file(done.target).read_bytes() == before
    named.unlink()
    assert convert(state, web, **words).error == ""


@pytest.mark.parametrize("changed", [False, True])
def test_unfinished_volume_that_something_has_open(changed: bool, storages: Storages, state: Path, web: Path) -> None:
    """A guest that runs, whatever its configuration says by now; QEMU's own locks are off on PVE."""
    words = {"storage": "local-lvm", "vmid": 120}
    done = convert(state, web, **words)
    unfinished(state)
    if changed:
        source(web.parent, disk=content(seed=8))
    with storages.file(done.target).open("r+b") as file:
        holder = subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])
    try:
        found = convert(state, web, **words)
    finally:
        holder.kill()
        holder.wait()
    assert f"is in use by process {holder.pid} (sleep)" in found.error
    assert "it is not touched" in found.error
    assert volumes(storages, "local-lvm") == [done.target]
    assert convert(state, web, **words).error == ""


def test_device_that_is_mounted(devices: Storages, state: Path, web: Path, tmp_path: Path) -> None:
    words = {"storage": "thick", "vmid": 120}
    done = convert(state, web, **words)
    unfinished(state)
    device = pvesm.path(done.target)
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    (tmp_path / "mounted").mkdir()
    subprocess.run(["mount", device, str(tmp_path / "mounted")], check=True)
    try:
        found = convert(state, web, **words)
    finally:
        subprocess.run(["umount", str(tmp_path / "mounted")], check=True)
    assert f"{device} is in use by mount {tmp_path}/mounted" in found.error


def test_finished_volume_of_a_running_guest(storages: Storages, state: Path, web: Path, tmp_path: Path) -> None:
    """Once it is finished, it is the guest's: nothing is read or written."""
    words = {"storage": "local-lvm", "vmid": 120}
    done = convert(state, web, **words)
    config(tmp_path, 120, f"scsi0: {done.target},size=1G\n")
    with storages.file(done.target).open("r+b") as file:
        file.write(b"the guest writes")
        again = convert(state, web, **words)
    assert (again.error, again.changed, again.action) == ("", False, Action.NOTHING)
    os.truncate(storages.file(done.target), 4 * MIB)
    assert "is damaged: it has 4194304 bytes" in convert(state, web, **words).error


def test_pvesm_is_asked_sparingly(storages: Storages, state: Path, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question takes a PVE node half a second."""
    asked: list[str] = []
    real = pvesm._run

    def counted(command: list[str], what: str) -> str:
        asked.append(command[1])
        return real(command, what)

    monkeypatch.setattr(pvesm, "_run", counted)
    convert(state, web, storage="local", vmid=120)
    assert sorted(asked) == ["alloc", "list", "path", "status"]
    asked.clear()
    convert(state, web, storage="local", vmid=120)
    assert sorted(asked) == ["list", "status"]


def test_same_names_for_two_sources(storages: Storages, state: Path, tmp_path: Path) -> None:
    done = [
        convert(state, source(tmp_path / folder, disk=content(seed=seed)), storage="local-lvm", vmid=120)
        for seed, folder in enumerate(("a", "b"))
    ]
    assert [one.error for one in done] == ["", ""]
    assert volumes(storages, "local-lvm") == sorted(one.target for one in done)


def test_storage_whose_volumes_are_no_files(state: Path, web: Path, tmp_path: Path, storages: Storages) -> None:
    """ZFS over iSCSI: QEMU alone can open it."""
    for name in ("pvesm", "perl"):
        tool = tmp_path / "bin" / name
        tool.rename(tool.with_suffix(".lab"))
        tool.write_text(
            f'#!/bin/sh\n[ "$1" = path ] || [ {name} = perl ] || exec {tool}.lab "$@"\necho iscsi://host/target/1\n'
        )
        tool.chmod(0o755)
    found = convert(state, web, storage="local", vmid=120)
    assert "is 'iscsi://host/target/1' here, which is no file or device of this node" in found.error
