"""Conversations with tools as texts: by templates that know them, and in words by others."""

import json

import pytest
from tests.device.tools.families import TEMPLATES, lamp_tools

from onhand.core.errors import InputError
from onhand.device.template import ChatTemplate, Message
from onhand.device.tools.kinds import ToolCall, ToolUse
from onhand.device.tools.telling import Telling, telling_of

ASK = Message("user", "lights")
USE = ToolUse(tools=lamp_tools(), names=("lamp", "time"))
CALL = ToolCall("call_1", "lamp", '{"on": true}')
HISTORY = [ASK, Message("assistant", "", calls=(CALL,)), Message("tool", "done", call_id="call_1")]


def telling(name: str) -> Telling:
    return telling_of(ChatTemplate(TEMPLATES[name]))


@pytest.mark.parametrize(
    ("name", "form", "is_native"),
    [
        ("hermes", "hermes", True),
        ("llama", "llama", True),
        ("mistral", "mistral", True),
        ("phi", "phi", True),
        ("plain", "generic", False),
        ("no-system", "generic", False),
        ("other", "generic", False),
    ],
)
def test_a_template_shows_its_family(name: str, form: str, is_native: bool) -> None:
    """By what it does with a tool, and by what it holds."""
    found = telling(name)

    assert (found.form.name, found.is_native) == (form, is_native)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_tool_is_told(name: str) -> None:
    """Its name, its purpose and its arguments, whoever tells them."""
    text = telling(name).render([ASK], USE)

    for tool in USE.tools:
        assert json.dumps(tool.name) in text
    assert "a lamp" in text
    assert "kitchen" in text
    assert "lights" in text
    assert telling(name).render([ASK], None).count("lamp") == 0


@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_and_results_are_told(name: str) -> None:
    """A second turn holds what was called and what came of it."""
    text = telling(name).render(HISTORY, USE)

    assert "lamp" in text
    assert "done" in text
    assert text.index("lights") < text.index("done")


def test_a_family_with_short_ids_gets_them() -> None:
    """The same for a call and its result, and an id that is short already stays."""
    text = telling("mistral").render(HISTORY, USE)
    short = text.partition("[TOOL_CALLS] [lamp ")[2][:9]
    kept = ToolCall("abcdefgh9", "lamp", "")
    again = telling("mistral").render([ASK, Message("assistant", "", calls=(kept,))], USE)

    assert short.isalnum()
    assert f"r:{short}done" in text
    assert "lamp abcdefgh9" in again


def test_a_template_for_one_call_at_a_time_gets_them_one_by_one() -> None:
    """Each with its result, and none is lost."""
    other = ToolCall("call_2", "time", "")
    history = [
        ASK,
        Message("assistant", "", calls=(CALL, other)),
        Message("tool", "lit", call_id="call_1"),
        Message("tool", "noon", call_id="call_2"),
    ]
    text = telling("llama").render(history, USE)

    places = [text.index(part) for part in ('a:{"name": "lamp"', "lit", '"time", "par', "noon")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "arguments", ["", "null", '{"on": tr', "on", "[1]", '"{}"', '{"on": "a\\', "\ud800"]
)
@pytest.mark.parametrize("name", TEMPLATES)
def test_attack_damaged_arguments_are_told_all_the_same(name: str, arguments: str) -> None:
    """A conversation that was cut off once can go on."""
    call = ToolCall("", "lamp", arguments)
    history = [ASK, Message("assistant", "", calls=(call,)), Message("tool", ""), ASK]

    assert "lamp" in telling(name).render(history, USE)


@pytest.mark.parametrize("name", TEMPLATES)
def test_attack_a_result_without_a_call_is_told(name: str) -> None:
    """Programs shorten histories as they like."""
    assert "orphan" in telling(name).render([ASK, Message("tool", "orphan", call_id="x")], USE)


def test_words_join_what_the_system_says() -> None:
    """One system message, its own text first."""
    text = telling("plain").render([Message("system", "be brief"), ASK], USE)

    assert text.startswith("s:be brief\n\nYou may call these functions:\n")
    assert text.count(";") == 2
    assert '<tool_call>\n{"name": "NAME"' in text


def test_words_say_what_must_and_what_may_be_called() -> None:
    """A call that is required, and whether one answer may hold several."""
    must = ToolUse(tools=USE.tools, names=("lamp",), is_required=True, is_parallel=False)

    assert "Answer with a call of lamp. " in telling("plain").render([ASK], must)
    assert "once for each" not in telling("plain").render([ASK], must)
    assert "once for each" in telling("plain").render([ASK], USE)


def test_the_user_says_the_words_where_a_system_may_not() -> None:
    """Turns alternate still: results come from the user, and join."""
    history = [*HISTORY, Message("tool", "also"), Message("user", "thanks")]
    text = telling("no-system").render(history, USE)

    assert text.startswith("u:You may call these functions:")
    assert text.count("u:") == 2
    assert "<tool_response>\ndone\n</tool_response>\n<tool_response>\nalso" in text
    assert text.endswith("thanks;<open>")


def test_without_a_template_there_is_no_conversation() -> None:
    """Said in one sentence."""
    with pytest.raises(InputError, match="has no chat template"):
        telling_of(None).render([ASK], USE)


def test_results_know_whose_they_are() -> None:
    """Some templates ask for the tool's name, which programs leave out."""
    source = "{{ tools }}{% for m in messages %}{{ m.name }}{% endfor %}<tool_call>"

    assert "lamp<tool_call>" in telling_of(ChatTemplate(source)).render(HISTORY, USE)
