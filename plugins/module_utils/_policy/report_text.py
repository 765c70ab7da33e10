# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The texts of a report: names and values on one line, tables for spreadsheets, data for the page."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence

Row = dict[str, t.Any]

_COLUMNS = "severity vmid name node slot option actual recommended rule reason source since".split()
_DRIVE = ("slot", "storage", "what", "volume", "options")
_FINDING = ("slot", "option", "actual", "recommended", "reason", "decision", "note")
# What YAML takes for a text without quotes, and no YAML for anything else.
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[A-Za-z][\w.-]*", re.ASCII | re.IGNORECASE)
# Control characters, and those that turn the direction of a text around: a name must not pose as another.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]+")


def one_line(value: t.Any) -> str:
    """A text on one line, with what can't be seen replaced by a space; empty for ``None``."""
    return "" if value is None else _UNPRINTABLE.sub(" ", f"{value}")


def value_text(value: t.Any) -> str:
    """An option's value as Proxmox VE writes it; empty for one that is not set."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(inner) for inner in value)
    if isinstance(value, Mapping):
        return option_text(value)
    return one_line(value)


def option_text(options: Mapping[str, t.Any]) -> str:
    """Options as Proxmox VE writes them."""
    return ", ".join(f"{one_line(name)}={value_text(value)}" for name, value in options.items())


def flow_text(value: t.Any) -> str:
    """Data as YAML on one line: ``proxmox_disks: {unused0: {state: absent}}``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_flow(name)}: {_flow(inner)}" for name, inner in value.items())
    return _flow(value)


def _flow(value: t.Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{flow_text(value)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_flow(inner) for inner in value)}]"
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def counted(number: int, word: str) -> str:
    """``1 guest``, ``1,000 guests``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def csv_text(findings: Iterable[Mapping[str, t.Any]]) -> str:
    """The findings as a table for spreadsheets, which would take a text that begins like a formula for one."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows([_cell(finding[column]) for column in _COLUMNS] for finding in findings)
    return file.getvalue().rstrip("\n")


def _cell(value: t.Any) -> t.Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


class _Texts(dict[str, int]):
    """Each text once, by number: a thousand guests have few different ones."""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number


def page_json(report: Mapping[str, t.Any]) -> str:
    """The guests and findings as the page reads them, in lists whose order ``audit.js`` knows.

    Nothing in it can end the script element that holds it.
    """
    texts = _Texts()
    rules = {(rule["severity"], rule["rule"]): number for number, rule in enumerate(report["rules"])}
    data = {
        "rules": [[rule["rule"], rule["severity"], rule["source"], rule["since"]] for rule in report["rules"]],
        "copies": [rule["declaration"] for rule in report["rules"]],
        "guests": [_page_guest(guest, rules, texts) for guest in report["guests"]],
        "texts": list(texts),
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&"})


def escaped(value: t.Any) -> t.Any:
    """The same with every text as HTML shows it, in content and in quoted attributes."""
    if isinstance(value, Mapping):
        return {name: escaped(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [escaped(inner) for inner in value]
    return html.escape(value) if isinstance(value, str) else value


def _page_guest(guest: Row, rules: Mapping[tuple[str, str], int], texts: _Texts) -> list[t.Any]:
    facts = {
        "Controller": guest["controller"],
        "Boot order": ", ".join(guest["boot"]),
        "Pool": guest["pool"],
        "Tags": ", ".join(guest["tags"]),
        "Waits for a restart": ", ".join(guest["restart_required"]),
    }
    drives = [[drive[name] for name in _DRIVE] for drive in guest["drives"]]
    for slot, volume in guest["unused"].items():
        drives.append([slot, volume.partition(":")[0], "unused volume", volume, ""])
    return [
        guest["vmid"],
        guest["name"],
        texts[guest["node"]],
        texts[guest["status"]],
        guest["disks"],
        guest["bytes"],
        texts[guest["size"]],
        texts[guest["error"]],
        [[texts[name], texts[text]] for name, text in facts.items() if text],
        [[texts[text] for text in drive] for drive in drives],
        [_page_finding(finding, rules, texts) for finding in guest["findings"]],
        texts[guest["declaration"]],
    ]


def _page_finding(finding: Row, rules: Mapping[tuple[str, str], int], texts: _Texts) -> list[int]:
    rule = rules[finding["severity"], finding["rule"]]
    return [rule, int(bool(finding["mend"])), *(texts[finding[name]] for name in _FINDING)]
