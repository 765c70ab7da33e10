# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Recommendations for people, and as plain data for playbooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .._core.errors import ParseError
from .choices import CHOICES, Decision
from .engine import DECIDED, Choice, Objection, Otherwise, Recommendation, Rejected

STYLES = ("text", "markdown")


def recommendation_data(recommendation: Recommendation) -> dict[str, object]:
    """A recommendation as data. Booleans are booleans; PVE's default is ``None``.

    :returns: ``policy``, ``choices`` by name, ``conflicts``, ``objections``, and ``declaration`` with the format and
        the options to write into ``proxmox_disks``.
    """
    choices = recommendation.choices.values()
    return {
        "policy": recommendation.policy,
        "choices": {choice.name: _choice_data(choice) for choice in choices},
        "conflicts": [_objection_data(item) for item in recommendation.conflicts],
        "objections": [_objection_data(item) for item in recommendation.objections],
        "declaration": {
            choice.name: CHOICES[choice.name].native(choice.value)
            for choice in choices
            if choice.value is not None and choice.name not in ("bus", "scsihw")
        },
    }


def _choice_data(choice: Choice) -> dict[str, object]:
    row = CHOICES[choice.name]
    return {
        "value": row.native(choice.value),
        "rule": choice.rule,
        "reason": choice.reason,
        "source": choice.source,
        "since": choice.since,
        "severity": choice.severity,
        "rejected": [
            {
                "value": row.native(item.value),
                "rule": item.rule,
                "reason": item.reason,
                "wanted_by": item.wanted_by,
            }
            for item in choice.rejected
        ],
        "otherwise": _otherwise_data(choice),
    }


def _otherwise_data(choice: Choice) -> dict[str, object] | None:
    other = choice.otherwise
    if other is None:
        return None
    return {"value": CHOICES[choice.name].native(other.value), "rule": other.rule, "reason": other.reason}


def _objection_data(item: Objection) -> dict[str, object]:
    return {
        "choice": item.name,
        "value": CHOICES[item.name].native(item.value),
        "rule": item.rule,
        "reason": item.reason,
        "source": item.source,
        "severity": item.severity,
    }


def read_recommendation(data: Mapping[str, object]) -> Recommendation:
    """The recommendation of which :func:`recommendation_data` made the data.

    :raises ParseError: the data is of another kind.
    """
    try:
        choices = {name: _read_choice(name, item) for name, item in _mapping(data["choices"]).items()}
        return Recommendation(
            str(data["policy"]),
            choices,
            tuple(_read_objection(item) for item in _listed(data["conflicts"])),
            tuple(_read_objection(item) for item in _listed(data["objections"])),
        )
    except (KeyError, TypeError) as error:
        raise ParseError("that is no recommendation; explain takes what recommend returns") from error


def _mapping(value: object) -> Mapping[str, Mapping[str, object]]:
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return value


def _mapping_of_one(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return value


def _listed(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _read_choice(name: str, item: Mapping[str, object]) -> Choice:
    row = CHOICES[name]
    return Choice(
        name,
        row.canonical(item["value"]),
        str(item["rule"]),
        str(item["reason"]),
        str(item["source"]),
        str(item["since"]),
        str(item["severity"]),
        tuple(
            Rejected(row.canonical(one["value"]), str(one["rule"]), str(one["reason"]), str(one["wanted_by"]))
            for one in _listed(item["rejected"])
        ),
        _read_otherwise(row, item["otherwise"]),
    )


def _read_otherwise(row: Decision, item: object) -> Otherwise | None:
    if item is None:
        return None
    other = _mapping_of_one(item)
    return Otherwise(row.canonical(other["value"]), str(other["rule"]), str(other["reason"]))


def _read_objection(item: Mapping[str, object]) -> Objection:
    name = str(item["choice"])
    value = CHOICES[name].canonical(item["value"])
    return Objection(name, value, str(item["rule"]), str(item["reason"]), str(item["source"]), str(item["severity"]))


def explain(recommendation: Recommendation, style: str = "text") -> str:
    """A recommendation for a person: the answer, then why, on whose authority, and what was rejected and why.

    :raises ParseError: for another style than those of :data:`STYLES`.
    """
    if style not in STYLES:
        raise ParseError(f"there is no style '{style}'; write one of {', '.join(STYLES)}")
    lines = _markdown(recommendation) if style == "markdown" else _text(recommendation)
    return "\n".join(lines) + "\n"


def answer(recommendation: Recommendation) -> str:
    """The choices in one line, those left to PVE's default not among them."""
    words = []
    for name, choice in recommendation.choices.items():
        native = CHOICES[name].native(choice.value)
        if native is None:
            continue
        if isinstance(native, bool):
            words.append(name if native else f"no {name}")
        else:
            words.append(str(native) if name in ("bus", "scsihw", "format") else f"{name} {native}")
    return ", ".join(words)


def _said(choice: Choice) -> str:
    since = f", since Proxmox VE {choice.since}" if choice.since else ""
    return f"{choice.rule}: {choice.source}{since}" if choice.source else choice.rule


def _instead(choice: Choice) -> str:
    """What other rules would have chosen: ``raw (team-raw)``; PVE's default goes without saying."""
    words = CHOICES[choice.name].words
    losers = [item for item in choice.rejected if item.wanted_by and item.value is not None]
    return " and ".join(f"{words(item.value)} ({item.wanted_by})" for item in losers)


def _preferred(choice: Choice) -> str:
    """What the policy would take in place of a decided value, ``""`` if that is the same."""
    other = choice.otherwise
    if other is None:
        return ""
    return f"The policy would take {CHOICES[choice.name].words(other.value)} (rule {other.rule}): {other.reason}"


def _against(choice: Choice) -> Iterator[tuple[str, str]]:
    """The values that are ruled out, those with the same reason together."""
    reasons: dict[str, list[str]] = {}
    for item in choice.rejected:
        if not item.wanted_by:
            reasons.setdefault(item.reason, []).append(CHOICES[choice.name].words(item.value))
    for reason, values in reasons.items():
        yield " and ".join(values), reason


def _warnings(recommendation: Recommendation) -> Iterator[tuple[str, Objection, str]]:
    for title, items in (("Impossible", recommendation.conflicts), ("Not advisable", recommendation.objections)):
        for item in items:
            yield title, item, f"{item.name}: {CHOICES[item.name].words(item.value)}"


def _text(recommendation: Recommendation) -> Iterator[str]:
    yield f"{answer(recommendation)} (policy {recommendation.policy})"
    for title, item, shown in _warnings(recommendation):
        yield f"\n{title.upper()}: {shown}\n  {item.reason}\n  [{item.rule}: {item.source}]"
    for name, choice in recommendation.choices.items():
        yield f"\n{name}: {CHOICES[name].words(choice.value)}"
        yield f"  {choice.reason}"
        if choice.rule == DECIDED:
            if _preferred(choice):
                yield f"  {_preferred(choice)}"
            continue
        yield f"  [{_said(choice)}]"
        if _instead(choice):
            yield f"  Instead of {_instead(choice)}."
        for values, reason in _against(choice):
            yield f"  Not {values}: {reason}"


def _markdown(recommendation: Recommendation) -> Iterator[str]:
    yield f"**{answer(recommendation)}** (policy `{recommendation.policy}`)"
    for title, item, shown in _warnings(recommendation):
        yield f"\n> **{title}:** `{shown}`. {item.reason} ({item.rule}: {item.source})"
    yield "\n| choice | value | why | who says so | rejected |\n|---|---|---|---|---|"
    for name, choice in recommendation.choices.items():
        said = "" if choice.rule == DECIDED else _said(choice)
        rejected = [f"{values}: {reason}" for values, reason in _against(choice)]
        rejected[:0] = [_instead(choice)] if _instead(choice) else []
        reason = " ".join(filter(None, (choice.reason, _preferred(choice))))
        cells = (name, CHOICES[name].words(choice.value), reason, said, "<br>".join(rejected))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
