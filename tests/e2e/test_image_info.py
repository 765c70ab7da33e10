# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_info as Ansible runs it: its examples, what it returns, when it fails, and that it opens nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.modules import image_info
from e2e.documented import examples_of
from e2e.kit import Run, play, run_playbook
from images import BAD, GOOD, archive, vmdk
from images.content import MIB, disk

NAME = "diskwright.proxmox.image_info"
GOOD_BY_NAME = {good.name: good for good in GOOD}
BAD_BY_NAME = {bad.name: bad for bad in BAD}


def vmware(top: Path) -> Path:
    """What the examples find in /srv/vmware."""
    folder = top / "vmware"
    (folder / "web").mkdir(parents=True)
    parts = []
    for number in range(2):
        path = vmdk.exported(folder, disk(MIB, seed=number), f"db1-disk{number + 1}.vmdk")
        parts.append((archive.Disk(path.name, MIB, 3, number), path.read_bytes()))
        path.unlink()
    archive.ova(folder / "db1.ova", parts)
    made, _content = GOOD_BY_NAME["delta-sesparse-three"].make(folder / "web")
    made.rename(made.with_name("web-000001.vmdk"))
    (folder / "old").mkdir()
    BAD_BY_NAME["flat-truncated"].make(folder / "old")
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The examples, with --check and without."""
    folder = vmware(tmp_path_factory.mktemp("info"))
    tasks = yaml.safe_load(yaml.safe_dump(examples_of("image_info")).replace("/srv/vmware", str(folder)))
    checks = [{**task, "name": f"{task['name']} [check]", "check_mode": True} for task in tasks if NAME in task]
    return run_playbook(play([*checks, *tasks]), {}), folder


def test_examples(ran: tuple[Run, Path]) -> None:
    run, folder = ran
    assert run.code == 0, run.text
    for task in (task for task in run.tasks if task.task.endswith(" [check]")):
        real = run.task(task.task.removesuffix(" [check]"))
        assert not real.changed
        assert returned(real.result) == returned(task.result)
    said = run.task("Say what must not be used, and why").result["results"]
    assert [one["msg"].startswith(f"{folder}/old/disk.vmdk: disk-flat.vmdk: has ") for one in said] == [True]
    assert run.task("Show the guest that it describes").result["results"][0]["msg"] == (
        "db1: 2048 MiB, 2 disks, Debian GNU/Linux 12 (64-bit)"
    )


def returned(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("images", "machines")}


def test_what_is_returned_is_documented(ran: tuple[Run, Path]) -> None:
    """Every value, by name and type, and every documented value is returned."""
    documented = yaml.safe_load(image_info.RETURN)
    result = returned(ran[0].task("Stop here unless this export is sound to the last byte").result)
    check_documented(result, documented)
    folder = returned(ran[0].task("Everything that came from VMware").result)
    check_documented(folder, documented)
    assert [Path(one["path"]).name for one in folder["images"]] == [
        "db1.ova",
        "db1.ova",
        "disk.vmdk",
        "web-000001.vmdk",
    ]
    assert folder["images"][3]["chain"][0]["files"] == ["web-000001.vmdk", "disk-000003-delta.vmdk"]
    assert folder["images"][2]["refused"]["code"] == "extent-truncated"


TYPES = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}


def check_documented(value: dict[str, Any], documented: dict[str, Any]) -> None:
    assert set(value) == set(documented)
    for key, one in value.items():
        words = documented[key]
        if one is None:
            assert "V(null)" in str(words["description"]), key
            continue
        assert isinstance(one, TYPES[words["type"]]), key
        if "contains" in words:
            for part in one if isinstance(one, list) else [one]:
                check_documented(part, words["contains"])


def test_checksums(ran: tuple[Run, Path]) -> None:
    export = ran[0].task("Stop here unless this export is sound to the last byte").result
    assert [one["checksum"] for one in export["images"]] == [
        hashlib.sha256(disk(MIB, seed=number)).hexdigest() for number in range(2)
    ]
    assert all(one["checksum"] is None for one in ran[0].task("Everything that came from VMware").result["images"])


def test_fail_on_refusal(tmp_path: Path) -> None:
    folder = vmware(tmp_path)
    BAD_BY_NAME["ova-manifest-disk"].make(folder / "old")
    task = {"name": "look", NAME: {"path": str(folder), "fail_on_refusal": True}}
    run = run_playbook(play([task]), {})
    result = run.task("look").result
    assert run.task("look").status == "failed"
    assert len(result["images"]) == 5
    first, *rest = result["msg"].splitlines()
    assert first == "2 of 5 images must not be used"
    assert [line.partition(": ")[0] for line in rest] == [f"{folder}/old/db1.ova", f"{folder}/old/disk.vmdk"]


def test_nothing_there(tmp_path: Path) -> None:
    run = run_playbook(play([{"name": "look", NAME: {"path": str(tmp_path / "nothing")}}]), {})
    assert run.task("look").result["msg"] == f"{tmp_path}/nothing: can't be looked at: No such file or directory"


HOSTILE = (
    "reaching-absolute",
    "reaching-above",
    "reaching-nbd",
    "link",
    "fifo",
    "delta-above",
    "delta-network",
    "delta-parent-hostile",
    "decoy-descriptor",
    "empty-shell",
    "hint-in-comment",
    "qcow2-backing",
    "qcow2-data-file",
    "raw-qcow2",
    "ova-link",
    "ova-doctype",
    "ovf-above",
)


@pytest.mark.skipif(not os.path.exists("/usr/bin/strace"), reason="the kernel's view needs strace")
def test_the_kernel_sees_no_other_file(tmp_path: Path) -> None:
    """The whole program under strace: between the first and the last image, no file outside of the folder is opened, no
    connection is made and no program is started."""
    for name in HOSTILE:
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        BAD_BY_NAME[name].make(folder)
    (tmp_path / "images" / "secret").write_bytes(b"secret")
    program = (
        "import os, sys\nfrom ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import look\n"
        "look(sys.argv[2])\n"  # so that all is imported
        "os.path.exists('/begin')\n"
        "print(sorted({one.refused.code for one in look(sys.argv[1]) if one.refused}))\n"
        "os.path.exists('/end')\n"
    )
    warm = tmp_path / "warm"
    warm.mkdir()
    BAD_BY_NAME["ova-doctype"].make(warm)
    trace = tmp_path / "trace"
    calls = "trace=open,openat,openat2,stat,newfstatat,statx,connect,socket,execve,execveat,clone,fork,vfork"
    command = ["strace", "-f", "-y", "-s", "4096", "-o", trace, "-e", calls, sys.executable, "-c", program]
    done = subprocess.run(
        [*command, tmp_path / "images", warm], check=True, capture_output=True, text=True, timeout=120
    )
    assert "name-not-plain" in done.stdout
    lines = trace.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if '"/begin"' in line)
    end = next(number for number, line in enumerate(lines) if '"/end"' in line)
    inside = lines[begin + 1 : end]
    opened = [line for line in inside if re.search(r"\b(open|openat|openat2)\(", line)]
    assert len(opened) > len(HOSTILE)
    for line in opened:
        assert f"{tmp_path}/images" in line or '"/proc' in line or "</proc" in line, line
        assert "secret" not in line, line
    assert [line for line in inside if re.search(r"\b(connect|socket|execve|execveat|clone|fork|vfork)\(", line)] == []


def test_the_module_needs_no_other_package() -> None:
    """It runs on a node with nothing but Debian's Python: the standard library, Ansible, and ours."""
    program = (
        "import json, sys\nimport ansible_collections.diskwright.proxmox.plugins.modules.image_info\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    foreign = set(json.loads(done.stdout)) - {"ansible", "ansible_collections"}
    assert not foreign & {"proxmoxer", "requests", "jmespath", "yaml", "dissect"}


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """It can't be in a result as it is; the others are listed all the same."""
    made, _content = GOOD_BY_NAME["raw"].make(tmp_path)
    with open(os.path.join(os.fsencode(tmp_path), b"\xff\xfe.vmdk"), "wb") as file:
        file.write(b"whatever")
    run = run_playbook(play([{"name": "Look", NAME: {"path": str(tmp_path)}}]), {})
    assert run.code == 0, run.text
    images = {image["path"]: image["refused"] for image in run.task("Look").result["images"]}
    reason = r"\xff\xfe.vmdk: has a name that is not UTF-8; rename it"
    assert images == {
        str(made): None,
        rf"{tmp_path}/\xff\xfe.vmdk": {"code": "name-not-plain", "reason": reason},
    }
