# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where a file has no bytes of its own and reads as zeros."""

from __future__ import annotations

import errno
import os
import typing as t
from dataclasses import replace

from .runs import Kind, Run

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Shorter runs are read as they are: to ask about them costs more.
_WORTH_ASKING = 1024**2


def data(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What is no hole in a file between two bytes, in order: first byte, and first byte behind."""
    while start < end:
        try:
            begin = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if begin >= end:
            return
        stop = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        yield begin, stop
        start = stop


def left_out(runs: Iterable[Run], fds: Sequence[int]) -> Iterator[Run]:
    """The same runs, with ZERO for the holes in the files: a flat image may be nothing but a hole.

    :param fds: of the files that the runs name.
    """
    for run in runs:
        if run.kind is Kind.DATA and run.length >= _WORTH_ASKING:
            yield from _without_holes(run, fds[run.file])
        else:
            yield run


def _without_holes(run: Run, fd: int) -> Iterator[Run]:
    position, end = run.offset, run.offset + run.length
    moved = run.start - run.offset
    for begin, stop in data(fd, position, end):
        if position < begin:
            yield Run(position + moved, begin - position, Kind.ZERO)
        yield replace(run, start=begin + moved, length=stop - begin, offset=begin)
        position = stop
    if position < end:
        yield Run(position + moved, end - position, Kind.ZERO)
