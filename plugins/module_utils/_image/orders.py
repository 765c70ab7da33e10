# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What is to be converted into what: the order, and what must hold for it. Pure."""

from __future__ import annotations

import enum
import re
import typing as t
from dataclasses import dataclass

from .._core.size import human_size
from .errors import ImageError
from .probe import named_format

if t.TYPE_CHECKING:
    from .journal import Record

FORMATS = ("raw", "qcow2")
PREALLOCATIONS = ("off", "metadata", "falloc", "full")
CLUSTER_SIZES = tuple(2**power for power in range(12, 22))
DEFAULT_CLUSTER = 65536
#: Numbers that a guest can have: ``pve-vmid`` in PVE/JSONSchema.pm (pve-common).
VMIDS = (100, 999999999)
_LABEL = 40


class Verify(enum.Enum):
    """How sure to be."""

    NO = "false"
    YES = "true"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Order:
    """One image to convert.

    :param dest: the file to make; or '' with ``storage`` and ``vmid``.
    :param size: bytes that the target's disk has at least; 0 for the source's size.
    :param cluster_size: of a qcow2 image in bytes; 0 for the default.
    :param preallocation: ``off``, ``metadata``, ``falloc``, ``full``, or '' for the default.
    :param checksum: compute the SHA-256 of the raw content, too.
    """

    path: str
    member: str = ""
    format: str = "raw"
    dest: str = ""
    storage: str = ""
    vmid: int = 0
    size: int = 0
    cluster_size: int = 0
    preallocation: str = ""
    compress: bool = False
    verify: Verify = Verify.YES
    checksum: bool = False

    @property
    def name(self) -> str:
        """How the image is called on one line."""
        return self.member or self.path.rstrip("/").rpartition("/")[2] or self.path

    @property
    def label(self) -> str:
        """A word for the volume's name, from the image's."""
        stem = re.sub(r"\.[A-Za-z0-9]+$", "", self.name.rpartition("/")[2])
        word = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-").lower()[:_LABEL].strip("-")
        return word or "image"

    @property
    def key(self) -> str:
        """How the journal knows the order's volume: it stays the same when the source changes."""
        return f"volume {self.storage} {self.vmid} {self.path} {self.member}"

    def volume_name(self, fingerprint: str) -> str:
        """The name of the volume, which tells of which source it is. Without an ending."""
        return f"vm-{self.vmid}-{self.label}-{fingerprint[:8]}"


def problems(order: Order) -> list[str]:
    """What is wrong with an order by itself, each with what to do."""
    found = []
    if bool(order.dest) == bool(order.storage):
        found.append("say either dest (a file) or storage and vmid (a volume)")
    if order.storage and not order.vmid:
        found.append("storage needs vmid, the guest that the volume is for")
    if order.storage and order.vmid and not VMIDS[0] <= order.vmid <= VMIDS[1]:
        found.append(f"vmid={order.vmid} is out of range; Proxmox VE numbers guests from {VMIDS[0]} to {VMIDS[1]}")
    if order.dest and order.vmid:
        found.append("vmid goes with storage, not with dest; leave it out")
    if not order.path.startswith("/"):
        found.append("is no absolute path; begin it with /")
    if order.dest:
        found += _dest_problems(order)
    found += _format_problems(order)
    return [f"{order.path}: {problem}" for problem in found]


def _dest_problems(order: Order) -> list[str]:
    """A relative path would be below whatever folder the module runs in; a wrong ending hides what the file is."""
    found = []
    if not order.dest.startswith("/"):
        found.append(f"dest={order.dest} is no absolute path; begin it with /")
    promised = named_format(order.dest)
    if promised and promised != order.format:
        other = f"format={promised}, or " if promised in FORMATS else ""
        found.append(
            f"dest={order.dest} promises {promised} by its ending, and format={order.format} is made; choose {other}"
            f"a name that ends in .{order.format}"
        )
    return found


def _format_problems(order: Order) -> list[str]:
    found = []
    if order.format not in FORMATS:
        found.append(f"format={order.format} can't be made; choose raw or qcow2")
    elif order.format == "raw":
        given = [f"cluster_size={order.cluster_size}"] if order.cluster_size else []
        given += ["compress=true"] if order.compress else []
        given += ["preallocation=metadata"] if order.preallocation == "metadata" else []
        found += [f"{words} is for qcow2; leave it out or choose format=qcow2" for words in given]
    if order.cluster_size and order.cluster_size not in CLUSTER_SIZES:
        found.append(f"cluster_size={order.cluster_size} is not allowed; choose a power of two from 4K to 2M")
    if order.compress and order.preallocation not in ("", "off"):
        found.append(f"preallocation={order.preallocation} and compress=true contradict each other; leave one out")
    return found


def check_size(order: Order, virtual_size: int) -> None:
    """Refuse to make a disk smaller than its source."""
    if order.size and order.size < virtual_size:
        raise ImageError(
            f"{order.path}: size={human_size(order.size)} is smaller than the disk, which has "
            f"{human_size(virtual_size)}; shrink it in the guest and in its source first, or leave size out"
        )


def differences(order: Order, record: Record) -> list[str]:
    """What an order wants otherwise than a record says it was done."""
    pairs = (
        ("format", order.format, record.format),
        ("cluster_size", order.cluster_size, record.cluster_size),
        ("preallocation", order.preallocation, record.preallocation),
        ("compress", order.compress, record.compress),
    )
    found = [f"{name} was {was or 'not given'}, is {now or 'not given'}" for name, now, was in pairs if now != was]
    if order.size > record.size:
        found.append(f"size was {human_size(record.size)}, is {human_size(order.size)}")
    return found
