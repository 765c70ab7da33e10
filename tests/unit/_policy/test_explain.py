# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read: text, Markdown, and the filters."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.diskwright.proxmox.plugins.filter.recommend import FilterModule
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.explain import (
    explain,
    read_recommendation,
    recommendation_data,
)
from unit._policy.asking import ask

FILTERS = FilterModule().filters()
FACTS = {"guest": {"os_family": "linux"}, "storage": {"type": "dir", "medium": "ssd"}, "need": {"workload": "database"}}


def test_the_answer_comes_first() -> None:
    text = explain(ask("current", os_family="linux", type="zfspool", medium="ssd", workload="database"))
    first, blank, *_rest = text.splitlines()
    assert first == "scsi, virtio-scsi-single, raw, cache none, iothread, discard on, ssd (policy current)"
    assert blank == ""


def test_then_why_on_whose_authority_and_what_was_rejected() -> None:
    text = explain(ask("current", os_family="linux", type="dir", workload="database", snapshots=True))
    (block,) = re.findall(r"(?ms)^format: .*?\n\n", text)
    assert block == (
        "format: qcow2\n"
        "  You want snapshots, and this storage takes them of qcow2 images only.\n"
        "  [snapshots-qcow2: pve-docs 9.1.3, pve-storage-dir.adoc; pve-storage 9.1.7, PVE/Storage/Plugin.pm"
        " (volume_has_feature)]\n"
        "  Instead of raw (database-raw).\n"
        "  Not vmdk: Proxmox VE can neither resize nor snapshot VMDK images. They are for import and export: convert"
        " one on the day when it leaves.\n\n"
    )


def test_what_is_impossible_stands_before_the_reasons() -> None:
    text = explain(ask("current", {"format": "qcow2", "cache": "unsafe"}, type="lvmthin"))
    assert text.index("IMPOSSIBLE: format: qcow2") < text.index("NOT ADVISABLE: cache: unsafe") < text.index("\nbus: ")


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_of_what_was_decided_it_says_what_the_policy_would_take(style: str) -> None:
    fixed = {"bus": "ide", "cache": "writeback", "format": "raw"}
    text = explain(ask("current", fixed, os_family="linux", type="zfspool", workload="database"), style)
    assert "The policy would take scsi (rule virtio-scsi): VirtIO SCSI is" in text
    assert "The policy would take none (rule database-none): " in text
    assert text.count("The policy would take") == 2, "the format is what the policy would take"


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_every_choice_is_explained(style: str) -> None:
    answer = ask("current", {"bus": "sata"}, os_release="win10", type="nfs")
    text = explain(answer, style)
    for name, choice in answer.choices.items():
        assert name in text and choice.reason in text
        assert choice.rule == "decided" or f"{choice.rule}: {choice.source}" in text


def test_markdown_is_a_table_of_equal_rows() -> None:
    lines = explain(ask("current", {"aio": "io_uring"}, type="lvm"), "markdown").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 12
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert lines[2].startswith("> **Not advisable:** `aio: io_uring`. ")


def test_another_style_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ParseError, match="there is no style 'html'; write one of text, markdown"):
        explain(ask("current"), "html")


@pytest.mark.parametrize("fixed", [{}, {"cache": "unsafe", "ssd": "1", "bus": "virtio"}])
def test_data_say_the_same_as_the_recommendation(fixed: dict[str, str | None]) -> None:
    answer = ask("current", fixed, os_family="linux", type="dir", medium="ssd")
    assert explain(read_recommendation(recommendation_data(answer))) == explain(answer)


# ---- filters


def test_recommend_returns_what_to_declare() -> None:
    answer = FILTERS["recommend"]({"slot": "scsi1", "storage": "local"}, FACTS)
    assert answer["declaration"] == {"format": "raw", "cache": "none", "iothread": True, "discard": "on", "ssd": True}
    assert answer["choices"]["iothread"]["value"] is True
    assert answer["choices"]["aio"]["value"] is None
    assert answer["policy"] == "current"
    assert answer["conflicts"] == answer["objections"] == []


def test_recommend_asks_the_policy_that_is_named_and_reads_rules() -> None:
    answer = FILTERS["recommend"]({}, FACTS, policy="chapter-2016")
    assert answer["choices"]["bus"]["value"] == "virtio"
    rules = [{"id": "ours", "when": True, "sets": {"backup": False}, "because": "We say so."}]
    assert FILTERS["recommend"](None, FACTS, rules=rules)["declaration"]["backup"] is False


def test_rules_are_those_of_the_version_in_the_facts() -> None:
    rules = [{"id": "ours", "when": True, "since": "9.0", "sets": {"backup": False}, "because": "We say so."}]
    for version, value in (("8.4", None), ("9.2.11", False)):
        answer = FILTERS["recommend"]({}, {"storage": {"pve_version": version}}, rules=rules)
        assert answer["choices"]["backup"]["value"] is value


def test_explain_takes_what_recommend_returns() -> None:
    text = FILTERS["explain"](FILTERS["recommend"]({}, FACTS))
    assert text.startswith("scsi, virtio-scsi-single, raw, cache none")
    assert FILTERS["explain"](FILTERS["recommend"]({}, FACTS), style="markdown").startswith("**scsi, ")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("recommend", ("scsi0",), "'scsi0' is no dictionary; give a disk as proxmox_disks declares it, or {}"),
        ("recommend", ({}, {"gest": {}}), "'gest' is no group of facts"),
        ("recommend", ({}, {}, "best"), "there is no policy 'best'"),
        ("recommend", ({}, {}, ["current"]), "there is no policy '['current']'"),
        ("recommend", ({}, {}, "current", True), "rules are a list of dictionaries, not True"),
        ("recommend", ({}, {}, "current", [{"id": "a"}]), "rule 1 ('a'): when is missing"),
        ("explain", ("raw",), "'raw' is no dictionary; explain takes what recommend returns"),
        ("explain", ({"choices": {}},), "that is no recommendation; explain takes what recommend returns"),
        ("explain", ({"choices": {"colour": {}}, "policy": "a"},), "that is no recommendation"),
    ],
)
def test_filters_fail_in_words(name: str, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        FILTERS[name](*arguments)
    assert str(caught.value).startswith(f"diskwright.proxmox.{name}: ")
    assert said in str(caught.value)
