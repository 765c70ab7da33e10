# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``disk_benchmark``: a request out of parameters, a plan, and what was measured."""

from __future__ import annotations

import os
import re
import typing as t

from .._bench import scratch
from .._bench.errors import BenchError
from .._bench.matrix import VARY, Wanted
from .._bench.plan import Settings, in_words
from .._bench.prepare import Request, prepare
from .._bench.run import LOCK_SECONDS, LOCKED, Execution, check_same
from .._bench.state import State
from .._bench.workloads import TABLE, parse_workloads
from .._core.errors import ParseError
from .._core.size import human_size, parse_size
from .._image.lock import held
from .image_convert import STATE_DIR
from .runner import Result

if t.TYPE_CHECKING:
    from .._bench.plan import Plan
    from .._bench.prepare import Prepared
    from .._bench.results import Results

_NAME: t.Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEFAULTS: t.Final = Wanted()
_LISTS: t.Final = ("formats", "buses", "caches", "aios")
_NUMBERS: t.Final = ("seconds", "ramp", "seed", "time_limit")


def _strings(default: tuple[str, ...]) -> dict[str, t.Any]:
    return {"type": "list", "elements": "str", "default": list(default)}


def spec() -> dict[str, dict[str, t.Any]]:
    """The options of the module."""
    return {
        "name": {"type": "str", "default": "benchmark"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "places": {"type": "list", "elements": "str", "default": []},
        "formats": _strings(_DEFAULTS.formats),
        "buses": _strings(_DEFAULTS.buses),
        "caches": _strings(_DEFAULTS.caches),
        "aios": _strings(_DEFAULTS.aios),
        "vary": {"type": "str", "choices": list(VARY), "default": _DEFAULTS.vary},
        "workloads": _strings(tuple(TABLE)),
        "repetitions": {"type": "int", "default": 5},
        "seconds": {"type": "int", "default": 20},
        "ramp": {"type": "int", "default": 3},
        "size": {"type": "str", "default": "4G"},
        "seed": {"type": "int", "default": 1},
        "time_limit": {"type": "int", "default": 0},
        "durability": {"type": "bool", "default": False},
        "max_load": {"type": "float", "default": 0.3},
        "vmid": {"type": "int", "default": 999999999},
        "kernel": {"type": "path"},
        "kernel_modules": {"type": "path"},
        "fio": {"type": "str", "default": "fio"},
        "state_dir": {"type": "path", "default": STATE_DIR},
    }


def request(params: dict[str, t.Any]) -> Request:
    """What the parameters ask for.

    :raises BenchError: with everything that can't be read.
    """
    problems = list(_problems(params))
    workloads, size = (
        _tried(problems, parse_workloads, params["workloads"]),
        _tried(problems, parse_size, params["size"]),
    )
    if problems or workloads is None or size is None:
        raise BenchError("\n".join(problems))
    lists = {name: tuple(params[name]) for name in _LISTS}
    numbers = {name: params[name] for name in _NUMBERS}
    wanted = Wanted(**lists, vary=params["vary"])
    settings = Settings(workloads, rounds=params["repetitions"], size=size, **numbers)
    return Request(
        name=params["name"],
        places=tuple(params["places"]),
        wanted=wanted,
        settings=settings,
        durability=params["durability"],
        vmid=params["vmid"],
        kernel=params["kernel"] or "",
        kernel_modules=params["kernel_modules"] or "",
        fio=params["fio"],
        max_load=params["max_load"],
    )


_Any = t.TypeVar("_Any")


def _tried(problems: list[str], read: t.Callable[[t.Any], _Any], value: object) -> _Any | None:
    try:
        return read(value)
    except ParseError as error:
        problems.append(str(error))
        return None


def _problems(params: dict[str, t.Any]) -> t.Iterator[str]:
    vmid, most = params["vmid"], params["max_load"]
    try:
        check_name(params["name"])
    except BenchError as error:
        yield str(error)
    if not params["places"]:
        yield "places: none is named; name storages of this node, or folders"
    if not 100 <= vmid <= 999999999:
        yield f"vmid {vmid}: allowed is 100 to 999999999; name a number that no guest has"
    if most <= 0:
        yield f"max_load {most}: allowed is more than 0"


def check_name(name: str) -> None:
    """Refuse a name that is none for a folder.

    :raises BenchError: with what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise BenchError(
            f"name '{name}': allowed are up to 64 letters, digits, dots, dashes and underscores, with a letter or a "
            "digit in front; it names a folder"
        )


class DiskBenchmark:
    """Measures, or goes on measuring, or returns what was measured."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        self._params = params
        self._absent = params["state"] == "absent"
        self._state = State(os.path.join(params["state_dir"], "benchmarks", params["name"]))
        self._prepared: Prepared | None = None
        self._results: Results | None = None
        self._changed = False

    def prepare(self) -> None:
        """Find out what there is to do, and refuse what makes no sense."""
        if self._absent:
            check_name(self._params["name"])
            self._changed = os.path.isdir(self._state.folder)
            return
        wanted = request(self._params)
        head = self._state.head()
        if head is not None and head.request != wanted.fingerprint:
            raise BenchError(
                f"name {wanted.name}: a benchmark of that name, begun at {head.started}, measures something else; "
                "take another name, or remove that one with state=absent"
            )
        self._results = self._state.results()
        if self._results is None:
            self._prepared, self._changed = prepare(wanted, resumed=head is not None), True
            if head is not None:
                check_same(head, self._prepared)

    def execute(self) -> None:
        """Measure, or remove."""
        if self._absent and self._changed:
            with held(self._state.lock_path, LOCKED, LOCK_SECONDS):
                scratch.Scratch(self._state.folder, self._params["vmid"], self._state.tag).free()
                self._state.remove()
        elif self._prepared is not None:
            self._results = Execution(self._prepared, self._state).go()

    def result(self, *, executed: bool) -> Result:  # noqa: ARG002 - the same in both modes
        """The plan, and the results where there are any."""
        data: dict[str, t.Any] = {"name": self._params["name"], "results_file": ""}
        if self._results is not None:
            data |= {"benchmark": self._results.as_json(), "results_file": self._state.results_path}
        if self._prepared is not None:
            data["plan"] = self._plan(self._prepared)
        return Result(data, changed=self._changed, diff=self._diff(), warnings=list(self._warnings()))

    def _warnings(self) -> t.Iterator[str]:
        if self._prepared is not None and self._prepared.machine.accelerator != "kvm":
            yield "There is no KVM: QEMU translates the guest's instructions, so that latencies mean little"
        if self._prepared is not None and self._results is not None:
            yield from self._results.notes

    def _plan(self, prepared: Prepared) -> dict[str, t.Any]:
        plan, done = prepared.plan, self._done(prepared.plan)
        return {
            "summary": plan.summary,
            "seconds": prepared.seconds,
            "trials": len(plan.trials),
            "done": done,
            "combinations": [one.key for one in plan.combinations],
            "crashes": [f"{one.kind}: {one.combination.key}" for one in prepared.crashes],
            "left_out": [{"what": row.what, "reason": row.reason} for row in prepared.left_out],
        }

    def _done(self, plan: Plan) -> int:
        return min(len(self._state.trials()), len(plan.trials))

    def _diff(self) -> str:
        if self._absent:
            return f"- benchmark {self._params['name']}, its results and scratch volumes\n" if self._changed else ""
        if self._prepared is None:
            return ""
        prepared, settings = self._prepared, self._prepared.plan.settings
        lines = [f"+ {self._params['name']}  {prepared.plan.summary}"]
        if prepared.crashes:
            lines.append(f"+ {len(prepared.crashes)} crashes; all together about {in_words(prepared.seconds)}")
        size = human_size(settings.size)
        lines += [f"+ {layout}  scratch volume of {size}, freed at the end" for layout in prepared.plan.layouts]
        lines += [f"? {row.what}  left out: {row.reason}" for row in prepared.left_out]
        return "".join(f"{line}\n" for line in lines)
