# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest agent: a stand-in for what runs inside a guest. After qemu-server 9.2.6, API2/Qemu/Agent.pm.

A guest has an agent when its boot disk begins with `samples.AGENT_MARK`, as the sample tinylinux.qcow2 does, or when
a seed or a test gives it one (`agent_of`). Nothing is executed on this machine: a command is looked up in the agent's
`programs`, the newest first; without a match it does not exist in the guest. Tests add their own:

    agent_of(guest).programs.insert(0, program(r"lsblk .*", out='{"blockdevices": []}'))
"""

from __future__ import annotations

import base64
import binascii
import itertools
import posixpath
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab import images
from lab.api import ApiError, Call, Route
from lab.drives import boot_order, is_drive, parse_drive
from lab.samples import AGENT_MARK
from lab.terms import StorageError

if TYPE_CHECKING:
    from lab.guest import Guest
    from lab.storages import Storages

COMMANDS = """network-get-route get-load get-cpustats get-diskstats ssh-remove-authorized-keys
ssh-add-authorized-keys ssh-get-authorized-keys get-osinfo get-timezone get-users get-host-name exec exec-status
get-memory-block-info set-memory-blocks get-memory-blocks set-user-password get-fsinfo get-disks set-vcpus get-vcpus
network-get-interfaces suspend-hybrid suspend-ram suspend-disk fstrim fsfreeze-thaw fsfreeze-freeze-list
fsfreeze-freeze fsfreeze-status file-flush file-seek file-write file-read file-close file-open shutdown info set-time
get-time ping sync sync-delimited""".split()
WITHOUT_ANSWER = ("suspend-hybrid", "suspend-ram", "suspend-disk", "shutdown")
ANSWERS: dict[str, Any] = {
    "ping": {},
    "info": {"version": "10.0.13", "supported_commands": [
        {"name": f"guest-{name}", "enabled": True, "success-response": name not in WITHOUT_ANSWER}
        for name in COMMANDS]},
    "get-osinfo": {"kernel-release": "6.12.107+deb13-amd64", "machine": "x86_64",
                   "kernel-version": "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-08-29)"},
    "get-fsinfo": [],
    "get-host-name": {"host-name": "(none)"},
    "get-users": [],
    "network-get-interfaces": [],
    "fsfreeze-status": "thawed",
    "fstrim": {"paths": []},
}
"""What the recorded guest said, by call; a seed may say otherwise."""
NO_ANSWER_SECONDS = 5.0
"""How long PVE waits before it gives up on a command that does not exist in the guest."""


@dataclass(frozen=True)
class Result:
    """What a command does: exit status, output, and how many PVE seconds it takes."""

    exit: int = 0
    out: str = ""
    err: str = ""
    seconds: float = 0.0


@dataclass
class Inside:
    """What a program sees of its guest."""

    agent: Agent
    command: list[str]
    stdin: str
    disks: Mapping[str, int]
    """Block devices (sda, vda …) -> bytes."""


Respond = Callable[[Inside, "re.Match[str]"], Result]


@dataclass(frozen=True)
class Program:
    """Answers the commands that match: `pattern` against the whole command line, quoted as a shell would."""

    pattern: re.Pattern[str]
    respond: Respond


def program(pattern: str, respond: Respond | None = None, **result: Any) -> Program:
    """A program with a fixed result (`exit`, `out`, `err`, `seconds`), or with a function."""
    return Program(re.compile(pattern, re.S), respond or (lambda inside, match: Result(**result)))


def _sizes(inside: Inside, match: re.Match[str]) -> Result:
    """`cat` of block device sizes, in sectors."""
    names = re.findall(r"/sys/block/(\w+)/size", match[0])
    missing = [name for name in names if name not in inside.disks]
    return Result(int(bool(missing)), "".join(f"{inside.disks[n] // 512}\n" for n in names if n in inside.disks),
                  "".join(f"cat: can't open '/sys/block/{n}/size': No such file or directory\n" for n in missing))


def _all_scsi(inside: Inside, match: re.Match[str]) -> Result:
    return Result(0, "".join(f"{size // 512}\n" for name, size in sorted(inside.disks.items())
                             if name.startswith("sd")))


TINY_LINUX = [
    program(r"cat", lambda inside, match: Result(out=inside.stdin)),
    program(r"sleep (\d+(?:\.\d+)?)", lambda inside, match: Result(seconds=float(match[1]))),
    program(r"true"),
    program(r"false", exit=1),
    program(r"id", out="uid=0(root) gid=0(root)\n"),
    program(r"sh -c 'echo out; echo err >&2; exit 3'", exit=3, out="out\n", err="err\n"),
    program(r"sh -c 'ls /nosuch; .* od -An -tx1'", out=" 00 00 00\n", err="ls: /nosuch: No such file or directory\n"),
    program(r"sh -c 'cd /sys/block; for d in sd\*; do cat \$d/size; done'", _all_scsi),
    program(r"(sh -c )?'?cat( /sys/block/\w+/size)+'?", _sizes),
]
"""What the recorded guest was asked to do."""


@dataclass
class Process:
    """A command that was started."""

    result: Result
    ends: float


@dataclass
class Agent:
    """The inside of one guest, as far as the agent shows it."""

    programs: list[Program] = field(default_factory=lambda: list(TINY_LINUX))
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/", "/tmp", "/etc", "/root"})
    answers: dict[str, Any] = field(default_factory=dict)
    """Answers that differ from ANSWERS."""
    processes: dict[int, Process] = field(default_factory=dict)
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(300))

    def start(self, inside: Inside, scale: float) -> int | None:
        """Starts a command; None when the guest has no such program."""
        line = shlex.join(inside.command)
        for known in self.programs:
            if match := known.pattern.fullmatch(line):
                result = known.respond(inside, match)
                pid = next(self.pids)
                self.processes[pid] = Process(result, time.monotonic() + result.seconds * scale)
                return pid
        return None


def from_seed(words: Mapping[str, Any] | None) -> Agent:
    """The agent that a seed file describes: `files`, `folders`, `answers`, and `programs` with match and result."""
    words = words or {}
    agent = Agent(answers=dict(words.get("answers", {})),
                  files={path: str(text).encode() for path, text in words.get("files", {}).items()})
    agent.folders |= {posixpath.dirname(path) for path in agent.files} | set(words.get("folders", ()))
    own = [program(item["match"], **{key: value for key, value in item.items() if key != "match"})
           for item in words.get("programs", ())]
    agent.programs = own + agent.programs
    return agent


def agent_of(guest: Guest) -> Agent:
    """The agent of a guest; makes one when it has none yet."""
    if guest.agent is None:
        guest.agent = Agent()
    agent: Agent = guest.agent
    return agent


# ---- is there one


def _bootable(guest: Guest) -> list[str]:
    """The volumes that the guest runs from, in boot order."""
    values = guest.running.values if guest.running else guest.conf.values
    drives = [drive for slot in boot_order(values) if slot in values and is_drive(slot)
              and (drive := parse_drive(slot, values[slot])) is not None]
    return [drive.file for drive in drives if not drive.is_cdrom and ":" in drive.file]


def _boots_with_agent(guest: Guest, storages: Storages) -> bool:
    for volid in _bootable(guest):
        try:
            info = storages.info(volid)
            found = images.read(storages.place(volid), info.format, len(AGENT_MARK))
        except StorageError:
            continue
        return found == AGENT_MARK
    return False


def _agent(call: Call) -> Agent:
    """The agent that answers, or PVE's refusal."""
    guest = call.guest
    if not re.search(r"(^|,)(enabled=)?1(,|$)", guest.conf.values.get("agent", "")):
        raise ApiError("No QEMU guest agent configured")
    if guest.running is None:
        raise ApiError(f"VM {guest.vmid} is not running")
    if guest.agent is None and _boots_with_agent(guest, call.storages):
        guest.agent = Agent()
    if guest.agent is None or guest.vmid in call.cluster.faults.agent_down:
        raise ApiError("QEMU guest agent is not running")
    agent: Agent = guest.agent
    return agent


def _disks(call: Call) -> dict[str, int]:
    """The block devices that the running guest sees, and their sizes."""
    drives = call.guest.running.drives if call.guest.running else {}
    names: dict[str, int] = {}
    letters = {"sd": iter("abcdefghijklmnopqrstuvwxyz"), "vd": iter("abcdefghijklmnopqrstuvwxyz")}
    for bus in ("scsi", "sata", "ide", "virtio"):
        for slot in sorted((s for s in drives if re.fullmatch(bus + r"\d+", s)), key=lambda s: int(s[len(bus):])):
            drive = parse_drive(slot, drives[slot])
            if drive is not None and not drive.is_cdrom and ":" in drive.file:
                kind = "vd" if bus == "virtio" else "sd"
                names[kind + next(letters[kind])] = call.storages.info(drive.file).size
    return names


# ---- the calls


def _simple(call: Call) -> dict[str, Any]:
    """Every call that the agent answers by itself."""
    name = call.template.rpartition("/")[2]
    agent = _agent(call)
    known = {**ANSWERS, **agent.answers}
    if name not in known:
        raise ApiError(f"Agent error: Command guest-{name} has been disabled: the command is not allowed")
    return {"result": known[name]}


def _exec(call: Call) -> dict[str, int]:
    agent = _agent(call)
    given = call.values["command"]
    command = [str(word) for word in given] if isinstance(given, list) else [str(given)]
    inside = Inside(agent, command, str(call.values.get("input-data", "")), _disks(call))
    pid = agent.start(inside, call.cluster.clock.scale)
    if pid is None:
        call.cluster.clock.sleep(NO_ANSWER_SECONDS)
        raise ApiError("Broken pipe", 596)
    return {"pid": pid}


def _exec_status(call: Call) -> dict[str, Any]:
    agent, pid = _agent(call), int(call.values["pid"])
    process = agent.processes.get(pid)
    if process is None:
        raise ApiError("Agent error: PID ld does not exist")
    if time.monotonic() < process.ends:
        return {"exited": 0}
    del agent.processes[pid]
    status: dict[str, Any] = {"exited": 1, "exitcode": process.result.exit}
    for key, text in (("out", process.result.out), ("err", process.result.err)):
        if text:
            status |= {f"{key}-data": text, f"{key}-truncated": 0}
    return status


def _no_file(path: str, mode: str) -> ApiError:
    return ApiError(f"Agent error: failed to open file '{path}' (mode: '{mode}'): No such file or directory")


def _file_read(call: Call) -> dict[str, Any]:
    agent, path, values = _agent(call), str(call.values["file"]), call.values
    if path not in agent.files:
        raise _no_file(path, "r")
    start, count = int(values.get("offset", 0)), int(values.get("count", 16 << 20))
    whole = agent.files[path]
    content = whole[start:start + count]
    shown = content.decode("latin-1") if values.get("decode", 1) else base64.b64encode(content).decode()
    return {"content": shown, "bytes-read": len(content), **({"truncated": 1} if start + count < len(whole) else {})}


def _file_write(call: Call) -> None:
    agent, path, content = _agent(call), str(call.values["file"]), str(call.values["content"])
    if posixpath.dirname(path) not in agent.folders:
        raise _no_file(path, "wb")
    if call.values.get("encode", 1):
        agent.files[path] = content.encode()
        return
    try:
        agent.files[path] = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise ApiError("Agent error: failed to decode base64 data") from error


AGENT = "/nodes/{node}/qemu/{vmid}/agent"
ROUTES = [
    *(Route("GET", f"{AGENT}/{name}", _simple) for name in (
        "info", "get-osinfo", "get-fsinfo", "get-host-name", "get-users", "network-get-interfaces")),
    *(Route("POST", f"{AGENT}/{name}", _simple) for name in ("ping", "fsfreeze-status", "fstrim")),
    Route("POST", AGENT + "/exec", _exec),
    Route("GET", AGENT + "/exec-status", _exec_status),
    Route("GET", AGENT + "/file-read", _file_read),
    Route("POST", AGENT + "/file-write", _file_write),
]
