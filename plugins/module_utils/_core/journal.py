# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A journal of what is under way, kept in the guest's own notes, so that a run that was killed can be finished.

Three jobs need more than one call and would leave no trace in PVE: a drive that changes its bus while the guest runs
(between the two calls its volume is just one of the unused ones), a guest that was shut down only for the job, and a
disk of another guest that is to become the first one in an empty boot order.
The note is one HTML comment, which PVE's web page does not show, and is removed by the last call of the job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .drive import Drive, parse_drive
from .errors import ParseError
from .slot import Slot, find_slot

_NOTE = re.compile(r"\n?<!-- diskwright: (\{.*?\}) -->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Journal:
    """What is under way.

    :param switches: drives, with their options, that are on their way to a slot.
    :param start: whether the guest is to be started when the job is done.
    :param boot: the slot that is to be put into the empty boot order once it has its disk.
    """

    switches: Mapping[Slot, Drive] = field(default_factory=lambda: MappingProxyType({}))
    start: bool = False
    boot: Slot | None = None

    def __bool__(self) -> bool:
        return bool(self.switches) or self.start or self.boot is not None


def read_journal(description: str | None) -> Journal:
    """Read the journal out of a guest's notes; notes without one, or with a damaged one, give an empty journal."""
    match = _NOTE.search(description or "")
    if match is None:
        return Journal()
    try:
        data = json.loads(match[1])
        switches = {find_slot(key): parse_drive(text) for key, text in data.get("switch", {}).items()}
    except (ValueError, AttributeError, RecursionError, ParseError):
        return Journal()
    known = {slot: drive for slot, drive in switches.items() if slot is not None}
    boot = data.get("boot")
    return Journal(
        MappingProxyType(known),
        start=data.get("start") is True,
        boot=find_slot(boot) if isinstance(boot, str) else None,
    )


def write_journal(description: str | None, journal: Journal) -> str:
    """The notes with this journal in them; an empty journal leaves the notes as the user wrote them."""
    plain = _NOTE.sub("", description or "")
    if not journal:
        return plain
    data: dict[str, object] = {}
    if journal.switches:
        data["switch"] = {str(slot): str(drive) for slot, drive in sorted(journal.switches.items())}
    if journal.start:
        data["start"] = True
    if journal.boot is not None:
        data["boot"] = str(journal.boot)
    text = json.dumps(data, sort_keys=True)
    return f"{plain}\n<!-- diskwright: {text} -->" if plain else f"<!-- diskwright: {text} -->"
