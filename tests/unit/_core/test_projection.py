# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PVE makes of a guest by a call, as a PVE 9.2.11 was seen to do it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.actions import (
    Action,
    Attach,
    BootOrder,
    Call,
    CallKind,
    Change,
    Controller,
    Create,
    Destroy,
    Detach,
    Media,
    Move,
    Note,
    Resize,
    Switch,
    Unplug,
    config_call,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive import Drive, parse_drive
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import (
    Boot,
    Guest,
    Hardware,
    Volume,
    read_hardware,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.projection import (
    Knowledge,
    differences,
    new_drive,
    project,
    restart_keys,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import Slot, parse_slot
from unit._core.planning import make_guest

A = "local-lvm:vm-100-disk-0,size=1G"
B = "local-lvm:vm-100-disk-1,size=2G"
FOREIGN = "local-lvm:vm-101-disk-0,size=1G"
ISO = "local:iso/debian.iso,media=cdrom"
CLOUD = "local-lvm:vm-100-cloudinit,media=cdrom"
CHANGED = "local-lvm:vm-100-disk-0,cache=none,size=1G"


def d(text: str) -> Drive:
    return parse_drive(text)


def s(text: str) -> Slot:
    return parse_slot(text)


def texts(hardware: Hardware) -> dict[str, str]:
    """A state as PVE would write it."""
    found = {str(slot): str(drive) for slot, drive in hardware.drives.items()}
    found |= {str(slot): volume for slot, volume in hardware.unused.items()}
    named = {"boot": hardware.boot, "bootdisk": hardware.bootdisk, "scsihw": hardware.scsihw}
    return found | {key: str(value) for key, value in named.items() if value is not None}


def volume(text: str) -> str:
    return d(text).volume


STOPPED: dict[str, tuple[dict[str, str], tuple[Action, ...], dict[str, str]]] = {
    "a detached disk becomes the lowest free unused entry": (
        {"scsi5": A, "unused0": "tank:vm-100-disk-9"},
        (Detach(s("scsi5"), d(A)),),
        {"unused0": "tank:vm-100-disk-9", "unused1": volume(A)},
    ),
    "several are numbered in string order of their slots": (
        {"scsi10": A, "scsi2": B},
        (Detach(s("scsi2"), d(B)), Detach(s("scsi10"), d(A))),
        {"unused0": volume(A), "unused1": volume(B)},
    ),
    "a CD-ROM drive leaves no entry": ({"ide2": ISO}, (Detach(s("ide2"), d(ISO)),), {}),
    "a cloud-init drive leaves no entry": ({"ide2": CLOUD}, (Detach(s("ide2"), d(CLOUD)),), {}),
    "another guest's volume leaves no entry": ({"scsi1": FOREIGN}, (Detach(s("scsi1"), d(FOREIGN)),), {}),
    "a path leaves no entry": ({"scsi1": "/dev/sdb"}, (Detach(s("scsi1"), d("/dev/sdb")),), {}),
    "one of two slots with a volume leaves no entry": (
        {"scsi1": A, "sata1": A},
        (Detach(s("sata1"), d(A)),),
        {"scsi1": A},
    ),
    "a detached disk leaves the boot order": (
        {"scsi0": A, "boot": "order=scsi0;net0"},
        (Detach(s("scsi0"), d(A)),),
        {"unused0": volume(A), "boot": "order=net0"},
    ),
    "the last one leaves a blank": (
        {"scsi0": A, "boot": "order=scsi0"},
        (Detach(s("scsi0"), d(A)),),
        {"unused0": volume(A), "boot": " "},
    ),
    "a new CD-ROM drive joins the boot order": (
        {"boot": "order=net0"},
        (Media(s("ide2"), d(ISO), None),),
        {"ide2": ISO, "boot": "order=net0;ide2"},
    ),
    "not an empty order": ({"boot": " "}, (Media(s("ide2"), d(ISO), None),), {"ide2": ISO, "boot": " "}),
    "nor a cloud-init drive": (
        {"boot": "order=net0"},
        (Create(s("ide2"), d(CLOUD), "", None, None),),
        {"ide2": CLOUD, "boot": "order=net0"},
    ),
    "a new disk does not": (
        {"boot": "order=net0"},
        (Create(s("scsi1"), d(A), "", None, None),),
        {"scsi1": A, "boot": "order=net0"},
    ),
    "an attached volume is unused no more": ({"unused0": volume(A)}, (Attach(s("scsi1"), d(A)),), {"scsi1": A}),
    "a replaced volume becomes unused": (
        {"scsi1": A},
        (Attach(s("scsi1"), d(B), d(A)),),
        {"scsi1": B, "unused0": volume(A)},
    ),
    "an unused volume swapped in gives its number to the other": (
        {"scsi1": A, "unused0": volume(B)},
        (Attach(s("scsi1"), d(B), d(A)),),
        {"scsi1": B, "unused0": volume(A)},
    ),
    "two slots swapped leave nothing unused": (
        {"scsi1": A, "scsi2": B},
        (Attach(s("scsi1"), d(B), d(A)), Attach(s("scsi2"), d(A), d(B))),
        {"scsi1": B, "scsi2": A},
    ),
    "a change of bus leaves nothing unused": (
        {"virtio3": A, "boot": "order=virtio3"},
        (Switch(s("sata4"), s("virtio3"), d(A), d(A)), BootOrder(None, None, Boot(("sata4",)))),
        {"sata4": A, "boot": "order=sata4"},
    ),
    "a boot order of the newer form ends the older one": (
        {"scsi0": A, "boot": "cdn", "bootdisk": "scsi0"},
        (BootOrder(None, None, Boot(("scsi0",))),),
        {"scsi0": A, "boot": "order=scsi0"},
    ),
    "the controller": ({"scsi0": A}, (Controller(None, None, "pvscsi"),), {"scsi0": A, "scsihw": "pvscsi"}),
}


@pytest.mark.parametrize(("config", "actions", "after"), STOPPED.values(), ids=STOPPED)
def test_config_call_on_a_stopped_guest(
    config: dict[str, str], actions: tuple[Action, ...], after: dict[str, str]
) -> None:
    guest = project(make_guest(config), config_call(actions))
    assert texts(guest.configured) == after
    assert guest.live == guest.configured
    assert not guest.changed_keys


def test_attached_volume_is_measured_anew() -> None:
    knowledge = Knowledge({volume(A): Volume(volume(A), 4 * 1024**3, "raw")})
    guest = project(make_guest({}), config_call((Attach(s("scsi1"), Drive(volume(A))),)), knowledge)
    assert texts(guest.configured) == {"scsi1": "local-lvm:vm-100-disk-0,size=4G"}


@pytest.mark.parametrize(
    ("config", "action", "after"),
    [
        ({"scsi1": A}, Destroy(s("scsi1"), volume(A)), {}),
        ({"unused0": volume(A)}, Destroy(s("unused0"), volume(A)), {}),
    ],
)
def test_destroyed_volumes_are_gone(config: dict[str, str], action: Action, after: dict[str, str]) -> None:
    guest = project(make_guest(config), Call(CallKind.DESTROY, (action,)))
    assert texts(guest.configured) == after


def test_resize_and_move() -> None:
    guest = make_guest({"scsi0": A})
    grown = project(guest, Call(CallKind.RESIZE, (Resize(s("scsi0"), 1024**3, 5 * 1024**3),)))
    assert texts(grown.configured) == {"scsi0": "local-lvm:vm-100-disk-0,size=5G"}
    move = Move(s("scsi0"), d(A), "local", "qcow2", "qcow2", delete_source=False)
    moved = project(guest, Call(CallKind.MOVE, (move,)))
    assert texts(moved.configured) == {"scsi0": "local:(new).qcow2,size=1G", "unused0": volume(A)}


RUNNING: dict[str, tuple[dict[str, str], tuple[Action, ...], dict[str, str], dict[str, str], set[str]]] = {
    "scsi is plugged": ({}, (Attach(s("scsi1"), d(A)),), {"scsi1": A}, {"scsi1": A}, set()),
    "sata waits": ({}, (Attach(s("sata1"), d(A)),), {"sata1": A}, {}, {"sata1"}),
    "virtio is unplugged": (
        {"virtio1": A},
        (Detach(s("virtio1"), d(A)),),
        {"unused0": volume(A)},
        {"unused0": volume(A)},
        set(),
    ),
    "a removal of ide waits, and its volume is used until then": (
        {"ide1": A},
        (Detach(s("ide1"), d(A)),),
        {},
        {"ide1": A},
        {"ide1"},
    ),
    "only what is unplugged takes a number": (
        {"ide1": A, "scsi1": B},
        (Detach(s("ide1"), d(A)), Detach(s("scsi1"), d(B))),
        {"unused0": volume(B)},
        {"ide1": A, "unused0": volume(B)},
        {"ide1"},
    ),
    "an unused volume that waits for a slot is unused no more": (
        {"unused0": volume(A)},
        (Attach(s("sata1"), d(A)),),
        {"sata1": A},
        {},
        {"sata1"},
    ),
    "a waiting option": (
        {"scsi0": A},
        (Change(s("scsi0"), d(A), d(CHANGED)),),
        {"scsi0": CHANGED},
        {"scsi0": A},
        {"scsi0"},
    ),
    "an option that acts at once": (
        {"scsi0": A},
        (Change(s("scsi0"), d(A), d(f"{A},werror=stop")),),
        {"scsi0": f"{A},werror=stop"},
        {"scsi0": f"{A},werror=stop"},
        set(),
    ),
    "boot and scsihw wait": (
        {"boot": "order=net0"},
        (BootOrder(None, None, Boot()), Controller(None, None, "pvscsi")),
        {"boot": " ", "scsihw": "pvscsi"},
        {"boot": "order=net0"},
        {"boot", "scsihw"},
    ),
    "a medium changes at once, the boot order waits": (
        {"ide2": "none,media=cdrom", "boot": "order=net0"},
        (Media(s("ide2"), d(ISO), d("none,media=cdrom")),),
        {"ide2": ISO, "boot": "order=net0;ide2"},
        {"ide2": ISO, "boot": "order=net0"},
        {"boot"},
    ),
    "a new ide CD-ROM drive waits": (
        {},
        (Media(s("ide2"), d(ISO), None),),
        {"ide2": ISO},
        {},
        {"ide2"},
    ),
    "the notes are written at once": ({}, (Note(None, "x"),), {}, {}, set()),
}


@pytest.mark.parametrize(("config", "actions", "configured", "live", "waiting"), RUNNING.values(), ids=RUNNING)
def test_config_call_on_a_running_guest(
    config: dict[str, str],
    actions: tuple[Action, ...],
    configured: dict[str, str],
    live: dict[str, str],
    waiting: set[str],
) -> None:
    guest = project(make_guest(config, running=True), config_call(actions))
    assert (texts(guest.configured), texts(guest.live)) == (configured, live)
    assert guest.changed_keys == waiting


def test_resize_leaves_a_waiting_value_alone() -> None:
    guest = make_guest({"scsi0": A}, running=True, pending={"scsi0": CHANGED})
    after = project(guest, Call(CallKind.RESIZE, (Resize(s("scsi0"), 1024**3, 5 * 1024**3),)))
    assert texts(after.live) == {"scsi0": "local-lvm:vm-100-disk-0,size=5G"}
    assert texts(after.configured) == {"scsi0": CHANGED}


def running(**more: Mapping[str, str] | Mapping[str, int]) -> Guest:
    return make_guest({"sata0": A, "sata1": B, "boot": "order=sata0"}, running=True, **more)  # type: ignore[arg-type]


def test_stop_brings_what_waits_into_force() -> None:
    guest = running(pending={"sata2": "tank:vm-100-disk-5", "boot": " "}, deleting={"sata0": 1, "sata1": 2})
    stopped = project(guest, Call(CallKind.SHUTDOWN, ()))
    assert not stopped.running
    assert texts(stopped.live) == {"sata2": "tank:vm-100-disk-5", "unused0": volume(A), "boot": " "}
    assert stopped.configured == stopped.live
    assert not stopped.changed_keys
    assert project(stopped, Call(CallKind.START, ())).running


def test_revert_takes_back_what_is_named() -> None:
    guest = running(pending={"sata2": "tank:vm-100-disk-5", "boot": " "}, deleting={"sata0": 2, "sata1": 1})
    after = project(guest, Call(CallKind.REVERT, (), (("revert", "sata0,sata2,boot"),)))
    assert texts(after.configured) == {"sata0": A, "boot": "order=sata0", "unused0": "tank:vm-100-disk-5"}
    assert (after.waiting, dict(after.deleting)) == (set(), {"sata1": 1})


def test_hot_switch_never_has_the_volume_twice() -> None:
    guest = make_guest({"virtio1": A}, running=True)
    between = project(guest, config_call((Unplug(s("virtio1"), d(A)), Note(None, "under way"))))
    assert texts(between.live) == {"unused0": volume(A)}
    after = project(between, config_call((Switch(s("scsi1"), s("virtio1"), d(A), d(A), unplugged=True),)))
    assert texts(after.live) == texts(after.configured) == {"scsi1": A}


def test_restart_is_required_for_what_waits_and_what_pve_hides() -> None:
    guest = make_guest({"scsi0": A, "memory": "1"}, running=True, pending={"scsi0": CHANGED, "memory": "2"})
    silent = Change(s("scsi0"), d(A), d(f"{A},serial=X"))
    assert restart_keys(guest, (silent,)) == {"scsi0.cache", "scsi0.serial", "memory"}
    assert restart_keys(make_guest({"scsi0": A}), (silent,)) == frozenset()


NEW = new_drive("tank", 1024**3, {"cache": "none"}, "raw")


@pytest.mark.parametrize(
    ("projected", "actual", "found"),
    [
        ({"scsi0": A}, {"scsi0": A}, ()),
        ({"scsi0": str(NEW)}, {"scsi0": "tank:vm-100-disk-7,cache=none,size=1G"}, ()),
        ({"scsi0": "tank:(new)"}, {"scsi0": "tank:vm-100-disk-7,size=1G"}, ()),
        ({"scsi0": f"{A},cyls=5"}, {"scsi0": A}, ()),
        ({"unused0": volume(A)}, {"unused7": volume(A)}, ()),
        ({}, {"scsi0": A}, (f"scsi0: expected nothing, found {A}",)),
        ({"scsi0": A}, {}, (f"scsi0: expected {A}, found nothing",)),
        ({"scsi0": A}, {"scsi0": CHANGED}, (f"scsi0: expected {A}, found {CHANGED}",)),
        ({"scsi0": str(NEW)}, {"scsi0": A}, (f"scsi0: expected {NEW}, found {A}",)),
        ({"unused0": volume(A)}, {}, (f"unused volumes: expected {volume(A)}, found none",)),
        ({"boot": "order=net0"}, {"boot": " "}, ("boot: expected 'order=net0', found ' '",)),
        ({"scsihw": "pvscsi"}, {}, ("scsihw: expected pvscsi, found None",)),
    ],
)
def test_differences(projected: dict[str, str], actual: dict[str, str], found: tuple[str, ...]) -> None:
    assert differences(read_hardware(projected), read_hardware(actual)) == found
