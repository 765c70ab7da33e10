# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Makes VirtIO storage drivers boot-critical in a Windows that is not running, and takes that back.

A plan is made from a volume that is mounted read-only and holds every change. Carrying it out, on the writable volume,
makes these changes and no others. The order is what makes a crash harmless: first the record with all backups, then
driver files, which nothing uses yet, then the registry in one step, then the record that says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .._core.errors import DiskwrightError
from . import bootcritical, record, tree
from .hive import Hive
from .hivedata import Change, Edit, Path, find_value, has_key
from .installation import Installation, Place, config_path, find_backup
from .package import Package
from .record import FileChange, Record

_DRIVERS = ("System32", "drivers")
#: Where Windows looks for catalogues while it boots (the GUID is that of driver packages).
_CATALOGUES = ("System32", "CatRoot", "{F750E6C3-38EE-11D1-85E5-00C04FC295EE}")
#: A file that every Windows has beside its drivers, and whose security descriptor a new one gets.
_MODEL = "disk.sys"
#: The folder of backups on the volume, below Windows' own.
FOLDER = record.FOLDER
APPLYING, INJECTED = "applying", "injected"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that will be written; ``data`` is ``None`` for one that will be removed."""

    parts: tree.Parts
    data: bytes | None

    @property
    def digest(self) -> str:
        """Its SHA-256."""
        return hashlib.sha256(self.data or b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be changed on a volume.

    :param change: in the SYSTEM hive.
    :param files: on the volume.
    :param record: what the record will say afterwards, ``None`` for nothing: then it goes.
    :param kept: what can't be taken back, because it was changed by somebody else since, in words.
    :param fresh: whether this is the first injection: then backups that lie about are of other times.
    :param finish: whether there is something to do although nothing is left to be changed.
    """

    place: Place
    change: Change
    files: tuple[NewFile, ...]
    record: Record | None
    kept: tuple[str, ...] = ()
    fresh: bool = False
    finish: bool = False

    def __bool__(self) -> bool:
        return bool(self.change or self.files or self.finish)

    def lines(self) -> list[str]:
        """What it does, one line each, for people."""
        folder = self.place.folder
        lines = [f"{'-' if one.data is None else '+'} {_shown(one.parts)}" for one in self.files]
        lines += [f"~ {folder}\\System32\\config\\SYSTEM: {edit}" for edit in self.change.edits]
        return lines


def plan_injection(
    found: Installation, root: str, packages: Iterable[Package], *, volume: str, legacy: bool
) -> Plan:
    """What makes drivers boot-critical; an empty plan when they are.

    :param root: where the volume is mounted.
    :param volume: how the record calls the volume.
    :param legacy: whether Windows' own drivers for IDE and SATA are switched on again, too.
    """
    change, files = Change(), list[NewFile]()
    for package in packages:
        change += bootcritical.make_boot_critical(found.system, found.windows, package.inf)
        files += _new_files(found, root, package)
    made = Record(volume, INJECTED, change.edits, _new_keys(found.system, change), tuple(_recorded(root, files)))
    whole = found.record.merged(made) if found.record else made
    if legacy:  # not recorded: nobody wants them switched off again
        change += bootcritical.keep_legacy(found.system, found.windows)
    unfinished = found.record is not None and found.record.state == APPLYING
    return Plan(found.place, change, tuple(files), whole, fresh=found.record is None, finish=unfinished)


def is_ready(found: Installation, root: str, package: Package) -> bool:
    """Whether Windows loads a driver while it boots, whoever has seen to it."""
    there = bootcritical.presence(found.system, found.windows, package.inf)
    binary = tree.find(root, (found.place.folder, *_DRIVERS, package.inf.binary))
    return there.start == 0 and not there.overridden and binary is not None


def plan_reversal(found: Installation, root: str, store: str, *, legacy: bool) -> Plan:
    """What takes an injection back: values and files that are still as it has made them become what they were.

    :param store: the folder of this node where records of this volume are.
    """
    change, known = Change(), found.record
    folder = tree.find(root, (found.place.folder, record.FOLDER))
    files: list[NewFile] = []
    kept: list[str] = []
    if known is not None:
        edits, kept = _reversed_edits(found.system, known)
        change = Change(tuple(edits)) + Change((), tuple(_emptied(found.system, known.keys, edits)))
        for one in known.files:
            files += _reversed_file(root, one, (folder, store), kept)
    if legacy:
        change += bootcritical.keep_legacy(found.system, found.windows)
    left = known is not None or folder is not None or os.path.isdir(store)
    return Plan(found.place, change, tuple(files), None, tuple(kept), finish=left)


def carry_out(plan: Plan, root: str, store: str, planned_digest: str) -> None:
    """Carry a plan out.

    :param root: where the volume is mounted, writable.
    :param store: the folder of this node where records of this volume are.
    :param planned_digest: the SYSTEM hive that the plan was made from.
    :raises DiskwrightError: when the volume is not what the plan was made from, before anything is written.
    """
    system = tree.place(root, config_path(plan.place, record.HIVE))
    source = system if os.path.exists(system) else find_backup(root, plan.place, store)
    if source is None or (source == system and tree.digest(system) != planned_digest):
        raise DiskwrightError("the registry was changed since the plan was made: somebody else writes to this volume")
    like = tree.place(root, config_path(plan.place, "SOFTWARE"))
    folders = {store: None, os.path.join(tree.place(root, (plan.place.folder,)), record.FOLDER): like}
    if plan.record is not None:
        os.makedirs(store, mode=0o700, exist_ok=True)
        tree.make_folder(root, (plan.place.folder, record.FOLDER), os.path.dirname(like))
        for folder, model in folders.items():
            _back_up(plan.record, root, source, folder, model, anew=plan.fresh)
    for file in plan.files:
        _write(root, file, tree.find(root, (plan.place.folder, *_DRIVERS, _MODEL)) or like)
    if plan.change:
        _write_hive(plan, source, system, like)
    if plan.record is not None:
        for folder, model in folders.items():
            record.save(folder, plan.record, model)
    else:
        for folder in reversed(folders):
            tree.remove_folder(folder)


# ---- planning


def _new_files(found: Installation, root: str, package: Package) -> list[NewFile]:
    """The driver file, and the catalogue where its signature counts. A file that Windows has installed stays."""
    parts = (found.place.folder, *_DRIVERS, package.inf.binary)
    there = tree.find(root, parts)
    installed = bootcritical.presence(found.system, found.windows, package.inf).installed
    if installed and there is not None:
        return []
    files = [NewFile(parts, package.binary)]
    if package.catalogue is not None:
        name = f"{bootcritical.PREFIX}-{package.inf.service}.cat"
        files.append(NewFile((found.place.folder, *_CATALOGUES, name), package.catalogue))
    return [file for file in files if _differs(root, file)]


def _differs(root: str, file: NewFile) -> bool:
    there = tree.find(root, file.parts)
    return there is None or tree.digest(there) != file.digest


def _recorded(root: str, files: Iterable[NewFile]) -> Iterator[FileChange]:
    for file in files:
        there = tree.find(root, file.parts)
        yield FileChange(file.parts, file.parts[-1] if there is not None else None, file.digest)


def _new_keys(system: Hive, change: Change) -> tuple[Path, ...]:
    """The keys that the edits bring into being, those that are nearer to the root first."""
    paths = [edit.path[:depth] for edit in change.edits if edit.after for depth in range(1, len(edit.path) + 1)]
    return tuple(path for path in dict.fromkeys(paths) if not has_key(system, path))


def _reversed_edits(system: Hive, known: Record) -> tuple[list[Edit], list[str]]:
    edits: list[Edit] = []
    kept: list[str] = []
    owned = _owned_services(system, known)
    for edit in known.edits:
        now = find_value(system, edit.path, edit.name)
        if now == edit.before:
            continue
        if _service_of(edit.path) in owned or now != edit.after:
            kept.append(f"{_shown(edit.path)}: {edit.name or '(default)'}")
        else:
            edits.append(Edit(edit.path, edit.name, now, edit.before))
    return edits, kept


def _owned_services(system: Hive, known: Record) -> set[str]:
    """The services that Windows has made its own since: it has installed the driver itself."""
    services = {_service_of(edit.path) for edit in known.edits} - {""}
    sets = {edit.path[0] for edit in known.edits if _service_of(edit.path)}
    return {one for one in services for name in sets if bootcritical.installed_by_windows(system, name, one)}


def _service_of(path: Path) -> str:
    return path[2] if len(path) >= 3 and path[1] == "Services" else ""


def _emptied(system: Hive, keys: Iterable[Path], edits: Iterable[Edit]) -> list[Path]:
    """The keys of an injection that have nothing left when its values are gone, the deepest first."""
    gone: set[Path] = set()
    removed = {(edit.path, edit.name) for edit in edits if edit.after is None}
    for path in sorted(keys, key=len, reverse=True):
        values = system.values(path)
        if values is None:
            continue
        left = [name for name in values if (path, name) not in removed]
        below = [name for name in system.keys(path) if (*path, name) not in gone]
        if not left and not below:
            gone.add(path)
    return sorted(gone, key=len, reverse=True)


def _reversed_file(root: str, one: FileChange, folders: Iterable[str | None], kept: list[str]) -> list[NewFile]:
    there = tree.find(root, one.parts)
    if there is None:
        return []
    if tree.digest(there) != one.after:
        kept.append(_shown(one.parts))
        return []
    if one.before is None:
        return [NewFile(one.parts, None)]
    for folder in folders:
        backup = tree.find(folder, (one.before,)) if folder is not None else None
        if backup is not None:
            return [NewFile(one.parts, tree.read(backup))]
    kept.append(f"{_shown(one.parts)} (its backup is gone)")
    return []


# ---- carrying out


def _back_up(known: Record, root: str, source: str, folder: str, like: str | None, *, anew: bool) -> None:
    """Put everything into a folder that is needed to go back. What earlier runs have put there is older, and stays.

    :param like: a file that only administrators may read: a registry hive has secrets.
    :param anew: whether what lies there is of other times.
    """
    sources = {record.HIVE: source}
    for change in known.files:
        there = tree.find(root, change.parts)
        if change.before is not None and there is not None:
            sources[change.before] = there
    for name, path in sources.items():
        if anew or not os.path.exists(os.path.join(folder, name)):
            tree.copy(path, os.path.join(folder, name), like)
    record.save(folder, dataclasses.replace(known, state=APPLYING), like)


def _write(root: str, file: NewFile, like: str) -> None:
    path = tree.place(root, file.parts)
    if file.data is None:
        tree.remove(path)
    else:
        tree.write(path, file.data, like)


def _write_hive(plan: Plan, source: str, system: str, like: str) -> None:
    """Write the hive beside the old one, read it again, and only then put it in the old one's place."""
    new = tree.temporary(system)
    tree.remove(new)
    hive = Hive(source)
    hive.apply(plan.change)
    hive.save(new)
    written = Hive(new)
    wrong = [edit for edit in plan.change.edits if find_value(written, edit.path, edit.name) != edit.after]
    if wrong:
        tree.remove(new)
        raise DiskwrightError(f"the new registry does not hold what was written to it: {wrong[0]}; nothing was changed")
    tree.replace(new, system, like)


def _shown(parts: Iterable[str]) -> str:
    return "\\".join(parts)
