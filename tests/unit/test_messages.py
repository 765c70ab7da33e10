# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the collection says when something goes wrong, in one voice: `python tests/tools/messages.py` prints it."""

from __future__ import annotations

import re

import pytest
from tools.messages import Message, error_classes, messages, trees

ALL = messages()
# What a message may begin with in upper case: names, and what stands for something that is filled in.
NAMES = ("PVE", "QEMU", "Windows", "GPT", "MBR", "DER", "OVF", "{")
VOICE = {
    "no full stop at the end": re.compile(r"(?<!\.)\.$"),
    "PVE, not its long name": re.compile("Proxmox VE"),
    "what to write is YAML, `option: value`; `option=value` is what was given": re.compile(
        r"\b(write|allow|set|add) [a-z_]+=(true|false|[a-z]+)\b"
    ),
    "can't": re.compile(r"\bcan(not| not)\b"),
    "what is allowed instead of names for being wrong": re.compile(r"(?i)\b(invalid|illegal|wrong value|bad \w+:)"),
    "a clause says what is so, not what was tried": re.compile(r"(?i)\b(failed to|unable to)\b"),
    "no shouting": re.compile(r"!(?!=|…)"),
}


def breaks(message: Message, rule: re.Pattern[str]) -> bool:
    text = message.text.replace("without '!…'", "")
    return bool(rule.search(re.sub(r"\{[^{}]*\}", "{}", text)))


@pytest.mark.parametrize("rule", VOICE, ids=list(VOICE))
def test_one_voice(rule: str) -> None:
    assert [message for message in ALL if breaks(message, VOICE[rule])] == []


def test_messages_begin_in_lower_case() -> None:
    """They come after a guest's, a file's or an option's name."""
    assert [one for one in ALL if one.text[:1].isupper() and not one.text.startswith(NAMES)] == []


def test_all_kinds_of_messages_are_found() -> None:
    """One that is raised, a refusal of a plan, one that goes through helpers, one of an image, one of a filter."""
    texts = "\n".join(one.text for one in ALL)
    assert len(ALL) > 500
    for known in (
        "size '{text}' is not understood",
        "the slot is empty, and a new disk needs it; write storage and size",
        "it is locked ({guest.lock}); wait until the job that locked it ends",
        "has {file.length} bytes, its descriptor needs {need}",
        "this is no list of guests; give what guest_disks_info returns as 'guests'",
    ):
        assert known in texts, known


def test_every_error_class_of_the_collection_is_one_for_users() -> None:
    """The runner turns DiskwrightError into a failure; what is none would be a traceback."""
    found = error_classes(trees().values())
    assert {"ParseError", "PlanRefusedError", "ApiError", "AgentError", "ImageError", "PolicyError"} <= found
