# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeds: what a new lab holds, as YAML or as a dict. A state folder that has been used before is not seeded again.

    nodes: [pve1, pve2]
    password: secret                       # of root@pam
    storages: {local: {type: dir, ...}}    # as in storage.cfg; `offline: true` makes one unreachable
    bridges: [vmbr0]
    images: true                           # false: guests get no volumes, only their configuration
    users: {joe@pve: {password: x, tokens: {t: {privsep: false, secret: y}}}}
    roles: {Diskman: [VM.Audit, VM.Config.Disk]}
    acl: [{path: /vms/100, role: Diskman, to: joe@pve, propagate: true}]
    pools: {web: {guests: [100], storages: [local]}}
    files:
      samples: [local]                     # the import files of lab.samples
      local:iso/x.iso: {text: hello, times: 100}
    web:                                   # what nodes find at a URL, instead of asking the network
      https://example.com/x.iso: {text: hello, times: 100}
      https://example.com/x.qcow2: {like: "local:import/img.qcow2"}
    guests:
      - vmid: 100
        name: db1
        node: pve1                         # the first node by default
        running: true
        tags: [a, b]
        pool: web
        config: {scsi0: "local-lvm:vm-100-disk-0,size=4G", scsihw: null, cores: 2}  # null: without virtio-scsi-single
        contents: {scsi0: first bytes of the disk}
        pending: {sata1: "local:100/vm-100-disk-1.raw,size=1G", delete: scsi2}
        snapshots: [before]                # taken of all disks, in this order
        template: false
        lock: backup
        busy: [scsi1]                      # slots that the guest does not let go
        agent: {files: {/etc/hostname: db1}}
        # or a system that is played: agent: {windows: "2022"}, {linux: {scsi0: …}} (lab.windows, lab.linux)

`volumes` of a guest lists further volumes that no key names: {local:100/vm-100-disk-9.raw: 1G}.
"""

from __future__ import annotations

import copy
import functools
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lab.agent import from_seed
from lab.cluster import Cluster
from lab.disks import managed
from lab.drives import UNUSED, default_boot, drives, parse_size, print_boot
from lab.guest import Conf, Guest, Running, render
from lab.samples import make

DEFAULT = Path(__file__).parent / "default.yml"
Seed = Mapping[str, Any]
_GROUPS = "nodes password storages bridges images users roles acl pools files web guests".split()
_GUEST = (
    "vmid name node ostype protection running tags pool config contents pending snapshots template lock busy agent"
    " volumes"
).split()


class SeedError(ValueError):
    """What is wrong with a seed that a person wrote, on one line."""


@functools.cache
def _default() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DEFAULT.read_text())
    return found


def read(seed: Seed | Path | str | None) -> dict[str, Any]:
    """The seed over the default one: what it does not name at the top level is taken from there."""
    own = seed if isinstance(seed, Mapping) or seed is None else yaml.safe_load(Path(seed).read_text())
    return copy.deepcopy({**_default(), **(own or {})})


def load(path: Path) -> dict[str, Any]:
    """A seed that a person wrote, over the default one. Whatever users it names, root has the token that the command
    prints.

    :raises SeedError: for a file that can't be read and for what no lab can hold.
    """
    try:
        own = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SeedError(f"{path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SeedError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if own is not None and not isinstance(own, dict):
        raise SeedError(f"{path} holds no dictionary; it takes {', '.join(_GROUPS)}")
    seed = read(own)
    problem = next(_problems(seed), None)
    if problem is not None:
        raise SeedError(f"{path}: {problem}")
    root = seed["users"].setdefault("root@pam", {})
    root.setdefault("tokens", {}).setdefault("test", {"privsep": False})
    return seed


def _problems(seed: Seed) -> Iterator[str]:
    yield from (f"there is no '{name}'; it takes {', '.join(_GROUPS)}" for name in seed if name not in _GROUPS)
    seen: set[int] = set()
    for number, words in enumerate(seed.get("guests") or [], 1):
        if not isinstance(words, dict) or not isinstance(words.get("vmid"), int):
            yield f"guest {number} of the list has no vmid; write vmid: {99 + number}"
            return
        vmid = words["vmid"]
        strange = (name for name in words if name not in _GUEST)
        yield from (f"guest {vmid} has no '{name}'; it takes {', '.join(_GUEST)}" for name in strange)
        if vmid in seen:
            yield f"guest {vmid} is there twice"
        seen.add(vmid)
        if words.get("node", seed["nodes"][0]) not in seed["nodes"]:
            yield f"guest {vmid} is on node '{words['node']}'; the nodes are {', '.join(seed['nodes'])}"
        yield from _unknown_storages(vmid, words, seed)


def _unknown_storages(vmid: int, words: Mapping[str, Any], seed: Seed) -> Iterator[str]:
    for group in ("config", "pending"):
        values = {key: _text(value) for key, value in (words.get(group) or {}).items() if value is not None}
        for slot, drive in drives(values, unused=True):
            storage = drive.file.partition(":")[0]
            if managed(drive.file) and storage not in seed["storages"]:
                yield f"guest {vmid}: {slot} is on storage '{storage}'; the storages are {', '.join(seed['storages'])}"


def plant(cluster: Cluster, seed: Seed) -> None:
    """Puts everything but nodes and storages into a new cluster."""
    cluster.bridges = set(seed.get("bridges", ["vmbr0"]))
    _accounts(cluster, seed)
    for name, content in seed.get("files", {}).items():
        _file(cluster, name, content)
    for words in seed.get("guests", []):
        guest = _guest(cluster, words, bool(seed.get("images", True)))
        if words.get("running"):
            run(guest)


def wake(cluster: Cluster, seed: Seed) -> None:
    """What no file keeps, at each start: which slots are stuck, what agents know, what the web holds."""
    cluster.web |= {url: _found(cluster, words) for url, words in seed.get("web", {}).items()}
    for words in seed.get("guests", []):
        guest = cluster.find(int(words["vmid"]))
        if guest is None:
            continue
        if "agent" in words:
            guest.agent = from_seed(words["agent"])
        cluster.faults.busy_slots |= {(guest.vmid, slot) for slot in words.get("busy", [])}


def run(guest: Guest) -> None:
    """Marks a guest as running with what its configuration has, whatever is pending."""
    values = guest.conf.values
    guest.running = Running(values=dict(values), drives={slot: values[slot] for slot, _ in drives(values)})


def keep_running(cluster: Cluster, path: Path) -> None:
    """Notes which guests run, for the next start. A lab that is killed loses that, as a node without power does."""
    rows = {guest.vmid: asdict(guest.running) for guest in cluster.guests() if guest.running}
    path.write_text(json.dumps(rows))


def take_up_running(cluster: Cluster, path: Path) -> None:
    """Lets the guests run that ran when the lab was stopped."""
    rows = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    for vmid, row in rows.items():
        guest = cluster.find(int(vmid))
        if guest is not None:
            guest.running = Running(**row)


def _accounts(cluster: Cluster, seed: Seed) -> None:
    access = cluster.access
    for userid, words in seed.get("users", {}).items():
        account = access.users.setdefault(userid, type(access.users["root@pam"])())
        account.password = words.get("password", account.password)
        for name, token in words.get("tokens", {}).items():
            account.tokens[name] = (token.get("secret") or str(uuid.uuid4()), bool(token.get("privsep", True)))
    for role, privileges in seed.get("roles", {}).items():
        access.roles[role] = frozenset(privileges)
    for entry in seed.get("acl", []):
        path = str(entry["path"]).rstrip("/") or "/"
        access.acl.setdefault(path, {}).setdefault(entry["to"], {})[entry["role"]] = bool(entry.get("propagate", True))
    for name, words in seed.get("pools", {}).items():
        access.pools[name] = {f"/vms/{vmid}" for vmid in words.get("guests", [])}
        access.pools[name] |= {f"/storage/{sid}" for sid in words.get("storages", [])}
    for words in seed.get("guests", []):
        if "pool" in words:
            access.pools.setdefault(words["pool"], set()).add(f"/vms/{words['vmid']}")
    access.save()


def _file(cluster: Cluster, name: str, content: Any) -> None:
    node = cluster.nodes[0]
    if name == "samples":
        for sid in content:
            make(cluster.storages(node), sid)
        return
    target = cluster.storages(node).file(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if "copy" in content:
        target.write_bytes(Path(content["copy"]).read_bytes())
    else:
        target.write_bytes(_content(content))


def _found(cluster: Cluster, words: Mapping[str, Any]) -> bytes:
    """What a URL of the seed gives."""
    return cluster.storages(cluster.nodes[0]).file(words["like"]).read_bytes() if "like" in words else _content(words)


def _content(words: Mapping[str, Any]) -> bytes:
    return str(words.get("text", "")).encode() * int(words.get("times", 1))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return ";".join(map(str, value)) if isinstance(value, list) else str(value)


def _guest(cluster: Cluster, words: Mapping[str, Any], images: bool) -> Guest:
    vmid, node = int(words["vmid"]), str(words.get("node", cluster.nodes[0]))
    values = {"scsihw": "virtio-scsi-single", "memory": "512", "smbios1": f"uuid={uuid.uuid4()}",
              "vmgenid": str(uuid.uuid4()), "meta": f"creation-qemu=10.0.13,ctime={int(time.time())}"}
    values |= {key: _text(words[key]) for key in ("name", "tags", "ostype", "lock", "protection") if key in words}
    values |= {key: _text(value) for key, value in words.get("config", {}).items() if value is not None}
    values = {key: value for key, value in values.items() if words.get("config", {}).get(key, "") is not None}
    values.setdefault("boot", print_boot(default_boot(values)))
    if "agent" in words:
        values.setdefault("agent", "1")
    if words.get("template"):
        values["template"] = "1"
    pending = {key: _text(value) for key, value in words.get("pending", {}).items()}
    conf = Conf(values, pending)
    if images:
        _volumes(cluster, node, words, conf)
        for name in words.get("snapshots", []):
            _snapshot(cluster, node, conf, name)
    return cluster.add_guest(vmid, node, render(conf))


def _volumes(cluster: Cluster, node: str, words: Mapping[str, Any], conf: Conf) -> None:
    """Makes the volumes that the configuration names and that are not there yet."""
    storages, contents = cluster.storages(node), words.get("contents", {})
    wanted = {volid: (parse_size(str(size)) or 0, b"") for volid, size in words.get("volumes", {}).items()}
    for values in (conf.values, conf.pending):
        for slot, drive in drives(values, unused=True):
            if managed(drive.file):
                size = drive.size or (parse_size("1G") or 0 if UNUSED.fullmatch(slot) else parse_size("4M") or 0)
                wanted.setdefault(drive.file, (size, str(contents.get(slot, "")).encode()))
    for volid, (size, content) in wanted.items():
        if storages.parse_volname(volid).vtype == "images" and not storages.exists(volid):
            storages.adopt(volid, size, content or None)


def _snapshot(cluster: Cluster, node: str, conf: Conf, name: str) -> None:
    kept = {key: value for key, value in conf.values.items() if key != "lock" and not UNUSED.fullmatch(key)}
    for _, drive in drives(conf.values):
        if not drive.is_cdrom:
            cluster.storages(node).snapshot(drive.file, name, lambda _: None)
    conf.snapshots[name] = {**kept, "snaptime": str(int(time.time()))}
    conf.values["parent"] = name
