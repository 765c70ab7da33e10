# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Copies a disk's content into a target: in slices, each of them on the medium before the next begins."""

from __future__ import annotations

import errno
import os
import threading
import time
import typing as t
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

from .chunks import Buffer, Chunk, cut
from .errors import ImageError
from .file_errors import named
from .lock import adopt, inherited
from .runs import Kind, Run, inflate

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .chunks import Digests
    from .progress import Progress
    from .reader import Reader, Window
    from .target import Piece, Target

#: What one image may be doing at a time.
WORKERS = min(4, os.cpu_count() or 1)
#: Where the kernel can't copy between two files by itself, bytes are read and written.
_NOT_BY_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY)
#: After so many seconds what was copied is committed, however little it is: a slow copy that is killed has not run in
#: vain.
COMMIT_SECONDS = 15.0
#: Chunks of zeros are committed now and then although there is nothing to copy.
_CHUNKS_PER_SLICE = 65536


class Throttle:
    """Keeps several threads together below a rate.

    :param rate: bytes a second; 0 for no limit.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes more may be moved."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        if begin > now:
            time.sleep(begin - now)


@dataclass(frozen=True, slots=True)
class Means:
    """What copying and verifying have to do with: limits and where to report.

    :param workers: threads. Unpacking, digests, reading and writing leave the interpreter's lock free.
    """

    progress: Progress
    throttle: Throttle
    workers: int = WORKERS
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, count: int) -> None:
        """Note that so many bytes more are done."""
        with self._lock:
            self.progress.done += count


class Pool:
    """Runs work in threads, never much ahead of what is done, and stops at the first error."""

    def __init__(self, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers, "diskwright", adopt, (inherited(),))
        self._limit = 2 * workers
        self._pending: set[Future[None]] = set()

    def submit(self, work: Callable[..., None], *arguments: t.Any) -> None:
        """Have something done; waits if there is much to do already."""
        while len(self._pending) >= self._limit:
            self._collect()
        self._pending.add(self._executor.submit(work, *arguments))

    def drain(self) -> None:
        """Wait until all is done."""
        while self._pending:
            self._collect()

    def _collect(self) -> None:
        done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()

    def stop(self) -> None:
        """Let what runs come to its end, and nothing else begin."""
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """A pool for the block."""
    found = Pool(workers)
    try:
        yield found
    finally:
        found.stop()


class Copier:
    """One copy of a source.

    :param digests: where the chunks' digests go; ``None`` if the target will not be verified.
    :param commit: told how far everything is on the medium.
    """

    def __init__(
        self, source: Reader, target: Target, digests: Digests | None, means: Means, commit: Callable[[int], None]
    ) -> None:
        self._source = source
        self._target = target
        self._digests = digests
        self._means = means
        self._commit = commit
        self._buffers = threading.local()
        # Without a digest, and without zeros to be found, nobody needs to see the bytes.
        self._by_kernel = digests is None and not source.dense and not target.block

    def run(self, start: int) -> None:
        """Copy everything from ``start`` on, a chunk's border."""
        with pool(self._means.workers) as workers:
            for window in self._source.windows(start):
                self._window(window, workers)

    def _window(self, window: Window, workers: Pool) -> None:
        begun, content, count, since = window.start, 0, 0, time.monotonic()
        end = begun
        for chunk in cut(window.runs):
            workers.submit(self._chunk, chunk)
            end, content, count = chunk.end, content + chunk.stored, count + 1
            late = time.monotonic() - since >= COMMIT_SECONDS
            if content >= self._target.slice or count >= _CHUNKS_PER_SLICE or late:
                self._finish(begun, end, workers)
                begun, content, count, since = end, 0, 0, time.monotonic()
        self._finish(begun, end, workers)

    def _finish(self, start: int, end: int, workers: Pool) -> None:
        workers.drain()
        if start == end:
            return
        self._target.commit(start, end)
        if self._digests is not None:
            self._digests.sync()
        self._commit(end)

    # ---- one chunk, in a thread of its own

    def _chunk(self, chunk: Chunk) -> None:
        stored = chunk.stored
        if not stored:
            self._target.clear(chunk.start, chunk.end)
            return
        self._means.throttle.take(stored)
        if not (self._by_kernel and self._kernel_copies(chunk)):
            self._read_and_write(chunk)
        self._means.advance(stored)

    def _kernel_copies(self, chunk: Chunk) -> bool:
        """Let the kernel copy the chunk, unless something in it is packed or the kernel can't."""
        if any(run.kind is Kind.DEFLATED for run in chunk.runs):
            return False
        try:
            for run in chunk.runs:
                if run.kind is Kind.DATA:
                    self._kernel_copies_run(run)
                else:
                    self._target.clear(run.start, run.end)
        except OSError as error:
            if error.errno not in _NOT_BY_KERNEL:
                raise
            self._by_kernel = False
            return False
        return True

    def _kernel_copies_run(self, run: Run) -> None:
        for piece in self._target.pieces(run.start, run.end):
            position = run.offset + piece.start - run.start
            done = 0
            while done < piece.length:
                count = os.copy_file_range(
                    self._source.fds[run.file], piece.fd, piece.length - done, position + done, piece.offset + done
                )
                if not count:
                    raise self._shorter(run)
                done += count

    def _read_and_write(self, chunk: Chunk) -> None:
        buffer = self._buffer()
        buffer.resize(chunk.end - chunk.start)
        for run in chunk.runs:
            self._fill(buffer, run, run.start - chunk.start)
        if self._digests is not None:
            self._digests.put(chunk.start, buffer)
        for start, end, zero in buffer.stretches():
            if zero:
                self._target.clear(chunk.start + start, chunk.start + end)
            else:
                for piece in self._target.pieces(chunk.start + start, chunk.start + end):
                    _write(piece, buffer.view[piece.start - chunk.start :])

    def _buffer(self) -> Buffer:
        if not hasattr(self._buffers, "own"):
            self._buffers.own = Buffer()
        own: Buffer = self._buffers.own
        return own

    def _fill(self, buffer: Buffer, run: Run, at: int) -> None:
        if run.kind is Kind.ZERO:
            buffer.clear(at, at + run.length)
        elif run.kind is Kind.DATA:
            self._read(buffer.view[at : at + run.length], run)
        else:
            stored = os.pread(self._source.fds[run.file], run.stored, run.offset)
            if len(stored) < run.stored:
                raise self._shorter(run)
            buffer.view[at : at + run.length] = inflate(run, stored, self._source.names[run.file])

    def _read(self, room: memoryview, run: Run) -> None:
        if not read_all(self._source.fds[run.file], room, run.offset):
            raise self._shorter(run)

    def _shorter(self, run: Run) -> ImageError:
        return ImageError(
            f"{self._source.names[run.file]} has become shorter while it was read; "
            "see what writes to it, then run again"
        )


def read_all(fd: int, room: memoryview, offset: int) -> bool:
    """Fill ``room`` from a file; ``False`` if the file ends before."""
    done = 0
    while done < len(room):
        count = os.preadv(fd, [room[done:]], offset + done)
        if not count:
            return False
        done += count
    return True


def _write(piece: Piece, content: memoryview) -> None:
    done = 0
    with named(piece.fd):
        while done < piece.length:
            done += os.pwrite(piece.fd, content[done : piece.length], piece.offset + done)
