# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The charts of a report: for each workload what it is judged by, and its latencies beside that."""

from __future__ import annotations

import typing as t

from .charts import Axis, Line, chart
from .results import Results
from .statistics import LOSES_DATA, Analysis, Cell, Series, analyse
from .words import Labels, three_digits, time_text
from .workloads import Workload

_MIB: t.Final = 1024**2
_LATENCY: t.Final = Axis("latency of one operation, logarithmic: median, 95 %, 99 %, 99.9 %", time_text)


def pictures(results: Results) -> dict[str, str]:
    """By workload, as SVG; a workload that was never measured has none.

    :raises DiskwrightError: matplotlib is missing.
    """
    analysis, labels = analyse(results), Labels(results.combinations)
    return {row.id: drawn for row in results.rows if (drawn := _drawn(analysis, row, labels))}


def _drawn(analysis: Analysis, workload: Workload, labels: Labels) -> str:
    cells = [cell for cell in analysis.cells.values() if cell.workload == workload]
    cells.sort(key=lambda cell: -cell.speed.median)
    if not cells:
        return ""
    what = {"iops": "operations in a second", "bandwidth": "MiB in a second", "latency": "median latency"}
    title = f"{what[workload.measures]}, {'more' if workload.more_is_better else 'less'} is better"
    unit = _MIB if workload.measures == "bandwidth" else 1
    noise = _noise(analysis, workload)
    return chart(
        [_line(cell, labels, unit) for cell in cells],
        Axis(title, time_text if workload.measures == "latency" else three_digits),
        _LATENCY,
        None if noise is None else (noise[0] / unit, noise[1] / unit),
    )


def _line(cell: Cell, labels: Labels, unit: int) -> Line:
    series, one = Series(tuple(value / unit for value in cell.series.values)), cell.latency
    return Line(
        labels(cell.combination),
        series.median,
        series.quartiles,
        (min(series.values), max(series.values)),
        (one.p50, one.p95, one.p99, one.p999),
        cell.combination.cache == LOSES_DATA,
    )


def _noise(analysis: Analysis, workload: Workload) -> tuple[float, float] | None:
    """From where to where values can't be told from the best."""
    best = analysis.best(workload)
    noise = analysis.noise(best.combination.place, workload) if best else None
    if best is None or noise is None:
        return None
    return best.series.median / (1 + noise), best.series.median * (1 + noise)
