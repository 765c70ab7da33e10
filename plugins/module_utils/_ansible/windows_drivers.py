# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``windows_drivers``: from its parameters to its result."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._core.errors import DiskwrightError, PlanRefusedError, Refusal
from .._core.layout import Layout
from .._pve.agent import Agent
from .._pve.reads import find_guest
from .._windows.drivers import DRIVERS
from .._windows.inside import SAN_POLICIES, Windows
from .._windows.releases import UnknownReleaseError, find_iso
from .._windows.staging import BITLOCKER, Package, Plan, Wish, make_plan
from .one_guest import one_guest_spec
from .runner import Result
from .windows_guest import DriverFolder, WindowsGuest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .._pve.client import Client


def windows_drivers_spec() -> dict[str, dict[str, t.Any]]:
    """The module's arguments."""
    names = {"type": "list", "elements": "str"}
    return {
        **one_guest_spec(),
        "state": {"type": "str", "choices": ["staged"]},
        "drivers": {**names, "choices": list(DRIVERS), "default": ["vioscsi", "viostor"]},
        "folder": {"type": "path"},
        "allow_test_signed": {"type": "bool", "default": False},
        "bitlocker": {"type": "str", "choices": list(BITLOCKER)},
        "bitlocker_reboots": {"type": "int", "default": 3},
        "bitlocker_volumes": dict(names),
        "fast_startup": {"type": "bool"},
        "san_policy": {"type": "str", "choices": list(SAN_POLICIES)},
        "online": dict(names),
        "letters": {"type": "dict"},
        "boot_start": dict(names),
    }


class WindowsDrivers:
    """Reads a running Windows, stages drivers in it, and guards it."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        if params["bitlocker_reboots"] < 1:
            raise DiskwrightError(
                f"bitlocker_reboots={params['bitlocker_reboots']}: it takes one at least; else it would stay suspended"
            )
        self._client = client
        self._layout = Layout(vmid=params["vmid"], name=params["name"], node=params["node"])
        self._timeout = float(params["task_timeout"])
        self._folder = DriverFolder(params["folder"]) if params["folder"] else None
        self._wish = _wish(params)
        self._plan = Plan()
        self._restart_required = False

    def prepare(self) -> None:
        """Read Windows and the drivers, and plan."""
        guest = find_guest(self._client, self._layout)
        self._guest = guest
        self._inside = WindowsGuest(Agent(self._client, guest.node, guest.vmid, guest.label, self._timeout))
        self._found = self._after = self._inside.gather(self._wish.boot_start)
        self._packages = self._read_packages(self._found)
        self._plan = make_plan(guest.label, self._found, self._wish, self._packages)
        if self._plan.refusals:
            raise PlanRefusedError(self._plan.refusals)

    def _read_packages(self, windows: Windows) -> dict[str, Package | None]:
        if not self._wish.drivers or windows.powershell is None:
            return {}
        label = self._guest.label
        if windows.release is None:
            problem, remedy = f"{windows.product} {windows.version} is not known", "install its drivers by hand"
            raise PlanRefusedError((Refusal(label, "", "state", "staged", problem, remedy),))
        if self._folder is None and windows.iso is None:
            problem = "no drive of the guest has a driver ISO (a label that begins with virtio-win)"
            remedy = f"attach virtio-win-{windows.release.iso}.iso, or name a folder"
            raise PlanRefusedError((Refusal(label, "", "state", "staged", problem, remedy),))
        source = self._folder or self._inside
        return {name: source.read_package(DRIVERS[name], windows) for name in self._wish.drivers}

    def execute(self) -> None:
        """Stage, set, and look again whether it is as declared."""
        plan = self._plan
        if not plan.steps:
            return
        if plan.guards:
            self._inside.guard(plan, self._wish.reboots)
        if plan.stage:
            self._restart_required = self._inside.stage(plan.stage, self._found, self._folder)
        self._after = self._inside.gather(self._wish.boot_start)
        self._check(make_plan(self._guest.label, self._after, self._wish, self._packages))

    def _check(self, rest: Plan) -> None:
        """What is still to be done, though it was done. Devices may have to wait for a restart."""
        waiting = {package.name for package in rest.stage if self._waits(package)}
        self._restart_required |= bool(waiting)
        left = [step for step in rest.steps if step.what not in waiting]
        if left or rest.refusals:
            texts = [f"{step.what}: {step.text}" for step in left] + [str(refusal) for refusal in rest.refusals]
            raise DiskwrightError(f"{self._guest.label}: Windows was told, and it is not so: {'; '.join(texts)}")

    def _waits(self, package: Package) -> bool:
        state = self._after.drivers[package.name]
        return bool(state.store) and not make_plan(
            "", replace(self._after, drivers={**self._after.drivers, package.name: replace(state, hardware=0)}),
            Wish(drivers=(package.name,), allow_test_signed=True), {package.name: package},
        ).stage  # fmt: skip

    def result(self, *, executed: bool) -> Result:
        """What Windows is like, and what was done."""
        state = "done" if executed else "planned"
        return Result(
            data={
                "vmid": self._guest.vmid,
                "name": self._guest.name,
                "node": self._guest.node,
                "gathered": self._after.data(),
                "actions": [{"what": step.what, "text": step.text, "state": state} for step in self._plan.steps],
                "restart_required": self._restart_required,
            },
            changed=bool(self._plan.steps),
            diff=self._diff(),
            warnings=list(self._warnings()),
        )

    def _warnings(self) -> Iterator[str]:
        """What is known against the ISO that drivers are taken from."""
        if not self._plan.stage or self._folder or not self._found.iso:
            return
        _letter, label = self._found.iso
        try:
            defect, source = find_iso(label).defect, find_iso(label).source
        except UnknownReleaseError:
            return
        if defect:
            yield f"{self._guest.label}: {label}: {defect} ({source})"

    def _diff(self) -> str:
        steps = self._plan.steps
        if not steps:
            return ""
        guest, width = self._guest, max(len(step.what) for step in steps)
        lines = [f"{guest.name or guest.vmid} ({guest.vmid} on {guest.node}, {self._found.product})"]
        lines += [f"  ~ {step.what:<{width}}  {step.text}" for step in steps]
        return "\n".join(lines) + "\n"


def _wish(params: dict[str, t.Any]) -> Wish:
    volumes = params["bitlocker_volumes"]
    return Wish(
        drivers=tuple(dict.fromkeys(params["drivers"])) if params["state"] == "staged" else (),
        allow_test_signed=params["allow_test_signed"],
        bitlocker=params["bitlocker"],
        reboots=params["bitlocker_reboots"],
        volumes=None if volumes is None else tuple(volumes),
        fast_startup=params["fast_startup"],
        san_policy=params["san_policy"],
        online=tuple(params["online"] or ()),
        letters={str(letter): str(volume) for letter, volume in (params["letters"] or {}).items()},
        boot_start=tuple(params["boot_start"] or ()),
    )
