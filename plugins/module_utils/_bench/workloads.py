# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What people ask of a storage, as workloads for fio: one row each, and the reads of a system that starts. Pure."""

from __future__ import annotations

import random
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._core.errors import ParseError
from .._core.size import human_size

#: What a workload is judged by. Of latencies less is better, of the others more.
MEASURES: t.Final = ("iops", "bandwidth", "latency")
_KIB: t.Final = 1024
_MIB: t.Final = 1024**2


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table.

    :param title: what it is called in tables.
    :param about: one sentence for people.
    :param options: of the job for fio, beside those that all jobs have.
    :param measures: what it is judged by, one of :data:`MEASURES`: operations or bytes in a second, or the median of
        what one operation takes.
    :param direction: of which operations: ``read``, ``write``, or ``both`` added up.
    :param trace: whether it replays a trace, and so lasts as long as that takes.
    """

    id: str
    title: str
    about: str
    options: tuple[tuple[str, str], ...]
    measures: str
    direction: str
    trace: bool = False

    def __post_init__(self) -> None:
        if self.measures not in MEASURES or self.direction not in ("read", "write", "both"):
            raise ValueError(f"{self.id}: unknown measures or direction")
        if self.measures == "latency" and self.direction == "both":
            raise ValueError(f"{self.id}: latencies of reads and writes can't be added up")

    @property
    def unit(self) -> str:
        """The unit of what it is judged by: ``IOPS``, ``bytes/s`` or ``ns``."""
        return {"iops": "IOPS", "bandwidth": "bytes/s", "latency": "ns"}[self.measures]

    @property
    def more_is_better(self) -> bool:
        """Whether the larger value is the better one."""
        return self.measures != "latency"


def _options(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, _equals, value in (word.partition("=") for word in text.split()))


_ROWS: t.Final = (
    Workload(
        "randread-4k-q1",
        "random reads 4k, 1 at once",
        "Random reads of 4 KiB, one at a time: how long one small read takes, which a single program waits for.",
        _options("rw=randread bs=4k iodepth=1"),
        "latency",
        "read",
    ),
    Workload(
        "randread-4k-q32",
        "random reads 4k, 32 at once",
        "Random reads of 4 KiB, 32 at once: how many small reads the disk does in a second for many programs together.",
        _options("rw=randread bs=4k iodepth=32"),
        "iops",
        "read",
    ),
    Workload(
        "randwrite-4k-q1",
        "random writes 4k, 1 at once",
        "Random writes of 4 KiB, one at a time, without flushes: how long one small write takes to be accepted.",
        _options("rw=randwrite bs=4k iodepth=1"),
        "latency",
        "write",
    ),
    Workload(
        "randwrite-4k-q32",
        "random writes 4k, 32 at once",
        "Random writes of 4 KiB, 32 at once, without flushes: how many small writes the disk takes in a second.",
        _options("rw=randwrite bs=4k iodepth=32"),
        "iops",
        "write",
    ),
    Workload(
        "seqread-1m",
        "sequential reads 1M",
        "Reads of 1 MiB one behind the other: the throughput of a backup, or of a copy that is read.",
        _options("rw=read bs=1m iodepth=8"),
        "bandwidth",
        "read",
    ),
    Workload(
        "seqwrite-1m",
        "sequential writes 1M",
        "Writes of 1 MiB one behind the other: the throughput of a restore, or of a copy that is written.",
        _options("rw=write bs=1m iodepth=8"),
        "bandwidth",
        "write",
    ),
    Workload(
        "mixed-8k",
        "database mix 8k",
        "Seven reads of 8 KiB for three writes, 16 at once, at random: what a busy database does between its commits.",
        _options("rw=randrw rwmixread=70 bs=8k iodepth=16"),
        "iops",
        "both",
    ),
    Workload(
        "commit-4k",
        "commits 4k",
        "Writes of 4 KiB, each followed by a flush: how many transactions one program can commit in a second, and how"
        " long a commit takes.",
        _options("rw=randwrite bs=4k iodepth=1 fsync=1"),
        "iops",
        "write",
    ),
    Workload(
        "boot",
        "start of a system",
        "The reads of a system that starts, in bursts of 4 to 256 KiB all over the disk, with a few writes: as fast as"
        " the disk gives them.",
        _options("iodepth=4"),
        "bandwidth",
        "both",
        trace=True,
    ),
)

#: By id, in the order in which people are shown them.
TABLE: t.Final[Mapping[str, Workload]] = MappingProxyType({row.id: row for row in _ROWS})


def parse_workloads(names: t.Iterable[str]) -> tuple[Workload, ...]:
    """The workloads of these ids in the order of the table, each once.

    :raises ParseError: for an id that there is not.
    """
    wanted = tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in TABLE]
    if unknown:
        raise ParseError(f"there is no workload '{unknown[0]}'; there are {', '.join(TABLE)}")
    if not wanted:
        raise ParseError(f"workloads: none is named; there are {', '.join(TABLE)}")
    return tuple(row for row in TABLE.values() if row.id in wanted)


# ---- the start of a system

#: How much the trace reads, about: many starts, since one is over in a moment on a fast disk. fio can't repeat a trace.
TRACE_BYTES: t.Final = 1024 * _MIB
#: The smallest disk that it can be replayed on.
SMALLEST: t.Final = 64 * _MIB
_TRACE_SEED: t.Final = 2016
# How large requests are, and how often such ones come: read-ahead grows to 128 KiB, file systems read single blocks.
_READS: t.Final = ((4, 40), (8, 8), (16, 12), (32, 12), (64, 12), (128, 14), (256, 2))
_BURST: t.Final = (1, 12)
_WRITE_EVERY: t.Final = 25  # requests: logs and journals


def trace(device: str, size: int) -> str:
    """The requests of a system that starts, for fio's ``read_iolog`` (version 2). The same for the same size.

    :param device: the disk in the guest.
    :param size: the bytes of it that may be used, at least :data:`SMALLEST`.
    :raises ParseError: it is less.
    """
    if size < SMALLEST:
        raise ParseError(f"size: {human_size(size)} is too small; the workload boot needs {human_size(SMALLEST)}")
    dice = random.Random(_TRACE_SEED)
    lines = ["fio version 2 iolog", f"{device} add", f"{device} open"]
    lines += [f"{device} {action} {offset} {length}" for action, offset, length in _requests(dice, size)]
    return "\n".join([*lines, f"{device} close", ""])


def _requests(dice: random.Random, size: int) -> t.Iterator[tuple[str, int, int]]:
    lengths, weights = zip(*_READS, strict=True)
    done, number = 0, 0
    while done < TRACE_BYTES:
        length = dice.choices(lengths, weights)[0] * _KIB
        count = dice.randint(*_BURST)  # a file, read from its beginning
        offset = dice.randrange((size - length * count) // 4096) * 4096
        for index in range(count):
            number += 1
            done += length
            yield "read", offset + index * length, length
            if number % _WRITE_EVERY == 0:
                yield "write", dice.randrange(size // 4096) * 4096, 4096
