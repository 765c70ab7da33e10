# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The policy ``current``: what Proxmox VE 8 and 9 recommend, and what their source makes of it."""

from __future__ import annotations

from .constraints import HOST_CACHED, quoted
from .rule import ALWAYS, Rule, checked

_BUS = "pve-docs 9.1.3, qm.adoc, Bus/Controller"
_FORMAT = "pve-docs 9.1.3, qm.adoc, Image Format"
_CACHE = "pve-docs 9.1.3, qm.adoc, Cache Mode"
_DISCARD = "pve-docs 9.1.3, qm.adoc, Trim/Discard"
_IOTHREAD = "pve-docs 9.1.3, qm.adoc, IO Thread"
_DRIVE = "qemu-server 9.2.6, PVE/QemuServer/Drive.pm"
_GUI = "pve-manager 9, www/manager6/qemu/OSDefaults.js"
_SELECTOR = "pve-manager 9, www/manager6/form/DiskStorageSelector.js"
_WIZARD = "pve-manager 9, www/manager6/window/GuestImport.js"
_PLUGIN = "pve-storage 9.1.7, PVE/Storage/Plugin.pm"
_BTRFS = "pve-docs 9.1.3, pve-storage-btrfs.adoc"
_DIR = "pve-docs 9.1.3, pve-storage-dir.adoc"
_LVM = "pve-docs 9.1.3, pve-storage-lvm.adoc"
_ISO = "virtio-win, data/old-drivers: vioscsi begins with Windows Vista and 2008"
_FLUSH = "qemu-server 9.2.6, PVE/QemuServer/DriveDevice.pm (write-cache) and QEMU's description of cache modes"
_YOURS = "your own benchmark"
#: On storages of these types io_uring is known to hang; on RBD mapped by the kernel if the host caches.
IO_URING_HANGS = ("lvm", "cifs")


def _ahead(name: str) -> str:
    """What was measured, as far as the benchmark has told it."""
    return (
        f"In {{measurements.run}} it was ahead of the next by {{measurements.{name}_difference}} %, and up to"
        f" {{measurements.{name}_noise}} % is noise there."
    )


# Ranks: 0 what holds without any reason against it, 10 the storage, 15 the team, 20 what lies below the storage,
# 30 the workload, 33 capacity, 36 measurements, 40 features that are needed, 45 the file system below,
# 50 durability, 60 what is left alone for good reason, 70 the guest's stage, 80 its drivers, 85 safety.
_BUSES = (
    Rule(
        id="bus-for-unknown",
        rank=0,
        when=ALWAYS,
        sets={"bus": "sata"},
        because="Nobody has said which drivers the guest has, and every system since about 2005 starts from SATA. Say"
        " guest.virtio_drivers, and it gets VirtIO SCSI.",
        source=_BUS,
    ),
    Rule(
        id="virtio-scsi",
        rank=30,
        when="contains(['scsi', 'all'], guest.virtio_drivers)",
        sets={"bus": "scsi"},
        because="VirtIO SCSI is the fastest bus that the guest has a driver for, and the one with all features:"
        " discards, up to 31 disks, an I/O thread for each. Linux needs virtio_scsi in its initramfs before its boot"
        " disk moves there.",
        source=_BUS,
        severity="warning",
    ),
    Rule(
        id="virtio-block-only",
        rank=30,
        when="guest.virtio_drivers == 'block'",
        sets={"bus": "virtio"},
        because="The guest has the driver of VirtIO Block and not that of VirtIO SCSI, and either is far better than an"
        " emulated controller.",
        source=_BUS,
        severity="warning",
    ),
    Rule(
        id="free-unix",
        rank=30,
        when="guest.os_family == 'bsd' && guest.virtio_drivers == `null`",
        sets={"bus": "scsi"},
        because="The free Unixes bring the VirtIO drivers, FreeBSD since 2014.",
        source=_BUS,
        severity="warning",
    ),
    Rule(
        id="measured-virtio-block",
        rank=36,
        when="guest.virtio_drivers == 'all' && measurements.fastest_bus == 'virtio'",
        sets={"bus": "virtio"},
        because="VirtIO Block was the fastest bus in your benchmark. It has no SSD emulation and fewer slots.",
        details=_ahead("bus"),
        source=_YOURS,
    ),
    Rule(
        id="linux-migrated",
        rank=70,
        when="guest.os_family == 'linux' && guest.stage == 'migrated' && guest.virtio_drivers == `null`",
        sets={"bus": "scsi"},
        because="Linux brings the VirtIO drivers, so a guest that comes from elsewhere can start on VirtIO SCSI at"
        " once. If its initramfs was made without them, start it from SATA and make that anew.",
        source="pve-docs 9.1.3, qm.adoc, Import OVF/OVA Through CLI",
    ),
    Rule(
        id="windows-install",
        rank=70,
        when="guest.os_family == 'windows' && contains(['new', 'installing'], guest.stage)"
        " && guest.virtio_drivers == `null`",
        sets={"bus": "scsi"},
        because="Windows learns VirtIO SCSI most easily while it is installed: attach the driver ISO as a second CD-ROM"
        " drive, and load vioscsi in Setup.",
        source=f"{_BUS}; pve-manager 9, www/manager6/qemu/OSPanel.js",
    ),
    Rule(
        id="windows-migrated",
        rank=70,
        when="guest.os_family == 'windows' && guest.stage == 'migrated' && guest.virtio_drivers == `null`",
        sets={"bus": "sata", "scsihw": "virtio-scsi-single"},
        because="A Windows that comes from elsewhere does not start from VirtIO before its driver is in. SATA starts;"
        " bring the driver in, then move the disk to SCSI.",
        source=_WIZARD,
        severity="danger",
    ),
    Rule(
        id="no-drivers",
        rank=80,
        when="guest.virtio_drivers == 'none'",
        sets={"bus": "sata"},
        because="The guest has no VirtIO drivers, and SATA is the fastest bus that needs none.",
        source=_BUS,
        severity="danger",
    ),
    Rule(
        id="ide-before-2003",
        rank=82,
        when="contains(['w2k', 'wxp', 'w2k3', 'l24'], guest.os_release)"
        " && (guest.virtio_drivers == 'none' || guest.virtio_drivers == `null`)",
        sets={"bus": "ide"},
        because="A system of that age knows IDE, and no SATA controller.",
        source=_BUS,
        severity="danger",
    ),
    Rule(
        id="old-windows-virtio-block",
        rank=82,
        when="contains(['wxp', 'w2k3'], guest.os_release) && contains(['block', 'all'], guest.virtio_drivers)",
        sets={"bus": "virtio"},
        because="For Windows XP and 2003 there is a VirtIO Block driver and none for VirtIO SCSI.",
        source=_ISO,
        severity="danger",
    ),
)

_CONTROLLERS = (
    Rule(
        id="controller-unused",
        rank=0,
        when=ALWAYS,
        sets={"scsihw": None},
        because="The disk is on another bus, so the guest's SCSI controller is no matter of it.",
        source=_BUS,
    ),
    Rule(
        id="virtio-scsi-single",
        rank=10,
        when="chosen.bus == 'scsi'",
        sets={"scsihw": "virtio-scsi-single"},
        because="Each disk gets a controller of its own, and with it an I/O thread of its own. When none is named,"
        " Proxmox VE's API takes an LSI controller from the 1990s.",
        source=f"{_BUS}; {_GUI}",
        since="7.3",
        severity="warning",
    ),
    Rule(
        id="lsi-for-old-systems",
        rank=82,
        when="chosen.bus == 'scsi' && contains(['w2k', 'wxp', 'w2k3', 'l24'], guest.os_release)"
        " && (guest.virtio_drivers == 'none' || guest.virtio_drivers == `null`)",
        sets={"scsihw": "lsi"},
        because="Of all SCSI controllers, systems of that age know the LSI only.",
        source=_BUS,
    ),
    Rule(
        id="windows-without-lsi",
        rank=85,
        when="chosen.bus == 'scsi' && contains(['w2k8', 'wvista', 'win7', 'win8', 'win10', 'win11'], guest.os_release)",
        forbids={"scsihw": (None, "lsi", "lsi53c810")},
        because="No Windows since Vista has a driver for the LSI controller, and it is what Proxmox VE's API takes when"
        " none is named.",
        source=f"{_DRIVE}; {_WIZARD}",
        severity="danger",
    ),
    Rule(
        id="ovmf-without-lsi",
        rank=85,
        when="chosen.bus == 'scsi' && guest.firmware == 'ovmf'",
        forbids={"scsihw": (None, "lsi", "lsi53c810")},
        because="OVMF can't start from the LSI controller, and it is what Proxmox VE's API takes when none is named.",
        source="pve-docs 9.1.3, qm.adoc, Import of OVA/OVF",
        severity="danger",
    ),
)

_FORMATS = (
    Rule(
        id="raw",
        rank=0,
        when=ALWAYS,
        sets={"format": "raw"},
        because="Every storage holds raw, and there is no layer between the guest and the storage.",
        source=_FORMAT,
    ),
    Rule(
        id="file-qcow2",
        rank=10,
        when="contains(['dir', 'nfs', 'cifs'], storage.type)",
        sets={"format": "qcow2"},
        because="A folder of files has no snapshots of its own; qcow2 brings them, and takes only the space that is"
        " written.",
        source=f"{_FORMAT}; {_SELECTOR}",
    ),
    Rule(
        id="team-raw",
        rank=15,
        when="storage.level == 'file' && contains(team.formats, 'raw') && lacks(team.formats, 'qcow2')",
        sets={"format": "raw"},
        because="Your administrators are at home with raw and not with qcow2, and nothing here needs qcow2.",
        source="what you said about the team",
    ),
    Rule(
        id="cow-twice",
        rank=20,
        when="storage.level == 'file' && storage.cow_below",
        sets={"format": "raw"},
        because="The file system below copies on write already. A qcow2 image on it does the same work twice.",
        source=f"{_BTRFS}; pve-storage 9.1.7, PVE/Storage/BTRFSPlugin.pm (default format raw)",
    ),
    Rule(
        id="database-raw",
        rank=30,
        when="storage.level == 'file' && need.workload == 'database'",
        sets={"format": "raw"},
        because="raw may be up to 10 % faster than qcow2, and a database has better means than image snapshots.",
        source=_FORMAT,
    ),
    Rule(
        id="throughput-raw",
        rank=31,
        when="storage.level == 'file' && need.throughput == 'high'",
        sets={"format": "raw"},
        because="raw may be up to 10 % faster than qcow2, and throughput is what you asked for.",
        source=_FORMAT,
    ),
    Rule(
        id="mount-raw",
        rank=32,
        when="storage.level == 'file' && need.mount_on_host",
        sets={"format": "raw"},
        because="A raw image can be mounted on the node as it is; qcow2 needs qemu-nbd in between.",
        source=_FORMAT,
    ),
    Rule(
        id="capacity-qcow2",
        rank=33,
        when="contains(['dir', 'nfs', 'cifs'], storage.type)"
        " && (need.thin || need.overcommit || need.capacity == 'tight')",
        sets={"format": "qcow2"},
        because="qcow2 takes only the space that is written on every file system, raw only on those with sparse files.",
        source=_FORMAT,
    ),
    Rule(
        id="portable-raw",
        rank=34,
        when="storage.level == 'file' && need.portable",
        sets={"format": "raw"},
        because="raw is the disk bit by bit: every hypervisor reads it or converts it. VMDK makes sense on the way out"
        " only.",
        source=_FORMAT,
    ),
    Rule(
        id="measured-raw",
        rank=36,
        when="storage.level == 'file' && measurements.fastest_format == 'raw'",
        sets={"format": "raw"},
        because="raw was the fastest format in your benchmark.",
        details=_ahead("format"),
        source=_YOURS,
    ),
    Rule(
        id="measured-qcow2",
        rank=36,
        when="contains(['dir', 'nfs', 'cifs'], storage.type) && measurements.fastest_format == 'qcow2'",
        sets={"format": "qcow2"},
        because="qcow2 was no slower than raw in your benchmark, so its features cost nothing.",
        source=_YOURS,
        details=_ahead("format"),
    ),
    Rule(
        id="measured-equal",
        rank=36,
        when="contains(['dir', 'nfs', 'cifs'], storage.type) && measurements.fastest_format == `null`"
        " && contains(measurements.equal_formats, 'qcow2')",
        sets={"format": "qcow2"},
        because="Your benchmark can't tell qcow2 from raw, so its features cost nothing.",
        source=_YOURS,
        details="In {measurements.run} the two differ by {measurements.format_difference} % here, and up to"
        " {measurements.format_noise} % is noise.",
    ),
    Rule(
        id="snapshots-qcow2",
        rank=40,
        when="storage.level == 'file' && (need.snapshots || need.throwaway)"
        " && lacks(storage.snapshot_formats, 'raw') && contains(storage.snapshot_formats, 'qcow2')",
        sets={"format": "qcow2"},
        because="You want snapshots, and this storage takes them of qcow2 images only.",
        source=f"{_DIR}; {_PLUGIN} (volume_has_feature)",
        severity="warning",
    ),
    Rule(
        id="clones-qcow2",
        rank=40,
        when="contains(['dir', 'nfs', 'cifs'], storage.type) && need.linked_clones",
        sets={"format": "qcow2"},
        because="Linked clones are qcow2 images over a base image, and a base of the same format keeps them simple.",
        source=f"{_PLUGIN} (clone_image)",
    ),
    Rule(
        id="chain-qcow2",
        rank=40,
        when="storage.type == 'lvm' && storage.chains && (need.snapshots || need.throwaway)",
        sets={"format": "qcow2"},
        because="You want snapshots, and thick LVM takes them of qcow2 volumes in a chain only. That is a technology"
        " preview in Proxmox VE 9, and each snapshot takes a volume of full size.",
        source=_LVM,
        since="9.0",
    ),
    Rule(
        id="no-vmdk",
        rank=60,
        when=ALWAYS,
        forbids={"format": ("vmdk",)},
        because="Proxmox VE can neither resize nor snapshot VMDK images. They are for import and export: convert one on"
        " the day when it leaves.",
        source=f"{_FORMAT}; {_PLUGIN} (volume_resize, volume_has_feature)",
        severity="warning",
    ),
)

_CACHES = (
    Rule(
        id="cache-default",
        rank=0,
        when=ALWAYS,
        sets={"cache": None},
        because="Without a cache mode Proxmox VE opens the image past the host's cache (as with none), except on BTRFS,"
        " where that would lead to checksum errors. It is a good balance of safety and speed.",
        source=f"{_CACHE}; {_DRIVE} (drive_uses_cache_direct)",
    ),
    Rule(
        id="database-none",
        rank=30,
        when="need.workload == 'database'",
        sets={"cache": "none"},
        because="A database caches by itself and flushes when it must: none leaves the host's cache out and hands every"
        " flush on.",
        source=_CACHE,
    ),
    Rule(
        id="measured-none",
        rank=36,
        when="measurements.fastest_cache == 'none'",
        sets={"cache": "none"},
        because="none was the fastest cache mode in your benchmark.",
        details=_ahead("cache"),
        source=_YOURS,
    ),
    Rule(
        id="measured-writeback",
        rank=36,
        when="measurements.fastest_cache == 'writeback' && contains(['normal', 'disposable'], need.durability)",
        sets={"cache": "writeback"},
        because="writeback was the fastest cache mode in your benchmark. What the guest has not flushed is lost in a"
        " crash of the node, as with any disk's cache.",
        details=_ahead("cache"),
        source=_YOURS,
    ),
    Rule(
        id="btrfs-cache",
        rank=45,
        when="storage.type == 'btrfs'",
        sets={"cache": None},
        forbids={"cache": ("none", "directsync")},
        because="BTRFS honours O_DIRECT, and a guest that changes a block while it is written leaves a wrong checksum."
        " Proxmox VE leaves O_DIRECT out by itself when no cache mode is set.",
        source=f"{_BTRFS}; {_DRIVE} (drive_uses_cache_direct)",
        severity="danger",
    ),
    Rule(
        id="no-direct-io",
        rank=46,
        when="storage.direct_io == `false`",
        sets={"cache": "writeback"},
        forbids={"cache": (None, "none", "directsync")},
        because="The file system below does not take O_DIRECT, which every mode without the host's cache needs.",
        source=_DIR,
        severity="danger",
    ),
    Rule(
        id="disposable-unsafe",
        rank=50,
        when="need.durability == 'disposable' && need.throughput == 'high'",
        sets={"cache": "unsafe"},
        because="Nobody would miss the data, so flushes may be dropped for speed. A crash of the node ruins the disk.",
        source="qemu-server 9.2.6, PVE/QemuServer/Blockdev.pm (no-flush)",
    ),
    Rule(
        id="sync-caches",
        rank=60,
        when=ALWAYS,
        forbids={"cache": ("directsync", "writethrough")},
        because="directsync and writethrough turn the guest's write cache off and flush after every write, which is"
        " slow on any medium, and needless with a guest that flushes.",
        source=_FLUSH,
    ),
    Rule(
        id="no-flush-writethrough",
        rank=61,
        when="guest.os_release == 'l24' && need.durability == 'strict'",
        sets={"cache": "writethrough"},
        because="Linux 2.4 sends no flushes, so only a mode that flushes after every write keeps its data.",
        source="QEMU's description of cache modes: writethrough is for guests that do not send flushes",
    ),
    Rule(
        id="keep-flushes",
        rank=85,
        when="contains(['strict', 'normal'], need.durability) || need.durability == `null`",
        forbids={"cache": ("unsafe",)},
        because="unsafe drops the guest's flushes: after a crash of the node the disk may be beyond repair.",
        source="qemu-server 9.2.6, PVE/QemuServer/Blockdev.pm (no-flush)",
        severity="danger",
    ),
)

_IO = (
    Rule(
        id="aio-default",
        rank=0,
        when=ALWAYS,
        sets={"aio": None},
        because="Proxmox VE takes io_uring, and native or threads where io_uring is known to hang. Set by hand, it"
        " can't do that, nor adapt when the disk moves.",
        source=f"{_DRIVE} (aio_cmdline_option)",
        since="7.0",
    ),
    Rule(
        id="measured-native",
        rank=36,
        when="measurements.fastest_aio == 'native' && contains(['none', 'directsync'], chosen.cache)",
        sets={"aio": "native"},
        because="native was the fastest kind of I/O in your benchmark, and the cache mode allows it.",
        details=_ahead("aio"),
        source=_YOURS,
    ),
    Rule(
        id="measured-threads",
        rank=36,
        when="measurements.fastest_aio == 'threads'",
        sets={"aio": "threads"},
        because="threads was the fastest kind of I/O in your benchmark.",
        details=_ahead("aio"),
        source=_YOURS,
    ),
    Rule(
        id="no-io-uring",
        rank=60,
        when=f"contains([{quoted(IO_URING_HANGS)}], storage.type) || (storage.type == 'rbd' && storage.krbd"
        f" && contains([{quoted(HOST_CACHED)}], chosen.cache))",
        forbids={"aio": ("io_uring",)},
        because="io_uring is known to hang on this storage, and set by hand it is used all the same. A live move to"
        " such a storage is refused.",
        source=f"{_DRIVE} (storage_allows_io_uring_default)",
        since="7.0",
        severity="warning",
    ),
    Rule(
        id="iothread-default",
        rank=0,
        when=ALWAYS,
        sets={"iothread": None},
        because="This bus has no I/O threads.",
        source=_IOTHREAD,
    ),
    Rule(
        id="iothread",
        rank=10,
        when="chosen.bus == 'virtio' || (chosen.bus == 'scsi' && chosen.scsihw == 'virtio-scsi-single')",
        sets={"iothread": "1"},
        because="The disk's I/O gets a thread of its own, so that it waits for no other disk and no processor of the"
        " guest waits for it.",
        source=f"{_IOTHREAD}; pve-manager 9, www/manager6/qemu/HDEdit.js",
    ),
    Rule(
        id="discard-default",
        rank=0,
        when=ALWAYS,
        sets={"discard": None},
        because="The storage has no use for discards, or it is not known to have one.",
        source=_DISCARD,
    ),
    Rule(
        id="thin-discard",
        rank=20,
        when="contains(['always', 'format'], storage.thin)",
        sets={"discard": "on"},
        because="The storage takes only the space that is written, and with discards the guest gives back what it"
        " deletes. Proxmox VE's dialog leaves them off; then a thin disk only ever grows.",
        source=_DISCARD,
    ),
    Rule(
        id="thin-discard-needed",
        rank=33,
        when="storage.thin == 'always' && (need.overcommit || need.capacity == 'tight')",
        sets={"discard": "on"},
        because="More is promised than the storage has, so what guests delete has to come back: a full thin pool stops"
        " every guest on it.",
        source=_DISCARD,
        severity="warning",
    ),
    Rule(
        id="ssd-default",
        rank=0,
        when=ALWAYS,
        sets={"ssd": None},
        because="The medium is not known to be solid-state, or the bus has no SSD emulation.",
        source=_DISCARD,
    ),
    Rule(
        id="ssd",
        rank=20,
        when="contains(['ssd', 'nvme'], storage.medium) && contains(['ide', 'sata', 'scsi'], chosen.bus)",
        sets={"ssd": "1"},
        because="The guest then knows that it is on solid-state: it sends discards, which some systems do for no other"
        " disk, and does not defragment. Proxmox VE's dialog leaves it off, as it can't know.",
        source=_DISCARD,
    ),
    Rule(
        id="detect-zeroes-default",
        rank=0,
        when=ALWAYS,
        sets={"detect_zeroes": None},
        because="By default QEMU looks for zeroes, and with discards on it gives their space back.",
        source=f"{_DRIVE} (detect_zeroes_cmdline_option)",
    ),
    Rule(
        id="backup-default",
        rank=0,
        when=ALWAYS,
        sets={"backup": None},
        because="By default backups include the disk.",
        source="qemu-server 9.2.6, PVE/QemuConfig.pm",
    ),
    Rule(
        id="scratch-no-backup",
        rank=30,
        when="need.workload == 'scratch' && need.durability == 'disposable'",
        sets={"backup": "0"},
        because="Nobody would miss the data, so backups need not carry it.",
        source="pve-docs 9.1.3, qm.adoc, Cache Mode (No backup)",
    ),
    Rule(
        id="strict-backup",
        rank=85,
        when="need.durability == 'strict'",
        forbids={"backup": ("0",)},
        because="You asked for strict durability, and this disk is left out of backups.",
        source="pve-docs 9.1.3, qm.adoc, Cache Mode (No backup)",
        severity="warning",
    ),
)

CURRENT: tuple[Rule, ...] = checked([*_BUSES, *_CONTROLLERS, *_FORMATS, *_CACHES, *_IO])
