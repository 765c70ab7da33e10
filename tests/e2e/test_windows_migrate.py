# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows guests go to VirtIO, or stay as they were, on a PVE that holds real images and plays the Windows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible import migration
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.windows_migrate import (
    WindowsMigrateInfo,
    info_spec,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve import agent, power, tasks
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Client
from e2e import rig
from e2e.migrations import (
    CONFIG,
    ISO,
    VMID,
    assert_data,
    hardware,
    inside,
    journal,
    migratable,
    migrate,
    notes,
    own_settings,
    switched,
)
from lab import Lab
from lab.windows import LETTERS


def standings(lab: Lab, client: Client | None = None, **params: Any) -> list[dict[str, Any]]:
    """What windows_migrate_info says."""
    defaults = {name: row.get("default") for name, row in info_spec().items()}
    with nullcontext(client) if client else rig.connect(lab) as connection:
        work = WindowsMigrateInfo(connection, {**defaults, "task_timeout": 60, **params})
        work.prepare()
        return list(work.result(executed=False).data["guests"])


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab answers at once; what is measured in seconds elsewhere is not waited for here."""
    monkeypatch.setattr(migration, "_PING_PAUSE", 0.0)
    monkeypatch.setattr(agent, "_FIRST_POLL", 0.002)
    monkeypatch.setattr(tasks, "_FIRST_POLL", 0.002)
    monkeypatch.setattr(power, "_FIRST_LOOK", 0.002)


def writes(lab: Lab) -> list[str]:
    """What was written to the guest, but for the scripts that ask Windows."""
    return [f"{one.method} {one.path}" for one in lab.writes() if "/agent/" not in one.path]


def without_cdrom(config: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in config.items() if key != "ide2"}


WAYS: dict[str, tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]] = {
    # Windows, configuration, the rest of the guest, options
    "server": ("2022", {}, {}, {}),
    "server with the controller that PVE takes by itself": ("2025", {"scsihw": "lsi"}, {}, {}),
    "german server": ({"release": "2016", "language": "de", "powershell": "5.1"}, {}, {}, {}),
    "client with fast startup and BitLocker": ({"release": "10", "bitlocker": {"C:": "on"}}, {}, {}, {}),
    "Windows 11 with a SAN policy": ({"release": "11", "san_policy": 4}, {}, {}, {}),
    "Windows 8": ("2012r2", {}, {}, {}),
    "Windows 7": ("7", {}, {}, {}),
    "stopped": ("2022", {}, {"running": False}, {"staging": "online"}),
    "kept snapshot": ("2022", {}, {}, {"keep_snapshot": True}),
    "no snapshot": ("2022", {}, {}, {"snapshot": "never"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_goes_to_virtio(way: str, tmp_path: Path) -> None:
    windows, config, guest, options = WAYS[way]
    with migratable(tmp_path, windows, config, **guest) as lab:
        before, own = hardware(lab), own_settings(lab)
        planned = migrate(lab, check=True, **options)
        assert (planned.state, planned.failure) == ("committed", None)
        assert planned.changed
        assert writes(lab) == []
        done = migrate(lab, **options)
        assert (done.state, done.failure) == ("committed", None)
        assert done.diff == planned.diff
        steps = [(step["what"], step["summary"]) for step in done.guest["actions"]]
        told = [(step["what"], step["summary"]) for step in planned.guest["actions"]]
        # A Windows that is off can't be asked, so what it needs set is not known; the plan says that.
        assert steps == told if "? windows" not in planned.diff else set(told) < set(steps)
        assert hardware(lab) == switched(before)
        assert (notes(lab), journal(lab)) == ("notes of mine", "")
        assert bool(lab.guest(VMID).running) == guest.get("running", True)
        assert bool(lab.guest(VMID).conf.snapshots) == bool(options.get("keep_snapshot"))
        if lab.guest(VMID).running:
            assert inside(lab).up
        assert own_settings(lab) == own
        assert_data(lab)
        assert_settled(lab, "on_virtio", **options)


def assert_settled(lab: Lab, state: str, **options: Any) -> None:
    """Another run has nothing to do."""
    seen = writes(lab)
    again = migrate(lab, **options)
    assert (again.state, again.changed, again.diff, again.failure) == (state, False, "", None)
    assert writes(lab) == seen


def test_virtio_block_and_the_boot_disk_alone(tmp_path: Path) -> None:
    with migratable(tmp_path) as lab:
        before = hardware(lab)
        assert migrate(lab, bus="virtio", data_disks=False).state == "committed"
        after = {("virtio0" if key == "sata0" else key): text for key, text in before.items()}
        after |= {"boot": "order=virtio0;net0", "virtio0": CONFIG["sata0"].replace(",ssd=1", "").replace("M,", "M")}
        found = hardware(lab)
        assert found.pop("virtio0").split(",")[0] == after.pop("virtio0").split(",")[0]
        assert found == after
        assert_settled(lab, "on_virtio", bus="virtio", data_disks=False)


def test_volumes_without_a_letter(tmp_path: Path) -> None:
    """A Windows that has more volumes than letters answers all the same."""
    with migratable(tmp_path, config={"ide2": f"{ISO},media=cdrom"}) as lab:
        inside(lab).letters = {f"another-{letter}": letter for letter in LETTERS}
        (standing,) = standings(lab)
        assert (standing["product"], standing["agent"]) == ("Windows Server 2022 Standard", True)
        assert [letter for _name, letter, _label in inside(lab).volume_ids(lab.guest(VMID))] == ["C:", None]


# ---- back


def does_not_come_up(lab: Lab) -> None:
    """Windows says that it has the driver, and does not start from it."""
    windows = inside(lab)
    answers = windows.answers
    windows.answers = lambda guest: answers(guest) and windows.disks(guest)[0][2] != "vioscsi"  # type: ignore[method-assign]


def comes_up_on_the_wrong_bus(lab: Lab) -> None:
    """Its system disk hangs on something else than it should."""
    windows = inside(lab)
    service_of = windows.service_of
    windows.service_of = lambda guest, slot: (  # type: ignore[method-assign]
        "LSI_SAS" if slot == "scsi0" and "disk-0" in guest.running.drives[slot] else service_of(guest, slot)
    )
    windows.services["LSI_SAS"].start = 0


def does_not_install(lab: Lab) -> None:
    inside(lab).fails = "stage"


def goes_off(lab: Lab) -> None:
    """A Windows that repairs itself for ever."""
    windows = inside(lab)
    answers = windows.answers

    def play(guest: Any) -> bool:
        if windows.disks(guest)[0][2] != "vioscsi":
            return answers(guest)
        guest.running = None
        return False

    windows.answers = play  # type: ignore[method-assign]


BAD: dict[str, tuple[Callable[[Lab], None], str]] = {
    "does not come up": (does_not_come_up, "Windows did not answer in time after the switch"),
    "wrong bus": (comes_up_on_the_wrong_bus, "its system disk hangs on LSI_SAS instead of vioscsi"),
    "does not install": (does_not_install, "Windows refused"),
}


@pytest.mark.parametrize("why", BAD)
@pytest.mark.parametrize("config", [{}, {"scsihw": "lsi"}], ids=["plugged", "restarted"])
def test_it_goes_back(why: str, config: dict[str, str], tmp_path: Path) -> None:
    spoil, reason = BAD[why]
    with migratable(tmp_path, {"release": "2022", "bitlocker": {"C:": "on"}}, config) as lab:
        before, own = hardware(lab), own_settings(lab)
        spoil(lab)
        ended = migrate(lab)
        assert ended.state == "rolled_back"
        assert ended.failure is not None
        assert reason in ended.failure
        assert hardware(lab) == before
        assert own_settings(lab) == own
        assert inside(lab).up
        assert lab.guest(VMID).running
        assert lab.guest(VMID).conf.snapshots == {}
        assert notes(lab) == "notes of mine"
        assert reason in journal(lab).replace("\\u003e", ">")
        assert_data(lab)
        assert_settled(lab, "rolled_back")
        assert "retry: true" in migrate(lab).warnings[0]


def test_several_reasons_are_one_line_without_the_guests_name(tmp_path: Path) -> None:
    """In the result, in tables and in its notes: the ISO has none of the drivers."""
    with migratable(tmp_path) as lab:
        inside(lab).media["virtio-win-0.1.271"] = {}
        ended = migrate(lab)
        assert ended.state == "rolled_back"
        reason = ended.guest["reason"]
        assert "drivers=vioscsi: " in reason
        assert ". drivers=viostor: " in reason
        for text in (reason, journal(lab)):
            assert "(122 on pve1)" not in text
            assert "\n" not in text.replace("\\n", "\n")
        assert ended.failure == f"win1 (122 on pve1): {reason}"


def test_it_is_tried_again_when_asked(tmp_path: Path) -> None:
    with migratable(tmp_path) as lab:
        inside(lab).fails = "stage"
        before = hardware(lab)
        assert migrate(lab).state == "rolled_back"
        inside(lab).fails = ""
        assert migrate(lab).state == "rolled_back"
        assert migrate(lab, retry=True).state == "committed"
        assert hardware(lab) == switched(before)
        assert journal(lab) == ""


def test_a_windows_that_does_not_shut_down(tmp_path: Path) -> None:
    """It is not switched off: everything goes back as far as it can, and the next run goes on."""
    with migratable(tmp_path) as lab:
        before = hardware(lab)
        lab.faults.deaf.add(VMID)
        stuck = migrate(lab, shutdown_timeout=1)
        assert stuck.state == "stuck"
        assert "did not within 1 s" in (stuck.failure or "")
        assert lab.guest(VMID).running
        lab.faults.deaf.clear()
        assert migrate(lab).state == "rolled_back"
        assert hardware(lab) == before
        assert_data(lab)
        assert migrate(lab, retry=True, force_stop=True).state == "committed"


# ---- without an agent


@pytest.mark.parametrize("config", [{}, {"agent": "0"}], ids=["agent enabled", "no agent"])
def test_without_an_agent_a_person_says_how_it_is(config: dict[str, str], tmp_path: Path) -> None:
    with migratable(tmp_path, None, config) as lab:
        before = hardware(lab)
        planned = migrate(lab, check=True)
        assert planned.state == "needs_offline_staging"
        # Nothing happens that was not told: what comes when the disk has the driver is told before the first step.
        needed = "  ? then      the stopped guest's disk needs vioscsi (module windows_inject)"
        first, later = planned.diff.split(needed)
        assert "sata0" not in first
        assert "> scsi0     was sata0" in later
        assert "> scsi1     was sata1" in later
        assert "~ boot      scsi0 net0" in later
        assert "? then      it was started from VirtIO and has no agent to say how it is: look at its console" in later
        assert [step["what"] for step in planned.guest["actions"]] == ["power", "snapshot"]
        off = migrate(lab)
        assert off.diff == planned.diff
        assert (off.state, off.failure, off.guest["volume"]) == (
            "needs_offline_staging",
            None,
            "local-lvm:vm-122-disk-0",
        )
        assert not lab.guest(VMID).running
        assert hardware(lab) == before
        assert_settled(lab, "needs_offline_staging")
        on = migrate(lab, injected=["vioscsi", "viostor"])
        said = "it was started from VirtIO and has no agent to say how it is: look at its console, then run again with"
        assert (on.state, on.guest["failed"]) == ("needs_verdict", True)
        assert said in (on.failure or "")
        assert lab.guest(VMID).running
        assert hardware(lab) == switched(before)
        seen = writes(lab)
        for check in (True, False):
            again = migrate(lab, check=check)
            assert (again.state, again.changed, again.diff) == ("needs_verdict", False, "")
            assert said in (again.failure or "")
        assert writes(lab) == seen
        (standing,) = standings(lab)
        assert (standing["standing"], standing["phase"]) == ("needs_verdict", "probation")
        assert standing["reason"].startswith(said)
        assert migrate(lab, verdict="commit").state == "committed"
        assert lab.guest(VMID).running
        assert lab.guest(VMID).conf.snapshots == {}
        assert_settled(lab, "on_virtio", verdict="commit")


def test_without_an_agent_a_person_can_send_it_back(tmp_path: Path) -> None:
    with migratable(tmp_path, None) as lab:
        before = hardware(lab)
        assert migrate(lab, switch_without_proof=True).state == "needs_verdict"
        told = migrate(lab, check=True, verdict="roll_back")
        back = migrate(lab, verdict="roll_back")
        assert (back.state, back.diff) == ("rolled_back", told.diff)
        assert "> sata0     was scsi0 " in back.diff
        assert "> sata1     was scsi1 " in back.diff
        assert "as it was at the beginning" in back.diff.partition("~ boot      sata0 net0")[2].partition("\n")[0]
        (warning,) = back.warnings
        assert "nobody can ask its Windows, so the snapshot before_virtio_" in warning
        assert told.warnings == back.warnings  # the snapshot stays: whoever reads the plan knows it too
        assert hardware(lab) == before
        assert lab.guest(VMID).running
        assert "is kept" in back.guest["reason"]
        assert list(lab.guest(VMID).conf.snapshots) == [re.findall(r"before_virtio_\w+", back.guest["reason"])[0]]
        assert_settled(lab, "rolled_back", verdict="roll_back")


def test_an_agent_that_comes_later_is_asked(tmp_path: Path) -> None:
    """The driver of the agent's channel can come with the others: then nobody has to look."""
    with migratable(tmp_path, "2022") as lab:
        lab.faults.agent_down.add(VMID)
        assert migrate(lab).state == "needs_offline_staging"
        windows = inside(lab)
        windows.services["vioscsi"] = type(windows.services["atapi"])()
        lab.faults.agent_down.clear()
        assert migrate(lab, injected=["vioscsi"]).state == "committed"
        assert_settled(lab, "on_virtio")


# ---- somebody else


def before_write(lab: Lab, number: int, act: Callable[[], Any]) -> list[bool]:
    """Does something right before the n-th write to the guest is carried out. :returns: whether it came to that."""
    run, seen, came = lab.server._run, [0], []

    async def hooked(route: Any, match: Any, call: Any, values: Any) -> Any:
        if call.method != "GET" and "/agent/" not in call.template:
            if seen[0] == number:
                came.append(True)
                answer = act()
                if answer is not None:
                    seen[0] += 1
                    return answer
            seen[0] += 1
        return await run(route, match, call, values)

    lab.server._run = hooked  # type: ignore[method-assign]
    return came


EVERY_FOURTH_OR_ALL = pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])


def each_write(folder: Path, stride: int, act: Callable[[Lab], Any]) -> Iterator[tuple[Lab, Any]]:
    """A run for each of the writes, on a new lab, in which something happens right before it."""
    for number in range(0, 60, stride):
        with migratable(folder / str(number)) as lab:
            came = before_write(lab, number, lambda: act(lab))
            outcome = migrate(lab)
            if not came:
                assert number > 10
                return
            yield lab, outcome
    raise AssertionError("a run without end")


@EVERY_FOURTH_OR_ALL
def test_somebody_else_changes_the_guest_before_each_write(stride: int, tmp_path: Path) -> None:
    """Something of their own: it stays, and the run looks again."""
    for lab, outcome in each_write(tmp_path, stride, lambda lab: lab.change(VMID, onboot="1")):
        assert (outcome.state, outcome.failure) == ("committed", None)
        assert hardware(lab)["onboot"] == "1"
        assert_data(lab)


@EVERY_FOURTH_OR_ALL
def test_each_write_fails(stride: int, tmp_path: Path) -> None:
    """Nothing of it is done: the guest ends as it was, or on VirtIO when it was proven already."""

    def refused(_lab: Lab) -> web.Response:
        return web.Response(status=500, reason="no space left on device")

    states = set()
    for lab, outcome in each_write(tmp_path, stride, refused):
        states.add(outcome.state)
        assert "no space left on device" in (outcome.failure or "")
        if outcome.state == "stuck":  # it could not note how far it has come, or was proven already
            assert migrate(lab).state == "committed"
        where = hardware(lab)
        assert ("sata0" in where, "scsi0" in where) in ((True, False), (False, True))
        assert inside(lab).up
        assert lab.guest(VMID).running
        assert lab.guest(VMID).conf.snapshots == {}
        assert_data(lab)
    assert states == {"stuck", "rolled_back"}


@EVERY_FOURTH_OR_ALL
def test_each_answer_is_lost(stride: int, tmp_path: Path) -> None:
    """The work is done and nobody hears of it: that is no failure."""

    def loses(lab: Lab) -> None:
        lab.faults.lose_answer("POST", r"/qemu/122/(config|status|snapshot)")
        lab.faults.lose_answer("PUT", r"/qemu/122/config")
        lab.faults.lose_answer("DELETE", r"/qemu/122/snapshot")

    for lab, outcome in each_write(tmp_path, stride, loses):
        assert (outcome.state, outcome.failure) == ("committed", None)
        assert_data(lab)
