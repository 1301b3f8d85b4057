"""Feedback as files: what was liked, and what was not."""

import json
from pathlib import Path

import pytest

from onhand.device.learning.example_files import read_examples
from onhand.device.learning.examples import Continued, Opinion, Preference
from onhand.device.learning.feedback import Feedback
from onhand.device.learning.taught_lines import (
    good_answers,
    opinions_of,
    write_answers,
    write_lines,
)


def said(question: str, answer: str, rating: float = 1.0) -> Feedback:
    """An answer that was rated."""
    return Feedback(
        tenant="anna",
        at_s=1.0,
        verdict="rated",
        messages=(("user", question),),
        answer=answer,
        rating=rating,
    )


def test_a_good_and_a_bad_answer_to_the_same_are_a_pair(tmp_path: Path) -> None:
    """Whichever came first; nothing else is learned of the two."""
    taken = [said("a", "bad", 0.0), said("a", "good"), said("b", "fine")]
    found = opinions_of(taken, n_learned=0, held=set())

    (name,) = found.lines()
    (pair,) = read_examples(write_lines(tmp_path, f"{name}.jsonl", found.lines()[name])).examples

    assert (name, found.singles) == ("pairs", ())
    assert isinstance(pair, Preference)
    assert (pair.chosen, pair.rejected) == ("good", "bad")


def test_a_bad_answer_alone_is_an_opinion_beside_what_was_liked(tmp_path: Path) -> None:
    """So that not everything becomes less likely."""
    taken = [said("a", "bad", 0.2), said("b", "fine")]
    found = opinions_of(taken, n_learned=0, held=set())

    (name,) = found.lines()
    examples = read_examples(write_lines(tmp_path, f"{name}.jsonl", found.lines()[name])).examples

    assert name == "opinions"
    assert [one.is_liked for one in examples if isinstance(one, Opinion)] == [False, True]


def test_what_was_learned_or_waits_is_left_out() -> None:
    """An old pair comes back only where one of its answers is new."""
    taken = [said("a", "bad", 0.0), said("a", "good"), said("c", "worse", 0.0)]

    assert opinions_of(taken[:2], n_learned=2, held=set()).lines() == {}
    assert opinions_of(taken[:2], n_learned=1, held=set()).pairs
    assert not opinions_of(taken, n_learned=2, held={taken[2].id}).lines()


def test_what_is_said_last_of_an_answer_counts() -> None:
    """A good one that is rated bad later is not taught any more."""
    taken = [said("a", "x"), said("a", "x", 0.0)]

    assert good_answers(taken) == []
    assert opinions_of(taken, n_learned=0, held=set()).singles == (taken[1],)


@pytest.mark.parametrize("is_rendered", [False, True])
def test_a_text_that_goes_on_is_read_as_what_it_is(tmp_path: Path, is_rendered: bool) -> None:
    """Of a language model, it is no text with a class."""
    one = Feedback(
        tenant="anna",
        at_s=1.0,
        verdict="corrected",
        text="once",
        answer=" upon",
        is_continued=True,
        is_rendered=is_rendered,
    )

    (read,) = read_examples(write_answers(tmp_path, "new.jsonl", [one])).examples

    assert read == Continued(
        text="once", answer=" upon", is_rendered=is_rendered, where="new.jsonl: line 1"
    )


def test_the_same_lines_leave_a_file_as_it_is(tmp_path: Path) -> None:
    """A training that goes on finds the file that it began with; what is known stands first."""
    one = [said("a", "b")]
    path = write_answers(tmp_path, "known.jsonl", one, '{"text": "x"}\n')
    before = path.stat().st_mtime_ns

    again = write_answers(tmp_path, "known.jsonl", one, '{"text": "x"}\n')

    assert again.stat().st_mtime_ns == before
    assert json.loads(path.read_text().splitlines()[0]) == {"text": "x"}
