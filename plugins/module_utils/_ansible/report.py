# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a run says: data for playbooks, lines for people. Nothing here decides anything."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, replace

from .._core.actions import Move, Resize

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .._core.actions import Action, Line
    from .._core.guest import Hardware
    from .._core.plan import Plan
    from .._pve.converge import Job

_SIGNS_NOTICED = "?"
# Details stand in a column of their own, unless a change takes so many words that the column would be far away.
_WIDEST = 48


def state_of(hardware: Hardware) -> dict[str, str]:
    """A hardware state as PVE writes it: slot or key to text."""
    state = {str(slot): str(drive) for slot, drive in hardware.drives.items()}
    state.update({str(slot): volume for slot, volume in hardware.unused.items()})
    state.update({str(slot): text for slot, text in hardware.unreadable.items()})
    for key in ("boot", "bootdisk", "scsihw"):
        value = getattr(hardware, key)
        if value is not None:
            state[key] = str(value)
    return state


def guest_result(job: Job, *, executed: bool) -> dict[str, t.Any]:
    """One guest's part of a module's result.

    :param executed: whether the plans were carried out, or check mode stopped before that.
    """
    plan, outcome = job.plan, job.outcome
    result: dict[str, t.Any] = {
        "vmid": job.layout.vmid if job.guest is None else job.guest.vmid,
        "name": job.layout.name if job.guest is None else job.guest.name,
        "changed": bool(outcome.done if outcome else plan and plan.changed and not executed),
        "failed": job.failed,
        "actions": _actions(job, executed=executed),
        "errors": list(job.messages),
        "warnings": [
            *(job.advice.warnings if job.advice else ()),
            *(plan.warnings if plan else ()),
            *(outcome.warnings if outcome else ()),
        ],
    }
    if job.guest is None or plan is None:
        return result
    after = outcome.guest if outcome and outcome.guest else plan.after
    result |= {
        "node": job.guest.node,
        "status": plan.before.state,
        "before": state_of(job.guest.configured),
        "after": state_of(after.configured),
        "restart_required": sorted(plan.restart_required),
        "undeclared": [str(slot) for slot in plan.undeclared],
        "unused": {str(slot): volume for slot, volume in after.configured.unused.items()},
        "leftovers": list(plan.leftovers),
    }
    if job.advice is not None:
        result["recommended"] = [asdict(one) for one in job.advice.filled]
    if outcome and outcome.upid:
        result["upid"] = outcome.upid
    return result


def _actions(job: Job, *, executed: bool) -> list[dict[str, str]]:
    if job.outcome is None:
        state = "planned"
        return [_action(action, state) for action in (job.plan.actions if job.plan and not executed else ())]
    outcome = job.outcome
    planned = list(job.plan.actions if job.plan else ())
    states = ((outcome.done, "done"), (outcome.failed, "failed"), (outcome.remaining, "remaining"))
    return [_action(_as_planned(planned, action), state) for actions, state in states for action in actions]


def _as_planned(planned: list[Action], action: Action) -> Action:
    """The step as it was planned at first, taken off the list, or itself when it came up on the way.

    After each call the rest is planned anew from what PVE has. That may word a step in another way ("net0 ide0 ->"
    instead of "net0 ->", once PVE has appended a new CD-ROM drive to the boot order), and check mode could not know.
    """
    for index, step in enumerate(planned):
        if (step.verb, step.slot) == (action.verb, action.slot):
            return planned.pop(index)
    return action


def _action(action: Action, state: str) -> dict[str, str]:
    line = t.cast("Line", action.line)
    summary = ", ".join(part for part in (line.what, line.detail) if part)
    return {"action": action.verb, "slot": str(action.slot or ""), "summary": summary, "state": state}


def diff_text(jobs: Iterable[Job], policy: str = "") -> str:
    """The plans of the guests that have something to do, for ``--diff``; empty when none has."""
    shown = [job for job in jobs if job.plan is not None and _has_lines(job.plan)]
    return "\n".join(plan_text(t.cast("Plan", job.plan), _rules(job, policy)) for job in shown)


def _rules(job: Job, policy: str) -> dict[str, str]:
    """The rules behind what a policy has filled in, by slot: ``(current: database-raw, thin-discard)``."""
    found: dict[str, list[str]] = {}
    for one in job.advice.filled if job.advice else ():
        found.setdefault(one.slot or one.option, []).append(one.rule)
    return {slot: f"({policy}: {', '.join(dict.fromkeys(rules))})" for slot, rules in found.items()}


def _has_lines(plan: Plan) -> bool:
    return plan.changed or (plan.report_undeclared and bool(plan.undeclared))


def plan_text(plan: Plan, rules: Mapping[str, str] | None = None) -> str:
    """One guest's plan for people, the same with and without check mode.

    :param rules: what is said of the rules behind a slot's options.
    """
    guest = plan.before
    rows = [
        (line.sign, line.subject, line.what, _details(plan, action, line, rules or {})) for action, line in _lines(plan)
    ]
    first = max((len(slot) for _sign, slot, _what, _detail in rows), default=0)
    second = max((len(what) for _sign, _slot, what, detail in rows if detail and len(what) <= _WIDEST), default=0)
    lines = [f"{guest.name or guest.vmid} ({guest.vmid} on {guest.node}, {guest.state})"]
    lines += [f"  {sign} {slot:<{first}}  {what:<{second}}  {detail}".rstrip() for sign, slot, what, detail in rows]
    fate = "detached" if any(action.verb == "detach" for action in plan.actions) and plan.report_undeclared else "kept"
    gone = {action.slot for action in plan.actions if action.verb == "detach"}
    lines += [
        f"  {_SIGNS_NOTICED} {slot} is not declared: {fate if slot in gone else 'kept'}" for slot in plan.undeclared
    ]
    return "\n".join(lines) + "\n"


def _lines(plan: Plan) -> Iterator[tuple[Action | None, Line]]:
    """The lines of a plan, each with its step; what PVE does to the boot order by itself has none."""
    for action in plan.actions:
        if isinstance(action, Move) and action.loss is not None:
            yield action, replace(action.line, detail="")
            yield action, action.loss
        elif action.line is not None:
            yield action, action.line
    if plan.boot_line is not None:
        yield None, plan.boot_line


def _details(plan: Plan, action: Action | None, line: Line, rules: Mapping[str, str]) -> str:
    """What stands behind a step: its own words, whether it waits, and which rules chose its options."""
    copies = isinstance(action, (Resize, Move))  # these act at once, whatever else of the slot waits
    waits = "" if copies else _waiting_slots(plan).get(line.subject, "")
    chosen = "" if copies else rules.get(line.subject, "")
    return "   ".join(part for part in (_joined(line.detail, waits), chosen) if part)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _waiting_slots(plan: Plan) -> dict[str, str]:
    """Slots whose change a running guest takes up only later."""
    touched = {str(action.slot) for action in plan.actions if action.slot} | {"scsihw", "boot"}
    keys = {key.partition(".")[0] for key in plan.restart_required}
    return dict.fromkeys(touched & keys, "takes effect at the next start")


def summary(jobs: Iterable[Job], *, executed: bool) -> str:
    """Why a run failed, every guest's every reason.

    :param executed: whether the plans were carried out, or check mode stopped before that.
    """
    all_jobs = list(jobs)
    failed = [job for job in all_jobs if job.failed]
    reasons = [message for job in failed for message in job.messages]
    if len(all_jobs) == 1:
        return "\n".join(reasons)
    well = [job for job in all_jobs if not job.failed]
    changed = sum(bool(job.outcome.done if job.outcome else job.plan and job.plan.changed) for job in well)
    verb = ("was" if changed == 1 else "were") if executed else "would be"
    kept = f"{len(well) - changed} {'is' if len(well) - changed == 1 else 'are'} as declared"
    counts = f"{len(failed)} of {len(all_jobs)} guests failed, {changed} {verb} changed, {kept}."
    return "\n".join([counts, *reasons])
