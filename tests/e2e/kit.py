# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What end-to-end tests start: labs, playbooks against a lab, and runs of the Python layers without Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_disks import GuestDisks
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result, Work
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Client
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.endpoint import Endpoint
from lab import Lab

HERE = Path(__file__).parent
SECRETS = ("PROXMOX_TOKEN_SECRET", "PROXMOX_PASSWORD")


@contextmanager
def started(seed: Mapping[str, Any], **options: Any) -> Iterator[Lab]:
    """A lab with a seed of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, Lab(folder, seed=seed, **options) as lab:
        yield lab


def token_env(lab: Lab, tokenid: str = "root@pam!test") -> dict[str, str]:
    """The environment that a user of an API token sets."""
    user, _, name = tokenid.partition("!")
    return {
        "PROXMOX_HOST": f"{lab.host}:{lab.port}",
        "PROXMOX_USER": user,
        "PROXMOX_TOKEN_ID": name,
        "PROXMOX_TOKEN_SECRET": lab.token(tokenid),
    }


# ---- with Ansible


@dataclass
class Task:
    """One task's result on one host."""

    task: str
    host: str
    status: str
    result: dict[str, Any]

    @property
    def changed(self) -> bool:
        """Whether Ansible counts it as a change."""
        return bool(self.result.get("changed"))

    @property
    def diff(self) -> str:
        """What --diff is given."""
        parts = self.result.get("diff") or []
        return "".join(part["prepared"] for part in (parts if isinstance(parts, list) else [parts]))

    @property
    def guests(self) -> list[dict[str, Any]]:
        """The guests of a result of this collection."""
        return list(self.result["guests"])


@dataclass
class Run:
    """One run of ansible-playbook."""

    code: int
    stdout: str
    stderr: str
    tasks: list[Task] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Everything that a person or a log would see."""
        return self.stdout + self.stderr

    def task(self, name: str) -> Task:
        """The only result of a task with this name."""
        (found,) = [task for task in self.tasks if task.task == name]
        return found


def play(tasks: Sequence[Mapping[str, Any]], **keys: Any) -> list[dict[str, Any]]:
    """One play of these tasks on the controller."""
    return [{"hosts": "localhost", "gather_facts": False, **keys, "tasks": list(tasks)}]


def run_playbook(
    plays: str | Sequence[Mapping[str, Any]],
    env: Mapping[str, str | None],
    *flags: str,
    inventory: Mapping[str, Any] | None = None,
    cwd: Path | None = None,
    python: str | Path = sys.executable,
    beside: Mapping[str, str] | None = None,
) -> Run:
    """Runs plays, or a playbook of the collection by its name, with ansible-playbook.

    :param env: what is set beside the environment of the tests; None unsets.
    :param inventory: the groups and hosts, in YAML's form; the controller alone when it is not given.
    :param cwd: where it is started; by default in a folder of its own.
    :param python: what modules run on.
    :param beside: files in the folder of the playbook, with their text.
    """
    with tempfile.TemporaryDirectory(prefix="play-") as folder:
        book, results, hosts = Path(folder, "play.yml"), Path(folder, "results"), Path(folder, "hosts.yml")
        name = plays if isinstance(plays, str) else str(book)
        if not isinstance(plays, str):
            book.write_text(yaml.safe_dump(list(plays), sort_keys=False))
        for file, text in (beside or {}).items():
            Path(folder, file).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, file).write_text(text)
        hosts.write_text(yaml.safe_dump(dict(inventory or {"all": {"hosts": {"localhost": {}}}})))
        environment = _environment(folder, env, results)
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(hosts), "-c", "local", *flags]
        command += ["-e", json.dumps({"ansible_python_interpreter": str(python)}), name]  # its path may have spaces
        done = subprocess.run(command, env=environment, cwd=cwd or folder, capture_output=True, text=True, check=False)
        lines = results.read_text().splitlines() if results.exists() else []
    return Run(done.returncode, done.stdout, done.stderr, [Task(**json.loads(line)) for line in lines])


def _environment(folder: str, env: Mapping[str, str | None], results: Path) -> dict[str, str]:
    base = {key: value for key, value in os.environ.items() if not key.startswith(("PROXMOX_", "ANSIBLE_"))}
    own = {
        "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
        "ANSIBLE_HOME": f"{folder}/home",
        "ANSIBLE_LOCAL_TEMP": f"{folder}/tmp",
        "ANSIBLE_REMOTE_TEMP": f"{folder}/remote",
        "RECORD_RESULTS": str(results),
    }
    return {key: value for key, value in {**base, **own, **env}.items() if value is not None}


# ---- without Ansible, a hundred times faster


def client(lab: Lab, tokenid: str = "root@pam!test", **options: Any) -> Client:
    """A connection to the lab: with a token, or with `password` in the options."""
    user, _, name = tokenid.partition("!")
    words = {"api_host": lab.host, "api_port": lab.port, "api_user": user, **options}
    if "api_password" not in options:
        words |= {"api_token_id": name, "api_token_secret": lab.token(tokenid)}
    return Client(Endpoint.from_options(words))


@dataclass
class Outcome:
    """What a run of guest_disks says, without Ansible around it."""

    guests: list[dict[str, Any]]
    changed: bool
    failure: str | None
    diff: str
    warnings: list[str]

    @property
    def errors(self) -> list[str]:
        """Every guest's reasons."""
        return [error for guest in self.guests for error in guest["errors"]]

    def guest(self, vmid: int) -> dict[str, Any]:
        """One guest's outcome."""
        (found,) = [guest for guest in self.guests if guest["vmid"] == vmid]
        return found


def converge(
    to: Lab | Client, *guests: Mapping[str, Any], check: bool = False, tokenid: str = "root@pam!test", **params: Any
) -> Outcome:
    """Declares guests as the module does with its `guests`, and converges them.

    :param params: the module's other parameters; they have its defaults.
    """
    if isinstance(to, Lab):
        with client(to, tokenid) as connection:
            return converge(connection, *guests, check=check, **params)
    defaults = {"undeclared": "keep", "power": "never", "revert_leftovers": False, "allow_destroy": False}
    limits = {"task_timeout": 60, "bwlimit": None, "concurrency": 4}
    policy = {"policy": "none", "policy_rules": [], "facts": {}, "recommend": "on_create"}
    work = GuestDisks(to, {**defaults, **limits, **policy, "guests": [dict(guest) for guest in guests], **params})
    work.prepare()
    if not check:
        work.execute()
    result = work.result(executed=not check)
    return Outcome(result.data["guests"], result.changed, result.failure, result.diff, result.warnings)


def run_work(
    to: Lab,
    make: Callable[[Client, dict[str, Any]], Work],
    spec: Mapping[str, Mapping[str, Any]],
    *,
    check: bool = False,
    tokenid: str = "root@pam!test",
    **params: Any,
) -> Result:
    """Runs a module's work as the runner does: with the defaults of its arguments, and errors as failures.

    :param make: what makes the work, and `spec` the module's own arguments.
    """
    defaults = {name: row.get("default") for name, row in spec.items()}
    assert set(params) <= {*defaults, "task_timeout"}, params
    try:
        with client(to, tokenid) as connection:
            work = make(connection, {"task_timeout": 60, **defaults, **params})
            work.prepare()
            if not check:
                work.execute()
            return work.result(executed=not check)
    except DiskwrightError as error:
        return Result({}, failure=str(error))


def disks(*entries: Mapping[str, Any] | str) -> list[dict[str, Any]]:
    """Disks from dictionaries, or from short YAML: `slot: scsi0, size: 2G`."""
    return [yaml.safe_load("{" + entry + "}") if isinstance(entry, str) else dict(entry) for entry in entries]
