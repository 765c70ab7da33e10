# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/benchmark.md says what is so."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import fio, matrix, results
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.known import read_known
from tools.checkout import TOP
from unit._policy.auditing import audit, guest

GUIDE = (TOP / "docs" / "benchmark.md").read_text("utf-8")
SCHEMA = GUIDE.partition("## The result as data")[2]
CLASSES = (results.Results, results.Environment, results.PlaceRecord, results.Method, results.Run, results.Durability,
           fio.Measured, fio.Flow, fio.Latency, matrix.LeftOut, Combination)  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_of_a_result_is_described(kind: type) -> None:
    assert [item.name for item in fields(kind) if f"`{item.name}`" not in SCHEMA] == []


def test_every_workload_is_described() -> None:
    assert [name for name in TABLE if f"`{name}`" not in GUIDE] == []


def test_the_policy_says_what_the_guide_says() -> None:
    (block,) = re.findall(r"(?ms)^```yaml\n(guest_disks_facts:.*?)^```$", GUIDE)
    (said,) = re.findall(r"(?ms)^```text\n(Your benchmark.*?)^```$", GUIDE)
    facts = {**yaml.safe_load(block)["guest_disks_facts"], "need": {"workload": "database"}}
    read_known(facts)
    disk = {"ostype": "l26", "scsihw": "virtio-scsi-single", "scsi0": "nas:100/vm-100-disk-0.raw,iothread=1,discard=on"}
    assert audit(guest(disk), facts=facts)["scsi0", "format"].reason == " ".join(said.split())
