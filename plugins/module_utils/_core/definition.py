# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a new guest is to be, beside its disks: read from plain dictionaries, written and compared as PVE does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from . import propstring
from .errors import ParseError, Refusal
from .journal import Journal, write_journal
from .layout import CONTROLLERS

#: PVE's names of guest systems. Source: qemu-server 9.2.6, PVE/QemuServer.pm (ostype).
OSTYPES = tuple("other wxp w2k w2k3 w2k8 wvista win7 win8 win10 win11 l24 l26 solaris".split())
FIRMWARES = ("seabios", "ovmf")
#: Source: qemu-server 9.2.6, PVE/QemuServer/Network.pm.
NIC_MODELS = tuple(
    "e1000 e1000-82540em e1000-82544gc e1000-82545em e1000e i82551 i82557b i82559er ne2k_isa ne2k_pci pcnet rtl8139 "
    "virtio vmxnet3".split()
)
#: How many network cards a guest can have. Source: qemu-server 9.2.6, PVE/QemuServer/Network.pm (MAX_NETS).
NIC_COUNT = 32
_LEAST_VMID, _MOST_VMID = 100, 999_999_999
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_MACHINE = re.compile(
    r"(?:pc|pc(?:-i440fx)?-\d+(?:\.\d+)+(?:\+pve\d+)?(?:\.pxe)?|q35|pc-q35-\d+(?:\.\d+)+(?:\+pve\d+)?(?:\.pxe)?"
    r"|virt(?:-\d+(?:\.\d+)+)?(?:\+pve\d+)?)(?:,.*)?"
)

Reader = Callable[[object], str]


def _whole(least: int, most: int | None = None) -> Reader:
    def read(value: object) -> str:
        text = str(value)
        if not re.fullmatch(r"\d{1,12}", text) or int(text) < least or (most is not None and int(text) > most):
            raise ParseError(f"write a whole number {f'from {least} to {most}' if most else f'of at least {least}'}")
        return str(int(text))

    return read


def _one_of(choices: Sequence[str]) -> Reader:
    def read(value: object) -> str:
        if str(value) not in choices:
            raise ParseError(f"write one of {', '.join(choices)}")
        return str(value)

    return read


def _matching(pattern: re.Pattern[str], words: str) -> Reader:
    def read(value: object) -> str:
        if not pattern.fullmatch(str(value)):
            raise ParseError(words)
        return str(value)

    return read


def _boolean(value: object) -> str:
    words = {**dict.fromkeys("1 true yes on".split(), "1"), **dict.fromkeys("0 false no off".split(), "0")}
    if str(value).lower() not in words:
        raise ParseError("write true or false")
    return words[str(value).lower()]


def _property_text(bare_key: str) -> Reader:
    """A property string, its bare value with its key and all pairs in order, so that two spellings are one."""

    def read(value: object) -> str:
        pairs = propstring.parse(str(value), bare_key)
        if not pairs:
            raise ParseError("write it as PVE does")
        return ",".join(f"{key}={text}" for key, text in sorted(pairs))

    return read


def _agent(value: object) -> str:
    """``true`` and PVE's own ``1``, or a property string such as ``enabled=1,fstrim_cloned_disks=1``."""
    try:
        pairs = dict(propstring.parse(str(value), "enabled"))
        pairs.setdefault("enabled", "")  # PVE insists on it
        return ",".join(sorted(f"{key}={_agent_word(key, text)}" for key, text in pairs.items()))
    except ParseError as error:
        raise ParseError("write true, false, or as PVE does, such as enabled=1,fstrim_cloned_disks=1") from error


def _agent_word(key: str, text: str) -> str:
    """Options that this does not know are left to PVE; what is no name and no word is none of them."""
    if key == "enabled":
        return _boolean(text)
    if not (re.fullmatch(r"[a-z][a-z_-]*", key) and re.fullmatch(r"\w+", text)):
        raise ParseError("write one word")
    return text


def _tags(value: object) -> str:
    tags = value if isinstance(value, (list, tuple)) else re.split(r"[;,\s]+", str(value))
    found = sorted({str(tag).lower() for tag in tags if str(tag)})
    wrong = [tag for tag in found if not re.fullmatch(r"[a-z0-9_][a-z0-9_+.-]*", tag)]
    if wrong:
        raise ParseError("tags are letters, digits, underscores, and after the first one hyphens, dots and plus signs")
    return ";".join(found)


def _description(value: object) -> str:
    text = write_journal(str(value), Journal()).strip()
    if len(text) > 8192:  # noqa: PLR2004 - PVE's own limit
        raise ParseError("write at most 8192 characters")
    return text


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    :param default: what PVE takes when the configuration has no such key, as :attr:`read` returns it.
    :param read: a value of the user's, or PVE's text, in one canonical form.
    :raises ParseError: by ``read``, with what is allowed.
    """

    name: str
    default: str
    read: Reader

    def same(self, wanted: str, has: str | None) -> bool:
        """Whether what a guest has is what was declared. PVE pins the machine version of a Windows by itself."""
        try:
            actual = self.default if has is None else self.read(has)
        except ParseError:
            return False
        return actual == wanted or (self.name == "machine" and _pinned(wanted, actual))


def _pinned(wanted: str, actual: str) -> bool:
    kind = {"pc": "pc-i440fx-", "q35": "pc-q35-"}.get(wanted)
    return kind is not None and actual.startswith(kind)


_ROWS = (
    Setting("memory", "512", _whole(16)),
    Setting("cores", "1", _whole(1)),
    Setting("sockets", "1", _whole(1)),
    Setting("cpu", "cputype=kvm64", _property_text("cputype")),
    Setting("ostype", "other", _one_of(OSTYPES)),
    Setting("bios", "seabios", _one_of(FIRMWARES)),
    Setting("machine", "pc", _matching(_MACHINE, "write pc, q35, or one with its version, such as pc-q35-9.2+pve1")),
    Setting("scsihw", "lsi", _one_of(CONTROLLERS)),
    Setting("agent", "enabled=0", _agent),
    Setting("tags", "", _tags),
    Setting("description", "", _description),
    Setting("onboot", "0", _boolean),
)
#: By PVE's name of the option, in the order of the documentation.
SETTINGS: Mapping[str, Setting] = MappingProxyType({row.name: row for row in _ROWS})

_MAC = re.compile(r"[a-f0-9][02468ace](?::[a-f0-9]{2}){5}", re.IGNORECASE)
_RATE = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_NIC: Mapping[str, Reader] = MappingProxyType(
    {
        "model": _one_of(NIC_MODELS),
        "macaddr": _matching(_MAC, "write the address of one card, such as BC:24:11:00:00:01"),
        "bridge": _matching(re.compile(r"[-_.\w]+"), "write the name of a bridge, such as vmbr0"),
        "tag": _whole(1, 4094),
        "firewall": _boolean,
        "link_down": _boolean,
        "mtu": _whole(1, 65520),
        "queues": _whole(0, 64),
        "rate": _matching(_RATE, "write a number of MB/s"),
        "trunks": _matching(re.compile(r"\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*"), "write VLANs such as 10;20-29"),
    }
)
_NIC_DEFAULTS = MappingProxyType({"firewall": "0", "link_down": "0"})


@dataclass(frozen=True, slots=True)
class Definition:
    """What a guest is to be.

    :param vmid: its number, or ``None`` for the next that is free; then ``name`` says which guest is meant.
    :param values: canonical values of :data:`SETTINGS`.
    :param nics: by slot (``net0``), canonical values by PVE's name of the option.
    """

    node: str
    vmid: int | None = None
    name: str | None = None
    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    nics: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    pool: str | None = None

    @property
    def label(self) -> str:
        """How messages call the guest before it is there."""
        parts = [self.name or "", f"({self.vmid})" if self.name and self.vmid else str(self.vmid or "")]
        return " ".join(part for part in parts if part) or "a guest without vmid and name"

    @property
    def texts(self) -> dict[str, str]:
        """What PVE is told, beside number, name and pool: option and text."""
        texts = {name: text for name, text in self.values.items() if text}
        return {**texts, **{slot: _nic_text(nic) for slot, nic in self.nics.items()}}


def _nic_text(nic: Mapping[str, str]) -> str:
    head = f"{nic['model']}={nic['macaddr']}" if "macaddr" in nic else nic["model"]
    options = sorted(f"{name}={text}" for name, text in nic.items() if name not in ("model", "macaddr"))
    return ",".join([head, *options])


def read_nic(text: str) -> dict[str, str]:
    """A network card as PVE writes it (``virtio=BC:24:11:00:00:01,bridge=vmbr0``), in its options."""
    nic: dict[str, str] = {}
    for key, value in propstring.parse(text, "model"):
        nic.update({"model": key, "macaddr": value} if key in NIC_MODELS else {key: value})
    return nic


def read_definition(data: Mapping[str, object]) -> tuple[Definition, tuple[Refusal, ...]]:
    """Read what is declared of a guest.

    :param data: the module's parameters; ``net`` is a list of dictionaries with their ``slot``.
    :returns: the definition and everything that is wrong with it; with refusals it must not be used.
    """
    vmid, name = data.get("vmid"), data.get("name")
    wrong: list[tuple[str, str, object, str]] = []
    values = dict(_read_values(data, wrong))
    nics = dict(_read_nics(data.get("net"), wrong))
    definition = Definition(
        node=str(data.get("node") or ""),
        vmid=None if vmid is None else int(str(vmid)),
        name=str(name) if name else None,
        values=MappingProxyType(values),
        nics=MappingProxyType(nics),
        pool=str(data["pool"]) if data.get("pool") else None,
    )
    wrong += _check_identity(definition)
    refusals = (
        Refusal(definition.label, slot, option, _shown(value), "is not allowed", remedy)
        for slot, option, value, remedy in wrong
    )
    return definition, tuple(refusals)


_Wrong = tuple[str, str, object, str]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_values(data: Mapping[str, object], wrong: list[_Wrong]) -> Iterator[tuple[str, str]]:
    for name, row in SETTINGS.items():
        if data.get(name) is None:
            continue
        try:
            yield name, row.read(data[name])
        except ParseError as error:
            wrong.append(("", name, data[name], str(error)))


def _read_nics(cards: object, wrong: list[_Wrong]) -> Iterator[tuple[str, Mapping[str, str]]]:
    seen: set[str] = set()
    for card in cards if isinstance(cards, (list, tuple)) else ():
        slot = str(card.get("slot") or "")
        if not re.fullmatch(r"net(0|[1-9]\d?)", slot) or int(slot[3:]) >= NIC_COUNT:
            wrong.append((slot, "slot", slot, f"the slots of network cards are net0 to net{NIC_COUNT - 1}"))
        elif slot in seen:
            wrong.append((slot, "slot", slot, "declare each slot once"))
        else:
            seen.add(slot)
            yield slot, MappingProxyType(dict(_read_nic(slot, card, wrong)))


def _read_nic(slot: str, card: Mapping[str, object], wrong: list[_Wrong]) -> Iterator[tuple[str, str]]:
    given = {"model": "virtio", **{name: value for name, value in card.items() if value is not None}}
    for name, reader in _NIC.items():
        if name not in given:
            continue
        try:
            text = reader(given[name])
        except ParseError as error:
            wrong.append((slot, name, given[name], str(error)))
            continue
        yield name, text.upper() if name == "macaddr" else text


def _check_identity(definition: Definition) -> Iterator[_Wrong]:
    if definition.vmid is None and definition.name is None:
        yield "", "vmid", "", "give a number, or a name"
    if definition.vmid is not None and not _LEAST_VMID <= definition.vmid <= _MOST_VMID:
        yield "", "vmid", definition.vmid, f"write a number from {_LEAST_VMID} to {_MOST_VMID}"
    if definition.name is not None and not re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", definition.name):
        yield "", "name", definition.name, "a guest's name is letters, digits and hyphens, in parts joined by dots"


@dataclass(frozen=True, slots=True)
class Difference:
    """What a guest has instead of what was declared, each as PVE writes it; ``None`` when it has none."""

    declared: str
    actual: str | None


def find_differences(definition: Definition, config: Mapping[str, str]) -> dict[str, Difference]:
    """What a guest has otherwise than declared. What is not declared is no difference.

    :param config: the guest's configuration, key → PVE's text.
    """
    found = {
        name: Difference(wanted, config.get(name))
        for name, wanted in definition.values.items()
        if not SETTINGS[name].same(wanted, config.get(name))
    }
    for slot, nic in definition.nics.items():
        has = config.get(slot)
        if has is None or not _same_nic(nic, read_nic(has)):
            found[slot] = Difference(_nic_text(nic), has)
    return found


def _same_nic(wanted: Mapping[str, str], has: Mapping[str, str]) -> bool:
    """Whether a card has all that is declared; addresses are the same in capitals and without."""
    return all(
        has.get(name, _NIC_DEFAULTS.get(name, "")).lower() == value.lower() for name, value in wanted.items()
    )
