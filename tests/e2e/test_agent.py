# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest agent through PVE's API: what it says, what it does once, and what a lost answer costs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.agent import (
    POSIX,
    Agent,
    AgentError,
    AgentTimeoutError,
    CommandDisabledError,
    LostAnswerError,
    NoAgentError,
    powershell,
)
from e2e.kit import client
from lab import Lab
from lab.agent import Inside, Result, agent_of, program, script

SEED: dict[str, Any] = {"guests": [
    {"vmid": 100, "running": True, "agent": {"files": {"/etc/hostname": "db1 größer\n"}},
     "config": {"agent": 1, "scsi0": "local-lvm:vm-100-disk-0,size=64M"}},
    {"vmid": 101, "running": True, "config": {"scsi0": "local-lvm:vm-101-disk-0,size=64M"}},
    {"vmid": 102, "config": {"agent": 1, "scsi0": "local-lvm:vm-102-disk-0,size=64M"}},
]}  # fmt: skip
EXEC, STATUS, WRITE = "/agent/exec$", "/agent/exec-status", "/agent/file-write"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, SEED, time_scale=0.01) as lab:
        yield lab


def agent(lab: Lab, vmid: int = 100, timeout: float = 20) -> Agent:
    return Agent(client(lab), "pve1", vmid, f"guest {vmid}", timeout)


def counted(lab: Lab) -> list[str]:
    """Programs and scripts that leave a trace each time they run."""
    ran: list[str] = []

    def run(inside: Inside, match: Any) -> Result:
        ran.append(inside.command[0])
        return Result(out="done\n")

    def run_script(inside: Inside, text: str) -> str:
        ran.append(text)
        return "the result"

    agent_of(lab.guest(100)).programs.insert(0, program("count", run))
    agent_of(lab.guest(100)).scripts.append(script("# count", run_script))
    return ran


# ---- commands


def test_a_command_gives_bytes_and_takes_bytes(lab: Lab) -> None:
    sent = "größer, 大きい\n".encode()
    agent_of(lab.guest(100)).programs.insert(
        0, program("echo", lambda inside, match: Result(3, inside.stdin.encode("latin-1").decode(), "schade\n"))
    )
    done = agent(lab).run(["echo"], sent)
    assert (done.exit, done.out, done.err, done.truncated) == (3, sent, b"schade\n", False)
    assert done.complaint == "schade"


def test_input_that_pve_does_not_pass_on_is_refused(lab: Lab) -> None:
    with pytest.raises(AgentError, match="guest 100: cat: PVE passes on no more than 64 KiB of input"):
        agent(lab).run(["cat"], b"x" * (1 << 16) + b"x")
    assert lab.writes() == []


@pytest.mark.parametrize(("method", "path"), [("POST", EXEC), ("GET", STATUS)])
def test_a_lost_answer_costs_a_command_that_may_be_repeated_nothing(lab: Lab, method: str, path: str) -> None:
    ran = counted(lab)
    lab.faults.lose_answer(method, path)
    assert agent(lab).run(["count"]).out == b"done\n"
    assert len(ran) == 2


@pytest.mark.parametrize(("method", "path"), [("POST", EXEC), ("GET", STATUS)])
def test_a_command_that_may_not_be_repeated_says_that_it_was_lost(lab: Lab, method: str, path: str) -> None:
    ran = counted(lab)
    lab.faults.lose_answer(method, path)
    with pytest.raises(LostAnswerError, match="guest 100: count: "):
        agent(lab).run_once(["count"])
    assert len(ran) == 1


def test_a_command_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(LostAnswerError, match="guest 100: /nosuch: no answer to its start; it does not exist"):
        agent(lab).run(["/nosuch"])


def test_a_command_that_takes_too_long_is_named_with_what_was_seen(lab: Lab) -> None:
    with pytest.raises(AgentTimeoutError, match=r"guest 100: sleep: not done after 0 s \(process \d+, last seen: it"):
        agent(lab, timeout=0).run(["sleep", "5000"])


def test_an_agent_that_goes_away_for_a_while_is_waited_for(lab: Lab) -> None:
    agent_of(lab.guest(100)).programs.insert(
        0, program("install", lambda inside, match: lab.faults.agent_down.add(100) or Result(out="installed"))
    )
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            lab.faults.agent_down.clear()

    patient = Agent(client(lab), "pve1", 100, "guest 100", 20, sleep=sleep)
    assert patient.run_once(["install"]).out == b"installed"
    assert len(looks) == 3


# ---- who answers


@pytest.mark.parametrize(
    ("vmid", "down", "message", "permanent"),
    [
        (100, True, "guest 100: the guest agent does not answer; install qemu-guest-agent", False),
        (101, False, "guest 101: the guest agent is not enabled in the guest's configuration; set agent to 1", True),
        (102, False, "guest 102: the guest does not run", True),
    ],
)
def test_nobody_answers(lab: Lab, vmid: int, down: bool, message: str, permanent: bool) -> None:
    if down:
        lab.faults.agent_down.add(vmid)
    with pytest.raises(NoAgentError, match=message) as caught:
        agent(lab, vmid).run(["true"])
    assert caught.value.permanent is permanent
    assert not agent(lab, vmid).answers()


def test_waiting_for_an_agent(lab: Lab) -> None:
    lab.faults.agent_down.add(100)
    with pytest.raises(NoAgentError, match=r"does not answer; .* \(waited 0 s\)"):
        agent(lab).wait(0)
    with pytest.raises(NoAgentError, match="not enabled"):
        agent(lab, 101).wait(1000)
    Agent(client(lab), "pve1", 100, "", 1, sleep=lambda seconds: lab.faults.agent_down.clear()).wait(1000)


def test_a_guest_that_forbids_commands(lab: Lab) -> None:
    agent_of(lab.guest(100)).disabled |= {"exec", "file-open"}
    with pytest.raises(CommandDisabledError, match=r"guest-exec; allow it in the guest: in /etc/sysconfig/qemu-ga"):
        agent(lab).run(["true"])
    with pytest.raises(CommandDisabledError, match="guest-file-read"):
        agent(lab).read("/etc/hostname")
    agent_of(lab.guest(100)).answers["info"] = {
        "supported_commands": [{"name": "guest-exec", "enabled": False}, {"name": "guest-ping", "enabled": True}]
    }
    assert agent(lab).disabled() == {"exec"}


# ---- files


def test_files(lab: Lab) -> None:
    inside = agent(lab)
    assert inside.read("/etc/hostname") == "db1 größer\n".encode()
    assert inside.read("/etc/nosuch") is None
    inside.write("/tmp/empty", b"")
    assert inside.read("/tmp/empty") == b""


@pytest.mark.parametrize("platform", [POSIX, powershell(r"C:\Windows")], ids=["sh", "cmd"])
@pytest.mark.parametrize("data", [random.Random(1).randbytes(200_000), b"\xff" * 150_000], ids=["random", "slashes"])
def test_large_files_are_written_in_parts(lab: Lab, data: bytes, platform: Any) -> None:
    """pveproxy takes 64 KiB in a request, and a slash of base64 is three characters in one."""
    agent_of(lab.guest(100)).folders.add(r"C:\Windows\Temp")
    file = platform.file("large.bin")
    lab.faults.lose_answer("POST", WRITE)
    agent(lab).write(file, data, platform)
    assert agent(lab).read(file) == data
    assert [name for name in agent_of(lab.guest(100)).files if "large.bin." in name] == []
    sent = [request.params["content"] for request in lab.requests if request.path.endswith("file-write")]
    assert max(len(text.replace("/", "%2F").replace("+", "%2B")) for text in sent) < 63 << 10


def test_a_file_of_many_mebibytes_is_read_to_its_end(lab: Lab) -> None:
    data = random.Random(2).randbytes(17 << 20)
    agent_of(lab.guest(100)).files["/tmp/huge"] = data
    assert agent(lab).read("/tmp/huge") == data


# ---- scripts


@pytest.mark.parametrize("platform", [POSIX, powershell(r"C:\Windows")], ids=["sh", "powershell"])
@pytest.mark.parametrize("lost", [None, ("POST", EXEC), ("GET", STATUS)], ids=["all-well", "start", "status"])
def test_a_script_runs_once_whatever_is_lost(lab: Lab, platform: Any, lost: tuple[str, str] | None) -> None:
    ran = counted(lab)
    agent_of(lab.guest(100)).folders.add(r"C:\Windows\Temp")
    if lost:
        lab.faults.lose_answer(*lost)
    assert agent(lab).script("# count größer", platform) == b"the result"
    assert [text.lstrip("\ufeff") for text in ran] == ["# count größer"]
    assert [name for name in agent_of(lab.guest(100)).files if "diskwright-" in name] == []


def test_a_script_whose_start_never_arrived_is_started_again(lab: Lab) -> None:
    ran = counted(lab)
    lab.server.fail("POST", "/nodes/pve1/qemu/100/agent/exec", 596, "Connection timed out", times=1)
    now = [0.0]
    impatient = Agent(
        client(lab), "pve1", 100, "", 90, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + 5)
    )
    assert impatient.script("# count", POSIX) == b"the result"
    assert len(ran) == 1
    assert [request.status for request in lab.writes("/agent/exec$")][:2] == [596, 200]


def test_a_script_that_fails_says_why(lab: Lab) -> None:
    agent_of(lab.guest(100)).scripts.append(script("# fail", lambda inside, text: Result(4, err="no such disk\n")))
    with pytest.raises(AgentError, match="guest 100: a script failed with 4: no such disk"):
        agent(lab).script("# fail", POSIX)


def test_a_script_that_takes_too_long(lab: Lab) -> None:
    agent_of(lab.guest(100)).scripts.append(script("# slow", lambda inside, text: Result(seconds=5000)))
    with pytest.raises(AgentTimeoutError, match="guest 100: a script: not done after 0 s"):
        agent(lab, timeout=0).script("# slow", POSIX)
