"""What is taught and remembered, from files."""

import json
from pathlib import Path

import pytest

from onhand.core.errors import InputError
from onhand.device.learning.examples import Dialogue, Example, Opinion, PlainText, Preference
from onhand.device.learning.material import read_given
from onhand.device.learning.preference_feeds import liked
from onhand.device.learning.settings import LearnSettings
from onhand.device.template import Message

WORDS = ("lamp", "fan", "door", "blind", "stove", "radio", "gate", "oven", "heater", "tap")


def line(prompt: str, **answer: str) -> str:
    """A command and its answer."""
    return json.dumps({"prompt": prompt, "completion": json.dumps(answer)}) + "\n"


TAUGHT = line("water the roses", do="give_water", at="roses")


def lines(path: Path, n: int, start: str = "open") -> Path:
    """Write n commands."""
    said = [line(f"{start} the {word}", do="open_it", at=word) for word in WORDS[:n]]
    path.write_text("".join(said), encoding="utf-8")
    return path


def test_what_the_bundle_carries_is_remembered(tmp_path: Path) -> None:
    """Where nobody names another file; a fifth of it judges."""
    data = tmp_path / "new.jsonl"
    data.write_text(TAUGHT, encoding="utf-8")
    carried, own = lines(tmp_path / "a.jsonl", 10), lines(tmp_path / "b.jsonl", 5, "shut")
    alone = read_given(data, LearnSettings(), carried=carried)
    named = read_given(data, LearnSettings(remember=own), carried=carried)

    assert (len(alone.past), len(alone.past_heldout)) == (8, 2)
    assert (len(named.past), len(named.past_heldout)) == (4, 1)
    assert not read_given(data, LearnSettings()).past


def test_variants_take_values_from_what_is_remembered(tmp_path: Path) -> None:
    """They are taught beside the example, and said."""
    data = tmp_path / "new.jsonl"
    data.write_text(TAUGHT, encoding="utf-8")
    given = read_given(data, LearnSettings(vary=3), carried=lines(tmp_path / "a.jsonl", 10))

    assert len(given.new) == 4
    assert any("3 variants of 1 examples" in note for note in given.notes)


def test_liked_answers_become_conversations() -> None:
    """Disliked ones are left out."""
    prompt = (Message("user", "hello"),)
    given: list[Example] = [
        Preference(prompt=prompt, chosen="hi", rejected="what"),
        Opinion(prompt=prompt, answer="good day", is_liked=True),
        Opinion(prompt=prompt, answer="go away", is_liked=False),
    ]

    found = [one for one in liked(given) if isinstance(one, Dialogue)]
    assert [one.messages[-1].content for one in found] == ["hi", "good day"]
    assert all(one.learned == (1,) for one in found)


def test_too_many_variants_are_refused() -> None:
    """With the range."""
    with pytest.raises(InputError, match="from 0 to 100"):
        LearnSettings(vary=101)


def test_the_end_of_a_text_judges(tmp_path: Path) -> None:
    """From the start of a line on; what can do little harm is taught whole."""
    text = "".join(f"line {number} of a story\n" for number in range(200))
    data, short = tmp_path / "story.txt", tmp_path / "short.txt"
    data.write_text(text)
    short.write_text(text[:1500])

    given = read_given(data, LearnSettings(remember=data))
    brief = read_given(short, LearnSettings())

    for kept, held, share in (
        (given.new, given.heldout, 0.1),
        (given.past, given.past_heldout, 0.2),
    ):
        (first,), (end,) = kept, held
        assert isinstance(first, PlainText)
        assert isinstance(end, PlainText)
        assert first.text + end.text == text
        assert end.text.startswith("line ")
        assert len(end.text) == pytest.approx(share * len(text), abs=30)
    assert not given.notes
    assert not brief.heldout
    assert "too few examples" in brief.notes[0]


@pytest.mark.parametrize(("letters", "begins"), [("ab cd ", "ab"), ("abcdef", "")])
def test_a_text_without_lines_is_cut_at_a_word(tmp_path: Path, letters: str, begins: str) -> None:
    """Or anywhere, where there are none: nothing is lost."""
    (tmp_path / "a.txt").write_text(letters * 500)

    given = read_given(tmp_path / "a.txt", LearnSettings())

    (first,), (end,) = given.new, given.heldout
    assert isinstance(first, PlainText)
    assert isinstance(end, PlainText)
    assert first.text + end.text == letters * 500
    assert end.text.startswith(begins)
    assert 300 <= len(end.text) <= 310
