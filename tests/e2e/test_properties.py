# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""For any guest and any declaration: what was planned is what happens, once, and nothing is lost on the way."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.report import plan_text
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.plan import Plan
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.projection import differences
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.converge import Job
from e2e import rig
from e2e.guests import ISO, MIB, Case, Expected, cases
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lab import Lab
from lab.drives import parse_drive

GUESTS = 8
EXAMPLES = 12
CLUSTER = st.tuples(*(cases(vmid) for vmid in range(100, 100 + GUESTS)))
LVM = ("local-lvm", "thick", "thickchain")


# Without shrinking: a cluster takes seconds, and a failure names its guest.
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(CLUSTER)
def test_what_is_planned_is_what_happens(cluster: tuple[Case, ...]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        rig.started(
            Path(folder), [case.seed for case in cluster], files={"samples": ["local"], ISO: {"text": "iso"}}
        ) as lab,
    ):
        _check(lab, cluster)


def _check(lab: Lab, cluster: tuple[Case, ...]) -> None:
    watch = rig.Watch(lab)
    layouts = [rig.declared(case.declaration, allow_destroy=case.allow_destroy) for case in cluster]
    before = {case.vmid: rig.configured(lab, case.vmid) for case in cluster}
    contents = rig.contents(lab)
    checked = rig.prepared(lab, *layouts)
    assert lab.writes() == [], "planning has written"
    run = rig.converged(lab, *layouts)
    for case, only_planned, job in zip(cluster, checked.jobs, run.jobs, strict=True):
        with _naming(case, job):
            _check_same_plan(only_planned, job)
            if job.failed:
                _check_refused(lab, case, job, before[case.vmid])
            else:
                _check_done(lab, case, job, before[case.vmid])
    assert watch.seen == []
    _check_contents(lab, cluster, run.jobs, contents)
    rig.assert_settled(lab, *(layout for layout, job in zip(layouts, run.jobs, strict=True) if not job.failed))


@contextmanager
def _naming(case: Case, job: Job) -> Iterator[None]:
    """A failure tells of the guest that it is about."""
    try:
        yield
    except AssertionError as error:
        planned = plan_text(job.plan) if job.plan else "no plan"
        error.add_note(f"{case.seed}\n{case.declaration}\n{planned}{job.messages}")
        raise


# ---- (c): the plan of check mode is the plan of the run, and its calls are those that were sent


def _check_same_plan(only_planned: Job, job: Job) -> None:
    assert only_planned.plan is not None
    assert job.plan is not None
    assert plan_text(only_planned.plan) == plan_text(job.plan)
    assert only_planned.plan.calls == job.plan.calls
    assert job.outcome is None or job.outcome.error is None
    assert only_planned.messages == job.messages


def _check_refused(lab: Lab, case: Case, job: Job, before: dict[str, str]) -> None:
    assert job.plan is not None
    assert job.plan.refusals, f"{job.messages} after {job.plan.calls}"
    assert rig.sent(lab.requests, case.vmid) == []
    assert rig.configured(lab, case.vmid) == before


def _check_done(lab: Lab, case: Case, job: Job, before: dict[str, str]) -> None:
    plan = job.plan
    assert plan is not None
    _check_calls(plan, rig.sent(lab.requests, case.vmid))
    assert (job.outcome is not None) == plan.changed
    if job.outcome is not None:
        assert tuple(job.outcome.done) == plan.actions
        assert not [text for text in job.outcome.warnings if "planned anew" in text]
        assert job.outcome.guest is not None
        assert differences(plan.after.configured, job.outcome.guest.configured) == ()
        assert differences(plan.after.live, job.outcome.guest.live) == ()
        assert plan.after.running == job.outcome.guest.running == bool(lab.guest(case.vmid).running)
        assert plan.after.changed_keys == job.outcome.guest.changed_keys
    after = rig.configured(lab, case.vmid)
    _check_slots(lab, case, before, after)
    assert after.get("description") == before.get("description")
    if "boot" in case.declaration:
        assert after["boot"] == f"order={';'.join(case.declaration['boot'])}"


def _check_calls(plan: Plan, sent: list[tuple[str, dict[str, str]]]) -> None:
    """Call for call; the names of new volumes are known only to PVE."""
    assert len(sent) == len(plan.calls), sent
    for call, (_what, parameters) in zip(plan.calls, sent, strict=True):
        for key, value in call.parameters:
            pattern = re.escape(value).replace(re.escape("(new)"), r"[^,]+")
            assert re.fullmatch(pattern, parameters[key], re.DOTALL), (key, value, parameters)
        extra = parameters.keys() - dict(call.parameters).keys()
        assert extra <= {"timeout", "bwlimit"}, extra


# ---- (a): what the declaration says is what the lab has


def _check_slots(lab: Lab, case: Case, before: dict[str, str], after: dict[str, str]) -> None:
    for slot in case.gone - case.slots.keys():
        assert slot not in after or slot.startswith("unused")
    for slot, expected in case.slots.items():
        if expected.medium is not None:
            assert rig.volume_in(after, slot) == expected.medium
        else:
            _check_disk(lab, slot, after[slot], expected)
    named = {entry["slot"] for entry in case.declaration["disks"]} | case.gone
    for slot, text in before.items():
        if parse_slot(slot) and slot not in named:
            assert after[slot] == text
    unknown = [slot for slot in after if parse_slot(slot) and slot not in named and slot not in before]
    assert unknown == []


def parse_slot(key: str) -> bool:
    return bool(re.fullmatch(r"(scsi|virtio|sata|ide)\d+", key))


def _check_disk(lab: Lab, slot: str, text: str, expected: Expected) -> None:
    drive = parse_drive(slot, text)
    assert drive is not None
    assert drive.file.partition(":")[0] == expected.storage
    assert rig.first_bytes(lab, drive.file).rstrip(b"\0\n").decode() == expected.mark
    for name, value in expected.options.items():
        assert TABLE[name].same(drive.options.get(name), value), (slot, name, text)
    assert set(drive.options) <= set(expected.options), text
    assert not set(expected.without) & set(drive.options)
    rounded = expected.storage in LVM and expected.format == "raw"
    assert drive.size in (expected.size, -(-(expected.size or 0) // (4 * MIB)) * 4 * MIB if rounded else expected.size)
    format_, size = rig.image_info(lab, drive.file)
    assert format_ == expected.format
    spare = 4 * MIB if rounded else 1
    assert expected.size is not None
    assert expected.size <= size < expected.size + spare


# ---- (d): nothing is lost


def _check_contents(lab: Lab, cluster: tuple[Case, ...], jobs: list[Job], before: dict[str, bytes]) -> None:
    after = rig.contents(lab)
    for case, job in zip(cluster, jobs, strict=True):
        given_up = set() if job.failed else case.destroyed
        for disk in case.disks:
            if disk.volume in given_up:
                with _naming(case, job):
                    assert after.get(disk.volume) != before[disk.volume], disk.volume  # the name may be given anew
            else:
                with _naming(case, job):
                    assert after.get(disk.volume) == before[disk.volume], disk.volume
