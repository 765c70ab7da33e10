# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What PVE or QEMU refuses, or silently does not do. Shared by all policies, checked last, and never overridden."""

from __future__ import annotations

from .._core.layout import CONTROLLERS, FORMATS
from .._core.options import TABLE
from .choices import CHOICES
from .rule import HARD, Rule, checked

_DRIVE = "qemu-server 9.2.6, PVE/QemuServer/Drive.pm"
_QEMU_SERVER = "qemu-server 9.2.6, PVE/QemuServer.pm"
#: Cache modes with which QEMU does not open the image with O_DIRECT.
HOST_CACHED = ("writethrough", "writeback", "unsafe")


def quoted(names: tuple[str, ...]) -> str:
    """Names as the items of a list in a condition."""
    return ", ".join(f"'{name}'" for name in names)


def _held_formats() -> list[Rule]:
    return [
        Rule(
            id=f"storage-holds-{name}",
            rank=HARD,
            when=f"lacks(storage.formats, '{name}')",
            forbids={"format": (name,)},
            because=f"The storage can't hold {name} images.",
            source="pve-storage 9.1.7, PVE/Storage/*Plugin.pm (plugindata)",
            severity="danger",
        )
        for name in FORMATS
    ]


def _options_of_buses() -> list[Rule]:
    """Options that some buses do not have, as the core's table of options says."""
    rows = []
    for row in (TABLE[name] for name in CHOICES if name in TABLE):
        missing = tuple(bus for bus in CHOICES["bus"].values if bus not in row.buses)
        if missing:
            rows.append(
                Rule(
                    id=f"bus-has-{row.name}".replace("_", "-"),
                    rank=HARD,
                    when=f"contains([{quoted(missing)}], chosen.bus)",
                    forbids={row.name: CHOICES[row.name].values},
                    because=f"Disks on {' and '.join(missing)} do not have the option {row.name}.",
                    source=_DRIVE,
                    severity="danger",
                )
            )
    return rows


_OTHER_CONTROLLERS = tuple(name for name in CONTROLLERS if name != "virtio-scsi-single")

CONSTRAINTS: tuple[Rule, ...] = checked(
    [
        *_held_formats(),
        *_options_of_buses(),
        Rule(
            id="chain-needs-machine-10",
            rank=HARD,
            when="storage.chains && guest.machine_version < `10.0`",
            forbids={"format": ("qcow2",)},
            because="On a storage with snapshots as volume chains, a guest with a qcow2 image starts only with machine"
            " version 10.0 or newer.",
            source=f"{_QEMU_SERVER} (print_drive_commandline_full)",
            severity="danger",
        ),
        Rule(
            id="native-needs-direct",
            rank=HARD,
            when=f"contains([{quoted(HOST_CACHED)}], chosen.cache)",
            forbids={"aio": ("native",)},
            because="aio=native needs a cache mode without the host's cache. Proxmox VE takes the pair, and the guest"
            " does not start.",
            source=f"{_DRIVE} (aio_cmdline_option); QEMU block/file-posix.c: aio=native requires cache.direct=on",
            severity="danger",
        ),
        Rule(
            id="direct-for-native",
            rank=HARD,
            when="fixed.aio == 'native'",
            forbids={"cache": HOST_CACHED},
            because="aio=native needs a cache mode without the host's cache: none or directsync. With another one the"
            " guest does not start.",
            source=f"{_DRIVE} (aio_cmdline_option); QEMU block/file-posix.c: aio=native requires cache.direct=on",
            severity="danger",
        ),
        Rule(
            id="native-on-btrfs",
            rank=HARD,
            when="storage.type == 'btrfs' && chosen.cache == `null`",
            forbids={"aio": ("native",)},
            because="On BTRFS a disk without a cache mode goes through the host's cache, and with aio=native its guest"
            " does not start.",
            source=f"{_DRIVE} (drive_uses_cache_direct)",
            severity="danger",
        ),
        Rule(
            id="iothread-needs-single",
            rank=HARD,
            when=f"chosen.bus == 'scsi' && (contains([{quoted(_OTHER_CONTROLLERS)}], chosen.scsihw)"
            " || chosen.scsihw == `null`)",
            forbids={"iothread": ("1",)},
            because="On SCSI, I/O threads work with the controller virtio-scsi-single only. With another one they are"
            " ignored, with a warning at each start.",
            source=f"{_QEMU_SERVER} (config_to_command)",
            severity="warning",
        ),
    ]
)
