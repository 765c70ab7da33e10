# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``guest_disks``: from its parameters to its result."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._core.errors import DiskwrightError, ParseError, Refusal
from .._core.layout import Layout, read_layout
from .._policy.facts import read_facts
from .._pve.converge import Convergence
from .._pve.executor import Limits
from .policy import make_adviser
from .report import diff_text, guest_result, summary
from .runner import Result

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .._pve.client import Client

_FOR_ONE = ("vmid", "name", "node", "disks", "scsihw", "boot", "undeclared", "power", "revert_leftovers")


class GuestDisks:
    """Declares the disks of one guest or of many, and converges them."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        limits = Limits(task_timeout=float(params["task_timeout"]), bwlimit=params["bwlimit"])
        defaults = Layout(
            undeclared=params["undeclared"],
            power=params["power"],
            revert_leftovers=params["revert_leftovers"],
            allow_destroy=params["allow_destroy"],
        )
        if params["concurrency"] < 1:
            raise DiskwrightError(f"concurrency={params['concurrency']}: at least one guest is changed at a time")
        if limits.task_timeout <= 0:
            raise DiskwrightError(f"task_timeout={params['task_timeout']}: a task takes time; write seconds above 0")
        if limits.bwlimit is not None and limits.bwlimit < 0:
            raise DiskwrightError(f"bwlimit={limits.bwlimit}: write KiB per second, or 0 for no limit")
        declared = params["guests"]
        if declared is None:
            declared = [{name: params[name] for name in _FOR_ONE}]
        self._policy = params["policy"]
        self._run = Convergence(
            client,
            [_read(guest, defaults) for guest in declared],
            limits,
            concurrency=params["concurrency"],
            adviser=make_adviser(params, client),
        )

    def prepare(self) -> None:
        """Read and plan."""
        self._run.prepare()

    def execute(self) -> None:
        """Carry the plans out."""
        self._run.execute()

    def result(self, *, executed: bool) -> Result:
        """Every guest's outcome."""
        jobs = self._run.jobs
        guests = [guest_result(job, executed=executed) for job in jobs]
        return Result(
            data={"guests": guests},
            changed=any(guest["changed"] for guest in guests),
            failure=summary(jobs, executed=executed) if any(job.failed for job in jobs) else None,
            diff=diff_text(jobs, self._policy),
            warnings=[text for guest in guests for text in guest["warnings"]],
        )


def _read(guest: Mapping[str, t.Any], defaults: Layout) -> tuple[Layout, tuple[Refusal, ...]]:
    """One guest's declaration, with what it says for a policy."""
    layout, refusals = read_layout(guest, defaults)
    facts = guest.get("facts") or {}
    try:
        read_facts(facts)
    except ParseError as error:
        wrong = Refusal(layout.label, "", "facts", "", str(error).replace("\n", "; "), "correct it")
        return layout, (*refusals, wrong)
    return replace(layout, facts=facts), refusals
