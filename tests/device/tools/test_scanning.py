"""Calls in answers: found, whatever way the text comes in, and nothing else taken for one."""

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.device.tools.formats import FORMATS, GENERIC, CallFormat
from onhand.device.tools.kinds import CallPart
from onhand.device.tools.scanning import CallScanner

BY_NAME = {form.name: form for form in (*FORMATS, GENERIC)}
NAMES = ("lamp", "time")
LAMP = '{"name": "lamp", "arguments": {"on": [1, "}\\""]}}'
ON = '{"on": [1, "}\\""]}'


def scanned(form: CallFormat, pieces: Sequence[str]) -> list[str | CallPart]:
    """What an answer says: texts, and calls as one part each."""
    numbers = itertools.count()
    scanner = CallScanner(form, NAMES, make_id=lambda: f"id{next(numbers)}")
    said: list[str | CallPart] = []
    parts = [part for piece in pieces for part in scanner.push(piece)] + scanner.finish()
    for part in parts:
        last = said[-1] if said else None
        if isinstance(part, str) and isinstance(last, str):
            said[-1] = last + part
        elif isinstance(part, CallPart) and not part.name:
            assert isinstance(last, CallPart)
            assert last.index == part.index
            arguments = last.arguments + part.arguments
            said[-1] = CallPart(last.index, last.id, last.name, arguments, part.is_end)
        else:
            said.append(part)
    assert scanner.n_whole == sum(isinstance(one, CallPart) and one.is_end for one in said)
    return said


def lamp(index: int = 0, arguments: str = ON, *, is_end: bool = True) -> CallPart:
    return CallPart(index, f"id{index}", "lamp", arguments, is_end)


CASES = [
    ("hermes", "plain text  ", ["plain text  "]),
    ("hermes", "", []),
    ("hermes", f"I look.\n\n<tool_call>\n{LAMP}\n</tool_call>", ["I look.", lamp()]),
    ("hermes", f"<tool_call>{LAMP}</tool_call>\n", [lamp()]),
    (
        "hermes",
        f"<tool_call>{LAMP}</tool_call>\n<tool_call>{LAMP}</tool_call>",
        [lamp(), lamp(1)],
    ),
    ("hermes", f"<tool_call>[{LAMP}, {LAMP}]</tool_call>", [lamp(), lamp(1)]),
    ("hermes", f"<tool_call>{LAMP}</tool_call> done", [lamp(), " done"]),
    ("hermes", f"<tool_call>{LAMP}\nand text", [lamp(), "\nand text"]),
    ("hermes", f"<tool_call>{LAMP}</tool", [lamp()]),
    ("hermes", f"<tool_call>{LAMP[:-1]}\n</tool_call>", [lamp()]),
    ("hermes", '<tool_call>{"name": "lamp"}</tool_call>', [lamp(arguments="{}")]),
    (
        "hermes",
        '<tool_call>{"arguments": {"a": 1}, "id": 7, "name": "lamp"}</tool_call>',
        [lamp(arguments='{"a": 1}')],
    ),
    (
        "hermes",
        '<tool_call>{"name": "lamp", "arguments": "{\\"a\\": 1}"}</tool_call>',
        [lamp(arguments='{"a": 1}')],
    ),
    ("hermes", '<tool_call>{"name": "lamp", "arguments": ""}</tool_call>', [lamp(arguments="{}")]),
    ("hermes", '<tool_call>{"name": "lamp", "arguments": null}', [lamp(arguments="{}")]),
    ("hermes", '<tool_call>{"name": "door", "arguments": {}}', None),
    ("hermes", '<tool_call>{"name": "lamp", "arguments": 5}</tool_call>', None),
    ("hermes", "<tool_call>lamp()</tool_call>", None),
    ("hermes", "a <b and <tool_ and <tool_call", None),
    ("hermes", '<tool_call>{"na', None),
    ("hermes", f"<<tool_call> <tool_call>{LAMP}", ["<<tool_call>", lamp()]),
    (
        "hermes",
        '<tool_call>{"name": "lamp", "arguments": {"on": 1',
        [lamp(arguments='{"on": 1', is_end=False)],
    ),
    (
        "hermes",
        '<tool_call>{"name": "lamp", "arguments": {"on": 1]}</tool_call>',
        [lamp(arguments='{"on": 1]', is_end=False), "}</tool_call>"],
    ),
    (
        "hermes",
        '<tool_call>{"name": "lamp", "arguments": {on: 1}}</tool_call>',
        [lamp(arguments="{on: 1}", is_end=False), "}</tool_call>"],
    ),
    ("mistral", f"[TOOL_CALLS] [{LAMP}, {LAMP}]", [lamp(), lamp(1)]),
    ("mistral", f"so: [TOOL_CALLS][{LAMP}", ["so:", lamp()]),
    ("mistral", f"[TOOL_CALLS] [{LAMP}, 5]", [lamp(), ", 5]"]),
    ("mistral", "[TOOL", None),
    ("phi", f"<|tool_call|>[{LAMP}]<|/tool_call|>", [lamp()]),
    ("llama", '{"name": "lamp", "parameters": {"a": 1}}', [lamp(arguments='{"a": 1}')]),
    (
        "llama",
        '<|python_tag|>{"name": "lamp", "parameters": {}}; {"name": "time", "parameters": {}}',
        [lamp(arguments="{}"), CallPart(1, "id1", "time", "{}", True)],
    ),
    ("llama", '{"name": "Bob", "age": 7}', None),
    ("llama", '{"on": true}', None),
    ("llama", f"use {LAMP}", None),
    ("llama", "<|python_tag|>print(1)", None),
    ("generic", f"<tool_call>{LAMP}</tool_call>", [lamp()]),
]


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_an_answer_is_told_apart(
    name: str, text: str, expected: list[str | CallPart] | None
) -> None:
    """Texts and calls, in order; None for what is text from end to end."""
    assert scanned(BY_NAME[name], [text]) == ([text] if expected is None else expected)


@given(case=st.sampled_from(CASES), cuts=st.lists(st.integers(0, 90), max_size=9))
def test_however_a_text_is_cut_it_says_the_same(
    case: tuple[str, str, list[str | CallPart] | None], cuts: list[int]
) -> None:
    """Letter by letter or all at once."""
    name, text, _ = case
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:stop] for start, stop in itertools.pairwise(places)]

    assert scanned(BY_NAME[name], pieces) == scanned(BY_NAME[name], [text])
    assert scanned(BY_NAME[name], list(text)) == scanned(BY_NAME[name], [text])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


def written(form: CallFormat, calls: Sequence[tuple[str, dict[str, object]]]) -> str:
    """Calls as a model of the family writes them."""
    objects = [json.dumps({"name": name, form.arguments: args}) for name, args in calls]
    if form.layout == "list":
        return f"{form.opening} [{', '.join(objects)}]{form.closing}"
    if form.layout == "bare":
        return "; ".join(objects)
    return "\n".join(f"{form.opening}\n{one}\n{form.closing}" for one in objects)


@settings(max_examples=40)
@given(
    form=st.sampled_from([*FORMATS, GENERIC]),
    calls=st.lists(st.tuples(st.sampled_from(NAMES), ARGUMENTS), min_size=1, max_size=3),
    size=st.integers(1, 40),
)
def test_what_a_model_writes_is_read(
    form: CallFormat, calls: list[tuple[str, dict[str, object]]], size: int
) -> None:
    """Names and arguments come through, whatever they are and however the text is cut."""
    text = written(form, calls)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    said = [one for one in scanned(form, pieces) if isinstance(one, CallPart)]

    assert [(one.name, json.loads(one.arguments)) for one in said] == calls
    assert all(one.is_end for one in said)


@given(
    form=st.sampled_from([*FORMATS, GENERIC]),
    text=st.text(alphabet='<tool_ca>/|pyhn[TOL]{}":, \n\\', max_size=60),
)
def test_attack_no_letter_of_a_text_without_names_is_lost(form: CallFormat, text: str) -> None:
    """Where no tool is named, all is text, however much it looks like calls."""
    assert "".join(one for one in scanned(form, [text]) if isinstance(one, str)) == text


def test_names_come_first_and_arguments_as_they_are_written() -> None:
    """A reader of the stream knows the tool before the arguments are complete."""
    scanner = CallScanner(BY_NAME["hermes"], NAMES, make_id=lambda: "id")
    begun = scanner.push('<tool_call>{"name": "lamp", "arguments": {')

    assert begun == [CallPart(0, "id", "lamp"), CallPart(0, arguments="{")]
    assert scanner.is_inside
    assert scanner.push('"a"') == [CallPart(0, arguments='"a"')]
    assert scanner.push(": 1}}") == [CallPart(0, arguments=": 1}", is_end=True)]
    assert not scanner.is_inside


def test_attack_a_call_that_never_begins_is_text_at_last() -> None:
    """What is held is bounded."""
    scanner = CallScanner(BY_NAME["hermes"], NAMES, make_id=lambda: "id")
    text = '<tool_call>{"x": "' + "y" * 20_000

    assert "".join(str(part) for part in scanner.push(text)) == text
