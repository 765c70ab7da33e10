# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a benchmark, written by the role, in a real browser: it says what was found and how sure that is, works
without errors on a phone, in the dark and on paper, and with names and errors that attack it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.results import Durability, Results
from ansible_collections.diskwright.proxmox.plugins.module_utils._bench.workloads import TABLE
from e2e import browsers
from e2e.kit import Run, play, run_playbook
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from tools.checkout import TOP
from unit._bench.recorded import BASE, QCOW2, SATA, THREADS, UNSAFE, VIRTIO, WRITEBACK, results

pytestmark = browsers.NEEDED
A4 = 718  # CSS pixels between ordinary margins
SPEEDS = {BASE: 1, QCOW2: 1, VIRTIO: 1.0, SATA: 0.3, WRITEBACK: 0.9, UNSAFE: 1.8, THREADS: 0.7}
SCRIPT = "</script><script>alert(2)</script>"
HOSTILE = "/srv/<img src=x onerror=alert(1)>'\"&{{ 7*7 }}$x^2$"


def whole(name: str, seed: int, factor: float = 1.0) -> Results:
    speeds = {one: speed * (factor if one == SATA else 1) for one, speed in SPEEDS.items()}
    found = results(speeds, workloads=list(TABLE), seed=seed, name=name)
    crashes = (
        Durability(BASE.key, "qemu", 4000, 0, "QEMU was killed."),
        Durability(UNSAFE.key, "host", 4000, 312, "The host was reset."),
    )
    return replace(found, durability=crashes)


def hostile() -> Results:
    """One in which everything that somebody else can choose attacks the page."""
    found = results({BASE.at(HOSTILE): 1, QCOW2.at(HOSTILE): 0.5}, rounds=3, workloads=["boot", "commit-4k"])
    broken = replace(found.runs[0], measured=None, error=f"{SCRIPT}{{{{ lookup('env', 'HOME') }}}}")
    here = replace(found.environment, accelerator="tcg", cpu="<b>CPU</b> {% raw %}")
    return replace(
        found, id="../../evil <b>", finished="", runs=(broken, *found.runs[1:-3]), environment=here, notes=("<i>&",)
    )


class Page:
    """A browser, and what a reader does with it."""

    def __init__(self, driver: Chrome, folder: Path, run: Run) -> None:
        self.driver, self.folder, self.run = driver, folder, run

    def file(self, name: str, kind: str = "html") -> Path:
        (found,) = (self.folder / name).glob(f"*.{kind}")
        return found

    def open(self, name: str, **look: Any) -> None:
        browsers.visit(self.driver, self.file(name), **look)

    def js(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.driver.find_elements(By.CSS_SELECTOR, selector)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """One report of each kind, by the role."""
    folder = tmp_path_factory.mktemp("benchmark")
    documents = {"before": whole("before", 1), "after": whole("after", 2, factor=1.5), "hostile": hostile()}
    for name, found in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(found.as_json()))
    reported = {
        "after": {"disk_benchmark_compare_with": f"{folder}/before.json"},
        "hostile": {"disk_benchmark_title": "A <b>title</b> & {{ '{{' }} 1 }}"},
        "plain": {"disk_benchmark_charts": False, "disk_benchmark_results": f"{folder}/before.json"},
    }
    tasks = [
        {
            "include_role": {"name": "diskwright.proxmox.disk_benchmark"},
            "vars": {
                "disk_benchmark_results": f"{folder}/{name}.json",
                "disk_benchmark_folder": f"{folder}/{name}",
                **words,
            },
        }
        for name, words in reported.items()
    ]
    run = run_playbook(play(tasks), {})
    assert run.code == 0, run.text
    return folder, run


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browsers.started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, reports: tuple[Path, Run]) -> Iterator[Page]:
    page = Page(browser, *reports)
    browser.get_log("browser")
    yield page
    assert browser.get_log("browser") == []


def test_it_begins_with_what_was_found(page: Page) -> None:
    page.open("after")
    (headline,) = page.texts(".headline")
    assert headline.startswith("On fast, ") and headline.endswith(" other combinations can't be told from it.")
    answers = page.texts(".answers li")
    assert [text.splitlines()[0] for text in answers] == [
        "Format on fast", "Bus on fast", "Cache mode on fast", "Kind of I/O on fast"
    ]  # fmt: skip
    assert "raw and qcow2 can't be told apart" in answers[0]
    assert "none is the fastest, " in answers[2] and "% is noise." in answers[2]


def test_matrix_shows_every_combination_and_marks_what_is_equal(page: Page) -> None:
    page.open("after")
    rows = page.texts("#matrix ~ .scroll tbody tr")
    assert len(rows) == len(SPEEDS)
    assert "unsafe" in rows[0] and "loses data in a crash" in rows[0]
    assert "sata" in rows[-1] and "=" not in rows[-1]
    cells = page.driver.find_elements(By.CSS_SELECTOR, "#matrix ~ .scroll tbody td[title]")
    assert len(cells) == len(SPEEDS) * len(TABLE)
    assert {cell.get_attribute("title") for cell in cells} >= {"the best"}
    shades = {cell.get_attribute("class") for cell in cells}
    assert {"s4", "s10"} <= shades


def test_charts_of_all_workloads_in_the_colours_of_the_page(page: Page) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page.open("after", scheme=scheme)
        assert len(page.driver.find_elements(By.CSS_SELECTOR, "svg.chart")) == len(TABLE)
        colours[scheme] = page.js("return getComputedStyle(document.querySelector('.chart text.fill-ink')).fill")
    assert colours["light"] == "rgb(22, 32, 44)" and colours["dark"] == "rgb(230, 235, 241)"
    page.open("plain")
    assert page.driver.find_elements(By.CSS_SELECTOR, "svg.chart") == []


def test_comparison_colours_what_is_more_than_noise(page: Page) -> None:
    page.open("after")
    faster = page.texts("td.faster")
    assert len(faster) >= len(TABLE) - 1 and all(40 < float(text) < 60 for text in faster if float(text) > 10)
    (verdict,) = page.texts("#compared + p")
    assert verdict.startswith("Over all, after is ") and f"Of {len(SPEEDS) * len(TABLE)} pairs" in verdict


def test_method_null_comparison_and_crashes_are_shown(page: Page) -> None:
    page.open("after")
    assert len(page.texts("#trust ~ .scroll tbody tr")) == len(TABLE)
    crashes = page.texts("#durability ~ .scroll tbody tr")
    assert "312 lost" in crashes[0] and "none lost" in crashes[1]  # the worst first
    shown = page.texts("#method ~ .columns")[0]
    for text in ("40 of 40", "EPYC 7302P", "MICRON_7450", "write through", "6.17.2-1-pve", "Seed 1"):
        assert text in shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["after", "hostile", "plain"])
def test_nothing_is_wider_than_the_window(page: Page, name: str, width: int, scheme: str) -> None:
    page.open(name, width=width, scheme=scheme)
    page.js("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.js("return document.documentElement.scrollWidth") <= width


def test_on_paper(page: Page) -> None:
    page.open("after", width=A4, media="print")
    assert page.js("return document.documentElement.scrollWidth") <= A4
    assert page.js("return getComputedStyle(document.querySelector('.theme')).display") == "none"
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const light = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((n) => n / 255)
    .map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/(, 0\\)|transparent)$/.test(colour)) return colour;
  }
};
const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest("svg")
  && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
return texts.map((e) => {
  const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
  return [(a + .05) / (b + .05), e.className, e.textContent.slice(0, 40)];
}).filter(([ratio]) => ratio < 4.5);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, scheme: str) -> None:
    """Contrast of 4.5 (WCAG 2.2, AA), on every shade of the matrix as well."""
    page.open("after", scheme=scheme)
    assert page.js(CONTRAST) == []


def test_everything_that_acts_has_a_name(page: Page) -> None:
    page.open("after")
    page.driver.execute_cdp_cmd("Accessibility.enable", {})
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    acting = {"radio", "img", "image", "region"}
    mine = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in acting]
    assert len(mine) > 2 * len(TABLE)
    assert [node["role"] for node in mine if not node.get("name", {}).get("value")] == []


def test_what_somebody_else_may_choose_does_nothing(page: Page) -> None:
    page.open("hostile")
    assert page.js("return document.querySelectorAll('img, b b, h1 b, script').length") == 1  # its own script
    source = page.file("hostile").read_text()
    assert "alert(2)</script>" not in source and "<img" not in source
    assert "{{ 7*7 }}" in page.texts(".headline")[0]
    shown = page.texts("body")[0]
    assert "{{ lookup('env', 'HOME') }}" in shown and "<b>CPU</b> {% raw %}" in shown
    assert "without KVM" in shown and "It was not finished" in shown and "1 of " in shown
    assert page.file("hostile").name == "localhost-..-..-evil--b-.html"
    assert page.js("return document.title").startswith("A <b>title</b> & {{ 1 }}: pve1")


def test_markdown_says_the_same(page: Page) -> None:
    text = page.file("after", "md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| raw") or line.startswith("| qcow2")]
    assert len(lines) == 2 * len(SPEEDS) + 2  # matrix, comparison, crashes
    assert "(loses data in a crash)" in text
    assert "## Compared with before" in text and "EPYC 7302P" in text
    hostile_text = page.file("hostile", "md").read_text()
    assert "<img" not in hostile_text and re.search(r"7\\\*7", hostile_text)


def test_results_are_kept_as_they_were(page: Page) -> None:
    kept = json.loads(page.file("hostile", "json").read_text())
    assert kept == json.loads((page.folder / "hostile.json").read_text())


def test_facts_can_be_used_as_they_are(page: Page) -> None:
    """What was written is taken by the policy."""
    from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.known import read_known

    words = yaml.safe_load(page.file("after", "yml").read_text())
    known = read_known(words["guest_disks_facts"])
    assert known.storages["fast"]["measurements"]["equal_formats"] == ["raw", "qcow2"]
    assert yaml.safe_load(page.file("hostile", "yml").read_text()) == {"guest_disks_facts": {"storages": {}}}


def test_a_report_changes_nothing_but_its_files(page: Page) -> None:
    changed = {task.task.rpartition(" : ")[2] for task in page.run.tasks if task.changed}
    assert changed == {"Make the folder", "Keep the results"}
    said = [task.result["msg"] for task in page.run.tasks if task.task.endswith("Say what was found")]
    assert len(said) == 3 and "Warnings: " in said[1] and said[0].endswith("/after/localhost-after.html")


def test_two_storages_as_the_guide_compares_them(tmp_path: Path) -> None:
    guide = (TOP / "docs" / "benchmark.md").read_text()
    (book,) = (yaml.safe_load(text) for text in re.findall(r"(?ms)^```yaml\n(- .*?)^```$", guide))
    speeds = {one.at(place): 1 for place in ("local-lvm", "local-zfs") for one in (BASE, QCOW2)}
    both = results(speeds, workloads=["boot"])
    (tmp_path / "disk-benchmark").mkdir()
    (tmp_path / "disk-benchmark" / "pve1-benchmark-2026-11-02T21-00-00Z.json").write_text(json.dumps(both.as_json()))
    run = run_playbook(book, {}, cwd=tmp_path)
    assert run.code == 0, run.text
    (page,) = (tmp_path / "compared").glob("*.html")
    assert "Of 2 pairs" in page.read_text()
