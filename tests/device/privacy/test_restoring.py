"""Placeholders, and answers in which values come back."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.device.privacy.placeholders import Placeholders
from onhand.device.privacy.restoring import PieceRestorer, TextRestorer
from onhand.device.privacy.spans import Found
from onhand.device.serving.asks import Ending, Piece, Score
from onhand.device.tools.kinds import CallPart

END = Ending(reason="stop", prompt_tokens=1, cached_tokens=0, generated_tokens=1)
QUOTED = 'pass "word"\n\\'


def holding(*texts: str) -> Placeholders:
    """[EMAIL1] for Bob, [SECRET1] for a value that JSON must escape."""
    placeholders = Placeholders(texts)
    placeholders.word(Found(kind="email", start=0, end=1, value="bob@x.com"), "Bob@x.com")
    placeholders.word(Found(kind="secret", start=0, end=1, value="q"), QUOTED)
    return placeholders


def restored(pieces: list[Piece | Ending], *, is_json: bool = False) -> list[Piece | Ending]:
    """An answer as the client has it."""
    restorer = PieceRestorer(holding(), is_json=is_json)
    return [out for piece in pieces for out in restorer.push(piece)]


def test_the_same_value_has_the_same_word() -> None:
    """Others of its kind are counted, other kinds have tags of their own."""
    placeholders = holding()
    again = placeholders.word(Found(kind="email", start=5, end=9, value="bob@x.com"), "bob@X.com")
    other = placeholders.word(Found(kind="email", start=0, end=1, value="al@x.com"), "al@x.com")

    assert (again, other) == ("[EMAIL1]", "[EMAIL2]")
    assert placeholders.counts == {"email": 2, "secret": 1}
    assert placeholders.value("[email1]") == "Bob@x.com"
    assert placeholders.value("[EMAIL3]") is None


@given(text=st.lists(st.sampled_from(["[EMAIL1]", "[phoneQ2]", "[URLX3]", "a", "["]), max_size=8))
def test_no_word_is_one_of_the_users_own(text: list[str]) -> None:
    """What the user wrote is never taken for a placeholder, whatever it looks like."""
    own = "".join(text)
    placeholders = Placeholders([own])
    word = placeholders.word(Found(kind="email", start=0, end=1, value="v"), "v")

    assert word.casefold() not in own.casefold()
    assert TextRestorer(placeholders, is_json=False).push(f"{own} ") == f"{own} "


@given(cuts=st.sets(st.integers(1, 60)))
def test_values_come_back_across_the_borders_of_pieces(cuts: set[int]) -> None:
    """However an answer is cut, its text is the same; other brackets stay."""
    text = "mail [EMAIL1], [Email1] or [EMAIL9] [x] [ [EMAIL1] a[EMA"
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces: list[Piece | Ending] = [Piece(text[start:end]) for start, end in pairwise(places)]

    parts = restored([*pieces, END])

    whole = "".join(part.text for part in parts if isinstance(part, Piece))
    assert whole == "mail Bob@x.com, Bob@x.com or [EMAIL9] [x] [ Bob@x.com a[EMA"
    assert parts[-1] == END


def test_text_that_is_no_placeholder_does_not_wait() -> None:
    """A bracket waits only as long as it may become one."""
    restorer = TextRestorer(holding(), is_json=False)

    assert [restorer.push(part) for part in ("a [", "not", " b", "[1", " c")] == [
        *("a ", "[not", " b", "[1", " c"),
    ]


def test_arguments_stay_json() -> None:
    """A value is escaped where it stands in a call, split over parts as well."""
    parts = restored([
        Piece("well [EM"),
        Piece("", call=CallPart(0, id="c1", name="send", arguments='{"to": "[EMA')),
        Piece("", call=CallPart(0, arguments='IL1]", "text": "[SECRET1]"}')),
        Piece("", call=CallPart(0, is_end=True)),
        Piece("", call=CallPart(1, id="c2", name="send", arguments='{"to": "[EMAIL1')),
        END,
    ])

    calls = [part.call for part in parts if isinstance(part, Piece) and part.call is not None]
    first = "".join(call.arguments for call in calls if call.index == 0)
    assert parts[1] == Piece("[EM")  # what was held comes before the call
    assert json.loads(first) == {"to": "Bob@x.com", "text": QUOTED}
    assert [call.is_end for call in calls if call.index == 0][-1]
    assert "".join(call.arguments for call in calls if call.index == 1).endswith("[EMAIL1")


@pytest.mark.parametrize("is_json", [True, False])
def test_text_that_is_json_stays_so(*, is_json: bool) -> None:
    """Where the answer follows a format, values are escaped in its text too."""
    (piece, _) = restored([Piece('{"a": "[SECRET1]"}'), END], is_json=is_json)

    assert isinstance(piece, Piece)
    assert piece.text == (
        '{"a": ' + json.dumps(QUOTED) + "}" if is_json else f'{{"a": "{QUOTED}"}}'
    )


def test_scores_stay_with_what_was_said() -> None:
    """They are of the tokens that the other server wrote, and none is lost."""
    score = Score(b"[", -0.1)

    parts = restored([Piece("[", (score,)), Piece("x", (score,)), END])

    assert [(part.text, len(part.scores)) for part in parts if isinstance(part, Piece)] == [
        ("", 1),
        ("[x", 1),
    ]
