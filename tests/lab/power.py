# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, stop and what is between. A running guest is a note of what QEMU was given; nothing executes.

After qemu-server 9.2.6: API2/Qemu.pm (vm_start, vm_stop, vm_shutdown …), QemuServer.pm (vm_start, _do_vm_stop).
"""

from __future__ import annotations

import re

from lab import hotplug
from lab.api import ApiError, Call, Route, TaskLog
from lab.config import root_only
from lab.drives import drives
from lab.guest import Guest, Running
from lab.networks import parts


def start(call: Call, vmid: int, log: TaskLog) -> None:
    """Starts a guest by id, with PVE's checks."""
    with call.cluster.lock(vmid):
        guest = call.cluster.guest(vmid, call.node)
        if guest.conf.is_template:
            raise ApiError("you can't start a vm if it's a template")
        if guest.conf.values.get("lock") != "suspended" and not call.values.get("skiplock"):
            guest.conf.check_lock()
        if guest.running:
            raise ApiError(f"VM {vmid} already running")
        started(call, guest, log)


def started(call: Call, guest: Guest, log: TaskLog) -> None:
    """Pending values are applied, volumes and bridges are looked for, and the guest runs."""
    if guest.conf.pending:
        hotplug.Change(call, guest, log).coldplug()
    values = guest.conf.values
    running = Running(values=dict(values))
    for slot, drive in drives(values):
        if drive.file not in ("none", "cdrom") and ":" in drive.file:
            call.storages.info(drive.file)
        if drive.options.get("aio") == "native" and drive.options.get("cache", "none") not in ("none", "directsync"):
            log(f"kvm: -blockdev drive-{slot}: aio=native was specified, but it requires cache.direct=on, which was "
                "not specified.")
            raise ApiError("start failed: QEMU exited with code 1")
        if drive.options.get("iothread") == "1" and drive.bus == "scsi" and (
                values.get("scsihw") != "virtio-scsi-single"):
            log.warn("iothread is only valid with virtio disk or virtio-scsi-single controller, ignoring")
        running.drives[slot] = values[slot]
    _networks(call, guest, log)
    guest.running = running


def _networks(call: Call, guest: Guest, log: TaskLog) -> None:
    for key in sorted(key for key in guest.conf.values if re.fullmatch(r"net\d+", key)):
        bridge = parts(guest.conf.values[key])[2].get("bridge")
        if bridge is None:
            log.warn(f"Interface 'tap{guest.vmid}i{key[3:]}' not attached to any bridge.")
        elif bridge not in call.cluster.bridges:
            raise ApiError(f"bridge '{bridge}' does not exist")


def stopped(call: Call, guest: Guest, log: TaskLog) -> None:
    """The guest is off; what was pending is applied, and what of it fails stays pending."""
    guest.running = None
    if guest.conf.pending:
        hotplug.Change(call, guest, log).coldplug()


def _start(call: Call) -> str:
    root_only(call, "skiplock", "stateuri", "migratedfrom", "migration_type", "migration_network", "targetstorage",
              "force-cpu")
    vmid = int(call.values["vmid"])
    return call.task("qmstart", vmid, lambda log: start(call, vmid, log))


def _stop(call: Call) -> str:
    root_only(call, "skiplock", "keepActive", "migratedfrom")
    vmid = int(call.values["vmid"])

    def work(log: TaskLog) -> None:
        with call.cluster.lock(vmid):
            guest = call.cluster.on_node(vmid, call.node)
            if guest.running:
                if not call.values.get("skiplock"):
                    guest.conf.check_lock()
                stopped(call, guest, log)

    return call.task("qmstop", vmid, work)


def _powered_down(call: Call, log: TaskLog, force: bool = False) -> bool:
    """Asks the guest to power off; whether it ran. A deaf guest is killed at the time-out if the caller wants it."""
    guest = call.cluster.on_node(int(call.values["vmid"]), call.node)
    if not guest.running:
        return False
    if not call.values.get("skiplock"):
        guest.conf.check_lock()
    if guest.vmid in call.cluster.faults.deaf:
        call.cluster.clock.sleep(float(call.values.get("timeout", 60)))
        if not (force or call.values.get("forceStop")):
            raise ApiError("VM quit/powerdown failed - got timeout")
        log("VM still running - terminating now with SIGTERM")
    stopped(call, guest, log)
    return True


def _shutdown(call: Call) -> str:
    root_only(call, "skiplock", "keepActive")
    vmid = int(call.values["vmid"])
    guest = call.cluster.find(vmid)
    if guest is not None and guest.running and guest.running.status == "paused" and not call.values.get("forceStop"):
        raise ApiError("VM is paused - cannot shutdown")

    managed = vmid in call.cluster.faults.ha

    def work(log: TaskLog) -> None:
        with call.cluster.lock(vmid):
            _powered_down(call, log, force=managed)

    return call.task("hastop" if managed else "qmshutdown", vmid, work)


def _needs_running(call: Call) -> Guest:
    guest = call.cluster.on_node(int(call.values["vmid"]), call.node)
    if not guest.running:
        raise ApiError(f"VM {guest.vmid} not running")
    return guest


def _reboot(call: Call) -> str:
    vmid = _needs_running(call).vmid

    def work(log: TaskLog) -> None:
        with call.cluster.lock(vmid):
            was_on = _powered_down(call, log)
        if was_on:  # qmeventd does it when the process has ended, in a task of its own
            call.task("qmstart", vmid, lambda log: start(call, vmid, log))

    return call.task("qmreboot", vmid, work)


def _reset(call: Call) -> str:
    root_only(call, "skiplock")
    vmid = int(call.values["vmid"])

    def work(_: TaskLog) -> None:
        with call.cluster.lock(vmid):
            call.guest.conf.check_lock()
            _needs_running(call)

    return call.task("qmreset", vmid, work)


def _suspend(call: Call) -> str:
    root_only(call, "skiplock")
    guest = _needs_running(call)
    if call.values.get("todisk"):
        raise ApiError("the lab does not suspend to disk", 501)
    return call.task("qmpause", guest.vmid, lambda _: _set_status(call, "paused"))


def _resume(call: Call) -> str:
    root_only(call, "skiplock", "nocheck")
    guest = _needs_running(call)
    return call.task("qmresume", guest.vmid, lambda _: _set_status(call, "running"))


def _set_status(call: Call, status: str) -> None:
    with call.cluster.lock(int(call.values["vmid"])):
        running = _needs_running(call).running
        if running is not None:
            running.status = status


STATUS = "/nodes/{node}/qemu/{vmid}/status"
ROUTES = [
    Route("POST", STATUS + "/start", _start),
    Route("POST", STATUS + "/stop", _stop),
    Route("POST", STATUS + "/shutdown", _shutdown),
    Route("POST", STATUS + "/reboot", _reboot),
    Route("POST", STATUS + "/reset", _reset),
    Route("POST", STATUS + "/suspend", _suspend),
    Route("POST", STATUS + "/resume", _resume),
]
