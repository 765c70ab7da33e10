# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests: the configuration file in PVE's own syntax, and what is known of a running guest.

fakepve keeps a guest's configuration as a dict in memory. The lab needs more of it: pending values with forced
deletions, snapshots, a digest of the file's text, and the same state after a restart. So every guest is a file
`nodes/<node>/qemu-server/<vmid>.conf` as on a PVE node, read once and written at each change.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from lab.api import ApiError
from lab.drives import is_drive, parse_drive
from lab.schema import option_schema

SECTION = re.compile(r"^\[(?P<name>[^\]]+)\]\s*$")
LINE = re.compile(r"^(?P<key>[a-z][a-z_\-]*\d*):\s*(?P<value>.+?)\s*$")
PENDING = "PENDING"
_UNSAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in "%:")


def shown(key: str, value: str) -> str | int:
    """A value as the API shows it: integers and booleans as numbers, everything else as text."""
    kind = (option_schema(key) or {}).get("type")
    return int(value) if kind in ("integer", "boolean") and re.fullmatch(r"-?\d+", value) else value


@dataclass
class Conf:
    """The content of a configuration file. Values are text as in the file."""

    values: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, dict[str, str]] = field(default_factory=dict)
    digest: str = ""

    def copy(self) -> Conf:
        """An independent copy: what PVE gets from load_config."""
        return Conf(dict(self.values), dict(self.pending),
                    {name: dict(values) for name, values in self.snapshots.items()}, self.digest)

    def get(self, key: str) -> str | None:
        """The current value of an option."""
        return self.values.get(key)

    @property
    def is_template(self) -> bool:
        """Whether the guest is a template."""
        return self.values.get("template") == "1"

    def deletions(self) -> dict[str, bool]:
        """The pending deletions: slot or option -> forced."""
        words = re.split(r"[,;\s]+", self.pending.get("delete", "").strip())
        return {word.lstrip("!"): word.startswith("!") for word in words if word}

    def set_deletions(self, deletions: dict[str, bool]) -> None:
        """Records the pending deletions in PVE's form."""
        self.pending.pop("delete", None)
        if deletions:
            self.pending["delete"] = ",".join(("!" if deletions[key] else "") + key for key in sorted(deletions))

    def add_deletion(self, key: str, force: bool = False) -> None:
        """Marks an option for deletion."""
        self.set_deletions({**self.deletions(), key: force})

    def drop_deletion(self, key: str) -> None:
        """Takes the mark off again."""
        deletions = self.deletions()
        if deletions.pop(key, None) is not None:
            self.set_deletions(deletions)

    def tidy_pending(self) -> None:
        """Forgets pending values that change nothing (AbstractConfig.pm, cleanup_pending)."""
        for key in [k for k, v in self.pending.items() if k != "delete" and self.values.get(k) == v]:
            del self.pending[key]
        self.set_deletions({key: force for key, force in self.deletions().items() if key in self.values})

    def add_unused(self, volid: str) -> str | None:
        """Notes a volume as the lowest free unusedN; None when it is noted already."""
        taken = {key: value for key, value in self.values.items() if key.startswith("unused")}
        if volid in taken.values():
            return None
        for number in range(256):
            if f"unused{number}" not in taken:
                self.values[f"unused{number}"] = volid
                return f"unused{number}"
        raise ApiError("Too many unused volumes - please delete them first.")

    def check_lock(self) -> None:
        """500 while the configuration carries a lock."""
        if self.values.get("lock"):
            raise ApiError(f"VM is locked ({self.values['lock']})")

    def check_protection(self, what: str) -> None:
        """500 when the guest is protected."""
        if self.values.get("protection") == "1":
            raise ApiError(f"{what} - protection mode enabled")


def parse(text: str) -> Conf:
    """Reads a configuration file."""
    conf = Conf(digest=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    section = conf.values
    for line in text.splitlines():
        if found := SECTION.match(line):
            name = found["name"]
            section = conf.pending if name.upper() == PENDING else conf.snapshots.setdefault(name, {})
        elif line.startswith("#"):
            section["description"] = section.get("description", "") + unquote(line[1:]) + "\n"
        elif found := LINE.match(line):
            section[found["key"]] = found["value"]
    for values in (conf.values, conf.pending, *conf.snapshots.values()):
        if "description" in values:
            values["description"] = values["description"].rstrip()
    return conf


def _section(values: dict[str, str]) -> str:
    lines = ["#" + quote(line, safe=_UNSAFE) for line in values.get("description", "").split("\n") if line]
    lines += [f"{key}: {values[key]}" for key in sorted(values) if key != "description"]
    return "".join(line + "\n" for line in lines)


def render(conf: Conf) -> str:
    """The text of a configuration file."""
    text = _section(conf.values)
    if conf.pending:
        text += f"\n[{PENDING}]\n" + _section(conf.pending)
    return text + "".join(f"\n[{name}]\n" + _section(conf.snapshots[name]) for name in sorted(conf.snapshots))


_PIDS = itertools.count(2000)
"""Every start is another process."""


@dataclass
class Running:
    """What a running guest has: since when, the plugged drives as QEMU got them, and what it does with requests."""

    since: float = field(default_factory=time.time)
    status: str = "running"
    drives: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """The configuration that the guest was started with."""
    pid: int = field(default_factory=_PIDS.__next__)


class Guest:
    """One guest. Changes go `conf = guest.load()`, change, `guest.write(conf)`, under `cluster.lock(vmid)`."""

    def __init__(self, vmid: int, node: str, path: Path) -> None:
        self.vmid = vmid
        self.node = node
        self.path = path
        self.running: Running | None = None
        self.agent: Any = None
        """What the guest agent's stand-in keeps between calls (lab.agent)."""
        self._conf = parse(path.read_text()) if path.exists() else Conf()
        self._answers: dict[str, bytes] = {}

    @property
    def conf(self) -> Conf:
        """The present configuration, to look at only."""
        return self._conf

    @property
    def name(self) -> str:
        """The name as lists show it."""
        return self._conf.values.get("name") or f"VM {self.vmid}"

    def load(self) -> Conf:
        """A copy of the configuration to change."""
        return self._conf.copy()

    def write(self, conf: Conf) -> None:
        """Writes the configuration as PVE does: volumes in use are no longer listed as unused."""
        used = {drive.file for section in (conf.values, conf.pending) for key, value in section.items()
                if is_drive(key) and (drive := parse_drive(key, value))}
        for key in [k for k, v in conf.values.items() if k.startswith("unused") and v in used]:
            del conf.values[key]
        self.store(render(conf))

    def store(self, text: str) -> None:
        """Replaces the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self.path)
        self._conf = parse(text)
        self._answers = {}

    # ---- answers, kept as bytes until the next write

    def config_answer(self, current: bool, snapshot: str | None) -> bytes:
        """The body of GET config."""
        answers, name = self._answers, f"config {current} {snapshot}"  # a write puts an empty dict in its place
        if name not in answers:
            answers[name] = _body(self._config(current, snapshot))
        return answers[name]

    def pending_answer(self) -> bytes:
        """The body of GET pending."""
        answers = self._answers
        if "pending" not in answers:
            answers["pending"] = _body(self._pending())
        return answers["pending"]

    def _config(self, current: bool, snapshot: str | None) -> dict[str, Any]:
        conf = self._conf
        if snapshot is not None:
            if snapshot not in conf.snapshots:
                raise ApiError(f"snapshot '{snapshot}' does not exist")
            values = dict(conf.snapshots[snapshot])
        else:
            values = dict(conf.values)
            if not current:
                values.update({k: v for k, v in conf.pending.items() if k != "delete"})
                for key in conf.deletions():
                    values.pop(key, None)
        return {**{key: shown(key, value) for key, value in values.items()}, "digest": conf.digest}

    def _pending(self) -> list[dict[str, Any]]:
        conf, deletions = self._conf, self._conf.deletions()
        pending = {key: value for key, value in conf.pending.items() if key != "delete"}
        rows: list[dict[str, Any]] = []
        for key, value in {**conf.values, "digest": conf.digest}.items():
            row: dict[str, Any] = {"key": key, "value": shown(key, value)}
            if key in pending:
                row["pending"] = shown(key, pending.pop(key))
            if key in deletions:
                row["delete"] = 2 if deletions.pop(key) else 1
            rows.append(row)
        rows += [{"key": key, "pending": shown(key, value)} for key, value in pending.items()]
        return rows + [{"key": key, "delete": 2 if force else 1} for key, force in deletions.items()]


def _body(data: Any) -> bytes:
    return json.dumps({"data": data}, ensure_ascii=False).encode()
