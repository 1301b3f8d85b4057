"""Whether two questions ask the same: tables of pairs, and what holds for all texts."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.device.serving.caches.gate import judge
from onhand.device.serving.caches.gate.compare import Difference
from onhand.device.serving.caches.gate.judge import REASONS
from onhand.device.serving.caches.gate.lexicon import OWN_LEXICON, Lexicon

PAIRS = Path(__file__).parents[5] / "benchmarks" / "questions"
VERBS = st.sampled_from(["set", "dim", "open", "book", "convert", "compare"])
THINGS = st.sampled_from(["lamp", "window", "table", "room", "train", "tank"])
TEXTS = st.text(max_size=60)


# As one with WordNet's words in it: most of English is known, and what may be said otherwise.
WIDE = Lexicon(
    same=OWN_LEXICON.same,
    opposite=OWN_LEXICON.opposite,
    known=OWN_LEXICON.known | {"lamp", "kitchen", "light", "dim", "bedroom"},
    loose=OWN_LEXICON.loose | {"dim"},
    is_wide=True,
)


def difference(one: str, other: str, words: Lexicon = OWN_LEXICON) -> Difference:
    return judge.difference(one, other, words)


def pairs(name: str) -> list[tuple[str, str, str]]:
    lines = (PAIRS / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(kind, one, other) for kind, one, other in rows]


@pytest.mark.parametrize("words", [OWN_LEXICON, WIDE], ids=["own", "wide"])
def test_what_looks_alike_and_asks_something_else_is_told_apart(words: Lexicon) -> None:
    """Every one of the written pairs, in either order, however near their vectors are."""
    taken = [
        (one, other)
        for _, one, other in pairs("different")
        if None in {difference(one, other, words).reason, difference(other, one, words).reason}
    ]

    assert len(pairs("different")) >= 200
    assert taken == []


def test_what_asks_the_same_in_other_words_passes() -> None:
    """Most of the written pairs: the gate does not simply reject all."""
    written = pairs("same")
    passed = [one for _, one, other in written if difference(one, other).reason is None]

    assert len(written) >= 100
    assert len(passed) >= 0.85 * len(written)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("How do I enable it?", "How do I disable it?", "opposite"),
        ("Is the mushroom safe?", "Is the mushroom not safe?", "negation"),
        ("Please wake me at ten", "Please wake me at eleven", "number"),
        ("Is the 3.1 supported?", "Is the 3.10 supported?", "number"),
        ("Does Anna like Ben?", "Does Ben like Anna?", "order"),
        ("Who wrote it?", "When did they write it?", "question"),
        ("How do I mail Anna?", "How do I mail Hannah?", "name"),
        ("Wie geht es dir?", "Wie geht es ihr?", "language"),
        ("Где лампа?", "Где лампы?", "language"),
        ("打开客厅的灯", "关闭客厅的灯", "opposite"),
        ("三点叫我", "四点叫我", "number"),
        ("我能吃鱼吗", "我不能吃鱼吗", "negation"),
        ("谁买了书", "什么时候买了书", "question"),
        ("小明喜欢小红", "小红喜欢小明", "order"),
        ("x" * 5000, "y" * 5000, "length"),
    ],
)
def test_the_reason_is_said(one: str, other: str, reason: str) -> None:
    """In a word that the figures count by."""
    found = difference(one, other).reason

    assert found in REASONS
    assert found == reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Set a timer for twenty-five minutes", "set a timer for 25 min"),
        ("How heavy is 5kg?", "How heavy is five kilograms?"),
        ("Was it on March 12, 2024?", "Was it on 12 March 2024?"),
        ("Who's there?", "Who is there?"),
        ("把空调调到二十六度", "请把空调调到26度"),
        ("Где лампа?", "где  лампа"),
        ("Wie geht es dir?", "wie geht es dir"),
    ],
)
def test_spelling_alone_makes_no_difference(one: str, other: str) -> None:
    """Numbers, units, dates, short forms, courtesy; in other languages case and spaces."""
    assert difference(one, other.replace("min", "minutes")).reason is None


@given(text=TEXTS)
def test_a_question_asks_what_it_asks(text: str) -> None:
    """Whatever it is."""
    assert difference(text, text).reason is None


@given(one=TEXTS, other=TEXTS)
@settings(deadline=None)
def test_attack_any_texts_can_be_compared(one: str, other: str) -> None:
    """Nothing raises, and the order does not matter."""
    assert (difference(one, other).reason is None) == (difference(other, one).reason is None)


@given(verb=VERBS, thing=THINGS, numbers=st.lists(st.integers(0, 10**7), min_size=2, max_size=2))
@settings(deadline=None)
def test_another_number_is_another_question(verb: str, thing: str, numbers: list[int]) -> None:
    """Wherever it stands, and also with decimals."""
    one, other = numbers
    same = one == other
    for form in ("{} the {} to {}", "{} the {} {} times", "{} the {} to 7.{}"):
        texts = [form.format(verb, thing, number) for number in (one, other)]
        assert (difference(texts[0], texts[1]).reason is None) == same


@settings(max_examples=40)
@given(verb=VERBS, things=st.lists(THINGS, min_size=2, max_size=2, unique=True))
def test_another_order_is_another_question(verb: str, things: list[str]) -> None:
    """Where something goes from and to, and what stands before what."""
    one, other = things
    for form in ("{} the {} from the {}", "{} a {} before the {}"):
        assert difference(form.format(verb, one, other), form.format(verb, other, one)).reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Wie is hier of daar?", "Wie is hier so daar?"),
        ("Was ist das?", "Ist das?"),
        ("Le chat is on the table", "Chat is on the table"),
        ("O que do Brasil", "O que Brasil"),
        ("Lampen an", "Lampen"),
    ],
)
def test_attack_small_words_of_other_languages_are_not_left_out(one: str, other: str) -> None:
    """What English may leave out can be what another language turns on."""
    assert difference(one, other).reason == "language"


def test_without_small_words_only_a_wide_lexicon_knows_english() -> None:
    """So fewer questions are the same, and none more."""
    assert difference("Dim kitchen light", "Dim kitchen lights").reason == "language"
    assert difference("Dim kitchen light", "Dim kitchen lights", WIDE).reason is None


def test_names_in_code_belong_to_no_language() -> None:
    """Parts of a path, and words joined by an underscore, are not read for one."""
    one = "The page \u2018en/dir/load_der.py\u2019 doesn\u2019t show what the function does"

    assert difference(one, one.replace("doesn\u2019t", "does not")).reason is None
