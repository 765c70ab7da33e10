# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of guests. After pve-guest-common, AbstractConfig.pm, and qemu-server 9.2.6, QemuConfig.pm."""

from __future__ import annotations

import functools
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

from lab.api import ApiError, Call, Route, TaskLog
from lab.clones import has_feature
from lab.cluster import memory_of
from lab.drives import UNUSED, Drive, drives
from lab.guest import Conf, Guest, shown
from lab.power import started, stopped
from lab.storages import StorageError

NOT_IN_SNAPSHOT = ("snapstate", "snaptime", "vmstate", "lock", "description")
STATE_RESERVE = 500
"""MiB that QEMU's devices are given in a saved state, beside twice the memory."""

SAVED = 112126976
"""Bytes that the memory of the recorded guest took; a raw file ends there."""


def _disks(values: dict[str, str]) -> list[tuple[str, Drive]]:
    return [(slot, drive) for slot, drive in drives(values) if not drive.is_cdrom]


def _copied(source: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in source.items() if key not in NOT_IN_SNAPSHOT and not UNUSED.fullmatch(key)}


def _snapshot(conf: Conf, name: str) -> dict[str, str]:
    if name not in conf.snapshots:
        raise ApiError(f"snapshot '{name}' does not exist")
    return conf.snapshots[name]


# ---- reading


def _list(call: Call) -> list[dict[str, Any]]:
    guest = call.guest
    conf, rows = guest.conf, []
    for name, values in conf.snapshots.items():
        row = {"name": name, "snaptime": int(values.get("snaptime", 0)), "vmstate": int("vmstate" in values),
               "description": values.get("description", "")}
        rows.append(row | {key: values[key] for key in ("parent", "snapstate") if key in values})
    current = {"name": "current", "digest": conf.digest, "running": int(guest.running is not None),
               "description": "You are here!"}
    if "parent" in conf.values:
        current["parent"] = conf.values["parent"]
    return [*rows, current]


def _config(call: Call) -> dict[str, Any]:
    values = _snapshot(call.guest.conf, str(call.values["snapname"]))
    return {key: shown(key, value) for key, value in values.items()}


def _describe(call: Call) -> None:
    if call.values.get("description") is None:
        return
    with call.cluster.lock(int(call.values["vmid"])):
        guest = call.guest
        conf = guest.load()
        conf.check_lock()
        _snapshot(conf, str(call.values["snapname"]))["description"] = str(call.values["description"])
        guest.write(conf)


# ---- taking


def _take(call: Call) -> str:
    name, guest = str(call.values["snapname"]), None
    if name == "current" or name.lower() == "pending":
        raise ApiError(f"unable to use snapshot name '{name}' (reserved name)")
    guest = call.guest
    return call.task("qmsnapshot", guest.vmid, lambda log: _taken(call, guest, name, log))


def _taken(call: Call, guest: Guest, name: str, log: TaskLog) -> None:
    with call.cluster.lock(guest.vmid):
        _prepare(call, guest, name, log)
    values = guest.conf.snapshots[name]
    done: list[Drive] = []
    try:
        if "vmstate" in values:
            sid = call.storages.parse_volid(values["vmstate"])[0]
            log(f"saving VM state and RAM using storage '{sid}'")
            log("5.01 MiB in 0s")
            log("completed saving the VM state in 0s, saved 106.93 MiB")
            if call.storages.file_based(sid):
                os.truncate(call.storages.file(values["vmstate"]), SAVED)
        for slot, drive in _disks(values):
            log(f"snapshotting 'drive-{slot}' ({drive.file})")
            if guest.running and (how := _by_qemu(call, drive)):
                log(f"{how} qemu snapshot")
            call.storages.snapshot(drive.file, name, log)
            done.append(drive)
    except StorageError as error:
        log("snapshot create failed: starting cleanup")
        _undo(call, guest, name, done, log)
        raise ApiError(error.message) from error
    with call.cluster.lock(guest.vmid):
        conf = guest.load()
        del conf.snapshots[name]["snapstate"], conf.values["lock"]
        conf.values["parent"] = name
        guest.write(conf)


def _by_qemu(call: Call, drive: Drive) -> str | None:
    name = call.storages.parse_volname(drive.file)
    if name.format != "qcow2":
        return None
    return "external" if call.storages.get(name.storage).get("snapshot-as-volume-chain") else "internal"


def _prepare(call: Call, guest: Guest, name: str, log: TaskLog) -> None:
    conf = call.guest.load()
    if conf.is_template:
        raise ApiError("you can't take a snapshot if it's a template")
    conf.check_lock()
    if name in conf.snapshots:
        raise ApiError(f"snapshot name '{name}' already used")
    if not has_feature(call, "snapshot", conf.values):
        raise ApiError("snapshot feature is not available")
    values = _copied(conf.values)
    if call.values.get("vmstate") and guest.running:
        values["vmstate"] = _state_volume(call, guest, name, log)
        values |= {"runningmachine": "pc-i440fx-10.0+pve0", "runningcpu": "qemu64", "running-nets-host-mtu": " "}
    values |= {"snapstate": "prepare", "snaptime": str(int(time.time()))}
    if call.values.get("description"):
        values["description"] = str(call.values["description"])
    conf.values["lock"] = "snapshot"
    conf.snapshots[name] = values
    guest.write(conf)


def _state_volume(call: Call, guest: Guest, name: str, log: TaskLog) -> str:
    """The volume for the memory: on the configured storage, or beside a disk, preferably as a file."""
    storages, sid = call.storages, guest.conf.values.get("vmstatestorage")
    if sid is None:
        used = sorted({storages.parse_volid(drive.file)[0] for _, drive in _disks(guest.conf.values)})
        order = [s for s in used if storages.get(s).get("shared")] or used or ["local"]
        sid = next((s for s in reversed(order) if storages.file_based(s)), order[0])
    volume = f"vm-{guest.vmid}-state-{name}" + (".raw" if storages.file_based(sid) else "")
    return storages.alloc(sid, guest.vmid, "raw", volume, (memory_of(guest) * 2 + STATE_RESERVE) << 20, log)


def _undo(call: Call, guest: Guest, name: str, done: list[Drive], log: TaskLog) -> None:
    for drive in done:
        call.storages.snapshot_delete(drive.file, name, log)
    conf = guest.load()
    if state := conf.snapshots[name].get("vmstate"):
        call.storages.free(state, log)
    del conf.snapshots[name], conf.values["lock"]
    guest.write(conf)


# ---- deleting


def _delete(call: Call) -> str:
    vmid = int(call.values["vmid"])
    return call.task("qmdelsnapshot", vmid, lambda log: _deleted(call, str(call.values["snapname"]), log))


def _deleted(call: Call, name: str, log: TaskLog) -> None:
    guest, force = call.guest, bool(call.values.get("force"))
    with call.cluster.lock(guest.vmid):
        conf = guest.load()
        values = _snapshot(conf, name)
        conf.check_lock()
        if conf.is_template:
            raise ApiError("you can't delete a snapshot if vm is a template")
        conf.values["lock"] = "snapshot-delete"
        values["snapstate"] = "delete"
        guest.write(conf)
    gone: list[str] = []
    if "vmstate" in values:
        _forced(force, log, functools.partial(call.storages.free, values["vmstate"], log))
    for _, drive in _disks(values):
        _forced(force, log, functools.partial(call.storages.snapshot_delete, drive.file, name, log))
        gone.append(drive.file)
    with call.cluster.lock(guest.vmid):
        _forget(guest, name, gone)


def _forced(force: bool, log: TaskLog, work: Callable[[], None]) -> None:
    try:
        work()
    except StorageError as error:
        if not force:
            raise
        log(error.message)


def _forget(guest: Guest, name: str, gone: list[str]) -> None:
    """Takes the snapshot out of the configuration; volumes that nothing names any more become unused ones."""
    conf = guest.load()
    parent = conf.snapshots.pop(name).get("parent")
    for values in (conf.values, *conf.snapshots.values()):
        if values.get("parent") == name:
            values.pop("parent")
            if parent:
                values["parent"] = parent
    conf.values.pop("lock", None)
    for volid in gone:
        conf.add_unused(volid)
    guest.write(conf)


# ---- going back


def _rollback(call: Call) -> str:
    vmid, name = int(call.values["vmid"]), str(call.values["snapname"])
    if call.values.get("start"):
        call.check(f"/vms/{vmid}", "VM.PowerMgmt")
    return call.task("qmrollback", vmid, lambda log: _rolled_back(call, name, log))


def _rolled_back(call: Call, name: str, log: TaskLog) -> None:
    guest = call.guest
    with call.cluster.lock(guest.vmid):
        conf = guest.load()
        if conf.is_template:
            raise ApiError("you can't rollback if vm is a template")
        values = _snapshot(conf, name)
        for _, drive in _disks(values):
            call.storages.rollback_possible(drive.file, name)
        if "snapstate" in values:
            raise ApiError(f"unable to rollback to incomplete snapshot (snapstate = {values['snapstate']})")
        conf.check_lock()
        if guest.running:
            stopped(call, guest, log)
            conf = guest.load()
        conf.values["lock"] = "rollback"
        guest.write(conf)
    for _, drive in _disks(values):
        call.storages.rollback(drive.file, name, log)
    with call.cluster.lock(guest.vmid):
        _restore(guest, name)
    if "vmstate" in values or call.values.get("start"):
        started(call, guest, log)


def _restore(guest: Guest, name: str) -> None:
    conf = guest.load()
    values = conf.snapshots[name]
    kept = {drive.file for _, drive in drives(values) if not drive.is_medium}
    for _, drive in list(drives(conf.values)):
        if not drive.is_medium and drive.file not in kept:
            conf.add_unused(drive.file)
    new = {key: value for key, value in conf.values.items() if UNUSED.fullmatch(key) or key == "description"}
    new |= {key: value for key, value in _copied(values).items() if not key.startswith("running")}
    new["parent"] = name
    if "vmgenid" in new:
        new["vmgenid"] = str(uuid.uuid4())
    guest.write(Conf(new, {}, conf.snapshots))


SNAPSHOT = "/nodes/{node}/qemu/{vmid}/snapshot"
ROUTES = [
    Route("GET", SNAPSHOT, _list, quick=True),
    Route("POST", SNAPSHOT, _take),
    Route("DELETE", SNAPSHOT + "/{snapname}", _delete),
    Route("POST", SNAPSHOT + "/{snapname}/rollback", _rollback),
    Route("GET", SNAPSHOT + "/{snapname}/config", _config),
    Route("PUT", SNAPSHOT + "/{snapname}/config", _describe),
]
