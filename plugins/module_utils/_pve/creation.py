# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Makes a guest that is not there, without disks. One that is there is only looked at."""

from __future__ import annotations

import contextlib
import time
import typing as t
from dataclasses import dataclass

from .._core.definition import Definition, Difference, find_differences
from .._core.errors import DiskwrightError, Refusal
from . import tasks
from .client import ApiError, path
from .reads import Cluster, GuestEntry

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .client import Client

#: How often the next free number is asked for anew because somebody else took it in between.
_MOST_NUMBERS = 50
#: How often, and how many seconds apart, it looks for a guest whose creation was not answered.
_LOOKS, _PAUSE = 5, 1.0


class GuestRefusedError(DiskwrightError):
    """The guest can't be made as declared; holds every reason."""

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        self.refusals = refusals
        super().__init__("\n".join(str(refusal) for refusal in refusals))


@dataclass(frozen=True, slots=True)
class Made:
    """What there is in the end.

    :param vmid: its number; where nothing was made because of check mode, the one that it would get now.
    :param created: whether it was not there before.
    :param different: what the guest has otherwise than declared, by option; never of one that is new.
    """

    vmid: int
    name: str
    node: str
    created: bool
    different: dict[str, Difference]


class Creation:
    """One guest's way into a cluster.

    :param definition: without mistakes.
    :param task_timeout: seconds for the task that makes it.
    """

    def __init__(self, client: Client, definition: Definition, task_timeout: float) -> None:
        self._client = client
        self._definition = definition
        self._timeout = task_timeout
        self._entry: GuestEntry | None = None
        self._next: int | None = None
        self.made: Made | None = None

    def prepare(self) -> None:
        """Look whether the guest is there, and if it is not, whether it can be made.

        :raises GuestRefusedError: it can't, with every reason.
        :raises DiskwrightError: several guests have its name, or one is left half made.
        """
        self._entry = self._find(Cluster(self._client))
        if self._entry is None:
            refusals = tuple(self._against())
            if refusals:
                raise GuestRefusedError(refusals)
            vmid = self._definition.vmid or self._free_number()
            self.made = Made(vmid, self._definition.name or "", self._definition.node, True, {})
        else:
            self.made = self._compared(self._entry)

    def execute(self) -> None:
        """Make the guest, unless it is there."""
        if self._entry is None:
            deadline = tasks.Deadline(self._timeout)
            vmid = self._create(deadline)
            self._check_alone(vmid)
            self.made = Made(vmid, self._definition.name or f"VM {vmid}", self._definition.node, True, {})

    # ---- looking

    def _find(self, cluster: Cluster) -> GuestEntry | None:
        found = self._search(cluster)
        if not found:
            cluster.ask_nodes()
            found = self._search(cluster)
        if len(found) > 1:
            where = ", ".join(f"{entry.vmid} on {entry.node}" for entry in found)
            raise DiskwrightError(f"{self._definition.label}: several guests have this name ({where}); give the vmid")
        return found[0] if found else None

    def _search(self, cluster: Cluster) -> list[GuestEntry]:
        wanted = self._definition
        if wanted.vmid is not None:
            entry = cluster.guests.get(wanted.vmid)
            return [entry] if entry else []
        return [entry for entry in cluster.guests.values() if entry.name == wanted.name]

    def _compared(self, entry: GuestEntry) -> Made:
        config = self._whole(entry)
        name = config.get("name", entry.name)
        wanted = self._definition
        if wanted.name is not None and wanted.name != name:
            raise DiskwrightError(
                f"{wanted.label}: {entry.vmid} is called {name}; correct name, or give another number"
            )
        different = find_differences(wanted, config)
        if wanted.node != entry.node:
            different["node"] = Difference(wanted.node, entry.node)
        if wanted.pool is not None and not self._is_in_pool(wanted.pool, entry.vmid):
            different["pool"] = Difference(wanted.pool, entry.pool)
        return Made(entry.vmid, name, entry.node, False, different)

    def _is_in_pool(self, pool: str, vmid: int) -> bool:
        """Asked of the pool itself: the cluster's list may be 10 s old."""
        try:
            members = self._client.get(path("pools", pool))["members"]
        except ApiError as error:
            if error.unreachable:
                raise
            return False
        return any(row.get("vmid") == vmid for row in members)

    def _whole(self, entry: GuestEntry) -> dict[str, str]:
        """The configuration of a guest that nobody is just making.

        :raises DiskwrightError: the task that should have made it never ran, or was killed.
        """
        config = self._config(entry)
        if config.get("lock") != "create":
            return config
        for upid in tasks.active(self._client, entry.node, entry.vmid):
            with contextlib.suppress(tasks.TaskFailedError):
                tasks.wait(self._client, upid, tasks.Deadline(self._timeout))
        config = self._config(entry)
        if config.get("lock") != "create":
            return config
        raise DiskwrightError(
            f"{entry.vmid} on {entry.node} is left half made (lock: create), and no task is at work on it; as root on "
            f"{entry.node}: qm unlock {entry.vmid} && qm destroy {entry.vmid}, and run again"
        )

    def _config(self, entry: GuestEntry) -> dict[str, str]:
        config = self._client.get(path("nodes", entry.node, "qemu", entry.vmid, "config"))
        return {str(key): str(value) for key, value in config.items()}

    def _against(self) -> Iterator[Refusal]:
        """What speaks against making it, as far as PVE can be asked before."""
        wanted = self._definition
        nodes = {str(row["node"]): str(row.get("status")) for row in self._client.get(path("nodes"))}
        if wanted.node not in nodes:
            remedy = f"write one of {', '.join(sorted(nodes))}"
            yield self._refusal("node", wanted.node, "there is no such node", remedy)
        elif nodes[wanted.node] != "online":
            yield self._refusal("node", wanted.node, f"it is {nodes[wanted.node]}", "write one that is online")
        if wanted.pool is not None:
            pools = sorted(str(row["poolid"]) for row in self._client.get(path("pools")))
            if wanted.pool not in pools:
                remedy = f"write one of {', '.join(pools)}, or leave it out" if pools else "make it, or leave it out"
                yield self._refusal("pool", wanted.pool, "there is none that the user may see", remedy)
        if wanted.vmid is not None and self._is_taken(wanted.vmid):
            problem = "it is taken by a container, or by a guest that the user may not see (right VM.Audit)"
            yield self._refusal("vmid", str(wanted.vmid), problem, "give another number")

    def _refusal(self, option: str, value: str, problem: str, remedy: str) -> Refusal:
        return Refusal(self._definition.label, "", option, value, problem, remedy)

    def _is_taken(self, vmid: int) -> bool:
        try:
            self._client.get(path("cluster", "nextid"), {"vmid": vmid})
        except ApiError as error:
            if error.status == 400:  # noqa: PLR2004
                return True
            raise
        return False

    def _free_number(self) -> int:
        return int(self._client.get(path("cluster", "nextid")))

    # ---- making

    def _create(self, deadline: tasks.Deadline) -> int:
        """Make it and return its number; a number that somebody else took in between is given up for the next."""
        for _number in range(_MOST_NUMBERS):
            vmid = self._definition.vmid or self._free_number()
            try:
                self._try(vmid, deadline)
            except ApiError as error:
                if self._definition.vmid is None and "already exists" in error.text:
                    continue
                raise
            return vmid
        raise DiskwrightError(f"{self._definition.label}: others take each free number first; run again")

    def _try(self, vmid: int, deadline: tasks.Deadline) -> None:
        wanted = self._definition
        params: dict[str, object] = {"vmid": vmid, **wanted.texts}
        params |= {key: text for key, text in (("name", wanted.name), ("pool", wanted.pool)) if text}
        try:
            tasks.run(self._client, "POST", path("nodes", wanted.node, "qemu"), params, deadline)
        except ApiError as error:
            if not error.lost or not self._appears(vmid):
                raise

    def _appears(self, vmid: int) -> bool:
        """Whether the guest is there although its creation was not answered; waits until it is whole."""
        for number in range(_LOOKS):
            if number:
                time.sleep(_PAUSE)
            rows = self._client.get(path("nodes", self._definition.node, "qemu"))
            if any(int(row["vmid"]) == vmid for row in rows):
                entry = GuestEntry(vmid, self._definition.name or "", self._definition.node, False, False)
                config = self._whole(entry)
                return self._definition.name is None or config.get("name") == self._definition.name
        return False

    def _check_alone(self, vmid: int) -> None:
        """Names are not unique in PVE, so two runs at the same time may make a guest each.

        :raises DiskwrightError: that happened.
        """
        if self._definition.vmid is not None:
            return
        cluster = Cluster(self._client)
        cluster.ask_nodes()
        others = sorted(entry.vmid for entry in self._search(cluster) if entry.vmid != vmid)
        if others:
            raise DiskwrightError(
                f"{self._definition.label}: made as {vmid}, and another run has made {', '.join(map(str, others))} of "
                "the same name meanwhile; destroy all but one, or give the vmid"
            )
