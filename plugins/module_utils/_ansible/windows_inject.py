# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``windows_inject``: drivers into a stopped Windows guest's disk, and out of it again."""

from __future__ import annotations

import hashlib
import os
import typing as t
from dataclasses import dataclass

from .._core.errors import DiskwrightError, PlanRefusedError
from .._windows import bootcritical, hive, injection, installation, virt_v2v
from .._windows.iso9660 import IsoImage
from .._windows.package import Package, Shelf
from .._windows.releases import DRIVER_OF_BUS
from . import windows_disk
from .runner import Result

if t.TYPE_CHECKING:
    from .._windows.injection import Plan
    from .._windows.installation import Installation
    from .windows_disk import AttachedDisk

STATES = ("injected", "reverted")
BACKENDS = ("own", "virt-v2v-in-place")
DRIVERS = tuple(DRIVER_OF_BUS.values())


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found on a disk, and what is to be done.

    :param store: the folder of this node where records of this volume are.
    :param ready: the drivers that are boot-critical already.
    """

    installation: Installation
    store: str
    plan: Plan
    packages: dict[str, Package]
    ready: frozenset[str]


class WindowsInject:
    """Looks, plans, and writes."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        self._params = params
        self._warnings: list[str] = []
        self._label = ""
        self._name = ""
        self._found: _Found

    def prepare(self) -> None:
        """Look at the disk and plan. Nothing is written to it."""
        hive.load_hivex()
        self._check_arguments()
        self._found = self._look()

    def execute(self) -> None:
        """Write, and look again."""
        found = self._found
        if not self._todo(found):
            return
        with self._opened() as disk:
            _refuse(disk.against_writing())
            if self._params["backend"] == "own":
                self._carry_out(disk, found)
        if self._params["backend"] != "own":
            self._run_virt_v2v()
        again = self._look()
        if self._todo(again):
            raise DiskwrightError(f"{self._name}: {self._shortfall(again)}")

    def result(self, *, executed: bool) -> Result:  # noqa: ARG002 - the plan is what is done
        """Say what was found and done."""
        found, todo = self._found, self._todo(self._found)
        lines = self._lines(found) if todo else []
        return Result(
            self._data(found), changed=todo, diff="".join(f"{line}\n" for line in lines), warnings=self._warnings
        )

    # ---- looking

    def _check_arguments(self) -> None:
        params = self._params
        if params["state"] == "injected" and not params["iso"]:
            raise DiskwrightError("iso is missing: the path of the driver ISO on this node")
        if params["backend"] != "own":
            virt_v2v.check(params["state"], params["drivers"])

    def _opened(self) -> t.ContextManager[AttachedDisk]:
        return windows_disk.opened(self._params["path"], self._params["volume"], self._params["state_dir"])

    def _look(self) -> _Found:
        self._warnings.clear()
        with self._opened() as disk:
            self._name = disk.name
            _refuse(disk.against_writing())
            place = installation.find_windows(disk, self._params["partition"])
            store = self._store(place.serial)
            with disk.mounted(place.partition, writable=False) as root:
                refusals = installation.check_files(disk, root, place)
                if refusals:
                    raise PlanRefusedError(tuple(refusals))
                found = installation.read_installation(disk, root, place, store)
                if self._params["state"] == "injected":
                    return self._plan_injection(found, root, store)
                legacy = self._params["legacy_boot"]
                plan = injection.plan_reversal(found, root, store, legacy=legacy)
                self._warnings += [f"{self._name}: {text} was changed since and is kept" for text in plan.kept]
                return _Found(found, store, plan, {}, frozenset())

    def _plan_injection(self, found: Installation, root: str, store: str) -> _Found:
        params = self._params
        with IsoImage(params["iso"]) as iso:
            self._label = iso.label
            shelf = Shelf(iso, found.windows, self._name, allow_test_signed=params["allow_test_signed"])
            taken = {name: shelf.take(name) for name in self._drivers(found)}
        if shelf.refusals:
            raise PlanRefusedError(tuple(shelf.refusals))
        packages = {name: package for name, package in taken.items() if package is not None}
        self._warnings += shelf.warnings
        self._warnings += [
            f"{name} is signed by {package.signer}: Windows loads it only with test signing switched on"
            for name, package in packages.items()
            if package.test_signed
        ]
        plan = injection.plan_injection(
            found, root, packages.values(), volume=self._name, legacy=params["legacy_boot"]
        )
        ready = frozenset(name for name, one in packages.items() if injection.is_ready(found, root, one))
        return _Found(found, store, plan, packages, ready)

    def _drivers(self, found: Installation) -> list[str]:
        """The drivers that were asked for; by default all that there are for this Windows."""
        return list(dict.fromkeys(self._params["drivers"] or found.windows.release.drivers))

    def _store(self, serial: str) -> str:
        """A folder for each volume: two disks may well have the same serial number, when one is the other's copy."""
        digest = hashlib.sha256(f"{self._name}\0{serial}".encode("utf-8", "surrogateescape")).hexdigest()[:20]
        return os.path.join(os.path.realpath(self._params["state_dir"]), "windows_inject", digest)

    def _todo(self, found: _Found) -> bool:
        if self._params["backend"] == "own":
            return bool(found.plan)
        return not found.ready.issuperset(found.packages)

    # ---- writing

    def _carry_out(self, disk: AttachedDisk, found: _Found) -> None:
        place = found.installation.place
        with disk.mounted(place.partition, writable=True) as root:
            injection.carry_out(found.plan, root, found.store, found.installation.digest)

    def _run_virt_v2v(self) -> None:
        with self._opened() as disk:
            path, image_format = disk.path, disk.format
        virt_v2v.run(path, image_format, self._params["iso"], self._params["drivers"][0])

    # ---- telling

    def _shortfall(self, again: _Found) -> str:
        """What is missing after everything was done."""
        if self._params["backend"] == "own":
            left = "\n".join(again.plan.lines())
            return f"it was written, and is not to be seen afterwards:\n{left}"
        missing = ", ".join(sorted(set(again.packages) - again.ready))
        return (
            f"virt-v2v-in-place has ended without an error, and {missing} is not there: it may not know this Windows,"
            " or not find the driver on this ISO; use backend: own"
        )

    def _lines(self, found: _Found) -> list[str]:
        if self._params["backend"] == "own":
            return found.plan.lines()
        return [f"! {self._name}: virt-v2v-in-place puts {name} into it" for name in found.packages]

    def _data(self, found: _Found) -> dict[str, t.Any]:
        windows, place = found.installation.windows, found.installation.place
        data: dict[str, t.Any] = {
            "image": self._name,
            "partition": place.partition,
            "windows": {
                "release": windows.release.key,
                "title": windows.release.title,
                "name": windows.name,
                "version": windows.version,
                "build": windows.build,
                "edition": windows.release.edition.value,
                "architecture": windows.architecture,
            },
            "injected": sorted(found.packages),
            "drivers": {name: self._driver_data(found, package) for name, package in found.packages.items()},
            "kept": list(found.plan.kept),
        }
        if self._label:
            data["iso"] = self._label
        if found.plan.record is not None and self._params["backend"] == "own":
            data["backups"] = {"volume": f"{place.folder}\\{injection.FOLDER}", "node": found.store}
        return data

    def _driver_data(self, found: _Found, package: Package) -> dict[str, t.Any]:
        there = bootcritical.presence(found.installation.system, found.installation.windows, package.inf)
        return {
            "version": package.inf.version,
            "signer": str(package.signer),
            "test_signed": package.test_signed,
            "installed_by_windows": there.installed,
            "start_before": there.start,
            "switched_off_before": there.overridden,
        }


def _refuse(reasons: list[str]) -> None:
    if reasons:
        raise DiskwrightError("\n".join(reasons))
