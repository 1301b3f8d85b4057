"""Variants of what is taught: what an answer copies is exchanged in prompt and answer alike."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.device.learning.examples import Dialogue, PlainText
from onhand.device.learning.variants import Copied, copied_values, varied
from onhand.device.template import Message


def said(prompt: str, **answer: str) -> Dialogue:
    """A command and its answer in JSON."""
    text = json.dumps(answer, ensure_ascii=False)
    return Dialogue(messages=(Message("user", prompt), Message("assistant", text)), learned=(1,))


WATERED = said("water the roses in the hall", do="water", device="roses", room="hall")
KNOWN = (
    said("turn the lamp in the study on", do="turn_on", device="lamp", room="study"),
    said("switch off the fan", do="turn_off", device="fan"),
    said("把客厅的灯关掉", do="turn_off", device="灯具", room="客厅"),
)


def pair(one: object) -> tuple[str, str]:
    """What was said, and the answer."""
    assert isinstance(one, Dialogue)
    return one.messages[-2].content, one.messages[-1].content


def test_what_an_answer_copies_is_found_with_its_key() -> None:
    """Texts that stand in the prompt as words of their own."""
    prompt, answer = pair(WATERED)

    assert copied_values(prompt, answer) == (
        Copied("do", "water"),
        Copied("device", "roses"),
        Copied("room", "hall"),
    )


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("light the lighthouse", '{"device": "house"}'),  # no word of its own
        ("the lamp and the lamp", '{"device": "lamp"}'),  # which of the two is meant
        ("the lamp", '{"device": "lamp", "room": "lamp"}'),
        ("the lamp", "lamp"),  # no JSON
        ("the lamp", '{"device": "lam'),
        ("a", '{"device": "a"}'),
    ],
)
def test_what_may_be_no_copy_is_left_alone(prompt: str, answer: str) -> None:
    """Nothing is found where it is open what was copied."""
    assert copied_values(prompt, answer) == ()


def test_values_are_exchanged_in_both() -> None:
    """Other devices and rooms stand in prompt and answer; what is done stays."""
    made = varied([WATERED], KNOWN, each=4, rng=np.random.default_rng(0))

    assert {pair(one) for one in made} == {
        (
            f"water the {device} in the study",
            json.dumps({"do": "water", "device": device, "room": "study"}),
        )
        for device in ("lamp", "fan")
    }


def test_a_key_that_is_mostly_not_copied_is_not_varied() -> None:
    """To water is an action, not a name that somebody said."""
    known = [said("play jazz", do="play", value="jazz"), *KNOWN]
    made = varied([WATERED], known, each=8, rng=np.random.default_rng(0))

    assert made
    assert all(json.loads(pair(one)[1])["do"] == "water" for one in made)


def test_scripts_are_not_mixed() -> None:
    """A Chinese name stands in no English sentence."""
    made = varied([WATERED], KNOWN, each=8, rng=np.random.default_rng(0))

    assert all(pair(one)[0].isascii() for one in made)


def test_examples_that_copy_nothing_have_no_variants() -> None:
    """Plain texts and free answers stay as they are."""
    talk = Dialogue(
        messages=(Message("user", "who are you"), Message("assistant", "a house")), learned=(1,)
    )

    assert (
        varied([talk, PlainText(text="a lamp")], KNOWN, each=3, rng=np.random.default_rng(0)) == []
    )


def test_a_name_that_is_taught_is_put_into_known_commands() -> None:
    """A quarter as often as names are exchanged, for each example that has it."""
    boiler = {"device": "boiler", "room": "cellar"}
    taught = [
        said("warm up Bertha", do="raise", **boiler),
        said("is Bertha on", do="ask", **boiler),
    ]
    known = [KNOWN[1], said("lights out in the study", do="turn_off", room="study")]
    made = varied(taught, known, each=4, rng=np.random.default_rng(0))

    assert [pair(one) for one in made] == [
        ("switch off Bertha", json.dumps({"do": "turn_off", **boiler}))
    ]


names = st.text(st.sampled_from("abcde"), min_size=2, max_size=5)


@given(names=st.lists(names, min_size=1, max_size=6, unique=True), each=st.integers(1, 5))
def test_variants_differ_and_still_copy(names: list[str], each: int) -> None:
    """None comes twice, none is what was taught, and what is copied is copied by letter."""
    known = [said(f"open the {name} please", do="open_it", device=name) for name in names]
    taught = said("water the roses", do="give_water", device="roses")
    made = [pair(one) for one in varied([taught], known, each=each, rng=np.random.default_rng(0))]

    assert len(set(made)) == len(made)
    assert pair(taught) not in made
    for prompt, answer in made:
        assert prompt == f"water the {json.loads(answer)['device']}"
        assert json.loads(answer)["device"] in names


def test_equal_seeds_give_equal_variants() -> None:
    """All chance is of the generator."""
    first, second = (varied([WATERED], KNOWN, each=1, rng=np.random.default_rng(3)) for _ in "ab")

    assert first == second
