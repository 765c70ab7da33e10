# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From PVE's agent calls to a real qemu-ga. After qemu-server 9.2.6, API2/Qemu/Agent.pm and QemuServer/Agent.pm."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from lab.api import ApiError

Bridge = Callable[[str, Mapping[str, Any]], dict[str, Any]]
CHUNK = 1 << 20


def ask(bridge: Bridge, command: str, **arguments: Any) -> Any:
    """What the agent returns, or PVE's error for what it says instead."""
    answer = bridge(f"guest-{command}", arguments)
    if "error" in answer:
        raise ApiError(f"Agent error: {answer['error']['desc']}")
    return answer["return"]


def execute(bridge: Bridge, command: list[str], stdin: str | None) -> dict[str, int]:
    """Starts a command."""
    arguments: dict[str, Any] = {"path": command[0], "arg": command[1:], "capture-output": True}
    if stdin is not None:
        arguments["input-data"] = base64.b64encode(stdin.encode("latin-1")).decode()
    found: dict[str, int] = ask(bridge, "exec", **arguments)
    return found


def status(bridge: Bridge, pid: int) -> dict[str, Any]:
    """How a command stands; what it wrote as characters below 256, truth as numbers."""
    found: dict[str, Any] = ask(bridge, "exec-status", pid=pid)
    for name in ("out-data", "err-data"):
        if found.get(name):
            found[name] = base64.b64decode(found[name]).decode("latin-1")
    return {key: int(value) if isinstance(value, bool) else value for key, value in found.items()}


def read(bridge: Bridge, path: str, offset: int, count: int) -> dict[str, Any]:
    """A file from an offset on, chunk by chunk."""
    handle = ask(bridge, "file-open", path=path)
    if offset:
        ask(bridge, "file-seek", handle=handle, offset=offset, whence="set")
    content, done = b"", False
    while len(content) < count and not done:
        part = ask(bridge, "file-read", handle=handle, count=min(CHUNK, count - len(content)))
        content += base64.b64decode(part["buf-b64"])
        done = part["eof"]
    ask(bridge, "file-close", handle=handle)
    return {"content": content.decode("latin-1"), "bytes-read": len(content), **({} if done else {"truncated": 1})}


def write(bridge: Bridge, path: str, content: str, *, encode: bool) -> None:
    """A file's new content."""
    data = base64.b64encode(content.encode()).decode() if encode else content
    handle = ask(bridge, "file-open", path=path, mode="wb")
    ask(bridge, "file-write", handle=handle, **{"buf-b64": data})
    ask(bridge, "file-close", handle=handle)
