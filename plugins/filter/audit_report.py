# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a cluster's findings to what a report on them says."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Mapping
from functools import lru_cache

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.yaml import yaml_dump

from ..module_utils._core.errors import ParseError
from ..module_utils._core.plain import plain
from ..module_utils._policy.report_data import report_data
from ..module_utils._policy.report_text import csv_text, escaped, page_json

if t.TYPE_CHECKING:
    from collections.abc import Callable


def audit_report(cluster: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What a report on the result of ``guest_disks_info`` says."""
    try:
        report = report_data(plain(cluster), _yaml)
    except ParseError as error:
        raise AnsibleFilterError(f"diskwright.proxmox.audit_report: {error}") from error
    return {
        **report,
        "csv": csv_text(report["findings"]),
        "json": json.dumps(report, indent=1),
        "page": page_json(report),
        "escaped": escaped({name: report[name] for name in ("summary", "rules", "nodes", "storages", "formats")}),
    }


def _yaml(data: t.Any) -> str:
    return _dumped(json.dumps(data))


@lru_cache(maxsize=4096)  # what mends a thousand guests is the same few declarations, and writing YAML takes its time
def _dumped(data: str) -> str:
    style = {"default_flow_style": False, "sort_keys": False, "allow_unicode": True, "width": 1000}
    return str(yaml_dump(json.loads(data), **style))


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """What Ansible asks for."""
        return {"audit_report": audit_report}
