# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every plan that takes disks from other guests, whatever the guests and the declaration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ansible_collections.diskwright.proxmox.plugins.module_utils._core.actions import Call, CallKind, Reassign
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive import Drive
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.guest import Guest, Snapshot
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.layout import Layout, read_layout
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import STRUCTURAL, TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.plan import Giver, Plan
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.reassign import drive_at
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import Slot, find_slot
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from unit._core import worlds
from unit._core.planning import World, make_guest, shape
from unit._core.worlds import SLOTS, UNKNOWN

bounded = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
GIVERS = {"old1": 200, "201": 201}


@st.composite
def givers(draw: st.DrawFn, name: str) -> Giver:
    """A guest with the same kinds of drives, now and then one that gives nothing."""
    vmid = GIVERS[name]
    if draw(st.integers(0, 19)) == 0:
        return Giver(None, ("there is no such guest", "name another one"))
    volumes = [f"{storage}:vm-{vmid}-disk-{number}" for storage in ("local-lvm", "tank") for number in range(4)]
    slots = draw(st.lists(st.sampled_from(SLOTS), unique=True, min_size=1, max_size=4))
    config = {
        slot: worlds.text(volumes.pop(), {**draw(worlds.options(worlds.bus_of(slot))), "size": "3G"}) for slot in slots
    }
    if draw(st.integers(0, 3)) == 0:
        config |= {"ide2": "none,media=cdrom"}
    config |= {f"unused{number}": volumes.pop() for number in draw(st.sets(st.integers(0, 1)))}
    config |= {"boot": f"order={';'.join(slots)}"}
    config |= draw(st.sampled_from((*[{}] * 10, {"lock": "backup"}, {"protection": "1"})))
    guest = make_guest(config, running=draw(st.integers(0, 9)) == 0, vmid=vmid, name=f"g{vmid}")
    held = frozenset(drive.volume for drive in guest.configured.drives.values())
    snapshots = draw(st.sampled_from((*[()] * 10, (Snapshot("before", held),))))
    missing = draw(st.sampled_from((*[()] * 10, ("VM.Config.Disk on /vms/200",))))
    return Giver(guest, snapshots=snapshots, missing=missing)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Guest, Layout, World]:
    guest = draw(worlds.guests())
    if draw(st.integers(0, 3)) == 0:  # the first disk of a guest that starts from nothing
        guest = make_guest({"boot": " ", "description": "web server"}, running=draw(st.booleans()))
    others = {name: draw(givers(name)) for name in GIVERS}
    entries: list[dict[str, Any]] = []
    chosen: set[tuple[str, Slot]] = set()
    taken = {str(slot) for slot in (*guest.configured.drives, *guest.live.drives)} if draw(st.integers(0, 7)) else set()
    free = [slot for slot in SLOTS if slot not in taken]
    for slot in draw(st.lists(st.sampled_from(free), unique=True, min_size=1, max_size=3)):
        bus = worlds.bus_of(slot)
        entry: dict[str, Any] = {"slot": slot, **draw(worlds.options(bus, known_only=True))}
        entry["moved_from_guest"] = draw(st.sampled_from(sorted(GIVERS)))
        there = others[entry["moved_from_guest"]].guest
        known = [] if there is None else [*there.configured.drives, *there.configured.unused]
        known = [source for source in known if (entry["moved_from_guest"], source) not in chosen]
        source = draw(st.sampled_from(known or [Slot("scsi", 2)]))
        chosen.add((entry["moved_from_guest"], source))
        entry["moved_from"] = str(source) if draw(st.integers(0, 14)) else "scsi2"
        entry |= draw(st.sampled_from(({}, {}, {"size": 6}, {"storage": "local"}, {"storage": "tank", "size": 7})))
        entry["unset"] = [name for name in draw(st.sampled_from(([], [], ["cache"], ["serial"]))) if name not in entry]
        entries.append(entry)
    data: dict[str, Any] = {"vmid": 100, "name": "web1", "disks": entries}
    data["undeclared"] = draw(st.sampled_from(("keep", "keep", "detach")))
    data["power"] = draw(st.sampled_from(("never", "stop_if_needed")))
    if draw(st.integers(0, 3)) == 0:
        data["boot"] = draw(st.lists(st.sampled_from([entry["slot"] for entry in entries]), unique=True, max_size=2))
    layout, refusals = read_layout(data)
    assume(not refusals)
    world = replace(worlds.world(), givers=others)
    volumes = {name: volume for name, volume in world.volumes.items() if volume is not None}
    sizes = {drive: replace(next(iter(volumes.values())), volid=drive) for drive in _unused(others)}
    return guest, layout, replace(world, volumes={**volumes, **sizes})


def _unused(others: dict[str, Giver]) -> Iterator[str]:
    for giver in others.values():
        if giver.guest is not None:
            yield from giver.guest.configured.unused.values()


def states(guest: Guest, plan: Plan, world: World) -> Iterator[tuple[Guest, World, tuple[Call, ...]]]:
    """The guest and the others before the first call and after each, with the calls that are left."""
    yield guest, world, plan.calls
    for done, after in enumerate(world.after(guest, plan.calls), 1):
        yield after, world.once(plan.calls[:done]), plan.calls[done:]


def check_what_pve_checks(call: Call, world: World) -> None:
    """The conditions under which PVE hands a disk over."""
    assert call.giver is not None
    (giver,) = [one for one in world.givers.values() if one.guest and one.guest.vmid == call.giver.vmid]
    there = giver.guest
    assert there is not None
    assert not (there.lock or there.template or there.protection)
    source, target = find_slot(call.parameter("disk") or ""), find_slot(call.parameter("target-disk") or "")
    assert source is not None
    assert target is not None
    assert source.is_unused or not there.running
    drive = drive_at(there, source)
    assert drive is not None
    assert drive.is_disk
    assert not any(drive.volume in snapshot.volumes for snapshot in giver.snapshots)
    names = {key for key, _value in drive.options} - STRUCTURAL - UNKNOWN
    assert all(target.bus in TABLE[name].buses for name in names)


def disks(guest: Guest | None) -> int:
    """How many disks a guest has, in slots and unused."""
    if guest is None:
        return 0
    return sum(drive.is_disk for drive in guest.configured.drives.values()) + len(guest.configured.unused)


def all_disks(guest: Guest, world: World) -> int:
    return disks(guest) + sum(disks(giver.guest) for giver in world.givers.values())


def kept(before: Drive, after: Drive) -> bool:
    """Whether options came along that this collection does not know."""
    return all(after.get(name) == before.get(name) for name in UNKNOWN)


@bounded
@given(situations())
def test_laws(situation: tuple[Guest, Layout, World]) -> None:
    guest, layout, world = situation
    plan = world.plan(guest, layout)
    assert not (plan.refusals and plan.calls)
    taken = [action for action in plan.actions if isinstance(action, Reassign)]
    event(f"{len(taken)} disks taken, {'refused' if plan.refusals else 'planned'}")
    assert max(Counter((one.giver.vmid, one.source) for one in taken).values(), default=1) == 1
    for now, others, left in states(guest, plan, world):
        again = others.plan(now, layout)
        assert [str(refusal) for refusal in again.refusals] == [str(refusal) for refusal in plan.refusals]
        assert [shape(call) for call in again.calls] == [shape(call) for call in left]
        if left and left[0].kind is CallKind.REASSIGN:
            check_what_pve_checks(left[0], others)
            assert now.configured.drives.get(find_slot(left[0].parameter("target-disk") or "")) is None  # type: ignore[arg-type]
    moves = sum(action.verb == "move" for action in plan.actions)
    assert all_disks(guest, world) + moves == all_disks(plan.after, world.once(plan.calls))
    for one in taken:
        assert one.slot is not None
        assert kept(one.before, plan.after.configured.drives[one.slot])
    assert "diskwright" not in (plan.after.configured.description or "")
