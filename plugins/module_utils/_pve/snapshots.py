# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads, takes and removes guests' snapshots, and goes back to them."""

from __future__ import annotations

import contextlib
import typing as t
from types import MappingProxyType

from .._core.errors import DiskwrightError
from .._core.guest import Guest
from .._core.snapshot import Entry, SnapshotFacts, SnapshotWish, Step, find_step, name_refusals, same_hardware
from . import tasks
from .client import ApiError, path
from .reads import Surroundings, read_again, read_snapshots
from .tasks import Deadline, TaskFailedError, TaskOutcome, Upid

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .client import Client

_SNAPSHOT_TASKS = frozenset({"qmsnapshot", "qmdelsnapshot", "qmrollback"})
#: Tasks that leave a stopped guest's disks and configuration as they are.
_HARMLESS_TASKS = frozenset({"vncproxy", "spiceproxy", "vzdump", "qmdelsnapshot"})
_LAST_TASKS = 50


def read_facts(client: Client, guest: Guest, wish: SnapshotWish) -> SnapshotFacts:
    """What planning a wish needs, and no more."""
    entries, parent = read_entries(client, guest)
    facts = SnapshotFacts(guest, entries, parent)
    if name_refusals(guest.label, wish):
        return facts
    if wish.state == "rolled_back" and parent == wish.name and facts.find(wish.name):
        facts = SnapshotFacts(guest, entries, parent, untouched=_is_untouched(client, guest, wish.name))
    step = find_step(facts, wish)
    if step is Step.TAKE and not _is_possible(client, guest):
        storages, chained = _storages(client, guest)
        return SnapshotFacts(guest, entries, parent, possible=False, storages=storages, chained=chained)
    if step is Step.ROLL_BACK:
        volumes = {one.name: one.volumes for one in read_snapshots(client, guest)}
        storages, chained = _storages(client, guest) if len(volumes) > 1 else ({}, frozenset())
        return SnapshotFacts(
            guest, entries, parent, storages=storages, chained=chained, volumes=MappingProxyType(volumes)
        )
    return facts


def read_entries(client: Client, guest: Guest) -> tuple[tuple[Entry, ...], str | None]:
    """The snapshots, oldest first, and the one that the guest's present state goes back to."""
    rows = client.get(_where(guest))
    entries = [_entry(row) for row in rows if row["name"] != "current"]
    parent = next((row.get("parent") for row in rows if row["name"] == "current"), None)
    return tuple(sorted(entries, key=lambda entry: (entry.time, entry.name))), parent


def _entry(row: Mapping[str, t.Any]) -> Entry:
    return Entry(
        name=str(row["name"]),
        parent=row.get("parent"),
        time=int(row.get("snaptime") or 0),
        vmstate=bool(row.get("vmstate")),
        description=str(row.get("description") or ""),
        incomplete=str(row.get("snapstate") or ""),
    )


def _where(guest: Guest, *more: str) -> str:
    return path("nodes", guest.node, "qemu", guest.vmid, "snapshot", *more)


def _is_possible(client: Client, guest: Guest) -> bool:
    answer = client.get(path("nodes", guest.node, "qemu", guest.vmid, "feature"), {"feature": "snapshot"})
    return bool(answer.get("hasFeature"))


def _storages(client: Client, guest: Guest) -> tuple[Mapping[str, t.Any], frozenset[str]]:
    """The storages of the guest's node, and the names of those with volume chains."""
    seen = Surroundings(client, may_use_paths=False).storages(guest.node)
    chained = [str(row["storage"]) for row in client.get(path("storage")) if _is_on(row, "snapshot-as-volume-chain")]
    return seen, frozenset(chained)


def _is_on(row: Mapping[str, t.Any], name: str) -> bool:
    return str(row.get(name) or "0") in ("1", "True", "true")


def _is_untouched(client: Client, guest: Guest, name: str) -> bool:
    """Whether nothing can have happened since the guest, which goes back to this snapshot, was rolled back to it.

    Nothing in PVE says what a guest has written since. It can't have written if it is stopped, its configuration is the
    snapshot's, and no task of any user has touched it since the rollback, which one must be allowed to see.
    """
    if guest.running or guest.changed_keys:
        return False
    node = path("nodes", guest.node)
    if "Sys.Audit" not in client.get(path("access", "permissions"), {"path": node}).get(node, {}):
        return False
    now = client.get(path("nodes", guest.node, "qemu", guest.vmid, "config"))
    if not same_hardware(now, client.get(_where(guest, name, "config"))):
        return False
    rows = client.get(f"{node}/tasks", {"vmid": guest.vmid, "source": "all", "limit": _LAST_TASKS})
    kinds = [(row["type"], row.get("status")) for row in rows if row["type"] not in _HARMLESS_TASKS]
    return bool(kinds) and kinds[0] == ("qmrollback", "OK")


def wait_until_settled(client: Client, guest: Guest, deadline: Deadline) -> bool:
    """Wait for snapshot jobs of the guest that are under way. :returns: whether there were any."""
    found = [upid for upid in tasks.active(client, guest.node, guest.vmid) if Upid.parse(upid).kind in _SNAPSHOT_TASKS]
    for upid in found:
        with contextlib.suppress(TaskFailedError):
            tasks.wait(client, upid, deadline)
    return bool(found)


def carry_out(client: Client, guest: Guest, wish: SnapshotWish, step: Step, deadline: Deadline) -> TaskOutcome:
    """Take, describe or remove a snapshot, or go back to it.

    :raises ApiError, TaskFailedError, TaskTimeoutError: see :func:`tasks.run`.
    """
    return tasks.insist(
        lambda: _request(client, guest, wish, step, deadline),
        lambda: _reached(client, guest, wish, step),
        lambda: wait_until_settled(client, guest, deadline),
        deadline,
    )


def _request(client: Client, guest: Guest, wish: SnapshotWish, step: Step, deadline: Deadline) -> TaskOutcome:
    if step is Step.TAKE:
        fields = {"snapname": wish.name, "description": wish.description, "vmstate": wish.vmstate or None}
        return tasks.run(client, "POST", _where(guest), fields, deadline)
    if step is Step.DESCRIBE:
        return tasks.run(client, "PUT", _where(guest, wish.name, "config"), {"description": wish.description}, deadline)
    if step is Step.DELETE:
        return tasks.run(client, "DELETE", _where(guest, wish.name), None, deadline)
    fields = {"start": wish.start or None}
    return tasks.run(client, "POST", _where(guest, wish.name, "rollback"), fields, deadline)


def _reached(client: Client, guest: Guest, wish: SnapshotWish, step: Step) -> bool:
    if step is Step.ROLL_BACK:
        return False  # done once more it does no harm, and nothing tells whether it was done
    entries, parent = read_entries(client, guest)
    return find_step(SnapshotFacts(guest, entries, parent), wish) is None


def check_after(client: Client, guest: Guest, wish: SnapshotWish) -> tuple[Guest, tuple[Entry, ...], str | None]:
    """The guest and its snapshots once a step is done, and whether it is as wished.

    :raises DiskwrightError: it is not.
    """
    entries, parent = read_entries(client, guest)
    there = any(entry.name == wish.name and not entry.incomplete for entry in entries)
    if there == (wish.state == "absent") or (wish.state == "rolled_back" and parent != wish.name):
        raise DiskwrightError(
            f"{guest.label}: PVE says that it is done, and its list of snapshots says otherwise: "
            f"{', '.join(entry.name for entry in entries) or 'none'}; present state from {parent or 'none'}"
        )
    return read_again(client, guest), entries, parent


__all__ = ["ApiError", "carry_out", "check_after", "read_entries", "read_facts", "wait_until_settled"]
