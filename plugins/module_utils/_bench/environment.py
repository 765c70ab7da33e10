# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where something was measured: the record without which a result is worth nothing. Pure; ``host`` reads it."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields

from .._core.errors import ParseError


@dataclass(frozen=True, slots=True)
class Device:
    """A disk below a place, as the node's kernel tells it. What it does not tell is an empty text or ``None``.

    :param name: of the block device: ``nvme0n1``.
    :param write_cache: what the kernel believes of its cache: ``write back`` (volatile, flushed when that is asked
        for) or ``write through``.
    :param scheduler: the I/O scheduler in use.
    :param size: bytes.
    """

    name: str
    model: str = ""
    firmware: str = ""
    rotational: bool | None = None
    write_cache: str = ""
    scheduler: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class PlaceRecord:
    """A place that was measured, before it was.

    :param type: PVE's type of the storage, or ``folder``.
    :param options: of the storage's definition, without secrets.
    :param file_system: of the folder that the images are in; empty for block storages.
    :param available: bytes that were free, without the scratch volumes.
    """

    name: str
    type: str
    options: tuple[tuple[str, str], ...] = ()
    file_system: str = ""
    available: int | None = None
    total: int | None = None
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine, what runs on it, and its places.

    :param node: the machine's name.
    :param pve: version of the package pve-manager; empty where there is no PVE.
    :param qemu: version of QEMU, with its package where it says so.
    :param qemu_server: version of the package qemu-server.
    :param kernel: of the node.
    :param guest_kernel: of the guest that measures.
    :param accelerator: ``kvm``, or ``tcg``: then latencies mean little, and all is slower than it would be.
    :param processors: of the node.
    :param memory: bytes of the node.
    :param load: the node's load, an average over five minutes, divided by its processors, when the run began.
    :param drives_as: ``blockdev`` or ``drive``: how PVE's version tells QEMU of drives, and so how it was done.
    :param checked_with: guests whose ``qm showcmd`` was compared with that, and what was found.
    """

    node: str
    pve: str
    qemu: str
    qemu_server: str
    kernel: str
    fio: str
    guest_kernel: str
    accelerator: str
    processor: str
    processors: int
    memory: int
    load: float
    drives_as: str
    checked_with: str = ""
    places: tuple[PlaceRecord, ...] = ()

    def as_json(self) -> dict[str, t.Any]:
        """As plain data."""
        data = asdict(self)
        for place in data["places"]:
            place["options"] = dict(place["options"])
            place["devices"] = list(place["devices"])
        data["places"] = list(data["places"])
        return data

    @classmethod
    def from_json(cls, data: object) -> Environment:
        """What :meth:`as_json` gave.

        :raises ParseError: something is missing, unknown, or not of its kind.
        """
        rows = _taken(cls, data, "environment")
        listed = rows.pop("places", ())
        if not isinstance(listed, (list, tuple)):
            raise ParseError("environment.places: it is no list")
        places = [_place(row, f"environment.places[{number}]") for number, row in enumerate(listed)]
        return cls(**rows, places=tuple(places))


def _place(data: object, where: str) -> PlaceRecord:
    row = _taken(PlaceRecord, data, where)
    options, devices = row.pop("options", {}), row.pop("devices", ())
    if not isinstance(options, Mapping) or not isinstance(devices, (list, tuple)):
        raise ParseError(f"{where}: options is no table of names and values, or devices no list")
    pairs = tuple((str(name), str(value)) for name, value in options.items())
    read = [Device(**_taken(Device, one, f"{where}.devices[{number}]")) for number, one in enumerate(devices)]
    return PlaceRecord(**row, options=pairs, devices=tuple(read))


def _taken(kind: type, data: object, where: str) -> dict[str, t.Any]:
    """The values for a dataclass, each of the kind that its annotation says."""
    if not isinstance(data, Mapping):
        raise ParseError(f"{where}: it is no table of names and values")
    annotations = {one.name: str(one.type) for one in fields(kind)}
    unknown = sorted(set(map(str, data)) - set(annotations))
    if unknown:
        raise ParseError(f"{where}: there is no {unknown[0]}; there are {', '.join(annotations)}")
    for name, value in data.items():
        if not _fits(annotations[name], value):
            raise ParseError(f"{where}.{name}: {value!r} is not of its kind, {annotations[name]}")
    needed = [name for name in annotations if name not in data and name in _needed(kind)]
    if needed:
        raise ParseError(f"{where}: {', '.join(needed)} is missing")
    return dict(data)


def _needed(kind: type) -> set[str]:
    return {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}


def _fits(annotation: str, value: object) -> bool:
    if value is None:
        return "None" in annotation
    if isinstance(value, bool):
        return annotation.startswith("bool")
    kinds: dict[str, t.Any] = {"str": str, "int": int, "float": (int, float), "bool": bool}
    wanted = kinds.get(annotation.split(" ")[0])
    return wanted is None or isinstance(value, wanted)
