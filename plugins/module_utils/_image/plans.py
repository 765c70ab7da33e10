# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What is to be done about one order, decided from what is there; nothing is written here."""

from __future__ import annotations

import enum
import os
import typing as t
from dataclasses import dataclass, field

from . import guests, space
from .errors import ImageError
from .journal import Journal, Record
from .orders import DEFAULT_CLUSTER, Order, Verify, check_size, differences
from .places import FilePlace, Found, Place, VolumePlace

if t.TYPE_CHECKING:
    from .source import Source


class Action(enum.Enum):
    """What a conversion has to do."""

    #: The target is there, complete, and of this source.
    NOTHING = "none"
    #: The same, but whether it is still what was verified has to be read.
    REREAD = "reread"
    #: The same, but it was never verified, or not as strictly.
    VERIFY = "verify"
    #: Everything.
    CONVERT = "convert"
    #: What an earlier run did not come to.
    RESUME = "resume"
    #: Only the name is missing.
    NAME = "name"


@dataclass(slots=True)
class Plan:
    """What is to be done.

    :param record: the journal's, or the one that it will have.
    :param leftover: an unfinished target of another source or order, which goes away first.
    :param needed: bytes that the target will take, at most.
    """

    action: Action
    place: Place
    record: Record
    journal: Journal
    leftover: Place | None = None
    needed: int = 0
    free: int = 0
    notes: list[str] = field(default_factory=list)


def place_of(order: Order, fingerprint: str) -> Place:
    """Where the target of an order is, if the source has this fingerprint."""
    if order.dest:
        return FilePlace(order.dest)
    return VolumePlace(order.storage, order.vmid, order.volume_name(fingerprint), order.format, order.key)


def key_of(order: Order) -> str:
    """How the journal knows an order's target."""
    return FilePlace(order.dest).key if order.dest else order.key


def _own_place(order: Order, source: Source, place: Place, record: Record) -> Place:
    """The place that a record is about: another one if the source has changed and the name tells of it."""
    return place if record.fingerprint == source.fingerprint else place_of(order, record.fingerprint)


def make(order: Order, source: Source, folder: str) -> Plan:
    """Decide.

    :param folder: where the journals are.
    :raises ImageError: if nothing can be done, with the reason and what to do.
    """
    check_size(order, source.virtual_size)
    place = place_of(order, source.fingerprint)
    journal = Journal(folder, place.key)
    record = journal.load()
    if record is None:
        plan = _first(order, source, place, journal)
    elif record.settled:
        plan = _after_completion(order, source, place, journal, record)
    else:
        plan = _after_interruption(order, source, place, journal, record)
    _check_space(plan, order, source)
    return plan


def new_record(order: Order, source: Source, place: Place) -> Record:
    """The record of a conversion that begins."""
    size = max(order.size, source.virtual_size)
    if order.compress:  # QEMU packs whole clusters only
        cluster = order.cluster_size or DEFAULT_CLUSTER
        size = -(-size // cluster) * cluster
    return Record(
        fingerprint=source.fingerprint,
        path=order.path,
        member=order.member,
        target=place.shown,
        format=order.format,
        cluster_size=order.cluster_size,
        preallocation=order.preallocation,
        compress=order.compress,
        virtual_size=source.virtual_size,
        size=place.rounded(size),
    )


def _first(order: Order, source: Source, place: Place, journal: Journal) -> Plan:
    for found in (place.finished(), place.unfinished()):
        if found is not None:
            what = place.shown if place.finished() else f"{place.shown}.partial"
            raise ImageError(
                f"{what} is there already, and nothing in {os.path.dirname(journal.path)} says that it was made from "
                f"{order.path}; nothing is overwritten. Remove it or choose another target"
            )
    return Plan(Action.CONVERT, place, new_record(order, source, place), journal)


# ---- a target that was completed once


def _after_completion(order: Order, source: Source, place: Place, journal: Journal, record: Record) -> Plan:
    own = _own_place(order, source, place, record)
    found = own.finished()
    if found is None:
        return _gone(order, source, place, own, journal, record)
    _require_same_source(order, source, own, record)
    changes = differences(order, record)
    if changes:
        raise ImageError(
            f"{own.shown} was made on {record.finished} in another way ({'; '.join(changes)}); it is not touched. "
            "Remove it to have it made anew, or ask for what it is"
        )
    if found.size < record.size and (record.format == "raw" or not order.dest):
        raise ImageError(
            f"{own.shown} is damaged: it has {found.size} bytes, and had {record.size} when it was finished on "
            f"{record.finished}. Remove it to have it converted again"
        )
    return Plan(_of_settled(order, record, found.stamp), own, record, journal)


def _of_settled(order: Order, record: Record, stamp: tuple[int, ...]) -> Action:
    if order.verify is not Verify.NO and record.state != "verified":
        return Action.VERIFY
    if order.verify is Verify.STRICT and not record.strict:
        return Action.VERIFY
    if order.checksum and not record.checksum:
        return Action.REREAD
    return Action.NOTHING if stamp == record.stamp or not record.digests else Action.REREAD


def _gone(order: Order, source: Source, place: Place, own: Place, journal: Journal, record: Record) -> Plan:
    """A file that is gone is made again. A volume may have been renamed, and a second one is no small thing."""
    fresh = Plan(Action.CONVERT, place, new_record(order, source, place), journal)
    if record.fingerprint == source.fingerprint and order.storage:
        raise ImageError(
            f"{order.path} was converted to {record.target} on {record.finished}, and that volume is gone. If it was "
            f"moved or renamed, there is nothing to do; to have it converted again, remove {journal.path}"
        )
    if place.unfinished():
        raise ImageError(f"{place.shown}.partial is there and was not made by this; remove it and run again")
    fresh.notes.append(f"{record.target}, finished on {record.finished}, is gone and is made again")
    return fresh


# ---- a target that was not completed


def _after_interruption(order: Order, source: Source, place: Place, journal: Journal, record: Record) -> Plan:
    own = _own_place(order, source, place, record)
    found = own.unfinished()
    if order.dest and own.finished():
        if record.state != "naming" or found:
            raise ImageError(
                f"{own.shown} is there already and was not made by this; nothing is overwritten. Remove it"
            )
        _require_same_source(order, source, own, record)
        _check_as_completed(own.shown, own.finished(), record)
        return Plan(Action.NAME, own, record, journal)  # it has its name, but that was not noted any more
    if found:
        _require_same_image(order, source, f"{own.shown}.partial" if order.dest else own.shown, record)
    reasons = _reasons_to_begin_anew(order, source, record)
    if found is None or reasons:
        fresh = Plan(Action.CONVERT, place, new_record(order, source, place), journal, own if found else None)
        if found:
            fresh.notes.append(f"an unfinished {own.shown} is begun anew: {'; '.join(reasons)}")
        return fresh
    _check_unnamed(own)
    if record.state == "naming":
        _check_as_completed(f"{own.shown}.partial", found, record)
        return Plan(Action.NAME, own, record, journal)
    return Plan(Action.RESUME, own, record, journal)


def _reasons_to_begin_anew(order: Order, source: Source, record: Record) -> list[str]:
    reasons = differences(order, record)
    if record.fingerprint != source.fingerprint:
        reasons.insert(0, f"{order.path} has changed")
    if order.verify is not Verify.NO and record.done and not record.digests:
        reasons.append("it was begun without verification")
    return reasons


def _check_as_completed(shown: str, found: Found | None, record: Record) -> None:
    """Refuse to give its name to what is not what was verified. Inode numbers may change with the next mount."""
    if found is not None and record.stamp and found.stamp[:2] != record.stamp[:2]:
        raise ImageError(
            f"{shown} was changed or replaced by something else since it was complete; it is not touched. "
            "Remove it, then run again: it begins anew"
        )


def _require_same_image(order: Order, source: Source, shown: str, record: Record) -> None:
    """Refuse a target of another image: that is no older state of this one, which could go."""
    same = record.path == order.path and (not record.member or not order.member or record.member == order.member)
    if record.fingerprint == source.fingerprint or same:
        return
    of = " ".join(filter(None, (record.path, record.member)))
    when = f" on {record.finished}" if record.finished else ""
    raise ImageError(
        f"{order.path}: {shown} was made from {of}{when}, not from this image; it is not touched. Choose another dest"
    )


def _require_same_source(order: Order, source: Source, place: Place, record: Record) -> None:
    _require_same_image(order, source, place.shown, record)
    if record.fingerprint != source.fingerprint:
        when = f" on {record.finished}" if record.finished else ""
        raise ImageError(
            f"{order.path} has changed since it was converted to {place.shown}{when}; what is there is not touched. "
            f"Remove {place.shown} to have the new one converted, or choose another target"
        )


def _check_unnamed(place: Place) -> None:
    named = guests.naming((place.shown,))
    if named:
        raise ImageError(
            f"{place.shown} is not finished, and guest {', '.join(map(str, named))} names it already; it is not "
            "touched. Take it out of the guest's configuration, then run again"
        )


def _check_space(plan: Plan, order: Order, source: Source) -> None:
    plan.needed = space.needed(
        order.format,
        plan.record.size,
        source.allocated,
        thin=plan.place.thin,
        cluster_size=order.cluster_size or DEFAULT_CLUSTER,
        preallocation=order.preallocation,
    )
    plan.free = plan.place.free()
    # A volume that is there has its space, or as much of it as was written; a file's is counted as free.
    begins = plan.action is Action.CONVERT and plan.leftover is None
    if begins or (order.dest and plan.action in (Action.CONVERT, Action.RESUME)):
        space.require(plan.place.shown, plan.needed, plan.free)
