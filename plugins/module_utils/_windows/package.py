# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Takes a driver for an installed Windows from the driver ISO, and says what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass

from .._core.errors import ParseError, Refusal
from .bootcritical import BUS_TYPES, CLASS
from .drivers import DRIVERS
from .inf import DriverInf, read_inf
from .installed import Windows
from .iso9660 import IsoError, IsoImage
from .pe import read_executable
from .releases import ARCHITECTURES, ISOS, Signature, UnknownReleaseError, find_iso
from .signer import Kind, Signer, find_signers, would_load


@dataclass(frozen=True, slots=True)
class Package:
    """A driver that may be used.

    :param binary: the content of the driver file.
    :param signer: who has signed it, the one that makes Windows load it.
    :param catalogue: the content of the catalogue, if it is its signature that counts, else ``None``.
    :param test_signed: whether Windows loads it only with test signing switched on.
    """

    inf: DriverInf
    binary: bytes
    signer: Signer
    catalogue: bytes | None
    test_signed: bool


class Shelf:
    """The drivers of an ISO for one Windows. What is wrong is collected in ``refusals``.

    :param volume: how messages call the guest's volume.
    """

    def __init__(self, iso: IsoImage, windows: Windows, volume: str, *, allow_test_signed: bool) -> None:
        self._iso, self._windows, self._volume = iso, windows, volume
        self._allow_test_signed = allow_test_signed
        self.refusals: list[Refusal] = []
        self.warnings: list[str] = []
        self._warn()

    def take(self, name: str) -> Package | None:
        """The driver of this name, or ``None`` with a refusal."""
        release, architecture = self._windows.release, self._windows.architecture
        if name not in release.drivers:
            there = ", ".join(release.drivers)
            self._refuse(name, f"there is no {name} for {release.title}", f"name the drivers that there are: {there}")
            return None
        if architecture not in release.architectures:
            known = ", ".join(set(release.architectures) & set(ARCHITECTURES))
            self._refuse(name, f"this {release.title} is for {architecture or 'an unknown processor'}",
                         f"there are drivers for {known}")  # fmt: skip
            return None
        driver = DRIVERS[name]
        folder = driver.place(release.folder, architecture, "/")
        try:
            inf = read_inf(self._iso.read(f"{folder}/{driver.inf}"), architecture)
            binary = self._iso.read(f"{folder}/{driver.stem}.sys")
            return self._checked(name, inf, binary, self._catalogue(folder, inf))
        except (IsoError, ParseError) as error:
            self._refuse(name, f"{folder} on the driver ISO can't be used: {error}", self._other_iso())
            return None

    def _warn(self) -> None:
        """What the table knows against this ISO."""
        label = self._iso.label
        try:
            iso = find_iso(label)
        except UnknownReleaseError:
            if label.startswith("virtio-win-"):
                last = list(ISOS)[-1]
                self.warnings.append(f"{label} is newer or older than what is known here, which ends with {last}")
            return
        if iso.defect:
            self.warnings.append(f"{label}: {iso.defect} ({iso.source})")

    def _catalogue(self, folder: str, inf: DriverInf) -> bytes | None:
        names = {name.lower() for name in self._iso.names(folder)}
        return self._iso.read(f"{folder}/{inf.catalogue}") if inf.catalogue.lower() in names else None

    def _checked(self, name: str, inf: DriverInf, binary: bytes, catalogue: bytes | None) -> Package | None:
        executable = read_executable(binary)
        architecture = self._windows.architecture
        bus_type = inf.parameter("Parameters", "BusType")
        if (inf.binary.lower(), inf.class_guid.upper()) != (f"{name}.sys", CLASS):
            found = f"{inf.binary} of the class {inf.class_guid}"
            raise ParseError(f"its INF installs {found}, and not {name}.sys of {CLASS}")
        if executable.architecture != architecture:
            raise ParseError(f"{inf.binary} is for {executable.architecture}, and this Windows for {architecture}")
        if (inf.service.lower(), inf.start, inf.type, bus_type) != (name, 0, 1, BUS_TYPES[name]):
            raise ParseError(
                f"its INF describes a service {inf.service} with start {inf.start}, type {inf.type} and bus type"
                f" {bus_type}, where {name}, 0, 1 and {BUS_TYPES[name]} are expected"
            )
        signers = find_signers(executable, catalogue)
        return self._judged(name, inf, binary, catalogue, signers)

    def _judged(
        self, name: str, inf: DriverInf, binary: bytes, catalogue: bytes | None, signers: tuple[Signer, ...]
    ) -> Package | None:
        """The first signature that makes Windows load the driver counts; those in the file come first."""
        wanted = self._windows.release.signature_on(self._windows.architecture)
        for signer in signers:
            if would_load(wanted, signer):
                return Package(inf, binary, signer, catalogue if signer.catalogue else None, test_signed=False)
        signer = signers[0]
        if self._allow_test_signed and signer.kind is not Kind.NONE:
            return Package(inf, binary, signer, None, test_signed=True)
        test = "" if signer.kind is Kind.NONE else "; allow_test_signed: true if test signing is switched on in it"
        self._refuse(
            name,
            f"{inf.binary} ({inf.version}) is signed by {signer}, and {self._windows.release.title} loads it only"
            f" {_demand(wanted)}",
            f"{self._other_iso()}{test}",
        )
        return None

    def _other_iso(self) -> str:
        release = self._windows.release
        because = f": {release.because}" if not release.takes(self._iso.label.removeprefix("virtio-win-")) else ""
        return f"use {ISOS[release.iso].file_name}, which has the drivers for {release.title}{because}"

    def _refuse(self, name: str, problem: str, remedy: str) -> None:
        self.refusals.append(Refusal(self._volume, "", "drivers", name, problem, remedy))


def _demand(wanted: Signature) -> str:
    return {
        Signature.MICROSOFT: "with Microsoft's own signature",
        Signature.CROSS: "with a signature that an authority vouches for",
        Signature.CROSS_SHA1: "with a SHA-1 signature that an authority vouches for",
        Signature.NONE: "",
    }[wanted]
