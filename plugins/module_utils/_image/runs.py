# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where the bytes of a disk are: stretches of the disk, each with its place in a file."""

from __future__ import annotations

import enum
import typing as t
import zlib
from dataclasses import dataclass, replace

from .errors import ImageRefusedError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SECTOR = 512


class Kind(enum.Enum):
    """What a stretch of a disk is made of."""

    #: Bytes that stand in a file as they are.
    DATA = "data"
    #: Zeros, which stand nowhere.
    ZERO = "zero"
    #: One grain, or a part of it, which stands in a file as a zlib stream.
    DEFLATED = "deflated"
    #: What only the parent knows. Inside one member of a chain; a source never gives it.
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a disk and where its bytes are. All numbers are bytes.

    :param start: where it begins on the virtual disk.
    :param length: how much of the disk it is.
    :param file: index into the source's ``files`` and ``fds``.
    :param offset: where it begins in that file, counted from the file's own beginning (also in an OVA, so that it can
        be read with ``os.pread(source.fds[run.file], n, run.offset)``). DATA: the first byte. DEFLATED: the first byte
        of the zlib stream.
    :param stored: DEFLATED: length of the zlib stream.
    :param skip: DEFLATED: bytes of the unpacked grain that come before this run.
    :param grain: DEFLATED: the most that the grain may unpack to.
    """

    start: int
    length: int
    kind: Kind
    file: int = 0
    offset: int = 0
    stored: int = 0
    skip: int = 0
    grain: int = 0

    @property
    def end(self) -> int:
        """The first byte of the disk behind it."""
        return self.start + self.length


class Layer(t.Protocol):
    """One member of a chain, or one extent of it: a part of a disk that knows where its bytes are."""

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Its runs from ``start`` to ``end``, in order and without gaps."""


def clip(run: Run, start: int, end: int) -> Run:
    """The part of a run from ``start`` to ``end``, which overlap it."""
    if start <= run.start and run.end <= end:
        return run
    cut = max(0, start - run.start)
    length = min(run.end, end) - run.start - cut
    if run.kind is Kind.DATA:
        return replace(run, start=run.start + cut, length=length, offset=run.offset + cut)
    if run.kind is Kind.DEFLATED:
        return replace(run, start=run.start + cut, length=length, skip=run.skip + cut)
    return replace(run, start=run.start + cut, length=length)


def _continues(last: Run, run: Run) -> bool:
    if last.kind is not run.kind or last.kind is Kind.DEFLATED:
        return False
    return last.kind is not Kind.DATA or (last.file == run.file and last.offset + last.length == run.offset)


def merge(runs: Iterable[Run]) -> Iterator[Run]:
    """The same runs, neighbours made one where they are one in the file, too. Packed grains stay single."""
    last: Run | None = None
    for run in runs:
        if last is not None and _continues(last, run):
            last = replace(last, length=last.length + run.length)
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def resolve(layers: tuple[Layer, ...], start: int, end: int) -> Iterator[Run]:
    """The runs of a chain: what is absent in a member comes from the next one, and from the last as zeros.

    :param layers: the members, the head first.
    """
    head, parents = layers[0], layers[1:]
    for run in head.runs(start, end):
        if run.kind is not Kind.ABSENT:
            yield run
        elif parents:
            yield from resolve(parents, run.start, run.end)
        else:
            yield Run(run.start, run.length, Kind.ZERO)


def inflate(run: Run, stored: bytes, name: str) -> bytes:
    """Unpack a DEFLATED run.

    :param stored: the zlib stream, ``run.stored`` bytes from ``run.offset``.
    :param name: name of the file, for the message.
    :returns: the run's own bytes, ``run.length`` of them.
    :raises ImageRefusedError: if the stream is damaged, too short for the run, or longer than a grain.
    """
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(stored, run.grain + 1)
    except zlib.error as error:
        raise _damaged(run, name, str(error)) from error
    if len(data) > run.grain or not unpacker.eof or len(data) < run.skip + run.length:
        raise _damaged(run, name, f"unpacks to {len(data)} bytes, a grain has {run.grain}")
    return data[run.skip : run.skip + run.length] if run.skip or run.length < len(data) else data


def _damaged(run: Run, name: str, problem: str) -> ImageRefusedError:
    return ImageRefusedError(
        "grain-damaged",
        name,
        f"the compressed grain at byte {run.offset} is damaged ({problem})",
        "copy the file again and compare its checksum with the original's",
    )
