# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A running Windows behind its guest agent: the scripts go in, values come out."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from .._core.errors import DiskwrightError
from .._pve.agent import AgentError, powershell
from .._windows.drivers import CONTROLLERS, DRIVERS
from .._windows.inside import REPAIR, UnreadableWindowsError, read_windows
from .._windows.powershell import script
from .._windows.reg_exe import QUERIES, outputs, query, read_registry, with_boot_disk
from .._windows.staging import Package, guard_values, read_package

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._pve.agent import Agent, Platform
    from .._windows.drivers import Driver
    from .._windows.inside import Windows
    from .._windows.staging import Plan

# Not needed to install a driver, and larger than all the rest.
_LEFT_OUT = (".pdb",)
_LARGEST = 4 << 20
_RESTART = 3010  # ERROR_SUCCESS_REBOOT_REQUIRED


class WindowsGuest:
    """A Windows whose agent answers."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._shell: Platform | None = None
        self._has_shell: bool | None = None

    # ---- reading

    def gather(self, services: Iterable[str] = ()) -> Windows:
        """What it is like.

        :param services: names of services to look at beside those of the usual controllers.
        :raises AgentError: it is no Windows, or does not answer.
        """
        shell = self._find_shell()
        if shell is None:
            return self._gather_from_registry()
        drivers = {row.name: f"{row.service};{row.stem};{'|'.join(row.devices)}" for row in DRIVERS.values()}
        known = {name.lower() for name in CONTROLLERS} | {row.service.lower() for row in DRIVERS.values()}
        more = [name for name in services if name.lower() not in known]
        return read_windows(self.run("gather", drivers=drivers, controllers=[*CONTROLLERS, *more]))

    def _find_shell(self) -> Platform | None:
        if self._has_shell is None:
            self._shell = self._look_for_shell()
            self._has_shell = self._shell is not None
        return self._shell

    def _look_for_shell(self) -> Platform | None:
        """An agent of 32 bit in a Windows of 64 bit sees another System32 and another registry than it should."""
        if not self._agent.is_windows():
            raise AgentError(f"{self._agent.label}: no Windows runs inside, says its agent")
        said = self._cmd("echo %SystemRoot%;%PROCESSOR_ARCHITEW6432%").strip()
        root, _semicolon, wide = said.partition(";")
        if not root or "%" in root:
            raise AgentError(f"{self._agent.label}: where Windows is installed can't be told from '{said}'")
        system = "System32" if not wide or "%" in wide else "Sysnative"
        found = powershell(root, system)
        return found if "yes" in self._cmd(f"if exist {found.interpreter} echo yes") else None

    def _cmd(self, line: str) -> str:
        return self._agent.run(["cmd.exe", "/d", "/c", line]).out.decode("ascii", "replace")

    def _gather_from_registry(self) -> Windows:
        found = read_registry(outputs(self._queries()))
        disks = [
            disk
            for row in self._agent.fsinfo()
            if str(row.get("mountpoint", "")).upper().startswith("C:")
            for disk in row.get("disk", ())
        ]
        return with_boot_disk(found, str(disks[0].get("bus-type")) if disks else None)

    def _queries(self) -> Iterator[str]:
        """A key that does not exist is no failure."""
        for key, deep in QUERIES:
            yield self._agent.run(query(key, deep=deep)).out.decode("latin-1")

    def read_package(self, driver: Driver, windows: Windows) -> Package | None:
        """A driver's package on the ISO that is in a drive, ``None`` when there is none for this Windows."""
        if windows.iso is None or windows.release is None or windows.architecture is None:
            return None
        folder = f"{windows.iso[0]}\\{driver.place(windows.release.folder, windows.architecture)}"
        inf, image, catalogue = (
            self._agent.read(f"{folder}\\{driver.stem}.{suffix}") for suffix in ("inf", "sys", "cat")
        )
        if inf is None or image is None or catalogue is None:
            return None
        return read_package(driver.name, f"{folder}\\{driver.inf}", (inf, image, catalogue))

    # ---- writing

    def guard(self, plan: Plan, reboots: int) -> None:
        """Set what the plan says."""
        self.run("guard", **guard_values(plan, reboots))

    def stage(self, packages: Sequence[Package], windows: Windows, folder: DriverFolder | None) -> bool:
        """Install packages. :returns: whether Windows wants to be restarted for it."""
        if folder is None:
            exits = self.run("stage", infs=[package.inf for package in packages])["exits"]
            return _RESTART in exits
        shell = t.cast("Platform", self._find_shell())
        base = shell.file("diskwright-drivers")
        infs = []
        for package in packages:
            driver, place = DRIVERS[package.name], f"{base}-{package.name}"
            self._agent.run(["cmd.exe", "/d", "/c", "mkdir", place])  # it may be there
            for file in folder.files(driver, windows):
                self._agent.write(f"{place}\\{file.name.lower()}", file.read_bytes(), shell)
            infs.append(f"{place}\\{driver.inf}")
        try:
            return _RESTART in self.run("stage", infs=infs)["exits"]
        finally:
            for inf in infs:
                self._agent.run(["cmd.exe", "/d", "/c", "rmdir", "/s", "/q", inf.rpartition("\\")[0]])

    def run(self, name: str, **values: t.Any) -> dict[str, t.Any]:
        """What a script answers.

        :raises AgentError: it failed, or there is no PowerShell to run it.
        """
        if self._find_shell() is None:
            raise AgentError(f"{self._agent.label}: this Windows has no PowerShell")
        result = self._agent.script(script(name, **values), t.cast("Platform", self._find_shell()))
        answer = _read_answer(result)
        if answer is None:
            raise UnreadableWindowsError(f"{self._agent.label}: the script {name} answered no object of JSON; {REPAIR}")
        if "error" in answer:
            raise AgentError(f"{self._agent.label}: Windows refused ({name}): {answer['error']}")
        return answer


def _read_answer(result: bytes) -> dict[str, t.Any] | None:
    """A script's result, ``None`` when it is no object of JSON."""
    try:
        answer = json.loads(result)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


class DriverFolder:
    """A folder where the task runs that has the files of the driver ISO."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if not self._path.is_dir():
            raise DiskwrightError(f"folder={path}: there is no such folder where the task runs")

    def read_package(self, driver: Driver, windows: Windows) -> Package | None:
        """A driver's package, ``None`` when there is none for this Windows."""
        place = self._place(driver, windows)
        wanted = {f"{driver.stem}.{suffix}" for suffix in ("inf", "sys", "cat")}
        files = {file.name.lower(): file for file in place.iterdir()} if place else {}
        if place is None or not wanted <= set(files):
            return None
        inf, image, catalogue = (files[f"{driver.stem}.{suffix}"].read_bytes() for suffix in ("inf", "sys", "cat"))
        return read_package(driver.name, str(files[driver.inf]), (inf, image, catalogue))

    def files(self, driver: Driver, windows: Windows) -> list[Path]:
        """The files that a driver's installation needs."""
        place = t.cast("Path", self._place(driver, windows))
        found = sorted(
            file for file in place.iterdir() if file.is_file() and file.suffix.lower() not in _LEFT_OUT
        )
        for file in found:
            if file.stat().st_size > _LARGEST:
                raise DiskwrightError(f"{file}: too large to be written through the agent; attach the ISO instead")
        return found

    def _place(self, driver: Driver, windows: Windows) -> Path | None:
        """The driver's folder, however its name is written."""
        if windows.release is None or windows.architecture is None:
            return None
        place = self._path
        for part in driver.place(windows.release.folder, windows.architecture, "/").split("/"):
            names = {entry.name.lower(): entry for entry in place.iterdir() if entry.is_dir()}
            if part.lower() not in names:
                return None
            place = names[part.lower()]
        return place
