# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The journal of a migration, kept in the guest's own notes: a crash of the controller does not lose it, and the next
controller finds it.

It is one HTML comment, which PVE's web page does not show. What the user has written there is never touched. PVE leaves
the notes alone when it rolls a snapshot back (pve-guest-common, ``PVE/AbstractConfig.pm``, ``__snapshot_copy_config``).
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from .._core.errors import ParseError

#: PVE takes no longer notes. Source: qemu-server 9.2.6, ``PVE/QemuServer.pm`` (description, maxLength).
LONGEST_DESCRIPTION = 8 * 1024
_NOTE = re.compile(r"\n?<!-- diskwright-windows: (?P<text>.*?) -->", re.DOTALL)
_VERSION = 1
_FLAGS = ("online", "ran", "answered", "settled", "switched")
_TEXTS = ("driver", "snapshot", "proof", "helper", "reason")


class UnreadableNoteError(ParseError):
    """There is a journal that can't be read, so nobody can tell where the guest stands.

    :ivar problem: why, a clause.
    :ivar remedy: what to do, a clause.
    """

    def __init__(self, why: str, remedy: str) -> None:
        self.problem, self.remedy = f"the journal of its migration, a comment in its notes, {why}", remedy
        super().__init__(f"{self.problem}; {self.remedy}")


class Phase(str, Enum):
    """How far a migration has come."""

    #: Drivers are brought in. Nothing of the guest's disks has changed.
    PREPARE = "prepare"
    #: The disks go to their new slots, and Windows has to prove that it starts from there.
    PROBATION = "probation"
    #: Windows has proven it. What is left is to tidy up.
    COMMIT = "commit"
    #: Everything goes back to where it was.
    BACK = "back"
    #: Everything is back where it was, and the reason is kept.
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True, slots=True)
class Guard:
    """What Windows had before it was prepared, to be restored at the end.

    :param bitlocker: volumes whose protection was on.
    :param online: identifiers of the disks that were online.
    :param letters: drive letters and the volumes that they belong to.
    :param controllers: services of the storage controllers that it was started with.
    """

    bitlocker: tuple[str, ...] = ()
    fast_startup: bool | None = None
    san_policy: str | None = None
    online: tuple[str, ...] = ()
    letters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    controllers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Journal:
    """What is under way, and the way back. Configuration values are PVE's text, ``None`` for a key that is not there.

    :param before: every key that any step touches, as it was.
    :param after: the same for the keys that the switch changes, as it will be.
    :param driver: the VirtIO driver that Windows has to start from.
    :param equipment: what the guest has while drivers are installed in it; empty when that needs nothing.
    :param online: whether the drivers are installed by Windows itself, through the agent.
    :param ran: whether the guest ran at the beginning.
    :param answered: whether the agent has answered before the switch, so that it can be expected afterwards.
    :param snapshot: the name of our own snapshot, empty for none.
    :param proof: how it is known that Windows can start from the new slot, empty as long as it is not.
    :param guard: ``None`` until Windows was asked, or when it can't be.
    :param helper: the volume of our own temporary disk, once it is known.
    :param settled: whether Windows has its own settings again.
    :param switched: whether the switch was begun.
    :param reason: why it goes back, or went.
    """

    phase: Phase
    before: Mapping[str, str | None]
    after: Mapping[str, str | None]
    driver: str = ""
    equipment: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    online: bool = False
    ran: bool = False
    answered: bool = False
    snapshot: str = ""
    proof: str = ""
    guard: Guard | None = None
    helper: str = ""
    settled: bool = False
    switched: bool = False
    reason: str = ""


def read_note(description: str | None) -> Journal | None:
    """The journal in a guest's notes, or ``None``.

    :raises UnreadableNoteError: there is one that can't be read. Nothing must be done to such a guest.
    """
    found = _NOTE.search(description or "")
    if found is None:
        return None
    try:
        return _journal(json.loads(found["text"]))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        remedy = "look which slot its disks are in, settle it by hand, and remove the comment"
        raise UnreadableNoteError("was edited and can't be read", remedy) from error


def write_note(description: str | None, journal: Journal | None) -> str:
    """The notes with this journal in them; without one they are as the user wrote them."""
    plain = _NOTE.sub("", description or "")
    if journal is None:
        return plain
    # No ">" in it, so that nothing in it can end the comment.
    text = json.dumps(_data(journal), sort_keys=True, separators=(",", ":")).replace(">", "\\u003e")
    note = f"<!-- diskwright-windows: {text} -->"
    return f"{plain}\n{note}" if plain else note


def _data(journal: Journal) -> dict[str, object]:
    """As little as possible: what is empty is left out."""
    words: dict[str, object] = {"v": _VERSION, "phase": journal.phase.value}
    if journal.phase is Phase.ROLLED_BACK:
        return words | {"reason": journal.reason}
    words |= {"before": dict(journal.before), "after": dict(journal.after), "equipment": dict(journal.equipment)}
    words |= {name: getattr(journal, name) for name in (*_FLAGS, *_TEXTS)}
    if journal.guard is not None:
        guard = journal.guard
        words["guard"] = {
            "bitlocker": list(guard.bitlocker),
            "fast_startup": guard.fast_startup,
            "san_policy": guard.san_policy,
            "online": list(guard.online),
            "letters": dict(guard.letters),
            "controllers": list(guard.controllers),
        }
    return {name: value for name, value in words.items() if value or name in ("before", "after", "guard")}


def _journal(data: Mapping[str, t.Any]) -> Journal:
    if isinstance(data["v"], int) and data["v"] > _VERSION:
        formats = f"its format is {data['v']}, and {_VERSION} is known"
        why = f"was written by a newer version of diskwright.proxmox ({formats})"
        raise UnreadableNoteError(why, "update the collection")
    if data["v"] != _VERSION:
        raise ValueError(f"version {data['v']}")
    guard = data.get("guard")
    values: dict[str, t.Any] = {name: _text(data.get(name, "")) for name in _TEXTS}
    values |= {name: data.get(name, False) is True for name in _FLAGS}
    phase = Phase(data["phase"])
    kept = phase is not Phase.ROLLED_BACK
    return Journal(
        phase=phase,
        before=_keys(data["before"] if kept else {}),
        after=_keys(data["after"] if kept else {}),
        equipment=_keys(data.get("equipment", {})),
        guard=None if guard is None else _guard(guard),
        **values,
    )


def _guard(data: Mapping[str, t.Any]) -> Guard:
    return Guard(
        bitlocker=tuple(_text(volume) for volume in data["bitlocker"]),
        fast_startup=data["fast_startup"],
        san_policy=data["san_policy"],
        online=tuple(_text(disk) for disk in data["online"]),
        letters=MappingProxyType({_text(letter): _text(volume) for letter, volume in data["letters"].items()}),
        controllers=tuple(_text(service) for service in data["controllers"]),
    )


def _keys(data: Mapping[str, object]) -> Mapping[str, str | None]:
    return MappingProxyType({_text(key): None if value is None else _text(value) for key, value in data.items()})


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
