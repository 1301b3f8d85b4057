"""Exact match counted by hand, and what the committed model answers."""

from pathlib import Path

import pytest
from examples.house_assistant.actions import Example
from examples.house_assistant.evaluate import VALIDATION, Transformer, is_right, prompt, score
from examples.house_assistant.generate import read_examples
from examples.house_assistant.tokenizer import SPECIALS, build
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

MODEL = Path(__file__).parents[2] / "examples" / "house_assistant" / "model"
TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def ids(text: str) -> list[int]:
    """The tokens of a text."""
    return TOKENIZER.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ('{"actions":[{"do":"open","room":"attic"}]}', True),
        ('{"actions": [{"room": "attic", "do": "open"}]}', True),
        ('{"actions":[{"do":"open","room":"Attic"}]}', False),
        ('{"actions":[{"do":"open","room":"attic"}', False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_only_the_content_counts(found: str, *, right: bool) -> None:
    """Spaces and the order of keys do not matter; all else does, and nothing breaks it."""
    assert is_right('{"actions":[{"do":"open","room":"attic"}]}', found) is right


def test_scores_by_hand() -> None:
    """Three commands, one of them wrong."""
    given_set = [
        Example(command="a", answer='{"say":"hello"}', language="en", category="say"),
        Example(command="b", answer='{"say":"bye"}', language="en", category="say", held=("name",)),
        Example(command="c", answer='{"refuse":"unsafe"}', language="zh", category="refuse"),
    ]
    answers = {"a": '{"say": "hello"}', "b": '{"say":"thanks"}', "c": '{"refuse":"unsafe"}'}
    scores = score(given_set, answers.__getitem__)

    assert scores.total == {
        "all": 3, "en": 2, "en say": 2, "held name": 1, "zh": 1, "zh refuse": 1
    }  # fmt: skip
    assert scores.share() == pytest.approx(2 / 3)
    assert scores.share("zh refuse") == 1.0
    assert [miss.example.command for miss in scores.misses] == ["b"]
    assert "held name            0.00%  0 of 1" in scores.table()


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    """Every Unicode text that holds no special token survives the tokenizer."""
    if not any(special in text for special in SPECIALS):
        assert TOKENIZER.decode(ids(text)) == text


def test_special_tokens_have_their_places() -> None:
    """The ids that the configuration names are those of the tokenizer."""
    assert [TOKENIZER.token_to_id(name) for name in SPECIALS] == list(range(len(SPECIALS)))
    assert ids(prompt("a"))[:2] == [1, 3]


def test_digits_stand_alone() -> None:
    """A number is read digit by digit."""
    assert len(ids("2026")) == 4


@pytest.mark.parametrize("name", ["Zorvin", "梧桐", "tessary", "囧字", "naïve"])
def test_a_name_has_the_same_tokens_in_command_and_answer(name: str) -> None:
    """Copying a name is copying its tokens, whatever stands around it."""
    alone = ids(name)
    for text in (f"turn on the {name} now", f'{{"device":"{name}","room":"x"}}', f"打开{name}的灯"):
        found = ids(text)

        assert any(found[i : i + len(alone)] == alone for i in range(len(found)))


def test_a_tokenizer_can_be_learnt_again() -> None:
    """Frequent words are tokens, names are spelt; bytes and special tokens are always there."""
    tokenizer = build(["the lamp the lamp 灯灯 juniper juniper"], n_words=4, n_merges=20)

    assert tokenizer.encode("a lamp").tokens[-1] == "Ġlamp"
    assert len(tokenizer.encode("juniper").tokens) > 2
    assert tokenizer.decode(tokenizer.encode("ligt 灯 \x00").ids) == "ligt 灯 \x00"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_committed_model_answers_right() -> None:
    """The weights, the tokenizer and the held-out sets belong together."""
    pytest.importorskip("transformers")
    model = Transformer(MODEL)

    # See the example's README for what the weights reach.
    assert score(read_examples(VALIDATION)[:24], model.answer).share() >= 0.95
