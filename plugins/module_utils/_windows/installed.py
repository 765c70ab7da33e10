# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Which Windows is installed on a volume, as its registry says. Pure.

Sources: Microsoft, "Operating System Version" (``CurrentBuildNumber``), "RTL_OSVERSIONINFOEXW" (``ProductType``);
libguestfs 1.50, ``daemon/inspect_fs_windows.ml`` (where a registry says so). The language of the Windows does not
matter: none of these values is translated.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._core.errors import DiskwrightError
from .hivedata import Path, Registry, find_value, has_key
from .releases import Edition, Release, find_release

_CURRENT_VERSION = ("Microsoft", "Windows NT", "CurrentVersion")
_EDITIONS = {"winnt": Edition.CLIENT, "servernt": Edition.SERVER, "lanmannt": Edition.SERVER}


class NoWindowsError(DiskwrightError):
    """A registry that does not say which Windows it is of, or of one that is not known."""


@dataclass(frozen=True, slots=True)
class Windows:
    """An installed Windows.

    :param name: as it calls itself, e.g. ``Windows Server 2019 Standard``.
    :param architecture: ``x86``, ``amd64`` or whatever else it says.
    :param control_sets: the one that it boots from next, and the one that it has booted from last, if another.
    :param database: whether it looks drivers up in ``DriverDatabase``, else in ``CriticalDeviceDatabase``.
    """

    release: Release
    name: str
    version: str
    build: int
    architecture: str
    control_sets: tuple[str, ...]
    database: bool


def read_windows(system: Registry, software: Registry) -> Windows:
    """Which Windows two hives belong to.

    :raises NoWindowsError: when they do not say.
    :raises UnknownReleaseError: when the table does not know it.
    """
    sets = _control_sets(system)
    version, build = _version(software)
    return Windows(
        release=find_release(version, build, _edition(system, sets[0])),
        name=_text(software, _CURRENT_VERSION, "ProductName"),
        version=version,
        build=build,
        architecture=_architecture(system, sets[0]),
        control_sets=sets,
        database=has_key(system, ("DriverDatabase",)),
    )


def _control_sets(system: Registry) -> tuple[str, ...]:
    """``ControlSet001`` and the like. ``CurrentControlSet`` exists only while Windows runs."""
    numbers = [find_value(system, ("Select",), name) for name in ("Default", "Current")]
    names = [f"ControlSet{value.number:03d}" for value in numbers if value is not None and value.number]
    found = tuple(dict.fromkeys(name for name in names if has_key(system, (name,))))
    if not found:
        raise NoWindowsError("the SYSTEM hive has no control set to boot from; this Windows was not set up to its end")
    return found


def _edition(system: Registry, control_set: str) -> Edition:
    said = _text(system, (control_set, "Control", "ProductOptions"), "ProductType")
    if said.lower() not in _EDITIONS:
        raise NoWindowsError(f"the SYSTEM hive has the product type {said!r}; WinNT, ServerNT and LanmanNT are known")
    return _EDITIONS[said.lower()]


def _version(software: Registry) -> tuple[str, int]:
    major = find_value(software, _CURRENT_VERSION, "CurrentMajorVersionNumber")
    minor = find_value(software, _CURRENT_VERSION, "CurrentMinorVersionNumber")
    version = _text(software, _CURRENT_VERSION, "CurrentVersion")
    if major is not None and minor is not None:
        version = f"{major.number}.{minor.number}"
    build = _text(software, _CURRENT_VERSION, "CurrentBuildNumber") or _text(software, _CURRENT_VERSION, "CurrentBuild")
    if not version or not build.isdecimal():
        raise NoWindowsError(f"the SOFTWARE hive says version {version!r} and build {build!r}, and must name both")
    return version, int(build)


def _architecture(system: Registry, control_set: str) -> str:
    path = (control_set, "Control", "Session Manager", "Environment")
    return _text(system, path, "PROCESSOR_ARCHITECTURE").lower()


def _text(registry: Registry, path: Path, name: str) -> str:
    value = find_value(registry, path, name)
    return value.text if value is not None else ""
