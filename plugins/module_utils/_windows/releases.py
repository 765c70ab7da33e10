# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Which Windows takes which VirtIO driver from which ISO: one row for each release, and one for each ISO.

Sources, by the names that rows give:

- ``scripts``: virtio-win-pkg-scripts fe58e15, ``util/filemap.py`` (folders, architectures), ``make-repo.py`` (stable
  builds), ``data/old-drivers`` (drivers that are shipped as they once were), and its issues by number.
- ``kvm``: kvm-guest-drivers-windows, issues by number.
- ``qemu-server``: 9.2.6, ``PVE/QemuServer.pm`` (ostype), ``PVE/QemuServer/Helpers.pm`` (windows_version).
- ``microsoft``: "Windows release information" (build numbers), "Driver signing policy" (signatures).

A row says what is to be expected. What counts in the end is the signature of the very file that is used: the folder of
an old Windows is on every ISO, with drivers that this Windows may not load.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._core.errors import DiskwrightError

#: Where the virtio-win project publishes; ``stable-virtio`` and ``latest-virtio`` only redirect into the archive.
ARCHIVE = "https://fedorapeople.org/groups/virt/virtio-win/direct-downloads/archive-virtio"

#: The driver of each bus, by the service's name. Source: vioscsi.inf, viostor.inf (scripts).
DRIVER_OF_BUS: Mapping[str, str] = MappingProxyType({"scsi": "vioscsi", "virtio": "viostor"})

#: Architectures by the name of the folder on the ISO.
ARCHITECTURES = ("x86", "amd64")


class UnknownReleaseError(DiskwrightError):
    """A Windows that the table does not know, or an ISO that it does not know."""


class Edition(enum.Enum):
    """Whether a Windows is a client or a server, as ``InstallationType`` and the guest agent's ``variant-id`` say."""

    CLIENT = "client"
    SERVER = "server"


class Signature(enum.Enum):
    """What a Windows wants to see on a driver before it loads it while it boots."""

    #: Nothing: every driver is loaded (32 bit up to Windows 7, and everything before Vista).
    NONE = "none"
    #: A certificate that Microsoft has cross-signed, with SHA-1 digests.
    CROSS_SHA1 = "cross-sha1"
    #: The same, or Microsoft's own signature, with SHA-256 digests too.
    CROSS = "cross"
    #: Microsoft's own signature; cross-signed drivers of later than July 2015 are not loaded with Secure Boot.
    MICROSOFT = "microsoft"


class Registry(enum.Enum):
    """Where a Windows looks up, while it boots, which service drives a device that it has never seen."""

    #: ``ControlSet00N\\Control\\CriticalDeviceDatabase``, up to Windows 7 and Server 2008 R2.
    CRITICAL_DEVICES = "CriticalDeviceDatabase"
    #: ``DriverDatabase``, since Windows 8 and Server 2012.
    DRIVER_DATABASE = "DriverDatabase"


@dataclass(frozen=True, slots=True)
class Iso:
    """One release of the virtio-win ISO.

    :param version: as in its volume label and file name, e.g. ``0.1.271``.
    :param build: as in the archive's folder, e.g. ``0.1.271-1``.
    :param stable: whether upstream called it stable.
    :param size: bytes, or ``None`` where nobody has told.
    :param digests: SHA-256 digests that others have seen. Upstream publishes none and may replace a file, so another
        digest proves nothing; one of these is a good sign.
    :param defect: what is known to be wrong with its storage drivers, a clause, or an empty string.
    :param source: who says so.
    """

    version: str
    build: str
    stable: bool = True
    size: int | None = None
    digests: tuple[str, ...] = ()
    defect: str = ""
    source: str = "scripts, make-repo.py"

    def __post_init__(self) -> None:
        if not self.build.startswith(f"{self.version}-"):
            raise ValueError(f"{self.build}: no build of {self.version}")
        if any(len(digest) != 64 or set(digest) - set("0123456789abcdef") for digest in self.digests):
            raise ValueError(f"{self.version}: no SHA-256 digest")
        if self.defect and self.source == "scripts, make-repo.py":
            raise ValueError(f"{self.version}: a defect needs a source")

    @property
    def file_name(self) -> str:
        """The file's name, in the archive and by custom on a storage."""
        return f"virtio-win-{self.version}.iso"

    @property
    def label(self) -> str:
        """The volume label (scripts, ``virtio-win.spec``: ``mkisofs -V``)."""
        return f"virtio-win-{self.version}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{ARCHIVE}/virtio-win-{self.build}/{self.file_name}"

    @property
    def number(self) -> int:
        """The last part of the version, by which releases are ordered."""
        return int(self.version.rsplit(".", 1)[1])


_WRONG_DATA = "vioscsi and viostor can return wrong data under load"
_RESETS = "vioscsi and viostor reset under load (Reset to device, \\Device\\RaidPort)"
_LUN = "Windows Server 2022 and 2025 stop with a blue screen when the last disk of vioscsi is unplugged"
_ISO_ROWS = (
    Iso("0.1.141", "0.1.141-1"),
    Iso("0.1.160", "0.1.160-1"),
    Iso("0.1.171", "0.1.171-1"),
    Iso("0.1.173", "0.1.173-9", stable=False, source="scripts#40: the last one that Windows 7's Setup takes"),
    Iso("0.1.185", "0.1.185-2"),
    Iso("0.1.196", "0.1.196-1"),
    Iso("0.1.208", "0.1.208-1"),
    Iso("0.1.215", "0.1.215-2", defect=_RESETS, source="kvm#623, kvm#756"),
    Iso("0.1.217", "0.1.217-2", defect=_RESETS, source="kvm#623, kvm#756, kvm#761"),
    Iso("0.1.221", "0.1.221-1", defect=_RESETS, source="kvm#623, kvm#756"),
    Iso("0.1.225", "0.1.225-2", defect=_RESETS, source="kvm#623, kvm#756"),
    Iso("0.1.229", "0.1.229-1", defect=_RESETS, source="kvm#623, kvm#756"),
    Iso(
        "0.1.240",
        "0.1.240-1",
        digests=("ebd48258668f7f78e026ed276c28a9d19d83e020ffa080ad69910dc86bbcbcc6",),
        defect=_RESETS,
        source="kvm#623, kvm#756",
    ),
    Iso("0.1.262", "0.1.262-2"),
    Iso("0.1.266", "0.1.266-1", defect=_LUN, source="kvm#1367"),
    Iso(
        "0.1.271",
        "0.1.271-1",
        digests=("bbe6166ad86a490caefad438fef8aa494926cb0a1b37fa1212925cfd81656429",),
        defect=_LUN,
        source="kvm#1367",
    ),
    Iso(
        "0.1.285",
        "0.1.285-1",
        size=789645312,
        digests=("e14cf2b94492c3e925f0070ba7fdfedeb2048c91eea9c5a5afb30232a3976331",),
        defect=_WRONG_DATA,
        source="kvm#1453",
    ),
)


@dataclass(frozen=True, slots=True)
class Release:
    """One release of Windows.

    :param key: a short name of its own, e.g. ``2019``.
    :param title: as people call it.
    :param edition: client or server.
    :param version: NT's version, e.g. ``6.1``.
    :param builds: its first and its last build number.
    :param ostype: PVE's name (qemu-server).
    :param folder: the folder on the ISO, below each driver's.
    :param architectures: for which there are drivers.
    :param drivers: its storage drivers: viostor for all, vioscsi since Vista.
    :param legacy_bus: the fastest bus that it can boot from without a driver: ``sata`` since Vista, else ``ide``.
    :param signature: what it wants to see on a driver, in 64 bit.
    :param registry: where it looks up drivers of devices that it has never seen.
    :param iso: the version of the ISO to take.
    :param last_iso: the last version whose drivers it loads, or an empty string when there is no newer one that fails.
    :param because: why this ISO and no newer one.
    :param source: who says so.
    :param setup_iso: the version to take for an unattended Setup, when that is another one; else empty.
    :param setup_because: why, and who says so.
    """

    key: str
    title: str
    edition: Edition
    version: str
    builds: tuple[int, int]
    ostype: str
    folder: str
    architectures: tuple[str, ...]
    drivers: tuple[str, ...]
    legacy_bus: str
    signature: Signature
    registry: Registry
    iso: str
    last_iso: str
    because: str
    source: str
    setup_iso: str = ""
    setup_because: str = ""

    def __post_init__(self) -> None:
        first, last = self.builds
        old = self.number < (6, 0)
        checks = {
            "builds": first <= last,
            "architectures": bool(self.architectures) and set(self.architectures) <= set(ARCHITECTURES),
            "drivers": self.drivers == (("viostor",) if old else ("vioscsi", "viostor")),
            "legacy_bus": self.legacy_bus == ("ide" if old else "sata"),
            "registry": (self.registry is Registry.DRIVER_DATABASE) == (self.number >= (6, 2)),
            "iso": self.iso in ISOS and (not self.last_iso or ISOS[self.last_iso].number >= ISOS[self.iso].number),
            "texts": bool(self.because and self.source) and bool(self.setup_iso) == bool(self.setup_because),
            "setup_iso": self.setup_iso in ("", *ISOS),
        }
        wrong = [name for name, right in checks.items() if not right]
        if wrong:
            raise ValueError(f"{self.key}: {', '.join(wrong)}")

    @property
    def number(self) -> tuple[int, int]:
        """NT's version as numbers that can be compared."""
        major, minor = self.version.split(".")
        return int(major), int(minor)

    @property
    def iso_for_setup(self) -> str:
        """The version of the ISO to take for an unattended Setup."""
        return self.setup_iso or self.iso

    @property
    def buses(self) -> tuple[str, ...]:
        """The buses that it can boot from when its drivers are in."""
        legacy = ("ide",) if self.legacy_bus == "ide" else ("ide", "sata")
        return (*legacy, *(bus for bus, driver in DRIVER_OF_BUS.items() if driver in self.drivers))

    def signature_on(self, architecture: str) -> Signature:
        """What it wants to see on a driver of this architecture: 32 bit asks with Secure Boot, since Windows 8."""
        return Signature.NONE if architecture == "x86" and self.number < (6, 2) else self.signature

    def takes(self, iso: str) -> bool:
        """Whether it loads the storage drivers of an ISO's version. A version later than the table's counts as new."""
        return not self.last_iso or _iso_number(iso) <= ISOS[self.last_iso].number


#: By version.
ISOS: Mapping[str, Iso] = MappingProxyType({row.version: row for row in _ISO_ROWS})

_BOTH = ("x86", "amd64")
_64 = ("amd64",)
_BLK = ("viostor",)
_ALL = ("vioscsi", "viostor")
_CLIENT, _SERVER = Edition.CLIENT, Edition.SERVER
_OLD, _NEW = Registry.CRITICAL_DEVICES, Registry.DRIVER_DATABASE
_FROZEN = "the drivers have not changed since 2012 to 2017, and later ISOs bring nothing for it"
_VISTA = "from 0.1.185 to 0.1.215 its drivers are signed with SHA-256, which it can't check"
_SEVEN = (
    "from 0.1.185 to 0.1.215 its drivers are signed with SHA-256, which it can't check; those since 0.1.217 load, but"
    " its Setup refuses them"
)
_EIGHT = "from 0.1.217 its drivers are signed for tests only, and are not loaded"
_TEN = "0.1.285 and 0.1.292 can return wrong data; 0.1.271 is the last one before them"
_SETUP_2016 = "it is reported to refuse the drivers from 0.1.262 on (incus-windows#7)"
_XP_SOURCE = "scripts, data/old-drivers (Wxp, Wnet) and data/rpm_changelog"
_SEVEN_SOURCE = "scripts#40, scripts#43, kvm#485"
_EIGHT_SOURCE = "scripts#61, scripts#116, kvm#1112, kvm#1366"
_TEN_SOURCE = "kvm#1453"
_VISTA_SP2, _TEN_LAST, _ELEVEN_LAST = 6003, 19045, 28999

_ROWS: tuple[Release, ...] = (
    Release(
        "xp", "Windows XP", _CLIENT, "5.1", (2600, 2600), "wxp", "xp", ("x86",), _BLK, "ide",
        Signature.NONE, _OLD, "0.1.173", "", _FROZEN, _XP_SOURCE,
    ),
    Release(
        "xp-x64", "Windows XP x64", _CLIENT, "5.2", (3790, 3790), "wxp", "2k3", _64, _BLK, "ide",
        Signature.NONE, _OLD, "0.1.173", "", _FROZEN, _XP_SOURCE,
    ),
    Release(
        "2003", "Windows Server 2003", _SERVER, "5.2", (3790, 3790), "w2k3", "2k3", _BOTH, _BLK, "ide",
        Signature.NONE, _OLD, "0.1.173", "", _FROZEN, _XP_SOURCE,
    ),
    Release(
        "vista", "Windows Vista", _CLIENT, "6.0", (6000, _VISTA_SP2), "wvista", "2k8", _BOTH, _ALL, "sata",
        Signature.CROSS_SHA1, _OLD, "0.1.173", "", _VISTA, _SEVEN_SOURCE,
    ),
    Release(
        "2008", "Windows Server 2008", _SERVER, "6.0", (6001, _VISTA_SP2), "w2k8", "2k8", _BOTH, _ALL, "sata",
        Signature.CROSS_SHA1, _OLD, "0.1.173", "", _VISTA, _SEVEN_SOURCE,
    ),
    Release(
        "7", "Windows 7", _CLIENT, "6.1", (7600, 7602), "win7", "w7", _BOTH, _ALL, "sata",
        Signature.CROSS_SHA1, _OLD, "0.1.173", "", _SEVEN, _SEVEN_SOURCE,
    ),
    Release(
        "2008r2", "Windows Server 2008 R2", _SERVER, "6.1", (7600, 7602), "win7", "2k8R2", _64, _ALL, "sata",
        Signature.CROSS_SHA1, _OLD, "0.1.173", "", _SEVEN, _SEVEN_SOURCE,
    ),
    Release(
        "8", "Windows 8", _CLIENT, "6.2", (9200, 9200), "win8", "w8", _BOTH, _ALL, "sata",
        Signature.CROSS, _NEW, "0.1.215", "0.1.215", _EIGHT, _EIGHT_SOURCE,
    ),
    Release(
        "2012", "Windows Server 2012", _SERVER, "6.2", (9200, 9200), "win8", "2k12", _64, _ALL, "sata",
        Signature.CROSS, _NEW, "0.1.215", "0.1.215", _EIGHT, _EIGHT_SOURCE,
    ),
    Release(
        "8.1", "Windows 8.1", _CLIENT, "6.3", (9600, 9600), "win8", "w8.1", _BOTH, _ALL, "sata",
        Signature.CROSS, _NEW, "0.1.215", "0.1.215", _EIGHT, _EIGHT_SOURCE,
    ),
    Release(
        "2012r2", "Windows Server 2012 R2", _SERVER, "6.3", (9600, 9600), "win8", "2k12R2", _64, _ALL, "sata",
        Signature.CROSS, _NEW, "0.1.215", "0.1.215", _EIGHT, _EIGHT_SOURCE,
    ),
    Release(
        "10", "Windows 10", _CLIENT, "10.0", (10240, _TEN_LAST), "win10", "w10", _BOTH, _ALL, "sata",
        Signature.MICROSOFT, _NEW, "0.1.271", "", _TEN, _TEN_SOURCE,
    ),
    Release(
        "2016", "Windows Server 2016", _SERVER, "10.0", (14393, 17762), "win10", "2k16", _64, _ALL, "sata",
        Signature.MICROSOFT, _NEW, "0.1.271", "", _TEN, _TEN_SOURCE, "0.1.240", _SETUP_2016,
    ),
    Release(
        "2019", "Windows Server 2019", _SERVER, "10.0", (17763, 20347), "win10", "2k19", _64, _ALL, "sata",
        Signature.MICROSOFT, _NEW, "0.1.271", "", _TEN, _TEN_SOURCE,
    ),
    Release(
        "11", "Windows 11", _CLIENT, "10.0", (22000, _ELEVEN_LAST), "win11", "w11", _64, _ALL, "sata",
        Signature.MICROSOFT, _NEW, "0.1.271", "", _TEN, _TEN_SOURCE,
    ),
    Release(
        "2022", "Windows Server 2022", _SERVER, "10.0", (20348, 26099), "win11", "2k22", _64, _ALL, "sata",
        Signature.MICROSOFT, _NEW, "0.1.271", "", _TEN, _TEN_SOURCE,
    ),
    Release(
        "2025", "Windows Server 2025", _SERVER, "10.0", (26100, 26100), "win11", "2k25", _64, _ALL, "sata",
        Signature.MICROSOFT, _NEW, "0.1.271", "", _TEN, _TEN_SOURCE,
    ),
)  # fmt: skip


def _checked(rows: tuple[Release, ...]) -> Mapping[str, Release]:
    """The rows by key; two rows must never fit the same Windows."""
    for number, one in enumerate(rows):
        for other in rows[number + 1 :]:
            same = (one.edition, one.version) == (other.edition, other.version)
            apart = one.builds[1] < other.builds[0] or other.builds[1] < one.builds[0]
            if one.key == other.key or (same and not apart):
                raise ValueError(f"{one.key} and {other.key} are not told apart")
    return MappingProxyType({row.key: row for row in rows})


#: By key.
TABLE: Mapping[str, Release] = _checked(_ROWS)


def find_release(version: str, build: int, edition: Edition) -> Release:
    """The row of a Windows.

    :param version: NT's version: ``kernel-version`` of the guest agent, or ``CurrentMajorVersionNumber`` and
        ``CurrentMinorVersionNumber``, else ``CurrentVersion``, of the registry. Windows 10 and later leave ``6.3`` in
        ``CurrentVersion``, so the build decides where the two differ.
    :param build: the build's number: ``kernel-release`` of the guest agent, ``CurrentBuildNumber`` of the registry.
    :raises UnknownReleaseError: for a Windows that the table does not know.
    """
    wanted = "10.0" if build >= 10240 and version in ("6.3", "10.0") else version
    for row in TABLE.values():
        if row.version == wanted and row.edition is edition and row.builds[0] <= build <= row.builds[1]:
            return row
    raise UnknownReleaseError(
        f"Windows {version}, build {build} ({edition.value}) is not known; known are"
        f" {', '.join(row.title for row in TABLE.values())}"
    )


def releases_of(ostype: str) -> tuple[Release, ...]:
    """The releases that PVE calls so; empty for other systems. PVE tells neither 2016 from 2019 nor either from 10."""
    return tuple(row for row in TABLE.values() if row.ostype == ostype)


def find_iso(version: str) -> Iso:
    """The row of an ISO, by version (``0.1.271``), build (``0.1.271-1``), label or file name.

    :raises UnknownReleaseError: for one that the table does not know.
    """
    wanted = version.removesuffix(".iso").removeprefix("virtio-win-")
    for row in ISOS.values():
        if wanted in (row.version, row.build):
            return row
    raise UnknownReleaseError(
        f"virtio-win {version} is not known; known are {', '.join(ISOS)}; give the address of another one yourself"
    )


def _iso_number(version: str) -> int:
    """``0.1.271`` is 271; a version that does not read like one counts as the newest."""
    last = version.rsplit("-", 1)[0].rsplit(".", 1)[-1] if version.startswith("0.1.") else ""
    return int(last) if last.isdigit() else max(row.number for row in ISOS.values()) + 1
