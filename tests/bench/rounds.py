# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured, and how it is told."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Rounds:
    """The seconds of each contestant, round by round."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name].append(seconds)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def line(self, name: str, text: str) -> str:
        times = sorted(self.seconds[name])
        return f"  {text:<66} {self.median(name):8.2f} s   ({times[0]:.2f} to {times[-1]:.2f})"


def aim(text: str, value: float, limit: float, *, at_least: bool = False, unit: str = "x") -> None:
    reached = value >= limit if at_least else value <= limit
    words = f"{'at least' if at_least else 'at most'} {limit:g}{unit}"
    print(f"  -> {text:<63} {value:8.2f}{unit}   aim: {words}, {'reached' if reached else 'MISSED'}")
