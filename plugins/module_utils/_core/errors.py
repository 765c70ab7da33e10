# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What can go wrong, as types. Library code raises these; one runner turns them into ``fail_json``."""

from __future__ import annotations

from dataclasses import dataclass


class DiskwrightError(Exception):
    """The base of every error that this collection raises on purpose.

    Its text is for the user: it names what was wrong, what is allowed and what to do, and never holds a secret.
    """


class ParseError(DiskwrightError):
    """A text (size, drive string, slot, boot order …) that does not follow its grammar."""


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """One reason why a plan is not carried out. All of a plan's refusals are reported together.

    :param guest: how the guest is called in messages, e.g. ``db1 (120 on pve2)``.
    :param slot: the slot, or an empty string when the guest as a whole is meant.
    :param option: the option of the declaration that is at fault, or an empty string.
    :param value: the value that was asked for, as text.
    :param problem: what is wrong with it, a clause without full stop.
    :param remedy: what is allowed and what to do, a clause without full stop.
    """

    guest: str
    slot: str
    option: str
    value: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.guest, self.slot) if part)
        named = f"{self.option}={self.value}" if self.option and self.value else self.option
        repeated = self.problem.startswith(f"{named} ")  # a parser's words, "size '64GB' could mean …"
        what = f"{named}: " if named and not repeated else ""
        return f"{where}: {what}{self.problem}; {self.remedy}"


class PlanRefusedError(DiskwrightError):
    """Raised where a refused plan would have to be carried out; holds every reason."""

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        self.refusals = refusals
        super().__init__("\n".join(str(refusal) for refusal in refusals))
