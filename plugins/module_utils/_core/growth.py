# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What it takes for a Linux guest to use all of a disk that has grown: partition, physical and logical volume, file
system. What is not understood is left alone, and said.

Sources: growpart of cloud-utils 0.33 (how a table is written while its partitions are in use), util-linux 2.38
(sfdisk's dump), lvm2 2.03, and UEFI 2.10, 5.3 (where a GPT ends).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .size import human_size

MIB = 1 << 20
#: Less than this at the end of a file system is what its own structures leave over.
_SLACK = 16 * MIB
_GPT_ENTRIES = 128 * 128
_MBR_SECTORS = 1 << 32
_EXTENDED = frozenset({"5", "f", "85"})
_FIRST_LOGICAL = 5
#: How many extents of a volume group were free before the growth began. Kept in the volume group itself, so that a run
#: that was cut short is finished by the next one, and space that was kept free on purpose stays free.
_TAG = "diskwright_free_"

_TOOLS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ext2": ("resize2fs", "e2fsprogs"),
        "ext3": ("resize2fs", "e2fsprogs"),
        "ext4": ("resize2fs", "e2fsprogs"),
        "xfs": ("xfs_growfs", "xfsprogs"),
        "btrfs": ("btrfs", "btrfs-progs"),
    }
)
_LAYERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "swap": ("is swap", "move swap away from the end of the disk, into a file for example, and run again"),
        "crypto_LUKS": ("is encrypted (LUKS)", "grow it by hand: growpart, cryptsetup resize, then what is on it"),
        "linux_raid_member": (
            "belongs to a RAID (mdraid)",
            "grow it by hand with mdadm --grow, when all members have grown",
        ),
        "zfs_member": ("belongs to ZFS", "grow it by hand: zpool online -e"),
        "bcache": ("belongs to bcache", "grow it by hand"),
        "vfat": ("is FAT, which can't grow in use", "move it away from the end of the disk"),
        "ntfs": ("is NTFS, which Linux can't grow in use", "grow it by hand: ntfsresize on the unmounted file system"),
        "BitLocker": ("is encrypted (BitLocker)", "grow it in Windows"),
        "mpath_member": ("is one of several paths to a disk", "grow it by hand: multipathd resize map"),
    }
)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition. ``start`` and ``size`` in sectors."""

    node: str
    number: int
    start: int
    size: int
    type: str = ""

    @property
    def end(self) -> int:
        """Its last sector."""
        return self.start + self.size - 1


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as the guest sees it.

    :param name: the kernel's name, ``sda``.
    :param size: bytes.
    :param sector: bytes of a logical sector.
    :param table: ``gpt``, ``dos``, or ``None``.
    :param dump: its table as ``sfdisk --dump`` writes it.
    """

    name: str
    size: int
    sector: int = 512
    table: str | None = None
    partitions: tuple[Partition, ...] = ()
    dump: str = ""

    @property
    def path(self) -> str:
        """Its device file."""
        return f"/dev/{self.name}"


@dataclass(frozen=True, slots=True)
class Device:
    """What is on a block device.

    :param path: as ``/dev/sda1`` or ``/dev/mapper/vg-root``.
    :param size: bytes.
    :param mounted: where, in the order of the mounts.
    :param read_only: whether it is mounted so everywhere.
    :param filesystem: bytes of its file system as that itself says, ``None`` if it can't be told.
    :param devid: the number of the device in a btrfs of several.
    """

    path: str
    size: int
    fstype: str | None = None
    mounted: tuple[str, ...] = ()
    read_only: bool = False
    filesystem: int | None = None
    devid: int = 1


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A physical volume: bytes, and where its extents begin."""

    path: str
    group: str
    size: int
    start: int


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume.

    :param path: ``/dev/vg/lv``.
    :param device: the path that lsblk shows.
    :param plain: whether it is linear or striped, and neither snapshot nor origin of one.
    """

    group: str
    name: str
    path: str
    device: str
    size: int
    plain: bool


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A volume group: bytes of an extent, how many are free, and its tags."""

    name: str
    extent: int
    free: int
    tags: tuple[str, ...] = ()
    healthy: bool = True

    @property
    def kept(self) -> int | None:
        """How many extents were free before a growth that is not finished, ``None`` if there is none such."""
        return next((int(tag.removeprefix(_TAG)) for tag in self.tags if re.fullmatch(_TAG + r"\d+", tag)), None)


@dataclass(frozen=True, slots=True)
class System:
    """A guest's storage, seen from inside."""

    disks: Mapping[str, Disk]
    devices: Mapping[str, Device]
    physical: Mapping[str, PhysicalVolume] = field(default_factory=lambda: MappingProxyType({}))
    groups: Mapping[str, VolumeGroup] = field(default_factory=lambda: MappingProxyType({}))
    logical: tuple[LogicalVolume, ...] = ()
    tools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    :param what: what grows.
    :param text: how.
    :param command: for a shell; empty where that is not how it is done.
    """

    what: str
    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Todo:
    """What only a person can do, and why: two clauses."""

    what: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Growth:
    """What it takes for one disk.

    :param todo: why there are no steps, or what they leave over.
    """

    steps: tuple[Step, ...] = ()
    todo: Todo | None = None


class _StopError(Exception):
    """A step that would not be safe."""

    def __init__(self, what: str, problem: str, remedy: str) -> None:
        self.todo = Todo(what, problem, remedy)
        super().__init__(str(self.todo))


def plan_growth(system: System, names: Iterable[str], chosen: str | None = None) -> dict[str, Growth]:
    """What it takes for each of these disks to be used to their ends.

    :param names: names of disks, ``sda``.
    :param chosen: the logical volume that takes the space where several could: its name, ``group/name`` or path.
    """
    planner = _Planner(system, chosen)
    found: dict[str, Growth] = {}
    members: dict[str, list[str]] = {}
    for name in names:
        found[name] = planner.disk(system.disks[name])
        for group in planner.take_groups():
            members.setdefault(group, []).append(name)
    for group, disks in members.items():
        growing = [name for name in disks if found[name].todo is None or found[name].steps]
        try:
            steps = tuple(planner.logical(system.groups[group])) if growing else ()
        except _StopError as stop:
            found.update(dict.fromkeys(growing, Growth(todo=stop.todo)))
            continue
        if steps:  # they come after those of all the disks of the group
            found[growing[-1]] = replace(found[growing[-1]], steps=(*found[growing[-1]].steps, *steps))
    return found


class _Planner:
    def __init__(self, system: System, chosen: str | None) -> None:
        self._system = system
        self._chosen = chosen
        self._groups: list[VolumeGroup] = []
        self._gained: dict[str, int] = {}

    def take_groups(self) -> list[str]:
        """The volume groups that were met since the last call."""
        names = [group.name for group in self._groups]
        self._groups = []
        return names

    def disk(self, disk: Disk) -> Growth:
        """The steps of one disk; none when one of them would not be safe."""
        try:
            if disk.table is None:
                return Growth(tuple(self._content(disk.path, disk.size, gain=0)))
            return self._partitioned(disk)
        except _StopError as stop:
            return Growth(todo=stop.todo)

    # ---- partitions

    def _partitioned(self, disk: Disk) -> Growth:
        real = [part for part in disk.partitions if not self._is_extended(disk, part)]
        if not real:
            return Growth()
        last = max(real, key=lambda part: part.end)
        end = last_sector(disk)
        gain = (end - last.end) * disk.sector
        if gain < MIB:
            gain, grown = 0, last
        else:
            self._check_table(disk, last)
            grown = replace(last, size=end - last.start + 1)
        size = grown.size * disk.sector
        steps = list(self._content(last.node, size, gain=gain))
        if gain:
            text = f"{human_size(last.size * disk.sector)} -> {human_size(size)}, to the end of {disk.name}"
            steps.insert(0, Step(short(last.node), text, _write_table(disk, last, grown)))
        return Growth(tuple(steps), _beyond_mbr(disk))

    def _is_extended(self, disk: Disk, part: Partition) -> bool:
        return disk.table == "dos" and part.type.lower().lstrip("0x") in _EXTENDED

    def _check_table(self, disk: Disk, last: Partition) -> None:
        if disk.table not in ("gpt", "dos"):
            raise _StopError(disk.name, f"its partition table ({disk.table}) is not known", "grow it by hand")
        extended = [part for part in disk.partitions if self._is_extended(disk, part)]
        if extended and last.number < _FIRST_LOGICAL and extended[0].start > last.end:
            problem = "an empty extended partition lies after it"
            raise _StopError(short(last.node), problem, "remove that, and run again")
        if "sfdisk" not in self._system.tools or "partx" not in self._system.tools:
            raise _StopError(disk.name, "the guest has no sfdisk or partx", "install util-linux and fdisk in it")

    # ---- what is on a device

    def _content(self, path: str, size: int, *, gain: int) -> Iterator[Step]:
        """The steps for what is on a device that will have this size."""
        device = self._system.devices.get(path)
        fstype = device.fstype if device else None
        if device is not None and fstype in _TOOLS:
            yield from self._filesystem(device, size, grown=gain > 0)
        elif fstype == "LVM2_member":
            yield from self._volume_group(path, size, gain=gain)
        elif gain:
            unknown = (f"has unknown content ({fstype or 'nothing recognised'})", "grow it by hand")
            problem, remedy = _LAYERS.get(fstype or "", unknown)
            raise _StopError(short(path), f"it is the last on the disk, and {problem}", remedy)

    def _filesystem(self, device: Device, size: int, *, grown: bool) -> Iterator[Step]:
        """The step for a file system.

        :param size: what its device will have.
        :param grown: whether the device grows now; else a little that is left over is nothing to do about.
        """
        fstype, what = device.fstype or "", short(device.path)
        now = device.size if device.filesystem is None else device.filesystem
        if size <= now or (not grown and size - now < _SLACK):
            return
        tool, package = _TOOLS[fstype]
        if not device.mounted:
            check = "run e2fsck -f and resize2fs on it, or mount it" if fstype.startswith("ext") else "mount it"
            raise _StopError(what, f"its {fstype} is not mounted, and can't grow safely", f"{check}, and run again")
        if device.read_only:
            raise _StopError(what, f"its {fstype} is mounted read-only", "remount it writable, and run again")
        if tool not in self._system.tools:
            raise _StopError(what, f"the guest has no {tool}", f"install {package} in it")
        where = device.mounted[0]
        commands = {
            "resize2fs": f"resize2fs {shlex.quote(device.path)}",
            "xfs_growfs": f"xfs_growfs {shlex.quote(where)}",
            "btrfs": f"btrfs filesystem resize {device.devid}:max {shlex.quote(where)}",
        }
        yield Step(where, f"{fstype} {human_size(now)} -> {human_size(size)}", commands[tool])

    # ---- LVM

    def _volume_group(self, path: str, size: int, *, gain: int) -> Iterator[Step]:
        volume = self._system.physical.get(path)
        if volume is None or not volume.group:
            if gain:
                raise _StopError(short(path), "it is a physical volume of no group", "run pvresize on it")
            return
        group = self._system.groups[volume.group]
        more = max(0, (size - volume.start) // group.extent - volume.size // group.extent)
        self._groups.append(group)
        if more > (0 if gain else 1):  # an extent may be lost to a second copy of LVM's own data
            self._target(group, required=True)
            self._need("pvresize", "lvextend")
            noted = group.kept is not None or group.name in self._gained
            note = "" if noted else f"vgchange --addtag {_TAG}{group.free} {shlex.quote(group.name)} && "
            sizes = f"{human_size(volume.size)} -> {human_size(volume.size + more * group.extent)}"
            self._gained[group.name] = self._gained.get(group.name, 0) + more
            yield Step(short(path), f"physical volume {sizes}", f"{note}pvresize {shlex.quote(path)}")

    def _need(self, *tools: str) -> None:
        for tool in tools:
            if tool not in self._system.tools:
                raise _StopError("LVM", f"the guest has no {tool}", "install lvm2 in it")

    def _target(self, group: VolumeGroup, *, required: bool) -> LogicalVolume | None:
        """The logical volume that takes the space.

        :param required: whether there is space to take; else it is fine not to know.
        """
        if not required and group.kept is None:
            volumes = self._candidates(group)
            named = [volume for volume in volumes if self._is_chosen(volume)]
            return self._only(named or volumes)
        if not group.healthy:
            raise _StopError(group.name, "the volume group is shared, exported or incomplete", "grow it by hand")
        volumes = self._candidates(group)
        chosen = [volume for volume in volumes if self._is_chosen(volume)]
        if chosen or len(volumes) == 1:
            return (chosen or volumes)[0]
        if not volumes:
            problem = "none of its logical volumes has a file system that can grow in use"
            raise _StopError(group.name, problem, "grow it by hand with lvextend -r")
        names = ", ".join(f"{group.name}/{volume.name}" for volume in volumes)
        problem = f"several logical volumes could take the space: {names}"
        raise _StopError(group.name, problem, "name one with logical_volume")

    @staticmethod
    def _only(volumes: list[LogicalVolume]) -> LogicalVolume | None:
        return volumes[0] if len(volumes) == 1 else None

    def _is_chosen(self, volume: LogicalVolume) -> bool:
        return self._chosen in (volume.name, f"{volume.group}/{volume.name}", volume.path, volume.device)

    def _candidates(self, group: VolumeGroup) -> list[LogicalVolume]:
        """Those with a file system that can grow."""
        devices = self._system.devices
        return [
            volume
            for volume in self._system.logical
            if volume.group == group.name
            and volume.plain
            and (device := devices.get(volume.device)) is not None
            and device.fstype in _TOOLS
            and device.mounted
            and not device.read_only
        ]

    def logical(self, group: VolumeGroup) -> Iterator[Step]:
        """The steps of a volume group whose physical volumes have grown."""
        gained = self._gained.get(group.name, 0)
        target = self._target(group, required=gained > 0)
        if target is None:
            return
        kept = group.kept if group.kept is not None else group.free
        more = group.free + gained - kept
        name, device = f"{group.name}/{target.name}", self._system.devices[target.device]
        size = target.size + more * group.extent
        clean = f"vgchange --deltag {_TAG}{kept} {shlex.quote(group.name)}"
        if more > 0:
            # How many extents the physical volume has really gained is known only now.
            count = f"more=$(($(vgs --noheadings -o vg_free_count {shlex.quote(group.name)}) - {kept}))"
            extend = f'{{ [ "$more" -lt 1 ] || lvextend -l "+$more" {shlex.quote(target.path)}; }}'
            yield Step(name, f"{human_size(target.size)} -> {human_size(size)}", f"{count} && {extend} && {clean}")
        elif group.kept is not None:
            yield Step(group.name, "what an earlier run has noted is removed", clean)
        yield from self._filesystem(device, size, grown=more > 0)


def last_sector(disk: Disk) -> int:
    """The last sector that a partition may use, so that it ends at a whole MiB."""
    sectors = disk.size // disk.sector
    if disk.table == "gpt":
        sectors -= 1 + _GPT_ENTRIES // disk.sector  # the backup of header and entries
    else:
        sectors = min(sectors, _MBR_SECTORS)
    aligned = MIB // disk.sector
    return sectors // aligned * aligned - 1


def _beyond_mbr(disk: Disk) -> Todo | None:
    if disk.table != "dos" or disk.size // disk.sector <= _MBR_SECTORS:
        return None
    limit = human_size(_MBR_SECTORS * disk.sector)
    return Todo(disk.name, f"its partition table (MBR) ends at {limit}", "only a GPT reaches further")


def _write_table(disk: Disk, last: Partition, grown: Partition) -> str:
    """Writes the table with the larger partition, and tells the kernel, which can't read the table of a disk in use."""
    table = edit_dump(disk, last, grown)
    written = f"printf %s {shlex.quote(table)} | sfdisk --no-reread --no-tell-kernel --force {disk.path}"
    return f"{written} && partx --update --nr {last.number} {disk.path}"


def edit_dump(disk: Disk, last: Partition, grown: Partition) -> str:
    """The dump of a table in which the last partition, and the extended one around it, reach to the new end.

    Where the table ends is left to sfdisk, which knows the new size of the disk.
    """
    lines = []
    for line in disk.dump.splitlines():
        node = line.partition(" :")[0].strip()
        if node == last.node:
            line = _resized(line, grown.size)
        else:
            around = [part for part in disk.partitions if part.node == node and _surrounds(disk, part, last)]
            line = _resized(line, grown.end - around[0].start + 1) if around else line
        if not line.startswith("last-lba:"):
            lines.append(line)
    return "\n".join(lines) + "\n"


def _surrounds(disk: Disk, part: Partition, last: Partition) -> bool:
    return disk.table == "dos" and last.number >= _FIRST_LOGICAL > part.number and part.start < last.start <= part.end


def _resized(line: str, size: int) -> str:
    return re.sub(r"size=\s*\d+", f"size={size}", line, count=1)


def short(path: str) -> str:
    """A device's name for people."""
    return path.removeprefix("/dev/mapper/").removeprefix("/dev/")


# ---- which disk is which slot


@dataclass(frozen=True, slots=True)
class Seen:
    """A disk as a guest sees it, with all that may tell its slot.

    :param size: bytes.
    :param serial: its serial number.
    :param marks: further texts: VPD page 83, its place in sysfs, its location.
    """

    name: str
    size: int
    serial: str = ""
    marks: str = ""


@dataclass(frozen=True, slots=True)
class Plugged:
    """A disk as PVE has it: slot, bytes, and the serial number that it was given."""

    slot: str
    size: int
    serial: str | None = None


def match_slots(plugged: Iterable[Plugged], seen: Iterable[Seen]) -> dict[str, str]:
    """Which disk of a guest is which slot, as far as it can be told: by serial number, by what QEMU calls it, by its
    place, by being the only one of its size, by being the only one left.

    Source: qemu-server 9.2.6, ``QemuServer/DriveDevice.pm`` (``device_id=drive-scsi0``) and ``PCI.pm`` (addresses).

    :returns: names of the guest's disks by slot.
    """
    slots, disks = list(plugged), list(seen)
    found: dict[str, str] = {}
    tests: tuple[Callable[[Plugged, Seen], bool], ...] = (
        lambda drive, disk: bool(drive.serial) and disk.serial.strip() == drive.serial,
        lambda drive, disk: re.search(rf"drive-{drive.slot}(?!\d)", disk.marks) is not None,
        lambda drive, disk: _virtio_place(drive.slot, disk.marks),
        lambda drive, disk: disk.size == drive.size,
        lambda drive, disk: True,
    )
    for test in tests:
        for drive in slots:
            fitting = [disk for disk in disks if drive.slot not in found and test(drive, disk)]
            rivals = [other for other in slots if fitting and test(other, fitting[0])]
            if len(fitting) == 1 and len(rivals) == 1:
                found[drive.slot] = fitting[0].name
        slots = [drive for drive in slots if drive.slot not in found]
        disks = [disk for disk in disks if disk.name not in found.values()]
    return found


def _virtio_place(slot: str, marks: str) -> bool:
    """virtio0 to virtio5 are at addresses 0x0a to 0x0f; the others behind a bridge."""
    match = re.fullmatch(r"virtio([0-5])", slot)
    return match is not None and re.search(rf":{10 + int(match[1]):02x}\.0/virtio", marks) is not None
