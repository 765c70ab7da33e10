# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest agent: a stand-in for what runs inside a guest. After qemu-server 9.2.6, API2/Qemu/Agent.pm.

A guest has an agent when its boot disk begins with `samples.AGENT_MARK`, as the sample tinylinux.qcow2 does, or when
a seed or a test gives it one (`agent_of`). Nothing is executed on this machine: a command is looked up in the agent's
`programs`, the newest first; without a match it does not exist in the guest. Tests add their own:

    agent_of(guest).programs.insert(0, program(r"lsblk .*", out='{"blockdevices": []}'))

Scripts that the collection writes into the guest and starts there are found by their text (`scripts`, `script`).
"""

from __future__ import annotations

import base64
import binascii
import itertools
import ntpath
import posixpath
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lab import bridge, images
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
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What it writes, and is there when it has ended."""


@dataclass
class Inside:
    """What a program sees of its guest."""

    agent: Agent
    command: list[str]
    stdin: str
    disks: Mapping[str, int]
    """Block devices (sda, vda …) -> bytes."""
    slots: Mapping[str, str] = field(default_factory=dict)
    """Block devices -> slots."""
    guest: Any = None
    """The guest as the lab has it."""
    result: str = ""
    """Where a script puts its result."""


Bridge = Callable[[str, Mapping[str, Any]], dict[str, Any]]
"""Command and arguments -> the answer of a real qemu-ga, with `return` or `error`."""
Respond = Callable[[Inside, "re.Match[str]"], Result]


@dataclass(frozen=True)
class Program:
    """Answers the commands that match: `pattern` against the whole command line, quoted as a shell would."""

    pattern: re.Pattern[str]
    respond: Respond


def program(pattern: str, respond: Respond | None = None, **result: Any) -> Program:
    """A program with a fixed result (`exit`, `out`, `err`, `seconds`), or with a function."""
    return Program(re.compile(pattern, re.S), respond or (lambda inside, match: Result(**result)))


def script(pattern: str, respond: Callable[[Inside, str], str | Result]) -> Program:
    """Answers the scripts whose text fits. What is returned as text is the script's result, in the file for it."""
    return Program(re.compile(pattern, re.S), lambda inside, match: _ran(inside, respond(inside, match.string)))


def _ran(inside: Inside, answer: str | Result) -> Result:
    return Result(files={inside.result: answer.encode()}) if isinstance(answer, str) else answer


_FILE = r"\S+[/\\]diskwright-\w+"
STARTS_SCRIPT = (
    re.compile(rf"sh\n(?P<script>{_FILE}\.sh)\n(?P<result>{_FILE}\.out)"),
    re.compile(
        r"\S+\\powershell\.exe\n-NoProfile\n-NonInteractive\n-Command\n"
        rf"& \(\[scriptblock\]::Create\(\[IO\.File\]::ReadAllText\('(?P<script>{_FILE}\.ps1)'\)\)\) "
        rf"'(?P=script)' '(?P<result>{_FILE}\.out)'"
    ),
)
"""How the collection starts a script: words, each on a line."""


def _join(inside: Inside, match: re.Match[str]) -> Result:
    """Both ways to make one file of several: `cat` through sh, and `copy /b`."""
    words = inside.command
    whole, parts = (words[4], words[5:]) if words[0] == "sh" else (words[-1], words[-2].split("+"))
    if any(part not in inside.agent.files for part in parts):
        return Result(1, err="no such file\n")
    return Result(files={whole: b"".join(inside.agent.files[part] for part in parts)})


def _remove(inside: Inside, match: re.Match[str]) -> Result:
    for name in inside.command:
        inside.agent.files.pop(name, None)
    return Result()


FILES = [
    program(r"sh -c 'whole=\S+; shift; cat .*", _join),
    program(r"cmd\.exe /d /c copy /b /y .*", _join),
    program(r"(rm -f --|cmd\.exe /d /c del /f /q) .*", _remove),
]
"""How the collection joins and removes files."""


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
    settled: bool = False


class System(Protocol):
    """An operating system that is played: it comes up or not, and has files beside those that were written."""

    def answers(self, guest: Guest) -> bool:
        """Whether its agent runs, now that the guest was started with what it has."""

    def file(self, guest: Guest, path: str) -> bytes | None:
        """A file that it has, on a medium for example."""

    def no_file(self) -> str:
        """How it says that there is no such file."""


@dataclass
class Agent:
    """The inside of one guest, as far as the agent shows it."""

    programs: list[Program] = field(default_factory=lambda: [*FILES, *TINY_LINUX])
    scripts: list[Program] = field(default_factory=list)
    """Answers to scripts, by their text."""
    disabled: set[str] = field(default_factory=set)
    """Commands that the guest's policy forbids: exec, file-open …"""
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/", "/tmp", "/etc", "/root", "/run"})
    answers: dict[str, Any] = field(default_factory=dict)
    """Answers that differ from ANSWERS."""
    system: System | None = None
    """An operating system that is played in full."""
    bridge: Bridge | None = None
    """Asks a real qemu-ga instead (lab.bridge)."""
    processes: dict[int, Process] = field(default_factory=dict)
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(300))

    def start(self, inside: Inside, scale: float) -> int | None:
        """Starts a command; None when the guest has no such program."""
        result = self._result(inside)
        if result is None:
            return None
        pid = next(self.pids)
        self.processes[pid] = Process(result, time.monotonic() + result.seconds * scale)
        self.settle()
        return pid

    def _result(self, inside: Inside) -> Result | None:
        for start in STARTS_SCRIPT:
            if match := start.fullmatch("\n".join(inside.command)):
                inside.result = match["result"]
                return self._script(inside, match["script"])
        line = shlex.join(inside.command)
        for one in self.programs:
            if match := one.pattern.fullmatch(line):
                return one.respond(inside, match)
        return None

    def _script(self, inside: Inside, file: str) -> Result:
        data = self.files.pop(file, None)  # a script removes itself first of all
        if data is None:
            return Result(127, err="no such file\n")
        for one in self.scripts:
            if match := one.pattern.search(data.decode("utf-8-sig")):
                return one.respond(inside, match)
        return Result(127, err="a script that nobody here knows\n")

    def settle(self) -> None:
        """What processes that have ended wrote is there."""
        for process in self.processes.values():
            if not process.settled and time.monotonic() >= process.ends:
                process.settled = True
                self.files.update(process.result.files)

    def has_folder(self, path: str) -> bool:
        """Whether a file's folder is there. Windows does not mind how it is spelled."""
        if "\\" in path:
            return ntpath.dirname(path).lower() in {folder.lower() for folder in self.folders}
        return posixpath.dirname(path) in self.folders


def from_seed(words: Mapping[str, Any] | None) -> Agent:
    """The agent that a seed file describes: `files`, `folders`, `answers`, and `programs` with match and result."""
    words = words or {}
    if "windows" in words:
        return windows_agent(words["windows"])
    if "linux" in words:
        return linux_agent(words["linux"])
    agent = Agent(answers=dict(words.get("answers", {})),
                  files={path: str(text).encode() for path, text in words.get("files", {}).items()})
    agent.folders |= {posixpath.dirname(path) for path in agent.files} | set(words.get("folders", ()))
    own = [program(item["match"], **{key: value for key, value in item.items() if key != "match"})
           for item in words.get("programs", ())]
    agent.programs = own + agent.programs
    return agent


def windows_agent(words: Mapping[str, Any] | str) -> Agent:
    """The agent of a Windows that is played: `windows: "2022"`, or a dictionary with `release` (lab.windows)."""
    from lab.windows import install

    return install(Agent(), words)


def linux_agent(words: Mapping[str, Any]) -> Agent:
    """The agent of a Linux that is played: its partitions by slot (lab.linux)."""
    from lab.linux import install

    return install(Agent(), words)


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
    down = guest.vmid in call.cluster.faults.agent_down
    if guest.agent is None or down or (guest.agent.system and not guest.agent.system.answers(guest)):
        raise ApiError("QEMU guest agent is not running")
    agent: Agent = guest.agent
    agent.settle()
    return agent


def _allowed(agent: Agent, command: str) -> None:
    if command in agent.disabled:
        raise ApiError(f"Agent error: Command guest-{command} has been disabled: the command is not allowed")


def _disks(call: Call) -> tuple[dict[str, int], dict[str, str]]:
    """The block devices that the running guest sees: their sizes, and their slots."""
    drives = call.guest.running.drives if call.guest.running else {}
    names: dict[str, int] = {}
    slots: dict[str, str] = {}
    letters = {"sd": iter("abcdefghijklmnopqrstuvwxyz"), "vd": iter("abcdefghijklmnopqrstuvwxyz")}
    for bus in ("scsi", "sata", "ide", "virtio"):
        for slot in sorted((s for s in drives if re.fullmatch(bus + r"\d+", s)), key=lambda s: int(s[len(bus):])):
            drive = parse_drive(slot, drives[slot])
            if drive is not None and not drive.is_cdrom and ":" in drive.file:
                kind = "vd" if bus == "virtio" else "sd"
                name = kind + next(letters[kind])
                names[name] = call.storages.info(drive.file).size
                slots[name] = slot
    return names, slots


# ---- the calls


def _simple(call: Call) -> dict[str, Any]:
    """Every call that the agent answers by itself."""
    name = call.template.rpartition("/")[2]
    agent = _agent(call)
    if agent.bridge:
        return {"result": bridge.ask(agent.bridge, name)}
    known = {**ANSWERS, **agent.answers}
    if name not in known:
        raise ApiError(f"Agent error: Command guest-{name} has been disabled: the command is not allowed")
    _allowed(agent, name)
    answer = known[name]
    return {"result": answer(call.guest) if callable(answer) else answer}


def _exec(call: Call) -> dict[str, int]:
    agent = _agent(call)
    given = call.values["command"]
    command = [str(word) for word in given] if isinstance(given, list) else [str(given)]
    if agent.bridge:
        return bridge.execute(agent.bridge, command, call.values.get("input-data"))
    _allowed(agent, "exec")
    disks, slots = _disks(call)
    inside = Inside(agent, command, str(call.values.get("input-data", "")), disks, slots, call.guest)
    pid = agent.start(inside, call.cluster.clock.scale)
    if pid is None:
        call.cluster.clock.sleep(NO_ANSWER_SECONDS)
        raise ApiError("Broken pipe", 596)
    return {"pid": pid}


def _exec_status(call: Call) -> dict[str, Any]:
    agent, pid = _agent(call), int(call.values["pid"])
    if agent.bridge:
        return bridge.status(agent.bridge, pid)
    process = agent.processes.get(pid)
    if process is None:
        raise ApiError("Agent error: PID ld does not exist")
    if time.monotonic() < process.ends:
        return {"exited": 0}
    del agent.processes[pid]
    status: dict[str, Any] = {"exited": 1, "exitcode": process.result.exit}
    for key, text in (("out", process.result.out), ("err", process.result.err)):
        if text:  # PVE's JSON has the bytes as characters
            status |= {f"{key}-data": text.encode().decode("latin-1"), f"{key}-truncated": 0}
    return status


def _no_file(agent: Agent, path: str, mode: str) -> ApiError:
    if agent.system:
        return ApiError(f"Agent error: failed to open file '{path}': {agent.system.no_file()}")
    return ApiError(f"Agent error: failed to open file '{path}' (mode: '{mode}'): No such file or directory")


def _file_read(call: Call) -> dict[str, Any]:
    agent, path, values = _agent(call), str(call.values["file"]), call.values
    if agent.bridge:
        return bridge.read(agent.bridge, path, int(values.get("offset", 0)), int(values.get("count", 16 << 20)))
    _allowed(agent, "file-open")
    whole = agent.files.get(path)
    if whole is None and agent.system:
        whole = agent.system.file(call.guest, path)
    if whole is None:
        raise _no_file(agent, path, "r")
    start, count = int(values.get("offset", 0)), int(values.get("count", 16 << 20))
    content = whole[start:start + count]
    shown = content.decode("latin-1") if values.get("decode", 1) else base64.b64encode(content).decode()
    return {"content": shown, "bytes-read": len(content), **({"truncated": 1} if start + count < len(whole) else {})}


def _file_write(call: Call) -> None:
    agent, path, content = _agent(call), str(call.values["file"]), str(call.values["content"])
    if agent.bridge:
        return bridge.write(agent.bridge, path, content, encode=bool(call.values.get("encode", 1)))
    _allowed(agent, "file-open")
    if not agent.has_folder(path):
        raise _no_file(agent, path, "wb")
    if call.values.get("encode", 1):
        agent.files[path] = content.encode()
        return None
    try:
        agent.files[path] = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise ApiError("Agent error: failed to decode base64 data") from error
    return None


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
