# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The guest agent of one guest, through PVE's API: commands, files, and scripts whose result can't get lost.

What shapes this file (qemu-server 9.2.6, ``API2/Qemu/Agent.pm`` and ``QemuServer/Agent.pm``; qemu 10.0,
``qga/commands.c``):

* ``exec`` answers with a process id. The first ``exec-status`` after the end frees the entry, so an answer that is lost
  on its way is lost for good, and the next one says that there is no such process.
* A command whose start failed can answer 596, which is also how a lost answer looks.
* PVE decodes what the agent sends and puts the bytes into JSON as if they were Latin-1.
* ``file-write`` truncates and can't append; what is larger than one call is written as parts and joined in the guest.
* ``offset`` of ``file-read`` came with qemu-server 9.1.5; without it only the first 16 MiB of a file can be read.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
import typing as t
from dataclasses import dataclass
from urllib.parse import quote_plus

from .._core.errors import DiskwrightError
from .client import ApiError, path
from .tasks import Deadline

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .client import Client
    from .tasks import Clock, Sleep

# What `input-data` may hold, and what `content` may; pveproxy takes no more than 64 KiB in one request altogether.
_INPUT_LIMIT = 64 << 10
_CONTENT_LIMIT = 60 << 10
_REQUEST_LIMIT = 62 << 10
_FIRST_POLL = 0.05
_POLL_GROWTH = 1.5
_LONG_POLL = 2.0
# How long a script may take to begin before a start whose answer was lost counts as one that never happened.
_BEGIN_SECONDS = 15.0
_TRIES = 3
_SHOWN = 2000

_NOT_CONFIGURED = "No QEMU guest agent configured"
_STOPPED = re.compile(r"VM \d+ is not running")
_SILENT = "QEMU guest agent is not running"
_NO_PROCESS = re.compile(r"PID .* does not exist")
_DISABLED = re.compile(r"ommand \S+ has (been disabled|not been found)")
_NO_FILE = "failed to open file"  # the reason follows in the guest's language


class AgentError(DiskwrightError):
    """The agent, or what it was asked to do, failed. The text names the guest and says what to do."""


class NoAgentError(AgentError):
    """Nobody answers inside the guest: it is stopped, has no agent, or the agent is not enabled or does not run.

    :ivar permanent: whether waiting will not help (stopped, or not enabled in the guest's configuration).
    """

    def __init__(self, text: str, *, permanent: bool) -> None:
        self.permanent = permanent
        super().__init__(text)


class CommandDisabledError(AgentError):
    """The guest's own policy forbids what was asked of its agent."""


class LostAnswerError(AgentError):
    """The answer was lost: whether the command ran, and how it ended, is not known."""


class AgentTimeoutError(AgentError):
    """The command did not end in time. It goes on."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended.

    :param exit: its exit status; the number of the signal or exception that ended it, below 0.
    :param out: what it wrote to its standard output.
    :param truncated: whether the agent kept only the first 16 MiB of that.
    """

    exit: int
    out: bytes
    err: bytes
    truncated: bool = False

    @property
    def complaint(self) -> str:
        """What it said last, for messages."""
        said = (self.err or self.out).decode("utf-8", "replace").strip()
        return said[-_SHOWN:] or "it said nothing"


@dataclass(frozen=True, slots=True)
class Platform:
    """How scripts are kept and run inside a guest.

    :param folder: where their files are, without a separator at the end.
    :param separator: between folder and file.
    :param suffix: of a script's file.
    :param interpreter: the program that runs them.
    """

    folder: str
    separator: str
    suffix: str
    interpreter: str
    windows: bool

    def start(self, script: str, result: str) -> list[str]:
        """The command that runs a script.

        PowerShell runs files as the execution policy of a domain allows, but a block of code always.

        :param script: its file.
        :param result: the file for its result.
        """
        if not self.windows:
            return [self.interpreter, script, result]
        block = f"& ([scriptblock]::Create([IO.File]::ReadAllText('{script}'))) '{script}' '{result}'"
        return [self.interpreter, "-NoProfile", "-NonInteractive", "-Command", block]

    def file(self, name: str) -> str:
        """The path of a file of ours."""
        return f"{self.folder}{self.separator}{name}"

    def join(self, parts: Sequence[str], whole: str) -> list[str]:
        """The command that makes one file of parts."""
        if self.windows:
            return ["cmd.exe", "/d", "/c", "copy", "/b", "/y", "+".join(parts), whole]
        return ["sh", "-c", 'whole="$1"; shift; cat "$@" > "$whole"', "join", whole, *parts]

    def remove(self, files: Sequence[str]) -> list[str]:
        """The command that removes files; those that are not there are no error."""
        if self.windows:
            return ["cmd.exe", "/d", "/c", "del", "/f", "/q", *files]
        return ["rm", "-f", "--", *files]


#: /run is writable by root alone, and empty after a restart.
POSIX = Platform("/run", "/", ".sh", "sh", windows=False)


def powershell(system_root: str, system: str = "System32") -> Platform:
    """The platform of a Windows that has PowerShell.

    :param system_root: its ``%SystemRoot%``.
    :param system: the folder of its programs, ``Sysnative`` for an agent of 32 bit in a Windows of 64 bit.
    """
    program = rf"{system_root}\{system}\WindowsPowerShell\v1.0\powershell.exe"
    return Platform(rf"{system_root}\Temp", "\\", ".ps1", program, windows=True)


class Agent:
    """The agent of one guest.

    :param label: how messages call the guest.
    :param timeout: seconds for each command or script.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        vmid: int,
        label: str,
        timeout: float,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = time.sleep,
    ) -> None:
        self.label = label
        self._client = client
        self._base = ("nodes", node, "qemu", vmid, "agent")
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep

    # ---- what the agent knows by itself

    def ping(self) -> None:
        """:raises NoAgentError: nobody answers."""
        self._ask("POST", "ping")

    def answers(self) -> bool:
        """Whether it answers now, for those who wait for it."""
        try:
            self.ping()
        except NoAgentError:
            return False
        except ApiError as error:
            if not error.unreachable:
                raise
            return False
        return True

    def wait(self, seconds: float) -> None:
        """Wait until it answers.

        :raises NoAgentError: it did not in time, or it never will; says what was last seen.
        """
        deadline = Deadline(seconds, self._clock)
        for pause in self._pauses():
            try:
                return self.ping()
            except NoAgentError as error:
                if error.permanent:
                    raise
                seen = str(error)
            if deadline.passed:
                raise NoAgentError(f"{seen} (waited {deadline.elapsed:.0f} s)", permanent=False)
            self._sleep(min(pause, deadline.remaining))
        raise AssertionError("pauses never end")

    def disabled(self) -> frozenset[str]:
        """The commands that the guest's policy forbids, without the prefix ``guest-``."""
        rows = self._result("info").get("supported_commands") or ()
        return frozenset(str(row["name"]).removeprefix("guest-") for row in rows if not row.get("enabled", True))

    def osinfo(self) -> Mapping[str, t.Any]:
        """``guest-get-osinfo``: ``id``, ``kernel-release``, ``machine`` …, as far as the guest tells."""
        answer = self._result("get-osinfo")
        return answer if isinstance(answer, dict) else {}

    def fsinfo(self) -> list[Mapping[str, t.Any]]:
        """``guest-get-fsinfo``: mounted file systems and the disks below each."""
        answer = self._result("get-fsinfo")
        return list(answer) if isinstance(answer, list) else []

    def is_windows(self) -> bool:
        """Whether Windows runs inside."""
        return self.osinfo().get("id") == "mswindows"

    def _result(self, name: str) -> t.Any:
        return (self._ask("GET", name) or {}).get("result") or {}

    # ---- commands

    def run(self, command: Sequence[str], stdin: bytes = b"") -> Finished:
        """Run a command that may be run twice: when its answer is lost, it is run again.

        :raises AgentError: it could not be started, did not end in time, or was lost each time.
        """
        for attempt in range(_TRIES):
            try:
                return self.run_once(command, stdin)
            except LostAnswerError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("the last attempt ends the loop")

    def run_once(self, command: Sequence[str], stdin: bytes = b"") -> Finished:
        """Run a command.

        :raises LostAnswerError: whether it ran, and how it ended, is not known.
        """
        return self._finish(self._start(command, stdin), command[0], Deadline(self._timeout, self._clock))

    def _start(self, command: Sequence[str], stdin: bytes = b"") -> int:
        fields: dict[str, object] = {"command": list(command)}
        if stdin:
            text = stdin.decode("latin-1")  # PVE takes characters below 256 for bytes
            if len(text) > _INPUT_LIMIT or len(quote_plus(text)) > _REQUEST_LIMIT:
                raise AgentError(f"{self.label}: {command[0]}: PVE passes on no more than 64 KiB of input")
            fields["input-data"] = text
        try:
            return int(self._ask("POST", "exec", fields)["pid"])
        except ApiError as error:
            if error.lost:
                raise LostAnswerError(
                    f"{self.label}: {command[0]}: no answer to its start; it does not exist in the guest, or it runs"
                ) from error
            raise AgentError(f"{self.label}: {command[0]}: {error.text}") from error

    def _finish(self, pid: int, name: str, deadline: Deadline) -> Finished:
        seen, gone = "it runs", False
        for pause in self._pauses():
            try:
                status = self._ask("GET", "exec-status", {"pid": pid})
                seen = "it runs"
                if status.get("exited"):
                    return _finished(status)
            except NoAgentError as error:
                gone = error.permanent
                seen = str(error)  # a driver that is being installed may take the agent's channel away for a moment
            except ApiError as error:
                if _NO_PROCESS.search(error.text):
                    raise LostAnswerError(f"{self.label}: {name}: how it ended was lost on the way") from error
                if not error.unreachable:
                    raise
                seen = str(error)
            if gone:
                raise LostAnswerError(f"{self.label}: {name}: {seen}")
            if deadline.passed:
                raise AgentTimeoutError(
                    f"{self.label}: {name}: not done after {deadline.seconds:.0f} s (process {pid}, last seen: {seen});"
                    " it may go on, and a later run finds what it did"
                )
            self._sleep(min(pause, deadline.remaining))
        raise AssertionError("pauses never end")

    # ---- files

    def read(self, file: str) -> bytes | None:
        """A file's bytes, ``None`` when it can't be opened, which mostly means that there is none.

        :raises AgentError: it is larger than this PVE can read, or the guest forbids it.
        """
        whole = b""
        while True:
            query: dict[str, object] = {"file": file}
            if whole:
                query["offset"] = len(whole)
            try:
                answer = self._ask("GET", "file-read", query)
            except ApiError as error:
                if _NO_FILE in error.text:
                    return None
                if "offset" in error.errors:
                    raise AgentError(
                        f"{self.label}: {file} is larger than 16 MiB: more can be read since qemu-server 9.1.5"
                    ) from error
                raise
            part = str(answer.get("content", "")).encode("latin-1")
            whole += part
            if not answer.get("truncated") or not part:
                return whole

    def write(self, file: str, data: bytes, platform: Platform = POSIX) -> None:
        """Write a file, whatever it held.

        :param platform: how its parts are joined when one call can't hold it.
        """
        parts = list(_parts(data))
        if len(parts) == 1:
            return self._write(file, parts[0])
        names = [f"{file}.{number}" for number in range(len(parts))]
        for name, part in zip(names, parts, strict=True):
            self._write(name, part)
        joined = self.run(platform.join(names, file))
        if joined.exit:
            raise AgentError(f"{self.label}: {file}: its parts can't be joined: {joined.complaint}")
        self.run(platform.remove(names))
        return None

    def _write(self, file: str, data: bytes) -> None:
        content = base64.b64encode(data).decode("ascii")
        for attempt in range(_TRIES):
            try:
                self._ask("POST", "file-write", {"file": file, "content": content, "encode": 0})
                return
            except ApiError as error:
                if not error.lost or attempt == _TRIES - 1:
                    raise

    # ---- scripts

    def script(self, text: str, platform: Platform) -> bytes:
        """Run a script and return the result that it wrote to a file.

        The script is given the path for its result. It must first remove its own file, wait for others of its kind,
        and put the whole result in its place at once. So it runs once, however often its start is repeated, its result
        does not depend on one answer, and when the agent comes back after a loss, the result is still there.

        :raises AgentError: it failed; the text has what it said.
        """
        name = f"diskwright-{secrets.token_hex(8)}"
        script, result = platform.file(name + platform.suffix), platform.file(name + ".out")
        encoded = text.encode("utf-8-sig" if platform.windows else "utf-8")  # PowerShell takes all else for ANSI
        self.write(script, encoded, platform)
        try:
            return self._scripted(script, result, platform)
        finally:
            self._tidy([script, result], platform)

    def _scripted(self, script: str, result: str, platform: Platform) -> bytes:
        deadline = Deadline(self._timeout, self._clock)
        ended: Finished | None = None
        lost: LostAnswerError | None = None
        for _attempt in range(_TRIES):
            try:
                pid = self._start(platform.start(script, result))
                ended = self._finish(pid, "a script", deadline)
            except LostAnswerError as error:
                lost = error
            found = self._await(script, result, deadline) if ended is None else self.read(result)
            if found is not None:
                return found
            if ended is not None:
                raise AgentError(f"{self.label}: a script failed with {ended.exit}: {ended.complaint}")
        raise lost or AgentError(f"{self.label}: a script has no result")

    def _await(self, script: str, result: str, deadline: Deadline) -> bytes | None:
        """The result of a script whose start or end was lost; ``None`` when it has not begun, and can be started."""
        begin = Deadline(_BEGIN_SECONDS, self._clock)
        for pause in self._pauses():
            try:
                found = self.read(result)
                if found is not None:
                    return found
                if begin.passed and self.read(script) is not None:
                    return None
            except NoAgentError as error:
                if error.permanent or deadline.passed:
                    raise
            except ApiError as error:
                if not error.unreachable or deadline.passed:
                    raise
            if deadline.passed:
                raise AgentTimeoutError(
                    f"{self.label}: a script has no result after {deadline.seconds:.0f} s; it may go on,"
                    " and a later run finds what it did"
                )
            self._sleep(min(pause, deadline.remaining))
        raise AssertionError("pauses never end")

    def _tidy(self, files: Sequence[str], platform: Platform) -> None:
        """Files of ours that are left over are a blemish, and no reason to fail."""
        try:
            self._ask("POST", "exec", {"command": platform.remove(files)})
        except DiskwrightError:
            return

    # ---- beneath

    def _ask(self, method: str, name: str, fields: Mapping[str, object] | None = None) -> t.Any:
        try:
            return self._client.call(method, path(*self._base, name), fields)
        except ApiError as error:
            raise self._explained(error, name) from error

    def _explained(self, error: ApiError, name: str) -> DiskwrightError:
        text = error.text
        if _NOT_CONFIGURED in text:
            return NoAgentError(
                f"{self.label}: the guest agent is not enabled in the guest's configuration; set agent to 1, and stop"
                " and start the guest",
                permanent=True,
            )
        if _STOPPED.search(text):
            return NoAgentError(f"{self.label}: the guest does not run, so nobody answers inside", permanent=True)
        if _SILENT in text:
            return NoAgentError(
                f"{self.label}: the guest agent does not answer; install qemu-guest-agent in the guest, or look whether"
                " its service runs there",
                permanent=False,
            )
        if text.startswith("Agent error") and _DISABLED.search(text):
            return CommandDisabledError(
                f"{self.label}: the guest forbids its agent the command guest-{name}; allow it in the guest: in"
                " /etc/sysconfig/qemu-ga (BLOCK_RPCS, ALLOW_RPCS, FILTER_RPC_ARGS or BLACKLIST_RPC) or"
                " /etc/qemu/qemu-ga.conf, in Windows in the arguments of the service QEMU-GA; then restart the agent"
            )
        return error

    def _pauses(self) -> Iterator[float]:
        pause = _FIRST_POLL
        while True:
            yield pause
            pause = min(pause * _POLL_GROWTH, _LONG_POLL)


def _finished(status: Mapping[str, t.Any]) -> Finished:
    signal = status.get("signal")
    return Finished(
        exit=int(status.get("exitcode", 0)) if signal is None else -int(signal),
        out=str(status.get("out-data", "")).encode("latin-1"),
        err=str(status.get("err-data", "")).encode("latin-1"),
        truncated=bool(status.get("out-truncated")),
    )


def _parts(data: bytes) -> Iterator[bytes]:
    """The data in pieces that each fit into one request, of which there is one at least."""
    step = _CONTENT_LIMIT * 3 // 4
    start = 0
    while start < len(data) or start == 0:
        part = data[start : start + step]
        while len(quote_plus(base64.b64encode(part))) > _REQUEST_LIMIT:
            part = part[: len(part) // 2]  # bytes whose base64 is nothing but slashes
        yield part
        start += len(part) or 1
