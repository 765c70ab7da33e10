# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new guest is to be: read, written as PVE does, and compared with a guest that is there."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.definition import (
    NIC_MODELS,
    OSTYPES,
    Definition,
    find_differences,
    read_definition,
    read_nic,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def sound(**data: Any) -> Definition:
    definition, refusals = read_definition({"node": "pve1", "vmid": 100, **data})
    assert not refusals, refusals
    return definition


def against(**data: Any) -> str:
    _definition, refusals = read_definition({"node": "pve1", "vmid": 100, **data})
    (refusal,) = refusals
    return str(refusal)


def test_texts_are_pves() -> None:
    definition = sound(
        memory=2048, cpu="host", agent="True", tags=["Web", "old", "web"], onboot=True, description=" a\nb \n",
        net=[{"slot": "net0", "model": "e1000", "macaddr": "bc:24:11:00:00:01", "bridge": "vmbr0", "link_down": True},
             {"slot": "net1", "tag": 12}],
    )  # fmt: skip
    assert definition.texts == {
        "memory": "2048",
        "cpu": "cputype=host",
        "agent": "enabled=1",
        "tags": "old;web",
        "onboot": "1",
        "description": "a\nb",
        "net0": "e1000=BC:24:11:00:00:01,bridge=vmbr0,link_down=1",
        "net1": "virtio,tag=12",
    }


def test_what_is_empty_is_not_sent() -> None:
    assert sound(tags=[], description="").texts == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"memory": 8}, "100: memory=8: is not allowed; write a whole number of at least 16"),
        (
            {"agent": "{'enabled': True}"},  # a dictionary, as Ansible makes a text of it
            "100: agent={'enabled': True}: is not allowed; write true, false, or as PVE does, such as enabled=1,fstrim",
        ),
        ({"agent": "enabled=1,fstrim={}"}, "; write true, false, or as PVE does, such as enabled=1,fstrim_"),
        ({"agent": ""}, "; write true, false, or as PVE does"),
        ({"cores": 0}, "100: cores=0: is not allowed; write a whole number of at least 1"),
        ({"machine": "q36"}, "100: machine=q36: is not allowed; write pc, q35, or one with its version, such as"),
        ({"cpu": ""}, "write it as PVE does"),
        ({"cpu": "host,flags=a,flags=b"}, "'flags' is given twice"),
        ({"tags": ["a b"]}, "tags are letters, digits"),
        ({"ostype": "win12"}, "100: ostype=win12: is not allowed; write one of other, wxp"),
        ({"description": "x" * 8193}, "at most 8192 characters"),
        ({"vmid": 99}, "99: vmid=99: is not allowed; write a number from 100 to 999999999"),
        ({"name": "web_1"}, "web_1 (100): name=web_1: is not allowed; a guest's name is letters, digits and hyphens"),
        ({"vmid": None}, "give a number, or a name"),
        ({"net": [{"slot": "net32"}]}, "100: net32: slot=net32: is not allowed; the slots of network cards are"),
        ({"net": [{"slot": "net0"}, {"slot": "net0"}]}, "100: net0: slot=net0: is not allowed; declare each slot once"),
        ({"net": [{"slot": "net0", "macaddr": "01:00:5E:00:00:01"}]}, "the address of one card"),
        ({"net": [{"slot": "net0", "tag": 4095}]}, "100: net0: tag=4095: is not allowed; write a whole number from 1"),
        ({"net": [{"slot": "net0", "bridge": "a,b"}]}, "write the name of a bridge"),
    ],
)
def test_mistakes_say_what_is_allowed(data: dict[str, Any], message: str) -> None:
    assert message in against(**data)


def test_all_mistakes_are_reported_together() -> None:
    _definition, refusals = read_definition(
        {"node": "pve1", "vmid": 1, "memory": 1, "net": [{"slot": "net0", "mtu": 0, "rate": "x"}]}
    )
    assert [refusal.option for refusal in refusals] == ["memory", "mtu", "rate", "vmid"]


@pytest.mark.parametrize(
    ("data", "config"),
    [
        ({"memory": 512, "cores": 1, "sockets": 1, "onboot": False, "agent": "false", "tags": []}, {}),
        ({"bios": "seabios", "machine": "pc", "scsihw": "lsi", "ostype": "other", "cpu": "kvm64"}, {}),
        ({"cpu": "host,flags=+aes"}, {"cpu": "flags=+aes,cputype=host"}),
        ({"agent": "1"}, {"agent": "enabled=1"}),
        ({"agent": "enabled=1,type=isa"}, {"agent": "1,type=isa"}),
        ({"machine": "q35"}, {"machine": "pc-q35-10.0+pve1"}),
        ({"machine": "pc"}, {"machine": "pc-i440fx-10.0+pve1"}),
        ({"tags": ["b", "A"]}, {"tags": "a;b"}),
        ({"description": "text"}, {"description": 'text\n\n<!-- diskwright: {"start": true} -->'}),
        ({"net": [{"slot": "net0", "bridge": "vmbr0"}]}, {"net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=4"}),
        ({"net": [{"slot": "net0", "firewall": False}]}, {"net0": "virtio=BC:24:11:00:00:01"}),
    ],
)
def test_the_same_in_another_spelling(data: dict[str, Any], config: dict[str, str]) -> None:
    assert find_differences(sound(**data), config) == {}


@pytest.mark.parametrize(
    ("data", "config", "name", "actual"),
    [
        ({"memory": 1024}, {}, "memory", None),
        ({"memory": 1024}, {"memory": "2048"}, "memory", "2048"),
        ({"machine": "q35"}, {"machine": "pc-i440fx-9.2"}, "machine", "pc-i440fx-9.2"),
        ({"machine": "pc-q35-9.2"}, {"machine": "pc-q35-10.0"}, "machine", "pc-q35-10.0"),
        ({"net": [{"slot": "net1"}]}, {"net0": "virtio=BC:24:11:00:00:01"}, "net1", None),
        ({"net": [{"slot": "net0"}]}, {"net0": "e1000=BC:24:11:00:00:01"}, "net0", "e1000=BC:24:11:00:00:01"),
        ({"cores": 2}, {"cores": "many"}, "cores", "many"),
    ],
)
def test_differences(data: dict[str, Any], config: dict[str, str], name: str, actual: str | None) -> None:
    assert {key: one.actual for key, one in find_differences(sound(**data), config).items()} == {name: actual}


MACS = st.builds(lambda parts: ":".join(["52", *(f"{part:02X}" for part in parts)]), st.lists(
    st.integers(0, 255), min_size=5, max_size=5))  # fmt: skip
NICS = st.fixed_dictionaries(
    {"model": st.sampled_from(NIC_MODELS)},
    optional={
        "macaddr": MACS,
        "bridge": st.from_regex(r"[-_.a-z0-9]{1,9}", fullmatch=True),
        "tag": st.integers(1, 4094),
        "firewall": st.booleans(),
        "link_down": st.booleans(),
        "rate": st.floats(0, 1000).map(lambda number: round(number, 3)),
    },
)
DECLARED = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.integers(16, 10**7),
        "cores": st.integers(1, 512),
        "ostype": st.sampled_from(OSTYPES),
        "machine": st.sampled_from(["pc", "q35", "pc-q35-9.2+pve1"]),
        "agent": st.sampled_from(["1", "false", "enabled=1,fstrim_cloned_disks=1"]),
        "tags": st.lists(st.from_regex(r"[A-Za-z0-9_][a-z0-9_.+-]{0,5}", fullmatch=True), max_size=4),
        "onboot": st.booleans(),
        "net": st.lists(NICS, max_size=4).map(
            lambda cards: [{"slot": f"net{number}", **card} for number, card in enumerate(cards)]
        ),
    },
)


@settings(deadline=None)
@given(DECLARED)
def test_what_was_written_is_no_difference(data: dict[str, Any]) -> None:
    definition = sound(**data)
    assert find_differences(definition, definition.texts) == {}
    for slot, nic in definition.nics.items():
        assert read_nic(definition.texts[slot]) == nic
