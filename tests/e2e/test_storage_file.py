# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""storage_file against the lab: bytes arrive, other files are recognised, and secrets in URLs stay secret."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.storage_file import StorageFile, file_spec
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import ISOS, TABLE
from e2e.kit import play, run_playbook, run_work, token_env
from lab import Lab

URL = "https://example.com/images/one.iso"
SECRET_URL = "https://joe:pass-word-9@example.com/files/two.iso?token=tok-en-7#frag-5"
SECRETS = ("pass-word-9", "tok-en-7", "frag-5")
ONE, TWO = b"one\n" * 1000, b"two\n" * 1000
DRIVERS = ISOS[TABLE["2025"].iso]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    seed = {
        "files": {"samples": ["local"], "local:iso/there.iso": {"text": "one\n", "times": 1000}},
        "web": {
            URL: {"text": "one\n", "times": 1000},
            SECRET_URL: {"text": "two\n", "times": 1000},
            DRIVERS.url: {"text": "drivers\n", "times": 500},
        },
        "guests": [],
        "users": {
            "root@pam": {"tokens": {"test": {"privsep": False}}},
            "up@pve": {"tokens": {"t": {"privsep": False}}},
        },
        "roles": {"Up": ["Datastore.AllocateTemplate", "Datastore.Audit"]},
        "acl": [{"path": "/storage", "role": "Up", "to": "up@pve"}],
    }
    with Lab(tmp_path / "lab", seed, time_scale=0.01) as one:
        yield one


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A file where the module runs."""
    file = tmp_path / "one.iso"
    file.write_bytes(ONE)
    return file


def run(lab: Lab, **params: Any) -> Result:
    given = {"node": "pve1", "storage": "local", **params}
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    return run_work(lab, StorageFile, file_spec(), **texts)


def twice(lab: Lab, **params: Any) -> Result:
    """A check that changes nothing, the real run, and one more that has nothing to do."""
    before = files(lab)
    check = run(lab, **params, check=True)
    assert files(lab) == before
    real = run(lab, **params)
    assert (real.failure, real.changed) == (None, True)
    assert (check.failure, check.changed, check.diff) == (None, True, real.diff)
    assert check.data["steps"] == real.data["steps"]
    after = files(lab)
    again = run(lab, **params)
    assert (again.failure, again.changed, again.diff, again.data["steps"]) == (None, False, "", [])
    assert files(lab) == after
    return real


def files(lab: Lab) -> dict[str, bytes]:
    """Every ISO on local."""
    folder = lab.file("local:iso/there.iso").parent
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def calls(lab: Lab) -> list[str]:
    return [f"{request.method} {request.path.rpartition('/')[2]}" for request in lab.writes("/storage/")]


# ---- it comes


def test_upload(lab: Lab, local: Path) -> None:
    real = twice(lab, src=local)
    assert files(lab)["one.iso"] == ONE
    assert real.diff == f"local:iso/one.iso on pve1\n  + uploaded from {local}\n"
    assert real.data == {
        "volid": "local:iso/one.iso",
        "node": "pve1",
        "storage": "local",
        "content": "iso",
        "name": "one.iso",
        "size": 4000,
        "verified": "checksum",
        "checksum": None,
        "steps": ["upload"],
    }
    fields = lab.writes("/upload$")[0].params
    assert (fields["checksum-algorithm"], fields["checksum"]) == ("sha256", sha256(ONE))


def test_upload_of_many_megabytes_under_another_name(lab: Lab, tmp_path: Path) -> None:
    big, content = tmp_path / "with space.iso", bytes(range(256)) * 4096 * 9
    big.write_bytes(content)
    assert run(lab, src=big).failure == (
        "local:iso/with space.iso on pve1: name=with space.iso: PVE would call the file otherwise; use letters "
        "without accents, digits, _ . and -, as in name=with_space.iso"
    )
    twice(lab, src=big, name="big.iso")
    assert files(lab)["big.iso"] == content


@pytest.mark.parametrize(
    "checksum",
    [{}, {"checksum": sha256(ONE)}, {"checksum": hashlib.md5(ONE).hexdigest().upper(), "checksum_algorithm": "md5"}],
)
def test_download(lab: Lab, checksum: dict[str, str]) -> None:
    real = twice(lab, url=URL, **checksum)
    assert files(lab)["one.iso"] == ONE
    assert real.diff == "local:iso/one.iso on pve1\n  + downloaded by the node from example.com\n"
    assert real.data["verified"] == ("checksum" if checksum else "presence")


def test_import_content(lab: Lab, tmp_path: Path) -> None:
    image = lab.file("local:import/img.qcow2").read_bytes()
    lab.cluster.web["https://example.com/img.qcow2"] = image
    twice(lab, content="import", url="https://example.com/img.qcow2", name="new.qcow2")
    assert lab.file("local:import/new.qcow2").read_bytes() == image


def test_wrong_checksum_of_a_download(lab: Lab) -> None:
    wrong = run(lab, url=URL, checksum="0" * 64)
    assert wrong.failure is not None
    assert f"checksum mismatch: got '{sha256(ONE)}' != expect '{'0' * 64}'" in wrong.failure
    assert "one.iso" not in files(lab)


def test_certificates(lab: Lab) -> None:
    run(lab, url=URL, verify_certificates=False)
    assert lab.writes("/download-url$")[0].params["verify-certificates"] == "0"
    run(lab, url=URL, name="b.iso")
    assert lab.writes("/download-url$")[1].params["verify-certificates"] == "1"


# ---- it is there


@pytest.mark.parametrize("verify", ["checksum", "size"])
def test_right_file_is_there(lab: Lab, local: Path, verify: str) -> None:
    for source in ({"src": local, "name": "there.iso"}, {"name": "there.iso", "checksum": sha256(ONE)}):
        there = run(lab, **source, verify=verify)
        assert (there.failure, there.changed) == (None, False)
        known = "size" if "src" in source else "presence"
        assert there.data["verified"] == ("checksum" if verify == "checksum" else known)
    assert run(lab, name="there.iso").data["verified"] == "presence"
    assert set(calls(lab)) <= {"POST download-url"}
    assert files(lab) == {"there.iso": ONE}


def test_other_content_of_the_same_size(lab: Lab, local: Path) -> None:
    local.write_bytes(TWO)
    other = run(lab, src=local, name="there.iso")
    assert other.failure == (
        "local:iso/there.iso on pve1: another file of this name is there (its checksum is not "
        f"sha256:{sha256(TWO)}); write replace: true, or use another name"
    )
    assert files(lab) == {"there.iso": ONE}
    real = twice(lab, src=local, name="there.iso", replace=True)
    assert real.diff == f"local:iso/there.iso on pve1\n  + overwritten from {local}\n"
    assert files(lab) == {"there.iso": TWO}


def test_other_size(lab: Lab, local: Path) -> None:
    local.write_bytes(b"short")
    other = run(lab, src=local, name="there.iso")
    assert other.failure is not None
    assert "another file of this name is there (4000 bytes, not 5); write replace: true" in other.failure
    assert lab.writes("/storage/") == []


def test_other_file_is_replaced_by_a_download(lab: Lab) -> None:
    params = {"url": SECRET_URL, "name": "there.iso", "checksum": sha256(TWO)}
    assert "another file of this name" in str(run(lab, **params).failure)
    assert files(lab) == {"there.iso": ONE}
    real = twice(lab, **params, replace=True)
    assert real.diff == ("local:iso/there.iso on pve1\n  - removed\n  + downloaded by the node from example.com\n")
    assert files(lab) == {"there.iso": TWO}


def test_it_must_be_there_and_right(lab: Lab) -> None:
    assert run(lab, name="nosuch.iso").failure == (
        "local:iso/nosuch.iso on pve1: state=present: it is not there, and nothing says where it comes from; give src, "
        "url or virtio_win"
    )
    wrong = run(lab, name="there.iso", checksum=sha256(TWO))
    assert wrong.failure is not None
    assert wrong.failure.endswith("say where the right one comes from")


def test_sent_file_is_not_the_one_that_was_asked_for(lab: Lab, local: Path) -> None:
    wrong = run(lab, src=local, checksum=sha256(TWO))
    assert wrong.failure == (
        f"local:iso/one.iso on pve1: src={local} has the checksum sha256:{sha256(ONE)}, not sha256:{sha256(TWO)}; it "
        "is another file"
    )
    assert lab.writes("/storage/") == []


def test_removed(lab: Lab) -> None:
    real = twice(lab, name="there.iso", state="absent")
    assert real.diff == "local:iso/there.iso on pve1\n  - removed\n"
    assert (real.data["size"], real.data["verified"]) == (None, None)
    assert files(lab) == {}


# ---- trust on first use


def test_trusted_on_first_use(lab: Lab, tmp_path: Path) -> None:
    """Recorded once; then the recorded file is what counts, here and on another storage."""
    trust = tmp_path / "trusted.json"
    real = twice(lab, virtio_win="recommended", trust_file=trust)
    content = b"drivers\n" * 500
    assert files(lab)[DRIVERS.file_name] == content
    assert json.loads(trust.read_text()) == {DRIVERS.file_name: {"sha256": sha256(content), "size": 4000}}
    assert real.data["steps"] == ["download", "record"]
    assert (real.data["verified"], real.data["checksum"]) == ("checksum", f"sha256:{sha256(content)}")
    assert real.diff.endswith(f"  ~ its checksum is trusted from now on, and kept in {trust}\n")
    (warning,) = real.warnings
    assert f"nobody has noted the checksum sha256:{sha256(content)} of virtio-win {DRIVERS.version} before" in warning
    lab.cluster.web[DRIVERS.url] = b"replaced upstream"
    changed = run(lab, virtio_win="recommended", trust_file=trust, storage="fast")
    assert changed.failure is not None
    assert "checksum mismatch" in changed.failure
    assert changed.failure.endswith(f"if it was replaced on purpose, remove the line of {DRIVERS.file_name} there")
    assert run(lab, virtio_win="recommended", trust_file=trust).failure is None  # a rerun does not care


def test_file_that_is_there_is_trusted(lab: Lab, local: Path, tmp_path: Path) -> None:
    trust = tmp_path / "trusted.json"
    real = twice(lab, name="there.iso", trust_file=trust)
    assert (real.data["steps"], real.data["verified"]) == (["record"], "checksum")
    assert json.loads(trust.read_text()) == {"there.iso": {"sha256": sha256(ONE), "size": 4000}}
    lab.file("local:iso/there.iso").write_bytes(TWO)
    swapped = run(lab, name="there.iso", trust_file=trust)
    assert swapped.failure is not None
    assert "another file of this name is there" in swapped.failure
    local.write_bytes(TWO)
    swapped = run(lab, name="there.iso", trust_file=trust, src=local, replace=True, verify="size")
    assert swapped.failure is None  # the size is right, and no more was asked for
    assert files(lab)["there.iso"] == TWO


def test_sent_file_is_trusted_without_a_failed_task(lab: Lab, local: Path, tmp_path: Path) -> None:
    trust = tmp_path / "trusted.json"
    run(lab, src=local, trust_file=trust)
    assert json.loads(trust.read_text())["one.iso"]["sha256"] == sha256(ONE)
    assert calls(lab) == ["POST upload"]


@pytest.mark.parametrize("text", ["{", "[]", '{"a.iso": {"sha256": "0", "size": 1}}', '{"a.iso": {"size": 1}}'])
def test_damaged_trust_file(lab: Lab, tmp_path: Path, text: str) -> None:
    trust = tmp_path / "trusted.json"
    trust.write_text(text)
    damaged = run(lab, name="there.iso", trust_file=trust)
    assert damaged.failure is not None
    assert f"trust_file={trust}: it is damaged, or no file of this kind" in damaged.failure
    assert trust.read_text() == text


def test_no_folder_for_the_trust_file(lab: Lab, tmp_path: Path) -> None:
    nowhere = run(lab, name="there.iso", trust_file=tmp_path / "nosuch/t.json")
    assert nowhere.failure is not None
    assert "nosuch does not exist; make it first" in nowhere.failure


# ---- rights


def test_verifying_needs_more_than_uploading(lab: Lab, local: Path, tmp_path: Path) -> None:
    """Who may only upload is told what could not be verified, and the size is compared."""
    assert run(lab, src=local, tokenid="up@pve!t").failure is None
    again = run(lab, src=local, tokenid="up@pve!t")
    assert (again.failure, again.changed, again.data["verified"]) == (None, False, "size")
    (warning,) = again.warnings
    assert "its checksum was not verified: the user may not have the node download or verify files (" in warning
    assert warning.endswith(
        "grant Datastore.AllocateTemplate on the storage and Sys.AccessNetwork on the node, or write verify=size"
    )
    assert run(lab, src=local, tokenid="up@pve!t", verify="size").warnings == []
    unknown = run(lab, name="there.iso", trust_file=tmp_path / "t.json", tokenid="up@pve!t")
    assert unknown.failure is not None
    assert "its checksum can't be recorded: the user may not have the node download or verify files" in unknown.failure


# ---- refused


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"name": "x.txt"}, "name=x.txt: a file of the content type iso ends with .iso or .img; correct name"),
        ({"name": "x.iso", "content": "import"}, "a file of the content type import ends with .ova, .qcow2, .raw or"),
        ({}, "local on pve1: name: nothing tells how the file is called; give src, url or virtio_win, or name for one"),
        ({"name": "x.iso", "node": "pve9"}, "node=pve9: there is no such node; write one of pve1"),
        (
            {"name": "a\nb.iso", "url": URL},
            r"local:iso/a\nb.iso on pve1: name=a\nb.iso: PVE would call the file otherwise; use letters without",
        ),
        ({"name": "x.iso", "storage": "nosuch"}, "storage=nosuch: pve1 has no such storage, or the user may"),
        ({"name": "x.iso", "storage": "disabled"}, "storage=disabled: it is disabled"),
        ({"name": "x.iso", "storage": "local-lvm"}, "it does not take the content type iso (it takes images, rootdir)"),
        ({"name": "x.iso", "storage": "dirchain"}, "add iso to its content types"),
        ({"url": "ftp://example.com/x.iso"}, "url: PVE downloads from http:// and https:// addresses with"),
        ({"url": "https://"}, "url: PVE downloads from http:// and https://"),
        ({"name": "x.iso", "checksum": "00"}, "checksum=00: sha256 has 64 hexadecimal digits"),
        ({"name": "x.iso", "checksum": "0" * 32}, "sha256 has 64 hexadecimal digits; md5 has 32"),
        ({"virtio_win": "0.1.9"}, "virtio-win 0.1.9 is not known; known are 0.1.141"),
        ({"virtio_win": "recommended", "content": "import"}, "virtio_win=recommended: it is an ISO, so content=import"),
        ({"src": "/nosuch/x.iso"}, "src=/nosuch/x.iso: it can't be read where this module runs (No such file"),
        ({"name": "x.iso", "replace": True}, "replace: no effect on a file that nothing is said to come from; remove"),
        ({"name": "x.iso", "state": "absent", "replace": True}, "replace: no effect on a file that is to be absent"),
        ({"name": "x.iso", "verify_certificates": False}, "verify_certificates: no effect on a file that the node"),
    ],
)
def test_refused(lab: Lab, params: dict[str, Any], words: str) -> None:
    refused = run(lab, **params)
    assert refused.failure is not None
    assert words in refused.failure
    assert lab.writes("/storage/") == []


def test_no_room(lab: Lab, tmp_path: Path) -> None:
    huge = tmp_path / "huge.iso"
    huge.touch()
    os.truncate(huge, lab.cluster.storages("pve1").space("local")[2] + (64 << 30))  # a hole
    refused = run(lab, src=huge)
    assert refused.failure is not None
    assert re.search(r"it has .* left, and the file has .*; make room, or use another storage", refused.failure)
    assert lab.writes("/storage/") == []


# ---- secrets


def test_secrets_in_urls(lab: Lab, tmp_path: Path) -> None:
    """Not at -vvvv, not when it fails, not in PVE's log that a failure repeats."""
    bad_url = SECRET_URL.replace("two", "bad")
    lab.cluster.web[bad_url] = TWO
    base = {"node": "pve1", "storage": "local"}
    good, bad = "{{ lookup('env', 'GOOD_URL') }}", "{{ lookup('env', 'BAD_URL') }}"
    tasks = [
        {"name": "good", "diskwright.proxmox.storage_file": {**base, "url": good}, "diff": True},
        {
            "name": "bad",
            "diskwright.proxmox.storage_file": {**base, "url": bad, "checksum": "0" * 64},
            "ignore_errors": True,
        },
        {
            "name": "refused",
            "diskwright.proxmox.storage_file": {**base, "url": good, "name": "x.txt"},
            "ignore_errors": True,
        },
        {
            "name": "both",
            "diskwright.proxmox.storage_file": {**base, "url": good, "virtio_win": "recommended"},
            "ignore_errors": True,
        },
    ]
    ran = run_playbook(play(tasks), token_env(lab) | {"GOOD_URL": SECRET_URL, "BAD_URL": bad_url}, "-vvvv")
    assert ran.task("good").changed
    assert "checksum mismatch" in ran.task("bad").result["msg"]
    assert "mutually exclusive" in ran.task("both").result["msg"]
    for secret in SECRETS:
        assert secret not in ran.text
    assert files(lab)["two.iso"] == TWO


# ---- trouble on the way


@pytest.mark.parametrize("path", ["/upload$", "/download-url$"])
def test_lost_answer(lab: Lab, local: Path, path: str) -> None:
    lab.faults.lose_answer("POST", path)
    source = {"src": local} if path == "/upload$" else {"url": URL}
    done = run(lab, **source)
    assert (done.failure, done.changed) == (None, True)
    assert files(lab)["one.iso"] == ONE
    assert len(lab.writes(path)) <= 2  # a second one verifies, or says that it is there


def test_upload_whose_answer_was_lost_is_not_sent_again(lab: Lab, local: Path) -> None:
    """Unless nobody can tell that it arrived whole."""
    lab.faults.lose_answer("POST", "/upload$")
    assert run(lab, src=local).failure is None
    assert calls(lab) == ["POST upload", "POST download-url"]
    lab.faults.lose_answer("POST", "/upload$")
    assert run(lab, src=local, name="other.iso", tokenid="up@pve!t").failure is None
    assert calls(lab)[2:] == ["POST upload", "POST download-url", "POST upload"]


def test_download_under_way_is_waited_for(lab: Lab) -> None:
    lab.faults.task_seconds["download"] = 60
    others = threading.Thread(target=lambda: run(lab, url=URL))
    others.start()
    while not lab.writes("/download-url$"):
        time.sleep(0.005)
    mine = run(lab, url=URL)
    others.join()
    assert (mine.failure, mine.changed, len(lab.writes("/download-url$"))) == (None, False, 1)


def test_killed_between_removal_and_download(lab: Lab) -> None:
    """What is left is what a first run would find."""
    params = {"url": SECRET_URL, "name": "there.iso", "checksum": sha256(TWO), "replace": True}
    lab.faults.task_errors["download"] = ["checksum mismatch: got '00' != expect '11', aborting", "the node went down"]
    failed = run(lab, **params)
    assert failed.failure is not None
    assert failed.data["steps"] == ["delete"]
    assert run(lab, **params).failure is None
    assert files(lab) == {"there.iso": TWO}


def test_time_is_over_and_a_later_run_picks_up(lab: Lab) -> None:
    lab.faults.task_seconds["download"] = 150
    late = run(lab, url=URL, task_timeout=1)
    assert late.failure is not None
    assert ":download:one.iso:" in late.data["upid"]
    later = run(lab, url=URL)
    assert (later.failure, later.changed) == (None, False)
