# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What is known about each disk of a cluster: what the cluster tells, under what the user says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .._core.errors import ParseError
from .._core.guest import Guest
from .._core.storage import Storage
from .facts import SECTIONS, Facts, guest_facts, read_facts, storage_facts

_Sections = Mapping[str, Mapping[str, object]]
_NOTHING: Mapping[str, object] = MappingProxyType({})
#: Groups of facts about some guests or storages, beside the groups that are about all.
GUESTS, STORAGES = "guests", "storages"
_MEASURED = "measurements"


@dataclass(frozen=True, slots=True)
class Known:
    """What the user says, by what it is about.

    :param general: about everything.
    :param guests: about one guest, by its name or number.
    :param storages: about one storage, by its name: the groups ``storage`` and ``measurements``.
    """

    general: _Sections = field(default_factory=lambda: MappingProxyType({}))
    guests: Mapping[str, _Sections] = field(default_factory=lambda: MappingProxyType({}))
    storages: Mapping[str, _Sections] = field(default_factory=lambda: MappingProxyType({}))

    def facts(
        self, guest: Guest, storage: Storage | None, pve_version: str | None = None, extra: _Sections | None = None
    ) -> Facts:
        """Everything that is known about a disk of a guest on a storage.

        :param extra: what the guest's own declaration says; it goes before everything else.
        """
        cluster: dict[str, object] = {"guest": guest_facts(guest, guest.ostype, guest.machine, guest.bios, guest.agent)}
        if storage is not None:
            cluster["storage"] = storage_facts(storage, pve_version)
        layers = [self.general, self.guests.get(str(guest.vmid), {}), self.guests.get(guest.name, {})]
        if storage is not None and storage.name in self.storages:
            layers.append(self.storages[storage.name])
        return read_facts(_merged([*layers, extra or {}]), cluster)


def _merged(layers: list[_Sections]) -> dict[str, dict[str, object]]:
    merged: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values or {})
    return merged


def read_known(data: Mapping[str, object] | None) -> Known:
    """Read what a user says: groups of facts, and the same below ``guests`` and ``storages``.

    :raises ParseError: for a name or a value that there is not; all that is wrong is reported together.
    """
    given = dict(data or {})
    guests = _by_name(given.pop(GUESTS, None), GUESTS)
    storages = {name: _of_storage(one) for name, one in _by_name(given.pop(STORAGES, None), STORAGES).items()}
    problems: list[str] = []
    for where, sections in (
        ("", given),
        *((f"{GUESTS}: {name}: ", sections) for name, sections in guests.items()),
        *((f"{STORAGES}: {name}: ", sections) for name, sections in storages.items()),
    ):
        try:
            read_facts(sections)
        except ParseError as error:
            problems.extend(f"{where}{line}" for line in str(error).splitlines())
    if problems:
        raise ParseError("\n".join(problems))
    by_name = ({name: _sections(value) for name, value in named.items()} for named in (guests, storages))
    return Known(_sections(given), *by_name)


def _of_storage(data: Mapping[str, object]) -> Mapping[str, object]:
    """Facts about a storage stand there by their names, and what was measured on it below ``measurements``."""
    facts = dict(data)
    measured = facts.pop(_MEASURED, None)
    return {"storage": facts, _MEASURED: measured}


def _sections(data: Mapping[str, object]) -> _Sections:
    return {name: value for name in SECTIONS if isinstance(value := data.get(name), Mapping)}


def _by_name(data: object, group: str) -> Mapping[str, Mapping[str, object]]:
    if data is None:
        return {}
    if not isinstance(data, Mapping) or not all(isinstance(value, Mapping) for value in data.values()):
        raise ParseError(f"facts: {group} is a dictionary of dictionaries, one for each name; not '{data}'")
    return {str(name): value for name, value in data.items()}
