# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
r"""A made-up cluster as guest_disks_info returns it with a policy: as large as wanted, always the same, with
findings of every kind. To see what the audit makes of it:

    python tests/audit/sample.py 1000 4 > cluster.json
    ansible-playbook diskwright.proxmox.audit \
        -e "disk_audit_cluster={{ lookup('file', '$PWD/cluster.json') | from_json }}"
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from typing import Any

GIB = 1024**3
Data = dict[str, Any]

STORAGES = {  # name: type, level, format, shared, size in TiB, how often it is used
    "local-lvm": ("lvmthin", "block", "raw", False, 2, 6),
    "tank": ("zfspool", "block", "raw", False, 8, 4),
    "ceph": ("rbd", "block", "raw", True, 40, 5),
    "nas": ("nfs", "file", "qcow2", True, 20, 3),
    "san": ("lvm", "block", "raw", True, 12, 2),
}
ROLES = "web app db mail files build mon proxy win dc erp ci git vpn log".split()
SITES = "berlin paris oslo graz".split()

DEFAULT = "PVE's default"
NATIVE = {"true": True, "false": False}
# rule: severity, option, actual, recommended, reason, source, since. What PVE and its sources say, in short.
RULES: dict[str, tuple[str, str, str, str, str, str, str]] = {
    "cache-unsafe": (
        "danger",
        "cache",
        "unsafe",
        "none",
        "With unsafe the guest's flushes are thrown away: a crash of the node loses data that the guest believes to be "
        "on the disk.",
        "qemu-server 9.2.6, PVE/QemuServer/Blockdev.pm",
        "8.0",
    ),
    "aio-native-cached": (
        "danger",
        "aio",
        "native",
        DEFAULT,
        "QEMU refuses native with a mode that goes through the host's cache: the guest does not start again.",
        "QEMU: aio=native was specified, but it requires cache.direct=on",
        "8.0",
    ),
    "volume-twice": (
        "danger",
        "volume",
        "",
        "",
        "Two slots hold one volume: two writers who know nothing of each other destroy its file system.",
        "hard constraint",
        "8.0",
    ),
    "snapshot-machine-10": (
        "danger",
        "snapshot",
        "true",
        DEFAULT,
        "A guest with machine version 10 or newer does not start with snapshot=1.",
        "qemu-server 9.2.6, PVE/QemuServer/Blockdev.pm",
        "9.0",
    ),
    "boot-missing": (
        "warning",
        "boot",
        "scsi0, ide3",
        "scsi0",
        "The boot order names a drive that is not there.",
        "hard constraint",
        "8.0",
    ),
    "windows-lsi": (
        "warning",
        "scsihw",
        "lsi (PVE's default)",
        "virtio-scsi-single",
        "Without a controller Proxmox VE takes lsi, for which Windows has had no driver since Windows XP.",
        "qemu-server 9.2.6, PVE/QemuServer.pm",
        "8.0",
    ),
    "backup-off": (
        "warning",
        "backup",
        "false",
        DEFAULT,
        "The disk is left out of backups, and nothing says that its data can be done without.",
        "Proxmox VE Administration Guide, Backup and Restore",
        "8.0",
    ),
    "not-taken-up": (
        "warning",
        "cache",
        "none",
        "none",
        "The running guest still works with the old value. It takes up the new one when it is stopped and started.",
        "qemu-server 9.2.6, PVE/QemuServer.pm",
        "8.0",
    ),
    "vmdk": (
        "warning",
        "format",
        "vmdk",
        "qcow2",
        "VMDK can be neither resized nor snapshotted by Proxmox VE; it only makes sense for import and export.",
        "Proxmox VE Administration Guide, Image Format",
        "8.0",
    ),
    "legacy-bus": (
        "warning",
        "bus",
        "ide",
        "scsi",
        "An emulated IDE disk is several times slower than a paravirtualised one, and the guest has the driver.",
        "Proxmox VE Administration Guide, Bus/Controller",
        "8.0",
    ),
    "unused-volume": (
        "info",
        "volume",
        "64 GiB",
        "",
        "No slot uses this volume. It takes 64 GiB until somebody attaches it or destroys it.",
        "Proxmox VE Administration Guide, Hard Disk",
        "8.0",
    ),
    "thin-discard": (
        "info",
        "discard",
        DEFAULT,
        "on",
        "The storage is thin: without discard, space that the guest has freed stays taken.",
        "Proxmox VE Administration Guide, Trim/Discard",
        "8.0",
    ),
    "iothread": (
        "info",
        "iothread",
        DEFAULT,
        "true",
        "A thread of its own keeps the disk's I/O away from the guest's other work.",
        "Proxmox VE Administration Guide, IO Thread",
        "8.0",
    ),
    "zfs-writeback": (
        "info",
        "cache",
        "writeback",
        "none",
        "ZFS has a cache of its own; the host's page cache in front of it holds everything twice.",
        "general knowledge, no source in Proxmox VE",
        "8.0",
    ),
}
HOSTILE = (
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "{{ 7 * 191 }}{% for x in [1] %}",
    "=HYPERLINK(1)|*_`[x](javascript:alert(1))",
    "<!--<script> & \u202eevil\u2028\x1b[31m\nx: y # ${7*191} ümläut 🦊",
)


def cluster(guests: int, disks: int = 3, *, hostile: bool = False, findings: bool = True, seed: int = 3) -> Data:
    """The result of guest_disks_info for a cluster of so many guests with so many disks each.

    :param hostile: the first guests have names, tags, volumes and reasons that attack whoever prints them.
    :param findings: without, the cluster is as a policy wants it.
    """
    dice = random.Random(seed)
    nodes = [f"pve{number + 1}" for number in range(max(1, min(8, guests // 8)))]
    rows = [_guest(100 + number, disks, nodes, dice) for number in range(guests)]
    found = [finding for row in rows for finding in _findings(row, dice)] if findings else []
    if findings:
        found += _every_kind(rows, found)
    if guests > 3 and findings:
        unread = rows[-1]
        for key in set(unread) - {"vmid", "name", "node", "tags", "pool"}:
            del unread[key]
        path = f"/nodes/{unread['node']}/qemu/{unread['vmid']}/pending"
        unread["error"] = f"GET {path}: 403 Permission check failed (/vms/{unread['vmid']}, VM.Audit)"
        found = [finding for finding in found if finding["vmid"] != unread["vmid"]]
    if hostile:
        _poison(rows, found)
    return {"changed": False, "failed": False, "guests": rows, "storages": _storages(nodes), "findings": found}


def _guest(vmid: int, disks: int, nodes: list[str], dice: random.Random) -> Data:
    role = dice.choice(ROLES)
    slots = ["ide0"] if dice.random() < 0.08 else ["scsi0"]
    slots += [f"{dice.choice(('scsi', 'scsi', 'virtio'))}{number}" for number in range(1, disks)]
    drives = {slot: _drive(vmid, number, dice) for number, slot in enumerate(slots)}
    drives["ide2"] = {"volume": "none", "storage": None, "format": None, "size": None, "media": "cdrom", "options": {}}
    return {
        "vmid": vmid,
        "name": f"{role}{vmid % 97}-{dice.choice(SITES)}",
        "node": dice.choice(nodes),
        "tags": dice.sample(["production", "staging", "windows", "critical"], dice.randint(0, 2)),
        "pool": dice.choice([None, "databases", "office"]),
        "status": dice.choices(["running", "stopped", "template"], [14, 4, 1])[0],
        "lock": None,
        "protection": False,
        "scsihw": "virtio-scsi-single",
        "boot": [slots[0], "net0"],
        "drives": drives,
        "unused": {},
        "unreadable": {},
        "config": {},
        "waiting": {},
        "restart_required": [],
        "leftovers": [],
        "digest": "0" * 40,
    }


def _drive(vmid: int, number: int, dice: random.Random) -> Data:
    storage = dice.choices(list(STORAGES), [row[5] for row in STORAGES.values()])[0]
    kind, _level, form, *_rest = STORAGES[storage]
    size = dice.choice([32, 32, 64, 100, 200, 500] if number == 0 else [50, 100, 250, 500, 1000, 2000])
    if kind == "nfs":
        form = dice.choice(["qcow2", "qcow2", "qcow2", "raw", "vmdk"])
        volume = f"{storage}:{vmid}/vm-{vmid}-disk-{number}.{form}"
    else:
        volume = f"{storage}:vm-{vmid}-disk-{number}"
    options = {"cache": "none", "discard": "on", "iothread": True, "ssd": True}
    return {
        "volume": volume,
        "storage": storage,
        "format": form,
        "size": size * GIB,
        "media": "disk",
        "options": dict(dice.sample(sorted(options.items()), dice.randint(0, 4))),
    }


def _findings(guest: Data, dice: random.Random) -> list[Data]:
    found = []
    for slot, drive in guest["drives"].items():
        if drive["media"] != "disk":
            continue
        if drive["format"] == "vmdk":
            found.append(finding(guest, "vmdk", slot))
        if slot.startswith("ide"):
            found.append(finding(guest, "legacy-bus", slot))
        for rule, chance in (
            ("thin-discard", 0.22),
            ("iothread", 0.12),
            ("backup-off", 0.04),
            ("zfs-writeback", 0.15 if drive["storage"] == "tank" else 0),
            ("not-taken-up", 0.02 if guest["status"] == "running" else 0),
            ("cache-unsafe", 0.008),
            ("aio-native-cached", 0.004),
        ):
            if dice.random() < chance:
                found.append(finding(guest, rule, slot))
    if dice.random() < 0.05:
        guest["unused"] = {"unused0": f"local-lvm:vm-{guest['vmid']}-disk-9"}
        found.append(finding(guest, "unused-volume", "unused0"))
    return found


def _every_kind(guests: list[Data], found: list[Data]) -> list[Data]:
    """One finding of each kind that chance has left out."""
    missing = set(RULES) - {row["rule"] for row in found}
    return [finding(guests[number % len(guests)], rule) for number, rule in enumerate(sorted(missing))]


def finding(guest: Data, rule: str, slot: str | None = None) -> Data:
    """A finding as guest_disks_info gives it; the drive becomes what the finding says of it."""
    severity, option, actual, recommended, reason, source, since = RULES[rule]
    slot = slot or (option if option in ("boot", "scsihw") else next(iter(guest["drives"])))
    if slot in guest["drives"] and option not in ("volume", "format", "bus"):
        options = guest["drives"][slot]["options"]
        options.pop(option, None)
        if actual != DEFAULT:
            options[option] = NATIVE.get(actual, actual)
    if rule == "volume-twice":
        guest["drives"]["scsi9"] = dict(guest["drives"][slot])
        actual = guest["drives"][slot]["volume"]
    if rule == "not-taken-up":
        guest["restart_required"].append(f"{slot}.{option}")
    return {
        "vmid": guest["vmid"],
        "name": guest["name"],
        "node": guest["node"],
        "slot": slot,
        "option": option,
        "actual": actual,
        "recommended": recommended,
        "rule": rule,
        "severity": severity,
        "reason": reason,
        "source": source,
        "since": since,
        "mend": _mend(rule, slot, option, recommended),
    }


def _mend(rule: str, slot: str, option: str, recommended: Any) -> Data | None:
    if rule in ("volume-twice", "unused-volume", "not-taken-up"):
        return None
    if option in ("boot", "scsihw"):
        return {f"proxmox_disks_{option}": [recommended] if option == "boot" else recommended}
    if rule == "legacy-bus":
        return {"proxmox_disks": {"scsi8": {"moved_from": slot}}}
    options = {"unset": [option]} if recommended == DEFAULT else {option: NATIVE.get(recommended, recommended)}
    return {"proxmox_disks": {slot: options}}


def _storages(nodes: list[str]) -> Data:
    return {
        node: [
            {
                "storage": name,
                "type": kind,
                "level": level,
                "content": ["images"],
                "formats": ["raw", "qcow2", "vmdk"] if level == "file" else [form],
                "snapshot_formats": [form] if kind != "lvm" else [],
                "thin": "always",
                "shared": shared,
                "enabled": True,
                "active": True,
                "available": total * 600 * GIB,
                "total": total * 1024 * GIB,
            }
            for name, (kind, level, form, shared, total, _often) in STORAGES.items()
        ]
        for node in nodes
    }


def _poison(guests: list[Data], found: list[Data]) -> None:
    for number, text in enumerate(HOSTILE[: len(guests)]):
        guest = guests[number]
        guest |= {"name": text, "tags": [text], "pool": text}
        drive = next(iter(guest["drives"].values()))
        drive["volume"] = f"tank:{text}"
        drive["options"]["serial"] = text
        mine = finding(guest, "cache-unsafe") | {"reason": text, "actual": text, "source": text, "since": text}
        mine["mend"] = {"proxmox_disks": {mine["slot"]: {"serial": text}}}
        found.append(mine)
        for row in found:
            if row["vmid"] == guest["vmid"]:
                row["name"] = text


def main() -> None:
    """Write a sample as JSON."""
    parser = argparse.ArgumentParser(description="A made-up cluster with findings, as JSON.")
    parser.add_argument("guests", type=int, nargs="?", default=24)
    parser.add_argument("disks", type=int, nargs="?", default=3)
    parser.add_argument("--hostile", action="store_true", help="names that attack whoever prints them")
    parser.add_argument("--clean", action="store_true", help="without findings")
    given = parser.parse_args()
    json.dump(cluster(given.guests, given.disks, hostile=given.hostile, findings=not given.clean), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
