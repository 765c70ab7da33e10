# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What one benchmark has found, and how: the document that is kept, shown and compared. Pure.

Everything that a reader needs to judge the numbers is in it. ``docs/benchmark.md`` describes it field by field.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._core.errors import ParseError
from .combination import Combination
from .fio import Measured
from .matrix import LeftOut
from .plain_data import as_data, read_data
from .workloads import TABLE, Workload

#: The version of the document. Documents of another one are not read.
VERSION: t.Final = 1
CRASHES: t.Final = ("qemu", "host")


@dataclass(frozen=True, slots=True)
class Text:
    """One thing that is known about a place or a node: a name, and what it is."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class PlaceRecord:
    """A storage, or a folder, as it was.

    :param type: PVE's type of the storage, or ``folder``.
    :param options: what PVE's configuration says of the storage, or how the file system is mounted.
    :param filesystem: of a folder.
    :param device: models of the disks below, as far as the node tells.
    :param medium: ``hdd``, ``ssd``, ``nvme``, or ``""`` if nobody knows.
    :param write_cache: of the disks below, ``write back`` or ``write through``, or ``""``.
    :param scheduler: of the disks below, or ``""``.
    :param total: bytes.
    :param free: bytes, before it began.
    """

    name: str
    type: str
    options: tuple[Text, ...] = ()
    filesystem: str = ""
    device: str = ""
    medium: str = ""
    write_cache: str = ""
    scheduler: str = ""
    total: int | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """Where it was measured. A version that nobody knows is ``""``.

    :param accelerator: ``kvm``, or ``tcg`` if QEMU translates the guest's instructions: latencies mean little then.
    :param memory: bytes.
    :param load: of the last minute, before it began.
    :param drives: how QEMU was told of drives, and whether guests of this node are told so, too: sentences.
    """

    node: str
    accelerator: str
    pve: str = ""
    qemu: str = ""
    kernel: str = ""
    guest_kernel: str = ""
    fio: str = ""
    cpu: str = ""
    cpus: int = 0
    memory: int = 0
    load: float = 0.0
    qemu_server: str = ""
    drives: str = ""
    places: tuple[PlaceRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """How it was measured.

    :param rounds: how often each combination was to be measured.
    :param seconds: how long each workload was measured.
    :param ramp: seconds before that, which do not count.
    :param size: bytes of each scratch volume.
    :param seed: of the random order.
    :param order: how the order was made, a sentence.
    :param caches: how caches were treated, a sentence.
    :param nulls: keys of the combinations that were measured as A and as B.
    :param planned: how many starts of the guest were planned.
    :param estimated_seconds: how long it was thought to take.
    :param time_limit: seconds, ``0`` for none.
    """

    rounds: int
    seconds: int
    ramp: int
    size: int
    seed: int
    order: str
    caches: str
    nulls: tuple[str, ...]
    planned: int
    estimated_seconds: int
    time_limit: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One workload in one start of the guest.

    :param trial: the number of the start, from 1.
    :param combination: a key.
    :param side: ``A`` or ``B`` in the null comparison, else ``""``.
    :param started: when, in UTC, as ISO 8601.
    :param measured: what fio measured, or ``None``.
    :param error: why there is nothing, or ``""``.
    """

    trial: int
    round: int
    combination: str
    side: str
    workload: str
    started: str
    measured: Measured | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Durability:
    """What a crash has cost: writes that the guest was told are safe, looked for afterwards.

    :param combination: a key.
    :param crash: what was killed: ``qemu``, or the ``host`` below it.
    :param acknowledged: how many writes the guest had flushed successfully.
    :param lost: how many of those were not there afterwards.
    :param how: how the crash was made, a sentence.
    """

    combination: str
    crash: str
    acknowledged: int
    lost: int
    how: str


@dataclass(frozen=True, slots=True)
class Results:
    """One benchmark.

    :param id: a name that no other has.
    :param started: in UTC, as ISO 8601; so too ``finished``, which is ``""`` while it goes on, or was cut short.
    :param workloads: ids, in the order of their table.
    :param left_out: what was not measured, and why.
    :param notes: what a reader has to know, in sentences.
    """

    id: str
    started: str
    finished: str
    environment: Environment
    method: Method
    combinations: tuple[Combination, ...]
    workloads: tuple[str, ...]
    runs: tuple[Run, ...]
    durability: tuple[Durability, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    version: int = VERSION

    def as_json(self) -> dict[str, t.Any]:
        """As plain data."""
        names = ("version", *(name for name in self.__slots__ if name != "version"))
        return {name: as_data(getattr(self, name)) for name in names}

    def combination(self, key: str) -> Combination:
        """The combination with a key."""
        return next(one for one in self.combinations if one.key == key)

    @property
    def rows(self) -> tuple[Workload, ...]:
        """Its workloads, as rows of their table."""
        return tuple(TABLE[name] for name in self.workloads)


def load(data: object, where: str = "results") -> Results:
    """What :meth:`Results.as_json` gave.

    :param where: what the document is called in messages, such as its file.
    :raises ParseError: it is none, or of another version; the text says what is wrong, and where.
    """
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise ParseError(
            f"{where}: this is no result of a benchmark that can be read: version is {version!r}, not {VERSION}"
        )
    try:
        found = read_data(Results, data, "results")
    except ParseError as error:
        raise ParseError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error
    problems = list(_loose_ends(found))
    if problems:
        raise ParseError("\n".join(f"{where}: {line}" for line in problems))
    return found


def _loose_ends(found: Results) -> t.Iterator[str]:
    """What names something that is not there."""
    keys = {one.key for one in found.combinations}
    unknown = [name for name in found.workloads if name not in TABLE]
    yield from (f"workloads: there is no workload '{name}'; there are {', '.join(TABLE)}" for name in unknown)
    yield from _loose_runs(found, keys)
    for number, row in enumerate(found.durability):
        if row.combination not in keys:
            yield f"durability[{number}].combination: '{row.combination}' is not among the combinations"
        if row.crash not in CRASHES or not 0 <= row.lost <= row.acknowledged:
            yield f"durability[{number}]: crash is one of {', '.join(CRASHES)}, and no more is lost than acknowledged"


def _loose_runs(found: Results, keys: set[str]) -> t.Iterator[str]:
    for number, run in enumerate(found.runs):
        if run.combination not in keys:
            yield f"runs[{number}].combination: '{run.combination}' is not among the combinations"
        if run.workload not in found.workloads:
            yield f"runs[{number}].workload: '{run.workload}' is not among the workloads"
        if run.side not in ("", "A", "B"):
            yield f"runs[{number}].side: '{run.side}' is neither A nor B nor empty"
        if (run.measured is None) != bool(run.error):
            yield f"runs[{number}]: it has either measured or error"
