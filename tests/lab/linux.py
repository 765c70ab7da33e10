# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Linux that is played for the guest agent: partitions with file systems on the disks of the lab, which can grow.

It answers the two scripts of guest_grow in the form in which the real tools answer, as tests/e2e/test_real_agent.py
sees them, and knows GPT, ext4 and XFS, and swap. LVM and all that is rarer is left to the real guest.

A seed says `agent: {linux: {scsi0: {partitions: [{size: 100M, fstype: ext4, mount: /}]}}}`, sizes at the time of the
installation; the disk may have grown since.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.agent import FILES, Agent, Inside, agent_of, script

if TYPE_CHECKING:
    from lab.guest import Guest

SECTOR, MIB = 512, 1 << 20
UNITS = {"M": MIB, "G": 1 << 30}
TOOLS = "sfdisk partx resize2fs xfs_growfs btrfs pvresize lvextend"


@dataclass
class Partition:
    """A partition: bytes of itself and of its file system."""

    start: int
    size: int
    fstype: str
    mount: str
    filesystem: int


@dataclass
class Linux:
    """What is on the disks, by slot."""

    disks: dict[str, list[Partition]] = field(default_factory=dict)
    tools: str = TOOLS
    fails: str = ""
    """A command that fails, with what it says behind a colon."""

    def answers(self, guest: Guest) -> bool:
        """Whether its agent runs."""
        return True

    def file(self, guest: Guest, path: str) -> bytes | None:
        """It has no files of its own."""
        return None

    def no_file(self) -> str:
        """How it says that there is no such file."""
        return "No such file or directory"

    # ---- looking

    def look(self, inside: Inside, text: str) -> str:
        """The answer of the script `look`."""
        names = {slot: name for name, slot in inside.slots.items()}
        mounts = [{"target": part.mount, "source": f"/dev/{names[slot]}{number}", "fstype": part.fstype,
                   "maj:min": f"8:{number}", "options": "rw,relatime"} for slot, parts in self.disks.items()
                  for number, part in enumerate(parts, 1) if part.mount]  # fmt: skip
        tree = [self._node(name, size, self.disks.get(inside.slots[name], [])) for name, size in inside.disks.items()]
        sections = {"tools": "\n".join(self.tools.split()), "lsblk": json.dumps({"blockdevices": tree}),
                    "findmnt": json.dumps({"filesystems": mounts})}  # fmt: skip
        for name, size in inside.disks.items():
            sections |= self._of_disk(name, inside.slots[name], size)
        return "".join(f"\n== {title}\n{body}\n" for title, body in sections.items())

    def _node(self, name: str, size: int, parts: list[Partition]) -> dict[str, Any]:
        children = [{"name": f"{name}{number}", "kname": f"{name}{number}", "type": "part", "size": part.size,
                     "maj:min": "0:0", "log-sec": SECTOR} for number, part in enumerate(parts, 1)]  # fmt: skip
        return {"name": name, "kname": name, "type": "disk", "size": size, "maj:min": "0:0", "log-sec": SECTOR,
                "children": children}  # fmt: skip

    def _of_disk(self, name: str, slot: str, size: int) -> dict[str, str]:
        place = "/sys/devices/pci0000:00/0000:00:" + (
            f"{10 + int(slot[6:]):02x}.0/virtio3/block/{name}" if slot.startswith("virtio") else f"05.0/host2/{name}"
        )
        marks = f"place {place}" + (f"\ndevice/vpd_pg83 drive-{slot}" if slot.startswith("scsi") else "")
        found = {f"marks {name}": marks, f"dump {name}": self.dump(name, slot) if slot in self.disks else ""}
        for number, part in enumerate(self.disks.get(slot, []), 1):
            found[f"type {name}{number} {part.fstype}"] = ""
            blocks = part.filesystem // 4096
            if part.fstype == "ext4":
                found[f"size {name}{number}"] = f"Block count:              {blocks}\nBlock size:               4096"
            elif part.fstype == "xfs":
                found[f"size {name}{number}"] = f"data     =              bsize=4096   blocks={blocks}, imaxpct=25"
        return found

    def dump(self, name: str, slot: str) -> str:
        """The table as `sfdisk --dump` writes it."""
        lines = ["label: gpt", f"device: /dev/{name}", "unit: sectors", "first-lba: 2048", "last-lba: 131038", ""]
        return "\n".join(lines + [
            f"/dev/{name}{number} : start={part.start // SECTOR:12}, size={part.size // SECTOR:12}, "
            "type=0FC63DAF-8483-4772-8E79-3D69D8477DE4" for number, part in enumerate(self.disks[slot], 1)
        ])  # fmt: skip

    # ---- growing

    def grow(self, inside: Inside, text: str) -> str:
        """The answer of the script `grow`: each command is done to the model."""
        said = ""
        for number, command in enumerate(re.findall(r"(?s)step\(\) \{\n(.*?)\n\}\n", text), 1):
            tool, _colon, words = self.fails.partition(":")
            if tool and tool in command:
                return said + f"failed {number} 1\n{words}\n"
            self._run(inside, command)
            said += f"done {number}\n"
        return said

    def _run(self, inside: Inside, command: str) -> None:
        words = shlex.split(command)
        if words[0] == "printf":
            name = words[words.index("--force") + 1].removeprefix("/dev/")
            for number, start, size in re.findall(rf"(?m)^/dev/{name}(\d+) : start= *(\d+), size= *(\d+)", words[2]):
                part = self.disks[inside.slots[name]][int(number) - 1]
                assert int(start) * SECTOR == part.start, "a partition has moved"
                assert int(size) * SECTOR >= part.size, "a partition has shrunk"
                assert part.start + int(size) * SECTOR <= inside.disks[name] - 34 * SECTOR, "beyond the disk"
                part.size = int(size) * SECTOR
            return
        for slot, parts in self.disks.items():
            for number, part in enumerate(parts, 1):
                name = next(known for known, one in inside.slots.items() if one == slot)
                if words[-1] in (f"/dev/{name}{number}", part.mount):
                    part.filesystem = part.size // 4096 * 4096


def install(agent: Agent, words: Mapping[str, Any]) -> Agent:
    """Puts a Linux behind an agent."""
    linux = Linux({slot: list(_partitions(disk["partitions"])) for slot, disk in words.items()})
    agent.system = linux
    agent.programs = [*FILES]
    agent.scripts = [script(r"\A# diskwright: look\n", linux.look), script(r"\A# diskwright: grow\n", linux.grow)]
    return agent


def _partitions(rows: list[Mapping[str, Any]]) -> Iterator[Partition]:
    start = MIB
    for row in rows:
        size = int(row["size"][:-1]) * UNITS[row["size"][-1]]
        yield Partition(start, size, row.get("fstype", ""), row.get("mount", ""), size)
        start += size


def linux_of(guest: Guest) -> Linux:
    """The Linux in a guest."""
    found = agent_of(guest).system
    assert isinstance(found, Linux)
    return found
