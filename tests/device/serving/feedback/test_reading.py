"""`POST /v1/feedback`, field by field."""

from pathlib import Path
from typing import Any

import pytest
from tests.device.serving.feedback.test_recent import keep, recent_of

from onhand.device.learning.feedback import parse_feedback, render_feedback
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.feedback.reading import Said, read_feedback_request
from onhand.device.serving.feedback.settings import LearningSettings
from onhand.device.serving.refusals import RefusedRequest


def read(who: str = "anna", /, **fields: Any) -> Said:
    """What a request says, a moment after an answer "yes" with the id abc."""
    recent = recent_of()
    keep(recent, "abc", ["yes", "no"])
    keep(recent, "tool", ["I look. ", "cut"], calls=True)
    return read_feedback_request(
        Body(fields),
        recent,
        tenant=who,
        now_s=3.0,
        shown=lambda answer: (
            "<user>is it on?<assistant>",
            f"{answer.text}{answer.calls[0].name}{answer.calls[0].arguments}",
        ),
    )


def test_an_answer_is_accepted_by_its_id() -> None:
    """What was asked and answered is known."""
    said = read(id="chatcmpl-abc", verdict="accepted")

    feedback = said.feedback
    assert (said.model, said.from_answer) == ("toy", True)
    assert (feedback.messages, feedback.answer) == ((("user", "is it on?"),), "yes")
    assert (feedback.verdict, feedback.rating, feedback.tenant) == ("accepted", 1.0, "anna")


def test_an_answer_is_corrected() -> None:
    """The right one is learned, and the wrong one is known as such."""
    feedback = read(id="abc", verdict="corrected", correction="maybe").feedback

    assert (feedback.answer, feedback.wrong) == ("maybe", "yes")


def test_a_choice_is_rated() -> None:
    """One of several, from 0 to 1."""
    feedback = read(id="abc", verdict="rated", rating=0.25, index=1).feedback

    assert (feedback.answer, feedback.rating, feedback.is_good) == ("no", 0.25, False)


def test_an_answer_that_calls_tools_is_learned_as_the_model_wrote_it() -> None:
    """Its prompt is what the model got: with the tools in it."""
    feedback = read(id="tool", verdict="accepted").feedback

    assert feedback.text == "<user>is it on?<assistant>"
    assert feedback.answer == 'I look. lamp{"on": true}'
    assert (feedback.is_continued, feedback.is_rendered) == (True, True)
    assert parse_feedback(render_feedback(feedback)) == feedback


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"verdict": "accepted", "index": 1}, "a call of this answer was cut off"),
        ({"verdict": "rated", "rating": 0.1}, "give a correction instead"),
    ],
)
def test_what_cannot_be_learned_of_calls_is_said(fields: dict[str, Any], message: str) -> None:
    """Half a call is no example, and nothing is taken only to be left out."""
    with pytest.raises(RefusedRequest) as caught:
        read(id="tool", **fields)

    assert message in caught.value.refusal.message


def test_an_example_is_given_whole() -> None:
    """Of a conversation, of a text and of a picture."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "on?"}]
    talk = read(messages=messages, answer="yes", model="toy").feedback
    text = read(input="hello", label="greeting").feedback
    picture = read(image="data:image/png;base64,aGk=", label="cat").feedback

    assert talk.messages == (("system", "be brief"), ("user", "on?"))
    assert (text.text, text.answer) == ("hello", "greeting")
    assert (picture.picture, picture.answer) == (b"hi", "cat")


_TALK = [{"role": "user", "content": "on?"}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "messages"),
        ({"id": "abc"}, "verdict: must be one of"),
        ({"id": "abc", "verdict": "loved"}, "verdict: must be one of"),
        ({"id": "abc", "verdict": "corrected"}, "correction: must be given"),
        ({"id": "abc", "verdict": "accepted", "correction": "x"}, "correction: must be given"),
        ({"id": "abc", "verdict": "accepted", "rating": 0.5}, "rating: is given only where"),
        ({"id": "abc", "verdict": "rated", "rating": 2}, "rating: is 2"),
        ({"id": "abc", "verdict": "rated", "rating": "NaN"}, "rating: is 'NaN'"),
        ({"id": "abc", "verdict": "accepted", "index": 2}, "has 2 choices"),
        ({"id": "abc", "verdict": "accepted", "answer": "x"}, "answer: is no field"),
        ({"messages": _TALK}, "answer: must be the right answer"),
        ({"messages": [*_TALK, {"role": "assistant", "content": "x"}], "answer": "y"}, "the last"),
        ({"messages": [{"role": "tool", "content": "x"}], "answer": "y"}, "role: must be one of"),
        ({"messages": [{"role": "user"}], "answer": "y"}, "content: must be a text"),
        ({"messages": _TALK, "answer": "y", "label": "z"}, "label: goes with input or image"),
        ({"input": "a", "image": "aGk=", "label": "z"}, "one of the two"),
        ({"input": "a"}, "label: must be the name"),
        ({"image": "?", "label": "z"}, "image: is no base64"),
        ({"image": "", "label": "z"}, "image: is empty"),
        ({"input": "a", "label": "z", "tenant": "ben"}, "tenant: is no field"),
    ],
)
def test_what_is_wrong_is_said_by_its_name(fields: dict[str, Any], message: str) -> None:
    """A field that is missing, wrong or unknown."""
    with pytest.raises(RefusedRequest) as caught:
        read(**fields)

    assert caught.value.refusal.status == 400
    assert message in caught.value.refusal.message


@pytest.mark.parametrize(("tenant", "name"), [("ben", "abc"), ("anna", "xyz"), ("anna", "../abc")])
def test_attack_an_answer_of_somebody_else(tenant: str, name: str) -> None:
    """It is as unknown as one that never was."""
    with pytest.raises(RefusedRequest) as caught:
        read(tenant, id=name, verdict="accepted")

    refusal = caught.value.refusal
    assert (refusal.status, refusal.code) == (404, "no_answer")
    assert refusal.message == (
        f"id: there is no answer {name!r} of yours any more; give messages and answer"
    )


def test_settings_find_their_file(tmp_path: Path) -> None:
    """What is to be remembered lies beside the settings."""
    given = LearningSettings(remember="known.jsonl")

    assert given.placed(tmp_path).remember == str(tmp_path / "known.jsonl")
    assert LearningSettings().placed(tmp_path).remember == ""
