# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives of a request become volumes: the checks beforehand, new disks, imports, full and linked clones.

After qemu-server 9.2.6: API2/Qemu.pm (check_drive_param, check_storage_access, create_disks), QemuServer.pm
(clone_disk), ImportDisk.pm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from lab import images
from lab.api import ApiError, Call, bad
from lab.drives import NEW_DISK, SLOTS, UNITS, UNUSED, Drive, drives, is_drive, parse_drive
from lab.guest import Conf
from lab.storages import StorageError, Storages, Volname

FORMATS = ("raw", "qcow", "qed", "qcow2", "vmdk", "cloop")
EFI_SIZE = 540672
TPM_SIZE = 4 << 20
CLOUDINIT_SIZE = 4 << 20
PATHS_FOR_ROOT = "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651."
_MANAGED = re.compile(r"[a-z][a-z0-9\-_.]*[a-z0-9]:.+", re.IGNORECASE)


def managed(volid: str) -> bool:
    """Whether the text has the form of a volume id."""
    return bool(_MANAGED.fullmatch(volid))


def volname(volid: str) -> str | None:
    """The part after the storage."""
    return volid.partition(":")[2] if managed(volid) else None


def checked(storages: Storages, volid: str) -> Volname:
    """What a volume's name says, refused when its format is nothing for QEMU."""
    name = storages.parse_volname(volid)
    if name.format.removeprefix("ova+" if name.vtype == "import" else "") not in FORMATS:
        raise ApiError(f"volume '{volid}' - not a QEMU image format '{name.format}'")
    return name


def requested(values: Mapping[str, str]) -> Iterator[tuple[str, Drive]]:
    """The drives of a request in string order of the slots, as create handles them."""
    for slot in sorted(slot for slot in values if is_drive(slot)):
        drive = parse_drive(slot, values[slot])
        if drive is not None:
            yield slot, drive


# ---- before anything is done


def check_syntax(call: Call, values: dict[str, str]) -> None:
    """Parses every drive of the request and puts it back in PVE's own spelling."""
    for slot in sorted(slot for slot in values if is_drive(slot)):
        drive = parse_drive(slot, values[slot])
        if drive is None:
            raise bad(**{slot: "unable to parse drive options"})
        if "import-from" in drive.options:
            _check_import(drive)
        _adopt_path(drive)
        existing = managed(drive.file) and not NEW_DISK.fullmatch(drive.file) and volname(drive.file) != "cloudinit"
        if existing and call.storages.parse_volname(drive.file).vtype == "iso" and not drive.is_cdrom:
            raise bad(**{slot: "explicit 'media=cdrom' is required for iso images"})
        values[slot] = str(drive)


def _check_import(drive: Drive) -> None:
    found = NEW_DISK.fullmatch(drive.file)
    if found is None or float(found["size"]) != 0:
        raise bad(**{drive.slot: "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"})
    required = {"efidisk0": ("efitype", "pre-enrolled-keys"), "tpmstate0": ("version",)}.get(drive.slot, ())
    for option in required:
        if option not in drive.options:
            raise bad(**{drive.slot: f"need to specify '{option}' when using 'import-from'"})


def _adopt_path(drive: Drive) -> None:
    """PVE looks up which storage a path belongs to (cleanup_drive_path); the lab knows none but devices."""
    if drive.file in ("cdrom", "none"):
        drive.options.setdefault("media", "cdrom")
    elif not drive.file.startswith("/dev/") and ":" not in drive.file and not drive.file.isdigit():
        raise bad(**{drive.slot: f"unable to associate path '{drive.file}' to any storage"})


def check_volume(call: Call, vmid: int, volid: str, vtype: str | None = None) -> None:
    """Whether the caller may use an existing volume for this guest (PVE::Storage::check_volume_access)."""
    if not managed(volid):
        if not call.is_root:
            raise ApiError(PATHS_FOR_ROOT)
        return
    name = call.storages.parse_volname(volid)
    if vtype is not None and name.vtype != vtype:
        raise ApiError(f"unable to use volume {volid} - content type needs to be '{vtype}'")
    storage = f"/storage/{name.storage}"
    if call.allowed(storage, "Datastore.Allocate"):
        return
    if name.vtype in ("iso", "vztmpl", "import"):
        call.check(storage, "Datastore.AllocateSpace", "Datastore.Audit", any_of=True)
    elif name.owner is not None and name.owner == vmid:
        return
    elif name.vtype in ("images", "rootdir") and name.owner is not None:
        call.check(storage, "Datastore.Audit")
        call.check(f"/vms/{name.owner}", "VM.Config.Disk")
    else:
        raise ApiError(f"missing privileges to access {volid}")


def check_storages(call: Call, vmid: int, values: Mapping[str, str], default: str | None = None,
                   working: str | None = None) -> None:
    """Rights and content types of every storage and volume that the request's drives name."""
    for slot, drive in requested(values):
        new = NEW_DISK.fullmatch(drive.file)
        if drive.file == "none" or volname(drive.file) == "cloudinit" or drive.file == "cloudinit":
            pass
        elif drive.is_cdrom and drive.file == "cdrom":
            call.check("/", "Sys.Console")
        elif new and not drive.is_cdrom:
            _check_target(call, new["storage"] or default)
        else:
            check_volume(call, vmid, drive.file)
            if managed(drive.file) and call.storages.parse_volname(drive.file).vtype not in ("images", "iso"):
                raise bad(**{slot: "content type needs to be 'images' or 'iso'"})
        if "import-from" in drive.options:
            _check_source(call, vmid, drive, working)
    for key in sorted(key for key in values if UNUSED.fullmatch(key)):
        if not managed(values[key]):
            raise bad(**{key: f"not a valid volid: {values[key]}"})
        check_volume(call, vmid, values[key], "images")


def _check_target(call: Call, sid: str | None) -> None:
    if sid is None:
        raise ApiError("no storage ID specified (and no default storage)")
    call.check(f"/storage/{sid}", "Datastore.AllocateSpace")
    call.storages.get(sid)
    if "images" not in call.storages.content_types(sid):
        raise bad(storage=f"storage '{sid}' does not support vm images")


def _check_source(call: Call, vmid: int, drive: Drive, working: str | None) -> None:
    source, storages = drive.options["import-from"], call.storages
    owner = None
    if managed(source):
        name = checked(storages, source)
        if name.vtype not in ("images", "import"):
            raise bad(**{drive.slot: f"{source} has wrong type '{name.vtype}' - needs to be 'images' or 'import'"})
        if name.format.startswith("ova+"):
            sid = working or name.storage
            if "images" not in storages.content_types(sid) or not storages.file_based(sid):
                raise bad(**{"import-working-storage" if working else drive.slot: f"import working storage '{sid}' "
                             "does not support 'images' content type or is not file based."})
            call.check(f"/storage/{sid}", "Datastore.AllocateSpace")
        owner = name.owner
    if owner:
        call.check(f"/vms/{owner}", "VM.Clone")
    else:
        check_volume(call, vmid, source)


# ---- making


@dataclass
class Maker:
    """Makes the drives of one request and remembers the new volumes, so that a failure leaves none behind."""

    call: Call
    vmid: int
    conf: Conf
    log: Callable[[str], None]
    default: str | None = None
    working: str | None = None
    made: list[str] = field(default_factory=list)
    drives: dict[str, str] = field(default_factory=dict)
    _news: set[str] = field(default_factory=set)

    @property
    def storages(self) -> Storages:
        """Where the volumes are made."""
        return self.call.storages

    def make(self, values: Mapping[str, str]) -> dict[str, str]:
        """Makes all drives of `values`; gives their configuration lines."""
        try:
            for slot, drive in requested(values):
                self._make(drive)
                self.drives[slot] = str(drive)
                if slot in self._news:
                    self.log(f"{slot}: successfully created disk '{drive}'")
        except (ApiError, StorageError):
            self.undo()
            raise
        return self.drives

    def undo(self) -> None:
        """Destroys the new volumes."""
        for volid in self.made:
            self.storages.free(volid, self.log)
        self.made.clear()

    def _make(self, drive: Drive) -> None:
        new = NEW_DISK.fullmatch(drive.file)
        if drive.file in ("none", "cdrom"):
            drive.size = None
            return
        if volname(drive.file) == "cloudinit":
            self._news.add(drive.slot)
            self._cloudinit(drive)
        elif new:
            self._news.add(drive.slot)
            sid = new["storage"] or self.default
            if sid is None:
                raise ApiError("no storage ID specified (and no default storage)")
            if source := drive.options.pop("import-from", None):
                self._import(drive, sid, source)
            else:
                self._allocate(drive, sid, float(new["size"]))
        else:
            self._attach(drive)

    def _one_cloudinit(self, slot: str) -> None:
        for values in (self.conf.values, self.conf.pending, self.drives):
            for other, drive in drives(values):
                if other != slot and drive.is_cloudinit:
                    raise ApiError(f"{slot} - cloud-init drive is already attached at '{other}'")

    def _cloudinit(self, drive: Drive) -> None:
        self._one_cloudinit(drive.slot)
        sid = drive.file.partition(":")[0]
        config = self.storages.get(sid)
        files, chain = self.storages.file_based(sid), bool(config.get("snapshot-as-volume-chain"))
        fmt = drive.options.pop("format", "qcow2" if files or chain else "raw")
        name = f"vm-{self.vmid}-cloudinit" + (f".{fmt}" if files or chain and fmt == "qcow2" else "")
        drive.file = self._new(sid, fmt, name, CLOUDINIT_SIZE)
        drive.options["media"] = "cdrom"

    def _new(self, sid: str, fmt: str | None, name: str | None, size: int) -> str:
        volid = self.storages.alloc(sid, self.vmid, fmt, name, size, self.log)
        self.made.append(volid)
        return volid

    def _allocate(self, drive: Drive, sid: str, gib: float) -> None:
        fmt = drive.options.pop("format", None) or self.storages.formats(sid)[0]
        if drive.slot == "efidisk0":
            volid = self._new(sid, fmt, None, EFI_SIZE)
            drive.size = self.storages.info(volid).size
        else:
            drive.size = TPM_SIZE if drive.slot == "tpmstate0" else ceil(gib * UNITS["G"] / 1024) * 1024
            volid = self._new(sid, fmt, None, drive.size)
        drive.file = self._base(volid)

    def _base(self, volid: str) -> str:
        """A new disk of a template is a base volume at once."""
        if not self.conf.is_template:
            return volid
        base = self.storages.create_base(volid)
        self.made[self.made.index(volid)] = base
        return base

    def _import(self, drive: Drive, sid: str, source: str) -> None:
        fmt = drive.options.pop("format", None)
        with self.storages.import_source(source, sid, self.vmid, self.log, self.working) as image:
            if isinstance(image, Path):
                volid = self.storages.convert(image, sid, self.vmid, fmt, self.log)
                self.made.append(volid)
                drive.file = self._base(volid)
            else:
                drive.file = self._copy(drive, image, sid, fmt)
        drive.size = self.storages.info(drive.file).size

    def _copy(self, drive: Drive, source: str, sid: str, fmt: str | None) -> str:
        try:
            origin = self._origin(source)
            volid = clone_disk(Copy(self.storages, origin, self.vmid, drive.slot, sid, fmt, self.log,
                                    _efi_size(drive.slot)), self.made).file
        except (ApiError, StorageError) as error:
            raise ApiError(f"cannot import from '{source}' - {error.message}") from error
        return volid

    def _origin(self, source: str) -> Drive:
        """The drive of the guest that owns the source and uses it, or a nameless one."""
        name = self.storages.parse_volname(source)
        owner = self.call.cluster.find(name.owner) if name.owner else None
        if owner is not None:
            if owner.node != self.call.node:
                raise ApiError(f"owner VM {owner.vmid} not on local node")
            for _, drive in drives(owner.conf.values):
                if drive.file == source:
                    return drive
        return Drive("", source)

    def _attach(self, drive: Drive) -> None:
        check_volume(self.call, self.vmid, drive.file)
        if not managed(drive.file):
            raise ApiError(f"volume {drive.file} does not exist")
        name = checked(self.storages, drive.file)
        if name.vtype not in ("images", "iso"):
            raise ApiError(f"cannot use volume {drive.file} - content type needs to be 'images' or 'iso'")
        if drive.options.get("format", name.format) != name.format:
            raise ApiError(f"drive '{drive.slot}' - volume '{drive.file}' - 'format={drive.options['format']}' option "
                           f"different from storage format '{name.format}'")
        if drive.is_cloudinit:
            self._one_cloudinit(drive.slot)
        self.storages.activate(drive.file)
        drive.size = self.storages.size(drive.file)


def _efi_size(slot: str) -> int | None:
    return {"efidisk0": EFI_SIZE, "tpmstate0": TPM_SIZE}.get(slot)


@dataclass
class Copy:
    """What a full copy of a disk needs to know."""

    storages: Storages
    drive: Drive
    """The source; its slot is empty when no guest uses it."""
    vmid: int
    slot: str
    """The target slot."""
    storage: str | None
    format: str | None
    log: Callable[[str], None]
    size: int | None = None
    snapshot: str | None = None
    mirror: Callable[[str], None] | None = None
    """Takes the place of the copy's own log when QEMU mirrors a running guest's disk."""
    limit: Callable[[int], None] | None = None
    """Waits as long as a copy of so many bytes takes under a bandwidth limit."""


def clone_disk(copy: Copy, made: list[str]) -> Drive:
    """A full copy of a drive; its volume is added to `made` as soon as it exists."""
    drive, storages, log = copy.drive, copy.storages, copy.log
    _same_kind(drive.slot, copy.slot)
    log(f"create full clone of drive {drive.slot + ' ' if drive.slot else ''}({drive.file})")
    sid = copy.storage or storages.parse_volid(drive.file)[0]
    fmt = storages.usable_format(sid, copy.format or checked(storages, drive.file).format)
    if copy.format and copy.format != fmt:
        log(f"format '{copy.format}' is not supported by the target storage '{sid}' - using '{fmt}' instead")
    name = None
    if drive.is_cloudinit:
        name = f"vm-{copy.vmid}-cloudinit" + (f".{fmt}" if storages.file_based(sid) else "")
    size = CLOUDINIT_SIZE if drive.is_cloudinit else copy.size or storages.size(drive.file)
    volid = storages.alloc(sid, copy.vmid, fmt, name, size, log)
    made.append(volid)
    log(f"allocated target volume '{volid}'")
    if not drive.is_cloudinit:
        _copy_data(copy, volid, size)
    new = drive.copy(file=volid)
    new.options.pop("format", None)
    if not UNUSED.fullmatch(drive.slot):
        new.size = storages.info(volid).size
    return new


def _same_kind(source: str, target: str) -> None:
    if source and source != target:
        for slot, what in (("efidisk0", "EFI disk requires EFI disk"), ("tpmstate0", "TPM state requires TPM state")):
            if slot in (source, target):
                raise ApiError(f"cloning from/to {what}")


def _copy_data(copy: Copy, target: str, size: int) -> None:
    drive, storages = copy.drive, copy.storages
    if copy.mirror:
        copy.mirror(drive.slot)
    if copy.limit:
        copy.limit(size)
    if drive.slot == "efidisk0":
        _copy_firmware(storages, drive.file, target, size)
    else:
        storages.copy(drive.file, target, (lambda _: None) if copy.mirror else copy.log, copy.snapshot)


def _copy_firmware(storages: Storages, source: str, target: str, size: int) -> None:
    """Only the firmware's variables are copied: on block storages the source is larger than they are."""
    place, fmt, _ = storages.source(source)
    content = images.read(place, fmt or "raw", size)
    images.write(storages.place(target), storages.parse_volname(target).format, content)


def in_use(storages: Storages, conf: Conf, volid: str, skip: str | None = None) -> bool:
    """Whether another slot of the configuration, or a snapshot, names the volume (Drive.pm, is_volume_in_use)."""
    for values, left_out in [(conf.values, skip), *((snapshot, None) for snapshot in conf.snapshots.values())]:
        for slot in SLOTS:
            if slot in values and slot != left_out:
                drive = parse_drive(slot, values[slot])
                if drive is not None and not drive.is_cdrom and drive.file == volid:
                    return True
    return False
