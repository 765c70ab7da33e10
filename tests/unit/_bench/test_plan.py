# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans: every combination once in each round, the null comparison, and time that is told beforehand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.combination import Combination
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.plan import (
    FEWEST_ROUNDS,
    WITH_KVM,
    Costs,
    Plan,
    Settings,
    in_words,
    make_plan,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import TABLE, parse_workloads
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import ParseError
from hypothesis import given
from hypothesis import strategies as st

ALL = tuple(TABLE.values())
COSTS = Costs(boot=10, between=2, fill=100 * 1024**2)


def combination(number: int, place: str = "fast") -> Combination:
    caches = ("none", "directsync", "writethrough", "writeback", "unsafe")
    bus, cache = divmod(number, len(caches))
    return Combination(place, "raw", ("scsi", "virtio", "sata", "ide")[bus], caches[cache], "io_uring")


def plan(count: int = 4, rounds: int = 5, limit: int = 0, seed: int = 1) -> Plan:
    settings = Settings(ALL, rounds=rounds, seconds=20, ramp=3, size=1024**3, seed=seed, time_limit=limit)
    return make_plan([combination(number) for number in range(count)], settings, COSTS)


@given(st.integers(1, 20), st.integers(FEWEST_ROUNDS, 8), st.integers(0, 1000))
def test_every_round_has_every_combination_once_and_the_first_twice(count: int, rounds: int, seed: int) -> None:
    found = plan(count, rounds, seed=seed)
    expected = Counter({combination(number).key: 1 for number in range(count)})
    expected[combination(0).key] = 2
    assert [trial.number for trial in found.trials] == list(range(1, len(found.trials) + 1))
    for number in range(1, rounds + 1):
        trials = [trial for trial in found.trials if trial.round == number]
        assert Counter(trial.combination.key for trial in trials) == expected
        assert sorted(trial.side for trial in trials if trial.side) == ["A", "B"]
        assert all(sorted(trial.workloads) == sorted(TABLE) for trial in trials)
    assert found.nulls == (combination(0).key,)


def test_same_seed_same_plan() -> None:
    assert plan() == plan()
    assert plan().fingerprint == plan().fingerprint
    other = plan(seed=2)
    assert [trial.combination.key for trial in other.trials] != [trial.combination.key for trial in plan().trials]
    assert len({plan().fingerprint, other.fingerprint, plan(5).fingerprint, plan(rounds=6).fingerprint}) == 4


def test_rounds_and_workloads_are_in_an_order_of_their_own() -> None:
    found = plan(count=8)
    orders = {tuple(trial.combination.key for trial in found.trials if trial.round == number) for number in range(1, 6)}
    assert len(orders) == 5
    assert len({trial.workloads for trial in found.trials}) > len(found.trials) / 2


def test_each_place_has_a_null_comparison() -> None:
    combinations = [combination(0), combination(1), combination(0, "slow"), combination(1, "slow")]
    found = make_plan(combinations, Settings(ALL), COSTS)
    assert found.nulls == (combinations[0].key, combinations[2].key)
    assert len(found.trials) == 5 * 6
    assert found.layouts == ("fast/raw", "slow/raw")


def test_estimate_adds_up() -> None:
    found = plan(count=4)
    # One volume is filled; five rounds of four combinations and the null's second; boot; nine workloads, one a trace.
    trial = 10 + 9 * (20 + 2) + 8 * 3
    assert found.seconds_left() == round(1024 / 100 + 0.5) + 25 * trial
    done = {trial.number for trial in found.trials[:10]}
    assert found.seconds_left(done) == 15 * trial
    assert found.seconds_left(done, replace(COSTS, boot=20)) == 15 * (trial + 10)
    assert found.seconds_left({trial.number for trial in found.trials}) == 0
    assert found.summary == "4 combinations x 5 rounds x 9 workloads of 20 s: 25 starts of the guest, about 1 h 40 min"


def test_a_matrix_of_hours_says_so() -> None:
    settings = Settings(ALL, rounds=5, seconds=30, ramp=5)
    found = make_plan([combination(number) for number in range(20)], settings, WITH_KVM)
    assert in_words(found.seconds_left()) == "9 h 30 min"


def test_time_limit_leaves_out_rounds_first_and_says_so() -> None:
    whole = plan(count=4).seconds_left()
    found = plan(count=4, limit=whole - 1)
    assert found.settings.rounds == 4
    assert found.seconds_left() < whole
    assert [(row.what, row.reason) for row in found.left_out] == [
        ("rounds 5 to 5", "All of it takes 1 h 40 min, and time_limit is 1 h 40 min.")
    ]


def test_time_limit_leaves_out_the_last_combinations_then() -> None:
    found = plan(count=4, limit=40 * 60)
    assert found.settings.rounds == FEWEST_ROUNDS
    assert [one.key for one in found.combinations] == sorted(combination(number).key for number in range(2))
    assert [row.what for row in found.left_out] == ["rounds 4 to 5", combination(2).key, combination(3).key]


@given(st.integers(1, 20), st.integers(30 * 60, 10 * 3600))
def test_what_is_planned_fits_or_is_refused(count: int, limit: int) -> None:
    found = plan(count, limit=limit)
    assert found.seconds_left() <= limit
    assert len(found.combinations) + sum("/" in row.what for row in found.left_out) == count
    assert found.trials[0].combination.place == "fast" and found.nulls == (combination(0).key,)


def test_time_that_is_too_little_for_anything() -> None:
    with pytest.raises(ParseError) as raised:
        plan(limit=60)
    assert str(raised.value) == (
        "time_limit: 60 s is too little; the smallest plan, one combination, takes 24 min: give it more, or fewer"
        " workloads, or seconds"
    )


def test_settings_that_are_wrong_are_all_named() -> None:
    settings = Settings((), rounds=2, seconds=0, ramp=-1, size=1024, time_limit=-5)
    with pytest.raises(ParseError) as raised:
        make_plan([combination(0)], settings, COSTS)
    assert str(raised.value).splitlines() == [
        "workloads: none is named",
        "repetitions: 2 is too few to tell a difference from noise; write 3 or more",
        "seconds: 0 is too short; write 1 or more",
        "ramp: -1 is negative; write 0 or more",
        "size: 1 KiB is too small; write 64 MiB or more, and better more than the storage can cache",
        "time_limit: -5 is negative; write 0 for no limit",
    ]


def test_one_workload() -> None:
    found = make_plan([combination(0)], Settings(parse_workloads(["boot"]), rounds=3, size=1024**3), COSTS)
    assert found.seconds_left() == 11 + 6 * (10 + 20 + 2)
    assert found.summary == "1 combination x 3 rounds x 1 workload of 20 s: 6 starts of the guest, about 4 min"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (91, "2 min"), (5400, "1 h 30 min"), (7200, "2 h"), (172800, "2 d"), (18e4, "2 d 2 h")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
