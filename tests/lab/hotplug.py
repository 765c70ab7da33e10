# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pending values become the configuration: at once when the guest is stopped, by hot-plug when it runs.

After qemu-server 9.2.6, QemuServer.pm (vmconfig_apply_pending, vmconfig_hotplug_pending, vmconfig_update_disk,
vm_deviceplug, vm_deviceunplug). QEMU itself is a dict: which drive strings the running guest has been given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab.api import ApiError, Call, TaskLog
from lab.disks import in_use
from lab.drives import Drive, boot_disks, is_drive, parse_drive
from lab.guest import Conf, Guest
from lab.networks import parts
from lab.storages import StorageError, Storages

AT_ONCE = frozenset(["description", "hookscript", "lock", "migrate_downtime", "migrate_speed", "name", "onboot",
                     "protection", "shares", "startup", "tags", "vmstatestorage", "cicustom", "cipassword", "citype",
                     "ciuser", "ciupgrade", "nameserver", "searchdomain", "sshkeys"])
WAITS = ("aio", "discard", "iothread", "queues", "product", "cache", "ssd", "vendor", "ro")
"""Drive options that a running guest does not take up; one of them makes the whole drive string wait."""


class Skip(Exception):
    """The value has to wait until the guest is stopped."""


def owns(storages: Storages, vmid: int, volid: str, log: TaskLog) -> bool:
    """Whether the volume is the guest's by its name; PVE warns when the name says nothing."""
    if volid.startswith("/"):
        return False
    try:
        return storages.parse_volname(volid).owner == vmid
    except StorageError as error:
        log.warn(f"ownership of volume '{volid}' could not be determined: {error.message}")
        return False


def register_unused(call: Call, guest: Guest, conf: Conf, drive: Drive, log: TaskLog) -> None:
    """A volume that leaves its slot becomes unusedN; a cloud-init drive is destroyed."""
    if drive.is_cloudinit:
        try:
            call.storages.free(drive.file, log)
        except StorageError as error:
            log(error.message)
    elif not drive.is_cdrom and ":" in drive.file and owns(call.storages, guest.vmid, drive.file, log):
        conf.add_unused(drive.file)


def deallocate(call: Call, conf: Conf, key: str, drive: Drive, log: TaskLog) -> None:
    """Destroys the volume of a drive if the guest owns it and nothing else names it (try_deallocate_drive)."""
    vmid = int(call.values["vmid"])
    if drive.is_medium or not owns(call.storages, vmid, drive.file, log):
        return
    call.check(f"/storage/{call.storages.parse_volid(drive.file)[0]}", "Datastore.AllocateSpace")
    if in_use(call.storages, conf, drive.file, key):
        raise ApiError(f"unable to delete '{drive.file}' - volume is still in use (snapshot?)")
    call.storages.free(drive.file, log)


@dataclass
class Change:
    """Applies the pending values of one guest."""

    call: Call
    guest: Guest
    log: TaskLog
    selected: dict[str, bool] | None = None
    """Only these options; None for all."""
    errors: dict[str, str] = field(default_factory=dict)

    # ---- stopped

    def coldplug(self) -> dict[str, str]:
        """Applies everything; gives the texts by option of what failed and stays pending."""
        conf = self.guest.load()
        for option, force in sorted(conf.deletions().items()):
            with self._noting(option, f"unable to apply pending change {option} : ") as noted:
                if option in conf.values and is_drive(option):
                    self._detach(conf, option, force)
            if not noted:
                conf.drop_deletion(option)
                conf.values.pop(option, None)
        conf.tidy_pending()
        for option in [key for key in conf.pending if key != "delete"]:
            with self._noting(option, f"unable to apply pending change {option} : ") as noted:
                if option in conf.values and is_drive(option):
                    old = parse_drive(option, conf.values[option])
                    if old is not None:
                        register_unused(self.call, self.guest, conf, old, self.log)
            if not noted:
                conf.values[option] = conf.pending.pop(option)
        self.guest.write(conf)
        return self.errors

    def _detach(self, conf: Conf, slot: str, force: bool) -> None:
        drive = parse_drive(slot, conf.values[slot])
        if drive is None:
            return
        if force:
            self.call.check(f"/vms/{self.guest.vmid}", "VM.Config.Disk")
            deallocate(self.call, conf, slot, drive, self.log)
        else:
            register_unused(self.call, self.guest, conf, drive, self.log)

    @contextmanager
    def _noting(self, option: str, prefix: str) -> Iterator[list[str]]:
        """Turns an error into an entry of `errors`; yields a list that is not empty then, nor when it was skipped."""
        noted: list[str] = []
        try:
            yield noted
        except Skip:
            noted.append("skip")
        except (ApiError, StorageError) as error:
            status = "" if error.status == 500 else f"{error.status} "
            text = f"{prefix}{status}{error.message}\n"
            if prefix.startswith("unable"):
                self.log(text)
            self.errors[option] = text
            noted.append(text)

    # ---- running

    def hotplug(self) -> dict[str, str]:
        """Applies what a running guest takes up; the rest stays pending."""
        conf = self.guest.load()
        for option in [key for key in conf.pending if key in AT_ONCE]:
            conf.values[option] = conf.pending.pop(option)
        features = conf.values.get("hotplug", "1")
        disk = features == "1" or "disk" in features
        for option, force in sorted(conf.deletions().items()):
            if self.selected is not None and not self.selected.get(option):
                continue
            with self._noting(option, "hotplug problem - ") as noted:
                self._remove(conf, option, force, disk, features)
            if not noted:
                conf.values.pop(option, None)
                conf.drop_deletion(option)
        for option in [key for key in conf.pending if key != "delete"]:
            if self.selected is not None and not self.selected.get(option):
                continue
            with self._noting(option, "hotplug problem - ") as noted:
                self._change(conf, option, conf.pending[option], disk, features)
            if not noted:
                conf.values[option] = conf.pending.pop(option)
        self.guest.write(conf)
        return self.errors

    def _remove(self, conf: Conf, option: str, force: bool, disk: bool, features: str) -> None:
        if option in AT_ONCE or option in ("cpuunits", "cpulimit"):
            return
        if is_drive(option):
            if not disk or re.match("efidisk|ide|sata|tpmstate", option):
                raise Skip
            self._unplug(conf, option)
            self._detach(conf, option, force)
        elif re.fullmatch(r"net\d+", option) and (features == "1" or "network" in features):
            return
        else:
            raise Skip

    def _change(self, conf: Conf, option: str, value: str, disk: bool, features: str) -> None:
        if is_drive(option):
            if option in ("efidisk0", "tpmstate0"):
                raise Skip
            drive = parse_drive(option, value)
            if drive is not None:
                self._disk(conf, option, drive, disk)
        elif re.fullmatch(r"net\d+", option):
            self._net(conf, option, value, features == "1" or "network" in features)
        elif option == "agent":
            self._agent(conf, value)
        elif option not in ("cpuunits", "cpulimit"):
            raise Skip

    @staticmethod
    def _agent(conf: Conf, value: str) -> None:
        """Only fstrim_cloned_disks can change in a running guest."""
        def settings(text: str) -> set[str]:
            return {part for part in re.sub(r"^([01])(?=,|$)", r"enabled=\1", text).split(",")
                    if not part.startswith("fstrim_cloned_disks=")}

        if "agent" not in conf.values or settings(conf.values["agent"]) != settings(value):
            raise Skip

    @staticmethod
    def _net(conf: Conf, option: str, value: str, plug: bool) -> None:
        old = parts(conf.values.get(option, ""))
        if old[:2] != parts(value)[:2] and not plug:
            raise Skip

    def _disk(self, conf: Conf, slot: str, drive: Drive, plug: bool) -> None:
        running = self.guest.running
        old = parse_drive(slot, conf.values[slot]) if slot in conf.values else None
        if running is None:
            raise Skip
        if old is not None:
            if drive.options.get("media", "disk") != old.options.get("media", "disk"):
                raise ApiError("unable to change media type")
            if old.is_cdrom:
                self._medium(conf, slot, drive, old)
                return
            if drive.file == old.file:
                if any(drive.options.get(key) != old.options.get(key) for key in WAITS):
                    raise Skip
                running.drives[slot] = str(drive)
                return
            if not plug:
                raise Skip
            self._unplug(conf, slot)
            register_unused(self.call, self.guest, conf, old, self.log)
        if not plug or re.match("ide|sata", slot):
            raise Skip
        if ":" in drive.file:
            self.call.storages.info(drive.file)
        running.drives[slot] = str(drive)

    def _medium(self, conf: Conf, slot: str, drive: Drive, old: Drive) -> None:
        if self.guest.running is not None:
            self.guest.running.drives[slot] = str(drive)
        if drive.file == "none" and old.is_cloudinit:
            register_unused(self.call, self.guest, conf, old, self.log)

    def _unplug(self, conf: Conf, slot: str) -> None:
        """Takes the device out, unless it is the boot disk or the guest does not let go."""
        running = self.guest.running
        if running is None or slot not in running.drives:
            return
        if slot in boot_disks(conf.values):
            raise ApiError(f"can't unplug bootdisk '{slot}'")
        held = running.status == "paused" or (self.guest.vmid, slot) in self.call.cluster.faults.busy_slots
        if slot.startswith("scsi") or not held:
            del running.drives[slot]  # a SCSI disk goes at once, its controller may not
        if held:
            device = slot
            if slot.startswith("scsi"):
                device = f"virtioscsi{slot[4:]}" if conf.values.get("scsihw") == "virtio-scsi-single" else "scsihw0"
            self.call.cluster.clock.sleep(15 if slot.startswith("scsi") else 6)
            raise ApiError(f"error on hot-unplugging device '{device}' - still busy in guest?")
