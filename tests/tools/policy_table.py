# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/policy.md from the policies' tables: `python tests/tools/policy_table.py`.

The rules and facts are data; tests/unit/_policy/test_guides.py fails when the page does not say what they say.
"""

from __future__ import annotations

import re
import sys
import typing as t
from collections.abc import Iterable, Iterator
from pathlib import Path

if t.TYPE_CHECKING:
    from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.choices import Decision
    from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rule import Rule

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "policy.md"

HEAD = """\
<!--
SPDX-FileCopyrightText: The diskwright.proxmox authors
SPDX-License-Identifier: GPL-3.0-or-later

Made by tests/tools/policy_table.py from the tables of rules and facts; do not edit.
-->
# The policies, rule by rule

A policy looks at what is known about a guest, its storage and what you need, and chooses what you have left open about
a disk: bus, controller, format, cache mode and I/O options. Each choice names the rule that made it, the reason, who
says so, and what it rejected. There are two:

- `current` is what Proxmox VE 8 and 9 recommend, and what follows from their source.
- `chapter-2016` is the advice of the book chapter that this collection began with, as it stood. [2016 and
  today](2016-and-today.md) compares the two.

The modules take `policy`, `policy_rules` and `facts`; the filters `recommend` and `explain` ask a policy anywhere in a
template. [Which disk should I choose?](choosing.md) goes through the questions one by one.

## How a choice is made

Choices are made in the order of the table below. All rules whose condition holds are looked at. The one with the
highest rank wins, unless a rule of its rank or a higher one forbids its value; then the next one wins. Hard constraints
have the rank 100 and are never overridden. What you have decided stays as it is: what a hard constraint has against it
is a conflict, what another rule has against it is an objection.

What nobody knows is unknown, and no rule takes that for a no.

"""

YOURS = """
## Rules of your own

```yaml
policy_rules:
  - id: archive-writeback
    when: need.workload == 'archive' && contains(['nfs', 'cifs'], storage.type)
    sets: {cache: writeback}
    because: Our file servers are slow, and what is lost of an archive in a crash is copied once more.
  - id: no-databases-on-nfs
    when: need.workload == 'database' && storage.type == 'nfs'
    forbids: {format: [qcow2]}
    because: Internal snapshots on NFS have blocked a database for minutes.
    source: ticket 4711
    severity: danger
  - id: thin-discard
    severity: warning
  - disable: [ssd]
```

| key | what |
|---|---|
| `id` | a name of letters, digits, dots and hyphens. With the name of a rule of the policy, the keys that you give \
replace that rule's |
| `when` | the condition, or `true` |
| `sets` | choices and their values, as in `proxmox_disks`; null leaves a choice to Proxmox VE |
| `forbids` | choices and lists of values that are ruled out |
| `because` | the reason, a sentence |
| `source` | who says so |
| `rank` | 0 to 99, by default 90: above all rules of the policies |
| `since`, `until` | the first and the last version of Proxmox VE that it is for |
| `severity` | how bad an existing disk is that breaks it: `info`, `warning` (default) or `danger` |
| `disable` | alone in its entry: ids of rules of the policy that are not to be used |

A condition is written in [JMESPath](https://jmespath.org), of which this is used:

| write | holds when |
|---|---|
| `need.snapshots` | the fact is true |
| ``need.snapshots == `false` `` | the fact is false |
| `storage.type == 'dir'` | the fact has this value |
| ``guest.machine_version < `10.0` `` | the number is lower; there are `<=`, `>` and `>=` too |
| `contains(['dir', 'nfs'], storage.type)` | the fact has one of these values |
| `lacks(['dir', 'nfs'], storage.type)` | the fact is known, and has none of these values |
| `contains(storage.formats, 'qcow2')` | the list holds the value |
| `lacks(storage.formats, 'qcow2')` | the list is known, and does not hold the value |
| ``storage.medium == `null` `` | nobody knows the fact |
| `chosen.bus == 'scsi'` | that was chosen; only for choices that are made before |
| `fixed.aio == 'native'` | you or the existing disk have decided so |
| `… && …`, `… \\|\\| …`, `(…)` | and, or |

`!=` and `!` are refused, because they would hold for what nobody knows. Rules are checked when they are loaded: an
error names the rule, where it stands, and what to write. Two rules of the same rank that choose differently in the
same case are an error too, and it names such a case.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def code(text: str) -> str:
    """A text as code, also when it has backticks of its own."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    columns = list(head)
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"
    yield ""


def outcome(rule: Rule, choices: t.Mapping[str, Decision]) -> str:
    """What a rule sets and forbids, in the spelling of an inventory."""
    parts = [f"`{name}: {choices[name].words(value)}`" for name, value in rule.sets.items() if value is not None]
    parts += [f"`{name}` left to Proxmox VE" for name, value in rule.sets.items() if value is None]
    for name, values in rule.forbids.items():
        words = [choices[name].words(value) for value in values]
        quoted = [f"`{name}: {word}`" if word != "PVE's default" else f"no `{name}`" for word in words]
        parts.append(f"not {', '.join(quoted)}")
    return "; ".join(parts)


def condition(rule: Rule) -> str:
    return "always" if rule.when == "`true`" else code(rule.when)


def source(rule: Rule) -> str:
    bounds = f" Since {rule.since}." if rule.since else ""
    bounds += f" Until {rule.until}." if rule.until else ""
    return f"{rule.source}.{bounds}".replace("*", "\\*")


def why(rule: Rule) -> str:
    """The reason, with the facts that it tells as code."""
    return " ".join([rule.because, *([re.sub(r"\{(.*?)\}", r"`\1`", rule.details)] if rule.details else [])])


def rules_table(rules: Iterable[Rule], choices: t.Mapping[str, Decision]) -> Iterator[str]:
    rows = (
        (
            f"**{rule.id}**<br>rank {rule.rank}",
            condition(rule),
            outcome(rule, choices),
            f"{why(rule)}<br>*{source(rule)}*",
        )
        for rule in rules
    )
    yield from table(("rule", "when", "then", "why, and who says so"), rows)


def policy_text(name: str, rules: tuple[Rule, ...], choices: t.Mapping[str, Decision]) -> Iterator[str]:
    """The rules of a policy, by the first choice that they have a say in, the strongest last."""
    yield f"## The policy `{name}`\n"
    for choice in choices:
        deciding = [rule for rule in rules if next(one for one in choices if one in rule.decides) == choice]
        if deciding:
            about = choices[choice].about
            yield f"({name}-{choice})=\n### `{choice}`: {about}\n"
            yield from rules_table(deciding, choices)


def facts_text() -> Iterator[str]:
    from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import FACTS

    yield "## The facts\n"
    yield "Every fact may also be written as `unknown`, which is the same as leaving it out.\n"
    rows = (
        (f"`{fact.path}`", fact.about, ", ".join(fact.choices) or fact.allowed, fact.origin, fact.unknown)
        for fact in FACTS.values()
    )
    yield from table(("fact", "what", "values", "who knows it", "if nobody does"), rows)


def page() -> str:
    """The text of the page."""
    from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.choices import CHOICES
    from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rules import CONSTRAINTS, POLICIES

    rows = ((f"`{row.name}`", row.about, ", ".join(map(row.words, row.values))) for row in CHOICES.values())
    lines = [HEAD.rstrip("\n"), "", *table(("choice", "what", "values"), rows), YOURS.strip("\n"), ""]
    lines += facts_text()
    lines += ["## Hard constraints\n", "What Proxmox VE or QEMU refuses, or silently does not do.\n"]
    lines += rules_table(CONSTRAINTS, CHOICES)
    for name, rules in POLICIES.items():
        lines += policy_text(name, rules, CHOICES)
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    """Write the page."""
    sys.path.insert(0, str(ROOT / ".cache" / "collections"))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
