# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Least privilege, by trying: each job with the privileges that the table names, and without each one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from e2e import rights
from e2e.kit import Outcome
from e2e.rights import JOBS, Try
from lab import Lab
from tools.checkout import TOP

LEAST = [Try(rights.FIRST + number, job, tuple(job["privileges"])) for number, job in enumerate(JOBS)]
WITHOUT = [
    (missing, Try(2 * rights.FIRST + 10 * number + place, job, tuple(p for p in job["privileges"] if p != missing)))
    for number, job in enumerate(JOBS)
    for place, missing in enumerate(job["privileges"])
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with rights.started([*LEAST, *(one for _missing, one in WITHOUT)]) as lab:
        yield lab


def state(lab: Lab, vmid: int) -> dict[str, Any]:
    """All there is of a guest."""
    numbers = f"{vmid}|{vmid + rights.GIVER}"
    volumes = sorted(volume for volume in lab.volumes() if re.search(rf"\bvm-({numbers})-", volume))
    config = {key: value for key, value in lab.config(vmid).items() if key != "digest"}
    running = lab.guest(vmid).running is not None
    files = sorted(file.name for file in lab.file("local:iso/debian.iso").parent.iterdir() if str(vmid) in file.name)
    return {"config": config, "pending": lab.pending(vmid), "volumes": volumes, "running": running, "files": files}


@pytest.mark.parametrize("one", LEAST, ids=lambda one: one.job["name"])
def test_enough(one: Try, lab: Lab) -> None:
    outcome = one.run(lab)
    assert outcome.failure is None
    assert outcome.changed is not one.job.get("unchanged", False)
    again = one.run(lab)
    assert (again.failure, again.changed) == (None, False)


@pytest.mark.parametrize(("missing", "one"), WITHOUT, ids=lambda value: getattr(value, "job", {"name": value})["name"])
def test_one_less_is_named_and_nothing_is_half_done(missing: str, one: Try, lab: Lab) -> None:
    before = state(lab, one.vmid)
    outcome = one.run(lab)
    assert outcome.failure is not None
    # Who may not see a storage at all is told of the privilege that most jobs need.
    names = {missing, "Datastore.AllocateSpace"} if missing == "Datastore.Audit" else {missing}
    assert any(name in outcome.failure for name in names), outcome.failure
    assert state(lab, one.vmid) == before
    # What PVE checks only when it is tried may come after a shutdown; then the guest was started again.
    if isinstance(outcome, Outcome):
        steps = [step["action"] for step in outcome.guests[0]["actions"] if step["state"] == "done"]
        assert steps in ([], ["shutdown"])


def needed(usual: bool) -> set[str]:
    return {privilege for job in JOBS if job.get("usual", False) is usual for privilege in job["privileges"]}


def test_readme_proposes_what_is_needed() -> None:
    readme = TOP / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md yet")
    roles = re.findall(r'pveum role add \S+ --?privs "?([^"\n]+)"?', readme.read_text())
    assert roles, "README.md does not say how to make a role"
    assert set(re.split(r"[,\s]+", roles[0].strip())) == needed(usual=True)
    for privilege in needed(usual=False) - needed(usual=True):
        assert f"`{privilege}`" in readme.read_text()
