# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts: read from people and from the cluster, and what follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import TABLE as STORAGE_TYPES
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.storage import Storage
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import (
    FACTS,
    SECTIONS,
    Kind,
    guest_facts,
    read_facts,
    storage_facts,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.rules import CONSTRAINTS, POLICIES
from unit._core.planning import make_guest

#: Facts that are there for a site's own rules.
FOR_SITES = {
    "guest.running",
    "guest.agent",
    "guest.machine",
    "storage.name",
    "storage.linked_clone_formats",
    "storage.write_cache_protected",
    "storage.shared",
    "storage.pve_version",
    "measurements.equal_buses",
    "measurements.equal_caches",
    "measurements.equal_aios",
}


def test_every_fact_is_described_and_looked_at_or_there_for_sites() -> None:
    rules = [rule for table in (*POLICIES.values(), CONSTRAINTS) for rule in table]
    looked_at = {path for rule in rules for path in (*rule.condition.literals, *rule.told)}
    assert set(FACTS) - looked_at == FOR_SITES
    for fact in FACTS.values():
        assert fact.about and fact.origin and fact.unknown
        assert (fact.kind is Kind.CHOICE) <= bool(fact.choices)
        assert fact.path.partition(".")[0] in SECTIONS


def test_nothing_said_is_nothing_known() -> None:
    assert set(read_facts(None).values) == set(read_facts({"guest": None, "need": {}}).values) == {None}


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("guest.os_family", "linux", "linux"),
        ("guest.os_family", "unknown", None),
        ("guest.os_family", "", None),
        ("guest.virtio_drivers", True, "all"),
        ("guest.virtio_drivers", False, "none"),
        ("need.snapshots", "yes", True),
        ("need.snapshots", 0, False),
        ("need.snapshots", "unknown", None),
        ("guest.machine_version", "9.2+pve1", 9.2),
        ("guest.machine_version", 10, 10.0),
        ("storage.pve_version", "9.2.11", 9.2),
        ("storage.pve_version", "8.10", 8.9),
        ("storage.formats", "raw", ("raw",)),
        ("storage.formats", ["raw", "qcow2"], ("raw", "qcow2")),
        ("storage.name", "tank", "tank"),
    ],
)
def test_values_as_people_write_them(path: str, value: object, read: object) -> None:
    section, _dot, name = path.partition(".")
    assert read_facts({section: {name: value}}).get(path) == read


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"guest": {"os_famly": "linux"}}, "there is no fact 'guest.os_famly', did you mean 'guest.os_family'?"),
        ({"need": {"medium": "ssd"}}, "there is no fact 'need.medium', did you mean 'storage.medium'?"),
        ({"need": {"zzz": 1}}, "there is no fact 'need.zzz'; need has workload, snapshots"),
        ({"guset": {}}, "'guset' is no group of facts; there are guest, storage, need, team, measurements, did"),
        ({"workload": "database"}, "measurements, did you mean 'need.workload'?"),
        ({"guest": "linux"}, "guest: 'linux' is no dictionary; write for example guest: {os_family: linux}"),
        ({"guest": {"os_family": "Linux"}}, "guest.os_family: 'Linux' is not allowed; write one of linux, windows"),
        ({"need": {"snapshots": "maybe"}}, "need.snapshots: 'maybe' is not allowed; write true or false"),
        ({"guest": {"machine_version": "new"}}, "'new' is not allowed; write a version such as 9.2"),
        ({"team": {"formats": ["raw", "vhd"]}}, "is not allowed; write a list of raw, qcow2, vmdk"),
        ({"team": {"formats": 7}}, "team.formats: '7' is not allowed"),
        ({"storage": {"type": "zfs-pool"}}, "did you mean 'zfspool'?"),
        ("linux", "facts are a dictionary of guest, storage, need, team, measurements, not 'linux'"),
    ],
)
def test_what_is_wrong_with_facts_is_said(data: Any, said: str) -> None:
    with pytest.raises(ParseError) as caught:
        read_facts(data)
    assert said in str(caught.value)


def test_all_that_is_wrong_is_reported_together() -> None:
    with pytest.raises(ParseError) as caught:
        read_facts({"guest": {"os": "linux"}, "need": {"workload": "web"}, "storage": {"medium": "tape"}})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(("release", "family"), [("l26", "linux"), ("win11", "windows"), ("w2k3", "windows")])
def test_the_release_tells_the_family(release: str, family: str) -> None:
    assert read_facts({"guest": {"os_release": release}}).get("guest.os_family") == family


def test_linux_has_its_drivers_unless_it_comes_from_elsewhere() -> None:
    def drivers(**guest: object) -> object:
        return read_facts({"guest": guest}).get("guest.virtio_drivers")

    assert drivers(os_family="linux") == drivers(os_release="l26") == "all"
    assert drivers(os_family="linux", os_release="other") == "all"
    assert drivers(os_release="l26", virtio_drivers="none") == "none"
    assert drivers(os_release="l26", stage="migrated") is None
    assert drivers(os_release="l24") is drivers(os_release="win10") is None


@pytest.mark.parametrize("name", FACTS["storage.type"].choices)
def test_the_storage_type_tells_what_the_core_knows_of_it(name: str) -> None:
    facts, row = read_facts({"storage": {"type": name}}), STORAGE_TYPES[name]
    assert facts.get("storage.level") == row.level
    assert facts.get("storage.formats") == row.formats
    assert facts.get("storage.snapshot_formats") == row.snapshots
    assert facts.get("storage.thin") == row.thin
    assert facts.get("storage.cow_below") is (True if name in ("zfspool", "zfs", "btrfs") else None)


def test_chains_add_qcow2_and_its_snapshots() -> None:
    facts = read_facts({"storage": {"type": "lvm", "chains": True}})
    assert facts.get("storage.formats") == ("raw", "qcow2")
    assert facts.get("storage.snapshot_formats") == ("qcow2",)


def test_the_users_word_goes_before_the_clusters() -> None:
    cluster = {"guest": {"os_family": "other", "running": True}, "storage": {"type": "dir"}}
    facts = read_facts({"guest": {"os_family": "bsd"}, "storage": {"type": None}}, cluster)
    assert facts.get("guest.os_family") == "bsd"
    assert facts.get("guest.running") is True
    assert facts.get("storage.type") == "dir"


def test_facts_are_written_as_they_are_read() -> None:
    facts = read_facts({"guest": {"os_family": "linux"}, "storage": {"type": "lvmthin"}, "team": {"formats": ["raw"]}})
    assert read_facts(facts.nested()) == facts
    assert len({facts, read_facts(facts.nested())}) == 1


# ---- from the cluster

LINUX = {"scsihw": "virtio-scsi-single", "scsi0": "local-lvm:vm-100-disk-0,size=1G", "boot": "order=scsi0;net0"}


def test_what_the_cluster_knows_of_a_linux() -> None:
    facts = guest_facts(make_guest(LINUX), "l26", "pc-q35-9.2+pve1", "ovmf", "1,fstrim_cloned_disks=1")
    assert facts == {
        "os_release": "l26",
        "firmware": "ovmf",
        "machine": "q35",
        "machine_version": "9.2",
        "running": False,
        "agent": True,
    }


@pytest.mark.parametrize(
    ("agent", "enabled"),
    [(None, False), ("1", True), ("0", False), ("enabled=1,type=isa", True), ("enabled=0", False)],
)
def test_agent(agent: str | None, enabled: bool) -> None:
    assert guest_facts(make_guest(LINUX), "l26", agent=agent)["agent"] is enabled


def test_what_is_not_configured_is_pves_default() -> None:
    facts = guest_facts(make_guest({}))
    assert facts == {
        "os_release": "other",
        "firmware": "seabios",
        "machine": "i440fx",
        "running": False,
        "agent": False,
    }


@pytest.mark.parametrize(
    ("config", "driver"),
    [
        (LINUX, "scsi"),
        ({**LINUX, "scsihw": "virtio-scsi-pci"}, "scsi"),
        ({**LINUX, "scsihw": "lsi"}, None),
        ({"scsi0": LINUX["scsi0"], "boot": "order=scsi0"}, None),
        ({"virtio0": "local-lvm:vm-100-disk-0,size=1G", "boot": "order=net0;virtio0"}, "block"),
        ({"sata0": "local-lvm:vm-100-disk-0,size=1G", "virtio0": "l:vm-100-disk-1", "boot": "order=sata0"}, None),
        ({"virtio0": "local-lvm:vm-100-disk-0,size=1G"}, None),
        ({"ide2": "none,media=cdrom", **LINUX, "boot": "order=ide2;scsi0"}, "scsi"),
    ],
)
def test_a_windows_has_the_driver_that_it_boots_with(config: dict[str, str], driver: str | None) -> None:
    assert guest_facts(make_guest(config), "win10").get("virtio_drivers") == driver


def test_what_the_cluster_knows_of_storages() -> None:
    images = frozenset({"images"})
    chained = Storage("san", "lvm", images, ("raw", "qcow2"), shared=True)
    assert storage_facts(chained, "9.2.11") == {
        "name": "san",
        "type": "lvm",
        "shared": True,
        "formats": ("raw", "qcow2"),
        "chains": True,
        "pve_version": "9.2.11",
    }
    facts = read_facts({}, {"storage": storage_facts(Storage("tank", "zfspool", images, ("raw", "subvol")))})
    assert facts.get("storage.formats") == ("raw",)
    assert facts.get("storage.chains") is False
    strange = storage_facts(Storage("x", "vendor", images, ("raw",)))
    assert strange == {"name": "x", "shared": False, "formats": ("raw",)}
