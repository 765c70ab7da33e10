# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The shell scripts that look at a Linux guest's storage and carry steps out; what the first one answers, as values.

A script removes its own file, waits for others of its kind, and puts its whole result in place at once; see
``_pve/agent.py`` for what that is good for. They are for any POSIX shell, busybox's among them.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from .errors import ParseError
from .growth import Device, Disk, LogicalVolume, Partition, PhysicalVolume, Seen, System, VolumeGroup

_HEAD = """
rm -f -- "$0"
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
exec 9>>/run/diskwright.lock
flock 9 2>/dev/null
"""
_TAIL = """
mv -f -- "$1.new" "$1"
"""

# Tools of e2fsprogs, xfsprogs and btrfs-progs say how large a file system thinks it is, which is what must grow.
_LOOK = r"""
section() { printf '\n== %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

for file in /sys/block/sd*/device/rescan; do
    [ ! -e "$file" ] || echo 1 >"$file"
done
! have udevadm || udevadm settle --timeout=10
{
    section tools
    for tool in sfdisk partx resize2fs xfs_growfs btrfs pvresize lvextend; do
        ! have "$tool" || echo "$tool"
    done
    section lsblk
    lsblk --json --bytes --output NAME,KNAME,MAJ:MIN,TYPE,SIZE,LOG-SEC
    section findmnt
    findmnt --json --list --nofsroot --output TARGET,SOURCE,MAJ:MIN,FSTYPE,OPTIONS
    for disk in $(lsblk --noheadings --nodeps --output KNAME); do
        section dump "$disk"
        sfdisk --dump "/dev/$disk" 2>/dev/null
        section marks "$disk"
        for file in serial device/vpd_pg80 device/vpd_pg83; do
            [ -r "/sys/block/$disk/$file" ] || continue
            printf '%s ' "$file"
            tr -cd ' -~' <"/sys/block/$disk/$file"
            echo
        done
        printf 'place '; readlink -f "/sys/block/$disk"
    done
    if have pvs; then
        report='--reportformat json --units b --nosuffix'
        section pvs
        pvs $report -o pv_name,vg_name,pv_size,pe_start 2>/dev/null
        section vgs
        vgs $report -o vg_name,vg_extent_size,vg_free_count,vg_tags,vg_attr 2>/dev/null
        section lvs
        lvs $report -o vg_name,lv_name,lv_path,lv_dm_path,lv_size,segtype,lv_attr 2>/dev/null
    fi
    lsblk --noheadings --raw --paths --output NAME,KNAME,FSTYPE | sort -u | while read -r path name fstype; do
        name=${name#/dev/}
        # What is there now, and not what udev has seen when it looked.
        fstype=$(blkid -p -s TYPE -o value "$path" 2>/dev/null || echo "$fstype")
        section type "$name" "$fstype"
        case $fstype in
        ext2 | ext3 | ext4)
            section size "$name"
            dumpe2fs -h "$path" 2>/dev/null | grep '^Block ' ;;
        xfs)
            where=$(lsblk --noheadings --nodeps --output MOUNTPOINT "$path")
            section size "$name"
            [ -z "$where" ] || xfs_growfs -n "$where" 2>/dev/null ;;
        btrfs)
            section size "$name"
            btrfs filesystem show --raw "$path" 2>/dev/null ;;
        esac
    done
} >"$1.new"
"""

_RUN = """
result=$1
exec >"$result.new"
run() {
    said=$(step 2>&1 9>&-) && echo "done $1" && return
    printf 'failed %s %s\\n%s\\n' "$1" "$?" "$said"
    return 1
}
finish() {
    ! command -v udevadm >/dev/null 2>&1 || udevadm settle --timeout=10
    mv -f -- "$result.new" "$result"
}
"""

_FREE = ("linear", "striped")
# Types of lsblk that are no disks of PVE, though lsblk calls them so.
_NO_DISKS = ("zram", "fd", "nbd", "ram")


def look() -> str:
    """The script that looks. Its result is for :func:`read_system`."""
    return f"# diskwright: look{_HEAD}{_LOOK}{_TAIL}"


def carry_out(commands: Iterable[str]) -> str:
    """The script that carries commands out, one after the other, as long as each succeeds.

    Its result is one line for each, ``done N`` or ``failed N STATUS`` with what the command said behind it.
    """
    steps = "".join(
        f"step() {{\n{command}\n}}\nrun {number} || {{ finish; exit; }}\n" for number, command in enumerate(commands, 1)
    )
    return f"# diskwright: grow{_HEAD}{_RUN}{steps}finish\n"


def read_outcome(result: str) -> tuple[int, str]:
    """How many commands succeeded, and what the one after them said; empty when all did.

    :param result: of :func:`carry_out`.
    """
    done = len(re.findall(r"(?m)^done \d+$", result.partition("\nfailed ")[0] if "failed " in result else result))
    failed = re.search(r"(?ms)^failed \d+ \d+\n(.*)", result)
    return done, "" if failed is None else failed[1].strip() or "it said nothing"


# ---- what the first one answers


def read_system(answer: str) -> tuple[System, tuple[Seen, ...]]:
    """A guest's storage, and what may tell which disk is which slot.

    :raises ParseError: a tool that every guest has gave no answer.
    """
    sections = _sections(answer)
    for name, package in (("lsblk", "util-linux 2.27"), ("findmnt", "util-linux 2.27")):
        if not sections.get(name, "").strip():
            raise ParseError(f"{name} gives no JSON in this guest; it takes {package} or newer")
    try:
        return _read(sections)
    except (ValueError, KeyError, TypeError) as error:
        raise ParseError(f"what the guest says about its storage can't be understood ({error!r})") from error


def _sections(answer: str) -> dict[str, str]:
    parts = re.split(r"(?m)^== (.+)$", answer)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _read(sections: Mapping[str, str]) -> tuple[System, tuple[Seen, ...]]:
    nodes = list(_nodes(json.loads(sections["lsblk"])["blockdevices"]))
    mounts = list(_nodes(json.loads(sections["findmnt"])["filesystems"]))
    disks = {str(node["kname"]): _disk(node, sections) for node in nodes if _is_disk(node)}
    types = dict(words.split(" ")[1:] for words in sections if re.fullmatch(r"type \S+ \S+", words))
    devices = {}
    for node in nodes:
        device = _device(node, types, mounts, sections)
        devices[device.path] = device
    system = System(
        disks=MappingProxyType(disks),
        devices=MappingProxyType(devices),
        physical=MappingProxyType({one.path: one for one in map(_physical, _report(sections, "pvs", "pv"))}),
        groups=MappingProxyType({one.name: one for one in map(_group, _report(sections, "vgs", "vg"))}),
        logical=tuple(map(_logical, _merged(_report(sections, "lvs", "lv")))),
        tools=frozenset(sections.get("tools", "").split()),
    )
    return system, tuple(_seen(disk, sections.get(f"marks {name}", "")) for name, disk in disks.items())


def _nodes(rows: Iterable[Mapping[str, t.Any]]) -> Iterator[Mapping[str, t.Any]]:
    """All nodes of a tree; one that hangs on several devices comes several times."""
    for row in rows:
        yield row
        yield from _nodes(row.get("children") or ())


def _is_disk(node: Mapping[str, t.Any]) -> bool:
    return node["type"] == "disk" and not str(node["kname"]).startswith(_NO_DISKS)


def _path(node: Mapping[str, t.Any]) -> str:
    """Where a node is: volumes of the device mapper go by their names."""
    mapped = str(node["kname"]).startswith("dm-")
    return f"/dev/mapper/{node['name']}" if mapped else f"/dev/{node['kname']}"


def _disk(node: Mapping[str, t.Any], sections: Mapping[str, str]) -> Disk:
    name = str(node["kname"])
    dump = sections.get(f"dump {name}", "").lstrip("\n")
    label = re.search(r"(?m)^label: *(\w+)", dump)
    return Disk(
        name=name,
        size=int(node["size"]),
        sector=int(node.get("log-sec") or 512),
        table=label[1] if label else None,
        partitions=tuple(_partitions(dump)),
        dump=dump,
    )


def _partitions(dump: str) -> Iterator[Partition]:
    for match in re.finditer(r"(?m)^(/dev/\S+) *: *(?:start= *(\d+)), *size= *(\d+)(?:, *type=([\w-]+))?", dump):
        number = re.search(r"\d+$", match[1])
        if number and int(match[3]):
            yield Partition(match[1], int(number[0]), int(match[2]), int(match[3]), match[4] or "")


def _device(
    node: Mapping[str, t.Any],
    types: Mapping[str, str],
    mounts: list[Mapping[str, t.Any]],
    sections: Mapping[str, str],
) -> Device:
    path, fstype = _path(node), types.get(str(node["kname"]), "")
    # Btrfs has device numbers of its own; LVM's volumes go by several names.
    mine = [row for row in mounts if row["source"] == path or row["maj:min"] == node["maj:min"]]
    read_only = bool(mine) and all("ro" in str(row["options"]).split(",") for row in mine)
    size, devid = _filesystem(fstype, sections.get(f"size {node['kname']}", ""), path)
    mounted = tuple(str(row["target"]) for row in mine)
    return Device(path, int(node["size"]), fstype or None, mounted, read_only, size, devid)


def _filesystem(fstype: str, text: str, path: str) -> tuple[int | None, int]:
    """How large a file system thinks it is, and its number in a btrfs of several devices."""
    if fstype.startswith("ext"):
        count, size = (re.search(rf"(?m)^Block {word}: *(\d+)", text) for word in ("count", "size"))
        return (int(count[1]) * int(size[1]) if count and size else None), 1
    if fstype == "xfs":
        match = re.search(r"(?m)^data +=\s*bsize=(\d+) +blocks=(\d+)", text)
        return (int(match[1]) * int(match[2]) if match else None), 1
    match = re.search(rf"(?m)devid +(\d+) size (\d+) used \d+ path {re.escape(path)}$", text)
    return (int(match[2]), int(match[1])) if match else (None, 1)


def _report(sections: Mapping[str, str], name: str, kind: str) -> list[Mapping[str, str]]:
    text = sections.get(name, "").strip()
    return list(json.loads(text)["report"][0][kind]) if text else []


def _merged(rows: Iterable[Mapping[str, str]]) -> Iterator[Mapping[str, str]]:
    """lvs has a row for each segment; a volume of segments of several types is none of either."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        known = found.setdefault(row["lv_path"] or row["lv_name"], dict(row))
        if known["segtype"] != row["segtype"]:
            known["segtype"] = "mixed"
    yield from found.values()


def _physical(row: Mapping[str, str]) -> PhysicalVolume:
    return PhysicalVolume(row["pv_name"], row["vg_name"], int(row["pv_size"]), int(row["pe_start"]))


def _group(row: Mapping[str, str]) -> VolumeGroup:
    """vg_attr: writeable, resizeable, exported, partial, allocation, clustered or shared."""
    attributes = row["vg_attr"].ljust(6, "-")
    healthy = attributes.startswith("wz--") and attributes[5] == "-"
    tags = tuple(tag for tag in row["vg_tags"].split(",") if tag)
    return VolumeGroup(row["vg_name"], int(row["vg_extent_size"]), int(row["vg_free_count"]), tags, healthy)


def _logical(row: Mapping[str, str]) -> LogicalVolume:
    """lv_attr begins with a dash for a volume that is no snapshot, no origin, no pool and no mirror."""
    return LogicalVolume(
        group=row["vg_name"],
        name=row["lv_name"],
        path=row["lv_path"],
        device=row["lv_dm_path"],
        size=int(row["lv_size"]),
        plain=row["segtype"] in _FREE and row["lv_attr"].startswith("-"),
    )


def _seen(disk: Disk, marks: str) -> Seen:
    found = dict(line.split(" ", 1) for line in marks.strip().splitlines() if " " in line)
    serial = found.get("serial") or found.get("device/vpd_pg80") or ""
    return Seen(disk.name, disk.size, serial.strip(), f"{found.get('device/vpd_pg83', '')} {found.get('place', '')}")
