# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GET, PUT and POST of a guest's configuration, unlink.

After qemu-server 9.2.6, API2/Qemu.pm (update_vm_api, check_vm_modify_config_perm). One call goes through
these stages: parameters, rights, the configuration's digest and lock (all before a UPID); then, under the guest's
lock, deletions and new values are written as pending values one by one; at last they are applied, by hot-plug when
the guest runs (lab.hotplug).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lab import hotplug
from lab.api import ApiError, Call, Route, TaskLog, bad
from lab.disks import Maker, check_storages, check_syntax
from lab.drives import UNUSED, Drive, boot_order, is_drive, parse_drive, print_boot
from lab.guest import Conf, Guest
from lab.networks import with_mac
from lab.schema import option_schema

CONFIG = "/nodes/{node}/qemu/{vmid}/config"
RIGHTS = {
    "VM.Config.CPU": "cores cpu runningcpu cpulimit cpuunits numa smp sockets vcpus",
    "VM.Config.Memory": "memory balloon shares allow-ksm",
    "VM.Config.HWType": "acpi hotplug kvm machine runningmachine scsihw smbios1 tablet vga watchdog audio0 rng0",
    "VM.Config.Options": "agent autostart bios description keyboard localtime migrate_downtime migrate_speed name "
                         "onboot ostype protection reboot startdate startup tdf template tags",
    "VM.PowerMgmt": "freeze",
    "VM.Config.Disk": "boot bootdisk vmstatestorage",
    "VM.Config.Cloudinit|VM.Config.Network": "cicustom cipassword citype ciuser ciupgrade nameserver searchdomain "
                                             "sshkeys",
}
RIGHT_OF = {option: right for right, options in RIGHTS.items() for option in options.split()}
NUMBERED = {"numa": "VM.Config.CPU", "net": "VM.Config.Network", "serial": "VM.Config.HWType",
            "usb": "VM.Config.HWType", "ipconfig": "VM.Config.Cloudinit|VM.Config.Network"}


def check_rights(call: Call, vmid: int, options: Iterable[str]) -> None:
    """403 for an option that the caller may not change; drives are looked at elsewhere, by their content."""
    if call.is_root:
        return
    for option in options:
        if is_drive(option) or UNUSED.fullmatch(option):
            continue
        right = RIGHT_OF.get(option) or NUMBERED.get(option.rstrip("0123456789"))
        if right is None:
            raise ApiError(f"only root can set '{option}' config")
        call.check(f"/vms/{vmid}", *right.split("|"), any_of="|" in right)


def check_drive_right(call: Call, drive: Drive) -> None:
    """The right that a drive's kind asks for."""
    path = f"/vms/{call.values['vmid']}"
    if drive.is_cloudinit:
        call.check(path, "VM.Config.Cloudinit", "VM.Config.CDROM")
    elif drive.is_cdrom:
        call.check(path, "VM.Config.CDROM")
    else:
        call.check(path, "VM.Config.Disk")


def root_only(call: Call, *names: str) -> None:
    """400 for parameters that only root's own login may use."""
    for name in names:
        if call.values.get(name) and not call.is_root:
            raise bad(**{name: "Only root may use this option."})


def words(text: Any) -> list[str]:
    """A list parameter: separated by commas, semicolons or blanks."""
    return [word for word in re.split(r"[,;\s]+", str(text or "")) if word]


# ---- reading


def _get(call: Call) -> bytes:
    current, snapshot = bool(call.values.get("current")), call.values.get("snapshot")
    if current and snapshot:
        text = "cannot use 'snapshot' parameter with 'current'"
        raise bad(snapshot=text, current=text)
    return call.guest.config_answer(current, snapshot)


def _pending(call: Call) -> bytes:
    return call.guest.pending_answer()


# ---- changing


@dataclass
class Update:
    """One config call."""

    call: Call
    values: dict[str, str]
    delete: list[str]
    revert: list[str]
    force: bool
    digest: str | None
    skiplock: bool
    working: str | None
    title: str
    modified: dict[str, bool] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    @property
    def vmid(self) -> int:
        """The guest."""
        return int(self.call.values["vmid"])

    # ---- before the lock

    def load(self, collect: bool = False) -> Conf:
        """The configuration, if it may be changed now; `collect` takes the reverts in."""
        conf = self.call.guest.load()
        if self.digest and self.digest != conf.digest:
            raise ApiError("checksum mismatch (file change by other user?)")
        if not self.skiplock:
            conf.check_lock()
        for option in self.revert:
            if option in conf.values:
                self.values[option] = conf.values[option]
            elif option in conf.pending and collect:
                self.delete.append(option)
        return conf

    # ---- under the lock

    def apply(self, log: TaskLog) -> None:
        """The whole change; raises what PVE answers when a part of it fails."""
        guest = self.call.guest
        self.order = boot_order(self.load(collect=True).values)
        log(f"update VM {self.vmid}: {self.title}")
        for option in self.delete:
            self._delete(guest, option, log)
        names = sorted(self.values)
        self.call.cluster.random.shuffle(names)
        for option in names:
            self._set(guest, option, log)
        conf = guest.load()
        conf.tidy_pending()
        guest.write(conf)
        if not conf.pending:
            return
        change = hotplug.Change(self.call, guest, log, self.modified)
        errors = change.hotplug() if guest.running else change.coldplug()
        if errors:
            raise ApiError("Parameter verification failed.", 400, errors)

    def _delete(self, guest: Guest, option: str, log: TaskLog) -> None:
        conf = guest.load()
        self.modified[option] = True
        value = conf.values.get(option, conf.pending.get(option))
        if value is None:
            log(f"cannot delete '{option}' - not set in current configuration!")
            self.modified[option] = False
            return
        was_pending = conf.pending.pop(option, None) is not None
        if option in self.order:
            self.order = [device for device in self.order if device != option]
            conf.pending["boot"] = print_boot(self.order)
            self.modified["boot"] = True
        if UNUSED.fullmatch(option):
            self._delete_unused(guest, conf, option, value, log)
            return
        if is_drive(option):
            conf.check_protection(f"can't remove drive '{option}'")
            drive = parse_drive(option, value)
            if drive is not None:
                check_drive_right(self.call, drive)
                if was_pending:
                    hotplug.register_unused(self.call, guest, conf, drive, log)
        if option == "tags":
            conf.values.pop(option, None)
        else:
            conf.add_deletion(option, self.force)
        guest.write(conf)

    def _delete_unused(self, guest: Guest, conf: Conf, option: str, volid: str, log: TaskLog) -> None:
        """An unused volume is destroyed, whether or not `force` is given."""
        conf.check_protection(f"can't remove unused disk '{volid}'")
        self.call.check(f"/vms/{self.vmid}", "VM.Config.Disk")
        hotplug.deallocate(self.call, conf, option, Drive(option, volid), log)
        conf.values.pop(option, None)
        guest.write(conf)

    def _set(self, guest: Guest, option: str, log: TaskLog) -> None:
        conf, value = guest.load(), self.values[option]
        self.modified[option] = True
        if conf.pending.get(option) == value:
            return
        if is_drive(option):
            self._set_drive(guest, conf, option, value, log)
        else:
            conf.pending[option] = value
            if option == "boot" and value.startswith("order="):
                self._check_boot(conf, value)
                if "bootdisk" in conf.values:
                    conf.add_deletion("bootdisk")
        conf.drop_deletion(option)
        guest.write(conf)

    def _set_drive(self, guest: Guest, conf: Conf, option: str, value: str, log: TaskLog) -> None:
        new = parse_drive(option, value)
        if option in conf.values:
            old = parse_drive(option, conf.values[option])
            if old is not None:
                check_drive_right(self.call, old)
                if option == "tpmstate0" and new is not None:
                    _same_version(old, new)
        if new is None:
            raise bad(**{option: "unable to parse drive options"})
        check_drive_right(self.call, new)
        if option in conf.pending:
            waiting = parse_drive(option, conf.pending[option])
            if waiting is not None:
                hotplug.register_unused(self.call, guest, conf, waiting, log)
        maker = Maker(self.call, self.vmid, conf, log, working=self.working)
        conf.pending.update(maker.make({option: value}))
        if self.order and new.is_medium and option not in self.order:
            self.order.append(option)
            conf.pending["boot"] = print_boot(self.order)
            self.modified["boot"] = True

    def _check_boot(self, conf: Conf, value: str) -> None:
        devices = boot_order({"boot": value})
        for device in devices:
            known = device in conf.values or device in conf.pending or device in self.values
            if not known or device in self.delete:
                raise ApiError(f"invalid bootorder: device '{device}' does not exist'")
        conf.pending["boot"] = print_boot(devices)


def _same_version(old: Drive, new: Drive) -> None:
    if old.file == new.file and old.options.get("version", "v1.2") != new.options.get("version", "v1.2"):
        raise ApiError("cannot change TPM state version after creation")


def _names(values: dict[str, str], delete: str, revert: str) -> tuple[list[str], list[str]]:
    reverts, deletes = words(revert), []
    for option in reverts:
        if option_schema(option) is None:
            raise bad(revert=f"unknown option '{option}'")
        if option in values:
            raise bad(delete=f"you can't use '-{option}' and -revert {option}' at the same time")
    for name in words(delete):
        option = "ide2" if name == "cdrom" else name
        if option in values:
            raise bad(delete=f"you can't use '-{option}' and -delete {option}' at the same time")
        if option in reverts:
            raise bad(revert=f"you can't use '-delete {option}' and -revert {option}' at the same time")
        if option_schema(option) is None:
            raise bad(delete=f"unknown option '{option}'")
        deletes.append(option)
    return deletes, reverts


def prepare(call: Call, values: dict[str, str]) -> None:
    """What PVE makes of some values before it looks at the configuration."""
    for option in [key for key in values if re.fullmatch(r"net\d+", key)]:
        values[option] = with_mac(values[option], call.cluster.random)
    if "tags" in values:
        unique = {tag.lower(): tag for tag in reversed(words(values["tags"]))}
        values["tags"] = ";".join(unique[tag] for tag in sorted(unique))


def cdrom_alias(values: dict[str, str]) -> None:
    """`cdrom` is ide2."""
    if value := values.pop("cdrom", None):
        values["ide2"] = value if "media=" in value else f"{value},media=cdrom"


def update_of(call: Call) -> Update:
    """Checks the parameters of a config call and the caller's rights."""
    root_only(call, "skiplock")
    own = ("node", "vmid", "digest", "background_delay", "import-working-storage", "skiplock", "delete", "revert",
           "force")
    values = {key: str(value) for key, value in call.values.items() if key not in own}
    shown = {key: call.values[key] for key in call.values if key not in own[:5]}
    title = " ".join(f"-{key} {'<hidden>' if key == 'cipassword' else shown[key]}" for key in sorted(shown))
    given = call.values.get("delete"), call.values.get("revert")
    if not any(given) and not values:
        raise ApiError("no options specified")
    cdrom_alias(values)
    delete, revert = _names(values, *(str(text or "") for text in given))
    check_syntax(call, values)
    prepare(call, values)
    if values.get("vmgenid") == "1":
        values["vmgenid"] = str(uuid.uuid4())
    vmid, working = int(call.values["vmid"]), call.values.get("import-working-storage")
    check_rights(call, vmid, delete)
    check_rights(call, vmid, values)
    check_storages(call, vmid, values, working=working)
    return Update(call, values, delete, revert, bool(call.values.get("force")), call.values.get("digest"),
                  bool(call.values.get("skiplock")), working, title)


def update_now(call: Call) -> None:
    """The whole of PUT config."""
    update = update_of(call)
    update.load()
    with call.cluster.lock(update.vmid):
        update.apply(TaskLog())


def _put(call: Call) -> None:
    update_now(call)


def _post(call: Call) -> str | None:
    update = update_of(call)
    update.load()

    def work(log: TaskLog) -> None:
        with call.cluster.lock(update.vmid):
            update.apply(log)

    upid = call.task("qmconfig", update.vmid, work)
    delay = call.values.get("background_delay")
    if not delay:
        return upid
    task = call.cluster.tasks.get(call.node, upid)
    if not call.cluster.tasks.ends_within(task, float(delay)):
        return upid
    if task.exit != "OK" and not str(task.exit).startswith("WARNINGS"):
        raise ApiError(f"failed to update VM {update.vmid}: {task.exit}")
    return None


def _unlink(call: Call) -> None:
    call.values["delete"] = call.values.pop("idlist")
    update_now(call)


ROUTES = [
    Route("GET", CONFIG, _get, quick=True),
    Route("GET", "/nodes/{node}/qemu/{vmid}/pending", _pending, quick=True),
    Route("PUT", CONFIG, _put),
    Route("POST", CONFIG, _post),
    Route("PUT", "/nodes/{node}/qemu/{vmid}/unlink", _unlink),
]
