# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What QEMU is told about a drive, exactly as PVE tells it. Pure.

Sources: qemu-server 9.2.6, which says ``-blockdev`` from machine version 10.0 on (``src/PVE/QemuServer.pm``,
``config_to_command``; ``src/PVE/QemuServer/Blockdev.pm``, ``generate_drive_blockdev``;
``src/PVE/QemuServer/DriveDevice.pm``, ``print_drivedevice_full``; ``src/PVE/QemuServer/PCI.pm``), and 8.4.10, which
says ``-drive`` (``src/PVE/QemuServer.pm``, ``print_drive_commandline_full``, ``print_drivedevice_full``).
"""

from __future__ import annotations

import hashlib
import json
import typing as t

if t.TYPE_CHECKING:
    from .combination import Combination

#: The version of QEMU, and so of a new guest's machine, from which PVE says ``-blockdev``.
BLOCKDEV_SINCE: t.Final = (10, 0)
_DIRECT: t.Final = ("none", "directsync")
_WRITE_THROUGH: t.Final = ("writethrough", "directsync")
#: PCI addresses are those of the first drive of a bus. A bus has a bridge if it is not ``pci.0``.
_BRIDGE: t.Final = "pci-bridge,id=pci.3,chassis_nr=3,bus=pci.0,addr=0x5"


def slot(combination: Combination) -> str:
    """The slot in which the drive is, the first of its bus: ``scsi0``."""
    return f"{combination.bus}0"


def guest_device(combination: Combination) -> str:
    """How a Linux guest that has no other disk calls the drive."""
    return "vda" if combination.bus == "virtio" else "sda"


def drive_options(
    combination: Combination,
    path: str,
    *,
    volume: str = "",
    block: bool = False,
    qemu: tuple[int, int] = BLOCKDEV_SINCE,
) -> tuple[str, ...]:
    """Arguments for QEMU: IO thread, controller, block nodes and device of the drive.

    :param path: of the image's file or block device.
    :param volume: its volume id, which PVE derives the names of block nodes from.
    :param block: whether ``path`` is a block device.
    :param qemu: QEMU's version, which decides between the two ways in which PVE says it.
    """
    if qemu >= BLOCKDEV_SINCE:
        return (*_iothread(combination), *_group(combination), *_controller(combination), "-blockdev",
                _compact(blockdev(combination, path, volume or path, block=block)),
                "-device", f"{_device(combination)}{_new_device_options(combination)}")  # fmt: skip
    return (*_iothread(combination), *_controller(combination), "-drive", _drive(combination, path),
            "-device", _device(combination))  # fmt: skip


def _compact(data: dict[str, t.Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _iothread_id(combination: Combination) -> str:
    return "iothread-virtioscsi0" if combination.bus == "scsi" else f"iothread-{slot(combination)}"


def _iothread(combination: Combination) -> tuple[str, ...]:
    return ("-object", f"iothread,id={_iothread_id(combination)}") if combination.iothread else ()


def _group(combination: Combination) -> tuple[str, ...]:
    group = {"id": f"throttle-drive-{slot(combination)}", "limits": {}, "qom-type": "throttle-group"}
    return ("-object", _compact(group))


def _controller(combination: Combination) -> tuple[str, ...]:
    if combination.bus == "scsi":
        thread = f",iothread={_iothread_id(combination)}" if combination.iothread else ""
        return ("-device", _BRIDGE, "-device", f"virtio-scsi-pci,id=virtioscsi0,bus=pci.3,addr=0x1{thread}")
    if combination.bus == "sata":
        return ("-device", "ahci,id=ahci0,multifunction=on,bus=pci.0,addr=0x7")
    return ()


def _device(combination: Combination) -> str:
    name = slot(combination)
    node = f"drive=drive-{name},id={name}"
    if combination.bus == "virtio":
        thread = f",iothread={_iothread_id(combination)}" if combination.iothread else ""
        return f"virtio-blk-pci,{node},bus=pci.0,addr=0xa{thread}"
    places = {"scsi": "scsi-hd,bus=virtioscsi0.0,channel=0,scsi-id=0,lun=0", "sata": "ide-hd,bus=ahci0.0"}
    return f"{places.get(combination.bus, 'ide-hd,bus=ide.0,unit=0')},{node}"


def _new_device_options(combination: Combination) -> str:
    number = f",device_id=drive-{slot(combination)}" if combination.bus == "scsi" else ""
    return f"{number},write-cache={'off' if combination.cache in _WRITE_THROUGH else 'on'}"


def blockdev(combination: Combination, path: str, volume: str, *, block: bool) -> dict[str, t.Any]:
    """The block nodes of a drive: throttle filter, format, file.

    Neither discard nor detect_zeroes is configured, as in a drive that says nothing of them.
    """
    name = slot(combination)
    common = {"detect-zeroes": "on", "discard": "ignore", "read-only": False}
    cache = {"direct": combination.cache in _DIRECT, "no-flush": combination.cache == "unsafe"}
    number = hashlib.sha256(f"drive={name},volid={volume}".encode()).hexdigest()[:30]
    file = {
        **common,
        "driver": "host_device" if block else "file",
        "filename": path,
        "aio": combination.aio,
        "cache": cache,
        "node-name": f"e{number}",
    }
    image = {**common, "driver": combination.format, "file": file, "cache": cache, "node-name": f"f{number}"}
    group = f"throttle-drive-{name}"
    return {**common, "driver": "throttle", "file": image, "node-name": f"drive-{name}", "throttle-group": group}


def _drive(combination: Combination, path: str) -> str:
    """PVE leaves out ``cache`` where it is not configured and adds ``cache=none`` behind the format."""
    escaped = path.replace(",", ",,")
    given = f",cache={combination.cache},aio={combination.aio}"
    name = f"drive-{slot(combination)}"
    return f"file={escaped},if=none,id={name}{given},format={combination.format},detect-zeroes=on"
