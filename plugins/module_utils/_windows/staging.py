# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a declaration for the inside of a Windows takes: drivers to stage, and what is to be guarded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .._core.errors import ParseError, Refusal
from .drivers import DRIVERS
from .inside import SAN_POLICIES, DriverState, Windows, version_key
from .pe import read_executable
from .releases import Release
from .signer import Signer, find_signers, would_load

BITLOCKER = ("suspended", "resumed")
_VERSION = re.compile(r"(?im)^\s*DriverVer\s*=[^,\r\n]*,\s*([\d.]+)")
_LETTER = re.compile(r"([A-Z]):?\\?")


@dataclass(frozen=True, slots=True)
class Package:
    """A driver as the ISO or a folder has it.

    :param inf: path of its INF file, where it was read.
    :param signers: who signed it.
    :param problem: why its signature proves nothing, or an empty string.
    """

    name: str
    inf: str
    version: str
    signers: tuple[Signer, ...] = ()
    problem: str = ""


def read_package(name: str, inf: str, files: tuple[bytes, bytes, bytes]) -> Package:
    """A driver's package.

    :param inf: path of its INF file, for messages.
    :param files: the contents of its INF, its driver and its catalogue.
    """
    text = files[0].decode("utf-16" if files[0][:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")
    found = _VERSION.search(text)
    version = found[1] if found else ""
    try:
        return Package(name, inf, version, find_signers(read_executable(files[1]), files[2]))
    except ParseError as error:
        return Package(name, inf, version, problem=str(error))


@dataclass(frozen=True, slots=True)
class Wish:
    """What is declared. ``None`` and empty leave things alone.

    :param drivers: names of drivers to stage.
    :param letters: volumes by the letter that each is to have.
    """

    drivers: tuple[str, ...] = ()
    allow_test_signed: bool = False
    bitlocker: str | None = None
    reboots: int = 3
    volumes: tuple[str, ...] | None = None
    fast_startup: bool | None = None
    san_policy: str | None = None
    online: tuple[str, ...] = ()
    letters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    boot_start: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is declared."""
        return self != Wish(allow_test_signed=self.allow_test_signed, reboots=self.reboots, volumes=self.volumes)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, for people."""

    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, and what stands against it.

    :param stage: packages to install.
    :param guard: what to set; only what differs from what is.
    """

    stage: tuple[Package, ...] = ()
    guard: Wish = field(default_factory=Wish)
    suspend: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    online: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def guards(self) -> bool:
        """Whether something is to be set."""
        return self.guard.changes or bool(self.suspend or self.resume or self.online)


def make_plan(label: str, windows: Windows, wish: Wish, packages: Mapping[str, Package | None]) -> Plan:
    """What it takes to make a Windows as declared.

    :param label: how messages call the guest.
    :param packages: those of ``wish.drivers`` that were looked for, ``None`` for what was not found.
    """
    if wish.changes and windows.powershell is None:
        problem = "this Windows has no PowerShell, so nothing can be set"
        remedy = "use windows_inject on the stopped guest, or install PowerShell"
        return Plan(refusals=(Refusal(label, "", "", "", problem, remedy),))
    return _Planner(label, windows, wish, packages).plan()


class _Planner:
    def __init__(self, label: str, windows: Windows, wish: Wish, packages: Mapping[str, Package | None]) -> None:
        self._label, self._windows, self._wish, self._packages = label, windows, wish, packages
        self._refusals: list[Refusal] = []
        self._steps: list[Step] = []

    def plan(self) -> Plan:
        suspend, resume = self._bitlocker()
        plan = Plan(
            stage=tuple(self._stage()),
            suspend=suspend,
            resume=resume,
            online=tuple(self._online()),
            guard=replace(
                Wish(),
                fast_startup=self._fast_startup(),
                san_policy=self._san_policy(),
                letters=MappingProxyType(dict(self._letters())),
                boot_start=tuple(self._boot_start()),
            ),
        )
        return replace(plan, steps=tuple(self._steps), refusals=tuple(self._refusals))

    def _refuse(self, option: str, value: str, problem: str, remedy: str) -> None:
        self._refusals.append(Refusal(self._label, "", option, value, problem, remedy))

    # ---- drivers

    def _stage(self) -> Iterator[Package]:
        for name in self._wish.drivers:
            package, state = self._packages.get(name), self._windows.drivers[name]
            if package is None:
                where = self._windows.release.title if self._windows.release else self._windows.product
                architecture = self._windows.architecture or "unknown architecture"
                self._refuse("drivers", name, f"there is none for {where}, {architecture}, where it was looked for",
                             "attach the ISO that has it, or name a folder that has it")  # fmt: skip
            elif needs_staging(state, package) and self._accepted(package):
                self._steps.append(Step(name, f"{package.version} staged from {package.inf}"))
                yield package

    def _accepted(self, package: Package) -> bool:
        if package.problem:
            self._refuse("drivers", package.name, f"{package.inf}: {package.problem}", "take another ISO")
            return False
        release = self._windows.release
        if self._wish.allow_test_signed or (release is not None and self._would_load(release, package)):
            return True
        who = ", or ".join(dict.fromkeys(str(signer) for signer in package.signers))
        iso = f"the ISO {release.iso}" if release else "another ISO"
        self._refuse(
            "drivers", package.name, f"{self._windows.product} does not load {package.inf}, which is signed by {who}",
            f"take {iso}, or permit it with allow_test_signed",
        )  # fmt: skip
        return False

    def _would_load(self, release: Release, package: Package) -> bool:
        wanted = release.signature_on(self._windows.architecture or "")
        return any(would_load(wanted, signer) for signer in package.signers)

    # ---- BitLocker

    def _bitlocker(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        wanted, now = self._wish.bitlocker, self._windows.bitlocker
        if wanted is None:
            return (), ()
        if now is None:
            self._refuse("bitlocker", wanted, "this Windows does not tell what BitLocker does", "look at it by hand")
            return (), ()
        change_from = "on" if wanted == "suspended" else "suspended"
        named = self._wish.volumes
        names = [name.upper() for name in named] if named is not None else list(now)
        for name in names:
            if now.get(name) == "locked":
                self._refuse("bitlocker_volumes", name, "the volume is locked", "unlock it")
        names = [name for name in names if now.get(name) == change_from]
        for name in names:
            text = f"suspended for {self._wish.reboots} starts" if wanted == "suspended" else "resumed"
            self._steps.append(Step(name, f"BitLocker {text}"))
        return (tuple(names), ()) if wanted == "suspended" else ((), tuple(names))

    # ---- settings

    def _fast_startup(self) -> bool | None:
        wanted = self._wish.fast_startup
        if wanted is None or wanted == self._windows.fast_startup:
            return None
        self._steps.append(Step("fast startup", "on" if wanted else "off"))
        return wanted

    def _san_policy(self) -> str | None:
        wanted, now = self._wish.san_policy, self._windows.san_policy
        if wanted is None or wanted == now:
            return None
        self._steps.append(Step("SAN policy", f"{now} -> {wanted}"))
        return wanted

    def _boot_start(self) -> Iterator[str]:
        services = {name.lower(): service for name, service in self._windows.controllers.items()}
        for name, state in self._windows.drivers.items():
            if state.exists:
                services[DRIVERS[name].service.lower()] = state.service
        for name in self._wish.boot_start:
            service = services.get(name.lower())
            if service is not None and not service.starts_at_boot:
                self._steps.append(Step(name, "can start Windows again"))
                yield name

    # ---- disks and letters

    def _online(self) -> Iterator[int]:
        known = {disk.identity: disk for disk in self._windows.disks if disk.identity}
        for identity in self._wish.online:
            disk = known.get(identity.lower())
            if disk is None:
                self._refuse("online", identity, "there is no such disk", f"there are {', '.join(known) or 'none'}")
            elif disk.offline or disk.read_only:
                self._steps.append(Step(f"disk {disk.number}", "online and writable"))
                yield disk.number

    def _letters(self) -> Iterator[tuple[str, str]]:
        known = {volume.identity for volume in self._windows.volumes}
        wanted = {}
        for key, volume in self._wish.letters.items():
            match = _LETTER.fullmatch(key.upper())
            if match is None:
                self._refuse("letters", key, "it is no drive letter", "write it as E:")
            elif volume.lower() not in known:
                self._refuse("letters", f"{key} {volume}", "there is no such volume", "bring its disk online first")
            else:
                wanted[f"{match[1]}:"] = volume.lower()
        now = {volume.letter: volume.identity for volume in self._windows.volumes if volume.letter}
        for letter, volume in wanted.items():
            if now.get(letter) != volume:
                self._steps.append(Step(letter, f"is the letter of volume {volume}"))
                yield letter, volume


def needs_staging(state: DriverState, package: Package) -> bool:
    """Whether a package is newer than what is in the store, or devices are there that nobody drives."""
    return version_key(package.version) > state.newest() or (state.hardware or 0) > state.service.devices


def guard_values(plan: Plan, reboots: int) -> dict[str, object]:
    """The variables of the script ``guard``."""
    wish = plan.guard
    return {
        "san_policy": -1 if wish.san_policy is None else SAN_POLICIES.index(wish.san_policy) + 1,
        "fast_startup": -1 if wish.fast_startup is None else int(wish.fast_startup),
        "suspend": plan.suspend,
        "resume": plan.resume,
        "reboots": reboots,
        "boot_start": wish.boot_start,
        "online": plan.online,
        "letters": dict(wish.letters),
    }
