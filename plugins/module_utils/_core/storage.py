# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What each storage type of PVE 9 can hold and do: one row each.

Source: pve-storage 9.1.7, ``PVE/Storage/*Plugin.pm`` (``plugindata`` and ``volume_has_feature``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class StorageType:
    """One row of the table.

    :param name: PVE's name of the type.
    :param level: ``file`` when volumes are files in a folder, ``block`` when they are block devices, ``none`` when the
        type holds no guest's disks.
    :param formats: what it holds without further options; the first is what PVE takes for a new disk.
    :param chain_formats: what it holds besides with ``snapshot-as-volume-chain``.
    :param snapshots: the formats of which a snapshot can be taken without a volume chain.
    :param thin: whether space is taken only when it is written (``always``, ``never``, or ``format``: qcow2 is thin
        anyway, raw files are sparse, or as the storage is set up).
    :param shared: whether every node sees the same volumes by the nature of the type.
    :param live_resize: whether a running guest's disk can grow.
    :param linked_clones: the formats of which a linked clone can be made.
    :param allocates: whether PVE can make a volume on it (an iSCSI target has the volumes that it has).
    :param renames: whether PVE can give a volume to another guest, which renames it.
    :param importable: whether a disk can be imported from it although it holds none.
    """

    name: str
    level: str
    formats: tuple[str, ...] = ()
    chain_formats: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    thin: str = "format"
    shared: bool = False
    live_resize: bool = True
    linked_clones: tuple[str, ...] = ()
    allocates: bool = True
    renames: bool = True
    importable: bool = False

    def __post_init__(self) -> None:
        if self.level not in ("file", "block", "none") or self.thin not in ("always", "never", "format"):
            raise ValueError(f"{self.name}: unknown level or thin")
        if (self.level == "none") == bool(self.formats):
            raise ValueError(f"{self.name}: a type that holds disks has formats, and no other has")
        if not set(self.snapshots) <= {*self.formats, *self.chain_formats}:
            raise ValueError(f"{self.name}: snapshots of a format that it can't hold")


_FILES = ("raw", "qcow2", "vmdk")
_ROWS: tuple[StorageType, ...] = (
    StorageType("dir", "file", _FILES, ("qcow2",), ("qcow2",), linked_clones=("raw", "qcow2", "vmdk")),
    StorageType("nfs", "file", _FILES, ("qcow2",), ("qcow2",), shared=True, linked_clones=("raw", "qcow2", "vmdk")),
    StorageType("cifs", "file", _FILES, ("qcow2",), ("qcow2",), shared=True, linked_clones=("raw", "qcow2", "vmdk")),
    StorageType("btrfs", "file", _FILES, snapshots=("raw", "qcow2"), linked_clones=("raw", "qcow2", "vmdk")),
    StorageType("lvm", "block", ("raw",), ("qcow2",), thin="never"),
    StorageType("lvmthin", "block", ("raw",), snapshots=("raw",), thin="always", linked_clones=("raw",)),
    StorageType("zfspool", "block", ("raw",), snapshots=("raw",), linked_clones=("raw",)),
    StorageType("zfs", "block", ("raw",), snapshots=("raw",), shared=True, linked_clones=("raw",), renames=False),
    StorageType("rbd", "block", ("raw",), snapshots=("raw",), thin="always", shared=True, linked_clones=("raw",)),
    StorageType(
        "iscsi", "block", ("raw",), thin="never", shared=True, live_resize=False, allocates=False, renames=False
    ),
    StorageType(
        "iscsidirect", "block", ("raw",), thin="never", shared=True, live_resize=False, allocates=False, renames=False
    ),
    StorageType("cephfs", "none", shared=True, allocates=False),
    StorageType("pbs", "none", shared=True, allocates=False),
    StorageType("esxi", "none", shared=True, allocates=False, importable=True),
)

#: By PVE's name of the type.
TABLE: Mapping[str, StorageType] = MappingProxyType({row.name: row for row in _ROWS})


@dataclass(frozen=True, slots=True)
class Storage:
    """One storage as one node sees it (``GET /nodes/{node}/storage?format=1``).

    :param formats: what it holds, as PVE says; the first is what PVE takes for a new disk.
    :param available: free bytes, or ``None`` when PVE does not tell.
    """

    name: str
    type: str
    content: frozenset[str]
    formats: tuple[str, ...]
    enabled: bool = True
    active: bool = True
    shared: bool = False
    available: int | None = None
    total: int | None = None

    @property
    def kind(self) -> StorageType | None:
        """The row of the table, or ``None`` for a type that this version does not know."""
        return TABLE.get(self.type)

    @property
    def chains(self) -> bool:
        """Whether ``snapshot-as-volume-chain`` is seen to be on: a block storage that holds qcow2."""
        return self.kind is not None and self.kind.level == "block" and "qcow2" in self.formats
