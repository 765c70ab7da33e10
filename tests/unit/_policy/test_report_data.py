# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report on a cluster says: counts, order, groups, the declarations that mend, texts that stay texts."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.diskwright.proxmox.plugins.filter.audit_report import audit_report
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.report_text import flow_text
from audit.sample import HOSTILE, RULES, cluster

GIB = 1024**3


def finding(vmid: int, severity: str = "warning", **words: Any) -> dict[str, Any]:
    base = {"name": f"vm{vmid}", "node": "pve1", "slot": "scsi0", "option": "cache", "actual": "unsafe"}
    base |= {"recommended": "none", "rule": "cache-unsafe", "reason": "R", "source": "S", "since": "8.0", "mend": None}
    return {"vmid": vmid, "severity": severity, **base, **words}


def guest(vmid: int, node: str = "pve1", **words: Any) -> dict[str, Any]:
    return {"vmid": vmid, "name": f"vm{vmid}", "node": node, "status": "running", "drives": {}, **words}


def disk(volume: str, size: int | None = GIB, form: str = "raw", **options: Any) -> dict[str, Any]:
    storage = volume.partition(":")[0]
    return {
        "volume": volume, "storage": storage, "format": form, "size": size, "media": "disk", "options": options,
    }  # fmt: skip


def report(*guests: dict[str, Any], findings: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return audit_report({"guests": list(guests), "findings": findings or [], "storages": {}, **more})


def mended(*mends: dict[str, Any] | None) -> Any:
    """The declaration of a guest with findings that these declarations mend, the worst first."""
    severities = ("danger", "warning", "info")
    found = [finding(1, severity, mend=mend) for severity, mend in zip(severities, mends, strict=False)]
    return yaml.safe_load(report(guest(1), findings=found)["guests"][0]["declaration"])


# ---- counts and words


def test_counts() -> None:
    result = report(
        guest(1, drives={"scsi0": disk("tank:a", 2 * GIB), "efidisk0": disk("tank:e", GIB)}),
        guest(2, status="stopped", unused={"unused0": "tank:b"}),
        guest(3, status="template"),
        {"vmid": 4, "name": "vm4", "node": "pve2", "error": "403 Permission check failed"},
        findings=[finding(1, "danger"), finding(1, "info"), finding(2, "info")],
    )
    summary = result["summary"]
    assert {key: summary[key] for key in ("guests", "running", "stopped", "templates", "unread", "nodes")} == {
        "guests": 4, "running": 1, "stopped": 1, "templates": 1, "unread": 1, "nodes": 2,
    }  # fmt: skip
    assert (summary["disks"], summary["bytes"], summary["unused"]) == (1, 3 * GIB, 1)
    assert (summary["danger"], summary["warning"], summary["info"], summary["findings"]) == (1, 0, 2, 3)
    assert summary["guests_by_worst"] == {"danger": 1, "warning": 0, "info": 1, "none": 1}
    assert summary["counts"] == "1 danger and 2 hints"
    assert result["failing"] == {"danger": 2, "warning": 2, "info": 4}


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        (["danger", "danger", "warning"], "2 dangers on 2 of 3 guests: mend these first."),
        (["warning", "info"], "Nothing is dangerous. 1 warning on 1 of 3 guests."),
        (["info", "info"], "Nothing to worry about. 2 hints on 2 of 3 guests."),
        ([], "Nothing found: 3 guests as the policy wants."),
    ],
)
def test_the_verdict_names_the_worst(severities: list[str], verdict: str) -> None:
    found = [finding(number, severity) for number, severity in enumerate(severities, 1)]
    assert report(guest(1), guest(2), guest(3), findings=found)["summary"]["verdict"] == verdict


def test_a_guest_that_was_not_read_is_not_as_the_policy_wants() -> None:
    result = report(guest(1), {"vmid": 2, "name": "vm2", "node": "pve1", "error": "403"})
    assert result["summary"]["verdict"] == "Nothing found: 1 guest as the policy wants."
    assert result["summary"]["unread"] == 1
    assert result["failing"]["danger"] == 1


def test_a_severity_that_is_not_known_counts_as_the_least() -> None:
    assert report(guest(1), findings=[finding(1, "notice")])["summary"]["info"] == 1


# ---- order and groups


def test_findings_come_worst_first_then_by_guest_and_slot() -> None:
    found = [finding(2, "info"), finding(1, "info", slot="scsi10"), finding(1, "info", slot="scsi2")]
    found += [finding(9, "danger"), finding(1, "info", slot="")]
    ordered = report(findings=found)["findings"]
    assert [(row["vmid"], row["slot"]) for row in ordered] == [
        (9, "scsi0"), (1, ""), (1, "scsi2"), (1, "scsi10"), (2, "scsi0"),
    ]  # fmt: skip


def test_rules_come_worst_first_then_by_what_mends_most() -> None:
    found = [finding(1, "info", rule="a"), finding(1, "info", rule="b"), finding(2, "info", rule="b")]
    rules = report(findings=[*found, finding(1, "danger", rule="z")])["rules"]
    assert [(row["rule"], row["findings"], row["guests"]) for row in rules] == [("z", 1, 1), ("b", 2, 2), ("a", 1, 1)]


def test_a_rule_says_what_its_findings_share() -> None:
    found = [finding(1), finding(2, actual="writeback", mend={"scsi0": {"cache": "none"}})]
    (rule,) = report(guest(1), guest(2), findings=found)["rules"]
    assert (rule["option"], rule["actual"], rule["recommended"], rule["mendable"]) == ("cache", "", "none", 1)
    assert rule["names"] == ["vm1", "vm2"]
    assert rule["declaration"] == "# host_vars of vm2 (2 on pve1)\nproxmox_disks:\n  scsi0:\n    cache: none\n"


def test_a_rule_names_a_few_guests_and_counts_the_rest() -> None:
    (rule,) = report(findings=[finding(vmid) for vmid in range(1, 11)])["rules"]
    assert (len(rule["names"]), rule["more"], rule["guests"]) == (6, 4, 10)


def test_a_volume_in_two_slots_takes_its_space_once() -> None:
    result = report(guest(1, drives={"scsi0": disk("tank:a"), "scsi1": disk("tank:a")}))
    assert (result["summary"]["disks"], result["summary"]["bytes"]) == (2, GIB)
    assert [(row["name"], row["bytes"], row["disks"]) for row in result["storages"]] == [("tank", GIB, 1)]


def test_space_by_storage_and_format() -> None:
    drives = {"scsi0": disk("nas:1.raw"), "scsi1": disk("nas:2.qcow2", 3 * GIB, "qcow2"), "scsi2": disk("tank:c")}
    rows = [
        {"storage": "nas", "type": "nfs", "shared": True, "total": 10 * GIB, "available": 6 * GIB},
        {"storage": "tank", "type": "zfspool", "shared": False, "total": GIB, "available": GIB},
    ]
    storages = report(guest(1, drives=drives), storages={"pve1": rows, "pve2": rows})["storages"]
    assert [row["name"] for row in storages] == ["nas", "tank"]
    assert [(row["format"], row["size"], row["percent"]) for row in storages[0]["formats"]] == [
        ("qcow2", "3 GiB", 75.0), ("raw", "1 GiB", 25.0),
    ]  # fmt: skip
    assert [row["capacity"] for row in storages] == ["6 GiB of 10 GiB free", "2 GiB of 2 GiB free"]


def test_a_finding_counts_for_the_storage_of_its_slot() -> None:
    one = guest(1, drives={"scsi0": disk("tank:a"), "scsi1": disk("nas:b")})
    result = report(one, findings=[finding(1, slot="scsi1"), finding(1, "danger", slot="")])
    assert {row["name"]: (row["danger"], row["warning"]) for row in result["storages"]} == {
        "tank": (0, 0), "nas": (0, 1),
    }  # fmt: skip
    assert [(row["name"], row["danger"], row["warning"]) for row in result["nodes"]] == [("pve1", 1, 1)]


# ---- what mends


def test_declarations_of_a_guest_become_one() -> None:
    assert mended({"scsi0": {"cache": "none"}}, {"scsi0": {"discard": "on"}}, {"scsi1": {"ssd": True}}) == {
        "proxmox_disks": {"scsi0": {"cache": "none", "discard": "on"}, "scsi1": {"ssd": True}}
    }


def test_declarations_beside_disks() -> None:
    assert mended({"proxmox_disks_boot": ["scsi0"]}, {"scsi0": {"cache": "none"}}) == {
        "proxmox_disks_boot": ["scsi0"],
        "proxmox_disks": {"scsi0": {"cache": "none"}},
    }


def test_options_to_unset_are_gathered() -> None:
    assert mended({"scsi0": {"unset": ["aio"]}}, {"scsi0": {"unset": ["aio", "cache"]}}) == {
        "proxmox_disks": {"scsi0": {"unset": ["aio", "cache"]}}
    }


def test_where_two_contradict_the_worse_finding_is_mended() -> None:
    assert mended({"scsi0": {"cache": "none"}}, {"scsi0": {"cache": "writeback"}}) == {
        "proxmox_disks": {"scsi0": {"cache": "none"}}
    }


def test_a_disk_that_moves_is_declared_where_it_goes() -> None:
    assert mended({"ide0": {"cache": "none"}}, {"scsi1": {"moved_from": "ide0"}}) == {
        "proxmox_disks": {"scsi1": {"moved_from": "ide0", "cache": "none"}}
    }


def test_a_disk_that_moves_leaves_behind_what_its_new_bus_lacks() -> None:
    mends = {"virtio0": {"moved_from": "scsi0"}}, {"scsi0": {"ssd": True, "unset": ["product", "discard"]}}
    assert mended(*mends) == {"proxmox_disks": {"virtio0": {"moved_from": "scsi0", "unset": ["discard"]}}}


def test_the_boot_order_follows_a_disk_that_moves() -> None:
    mends = {"proxmox_disks_boot": ["sata0", "net0"]}, {"scsi0": {"moved_from": "sata0"}}
    assert mended(*mends) == {
        "proxmox_disks_boot": ["scsi0", "net0"],
        "proxmox_disks": {"scsi0": {"moved_from": "sata0"}},
    }


def test_what_is_unset_is_not_set_as_well() -> None:
    mends = {"scsi0": {"cache": "none"}}, {"scsi0": {"unset": ["cache", "aio"]}}, {"scsi0": {"aio": "native"}}
    assert mended(*mends) == {"proxmox_disks": {"scsi0": {"cache": "none", "unset": ["aio"]}}}


@pytest.mark.parametrize("options", [{"state": "absent"}, {"format": "raw", "delete_source": True}])
def test_what_destroys_data_is_shown_beside_what_is_pasted(options: dict[str, Any]) -> None:
    found = [finding(1, mend={"scsi0": {"cache": "none"}}), finding(1, "info", mend={"proxmox_disks": {"x0": options}})]
    result = report(guest(1), findings=found)
    assert yaml.safe_load(result["guests"][0]["declaration"]) == {"proxmox_disks": {"scsi0": {"cache": "none"}}}
    last = result["findings"][-1]
    assert yaml.safe_load(last["decision"]) == {"proxmox_disks": {"x0": options}}
    assert last["note"] == "destroys its data; needs -e guest_disks_allow_destroy=true"
    assert [(row["mendable"], bool(row["declaration"])) for row in result["rules"]] == [(1, True), (0, False)]


@pytest.mark.parametrize(("name", "key"), [("win1", "win1"), ("on", "on"), ("{{ 1 }}", "1"), ("a b", "1")])
def test_a_fact_that_decides_is_written_as_the_role_takes_it(name: str, key: str) -> None:
    facts = {"guest": {"virtio_drivers": "all"}}
    (row,) = report(guest(1), findings=[finding(1, name=name, decides=facts)])["findings"]
    assert yaml.safe_load(row["decision"]) == {"disk_audit_facts": {"guests": {key: facts}}}
    if name == "win1":
        assert row["decision"] == "disk_audit_facts: {guests: {win1: {guest: {virtio_drivers: all}}}}"


@pytest.mark.parametrize("value", ["a", "on", "No", "1", "1e3", "a: b", "ä", '"', "", True, None, 3, ["a", "y"]])
def test_data_on_one_line_is_yaml(value: Any) -> None:
    data = {"disks": {"unused0": {"state": value, "Yes": 1}}}
    assert yaml.safe_load(flow_text(data)) == data
    assert flow_text({"a": {"b": "absent"}}) == "a: {b: absent}"


def test_values_that_yaml_would_take_for_something_else() -> None:
    assert mended({"scsi0": {"discard": "on", "serial": "0123", "size": "1e3", "x": "a: b # c"}}) == {
        "proxmox_disks": {"scsi0": {"discard": "on", "serial": "0123", "size": "1e3", "x": "a: b # c"}}
    }


@pytest.mark.parametrize("text", ["{{ 1 }}", "{% if %}", "{# #}"])
def test_a_template_is_not_offered_for_pasting(text: str) -> None:
    result = report(guest(1), findings=[finding(1, mend={"scsi0": {"serial": text}})])
    assert result["guests"][0]["declaration"] == ""
    assert result["rules"][0]["mendable"] == 0


# ---- texts stay texts


def test_hostile_texts_do_not_leave_their_place() -> None:
    result = audit_report(cluster(12, hostile=True))
    assert not set("<>&") & set(result["page"])
    assert json.loads(result["page"])["guests"][0][1] == HOSTILE[0]
    shown = json.dumps(result["escaped"], ensure_ascii=False)
    assert "<" not in shown and ">" not in shown
    rows = list(csv.DictReader(io.StringIO(result["csv"])))
    assert len(rows) == result["summary"]["findings"]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@")]
    for guest_ in result["guests"]:
        assert len(guest_["name"].splitlines()) == 1
    for rule in result["rules"]:
        for part in rule["declaration"].split("# host_vars of ")[1:]:
            assert set(yaml.safe_load(f"# {part}")) <= {"proxmox_disks", "proxmox_disks_boot", "proxmox_disks_scsihw"}


def test_the_sample_shows_every_kind() -> None:
    assert {row["rule"] for row in audit_report(cluster(12))["rules"]} == set(RULES)


def test_a_result_without_findings_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="no 'findings'.*with a policy"):
        audit_report({"guests": []})
