# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a report on a benchmark says, as plain data that templates print. Pure."""

from __future__ import annotations

import math
import statistics
import typing as t
from collections.abc import Iterable, Iterator, Mapping

from .._core.size import human_size
from .combination import Combination
from .compare import Comparison
from .measurements import TOO_NOISY, measurements
from .plan import in_words
from .results import Durability, PlaceRecord, Results
from .statistics import EQUAL, LOSES_DATA, UNCLEAR, Analysis, Cell, Verdict, analyse, compare, mean
from .words import Labels, listed, percent, time_text, value_text, verdict_text
from .workloads import Workload

Row = dict[str, t.Any]

_DIMENSIONS: t.Final = {
    "format": ("Format", "equal_formats"),
    "bus": ("Bus", "equal_buses"),
    "cache": ("Cache mode", "equal_caches"),
    "aio": ("Kind of I/O", "equal_aios"),
}
_SHADES: t.Final = 10


def report_data(results: Results) -> Row:
    """Everything that a report on a benchmark says, texts as they are, not escaped for any format."""
    analysis = analyse(results)
    labels = Labels(results.combinations)
    facts = measurements(results)
    rows = _rows(analysis, labels)
    return {
        "id": results.id,
        "host": results.environment.node,
        "started": _moment(results.started),
        "finished": _moment(results.finished),
        "headlines": [_headline(analysis, place, labels) for place in facts],
        "warnings": list(_warnings(analysis)),
        "answers": [row for place, known in facts.items() for row in _answers(analysis, place, known)],
        "measurements": facts,
        "common": labels.common,
        "workloads": [_workload(analysis, workload, labels) for workload in results.rows],
        "rows": rows,
        "nulls": list(_nulls(analysis)),
        "durability": _durability(results, labels),
        "crashes": list(dict.fromkeys(row.how for row in results.durability)),
        "environment": _environment(results),
        "places": [_place(place) for place in results.environment.places],
        "method": _method(results),
        "left_out": [{"what": row.what, "reason": row.reason} for row in results.left_out],
        "failed": [
            {"what": labels(results.combination(run.combination)), "workload": run.workload, "error": run.error}
            for run in analysis.failed
        ],
        "notes": list(results.notes),
    }


def _moment(text: str) -> str:
    return text[:16].replace("T", " ") + (" UTC" if text else "")


# ---- what it comes to


def _headline(analysis: Analysis, place: str, labels: Labels) -> Row:
    """The fastest combination of a place that keeps data, and how many can't be told from it."""
    candidates = [
        one for one in analysis.results.combinations if one.place == place and one.cache != LOSES_DATA
    ] or [one for one in analysis.results.combinations if one.place == place]
    scores = {one: _score(analysis, one) for one in candidates}
    measured = [one for one in candidates if scores[one] is not None]
    if not measured:
        return {"place": place, "best": "", "equal": [], "text": f"Nothing was measured on {place}."}
    best = max(measured, key=lambda one: scores[one] or 0.0)
    verdicts = {one: _against(analysis, best, one) for one in measured if one != best}
    equal = [labels(one) for one, verdict in verdicts.items() if verdict.word == EQUAL]
    if all(verdict.word == UNCLEAR for verdict in verdicts.values()) and verdicts:
        text = f"On {place} there are too few runs to say what is fastest."
    elif equal:
        text = f"On {place}, {labels(best)} is fastest over all workloads; {_count(len(equal))} can't be told from it."
    else:
        text = f"On {place}, {labels(best)} is fastest over all workloads."
    return {"place": place, "best": labels(best), "equal": equal, "text": text}


def _count(number: int) -> str:
    return "one other combination" if number == 1 else f"{number} other combinations"


def _against(analysis: Analysis, base: Combination, other: Combination) -> Verdict:
    """One combination compared with another, over all workloads."""
    return mean(
        compare((analysis, analysis.cell(base, workload)), (analysis, analysis.cell(other, workload)))
        for workload in analysis.results.rows
    )


def _share(analysis: Analysis, combination: Combination, workload: Workload) -> float | None:
    """The speed of a combination, relative to the best that keeps data."""
    cell, best = analysis.cell(combination, workload), analysis.best(workload)
    return None if cell is None or best is None else cell.speed.median / best.speed.median


def _score(analysis: Analysis, combination: Combination) -> float | None:
    """The geometric mean of all its shares."""
    shares = (_share(analysis, combination, workload) for workload in analysis.results.rows)
    known = [share for share in shares if share]
    return math.exp(statistics.fmean(map(math.log, known))) if known else None


def _warnings(analysis: Analysis) -> Iterator[str]:
    results = analysis.results
    if results.environment.accelerator != "kvm":
        yield (
            "It was measured without KVM: QEMU translated every instruction of the guest, which takes longer than most"
            " disks do. Latencies mean little, and differences between formats, buses and cache modes look smaller than"
            " they are."
        )
    noises = {(place, row.title): analysis.noise(place, row) for place in _places(results) for row in results.rows}
    large = {key: noise for key, noise in noises.items() if noise is not None and noise > TOO_NOISY}
    loud = [f"{title} on {place} ({percent(noise)} %)" for (place, title), noise in large.items()]
    if loud:
        yield (
            f"It was too noisy for small differences: {listed(loud)}. Measure again with more rounds, or longer, while"
            " nothing else uses the node and its storage."
        )
    if not results.finished:
        yield "It was not finished: what is missing was not measured, and nothing is guessed in its place."
    broken = [null for null in analysis.nulls.values() if not null.holds]
    if broken:
        names = listed([f"{null.workload.title} on {null.place} ({percent(null.difference)} %)" for null in broken])
        yield (
            f"The null comparison does not hold for {names}: the same combination, measured twice, differs by more than"
            " its rounds vary. Something else was at work; the noise is taken to be that large."
        )
    if analysis.failed:
        yield f"{len(analysis.failed)} of {len(results.runs)} measurements failed; they are listed below."


def _answers(analysis: Analysis, place: str, facts: Mapping[str, t.Any]) -> Iterator[Row]:
    """What the benchmark says about each choice, in sentences."""
    for name, (title, equal) in _DIMENSIONS.items():
        values = {getattr(one, name) for one in analysis.results.combinations if one.place == place}
        if len(values) < 2:
            continue
        difference, noise = facts.get(f"{name}_difference"), facts.get(f"{name}_noise")
        if facts.get(f"fastest_{name}"):
            kind, text = "fastest", f"{facts[f'fastest_{name}']} is the fastest, {difference:g} % ahead of the next."
        elif equal in facts:
            kind, text = EQUAL, f"{listed(facts[equal])} can't be told apart: they differ by {difference:g} %."
        else:
            kind, text = "unclear", "No answer: none is ahead of all others by more than the noise, or surely as fast."
        tail = f" Up to {noise:g} % is noise." if noise is not None else ""
        yield {"place": place, "choice": title, "kind": kind, "text": text + tail}


# ---- the matrix


def _rows(analysis: Analysis, labels: Labels) -> list[Row]:
    """Each combination with all workloads, the fastest first."""
    rows: list[Row] = [
        {
            "key": one.key,
            "label": labels(one),
            "place": one.place,
            "format": one.format_text,
            "bus": one.bus_text,
            "cache": one.cache,
            "aio": one.aio,
            "loses_data": one.cache == LOSES_DATA,
            **_total(_score(analysis, one)),
            "cells": [_cell(analysis, one, workload) for workload in analysis.results.rows],
        }
        for one in analysis.results.combinations
    ]
    return sorted(rows, key=lambda row: -(row["score"] or 0.0))


def _total(score: float | None) -> Row:
    return {"score": score, "percent": "" if score is None else f"{100 * score:.0f}", "shade": _shade(score)}


def _shade(share: float | None) -> int:
    """How strongly a share is coloured."""
    return 0 if share is None else max(0, min(_SHADES, round(share * _SHADES)))


def _cell(analysis: Analysis, combination: Combination, workload: Workload) -> Row:
    cell, best = analysis.cell(combination, workload), analysis.best(workload)
    if cell is None or best is None:
        return {"workload": workload.id, "measured": False, "percent": "", "shade": 0, "word": UNCLEAR}
    share = cell.speed.median / best.speed.median
    verdict = compare((analysis, best), (analysis, cell)) if cell != best else Verdict(EQUAL, 0.0, 0.0)
    low, high = cell.series.quartiles
    return {
        "workload": workload.id,
        "title": workload.title,
        "measured": True,
        "percent": f"{100 * share:.0f}",
        "shade": _shade(share),
        "word": verdict.word,
        "verdict": "the best" if cell == best else verdict_text(verdict),
        "value": value_text(workload, cell.series.median),
        "spread": f"{value_text(workload, low)} to {value_text(workload, high)}",
        "runs": len(cell.series.values),
        "latency": [time_text(value) for value in _percentiles(cell)],
    }


def _percentiles(cell: Cell) -> tuple[int, int, int, int]:
    latency = cell.latency
    return latency.p50, latency.p95, latency.p99, latency.p999


def _workload(analysis: Analysis, workload: Workload, labels: Labels) -> Row:
    best = analysis.best(workload)
    noises = {place: analysis.noise(place, workload) for place in dict.fromkeys(_places(analysis.results))}
    where = {place: f" on {place}" if len(noises) > 1 else "" for place in noises}
    known = [f"{percent(noise)} %{where[place]}" for place, noise in noises.items() if noise is not None]
    return {
        "id": workload.id,
        "title": workload.title,
        "about": workload.about,
        "judged_by": _judged_by(workload),
        "best": "" if best is None else f"{labels(best.combination)}: {value_text(workload, best.series.median)}",
        "noise": listed(known),
    }


def _judged_by(workload: Workload) -> str:
    what = {"iops": "operations in a second", "bandwidth": "throughput", "latency": "median latency"}[workload.measures]
    return f"{what}, {'more' if workload.more_is_better else 'less'} is better"


def _places(results: Results) -> Iterable[str]:
    return (one.place for one in results.combinations)


def _nulls(analysis: Analysis) -> Iterator[Row]:
    for null in analysis.nulls.values():
        yield {
            "place": null.place,
            "workload": null.workload.title,
            "difference": percent(null.difference),
            "expected": percent(null.expected),
            "holds": null.holds,
        }


def _durability(results: Results, labels: Labels) -> list[Row]:
    rows = sorted(results.durability, key=lambda row: (row.crash, -row.lost))
    return [_crash(row, labels(results.combination(row.combination))) for row in rows]


def _crash(row: Durability, label: str) -> Row:
    what = {"qemu": "QEMU was killed", "host": "the host crashed"}[row.crash]
    lost = "none lost" if not row.lost else f"{row.lost:,} lost"
    return {"label": label, "crash": what, "acknowledged": f"{row.acknowledged:,}", "lost": lost, "how": row.how,
            "bad": row.lost > 0}  # fmt: skip


# ---- how it was measured


def _environment(results: Results) -> list[Row]:
    here = results.environment
    kvm = "KVM" if here.accelerator == "kvm" else "QEMU's translation (TCG), no KVM"
    cpu = f"{here.cpu}, {here.cpus} threads" if here.cpu and here.cpus else here.cpu
    return _pairs(
        ("Node", here.node),
        ("Proxmox VE", here.pve),
        ("QEMU", here.qemu),
        ("qemu-server", here.qemu_server),
        ("Kernel", here.kernel),
        ("Kernel of the guest", here.guest_kernel),
        ("fio", here.fio),
        ("Guest run by", kvm),
        ("Processor", cpu),
        ("Memory", human_size(here.memory) if here.memory else ""),
        ("Load before", f"{here.load:.2f}"),
        ("Drives", here.drives),
    )


def _place(place: PlaceRecord) -> Row:
    facts = _pairs(
        ("Type", place.type),
        ("Options", ", ".join(f"{text.name} {text.value}" for text in place.options)),
        ("File system", place.filesystem),
        ("Disks below", place.device),
        ("Medium", place.medium),
        ("Write cache of the disks", place.write_cache),
        ("I/O scheduler", place.scheduler),
        ("Size", human_size(place.total) if place.total else ""),
        ("Free before", human_size(place.free) if place.free else ""),
    )
    return {"name": place.name, "facts": facts}


def _method(results: Results) -> list[Row]:
    how = results.method
    done = len({run.trial for run in results.runs})
    return _pairs(
        ("Rounds", str(how.rounds)),
        ("Each workload", f"{how.seconds} s, after {how.ramp} s that do not count"),
        ("Scratch volumes", human_size(how.size)),
        ("Starts of the guest", f"{done} of {how.planned}"),
        ("Thought to take", in_words(how.estimated_seconds)),
        ("Time limit", in_words(how.time_limit) if how.time_limit else "none"),
        ("Order", f"{how.order} Seed {how.seed}."),
        ("Caches", how.caches),
        ("Null comparison of", listed(list(how.nulls))),
    )


def _pairs(*rows: tuple[str, str]) -> list[Row]:
    return [{"name": name, "value": value} for name, value in rows if value]


# ---- two benchmarks


def comparison_data(comparison: Comparison) -> Row:
    """What a report on two benchmarks says."""
    before, after = comparison.before, comparison.after
    labels = Labels([change.before for change in comparison.changes])
    changes = [
        {
            "label": labels(change.before),
            "before": change.before.key,
            "after": change.after.key,
            "workload": change.workload.id,
            "title": change.workload.title,
            "word": change.verdict.word,
            "difference": f"{100 * change.verdict.difference:+.1f}".replace("-0.0", "+0.0"),
            "noise": percent(change.verdict.noise),
            "text": verdict_text(change.verdict),
        }
        for change in comparison.changes
    ]
    words = [change.verdict.word for change in comparison.changes]
    return {
        "before": {"id": before.id, "started": _moment(before.started)},
        "after": {"id": after.id, "started": _moment(after.started)},
        "verdict": f"Over all, {after.id} is {verdict_text(comparison.overall)} compared with {before.id}.",
        "counts": {word: words.count(word) for word in ("faster", "slower", EQUAL, UNCLEAR)},
        "changes": changes,
        "workloads": list(dict.fromkeys(change["title"] for change in changes)),
        "rows": [
            {"label": label, "changes": [change for change in changes if change["label"] == label]}
            for label in dict.fromkeys(change["label"] for change in changes)
        ],
        "differences": [
            {"name": row.name, "before": row.before, "after": row.after} for row in comparison.differences
        ],
        "only_before": list(comparison.only_before),
        "only_after": list(comparison.only_after),
    }
