# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""New guests. After qemu-server 9.2.6, API2/Qemu.pm (create_vm)."""

from __future__ import annotations

import time
import uuid

from lab.api import ApiError, Call, Route, TaskLog
from lab.config import cdrom_alias, check_rights, prepare
from lab.disks import Maker, check_storages, check_syntax
from lab.drives import default_boot, print_boot
from lab.guest import Conf, render
from lab.power import start
from lab.storages import StorageError

WINDOWS = ("wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11")
NOT_CONFIG = ("node", "vmid", "archive", "storage", "force", "unique", "live-restore", "pool", "bwlimit", "start",
              "ha-managed", "import-working-storage")


def _create(call: Call) -> str:
    vmid = int(call.values["vmid"])
    values = {key: str(value) for key, value in call.values.items() if key not in NOT_CONFIG}
    storage, pool = call.values.get("storage"), call.values.get("pool")
    _check_create(call, vmid, storage, pool)
    if call.values.get("archive"):
        raise ApiError("the lab restores no backups", 501)
    cdrom_alias(values)
    if values:
        check_storages(call, vmid, values, storage, call.values.get("import-working-storage"))
        check_rights(call, vmid, values)
        check_syntax(call, values)
        prepare(call, values)
    if not call.cluster.add_new_guest(vmid, call.node, "lock: create\n"):
        where = call.cluster.find(vmid) or call
        raise ApiError(f"unable to create VM {vmid} - VM {vmid} already exists on node '{where.node}'")
    return call.task("qmcreate", vmid, lambda log: _created(call, vmid, values, log))


def _check_create(call: Call, vmid: int, storage: str | None, pool: str | None) -> None:
    if pool is not None and pool not in call.cluster.access.pools:
        raise ApiError(f"Permission check failed (pool '{pool}' does not exist)", 403)
    if storage is not None:
        call.check(f"/storage/{storage}", "Datastore.AllocateSpace")
    if call.values.get("start"):
        call.check(f"/vms/{vmid}", "VM.PowerMgmt")
    if not call.allowed(f"/vms/{vmid}", "VM.Allocate") and not (
            pool and call.allowed(f"/pool/{pool}", "VM.Allocate")):
        raise ApiError("Permission check failed", 403)


def _created(call: Call, vmid: int, values: dict[str, str], log: TaskLog) -> None:
    cluster = call.cluster
    try:
        with cluster.lock(vmid, 1):
            guest = cluster.guest(vmid, call.node)
            maker = Maker(call, vmid, Conf(values), log, call.values.get("storage"),
                          call.values.get("import-working-storage"))
            try:
                values.update(maker.make(values))
            except (ApiError, StorageError) as error:
                raise ApiError(f"unable to create VM {vmid} - {error.message}") from error
            guest.store(render(Conf(_complete(values, log))))
    except ApiError:
        cluster.remove_guest(vmid)
        raise
    if pool := call.values.get("pool"):
        cluster.access.pools[pool].add(f"/vms/{vmid}")
        cluster.access.save()
    if call.values.get("start"):
        log("Execute autostart")
        start(call, vmid, log)


def _complete(values: dict[str, str], log: TaskLog) -> dict[str, str]:
    """What PVE adds to a new guest."""
    values = {key: value for key, value in values.items() if value != ""}
    values["meta"] = f"creation-qemu=10.0.13,ctime={int(time.time())}"
    if not values.get("boot"):
        values["boot"] = print_boot(default_boot(values))
    values.setdefault("smbios1", f"uuid={uuid.uuid4()}")
    if values.get("vmgenid", "1") == "1":
        values["vmgenid"] = str(uuid.uuid4())
    if values.get("ostype") in WINDOWS:
        _pin_machine(values, log)
    return values


def _pin_machine(values: dict[str, str], log: TaskLog) -> None:
    """Windows keeps the machine version of its installation."""
    machine, comma, rest = values.get("machine", "pc").partition(",")
    if machine in ("pc", "q35"):
        machine = f"pc-{'q35' if machine == 'q35' else 'i440fx'}-10.0+pve1"
        log(f"pinning machine type to '{machine}' for Windows guest OS")
        values["machine"] = machine + comma + rest


ROUTES = [Route("POST", "/nodes/{node}/qemu", _create)]
