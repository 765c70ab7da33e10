# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Finds the Windows on a guest's disk, and what forbids to write to it. Nothing is written here."""

from __future__ import annotations

import os
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._core.errors import DiskwrightError, ParseError, PlanRefusedError, Refusal
from . import record, tree
from .hive import Hive, HiveError, is_clean
from .installed import NoWindowsError, Windows, read_windows
from .ntfs import Read, is_bitlocker, is_ntfs, read_state
from .record import Record
from .releases import UnknownReleaseError

if t.TYPE_CHECKING:
    from .volume import Volume

_CONFIG = ("System32", "config")
_HIBERNATED = (b"hibr", b"HIBR")
_SHUT_DOWN = "start the guest, shut Windows down fully (shutdown /s /f /t 0, fast startup off), and run again"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Windows is.

    :param folder: Windows' own folder, as it is written on the volume.
    :param serial: the serial number of its NTFS volume.
    """

    partition: int
    folder: str
    serial: str


@dataclass(frozen=True, slots=True)
class Installation:
    """A Windows that may be written to, as it was read from its mounted volume.

    :param system: its SYSTEM hive, in memory.
    :param digest: the SHA-256 of that hive's file, empty when the file was not there and a backup was read instead.
    :param record: what an earlier run has changed, as the volume itself says: it may have been restored since, and the
        node would not know.
    """

    place: Place
    windows: Windows
    system: Hive
    digest: str
    record: Record | None


def find_windows(volume: Volume, partition: int | None) -> Place:
    """The partition that Windows is on.

    :param partition: its number, or ``None`` to look for it.
    :raises DiskwrightError: when there is none, or there are several, or it may not be written to; with every reason.
    """
    candidates = volume.partitions if partition is None else (partition,)
    missing = [number for number in candidates if number not in volume.partitions]
    if missing:
        there = ", ".join(map(str, volume.partitions))
        raise DiskwrightError(f"{volume.name}: there is no partition {missing[0]}; there are {there}")
    places: list[Place] = []
    unclean: list[Refusal] = []
    for number in candidates:
        refusals = _check_volume(volume, number)
        unclean += refusals
        if not refusals:
            places += _look(volume, number)
    if len(places) > 1:
        numbers = ", ".join(str(place.partition) for place in places)
        raise DiskwrightError(f"{volume.name}: partitions {numbers} have a Windows each; say which one with partition")
    if places:
        return places[0]
    if unclean:  # they can't be looked into without changing them
        raise PlanRefusedError(tuple(unclean))
    locked = [number for number in candidates if _is(volume, number, is_bitlocker)]
    if locked:
        raise DiskwrightError(
            f"{volume.name}: partition {locked[0]} is encrypted with BitLocker, and nothing can be changed in it from"
            " outside; decrypt it in Windows (manage-bde -off C:), or bring the drivers in while Windows runs"
        )
    raise DiskwrightError(f"{volume.name}: there is no Windows on partition {', '.join(map(str, candidates))}")


def _is(volume: Volume, partition: int, test: Callable[[Read], bool]) -> bool:
    with volume.opened(partition) as read:
        return test(read)


def _look(volume: Volume, partition: int) -> Iterator[Place]:
    with volume.opened(partition) as read:
        if not is_ntfs(read):
            return
        serial = read_state(read).serial
    with volume.mounted(partition, writable=False) as root:
        for name in ("Windows", "WINNT"):
            config = tree.find(root, (name, *_CONFIG))
            folder = tree.find(root, (name,))
            if config is not None and folder is not None and tree.find(config, ("SOFTWARE",)) is not None:
                yield Place(partition, os.path.basename(folder), serial)
                return


def _check_volume(volume: Volume, partition: int) -> list[Refusal]:
    """What forbids to write to a volume, and even to mount it read-only, from its bytes. Nothing, if it is not NTFS."""
    with volume.opened(partition) as read:
        if not is_ntfs(read):
            return []
        try:
            state = read_state(read)
        except ParseError as error:
            return [_refusal(volume, f"partition {partition}: {error}", "start the guest and run chkdsk /f in Windows")]
    refusals = []
    if not state.log_clean:
        problem = f"partition {partition}: changes wait in the journal of the NTFS volume"
        refusals.append(_refusal(volume, problem, _SHUT_DOWN))
    if state.dirty:
        problem = f"partition {partition}: Windows wants to check the NTFS volume first (it is marked dirty)"
        refusals.append(_refusal(volume, problem, "start the guest, let chkdsk run, and shut it down fully"))
    return refusals


def check_files(volume: Volume, root: str, place: Place) -> list[Refusal]:
    """What forbids to write to a mounted Windows."""
    refusals = []
    hibernation = tree.find(root, ("hiberfil.sys",))
    if hibernation is not None and _head(hibernation) in _HIBERNATED:
        refusals.append(_refusal(volume, "Windows is hibernated, or was shut down with fast startup on", _SHUT_DOWN))
    for name in ("SYSTEM", "SOFTWARE"):
        path = tree.find(root, (place.folder, *_CONFIG, name))
        if path is not None and not is_clean(path):
            refusals.append(_refusal(volume, f"the registry hive {name} is dirty: changes wait in its log", _SHUT_DOWN))
    return refusals


def read_installation(volume: Volume, root: str, place: Place, store: str) -> Installation:
    """Read the Windows on a mounted volume.

    :param store: the folder of this node where backups of this volume are.
    :raises DiskwrightError: when it can't be read, or is not known.
    """
    folder = tree.find(root, (place.folder, record.FOLDER))
    path = tree.find(root, config_path(place, "SYSTEM"))
    found = tree.digest(path) if path is not None else ""
    source = path or find_backup(root, place, store)
    software = tree.find(root, config_path(place, "SOFTWARE"))
    if source is None or software is None:
        raise DiskwrightError(f"{volume.name}: partition {place.partition} has no SYSTEM hive, and there is no backup")
    try:
        system = Hive(source)
        windows = read_windows(system, Hive(software))
    except (HiveError, NoWindowsError, UnknownReleaseError) as error:
        raise DiskwrightError(f"{volume.name}: partition {place.partition}: {error}") from error
    return Installation(place, windows, system, found, record.load(folder))


def find_backup(root: str, place: Place, store: str) -> str | None:
    """The SYSTEM hive as it was saved by a run that was cut off after it had taken the old one away."""
    saved = tree.find(root, (place.folder, record.FOLDER, record.HIVE))
    return saved or tree.find(store, (record.HIVE,))


def config_path(place: Place, name: str) -> tree.Parts:
    """Where a hive is on the volume."""
    return (place.folder, *_CONFIG, name)


def _head(path: str) -> bytes:
    with tree.reader(path) as file:
        return file.read(4)


def _refusal(volume: Volume, problem: str, remedy: str) -> Refusal:
    return Refusal(volume.name, "", "", "", problem, remedy)
