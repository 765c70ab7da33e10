# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Audits of a lab, and what becomes of a lab when the findings' declarations are pasted into an inventory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from ansible_collections.diskwright.proxmox.plugins.filter.layouts import guest_layouts
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_disks_info import GATHER, GuestDisksInfo
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.report_data import report_data
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve import tasks
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import path
from audit.findings import Case
from e2e.kit import Outcome, client, converge
from lab import Lab

Finding = dict[str, Any]


def seeded(cases: Iterable[Case], **words: Any) -> dict[str, Any]:
    """A seed with the cases' guests; without a controller where a case names none."""
    guests = [
        {"vmid": case.vmid, "name": f"vm{case.vmid}", **words, **case.seed, "config": {"scsihw": None, **case.config}}
        for case in cases
    ]
    return {"files": {}, "guests": guests}


def facts_of(cases: Iterable[Case]) -> dict[str, Any]:
    """What a user would say of each guest."""
    return {"guests": {f"vm{case.vmid}": case.facts for case in cases if case.facts}}


def audit(lab: Lab, facts: Mapping[str, Any] | None = None, policy: str = "current", **params: Any) -> dict[str, Any]:
    """The result of guest_disks_info with a policy."""
    selected = dict.fromkeys(("vmid", "name", "node", "pool", "tag"))
    words = {"gather": list(GATHER), "policy": policy, "policy_rules": [], "facts": dict(facts or {}), **params}
    with client(lab) as connection:
        work = GuestDisksInfo(connection, {**selected, **words})
        work.prepare()
        result = work.result(executed=True)
    assert result.warnings == []
    return result.data


def pasted(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The variables of each host once the declarations of a report have been pasted into its file."""
    report = report_data(result, lambda data: yaml.safe_dump(data, sort_keys=False))
    found = {guest["vmid"]: yaml.safe_load(guest["declaration"] or "") for guest in report["guests"]}
    return {f"vm{vmid}": {"proxmox_vmid": vmid, **words} for vmid, words in found.items() if words}


def alone(finding: Finding) -> dict[str, dict[str, Any]]:
    """The variables of a host into which one finding's declaration has been pasted."""
    return {f"vm{finding['vmid']}": {"proxmox_vmid": finding["vmid"], **finding["mend"]}}


def mend(lab: Lab, hostvars: Mapping[str, Mapping[str, Any]], **params: Any) -> Outcome:
    """Converge with these variables, as the role guest_disks does."""
    outcome = converge(lab, *guest_layouts(hostvars, hostvars), **params)
    assert outcome.errors == []
    return outcome


def restart(lab: Lab, findings: Iterable[Finding]) -> None:
    """Stop and start the guests of which an audit says that they need it."""
    with client(lab) as connection:
        for one in findings:
            if one["option"] == "restart":
                for step in ("stop", "start"):
                    where = path("nodes", one["node"], "qemu", one["vmid"], "status", step)
                    tasks.wait(connection, connection.post(where), tasks.Deadline(60))


def places(findings: Iterable[Finding]) -> set[tuple[int, str, str, str]]:
    """What tells findings apart."""
    return {(one["vmid"], one["slot"], one["option"], one["rule"]) for one in findings}
