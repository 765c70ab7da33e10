# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What an import starts from, as values: what the user says of a source, and what ``image_info`` has found there."""

from __future__ import annotations

import posixpath
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .._core.errors import ParseError
from .._core.options import read_boolean

_Data = Mapping[str, object]
#: Where a source may come from; each has one of them.
ORIGINS = ("path", "upload_from", "volume")
#: What is said of a guest, by the names of ``guest_create``.
HARDWARE = tuple("memory cores sockets cpu ostype bios machine agent tags description onboot pool".split())
#: Every key that a source may have.
KEYS = (*ORIGINS, "host", "vmid", "name", "create", "storage", "format", "networks", "need", "virtio_drivers", "tpm",
        "disks", "boot", *HARDWARE)  # fmt: skip
_FIRMWARE = {"bios": "seabios", "efi": "ovmf", "uefi": "ovmf", "seabios": "seabios", "ovmf": "ovmf"}
MIB = 1024**2
#: How alike a name must be to be what was meant. "state" is not "storage".
LIKELY = 0.75


@dataclass(frozen=True, slots=True)
class Against:
    """One reason why a guest is not imported.

    :param code: a stable word in kebab case.
    :param file: the image or member, or an empty text for the guest as a whole.
    :param reason: what is wrong, what is allowed and what to do.
    """

    code: str
    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image as ``image_info`` has found it.

    :param path: the file, or the OVA or OVF whose ``member`` it is.
    :param virtual_size: bytes; 0 when it is refused or was not looked at.
    :param files: the names of the files that it is made of, below the source folder.
    """

    path: str
    member: str = ""
    format: str = ""
    subformat: str = ""
    virtual_size: int = 0
    allocated: int = 0
    fingerprint: str = ""
    files: tuple[str, ...] = ()
    chain: int = 1
    refused: Against | None = None

    @property
    def name(self) -> str:
        """How people call it: the member, or the file without its folder."""
        return self.member or posixpath.basename(self.path)


@dataclass(frozen=True, slots=True)
class Nic:
    """A network card of a machine, which is made anew: only the network that it was in is taken over."""

    network: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What an OVF or OVA says of its guest.

    :param hardware: values by the names of ``guest_create``, as far as it says any.
    :param disks: the members that are its disks, in the order of their controllers and addresses.
    """

    path: str
    name: str
    hardware: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    disks: tuple[str, ...] = ()
    nics: tuple[Nic, ...] = ()
    secure_boot: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a source.

    :param error: why nothing could be looked at.
    :param elsewhere: whether it is not yet where it is imported from: in check mode nothing is uploaded.
    :param unseen: whether nothing but its name is known.
    """

    images: tuple[Image, ...] = ()
    machines: tuple[Machine, ...] = ()
    error: str = ""
    elsewhere: bool = False
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """One source as the user writes it, with the defaults below it.

    :param path: where it is looked at: on the node, or for the API the volume.
    :param given: what the user says of it.
    :param fallback: what holds where neither the user nor an OVF says anything.
    :param mistakes: what is wrong with what the user says, so that it can't be looked at.
    """

    path: str
    given: _Data = field(default_factory=lambda: MappingProxyType({}))
    fallback: _Data = field(default_factory=lambda: MappingProxyType({}))
    mistakes: tuple[str, ...] = ()

    def get(self, key: str) -> object:
        """What the user says, or else the defaults."""
        value = self.given.get(key)
        return self.fallback.get(key) if value is None else value

    def disk(self, image: Image) -> _Data:
        """What the user says of one of its disks, by the name of the image or of its path."""
        disks = self.given.get("disks")
        for name in (image.name, image.path):
            if isinstance(disks, Mapping) and isinstance(disks.get(name), Mapping):
                return as_mapping(disks[name])
        return {}

    def skips(self, image: Image) -> bool:
        """Whether the user leaves one of its disks out."""
        value = self.disk(image).get("skip")
        try:
            return value is not None and read_boolean(value)
        except ParseError:
            return False


def as_mapping(value: object) -> _Data:
    """A dictionary, or an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def _whole(value: object) -> int:
    return int(str(value)) if value not in (None, "") else 0


def read_sources(
    sources: object,
    defaults: _Data,
    host: str,
    hosts: Sequence[str],
    *,
    spread: bool,
    folder: str,
    volumes: Mapping[str, str] | None = None,
) -> tuple[Source, ...]:
    """The sources that a host has to do with.

    :param hosts: all hosts that may take part. A source that names none is the first one's.
    :param spread: whether sources that name no host are shared out among them, each always to the same one.
    :param folder: where what is uploaded is put: on the node, or for the API on a storage.
    :param volumes: the files of volumes, as far as they are known.
    :returns: with ``mistakes`` where a source can't be used; one that names no host of the play is the first one's.
    :raises ParseError: for what can't be a list of sources, and for wrong defaults.
    """
    problems = [*_wrong_defaults(defaults)]
    if not isinstance(sources, (list, tuple)):
        problems.append(f"'{sources}' is no list of sources; write a list of dictionaries, each with a path")
    found: list[Source] = []
    mistaken: list[str] = []
    for number, data in enumerate(_items(sources), 1):
        mistakes = tuple(f"source {number}: {problem}" for problem in _wrong(data, hosts))
        mistaken += mistakes
        if _handler(as_mapping(data), hosts, spread) == host:
            found.append(replace(_source(as_mapping(data), defaults, folder, volumes or {}), mistakes=mistakes))
    if problems:
        raise ParseError("\n".join([*problems, *mistaken]))
    return tuple(found)


def _wrong(data: object, hosts: Sequence[str]) -> Iterator[str]:
    if not isinstance(data, Mapping):
        yield f"'{data}' is no dictionary; write {{path: '{data}'}}"
        return
    origins = [name for name in ORIGINS if data.get(name)]
    if len(origins) != 1:
        said = f"{' and '.join(origins)} contradict each other" if origins else "it is not said where it is"
        yield f"{said}; give one of {', '.join(ORIGINS)}"
    yield from _unknown(data, KEYS)
    if data.get("host") and data["host"] not in hosts:
        yield f"host={data['host']}: it is no host of this play; write one of {', '.join(hosts)}, or leave it out"
    if data.get("path") and not str(data["path"]).startswith("/"):
        yield f"path={data['path']}: it is on the node, so write it in full, from the first slash on"
    if data.get("vmid") is not None and not re.fullmatch(r"[0-9]{1,9}", str(data["vmid"])):
        yield f"vmid={data['vmid']} is no number of a guest; write one such as 120, or leave it out"
    yield from _wrong_disks(data.get("disks"))


def _wrong_disks(disks: object) -> Iterator[str]:
    if disks is not None and not isinstance(disks, Mapping):
        yield f"disks: '{disks}' is no dictionary; write the name of each disk with what holds for it"
    for name, words in as_mapping(disks).items():
        if not isinstance(words, Mapping):
            yield f"disks: {name}: '{words}' is no dictionary; write {name}: {{slot: scsi0}}, for example"


def _wrong_defaults(defaults: object) -> Iterator[str]:
    if not isinstance(defaults, Mapping):
        yield f"defaults: '{defaults}' is no dictionary"
        return
    own = (*ORIGINS, "host", "vmid", "name", "disks")
    for problem in _unknown(defaults, tuple(key for key in KEYS if key not in own)):
        yield f"defaults: {problem}"


def _unknown(data: _Data, keys: Sequence[str]) -> Iterator[str]:
    for key in data:
        if key not in keys:
            yield f"{key} is not known; write one of {', '.join(keys)}"


def _handler(data: _Data, hosts: Sequence[str], spread: bool) -> str:
    """The host that handles a source: by its own name for it, not by its place in the list, which changes."""
    if data.get("host"):
        return str(data["host"] if data["host"] in hosts else hosts[0])
    where = zlib.crc32(str(next((data[name] for name in ORIGINS if data.get(name)), "")).encode())
    return hosts[where % len(hosts) if spread else 0]


def _source(data: _Data, defaults: _Data, folder: str, volumes: Mapping[str, str]) -> Source:
    origin = str(data.get("path") or data.get("volume") or "")
    origin = volumes.get(origin, origin)
    if data.get("upload_from"):
        origin = posixpath.join(folder, posixpath.basename(str(data["upload_from"]).rstrip("/")))
    return Source(origin, MappingProxyType(dict(data)), MappingProxyType(dict(as_mapping(defaults))))


def read_found(result: object) -> Found:
    """Read what the module ``image_info`` returned, or why it failed."""
    data = as_mapping(result)
    if "images" not in data:
        return Found(error=str(data.get("msg") or "it was not looked at"))
    images = tuple(_image(as_mapping(row)) for row in _items(data["images"]))
    return Found(images, tuple(_machine(as_mapping(row)) for row in _items(data.get("machines"))))


def settle_node(source: Source, inspected: Found, offered: Found, *, check: bool) -> Found:
    """What to plan from, on a node: what is there, or what is wrong with the file that was to be uploaded.

    :param offered: what was found on the controller.
    """
    if not inspected.error or not source.given.get("upload_from"):
        return inspected
    if offered.error or any(image.refused for image in offered.images):
        return _moved(source, offered)
    return replace(_moved(source, offered), elsewhere=True) if check else inspected


def settle_api(source: Source, offered: Found) -> Found:
    """What to plan from, without a node: what was found on the controller, or the volume's name and nothing else."""
    if source.given.get("upload_from"):
        return _moved(source, offered)
    format_ = source.path.rpartition(".")[2].lower()
    return Found(images=(Image(source.path, format=format_),), unseen=True)


def _moved(source: Source, offered: Found) -> Found:
    """What was found on the controller, at the place to which it is uploaded."""
    origin = str(source.given["upload_from"]).rstrip("/")

    def moved(path: str) -> str:
        rest = path.removeprefix(origin)
        return source.path + rest if rest != path and rest[:1] in ("", "/") else path

    return replace(
        offered,
        images=tuple(replace(image, path=moved(image.path)) for image in offered.images),
        machines=tuple(replace(machine, path=moved(machine.path)) for machine in offered.machines),
    )


def _image(row: _Data) -> Image:
    member, path = str(row.get("member") or ""), str(row.get("path") or "")
    name = member or posixpath.basename(path)
    return Image(
        path=path,
        member=member,
        format=str(row.get("format") or ""),
        subformat=str(row.get("subformat") or ""),
        virtual_size=_whole(row.get("virtual_size")),
        allocated=_whole(row.get("allocated")),
        fingerprint=str(row.get("fingerprint") or ""),
        files=tuple(map(str, _items(row.get("files")))),
        chain=max(1, len(_items(row.get("chain")))),
        refused=_refused(row, name),
    )


def _refused(row: _Data, name: str) -> Against | None:
    refused = as_mapping(row.get("refused"))
    if refused:
        return Against(str(refused["code"]), name, str(refused["reason"]))
    later = " or ".join(map(str, _items(row.get("snapshots"))))
    if later:
        problem = f"{later} beside it goes on from it, so this is the state before a snapshot"
        remedy = f"name {later}, or the folder; or, if that old state is what you want, move the snapshots away"
        return Against("snapshot-later", name, f"{problem}; {remedy}")
    return None


def _machine(row: _Data) -> Machine:
    memory = _whole(row.get("memory"))
    hardware = {
        "memory": memory or None,
        "cores": row.get("cores"),
        "sockets": row.get("sockets"),
        "ostype": row.get("ostype"),
        "bios": _FIRMWARE.get(str(row.get("firmware") or "")),
        "tpm": bool(row.get("tpm")) or None,
    }
    disks = list(_in_order([as_mapping(disk) for disk in _items(row.get("disks"))]))
    empty = len(disks) - sum(map(bool, disks))
    lost = [f"{empty} of its disks are empty, and are not made; declare them with guest_disks"] if empty else []
    return Machine(
        path=str(row.get("path") or ""),
        name=str(row.get("name") or ""),
        hardware=MappingProxyType({key: value for key, value in hardware.items() if value}),
        disks=tuple(filter(None, disks)),
        nics=tuple(Nic(str(as_mapping(nic).get("network") or "")) for nic in _items(row.get("nics"))),
        secure_boot=bool(row.get("secure_boot")),
        warnings=(*map(str, _items(row.get("warnings"))), *lost),
    )


def _in_order(disks: Sequence[_Data]) -> Iterator[str]:
    """The members of disks: kinds of controllers as the OVF has them, then their numbers and addresses."""
    kinds = list(dict.fromkeys(str(disk.get("controller")) for disk in disks))

    def place(disk: _Data) -> tuple[int, int, int]:
        return (
            kinds.index(str(disk.get("controller"))),
            _whole(disk.get("controller_index")),
            _whole(disk.get("address")),
        )

    for disk in sorted(disks, key=place):
        yield str(disk.get("member") or disk.get("file") or "")


def guest_name(text: str) -> str:
    """A name that PVE takes, as near as it can be to what a machine is called elsewhere."""
    return re.sub(r"[-.]*\.[-.]*", ".", re.sub(r"[^A-Za-z0-9.]+", "-", text)).strip("-.")
