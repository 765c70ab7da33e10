# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a plan is made from and what it is: facts in, steps, refusals and warnings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .actions import Action, BootOrder, Call, Line
from .errors import Refusal
from .guest import Guest, Snapshot, Volume
from .slot import Slot
from .storage import Storage


@dataclass(frozen=True, slots=True)
class Giver:
    """Another guest that a declaration takes a disk from.

    :param guest: the guest as it is, or ``None`` when there is none to take a disk from.
    :param problem: why there is none, and what to do.
    :param snapshots: its snapshots, when they were needed.
    :param missing: rights that the user lacks for it, in words.
    """

    guest: Guest | None
    problem: tuple[str, str] | None = None
    snapshots: tuple[Snapshot, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one guest and its surroundings that a plan may depend on.

    :param storages: as the guest's node sees them, by name; ``None`` when they were not needed and not read.
    :param volumes: looked-up volumes by volume id; ``None`` for one that does not exist.
    :param listed: what the storages of volumes that do not exist have instead, by storage.
    :param snapshots: the guest's snapshots, when they were needed.
    :param may_use_paths: whether PVE will take absolute paths from this connection (only from a root@pam ticket).
    :param givers: the guests that the declaration takes disks from, as it names them.
    :param taken: slots whose drive another guest of the same run takes.
    """

    guest: Guest
    storages: Mapping[str, Storage] | None = None
    volumes: Mapping[str, Volume | None] = field(default_factory=lambda: MappingProxyType({}))
    snapshots: tuple[Snapshot, ...] = ()
    may_use_paths: bool = False
    listed: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    givers: Mapping[str, Giver] = field(default_factory=lambda: MappingProxyType({}))
    taken: frozenset[Slot] = frozenset()

    def snapshots_with(self, volume: str) -> tuple[str, ...]:
        """The names of the snapshots that name a volume."""
        return tuple(snapshot.name for snapshot in self.snapshots if volume in snapshot.volumes)


@dataclass(frozen=True, slots=True)
class Needs:
    """What has to be read besides the guest itself before it can be planned.

    :param volumes: volume ids to look up.
    """

    storages: bool = False
    volumes: frozenset[str] = frozenset()
    snapshots: bool = False

    def __bool__(self) -> bool:
        return self.storages or bool(self.volumes) or self.snapshots


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done to one guest, or why nothing will be.

    :param calls: in the order in which they are carried out; empty when there is nothing to do.
    :param refusals: reasons not to do it; with any of them nothing at all is written.
    :param after: the projection: what the guest will be when every call has succeeded.
    :param undeclared: slots that the layout does not mention.
    :param leftovers: what waits although nobody here asked for it, in words.
    :param restart_required: what the running guest will take up only at its next start.
    """

    before: Guest
    after: Guest
    calls: tuple[Call, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    undeclared: tuple[Slot, ...] = ()
    report_undeclared: bool = False
    leftovers: tuple[str, ...] = ()
    restart_required: frozenset[str] = frozenset()

    @property
    def actions(self) -> tuple[Action, ...]:
        """The steps of all calls that a user sees, in their order."""
        return tuple(action for action in self._all_actions() if action.line is not None)

    @property
    def boot_line(self) -> Line | None:
        """The boot order as PVE changes it by itself beside the steps, or ``None`` when it does not."""
        orders = [action.after for action in self.actions if isinstance(action, BootOrder)]
        shown = orders[-1] if orders else self.before.configured.boot
        after = self.after.configured.boot
        if after is None or after == shown:
            return None
        return replace(BootOrder(None, shown, after).line, detail="by PVE itself")

    def _all_actions(self) -> Iterator[Action]:
        for call in self.calls:
            yield from call.actions

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.calls)
