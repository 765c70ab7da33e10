# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Windows that is played for the guest agent: what it has, what the collection's scripts do to it, and how it starts.

No PowerShell is run. A script is known by its first line (`# diskwright: gather`), its variables are read, and what it
would do is done to the model below. What the model knows of Windows is written down here and nowhere else:

* Its agent answers only if Windows came up, which takes a driver that starts at boot for the controller of its disk,
  without `StartOverride`, and BitLocker suspended or off if the boot disk hangs on something else than before.
* A driver's service is made when the driver is installed while a device for it is there, and never else.
* What is absent for `forgets_after` starts gets `StartOverride` 3.
* A data disk that comes on another bus than before is offline if the SAN policy says so.

A seed says `agent: {windows: "2022"}`, or `agent: {windows: {release: "2022", bitlocker: {"C:": on}, …}}` with the
fields of `Windows`. A test reaches the model with `windows_of(lab.guest(100))`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lab import driverfiles
from lab.agent import FILES, Agent, Inside, Result, agent_of, program, script
from lab.drives import boot_order, is_drive, parse_drive

if TYPE_CHECKING:
    from lab.guest import Guest

# Build, product, edition, NT version, PowerShell, as each says it.
RELEASES: dict[str, tuple[int, str, str, str, str | None]] = {
    "2008": (6002, "Windows Server (R) 2008 Standard", "ServerStandard", "6.0", None),
    "2008r2": (7601, "Windows Server 2008 R2 Standard", "ServerStandard", "6.1", "2.0"),
    "7": (7601, "Windows 7 Professional", "Professional", "6.1", "2.0"),
    "2012r2": (9600, "Windows Server 2012 R2 Standard", "ServerStandard", "6.3", "4.0"),
    "2016": (14393, "Windows Server 2016 Standard", "ServerStandard", "10.0", "5.1.14393.7426"),
    "10": (19045, "Windows 10 Pro", "Professional", "10.0", "5.1.19041.4648"),
    "11": (22631, "Windows 10 Pro", "Professional", "10.0", "5.1.22621.3958"),
    "2022": (20348, "Windows Server 2022 Standard", "ServerStandard", "10.0", "5.1.20348.2582"),
    "2025": (26100, "Windows Server 2025 Standard", "ServerStandard", "10.0", "5.1.26100.1591"),
}
CLIENTS = ("7", "10", "11")
NO_FILE = {
    "en": "The system cannot find the file specified.",
    "de": "Das System kann die angegebene Datei nicht finden.",
}
REFUSED = {"en": "Access is denied.", "de": "Zugriff verweigert – der Datenträger läßt das nicht zu."}
LABELS = {"en": ("System Reserved", "Windows"), "de": ("System-reserviert", "Übungsrechner")}
# stem -> service, device, and whether it drives disks.
VIRTIO = {
    "vioscsi": "vioscsi", "viostor": "viostor", "vioser": "VirtioSerial", "netkvm": "netkvm", "balloon": "BALLOON",
}  # fmt: skip
MICROSOFT = "CN=Microsoft Windows Hardware Compatibility Publisher, O=Microsoft Corporation, L=Redmond, S=WA, C=US"
ONLINE_ALL, OFFLINE_SHARED, OFFLINE_ALL, OFFLINE_INTERNAL = 1, 2, 3, 4
CDROM, FIXED = 5, 3
ROOT = r"C:\Windows"
SCRIPTS = ("gather", "stage", "guard", "space", "extend")
MIB = 1 << 20

Files = Callable[[str], Mapping[str, bytes]]


LETTERS = tuple(f"{letter}:" for letter in "DEFGHIJKLMNOPQRSTUVWXYZ")


def guid(*parts: str) -> str:
    """A GUID that is the same each time."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(parts)))


@dataclass
class Service:
    """What the registry has of a service."""

    start: int = 0
    override: int | None = None
    absent: int = 0


@dataclass
class Windows:
    """One Windows. What a seed does not say is as after an installation on SATA."""

    release: str = "2022"
    language: str = "en"
    powershell: str | None = "?"
    architecture: str = "AMD64"
    uefi: bool = True
    test_signing: bool = False
    store: dict[str, str] = field(default_factory=dict)
    """Versions in the driver store, by stem."""
    services: dict[str, Service] = field(default_factory=dict)
    """Services of controllers; VirtIO ones once they were installed for a device."""
    bitlocker: dict[str, str] = field(default_factory=dict)
    """Letter -> on, suspended, locked."""
    starts_left: int = 0
    """For how many starts BitLocker stays suspended."""
    fast_startup: bool | None = None
    san_policy: int | None = None
    offline: set[str] = field(default_factory=set)
    """Volumes' file names whose disks are offline."""
    letters: dict[str, str] = field(default_factory=dict)
    """Volume GUIDs -> letters, which Windows remembers."""
    seen: dict[str, str] = field(default_factory=dict)
    """Disks and the bus that each was last on."""
    forgets_after: int = 2
    media: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Labels of media -> files with their paths on it. The label of an ISO is its file name without the suffix.

    What a driver ISO has is made up (lab.driverfiles) unless it is given here."""
    partitions: dict[str, list[tuple[str, int, str, str]]] = field(default_factory=dict)
    """Letter, MiB, file system and GPT type of each partition, by slot."""
    fails: str = ""
    """A script that Windows refuses to carry out."""
    needs_restart: bool = False
    up: bool = True
    boots: int = 0
    _pid: int = 0

    def __post_init__(self) -> None:
        self.build, self.product, self.edition, self.version, shell = RELEASES[self.release]
        self.powershell = shell if self.powershell == "?" else self.powershell
        self.server = self.release not in CLIENTS
        if self.fast_startup is None:
            self.fast_startup = not self.server and self.build >= 9200
        self.services = {
            **{name: Service() for name in ("storahci" if self.build >= 9200 else "msahci", "atapi", "pciide")},
            **{name: Service(3) for name in ("LSI_SAS", "intelide")},
            **{name: one if isinstance(one, Service) else Service(**one) for name, one in self.services.items()},
        }
        self.services.setdefault("VirtioSerial", Service())  # the agent's channel
        self.store.setdefault("vioser", "100.95.104.26200")

    # ---- hardware

    @property
    def sata(self) -> str:
        """The driver of AHCI."""
        return "storahci" if self.build >= 9200 else "msahci"

    def drives(self, guest: Guest) -> dict[str, Any]:
        """The drives of the running guest."""
        found = guest.running.drives if guest.running else {}
        return {slot: drive for slot, text in found.items() if is_drive(slot) and (drive := parse_drive(slot, text))}

    def disks(self, guest: Guest) -> list[tuple[str, str, str]]:
        """Slot, volume id and service of each disk, the boot disk first."""
        drives = self.drives(guest)
        names = [slot for slot, drive in drives.items()
                 if not drive.is_cdrom and ":" in drive.file and not slot.startswith(("efidisk", "tpmstate"))]
        order = [slot for slot in boot_order(guest.running.values if guest.running else {}) if slot in names]
        ordered = order + sorted(slot for slot in names if slot not in order)
        return [(slot, drives[slot].file, self.service_of(guest, slot)) for slot in ordered]

    def service_of(self, guest: Guest, slot: str) -> str:
        """The driver that a slot takes."""
        bus = re.sub(r"\d+$", "", slot)
        if bus == "scsi":
            values = guest.running.values if guest.running else {}
            return "vioscsi" if values.get("scsihw", "lsi").startswith("virtio") else "LSI_SAS"
        return {"virtio": "viostor", "sata": self.sata, "ide": "atapi"}[bus]

    def hardware(self, guest: Guest) -> dict[str, int]:
        """How many devices there are for each service."""
        found: dict[str, int] = {"VirtioSerial": 1}
        values = guest.running.values if guest.running else {}
        for _slot, _file, service in self.disks(guest):
            single = service != "vioscsi" or values.get("scsihw") == "virtio-scsi-single"
            found[service] = found.get(service, 0) + 1 if single else 1
        found["netkvm"] = sum(key.startswith("net") and "virtio" in text for key, text in values.items())
        return found

    # ---- starting

    def answers(self, guest: Guest) -> bool:
        """Whether Windows came up with what the guest was started with."""
        running = guest.running
        if running is not None and running.pid != self._pid:
            first, self._pid = self._pid == 0, running.pid
            self._start(guest, first=first)
        return self.up

    def _start(self, guest: Guest, *, first: bool) -> None:
        """A start. What a seed calls running has come up already."""
        self.boots += not first
        disks = self.disks(guest)
        service = disks[0][2] if disks else ""
        if first and service in VIRTIO.values():
            self.services.setdefault(service, Service())
            self.store.setdefault(service, "100.95.104.26200")
        critical = service in self.services and self.services[service].start == 0
        critical = critical and self.services[service].override is None
        moved = self.seen.get("boot", service) != service
        recovery = moved and "on" in self.bitlocker.values()
        self.up = bool(disks) and critical and not recovery
        if not self.up:
            return
        self.seen["boot"] = service
        self._suspension(first=first)
        self._forget(guest, first=first)
        for _slot, file, controller in disks[1:]:
            self._arrive(file, controller, first=first)

    def _suspension(self, *, first: bool) -> None:
        if not first and self.starts_left:
            self.starts_left -= 1
            if not self.starts_left:
                self.bitlocker = {key: "on" if value == "suspended" else value for key, value in self.bitlocker.items()}

    def _forget(self, guest: Guest, *, first: bool) -> None:
        present = self.hardware(guest)
        for name, service in self.services.items():
            service.absent = 0 if present.get(name) else service.absent + (not first)
            if service.start == 0 and service.absent >= self.forgets_after and self.build >= 9200:
                service.override = 3

    def _arrive(self, file: str, controller: str, *, first: bool) -> None:
        """A data disk comes up, where the SAN policy decides about those that are new on their bus."""
        known = self.seen.get(file)
        self.seen[file] = controller
        if first or known == controller:
            return
        policy = self.san_policy or (OFFLINE_SHARED if self.server else ONLINE_ALL)
        shared = controller in ("vioscsi", "viostor", "LSI_SAS")
        if policy == OFFLINE_ALL or (policy == OFFLINE_SHARED and shared):
            self.offline.add(file)

    # ---- what it shows

    def volume_ids(self, guest: Guest) -> Iterator[tuple[str, str | None, str]]:
        """Volume, letter and label of each volume of disks that are online. When all letters are taken it has none."""
        for number, (slot, file, _service) in enumerate(self.disks(guest)):
            if file not in self.offline and not self._is_blank(guest, slot):
                name = guid("volume", file)
                wanted = self.letters.get(name) or ("C:" if not number else self._free_letter())
                if wanted:
                    self.letters[name] = wanted
                yield name, wanted, LABELS[self.language][1] if not number else ""

    def _is_blank(self, guest: Guest, slot: str) -> bool:
        """A disk that was made only for its driver has no volumes."""
        return "serial=diskwright-helper" in (guest.running.drives[slot] if guest.running else "")

    def _free_letter(self) -> str | None:
        return next(self._free_letters(), None)

    def _free_letters(self) -> Iterator[str]:
        taken = set(self.letters.values())
        return (letter for letter in LETTERS if letter not in taken)

    def iso_drives(self, guest: Guest) -> Iterator[tuple[str, str]]:
        """Letter and label of each medium in a drive that has a letter."""
        letters = self._free_letters()
        for _slot, drive in sorted(self.drives(guest).items()):
            if drive.is_cdrom:
                letter = next(letters, None)
                if letter and ":" in drive.file:
                    yield letter, drive.file.rpartition("/")[2].removesuffix(".iso")

    def file(self, guest: Guest, path: str) -> bytes | None:
        """A file on a medium; upper and lower case are the same."""
        list(self.volume_ids(guest))
        for letter, label in self.iso_drives(guest):
            if path.upper().startswith(letter):
                default = driverfiles.standard() if label.startswith("virtio-win") else {}
                found = {name.lower(): data for name, data in self.media.get(label, default).items()}
                return found.get(path[len(letter) + 1:].replace("\\", "/").lower())
        return None

    def no_file(self) -> str:
        """How it says that there is no such file."""
        return NO_FILE[self.language]

    # ---- scripts

    def gather(self, inside: Inside, variables: Mapping[str, Any]) -> dict[str, Any]:
        """All that there is."""
        guest = inside.guest
        sizes = {slot: inside.disks[name] for name, slot in inside.slots.items()}
        volumes = list(self.volume_ids(guest))
        return {
            "system": self._system(),
            "drivers": {name: self._driver(guest, *words.split(";")) for name, words in variables["drivers"].items()},
            "controllers": {name: self._service(guest, found) for name in variables["controllers"]
                            if (found := self._named(name))},
            "boot_disk": 0,
            "disks": [self._disk(number, *disk, sizes) for number, disk in enumerate(self.disks(guest))],
            "volumes": [{"id": f"\\\\?\\Volume{{{name}}}\\", "letter": letter, "label": label, "filesystem": "NTFS",
                         "size": 1 << 30, "type": FIXED} for name, letter, label in volumes]
            + [{"id": f"\\\\?\\Volume{{{guid('medium', label)}}}\\", "letter": letter, "label": label,
                "filesystem": "CDFS", "size": 1 << 20, "type": CDROM} for letter, label in self.iso_drives(guest)],
            "bitlocker": [{"volume": name, "protection": {"on": 1, "suspended": 0, "locked": 2}[state],
                           "conversion": 1} for name, state in self.bitlocker.items()],
            "media": [{"letter": letter, "label": label} for letter, label in self.iso_drives(guest)],
        }

    def _system(self) -> dict[str, Any]:
        new = self.build >= 10240
        return {
            "product": self.product, "edition": self.edition, "build": str(self.build),
            "version": "6.3" if new else self.version,
            "major": 10 if new else None, "minor": 0 if new else None,
            "product_type": "ServerNT" if self.server else "WinNT", "architecture": self.architecture,
            "firmware": (2 if self.uefi else 1) if self.build >= 9200 else None,
            "secure_boot": None, "start_options": " NOEXECUTE=OPTOUT" + " TESTSIGNING" * self.test_signing,
            "powershell": self.powershell, "fast_startup": int(bool(self.fast_startup)),
            "san_policy": self.san_policy, "restart_pending": self.needs_restart,
        }  # fmt: skip

    def _named(self, name: str) -> str | None:
        return next((known for known in self.services if known.lower() == name.lower()), None)

    def _service(self, guest: Guest, name: str | None) -> dict[str, Any]:
        service = self.services.get(name or "")
        works = service is not None and service.override is None and service.start == 0
        return {"start": service and service.start, "start_override": service and service.override,
                "devices": self.hardware(guest).get(name or "", 0) if works else 0}

    def _driver(self, guest: Guest, service: str, stem: str, devices: str) -> dict[str, Any]:
        version = self.store.get(stem)
        return {
            **self._service(guest, service if service in self.services else None),
            "service": service in self.services,
            "image": {"version": version, "signer": MICROSOFT} if service in self.services and version else None,
            "store": {"oem7.inf": version} if version else {},
            "hardware": self.hardware(guest).get(service, 0),
        }

    def _disk(self, number: int, slot: str, file: str, service: str, sizes: Mapping[str, int]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "number": number, "service": service, "size": sizes.get(slot), "serial": f"QM0000{number}",
            "model": "QEMU HARDDISK", "signature": None, "attributes": None,
        }  # fmt: skip
        offline = file in self.offline
        if self.build >= 9200:
            return {**found, "guid": f"{{{guid('disk', file)}}}", "style": 2, "offline": offline, "read_only": offline}
        return {**found, "signature": int(guid("disk", file)[:8], 16), "attributes": 3 if offline else 0}

    def stage(self, inside: Inside, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Drivers go into the store, and get a service if a device is there."""
        exits = []
        for inf in variables["infs"]:
            stem = inf.replace("\\", "/").rpartition("/")[2].removesuffix(".inf").lower()
            text = inside.agent.files.get(inf) or self.file(inside.guest, inf)
            if text is None:
                exits.append(2)
                continue
            version = re.search(r"DriverVer\s*=[^,]*,\s*([\d.]+)", text.decode())
            self.store[stem] = version[1] if version else "0"
            if self.hardware(inside.guest).get(VIRTIO[stem]):
                self.services[VIRTIO[stem]] = Service(0)
            exits.append(3010 if self.needs_restart else 0)
        return {"exits": exits}

    def guard(self, inside: Inside, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Settings."""
        if variables["san_policy"] >= 0:
            self.san_policy = variables["san_policy"]
        if variables["fast_startup"] >= 0:
            self.fast_startup = bool(variables["fast_startup"])
        self.bitlocker |= dict.fromkeys(variables["suspend"], "suspended") | dict.fromkeys(variables["resume"], "on")
        self.starts_left = variables["reboots"] if variables["suspend"] else self.starts_left
        for name in variables["boot_start"]:
            self.services[self._named(name) or name] = Service(0)
        disks = self.disks(inside.guest)
        self.offline -= {disks[number][1] for number in variables["online"]}
        for letter, volume in variables["letters"].items():
            for other in [name for name, held in self.letters.items() if held == letter]:
                del self.letters[other]
            self.letters[volume] = letter
        return {}


    # ---- partitions

    def space(self, inside: Inside, variables: Mapping[str, Any]) -> dict[str, Any]:
        """How large partitions are, and how large they could be."""
        if self.build < 9200:
            return {"too_old": True}
        slots = [slot for slot, _file, _service in self.disks(inside.guest)]
        sizes = {slot: inside.disks[name] for name, slot in inside.slots.items()}
        disks = [{"number": number, "size": sizes[slot], "serial": "", "unique_id": f"QEMU    drive-{slot}",
                  "location": None, "style": 2, "offline": False, "read_only": False}
                 for number, slot in enumerate(slots)]  # fmt: skip
        rows = []
        for number, slot in enumerate(slots):
            offset, parts = MIB, self.partitions.get(slot, [])
            for index, (letter, size, filesystem, kind) in enumerate(parts, 1):
                room = sizes[slot] - MIB - offset if index == len(parts) else size * MIB
                rows.append({"disk": number, "number": index, "offset": offset, "size": size * MIB, "maximum": room,
                             "gpt_type": kind, "mbr_type": None, "letter": letter, "filesystem": filesystem,
                             "filesystem_size": size * MIB})  # fmt: skip
                offset += size * MIB
        return {"disks": disks, "partitions": rows}

    def extend(self, inside: Inside, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Partitions grow."""
        slots = [slot for slot, _file, _service in self.disks(inside.guest)]
        for key, size in variables["sizes"].items():
            number, index = map(int, key.split(";"))
            letter, before, filesystem, kind = self.partitions[slots[number]][index - 1]
            assert int(size) >= before * MIB, "a partition has shrunk"
            self.partitions[slots[number]][index - 1] = (letter, int(size) // MIB, filesystem, kind)
        return {}


# ---- how the agent reaches it


def install(agent: Agent, words: Mapping[str, Any] | str) -> Agent:
    """Puts a Windows behind an agent."""
    given = {"release": words} if isinstance(words, str) else dict(words)
    unknown = set(given) - {one.name for one in fields(Windows)}
    if unknown:
        raise ValueError(f"a Windows has no {', '.join(sorted(unknown))}")
    windows = Windows(**given)
    agent.system = windows
    agent.folders = {ROOT + r"\Temp", *(rf"{ROOT}\Temp\diskwright-drivers-{name}" for name in
                                        ("vioscsi", "viostor", "vioserial", "netkvm", "balloon"))}
    agent.programs = [*FILES, *_programs(windows)]
    agent.scripts = [script(rf"\A# diskwright: {name}\n", _script(windows, name)) for name in SCRIPTS]
    agent.answers = {
        "get-osinfo": {"id": "mswindows", "name": "Microsoft Windows", "pretty-name": windows.product,
                       "kernel-version": windows.version, "kernel-release": str(windows.build),
                       "machine": "x86_64", "variant-id": "server" if windows.server else "client"},
        "get-fsinfo": lambda guest: _fsinfo(windows, guest),
    }
    return agent


def windows_of(guest: Guest) -> Windows:
    """The Windows in a guest."""
    found = agent_of(guest).system
    assert isinstance(found, Windows)
    return found


def _script(windows: Windows, name: str) -> Callable[[Inside, str], str | Result]:
    def respond(inside: Inside, text: str) -> str:
        if windows.fails == name:
            return json.dumps({"error": REFUSED[windows.language]})
        return json.dumps(getattr(windows, name)(inside, read_variables(text)))

    return respond


def _programs(windows: Windows) -> Iterable[Any]:
    exists = f"{ROOT}\\System32\\WindowsPowerShell"
    yield program(r"cmd\.exe /d /c 'echo %SystemRoot%;(\S+)'",
                  lambda inside, match: Result(out=f"{ROOT};{match[1]}\r\n"))
    yield program(r"cmd\.exe /d /c 'if exist \S+powershell\.exe echo yes'",
                  lambda inside, match: Result(out="yes\r\n" if windows.powershell and exists in match[0] else ""))
    yield program(r"cmd\.exe /d /c (mkdir|rmdir /s /q) .*", _folder)
    yield program(r"reg\.exe query .*", lambda inside, match: _query(windows, inside))


def _folder(inside: Inside, match: re.Match[str]) -> Result:
    if match[1] != "mkdir":
        place = inside.command[-1] + "\\"
        for name in [name for name in inside.agent.files if name.startswith(place)]:
            del inside.agent.files[name]
    return Result()


def _query(windows: Windows, inside: Inside) -> Result:
    """`reg.exe query`, with the heading and the last line that are translated."""
    key = inside.command[2].replace("HKLM\\", "HKEY_LOCAL_MACHINE\\")
    rows: dict[str, dict[str, str]] = {}
    if key.endswith("CurrentVersion"):
        rows[key] = {"ProductName": windows.product, "EditionID": windows.edition,
                     "CurrentBuildNumber": str(windows.build), "CurrentVersion": windows.version}
    elif key.endswith("ProductOptions"):
        rows[key] = {"ProductType": "ServerNT" if windows.server else "WinNT"}
    elif key.endswith("Environment"):
        rows[key] = {"PROCESSOR_ARCHITECTURE": windows.architecture}
    elif name := windows._named(key.rpartition("\\")[2]):
        state = windows._service(inside.guest, name)
        rows[key] = {"Start": f"0x{state['start']:x}", "Tag": "0x21"}
        rows[key + r"\Enum"] = {"Count": f"0x{state['devices']:x}"}
    if not rows:
        return Result(1, err="FEHLER: Der angegebene Registrierungsschlüssel wurde nicht gefunden.\r\n")
    lines = ["", "! REG.EXE VERSION 3.0", ""]
    for path, values in rows.items():
        lines += [path] + [f"    {name}    {_kind(text)}    {text}" for name, text in values.items()] + [""]
    return Result(out="\r\n".join([*lines, "Ende der Suche: 2 Übereinstimmungen gefunden."]))


def _kind(text: str) -> str:
    return "REG_DWORD" if text.startswith("0x") else "REG_SZ"


def _fsinfo(windows: Windows, guest: Guest) -> list[dict[str, Any]]:
    """`get-fsinfo`: vioscsi is `sas`, viostor `scsi` (the BusType of their INF files)."""
    buses = {"vioscsi": "sas", "viostor": "scsi", "LSI_SAS": "sas", "atapi": "ide"}
    disks = {guid("volume", file): service for _slot, file, service in windows.disks(guest)}
    return [{"name": f"\\\\?\\Volume{{{name}}}\\", "type": "NTFS",
             "mountpoint": f"{letter}\\" if letter else LABELS["en"][0],
             "disk": [{"bus-type": buses.get(disks[name], "sata"), "bus": 0, "unit": 0, "target": 0,
                       "dev": r"\\.\PhysicalDrive0"}]} for name, letter, _label in windows.volume_ids(guest)]


# ---- the variables of a script

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^'\u2018-\u201b]|[\u2018-\u201b'][\u2018-\u201b'])*')|(?P<number>-?\d+)"
                    r"|(?P<sign>@\(|@\{|[(){},;=])|(?P<word>\$\w+))")


def read_variables(text: str) -> dict[str, Any]:
    """What a script assigns at its beginning: texts, numbers, lists and dictionaries."""
    return {match[1]: _literal(match[2]) for match in re.finditer(r"(?m)^\$(\w+) = ((?:'|@|-?\d).*)$", text)}


def _literal(text: str) -> Any:
    position, tokens = 0, []
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"not a literal: {text[position:]!r}")
        tokens.append(match[0].strip())
        position = match.end()
    value, rest = _value(tokens)
    if rest:
        raise ValueError(f"more than a literal: {rest!r}")
    return value


def _value(tokens: list[str]) -> tuple[Any, list[str]]:
    first, rest = tokens[0], tokens[1:]
    if first.startswith("'"):
        return re.sub("(['\u2018-\u201b])['\u2018-\u201b]", r"\1", first[1:-1]), rest
    if first == "@(":
        items = []
        while rest[0] != ")":
            item, rest = _value(rest[1:] if rest[0] == "," else rest)
            items.append(item)
        return items, rest[1:]
    if first == "@{":
        pairs = {}
        while rest[0] != "}":
            key, rest = _value(rest[1:] if rest[0] == ";" else rest)
            pairs[key], rest = _value(rest[1:])
        return pairs, rest[1:]
    return int(first), rest
