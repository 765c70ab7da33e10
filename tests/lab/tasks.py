# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks: UPIDs, logs, exit statuses, and the calls that read them.

fakepve runs a task as a coroutine of its event loop. The lab's tasks call qemu-img and wait for locks, so each one
is a thread; the rest (UPID, status, list) has fakepve's shape with what the transcripts add to it.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.api import ApiError, Call, Route, TaskLog, Work, bad, exit_status
from lab.clock import Naps
from lab.storages import StorageError

if TYPE_CHECKING:
    from lab.cluster import Cluster

UPID = re.compile(r"UPID:[^:\s]+:[0-9A-Fa-f]{8}:[0-9A-Fa-f]{8,9}:[0-9A-Fa-f]{8}:[^:\s]+:[^:\s]*:[^:\s]+:")


@dataclass
class Task:
    """One task, running or ended."""

    upid: str
    node: str
    pid: int
    start: int
    kind: str
    identity: str
    user: str
    naps: Naps
    log: TaskLog = field(default_factory=TaskLog)
    end: int | None = None
    exit: str | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def row(self) -> dict[str, Any]:
        """The fields that status and list have in common."""
        user, _, token = self.user.partition("!")
        row = {"upid": self.upid, "node": self.node, "pid": self.pid, "pstart": self.pid * 7, "starttime": self.start,
               "type": self.kind, "id": self.identity, "user": user}
        return {**row, "tokenid": token} if token else row


class Tasks:
    """The tasks of the cluster, oldest first."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pids = itertools.count(1000)
        self._tasks: dict[str, Task] = {}
        self._lock = threading.Lock()

    def start(self, node: str, kind: str, identity: str, user: str, work: Work) -> str:
        """Runs `work` in a thread of its own and returns the UPID."""
        self._cluster.faults.worker(kind)
        pid, start = next(self._pids), int(time.time())
        upid = f"UPID:{node}:{pid:08X}:{pid * 7:08X}:{start:08X}:{kind}:{identity}:{user}:"
        task = Task(upid, node, pid, start, kind, identity, user, self._cluster.clock.naps())
        with self._lock:
            self._tasks[upid] = task
        threading.Thread(target=self._run, args=(task, work), name=f"{kind} {identity}", daemon=True).start()
        return upid

    def _run(self, task: Task, work: Work) -> None:
        ended = "lab: a mistake of its own"
        try:
            with self._cluster.clock.watched(task.naps), self._cluster.faults.task(task.kind):
                work(task.log)
            ended = f"WARNINGS: {task.log.warnings}" if task.log.warnings else "OK"
        except (ApiError, StorageError) as error:
            ended = exit_status(error)
        finally:
            if mistake := sys.exception():
                self._cluster.crash(mistake)
            worked = ended == "OK" or ended.startswith("WARNINGS: ")
            task.log(f"TASK {ended}" if worked else f"TASK ERROR: {ended}")
            task.exit, task.end = ended, int(time.time())
            task.done.set()

    def get(self, node: str, upid: str) -> Task:
        """The task of a UPID, or PVE's 500."""
        task = self._tasks.get(upid)
        if task is None or task.node != node:
            raise bad(upid="no such task" if UPID.fullmatch(upid) else "unable to parse worker upid")
        return task

    def on(self, node: str) -> list[Task]:
        """The tasks of a node, newest first."""
        with self._lock:
            return [task for task in reversed(self._tasks.values()) if task.node == node]

    def wait(self, upid: str, seconds: float = 60) -> str:
        """Waits for the end of a task (real seconds) and returns its exit status; for tests inside the process."""
        task = self._tasks[upid]
        if not task.done.wait(seconds):
            raise TimeoutError(f"{upid} still runs after {seconds} s")
        return str(task.exit)

    def ends_within(self, task: Task, seconds: float) -> bool:
        """Waits for the end of a task as long as it does not sleep for so many PVE seconds."""
        while not task.done.wait(0.01):
            if task.naps.elapsed >= seconds:
                return False
        return True

    def settle(self, seconds: float = 60) -> None:
        """Waits until no task runs."""
        for task in list(self._tasks.values()):
            task.done.wait(seconds)


def _owner(call: Call, task: Task) -> bool:
    return call.user in (task.user, task.user.partition("!")[0])


def _visible(call: Call) -> Task:
    task = call.cluster.tasks.get(call.node, str(call.values["upid"]))
    if not _owner(call, task):
        call.check(f"/nodes/{call.node}", "Sys.Audit")
    return task


def _status(call: Call) -> dict[str, Any]:
    task = _visible(call)
    if task.exit is None:
        return {**task.row(), "status": "running"}
    return {**task.row(), "status": "stopped", "exitstatus": task.exit}


def _log(call: Call) -> list[dict[str, Any]]:
    lines = list(_visible(call).log.lines)
    start, limit = int(call.values.get("start", 0)), int(call.values.get("limit", 50))
    call.extra["total"] = len(lines)
    rows = [{"n": number, "t": text} for number, text in enumerate(lines, 1)]
    return rows[start:start + limit] if limit else rows[start:]


def _wanted(call: Call, task: Task) -> bool:
    values = call.values
    if "vmid" in values and task.identity.partition("@")[0] != str(values["vmid"]):
        return False
    if values.get("errors") and task.exit in (None, "OK"):
        return False
    if values.get("typefilter") and task.kind != values["typefilter"]:
        return False
    if values.get("source") == "active" and task.exit is not None:
        return False
    if values.get("source", "archive") == "archive" and task.exit is None:
        return False
    return not values.get("userfilter") or str(values["userfilter"]) in task.user


def _list(call: Call) -> list[dict[str, Any]]:
    audit = call.allowed(f"/nodes/{call.node}", "Sys.Audit")
    rows = []
    for task in call.cluster.tasks.on(call.node):
        if (audit or _owner(call, task)) and _wanted(call, task):
            ended = {"endtime": task.end, "status": task.exit} if task.exit is not None else {}
            rows.append({**task.row(), **ended})
    start, limit = int(call.values.get("start", 0)), int(call.values.get("limit", 50))
    call.extra["total"] = len(rows)
    return rows[start:start + limit]


def _stop(call: Call) -> None:
    task = call.cluster.tasks.get(call.node, str(call.values["upid"]))
    if not _owner(call, task):
        call.check(f"/nodes/{call.node}", "Sys.Modify")


TASKS = "/nodes/{node}/tasks"
ROUTES = [
    Route("GET", TASKS, _list, quick=True),
    Route("GET", TASKS + "/{upid}/status", _status, quick=True),
    Route("GET", TASKS + "/{upid}/log", _log, quick=True),
    Route("DELETE", TASKS + "/{upid}", _stop),
]
