# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""How far a run is, on disk: what survives when it is killed, each part written with fsync and rename.

``run.json`` says what the run is, ``trials/NUMBER.json`` what each start of the guest gave, ``durability/NUMBER.json``
what each crash cost, ``results.json`` is the finished document, ``scratch.json`` lists the volumes (``scratch``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import typing as t
from dataclasses import dataclass

from .._core.errors import ParseError
from .._image.journal import write_atomic
from .errors import BenchError
from .plain_data import as_data, read_data
from .results import Durability, Environment, Results, Run, load

if t.TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: t.Final = 1
RESULTS: t.Final = "results.json"


@dataclass(frozen=True, slots=True)
class Head:
    """What a run is.

    :param request: fingerprint of what was asked for.
    :param fingerprint: of its plan.
    :param environment: of the machine when it began.
    :param started: in UTC, as ISO 8601.
    :param spent: seconds that it has taken, over all its interruptions.
    """

    request: str
    fingerprint: str
    environment: Environment
    started: str
    spent: float = 0.0
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Done:
    """What one start of the guest gave.

    :param note: what a reader of the results has to know of it, or an empty text.
    """

    runs: tuple[Run, ...]
    note: str = ""


class State:
    """The state of one run.

    :param folder: its own.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        #: For all runs of a machine, which would measure each other.
        self.lock_path = os.path.join(os.path.dirname(folder), "lock")
        self.results_path = os.path.join(folder, RESULTS)

    @property
    def tag(self) -> str:
        """A short word for the names of its volumes, which no run of another name, or of another node, has."""
        text = f"{os.uname().nodename} {os.path.abspath(self.folder)}"
        return f"bench{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def head(self) -> Head | None:
        """What the run is, or ``None`` if it has not begun."""
        return self._read("run.json", Head)

    def save_head(self, head: Head) -> None:
        """Write what it is, or how long it has taken."""
        self._write("run.json", head)

    def trials(self) -> dict[int, Done]:
        """What was measured, by the numbers of trials."""
        return {number: self._need(f"trials/{number}.json", Done) for number in self._numbers("trials")}

    def save_trial(self, number: int, done: Done) -> None:
        """Write what a trial gave."""
        self._write(f"trials/{number}.json", done)

    def forget_trials(self, numbers: Sequence[int]) -> None:
        """Have trials measured again."""
        for number in numbers:
            os.unlink(os.path.join(self.folder, "trials", f"{number}.json"))

    def crashes(self) -> dict[int, Durability]:
        """What crashes have cost, by their number."""
        return {number: self._need(f"durability/{number}.json", Durability) for number in self._numbers("durability")}

    def save_crash(self, number: int, row: Durability) -> None:
        """Write what a crash has cost."""
        self._write(f"durability/{number}.json", row)

    def results(self) -> Results | None:
        """The finished document, or ``None``."""
        data = self._json(RESULTS)
        return None if data is None else load(data, self.results_path)

    def save_results(self, results: Results) -> None:
        """Write the finished document."""
        self._write(RESULTS, results)

    def remove(self) -> None:
        """Forget the run and its results; its scratch volumes are free already."""
        if os.path.isdir(self.folder):
            shutil.rmtree(self.folder)

    def _numbers(self, folder: str) -> list[int]:
        try:
            names = os.listdir(os.path.join(self.folder, folder))
        except FileNotFoundError:
            return []
        return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())

    def _write(self, name: str, value: t.Any) -> None:
        write_atomic(os.path.join(self.folder, name), json.dumps(as_data(value), indent=1) + "\n")

    def _json(self, name: str) -> t.Any:
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise self._unreadable(name, error) from error

    def _read(self, name: str, kind: type[_Kind]) -> _Kind | None:
        data = self._json(name)
        try:
            return None if data is None else read_data(kind, data, name)
        except ParseError as error:
            raise self._unreadable(name, error) from error

    def _need(self, name: str, kind: type[_Kind]) -> _Kind:
        found = self._read(name, kind)
        if found is None:
            raise self._unreadable(name, "it is empty")
        return found

    def _unreadable(self, name: str, why: object) -> BenchError:
        return BenchError(
            f"{os.path.join(self.folder, name)} is no part of a benchmark that this version can read ({why}); "
            "take another name for the run, or remove this one with state=absent"
        )


_Kind = t.TypeVar("_Kind")
