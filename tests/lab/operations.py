# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on one disk: resize, move to another storage, hand over to another guest.

After qemu-server 9.2.6, API2/Qemu.pm (resize_vm, move_vm_disk).
"""

from __future__ import annotations

import re

from lab.api import ApiError, Call, Route, TaskLog, bad
from lab.clones import make_base
from lab.config import root_only, update_of
from lab.disks import EFI_SIZE, TPM_SIZE, Copy, clone_disk, in_use
from lab.drives import UNITS, UNUSED, Drive, boot_order, parse_drive, print_boot
from lab.guest import Conf, Guest
from lab.storages import StorageError

CHANGED = "detected modified configuration - file changed by other user? Try again."
SIZE = re.compile(r"(\+)?(\d+(?:\.\d+)?)([KMGT])?")


def _drive(slot: str, text: str) -> Drive:
    drive = parse_drive(slot, text)
    if drive is None:
        raise ApiError("unable to parse volume")
    return drive


# ---- resize


def _resize(call: Call) -> str:
    root_only(call, "skiplock")
    vmid = int(call.values["vmid"])

    def work(log: TaskLog) -> None:
        with call.cluster.lock(vmid):
            _grow(call, log)

    return call.task("resize", vmid, work)


def _grow(call: Call, log: TaskLog) -> None:
    guest, slot = call.guest, str(call.values["disk"])
    conf, digest = guest.load(), call.values.get("digest")
    if digest and digest != conf.digest:
        raise ApiError("checksum mismatch (file change by other user?)")
    if not call.values.get("skiplock"):
        conf.check_lock()
    if slot not in conf.values:
        raise ApiError(f"disk '{slot}' does not exist")
    drive = _drive(slot, conf.values[slot])
    call.storages.parse_volname(drive.file)
    if drive.is_cdrom:
        raise ApiError("you can't resize a cdrom")
    call.check(f"/storage/{call.storages.parse_volid(drive.file)[0]}", "Datastore.AllocateSpace")
    size = call.storages.info(drive.file).size
    found = SIZE.fullmatch(str(call.values["size"]))
    if found is None:
        raise ApiError("internal error")
    new = int(float(found[2]) * UNITS[found[3] or ""] + (size if found[1] else 0))
    if new < size:
        raise ApiError("shrinking disks is not supported")
    if new == size:
        return
    call.storages.resize(drive.file, new, log, running=guest.running is not None)
    conf.values[slot] = str(drive.copy(size=new))
    guest.write(conf)
    if guest.running and slot in guest.running.drives:
        guest.running.drives[slot] = conf.values[slot]


# ---- move to another storage


def _move(call: Call) -> str:
    storage, target = call.values.get("storage"), call.values.get("target-vmid")
    if storage and target:
        text = "either set 'storage' or 'target-vmid', but not both"
        raise bad(storage=text, target_vmid=text)
    if target:
        return _reassign(call, int(target))
    if not storage:
        text = "both 'storage' and 'target-vmid' missing, either needs to be set"
        raise bad(storage=text, target_vmid=text)
    call.check(f"/storage/{storage}", "Datastore.AllocateSpace")
    _movable(call)
    vmid = int(call.values["vmid"])

    def work(log: TaskLog) -> None:
        with call.cluster.lock(vmid):
            _moved(call, log)

    return call.task("qmmove", vmid, work)


def _movable(call: Call) -> tuple[Guest, Conf, Drive, bool]:
    """The guest, its configuration, the drive, and whether a snapshot names its volume; or why it can't be moved."""
    guest, slot = call.guest, str(call.values["disk"])
    storages, target, fmt = call.storages, str(call.values["storage"]), call.values.get("format")
    conf, digest = guest.load(), call.values.get("digest")
    conf.check_lock()
    if digest and digest != conf.digest:
        raise ApiError(CHANGED)
    if slot not in conf.values:
        raise ApiError(f"disk '{slot}' does not exist")
    drive = _drive(slot, conf.values[slot])
    if drive.is_medium:
        raise ApiError("you can't move a cdrom")
    name = storages.parse_volname(drive.file)
    if name.storage == target and (not fmt or fmt == name.format):
        raise ApiError("you can't move to the same storage with same format")
    storages.require_enabled(target)
    if "images" not in storages.content_types(target):
        raise bad(storage=f"storage '{target}' does not support vm images")
    snapshotted = in_use(storages, conf, drive.file, slot)
    if snapshotted and call.values.get("delete"):
        raise ApiError("you can't move a disk with snapshots and delete the source")
    return guest, conf, drive, snapshotted


def _moved(call: Call, log: TaskLog) -> None:
    guest, conf, drive, snapshotted = _movable(call)
    storages, source = call.storages, drive.file
    log(f"copying volume '{source}' from current storage '{storages.parse_volid(source)[0]}' to target storage "
        f"'{call.values['storage']}'")
    made: list[str] = []
    try:
        if snapshotted:
            log("moving disk with snapshots, snapshots will not be moved!")
        _copied(call, guest, conf, drive, log, made)
        guest.write(conf)
    except (ApiError, StorageError) as error:
        for volid in made:
            storages.free(volid, log)
        raise ApiError(f"storage migration failed: {error.message}") from error
    if guest.running and drive.slot in guest.running.drives:
        guest.running.drives[drive.slot] = conf.values[drive.slot]
    if call.values.get("delete"):
        log(f"removing source volume '{source}' after successful copy")
        try:
            storages.free(source, log)
        except StorageError as error:
            log(error.message)


def _copied(call: Call, guest: Guest, conf: Conf, drive: Drive, log: TaskLog, made: list[str]) -> None:
    live = guest.running is not None and not UNUSED.fullmatch(drive.slot)
    if live and drive.slot == "tpmstate0":
        raise ApiError("cannot move TPM state while VM is running")
    copy = Copy(call.storages, drive, guest.vmid, drive.slot, call.values["storage"], call.values.get("format"), log,
                {"efidisk0": EFI_SIZE, "tpmstate0": TPM_SIZE}.get(drive.slot), limit=limit(call))
    if live:
        copy.mirror = lambda slot: log(f"drive mirror is starting for drive-{slot}")
    new = clone_disk(copy, made)
    if live:
        log("all 'mirror' jobs are ready")
    conf.values[drive.slot] = new.file if UNUSED.fullmatch(drive.slot) else str(new)
    if not call.values.get("delete"):
        key = _keep_source(call, conf, drive, log)
        log(f"adding source volume '{drive.file}' as '{key or ''}' to config")
    if conf.is_template:
        make_base(call, conf, drive.slot)


def limit(call: Call) -> Throttle:
    """What bwlimit does: the copy takes its time."""
    return Throttle(call, int(call.values.get("bwlimit", 0)))


class Throttle:
    """Sleeps as long as a copy at `kib` KiB/s takes; 0 is no limit."""

    def __init__(self, call: Call, kib: int) -> None:
        self._clock = call.cluster.clock
        self._kib = kib

    def __call__(self, size: int) -> None:
        if self._kib:
            self._clock.sleep(size / 1024 / self._kib)


def _keep_source(call: Call, conf: Conf, drive: Drive, log: TaskLog) -> str | None:
    """The source becomes unusedN, but a cloud-init drive is of no use to anybody."""
    if drive.is_cloudinit:
        log(f"found unused cloudinit disk '{drive.file}', removing it")
        call.storages.free(drive.file, log)
        return None
    return conf.add_unused(drive.file)


# ---- hand over to another guest


def _reassign(call: Call, target: int) -> str:
    vmid, slot = int(call.values["vmid"]), str(call.values["disk"])
    goal = str(call.values.get("target-disk", slot))
    if not call.is_root:
        call.check(f"/vms/{target}", "VM.Config.Disk")
    if target == vmid:
        raise bad(target_vmid="must be different than source VMID to reassign disk")
    drive = _reassignable(call, target, goal)[2]
    call.check(f"/storage/{call.storages.parse_volid(drive.file)[0]}", "Datastore.AllocateSpace")

    def work(log: TaskLog) -> None:
        with call.cluster.lock(vmid), call.cluster.lock(target):
            _hand_over(call, target, goal, log)

    return call.task("qmmove", f"{vmid}-{slot}>{target}-{goal}", work)


def _reassignable(call: Call, target: int, goal: str) -> tuple[Guest, Guest, Drive]:
    vmid, slot, cluster = int(call.values["vmid"]), str(call.values["disk"]), call.cluster
    giver, taker = cluster.find(vmid), cluster.find(target)
    if giver is None:
        raise ApiError(f"could not find VM {vmid}")
    if taker is None:
        raise ApiError(f"could not find target VM {target}")
    if giver.node != taker.node:
        raise ApiError(f"Both VMs need to be on the same node ({giver.node} != {taker.node})")
    for guest in (giver, taker):
        guest.conf.check_lock()
    if giver.conf.is_template or taker.conf.is_template:
        raise ApiError("Can't move disks from or to template VMs")
    for guest, digest in ((giver, call.values.get("digest")), (taker, call.values.get("target-digest"))):
        if digest and digest != guest.conf.digest:
            raise ApiError(f"VM {guest.vmid}: {CHANGED}")
    if slot not in giver.conf.values:
        raise ApiError(f"Disk '{slot}' for VM '{vmid}' does not exist")
    if goal in taker.conf.values:
        raise ApiError(f"Target disk key '{goal}' is already in use for VM '{target}'")
    return giver, taker, _given(call, giver, slot, goal)


def _given(call: Call, giver: Guest, slot: str, goal: str) -> Drive:
    """The drive as the target slot has it."""
    drive = _drive(slot, giver.conf.values[slot])
    if drive.is_medium:
        raise ApiError("CD drive contents can't be moved to another VM")
    if in_use(call.storages, giver.conf, drive.file, slot):
        raise ApiError("Can't move disk used by a snapshot to another VM")
    if not call.storages.has_feature("rename", drive.file):
        raise ApiError("Storage does not support moving of this disk to another VM")
    if giver.running and not UNUSED.fullmatch(slot):
        raise ApiError("Cannot move disk to another VM while the source VM is running - detach first")
    if UNUSED.fullmatch(goal):
        return Drive(goal, drive.file)
    found = parse_drive(goal, giver.conf.values[slot])
    if found is None:
        raise ApiError("failed to parse source disk for target disk format - ")
    return found


def _hand_over(call: Call, target: int, goal: str, log: TaskLog) -> None:
    giver, taker, drive = _reassignable(call, target, goal)
    slot = str(call.values["disk"])
    log(f"reassign disk '{slot}' from VM '{giver.vmid}' as '{goal}' to VM '{target}'")
    drive.file = call.storages.rename(drive.file, target)
    conf = giver.load()
    order = boot_order(conf.values)
    if slot in order:
        log(f"removing disk '{slot}' from boot order config")
        conf.values["boot"] = print_boot([device for device in order if device != slot])
    del conf.values[slot]
    log(f"removing disk '{slot}' from VM '{giver.vmid}' config")
    giver.write(conf)
    if UNUSED.fullmatch(goal):
        conf = taker.load()
        conf.values[goal] = drive.file
        taker.write(conf)
        return
    values = {"node": call.node, "vmid": target, goal: str(drive)}
    if call.values.get("target-digest"):
        values["digest"] = call.values["target-digest"]
    update = update_of(Call(call.cluster, "PUT", call.template, values, call.user))
    update.apply(log)


GUEST = "/nodes/{node}/qemu/{vmid}"
ROUTES = [
    Route("PUT", GUEST + "/resize", _resize),
    Route("POST", GUEST + "/move_disk", _move),
]
