# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a running Windows is like, as values: read from what its scripts answer, given back as the module's result."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .._core.errors import DiskwrightError
from .drivers import DRIVERS, bus_of
from .releases import Edition, Release, UnknownReleaseError, find_release

#: As ``SanPolicy`` in the registry counts them. Source: MS-VDS, VDS_SAN_POLICY.
SAN_POLICIES = ("online_all", "offline_shared", "offline_all", "offline_internal")
_ARCHITECTURES = MappingProxyType({"AMD64": "amd64", "X86": "x86", "ARM64": "arm64"})
_FIRMWARE = MappingProxyType({1: "bios", 2: "uefi"})
_STYLES = MappingProxyType({0: "raw", 1: "mbr", 2: "gpt"})
_PROTECTED, _UNKNOWN = 1, 2
_DECRYPTED = 0
_OFFLINE, _READ_ONLY = 1, 2
_GUID = re.compile(r"\{([0-9A-Fa-f-]{36})\}")
_FIXED_DISK = 3

_Answer = Mapping[str, t.Any]
#: What helps against a Windows that does not answer as it should.
REPAIR = "run again, and if it stays so, look whether its PowerShell and WMI work (Get-WmiObject Win32_DiskDrive)"


class UnreadableWindowsError(DiskwrightError):
    """What Windows answered is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Service:
    """A driver's service.

    :param start: 0 at boot, 3 on demand, 4 never; ``None`` when there is no such service.
    :param start_override: what Windows has put in its place.
    :param devices: how many devices it drives now.
    """

    start: int | None = None
    start_override: int | None = None
    devices: int = 0

    def data(self) -> dict[str, t.Any]:
        """For a result."""
        return {"start": self.start, "start_override": self.start_override, "devices": self.devices}

    @property
    def starts_at_boot(self) -> bool:
        """Whether Windows starts it before it reads from its disk."""
        return self.start == 0 and self.start_override is None


@dataclass(frozen=True, slots=True)
class DriverState:
    """How far a driver is installed.

    :param store: versions of its packages in the driver store, by their INF.
    :param image: whether its file is there.
    :param hardware: how many devices for it are there.
    """

    service: Service = Service()
    exists: bool = False
    store: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    image: bool = False
    version: str | None = None
    signer: str | None = None
    hardware: int | None = 0

    def missing(self, name: str) -> tuple[str, ...]:
        """What keeps Windows from starting from a disk on it, clauses."""
        if not self.exists:
            if self.store:
                return (f"{name} is in the driver store, and was never installed for a device",)
            return (f"{name} is not installed",)
        service = self.service
        tests = (
            (service.start == 0, f"{name} starts with {service.start} and not at boot"),
            (service.start_override is None, f"Windows has overridden its start with {service.start_override}"),
            (self.image, f"{name}.sys is not there"),
            (service.devices > 0, f"{name} drives no device now, so that it works is not proven"),
        )
        return tuple(text for passed, text in tests if not passed)

    def newest(self) -> tuple[int, ...]:
        """The highest version in the store, empty for none."""
        return max(map(version_key, self.store.values()), default=())

    def data(self, name: str) -> dict[str, t.Any]:
        """For a result."""
        missing = self.missing(name)
        return {
            "store": [{"inf": inf, "version": version} for inf, version in sorted(self.store.items())],
            "service": self.exists,
            **self.service.data(),
            "image": self.image,
            "version": self.version,
            "signer": self.signer,
            "hardware": self.hardware,
            "boot_critical": not missing,
            "missing": list(missing),
        }


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk. ``None`` for what this Windows can't tell.

    :param identity: GPT identifier or MBR signature, which stay when the bus changes.
    :param size: bytes.
    """

    number: int
    identity: str | None
    service: str | None
    size: int | None = None
    serial: str | None = None
    model: str | None = None
    offline: bool | None = None
    read_only: bool | None = None
    partitioning: str | None = None

    def data(self) -> dict[str, t.Any]:
        """For a result."""
        paravirtual = (self.service or "").lower() in {row.service.lower() for row in DRIVERS.values()}
        return {
            "number": self.number,
            "id": self.identity,
            "bus": bus_of(self.service) if self.service else None,
            "service": self.service,
            "paravirtual": paravirtual,
            "size": self.size,
            "serial": self.serial,
            "model": self.model,
            "offline": self.offline,
            "read_only": self.read_only,
            "partitioning": self.partitioning,
        }


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on a disk, or a medium."""

    identity: str
    letter: str | None
    label: str | None
    filesystem: str | None
    size: int | None
    fixed: bool

    def data(self) -> dict[str, t.Any]:
        """For a result."""
        return {
            "id": self.identity,
            "letter": self.letter,
            "label": self.label,
            "filesystem": self.filesystem,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class Windows:
    """A running Windows.

    :param release: its row in the table of releases, ``None`` when the table does not know it.
    :param bitlocker: ``on``, ``suspended`` or ``locked``, by letter or volume.
    """

    product: str
    edition: str | None
    version: str
    build: int
    server: bool
    architecture: str | None
    release: Release | None
    firmware: str | None = None
    secure_boot: bool | None = None
    test_signing: bool = False
    powershell: str | None = None
    fast_startup: bool | None = None
    san_policy: str | None = None
    restart_pending: bool | None = None
    boot_disk: Disk | None = None
    disks: tuple[Disk, ...] = ()
    drivers: Mapping[str, DriverState] = field(default_factory=lambda: MappingProxyType({}))
    controllers: Mapping[str, Service] = field(default_factory=lambda: MappingProxyType({}))
    bitlocker: Mapping[str, str] | None = None
    volumes: tuple[Volume, ...] = ()
    iso: tuple[str, str] | None = None

    @property
    def letters(self) -> dict[str, str]:
        """Drive letters of volumes on disks, and the volume of each."""
        return {volume.letter: volume.identity for volume in self.volumes if volume.letter and volume.fixed}

    def data(self) -> dict[str, t.Any]:
        """The module's ``gathered``."""
        return {
            "release": self.release.key if self.release else None,
            "folder": self.release.folder if self.release else None,
            "product": self.product,
            "edition": self.edition,
            "version": self.version,
            "build": self.build,
            "server": self.server,
            "architecture": self.architecture,
            "firmware": self.firmware,
            "secure_boot": self.secure_boot,
            "test_signing": self.test_signing,
            "powershell": self.powershell,
            "boot_disk": self.boot_disk.data() if self.boot_disk else None,
            "disks": [disk.data() for disk in self.disks],
            "drivers": {name: state.data(name) for name, state in self.drivers.items()},
            "controllers": {name: service.data() for name, service in sorted(self.controllers.items())},
            "bitlocker": None if self.bitlocker is None else dict(self.bitlocker),
            "fast_startup": self.fast_startup,
            "san_policy": self.san_policy,
            "volumes": [volume.data() for volume in self.volumes if volume.fixed],
            "letters": self.letters,
            "iso": _iso(self.iso),
            "restart_pending": self.restart_pending,
        }


def _iso(found: tuple[str, str] | None) -> dict[str, str] | None:
    if found is None:
        return None
    letter, label = found
    return {"letter": letter, "label": label, "version": label.removeprefix("virtio-win-")}


def version_key(version: str) -> tuple[int, ...]:
    """A driver's version as numbers that can be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


# ---- from the script's answer


def read_windows(answer: _Answer) -> Windows:
    """What the script ``gather`` answers.

    :raises UnreadableWindowsError: it lacks what every Windows has.
    """
    try:
        return _read(answer)
    except KeyError as error:
        raise UnreadableWindowsError(f"what Windows answered lacks {error.args[0]}; {REPAIR}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UnreadableWindowsError(f"what Windows answered has another form than it should; {REPAIR}") from error


def _read(answer: _Answer) -> Windows:
    base = read_system(answer["system"])
    disks = tuple(sorted((_disk(row) for row in answer["disks"]), key=lambda disk: disk.number))
    boot = next((disk for disk in disks if disk.number == answer["boot_disk"]), None)
    guessed = {"gpt": "uefi", "mbr": "bios"}.get((boot and boot.partitioning) or "")  # before Windows 8
    return replace(
        base,
        firmware=base.firmware or guessed,
        disks=disks,
        boot_disk=boot,
        drivers=MappingProxyType({name: _driver(answer["drivers"][name]) for name in DRIVERS}),
        controllers=MappingProxyType({name: _service(row) for name, row in answer["controllers"].items()}),
        bitlocker=_bitlocker(answer["bitlocker"]),
        volumes=tuple(_volumes(answer["volumes"])),
        iso=find_iso_drive((row["letter"], row["label"]) for row in answer["media"]),
    )


def read_system(system: _Answer) -> Windows:
    """The part of Windows that the registry tells on every release, the rest left out."""
    build, server = int(system["build"]), system["product_type"] != "WinNT"
    major, minor = system.get("major"), system.get("minor")
    version = str(system["version"]) if major is None else f"{major}.{minor or 0}"
    edition = Edition.SERVER if server else Edition.CLIENT
    try:
        release = find_release(version, build, edition)
    except UnknownReleaseError:
        release = None
    policy = system.get("san_policy")
    return Windows(
        product=_product(str(system["product"]), release),
        edition=_text(system.get("edition")),
        version=f"{version}.{build}",
        build=build,
        server=server,
        architecture=_ARCHITECTURES.get(str(system.get("architecture")).upper()),
        release=release,
        firmware=_FIRMWARE.get(system.get("firmware") or 0),
        secure_boot=bool(system.get("secure_boot")),
        test_signing="TESTSIGNING" in str(system.get("start_options")).upper(),
        powershell=_text(system.get("powershell")),
        fast_startup=bool(system.get("fast_startup")),
        san_policy=_san_policy(policy, server=server),
        restart_pending=system.get("restart_pending"),
    )


def _product(name: str, release: Release | None) -> str:
    """Windows 11 calls itself Windows 10 in the registry."""
    return name.replace("Windows 10", "Windows 11") if release and release.key == "11" else name


def _san_policy(policy: int | None, *, server: bool) -> str | None:
    """Without a value, servers keep disks offline that others could use, and clients none."""
    if policy is None:
        return "offline_shared" if server else "online_all"
    return SAN_POLICIES[policy - 1] if 0 < policy <= len(SAN_POLICIES) else None


def _service(row: _Answer) -> Service:
    return Service(row.get("start"), row.get("start_override"), int(row.get("devices") or 0))


def _driver(row: _Answer) -> DriverState:
    image = row["image"]
    return DriverState(
        service=_service(row),
        exists=bool(row["service"]),
        store=MappingProxyType({inf.lower(): str(version) for inf, version in row["store"].items()}),
        image=image is not None,
        version=image and image["version"],
        signer=image and image["signer"],
        hardware=row["hardware"],
    )


def _disk(row: _Answer) -> Disk:
    attributes = row.get("attributes")
    known = None if attributes is None else int(attributes)
    offline, read_only = row.get("offline"), row.get("read_only")
    return Disk(
        number=int(row["number"]),
        identity=_identity(row),
        service=_text(row.get("service")),
        size=None if row.get("size") is None else int(row["size"]),
        serial=_text(row.get("serial")),
        model=_text(row.get("model")),
        offline=offline if offline is not None else None if known is None else bool(known & _OFFLINE),
        read_only=read_only if read_only is not None else None if known is None else bool(known & _READ_ONLY),
        partitioning=_STYLES.get(row["style"]) if row.get("style") is not None else None,
    )


def _identity(row: _Answer) -> str | None:
    guid = _GUID.search(str(row.get("guid") or ""))
    if guid:
        return guid[1].lower()
    signature = row.get("signature")
    return f"{int(signature) & 0xFFFFFFFF:08x}" if signature else None


def _volumes(rows: Iterable[_Answer]) -> Iterator[Volume]:
    for row in rows:
        if guid := _GUID.search(str(row["id"])):
            yield Volume(
                identity=guid[1].lower(),
                letter=_text(row.get("letter")),
                label=_text(row.get("label")),
                filesystem=_text(row.get("filesystem")),
                size=None if row.get("size") is None else int(row["size"]),
                fixed=row.get("type") == _FIXED_DISK,
            )


def _bitlocker(rows: Iterable[_Answer] | None) -> Mapping[str, str] | None:
    """Win32_EncryptableVolume: protection 0 off, 1 on, 2 unknown for it is locked; conversion 0 for not encrypted."""
    if rows is None:
        return None
    states: dict[str, str] = {}
    for row in rows:
        protection = row["protection"]
        if protection == _PROTECTED:
            states[row["volume"]] = "on"
        elif protection == _UNKNOWN:
            states[row["volume"]] = "locked"
        elif row["conversion"] != _DECRYPTED:
            states[row["volume"]] = "suspended"
    return MappingProxyType(states)


def find_iso_drive(media: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """Letter and label of the driver ISO (virtio-win.spec: ``mkisofs -V virtio-win-VERSION``)."""
    return next(((letter, label) for letter, label in media if label.lower().startswith("virtio-win")), None)


def _text(value: object) -> str | None:
    return str(value).strip() or None if value is not None else None
