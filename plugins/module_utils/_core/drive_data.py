# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Drives as plain data, for filters and results: what playbooks read and write."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from .drive import Drive, make_drive, parse_drive
from .errors import ParseError
from .options import TABLE, Kind
from .size import format_pve_size, parse_size


def drive_data(drive: Drive) -> dict[str, object]:
    """A drive as data.

    :returns: ``volume``; ``storage`` and ``format`` as the volume tells them, ``size`` in bytes, each ``None`` when it
        is not known; ``media`` (``disk``, ``cdrom`` or ``cloudinit``); ``options`` with every other key of the drive,
        booleans and numbers as such, unknown ones verbatim.
    """
    options = {key: _value(key, text) for key, text in drive.options if key != "size"}
    return {
        "volume": drive.volume,
        "storage": drive.storage,
        "format": drive.format if drive.is_disk and drive.storage else None,
        "size": drive.size,
        "media": "cloudinit" if drive.is_cloudinit else "cdrom" if drive.is_cdrom else "disk",
        "options": options,
    }


def _value(name: str, text: str) -> object:
    row = TABLE.get(name)
    if row is None:
        return text
    try:
        stored = row.canonical(unquote(text) if row.kind is Kind.ENCODED else text)
    except ParseError:
        return text  # a value that this version does not know
    if row.kind is Kind.BOOLEAN:
        return stored == "1"
    if row.kind in (Kind.INTEGER, Kind.NUMBER):
        return int(stored) if stored.isdigit() else float(stored)
    return unquote(text) if row.kind is Kind.ENCODED else text


def drive_text(data: Mapping[str, object]) -> str:
    """A drive string from data as :func:`drive_data` gives it. ``volume`` is needed, ``size`` and ``options`` are not.

    :raises ParseError: no volume, a size or a value that is not allowed, or options that are no dictionary.
    """
    volume, options, size = data.get("volume"), data.get("options") or {}, data.get("size")
    if not isinstance(volume, str) or not volume:
        raise ParseError("a drive needs a volume; give it as 'volume'")
    if not isinstance(options, Mapping):
        raise ParseError(f"the options of {volume} are no dictionary; write name: value")
    pairs = {str(name): _text(volume, str(name), value) for name, value in options.items() if value is not None}
    if size is not None:
        # A number is bytes here, as drive_data gives them; a text has a unit.
        pairs["size"] = format_pve_size(size if isinstance(size, int) else parse_size(str(size)))
    if data.get("media") in ("cdrom", "cloudinit"):
        pairs.setdefault("media", "cdrom")
    return str(parse_drive(str(make_drive(volume, pairs.items()))))


def _text(volume: str, name: str, value: object) -> str:
    row = TABLE.get(name)
    if row is not None:
        try:
            return row.canonical(value)
        except ParseError as error:
            raise ParseError(f"{volume}: {error}") from error
    text = ("1" if value else "0") if isinstance(value, bool) else str(value)
    if "," in text or "," in name or "=" in name:
        raise ParseError(f"{volume}: {name} can't hold a comma; PVE separates options with it")
    return text
