# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Which rights a migration needs, and which of them the user lacks: all in one list, before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .._core.guest import Guest
from .._core.power import agent_enabled
from .note import Journal
from .situation import Wishes, boot_slot

#: Rights by path, as PVE tells them.
Held = Mapping[str, frozenset[str]]

_ON_GUEST = ("VM.Audit", "VM.Config.CDROM", "VM.Config.Disk", "VM.Config.HWType", "VM.Config.Options", "VM.PowerMgmt")


@dataclass(frozen=True, slots=True)
class Need:
    """A right that is needed.

    :param path: of the object, as in PVE's access control lists.
    :param others: rights of which PVE takes each instead.
    :param note: what is to be known about its name.
    """

    path: str
    right: str
    others: tuple[str, ...] = ()
    note: str = ""

    def is_met(self, held: Held) -> bool:
        """Whether the user has it."""
        return bool({self.right, *self.others} & held.get(self.path, frozenset()))


def paths(guest: Guest, wishes: Wishes) -> tuple[str, ...]:
    """The paths whose rights matter."""
    return tuple(dict.fromkeys(need.path for need in _needs(guest, wishes, snapshot=True, online=True)))


def lacking(
    held: Held | None, guest: Guest, wishes: Wishes, *, online: bool, journal: Journal | None = None
) -> str:
    """What the user lacks, in words; empty for nothing.

    :param held: ``None`` when nobody has asked.
    :param online: whether Windows is to install the driver itself, from an ISO and for a temporary disk.
    :param journal: of a migration that is under way.
    """
    snapshot = bool(journal.snapshot) if journal else wishes.snapshot != "never"
    needed = _needs(guest, wishes, snapshot=snapshot, online=online)
    return _in_words(need for need in needed if held is not None and not need.is_met(held))


def may_ask(held: Held | None, guest: Guest) -> bool:
    """Whether the user may ask the guest's agent."""
    return held is None or _agent(guest).is_met(held)


def may_read(held: Held | None, iso: str) -> bool:
    """Whether the user may look at an ISO."""
    return held is None or _medium(iso).is_met(held)


def _needs(guest: Guest, wishes: Wishes, *, snapshot: bool, online: bool) -> Iterator[Need]:
    where = f"/vms/{guest.vmid}"
    yield from (Need(where, right) for right in _ON_GUEST)
    if snapshot:
        yield Need(where, "VM.Snapshot")
    if agent_enabled(guest):
        yield _agent(guest)
    boot = boot_slot(guest)
    if online and boot is not None:
        yield Need(f"/storage/{guest.configured.drives[boot].storage}", "Datastore.AllocateSpace")
    if online and wishes.iso is not None:
        yield _medium(wishes.iso)


def _agent(guest: Guest) -> Need:
    """Source: qemu-server 9.2.6, ``PVE/API2/Qemu/Agent.pm``."""
    note = "before Proxmox VE 9 VM.Monitor"
    return Need(f"/vms/{guest.vmid}", "VM.GuestAgent.Unrestricted", ("VM.Monitor",), note)


def _medium(iso: str) -> Need:
    """Source: pve-storage 9.1.7, ``PVE/Storage.pm``, check_volume_access."""
    others = ("Datastore.Allocate", "Datastore.Audit")
    return Need(f"/storage/{iso.partition(':')[0]}", "Datastore.AllocateSpace", others)


def _in_words(needs: Iterable[Need]) -> str:
    """``VM.PowerMgmt, VM.Snapshot on /vms/122 and Datastore.AllocateSpace on /storage/local``."""
    by_path: dict[str, list[str]] = {}
    for need in needs:
        names = by_path.setdefault(need.path, [])
        text = f"{need.right} ({need.note})" if need.note else need.right
        if text not in names:
            names.append(text)
    return " and ".join(f"{', '.join(names)} on {where}" for where, names in by_path.items())
