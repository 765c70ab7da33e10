# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit's page in a real browser: it works without errors, by mouse and by keyboard, on a phone and on paper, with
a thousand guests, and with guests whose names attack it. Needs Chromium, its driver and selenium.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from audit.sample import HOSTILE, RULES, cluster
from e2e import browsers
from e2e.kit import Run, play, run_playbook
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = browsers.NEEDED
A4 = 718  # CSS pixels between ordinary margins
CLUSTERS: dict[str, dict[str, Any]] = {
    "small": {"guests": 24},
    "hostile": {"guests": 24, "hostile": True},
    "clean": {"guests": 6, "disks": 2, "findings": False},
    "large": {"guests": 1000, "disks": 4},
}


@dataclass
class Pages:
    """Where the pages are, and the run that wrote them."""

    folder: Path
    run: Run

    def path(self, name: str, kind: str = "html") -> Path:
        return self.folder / name / f"disk-audit.{kind}"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """One audit of each cluster, by the role."""
    folder = tmp_path_factory.mktemp("audit")
    tasks = []
    for name, arguments in CLUSTERS.items():
        (folder / f"{name}.json").write_text(json.dumps(cluster(**arguments)))
        words = {
            "disk_audit_cluster": f"{{{{ lookup('ansible.builtin.file', '{folder}/{name}.json') | from_json }}}}",
            "disk_audit_folder": str(folder / name),
            "disk_audit_title": "Audit of <b>us</b> & you",
            "disk_audit_formats": ["html"] if name == "large" else ["html", "md", "csv", "json"],
        }
        tasks.append({"include_role": {"name": "diskwright.proxmox.disk_audit"}, "vars": words})
    run = run_playbook(play(tasks), {})
    assert run.code == 0, run.text
    return Pages(folder, run)


class Page:
    """A browser, and what a reader does with it."""

    def __init__(self, driver: Chrome, pages: Pages) -> None:
        self.driver = driver
        self.pages = pages

    def open(self, name: str, *, width: int = 1280, scheme: str = "light", media: str = "screen") -> None:
        """Open a page as a new visitor with this window, these colours, this medium."""
        browsers.visit(self.driver, self.pages.path(name), width=width, scheme=scheme, media=media)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """The texts that are seen."""
        seen = "[...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility()).map((e) => e.innerText)"
        return list(self.js(f"return {seen}", selector))

    def rows(self) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, ".guests .row"))

    def choose(self, name: str, text: str) -> None:
        Select(self.one(f"select[name={name}]")).select_by_visible_text(text)

    def until(self, script: str) -> None:
        WebDriverWait(self.driver, 30).until(lambda _driver: self.js(f"return {script}"), message=script)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def messages(self) -> list[dict[str, Any]]:
        """What the browser's console holds: errors, warnings, and what the page's own policy had to block."""
        return list(self.driver.get_log("browser"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browsers.started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, pages: Pages) -> Iterator[Page]:
    page = Page(browser, pages)
    page.open("small")
    page.js("localStorage.clear()")
    page.messages()
    yield page
    assert page.messages() == []


# ---- at a glance


def test_it_says_how_many_how_bad_and_where(page: Page, pages: Pages) -> None:
    summary = json.loads(pages.path("small", "json").read_text())["summary"]
    page.open("small")
    assert page.one(".verdict").text == summary["verdict"]
    tiles = [text.splitlines()[:2] for text in page.texts(".tiles > div")]
    assert tiles == [
        ["Guests", "24"],
        ["Disks", str(summary["disks"])],
        ["Dangers", str(summary["danger"])],
        ["Warnings", str(summary["warning"])],
        ["Hints", str(summary["info"])],
    ]
    assert page.texts("caption") == ["By node", "By storage"]
    assert "1 guest could not be read" in page.one(".unread").text
    assert sorted(text.strip() for text in page.texts(".rules a")) == sorted(RULES)


def test_what_to_do_first_begins_with_the_worst(page: Page) -> None:
    assert len(page.texts(".steps > li")) == 5
    assert "Danger" in page.texts(".steps > li")[0]
    page.one("[data-more]").click()
    shown = page.texts(".steps > li")
    assert len(shown) == len(RULES)
    assert "Hint" in shown[-1]


def test_a_cluster_without_findings_says_so(page: Page) -> None:
    page.open("clean")
    assert page.one(".verdict").text == "Nothing found: 6 guests as the policy wants."
    assert page.driver.find_elements(By.ID, "first") == []
    assert page.rows() == 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", list(CLUSTERS))
def test_nothing_is_wider_than_the_window(page: Page, name: str, width: int, scheme: str) -> None:
    page.open(name, width=width, scheme=scheme)
    page.js("for (const open of [...document.querySelectorAll('.open')].slice(0, 30)) open.click()")
    page.js("document.querySelector('[data-more]')?.click()")
    assert page.js("return document.documentElement.scrollWidth") <= width


# ---- find, filter, sort


def test_filters(page: Page, pages: Pages) -> None:
    report = json.loads(pages.path("small", "json").read_text())
    for severity, words in (("danger", "with dangers"), ("warning", "with warnings"), ("info", "with hints")):
        page.choose("severity", words)
        assert page.rows() == sum(bool(guest[severity]) for guest in report["guests"])
    page.choose("severity", "without findings")
    assert page.rows() == report["summary"]["guests_by_worst"]["none"]
    page.one(".tools [type=reset]").click()
    page.until("document.querySelectorAll('.row').length === 24")
    page.choose("node", "pve2")
    assert page.rows() == sum(guest["node"] == "pve2" for guest in report["guests"])
    page.choose("storage", "tank")
    assert page.rows() == sum(
        guest["node"] == "pve2" and any(drive["storage"] == "tank" for drive in guest["drives"])
        for guest in report["guests"]
    )
    page.one(".tools [type=reset]").click()
    page.choose("rule", "cache-unsafe")
    (rule,) = [rule for rule in report["rules"] if rule["rule"] == "cache-unsafe"]
    assert page.rows() == rule["guests"]
    assert page.one(".shown").text == f"{rule['guests']} of 24 guests"


def test_find(page: Page, pages: Pages) -> None:
    wanted = json.loads(pages.path("small", "json").read_text())["guests"][7]
    page.one("[name=find]").send_keys(f"{wanted['name'].upper()} {wanted['vmid']}")
    page.until("document.querySelectorAll('.row').length === 1")
    assert wanted["name"] in page.one(".row").text
    assert page.one(".open").get_attribute("aria-expanded") == "true"  # the only one is shown at once
    page.one("[name=find]").send_keys(" nosuchguest")
    page.until("document.querySelector('.shown').textContent === '0 of 24 guests'")


@pytest.mark.parametrize(("column", "key"), [(0, "name"), (3, "disks"), (4, "bytes")])
def test_sorting(page: Page, pages: Pages, column: int, key: str) -> None:
    guests = json.loads(pages.path("small", "json").read_text())["guests"]
    values = {str(guest["vmid"]): guest[key] for guest in guests}
    for _again in range(2):
        page.driver.find_elements(By.CSS_SELECTOR, ".guests thead button")[column].click()
        down = page.one("thead [aria-sort]").get_attribute("aria-sort") == "descending"
        order = [values[number] for number in page.texts(".row .vmid")]
        if key != "name":
            assert order == sorted(order, reverse=down)
        else:
            assert order != list(values.values())
            assert [name[0] for name in order] == sorted((name[0] for name in order), reverse=down)


def test_sorting_on_a_phone(page: Page) -> None:
    page.open("small", width=360)
    page.choose("sort", "Guest")
    names = page.js("return [...document.querySelectorAll('.open')].map((e) => e.textContent)")
    assert [name[0] for name in names] == sorted(name[0] for name in names)


def test_links_lead_to_the_guests_that_they_speak_of(page: Page, pages: Pages) -> None:
    report = json.loads(pages.path("small", "json").read_text())
    page.one("[data-set-severity=danger]").click()
    assert page.rows() == report["summary"]["guests_by_worst"]["danger"]
    page.one("[data-set-node=pve1]").click()
    assert page.rows() == sum(guest["node"] == "pve1" for guest in report["guests"])
    page.one(".unread a").click()
    assert page.rows() == 1
    assert "403 Permission check failed" in page.one(".detail").text


# ---- one guest


def test_a_guest_shows_its_disks_its_findings_and_what_mends_them(page: Page, pages: Pages) -> None:
    guests = json.loads(pages.path("small", "json").read_text())["guests"]
    guest = next(guest for guest in guests if guest["danger"] and guest["declaration"])
    page.one("[name=find]").send_keys(guest["name"])
    page.until("document.querySelectorAll('.row').length === 1")
    shown = page.one(".detail").text
    for finding in guest["findings"]:
        for key in ("option", "reason", "rule", "source"):
            assert finding[key] in shown
    for drive in guest["drives"]:
        assert drive["slot"] in shown and drive["what"] in shown and drive["volume"] in shown
    assert yaml.safe_load(page.one(".yaml pre").text) == yaml.safe_load(guest["declaration"])


@pytest.mark.parametrize("selector", [".yaml button", "[data-copy-rule]"])
def test_copying(page: Page, selector: str) -> None:
    granted = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", granted)
    for open_ in page.driver.find_elements(By.CSS_SELECTOR, ".open")[:3]:
        open_.click()
    page.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
    page.one(selector).click()
    page.until("document.querySelector('.toast').textContent === 'Copied'")
    text = page.driver.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))"
    )
    assert any(key.startswith("proxmox_disks") for key in yaml.safe_load(text))


# ---- for everybody


def test_keyboard(page: Page) -> None:
    page.press(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the guests"
    page.press(Keys.ENTER)
    page.press(Keys.TAB)
    assert page.driver.switch_to.active_element.get_attribute("name") == "find"
    for _step in range(20):
        page.press(Keys.TAB)
        if "open" in (page.driver.switch_to.active_element.get_attribute("class") or ""):
            break
    open_ = page.driver.switch_to.active_element
    page.press(Keys.ENTER)
    assert open_.get_attribute("aria-expanded") == "true"
    assert page.one(f"#{open_.get_attribute('aria-controls')}").is_displayed()
    page.press(Keys.SPACE)
    assert open_.get_attribute("aria-expanded") == "false"
    assert not page.one(".detail").is_displayed()
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_everything_that_acts_has_a_name(page: Page) -> None:
    page.driver.execute_cdp_cmd("Accessibility.enable", {})
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    acting = {"button", "link", "combobox", "searchbox", "radio", "table", "img", "image", "region"}
    mine = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in acting]
    assert len(mine) > 50
    assert [node["role"] for node in mine if not node.get("name", {}).get("value")] == []


CONTRAST = """
const light = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((n) => n / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = (e) => { for (; e; e = e.parentElement) {
  const colour = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)|transparent/.test(colour)) return colour;
} return "rgb(255, 255, 255)"; };
const weak = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !e.checkVisibility() || e.closest("script, style, noscript, option")) continue;
  const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
  const contrast = (a + .05) / (b + .05);
  if (contrast < 4.5) weak.add(`${e.tagName}.${e.className} ${contrast.toFixed(2)}`);
}
return [...weak];
"""  # noqa: E501  # a program of its own


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page: Page, scheme: str) -> None:
    """Every text stands out from its ground as WCAG AA wants: 4.5 to 1."""
    page.open("small", scheme=scheme)
    page.js("for (const open of document.querySelectorAll('.open')) open.click()")
    assert page.js(CONTRAST) == []


def test_colours_follow_the_system_until_somebody_chooses(page: Page) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    page.open("small", scheme="light")
    light = page.js(colour)
    page.open("small", scheme="dark")
    dark = page.js(colour)
    assert light != dark
    page.one("[name=theme][value=light]").find_element(By.XPATH, "..").click()
    assert page.js(colour) == light
    page.open("small", scheme="dark")
    assert page.js(colour) == light  # it is remembered


def test_paper(page: Page) -> None:
    """Printed, every guest is there and open, and no line runs off the sheet."""
    page.open("small", width=A4, media="print")
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert page.js("return document.documentElement.scrollWidth") <= A4
    beyond = "e.checkVisibility() && !e.closest('.sr') && e.getBoundingClientRect().right > innerWidth + 1"
    assert page.js(f"return [...document.querySelectorAll('body *')].filter((e) => {beyond}).length") == 0
    assert not page.one(".tools").is_displayed()
    assert page.rows() == 24
    assert len(page.texts(".steps > li")) == len(RULES)
    page.open("small")
    assert base64.b64decode(page.driver.print_page()).startswith(b"%PDF")


# ---- large and hostile


def test_a_thousand_guests(page: Page, pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    page.open("large")
    page.until("performance.getEntriesByType('paint').length > 0")
    (ready,), (painted, *_later) = (
        page.js(f"return performance.getEntries().filter((e) => e.{test}).map((e) => e.startTime)")
        for test in ("name === 'ready'", "entryType === 'paint'")
    )
    assert 0 < page.rows() < 1000  # in portions
    start = time.monotonic()
    page.one("[name=find]").send_keys("1099")
    page.until("document.querySelectorAll('.row').length === 1")
    found = time.monotonic() - start
    page.one(".tools [type=reset]").click()
    page.until("document.querySelectorAll('.row').length > 1")
    while (shown := page.rows()) < 1000:
        page.js("scrollTo(0, document.documentElement.scrollHeight)")
        page.until(f"document.querySelectorAll('.row').length > {shown}")
    page.until("document.querySelector('.rest').hidden")
    size = pages.path("large").stat().st_size
    with capsys.disabled():
        print(  # noqa: T201  # for who runs the tests: nothing is asserted on times
            f"\n1000 guests with 4 disks each: {size / 1000:.0f} kB, first paint after {painted:.0f} ms, "
            f"list ready after {ready:.0f} ms, one found in {found * 1000:.0f} ms"
        )


def test_hostile_names_are_harmless(page: Page) -> None:
    """Nothing that a guest is called becomes part of the page, not even for the page's own policy to block."""
    page.open("hostile")
    page.choose("severity", "with findings")
    page.js("for (const open of document.querySelectorAll('.open')) open.click()")
    assert page.js("return window.pwned") is None
    assert page.js("return document.querySelectorAll('script').length") == 2
    assert page.js("return document.querySelectorAll('img, iframe, object, b b, a[href^=javascript]').length") == 0
    shown = page.js("return document.body.textContent")
    for text in HOSTILE[:4]:
        assert text in shown
    assert "\u202e" not in shown and "\x1b" not in shown
    assert page.one("h1").text == "Audit of <b>us</b> & you"


def test_hostile_names_stay_texts_in_the_other_files(pages: Pages) -> None:
    markdown = re.sub(r"(?ms)^```yaml\n.*?^```$", "", pages.path("hostile", "md").read_text())
    assert "<script" not in markdown and "<img" not in markdown and "](javascript" not in markdown
    assert "1337" not in markdown + pages.path("hostile", "csv").read_text()  # {{ 7 * 191 }} is no template
    names = {row["name"] for row in json.loads(pages.path("hostile", "json").read_text())["findings"]}
    assert set(HOSTILE[:4]) <= names


# ---- the role


@pytest.mark.parametrize(
    ("fail_on", "findings", "code"), [("danger", True, 2), ("info", False, 0), ("never", True, 0)]
)
def test_fail_on(tmp_path: Path, fail_on: str, findings: bool, code: int) -> None:
    """It fails after everything is written, and says how many."""
    (tmp_path / "cluster.json").write_text(json.dumps(cluster(8, findings=findings)))
    words = {
        "disk_audit_cluster": f"{{{{ lookup('ansible.builtin.file', '{tmp_path}/cluster.json') | from_json }}}}",
        "disk_audit_folder": str(tmp_path),
        "disk_audit_fail_on": fail_on,
        "disk_audit_formats": ["json"],
    }
    run = run_playbook(play([{"include_role": {"name": "diskwright.proxmox.disk_audit"}, "vars": words}]), {})
    summary = json.loads((tmp_path / "disk-audit.json").read_text())["summary"]
    assert run.code == code, run.text
    assert summary["counts"] in run.text and f"{summary['verdict']} See {tmp_path}" in run.text
    if code:
        assert summary["counts"] in run.text
        assert str(tmp_path) in run.text
    assert not (tmp_path / "disk-audit.html").exists()
