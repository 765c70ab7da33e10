# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node or a storage that does not answer is no reason to say nothing about the others."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.guest_disks_info import GuestDisksInfo
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.reads import Cluster
from unit._pve.conftest import Connect, Serve
from unit._pve.servers import Reply, Request

ALL: dict[str, Any] = {"vmid": None, "name": None, "node": None, "pool": None, "tag": None}
SILENT = Reply(status=500, reason="got timeout", raw=b"")
ANSWERS = {
    "/cluster/resources": [
        {"type": "qemu", "vmid": 100, "node": "pve1", "name": "web1", "status": "running"},
        {"type": "qemu", "vmid": 101, "node": "pve2", "name": "web2", "status": "unknown"},
    ],
    "/nodes": [{"node": "pve1", "status": "online"}, {"node": "pve2", "status": "online"}],
    "/nodes/pve1/qemu": [{"vmid": 102, "name": "new1", "status": "stopped"}],
    "/nodes/pve1/qemu/100/pending": [
        {"key": "parent", "value": "before"},
        {"key": "scsi0", "value": "local:100/vm-100-disk-0.raw,cache=unsafe,size=8M"},
        {"key": "unused0", "value": "local:100/vm-100-disk-1.raw"},
    ],
    "/nodes/pve1/storage": [{"storage": "local", "type": "dir", "content": "images"}],
    "/version": {"version": "9.2.11"},
}


def answer(request: Request) -> Reply:
    path = request.path.partition("?")[0].removeprefix("/api2/json")
    return Reply(ANSWERS[path]) if path in ANSWERS else SILENT


def test_everything_else_is_read(serve: Serve, connect: Connect) -> None:
    client = connect(serve(answer).port)
    gather = ["guests", "snapshots", "storages"]
    work = GuestDisksInfo(client, {**ALL, "gather": gather, "policy": "current", "policy_rules": [], "facts": {}})
    work.prepare()
    result = work.result(executed=False)
    web1, web2 = result.data["guests"]
    assert "scsi0" in web1["drives"]
    assert "snapshots" not in web1
    assert "got timeout" in web2["error"]
    assert [row["storage"] for row in result.data["storages"]["pve1"]] == ["local"]
    assert result.data["storages"]["pve2"] == []
    assert {finding["slot"] for finding in result.data["findings"]} >= {"scsi0"}
    assert [text.partition(": ")[0] for text in result.warnings] == [
        "web1 (100 on pve1)",
        "web2 (101 on pve2)",
        "pve2",
    ]


def test_a_guest_is_looked_for_on_the_nodes_that_answer(serve: Serve, connect: Connect) -> None:
    cluster = Cluster(connect(serve(answer).port))
    assert cluster.find(Layout(vmid=102)).node == "pve1"
    with pytest.raises(DiskwrightError, match="there is no such guest"):
        cluster.find(Layout(vmid=103))
