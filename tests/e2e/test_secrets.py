# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret is ever shown: not at -vvvv, not when something fails, not in exceptions, not in what PVE is told."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Client, Endpoint
from e2e.kit import Run, converge, play, run_playbook, started, token_env
from lab import Lab

TOKEN = "b1946ac9-2ddc-4f3a-token-of-the-test"
PASSWORD = "Open,Sesame=42%&/password-of-the-test"
WRONG = "wrong-3f1d-secret-of-the-test"
OTP = "918273-otp-of-the-test"
SECRETS = (TOKEN, PASSWORD, WRONG, OTP)
# As they would look in a form's body or a URL.
SHAPES = (*SECRETS, "Open%2CSesame%3D42%25%26%2Fpassword-of-the-test", "Open%2CSesame")
SEED = {
    "password": PASSWORD,
    "files": {},
    "users": {"root@pam": {"tokens": {"test": {"privsep": False, "secret": TOKEN}}}},
    "guests": [
        {
            "vmid": vmid,
            "name": f"g{vmid}",
            "running": vmid == 103,
            "config": {f"scsi{n}": f"local-lvm:vm-{vmid}-disk-{n},size=64M" for n in range(2)},
        }
        for vmid in range(100, 110)
    ],
}
BY_TOKEN = {"api_user": "root@pam", "api_token_id": "test", "api_token_secret": "{{ token }}"}
BY_PASSWORD = {"api_user": "root@pam", "api_password": "{{ password }}"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with started(SEED) as lab:
        yield lab


@pytest.fixture(scope="module")
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def clean(text: str) -> None:
    for secret in SHAPES:
        assert secret not in text, text[max(0, text.index(secret) - 300) : text.index(secret) + 50]


def task(name: str, vmid: int, connection: dict[str, Any], **disk: Any) -> dict[str, Any]:
    words = {"vmid": vmid, "disks": [{"slot": "scsi0", **disk}], **connection}
    return {"name": name, "diskwright.proxmox.guest_disks": words, "ignore_errors": True, "diff": True}


def tasks(lab: Lab, closed_port: int) -> list[dict[str, Any]]:
    return [
        task("ok token", 100, BY_TOKEN, cache="none"),
        task("ok password", 101, BY_PASSWORD, cache="none"),
        task("ok environment", 102, {}, cache="none"),
        task("failed refused", 100, BY_PASSWORD, size="1M"),
        task("failed task", 104, BY_TOKEN, size="128M"),
        task("failed task", 105, BY_PASSWORD, size="128M"),
        task("failed secret", 100, {**BY_TOKEN, "api_token_secret": "{{ wrong }}"}, cache="none"),
        task(
            "failed password", 100, {**BY_PASSWORD, "api_password": "{{ wrong }}", "api_otp": "{{ otp }}"}, cache="none"
        ),
        task("failed tls", 100, {**BY_TOKEN, "validate_certs": True}, cache="none"),
        task("failed tls", 100, {**BY_PASSWORD, "validate_certs": True}, cache="none"),
        task("failed connection", 100, {**BY_PASSWORD, "api_host": f"127.0.0.1:{closed_port}"}, cache="none"),
        task("failed argument", 100, BY_PASSWORD, cache="fast"),
    ]


@pytest.fixture(scope="module")
def run(lab: Lab, closed_port: int) -> Run:
    """One run with everything in it, at the highest verbosity."""
    lab.faults.task_errors["resize"] = ["cannot resize", "cannot resize"]
    secrets = {"token": TOKEN, "password": PASSWORD, "wrong": WRONG, "otp": OTP}
    inventory = {"all": {"hosts": {"localhost": secrets}}}
    return run_playbook(play(tasks(lab, closed_port)), token_env(lab), "-vvvv", "--diff", inventory=inventory)


def test_every_kind_of_end_is_in_the_run(run: Run) -> None:
    for one in run.tasks:
        assert one.status == one.task.split()[0], (one.task, one.result.get("msg"))
    texts = " | ".join(str(one.result.get("msg", "")) for one in run.tasks)
    for part in ("can't shrink", "cannot resize", "401", "certificate does not verify", "no connection", "cache"):
        assert part in texts, texts


def test_output_shows_no_secret(run: Run) -> None:
    clean(run.text)


def test_results_and_diffs_show_no_secret(run: Run) -> None:
    assert any(one.diff for one in run.tasks)
    for one in run.tasks:
        clean(json.dumps(one.result))


def test_pve_is_told_no_secret(lab: Lab, run: Run) -> None:
    """Among the requests is what the journal in the guest's notes said, while a drive changed its bus live."""
    moved = {"vmid": 103, "disks": [{"slot": "virtio1", "moved_from": "scsi1"}]}
    outcome = converge(lab, moved)
    assert outcome.failure is None
    journals = [str(request.params["description"]) for request in lab.requests if "description" in request.params]
    assert any("diskwright" in journal for journal in journals)
    clean(repr(lab.requests))
    for vmid in range(100, 110):
        clean(repr(lab.config(vmid)))


def connect(lab: Lab, **options: Any) -> None:
    words = {"api_host": lab.host, "api_port": lab.port, "api_user": "root@pam", **options}
    with Client(Endpoint.from_options(words)) as client:
        converge(client, {"vmid": 106, "disks": [{"slot": "scsi0", "cache": "unsafe"}]})
        client.post("/nodes/pve1/qemu/106/config", {"nosuch": 1})


ENDPOINTS: dict[str, Callable[[Lab], dict[str, Any]]] = {
    "wrong token": lambda lab: {"api_token_id": "test", "api_token_secret": WRONG},
    "wrong password": lambda lab: {"api_password": WRONG, "api_otp": OTP},
    "certificate, token": lambda lab: {"api_token_id": "test", "api_token_secret": TOKEN, "validate_certs": True},
    "certificate, password": lambda lab: {"api_password": PASSWORD, "validate_certs": True},
    "refused by PVE, token": lambda lab: {"api_token_id": "test", "api_token_secret": TOKEN},
    "refused by PVE, password": lambda lab: {"api_password": PASSWORD},
    "password with the user's name": lambda lab: {"api_user": f"root@pam:{PASSWORD}", "api_password": WRONG},
    "odd password in the address": lambda lab: {"api_host": f"root:{PASSWORD}@{lab.host}", "api_password": WRONG},
    "password in the address": lambda lab: {"api_host": f"root:{WRONG}@{lab.host}", "api_password": PASSWORD},
    "secret with the token's name": lambda lab: {"api_token_id": f"test={TOKEN}"},
    "secret with the user's name": lambda lab: {"api_user": f"root@pam!test={TOKEN}"},
    "secret without name": lambda lab: {"api_token_secret": TOKEN},
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_exceptions_show_no_secret(name: str, lab: Lab) -> None:
    with pytest.raises(DiskwrightError) as caught:
        connect(lab, **ENDPOINTS[name](lab))
    clean("".join(traceback.format_exception(caught.value)))
    clean(repr(caught.value) + repr(vars(caught.value)))


def test_representations_show_no_secret(lab: Lab) -> None:
    for words in ({"api_token_id": "test", "api_token_secret": TOKEN}, {"api_password": PASSWORD, "api_otp": OTP}):
        endpoint = Endpoint.from_options({"api_host": lab.host, "api_user": "root@pam", **words})
        clean(repr(endpoint) + str(endpoint))
    with Client(
        Endpoint.from_options(
            {"api_host": lab.host, "api_port": lab.port, "api_user": "root@pam", "api_password": PASSWORD}
        )
    ) as client:
        clean(repr(client))
