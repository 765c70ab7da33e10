# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What the guest does in one trial, and what its frames say. Pure."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from .._core.errors import ParseError
from .drive_options import guest_device
from .fio import JOB_FILE, jobs, measured
from .workloads import TABLE

if t.TYPE_CHECKING:
    from .combination import Combination
    from .fio import Measured
    from .plan import Settings, Trial

#: Waits for the disk of the drive, which may come some time after the module of its controller.
WAIT: t.Final = """tries=0
while [ ! -b /dev/DEVICE ] && [ $tries -lt 600 ]; do sleep 0.1; tries=$((tries + 1)); done
"""
_SCRIPT: t.Final = """echo "$(uname -r)" > /tmp/frame
cat /sys/block/DEVICE/queue/write_cache >> /tmp/frame
send ready /tmp/frame
for workload in WORKLOADS; do
    fio --output-format=json --output=/tmp/out "/job/$workload/JOB" > /tmp/err 2>&1
    status=$?
    echo "$workload $status" > /tmp/frame
    if [ $status = 0 ]; then cat /tmp/out >> /tmp/frame; else cat /tmp/err /tmp/out >> /tmp/frame 2>/dev/null; fi
    send result /tmp/frame
done
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one workload gave: a measurement, or why there is none."""

    workload: str
    measured: Measured | None
    error: str = ""


def script(trial: Trial) -> str:
    """The job of a trial, for the guest's shell."""
    text = (WAIT + _SCRIPT).replace("DEVICE", guest_device(trial.combination))
    return text.replace("WORKLOADS", " ".join(trial.workloads)).replace("JOB", JOB_FILE)


def files(trial: Trial, settings: Settings) -> dict[str, str]:
    """The files of the job, by their names in ``/job``."""
    found: dict[str, str] = {}
    for name in trial.workloads:
        device, where = f"/dev/{guest_device(trial.combination)}", f"/job/{name}"
        made = jobs(TABLE[name], device, settings.seconds, settings.ramp, settings.size, where)
        found |= {f"{name}/{file}": text for file, text in made.items()}
    return found


def outcome(text: str) -> Outcome:
    """What a frame of the kind ``result`` says."""
    head, _newline, rest = text.partition("\n")
    name, _space, status = head.partition(" ")
    if status != "0":
        said = " ".join(rest.split())[:500] or "nothing"
        return Outcome(name, None, f"fio ended with status {status} and said: {said}")
    try:
        return Outcome(name, measured(json.loads(rest[rest.find("{") :]), TABLE[name]))
    except (ParseError, ValueError) as error:
        return Outcome(name, None, str(error))


def expected_write_cache(combination: Combination) -> str:
    """What a guest sees of the disk's write cache: none with the two modes that write through.

    With ``-drive``, QEMU itself takes this from the cache mode; with ``-blockdev``, PVE says ``write-cache``.
    """
    return "write through" if combination.cache in ("writethrough", "directsync") else "write back"
