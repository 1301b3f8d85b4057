"""The page of a report in a real browser: marks speak, axes change, and scripts are not needed."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.device.report_evidence import evidence
from tests.device.serving.page.browser import Browser, Page, find_browser

from onhand.host.report import render_report

EXAMPLE = Path(__file__).parents[1] / "device" / "report_example.json"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report with all evidence."""
    table: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(table | evidence()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser of this machine; these tests are skipped where there is none."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on this machine: install it, or set ONHAND_CHROMIUM to its path")
    with Browser(program, tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def page(browser: Browser, place: Path) -> Iterator[Page]:
    """A tab that shows the page."""
    found = browser.page()
    found.look(width=1180, height=900)
    found.open(place.as_uri())
    yield found
    found.close()


def hover(page: Page, selector: str) -> None:
    """Move the pointer over the middle of an element."""
    x, y = page.run(
        f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
        " one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


CHOSEN = '.chosen-plane:not([hidden]) [data-tip*="this bundle"]'


def test_a_point_of_the_front_says_its_choice(page: Page) -> None:
    """The pointer over the chosen point shows what it is; off it, nothing stands there."""
    hover(page, CHOSEN)
    page.wait("!document.querySelector('#tip').hidden")

    said = page.text("#tip")
    assert said.startswith("choice 1\nSize on disk: 4.8 MiB (measured)")
    assert "int8 for 2 groups" in said
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    page.wait("document.querySelector('#tip').hidden")
    assert page.complaints == []


def test_the_keyboard_moves_from_point_to_point(page: Page) -> None:
    """Focus shows the same as the pointer, arrows go on, Escape hides it."""
    page.run(f"document.querySelector({json.dumps(CHOSEN)}).focus()")
    first = page.text("#tip")
    page.press("ArrowLeft")
    second = page.text("#tip")
    page.press("Escape")

    assert first.startswith("choice 1")
    assert second.startswith("choice ")
    assert first != second
    assert page.run("document.querySelector('#tip').hidden")


def test_the_axes_can_be_chosen(page: Page) -> None:
    """One plane is shown at a time: the one of both axes."""
    shown = "[...document.querySelectorAll('.chosen-plane')].filter((one) => !one.hidden)"
    assert page.run(f"{shown}.map((one) => one.dataset.x)") == ["size_bytes"]

    page.run(
        "(() => { const one = document.querySelector('#front-x');"
        " one.value = 'energy_j_per_token'; one.dispatchEvent(new Event('change')); })()"
    )

    assert page.run(f"{shown}.map((one) => one.dataset.x)") == ["energy_j_per_token"]


@pytest.mark.parametrize("width", [360, 768, 1180])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    """Tables scroll by themselves; the page does not."""
    page.look(width=width, height=800)

    assert page.run("document.documentElement.scrollWidth") <= width
    hover(page, CHOSEN)
    page.wait("!document.querySelector('#tip').hidden")
    assert page.run("document.querySelector('#tip').getBoundingClientRect().right") <= width


@pytest.mark.parametrize("is_dark", [False, True])
def test_texts_can_be_read_on_their_ground(page: Page, is_dark: bool) -> None:
    """Contrast of at least 4.5 for texts and the cells of the heat map, by WCAG's formula."""
    page.look(is_dark=is_dark)
    lowest = page.run(CONTRAST)

    assert lowest >= 4.5


CONTRAST = """
(() => {
  const root = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = root.getPropertyValue(name).trim();
    const parts = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
      .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const contrast = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const pairs = ["--ink", "--muted", "--good", "--bad", "--doubt"]
    .flatMap((text) => ["--page", "--card"].map((ground) => [text, ground]));
  for (let i = 0; i < 6; i++) pairs.push([i === 5 ? "--on-hot" : "--on-heat", `--heat-${i}`]);
  return Math.min(...pairs.map(([a, b]) => contrast(a, b)));
})()
"""


def test_everything_is_there_without_scripts(browser: Browser, place: Path) -> None:
    """Every plane is shown, and points still have the browser's own tips."""
    page = browser.page()
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.navigate", url=place.as_uri())
    for _ in range(200):
        # What DevTools asks is answered all the same, but for what would have to wait.
        if page.run("document.readyState === 'complete' && location.protocol === 'file:'"):
            break
        time.sleep(0.02)

    assert page.run("document.querySelectorAll('.chosen-plane:not([hidden])').length") == 4
    assert page.run("document.querySelectorAll('[data-tip] > title').length") > 20
    assert page.run("document.querySelector('#tip')") is None
    page.close()


def test_an_injected_script_does_not_run(browser: Browser, place: Path, tmp_path: Path) -> None:
    """Even where a text had escaped its place: the page's policy names its one script."""
    spoiled = tmp_path / "spoiled.html"
    content = place.read_text(encoding="utf-8")
    spoiled.write_text(content.replace("<main>", "<main><script>window.bad = 1</script>"))
    page = browser.page()
    page.open(spoiled.as_uri())

    assert page.run("window.bad === undefined")
    assert any("Content Security Policy" in said for said in page.complaints)
    assert page.run("document.querySelector('#tip') !== null")
    page.close()


def test_it_prints(page: Page) -> None:
    """On paper every plane is there and the controls are not."""
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run(
        "[...document.querySelectorAll('.chosen-plane')].every((one) => one.checkVisibility())"
    )
    assert not page.run("document.querySelector('.controls').checkVisibility()")
    data = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])

    assert data.startswith(b"%PDF")
