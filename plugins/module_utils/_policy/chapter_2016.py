# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The policy ``chapter-2016``: the advice of the book chapter that this project began with, as it stood."""

from __future__ import annotations

from .rule import ALWAYS, Rule, checked

_FORMATS = "book chapter on virtual disks in Proxmox VE (2016), image formats"
_VMDK = "book chapter on virtual disks in Proxmox VE (2016), VMDK"
_BUSES = "book chapter on virtual disks in Proxmox VE (2016), bus and controller"
_CACHES = "book chapter on virtual disks in Proxmox VE (2016), cache modes"
_QUESTIONS = "book chapter on virtual disks in Proxmox VE (2016), closing questions"
_FILES = "contains(['dir', 'nfs', 'cifs', 'btrfs'], storage.type)"

_BUS_RULES = (
    Rule(
        id="legacy-bus",
        rank=0,
        when=ALWAYS,
        sets={"bus": "ide"},
        because="IDE and SATA are for guests without VirtIO drivers, and nobody has said that this one has them.",
        source=_BUSES,
    ),
    Rule(
        id="virtio",
        rank=30,
        when="contains(['block', 'all'], guest.virtio_drivers)",
        sets={"bus": "virtio"},
        because="VirtIO is the bus that changes performance, and the guest has its drivers.",
        source=_BUSES,
        severity="warning",
    ),
    Rule(
        id="virtio-scsi",
        rank=30,
        when="guest.virtio_drivers == 'scsi'",
        sets={"bus": "scsi"},
        because="The guest has VirtIO drivers for SCSI only, and a paravirtualised bus goes before an emulated one.",
        source=_BUSES,
    ),
    Rule(
        id="windows-iso",
        rank=70,
        when="guest.os_family == 'windows' && contains(['new', 'installing'], guest.stage)"
        " && guest.virtio_drivers == `null`",
        sets={"bus": "virtio"},
        because="Windows needs signed VirtIO drivers from an ISO, already during its setup.",
        source=_BUSES,
    ),
    Rule(
        id="converted",
        rank=70,
        when="guest.stage == 'migrated' && guest.virtio_drivers == `null`",
        sets={"bus": "ide"},
        because="A machine that was converted has no VirtIO driver yet: start on a legacy bus, bring the driver in,"
        " switch.",
        source=_BUSES,
        severity="danger",
    ),
    Rule(
        id="no-drivers",
        rank=80,
        when="guest.virtio_drivers == 'none'",
        sets={"bus": "ide"},
        because="Without VirtIO drivers there are IDE and SATA only.",
        source=_BUSES,
        severity="danger",
    ),
    Rule(
        id="controller",
        rank=0,
        when=ALWAYS,
        sets={"scsihw": None},
        because="The chapter has no advice about the SCSI controller beside that of the bus.",
        source=_BUSES,
    ),
    Rule(
        id="controller-virtio",
        rank=10,
        when="chosen.bus == 'scsi' && contains(['scsi', 'all'], guest.virtio_drivers)",
        sets={"scsihw": "virtio-scsi-pci"},
        because="A paravirtualised bus needs a paravirtualised controller.",
        source=_BUSES,
    ),
)

_FORMAT_RULES = (
    Rule(
        id="raw",
        rank=0,
        when=ALWAYS,
        sets={"format": "raw"},
        because="raw is the fastest format, with no layer in between, and block storages hold no other.",
        source=_FORMATS,
    ),
    Rule(
        id="qcow2-on-ssd",
        rank=25,
        when=f"{_FILES} && contains(['ssd', 'nvme'], storage.medium)",
        sets={"format": "qcow2"},
        because="On SSDs the difference between raw and qcow2 mostly vanishes, so its features come for free.",
        source=_FORMATS,
    ),
    Rule(
        id="throughput-raw",
        rank=30,
        when="storage.level == 'file' && need.throughput == 'high' && (storage.medium == 'hdd'"
        " || storage.medium == `null`)",
        sets={"format": "raw"},
        because="Where throughput matters, raw is the format, above all on spinning disks.",
        source=_FORMATS,
    ),
    Rule(
        id="database-hdd-raw",
        rank=31,
        when="need.workload == 'database' && storage.medium == 'hdd'",
        sets={"format": "raw"},
        because="Databases on spinning disks need the throughput of raw most of all.",
        source=_FORMATS,
        severity="warning",
    ),
    Rule(
        id="mount-raw",
        rank=32,
        when="storage.level == 'file' && need.mount_on_host",
        sets={"format": "raw"},
        because="A raw image can be mounted on the host with kpartx.",
        source=_FORMATS,
    ),
    Rule(
        id="team-raw",
        rank=15,
        when="storage.level == 'file' && contains(team.formats, 'raw') && lacks(team.formats, 'qcow2')",
        sets={"format": "raw"},
        because="What the administrators are at home with counts, and that is raw.",
        source=_QUESTIONS,
    ),
    Rule(
        id="team-qcow2",
        rank=15,
        when=f"{_FILES} && contains(team.formats, 'qcow2') && lacks(team.formats, 'raw')",
        sets={"format": "qcow2"},
        because="What the administrators are at home with counts, and that is qcow2.",
        source=_QUESTIONS,
    ),
    Rule(
        id="thin-qcow2",
        rank=38,
        when="contains(['dir', 'nfs', 'cifs', 'btrfs'], storage.type)"
        " && (need.thin || need.overcommit || need.capacity == 'tight')",
        sets={"format": "qcow2"},
        because="qcow2 is provisioned thinly, raw has a fixed size.",
        source=_FORMATS,
    ),
    Rule(
        id="features-qcow2",
        rank=40,
        when="storage.level == 'file' && (need.snapshots || need.linked_clones || need.throwaway)"
        " && lacks(storage.snapshot_formats, 'raw')",
        sets={"format": "qcow2"},
        because="Snapshots, backing images and temporary snapshots are qcow2's, and the storage below does not have"
        " them.",
        source=_FORMATS,
    ),
    Rule(
        id="no-vmdk",
        rank=60,
        when=ALWAYS,
        forbids={"format": ("vmdk",)},
        because="VMDK is for images that come from VMware: convert them, and make no new ones.",
        source=_VMDK,
        severity="warning",
    ),
)

_CACHE_RULES = (
    Rule(
        id="cache-none",
        rank=0,
        when=ALWAYS,
        sets={"cache": "none"},
        because="none is the default, and the mode for raw images.",
        source=_CACHES,
    ),
    Rule(
        id="database-hdd-none",
        rank=31,
        when="need.workload == 'database' && storage.medium == 'hdd'",
        sets={"cache": "none"},
        because="Databases on spinning disks: raw, with no cache, on VirtIO.",
        source=_CACHES,
    ),
    Rule(
        id="sync-caches",
        rank=60,
        when=ALWAYS,
        forbids={"cache": ("directsync", "writethrough")},
        because="directsync and writethrough are slow; they are for special cases.",
        source=_CACHES,
    ),
    Rule(
        id="sync-caches-zfs-raid",
        rank=61,
        when="contains(['zfspool', 'zfs'], storage.type) || contains(['hardware', 'software'], storage.raid)",
        forbids={"cache": ("directsync", "writethrough")},
        because="directsync and writethrough are to be avoided above all over ZFS and RAID.",
        source=_CACHES,
        severity="warning",
    ),
    Rule(
        id="disposable-unsafe",
        rank=50,
        when="need.durability == 'disposable' && need.throughput == 'high'",
        sets={"cache": "unsafe"},
        because="writeback (unsafe) is the fastest mode, for data that nobody would miss.",
        source=_CACHES,
    ),
    Rule(
        id="unsafe",
        rank=85,
        when="contains(['strict', 'normal'], need.durability) || need.durability == `null`",
        forbids={"cache": ("unsafe",)},
        because="writeback (unsafe) is only for data that nobody would miss.",
        source=_CACHES,
        severity="danger",
    ),
)

_SILENT = tuple(
    Rule(
        id=f"no-word-on-{name}".replace("_", "-"),
        rank=0,
        when=ALWAYS,
        sets={name: None},
        because=f"The chapter says nothing about {name}, so Proxmox VE's default stays.",
        source="book chapter on virtual disks in Proxmox VE (2016)",
    )
    for name in "aio iothread discard ssd detect_zeroes backup".split()
)

CHAPTER_2016: tuple[Rule, ...] = checked([*_BUS_RULES, *_FORMAT_RULES, *_CACHE_RULES, *_SILENT])
