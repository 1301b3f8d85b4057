"""Grammars that cost too much are given up, before and while they are followed."""

import itertools
import threading
from pathlib import Path

import pytest
from tests.device.tools.families import END, tokenizer_content

from onhand.core.errors import EngineBusy, InputError
from onhand.device.guide import MAX_GRAMMAR, GuideMaker, json_grammar
from onhand.device.time_limit import TimeLimit

VOCAB = 266
SLOW = {"type": "integer", "multipleOf": 39989}
"""Takes a while to compile, in a few letters."""


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One of bytes."""
    place = tmp_path / "tokenizer.json"
    place.write_bytes(tokenizer_content())
    return place


def test_attack_a_grammar_that_takes_too_long_to_compile(tokenizer: Path) -> None:
    """It is refused in time, the next as well while it still runs, and others go on."""
    limit = TimeLimit("grammar", most_s=0.02, most_overdue=1)
    maker = GuideMaker(tokenizer, vocab_size=VOCAB, stop_ids=[END], limit=limit)
    quick = json_grammar({"type": "boolean"})
    slow = json_grammar(SLOW)
    patient = GuideMaker(tokenizer, vocab_size=VOCAB, stop_ids=[END])
    maker.tokens_of({})  # the tokenizer is no part of it

    with pytest.raises(InputError, match=r"grammar: takes over 0\.02 seconds"):
        maker.guide(slow)
    with pytest.raises(EngineBusy, match="too long"):
        maker.guide(json_grammar({"type": "null"}))

    assert patient.guide(quick).forbidden().sum() > 200
    for thread in threading.enumerate():
        if thread.name == "grammar":
            thread.join(20)


def test_attack_a_grammar_that_takes_too_long_to_follow(tokenizer: Path) -> None:
    """Its answer ends, as whatever is computed beside it would wait at each token."""
    times = itertools.count(0.0, 2.0)
    maker = GuideMaker(tokenizer, vocab_size=VOCAB, stop_ids=[END], clock=lambda: next(times))
    guide = maker.guide(json_grammar({"type": "string"}))

    assert guide.forbidden()[END]
    assert guide.failure is None
    guide.forbidden()
    forbidden = guide.forbidden()
    assert "takes too much time" in str(guide.failure)
    assert not forbidden[END]
    assert forbidden.sum() == VOCAB - 1


def test_a_slow_device_has_more_time_the_longer_an_answer_is(tokenizer: Path) -> None:
    """40 ms for each token are never too much."""
    times = itertools.count(0.0, 0.04)
    maker = GuideMaker(tokenizer, vocab_size=VOCAB, stop_ids=[END], clock=lambda: next(times))
    guide = maker.guide(json_grammar({"type": "string"}))

    for _ in range(300):
        guide.forbidden()

    assert guide.failure is None


def test_attack_a_grammar_of_too_many_letters(tokenizer: Path) -> None:
    """Before anything is compiled."""
    maker = GuideMaker(tokenizer, vocab_size=VOCAB, stop_ids=[END])

    with pytest.raises(InputError, match=f"at most {MAX_GRAMMAR}"):
        maker.guide("x" * (MAX_GRAMMAR + 1))
