"""Who can use the page: with keys alone, on a phone, in both themes, and with a bearer key."""

import hashlib
from collections.abc import Iterator

import pytest
from tests.device.serving.page.browser import Page
from tests.device.serving.page.scripted import Scripted
from tests.device.serving.served import Served, serving

from onhand.device.serving.settings import ServeSettings

TOKEN = "-".join(["a", "token", "of", "the", "phone"])
READY = "document.querySelector('#model').options.length"
FOCUSED = "document.activeElement.id || document.activeElement.textContent.trim()"
DIALOG = "document.querySelector('#key-dialog').open"
CODE = ["Here:\n", "```python\n", "x = 1\n", "```\n", "There. " * 40]
# Every text that is shown, every edge of a control and every line of a plot, with the contrast
# that it has with what is behind it.
CONTRASTS = """
(() => {
  const parts = (color) => {
    const found = color.match(/[\\d.]+/g).map(Number);
    return found.length === 3 ? [...found, 1] : found;
  };
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parts(getComputedStyle(one).backgroundColor);
      if (color[3] === 1) return color;
    }
    return [255, 255, 255, 1];
  };
  const ratio = (color, element) => {
    const [a, b] = [light(parts(color)), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const color = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    texts.push([walker.currentNode.data.trim().slice(0, 40), ratio(color, element)]);
  }
  const edges = [...document.querySelectorAll("input, select, textarea, #new, .line")]
    .filter((one) => one.checkVisibility())
    .map((one) => {
      const style = getComputedStyle(one);
      const color = one.namespaceURI.endsWith("svg") ? style.stroke : style.borderTopColor;
      return [one.id || one.className, ratio(color, one.parentElement)];
    });
  return { texts, edges };
})()
"""


@pytest.fixture
def served() -> Iterator[Served]:
    """A server without keys, whose answers have code in them."""
    with serving(Scripted(lambda _: CODE)) as found:
        yield found


@pytest.fixture
def closed() -> Iterator[Served]:
    """A server that asks for a key."""
    settings = ServeSettings(tenants={hashlib.sha256(TOKEN.encode()).hexdigest(): "phone"})
    with serving(Scripted(lambda _: ["on"]), settings=settings) as found:
        yield found


def talk(page: Page) -> None:
    """Ask something, and wait for the answer."""
    page.wait(READY)
    page.run("document.querySelector('#input').focus()")
    page.write("hello")
    page.press("Enter")
    page.wait("document.querySelector('.answer footer button')")


def test_a_key_is_asked_for_and_kept_by_the_tab(page: Page, closed: Served) -> None:
    """A wrong one is asked for again, in the server's words; a right one opens everything."""
    page.open(closed.url)
    page.wait(DIALOG)
    assert page.run("document.activeElement.id") == "key"
    assert "API key" in page.text("#key-message")
    page.write("wrong")
    page.press("Enter")
    page.wait(f"sessionStorage.length && {DIALOG} && !document.querySelector('#key').value")
    page.write(TOKEN)
    page.press("Enter")
    page.wait(READY)
    talk(page)
    page.click("#to-live")
    page.wait("document.querySelector('.plot path')")

    assert page.text(".answer .body") == "on"
    assert page.run("localStorage.length + document.cookie.length") == 0
    assert page.run("Object.values(sessionStorage)") == [TOKEN]
    assert not any(TOKEN in url for url in page.requests)
    assert TOKEN not in page.run("document.documentElement.outerHTML")


def test_a_key_that_is_taken_back_is_asked_for_in_the_chat(page: Page, closed: Served) -> None:
    """The question is not lost: it is asked with the new key."""
    page.open(closed.url)
    page.wait(DIALOG)
    page.press("Escape")
    page.wait(f"!{DIALOG}")
    assert "API key" in page.text("#model-hint")
    page.run("document.querySelector('#input').focus()")
    page.write("hello")
    page.press("Enter")
    page.wait(DIALOG)
    page.write(TOKEN)
    page.press("Enter")
    page.wait("document.querySelector('.answer .body')?.textContent === 'on'")

    assert page.run("document.querySelectorAll('.turn').length") == 2
    page.click("#key-change")
    page.wait(DIALOG)
    page.press("Enter")
    page.wait(f"{DIALOG} && sessionStorage.length === 0")


def test_the_page_is_used_by_keys_alone(page: Page, served: Served) -> None:
    """In the order in which it is read, with every place marked; the answer's parts as well."""
    page.open(served.url)
    page.wait(READY)
    assert page.run(FOCUSED) == "input"
    talk(page)
    page.run("document.activeElement.blur()")
    page.click("h1")  # the place where the keys begin again
    order, outlines = [], set()
    page.press("Tab")
    while page.run("document.activeElement !== document.body"):
        order.append(page.run(FOCUSED))
        outlines.add(page.run("getComputedStyle(document.activeElement).outlineStyle"))
        page.press("Tab")

    assert order == [
        "to-chat",
        "to-live",
        "new",
        "Settings",
        "model",
        "system",
        "temperature",
        "max-tokens",
        "scroller",
        "Copy",
        "x = 1",
        "Copy",
        "input",
        "send",
    ]
    assert "none" not in outlines
    page.run("document.querySelector('#to-live').focus()")
    page.press("Enter")
    page.wait("document.querySelector('.plot path')")
    assert page.run("document.querySelector('#to-live').getAttribute('aria-current')") == "page"


def test_nothing_is_cut_off_on_narrow_screens(page: Page, served: Served) -> None:
    """No part is wider than the screen, and the message field is within it."""
    # Only what can be scrolled by itself may be wider than the screen.
    wide = (
        "[...document.querySelectorAll('body *')].filter((one) => one.checkVisibility()"
        " && !one.closest('pre, .unseen, .skip, table')"
        " && one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML)"
    )
    # Drawn again, a plot has the width that it has now.
    drawn = "document.querySelector('.plot')?.getAttribute('viewBox')?.split(' ')[2] <= innerWidth"
    page.look(width=320, height=640)
    page.open(served.url)
    talk(page)
    for width in (320, 360, 768, 1280):
        page.look(width=width, height=640)
        page.run("location.hash = '#chat'")
        page.wait("document.querySelector('#send').checkVisibility()")
        assert page.run(wide) == []
        box = page.run("document.querySelector('#send').getBoundingClientRect().toJSON()")
        assert box["bottom"] <= 640
        page.run("location.hash = '#live'")
        page.wait(f"{drawn} && document.querySelector('.plot path')")

        assert page.run(wide) == []
        assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("is_dark", [False, True])
def test_text_has_contrast(page: Page, served: Served, is_dark: bool) -> None:
    """4.5 to 1 in both themes, 3 to 1 for what is no text, as WCAG 2.2 AA asks for."""
    page.look(is_dark=is_dark)
    page.open(served.url)
    talk(page)
    chat = page.run(CONTRASTS)
    page.run("location.hash = '#live'")
    page.wait("document.querySelector('.plot path')")
    live = page.run(CONTRASTS)

    assert len(chat["texts"]) > 25
    assert len(live["texts"]) > 15
    assert [one for one in chat["texts"] + live["texts"] if one[1] < 4.5] == []
    assert len(chat["edges"]) >= 6
    assert len(live["edges"]) >= 3
    assert [one for one in chat["edges"] + live["edges"] if one[1] < 3] == []
    # That the theme is what was asked for.
    page_color = page.run("getComputedStyle(document.documentElement).backgroundColor")
    assert (page_color == "rgb(21, 24, 27)") is is_dark


@pytest.mark.parametrize("view", ["", "#live"])
def test_everything_has_a_name_for_screen_readers(page: Page, served: Served, view: str) -> None:
    """Every control, plot and region, as the browser tells it to them."""
    page.open(f"{served.url}/{view}")
    if view:
        page.wait("document.querySelector('.plot path')")
    else:
        talk(page)
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    shown = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    needing = {"button", "textbox", "combobox", "spinbutton", "link", "image", "region", "main"}

    assert [node for node in shown if node[0] in needing and not node[1].strip()] == []
    assert ("main", "Live figures" if view else "Chat") in shown
    assert [role for role, _ in shown].count("main") == 1
    names = [name for role, name in shown if role == "button" and name != "Copy"]
    assert len(names) == len(set(names))


def test_news_is_told_to_screen_readers(page: Page, served: Served) -> None:
    """Politely: the answer when it is whole, then what is known of it."""
    page.open(served.url)
    assert page.run("document.querySelector('#log').parentNode.ariaLive") == "polite"
    assert page.run("document.querySelector('#log').parentNode.role") == "log"
    talk(page)

    page.wait("document.querySelector('#status').textContent.startsWith('The answer has ended.')")
    assert "Answered by: this device." in page.text("#status")


def test_nothing_moves_for_those_who_do_not_want_it(page: Page, served: Served) -> None:
    """The sign that an answer is being computed stands still then."""
    page.open(served.url)
    probe = (
        "(() => { const li = document.createElement('li'); li.className = 'turn answer';"
        " li.setAttribute('aria-busy', 'true'); const body = document.createElement('div');"
        " body.className = 'body'; li.append(body); document.querySelector('#log').append(li);"
        " const name = getComputedStyle(body, '::after').animationName; li.remove(); return name;"
        " })()"
    )
    assert page.run(probe) == "blink"
    page.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
    )

    assert page.run(probe) == "none"
