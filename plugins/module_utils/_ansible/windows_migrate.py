# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the modules ``windows_migrate`` and ``windows_migrate_info``: from their parameters to their results."""

from __future__ import annotations

import typing as t
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .._core.actions import Line
from .._core.errors import DiskwrightError
from .._core.layout import Layout
from .._pve.power import SHUTDOWN_SECONDS
from .._pve.reads import Cluster, GuestEntry, Surroundings, guest_of, read_guests
from .._windows.assessment import Assessment, Standing, assess, is_windows
from .._windows.forecast import Forecast, foretell
from .._windows.note import Phase
from .._windows.releases import DRIVER_OF_BUS, releases_of
from .._windows.situation import BUSES, SNAPSHOT, STAGING, VERDICT, Situation, Wishes, boot_slot
from .._windows.steps import Note, State, Step
from .migration import Migrator, Passage, Patience
from .one_guest import one_guest_spec
from .runner import Result

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .._core.guest import Guest
    from .._pve.client import Client
    from .._windows.inside import Windows

AGENT_SECONDS = 600
# Details stand in a column of their own, unless a step takes so many words that the column would be far away.
_WIDEST = 48
#: How a run can end that a user has to hear of as a failure.
_FAILED = frozenset({State.REFUSED, State.STUCK, State.NEEDS_VERDICT})
_DEFAULTS: t.Final = {
    "bus": "scsi",
    "data_disks": True,
    "staging": "auto",
    "snapshot": "required",
    "keep_snapshot": False,
    "switch_without_proof": False,
    "verdict": "agent",
    "retry": False,
    "force_stop": False,
}


def wishes_spec() -> dict[str, dict[str, t.Any]]:
    """The arguments that say how a guest is migrated."""
    return {
        "bus": {"type": "str", "choices": list(BUSES)},
        "data_disks": {"type": "bool"},
        "staging": {"type": "str", "choices": list(STAGING)},
        "iso": {"type": "str"},
        "injected": {"type": "list", "elements": "str", "choices": list(DRIVER_OF_BUS.values())},
        "snapshot": {"type": "str", "choices": list(SNAPSHOT)},
        "keep_snapshot": {"type": "bool"},
        "switch_without_proof": {"type": "bool"},
        "verdict": {"type": "str", "choices": list(VERDICT)},
        "retry": {"type": "bool"},
        "force_stop": {"type": "bool"},
    }


def migrate_spec() -> dict[str, dict[str, t.Any]]:
    """The arguments of ``windows_migrate``."""
    spec = wishes_spec()
    for name, value in _DEFAULTS.items():
        spec[name]["default"] = value
    return {
        **one_guest_spec(),
        **spec,
        "guests": {"type": "list", "elements": "dict", "options": {**one_guest_spec(), **wishes_spec()}},
        "concurrency": {"type": "int", "default": 4},
        "shutdown_timeout": {"type": "int", "default": SHUTDOWN_SECONDS},
        "agent_timeout": {"type": "int", "default": AGENT_SECONDS},
    }


@dataclass(slots=True)
class Job:
    """One guest's way through a run."""

    layout: Layout
    wishes: Wishes
    entry: GuestEntry | None = None
    migrator: Migrator | None = None
    situation: Situation | None = None
    assessment: Assessment | None = None
    forecast: Forecast | None = None
    passage: Passage | None = None
    error: str | None = None

    @property
    def label(self) -> str:
        """How messages call the guest."""
        return self.situation.guest.label if self.situation else self.layout.label


class Fleet:
    """Guests that are found, looked at, and worked on side by side."""

    def __init__(self, client: Client, jobs: Sequence[Job], patience: Patience, concurrency: int) -> None:
        if concurrency < 1:
            raise DiskwrightError(f"concurrency={concurrency}: at least one guest is migrated at a time")
        self._client = client
        self._surroundings = Surroundings(client, may_use_paths=False)
        self._patience = patience
        self._concurrency = concurrency
        self.jobs = list(jobs)

    def find(self) -> None:
        """Find the guests by their numbers or names."""
        cluster = Cluster(self._client) if self.jobs else None
        for job in self.jobs:
            try:
                job.entry = t.cast("Cluster", cluster).find(job.layout)
            except DiskwrightError as error:
                job.error = str(error)
        times = Counter(job.entry.vmid for job in self.jobs if job.entry)
        for job in self.jobs:
            if job.entry and times[job.entry.vmid] > 1:
                job.error = f"{job.layout.label}: guest {job.entry.vmid} is named {times[job.entry.vmid]} times"

    def look(self) -> None:
        """Look at every guest, ask its Windows, and say what is to come."""
        self.each(self._look, [job for job in self.jobs if job.entry is not None and job.error is None])

    def _look(self, job: Job) -> None:
        guest = guest_of(t.cast("GuestEntry", job.entry), ())
        job.migrator = Migrator(self._client, self._surroundings, guest, job.wishes, self._patience)
        job.situation = job.migrator.look()
        job.assessment = assess(job.situation)
        job.forecast = foretell(job.situation)

    def migrate(self) -> None:
        """Migrate the guests that have something to do, or to wait for."""
        self.each(self._migrate, [job for job in self.jobs if job.forecast is not None and not job.forecast.idle])

    @staticmethod
    def _migrate(job: Job) -> None:
        job.passage = t.cast("Migrator", job.migrator).migrate()

    def each(self, work: Callable[[Job], None], jobs: Sequence[Job]) -> None:
        """Do something with each, several at a time. One guest's failure is that guest's failure."""

        def guarded(job: Job) -> None:
            try:
                work(job)
            except DiskwrightError as error:
                text = str(error)
                job.error = text if text.startswith(job.label) else f"{job.label}: {text}"

        with ThreadPoolExecutor(max(1, min(self._concurrency, len(jobs)))) as pool:
            list(pool.map(guarded, jobs))


class WindowsMigrate:
    """Migrates Windows guests to VirtIO."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        for name in ("shutdown_timeout", "agent_timeout"):
            if params[name] < 1:
                raise DiskwrightError(f"{name}={params[name]}: it takes one second at least")
        patience = Patience(float(params["task_timeout"]), params["shutdown_timeout"], params["agent_timeout"])
        declared = [params] if params["guests"] is None else params["guests"]
        jobs = [Job(_layout(one), _wishes(one, params)) for one in declared]
        self._fleet = Fleet(client, jobs, patience, params["concurrency"])

    def prepare(self) -> None:
        """Find and look at every guest, and foretell."""
        self._fleet.find()
        self._fleet.look()

    def execute(self) -> None:
        """Migrate."""
        self._fleet.migrate()

    def result(self, *, executed: bool) -> Result:
        """Every guest's outcome."""
        jobs = self._fleet.jobs
        guests = [_result(job, executed=executed) for job in jobs]
        failed = [f"{job.label}: {guest['reason']}" for job, guest in zip(jobs, guests, strict=True) if guest["failed"]]
        return Result(
            data={"guests": guests},
            changed=any(guest["changed"] for guest in guests),
            failure=_summary(failed, len(jobs)) if failed else None,
            diff="\n".join(_plan_text(job) for job in jobs if job.forecast and job.forecast.changes),
            warnings=[text for job in jobs for text in _warnings(job)],
        )


def _layout(one: Mapping[str, t.Any]) -> Layout:
    if one["vmid"] is None and not one["name"]:
        raise DiskwrightError("a guest without vmid and name; say which guest is to be migrated")
    return Layout(vmid=one["vmid"], name=one["name"], node=one["node"])


def _wishes(one: Mapping[str, t.Any], defaults: Mapping[str, t.Any]) -> Wishes:
    """What is said of one guest, else of all."""
    values = {name: defaults[name] if one[name] is None else one[name] for name in wishes_spec()}
    return Wishes(**{**values, "injected": frozenset(values["injected"] or ())})


def _summary(failed: list[str], count: int) -> str:
    if count == 1:
        return failed[0]
    return "\n".join([f"{len(failed)} of {count} guests failed.", *failed])


# ---- results


def _result(job: Job, *, executed: bool) -> dict[str, t.Any]:
    situation, found, forecast = job.situation, job.assessment, job.forecast
    if situation is None or found is None or forecast is None:
        reason = (job.error or "").removeprefix(f"{job.label}: ")
        return {
            "vmid": job.layout.vmid if job.entry is None else job.entry.vmid,
            "name": job.layout.name if job.entry is None else job.entry.name,
            "changed": False,
            "failed": True,
            "state": State.STUCK.value,
            "reason": reason,
            "actions": [],
        }
    end = job.passage.end if job.passage and job.passage.end else forecast.end
    unwanted = situation.wishes.verdict != "roll_back"
    turned_back = job.passage is not None and end.state is State.ROLLED_BACK and unwanted
    # A person is needed when it has come to that, not when it is foretold.
    foretold = end.state is State.NEEDS_VERDICT and job.passage is None and forecast.changes
    slot = boot_slot(situation.guest)
    return {
        "vmid": situation.guest.vmid,
        "name": situation.guest.name,
        "node": situation.guest.node,
        "changed": job.passage.changed if job.passage else forecast.changes and not executed,
        "failed": (end.state in _FAILED and not foretold) or turned_back,
        "standing": found.standing.value,
        "state": end.state.value,
        "reason": end.reason,
        "boot_slot": None if slot is None else str(slot),
        "volume": None if slot is None else situation.guest.configured.drives[slot].volume,
        "actions": list(_actions(job, executed=executed)),
    }


def _actions(job: Job, *, executed: bool) -> Iterator[dict[str, str]]:
    if job.passage is None:
        steps = job.forecast.steps if job.forecast and not executed else ()
        yield from (_action(line, "planned") for line in _lines(steps))
        return
    yield from (_action(line, "done") for line in _lines(job.passage.done))
    for step, reason in job.passage.failed:
        yield from (_action(line, "failed") | {"reason": reason} for line in _named(step))


def _lines(steps: Iterable[Step]) -> Iterator[Line]:
    """What is done; what is only said of it is none of it."""
    return (line for step in steps for line in step.lines if line.sign != "?")


def _named(step: Step) -> tuple[Line, ...]:
    return step.lines or (Line("~", type(step).__name__.lower(), ""),)


def _action(line: Line, state: str) -> dict[str, str]:
    summary = ", ".join(part for part in (line.what, line.detail) if part)
    return {"what": line.subject, "summary": summary, "state": state}


def _plan_text(job: Job) -> str:
    """One guest's plan for people, the same with and without check mode."""
    guest = t.cast("Situation", job.situation).guest
    lines = t.cast("Forecast", job.forecast).lines
    first = max((len(line.subject) for line in lines), default=0)
    second = max((len(line.what) for line in lines if line.detail and len(line.what) <= _WIDEST), default=0)
    rows = [f"  {line.sign} {line.subject:<{first}}  {line.what:<{second}}  {line.detail}".rstrip() for line in lines]
    return "\n".join([f"{guest.name or guest.vmid} ({guest.vmid} on {guest.node}, {guest.state})", *rows]) + "\n"


def _warnings(job: Job) -> Iterator[str]:
    situation, end = job.situation, job.forecast.end if job.forecast else None
    if situation is None or end is None:
        return
    steps = job.passage.done if job.passage else job.forecast.steps if job.forecast else ()
    if not steps and end.state is State.ROLLED_BACK:
        yield f"{job.label}: {end.reason}"
    for kept in (step.kept for step in steps if isinstance(step, Note) and step.kept):
        yield (
            f"{job.label}: nobody can ask its Windows, so the snapshot {kept} is kept; look at its console, then delete"
            " the snapshot with guest_snapshot"
        )
    wanted = situation.wishes.snapshot == "if_possible" and job.assessment is not None and job.assessment.journal
    if wanted and situation.unsnappable:
        yield f"{job.label}: there will be no snapshot of it: {'; '.join(situation.unsnappable)}"


# ---- where guests stand


class WindowsMigrateInfo:
    """Says where Windows guests stand. Writes nothing."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        self._client = client
        self._params = params
        patience = Patience(float(params["task_timeout"]), SHUTDOWN_SECONDS, AGENT_SECONDS)
        self._fleet = Fleet(client, (), patience, params["concurrency"])
        self._left_out: list[str] = []

    def prepare(self) -> None:
        """Find the Windows guests, and look at each."""
        found = [entry for entry in Cluster(self._client).guests.values() if self._is_meant(entry)]
        self._check_names(found)
        found.sort(key=lambda entry: entry.vmid)
        for entry, guest in zip(found, read_guests(self._client, found), strict=True):
            job = Job(Layout(vmid=entry.vmid, name=entry.name), _info_wishes(self._params), entry)
            if isinstance(guest, DiskwrightError):
                job.error = f"{job.label}: {guest}"
            elif not is_windows(guest):
                continue
            self._fleet.jobs.append(job)
        self._fleet.look()

    def _is_meant(self, entry: GuestEntry) -> bool:
        params = self._params
        names, numbers = params["name"] or (), params["vmid"] or ()
        named = entry.name in names or entry.vmid in numbers or not (names or numbers)
        tests = (("node", entry.node), ("pool", entry.pool))
        fits = named and all(not params[key] or value in params[key] for key, value in tests)
        return fits and (not params["tag"] or bool(set(params["tag"]) & set(entry.tags)))

    def _check_names(self, found: Sequence[GuestEntry]) -> None:
        for key in ("vmid", "name"):
            absent = sorted({str(one) for one in self._params[key] or ()} - {str(getattr(e, key)) for e in found})
            text = f"{key}={', '.join(absent)}: there is no such guest, or the user may not see it"
            if absent and not self._params["ignore_absent"]:
                raise DiskwrightError(text)
            self._left_out += [text] if absent else []

    def execute(self) -> None:
        """Nothing: it only reads."""

    def result(self, *, executed: bool) -> Result:
        """Where each stands."""
        del executed
        jobs = self._fleet.jobs
        return Result(
            data={"guests": [_standing(job) for job in jobs]},
            warnings=[*self._left_out, *(job.error for job in jobs if job.error)],
        )


def _info_wishes(params: Mapping[str, t.Any]) -> Wishes:
    return Wishes(bus=params["bus"], data_disks=params["data_disks"])


def info_spec() -> dict[str, dict[str, t.Any]]:
    """The arguments of ``windows_migrate_info``."""
    texts = {"type": "list", "elements": "str"}
    return {
        "vmid": {"type": "list", "elements": "int"},
        **{name: dict(texts) for name in ("name", "node", "pool", "tag")},
        "bus": {"type": "str", "choices": list(BUSES), "default": _DEFAULTS["bus"]},
        "data_disks": {"type": "bool", "default": _DEFAULTS["data_disks"]},
        "ignore_absent": {"type": "bool", "default": False},
        "concurrency": {"type": "int", "default": 8},
    }


def _standing(job: Job) -> dict[str, t.Any]:
    situation, found = job.situation, job.assessment
    entry = t.cast("GuestEntry", job.entry)
    result: dict[str, t.Any] = {"vmid": entry.vmid, "name": entry.name, "node": entry.node}
    if situation is None or found is None:
        return result | {"error": job.error}
    guest, windows, journal = situation.guest, situation.windows, situation.journal
    slot = boot_slot(guest)
    return result | {
        "status": guest.state,
        "standing": found.standing.value,
        "reason": found.reason,
        "hindrances": _hindrances(guest, found),
        "ostype": guest.ostype,
        "product": windows.product if windows else None,
        "release": windows.release.key if windows and windows.release else None,
        "agent": windows is not None,
        "virtio_win": _driver_iso(guest, windows),
        "boot_slot": None if slot is None else str(slot),
        "scsihw": guest.configured.scsihw,
        "phase": journal.phase.value if journal and journal.phase is not Phase.ROLLED_BACK else None,
    }


def _driver_iso(guest: Guest, windows: Windows | None) -> str | None:
    """The version of the driver ISO for a guest; releases that PVE calls the same take the same."""
    release = windows.release if windows else None
    versions = {row.iso for row in ((release,) if release else releases_of(guest.ostype or ""))}
    return versions.pop() if len(versions) == 1 else None


#: What is refused because of how it was asked, and says nothing about the guest.
_ASKED = ("iso", "staging")


def _hindrances(guest: Guest, found: Assessment) -> list[str]:
    """What has to be done before it can be migrated."""
    if found.standing in (Standing.ON_VIRTIO, Standing.UNDER_WAY, Standing.ROLLED_BACK):
        return []
    known = (one for one in found.refusals if one.option not in _ASKED)
    return [str(refusal).removeprefix(f"{guest.label}: ") for refusal in known]
