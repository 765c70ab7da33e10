# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The draft of a plan: what the decisions about each slot add to, before it is cut into calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from .actions import Action, BootOrder, Reassign
from .errors import Refusal
from .guest import Boot, Guest
from .journal import Journal, read_journal
from .layout import Disk, Layout
from .plan import Facts
from .slot import Slot, find_slot


@dataclass(slots=True)
class Draft:
    """Collects steps, refusals and warnings for one guest.

    :param guest: the guest to plan for; with ``power: stop_if_needed`` that is the guest as it is once shut down.
    :param stops: why the guest would have to be stopped: slot, option, value, reason.
    :param consumed: slots whose drive another step takes away, so that their own declaration has nothing left to do.
    """

    facts: Facts
    layout: Layout
    guest: Guest
    actions: list[Action] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stops: list[tuple[Slot | None, str, str, str]] = field(default_factory=list)
    consumed: set[Slot] = field(default_factory=set)

    @property
    def boot_to_note(self) -> Slot | None:
        """The slot of the empty boot order that comes from another guest: a run that is killed in between must know."""
        arriving = {str(action.slot) for action in self.actions if isinstance(action, Reassign)}
        for action in self.actions:
            if isinstance(action, BootOrder) and self.layout.boot is None and action.before == Boot():
                return next((find_slot(name) for name in action.after.devices if name in arriving), None)
        return None

    @property
    def journal(self) -> Journal:
        """What an earlier run has left under way."""
        return read_journal(self.guest.configured.description)

    def add(self, action: Action) -> None:
        """Plan a step."""
        self.actions.append(action)

    def refuse(self, slot: Slot | None, option: str, value: object, problem: str, remedy: str) -> None:
        """Refuse the whole plan for a reason."""
        text = "" if value is None else str(value)
        self.refusals.append(Refusal(self.guest.label, str(slot or ""), option, text, problem, remedy))

    def warn(self, slot: Slot | None, text: str) -> None:
        """Add a warning that names the guest and the slot."""
        self.warnings.append(f"{self.guest.label}: {f'{slot}: ' if slot else ''}{text}")

    def needs_stop(self, slot: Slot | None, option: str, value: object, reason: str) -> None:
        """Say that a step can't be done while the guest runs; nothing for a stopped guest."""
        if self.guest.running:
            self.stops.append((slot, option, "" if value is None else str(value), reason))

    def is_boot_disk(self, slot: Slot) -> bool:
        """Whether a running guest was started from this slot, or may have been: PVE won't unplug it."""
        live = self.guest.live
        listed = live.boot.devices if live.boot else ()
        return str(slot) in listed or live.bootdisk == str(slot)

    def declared(self, slot: Slot) -> Disk | None:
        """The declaration of a slot, or ``None``."""
        return self.layout.disk(slot)
