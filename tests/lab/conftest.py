# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says at the end how much of the recordings the lab answers alike."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Adds up what test_replay noted, in whichever process it ran."""
    total = alike = 0
    reasons: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "lab_steps" and report.when == "call":
                    total, alike = total + value[0], alike + value[1]
                    reasons.update(value[2])
    if total:
        terminalreporter.section("lab replay")
        terminalreporter.write_line(f"{alike} of {total} steps alike, {sum(reasons.values())} left out:")
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"  {count}: {reason}")
