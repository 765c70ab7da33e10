# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a rule may look at: one row a fact. A fact that nobody knows is ``None``, and no rule takes that for a no."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from .._core.errors import ParseError
from .._core.guest import Guest, Hardware
from .._core.layout import FORMATS
from .._core.slot import DISK_BUSES, find_slot
from .._core.storage import TABLE as STORAGE_TYPES
from .._core.storage import Storage


class Kind(str, Enum):
    """What a fact's value is."""

    CHOICE = "choice"
    BOOL = "bool"
    NUMBER = "number"
    VERSION = "version"  # PVE's or QEMU's, as a number: 9.2
    LIST = "list"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of the table.

    :param path: how a condition names it, ``guest.os_family``.
    :param choices: the values of a :attr:`Kind.CHOICE`, or what a :attr:`Kind.LIST` may hold.
    :param about: one clause that says what it is.
    :param origin: where it comes from.
    :param unknown: what happens when nobody knows it.
    """

    path: str
    kind: Kind
    about: str
    origin: str
    unknown: str
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The allowed values in words, for messages."""
        listed = ", ".join(self.choices)
        return {
            Kind.CHOICE: f"one of {listed}",
            Kind.BOOL: "true or false",
            Kind.NUMBER: "a number",
            Kind.VERSION: "a version such as 9.2",
            Kind.LIST: f"a list of {listed}" if listed else "a list",
            Kind.TEXT: "a text",
        }[self.kind]

    def read(self, value: object) -> object:
        """The value as conditions see it; ``None`` for unknown, which people may also write as a word.

        :raises ParseError: when the fact can't have it; the text says what it can.
        """
        if value is None or (isinstance(value, str) and value.strip().lower() in ("", "unknown")):
            return None
        result = _READERS[self.kind](self, value)
        if result is None:
            near = nearest(str(value), self.choices)
            raise ParseError(f"{self.path}: '{value}' is not allowed; write {self.allowed}{near}")
        return result


def nearest(word: str, names: Iterable[str]) -> str:
    """``, did you mean 'guest.os_family'?`` or nothing."""
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""


def _choice(fact: Fact, value: object) -> object:
    text = str(value).strip()
    if isinstance(value, bool):  # VirtIO drivers: people say that a guest has them, or has not
        text = {True: "all", False: "none"}[value] if {"all", "none"} <= {*fact.choices} else text
    return text if text in fact.choices else None


def _bool(_fact: Fact, value: object) -> object:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return words.get(str(value).strip().lower())


def _number(_fact: Fact, value: object) -> object:
    if isinstance(value, bool):
        return None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _version(_fact: Fact, value: object) -> object:
    """Two numbers become one that compares as versions do; a second number above nine counts as nine."""
    match = re.fullmatch(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:[.+~-].*)?", str(value).strip())
    return None if match is None or isinstance(value, bool) else int(match[1]) + min(int(match[2] or 0), 9) / 10


def _list(fact: Fact, value: object) -> object:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        return None
    texts = tuple(str(item) for item in items)
    return texts if not fact.choices or {*texts} <= {*fact.choices} else None


def _text(_fact: Fact, value: object) -> object:
    return str(value) if isinstance(value, (str, int, float)) else None


_READERS = MappingProxyType(
    {
        Kind.CHOICE: _choice,
        Kind.BOOL: _bool,
        Kind.NUMBER: _number,
        Kind.VERSION: _version,
        Kind.LIST: _list,
        Kind.TEXT: _text,
    }
)

#: PVE's names of guest systems and their families. Source: qemu-server 9.2.6, PVE/QemuServer.pm (ostype).
OS_FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys("w2k wxp w2k3 w2k8 wvista win7 win8 win10 win11".split(), "windows"),
        **dict.fromkeys(("l24", "l26"), "linux"),
        "solaris": "solaris",
        "other": "other",
    }
)
_DISK_TYPES = tuple(row.name for row in STORAGE_TYPES.values() if row.level != "none")
_CLUSTER = "the cluster"
_TYPE = "the storage's type"
_BOTH = "the cluster, else the storage's type"
_USER = "you"
_QUIET = "rules about it stay silent"

_BENCHMARK = "the role disk_benchmark, or you"
_CACHES = ("none", "directsync", "writethrough", "writeback", "unsafe")
_AIOS = ("native", "threads", "io_uring")


def _measured(name: str, plural: str, what: str, values: tuple[str, ...]) -> tuple[Fact, ...]:
    """What a benchmark can say about one choice."""
    group = "measurements"
    return (
        Fact(f"{group}.fastest_{name}", Kind.CHOICE, f"fastest {what} in your benchmark", _BENCHMARK, _QUIET, values),
        Fact(
            f"{group}.equal_{plural}",
            Kind.LIST,
            f"the fastest, and every other {what} that your benchmark can't tell from it",
            _BENCHMARK,
            _QUIET,
            values,
        ),
        Fact(
            f"{group}.{name}_difference",
            Kind.NUMBER,
            "by how many per cent the fastest is ahead of the next, or the equal ones differ",
            _BENCHMARK,
            "the reason does not say it",
        ),
        Fact(
            f"{group}.{name}_noise",
            Kind.NUMBER,
            "the per cent up to which a difference is noise",
            _BENCHMARK,
            "the reason does not say it",
        ),
    )


_ROWS: tuple[Fact, ...] = (
    Fact(
        "guest.os_family",
        Kind.CHOICE,
        "family of the guest's system",
        "the cluster (ostype)",
        "the guest is taken for one that brings no VirtIO drivers",
        ("linux", "windows", "bsd", "solaris", "other"),
    ),
    Fact("guest.os_release", Kind.CHOICE, "PVE's ostype", _CLUSTER, _QUIET, tuple(OS_FAMILIES)),
    Fact(
        "guest.virtio_drivers",
        Kind.CHOICE,
        "which VirtIO storage drivers start with the guest's system; true and false may stand for all and none",
        "the cluster: Linux 2.6 and newer has all unless it was migrated, a guest that boots from VirtIO has that one",
        "a legacy bus, except for a guest that is being installed",
        ("none", "block", "scsi", "all"),
    ),
    Fact(
        "guest.stage",
        Kind.CHOICE,
        "where the guest is in its life",
        "the cluster knows templates, you the rest",
        _QUIET,
        ("new", "installing", "settled", "migrated", "template"),
    ),
    Fact("guest.firmware", Kind.CHOICE, "firmware", "the cluster (bios)", _QUIET, ("seabios", "ovmf")),
    Fact("guest.machine", Kind.CHOICE, "machine type", "the cluster (machine)", _QUIET, ("i440fx", "q35")),
    Fact(
        "guest.machine_version",
        Kind.VERSION,
        "version that the machine type is pinned to",
        "the cluster (machine)",
        "the newest is taken, as PVE does",
    ),
    Fact("guest.running", Kind.BOOL, "whether it runs", _CLUSTER, _QUIET),
    Fact("guest.agent", Kind.BOOL, "whether the guest agent is enabled", "the cluster (agent)", _QUIET),
    Fact("storage.name", Kind.TEXT, "name of the storage", _CLUSTER, _QUIET),
    Fact("storage.type", Kind.CHOICE, "type of the storage", _CLUSTER, "raw, which every storage holds", _DISK_TYPES),
    Fact(
        "storage.level",
        Kind.CHOICE,
        "whether volumes are files in a folder or block devices",
        _TYPE,
        _QUIET,
        ("file", "block"),
    ),
    Fact("storage.formats", Kind.LIST, "formats that it holds", _BOTH, "the format is not checked", FORMATS),
    Fact("storage.snapshot_formats", Kind.LIST, "formats of which it takes snapshots", _TYPE, _QUIET, FORMATS),
    Fact("storage.linked_clone_formats", Kind.LIST, "formats of which it makes linked clones", _TYPE, _QUIET, FORMATS),
    Fact(
        "storage.thin",
        Kind.CHOICE,
        "whether space is taken only when it is written; format: as the format and its set-up are",
        _TYPE,
        "discards are left off",
        ("always", "never", "format"),
    ),
    Fact("storage.chains", Kind.BOOL, "whether snapshot-as-volume-chain is on", _CLUSTER, _QUIET),
    Fact(
        "storage.cow_below",
        Kind.BOOL,
        "whether a copy-on-write file system or pool lies below",
        "the type says it of zfspool, zfs and btrfs; you of a folder on one",
        _QUIET,
    ),
    Fact(
        "storage.direct_io",
        Kind.BOOL,
        "whether the file system below takes O_DIRECT",
        _USER,
        "it is taken to, as PVE does",
    ),
    Fact("storage.krbd", Kind.BOOL, "whether RBD is mapped by the kernel", _USER, _QUIET),
    Fact(
        "storage.medium",
        Kind.CHOICE,
        "what the storage is made of",
        _USER,
        "no SSD emulation, and nothing is done for spinning disks",
        ("ssd", "hdd", "nvme"),
    ),
    Fact("storage.raid", Kind.CHOICE, "what makes the redundancy", _USER, _QUIET, ("none", "hardware", "software")),
    Fact(
        "storage.write_cache_protected",
        Kind.BOOL,
        "whether a battery or capacitor protects the write cache",
        _USER,
        _QUIET,
    ),
    Fact("storage.shared", Kind.BOOL, "whether every node sees the same volumes", _BOTH, _QUIET),
    Fact("storage.pve_version", Kind.VERSION, "version of Proxmox VE", _CLUSTER, "today's is taken"),
    Fact(
        "need.workload",
        Kind.CHOICE,
        "what the disk is for",
        _USER,
        "like general",
        ("database", "general", "file_server", "desktop", "scratch", "archive"),
    ),
    Fact("need.snapshots", Kind.BOOL, "whether snapshots are to be taken", _USER, _QUIET),
    Fact("need.linked_clones", Kind.BOOL, "whether it is a template for linked clones", _USER, _QUIET),
    Fact("need.throwaway", Kind.BOOL, "whether changes are to be thrown away now and then", _USER, _QUIET),
    Fact("need.thin", Kind.BOOL, "whether it may take only the space that is written", _USER, _QUIET),
    Fact("need.portable", Kind.BOOL, "whether other hypervisors must be able to read it", _USER, _QUIET),
    Fact("need.mount_on_host", Kind.BOOL, "whether its file systems are to be mounted on the node", _USER, _QUIET),
    Fact(
        "need.durability",
        Kind.CHOICE,
        "what a crash of the node may cost",
        _USER,
        "like normal",
        ("strict", "normal", "disposable"),
    ),
    Fact("need.throughput", Kind.CHOICE, "throughput that is wanted", _USER, "like normal", ("high", "normal", "low")),
    Fact("need.capacity", Kind.CHOICE, "how much room the storage has for it", _USER, _QUIET, ("ample", "tight")),
    Fact("need.overcommit", Kind.BOOL, "whether guests are promised more than the storage has", _USER, _QUIET),
    Fact("team.formats", Kind.LIST, "formats that the administrators are at home with", _USER, _QUIET, FORMATS),
    Fact("measurements.run", Kind.TEXT, "which benchmark it was, and when", _BENCHMARK, "the reason does not say it"),
    *_measured("format", "formats", "format", FORMATS),
    *_measured("bus", "buses", "bus", DISK_BUSES),
    *_measured("cache", "caches", "cache mode", _CACHES),
    *_measured("aio", "aios", "kind of I/O", _AIOS),
)

#: By path.
FACTS: Mapping[str, Fact] = MappingProxyType({row.path: row for row in _ROWS})
#: What a dictionary of facts is divided into.
SECTIONS = tuple(dict.fromkeys(path.partition(".")[0] for path in FACTS))


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known about one disk to be chosen; hashable.

    :param values: one for each row of :data:`FACTS`, in its order; lists as tuples, ``None`` for unknown.
    """

    values: tuple[object, ...]

    def get(self, path: str) -> object:
        """The value of a fact, ``None`` for unknown."""
        return self.values[_POSITION[path]]

    def by_path(self) -> dict[str, object]:
        """The facts as conditions see them."""
        return dict(zip(FACTS, self.values, strict=True))

    def nested(self) -> dict[str, dict[str, object]]:
        """The facts as people write them."""
        result: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        for path, value in zip(FACTS, self.values, strict=True):
            section, _dot, name = path.partition(".")
            result[section][name] = list(value) if isinstance(value, tuple) else value
        return result


_POSITION = MappingProxyType({path: index for index, path in enumerate(FACTS)})


def read_facts(data: Mapping[str, object] | None, cluster: Mapping[str, object] | None = None) -> Facts:
    """Read facts, and add what follows from them.

    :param data: what the user says: a dictionary with the keys of :data:`SECTIONS`, each a dictionary; all optional.
    :param cluster: the same from the cluster (:func:`guest_facts`, :func:`storage_facts`); the user's word goes before.
    :raises ParseError: for a name or a value that there is not; all that is wrong is reported together.
    """
    problems: list[str] = []
    known = {**_read_sections(cluster or {}, problems), **_read_sections(data or {}, problems)}
    if problems:
        raise ParseError("\n".join(problems))
    _add_what_follows(known)
    return Facts(tuple(known.get(path) for path in FACTS))


def _read_sections(data: object, problems: list[str]) -> dict[str, object]:
    if not isinstance(data, Mapping):
        problems.append(f"facts are a dictionary of {', '.join(SECTIONS)}, not '{data}'")
        return {}
    known: dict[str, object] = {}
    for section, content in data.items():
        if section not in SECTIONS:
            near = _elsewhere(section) or nearest(str(section), SECTIONS)
            problems.append(f"'{section}' is no group of facts; there are {', '.join(SECTIONS)}{near}")
        elif content is not None and not isinstance(content, Mapping):
            problems.append(f"{section}: '{content}' is no dictionary; write for example {_example(str(section))}")
        else:
            known.update(_read_section(str(section), content or {}, problems))
    return known


def _read_section(section: str, content: Mapping[object, object], problems: list[str]) -> dict[str, object]:
    known: dict[str, object] = {}
    for name, value in content.items():
        path = f"{section}.{name}"
        if path not in FACTS:
            problems.append(unknown_fact(path))
            continue
        try:
            read = FACTS[path].read(value)
        except ParseError as error:
            problems.append(str(error))
            continue
        if read is not None:
            known[path] = read
    return known


def unknown_fact(path: str) -> str:
    """The sentence about a fact that there is not."""
    section, _dot, name = path.partition(".")
    names = {fact.partition(".")[2]: fact for fact in FACTS if fact.partition(".")[0] == section}
    near = _elsewhere(name or section) or nearest(path, names.values()) or nearest(path, FACTS)
    if near:
        return f"there is no fact '{path}'{near}"
    return f"there is no fact '{path}'; {section} has {', '.join(names)}"


def _elsewhere(name: object) -> str:
    """A hint at a fact of this very name, in whatever group."""
    return next((f", did you mean '{path}'?" for path in FACTS if path.partition(".")[2] == name), "")


def _example(section: str) -> str:
    fact = next(fact for path, fact in FACTS.items() if path.startswith(f"{section}."))
    name = fact.path.partition(".")[2]
    return f"{section}: {{{name}: {fact.choices[0] if fact.choices else 'true'}}}"


def _add_what_follows(known: dict[str, object]) -> None:
    """Facts that other facts imply: knowledge about systems and storage types, no guesses."""
    release = known.get("guest.os_release")
    if isinstance(release, str):
        known.setdefault("guest.os_family", OS_FAMILIES[release])
    modern_linux = known.get("guest.os_family") == "linux" and release in (None, "l26", "other")
    if modern_linux and known.get("guest.stage") != "migrated":
        known.setdefault("guest.virtio_drivers", "all")  # an initramfs made elsewhere may lack them
    row = STORAGE_TYPES.get(str(known.get("storage.type")))
    if row is None:
        return
    chained = row.chain_formats if known.get("storage.chains") else ()
    for path, value in (
        ("storage.level", row.level),
        ("storage.formats", tuple(dict.fromkeys((*row.formats, *chained)))),
        ("storage.snapshot_formats", tuple(dict.fromkeys((*row.snapshots, *chained)))),
        ("storage.linked_clone_formats", row.linked_clones),
        ("storage.thin", row.thin),
    ):
        known.setdefault(path, value)
    if row.name in ("zfspool", "zfs", "btrfs"):
        known.setdefault("storage.cow_below", True)
    if row.shared:
        known.setdefault("storage.shared", True)


def guest_facts(
    guest: Guest,
    ostype: str | None = None,
    machine: str | None = None,
    bios: str | None = None,
    agent: str | None = None,
) -> dict[str, object]:
    """What the cluster knows of a guest, as the group ``guest`` of facts; the last four are PVE's texts or ``None``."""
    release = ostype if ostype in OS_FAMILIES else "other"
    facts: dict[str, object] = {
        "os_release": release,
        "firmware": bios if bios in ("seabios", "ovmf") else "seabios",
        "machine": "q35" if machine and "q35" in machine else "i440fx",
        "running": guest.running,
        "agent": _agent_enabled(agent),
    }
    version = re.search(r"-(\d+\.\d+)", machine or "")
    if version:
        facts["machine_version"] = version[1]
    if guest.template:
        facts["stage"] = "template"
    driver = _boots_from(guest.configured)
    if driver and release != "l26":
        facts["virtio_drivers"] = driver
    return {name: value for name, value in facts.items() if value is not None}


def _agent_enabled(agent: str | None) -> bool:
    first = (agent or "0").partition(",")[0]
    return first.partition("=")[2] == "1" if "=" in first else first == "1"


def _boots_from(hardware: Hardware) -> str | None:
    """The VirtIO driver that a guest must have because its first boot disk needs it."""
    for device in hardware.boot.devices if hardware.boot else ():
        slot = find_slot(device)
        drive = hardware.drives.get(slot) if slot else None
        if slot is None or drive is None or not drive.is_disk:
            continue
        if slot.bus == "virtio":
            return "block"
        return "scsi" if slot.bus == "scsi" and (hardware.scsihw or "").startswith("virtio-scsi") else None
    return None


def storage_facts(storage: Storage, pve_version: str | None = None) -> dict[str, object]:
    """What the cluster knows of a storage, as the group ``storage`` of facts."""
    formats = tuple(name for name in storage.formats if name in FORMATS)
    facts: dict[str, object] = {
        "name": storage.name,
        "shared": storage.shared,
        "pve_version": pve_version,
        "formats": formats or None,
    }
    if storage.type in _DISK_TYPES:
        facts["type"] = storage.type
    if storage.kind is not None and storage.kind.level == "block":
        facts["chains"] = storage.chains
    return {name: value for name, value in facts.items() if value is not None}
