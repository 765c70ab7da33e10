# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides say what the policies say: every example in them is asked, and the page of rules is up to date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.choices import CHOICES
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.engine import recommend
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.explain import explain
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import read_facts
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.load import load_policy
from tools import policy_table
from tools.checkout import TOP
from unit._policy.asking import policy

DOCS = TOP / "docs"
CHOOSING = (DOCS / "choosing.md").read_text("utf-8")
COMPARED = (DOCS / "2016-and-today.md").read_text("utf-8")
ANSWERED = re.findall(r"(?ms)^```yaml\n(.*?)^```\n\n```text\n(.*?)\n```", CHOOSING)
ROWS = re.findall(r"(?ms)^```yaml\n(.*?)^```\n\n\| \| 2016 \| today \|\n\|---\|---\|---\|\n(.*?)\n\n", COMPARED)


SHORT = [
    (f"guest: {{os_family: linux}}\nstorage: {{{storage.strip('`')}}}\nneed: {{{need.strip('`')}}}\n", answer)
    for storage, need, answer in re.findall(r"(?m)^\| (`type: .*?`) \| (.*?) ?\| (.*) \|$", CHOOSING)
]


def examples(path: Path) -> int:
    return len(re.findall(r"(?m)^```yaml$", path.read_text("utf-8")))


def test_the_page_of_rules_is_made_from_the_tables() -> None:
    assert policy_table.PAGE.read_text("utf-8") == policy_table.page(), "run: .venv/bin/nox -s generate"


def test_every_example_has_an_answer() -> None:
    assert examples(DOCS / "choosing.md") == len(ANSWERED) >= 15
    assert len(SHORT) == CHOOSING.partition("Six questions")[0].count("\n| `") >= 7
    assert examples(DOCS / "2016-and-today.md") == len(ROWS) >= 14


@pytest.mark.parametrize(("facts", "answer"), [*SHORT, *ANSWERED])
def test_which_disk_should_i_choose(facts: str, answer: str) -> None:
    found = recommend({}, read_facts(yaml.safe_load(facts)), policy("current"))
    assert explain(found).splitlines()[0] == f"{answer} (policy current)"


def test_the_readme_leads_to_every_guide() -> None:
    section = (TOP / "README.md").read_text("utf-8").partition("## Guides\n")[2].partition("\n## ")[0]
    pages = {page.name for page in DOCS.iterdir() if page.suffix in (".md", ".rst") and page.stem != "index"}
    assert sorted(re.findall(r"(?m)^\| \[.+\]\(docs/([\w.-]+)\) \| .+ \|$", section)) == sorted(pages)


def test_all_six_questions_are_asked() -> None:
    assert [line[3] for line in CHOOSING.splitlines() if re.match(r"## \d\. .*\?$", line)] == list("123456")


@pytest.mark.parametrize(("facts", "table"), ROWS)
def test_2016_and_today(facts: str, table: str) -> None:
    known = read_facts(yaml.safe_load(facts))
    answers = [recommend({}, known, policy(name)).choices for name in ("chapter-2016", "current")]
    for line in table.splitlines():
        name, *said = [part.strip() for part in line.strip("|").split("|")]
        words = [CHOICES[name].words(answer[name].value) for answer in answers]
        assert [word.replace("PVE's default", "-") for word in words] == said


def test_the_rules_in_the_page_load_and_their_conditions_are_read() -> None:
    text = policy_table.page()
    (example,) = re.findall(r"(?ms)^```yaml\npolicy_rules:\n(.*?)^```", text)
    rules: list[dict[str, Any]] = yaml.safe_load(example)
    loaded = load_policy("current", rules)
    assert loaded.rules["thin-discard"].severity == "warning"
    assert "ssd" not in loaded.rules
    section = text.partition("of which this is used")[2].partition("`!=`")[0]
    written = re.findall(r"(?m)^\| (?:`` (.*?) ``|``(.*?) ``|`([^`]*?)`) \|", section)
    conditions = [next(filter(None, groups)) for groups in written]
    assert len(conditions) >= 10
    for condition in conditions:
        load_policy("current", [{"id": "a", "when": condition, "sets": {"backup": True}, "because": "Try."}])
