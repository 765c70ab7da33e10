# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole guests: clone, template, destroy, and what their disks make possible.

After qemu-server 9.2.6: API2/Qemu.pm (clone_vm, template, destroy_vm, vm_feature), QemuServer.pm (destroy_vm,
template_create).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from lab.api import ApiError, Call, Route, TaskLog, bad
from lab.config import root_only
from lab.disks import EFI_SIZE, TPM_SIZE, Copy, clone_disk
from lab.drives import UNUSED, Drive, drives, is_drive, parse_drive
from lab.guest import Conf, Guest, render
from lab.networks import with_mac
from lab.storages import StorageError

NOT_CLONED = ("parent", "snaptime", "vmstate", "snapstate", "runningcpu", "runningmachine", "running-nets-host-mtu",
              "lock", "template")


def has_feature(call: Call, feature: str, values: Mapping[str, str], snapshot: str | None = None) -> bool:
    """Whether every disk of the configuration can do it."""
    return all(call.storages.has_feature(feature, drive.file, snapshot) for _, drive in drives(values)
               if not drive.is_cdrom)


def _feature(call: Call) -> dict[str, Any]:
    guest, name = call.guest, call.values.get("snapname")
    values = guest.conf.values
    if name:
        if name not in guest.conf.snapshots:
            raise ApiError(f"snapshot '{name}' does not exist")
        values = guest.conf.snapshots[name]
    shared = all(call.storages.get(drive.file.partition(":")[0]).get("shared") for _, drive in drives(values)
                 if ":" in drive.file)
    nodes = call.cluster.nodes if shared else [call.node]
    return {"hasFeature": int(has_feature(call, call.values["feature"], values, name)), "nodes": list(nodes)}


# ---- clone


class Cloning:
    """One clone, checked before the task starts and again in it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.source = int(call.values["vmid"])
        self.target = int(call.values["newid"])
        self.storage = call.values.get("storage")
        self.format = call.values.get("format")
        self.snapshot = call.values.get("snapname")

    def check(self) -> Guest:
        """The source; raises what forbids the clone."""
        call = self.call
        if self.storage:
            call.storages.require_enabled(self.storage)
            if "images" not in call.storages.content_types(self.storage):
                raise bad(storage=f"storage '{self.storage}' does not support vm images")
        guest = call.guest
        guest.conf.check_lock()
        if self.snapshot and self.snapshot not in guest.conf.snapshots:
            raise ApiError(f"snapshot '{self.snapshot}' does not exist")
        for name in ("storage", "format"):
            if call.values.get(name) is not None and not self.full(guest):
                raise ApiError(f"parameter '{name}' not allowed for linked clones")
        values = self.values(guest)
        for _, drive in drives(values):
            if not drive.is_cdrom and drive.file != "none":
                sid = self.storage or call.storages.parse_volid(drive.file)[0]
                call.check(f"/storage/{sid}", "Datastore.AllocateSpace")
        if call.cluster.find(self.target) is not None:
            raise ApiError(f"unable to create VM {self.target}: config file already exists")
        for slot, drive in self.disks(values):
            self._possible(guest, slot, drive)
        return guest

    def full(self, guest: Guest) -> bool:
        """Whether disks are copied."""
        return bool(self.call.values.get("full", not guest.conf.is_template))

    def values(self, guest: Guest) -> dict[str, str]:
        """The configuration that is cloned."""
        return guest.conf.snapshots[self.snapshot] if self.snapshot else guest.conf.values

    def disks(self, values: Mapping[str, str]) -> list[tuple[str, Drive]]:
        """The drives whose volumes are cloned, in string order of the slots."""
        found = [(slot, drive) for slot, drive in drives(values) if not drive.is_medium]
        return sorted(found, key=lambda item: item[0])

    def copies(self, guest: Guest, slot: str, drive: Drive) -> bool:
        """Whether this drive is copied in any case."""
        return self.full(guest) or drive.is_cloudinit or slot == "tpmstate0"

    def _possible(self, guest: Guest, slot: str, drive: Drive) -> None:
        full = self.copies(guest, slot, drive)
        if self.full(guest) and guest.running and not self.snapshot and slot == "tpmstate0":
            raise ApiError("cannot clone TPM state while VM is running")
        if not self.call.storages.has_feature("copy" if full else "clone", drive.file, self.snapshot):
            of = " a snapshot of" if self.snapshot else ""
            raise ApiError(f"{'Full' if full else 'Linked'} clone feature is not supported for{of} '{drive.file}' "
                           f"({slot})")

    def run(self, log: TaskLog) -> None:
        """The work of the task."""
        guest = self.check()
        log(f"creating a clone of VM {self.source} with ID {self.target}")
        values = self._config(guest)
        new = self.call.cluster.add_guest(self.target, guest.node, "# qmclone temporary file\nlock: clone\n")
        made: list[str] = []
        try:
            for slot, drive in self.disks(self.values(guest)):
                values[slot] = str(self._disk(guest, slot, drive, made, log))
                new.store(render(Conf({**values, "lock": "clone"})))
            new.store(render(Conf(values)))
        except (ApiError, StorageError) as error:
            for volid in made:
                self.call.storages.free(volid, log)
            self.call.cluster.remove_guest(self.target)
            raise ApiError(f"clone failed: {error.message}") from error
        if pool := self.call.values.get("pool"):
            self.call.cluster.access.pools[pool].add(f"/vms/{self.target}")
            self.call.cluster.access.save()

    def _config(self, guest: Guest) -> dict[str, str]:
        old = self.values(guest)
        values = {key: value for key, value in old.items() if key not in NOT_CLONED and not UNUSED.fullmatch(key)
                  and not is_drive(key)}
        values.update({key: old[key] for key in old if is_drive(key) and self._kept(key, old[key])})
        for key in [key for key in values if re.fullmatch(r"net\d+", key)]:
            values[key] = with_mac(values[key], self.call.cluster.random, fresh=True)
        values["smbios1"] = re.sub(r"uuid=[0-9a-fA-F-]+", f"uuid={uuid.uuid4()}", values.get("smbios1", "uuid=0"))
        if "vmgenid" in values:
            values["vmgenid"] = str(uuid.uuid4())
        values["name"] = self.call.values.get("name") or f"Copy-of-VM-{old.get('name', guest.vmid)}"
        if self.call.values.get("description"):
            values["description"] = self.call.values["description"]
        return values

    @staticmethod
    def _kept(slot: str, text: str) -> bool:
        drive = parse_drive(slot, text)
        return drive is not None and drive.is_medium

    def _disk(self, guest: Guest, slot: str, drive: Drive, made: list[str], log: TaskLog) -> Drive:
        storages = self.call.storages
        if self.copies(guest, slot, drive):
            size = {"efidisk0": EFI_SIZE, "tpmstate0": TPM_SIZE}.get(slot)
            copy = Copy(storages, drive, self.target, slot, self.storage, self.format, log, size, self.snapshot)
            if guest.running and not self.snapshot:
                copy.mirror = lambda name: log(f"drive mirror is starting for drive-{name}")
            return clone_disk(copy, made)
        log(f"create linked clone of drive {slot} ({drive.file})")
        volid = storages.clone(drive.file, self.target, log, self.snapshot)
        made.append(volid)
        return drive.copy(file=volid, size=storages.info(volid).size)


def _clone(call: Call) -> str:
    cloning = Cloning(call)
    call.cluster.on_node(cloning.source, call.node)
    pool = call.values.get("pool")
    if pool is not None and pool not in call.cluster.access.pools:
        raise ApiError(f"Permission check failed (pool '{pool}' does not exist)", 403)
    target = call.values.get("target")
    if target not in (None, call.node, "localhost"):
        raise ApiError(f"the lab does not clone to another node ('{target}')", 501)
    running = cloning.check().running is not None

    def work(log: TaskLog) -> None:
        with call.cluster.lock(cloning.source, 1, shared=not running), call.cluster.lock(cloning.target, 1):
            cloning.run(log)

    return call.task("qmclone", cloning.source, work)


# ---- template


def make_base(call: Call, conf: Conf, only: str | None = None) -> None:
    """Turns the disks of the configuration, or one of them, into base volumes."""
    for slot, drive in list(drives(conf.values)):
        if not drive.is_cdrom and only in (None, slot) and call.storages.has_feature("template", drive.file):
            drive.file = call.storages.create_base(drive.file)
            conf.values[slot] = str(drive)


def _template(call: Call) -> str:
    vmid, disk = int(call.values["vmid"]), call.values.get("disk")

    def check() -> Conf:
        guest = call.guest
        conf = guest.load()
        conf.check_lock()
        if conf.snapshots:
            raise ApiError("unable to create template, because VM contains snapshots")
        if conf.is_template and not disk:
            raise ApiError("you can't convert a template to a template")
        if guest.running:
            raise ApiError("you can't convert a VM to template if VM is running")
        return conf

    def work(_: TaskLog) -> None:
        with call.cluster.lock(vmid):
            conf = check()
            conf.values["template"] = "1"
            call.guest.write(conf)
            make_base(call, conf, disk)
            call.guest.write(conf)

    check()
    return call.task("qmtemplate", vmid, work)


# ---- destroy


def _destroy(call: Call) -> str:
    root_only(call, "skiplock")
    vmid = int(call.values["vmid"])

    def check() -> Guest:
        guest = call.guest
        guest.conf.check_protection(f"can't remove VM {vmid}")
        if guest.running:
            raise ApiError(f"VM {vmid} is running - destroy failed")
        return guest

    def work(log: TaskLog) -> None:
        with call.cluster.lock(vmid):
            _destroyed(call, check(), log)

    check()
    return call.task("qmdestroy", vmid, work)


def _destroyed(call: Call, guest: Guest, log: TaskLog) -> None:
    conf = guest.load()
    if not call.values.get("skiplock") and conf.values.get("lock") != "suspended":
        conf.check_lock()
    if conf.is_template:
        _needs_no_clones(call, conf)
    for volid in _volumes(conf):
        _remove(call, guest.vmid, volid, log)
    if call.values.get("destroy-unreferenced-disks"):
        _remove_all(call, guest.vmid, log)
    if call.values.get("purge"):
        log(f"purging VM {guest.vmid} from related configurations..")
    call.cluster.access.remove_guest(guest.vmid)
    call.cluster.remove_guest(guest.vmid)


def _needs_no_clones(call: Call, conf: Conf) -> None:
    for _, drive in drives(conf.values, unused=True):
        if not drive.is_cdrom and not drive.file.startswith("/") and call.storages.used_by_clones(drive.file):
            raise ApiError(f"base volume '{drive.file}' is still in use by linked cloned")


def _remove_all(call: Call, vmid: int, log: TaskLog) -> None:
    """Every image of the guest on any storage, whether or not the configuration names it."""
    storages = call.storages
    for sid in storages.definitions:
        if storages.enabled(sid) and "images" in storages.content_types(sid):
            for row in storages.list(sid, vmid):
                storages.free(row.volid, log)


def _volumes(conf: Conf) -> list[str]:
    """The volumes that go with the guest: its disks, unused ones, saved states and pending disks."""
    found = [drive.file for _, drive in drives(conf.values, unused=True) if not drive.is_medium]
    found += [values["vmstate"] for values in (conf.values, *conf.snapshots.values()) if "vmstate" in values]
    found += [drive.file for _, drive in drives(conf.pending, unused=True) if not drive.is_medium]
    return [volid for volid in dict.fromkeys(found) if ":" in volid and not volid.startswith("/")]


def _remove(call: Call, vmid: int, volid: str, log: TaskLog) -> None:
    try:
        if call.storages.parse_volname(volid).owner != vmid:
            return
    except StorageError as error:
        log.warn(f"failed to get path and owner of volume '{volid}': {error.message}")
        return
    try:
        call.storages.free(volid, log)
    except StorageError as error:
        log.warn(f"Could not remove disk '{volid}', check manually: {error.message}")


GUEST = "/nodes/{node}/qemu/{vmid}"
ROUTES = [
    Route("GET", GUEST + "/feature", _feature),
    Route("POST", GUEST + "/clone", _clone),
    Route("POST", GUEST + "/template", _template),
    Route("DELETE", GUEST, _destroy),
]
