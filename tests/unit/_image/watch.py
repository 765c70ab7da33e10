# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that inspects images and says, for each, how it ended and which files were opened for it.

Started by test_bad_images.py: an audit hook can't be removed again. Reads lines of JSON, [path, member, folder], and
writes a line for each. Every file that Python opens, every program and every connection that it starts is reported by
the interpreter itself (PEP 578).
"""

from __future__ import annotations

import json
import os
import sys

from ansible_collections.diskwright.proxmox.plugins.module_utils._image.errors import ImageRefusedError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import inspect
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.verify import manifest

WATCHED = ("open", "socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.fork", "os.system", "os.listdir")
events: list[list[object]] = []
watching = False


def hook(event: str, args: tuple[object, ...]) -> None:
    if watching and event.startswith(WATCHED):
        events.append([event, *(str(arg) for arg in args[:2])])


def attempt(path: str, member: str) -> dict[str, object]:
    """Inspect an image, and hold it against its manifest, as whoever uses it does."""
    try:
        with inspect(path, member) as source:
            manifest(source)
            return {"accepted": source.virtual_size}
    except ImageRefusedError as error:
        return {"code": error.code, "message": str(error)}
    except Exception as error:  # noqa: BLE001 - any other is what this test is to find
        return {"crashed": repr(error)}


# A watched program to begin with, so that all that is imported later is imported now.
attempt("/nonexistent/warm.qcow2", "")
sys.addaudithook(hook)
for line in sys.stdin:
    path, member = json.loads(line)
    events.clear()
    before = len(os.listdir("/proc/self/fd"))
    watching = True
    result = attempt(path, member)
    watching = False
    result |= {"events": list(events), "leaked": len(os.listdir("/proc/self/fd")) - before}
    print(json.dumps(result), flush=True)  # noqa: T201 - this is a program
