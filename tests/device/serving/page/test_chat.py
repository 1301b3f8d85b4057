"""The chat in a real browser: streaming, stopping, keys, Chinese, errors, and text that is text."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.device.serving.page.browser import Page
from tests.device.serving.page.scripted import Scripted
from tests.device.serving.served import Served, fake_model, serving
from tests.device.test_generate import FakeLoaded, mixing

from onhand.core.errors import EngineBusy
from onhand.device.serving.asks import Ask

IDLE = "!document.querySelector('#send').hidden"
READY = "document.querySelector('#model').options.length"
ATTACK = "<img src=x onerror='window.caught = 1'><b>bold</b><script>window.caught = 2</script>"
CODE = "Like so:\n\n```python\nif a < b:\n    <b>c</b>\n```\n\nThat is `all`."


def answering(ask: Ask) -> Sequence[str]:
    """What the toy says to some words."""
    text = str(ask.prompt[-1].content) if not isinstance(ask.prompt, str) else ask.prompt
    match text:
        case "attack":
            return [ATTACK[i : i + 3] for i in range(0, len(ATTACK), 3)]
        case "code":
            return list(CODE)
        case "long":
            return [f"line {i}\n\n" for i in range(200)]
        case "busy":
            raise EngineBusy("full")
        case _:
            return ["You ", "said ", text, " 灯"]


@pytest.fixture
def toy() -> Scripted:
    """A model that answers at once, if its gate is not shut."""
    return Scripted(answering)


@pytest.fixture
def chat(page: Page, toy: Scripted) -> Iterator[Page]:
    """The page, when it knows the models; nothing complained at the end."""
    with serving(toy) as served:
        page.open(served.url)
        page.wait(READY)
        yield page
        assert page.complaints == []
        assert {url for url in page.requests if not url.startswith(f"{served.url}/")} == set()


def ask(page: Page, text: str) -> None:
    """Send a message and wait for the end of its answer."""
    page.write(text)
    page.press("Enter")
    page.wait(f"{IDLE} && document.querySelector('.answer:last-child footer button')")


def last(page: Page) -> str:
    """The last answer as it is shown."""
    return page.text(".answer:last-child .body")


def test_text_comes_as_it_is_computed(chat: Page, toy: Scripted) -> None:
    """The first piece is there before the second was computed; the counts come with the last."""
    toy.gate.clear()
    chat.write("hello")
    chat.press("Enter")
    chat.wait("document.querySelector('.answer .body')?.textContent === 'You '")
    assert chat.run("document.querySelector('.answer').getAttribute('aria-busy')") == "true"
    toy.gate.set()
    chat.wait(IDLE)

    assert last(chat) == "You said hello 灯"
    assert chat.text(".user .body") == "hello"
    assert chat.run("document.querySelector('.answer').getAttribute('aria-busy')") is None
    facts = chat.run(
        "Object.fromEntries([...document.querySelectorAll('.answer .facts div')]"
        ".map((one) => [one.firstChild.textContent, one.lastChild.textContent]))"
    )
    assert facts["Answered by"] == "this device"
    assert facts["Cache"] == "nothing found"
    assert facts["Prompt"] == "40 tokens"
    assert facts["Cached"] == "0 tokens"
    assert facts["Answer"] == "5 tokens"
    assert facts["First text"].endswith("s")
    assert facts["Speed"].endswith("tokens/s")


def test_a_conversation_goes_on_and_begins_anew(chat: Page, toy: Scripted) -> None:
    """Earlier turns are sent along, with the system text; after "new" they are not."""
    chat.run("document.querySelector('#system').value = ' Be brief. '")
    chat.run("document.querySelector('#temperature').value = '0.5'")
    chat.run("document.querySelector('#max-tokens').value = '7'")
    ask(chat, "one")
    ask(chat, "two")
    chat.click("#new")
    ask(chat, "three")

    said = [[(str(m.role), m.content) for m in one.prompt] for one in toy.asked]  # type: ignore[union-attr] # messages
    assert said[1] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "You said one 灯"),
        ("user", "two"),
    ]
    assert said[2] == [("system", "Be brief."), ("user", "three")]
    assert (toy.asked[0].sampling.temperature, toy.asked[0].max_tokens) == (0.5, 7)
    assert chat.run("document.querySelectorAll('.turn').length") == 2


def test_attack_answer_that_is_html(chat: Page) -> None:
    """It is shown as it is written; nothing of it is run or loaded."""
    ask(chat, "attack")

    assert last(chat) == ATTACK
    assert chat.run("document.querySelectorAll('#log img, #log b, #log script').length") == 0
    assert chat.run("window.caught === undefined")


def test_attack_question_that_is_html(chat: Page) -> None:
    """What a person pastes is as little trusted."""
    ask(chat, ATTACK)

    assert chat.text(".user .body") == ATTACK
    assert chat.run("document.querySelectorAll('#log img, #log script').length") == 0


def test_code_is_shown_as_code(chat: Page) -> None:
    """Between fences, as it came; the fences themselves are not shown."""
    ask(chat, "code")

    assert chat.text(".answer pre") == "if a < b:\n    <b>c</b>\n"
    assert chat.text(".answer figcaption").startswith("python")
    shown = chat.run(
        "[...document.querySelectorAll('.answer .body > p')].map((p) => p.textContent)"
    )
    assert shown == ["Like so:\n", "That is `all`."]


def test_enter_while_characters_are_composed_sends_nothing(chat: Page, toy: Scripted) -> None:
    """Enter takes what the input method suggests; the next one sends it."""
    chat.call("Input.imeSetComposition", text="deng", selectionStart=4, selectionEnd=4)
    chat.run(
        "document.querySelector('#input').dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    # So does Safari say it, after the composition has ended already.
    chat.run(
        "document.querySelector('#input').dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', keyCode: 229, bubbles: true, cancelable: true}))"
    )
    assert toy.asked == []
    chat.write("开灯")
    ask(chat, "!")

    assert chat.text(".user .body") == "开灯!"
    assert last(chat) == "You said 开灯! 灯"


def test_a_line_begins_with_shift(chat: Page) -> None:
    """Shift and Enter send nothing."""
    chat.write("one")
    chat.press("Enter", shift=True)
    ask(chat, "two")

    assert chat.text(".user .body") == "one\ntwo"


def test_an_empty_message_is_not_sent(chat: Page, toy: Scripted) -> None:
    """Nor is one of spaces."""
    chat.press("Enter")
    chat.write("  ")
    chat.press("Enter")
    chat.run("1")

    assert toy.asked == []
    assert chat.run("document.querySelectorAll('.turn').length") == 0


def test_stop_frees_the_place(page: Page, tmp_path: Path) -> None:
    """The button and Escape end the answer in the server, too; what came is kept."""
    model = fake_model(tmp_path, loaded=FakeLoaded(mixing, context=10**6), max_active=1)
    with serving(model) as served:
        page.open(served.url)
        page.wait(READY)
        for stop in ("button", "key"):
            page.write("go on")
            page.press("Enter")
            page.wait("document.querySelector('.answer:last-child .body')?.textContent.length > 3")
            assert model.n_active == 1
            if stop == "button":
                page.click("#stop")
            else:
                page.press("Escape")
            page.wait(IDLE)
            page.wait(
                "document.querySelector('.answer:last-child .note')?.textContent === 'Stopped.'"
            )
            while model.n_active:
                page.run("new Promise((done) => setTimeout(done, 5))")
        assert page.complaints == []


def test_leaving_a_conversation_stops_its_answer(chat: Page, toy: Scripted) -> None:
    """And nothing of it is shown in the new one."""
    toy.gate.clear()
    chat.write("hello")
    chat.press("Enter")
    chat.wait("document.querySelector('.answer .body')?.textContent")
    chat.click("#new")
    while toy.n_active:
        chat.run("new Promise((done) => setTimeout(done, 5))")
    toy.gate.set()

    assert chat.run("document.querySelectorAll('.turn').length") == 0
    ask(chat, "again")
    assert last(chat) == "You said again 灯"


def test_an_error_is_said_in_the_servers_words(chat: Page, toy: Scripted) -> None:
    """What was not answered is asked again by a button, and is no part of what follows."""
    chat.write("busy")
    chat.press("Enter")
    chat.wait("document.querySelector('.answer .error')")
    assert "as many requests wait as may" in chat.text(".answer .error")
    ask(chat, "now")

    assert [len(one.prompt) for one in toy.asked] == [1, 1]


def test_a_refusal_says_when_to_ask_again(served_busy: Served, page: Page) -> None:
    """429 with Retry-After: the button waits as long."""
    page.open(served_busy.url)
    page.wait(READY)
    page.write("x")
    page.press("Enter")
    page.wait("document.querySelector('.answer .error')")

    assert "(Again in 5 s.)" in page.text(".answer .error")
    assert page.run("document.querySelector('.answer footer button').disabled")


@pytest.fixture
def served_busy(toy: Scripted) -> Iterator[Served]:
    """A server that is about to end."""
    with serving(toy) as served:
        served.state.is_draining = True
        yield served


def test_a_lost_connection_is_said(page: Page, toy: Scripted) -> None:
    """What came is kept; it is not taken for the whole answer."""
    with serving(toy) as served:
        page.open(served.url)
        page.wait(READY)
        toy.gate.clear()
        page.write("hello")
        page.press("Enter")
        page.wait("document.querySelector('.answer .body')?.textContent === 'You '")
        served.server.should_exit = True
        page.wait("document.querySelector('.answer .error')")

    assert "The connection to the server was lost" in last(page)
    assert last(page).startswith("You ")


def test_long_answers_follow_until_somebody_scrolls(chat: Page) -> None:
    """At the end of the text; a way back is offered to who went up."""
    away = (
        "(() => { const s = document.querySelector('#scroller');"
        " return s.scrollHeight - s.scrollTop - s.clientHeight; })()"
    )
    ask(chat, "long")
    assert chat.run("document.querySelectorAll('.answer p').length") > 100
    assert chat.run(away) < 2

    chat.run("document.querySelector('#scroller').scrollTop = 0")
    chat.wait("!document.querySelector('#latest').hidden")
    chat.click("#latest")
    assert chat.wait(f"document.querySelector('#latest').hidden && {away} < 2")


def test_an_answer_is_copied_as_it_came(chat: Page) -> None:
    """With its fences."""
    ask(chat, "code")
    chat.run(
        "Object.defineProperty(navigator, 'clipboard',"
        " {value: {writeText: async (text) => { window.kept = text; }}})"
    )
    chat.click(".answer footer button")
    chat.wait("document.querySelector('.answer footer button').textContent === 'Copied'")

    assert chat.run("window.kept") == CODE


def test_where_an_answer_came_from_is_told(library: Page) -> None:
    """By its headers, all of them; what comes with the last chunk is newer. Speed by its clock."""
    code = """
      import("/page/facts.js").then(({ Facts }) => {
        let nowMs = 0;
        const facts = new Facts(() => nowMs);
        facts.begin(new Headers({
          "x-route": "local", "x-backend": "local", "x-cache": "semantic",
          "x-route-reason": "fits <b>here</b>", "x-new-thing": "7",
          "x-request-id": "secret", "content-type": "text/event-stream",
        }));
        nowMs = 250;
        facts.saw({ choices: [{ delta: { content: "a" } }] }, true);
        nowMs = 1250;
        facts.saw({ choices: [{ delta: { content: "b" }, finish_reason: "length" }] }, true);
        facts.saw({
          choices: [],
          onhand: { route: "cloud", backend: "far", nested: {}, nothing: null },
          usage: { prompt_tokens: 1200, completion_tokens: 11,
                   prompt_tokens_details: { cached_tokens: 1100 } },
        }, false);
        const list = document.createElement("dl");
        facts.show(list);
        return [facts.reason, [...list.children].map((row) =>
          [row.firstChild.textContent, row.lastChild.textContent])];
      })
    """

    assert library.run(code) == [
        "length",
        [
            ["Answered by", "cloud"],
            ["Backend", "far"],
            ["Because", "fits <b>here</b>"],
            ["Cache", "another request of the same meaning"],
            ["new thing", "7"],
            ["First text", "250 ms"],
            ["Speed", "10 tokens/s"],
            ["Prompt", "1,200 tokens"],
            ["Cached", "1,100 tokens"],
            ["Answer", "11 tokens"],
        ],
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_text_is_cut_anywhere(library: Page, size: int) -> None:
    """However an answer is cut into pieces, the same is shown."""
    text = "a\n~~~\n```x\n~~~\n`b`\n\n```js extra\nd\n ```` \n`` e\n```unfinished\nf"
    code = f"""
      import("/page/answer.js").then(({{ AnswerView }}) => {{
        const place = document.createElement("div");
        const view = new AnswerView(place);
        const text = {json.dumps(text)};
        for (let i = 0; i < text.length; i += {size}) view.push(text.slice(i, i + {size}));
        view.finish();
        return [...place.children].map((one) =>
          (one.querySelector("code") ?? one).textContent).concat(view.text === text);
      }})
    """

    assert library.run(code) == ["a\n", "```x\n", "`b`\n", "d\n", "`` e\n", "f", True]


def test_events_are_cut_anywhere(library: Page) -> None:
    """Comments are passed over, and every kind of line end is one."""
    code = """
      import("/page/events.js").then(({ EventReader }) => {
        const text = ": ping\\n\\ndata: a\\r\\n\\r\\ndata:b\\ndata: c\\n\\nid: 1\\n\\ndata: d\\n";
        return [1, 2, 3, 100].map((size) => {
          const reader = new EventReader();
          const found = [];
          for (let i = 0; i < text.length; i += size) {
            found.push(...reader.push(text.slice(i, i + size)));
          }
          return found;
        });
      })
    """

    assert library.run(code) == [["a", "b\nc"]] * 4
