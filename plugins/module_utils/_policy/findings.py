# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A finding of an audit: what about one guest is not as it should be, why, and what would mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .._core.guest import Guest
from .._core.slot import Slot

#: What a host declares to mend a finding: variables of the inventory, as the role guest_disks reads them.
Mend = Mapping[str, object]
#: Facts about a guest, in their groups.
GuestFacts = Mapping[str, Mapping[str, object]]
_RANK = MappingProxyType({"danger": 0, "warning": 1, "info": 2})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one guest.

    :param slot: the slot, or what else of the guest is meant (``scsihw``, ``boot``).
    :param option: the option, or what kind of thing it is (``volume``, ``restart``).
    :param actual: what the guest has.
    :param recommended: what it should have, ``""`` where only a person can say.
    :param severity: ``danger``, ``warning`` or ``info``.
    :param mend: what to write into the inventory, ``None`` where a declaration can't mend it.
    :param bytes: space that it is about, where it is about space.
    :param decides: facts that nobody knows and that, if they held, would let a declaration mend it.
    """

    vmid: int
    guest: str
    node: str
    slot: str
    option: str
    actual: str
    recommended: str
    rule: str
    severity: str
    reason: str
    source: str
    since: str = ""
    mend: Mend | None = None
    bytes: int | None = None
    decides: GuestFacts | None = None

    @property
    def rank(self) -> tuple[int, int, str, str, str]:
        """What findings are sorted by: the worst first, then by guest and slot."""
        return _RANK[self.severity], self.vmid, self.slot, self.option, self.rule


@dataclass(frozen=True, slots=True)
class Place:
    """What a finding is about, before it is known what is wrong."""

    guest: Guest
    slot: str
    option: str
    actual: str = ""
    recommended: str = ""
    mend: Mend | None = None
    bytes: int | None = None
    decides: GuestFacts | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why something is wrong, on whose authority, and how bad it is."""

    rule: str
    severity: str
    reason: str
    source: str
    since: str = ""


def finding(place: Place, verdict: Verdict) -> Finding:
    """Put the two together."""
    guest = place.guest
    return Finding(
        guest.vmid,
        guest.name,
        guest.node,
        place.slot,
        place.option,
        place.actual,
        place.recommended,
        verdict.rule,
        verdict.severity,
        verdict.reason,
        verdict.source,
        verdict.since,
        place.mend,
        place.bytes,
        place.decides,
    )


def mend_disk(slot: Slot | str, options: Mapping[str, object]) -> Mend:
    """The declaration that changes one slot."""
    return {"proxmox_disks": {str(slot): dict(options)}}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an audit knows besides the guests.

    :param sizes: of unused volumes by volume id, in bytes, as far as they are known.
    :param pve_version: of the cluster, 9.2 for instance, ``None`` when it is not known.
    """

    sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    pve_version: float | None = None
