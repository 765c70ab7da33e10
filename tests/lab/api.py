# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a handler of the lab gets and gives: calls, routes, task logs, errors.

A handler is a plain function `def handler(call: Call) -> data`. It runs in a worker thread after the request was
authenticated, checked against PVE's schema and against the schema's permission rule. It returns the `data` of the
answer or raises `ApiError` or `StorageError`. Longer work goes into a task: `return call.task("resize", vmid, work)`
with `def work(log: TaskLog) -> None`; what `work` raises becomes the task's exit status.

Modules list their handlers in a table `ROUTES`; `lab.server` puts the tables together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.cluster import Cluster
    from lab.guest import Guest
    from lab.storages import Storages


class ApiError(Exception):
    """An answer other than 200: PVE's status, its text without the newline, and the texts by parameter of a 400."""

    def __init__(self, message: str, status: int = 500, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.errors = errors


def bad(**fields: str) -> ApiError:
    """A 400 with a text for each parameter; write `target_vmid` for `target-vmid`."""
    return ApiError("Parameter verification failed.", 400, {k.replace("_", "-"): v for k, v in fields.items()})


def exit_status(error: Exception) -> str:
    """What a task that died of this error shows: 400 and 403 keep their number there; a newline becomes a blank."""
    message, status = str(getattr(error, "message", error)), getattr(error, "status", 500)
    if status != 500:
        fields = getattr(error, "errors", None) or {}
        message = "\n".join([f"{status} {message}", *(f"{key}: {text}" for key, text in sorted(fields.items()))])
    return message.replace("\n", " ")


class TaskLog:
    """The log of a task. Call it with a line; `warn` is PVE's log_warn, which also turns OK into WARNINGS."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings = 0

    def __call__(self, text: str) -> None:
        self.lines.extend(str(text).rstrip("\n").split("\n"))

    def warn(self, text: str) -> None:
        """A warning that the task's exit status counts."""
        self.warnings += 1
        self(f"WARN: {text}")


Work = Callable[[TaskLog], None]


@dataclass
class Call:
    """One checked request."""

    cluster: Cluster
    method: str
    template: str
    values: dict[str, Any]
    """The parameters, of path, query and form, as the schema's types."""
    user: str | None
    """`root@pam`, or `root@pam!token` when an API token was used."""
    upload: Path | None = None
    """The file of a multipart upload, complete, in the state folder; the handler moves it or it is deleted."""
    fields: list[str] = field(default_factory=list)
    """The names of the multipart fields in the order in which they came."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What the answer has beside `data`."""

    @property
    def node(self) -> str:
        """The node that the path names."""
        return str(self.values["node"])

    @property
    def storages(self) -> Storages:
        """The storages of that node."""
        return self.cluster.storages(self.node)

    @property
    def guest(self) -> Guest:
        """The guest that the path names, or PVE's 500."""
        return self.cluster.guest(int(self.values["vmid"]), self.node)

    @property
    def is_root(self) -> bool:
        """Only root's own login is `root@pam` for PVE, none of its tokens."""
        return self.user == "root@pam"

    def allowed(self, path: str, *privileges: str) -> bool:
        """Whether the caller has all of these privileges on the path."""
        return all(self.cluster.access.allowed(self.user or "", path, privilege) for privilege in privileges)

    def check(self, path: str, *privileges: str, any_of: bool = False) -> None:
        """403 in PVE's words unless the caller has all (`any_of`: one) of the privileges on the path."""
        missing = [p for p in privileges if not self.cluster.access.allowed(self.user or "", path, p)]
        if missing and not (any_of and len(missing) < len(privileges)):
            names = "|".join(privileges) if any_of else missing[0]
            raise ApiError(f"Permission check failed ({path}, {names})", 403)

    def task(self, kind: str, identity: str | int, work: Work) -> str:
        """Starts a task on the node of the call and returns its UPID."""
        return self.cluster.tasks.start(self.node, kind, str(identity), self.user or "root@pam", work)


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Route:
    """A method of PVE's API, by the path template of PVE's schema (`/nodes/{node}/qemu/{vmid}/config`)."""

    method: str
    template: str
    handler: Handler
    quick: bool = False
    """Answered by the event loop itself: for reads of memory that never wait."""
    early: Handler | None = None
    """Runs before the parameters are checked, for the few calls where PVE looks at something else first."""
