"""Conversations with drafts beside plain ones, and what `open` makes of `speculate`."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device import test_opening
from tests.device.test_generate import END, TEMPLATE, letters
from tests.device.test_opening import GoodEngine, Register, make_bundle, register, tokenizer_json
from tests.device.test_speculate import Scripted, eager
from tests.device.toy_model import ToyLoaded, mixed

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device import opening
from onhand.device.drafters import Drafter, PromptLookup
from onhand.device.generate import TextSession
from onhand.device.sampling import Sampling
from onhand.device.template import ChatTemplate, Message

__all__ = ["register"]

LETTERS = np.asarray(letters().encode_template("abcd"))


def spoken(tokens: tuple[int, ...]) -> FloatArray:
    """A few letters by what came just before, now and then the end: texts that repeat."""
    row = np.full(258, -9, dtype=np.float32)
    found = mixed(5)(tokens)
    row[LETTERS] = found[:4]
    row[END] = found[4] - 4
    return row


def conversation(drafter: Drafter | None = None) -> TextSession:
    loaded = ToyLoaded(spoken, vocab_size=258, context=400)
    speculator = None if drafter is None else eager(drafter, loaded)
    if speculator is not None:
        for grade in range(1, 5):
            speculator.pace.compared(grade, 90, 100)
    return TextSession(
        loaded,
        letters(),
        template=ChatTemplate(TEMPLATE),
        stop_ids=[END],
        speculator=speculator,
    )


turns = st.tuples(
    st.text("abcd", min_size=1, max_size=8),
    st.integers(0, 12),
    st.sampled_from([(), ("ab",), ("d", "ca")]),
    st.sampled_from([Sampling(), Sampling(temperature=1, seed=1), Sampling(repetition_penalty=2)]),
)


@given(said=st.lists(turns, min_size=1, max_size=4))
def test_a_conversation_is_the_same_with_drafts(
    said: list[tuple[str, int, tuple[str, ...], Sampling]],
) -> None:
    """Answers read to the end, broken off or stopped by a text; what is remembered as well."""
    plain, drafting = conversation(), conversation(PromptLookup())
    messages: list[Message] = []
    for text, n_read, stop, sampling in said:
        messages.append(Message("user", text))
        found = []
        for session in (plain, drafting):
            answer = session.chat(*messages, max_tokens=30, stop=stop, sampling=sampling)
            # 0 reads it to its end; else the next turn breaks it off.
            pieces = [piece for _, piece in zip(range(n_read or 99), answer, strict=False)]
            found.append((
                pieces,
                answer.finish_reason,
                answer.generated_tokens,
                answer.prompt_tokens,
                answer.reused_tokens,
            ))
        assert found[0] == found[1]
        messages.append(Message("assistant", "".join(found[0][0])))


def test_an_answer_tells_what_drafting_did() -> None:
    """Its own counts, of the answer alone; None where nothing is drafted."""
    drafting = conversation(PromptLookup())
    first = drafting.chat(Message("user", "abab"), max_tokens=30)
    list(first)
    second = drafting.chat(Message("user", "abab"), max_tokens=9)
    next(second)

    assert conversation().chat(Message("user", "a")).speculation is None
    assert first.speculation is not None
    assert first.speculation.tokens == first.generated_tokens - 1
    assert first.speculation.drafted > 0
    assert second.speculation is not None
    assert second.speculation.steps <= 1


def test_an_answer_let_go_late_does_no_harm() -> None:
    """A finished answer that is kept and dropped later leaves the next one's memory alone."""
    drafting, plain = conversation(PromptLookup()), conversation()
    for session in (drafting, plain):
        session.chat(Message("user", "abab"), stop=["a"], max_tokens=30)
    kept = drafting.chat(Message("user", "abab"), stop=["a"], max_tokens=30)
    list(kept)
    second = drafting.chat(Message("user", "cd"), max_tokens=30)
    begun = next(second)
    kept.close()
    del kept

    assert begun + "".join(second) == "".join(plain.chat(Message("user", "cd"), max_tokens=30))


def test_a_session_closes_its_drafter() -> None:
    """With the rest."""
    drafter = Scripted([0])
    conversation(drafter).close()

    assert drafter.is_closed


@pytest.mark.parametrize("speculate", [None, "off", "lookup"])
def test_drafts_come_when_they_are_asked_for(
    speculate: str | None, register: Register, tmp_path: Path
) -> None:
    """Not by themselves."""
    register(onnx=GoodEngine)
    with opening.open(make_bundle(tmp_path / "a").root, speculate=speculate) as session:
        answer = session.generate("a", max_tokens=1)

        assert len(list(answer)) <= 1
        assert (answer.speculation is not None) == (speculate == "lookup")


def test_a_smaller_bundle_drafts(register: Register, tmp_path: Path) -> None:
    """It is opened as the first one is, and both are closed."""
    register(onnx=GoodEngine)
    big, small = make_bundle(tmp_path / "big"), make_bundle(tmp_path / "small")
    test_opening.ToyLoaded.closed = 0
    with opening.open(big.root, speculate=small.root, threads=3) as session:
        assert session.generate("a").speculation is not None

    assert test_opening.ToyLoaded.closed == 2
    assert GoodEngine.asked == [("float", 3), ("float", 3)]


def test_a_draft_model_that_cannot_be_used_leaves_nothing_open(
    register: Register, tmp_path: Path
) -> None:
    """Other tokens, no bundle, or a session that cannot begin."""
    register(onnx=GoodEngine)
    big = make_bundle(tmp_path / "big")
    other = tokenizer_json().replace(b"</s>", b"<end>")
    small = make_bundle(tmp_path / "small", tokenizer_json=other)
    test_opening.ToyLoaded.closed = 0
    with pytest.raises(InputError, match="draft model toy: token 256 is '<end>', and '</s>'"):
        opening.open(big.root, speculate=small.root)
    with pytest.raises(InputError, match="not a bundle"):
        opening.open(big.root, speculate=tmp_path)
    assert test_opening.ToyLoaded.closed == 2
    with pytest.raises(InputError, match="context is 99"):
        opening.open(big.root, speculate=big.root, context=99)

    assert test_opening.ToyLoaded.closed == 4
