# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Scratch volumes: made for a run, filled, and freed, whatever happens to the run.

A volume is written into a ledger before it is made, under a name that only this run gives, and leaves the ledger after
it is gone. So whoever opens the ledger of a run that was killed knows what to free, and frees nothing else.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import stat
import typing as t
from dataclasses import asdict, dataclass

from .._core.size import human_size
from .._image import pvesm, qemu, space
from .._image.guests import ROOT
from .._image.journal import sync_folder, write_atomic
from .._image.places import VolumePlace, check_unused
from .errors import BenchError

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .combination import Combination
    from .matrix import Place

MIB: t.Final = 1024**2
#: Volumes are filled with this many random bytes again and again, which no storage can compress.
PATTERN_BYTES: t.Final = 64 * MIB
FOLDER: t.Final = "folder"


@dataclass(frozen=True, slots=True)
class Entry:
    """A volume in the ledger.

    :param place: storage or folder.
    :param type: of the storage, or ``folder``.
    :param name: of the volume, without its storage's name; of the file.
    """

    place: str
    type: str
    name: str
    format: str
    vmid: int


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume that is there.

    :param volume: its volume id, or the path of the file.
    :param path: the file or device that QEMU opens.
    """

    volume: str
    path: str
    format: str
    block: bool

    def forget_cached(self) -> None:
        """Have the next read come from the storage: what this node has cached of the image is written, and given up."""
        for path in filter(os.path.exists, _files(self.path)):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


class Scratch:
    """The scratch volumes of one run.

    :param folder: of the run's state, where the ledger is.
    :param vmid: the number under which volumes are made; no guest has it.
    :param tag: a short word that no other run has.
    """

    def __init__(self, folder: str, vmid: int, tag: str) -> None:
        self.folder, self._vmid, self._tag = folder, vmid, tag
        self._ledger = os.path.join(folder, "scratch.json")
        self._entries = self._load()

    def make(self, combination: Combination, place: Place, size: int) -> Volume:
        """Make the volume of a combination, not filled.

        :param size: bytes, a whole number of MiB.
        """
        number = len(self._entries)
        name = f"vm-{self._vmid}-{self._tag}-{number}"
        if place.type == FOLDER:
            name = f"diskwright-{self._tag}-{number}.{combination.format}"
        entry = Entry(place.name, place.type, name, combination.format, self._vmid)
        self._save([*self._entries, entry])
        if place.type == FOLDER:
            path = os.path.join(place.name, name)
            _create(path, combination, size)
            return Volume(path, path, combination.format, block=False)
        return _volume(entry, combination, size)

    def free(self) -> None:
        """Free all of them, also those of an earlier process."""
        for entry in list(self._entries):
            _free(entry)
            self._save([one for one in self._entries if one != entry])

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is there, or was about to be made."""
        return tuple(self._entries)

    def _load(self) -> list[Entry]:
        try:
            with open(self._ledger, encoding="utf-8") as file:
                return [Entry(**row) for row in json.load(file)["volumes"]]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise BenchError(
                f"{self._ledger} is no list of scratch volumes ({error}); look for volumes named *{self._tag}*, free "
                "them, and remove it"
            ) from error

    def _save(self, entries: list[Entry]) -> None:
        write_atomic(self._ledger, json.dumps({"volumes": [asdict(one) for one in entries]}, indent=1) + "\n")
        self._entries = entries


def _volume(entry: Entry, combination: Combination, size: int) -> Volume:
    place = VolumePlace(entry.place, entry.vmid, entry.name, entry.format, entry.name)
    os.close(place.make(size, entry.format))
    path = pvesm.path(place.shown)
    block = stat.S_ISBLK(os.stat(path).st_mode)
    if combination.format_options:
        _create(path, combination, size)
    return Volume(place.shown, path, entry.format, block)


def _create(path: str, combination: Combination, size: int) -> None:
    options = ",".join(f"{name}={value}" for name, value in combination.format_options)
    command = ["create", "-q", "-f", combination.format, *(["-o", options] if options else []), path, str(size)]
    qemu.run(command, (), f"making {path}")
    sync_folder(os.path.dirname(path))


def _free(entry: Entry) -> None:
    if entry.type == FOLDER:
        for path in _files(os.path.join(entry.place, entry.name)):
            with contextlib.suppress(FileNotFoundError):
                check_unused(path)
                os.unlink(path)
        sync_folder(entry.place)
        return
    place = VolumePlace(entry.place, entry.vmid, entry.name, entry.format, entry.name)
    if place.unfinished() is not None:
        _own, *others = _files(pvesm.path(place.shown))
        place.discard()
        for path in others:  # never what PVE itself has freed: that may be the node of a device
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _files(path: str) -> list[str]:
    """A file and, of a VMDK, the second file that one subformat keeps the data in."""
    stem, suffix = os.path.splitext(path)
    return [path, f"{stem}-flat.vmdk"] if suffix == ".vmdk" else [path]


def fill(volume: Volume, size: int, pattern: str) -> None:
    """Write a whole volume once, so that nothing is allocated while it is measured.

    :param pattern: path of a file that ``write_pattern`` has made.
    """
    whole, rest = divmod(size, PATTERN_BYTES)
    raw = {"driver": "raw", "file": {"driver": "file", "filename": pattern}}
    sources = ["json:" + json.dumps(raw)] * whole
    sources += [qemu.window(raw, 0, rest)] if rest else []
    command = ["convert", "-n", "-S", "0", "-W", "-O", volume.format, *sources, volume.path]
    qemu.run(command, (), f"filling {volume.volume}")
    volume.forget_cached()


def write_pattern(path: str) -> None:
    """A file of random bytes."""
    with open(path, "wb") as file:
        for _part in range(PATTERN_BYTES // MIB):
            file.write(os.urandom(MIB))


def needed(combinations: Sequence[Combination], size: int) -> int:
    """Bytes that the volumes of these combinations take together, once they are filled."""
    layouts = {one.layout: one for one in combinations}
    return sum(space.needed(one.format, size, size, thin=False, cluster_size=512) for one in layouts.values())


def available(place: Place) -> int:
    """Bytes that are free on a place."""
    return space.available(place.name) if place.type == FOLDER else pvesm.status(place.name).available


def problems(place: Place, combinations: Sequence[Combination], size: int, vmid: int) -> list[str]:
    """What is against making the volumes of these combinations on a place, where none of them is yet."""
    need, free = needed(combinations, size) + space.MARGIN, available(place)
    found = []
    if need > free:
        found.append(
            f"{place.name}: {human_size(need)} are needed for scratch volumes and {human_size(free)} are free; "
            "name fewer formats, a smaller size, or another place"
        )
    if place.type != FOLDER and (listed := pvesm.volumes(place.name, vmid)):
        names = ", ".join(one.volid for one in listed)
        found.append(f"{place.name}: there are volumes of guest {vmid} already ({names}); name another vmid")
    return found


def taken(vmid: int, root: str = ROOT) -> bool:
    """Whether a guest of the cluster has this number."""
    return bool(glob.glob(os.path.join(glob.escape(root), "nodes", "*", "*", f"{vmid}.conf")))
