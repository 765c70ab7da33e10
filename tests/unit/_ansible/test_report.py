# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as people read it: every change has a line, and what is destroyed has its own."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.report import diff_text, plan_text
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.converge import Job
from unit._core.planning import read_case

CONFIG = {
    "boot": "order=virtio0;sata3",
    "virtio0": "local:100/vm-100-disk-0.qcow2,size=1G",
    "sata3": "local:100/vm-100-disk-1.qcow2,size=1G",
    "ide2": "none,media=cdrom",
}
ISO = {"local:iso/debian.iso": {"size": "1G", "format": "raw"}}
# What is declared, whether the guest runs, and the lines of the plan below its head.
PLANS: tuple[tuple[dict[str, Any], bool, list[str]], ...] = (
    (
        {"disks": [{"slot": "ide2", "iso": "local:iso/debian.iso"}]},
        True,
        [
            "~ ide2  CD-ROM empty -> local:iso/debian.iso",
            "~ boot  virtio0 sata3 -> virtio0 sata3 ide2  by PVE itself; takes effect at the next start",
        ],
    ),
    (
        {"disks": [{"slot": "ide2", "iso": "local:iso/debian.iso"}], "boot": ["ide2", "virtio0"]},
        True,
        [
            "~ ide2  CD-ROM empty -> local:iso/debian.iso",
            "~ boot  virtio0 sata3 -> ide2 virtio0  takes effect at the next start",
        ],
    ),
    (
        {"disks": [{"slot": "sata3", "state": "detached"}]},
        False,
        [
            "- sata3  detached                  local:100/vm-100-disk-1.qcow2 kept as unused",
            "~ boot   virtio0 sata3 -> virtio0  by PVE itself",
        ],
    ),
    (
        {"disks": [{"slot": "sata3", "storage": "tank", "delete_source": True}]},
        False,
        [
            "~ sata3  local -> tank, qcow2 -> raw",
            "! sata3  volume local:100/vm-100-disk-1.qcow2 is destroyed  once it is copied",
        ],
    ),
    (
        {"disks": [{"slot": "sata3", "storage": "tank"}]},
        False,
        ["~ sata3  local -> tank, qcow2 -> raw  local:100/vm-100-disk-1.qcow2 kept as unused"],
    ),
    ({"disks": [{"slot": "sata3", "cache": "none"}]}, False, ["~ sata3  cache (unset) -> none"]),
)


@pytest.mark.parametrize(("declared", "running", "lines"), PLANS)
def test_every_change_has_a_line(declared: dict[str, Any], running: bool, lines: list[str]) -> None:
    guest = {"config": CONFIG, "running": running}
    case = read_case({"guest": guest, "volumes": ISO, "declare": declared})
    plan = case.world.plan(case.guest, case.layout)
    shown = plan_text(plan).splitlines()[1:]
    assert [line.strip() for line in shown if not line.startswith("  ?")] == lines


NOTICED = "  ? ide2 is not declared: kept\n  ? virtio0 is not declared: kept\n"


@pytest.mark.parametrize(
    ("undeclared", "cache", "shown"),
    [
        ("keep", None, ""),
        ("keep", "none", f"  ~ sata3  cache (unset) -> none\n{NOTICED}"),
        ("report", None, NOTICED),
        ("report", "none", f"  ~ sata3  cache (unset) -> none\n{NOTICED}"),
    ],
)
def test_undeclared_drives_are_named_beside_a_change_and_with_report_always(
    undeclared: str, cache: str | None, shown: str
) -> None:
    declared = {"undeclared": undeclared, "disks": [{"slot": "sata3", "cache": cache}]}
    case = read_case({"guest": {"config": CONFIG}, "declare": declared})
    plan = case.world.plan(case.guest, case.layout)
    head = "web1 (100 on pve1, stopped)\n" if shown else ""
    assert diff_text([Job(case.layout, guest=case.guest, plan=plan)]) == head + shown
