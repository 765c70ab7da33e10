# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``image_convert``: orders out of parameters, conversions, and what became of them as data."""

from __future__ import annotations

import os
import subprocess
import typing as t

from .._core.errors import ParseError
from .._core.size import human_size, parse_size
from .._image.convert import Conversion, run_all
from .._image.copy import Throttle
from .._image.errors import ImageError
from .._image.orders import CLUSTER_SIZES, FORMATS, PREALLOCATIONS, Order, Verify, problems
from .._image.plans import Action
from .._image.progress import Progress, reported, sweep
from .._image.work import Outcome, Settings
from .runner import Result

if t.TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
STATE_DIR = "/var/lib/diskwright"
_CLUSTERS = {f"{size // KIB}K" if size < KIB**2 else f"{size // KIB**2}M": size for size in CLUSTER_SIZES}
_IDLE = 8  # as in vzdump.conf
_SIGNS = {Action.CONVERT: "+", Action.RESUME: "+", Action.NAME: "+", Action.VERIFY: "?", Action.REREAD: "?"}


def image_spec() -> dict[str, dict[str, t.Any]]:
    """The options of one image."""
    return {
        "path": {"type": "path"},
        "member": {"type": "str", "default": ""},
        "format": {"type": "str", "choices": list(FORMATS), "default": "raw"},
        "dest": {"type": "path"},
        "storage": {"type": "str"},
        "vmid": {"type": "int"},
        "size": {"type": "str"},
        "cluster_size": {"type": "str", "choices": list(_CLUSTERS)},
        "preallocation": {"type": "str", "choices": list(PREALLOCATIONS)},
        "compress": {"type": "bool", "default": False},
        "verify": {"type": "str", "choices": [way.value for way in Verify], "default": Verify.YES.value},
        "checksum": {"type": "bool", "default": False},
    }


def spec() -> dict[str, dict[str, t.Any]]:
    """The options of the module."""
    one = image_spec()
    each = {**one, "path": {"type": "path", "required": True}}
    return {
        **one,
        "images": {"type": "list", "elements": "dict", "options": each},
        "bwlimit": {"type": "int", "default": 0},
        "nice": {"type": "int", "default": 0},
        "ionice": {"type": "int"},
        "concurrency": {"type": "int", "default": 2},
        "lock_timeout": {"type": "int", "default": 60},
        "state_dir": {"type": "path", "default": STATE_DIR},
        "progress_file": {"type": "path"},
    }


def order(params: dict[str, t.Any]) -> Order:
    """The order in the parameters of one image."""
    return Order(
        path=os.path.normpath(params["path"]),
        member=params["member"],
        format=params["format"],
        dest=params["dest"] or "",
        storage=params["storage"] or "",
        vmid=params["vmid"] or 0,
        size=parse_size(params["size"]) if params["size"] else 0,
        cluster_size=_CLUSTERS.get(params["cluster_size"], 0),
        preallocation=params["preallocation"] or "",
        compress=params["compress"],
        verify=Verify(params["verify"]),
        checksum=params["checksum"],
    )


class ImageConvert:
    """Converts all images of one task."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        self._params = params
        self._single = not params["images"]
        self._problems: list[str] = []
        self._orders = list(self._read(params["images"] or [params]))
        throttle = Throttle(params["bwlimit"] * KIB)
        self._settings = Settings(params["state_dir"], throttle, params["lock_timeout"])
        self._progress = [Progress(one.name) for one in self._orders]
        self._outcomes: list[Outcome] = []

    def _read(self, images: list[dict[str, t.Any]]) -> Iterator[Order]:
        for one in images:
            try:
                yield order(one)
            except ParseError as error:  # what else is wrong with it is told, too
                self._problems.append(f"{one['path']}: {error}")
                yield order({**one, "size": None})

    def prepare(self) -> None:
        """Refuse what makes no sense, all of it together. What is to be done is decided for each image by itself."""
        found = [*self._problems]
        found += [problem for one in self._orders for problem in problems(one)]
        found += _doubles(self._orders)
        found += _limit_problems(self._params)
        if found:
            raise ImageError("\n".join(found))

    def execute(self) -> None:
        """Convert."""
        _be_nice(self._params["nice"], self._params["ionice"])
        sweep(os.path.join(self._params["state_dir"], "progress"))
        with reported(self._params["progress_file"] or "", self._progress):
            self._outcomes = run_all(self._conversions(), self._params["concurrency"], write=True)

    def _conversions(self) -> list[Conversion]:
        pairs = zip(self._orders, self._progress, strict=True)
        return [Conversion(one, self._settings, progress) for one, progress in pairs]

    def result(self, *, executed: bool) -> Result:
        """What was, or would be, done."""
        outcomes = self._outcomes
        if not executed:
            outcomes = run_all(self._conversions(), self._params["concurrency"], write=False)
        rows = [data(outcome) for outcome in outcomes]
        errors = [outcome.error for outcome in outcomes if outcome.error]
        notes = [note for outcome in outcomes for note in outcome.notes]
        # Ansible adds the owner, the size ... of a file to any result that has a path.
        single = {key: value for key, value in rows[0].items() if key != "path"} if self._single else {}
        whole = {"images": rows, **single}
        changed = any(row["changed"] for row in rows)
        diff = "".join(line(outcome) for outcome in outcomes)
        return Result(whole, changed=changed, failure="\n".join(errors) or None, diff=diff, warnings=notes)


def data(outcome: Outcome) -> dict[str, t.Any]:
    """An outcome as it is returned."""
    wanted = outcome.order
    return {
        "path": wanted.path,
        "member": wanted.member,
        "vmid": wanted.vmid or None,
        "action": outcome.action.value,
        "changed": outcome.changed and not outcome.error,
        "dest": outcome.target if wanted.dest and outcome.target else wanted.dest,
        "volume": outcome.target if wanted.storage else "",
        "format": outcome.format or wanted.format,
        "virtual_size": outcome.virtual_size,
        "target_size": outcome.size,
        "fingerprint": outcome.fingerprint,
        "content_id": outcome.content_id,
        "checksum": outcome.checksum,
        "verified": outcome.verified,
        "resumed": outcome.resumed,
        "needed": outcome.needed,
        "available": outcome.free,
        "seconds": outcome.seconds,
        "error": outcome.error,
        "code": outcome.code,
    }


def line(outcome: Outcome) -> str:
    """One line for ``--diff``; nothing for an image about which there is nothing to do."""
    sign = "!" if outcome.error else _SIGNS.get(outcome.action, "")
    if not sign:
        return ""
    wanted = outcome.order
    if outcome.error:
        return f"! {wanted.name}  {outcome.error}\n"
    what = {Action.CONVERT: "from", Action.RESUME: "going on with", Action.NAME: "finishing"}
    verb = what.get(outcome.action, "verified against")
    return f"{sign} {outcome.target}  {human_size(outcome.size)} {outcome.format}  {verb} {wanted.name}\n"


def _doubles(orders: list[Order]) -> list[str]:
    seen: dict[str, str] = {}
    found = []
    for one in orders:
        target = os.path.abspath(one.dest) if one.dest else one.key
        if target in seen:
            found.append(f"{one.path}: two images have the same target, {one.dest or one.storage}; name another one")
        seen[target] = one.path
    return found


def _limit_problems(params: dict[str, t.Any]) -> list[str]:
    ranges = {"bwlimit": (0, 2**40), "nice": (-20, 19), "ionice": (0, _IDLE), "concurrency": (1, 64)}
    ranges["lock_timeout"] = (0, 10**9)
    return [
        f"{name}={params[name]} is out of range; allowed is {low} to {high}"
        for name, (low, high) in ranges.items()
        if params[name] is not None and not low <= params[name] <= high
    ]


def _be_nice(nice: int, ionice: int | None) -> None:
    """Leave the processor and the disks to others first. Threads and programs that are started later inherit it."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    if ionice is not None:
        level = ["-c", "3"] if ionice == _IDLE else ["-c", "2", "-n", str(ionice)]
        command = ["ionice", *level, "-p", str(os.getpid())]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImageError(f"ionice={ionice} can't be set: {done.stderr.strip()}; leave it out")
