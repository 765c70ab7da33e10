# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""One drive as PVE writes it in a guest's configuration: a volume and its options, read without losing anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import propstring
from .errors import ParseError
from .size import format_pve_size, parse_pve_size

_EXTENSION = re.compile(r"\.(raw|qcow2|qcow|qed|vmdk|cloop)$")
_CLOUDINIT = re.compile(r"(?:^|[:/-])cloudinit(?:\.\w+)?$")
_OWNER = re.compile(r"(?:vm|base|subvol|basevol)-(\d+)-")
_ROUNDING = (1024**2, 4 * 1024**2)
#: The name of a volume in a projection when only PVE will know it.
NEW_VOLUME = "(new)"


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive string, taken apart.

    :param volume: the volume id, ``none``, ``cdrom`` or an absolute path.
    :param options: the other pairs, verbatim and sorted by name, as PVE keeps them. Unknown ones are among them.
    """

    volume: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return ",".join([self.volume, *(f"{key}={value}" for key, value in self.options)])

    def get(self, name: str) -> str | None:
        """The stored value of an option, or ``None`` when it is absent."""
        for key, value in self.options:
            if key == name:
                return value
        return None

    @property
    def storage(self) -> str | None:
        """The storage of the volume, or ``None`` for a path, an empty CD-ROM drive or a host drive."""
        storage, colon, _name = self.volume.partition(":")
        return storage if colon and not self.volume.startswith("/") else None

    @property
    def is_new(self) -> bool:
        """Whether this is a projected drive whose volume PVE will name."""
        return f":{NEW_VOLUME}" in self.volume

    @property
    def is_cloudinit(self) -> bool:
        """Whether this is a cloud-init drive. PVE tells them by the volume's name."""
        return _CLOUDINIT.search(self.volume) is not None

    @property
    def is_cdrom(self) -> bool:
        """Whether this is a CD-ROM drive (a cloud-init drive is not counted)."""
        return not self.is_cloudinit and (self.get("media") == "cdrom" or self.volume in ("none", "cdrom"))

    @property
    def is_disk(self) -> bool:
        """Whether this is a disk with content of its own."""
        return not self.is_cdrom and not self.is_cloudinit

    @property
    def size(self) -> int | None:
        """The size in bytes that the configuration records, or ``None`` when it records none."""
        text = self.get("size")
        return None if text is None else parse_pve_size(text)

    @property
    def format(self) -> str:
        """The image format, told by ``format=`` or the volume's name as PVE tells it: no extension means raw."""
        return self.get("format") or volume_format(self.volume)

    @property
    def owner(self) -> int | None:
        """The guest that owns the volume by its name, or ``None`` when the name does not tell."""
        return volume_owner(self.volume)

    @property
    def base(self) -> str | None:
        """The base volume of a linked clone, when the volume's name tells it (file and ZFS or RBD storages)."""
        return volume_base(self.volume)

    @property
    def is_base(self) -> bool:
        """Whether the volume is a template's base volume."""
        return volume_name(self.volume).startswith(("base-", "basevol-"))

    def made_of(self, asked: int, found: int) -> bool:
        """Whether ``found`` bytes are what the storage made of ``asked``.

        Block storages round up (LVM to extents of 4 MiB, ZFS and RBD to MiB), and PVE writes the rounded size into the
        configuration the next time that it looks at the volume. Seen on a PVE 9.2.11.
        """
        in_folder = "/" in self.volume
        rounded = not in_folder and self.format == "raw" and found in (-(-asked // unit) * unit for unit in _ROUNDING)
        return asked == found or rounded

    def with_options(self, changes: Mapping[str, str | None]) -> Drive:
        """The same drive with options set (a text) or removed (``None``); all others stay as they are."""
        kept = {key: value for key, value in self.options if key not in changes}
        kept.update({key: value for key, value in changes.items() if value is not None})
        return make_drive(self.volume, kept.items())

    def with_volume(self, volume: str) -> Drive:
        """The same options on another volume."""
        return Drive(volume, self.options)

    def with_size(self, size: int) -> Drive:
        """The same drive with another recorded size in bytes."""
        return self.with_options({"size": format_pve_size(size)})


def make_drive(volume: str, options: Iterable[tuple[str, str]] = ()) -> Drive:
    """A drive with its options in PVE's order."""
    return Drive(volume, tuple(sorted(options)))


def parse_drive(text: str) -> Drive:
    """Read a drive string in any spelling that PVE accepts (``file=`` or ``volume=`` in any place, or bare).

    :raises ParseError: for a string without a volume, or with a key that comes twice.
    """
    volume: str | None = None
    options: list[tuple[str, str]] = []
    for key, value in propstring.parse(text, "file"):
        if key in ("file", "volume"):
            if volume is not None:
                raise ParseError(f"the volume is given twice in '{text}'")
            volume = value
        else:
            options.append((key, value))
    if not volume:
        raise ParseError(f"'{text}' names no volume")
    return make_drive(volume, options)


def new_volume(storage: str, format_: str | None, *, cloudinit: bool = False, number: int | None = None) -> str:
    """The volume id in a projection of a volume that PVE will name; format and kind show in it as in PVE's names.

    :param number: tells it from other such volumes on the same storage, where that matters.
    """
    extension = "" if format_ in (None, "raw") else f".{format_}"
    suffix = "-cloudinit" if cloudinit else "" if number is None else f"-{number}"
    return f"{storage}:{NEW_VOLUME}{suffix}{extension}"


def volume_name(volume: str) -> str:
    """The last part of a volume id: ``vm-100-disk-0.qcow2`` of ``local:100/vm-100-disk-0.qcow2``."""
    return volume.rsplit("/", 1)[-1].rsplit(":", 1)[-1]


def volume_format(volume: str) -> str:
    """The format that PVE takes a volume for. Source: pve-storage 9.1.7, ``parse_volname`` of the plugins."""
    match = _EXTENSION.search(volume)
    return match[1] if match else "raw"


def volume_owner(volume: str) -> int | None:
    """The guest that PVE takes for the owner: whose folder a file is in, else whose number the name carries."""
    folder = volume.partition(":")[2].rpartition("/")[0].rpartition("/")[2]
    if folder.isdecimal() and not volume.startswith("/"):
        return int(folder)
    match = _OWNER.match(volume_name(volume))
    return int(match[1]) if match else None


def volume_base(volume: str) -> str | None:
    """The base volume id that a linked clone's volume id names, or ``None``."""
    storage, colon, name = volume.partition(":")
    parts = name.split("/")
    if not colon or len(parts) < 2 or not any(part.startswith(("base-", "basevol-")) for part in parts[:-1]):
        return None
    last = max(index for index, part in enumerate(parts[:-1]) if part.startswith(("base-", "basevol-")))
    return f"{storage}:{'/'.join(parts[: last + 1])}"
