# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Reads from a storage driver's INF what Windows would write into its registry when it installs the driver.

Source: Microsoft, "General Syntax Rules for INF Files", "INF AddService Directive", "INF AddReg Directive"; the INFs of
vioscsi and viostor in virtio-win-pkg-scripts fe58e15, data/old-drivers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .._core.errors import ParseError

#: How the names of model sections end, by the name of the folder on the ISO.
_DECORATIONS = {"x86": "ntx86", "amd64": "ntamd64", "ARM64": "ntarm64"}
_DWORD = 0x00010001
_HARDWARE_ID = re.compile(r"PCI\\VEN_[0-9A-F]{4}&DEV_[0-9A-F]{4}(&[A-Z]+_[0-9A-F]+)*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that goes below the service's key.

    :param key: the keys below the service's, e.g. ``("Parameters", "PnpInterface")``.
    """

    key: tuple[str, ...]
    name: str
    value: int


@dataclass(frozen=True, slots=True)
class DriverInf:
    """What an INF says about one driver for one architecture.

    :param service: the service's name.
    :param binary: the driver file, beside the INF and below ``system32\\drivers``.
    :param start: 0 for a driver that is loaded with the system.
    :param class_guid: the class of its devices, with braces.
    :param version: date and version of the driver, as the INF has them.
    :param catalogue: the catalogue file beside the INF, or an empty string.
    :param hardware_ids: devices that it drives, the most precise names: ``PCI\\VEN_…``.
    :param compatible_ids: less precise names of the same devices.
    :param parameters: numbers below the service's key.
    """

    service: str
    binary: str
    start: int
    type: int
    error_control: int
    group: str
    class_guid: str
    version: str
    catalogue: str
    hardware_ids: tuple[str, ...]
    compatible_ids: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def parameter(self, *path: str) -> int | None:
        """The number at a path below the service's key, the last part being its name, or ``None``."""
        for one in self.parameters:
            if (*one.key, one.name) == path:
                return one.value
        return None


def read_inf(data: bytes, architecture: str) -> DriverInf:
    """Read an INF.

    :param architecture: for which one: ``x86`` or ``amd64``.
    :raises ParseError: when it does not describe one service for this architecture.
    """
    return _Inf(_decode(data)).driver(architecture)


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


class _Inf:
    """The sections of an INF by their names in lower case, each with its lines in order."""

    def __init__(self, text: str) -> None:
        self._sections: dict[str, list[tuple[str, list[str]]]] = {}
        lines: list[tuple[str, list[str]]] = []
        for line in _lines(text):
            if line.startswith("["):
                lines = self._sections.setdefault(line[1:].partition("]")[0].strip().lower(), [])
            else:
                lines.append(_entry(line))
        self._strings = {key.lower(): values[0] for key, values in self._section("strings") if values}

    def driver(self, architecture: str) -> DriverInf:
        version = self._table("version")
        models = [ids for name in self._model_sections(architecture) for ids in self._models(name)]
        if not models:
            raise ParseError(f"the INF has no devices for {architecture}")
        services = {self._service(install) for install, _ids in models}
        if len(services) != 1:
            raise ParseError(f"the INF adds {len(services)} services, and one is known")
        ((service, section),) = services
        values = self._table(section)
        return DriverInf(
            service=service,
            binary=values.get("servicebinary", "").rpartition("\\")[2],
            start=self._number(values, "starttype"),
            type=self._number(values, "servicetype"),
            error_control=self._number(values, "errorcontrol"),
            group=values.get("loadordergroup", ""),
            class_guid=version.get("classguid", ""),
            version=version.get("driverver", ""),
            catalogue=version.get("catalogfile", ""),
            hardware_ids=tuple(dict.fromkeys(ids[0] for _install, ids in models)),
            compatible_ids=tuple(dict.fromkeys(one for _install, ids in models for one in ids[1:])),
            parameters=tuple(self._parameters(section)),
        )

    def _section(self, name: str) -> list[tuple[str, list[str]]]:
        return self._sections.get(name.lower(), [])

    def _table(self, name: str) -> Mapping[str, str]:
        """A section whose lines have one value each; a list in a value is put together again."""
        return {key.lower(): ",".join(map(self._text, values)) for key, values in self._section(name)}

    def _text(self, value: str) -> str:
        """A value with its ``%strings%`` put in; ``%%`` is a percent sign."""
        return re.sub(r"%([^%]*)%", lambda found: self._string(found[1]), value)

    def _string(self, name: str) -> str:
        return self._strings.get(name.lower(), f"%{name}%") if name else "%"

    def _number(self, values: Mapping[str, str], name: str) -> int:
        return _int(values.get(name, ""), name)

    def _model_sections(self, architecture: str) -> Iterator[str]:
        """The sections that list devices: ``[Models.NTamd64.6.3]``; one for another Windows does no harm."""
        wanted = _DECORATIONS[architecture]
        for _maker, values in self._section("manufacturer"):
            model, *decorations = values or [""]
            fitting = [f"{model}.{one}" for one in decorations if one.lower().split(".")[0] == wanted]
            yield from fitting or ([model] if architecture == "x86" else [])

    def _models(self, name: str) -> Iterator[tuple[str, list[str]]]:
        for _title, values in self._section(name):
            ids = [self._text(value) for value in values[1:]]
            if ids and all(_HARDWARE_ID.fullmatch(one) for one in ids):
                yield values[0], ids

    def _service(self, install: str) -> tuple[str, str]:
        """The service that an install section adds, and the section that describes it."""
        for suffix in (".services", ".nt.services", ".ntamd64.services", ".ntx86.services"):
            for key, values in self._section(install + suffix):
                if key.lower() == "addservice" and len(values) >= 3:
                    return self._text(values[0]), values[2]
        raise ParseError("the INF adds no service")

    def _parameters(self, section: str) -> Iterator[Parameter]:
        names = self._table(section).get("addreg", "")
        for name in filter(None, names.split(",")):
            for _key, values in self._section(name):
                yield from self._parameter([self._text(value) for value in values])

    def _parameter(self, values: list[str]) -> Iterator[Parameter]:
        """Numbers alone: storage drivers have no other parameters that they can't start without."""
        if len(values) == 5 and values[0].upper() == "HKR" and _int(values[3], "AddReg") == _DWORD:
            yield Parameter(tuple(values[1].split("\\")), values[2], _int(values[4], values[2]))


def _lines(text: str) -> Iterator[str]:
    """The lines without comments; a line that ends with a backslash goes on in the next."""
    for line in text.replace("\\\r\n", "").replace("\\\n", "").splitlines():
        plain = re.match(r'(?:[^;"]|"[^"]*")*', line)
        if plain and plain[0].strip():
            yield plain[0].strip()


def _entry(line: str) -> tuple[str, list[str]]:
    """``key = value, value``; a line without ``=`` has values alone."""
    parts = [part.strip() for part in re.findall(r'(?:[^,"=]|"[^"]*")+|,|=', line)]
    key, rest = "", parts
    if "=" in parts:
        index = parts.index("=")
        key, rest = _unquoted("".join(parts[:index])), parts[index + 1 :]
    return key, list(_values(rest))


def _values(parts: list[str]) -> Iterator[str]:
    """The values between commas; one that is not there is empty."""
    value = ""
    for part in parts:
        if part == ",":
            yield _unquoted(value)
            value = ""
        else:
            value += part
    if parts:
        yield _unquoted(value)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


def _int(text: str, name: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise ParseError(f"the INF gives {name} no number: {text!r}") from error
