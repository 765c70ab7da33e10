# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found in folders, and what happens to files while they are looked at."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.errors import ImageError, ImageRefusedError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.files import Folder, Opened
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import Found, inspect, look, survey
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.snapshots import last_snapshots
from images import GOOD, archive, vmdk
from images.content import MIB, SECTOR, disk
from images.vmdk import descriptor, write

SIZE = 2 * MIB
GOOD_BY_NAME = {good.name: good for good in GOOD}


def content() -> bytes:
    return disk(SIZE, seed=9, parts=3)


def good(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return GOOD_BY_NAME[name].make(folder)[0]


def told(found: list[Found], top: Path) -> list[tuple[str, str, str]]:
    """Path, member, and format or the code of the refusal."""
    return [
        (os.path.relpath(one.path, top), one.member, one.refused.code if one.refused else one.format) for one in found
    ]


# ---- folders


def test_each_image_once(tmp_path: Path) -> None:
    """Extents, parents and disks of an OVF belong to their image; what is no image is not spoken of."""
    good("delta-sesparse-three", tmp_path / "a-chain")
    good("split-sparse", tmp_path / "b-split")
    good("ovf", tmp_path / "c-ovf")
    good("ova", tmp_path)
    good("raw", tmp_path)
    good("qcow2", tmp_path)
    write(tmp_path / "a-chain", "disk-ctk.vmdk", b"tkcb" + bytes(1000))
    for name in ("a.vmx", "a.nvram", "a.vmsd", "vmware.log", "a.iso", "db1.cert", "README"):
        write(tmp_path, name, b"whatever")
    found = look(str(tmp_path))
    assert told(found, tmp_path) == [
        ("db1.ova", "db1-disk1.vmdk", "vmdk"),
        ("db1.ova", "db1-disk2.vmdk", "vmdk"),
        ("disk.img", "", "raw"),
        ("disk.qcow2", "", "qcow2"),
        ("a-chain/disk-000003.vmdk", "", "vmdk"),
        ("b-split/disk.vmdk", "", "vmdk"),
        ("c-ovf/db1.ovf", "db 1.vmdk", "vmdk"),
    ]
    chain = found[4].chain
    assert [one.name for one in chain] == [f"disk-{number:06d}.vmdk" for number in (3, 2, 1)] + ["disk.vmdk"]
    assert found[4].files[-1] == "disk-flat.vmdk"
    assert look(str(tmp_path)) == found


def test_a_file(tmp_path: Path) -> None:
    path = good("split-sparse", tmp_path)
    (found,) = look(str(path))
    assert (found.path, found.subformat, found.refused) == (str(path), "twoGbMaxExtentSparse", None)
    assert survey(str(path)).machines == ()


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good("flat", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert told(look("disk.vmdk"), tmp_path) == [("disk.vmdk", "", "vmdk")]
    assert told(look("."), tmp_path) == [("disk.vmdk", "", "vmdk")]


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nothing: can't be looked at: No such file"):
        look(str(tmp_path / "nothing"))


def test_refused_among_good(tmp_path: Path) -> None:
    """One refusal does not hide the others, and a broken set is one refusal."""
    vmdk.flat(tmp_path, content(), "good.vmdk")
    vmdk.flat(tmp_path, content(), "short.vmdk")
    os.truncate(tmp_path / "short-flat.vmdk", SIZE - 1)
    write(tmp_path, "orphan-flat.vmdk", content())
    (tmp_path / "link.vmdk").symlink_to("good.vmdk")
    (tmp_path / "folder-link.vmdk").symlink_to(tmp_path.parent)
    write(tmp_path, "empty.ova", b"")
    write(tmp_path, "bad.ovf", b"<x/>")
    assert told(look(str(tmp_path)), tmp_path) == [
        ("bad.ovf", "", "ovf-bad"),
        ("empty.ova", "", "file-empty"),
        ("folder-link.vmdk", "", "file-not-regular"),
        ("good.vmdk", "", "vmdk"),
        ("link.vmdk", "", "file-not-regular"),
        ("orphan-flat.vmdk", "", "extent-alone"),
        ("short.vmdk", "", "extent-truncated"),
    ]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """They are refused, in words that a result can hold, and the others are still listed."""
    image = good("raw", tmp_path / "good")
    folder = os.fsencode(tmp_path)
    for name in (b"\xff\xfe.vmdk", b"\xff.ova", b"caf\xe9/inside.img", "gut-ä.img".encode()):
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        shutil.copy(os.fsencode(image), os.path.join(folder, name))
    found = look(str(tmp_path))
    assert told(found, tmp_path) == [
        ("gut-ä.img", "", "raw"),
        (r"\xff.ova", "", "name-not-plain"),
        (r"\xff\xfe.vmdk", "", "name-not-plain"),
        (r"caf\xe9", "", "name-not-plain"),
        (f"good/{image.name}", "", "raw"),
    ]
    reasons = [one.refused.reason for one in found if one.refused]
    assert reasons[1] == r"\xff\xfe.vmdk: has a name that is not UTF-8; rename it"
    assert reasons[2] == rf"{tmp_path}/caf\xe9: has a name that is not UTF-8; rename it"
    assert "\n".join([*reasons, *(one.path for one in found)]).encode()  # a result is UTF-8


def test_a_hostile_descriptor_hides_no_other_image(tmp_path: Path) -> None:
    """Whatever it claims as its extents: an image that is good by itself is still listed."""
    vmdk.sparse(tmp_path, content(), "good.vmdk")
    lines = ['RW 1 FLAT "good.vmdk" 0', f'RW 1 FLAT "../{tmp_path.name}/x" 0']
    write(tmp_path, "evil.vmdk", descriptor("twoGbMaxExtentFlat", lines))
    assert told(look(str(tmp_path)), tmp_path) == [("evil.vmdk", "", "name-not-plain"), ("good.vmdk", "", "vmdk")]


@pytest.mark.parametrize("embedded", [False, True])
def test_parent_of_a_refused_snapshot(tmp_path: Path, embedded: bool) -> None:
    """The disk as it was before the snapshot is not what anyone wants by accident."""
    path = good("delta-hosted" if embedded else "delta-cowd", tmp_path)
    assert told(look(str(tmp_path)), tmp_path) == [(path.name, "", "vmdk")]
    broken = path if embedded else tmp_path / "disk-000001-delta.vmdk"
    os.truncate(broken, broken.stat().st_size - 1)
    found = look(str(tmp_path))
    assert told(found, tmp_path) == [
        (path.name, "", "grain-outside" if embedded else "file-truncated"),
        ("disk.vmdk", "", "parent-of-refused"),
    ]
    assert found[1].refused is not None
    assert "as it was before the snapshot" in found[1].refused.reason


def test_locks_of_vmware(tmp_path: Path) -> None:
    """A lock's folder counts if there is a lock in it."""
    path = vmdk.flat(tmp_path, content())
    (tmp_path / "disk.vmdk.lck").mkdir()
    inspect(str(path)).close()
    write(tmp_path / "disk.vmdk.lck", "M1.lck", b"x")
    assert told(look(str(tmp_path)), tmp_path) == [("disk.vmdk", "", "file-locked")]


def test_member_may_be_left_out_if_there_is_one(tmp_path: Path) -> None:
    path = good("ovf", tmp_path)
    with inspect(str(path)) as one, inspect(str(path), "db 1.vmdk") as other:
        assert one.fingerprint == other.fingerprint
    path = good("ova", tmp_path / "two")
    with pytest.raises(ImageRefusedError, match=r"has 2 disks; name one as member: db1-disk1\.vmdk, db1-disk2\.vmdk"):
        inspect(str(path))


def test_manifest_beside_an_ovf(tmp_path: Path) -> None:
    path = good("ovf", tmp_path)
    with inspect(str(path)) as source:
        digest = hashlib.sha256((tmp_path / "db 1.vmdk").read_bytes()).hexdigest()
        assert [file.digest for file in source.files] == [f"sha256:{digest}"]
    data = bytearray((tmp_path / "db 1.vmdk").read_bytes())
    data[100 * SECTOR] ^= 1  # where nothing is stored
    (tmp_path / "db 1.vmdk").write_bytes(data)
    assert told(look(str(tmp_path)), tmp_path) == [("db1.ovf", "db 1.vmdk", "manifest-mismatch")]


# ---- files that change


def test_open_for_writing(tmp_path: Path) -> None:
    path = vmdk.flat(tmp_path, content())
    with (tmp_path / "disk-flat.vmdk").open("r+b"), pytest.raises(ImageRefusedError, match="disk-flat") as caught:
        inspect(str(path))
    assert caught.value.code == "file-in-use"
    inspect(str(path)).close()


def test_open_for_writing_in_another_process(tmp_path: Path) -> None:
    path = write(tmp_path, "disk.raw", content())
    with path.open("r+b") as file:
        holder = subprocess.Popen(["sleep", "60"], stdin=file)
    try:
        with pytest.raises(ImageRefusedError, match=rf"is open for writing \(process {holder.pid}\)"):
            inspect(str(path))
    finally:
        holder.kill()
        holder.wait()
    inspect(str(path)).close()


LOOKS = """
import sys
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import look
(found,) = look(sys.argv[1])
print(found.refused.code if found.refused else found.format)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and give up a right")
def test_without_leases(tmp_path: Path) -> None:
    """Where the kernel grants no lease (here: no right to one; elsewhere: NFS), the processes are looked through."""
    path = write(tmp_path, "disk.raw", content())
    os.chown(path, 12345, 12345)
    command = ["setpriv", "--bounding-set=-lease", sys.executable, "-c", LOOKS, path]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "raw\n"
    with path.open("r+b"):
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "file-in-use\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root may not read such a folder anyway")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """It is reported: images in it would be missed without a word."""
    (tmp_path / "closed").mkdir(mode=0)
    rights = "--bounding-set=-dac_override,-dac_read_search"
    command = ["setpriv", rights, sys.executable, "-c", LOOKS, tmp_path]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "unreadable\n"


def test_growing_while_it_is_looked_at(tmp_path: Path) -> None:
    """A copy that is just being made, by a program that opens the file anew for each piece."""
    path = write(tmp_path, "disk.raw", content())
    with Folder(str(tmp_path)) as folder:
        opened = Opened(folder)
        opened.open("disk.raw")
        opened.check_settled()
        with path.open("ab") as file:
            file.write(bytes(SECTOR))
        with pytest.raises(ImageRefusedError, match=f"grew from {SIZE} to {SIZE + SECTOR} bytes") as caught:
            opened.check_settled()
        assert caught.value.code == "file-growing"
        opened.close()


def test_unchanged(tmp_path: Path) -> None:
    """What was checked is what is read, whatever is at its path by then; and the source notices."""
    path = vmdk.flat(tmp_path, content())
    extent = tmp_path / "disk-flat.vmdk"
    with inspect(str(path)) as source:
        assert source.unchanged()
        extent.rename(tmp_path / "moved")
        assert not source.unchanged()
        write(tmp_path, extent.name, b"other" * 1000)
        assert not source.unchanged()
        (run,) = source.runs()
        assert os.pread(source.fds[run.file], run.length, run.offset) == content()
        (tmp_path / "moved").rename(extent)
        assert source.unchanged()
        os.utime(extent, ns=(0, 0))
        assert not source.unchanged()


def test_shorter_while_it_is_read(tmp_path: Path) -> None:
    path = vmdk.sparse(tmp_path, content())
    with inspect(str(path)) as source:
        os.truncate(path, 512)
        with pytest.raises(ImageRefusedError, match="became shorter") as caught:
            list(source.runs())
        assert caught.value.code == "file-changed"


# ---- fingerprints


def test_fingerprint(tmp_path: Path) -> None:
    """It tells an image from another, and does not depend on the way that leads to it."""
    path = vmdk.flat(tmp_path, content())
    seen = [fingerprint(path)]
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    assert fingerprint(link / "disk.vmdk") == seen[0]
    path.write_text(path.read_text() + 'ddb.comment = "x"\n')
    seen.append(fingerprint(path))
    extent = tmp_path / "disk-flat.vmdk"
    status = extent.stat()
    data = bytearray(content())
    data[5] ^= 1
    extent.write_bytes(data)
    os.utime(extent, ns=(status.st_atime_ns, status.st_mtime_ns))  # only the first MiB tells
    seen.append(fingerprint(path))
    os.utime(extent)
    seen.append(fingerprint(path))
    extent.rename(tmp_path / "x.vmdk")
    path.write_text(path.read_text().replace("disk-flat", "x"))
    seen.append(fingerprint(path))
    assert len(set(seen)) == len(seen)


def fingerprint(path: Path) -> str:
    with inspect(str(path)) as source:
        return source.fingerprint


def test_members_of_an_archive_have_their_own(tmp_path: Path) -> None:
    path = vmdk.exported(tmp_path, content(), "a.vmdk")
    data = path.read_bytes()
    ova = archive.ova(
        tmp_path / "db1.ova",
        [(archive.Disk("a.vmdk", SIZE), data), (archive.Disk("b.vmdk", SIZE, 4), data)],
    )
    found = look(str(ova), checksum=True)
    assert len({one.fingerprint for one in found}) == 2
    assert [one.checksum for one in found] == [hashlib.sha256(content()).hexdigest()] * 2


def test_closed_files(tmp_path: Path) -> None:
    path = good("ova", tmp_path)
    before = os.listdir("/proc/self/fd")
    with inspect(str(path), "db1-disk1.vmdk") as source:
        assert len(source.fds) == 1
        assert not os.get_inheritable(source.fds[0])
    source.close()
    look(str(tmp_path))
    assert os.listdir("/proc/self/fd") == before


# ---- snapshots


def test_a_snapshots_parent_named_alone_says_what_goes_on_from_it(tmp_path: Path) -> None:
    """Any member of a chain but the last is an old state of the disk; a folder's image and other chains are not."""
    head = good("delta-sesparse-three", tmp_path)
    vmdk.sparse(tmp_path, content(), "alone.vmdk")
    write(tmp_path, "strange.vmdk", descriptor("monolithicFlat", [], hint="else.vmdk"))
    chain = [member.name for member in look(str(head))[0].chain]
    assert chain[0] == head.name
    assert {name: look(str(tmp_path / name))[0].snapshots for name in (*chain, "alone.vmdk")} == {
        head.name: (), **dict.fromkeys(chain[1:], (head.name,)), "alone.vmdk": (),
    }  # fmt: skip
    assert {one.snapshots for one in look(str(tmp_path))} == {()}


def test_each_branch_is_a_last_snapshot(tmp_path: Path) -> None:
    head = good("delta-sesparse-three", tmp_path)
    base = look(str(head))[0].chain[-1].name
    text = head.read_text()
    (tmp_path / "branch.vmdk").write_text(text)
    assert last_snapshots(str(tmp_path / base)) == ("branch.vmdk", head.name)
