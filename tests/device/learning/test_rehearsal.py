"""Remembered commands about other names, of which those are kept that a model answers so."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.learning.models import TableTeachable

from onhand.device.learning.examples import Dialogue, PlainText
from onhand.device.learning.rehearsal import answered_so, made_names, rehearsed
from onhand.device.learning.text_feeds import TextSource, TokenSequence
from onhand.device.template import Message


def said(prompt: str, **answer: str) -> Dialogue:
    """A command and its answer in JSON."""
    text = json.dumps(answer, ensure_ascii=False)
    return Dialogue(messages=(Message("user", prompt), Message("assistant", text)), learned=(1,))


KNOWN = (
    said("turn the lamp in the study on", do="turn_on", device="lamp", room="study"),
    said("switch off the old fan", do="turn_off", device="old fan"),
    said("把客厅的台灯关掉", do="turn_off", device="台灯", room="客厅"),
    said("打开车库的音箱", do="turn_on", device="音箱", room="车库"),
)


def test_commands_are_said_about_other_names() -> None:
    """The name stands in prompt and answer; what is done with it stays."""
    made = rehearsed(KNOWN, count=40, rng=np.random.default_rng(0))

    pairs = {(one.messages[0].content, one.messages[1].content) for one in made}
    assert len(pairs) == len(made) > 4
    assert (
        "turn the old fan in the study on",
        json.dumps({"do": "turn_on", "device": "old fan", "room": "study"}),
    ) in pairs
    for prompt, answer in pairs:
        assert json.loads(answer)["device"] in prompt
        assert json.loads(answer)["do"] in ("turn_on", "turn_off")


def test_nothing_is_said_about_what_copies_nothing() -> None:
    """Texts, and answers that are no JSON, are left alone."""
    rng = np.random.default_rng(0)

    assert rehearsed([PlainText(text="turn the lamp on")], count=9, rng=rng) == []
    assert rehearsed([said("hello", say="good day")], count=9, rng=rng) == []


@given(seed=st.integers(0, 1000))
def test_the_same_seed_says_the_same(seed: int) -> None:
    """A training that is begun again remembers the same."""
    one, other = (rehearsed(KNOWN, count=6, rng=np.random.default_rng(seed)) for _ in range(2))

    assert one == other


@given(seed=st.integers(0, 1000))
def test_made_names_are_parts_of_two(seed: int) -> None:
    """Letters are of the names that were given, in their script, without spaces at the ends."""
    names = {
        ("device", True): ("floor lamp", "big old radio", "fan"),
        ("device", False): ("台灯", "扫地机器人"),
    }
    made = made_names(names, np.random.default_rng(seed), share=3.0)

    for (key, is_ascii), texts in made.items():
        known = names[key, is_ascii]
        assert texts[: len(known)] == known
        assert len(set(texts)) == len(texts)
        for text in texts[len(known) :]:
            assert text.isascii() == is_ascii
            assert text == text.strip()
            assert set(text) <= set("".join(known))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_names_of_digits_are_not_made(share: float) -> None:
    """A number says something else, wherever it stands."""
    made = made_names({("device", True): ("12", "7", "31")}, np.random.default_rng(0), share=share)

    assert made == {("device", True): ("12", "7", "31")}


def test_what_a_model_answers_otherwise_is_left_out() -> None:
    """Each token has to have more than half of the probability; the order stays."""
    teachable = TableTeachable(5)
    table = np.zeros((5, 5), np.float32)
    table[1, 2] = table[2, 3] = 9.0
    texts = [
        TokenSequence(np.array(tokens), np.array(learned))
        for tokens, learned in (
            ([0, 1, 2, 3], [2, 3]),  # as the table says
            ([0, 1, 2, 4], [2, 3]),  # the last one not
            ([0, 1, 2], [2]),
            ([3, 4], [1]),  # the table does not know
        )
    ]

    kept = answered_so(teachable, {"table": table}, TextSource(texts), batch=2)

    assert [one.tokens.tolist() for one in kept.sequences] == [[0, 1, 2, 3], [0, 1, 2]]


def test_of_nothing_nothing_is_left() -> None:
    """Where no command could be said about others."""
    teachable = TableTeachable(3)

    assert len(answered_so(teachable, teachable.start(), TextSource(), batch=2)) == 0
