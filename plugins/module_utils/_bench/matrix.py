# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""From lists of formats, buses, cache modes and kinds of I/O to the combinations that PVE and QEMU accept. Pure.

What is not accepted is known elsewhere: in the core's tables of options and storages, and in the policy's rules, whose
sentences say why. Their conditions are not evaluated here, because that takes jmespath, which a PVE node does not have.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._core.errors import ParseError
from .._core.layout import FORMATS
from .._core.options import TABLE as OPTIONS
from .._core.size import format_pve_size, parse_pve_size
from .._core.slot import DISK_BUSES
from .._core.storage import TABLE as STORAGE_TYPES
from .._core.storage import Storage
from .._policy.constraints import CONSTRAINTS, HOST_CACHED
from .._policy.current import CURRENT, IO_URING_HANGS
from .combination import DIMENSIONS, Combination

_BECAUSE: t.Final = MappingProxyType({rule.id: rule.because for rule in (*CURRENT, *CONSTRAINTS)})
_CACHES: t.Final = OPTIONS["cache"].choices
_AIOS: t.Final = OPTIONS["aio"].choices
#: How the values of the matrix are combined: each dimension alone, the others as in the first combination; or all.
VARY: t.Final = ("each", "all")
_PREALLOCATIONS: t.Final = ("off", "metadata", "falloc", "full")
_SWITCH: t.Final = ("on", "off")
#: What ``qemu-img create -o`` takes for each format, as far as it matters to speed; a size if no values are named.
#: Source: QEMU 10, ``qemu-img create -o help -f FORMAT``.
FORMAT_OPTIONS: t.Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "raw": {"preallocation": ("off", "falloc", "full")},
        "qcow2": {
            "cluster_size": (),
            "extended_l2": _SWITCH,
            "lazy_refcounts": _SWITCH,
            "preallocation": _PREALLOCATIONS,
        },
        "vmdk": {"subformat": ("monolithicSparse", "monolithicFlat")},
    }
)
_CLUSTERS: t.Final = tuple(1 << power for power in range(9, 22))  # 512 bytes to 2 MiB
_SUBCLUSTERED: t.Final = 16 * 1024  # the smallest cluster with extended_l2
_IOTHREAD: t.Final = "+iothread"


@dataclass(frozen=True, slots=True)
class Place:
    """Where scratch volumes are made, as the node sees it.

    :param name: of the storage, or the path of the folder.
    :param type: PVE's type of the storage, or ``folder``.
    :param formats: what it holds.
    :param level: ``file`` or ``block``.
    :param direct_io: whether the file system takes O_DIRECT; ``None`` if nobody has tried.
    :param krbd: whether RBD is mapped by the kernel.
    """

    name: str
    type: str
    formats: tuple[str, ...]
    level: str
    direct_io: bool | None = None
    krbd: bool = False


def folder_place(path: str, direct_io: bool | None = None) -> Place:
    """A folder, which holds what a storage of the type ``dir`` holds."""
    return Place(path, "folder", STORAGE_TYPES["dir"].formats, "file", direct_io)


def storage_place(storage: Storage, direct_io: bool | None = None, krbd: bool = False) -> Place:
    """A storage of PVE.

    :raises ParseError: scratch volumes can't be made on it.
    """
    kind = storage.kind
    if kind is None or not kind.allocates:
        able = ", ".join(row.name for row in STORAGE_TYPES.values() if row.allocates)
        raise ParseError(
            f"storage {storage.name}: no volume can be made on a storage of type {storage.type};"
            f" name one of type {able}"
        )
    return Place(storage.name, storage.type, storage.formats or kind.formats, kind.level, direct_io, krbd)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The lists that a matrix is made of, each value as people write it; the first of each makes the combination that
    the others are compared with.

    :param formats: ``raw``, ``qcow2``, ``qcow2,cluster_size=2M``.
    :param buses: ``scsi+iothread``, ``virtio``.
    :param vary: one of :data:`VARY`.
    """

    formats: tuple[str, ...] = ("raw", "qcow2")
    buses: tuple[str, ...] = ("scsi+iothread", "scsi", "virtio+iothread", "virtio", "sata", "ide")
    caches: tuple[str, ...] = ("none", "directsync", "writethrough", "writeback", "unsafe")
    aios: tuple[str, ...] = ("io_uring", "native", "threads")
    vary: str = "each"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A combination, or a part of the plan, that is not measured, and why.

    :param what: the key of a combination, or a clause.
    """

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """What can be measured, the most important first, and what can't."""

    combinations: tuple[Combination, ...]
    left_out: tuple[LeftOut, ...]


def matrix(places: Iterable[Place], wanted: Wanted, missing: Mapping[str, str] = MappingProxyType({})) -> Matrix:
    """All combinations of the lists on all places.

    :param missing: kinds of I/O that QEMU can't do on this node, each with the reason.
    :raises ParseError: a value that there is not, an empty list, or nothing that can be measured; all such problems
        are reported together.
    """
    lists = _read(wanted)
    accepted: dict[str, Combination] = {}
    left_out: dict[str, LeftOut] = {}
    for place in places:
        for combination, reason in _combine(place, lists, missing):
            if reason:
                left_out.setdefault(combination.key, LeftOut(combination.key, reason))
            else:
                accepted.setdefault(combination.key, combination)
    if not accepted:
        reasons = "\n".join(f"{row.what}: {row.reason}" for row in left_out.values())
        nothing = f"no combination is left that can be measured:\n{reasons}"
        raise ParseError(nothing if reasons else "places: none is named")
    return Matrix(tuple(accepted.values()), tuple(left_out.values()))


@dataclass(frozen=True, slots=True)
class _Lists:
    formats: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    buses: tuple[tuple[str, bool], ...]
    caches: tuple[str, ...]
    aios: tuple[str, ...]
    each: bool


def _read(wanted: Wanted) -> _Lists:
    problems: list[str] = []
    lists = _Lists(
        tuple(_each("formats", wanted.formats, parse_format, problems)),
        tuple(_each("buses", wanted.buses, parse_bus, problems)),
        tuple(_each("caches", wanted.caches, OPTIONS["cache"].canonical, problems)),
        tuple(_each("aios", wanted.aios, OPTIONS["aio"].canonical, problems)),
        wanted.vary == "each",
    )
    if wanted.vary not in VARY:
        problems.append(f"vary: '{wanted.vary}' is not allowed; write one of {', '.join(VARY)}")
    if problems:
        raise ParseError("\n".join(problems))
    return lists


_Value = t.TypeVar("_Value")


def _each(name: str, texts: Iterable[str], read: t.Callable[[str], _Value], problems: list[str]) -> Iterator[_Value]:
    empty = True
    for text in texts:
        empty = False
        try:
            yield read(text)
        except ParseError as error:
            problems.append(f"{name}: {error}")
    if empty:
        problems.append(f"{name}: the list is empty; name at least one, or leave it out")


def parse_bus(text: str) -> tuple[str, bool]:
    """A bus, and whether its drive has an I/O thread.

    :raises ParseError: there is no such bus.
    """
    bus = text.removesuffix(_IOTHREAD)
    if bus not in DISK_BUSES:
        able = [f"{name}{_IOTHREAD}" for name in DISK_BUSES if name in OPTIONS["iothread"].buses]
        raise ParseError(f"'{text}' is not allowed; write one of {', '.join([*DISK_BUSES, *able])}")
    return bus, text != bus


def parse_format(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A format and its options, sorted by name: ``qcow2,cluster_size=2M``.

    :raises ParseError: there is no such format, option or value.
    """
    name, *words = (word.strip() for word in text.split(","))
    if name not in FORMATS:
        able = ", ".join(FORMATS)
        raise ParseError(f"'{name}' is not allowed; write one of {able}, and options of qemu-img behind it")
    options = dict(_format_option(name, word) for word in words)
    cluster = parse_pve_size(options.get("cluster_size", "64K")) or 0
    if options.get("extended_l2") == "on" and cluster < _SUBCLUSTERED:
        raise ParseError(f"'{text}': extended_l2 needs a cluster_size of at least 16K")
    return name, tuple(sorted(options.items()))


def _format_option(format_name: str, word: str) -> tuple[str, str]:
    option, _equals, value = word.partition("=")
    known = FORMAT_OPTIONS[format_name]
    if option not in known:
        raise ParseError(f"'{word}' is not allowed behind {format_name}; it takes {', '.join(known)}")
    if known[option]:
        if value not in known[option]:
            raise ParseError(f"'{word}' is not allowed; {option} takes {', '.join(known[option])}")
        return option, value
    size = parse_pve_size(value.upper())
    if size not in _CLUSTERS:
        raise ParseError(f"'{word}' is not allowed; {option} takes a power of two from 512 to 2M")
    return option, format_pve_size(size)


def _combine(place: Place, lists: _Lists, missing: Mapping[str, str]) -> Iterator[tuple[Combination, str]]:
    """What is to be measured on a place, first what the others are compared with, each with the reason against it."""
    judged = [
        (one, _objection(one, place) or missing.get(one.aio, ""))
        for name, options in lists.formats
        for bus, iothread in lists.buses
        for cache in lists.caches
        for aio in lists.aios
        for one in [Combination(place.name, name, bus, cache, aio, iothread, options)]
    ]
    base = next((one for one, reason in judged if not reason), None)
    for one, reason in judged:
        if base is None or not lists.each or one == base or any(one.differs_only_in(name, base) for name in DIMENSIONS):
            yield one, reason


def _objection(combination: Combination, place: Place) -> str:
    """Why a combination can't be measured on a place, or nothing."""
    direct = combination.cache not in HOST_CACHED
    for applies, reason in (
        (combination.format not in place.formats, _BECAUSE[f"storage-holds-{combination.format}"]),
        (
            bool(combination.format_options) and place.level != "file",
            "Volumes that are block devices take no options of qemu-img.",
        ),
        (
            combination.iothread and combination.bus not in OPTIONS["iothread"].buses,
            f"Disks on {combination.bus} do not have the option iothread.",
        ),
        (combination.aio == "native" and not direct, _BECAUSE["native-needs-direct"]),
        (direct and place.direct_io is False, _BECAUSE["no-direct-io"]),
        (combination.aio == "io_uring" and _io_uring_hangs(place, direct), _BECAUSE["no-io-uring"]),
    ):
        if applies:
            return reason
    return ""


def _io_uring_hangs(place: Place, direct: bool) -> bool:
    return place.type in IO_URING_HANGS or (place.type == "rbd" and place.krbd and not direct)
