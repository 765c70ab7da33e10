# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guests of findings.yml, each of which shows one thing that an audit finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

GIVEN = ("slot", "option", "actual", "recommended", "severity", "mend")


@dataclass(frozen=True)
class Case:
    """One guest, what is said of it, and what is found."""

    vmid: int
    rule: str
    config: dict[str, str]
    finding: dict[str, Any]
    case: str = ""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    seed: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}: {self.case}" if self.case else self.rule


def cases(vmid: int | None = None) -> list[Case]:
    """The cases.

    :param vmid: the number of every guest; by default they are counted from 100.
    """
    text = Path(__file__).with_name("findings.yml").read_text("utf-8")
    rows = yaml.safe_load(text)
    numbers = [vmid or 100 + index for index in range(len(rows))]
    return [Case(number, **_numbered(row, number)) for number, row in zip(numbers, rows, strict=True)]


def _numbered(value: Any, vmid: int) -> Any:
    if isinstance(value, dict):
        return {_numbered(key, vmid): _numbered(inner, vmid) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbered(inner, vmid) for inner in value]
    return value.replace("ID", str(vmid)) if isinstance(value, str) else value
