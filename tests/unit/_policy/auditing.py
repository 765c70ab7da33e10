# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests from PVE's texts and storages of all kinds, for audits and recommendations without a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import Guest, PendingRow, read_guest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import Storage
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.audit import Auditor
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.findings import Finding, Surroundings
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.known import read_known
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.load import load_policy

VERSION = "9.2.11"
STORAGES = {
    name: Storage(name, kind, frozenset({"images"}), formats, shared=shared)
    for name, kind, formats, shared in (
        ("local", "dir", ("qcow2", "raw", "vmdk"), False),
        ("nas", "nfs", ("qcow2", "raw", "vmdk"), True),
        ("local-lvm", "lvmthin", ("raw",), False),
        ("thick", "lvm", ("raw",), False),
        ("thickchain", "lvm", ("qcow2", "raw"), False),
        ("btrfs", "btrfs", ("raw", "qcow2", "vmdk"), False),
        ("tank", "zfspool", ("raw",), False),
    )
}


def guest(
    config: Mapping[str, str],
    *,
    running: bool = False,
    pending: Mapping[str, str] | None = None,
    **attributes: Any,
) -> Guest:
    """A guest as the cluster lists it: what is in force, and what waits."""
    waiting = pending or {}
    rows = [PendingRow(key, config.get(key), waiting.get(key)) for key in {**config, **waiting}]
    return replace(read_guest(100, "web1", "pve1", rows, running=running), **attributes)


def auditor(
    policy: str = "current",
    facts: Mapping[str, Any] | None = None,
    rules: Sequence[Mapping[str, Any]] = (),
    *,
    sizes: Mapping[str, int] | None = None,
    pve_version: float | None = 9.2,
) -> Auditor:
    """A policy with what a user says."""
    around = Surroundings(sizes or {}, pve_version)
    return Auditor(load_policy(policy, rules, VERSION), read_known(facts), {"pve1": STORAGES}, around, VERSION)


def audit(found: Guest, policy: str = "current", **words: Any) -> dict[tuple[str, str], Finding]:
    """What is found about one guest, by slot and option. Nothing is found twice."""
    findings = auditor(policy, **words).audit([found])
    by_place = {(one.slot, one.option): one for one in findings}
    assert len(by_place) == len(findings)
    return by_place


def rules(found: Guest, policy: str = "current", **words: Any) -> dict[tuple[str, str], str]:
    """The rules of what is found."""
    return {place: one.rule for place, one in audit(found, policy, **words).items()}
