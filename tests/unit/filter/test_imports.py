# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From images and OVFs to guests: which guest, which slot, which format, which card, and what is against it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.diskwright.proxmox.plugins.filter.imports import FilterModule
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.definition import OSTYPES, read_definition
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import read_layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.orders import Order
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.import_guest import label_of
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.import_sources import Image
from hypothesis import given, settings
from hypothesis import strategies as st

FILTERS = FilterModule().filters()
GIB = 1024**3
PRINT = "0123456789abcdef" * 4


def storage(name: str, type_: str, *formats: str, **other: Any) -> dict[str, Any]:
    base = {"storage": name, "type": type_, "content": ["images", "import"], "formats": list(formats)}
    return {**base, "shared": False, "enabled": True, "active": True, "available": GIB, "total": GIB, **other}


STORAGES = [
    storage("local", "dir", "raw", "qcow2", "vmdk"),
    storage("local-lvm", "lvmthin", "raw"),
    storage("nas", "nfs", "raw", "qcow2", "vmdk", shared=True),
    storage("iso", "dir", "raw", content=["iso"]),
    storage("down", "nfs", "raw", active=False),
]


def image(path: str = "/in/web1/web1.vmdk", member: str = "", size: int = GIB, **other: Any) -> dict[str, Any]:
    facts = {"format": "vmdk", "subformat": "monolithicSparse", "virtual_size": size, "fingerprint": PRINT}
    return {"path": path, "member": member, **facts, "files": [path], "chain": [path], "refused": None, **other}


def refused(path: str) -> dict[str, Any]:
    return image(path, refused={"code": "extent-truncated", "reason": "it is too short; copy it again"})


def machine(*disks: str, path: str = "/in/web1.ova", **other: Any) -> dict[str, Any]:
    facts = {"name": "Web Server 1", "memory": 2048, "cores": 2, "sockets": 1, "firmware": "bios", "ostype": "l26"}
    return {"path": path, **facts, "disks": [{"member": name} for name in disks], "nics": [], "warnings": [], **other}


def ova(*disks: str, path: str = "/in/web1.ova", **other: Any) -> dict[str, Any]:
    images = [image(path, name, fingerprint=f"{number}" * 64) for number, name in enumerate(disks)]
    return {"images": images, "machines": [machine(*disks, path=path, **other)]}


def guest(vmid: int, name: str, config: dict[str, str] | None = None, **other: Any) -> dict[str, Any]:
    base = {"vmid": vmid, "name": name, "node": "pve1", "status": "stopped", "lock": None, "config": config or {}}
    return {**base, **other}


def sources(*given: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = FILTERS["import_sources"](list(given), ["pve1"], "pve1", **options)
    return found


def plan(
    source: dict[str, Any],
    found: dict[str, Any],
    *guests: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    mine = sources({"path": "/in/web1", **source}, defaults={"storage": "local-lvm", "memory": 512, **(defaults or {})})
    cluster = {"guests": list(guests), "storages": {"pve1": STORAGES}}
    made: dict[str, Any] = FILTERS["import_plan"](mine, cluster, "pve1", [found], **options)
    return made


def one(source: dict[str, Any], found: dict[str, Any], *guests: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The only guest of a plan that nothing is against."""
    made = plan(source, found, *guests, **options)
    assert made["refused"] == []
    (only,) = made["guests"]
    return dict(only)


def codes(source: dict[str, Any], found: dict[str, Any], *guests: dict[str, Any], **options: Any) -> list[str]:
    return [row["code"] for one in plan(source, found, *guests, **options)["guests"] for row in one["refused"]]


def slots(planned: dict[str, Any]) -> dict[str, str]:
    return {disk["file"]: disk["slot"] for disk in planned["disks"]}


# ---- the bus


def test_linux_goes_to_virtio_scsi_single_at_once() -> None:
    web = one({}, ova("a.vmdk", "b.vmdk"))
    assert slots(web) == {"a.vmdk": "scsi0", "b.vmdk": "scsi1"}
    assert (web["scsihw"], web["boot"]) == ("virtio-scsi-single", ["scsi0"])
    assert web["disks"][0]["options"]["iothread"] is True
    assert "linux-migrated" in web["disks"][0]["rules"]
    assert web["definition"]["scsihw"] == "virtio-scsi-single"


@pytest.mark.parametrize("ostype", ["win7", "win8", "win10", "win11"])
def test_windows_goes_to_sata0(ostype: str) -> None:
    windows = one({}, ova("a.vmdk", "b.vmdk", ostype=ostype))
    assert slots(windows) == {"a.vmdk": "sata0", "b.vmdk": "sata1"}
    assert windows["boot"] == ["sata0"]
    assert "windows-migrated" in windows["disks"][0]["rules"]
    assert "iothread" not in windows["disks"][0]["options"]


def test_windows_that_has_the_drivers_goes_to_scsi0() -> None:
    windows = one({"virtio_drivers": "all"}, ova("a.vmdk", ostype="win10"))
    assert (slots(windows), windows["scsihw"]) == ({"a.vmdk": "scsi0"}, "virtio-scsi-single")


def test_windows_xp_knows_no_sata() -> None:
    assert slots(one({}, ova("a.vmdk", ostype="wxp"))) == {"a.vmdk": "ide0"}


def test_what_nobody_knows_goes_to_sata_and_says_so() -> None:
    unknown = one({"name": "box"}, {"images": [image()]})
    assert slots(unknown) == {"web1.vmdk": "sata0"}
    assert any("write ostype" in text for text in unknown["warnings"])


def test_a_full_bus_goes_on_with_scsi_and_says_so() -> None:
    windows = one({}, ova(*(f"{letter}.vmdk" for letter in "abcdefgh"), ostype="win10"))
    assert [disk["slot"] for disk in windows["disks"]] == [*(f"sata{n}" for n in range(6)), "scsi0", "scsi1"]
    assert windows["warnings"][0] == (
        "g.vmdk goes to scsi0, since sata is full: the guest sees it once it has the driver"
    )


def test_the_user_places_a_disk() -> None:
    words = {"disks": {"b.vmdk": {"slot": "scsi5", "storage": "local", "format": "qcow2", "cache": "writeback"}}}
    web = one(words, ova("a.vmdk", "b.vmdk"))
    assert slots(web) == {"a.vmdk": "scsi0", "b.vmdk": "scsi5"}
    assert (web["disks"][1]["storage"], web["disks"][1]["format"]) == ("local", "qcow2")
    assert web["disks"][1]["options"]["cache"] == "writeback"


def test_a_disk_is_left_out() -> None:
    assert slots(one({"disks": {"a.vmdk": {"skip": True}}}, ova("a.vmdk", "b.vmdk"))) == {"b.vmdk": "scsi0"}


def test_the_order_is_that_of_controllers_and_addresses() -> None:
    found = ova("a.vmdk", "b.vmdk", "c.vmdk", "d.vmdk")
    places = [("scsi", 1, 0), ("scsi", 0, 10), ("scsi", 0, 2), ("ide", 0, 0)]
    for disk, (kind, index, address) in zip(found["machines"][0]["disks"], places, strict=True):
        disk |= {"controller": kind, "controller_index": index, "address": address}
    assert slots(one({}, found)) == {"c.vmdk": "scsi0", "b.vmdk": "scsi1", "a.vmdk": "scsi2", "d.vmdk": "scsi3"}


def test_two_guests_in_one_archive_have_their_own_disks() -> None:
    found = ova("a.vmdk", "b.vmdk")
    found["machines"] = [machine("a.vmdk", name="one"), machine("b.vmdk", name="two")]
    assert [(row["key"], *slots(row)) for row in plan({}, found)["guests"]] == [("one", "a.vmdk"), ("two", "b.vmdk")]


def test_empty_disks_are_mentioned() -> None:
    found = ova("a.vmdk")
    found["machines"][0]["disks"].append({"member": ""})
    assert "1 of its disks are empty, and are not made; declare them with guest_disks" in one({}, found)["warnings"]


def test_format_follows_need_and_storage() -> None:
    assert one({"storage": "local"}, ova("a.vmdk"))["disks"][0]["format"] == "qcow2"
    assert one({"storage": "local", "need": {"workload": "database"}}, ova("a.vmdk"))["disks"][0]["format"] == "raw"
    assert one({}, ova("a.vmdk"))["disks"][0]["format"] == "raw"


def test_rules_of_the_site() -> None:
    rules = [{"id": "ours", "when": True, "sets": {"cache": "writeback"}, "because": "We say so."}]
    disk = one({}, ova("a.vmdk"), rules=rules)["disks"][0]
    assert disk["options"]["cache"] == "writeback"
    assert "ours" in disk["rules"]


# ---- the guest


def test_the_guest_is_as_the_ovf_says() -> None:
    found = ova("a.vmdk", nics=[{"network": "VM Network"}, {"network": "Storage"}])
    web = one({"networks": {"VM Network": {"bridge": "vmbr1", "tag": 12}}}, found)
    assert (web["new"], web["vmid"], web["key"]) == (True, None, "Web-Server-1")
    assert web["definition"] == {
        "node": "pve1",
        "name": "Web-Server-1",
        "memory": 2048,
        "cores": 2,
        "sockets": 1,
        "ostype": "l26",
        "bios": "seabios",
        "cpu": "x86-64-v2-AES",
        "scsihw": "virtio-scsi-single",
        "net": [
            {"slot": "net0", "model": "virtio", "bridge": "vmbr1", "tag": 12},
            {"slot": "net1", "model": "virtio", "link_down": True},
        ],
    }
    assert web["warnings"] == ["net1 is not connected: networks does not say what 'Storage' is here"]


def test_the_user_comes_before_the_ovf_and_the_ovf_before_the_defaults() -> None:
    web = one({"memory": 4096}, ova("a.vmdk"), defaults={"memory": 256, "cores": 8, "tags": ["moved"]})
    assert (web["definition"]["memory"], web["definition"]["cores"], web["definition"]["tags"]) == (4096, 2, ["moved"])


def test_a_network_for_all() -> None:
    web = one({"networks": {"*": "vmbr0"}}, ova("a.vmdk", ostype="win10", nics=[{"network": "x"}]))
    assert web["definition"]["net"] == [{"slot": "net0", "model": "e1000", "bridge": "vmbr0"}]


def test_uefi_gets_an_efi_disk_and_a_machine_for_it() -> None:
    web = one({}, ova("a.vmdk", firmware="efi", secure_boot=True))
    assert (web["definition"]["bios"], web["definition"]["machine"]) == ("ovmf", "q35")
    assert web["firmware"] == [
        {"slot": "efidisk0", "storage": "local-lvm", "efitype": "4m", "pre_enrolled_keys": True}
    ]
    assert one({"tpm": True}, ova("a.vmdk"))["firmware"] == [
        {"slot": "tpmstate0", "storage": "local-lvm", "version": "v2.0"}
    ]


def test_a_folder_of_ovas_is_many_guests() -> None:
    first, second = ova("a.vmdk", path="/in/x.ova"), ova("a.vmdk", path="/in/y.ova", name="db1")
    found = {key: first[key] + second[key] for key in first}
    assert [guest["key"] for guest in plan({}, found)["guests"]] == ["Web-Server-1", "db1"]


def test_a_folder_of_folders_is_a_guest_each() -> None:
    found = {"images": [image("/in/web1/x.vmdk"), image("/in/db1/x.vmdk"), image("/in/db1/x_1.vmdk")]}
    made = plan({"path": "/in"}, found)["guests"]
    assert {guest["key"]: len(guest["disks"]) for guest in made} == {"db1": 2, "web1": 1}


# ---- a guest that is there

OURS = "local-lvm:vm-120-web1-01234567,size=1G"


def test_a_guest_that_has_everything_is_left_alone() -> None:
    made = plan({"vmid": 120}, {"images": [image()]}, guest(120, "web1", {"scsi3": OURS, "scsihw": "lsi"}))
    (web,) = made["guests"]
    assert (web["todo"], made["lines"], made["refused"]) == (False, [], [])
    assert (slots(web), web["boot"]) == ({"web1.vmdk": "scsi3"}, None)


def test_the_rest_of_an_import_that_was_cut_short() -> None:
    images = [image(), image("/in/web1/web1_1.vmdk", fingerprint="f" * 64)]
    web = one({"name": "web1", "ostype": "l26"}, {"images": images}, guest(120, "web1", {"scsi0": OURS}))
    assert [(disk["slot"], disk["attached"]) for disk in web["disks"]] == [("scsi0", True), ("scsi1", False)]
    assert (web["new"], web["vmid"], web["boot"], web["todo"]) == (False, 120, None, True)


def test_an_empty_guest_of_the_name_is_taken_for_one_of_ours() -> None:
    empty = guest(120, "web1", {"ide2": "none,media=cdrom"})
    web = one({"name": "web1", "ostype": "l26"}, {"images": [image()]}, empty)
    assert (web["new"], slots(web), web["boot"]) == (False, {"web1.vmdk": "scsi0"}, ["scsi0"])


def test_disks_are_added_to_a_guest_that_is_named_by_number() -> None:
    there = guest(120, "db", {"scsi0": "local:120/vm-120-disk-0.raw,size=1G", "scsihw": "virtio-scsi-pci"})
    web = one({"vmid": 120, "ostype": "l26", "virtio_drivers": "all"}, {"images": [image()]}, there)
    assert (slots(web), web["boot"], web["scsihw"], web["firmware"]) == ({"web1.vmdk": "scsi1"}, None, None, [])




@settings(deadline=None)
@given(st.text(max_size=60))
def test_labels_are_those_of_conversions(name: str) -> None:
    assert label_of(Image("/in/x.ova", member=name)) == Order("/in/x.ova", member=name).label or not name


# ---- what is against it


@pytest.mark.parametrize(
    ("source", "found", "code", "reason"),
    [
        ({}, {"failed": True, "msg": "/in/web1: no such file"}, "not-inspected", "no such file"),
        ({}, {"images": [], "machines": []}, "no-image", "correct the path"),
        ({}, {"images": [refused("/in/web1/web1.vmdk")]}, "extent-truncated", "web1.vmdk: it is too short; copy it"),
        ({}, {"images": [image(snapshots=["a-000002.vmdk"])]}, "snapshot-later", "web1.vmdk: a-000002.vmdk beside it"),
        ({"storage": "nosuch"}, ova("a.vmdk"), "storage-unusable", "write one of local, local-lvm, nas"),
        ({"storage": "iso"}, ova("a.vmdk"), "storage-unusable", "holds no disks on pve1"),
        ({"storage": "down"}, ova("a.vmdk"), "storage-unusable", "is not active on pve1"),
        ({"format": "qcow2"}, ova("a.vmdk"), "not-possible", "format=qcow2: The storage can't hold qcow2"),
        ({"storage": "local", "format": "vmdk"}, ova("a.vmdk"), "format-not-made", "raw or qcow2; write one of them"),
        ({"disks": {"a.vmdk": {"slot": "scsi31"}}}, ova("a.vmdk"), "not-understood", "scsi has scsi0 to scsi30"),
        ({"disks": {"a.vmdk": {"size": "1M"}}}, ova("a.vmdk"), "size-too-small", "the disk has 1 GiB"),
        ({"disks": {"a.vmdk": {"size": "x"}}}, ova("a.vmdk"), "size-not-understood", "size 'x' is not understood"),
        ({"create": False}, ova("a.vmdk"), "guest-missing", "make it, or leave create out"),
        ({"name": "a_b"}, ova("a.vmdk"), "not-understood", "a guest's name is letters, digits and hyphens"),
        ({"need": {"workload": "x"}}, ova("a.vmdk"), "not-understood", "need.workload: 'x' is not allowed"),
    ],
)
def test_refusals(source: dict[str, Any], found: dict[str, Any], code: str, reason: str) -> None:
    made = plan(source, found)
    assert code in codes(source, found)
    assert any(reason in text and text.endswith(f"({code})") for text in made["refused"]), made["refused"]
    assert not any(guest["todo"] for guest in made["guests"])


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        (
            {"disks": {"a.vmdk": {"slot": "scsi99", "cach": "none", "size": "1M", "aio": "foo", "ssd": "maybe"}}},
            [
                "a.vmdk: cach: there is no such option; did you mean cache? (not-understood)",
                "a.vmdk: slot 'scsi99' does not exist; scsi has scsi0 to scsi30 (not-understood)",
                "a.vmdk: aio: 'foo' is not allowed; aio takes one of native, threads, io_uring (not-understood)",
                "a.vmdk: ssd: 'maybe' is not allowed; ssd takes true or false (not-understood)",
                "a.vmdk: size=1M: the disk has 1 GiB; write that or more (size-too-small)",
            ],
        ),
        (
            {"disks": {"a.vmdk": {"state": "absent", "queues": 1, "wwn": "x"}}},
            [
                "a.vmdk: state: there is no such option; write slot, storage, format, size, skip, unset, or an option "
                "of the drive (not-understood)",
                "a.vmdk: queues=1: is not allowed; write a whole number of at least 2 (not-understood)",
                "a.vmdk: wwn=x: is not allowed; write a text that matches 0x[0-9a-fA-F]{16} (not-understood)",
            ],
        ),
        (
            {"disks": {"a.vmdk": {"skip": "perhaps"}}},
            ["a.vmdk: skip=perhaps is not allowed; write true or false (not-understood)"],
        ),
        (
            {"ostype": "win10", "disks": {"a.vmdk": {"iothread": True, "queues": 4}}},
            [
                "a.vmdk: iothread=true: Disks on ide and sata do not have the option iothread. (not-possible)",
                "a.vmdk: queues=4: sata has no such option; it exists on scsi; remove it or use another bus "
                "(not-understood)",
            ],
        ),
        ({"boot": ["scsi5"]}, ["boot=scsi5: the guest has no such device; it will have scsi0, net0 (not-possible)"]),
        ({"boot": "scsi0;net1"}, ["boot=net1: the guest has no such device; it will have scsi0, net0 (not-possible)"]),
    ],
)  # fmt: skip
def test_all_that_attaching_would_refuse_is_refused_before_anything_is_made(
    words: dict[str, Any], reasons: list[str]
) -> None:
    """Each mistake of each disk, and the boot order, from the one planner."""
    made = plan(words, ova("a.vmdk", nics=[{"network": "x"}]))
    assert made["refused"] == [f"Web-Server-1: {reason}" for reason in reasons]
    assert [(one["todo"], state(made)["images"]) for one in made["guests"]] == [(False, [])]


def test_bridges_and_pools_that_are_not_there() -> None:
    """Where nobody has looked, nothing is said."""
    mine = sources({"path": "/in/x", "storage": "local", "pool": "db", "networks": {"*": "vmbr77"}})
    found = ova("a.vmdk", nics=[{"network": "x"}, {"network": "y"}])
    cluster = {"guests": [], "storages": {"pve1": STORAGES}, "bridges": {"pve1": ["vmbr0", "vmbr1"]}, "pools": []}
    assert FILTERS["import_plan"](mine, cluster, "pve1", [found])["refused"] == [
        "Web-Server-1: pool=db: there is no such pool that the user may see; make one, or leave it out (pool-unknown)",
        *(f"Web-Server-1: {slot}: bridge=vmbr77: there is no such bridge on pve1 that the user may see; write one of "
          "vmbr0, vmbr1 (bridge-unknown)" for slot in ("net0", "net1")),
    ]  # fmt: skip
    silent = {**cluster, "bridges": {"pve1": None}, "pools": None}
    assert FILTERS["import_plan"](mine, silent, "pve1", [found])["refused"] == []


def test_a_boot_order_is_taken_as_it_is_written() -> None:
    found = ova("a.vmdk", "b.vmdk", nics=[{"network": "x"}])
    assert one({"boot": ["scsi1", "net0"]}, found)["boot"] == ["scsi1", "net0"]
    assert one({"boot": "scsi1;net0"}, found)["boot"] == ["scsi1", "net0"]
    assert one({"boot": ["scsi0", "net0"], "ostype": "l26"}, {"images": [image()]}, guest(120, "web1"))["boot"]


def test_what_a_running_guest_does_not_take_up_is_refused_before_its_disk_is_converted() -> None:
    there = guest(120, "db1", status="running")
    (reason,) = plan({"vmid": 120, "tpm": True}, {"images": [image()]}, there)["refused"]
    assert reason.startswith("db1: tpmstate0: state=present: tpmstate0 can't be added while the guest runs")
    assert codes({"vmid": 120}, {"images": [image()]}, there) == []


@pytest.mark.parametrize("name", ["web1", "web1-flat.vmdk"])
def test_what_is_said_of_a_disk_that_is_not_there_stops_its_source(name: str) -> None:
    """It may be what was to be left out."""
    found = {"images": [image(), image("/in/web1/web1_1.vmdk", fingerprint="f" * 64)]}
    made = plan({"disks": {name: {"skip": True}}}, found)
    assert made["refused"] == [
        f"web1: disks: there is no {name}; write one of web1.vmdk, web1_1.vmdk (disk-unknown)"
    ]
    assert state(made)["images"] == []


def test_a_source_of_which_everything_is_left_out_is_not_passed_over() -> None:
    made = plan({"disks": {"web1.vmdk": {"skip": True}}}, {"images": [image()]})
    assert made["refused"] == ["/in/web1: all of its disks are left out (skip); take it off the list (no-image)"]


@pytest.mark.parametrize("value", [True, "yes", "true", "on", 1])
def test_skip_is_taken_in_every_spelling(value: object) -> None:
    assert slots(one({"disks": {"a.vmdk": {"skip": value}}}, ova("a.vmdk", "b.vmdk"))) == {"b.vmdk": "scsi0"}


def test_memory_must_be_known() -> None:
    mine = sources({"path": "/in/web1", "storage": "local"})
    cluster = {"guests": [], "storages": {"pve1": STORAGES}}
    made = FILTERS["import_plan"](mine, cluster, "pve1", [{"images": [image()]}])
    assert made["refused"] == [
        "web1: no OVF says how much memory the guest has; write memory, in MiB, here or in the defaults "
        "(memory-unknown)"
    ]


OTHERS = {"scsi0": "local:120/vm-120-disk-0.raw,size=1G"}


@pytest.mark.parametrize(
    ("source", "there", "code"),
    [
        ({"name": "web1"}, [guest(120, "web1", OTHERS)], "guest-exists"),
        ({"name": "web1"}, [guest(120, "web1"), guest(121, "web1")], "guest-ambiguous"),
        ({"name": "web1", "vmid": 120}, [guest(120, "db1")], "other-name"),
        ({"vmid": 120}, [guest(120, "db1", lock="backup")], "guest-not-free"),
        ({"vmid": 120}, [guest(120, "db1", status="template")], "guest-not-free"),
        ({"vmid": 120}, [guest(120, "db1", node="pve2")], "other-node"),
        ({"vmid": 120, "disks": {"web1.vmdk": {"slot": "scsi0"}}}, [guest(120, "db1", OTHERS)], "slot-taken"),
        ({"vmid": 120}, [guest(120, "x", {"scsi0": "local-lvm:vm-120-web1-76543210,size=1G"})], "source-changed"),
    ],
)
def test_refusals_about_a_guest(source: dict[str, Any], there: list[dict[str, Any]], code: str) -> None:
    assert codes(source, {"images": [image()]}, *there) == [code]


def test_another_image_of_the_same_name_gets_its_slot_from_the_user() -> None:
    there = guest(120, "x", {"scsi0": "local-lvm:vm-120-web1-76543210,size=1G"})
    words = {"vmid": 120, "disks": {"web1.vmdk": {"slot": "scsi1"}}}
    assert slots(one(words, {"images": [image()]}, there)) == {"web1.vmdk": "scsi1"}


def test_shared_storage_is_good_for_a_guest_elsewhere() -> None:
    assert codes({"vmid": 120, "storage": "nas"}, {"images": [image()]}, guest(120, "db1", node="pve2")) == []


def test_one_guest_from_two_sources() -> None:
    mine = sources({"path": "/in/a", "name": "x"}, {"path": "/in/b", "name": "x"}, defaults={"storage": "local"})
    cluster = {"guests": [guest(120, "x")], "storages": {"pve1": STORAGES}}
    made = FILTERS["import_plan"](mine, cluster, "pve1", [{"images": [image()]}] * 2)
    assert [row["code"] for one in made["guests"] for row in one["refused"]] == ["guest-twice", "guest-twice"]
    assert len({one["key"] for one in made["guests"]}) == 2


def test_a_name_for_many_guests_is_refused() -> None:
    first, second = ova("a.vmdk", path="/in/x.ova"), ova("a.vmdk", path="/in/y.ova", name="db1")
    found = {key: first[key] + second[key] for key in first}
    assert codes({"name": "web"}, found) == ["several-guests", "several-guests"]


def test_an_image_beside_ovfs_that_none_describes() -> None:
    found = ova("a.vmdk")
    found["images"].append(image("/in/stray.vmdk"))
    assert codes({}, found) == ["not-described"]
    assert codes({"disks": {"stray.vmdk": {"skip": True}}}, found) == []


def test_each_image_that_no_ovf_describes_is_told_of_once() -> None:
    found = ova("a.vmdk")
    found["images"] += [image("/in/stray.vmdk"), image("/in/other.vmdk")]
    assert codes({}, found) == ["not-described", "not-described"]


def test_one_refused_disk_keeps_its_guest_and_no_other() -> None:
    found = {"images": [image("/in/a/a.vmdk"), refused("/in/a/b.vmdk"), image("/in/b/c.vmdk")]}
    assert {guest["key"]: guest["todo"] for guest in plan({"path": "/in"}, found)["guests"]} == {"a": False, "b": True}


# ---- without a node


def by_api(
    source: dict[str, Any], offered: dict[str, Any] | None = None, *guests: dict[str, Any], **options: Any
) -> dict[str, Any]:
    mine = sources(source, defaults={"storage": "local", "memory": 64}, folder="local:import")
    cluster = {"guests": list(guests), "storages": {"pve1": STORAGES}}
    offers = [{**offered, "item": source}] if offered else []
    made: dict[str, Any] = FILTERS["import_plan"](mine, cluster, "pve1", [], offers, route="api", **options)
    return made


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (image("/me/x.vmdk", subformat="monolithicFlat"), "api-subformat"),
        (image("/me/x.vmdk", subformat="twoGbMaxExtentSparse"), "api-subformat"),
        (image("/me/x.vmdk", chain=["a", "b"]), "api-subformat"),
        (image("/me/x.vmdk", "a.vmdk/b"), "api-name"),
        (image("/me/x.vmdk", format="raw", subformat=""), "api-name"),
        (image("/me/x.vmdk", format="vhdx", subformat=""), "api-format"),
        (image("/me/other/x.vmdk"), "api-folder"),
        (image("/me/x.vmdk", refused={"code": "extent-truncated", "reason": "short"}), "extent-truncated"),
    ],
)
def test_what_the_api_does_not_take(found: dict[str, Any], code: str) -> None:
    made = by_api({"upload_from": "/me/x.vmdk", "name": "x"}, {"images": [found]})
    assert code in [row["code"] for one in made["guests"] for row in one["refused"]]
    assert made["uploads"] == []


def test_what_proxmox_ve_would_rename_is_not_uploaded() -> None:
    made = by_api({"upload_from": "/me/a b.ova"}, ova("a.vmdk", path="/me/a b.ova"))
    assert [row["code"] for row in made["guests"][0]["refused"]] == ["api-name"]


def test_a_path_needs_a_node() -> None:
    made = by_api({"path": "/in/x.vmdk"})
    assert [row["code"] for row in made["guests"][0]["refused"]] == ["needs-node"]


def test_an_ova_on_a_storage_cannot_be_seen() -> None:
    made = by_api({"volume": "local:import/x.ova"})
    assert [row["code"] for row in made["guests"][0]["refused"]] == ["api-unseen"]


def test_an_ova_is_uploaded_and_its_members_are_imported() -> None:
    found = ova("a.vmdk", "b.vmdk", path="/me/x.ova")
    made = by_api({"upload_from": "/me/x.ova"}, found)
    assert (made["uploads"], made["refused"]) == (["local:import/x.ova"], [])
    created = {"results": [{"item": {"key": "Web-Server-1"}, "vmid": 100}]}
    (layout,) = state(made, created=created, route="api")["layouts"]
    assert [disk["import_from"] for disk in layout["disks"]] == [
        "local:import/x.ova/a.vmdk", "local:import/x.ova/b.vmdk",
    ]  # fmt: skip
    assert read_layout(layout)[1] == ()


def test_a_volume_is_taken_unseen_with_a_warning() -> None:
    (box,) = by_api({"volume": "local:import/x.qcow2", "name": "box", "ostype": "l26"})["guests"]
    assert (box["todo"], slots(box)) == (True, {"x.qcow2": "scsi0"})
    assert "it was not inspected: PVE takes damaged images, too" in box["warnings"]


DONE = {"sata0": "local:100/vm-100-disk-0.qcow2,size=1G", "scsi0": "local:100/vm-100-disk-1.qcow2,size=1G"}


@pytest.mark.parametrize("config", [DONE, {"scsi0": DONE["sata0"], "scsi1": DONE["scsi0"]}])
def test_the_api_has_imported_a_guest_that_has_all_its_disks(config: dict[str, str]) -> None:
    """Wherever they are now."""
    found = ova("a.vmdk", "b.vmdk", path="/me/x.ova")
    for who in ({}, {"vmid": 100}, {"name": "Web-Server-1"}):
        made = by_api({"upload_from": "/me/x.ova", **who}, found, guest(100, "Web-Server-1", config))
        assert (made["refused"], made["uploads"], made["lines"]) == ([], [], [])


@pytest.mark.parametrize(
    ("source", "there", "code"),
    [
        ({"name": "box"}, guest(100, "box", {"scsi0": DONE["scsi0"]}), []),
        ({"name": "box"}, guest(100, "box"), []),
        ({"vmid": 100}, guest(100, "other", {"scsi0": DONE["scsi0"]}), ["api-slot"]),
        ({"vmid": 100, "disks": {"x.qcow2": {"slot": "scsi1"}}}, guest(100, "other", {"scsi0": DONE["scsi0"]}), []),
    ],
)
def test_the_api_needs_a_slot_to_add_a_disk(source: dict[str, Any], there: dict[str, Any], code: list[str]) -> None:
    made = by_api({"volume": "local:import/x.qcow2", "ostype": "l26", **source}, None, there)
    assert [row["code"] for one in made["guests"] for row in one["refused"]] == code


def test_half_of_a_guest_is_not_gone_on_with_by_the_api() -> None:
    found = ova("a.vmdk", "b.vmdk", path="/me/x.ova")
    there = guest(100, "Web-Server-1", {"scsi0": DONE["scsi0"]})
    made = by_api({"upload_from": "/me/x.ova"}, found, there)
    assert {row["code"] for one in made["guests"] for row in one["refused"]} == {"guest-exists", "api-slot"}


# ---- uploads to a node


def upload(there: dict[str, Any], here: dict[str, Any], *, check: bool) -> dict[str, Any]:
    source = {"upload_from": "/me/x.vmdk"}
    mine = sources(source, defaults={"storage": "local", "memory": 64})
    cluster = {"guests": [], "storages": {"pve1": STORAGES}}
    made: dict[str, Any] = FILTERS["import_plan"](
        mine, cluster, "pve1", [there], [{**here, "item": source}], check=check
    )
    return made


def test_what_is_not_uploaded_yet_is_planned_in_check_mode() -> None:
    made = upload({"msg": "no such file"}, {"images": [image("/me/x.vmdk")]}, check=True)
    assert "  ? it is uploaded first" in made["lines"]
    assert state(made, created={"results": [{"item": {"key": "x"}, "vmid": 100}]}, check=True)["images"] == []


def test_what_could_not_be_uploaded_is_refused() -> None:
    made = upload({"msg": "no such file"}, {"images": [image("/me/x.vmdk")]}, check=False)
    assert made["refused"] == ["/var/tmp/vmdk-import/x.vmdk: no such file (not-inspected)"]


def test_what_is_wrong_with_a_file_is_said_before_it_is_uploaded() -> None:
    made = upload({"msg": "no such file"}, {"images": [refused("/me/x.vmdk")]}, check=False)
    assert made["refused"] == ["x: x.vmdk: it is too short; copy it again (extent-truncated)"]


# ---- sources


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "source 1: it is not said where it is; give one of path, upload_from, volume"),
        ({"path": "/a", "volume": "b:import/c"}, "source 1: path and volume contradict each other"),
        ({"path": "a.ova"}, "path=a.ova: it is on the node, so write it in full, from the first slash on"),
        ({"path": "/a", "nmae": "b"}, "source 1: nmae is not known; write one of path, upload_from, volume, host,"),
        ({"path": "/a", "vmid": "x"}, "vmid=x is no number of a guest; write one such as 120, or leave it out"),
        ({"path": "/a", "disks": "x"}, "disks: 'x' is no dictionary; write the name of each disk with what holds"),
        ({"path": "/a", "disks": {"b": "scsi0"}}, "disks: b: 'scsi0' is no dictionary; write b: {slot: scsi0}"),
        ({"path": "/a", "host": "x"}, "host=x: it is no host of this play; write one of pve1, or leave it out"),
    ],
)
def test_mistakes_in_sources(source: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match="import_sources") as error:
        sources(source)
    assert message in str(error.value)


def test_all_mistakes_in_sources_are_reported_together() -> None:
    with pytest.raises(AnsibleFilterError) as error:
        FILTERS["import_sources"]([{}, "x", {"path": "y"}], ["pve1"], "pve1", {"path": "/a"})
    assert len(str(error.value).splitlines()) == 4


def test_mistakes_in_sources_are_refusals_beside_the_others() -> None:
    """One source's mistake is that source's; the first host tells of what no host handles."""
    given_ = [{"path": "/in/web1", "host": "x", "nmae": "b"}, "y", {"path": "/in/a.vmdk", "storage": "nix"}]
    defaults = {"storage": "local", "memory": 64}
    mine, others = (
        FILTERS["import_sources"](given_, ["pve1", "pve2"], host, defaults, keep_mistakes=True)
        for host in ("pve1", "pve2")
    )
    assert others == []
    found = [None, None, {"images": [image("/in/a.vmdk")]}]
    made = FILTERS["import_plan"](mine, {"guests": [], "storages": {"pve1": STORAGES}}, "pve1", found)
    assert [text.partition("; ")[0] for text in made["refused"]] == [
        "/in/web1: source 1: nmae is not known",
        "/in/web1: source 1: host=x: it is no host of this play",
        "a source: source 2: 'y' is no dictionary",
        "a: a.vmdk: storage=nix is not there on pve1",
    ]
    reasons = [f"  x {row['reason']} (source-wrong)" for row in made["guests"][0]["refused"]]
    assert made["lines"][:4] == ["/in/web1", *reasons, "a source"]
    assert "  + sata0  1 GiB raw on nix  a.vmdk (vmdk monolithicSparse)" in "\n".join(made["lines"])
    assert [row["status"] for row in state(made)["report"]] == ["refused"] * 3


def test_uploads_get_a_place() -> None:
    (mine,) = sources({"upload_from": "/home/me/web1/"}, folder="/var/tmp/in")
    assert (mine["path"], mine["upload_from"]) == ("/var/tmp/in/web1", "/home/me/web1/")


@settings(deadline=None)
@given(st.lists(st.from_regex(r"/[a-z]{1,8}", fullmatch=True), unique=True), st.integers(1, 4))
def test_sources_are_shared_out_whole_and_stay_where_they_are(paths: list[str], count: int) -> None:
    hosts = [f"pve{number}" for number in range(count)]
    given_ = [{"path": path} for path in paths]

    def mine(host: str, listed: list[dict[str, str]]) -> list[str]:
        return [one["path"] for one in FILTERS["import_sources"](listed, hosts, host, spread=True)]

    assert sorted(path for host in hosts for path in mine(host, given_)) == sorted(paths)
    for host in hosts:
        assert sorted(mine(host, given_[::-1])) == sorted(mine(host, given_))
    assert mine(hosts[0], []) == []


# ---- properties

NAMES = st.lists(st.from_regex(r"[a-z]{1,6}\.vmdk", fullmatch=True), min_size=1, max_size=40, unique=True)


@settings(deadline=None)
@given(NAMES, st.sampled_from([None, *OSTYPES]), st.sampled_from([None, "all", "none", "block"]),
       st.sampled_from(["local", "local-lvm", "nas"]), st.sampled_from(["bios", "efi", None]))  # fmt: skip
def test_whatever_comes_is_a_sound_declaration_or_refused(
    names: list[str], ostype: str | None, drivers: str | None, place: str, firmware: str | None
) -> None:
    """Each slot once, each disk once; what is handed on is what guest_create and guest_disks take."""
    found = ova(*names, ostype=ostype, firmware=firmware, nics=[{"network": "a"}])
    for number, row in enumerate(found["images"]):
        row["fingerprint"] = f"{number:064x}"
    made = plan({"virtio_drivers": drivers, "storage": place}, found)
    (web,) = made["guests"]
    if web["refused"]:
        assert {row["code"] for row in web["refused"]} == {"no-slot-left"}
        return
    assert sorted(disk["file"] for disk in web["disks"]) == sorted(names)
    assert len({disk["slot"] for disk in web["disks"]}) == len(names)
    assert read_definition(web["definition"])[1] == ()
    created = {"results": [{"item": {"key": web["key"]}, "vmid": 120}]}
    step = FILTERS["import_state"](made, created)
    assert [(row["member"], row["vmid"]) for row in step["images"]] == [(disk["member"], 120) for disk in web["disks"]]
    converted = {"images": [{**row, "volume": f"{place}:v{n}"} for n, row in enumerate(step["images"])]}
    (layout,) = FILTERS["import_state"](made, created, converted)["layouts"]
    read, wrong = read_layout(layout)
    assert wrong == ()
    assert [disk.volume for disk in read.disks if disk.volume] == [row["volume"] for row in converted["images"]]
    assert layout["boot"] == [web["disks"][0]["slot"]]


# ---- where it stands


def state(made: dict[str, Any], **results: Any) -> dict[str, Any]:
    found: dict[str, Any] = FILTERS["import_state"](made, **results)
    return found


def two() -> dict[str, Any]:
    found = {"images": [image("/in/a/a.vmdk"), image("/in/b/b.vmdk", fingerprint="b" * 64)]}
    return plan({"path": "/in"}, found)


CREATED = {"results": [{"item": {"key": "a"}, "vmid": 100}, {"item": {"key": "b"}, "vmid": 101}]}


def test_nothing_is_converted_for_a_guest_that_could_not_be_made() -> None:
    created = {"results": [{"item": {"key": "a"}, "failed": True, "msg": "no right"}, CREATED["results"][1]]}
    now = state(two(), created=created)
    assert [row["vmid"] for row in now["images"]] == [101]
    assert [(row["name"], row["status"], row["errors"]) for row in now["report"]] == [
        ("a", "failed", ["no right"]), ("b", "planned", []),
    ]  # fmt: skip


def test_nothing_is_attached_of_a_guest_that_lacks_an_image() -> None:
    converted = {
        "failed": True,
        "images": [
            {"path": "/in/a/a.vmdk", "member": "", "vmid": 100, "volume": "local-lvm:vm-100-a-01234567"},
            {"path": "/in/b/b.vmdk", "member": "", "vmid": 101, "volume": "", "error": "no space"},
        ],
    }
    now = state(two(), created=CREATED, converted=converted)
    assert [row["vmid"] for row in now["layouts"]] == [100]
    attached = {"guests": [{"vmid": 100, "failed": False, "errors": []}]}
    end = state(two(), created=CREATED, converted=converted, attached=attached)
    assert {row["name"]: row["status"] for row in end["report"]} == {"a": "imported", "b": "failed"}
    assert end["failed"] == ["b: b.vmdk: no space"]


def test_a_refused_attachment_is_a_failure_of_its_guest() -> None:
    pairs = (("a", 100), ("b", 101))
    rows = [{"path": f"/in/{n}/{n}.vmdk", "member": "", "vmid": vmid, "volume": f"local:{n}"} for n, vmid in pairs]
    converted = {"images": rows}
    attached = {"failed": True, "guests": [{"vmid": 100, "failed": True, "errors": ["locked"]}, {"vmid": 101}]}
    end = state(two(), created=CREATED, converted=converted, attached=attached)
    assert {row["name"]: (row["status"], row["errors"]) for row in end["report"]} == {
        "a": ("failed", ["locked"]), "b": ("imported", []),
    }  # fmt: skip


def from_one_image(**words: Any) -> dict[str, Any]:
    """A plan of two guests that come from one image."""
    mine = sources(*({"path": "/in/x.vmdk", "name": name, **words} for name in "ab"), defaults={"storage": "local"})
    found = {"images": [image("/in/x.vmdk")]}
    made: dict[str, Any] = FILTERS["import_plan"](
        mine, {"guests": [], "storages": {"pve1": STORAGES}}, "pve1", [found, found]
    )
    return made


def test_one_image_for_two_guests() -> None:
    """Each gets its own volume, and is told its own errors."""
    made = from_one_image(memory=64)
    now = state(made, created=CREATED)
    assert [(row["path"], row["vmid"]) for row in now["images"]] == [("/in/x.vmdk", 100), ("/in/x.vmdk", 101)]
    rows = [{**row, "volume": f"local:{row['vmid']}/x.raw"} for row in now["images"]]
    after = state(made, created=CREATED, converted={"images": rows})
    assert [(one["vmid"], one["disks"][0]["volume"]) for one in after["layouts"]] == [
        (100, "local:100/x.raw"), (101, "local:101/x.raw"),
    ]  # fmt: skip
    assert [one["disks"][0]["volume"] for one in after["report"]] == ["local:100/x.raw", "local:101/x.raw"]
    failed = {"failed": True, "images": [rows[0], {**rows[1], "volume": "", "error": "no room"}]}
    end = state(made, created=CREATED, converted=failed)
    assert ([one["vmid"] for one in end["layouts"]], end["failed"]) == ([100], ["b: x.vmdk: no room"])


def test_in_check_mode_one_image_for_two_new_guests_is_asked_about_once() -> None:
    """Both would get the next free number, which is the same for both as long as nothing is made."""
    created = {"results": [{**row, "vmid": 100} for row in CREATED["results"]]}
    assert len(state(from_one_image(memory=64), created=created, check=True)["images"]) == 1


def test_a_step_that_fails_as_a_whole_fails_every_guest() -> None:
    end = state(two(), created=CREATED, converted={"failed": True, "msg": "pvesm is missing"})
    assert end["failed"] == ["a: pvesm is missing", "b: pvesm is missing"]


def test_the_plan_reads_well() -> None:
    found = ova("disk1.vmdk", "disk2.vmdk", firmware="efi", nics=[{"network": "VM Network"}])
    assert plan({"disks": {"disk2.vmdk": {"size": "2G"}}}, found)["lines"] == [
        "Web-Server-1 (next free number on pve1, new)  /in/web1",
        "  + guest     2 GiB, 2 cores          l26, ovmf, q35, x86-64-v2-AES, virtio-scsi-single",
        "  + scsi0     1 GiB raw on local-lvm  disk1.vmdk (vmdk monolithicSparse)   "
        "(current: linux-migrated, virtio-scsi-single, raw, iothread, thin-discard)",
        "  + scsi1     2 GiB raw on local-lvm  disk2.vmdk (vmdk monolithicSparse)   "
        "(current: linux-migrated, raw, iothread, thin-discard)",
        "  + efidisk0  on local-lvm            efitype 4m, pre_enrolled_keys false",
        "  + net0      virtio                  not connected",
        "  ? net0 is not connected: networks does not say what 'VM Network' is here",
    ]


def test_a_source_without_a_guest_reads_well() -> None:
    """No number, no node, and its path once."""
    made = plan({"path": "/tmp/nope"}, {"failed": True, "msg": "/tmp/nope: can't be looked at: no such file"})
    assert made["lines"] == ["/tmp/nope", "  x /tmp/nope: can't be looked at: no such file (not-inspected)"]
    assert made["refused"] == ["/tmp/nope: can't be looked at: no such file (not-inspected)"]


def test_what_makes_no_sense_is_not_in_the_plan() -> None:
    words = {"name": "a", "memory": -4, "cores": "x", "ostype": "l26"}
    made = FILTERS["import_plan"](
        sources({"path": "/in/a.vmdk", **words}), {"guests": [], "storages": {"pve1": STORAGES}}, "pve1",
        [{"images": [image("/in/a.vmdk")]}],
    )  # fmt: skip
    assert made["lines"][1].startswith("  + guest  1 core ")
    assert made["lines"][2].startswith("  + scsi0  1 GiB raw without a storage  a.vmdk ")
    assert [row["code"] for row in made["guests"][0]["refused"]] == ["storage-missing", *["not-understood"] * 2]


def test_the_summary_names_those_that_are_not_imported() -> None:
    found = {"images": [image("/in/a/a.vmdk"), refused("/in/b/b.vmdk"), image("/in/c/c.vmdk", fingerprint="c" * 64)]}
    made = plan({"path": "/in"}, found)
    failed = {"item": {"key": "c"}, "failed": True, "msg": "no right"}
    created = {"results": [{"item": {"key": "a"}, "vmid": 100}, failed]}
    converted = {"images": [{"path": "/in/a/a.vmdk", "vmid": 100, "volume": "local:a"}]}
    attached = {"guests": [{"vmid": 100}]}
    end = state(made, created=created, converted=converted, attached=attached)
    assert end["summary"] == "1 imported, 1 refused (b), 1 failed (c)"
    there = guest(120, "web1", {"scsi3": OURS, "scsihw": "lsi"})
    assert state(plan({"vmid": 120}, {"images": [image()]}, there))["summary"] == ""


def test_refusals_read_well() -> None:
    assert plan({}, {"images": [refused("/in/web1/web1.vmdk")]})["lines"] == [
        "web1 (next free number on pve1, new)  /in/web1",
        "  + guest  512 MiB, 1 core  x86-64-v2-AES",
        "  ? no OVF says what system the guest has; write ostype for the right bus and card",
        "  x web1.vmdk: it is too short; copy it again (extent-truncated)",
    ]
