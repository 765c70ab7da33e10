# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``image_mount``: mounts a partition of an image on the host, and unmounts it."""

from __future__ import annotations

import contextlib
import os
import shlex
import typing as t

from .._core.errors import DiskwrightError
from .._core.size import human_size
from .._image import attach, filesystems, guests, mounts, volumes
from .._image.disk import Disk, Found, Listing, look_into, of_source
from .._image.errors import ImageError
from .._image.inspect import inspect
from .._image.mounts import STATE_DIR
from .runner import Result

if t.TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BACKENDS", "STATES", "STATE_DIR", "ImageMount"]

STATES = ("mounted", "unmounted", "gathered")
BACKENDS = ("auto", "fuse", "loop", "kpartx")
_WRITABLE_FORMATS = ("raw", "qcow2")


class ImageMount:
    """Looks, plans, and mounts or unmounts."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        self._params = params
        self._state: str = params["state"]
        self._mounts = mounts.Mounts(params["state_dir"])
        self._mountpoint = os.path.realpath(params["mountpoint"]) if params["mountpoint"] else ""
        self._name = params["volume"] or (os.path.realpath(params["path"]) if params["path"] else "")
        self._data: dict[str, t.Any] = {}
        self._lines: list[str] = []
        self._warnings: list[str] = []
        self._problems: list[str] = []
        self._doomed: list[mounts.Record] = []
        self._planned: list[mounts.Record] = []

    def prepare(self) -> None:
        """Look at the image and at what is mounted, and plan."""
        _check_arguments(self._params)
        if self._state == "gathered":
            with self._opened() as disk:
                self._tell(disk, look_into(disk))
        elif self._state == "mounted":
            self._prepare_mount()
        else:
            self._prepare_unmount()

    def execute(self) -> None:
        """Mount or unmount, while no other run does."""
        if not self._lines:
            return
        with self._mounts.locked():
            if self._state == "mounted":
                self._mount()
            for record in self._doomed:
                self._problems += self._mounts.unmount(record)

    def result(self, *, executed: bool) -> Result:
        """Say what was found and done."""
        data = {**self._data, "mounts": [record.data() for record in self._kept(executed=executed)]}
        failure = "\n".join(self._problems) or None
        diff = "".join(f"{line}\n" for line in self._lines)
        return Result(data, changed=bool(self._lines), failure=failure, diff=diff, warnings=self._warnings)

    def _kept(self, *, executed: bool) -> list[mounts.Record]:
        """The mounts that there are, or in check mode those that there would be."""
        if executed:
            return self._mounts.all()
        gone = {record.wanted.mountpoint for record in (*self._doomed, *self._planned)}
        kept = [record for record in self._mounts.all() if record.wanted.mountpoint not in gone]
        return sorted([*kept, *self._planned], key=lambda record: record.wanted.mountpoint)

    # ---- the image

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Disk]:
        if self._params["volume"]:
            with volumes.opened(self._name) as disk:
                yield disk
            return
        with inspect(self._params["path"], self._params["member"]) as source, of_source(self._name, source) as disk:
            yield disk

    def _tell(self, disk: Disk, listing: Listing) -> None:
        self._data = {"image": disk.name, "member": self._params["member"], **_listing_data(disk, listing)}
        self._warnings += [f"{disk.name}: {text}" for text in listing.damage]

    # ---- mounted

    def _prepare_mount(self) -> None:
        record = self._mounts.at(self._mountpoint)
        if record is not None and mounts.is_whole(record):
            self._accept(record)
            return
        try:
            with self._opened() as disk:
                planned = self._plan(disk, left=record)
        except ImageError:
            # What an interrupted run has left may itself keep the image from being opened.
            if record is None or record.name != self._name:
                raise
            planned = record
            self._data = {"image": self._name, "member": record.member, **record.listing}
        if record is not None:
            self._lines.append(f"~ {self._mountpoint}  what an interrupted run has left is cleared away")
        self._planned = [planned]
        self._lines.append(f"+ {_line(planned)}")
        self._data["mount"] = planned.data()

    def _accept(self, record: mounts.Record) -> None:
        """What is mounted is what was asked for, or it is refused."""
        differs = self._differences(record)
        if differs:
            raise DiskwrightError(
                f"mountpoint {self._mountpoint}: {_what(record)}, is mounted there, and {differs}; unmount it first, "
                "or name another mountpoint"
            )
        self._data = {"image": record.name, "member": record.member, **record.listing, "mount": record.data()}

    def _differences(self, record: mounts.Record) -> str:
        """What is otherwise than it was asked for, in words."""
        params, wanted = self._params, record.wanted
        asked, replaced = [], False
        if (record.name, record.member) != (self._name, params["member"]):
            asked.append(" ".join(filter(None, (self._name, params["member"]))))
        else:
            replaced = not all(stamp.same_file() for stamp in record.stamps)
        if params["partition"] not in (None, wanted.number):
            asked.append(f"partition={params['partition']}")
        if params["writable"] != wanted.writable:
            asked.append(f"writable={str(params['writable']).lower()}")
        if params["backend"] not in ("auto", wanted.backend.split("+")[-1]):
            asked.append(f"backend={params['backend']}")
        parts = ["its file was replaced since"] if replaced else []
        parts += [f"{' with '.join(asked)} is asked for"] if asked else []
        return " and ".join(parts)

    def _plan(self, disk: Disk, left: mounts.Record | None = None) -> mounts.Record:
        """What is to be mounted and how. Everything that speaks against it is reported together.

        :param left: what an interrupted run has left at the mount point, which is going to be cleared away.
        """
        listing = look_into(disk)
        self._tell(disk, listing)
        refusals, writable = _Refusals(), self._params["writable"]
        found = refusals.of(lambda: _choose(disk, listing, self._params["partition"]))
        make = left.wanted.make if left else refusals.of(lambda: mounts.check_mountpoint(self._mountpoint))
        backend = refusals.of(lambda: _backend(disk, listing, self._params["backend"]))
        if writable:
            refusals.add(*against_writing(disk, listing))
        else:
            self._warnings += _running(disk)
        driver = refusals.of(lambda: _driver(disk, found, writable=writable) if found else "")
        refusals.report()
        return self._record(disk, listing, found, backend, driver, make=bool(make))

    def _record(
        self, disk: Disk, listing: Listing, found: Found, backend: str, driver: str, *, make: bool
    ) -> mounts.Record:
        writable, part = self._params["writable"], found.partition
        wanted = attach.Wanted(
            tag=self._mounts.tag(self._mountpoint),
            folder=self._mounts.folder(self._mountpoint),
            backend=backend,
            mountpoint=self._mountpoint,
            make=make,
            number=part.number,
            start=part.start,
            size=part.size,
            disk_size=disk.size,
            driver=driver,
            options=filesystems.mount_options(found.content.type, driver, writable=writable),
            writable=writable,
        )
        data = _listing_data(disk, listing)
        return mounts.Record(
            disk.name, self._params["member"], disk.format, found.content.type, wanted, data, disk.stamps
        )

    def _mount(self) -> None:
        """Plan once more, now that no other run is at work and leftovers are gone, and mount."""
        left = self._mounts.at(self._mountpoint)
        if left is not None:
            self._mounts.unmount(left)
        self._warnings.clear()
        with self._opened() as disk:
            record = self._plan(disk)
            self._mounts.mount(record, disk)
        self._data["mount"] = record.data()

    # ---- unmounted

    def _prepare_unmount(self) -> None:
        if self._mountpoint:
            record = self._mounts.at(self._mountpoint)
            if record is None and mounts.check_unmounted(self._mountpoint):
                raise DiskwrightError(
                    f"mountpoint {self._mountpoint}: {mounts.check_unmounted(self._mountpoint)} is mounted there, and "
                    f"not by this module; unmount it with: umount {shlex.quote(self._mountpoint)}"
                )
            self._doomed = [record] if record else []
        else:
            self._doomed = self._mounts.of(self._name)
        self._lines = [f"- {_line(record)}" for record in self._doomed]
        self._data = {"image": self._name or (self._doomed[0].name if self._doomed else None)}


class _Refusals:
    """Collects what speaks against a plan."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, *texts: str) -> None:
        self._texts += texts

    def of(self, ask: t.Callable[[], t.Any]) -> t.Any:
        """The answer, or ``None`` where it is a refusal."""
        try:
            return ask()
        except DiskwrightError as error:
            self._texts.append(str(error))
            return None

    def report(self) -> None:
        if self._texts:
            raise DiskwrightError("\n".join(self._texts))


def _check_arguments(params: dict[str, t.Any]) -> None:
    if os.geteuid() != 0:
        raise DiskwrightError("looking into images and mounting them needs root; add become: true to the task")
    if params["state"] == "mounted" and not params["mountpoint"]:
        raise DiskwrightError("mountpoint is missing; name an empty folder, or one that is to be made")
    if params["state"] != "unmounted" and not (params["path"] or params["volume"]):
        raise DiskwrightError("path or volume is missing; name an image file, or a volume such as local:100/disk.qcow2")
    if params["member"] and not params["path"]:
        raise DiskwrightError(f"member={params['member']}: it names a disk in an archive, whose path is missing")
    if params["mountpoint"] and not os.path.isabs(params["mountpoint"]):
        raise DiskwrightError(f"mountpoint={params['mountpoint']}: is no absolute path; begin it with /")


def _choose(disk: Disk, listing: Listing, number: int | None) -> Found:
    by_number = {found.partition.number: found for found in listing.found}
    if number is None and len(by_number) == 1:
        return next(iter(by_number.values()))
    if number in by_number:
        return by_number[number]
    there = ", ".join(map(_name_of, listing.found)) or "none"
    if number is None:
        raise DiskwrightError(f"partition is missing: {disk.name} has {there}; name one of them")
    raise DiskwrightError(f"partition={number}: {disk.name} has no such partition; it has {there}")


def _driver(disk: Disk, found: Found, *, writable: bool) -> str:
    problem = filesystems.obstacle(found.content, writable=writable)
    if problem:
        raise DiskwrightError(f"partition {found.partition.number} of {disk.name} {problem}")
    return filesystems.find_driver(found.content.type)


def _backend(disk: Disk, listing: Listing, asked: str) -> str:
    plain = disk.plain is not None
    if asked == "loop" and not plain:
        raise DiskwrightError(f"backend=loop: {disk.name} is {disk.format}, and only raw goes without FUSE; use auto")
    if asked == "kpartx":
        _check_kpartx(disk, listing)
        return "kpartx" if plain else "fuse+kpartx"
    return ("loop" if plain else "fuse") if asked == "auto" else asked


def _check_kpartx(disk: Disk, listing: Listing) -> None:
    """Kpartx shows every partition to the host, where LVM, RAID and ZFS would take what is theirs."""
    attach.check_kpartx()
    if listing.scheme == "none":
        raise DiskwrightError(f"backend=kpartx: {disk.name} has no partitions; use auto")
    taken = [found for found in listing.found if found.content.type in filesystems.OTHERS]
    if taken:
        raise DiskwrightError(
            f"backend=kpartx: it would show all partitions of {disk.name} to the host, which would take "
            f"{', '.join(map(_name_of, taken))} for its own; use auto, which shows one partition alone"
        )


def against_writing(disk: Disk, listing: Listing) -> Iterator[str]:
    """Why nothing may be written to a disk, in words; nothing when it may."""
    if disk.format not in _WRITABLE_FORMATS:
        allowed = " and ".join(_WRITABLE_FORMATS)
        yield f"writable=true: {disk.name} is {disk.format}, and only {allowed} can be written to; convert it first"
    for problem in listing.damage:
        yield f"writable=true: {disk.name}: {problem}; repair the table first"
    for guest in _guests(disk):
        state = guests.state(guest)
        if state != "stopped":
            running = "runs" if state == "running" else "may run, which can't be found out from here"
            yield f"writable=true: guest {guest} has {disk.name} and {running}; shut it down"
        if guest.lock:
            yield f"writable=true: guest {guest} has {disk.name} and is locked ({guest.lock}); wait until it is not"
    for user in guests.on_this_machine(disk.stamps[0]):
        yield f"writable=true: {disk.name} is in use by {user}; end that first"


def _running(disk: Disk) -> list[str]:
    return [
        f"guest {guest} runs and writes to {disk.name}: what is seen may contradict itself; mount a snapshot or a "
        "backup, or shut the guest down"
        for guest in _guests(disk)
        if guests.state(guest) == "running"
    ]


def _guests(disk: Disk) -> list[guests.Guest]:
    return guests.naming((disk.name, *guests.names_of(disk.stamps[0].path)))


def _listing_data(disk: Disk, listing: Listing) -> dict[str, t.Any]:
    return {
        "format": disk.format,
        "virtual_size": disk.size,
        "table": listing.scheme,
        "partitions": [found.data() for found in listing.found],
    }


def _name_of(found: Found) -> str:
    part, content = found.partition, found.content
    kind = content.type or "unknown"
    label = f" '{content.label}'" if content.label else ""
    return f"{part.number} ({kind}{label}, {human_size(part.size)})"


def _line(record: mounts.Record) -> str:
    return f"{record.wanted.mountpoint}  {_what(record)}"


def _what(record: mounts.Record) -> str:
    wanted = record.wanted
    image = " ".join(filter(None, (record.name, record.member)))
    mode = "writable" if wanted.writable else "read-only"
    part = f"partition {wanted.number}" if wanted.number else "the whole disk"
    return f"{part} of {image} ({record.content}, {human_size(wanted.size)}), {mode}"
