"""Grammars of calls, judged by whatever a model of random weights says under them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.tools.families import END, lamp_tools, tokenizer_content, tokenizer_of

from onhand.core.errors import InputError
from onhand.device.guide import GuideMaker, json_grammar
from onhand.device.sampling import Sampler, Sampling, Watcher
from onhand.device.template import ChatTemplate
from onhand.device.tools.calling import Calling
from onhand.device.tools.formats import FORMATS, GENERIC, CallFormat
from onhand.device.tools.kinds import CallPart, Tool, ToolUse
from onhand.device.tools.scanning import CallScanner
from onhand.device.tools.writing import CallWriting, check_arguments

BY_NAME = {form.name: form for form in (*FORMATS, GENERIC)}
VOCAB = 266
USE = ToolUse(tools=lamp_tools(), names=("lamp", "time"))
MUST = ToolUse(tools=lamp_tools(), names=("lamp", "time"), is_required=True)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> GuideMaker:
    """Guides for a tokenizer of bytes, with the markers of all families."""
    place = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    place.write_bytes(tokenizer_content())
    return GuideMaker(place, vocab_size=VOCAB, stop_ids=[END])


def writing(maker: GuideMaker, form: CallFormat) -> CallWriting:
    known = {text: tokenizer_of().find(text) for text in (form.opening, form.closing) if text}
    tokens = {text: token for text, token in known.items() if token is not None}
    return CallWriting(form=form, tokens=maker.tokens_of(tokens))


def drawn(watcher: Watcher, seed: int, *, begun: str = "", most: int = 900) -> tuple[str, bool]:
    """What random weights say under a guide, and whether they came to an end.

    The beginning is said first, whatever the weights want.
    """
    random = np.random.default_rng(seed)
    sampler = Sampler(Sampling(temperature=1, seed=seed), watchers=[watcher])
    script = [int(token) for token in tokenizer_of().encode_template(begun)]
    markers = [tokenizer_of().find(text) or 0 for text in ("[TOOL_CALLS]", "<tool_call>")]
    stream = tokenizer_of().stream(shown=range(258, VOCAB))
    text = ""
    for place in range(most):
        logits = random.normal(size=VOCAB).astype(np.float32)
        logits[markers] -= 5
        if place < len(script):
            logits[script[place]] = 1e6
        token = sampler.sample(logits)
        if token == END:
            return text + stream.finish(), True
        text += stream.push(token)
    return text, False


def calls_of(form: CallFormat, text: str) -> list[CallPart]:
    scanner = CallScanner(form, USE.names, make_id=lambda: "id")
    whole: list[CallPart] = []
    for part in scanner.push(text) + scanner.finish():
        if isinstance(part, CallPart):
            last = whole.pop() if not part.name else part
            arguments = last.arguments + (part.arguments if not part.name else "")
            whole.append(CallPart(last.index, last.id, last.name, arguments, part.is_end))
    return whole


def check(call: CallPart) -> None:
    """A call's arguments follow the tool's schema."""
    arguments = json.loads(call.arguments)
    assert call.is_end
    if call.name == "time":
        assert arguments == {}
    else:
        assert {"room", "on"} <= set(arguments) <= {"room", "on", "name"}
        assert arguments["room"] in {"hall", "kitchen"}
        assert isinstance(arguments["on"], bool)


@pytest.mark.parametrize("name", BY_NAME)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_what_must_be_a_call_is_one(maker: GuideMaker, name: str, seed: int) -> None:
    """Random weights say calls that follow their schemas, and nothing else."""
    form = BY_NAME[name]
    text, is_end = drawn(maker.guide(writing(maker, form).required(MUST)), seed)
    calls = calls_of(form, text)

    assert calls
    for call in calls if is_end else calls[:-1]:
        check(call)


@pytest.mark.parametrize("name", BY_NAME)
def test_one_call_alone(maker: GuideMaker, name: str) -> None:
    """Of the tool that is named, where several are known but not wanted."""
    use = ToolUse(
        tools=lamp_tools(is_strict=True), names=("time",), is_required=True, is_parallel=False
    )
    for seed in range(5):
        text, is_end = drawn(maker.guide(writing(maker, BY_NAME[name]).required(use)), seed)

        assert is_end
        assert [call.name for call in calls_of(BY_NAME[name], text)] == ["time"]


BEGUN = {
    "hermes": "I look. <tool_call>",
    "generic": "<tool_call>",
    "phi": "so <|tool_call|>",
    "mistral": "[TOOL_CALLS]",
    "llama": '{"name": "lamp"',
}


@pytest.mark.parametrize("name", BEGUN)
def test_a_call_that_was_begun_is_brought_to_its_end(maker: GuideMaker, name: str) -> None:
    """Text is free up to where a call begins; the rest follows the schema."""
    form = BY_NAME[name]
    for seed in range(6):
        watcher = maker.awaiting(writing(maker, form).trigger(USE), bytes_of=bytes_of)
        text, is_end = drawn(watcher, seed, begun=BEGUN[name])
        calls = calls_of(form, text)

        assert text.startswith(BEGUN[name])
        assert calls
        for call in calls if is_end else calls[:-1]:
            check(call)


def bytes_of(token: int) -> bytes:
    if token >= END:
        return (tokenizer_of().token(token) or "").encode()
    return tokenizer_of().token_bytes(token)


@pytest.mark.parametrize("begun", ["", "no tools", '{"name": "Bob"', "<tool_cal>"])
@pytest.mark.parametrize("name", ["hermes", "llama"])
def test_what_is_no_call_is_not_held_to_a_grammar(maker: GuideMaker, name: str, begun: str) -> None:
    """Any token may come next."""
    watcher = maker.awaiting(writing(maker, BY_NAME[name]).trigger(USE), bytes_of=bytes_of)
    for token in tokenizer_of().encode_template(begun):
        watcher.chose(np.zeros(VOCAB, dtype=np.float32), int(token))

    assert watcher.forbidden() is None


def test_a_token_may_end_behind_the_opening(maker: GuideMaker) -> None:
    """What it says of the call counts, and what it says wrongly ends the guidance alone."""
    trigger = writing(maker, BY_NAME["phi"]).trigger(USE)
    marker = tokenizer_of().find("<|tool_call|>")
    for given_, is_led in (('<|tool_call|>[{"na', True), ("<|tool_call|>what", False)):
        watcher = maker.awaiting(trigger, bytes_of=lambda token, it=given_: it.encode())  # type: ignore[misc]
        watcher.chose(np.zeros(VOCAB, dtype=np.float32), marker or 0)
        forbidden = watcher.forbidden()

        assert (forbidden is not None) == is_led
        if forbidden is not None:
            assert np.flatnonzero(~forbidden).tolist() == [int(tokenizer_of().find("m") or 0)]


@pytest.mark.parametrize("name", BY_NAME)
def test_an_answer_may_be_json_or_a_call(maker: GuideMaker, name: str) -> None:
    """Where both are wanted, either comes, and nothing else."""
    schema = {"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]}
    answer = json_grammar(schema | {"additionalProperties": False})
    seen = set()
    for seed in range(12):
        grammar = writing(maker, BY_NAME[name]).either(USE, answer)
        text, is_end = drawn(maker.guide(grammar), seed, most=4000)
        if not is_end:
            continue
        calls = calls_of(BY_NAME[name], text)
        seen.add(bool(calls))
        assert calls or json.loads(text) == {"x": None}

    assert False in seen


def test_the_grammar_comes_from_the_family(maker: GuideMaker) -> None:
    """Nothing asked, nothing watched; a grammar alone is followed as without tools."""
    calling = Calling(tokenizer_of(), ChatTemplate("{{ messages }}"), maker)

    assert calling.guide(None, None) is None
    assert calling.guide(None, json_grammar({"type": "null"})) is not None
    assert calling.guide(MUST, None) is not None
    assert calling.guide(USE, None) is not None
    assert calling.guide(USE, json_grammar({"type": "null"})) is not None


def test_what_cannot_be_followed_is_said() -> None:
    """By strict tools alone: others follow what can be."""
    schema: dict[str, object] = {"type": "object", "not": {"required": ["a"]}}
    check_arguments(schema, is_strict=False)

    with pytest.raises(InputError, match="not"):
        check_arguments(schema, is_strict=True)


def test_no_argument_is_written_that_was_not_declared(maker: GuideMaker) -> None:
    """A schema that does not say whether others may be has none: a small model adds no end."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"room": {"enum": ["hall"]}},
        "required": ["room"],
    }
    tool = Tool(name="lamp", description="", parameters=schema)
    use = ToolUse(tools=(tool,), names=("lamp",), is_required=True, is_parallel=False)
    for seed in range(3):
        text, is_end = drawn(maker.guide(writing(maker, GENERIC).required(use)), seed)

        assert is_end
        assert json.loads(calls_of(GENERIC, text)[0].arguments) == {"room": "hall"}


def test_a_schema_may_point_into_itself(maker: GuideMaker) -> None:
    """As those of nested models do."""
    schema: dict[str, object] = {
        "$defs": {"room": {"enum": ["hall"]}},
        "type": "object",
        "properties": {"room": {"$ref": "#/$defs/room"}},
        "required": ["room"],
        "additionalProperties": False,
    }
    tool = Tool(name="lamp", description="", parameters=schema, is_strict=True)
    use = ToolUse(tools=(tool,), names=("lamp",), is_required=True, is_parallel=False)
    text, _ = drawn(maker.guide(writing(maker, GENERIC).required(use)), 1)

    assert json.loads(calls_of(GENERIC, text)[0].arguments) == {"room": "hall"}
