# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""One way to set a virtual disk up: what is measured, and compared with others. Pure."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .._core.errors import ParseError

#: The attributes of a combination in the order in which people name them.
DIMENSIONS: t.Final = ("place", "format", "bus", "cache", "aio")


@dataclass(frozen=True, slots=True)
class Combination:
    """Format, bus, cache mode and kind of I/O of a disk, and where its image is.

    :param place: the name of a storage, or the absolute path of a folder.
    :param format: ``raw``, ``qcow2`` or ``vmdk``.
    :param format_options: names and values for ``qemu-img create -o``, sorted by name.
    :param bus: ``scsi`` (with the controller virtio-scsi-single), ``virtio``, ``sata`` or ``ide``.
    :param iothread: whether the drive has an I/O thread of its own.
    :param cache: PVE's name of the cache mode.
    :param aio: PVE's name of the kind of I/O.
    """

    place: str
    format: str
    bus: str
    cache: str
    aio: str
    iothread: bool = False
    format_options: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """A short text that stands for this combination and for no other, the same in every version."""
        return f"{self.layout}/{self.bus_text}/{self.cache}/{self.aio}"

    @property
    def layout(self) -> str:
        """The part of the key that the image depends on: combinations with the same one can share a volume."""
        return f"{self.place}/{self.format_text}"

    @property
    def format_text(self) -> str:
        """The format as people write it: ``qcow2,cluster_size=2M``."""
        return ",".join([self.format, *(f"{name}={value}" for name, value in self.format_options)])

    @property
    def bus_text(self) -> str:
        """The bus as people write it: ``scsi+iothread``."""
        return f"{self.bus}+iothread" if self.iothread else self.bus

    def part(self, dimension: str) -> str:
        """The value in one of the :data:`DIMENSIONS`, as people write it."""
        texts = {"format": self.format_text, "bus": self.bus_text}
        return texts[dimension] if dimension in texts else str(getattr(self, dimension))

    def differs_only_in(self, dimension: str, other: Combination) -> bool:
        """Whether the two are the same but for this one of the :data:`DIMENSIONS`."""
        return [one for one in DIMENSIONS if self.part(one) != other.part(one)] == [dimension]

    def at(self, place: str) -> Combination:
        """The same at another place."""
        return replace(self, place=place)

    def as_json(self) -> dict[str, t.Any]:
        """As plain data."""
        return {
            "place": self.place,
            "format": self.format,
            "format_options": dict(self.format_options),
            "bus": self.bus,
            "iothread": self.iothread,
            "cache": self.cache,
            "aio": self.aio,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, t.Any]) -> Combination:
        """What :meth:`as_json` gave.

        :raises ParseError: something is missing, or is no text.
        """
        texts = {name: data.get(name) for name in ("place", "format", "bus", "cache", "aio")}
        missing = [name for name, value in texts.items() if not isinstance(value, str) or not value]
        options, iothread = data.get("format_options", {}), data.get("iothread", False)
        if not isinstance(options, Mapping):
            missing.append("format_options")
        if not isinstance(iothread, bool):
            missing.append("iothread")
        if missing:
            raise ParseError(f"{', '.join(missing)} of a combination: missing or not of its kind")
        pairs = tuple(sorted((str(name), str(value)) for name, value in options.items()))
        return cls(**{name: str(value) for name, value in texts.items()}, iothread=iothread, format_options=pairs)
