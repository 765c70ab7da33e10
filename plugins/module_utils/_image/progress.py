# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""How far work is: kept by the module, written to a file, and worded for people. Pure but for the file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
import typing as t
from dataclasses import asdict, dataclass

from .._core.size import human_size
from .errors import ImageError
from .worker import Worker

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: The phases of a conversion, in order; ``done`` and ``failed`` end it.
PHASES = ("wait", "inspect", "convert", "verify", "check", "done", "failed")
_TOLD = ("convert", "verify", "done", "failed")
#: So many images are shown at a time on a terminal.
_LINES = 10
#: What is touched beside a progress file by a reader without whom the work is to stop, and after how many seconds.
SEEN = ".seen"
PATIENCE = 120
#: What the action plugin calls its progress files; beside them are the marks, and what was not yet renamed.
_OWN = re.compile(r"[0-9a-f]{32}\.json(?:\.seen|\.[0-9]+)?$")


@dataclass(slots=True)
class Progress:
    """How far one image is. Bytes count what is stored: zeros cost nothing.

    :param begun: when the phase began, in seconds of the clock of whoever writes it.
    :param skipped: of ``done``, what an earlier run had done.
    """

    name: str
    phase: str = "wait"
    done: int = 0
    total: int = 0
    begun: float = 0.0
    skipped: int = 0
    seconds: float = 0.0

    def enter(self, phase: str, total: int = 0, skipped: int = 0) -> None:
        """Begin a phase."""
        self.phase, self.total, self.done, self.skipped = phase, total, skipped, skipped
        self.begun, self.seconds = time.monotonic(), 0.0

    @property
    def percent(self) -> int:
        """Of this phase, rounded down; 100 only when all is done."""
        return 100 * min(self.done, self.total) // self.total if self.total else 0

    @property
    def rate(self) -> float:
        """Bytes a second in this phase and run."""
        return max(self.done - self.skipped, 0) / self.seconds if self.seconds > 0 else 0.0


def line(progress: Progress) -> str:
    """One line for people: ``web.vmdk  convert  1.2 GiB / 4 GiB  30 %  210 MiB/s  13 s left``."""
    if progress.phase in ("done", "failed") or not progress.total:
        return f"{progress.name}  {progress.phase}"
    parts = [
        progress.name,
        progress.phase,
        f"{human_size(progress.done)} / {human_size(progress.total)}",
        f"{progress.percent} %",
    ]
    if progress.rate >= 1:
        parts.append(f"{human_size(int(progress.rate))}/s")
        left = max(progress.total - progress.done, 0) / progress.rate
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds for people: ``42 s``, ``3 min``, ``2 h 05 min``."""
    whole = int(seconds + 0.5)
    if whole < 100:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def write(path: str, images: Sequence[Progress]) -> None:
    """Replace the progress file. It is for looking at, so it is not synced."""
    text = json.dumps({**asdict(Worker.own()), "images": [asdict(one) for one in images]})
    new = f"{path}.{os.getpid()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, path)


def read(text: str) -> list[Progress]:
    """What a progress file says; nothing for a text that is none."""
    try:
        return [Progress(**one) for one in json.loads(text)["images"]]
    except (ValueError, TypeError, KeyError):
        return []


def worker(text: str) -> Worker | None:
    """Whose progress file it is; ``None`` for a text that is none."""
    try:
        data = json.loads(text)
        return Worker(int(data["pid"]), str(data["began"]), str(data["boot"]))
    except (ValueError, TypeError, KeyError):
        return None


def sweep(folder: str) -> None:
    """Remove what runs have left that were killed: the progress files of processes that have ended, and their marks.

    Only what nobody has touched for a while, so that whoever reads it still has read it.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            # Another run may be sweeping, too.
            with contextlib.suppress(OSError):
                if _OWN.match(name) and time.time() - os.lstat(path).st_mtime > PATIENCE and _ownerless(path):
                    os.unlink(path)


def _ownerless(path: str) -> bool:
    """Whether the run that a file belongs to has ended, or has never begun to report."""
    main = os.path.join(os.path.dirname(path), os.path.basename(path).partition(".json")[0] + ".json")
    try:
        with open(main, encoding="utf-8") as file:
            owner = worker(file.read())
    except FileNotFoundError:
        return True
    return owner is None or owner.ended_here()


@contextlib.contextmanager
def reported(path: str, images: Sequence[Progress], every: float = 0.5) -> Iterator[None]:
    """Keep a progress file up to date while the block runs. Without a path nothing is written.

    :raises ImageError: if it can't be written, before the block has begun.
    """
    if not path:
        yield
        return
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write(path, images)
    except OSError as error:
        raise ImageError(
            f"{path}: can't be written ({error.strerror}); make room there, or name another state_dir or progress_file"
        ) from error
    stop = threading.Event()
    thread = threading.Thread(target=_report, args=(path, images, every, stop.wait), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _report(path: str, images: Sequence[Progress], every: float, wait: Callable[[float], bool]) -> None:
    ended, reader = False, Reader(f"{path}{SEEN}")
    while not ended:
        ended = wait(every)
        for one in images:
            one.seconds = time.monotonic() - one.begun if one.begun else 0.0
        with contextlib.suppress(OSError):  # the work matters more than the report of it
            write(path, images)
        if not ended and reader.gone():
            os.kill(os.getpid(), signal.SIGTERM)  # the next run goes on where this one is


class Reader:
    """Whoever reads a progress file, if it says so by touching a file beside it.

    :param path: the file that is touched.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen = self._touched()
        self._since = clock()

    def gone(self) -> bool:
        """Whether it was there and has not been heard of for too long: its play was interrupted."""
        now = self._touched()
        if now != self._seen:
            self._seen, self._since = now, self._clock()
        return now is not None and self._clock() - self._since > PATIENCE

    def _touched(self) -> int | None:
        try:
            return os.stat(self._path).st_mtime_ns
        except OSError:
            return None


class Report:
    """What to print about images, again and again.

    :param host: put in front of each line, or ''.
    :param width: columns of the terminal on which lines are renewed in place; 0 for a log, which gets few of them.
    """

    def __init__(self, host: str = "", width: int = 0) -> None:
        self._host = f"[{host}] " if host else ""
        self._width = width
        self._shown = 0
        self._told: dict[int, tuple[str, int]] = {}

    def text(self, images: Sequence[Progress]) -> str:
        """What to print now, with its line ends; maybe nothing."""
        return self._in_place(images) if self._width else self._sparse(images)

    def _in_place(self, images: Sequence[Progress]) -> str:
        lines = [line(one) for one in images if one.phase not in ("done", "failed")][:_LINES]
        if len(images) > 1:
            ended = sum(one.phase in ("done", "failed") for one in images)
            lines.append(f"{ended} of {len(images)} images done")
        back = f"\x1b[{self._shown}A\r\x1b[J" if self._shown else ""
        self._shown = len(lines)
        return back + "".join(f"{(self._host + text)[: self._width - 1]}\n" for text in lines)

    def _sparse(self, images: Sequence[Progress]) -> str:
        lines = []
        for number, one in enumerate(images):
            now = (one.phase, one.percent // 10)
            if one.phase in _TOLD and self._told.get(number) != now:
                self._told[number] = now
                lines.append(f"{self._host}{line(one)}\n")
        return "".join(lines)
