# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""From what is asked for to a plan on this machine, or to all that is against it. Writes nothing that stays."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import typing as t
from dataclasses import dataclass, replace

from .._core.errors import DiskwrightError, ParseError
from . import durability, host, places, scratch, showcmd
from .errors import BenchError
from .guest import Machine, accelerator
from .guest_image import BUS_MODULES, build, find_kernel, module_files
from .matrix import Wanted, matrix, parse_bus
from .plan import WITH_KVM, WITHOUT_KVM, Plan, Settings, make_plan

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .combination import Combination
    from .durability import Crash
    from .guest_image import Kernel
    from .host import Software
    from .matrix import LeftOut
    from .places import Found
    from .results import Environment

_MIB: t.Final = 1024**2


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    :param name: of the run: a file name.
    :param places: names of storages, absolute paths of folders.
    :param durability: whether crashes are tried, too.
    :param vmid: the number under which scratch volumes are made.
    :param kernel: path of another kernel for the guest than the one that runs here, or an empty text.
    :param kernel_modules: folder of its modules, or an empty text.
    :param fio: name or path of fio.
    :param max_load: how busy the machine may be, see ``host.load``.
    """

    name: str
    places: tuple[str, ...]
    wanted: Wanted
    settings: Settings
    durability: bool = False
    vmid: int = 999999999
    kernel: str = ""
    kernel_modules: str = ""
    fio: str = "fio"
    max_load: float = 0.3

    @property
    def fingerprint(self) -> str:
        """A text that is another one when something else is to be measured; where and how fast does not matter."""
        settings, wanted = self.settings, self.wanted
        numbers = [settings.rounds, settings.seconds, settings.ramp, settings.size, settings.seed, settings.time_limit]
        lists = [wanted.formats, wanted.buses, wanted.caches, wanted.aios, wanted.vary]
        data = [self.places, lists, [one.id for one in settings.workloads], numbers, self.durability]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, and all that is needed to carry it out."""

    request: Request
    software: Software
    machine: Machine
    found: tuple[Found, ...]
    environment: Environment
    plan: Plan
    crashes: tuple[Crash, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> int:
        """How long all of it takes, about."""
        return self.plan.seconds_left() + round(sum(one.seconds(self.plan.costs.boot) for one in self.crashes))

    def place(self, combination: Combination) -> Found:
        """The place of a combination."""
        return next(one for one in self.found if one.place.name == combination.place)


def prepare(request: Request, *, resumed: bool) -> Prepared:
    """Look at everything, refuse what makes no sense, and plan.

    :param resumed: an earlier process has begun the run, so that its volumes may still be there and the machine busy.
    :raises DiskwrightError: with everything that is against it, before anything is written.
    """
    software, kernel, found = _looked_at(request, resumed=resumed)
    made = matrix([one.place for one in found], request.wanted, host.missing_aios())
    if not resumed:
        check_space(request, found, made.combinations)
    machine = _machine(software, kernel, request)
    plan = make_plan(made.combinations, request.settings, WITH_KVM if machine.accelerator == "kvm" else WITHOUT_KVM)
    kept = [one for one in made.combinations if one in plan.combinations]  # the most important first
    checked, notes = showcmd.check(software)
    environment = host.environment(software, kernel, machine.accelerator, checked)
    return Prepared(
        request=request,
        software=software,
        machine=machine,
        found=found,
        environment=replace(environment, places=tuple(one.record for one in found)),
        plan=plan,
        crashes=durability.crashes(kept) if request.durability else (),
        left_out=(*made.left_out, *plan.left_out),
        notes=notes,
    )


def _looked_at(request: Request, *, resumed: bool) -> tuple[Software, Kernel, tuple[Found, ...]]:
    """What a run needs, or everything that is against it."""
    problems = request.settings.problems()
    software, missing = host.software(request.fio)
    problems += missing
    kernel = _tried(problems, lambda: _kernel(request))
    if request.durability and kernel is not None:
        problems += durability.needs(kernel)
    tries = [_tried(problems, functools.partial(places.find, name)) for name in request.places]
    found = tuple(one for one in tries if one is not None)
    problems += _twice(found)
    if not resumed:
        problems += host.load_problems(request.max_load)
    if any(one.place.type != scratch.FOLDER for one in found) and scratch.taken(request.vmid):
        problems.append(f"vmid {request.vmid}: there is a guest with this number; name one that no guest has")
    if problems or software is None or kernel is None:
        raise BenchError("\n".join(problems))
    return software, kernel, found


_Any = t.TypeVar("_Any")


def _tried(problems: list[str], work: Callable[[], _Any]) -> _Any | None:
    try:
        return work()
    except DiskwrightError as error:
        problems.append(str(error))
        return None


def _twice(found: Sequence[Found]) -> list[str]:
    names = [one.place.name for one in found]
    return [f"places: {name} is named twice; name it once" for name in dict.fromkeys(names) if names.count(name) > 1]


def _modules(request: Request) -> list[str]:
    """The modules for all buses that are asked for; one that there is not is refused by the matrix."""
    buses = []
    for text in request.wanted.buses:
        try:
            buses.append(parse_bus(text)[0])
        except ParseError:
            continue
    return [name for bus in dict.fromkeys(buses) for name in BUS_MODULES[bus]]


def _kernel(request: Request) -> Kernel:
    kernel = find_kernel(request.kernel, request.kernel_modules)
    module_files(kernel, _modules(request))
    return kernel


def check_space(request: Request, found: Sequence[Found], combinations: Sequence[Combination]) -> None:
    """Refuse what does not fit, where no volume of the run is.

    :raises BenchError: with every place that has too little space, or volumes of that number already.
    """
    problems = [
        problem
        for one in found
        for own in [[row for row in combinations if row.place == one.place.name]]
        for problem in scratch.problems(one.place, own, request.settings.size, request.vmid)
    ]
    if problems:
        raise BenchError("\n".join(problems))


def _machine(software: Software, kernel: Kernel, request: Request) -> Machine:
    """The guest, put together in memory and tried: whether KVM works is known only then."""
    initramfs = os.memfd_create("guest", 0)  # as long as this process lives
    with open(os.dup(initramfs), "wb") as file:
        build(file, kernel, _modules(request), [software.fio])
    machine = Machine(software.qemu, "kvm", kernel.image, f"/proc/self/fd/{initramfs}")
    return replace(machine, accelerator=accelerator(machine))
