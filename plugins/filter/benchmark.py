# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the results of a benchmark to what a report says, to a comparison, and to facts for a policy."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ..module_utils._bench.compare import compare_results
from ..module_utils._bench.measurements import measurements
from ..module_utils._bench.pictures import pictures
from ..module_utils._bench.report import comparison_data, report_data
from ..module_utils._bench.results import load
from ..module_utils._core.errors import DiskwrightError, ParseError
from ..module_utils._core.plain import plain
from ..module_utils._policy.report_text import escaped

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def benchmark_report(results: Mapping[str, t.Any], charts: bool = True) -> dict[str, t.Any]:
    """What a report on the results of ``disk_benchmark`` says."""
    try:
        found = load(plain(results))
        report = report_data(found)
        drawn = pictures(found) if charts else {}
    except DiskwrightError as error:
        raise AnsibleFilterError(f"diskwright.proxmox.benchmark_report: {error}") from error
    return {**report, "charts": drawn, "escaped": escaped(report)}


def benchmark_compare(
    after: Mapping[str, t.Any], before: Mapping[str, t.Any], places: Mapping[str, str] | None = None
) -> dict[str, t.Any]:
    """What is the same in two benchmarks, held against each other."""
    try:
        pairs = {str(name): str(other) for name, other in (places or {}).items()}
        found = comparison_data(compare_results(load(plain(before), "before"), load(plain(after), "after"), pairs))
    except ParseError as error:
        raise AnsibleFilterError(f"diskwright.proxmox.benchmark_compare: {error}") from error
    return {**found, "escaped": escaped(found)}


def benchmark_measurements(results: Sequence[Mapping[str, t.Any]] | Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The facts for a policy, below ``storages``."""
    documents = [results] if isinstance(results, Mapping) else list(results)
    try:
        loaded = sorted((load(plain(one)) for one in documents), key=lambda one: one.started)
    except ParseError as error:
        raise AnsibleFilterError(f"diskwright.proxmox.benchmark_measurements: {error}") from error
    storages = {
        place: {"measurements": facts}
        for one in loaded
        for place, facts in measurements(one).items()
        if not place.startswith("/")  # a folder is no storage that a policy asks about
    }
    return {"storages": storages}


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """What Ansible asks for."""
        return {
            "benchmark_report": benchmark_report,
            "benchmark_compare": benchmark_compare,
            "benchmark_measurements": benchmark_measurements,
        }
