# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report says of results of which the truth is known."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench import charts
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.compare import compare_results
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.pictures import pictures
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.report import comparison_data, report_data
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import Durability, Results
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.words import (
    Labels,
    percent,
    rate_text,
    three_digits,
    time_text,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import TABLE
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from unit._bench.recorded import BASE, QCOW2, SATA, UNSAFE, VIRTIO, WRITEBACK, results

FOUND = results({BASE: 1, QCOW2: 1, SATA: 0.3, UNSAFE: 2}, workloads=list(TABLE))


def rounds_of(found: Results, last: int) -> Results:
    """The same, cut short."""
    return replace(found, finished="", runs=tuple(run for run in found.runs if run.round <= last))


def test_headline_names_the_fastest_that_keeps_data_and_what_is_as_fast() -> None:
    (headline,) = report_data(FOUND)["headlines"]
    names = {"raw · scsi+iothread · cache none", "qcow2 · scsi+iothread · cache none"}
    assert {headline["best"], *headline["equal"]} == names
    text = f"On fast, {headline['best']} is fastest over all workloads; one other combination can't be told from it."
    assert headline["text"] == text


def test_answers_in_sentences() -> None:
    report = report_data(FOUND)
    answers = {row["choice"]: row for row in report["answers"]}
    assert answers["Format"]["kind"] == "equal"
    assert re.fullmatch(
        r"raw and qcow2 can't be told apart: they differ by [0-9.]+ %\. Up to [0-9.]+ % is noise\.",
        answers["Format"]["text"],
    )
    assert answers["Bus"]["text"].startswith("scsi is the fastest, 23")
    # There is one mode that keeps data, and nothing to compare it with.
    assert answers["Cache mode"]["kind"] == "unclear"
    assert report["warnings"] == []


def test_matrix_is_relative_to_the_best_that_keeps_data() -> None:
    rows = report_data(FOUND)["rows"]
    assert [row["cache"] for row in rows][0] == "unsafe"
    assert rows[0]["loses_data"] and 190 <= int(rows[0]["percent"]) <= 210
    assert rows[-1]["bus"] == "sata" and 28 <= int(rows[-1]["percent"]) <= 32
    assert [len(row["cells"]) for row in rows] == [len(TABLE)] * 4
    best = [cell for row in rows for cell in row["cells"] if cell["verdict"] == "the best"]
    assert len(best) == len(TABLE) and {cell["percent"] for cell in best} == {"100"}
    assert all(cell["word"] == "slower" and cell["shade"] == 3 for cell in rows[-1]["cells"])


def test_what_lessens_the_numbers_is_said_first() -> None:
    broken = replace(FOUND.runs[0], measured=None, error="the guest did not start")
    found = rounds_of(replace(FOUND, runs=(broken, *FOUND.runs[1:])), 3)
    found = replace(found, environment=replace(found.environment, accelerator="tcg"))
    report = report_data(found)
    assert [text.split(":")[0] for text in report["warnings"]] == [
        "It was measured without KVM",
        "It was not finished",
        f"1 of {len(found.runs)} measurements failed; they are listed below.",
    ]
    assert report["failed"][0]["error"] == "the guest did not start"


def test_noise_that_hides_what_matters_is_said() -> None:
    (warning,) = report_data(results({BASE: 1, QCOW2: 1}, spread=0.5, workloads=["boot"]))["warnings"]
    assert warning.startswith("It was too noisy for small differences: start of a system on fast (")


def test_null_comparison_that_does_not_hold_is_said() -> None:
    def slower(run):
        write = run.measured.write
        if run.side != "B" or write is None:
            return run
        return replace(run, measured=replace(run.measured, write=replace(write, iops=write.iops / 2)))

    report = report_data(replace(FOUND, runs=tuple(map(slower, FOUND.runs))))
    noisy, warning = report["warnings"]
    assert noisy.startswith("It was too noisy for small differences: random writes 4k, 32 at once on fast (50 %)")
    assert warning.startswith("The null comparison does not hold for random writes 4k, 32 at once on fast (50 %)")
    assert {row["workload"] for row in report["nulls"] if not row["holds"]} == {
        "random writes 4k, 32 at once",
        "database mix 8k",
        "commits 4k",
    }


@pytest.mark.parametrize(("rounds", "text"), [(0, "Nothing was measured on fast."), (1, "there are too few runs")])
def test_nothing_is_made_of_what_was_cut_short(rounds: int, text: str) -> None:
    report = report_data(rounds_of(FOUND, rounds))
    assert text in report["headlines"][0]["text"]
    assert report["nulls"] == [] and {row["kind"] for row in report["answers"]} == {"unclear"}
    words = {cell["word"] for row in report["rows"] for cell in row["cells"] if cell.get("verdict") != "the best"}
    assert words == {"unclear"}


def test_durability() -> None:
    crashes = (
        Durability(BASE.key, "host", 1000, 0, "Killed."),
        Durability(UNSAFE.key, "host", 1000, 12, "Killed."),
    )
    rows = report_data(replace(FOUND, durability=crashes))["durability"]
    assert [(row["crash"], row["acknowledged"], row["lost"], row["bad"]) for row in rows] == [
        ("the host crashed", "1,000", "12 lost", True),
        ("the host crashed", "1,000", "none lost", False),
    ]


def test_method_and_node_are_told() -> None:
    report = report_data(FOUND)
    rows = (*report["method"], *report["environment"], *report["places"][0]["facts"])
    told = {row["name"]: row["value"] for row in rows}
    assert told["Rounds"] == "5"
    assert told["Starts of the guest"] == "25 of 25"
    assert told["Proxmox VE"] == "9.2.11"
    assert told["Write cache of the disks"] == "write through"
    assert told["Caches"] == "The host's cache was emptied before each start."


def test_comparison() -> None:
    after = results({BASE: 1.2, QCOW2: 1, SATA: 0.3}, workloads=["boot", "commit-4k"], seed=2, name="after")
    data = comparison_data(compare_results(FOUND, after))
    assert data["workloads"] == ["commits 4k", "start of a system"]
    assert data["counts"] == {"faster": 2, "slower": 0, "equal": 4, "unclear": 0}
    assert [row["label"] for row in data["rows"]][0] == "raw · scsi+iothread"
    assert data["verdict"].startswith("Over all, after is ") and data["verdict"].endswith("2026-01-05-fast.")


# ---- words


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 ns"), (999, "999 ns"), (1500, "1.5 µs"), (212_345, "212 µs"), (1.5e9, "1.5 s")]
)
def test_times(value: float, text: str) -> None:
    assert time_text(value) == text


def test_numbers() -> None:
    digits = {0: "0", 1.2345: "1.23", 12.345: "12.3", 999.6: "1,000", 52_345: "52,300"}
    assert {value: three_digits(value) for value in digits} == digits
    assert [rate_text(value) for value in (512, 2 * 1024**2, 999 * 1024**2, 1024**3 * 1.93)] == [
        "512 B/s",
        "2 MiB/s",
        "999 MiB/s",
        "1.93 GiB/s",
    ]
    assert [percent(value) for value in (0.0123, -0.5, 0.099)] == ["1.2", "50", "9.9"]


def test_labels_name_what_differs() -> None:
    labels = Labels([BASE, QCOW2, WRITEBACK])
    assert (labels(BASE), labels(WRITEBACK)) == ("raw · cache none", "raw · cache writeback")
    assert labels.common == "fast, scsi+iothread, io_uring"
    alone = Labels([BASE])
    assert (alone(BASE), alone.common) == ("fast · raw · scsi+iothread · cache none · io_uring", "")


# ---- charts


def test_charts_are_svg_that_takes_the_colours_of_the_page() -> None:
    drawn = pictures(FOUND)
    assert list(drawn) == list(TABLE)
    for text in drawn.values():
        ElementTree.fromstring(text)
        assert 'class="chart" role="img" aria-label="' in text
        assert "style=" not in text and "#0" not in text and "<style" not in text and "metadata" not in text
        assert "fill-mark" in text and "fill-risk" in text and "stroke-line" in text
        assert "cache unsafe" in text


def test_charts_are_the_same_each_time() -> None:
    assert pictures(FOUND) == pictures(FOUND)


def test_names_in_charts_are_neither_markup_nor_formulas() -> None:
    place = '/a"<script>$x^2$&'
    text = pictures(results({BASE.at(place): 1, QCOW2.at(place): 1, VIRTIO: 1}, workloads=["boot"]))["boot"]
    root = ElementTree.fromstring(text)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert any(place in (element.text or "") for element in root.iter())


def test_what_was_never_measured_has_no_chart() -> None:
    assert pictures(replace(FOUND, runs=tuple(run for run in FOUND.runs if run.workload == "boot"))).keys() == {"boot"}


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "HAS_MATPLOTLIB", False)
    with pytest.raises(DiskwrightError, match=r"matplotlib, which is missing .* go without: charts: false"):
        pictures(FOUND)
