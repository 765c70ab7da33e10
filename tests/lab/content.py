# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage calls: definitions, status, content. After pve-storage 9.1.7, API2/Storage/{Config,Status,Content}.pm."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from lab.api import ApiError, Call, Route, TaskLog, bad
from lab.images import GIB, KIB
from lab.storages import Storages
from lab.terms import StorageError, Volname, VolumeInfo

UNITS = {"": KIB, "M": KIB * KIB, "G": GIB}
READ = ("Datastore.Audit", "Datastore.AllocateSpace")
FORMATS = {"iso": "iso"}
"""Content types whose rows do not show the file's own format."""


# ---- who may see what


def visible(call: Call, sid: str) -> bool:
    """Whether a storage appears in the caller's lists."""
    return any(call.allowed(f"/storage/{sid}", privilege) for privilege in READ)


def check_volume(call: Call, name: Volname, volid: str) -> None:
    """Read access to a volume for somebody who names it without its guest (check_volume_access)."""
    path = f"/storage/{name.storage}"
    if call.allowed(path, "Datastore.Allocate"):
        return
    if name.vtype in ("iso", "vztmpl", "import"):
        call.check(path, "Datastore.AllocateSpace", "Datastore.Audit", any_of=True)
    elif name.vtype in ("images", "rootdir") and name.owner:
        call.check(path, "Datastore.Audit")
        call.check(f"/vms/{name.owner}", "VM.Config.Disk")
    else:
        raise ApiError(f"missing privileges to access {volid}")


# ---- definitions


def _definition(storages: Storages, sid: str) -> dict[str, Any]:
    everything = {name: storages.config(name) for name in sorted(storages.definitions)}
    digest = hashlib.sha1(json.dumps(everything, default=str).encode(), usedforsecurity=False).hexdigest()
    return {**storages.config(sid), "storage": sid, "digest": digest}


def _any_node(call: Call) -> Storages:
    """storage.cfg is the cluster's: any node's view has all of it."""
    return call.cluster.storages(call.cluster.nodes[0])


def _definitions(call: Call) -> list[dict[str, Any]]:
    storages = _any_node(call)
    return [_definition(storages, sid) for sid in sorted(storages.definitions) if visible(call, sid)
            and call.values.get("type") in (None, storages.get(sid)["type"])]


def _one_definition(call: Call) -> dict[str, Any]:
    storages = _any_node(call)
    storages.get(str(call.values["storage"]))
    return _definition(storages, str(call.values["storage"]))


# ---- status


def _status_of(storages: Storages, sid: str) -> dict[str, Any]:
    config = storages.get(sid)
    total, used, left = storages.space(sid)
    return {"type": config["type"], "content": config["content"], "shared": int(bool(config.get("shared"))),
            "enabled": int(storages.enabled(sid)), "active": int(storages.active(sid)), "total": total, "used": used,
            "avail": left}


def _formats_of(storages: Storages, sid: str) -> dict[str, Any]:
    default, supported = storages.formats(sid)
    return {"formats": {"default": default, "supported": sorted(supported)},
            "format": [dict.fromkeys(sorted(supported), 1), default]}


def _row(call: Call, sid: str) -> dict[str, Any]:
    """One storage of GET /nodes/{node}/storage."""
    storages = call.storages
    row = {**_status_of(storages, sid), "storage": sid}
    if call.values.get("format") and row["enabled"]:
        row |= _formats_of(storages, sid)
    if row["total"]:
        # Perl shows a quotient without remainder as an integer
        row["used_fraction"] = row["used"] / row["total"] if row["used"] % row["total"] else 0
    return row


def _wanted(call: Call, sid: str) -> bool:
    """The filters of GET /nodes/{node}/storage."""
    storages, values = call.storages, call.values
    contents = [c for c in re.split(r"[,; ]+", str(values.get("content") or "")) if c]
    if contents and not (storages.enabled(sid) and set(contents) & set(storages.content_types(sid))):
        return False
    if values.get("enabled") and storages.get(sid).get("disable"):
        return False
    target = values.get("target")
    if target and target != call.node:
        shared = storages.get(sid).get("shared") and storages.enabled(sid)
        return bool(shared and call.cluster.storages(str(target)).enabled(sid))
    return True


def _node_storages(call: Call) -> list[dict[str, Any]]:
    only = call.values.get("storage")
    if only and only not in call.storages.definitions:
        raise bad(storage="No such storage.")
    return [_row(call, sid) for sid in sorted(call.storages.definitions)
            if only in (None, sid) and visible(call, sid) and _wanted(call, sid)]


def _status(call: Call) -> dict[str, Any]:
    if call.values["storage"] not in call.storages.definitions:
        raise bad(storage="No such storage.")
    return _status_of(call.storages, str(call.values["storage"]))


def resource_rows(call: Call) -> list[dict[str, Any]]:
    """The storages in GET /cluster/resources, once for each node that has them."""
    rows = []
    for node in call.cluster.nodes:
        storages = call.cluster.storages(node)
        for sid in sorted(storages.definitions):
            if not storages.enabled(sid) or not visible(call, sid):
                continue
            config, (total, used, _) = storages.get(sid), storages.space(sid)
            rows.append({"id": f"storage/{node}/{sid}", "type": "storage", "node": node, "storage": sid,
                         "status": "available" if storages.active(sid) else "unknown", "plugintype": config["type"],
                         "content": config["content"], "shared": int(bool(config.get("shared"))), "disk": used,
                         "maxdisk": total})
    return rows


# ---- content


def _image_row(storages: Storages, info: VolumeInfo) -> dict[str, Any]:
    row: dict[str, Any] = {"volid": info.volid, "content": "images", "format": info.format, "size": info.size,
                           "vmid": info.owner}
    if info.ctime is not None:
        row["ctime"] = info.ctime
    if storages.file_based(info.volid.partition(":")[0]):
        row |= {"used": info.used, "parent": info.parent}
    elif info.parent:
        row["parent"] = info.parent
    return row


def _file_row(info: VolumeInfo, vtype: str) -> dict[str, Any]:
    return {"volid": info.volid, "content": vtype, "format": FORMATS.get(vtype, info.format), "size": info.size,
            "ctime": info.ctime}


def _content(call: Call) -> list[dict[str, Any]]:
    storages, sid, vmid = call.storages, str(call.values["storage"]), call.values.get("vmid")
    storages.backend(sid)
    wanted, rows = call.values.get("content"), []
    for vtype in storages.content_types(sid):
        if wanted not in (None, vtype):
            continue
        if vtype == "images":
            rows += [_image_row(storages, info) for info in storages.list(sid, None if vmid is None else int(vmid))]
        elif vtype in ("import", "snippets") or vmid is None:
            rows += [_file_row(info, vtype) for info in storages.files(sid, vtype)]
    return sorted((row for row in rows if _may_read(call, row["volid"])), key=lambda row: str(row["volid"]).lower())


def _may_read(call: Call, volid: str) -> bool:
    try:
        check_volume(call, call.storages.parse_volname(volid), volid)
    except (ApiError, StorageError):
        return False
    return True


def _alloc(call: Call) -> str:
    values = call.values
    name, fmt = str(values["filename"]), values.get("format")
    number, unit = re.fullmatch(r"(\d+)([MG]?)", str(values["size"])).groups()  # type: ignore[union-attr]
    if found := re.search(r"\.(raw|qcow2|vmdk)$", name):
        if fmt and fmt != found[1]:
            raise bad(format=f"different storage formats ({fmt} != {found[1]})")
        fmt = found[1]
    return call.storages.alloc(str(values["storage"]), int(values["vmid"]), fmt, name, int(number) * UNITS[unit],
                               lambda _: None)


def volume_of(call: Call) -> str:
    """The volume id that the path names, with the storage or without it."""
    sid, volume = str(call.values["storage"]), str(call.values["volume"])
    if ":" not in volume:
        return f"{sid}:{volume}"
    try:
        named, _ = call.storages.parse_volid(volume)
    except StorageError as error:
        raise bad(volume=f"{error.message}\n") from error
    if named != sid:
        raise bad(volume=f"storage ID mismatch ({named} != {sid})\n")
    return volume


def _info(call: Call) -> dict[str, Any]:
    volid = volume_of(call)
    storages = call.storages
    name = storages.parse_volname(volid)
    check_volume(call, name, volid)
    size, fmt, used = storages.size_info(volid)
    if not size:
        raise ApiError(f"volume '{volid}' has size zero")
    return {"path": storages.shown_path(volid), "size": size, "used": used, "format": fmt}


def _delete(call: Call) -> str | None:
    volid = volume_of(call)
    name = call.storages.parse_volname(volid)
    call.check(f"/storage/{name.storage}", "Datastore.Allocate")

    def work(log: TaskLog) -> None:
        call.storages.free(volid, log)
        log(f"Removed volume '{volid}'")

    upid = call.task("imgdel", f"{name.owner}@{name.storage}" if name.owner else name.storage, work)
    delay = float(call.values.get("delay", 0))
    if not delay or call.cluster.faults.task_seconds.get("imgdel", 0) >= delay:
        return upid
    ended = call.cluster.tasks.wait(upid)
    if ended != "OK":
        raise ApiError(ended)
    return None


NODE = "/nodes/{node}/storage"
CONTENT = NODE + "/{storage}/content"
ROUTES = [
    Route("GET", "/storage", _definitions),
    Route("GET", "/storage/{storage}", _one_definition),
    Route("GET", NODE, _node_storages),
    Route("GET", NODE + "/{storage}/status", _status),
    Route("GET", CONTENT, _content),
    Route("POST", CONTENT, _alloc),
    Route("GET", CONTENT + "/{volume}", _info),
    Route("DELETE", CONTENT + "/{volume}", _delete),
]
