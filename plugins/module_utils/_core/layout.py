# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a user declares, as values: read from plain dictionaries, checked as far as that needs no cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

from .drive import make_drive
from .errors import ParseError, Refusal
from .options import ALIASES, TABLE, read_boolean
from .size import human_size, parse_size
from .slot import Slot, find_slot, parse_slot

STATES = ("present", "detached", "absent")
FORMATS = ("raw", "qcow2", "vmdk")
CONTROLLERS = ("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")
UNDECLARED = ("keep", "report", "detach")
POWER = ("never", "stop_if_needed")

#: Spellings with underscores, which is how Ansible users write names, beside PVE's own.
_OPTION_SPELLINGS = MappingProxyType(
    {**{name: name for name in TABLE}, **{name.replace("-", "_"): name for name in TABLE}, **ALIASES}
)
#: What a guest, and what a slot, can be told beside the options of its drive.
_GUEST_KEYS = tuple("vmid name node disks scsihw boot undeclared power revert_leftovers facts".split())
_DISK_KEYS = tuple(
    "slot state storage size minimum format volume moved_from moved_from_guest import_from media iso cloudinit unset "
    "delete_source flatten".split()
)


@dataclass(frozen=True, slots=True)
class Disk:
    """The declaration of one slot. Absent attributes are ``None``: the user said nothing about them.

    :param size: bytes.
    :param minimum: whether a disk that is larger than ``size`` is right as it is.
    :param volume: an existing volume id, or an ``unusedN`` of the guest.
    :param moved_from: the slot where the disk was, of this guest or of ``moved_from_guest``.
    :param moved_from_guest: another guest's number or name, as it is declared.
    :param options: canonical values by PVE's name.
    :param unset: options to remove.
    :param delete_source: whether a move destroys the volume that it leaves.
    """

    slot: Slot
    state: str = "present"
    storage: str | None = None
    size: int | None = None
    minimum: bool = False
    format: str | None = None
    volume: str | None = None
    moved_from: Slot | None = None
    moved_from_guest: str | None = None
    import_from: str | None = None
    media: str | None = None
    iso: str | None = None
    cloudinit: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unset: tuple[str, ...] = ()
    delete_source: bool = False
    flatten: bool = False

    @property
    def is_cdrom(self) -> bool:
        """Whether a CD-ROM drive is declared."""
        return self.media == "cdrom" or self.iso is not None

    @property
    def old_slot(self) -> Slot | None:
        """The slot of the same guest where the disk was; that of another guest is not one of these."""
        return self.moved_from if self.moved_from_guest is None else None


@dataclass(frozen=True, slots=True)
class Layout:
    """The declaration of one guest.

    :param boot: devices in the order in which to try them, or ``None`` to keep the order right by itself.
    :param allow_destroy: whether ``state: absent`` may destroy data.
    :param facts: what the user says about the guest, for a policy.
    """

    vmid: int | None = None
    name: str | None = None
    node: str | None = None
    disks: tuple[Disk, ...] = ()
    scsihw: str | None = None
    boot: tuple[str, ...] | None = None
    undeclared: str = "keep"
    power: str = "never"
    revert_leftovers: bool = False
    allow_destroy: bool = False
    facts: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def label(self) -> str:
        """How messages call the guest before it is found."""
        parts = [self.name or "", f"({self.vmid})" if self.name and self.vmid else str(self.vmid or "")]
        return " ".join(part for part in parts if part) or "a guest without vmid and name"

    def disk(self, slot: Slot) -> Disk | None:
        """The declaration of a slot, or ``None``."""
        return next((disk for disk in self.disks if disk.slot == slot), None)


class _Collector:
    """Collects what is wrong with one guest's declaration, so that everything is reported together."""

    def __init__(self, guest: str) -> None:
        self.guest = guest
        self.refusals: list[Refusal] = []

    def add(self, slot: str, option: str, value: object, problem: str, remedy: str) -> None:
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        self.refusals.append(Refusal(self.guest, slot, option, text, problem, remedy))

    def parse(self, slot: str, option: str, value: object, reader: Callable[[str], object]) -> object:
        """Apply a reader; what it refuses becomes a refusal and ``None``."""
        if value is None:
            return None
        try:
            return reader(value)  # type: ignore[arg-type]
        except ParseError as error:
            problem, _semicolon, remedy = str(error).partition("; ")
            self.add(slot, option, "", problem, remedy or "correct it")
            return None

    def check_names(self, slot: str, data: Mapping[str, object], known: Sequence[str]) -> None:
        """Refuse what nothing is called, a typo above all."""
        for name in data:
            if name not in known:
                likely = get_close_matches(str(name), known, n=1)
                remedy = f"did you mean {likely[0]}?" if likely else "remove it, or see what guest_disks takes"
                self.add(slot, str(name), None, "there is no such option", remedy)

    def flag(self, slot: str, option: str, value: object, default: bool) -> bool:
        """Read a yes or no."""
        if value is None or isinstance(value, bool):
            return default if value is None else value
        try:
            return read_boolean(value)
        except ParseError:
            self.add(slot, option, value, "is not allowed", "write true or false")
            return default


def option_names() -> tuple[str, ...]:
    """How the options of a drive may be written, with underscores and as PVE does."""
    return tuple(_OPTION_SPELLINGS)


def read_layout(data: Mapping[str, object], defaults: Layout | None = None) -> tuple[Layout, tuple[Refusal, ...]]:
    """Read one guest's declaration.

    :param data: the guest's dictionary as the module's ``guests`` option has it.
    :param defaults: values for ``undeclared``, ``power``, ``revert_leftovers`` and ``allow_destroy`` that the guest
        does not give.
    :returns: the layout and everything that is wrong with it; with refusals the layout must not be used.
    """
    base = defaults or Layout()
    vmid, name = data.get("vmid"), data.get("name")
    head = Layout(vmid=int(str(vmid)) if vmid is not None else None, name=str(name) if name else None)
    collector = _Collector(head.label)
    collector.check_names("", data, _GUEST_KEYS)
    disks = tuple(_read_disks(data.get("disks") or (), collector))
    boot = data.get("boot")
    layout = Layout(
        vmid=head.vmid,
        name=head.name,
        node=_text(data.get("node")),
        disks=disks,
        scsihw=_choice(data.get("scsihw"), CONTROLLERS, "scsihw", collector),
        boot=None if boot is None else tuple(str(device) for device in _sequence(boot)),
        undeclared=_choice(data.get("undeclared"), UNDECLARED, "undeclared", collector) or base.undeclared,
        power=_choice(data.get("power"), POWER, "power", collector) or base.power,
        revert_leftovers=collector.flag("", "revert_leftovers", data.get("revert_leftovers"), base.revert_leftovers),
        allow_destroy=base.allow_destroy,
    )
    _check_slots(layout, collector)
    return layout, tuple(collector.refusals)


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else [value]


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _choice(value: object, allowed: Sequence[str], option: str, collector: _Collector, slot: str = "") -> str | None:
    text = _text(value)
    if text is not None and text not in allowed:
        collector.add(slot, option, text, "is not known", f"write one of {', '.join(allowed)}")
        return None
    return text


def _read_disks(disks: object, collector: _Collector) -> Iterator[Disk]:
    for entry in _sequence(disks):
        if not isinstance(entry, Mapping):
            collector.add("", "disks", entry, "is no dictionary", "write one dictionary a slot")
            continue
        text = str(entry.get("slot") or "")
        slot = collector.parse(text, "slot", text, parse_slot)
        if isinstance(slot, Slot):
            yield _read_disk(slot, entry, collector)


def _read_disk(slot: Slot, entry: Mapping[str, object], collector: _Collector) -> Disk:
    where = str(slot)
    collector.check_names(where, entry, (*_DISK_KEYS, *_OPTION_SPELLINGS))
    minimum, cloudinit, delete_source, flatten = (
        collector.flag(where, name, entry.get(name), False)
        for name in ("minimum", "cloudinit", "delete_source", "flatten")
    )
    moved_from = collector.parse(where, "moved_from", _text(entry.get("moved_from")), parse_slot)
    size = collector.parse(where, "size", entry.get("size"), parse_size)
    media = _choice(entry.get("media"), ("disk", "cdrom"), "media", collector, where)
    return Disk(
        slot=slot,
        state=_choice(entry.get("state"), STATES, "state", collector, where) or "present",
        storage=_text(entry.get("storage")),
        size=size if isinstance(size, int) else None,
        minimum=minimum,
        format=_choice(entry.get("format"), FORMATS, "format", collector, where),
        volume=_text(entry.get("volume")),
        moved_from=moved_from if isinstance(moved_from, Slot) else None,
        moved_from_guest=_text(entry.get("moved_from_guest")),
        import_from=_text(entry.get("import_from")),
        media=media,
        iso=_text(entry.get("iso")),
        cloudinit=cloudinit,
        options=MappingProxyType(dict(_read_options(slot, entry, collector))),
        unset=tuple(_read_unset(slot, entry, collector)),
        delete_source=delete_source,
        flatten=flatten,
    )


def _read_options(slot: Slot, entry: Mapping[str, object], collector: _Collector) -> Iterator[tuple[str, str]]:
    for key, value in entry.items():
        name = None if value is None else _OPTION_SPELLINGS.get(key)
        if name is None:
            continue
        row = TABLE[name]
        if slot.bus not in row.buses:
            collector.add(
                str(slot),
                name,
                value,
                f"{slot.bus} has no such option",
                f"it exists on {', '.join(sorted(row.buses))}; remove it or use another bus",
            )
            continue
        try:
            yield name, row.canonical(value)
        except ParseError:
            collector.add(str(slot), name, value, "is not allowed", f"write {row.allowed}")


def _read_unset(slot: Slot, entry: Mapping[str, object], collector: _Collector) -> Iterator[str]:
    given = entry.get("unset") or ()
    for item in given.split(",") if isinstance(given, str) else _sequence(given):
        name = _OPTION_SPELLINGS.get(str(item).strip())
        if name is None or slot.bus not in TABLE[name].buses:
            names = ", ".join(sorted(row.name for row in TABLE.values() if slot.bus in row.buses))
            collector.add(str(slot), "unset", item, f"{slot.bus} has no such option", f"it has {names}")
        else:
            yield name


def _check_slots(layout: Layout, collector: _Collector) -> None:
    seen: set[Slot] = set()
    for disk in layout.disks:
        if disk.slot in seen:
            collector.add(str(disk.slot), "slot", disk.slot, "is declared twice", "declare each slot once")
        seen.add(disk.slot)
        for problem in _contradictions(disk):
            collector.refusals.append(Refusal(layout.label, str(disk.slot), *problem))
    sources = {disk.slot: disk.old_slot for disk in layout.disks if disk.old_slot is not None}
    taken: dict[Slot, Slot] = {}
    for slot, source in sources.items():
        if source in taken:
            collector.add(str(slot), "moved_from", source, f"{taken[source]} names it too", "one disk can't become two")
        taken[source] = slot
        if source in sources:
            collector.add(
                str(slot),
                "moved_from",
                source,
                "is itself declared with moved_from, so a second run could not tell what has been done",
                "name the volumes with volume: instead",
            )
        elif (other := layout.disk(source)) is not None and other.state == "present":
            collector.add(
                str(source),
                "state",
                "present",
                f"its disk moves to {slot}, so a second run could not tell what has been done",
                f"remove the declaration of {source}, and add it again afterwards",
            )


_Problem = tuple[str, str, str, str]


def _contradictions(disk: Disk) -> Iterator[_Problem]:
    """What contradicts itself in one disk's declaration: option, value, problem, remedy."""
    yield from _contradicting_origins(disk)
    yield from _contradicting_kinds(disk)
    yield from _contradicting_options(disk)


def _contradicting_origins(disk: Disk) -> Iterator[_Problem]:
    origins = [
        name
        for name, given in (
            ("volume", disk.volume),
            ("moved_from", disk.moved_from),
            ("import_from", disk.import_from),
            ("iso", disk.iso),
            ("cloudinit", disk.cloudinit),
        )
        if given
    ]
    if len(origins) > 1:
        yield origins[0], "", f"contradicts {' and '.join(origins[1:])}", "say in one way where the content comes from"
    if disk.state != "present" and origins:
        yield origins[0], "", f"makes no sense with state={disk.state}", "remove one of the two"
    yield from _contradicting_sources(disk)
    yield from _contradicting_volume(disk)
    if disk.import_from and disk.slot.is_firmware:
        yield "import_from", disk.import_from, f"{disk.slot} can't be imported", "make a new one with storage"
    if disk.import_from and not disk.storage:
        yield "storage", "", "is missing", "say where import_from is to be written"
    if disk.slot.is_unused and disk.state != "absent":
        yield (
            "state",
            disk.state,
            "is not possible for an unused volume",
            "write state: absent, or attach it with volume:",
        )


def _contradicting_sources(disk: Disk) -> Iterator[_Problem]:
    source, guest = disk.moved_from, disk.moved_from_guest
    if source is None:
        if guest is not None:
            yield "moved_from_guest", guest, "does not say which disk", "write moved_from, the slot that it has there"
        return
    if guest is None and (source == disk.slot or source.is_unused):
        remedy = "name the slot where the disk was" if source == disk.slot else f"write volume: {source}"
        yield "moved_from", str(source), "is not another slot of a drive", remedy
    if guest is not None and disk.is_cdrom:
        yield (
            "moved_from_guest",
            guest,
            "PVE hands no CD-ROM drive over to another guest",
            "name the image with iso, without moved_from",
        )
    if source.is_firmware and (guest is None or source != disk.slot):
        yield "moved_from", str(source), "can't be on another bus", "EFI and TPM volumes stay where they are"
    elif disk.slot.is_firmware and not (source.is_firmware or source.is_unused):
        yield (
            "moved_from",
            str(source),
            f"{disk.slot} takes no disk of another bus: the firmware would write into it",
            "make a new one with storage, or name its volume with volume:",
        )


def _contradicting_volume(disk: Disk) -> Iterator[_Problem]:
    """A named volume is where it is: what would copy it gives it another name, and a second run would not find it."""
    if disk.volume is None or find_slot(disk.volume) is not None:
        return
    drive = make_drive(disk.volume)
    remedy = "remove one of the two, or name the volume by its unused slot"
    if disk.storage is not None and disk.storage != drive.storage:
        yield "storage", disk.storage, f"contradicts volume={disk.volume}", remedy
    if disk.format is not None and disk.format != drive.format:
        yield "format", disk.format, f"contradicts volume={disk.volume}", remedy
    if disk.flatten and drive.base is not None:
        yield "flatten", "true", f"contradicts volume={disk.volume}", remedy


def _contradicting_kinds(disk: Disk) -> Iterator[_Problem]:
    fixed = [name for name, given in (("size", disk.size), ("format", disk.format), ("storage", disk.storage)) if given]
    if disk.is_cdrom:
        if disk.slot.bus not in ("ide", "sata", "scsi"):
            yield "media", "cdrom", f"{disk.slot.bus} can't hold a CD-ROM drive", "use an ide, sata or scsi slot"
        if fixed:
            yield (
                fixed[0],
                "",
                "means nothing for a CD-ROM drive",
                "name the image with iso, or iso: none for an empty drive",
            )
        if disk.options.get("snapshot") == "1":
            yield "snapshot", "1", "PVE refuses it for a CD-ROM drive", "remove it"
        if disk.media == "disk":
            yield "iso", str(disk.iso), "contradicts media=disk", "remove one of the two"
    if disk.cloudinit and not disk.slot.is_firmware and disk.slot.bus == "virtio":
        yield "cloudinit", "true", "virtio can't hold a CD-ROM drive", "use an ide, sata or scsi slot"
    if disk.cloudinit and disk.size:
        yield "size", human_size(disk.size), "PVE decides the size of a cloud-init drive", "remove it"
    if disk.slot.is_firmware and disk.size and disk.state == "present":
        yield "size", human_size(disk.size), f"the firmware decides the size of {disk.slot}", "remove it"
    if disk.size == 0:
        yield "size", "0", "a disk has a size", "write at least 1K"


def _contradicting_options(disk: Disk) -> Iterator[_Problem]:
    for name in disk.unset:
        if name in disk.options:
            yield "unset", name, "is set in the same declaration", "remove one of the two"
    for name, value in disk.options.items():
        clash = [other for other in TABLE[name].excludes if other in disk.options]
        if clash and name < clash[0]:
            yield name, value, f"PVE refuses it beside {clash[0]}", "keep one of them"
