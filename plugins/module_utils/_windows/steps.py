# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The steps of a migration, as values: what a user sees of them, and what they are about. Whoever carries one out looks
again afterwards, so a step may be repeated, and may have been carried out by a run that was killed."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from .._core.actions import Line
from .._core.drive import Drive, parse_drive
from .._core.slot import find_slot
from .note import Journal
from .placement import Keys, disks_in, is_helper


@dataclass(frozen=True, slots=True)
class Step:
    """The base of all steps."""

    @property
    def lines(self) -> tuple[Line, ...]:
        """The step for people; empty when it is only a means for another one."""
        return ()


@dataclass(frozen=True, slots=True)
class Note(Step):
    """The journal is written, or with ``None`` removed.

    :param kept: our snapshot, when it stays because nobody could ask Windows.
    """

    journal: Journal | None
    kept: str = ""

    @property
    def lines(self) -> tuple[Line, ...]:
        if not self.kept:
            return ()
        return (Line("?", "snapshot", f"{self.kept} is kept", "Windows can't be asked, so a person has to look"),)


@dataclass(frozen=True, slots=True)
class Revert(Step):
    """What a failed call has left waiting is taken back."""

    keys: tuple[str, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        return (Line("~", "pending", f"{', '.join(self.keys)} taken back"),)


class Purpose(str, Enum):
    """What a change of the configuration is for."""

    EQUIP = "equip"
    RESTORE = "restore"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Configure(Step):
    """The configuration gets these keys, in one call.

    :param sources: where each disk comes from, by its new slot.
    """

    purpose: Purpose
    keys: Keys
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(self._lines())

    def _lines(self) -> t.Iterator[Line]:
        for slot, source in self.sources.items():
            yield Line(">", slot, f"was {source}", "same volume")
        for key, text in self.keys.items():
            if find_slot(key) is None:
                yield Line("~", key, str(text or "(unset)").removeprefix("order=").replace(";", " "), self._why)
            elif text is None and key not in self.sources.values():
                yield Line("-", key, "taken out", self._why)
            elif text is not None and key not in self.sources:
                yield self._drive(key, parse_drive(text))

    @property
    def _why(self) -> str:
        return "as it was at the beginning" if self.purpose is Purpose.RESTORE else ""

    def _drive(self, key: str, drive: Drive) -> Line:
        what = f"CD-ROM {drive.volume}" if drive.is_cdrom else drive.volume
        if self.purpose is Purpose.RESTORE:
            return Line("~", key, what, self._why)
        what = f"1 GiB disk on {drive.storage}" if is_helper(drive) else what
        return Line("+", key, what, "until the drivers are installed")


@dataclass(frozen=True, slots=True)
class Destroy(Step):
    """Our temporary disk, which no slot uses any more, is destroyed."""

    volume: str

    @property
    def lines(self) -> tuple[Line, ...]:
        return (Line("!", "helper", "the temporary disk is destroyed"),)


@dataclass(frozen=True, slots=True)
class Inside(Step):
    """Settings inside Windows.

    :param name: what it is for.
    :param settings: the options of the module ``windows_drivers``.
    """

    name: str
    settings: Mapping[str, t.Any]

    @property
    def lines(self) -> tuple[Line, ...]:
        words = [text for key, value in self.settings.items() if (text := _in_words(key, value))]
        return (Line("~", "windows", ", ".join(words)),) if words else ()


def _in_words(name: str, value: t.Any) -> str:
    if name == "fast_startup":
        return f"fast startup {'on' if value else 'off'}"
    if name == "bitlocker":
        return f"BitLocker {value}"
    if name == "san_policy":
        return f"SAN policy {value}"
    words = {"online": "disks online", "letters": "drive letters as before", "boot_start": "old controllers kept"}
    return words.get(name, "")


@dataclass(frozen=True, slots=True)
class Stage(Step):
    """Windows installs the drivers."""

    drivers: tuple[str, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        return (Line("~", "drivers", f"{', '.join(self.drivers)} installed", "through the guest agent"),)


@dataclass(frozen=True, slots=True)
class Power(Step):
    """The guest is started or shut down.

    :param hard: whether it may be switched off when it does not shut down.
    :param why: what is to be seen of it, for people.
    """

    on: bool
    hard: bool = False
    why: str = ""

    @property
    def lines(self) -> tuple[Line, ...]:
        return (Line("~", "power", "started" if self.on else "shut down", self.why),)


@dataclass(frozen=True, slots=True)
class Snapshot(Step):
    """A snapshot is made, or with ``gone`` deleted."""

    name: str
    gone: bool = False

    @property
    def lines(self) -> tuple[Line, ...]:
        if self.gone:
            return (Line("-", "snapshot", f"{self.name} is deleted"),)
        return (Line("+", "snapshot", self.name, "of the stopped guest"),)


class Awaited(str, Enum):
    """What can be waited for."""

    AGENT = "agent"
    VOLUMES = "volumes"
    UNLOCKED = "unlocked"


@dataclass(frozen=True, slots=True)
class Wait(Step):
    """Nothing is done until something is so, or time is over.

    :param volumes: identifiers of the volumes that Windows should see.
    """

    what: Awaited
    volumes: tuple[str, ...] = ()


class State(str, Enum):
    """How a run ends for one guest."""

    ON_VIRTIO = "on_virtio"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    NEEDS_INJECTION = "needs_offline_staging"
    NEEDS_VERDICT = "needs_verdict"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class End:
    """The end of a run for one guest.

    :param reason: why, and what to do, a sentence without full stop.
    """

    state: State
    reason: str = ""


def sources_of(before: Keys, after: Keys) -> Mapping[str, str]:
    """Where each disk comes from, by its new slot."""
    old = {drive.volume: slot for slot, drive in disks_in(before).items() if after.get(slot) is None}
    return MappingProxyType({slot: old[d.volume] for slot, d in disks_in(after).items() if d.volume in old})
