# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a guest stands, what would move where, and what Windows gets to see for its drivers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.assessment import Standing, assess
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.forecast import foretell
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.migration import next_step
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.note import Journal
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.situation import Memory, Wishes
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.steps import End, State
from unit._windows.world import CONFIG, ISO, World, run

WISHES = Wishes(iso=ISO)
HELPER = "local-lvm:1,backup=0,serial=diskwright-helper"


def begun(config: dict[str, str], wishes: Wishes = WISHES, **world: Any) -> Journal:
    """Where the migration of a guest with this beside or instead of the usual would begin."""
    merged = {key: text for key, text in {**CONFIG, **config}.items() if text}
    found = assess(World(merged, **world).situation(wishes, Memory()))
    assert found.refusals == ()
    assert found.journal is not None
    return found.journal


def test_everything_off_virtio_moves_the_boot_disk_first() -> None:
    journal = begun({"boot": "order=sata1;net0", "ide0": "tank:vm-122-disk-5,size=1G"})
    moved = {slot: (journal.after[slot] or "").partition(",")[0] for slot in ("scsi0", "scsi1", "scsi2")}
    assert moved == {"scsi0": "tank:vm-122-disk-1", "scsi1": "tank:vm-122-disk-5", "scsi2": "local-lvm:vm-122-disk-0"}
    assert journal.after["boot"] == "order=scsi0;net0"
    assert journal.equipment["scsi0"] == HELPER.replace("local-lvm", "tank")


def test_slots_that_are_taken_are_left_alone() -> None:
    journal = begun({"scsihw": "virtio-scsi-pci", "scsi0": "tank:vm-122-disk-7,size=1G"})
    assert sorted(key for key in journal.after if key.startswith("scsi")) == ["scsi1", "scsi2"]
    assert "scsihw" not in journal.after


def test_options_that_the_bus_does_not_have_are_dropped_and_kept_for_the_way_back() -> None:
    journal = begun({}, replace(WISHES, bus="virtio"))
    assert journal.after["virtio0"] == "local-lvm:vm-122-disk-0,cache=writeback,size=32G"
    assert journal.before["sata0"] == "local-lvm:vm-122-disk-0,cache=writeback,size=32G,ssd=1"
    assert journal.driver == "viostor"


def test_without_a_boot_order_the_new_one_is_said() -> None:
    """PVE would take the first disk that it finds in the new slots."""
    config = {"boot": "", "sata1": "", "scsihw": "virtio-scsi-single"}
    journal = begun(config)
    assert journal.before["boot"] is None
    assert journal.after["boot"] == "order=scsi0"


@pytest.mark.parametrize(
    ("config", "slot"),
    [
        ({}, "ide2"),
        ({"ide2": "", "machine": "pc-q35-9.2"}, "ide2"),
        ({"ide2": "local:iso/setup.iso,media=cdrom", "machine": "q35"}, "ide0"),
        ({"ide2": "local:iso/setup.iso,media=cdrom"}, "ide0"),
        ({"ide2": "local:iso/setup.iso,media=cdrom", "ide0": "none,media=cdrom"}, "ide0"),
        ({**{f"ide{n}": f"local:iso/{n}.iso,media=cdrom" for n in range(4)}}, "sata2"),
    ],
)
def test_where_the_iso_goes(config: dict[str, str], slot: str) -> None:
    journal = begun(config)
    media = [key for key, text in journal.equipment.items() if text and "media=cdrom" in text]
    assert media == [slot]
    assert "boot" in journal.before


def test_an_iso_that_windows_sees_already_is_used() -> None:
    assert set(begun({"ide2": f"{ISO},media=cdrom"}).equipment) == {"scsi0", "scsihw"}


def test_a_driver_that_is_there_needs_no_equipment() -> None:
    """A data disk is on VirtIO already, so Windows has proven it."""
    config = {"scsihw": "virtio-scsi-single", "scsi3": "tank:vm-122-disk-9,size=1G"}
    journal = begun(config, installed={"vioscsi"})
    assert journal.equipment == {}
    assert journal.proof == "Windows Server 2022 starts vioscsi while it boots"


def test_another_controller_alone() -> None:
    """Disks on PVSCSI stay in their slots; Windows can't see the new controller beside the old one."""
    disks = {"sata0": "", "sata1": "", "scsi0": CONFIG["sata0"], "boot": "order=scsi0", "scsihw": "pvscsi"}
    refused = assess(World({**{k: v for k, v in {**CONFIG, **disks}.items() if v}}).situation(WISHES, Memory()))
    assert refused.standing is Standing.NEEDS_DRIVERS
    journal = begun(disks, replace(WISHES, staging="offline"), running=False)
    assert (journal.before, journal.after) == ({"scsihw": "pvscsi"}, {"scsihw": "virtio-scsi-single"})


def test_standings() -> None:
    def standing(config: dict[str, str], **world: Any) -> tuple[Standing, str]:
        merged = {key: text for key, text in {**CONFIG, **config}.items() if text}
        found = assess(World(merged, **world).situation(Wishes(), Memory()))
        return found.standing, found.reason

    on_virtio = {"sata0": "", "sata1": "", "scsi0": CONFIG["sata0"], "scsihw": "virtio-scsi-single"}
    assert standing({**on_virtio, "boot": "order=scsi0"}) == (Standing.ON_VIRTIO, "")
    assert standing({}) == (Standing.NEEDS_DRIVERS, "vioscsi is not installed")
    assert standing({}, agent=False)[1] == "its agent does not answer, so nobody can say which drivers it has"
    assert standing({}, running=False)[1] == "it is stopped, so nobody can say which drivers it has"
    assert standing({"ostype": "l26"})[0] is Standing.IMPOSSIBLE
    assert standing({"boot": "order=scsi0", "sata0": "", "scsi0": CONFIG["sata0"], "scsihw": "virtio-scsi-single"}) == (
        Standing.STAGED,
        "it starts from scsi0 already",
    )


def test_a_forecast_ends_as_the_run_does_and_touches_nothing() -> None:
    world = World()
    before = dict(world.config)
    told = foretell(world.situation(WISHES, Memory()))
    assert (told.end.state.value, told.changes, told.idle) == ("committed", True, False)
    assert (world.config, world.history) == (before, [])


def test_a_windows_that_can_not_say_what_it_hangs_on_is_refused() -> None:
    """After three restarts nobody would know whether it went well."""
    now = World().situation(WISHES, Memory())
    assert now.windows is not None
    for disk in (None, replace(now.windows.boot_disk, service=None)):  # type: ignore[type-var]
        (refusal,) = assess(replace(now, windows=replace(now.windows, boot_disk=disk))).refusals
        assert refusal.problem.startswith("Windows can't say which driver its system disk hangs on")


GUEST = ("VM.Audit", "VM.Config.CDROM", "VM.Config.Disk", "VM.Config.HWType", "VM.Config.Options", "VM.PowerMgmt")
GUEST += ("VM.Snapshot", "VM.GuestAgent.Unrestricted")
ALL = {"/vms/122": frozenset(GUEST), "/storage/local": frozenset({"Datastore.Audit"})}
ALL |= {"/storage/local-lvm": frozenset({"Datastore.AllocateSpace"})}


def lacks(held: dict[str, frozenset[str]], wishes: Wishes = WISHES, **world: Any) -> str:
    now = World(**world).situation(wishes, Memory())
    refusals = assess(replace(now, held=held)).refusals
    return "; ".join(one.problem for one in refusals)


def test_rights_that_are_missing_are_told_in_one_list() -> None:
    assert lacks(ALL) == ""
    assert lacks({}) == (
        "the user lacks VM.Audit, VM.Config.CDROM, VM.Config.Disk, VM.Config.HWType, VM.Config.Options, VM.PowerMgmt,"
        " VM.Snapshot, VM.GuestAgent.Unrestricted (before Proxmox VE 9 VM.Monitor) on /vms/122 and"
        " Datastore.AllocateSpace on /storage/local-lvm and Datastore.AllocateSpace on /storage/local"
    )


def test_rights_that_are_not_needed_are_not_asked_for() -> None:
    """Of a Windows that has the driver, or gets it into its disk, no storage is written to."""
    on_guest = {"/vms/122": frozenset(GUEST)}
    needs = "the user lacks Datastore.AllocateSpace on /storage/local-lvm and Datastore.AllocateSpace on /storage/local"
    assert lacks(on_guest) == needs
    assert lacks(on_guest, replace(WISHES, staging="offline")) == ""
    assert lacks(on_guest, replace(WISHES, injected=frozenset({"vioscsi"})), running=False) == ""
    older = frozenset(GUEST) - {"VM.GuestAgent.Unrestricted", "VM.Snapshot"} | {"VM.Monitor"}
    assert lacks({**ALL, "/vms/122": older}, replace(WISHES, snapshot="never")) == ""


def test_a_migration_that_is_under_way_waits_for_rights() -> None:
    """It is not turned back because of who runs it."""
    world = World(agent=False)
    assert run(world, WISHES).state is State.NEEDS_INJECTION
    now = replace(world.situation(WISHES, Memory()), held={**ALL, "/vms/122": frozenset(GUEST) - {"VM.PowerMgmt"}})
    end = next_step(now)
    assert isinstance(end, End)
    assert (end.state, end.reason) == (
        State.REFUSED,
        "the user lacks VM.PowerMgmt on /vms/122; grant it, and run again",
    )
