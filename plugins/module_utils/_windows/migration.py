# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The migration of a Windows to VirtIO as a state machine: what is so now in, the next step or the end out. Pure.

It remembers nothing but the journal (note.py), which is in the guest's own configuration. Everything else is looked at
anew before each step. So a run may be killed anywhere, a call may fail or be carried out twice, and somebody else may
change the guest in between: the next step is always worked out from what there is.

============  =======================================================================================================
phase         what is done in it, and what has to be so before it is left
============  =======================================================================================================
(none)        It is assessed. Left only when nothing speaks against it; then the journal is written first.
prepare       Windows is guarded, sees the ISO and a small disk in the new slot, and installs the driver for it. It is
              shut down, everything is put back as it was, and a snapshot is made. Left with the proof that Windows
              loads the driver while it boots (from Windows, or from the module windows_inject).
probation     One call brings the disks to their new slots. The guest is started. Left when Windows answers and says
              that it was started from VirtIO.
commit        Windows gets its own settings and drive letters back, the snapshot is deleted, the journal removed.
back          From anywhere before: stopped, one call brings everything to where it was, started, Windows answers,
              gets its own settings back, the snapshot is deleted. The reason stays in the journal.
============  =======================================================================================================
"""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._core.guards import find_leftovers
from .._core.power import agent_enabled
from .assessment import LOOK_AT_IT, Standing, assess, can_equip_running, guard_of, in_one_line, protected
from .inside import Windows
from .note import Guard, Journal, Phase
from .placement import Keys, differing, disks_in, doubles, helper_of, lost, occupied, places_of
from .releases import DRIVER_OF_BUS
from .rights import lacking
from .situation import Memory, Situation, can_start, missing, online_disks
from .steps import (
    Awaited,
    Configure,
    Destroy,
    End,
    Inside,
    Note,
    Power,
    Purpose,
    Revert,
    Snapshot,
    Stage,
    State,
    Step,
    Wait,
    sources_of,
)

#: Starts that BitLocker stays suspended for: with the helper, once more if it wants that, switched, and back.
_REBOOTS = 4
_MOST_STAGINGS = 2
_MOST_STARTS = 2
_GUARD, _ONLINE, _SETTLE, _LETTERS, _KEEP, _ENDED = "guard", "online", "settle", "letters", "keep", "ended"


def next_step(now: Situation) -> Step | End:
    """What is to be done next, or how it ends."""
    journal = now.journal
    if journal is None or journal.phase is Phase.ROLLED_BACK:
        return _ended(journal) if _ENDED in now.memory.done else _begin(now)
    if now.guest.lock:
        return _unlocked(now)
    online = journal.phase is Phase.PREPARE and journal.online and not journal.proof
    if lacks := lacking(now.held, now.guest, now.wishes, online=online, journal=journal):
        return End(State.REFUSED, f"the user lacks {lacks}; grant it, and run again")
    turned = _turned_back(now, journal)
    if turned is not None:
        return turned
    return _PHASES[journal.phase](now, journal)


# ---- the beginning


def _begin(now: Situation) -> Step | End:
    found = assess(now)
    if found.standing is not Standing.IMPOSSIBLE and (end := _unfit_verdict(now, found.standing)):
        return end
    if found.refusals:
        return End(State.REFUSED, in_one_line(found.refusals))
    if found.journal is not None:
        return Note(found.journal)
    if now.journal is None:
        return End(State.ON_VIRTIO)
    if found.standing is Standing.ROLLED_BACK:
        return _rolled_back(now.journal)
    return Note(None)  # somebody has brought it to VirtIO since


def _rolled_back(journal: Journal) -> End:
    return End(State.ROLLED_BACK, f"it was rolled back: {journal.reason}; write retry: true to try again")


def _unfit_verdict(now: Situation, standing: Standing) -> End | None:
    """A person's verdict on a guest of which no migration is under way, unless it is so already."""
    verdict = now.wishes.verdict
    on_virtio = standing is Standing.ON_VIRTIO
    if verdict == "agent" or (verdict == "commit" and on_virtio):
        return None
    if verdict == "roll_back" and on_virtio:
        reason = "it is on VirtIO, and no migration of it is under way that could go back"
        return End(State.REFUSED, f"verdict={verdict}: {reason}; see the guide 'How to get back by hand'")
    if now.journal is not None and (verdict == "roll_back" or not now.wishes.retry):
        return _rolled_back(now.journal)
    return End(State.REFUSED, f"verdict={verdict}: no migration of it is under way; remove verdict")


def _ended(journal: Journal | None) -> End:
    """How it has ended in this run. What comes after it is another run's affair."""
    if journal is None:
        return End(State.COMMITTED)
    return End(State.ROLLED_BACK, f"{journal.reason}; everything is as it was")


def _unlocked(now: Situation) -> Step | End:
    if Awaited.UNLOCKED.value in now.memory.late:
        return End(State.STUCK, f"it is locked ({now.guest.lock}); run again when the job that locked it has ended")
    return Wait(Awaited.UNLOCKED)


# ---- turning back


def _turned_back(now: Situation, journal: Journal) -> Step | End | None:
    """Whether to turn back: because a step failed, or because the user says so."""
    trouble = now.memory.trouble
    if journal.phase in (Phase.COMMIT, Phase.BACK):
        return End(State.STUCK, f"{_where(journal)}: {trouble}; run again") if trouble else None
    if trouble:
        return _back(now, trouble)
    if now.wishes.verdict == "roll_back":
        return _no_way_back(now, journal) or _back(now, "it was told to (verdict: roll_back)")
    return None


def _where(journal: Journal) -> str:
    if journal.phase is Phase.COMMIT:
        return "it runs on VirtIO, and tidying up failed"
    return f"going back ({journal.reason}) failed"


def _back(now: Situation, reason: str) -> Note:
    return Note(now.noting(phase=Phase.BACK, reason=reason))


# ---- prepare


def _prepare(now: Situation, journal: Journal) -> Step | End:
    if not journal.proof and journal.online:
        return _stage(now, journal)
    if now.guest.running:
        return _shut_down_guarded(now, journal)
    step = _as_before(now, journal)
    if step is not None:
        return step
    if journal.snapshot and journal.snapshot not in now.snapshots:
        return Snapshot(journal.snapshot)
    if journal.proof:
        return Note(now.noting(phase=Phase.PROBATION, switched=True))
    if journal.driver in now.wishes.injected:
        return Note(now.noting(proof=f"{journal.driver} was put into the stopped guest's disk"))
    if now.wishes.switch_without_proof:
        return Note(now.noting(proof="nothing but switch_without_proof"))
    return End(State.NEEDS_INJECTION, f"the stopped guest's disk needs {journal.driver} (module windows_inject)")


def _stage(now: Situation, journal: Journal) -> Step | End:
    """Windows installs its drivers."""
    windows = now.windows
    if not now.guest.running:
        return _equip_stopped(now, journal)
    if windows is None:
        return _await_agent(now, "before its disks were touched, its agent did not answer in time")
    if guarding := _guarding(now, journal, windows):
        return guarding
    if can_start(windows, journal.driver):
        return Note(now.noting(proof=f"{windows.product} starts {journal.driver} while it boots"))
    return _equip_running(now, journal) or _install(now, journal, windows)


def _equip_stopped(now: Situation, journal: Journal) -> Step | End:
    step = _clean(now) or _noted_helper(now, journal)
    if step is not None:
        return step
    if taken := occupied(now.guest.configured, journal.equipment, _ours(journal)):
        return _back(now, f"{', '.join(taken)} was taken by somebody else")
    if differing(now.guest.configured, journal.equipment):
        return Configure(Purpose.EQUIP, _changes(now, journal.equipment))
    return _start(now)


def _equip_running(now: Situation, journal: Journal) -> Step | None:
    if differing(now.guest.live, journal.equipment):
        if can_equip_running(now.guest, journal.equipment):
            return Configure(Purpose.EQUIP, _changes(now, journal.equipment))
        return _shut_down(now)
    return _noted_helper(now, journal)


def _install(now: Situation, journal: Journal, windows: Windows) -> Step:
    """Once, and when Windows wants to be restarted for it, once more after that."""
    memory, driver = now.memory, journal.driver
    if memory.stagings and not memory.starts:
        return _shut_down(now)
    if memory.stagings < _MOST_STAGINGS:
        return Stage((driver, *(name for name in DRIVER_OF_BUS.values() if name != driver)))
    return _back(now, f"{driver} was installed, and Windows would not start from it: {missing(windows, driver)}")


def _guarding(now: Situation, journal: Journal, windows: Windows) -> Step | None:
    """What Windows needs for its disks to change their bus, as far as it is not so. What it had is noted first."""
    if journal.guard is None:
        return Note(now.noting(guard=guard_of(windows), answered=True))
    if windows.powershell is None:
        return None  # nothing can be set in it
    settings: dict[str, t.Any] = {}
    if volumes := protected(windows):
        settings |= {"bitlocker": "suspended", "bitlocker_volumes": list(volumes), "bitlocker_reboots": _REBOOTS}
    if windows.fast_startup:
        settings["fast_startup"] = False
    if windows.san_policy not in (None, "online_all") and _may_come_online(journal):
        settings["san_policy"] = "online_all"
    return Inside(_GUARD, settings) if settings and _GUARD not in now.memory.done else None


def _may_come_online(journal: Journal) -> bool:
    """Whether other disks move with the boot disk. Not those that guests share: Windows must not bring them up."""
    moving = disks_in(journal.after).values()
    return len(moving) > 1 and not any(drive.get("shared") == "1" for drive in moving)


def _shut_down_guarded(now: Situation, journal: Journal) -> Step | End:
    if now.windows is not None:
        if guarding := _guarding(now, journal, now.windows):
            return guarding
    elif journal.answered and Awaited.AGENT.value not in now.memory.late:
        return Wait(Awaited.AGENT)
    return _shut_down(now)


def _shut_down(now: Situation) -> Step:
    """Off. By force only where the user allows it, or where its disks are not where it knows them and nobody answers:
    a Windows that does not start doesn't shut down either."""
    journal = now.journal
    moved = journal is not None and bool(set(disks_in(journal.before)) & set(differing(now.guest.live, journal.before)))
    return Power(on=False, hard=now.wishes.force_stop or (moved and now.windows is None))


def _ours(journal: Journal) -> frozenset[str]:
    """The volumes that this migration moves about."""
    moved = (*disks_in(journal.before).values(), *disks_in(journal.after).values())
    return frozenset({drive.volume for drive in moved} | ({journal.helper} if journal.helper else set()))


def _changes(now: Situation, keys: Keys) -> dict[str, str | None]:
    return {key: keys[key] for key in differing(now.guest.configured, keys)}


def _await_agent(now: Situation, late: str) -> Step | End:
    return _back(now, late) if Awaited.AGENT.value in now.memory.late else Wait(Awaited.AGENT)


# ---- what a stopped guest needs before anything is done to it


def _clean(now: Situation) -> Step | None:
    """Nothing waits: the next call would apply it."""
    keys = find_leftovers(now.guest)
    if not keys:
        return None
    journal = now.journal
    helper = helper_of(now.guest)
    if journal is not None and helper is not None and not journal.helper and ":" in helper.volume:
        return _noted(now, helper.volume)
    return Revert(keys)


def _noted_helper(now: Situation, journal: Journal) -> Step | None:
    """The volume of our temporary disk is known before anything can separate it from its mark."""
    helper = helper_of(now.guest)
    return _noted(now, helper.volume) if helper is not None and helper.volume != journal.helper else None


def _noted(now: Situation, volume: str) -> Note:
    return Note(now.noting(helper=volume))


def _as_before(now: Situation, journal: Journal) -> Step | None:
    """A stopped guest is as it was at the beginning, or this is what is left to do for that."""
    guest = now.guest
    step = _clean(now) or _noted_helper(now, journal)
    if step is not None:
        return step
    wrong = differing(guest.configured, journal.before, _ours(journal))
    if wrong:
        keys = {key: journal.before[key] for key in wrong}
        return Configure(Purpose.RESTORE, keys, places_of(guest.configured, keys))
    return _without_helper(now, journal)


def _without_helper(now: Situation, journal: Journal) -> Step | None:
    """The temporary disk goes, and nothing else: whatever the notes say, a volume of the guest's own is kept."""
    moved = {drive.volume for keys in (journal.before, journal.after) for drive in disks_in(keys).values()}
    gone = not journal.helper or now.guest.configured.unused_slot_of(journal.helper) is None
    return None if gone or journal.helper in moved else Destroy(journal.helper)


# ---- probation


def _probation(now: Situation, journal: Journal) -> Step | End:
    guest = now.guest
    if absent := lost(guest, journal.before):
        return _missing(absent)
    if differing(guest.live if guest.running else guest.configured, journal.after, _ours(journal)):
        return _switch(now, journal)
    if not guest.running:
        if now.memory.starts >= _MOST_STARTS:
            return _back(now, f"Windows went off by itself, {now.memory.starts} times")
        return _clean(now) or _start(now, "Windows has to answer from VirtIO, or everything goes back")
    return _judge(now, journal)


def _missing(volumes: tuple[str, ...]) -> End:
    one = len(volumes) == 1
    gone = "is neither in a slot nor among the unused volumes" if one else "are in no slot and not unused"
    them = "it" if one else "them"
    return End(
        State.STUCK,
        f"{', '.join(volumes)} {gone} any more: somebody has moved or removed {them}; put {them} back into a slot, or"
        " remove the comment of the migration from the guest's notes",
    )


def _switch(now: Situation, journal: Journal) -> Step | End:
    guest = now.guest
    if guest.running:  # on the old bus, because somebody has started it
        return _shut_down_guarded(now, journal)
    step = _clean(now)
    if step is not None:
        return step
    if taken := occupied(guest.configured, journal.after, _ours(journal)):
        return _back(now, f"{', '.join(taken)} was taken by somebody else")
    keys = {key: journal.after[key] for key in differing(guest.configured, journal.after, _ours(journal))}
    return Configure(Purpose.SWITCH, keys, sources_of(journal.before, keys))


def _judge(now: Situation, journal: Journal) -> Step | End:
    windows, wishes = now.windows, now.wishes
    if wishes.verdict == "commit":
        return Note(now.noting(phase=Phase.COMMIT))
    if windows is not None:
        held = windows.boot_disk.service if windows.boot_disk else None
        if (held or "").lower() == journal.driver:
            return _complete(now, journal, windows) or Note(now.noting(phase=Phase.COMMIT, answered=True))
        held = held or "an unknown driver"
        return _back(now, f"Windows came up, and its system disk hangs on {held} instead of {journal.driver}")
    if journal.answered:
        return _await_agent(now, "Windows did not answer in time after the switch")
    if not agent_enabled(now.guest) or Awaited.AGENT.value in now.memory.late:
        return End(State.NEEDS_VERDICT, LOOK_AT_IT)
    return Wait(Awaited.AGENT)


def _complete(now: Situation, journal: Journal, windows: Windows) -> Step | None:
    """Every disk that was online is online, and every volume that had a letter is there."""
    guard = journal.guard
    if guard is None or windows.powershell is None:
        return None
    if (offline := _offline(guard, windows)) and _ONLINE not in now.memory.done:
        return Inside(_ONLINE, {"online": offline})
    there = {volume.identity for volume in windows.volumes}
    gone = {letter: volume for letter, volume in guard.letters.items() if volume not in there}
    if not gone:
        return None
    if Awaited.VOLUMES.value in now.memory.late:
        return _back(now, f"Windows came up without {', '.join(sorted(gone))}")
    return Wait(Awaited.VOLUMES, tuple(sorted(gone.values())))


def _offline(guard: Guard, windows: Windows) -> list[str]:
    return [disk for disk in online_disks(windows, online=False) if disk in guard.online]


def _start(now: Situation, why: str = "") -> Step | End:
    """A guest is started only when no volume of it is in two slots: both would write to it."""
    return _twice(doubles(now.guest.configured)) or Power(on=True, why=why)


def _twice(volumes: tuple[str, ...]) -> End | None:
    if not volumes:
        return None
    if len(volumes) == 1:
        return End(State.STUCK, f"{volumes[0]} is in two slots; detach it from one of them, then run again")
    return End(State.STUCK, f"{', '.join(volumes)} are in two slots; detach each from one of them, then run again")


# ---- commit


def _commit(now: Situation, journal: Journal) -> Step | End:
    guest = now.guest
    if not journal.settled:
        step = _settle(now, journal)
        if step is not None:
            return step
    if not journal.ran and guest.running:
        return _shut_down(now)
    if end := _twice(doubles(guest.configured)):
        return end
    if journal.snapshot in now.snapshots and not now.wishes.keep_snapshot:
        return Snapshot(journal.snapshot, gone=True)
    return Note(None)


def _settle(now: Situation, journal: Journal) -> Step | End | None:
    """Windows gets its own settings back. ``None`` when it never had others."""
    guard, windows = journal.guard, now.windows
    if guard is None or _LETTERS in now.memory.done:
        return Note(now.noting(settled=True))
    if not now.guest.running:
        return _clean(now) or _start(now)
    if windows is None:
        if Awaited.AGENT.value in now.memory.late:
            return End(State.STUCK, _silent(journal))
        return Wait(Awaited.AGENT)
    settings = _settings(guard, windows)
    if settings and _SETTLE not in now.memory.done:
        return Inside(_SETTLE, settings)
    letters = _letters(guard, windows)
    return Inside(_LETTERS, {"letters": letters}) if letters else Note(now.noting(settled=True))


def _silent(journal: Journal) -> str:
    if journal.phase is Phase.COMMIT:
        return "it runs on VirtIO, and its agent does not answer, so its settings are not restored; run again"
    kept = f"; the snapshot {journal.snapshot} is kept" if journal.snapshot else ""
    return (
        f"it is back on its old bus ({journal.reason}), and Windows does not answer{kept}; look at its console, see the"
        " guide 'How to get back by hand', and run again"
    )


def _settings(guard: Guard, windows: Windows) -> dict[str, t.Any]:
    """What of its own Windows does not have now."""
    if windows.powershell is None:
        return {}
    settings: dict[str, t.Any] = {}
    states = windows.bitlocker or {}
    suspended = [volume for volume in guard.bitlocker if states.get(volume) == "suspended"]
    if suspended:
        settings |= {"bitlocker": "resumed", "bitlocker_volumes": suspended}
    if guard.fast_startup is not None and windows.fast_startup != guard.fast_startup:
        settings["fast_startup"] = guard.fast_startup
    if guard.san_policy is not None and windows.san_policy != guard.san_policy:
        settings["san_policy"] = guard.san_policy
    if offline := _offline(guard, windows):
        settings["online"] = offline
    return settings


def _letters(guard: Guard, windows: Windows) -> dict[str, str]:
    """Letters that belong to another volume than they did, of the volumes that are there."""
    there = {volume.identity for volume in windows.volumes} if windows.powershell else set()
    wrong = {letter: volume for letter, volume in guard.letters.items() if windows.letters.get(letter) != volume}
    return {letter: volume for letter, volume in wrong.items() if volume in there}


# ---- back


def _go_back(now: Situation, journal: Journal) -> Step | End:
    guest = now.guest
    if end := _no_way_back(now, journal):
        return end
    if guest.running:
        if differing(guest.live, journal.before, _ours(journal)):
            return _stop_to_go_back(now, journal)
        waiting = tuple(sorted(guest.changed_keys & set(journal.before)))
        step = _noted_helper(now, journal) or (Revert(waiting) if waiting else _without_helper(now, journal))
        if step is not None:
            return step
    else:
        step = _as_before(now, journal)
        if step is not None:
            return step
    return _restored(now, journal)


def _no_way_back(now: Situation, journal: Journal) -> End | None:
    """What keeps the disks from where they were, and only a person can put right."""
    state = now.guest.configured
    if absent := lost(now.guest, journal.before):
        return _missing(absent)
    if taken := occupied(state, journal.before, _ours(journal)):
        return End(State.STUCK, f"{', '.join(taken)} was taken by somebody else; empty it, and run again")
    return _twice(doubles(state, journal.before))


def _stop_to_go_back(now: Situation, journal: Journal) -> Step:
    switched = not differing(now.guest.live, journal.after)
    needed = journal.guard.controllers if journal.guard and switched and _KEEP not in now.memory.done else ()
    if now.windows is not None and now.windows.powershell is not None and needed:
        # Windows may have switched off the controllers that it was started without.
        return Inside(_KEEP, {"boot_start": list(needed)})
    return _shut_down(now)


def _restored(now: Situation, journal: Journal) -> Step | End:
    guest = now.guest
    if not journal.settled:
        if journal.ran and not guest.running:
            return _start(now)
        step = _settle(now, journal)
        if step is not None:
            return step
    if journal.ran != guest.running:
        return _start(now) if journal.ran else _shut_down(now)
    kept = journal.snapshot in now.snapshots and journal.switched and journal.guard is None
    if journal.snapshot in now.snapshots and not kept:
        return Snapshot(journal.snapshot, gone=True)
    note = f" (the snapshot {journal.snapshot} is kept, as nobody could ask Windows)" if kept else ""
    done = now.noting(phase=Phase.ROLLED_BACK, reason=f"{journal.reason}{note}")
    return Note(done, kept=journal.snapshot if kept else "")


def remember(memory: Memory, step: Step, before: Journal | None) -> Memory:
    """What a run knows after a step that was carried out.

    :param before: the journal before the step. A new phase begins with a new memory.
    """
    if isinstance(step, Wait):
        return memory
    if isinstance(step, Note) and before is not None and before.phase is not Phase.ROLLED_BACK:
        if step.journal is None or step.journal.phase is Phase.ROLLED_BACK:
            return Memory(done=frozenset({_ENDED}))
        if step.journal.phase is not before.phase:
            return Memory()
    known = replace(memory, late=frozenset(), trouble="")
    if isinstance(step, Inside):
        return replace(known, done=known.done | {step.name})
    if isinstance(step, Stage):
        return replace(known, stagings=known.stagings + 1, starts=0)
    if isinstance(step, Power) and step.on:
        return replace(known, starts=known.starts + 1)
    return known


_PHASES: t.Final = {
    Phase.PREPARE: _prepare,
    Phase.PROBATION: _probation,
    Phase.COMMIT: _commit,
    Phase.BACK: _go_back,
}
