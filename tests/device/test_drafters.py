"""Guesses: the latest occurrence of the longest run, and a model that follows a text."""

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.device.toy_model import ToyLoaded, mixed

from onhand.core.arrays import TokenArray
from onhand.core.errors import EngineError, InputError
from onhand.device.drafters import DraftModel, PromptLookup, check_same_tokens
from onhand.device.sampling import Sampler, Sampling
from onhand.device.text import Tokenizer

V = 8
texts = st.lists(st.integers(0, 2), max_size=40)
GREEDY = Sampler(Sampling())


def ids(*tokens: int) -> TokenArray:
    return np.asarray(tokens, dtype=np.int64)


def words(n: int, first: str = "a") -> Tokenizer:
    """A tokenizer of n words: the first, then w1, w2, ..."""
    vocab = {first if i == 0 else f"w{i}": i for i in range(n)}
    return Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token=first)))


def looked_up(text: list[int]) -> PromptLookup:
    drafter = PromptLookup()
    drafter.begin(ids(*text), GREEDY)
    return drafter


def searched(text: list[int]) -> tuple[int, int] | None:
    """The longest run of 4 to 1 tokens that occurred before, and where it went on last."""
    for n in (4, 3, 2, 1):
        for place in range(len(text) - 1, n - 1, -1):
            if len(text) > n and text[place - n : place] == text[len(text) - n :]:
                return n, place
    return None


def test_the_longest_run_is_found_and_its_latest_occurrence() -> None:
    """1 2 came twice before: 3 followed first, 4 later; 9 1 2 came once."""
    assert looked_up([1, 2, 3, 1, 2, 4, 1, 2]).draft(3).tokens == [4, 1, 2]
    assert looked_up([9, 1, 2, 3, 1, 2, 4, 9, 1, 2]).draft(1).tokens == [3]
    assert looked_up([9, 1, 2, 3, 1, 2, 4, 9, 1, 2]).grade() == 3


def test_a_copy_that_reaches_the_end_repeats() -> None:
    """What repeats at the end of the text goes on to repeat."""
    assert looked_up([5, 1, 2, 1, 2]).draft(5).tokens == [1, 2, 1, 2, 1]
    assert looked_up([7, 7]).draft(4).tokens == [7, 7, 7, 7]


def test_nothing_is_guessed_where_nothing_came_before() -> None:
    """An empty text, and a token that is new."""
    for text in ([], [1], [1, 2, 3]):
        drafter = looked_up(text)
        assert drafter.grade() is None
        assert drafter.draft(3).tokens == ()
    assert PromptLookup(shortest=2).grade() is None


@given(text=texts, more=texts, n=st.integers(1, 9))
def test_a_table_finds_what_a_search_finds(text: list[int], more: list[int], n: int) -> None:
    """However the text came to be: at once, token by token, or after another text."""
    drafter = looked_up(text)
    drafter.push(more)
    whole = text + more
    found = searched(whole)

    if found is None:
        assert drafter.grade() is None
    else:
        length, place = found
        assert drafter.grade() == length
        going_on = list(whole)
        for i in range(n):
            going_on.append(going_on[place + i])
        assert drafter.draft(n).tokens == going_on[len(whole) :]
    drafter.begin(ids(*more), GREEDY)
    expected = looked_up(more)
    assert (drafter.grade(), drafter.draft(n)) == (expected.grade(), expected.draft(n))


def test_a_text_that_goes_on_is_not_read_again() -> None:
    """The next prompt of a conversation begins with the last one and its answer."""
    drafter = looked_up([1, 2, 3])
    drafter.begin(ids(1, 2, 3, 4, 1, 2), GREEDY)

    assert drafter.draft(2).tokens == [3, 4]


def draft_model(
    sampling: Sampling = Sampling(),  # noqa: B008 - it is frozen
    *,
    context: int = 50,
    vocab_size: int = V,
    seen: tuple[int, ...] = (),
) -> tuple[DraftModel, ToyLoaded]:
    loaded = ToyLoaded(mixed(V, reach=50), vocab_size=V)
    drafter = DraftModel(loaded, words(V), vocab_size=vocab_size, context=context)
    drafter.begin(ids(1, 2, 3), Sampler(sampling, seen=seen))
    return drafter, loaded


def greedy(text: list[int], n: int) -> list[int]:
    """What the toy model says after a text."""
    rule, tokens = mixed(V, reach=50), list(text)
    for _ in range(n):
        tokens.append(int(rule(tuple(tokens)).argmax()))
    return tokens[len(text) :]


# The text stays within the context of 100.
CHOSEN = st.lists(st.integers(0, V - 1), max_size=12)


@given(turns=st.lists(st.tuples(st.integers(1, 5), CHOSEN), max_size=6))
def test_a_draft_model_follows_the_text(turns: list[tuple[int, list[int]]]) -> None:
    """Whatever was accepted of its guesses, the next one continues the text as it is."""
    drafter, loaded = draft_model(context=100)
    text = [1, 2, 3]
    for n, chosen in turns:
        draft = drafter.draft(n)
        assert draft.tokens == greedy(text, n)
        assert draft.distributions == ()
        for new in (draft.tokens[: n // 2], chosen):  # accepted, and what came instead
            text += new
            drafter.push(new)
        if drafter.backlog():
            drafter.catch_up()
            assert drafter.backlog() == 0
            assert loaded.made[0].tokens == text[:-1]


def test_a_draft_model_reads_what_it_lacks_once() -> None:
    """A long text in one piece, then only what is new."""
    drafter, loaded = draft_model()
    drafter.begin(ids(*range(8), *range(8)), GREEDY)
    assert drafter.backlog() == 16
    drafter.catch_up()
    drafter.draft(3)
    drafter.push(greedy([*range(8), *range(8)], 3)[:1])
    drafter.draft(1)

    assert loaded.rows == [15, 1, 1, 1, 1]


def test_a_draft_model_draws_as_it_is_asked_to() -> None:
    """From its own distribution without a seed, its likeliest tokens with one."""
    drawing, _ = draft_model(Sampling(temperature=1, top_k=3))
    seeded, _ = draft_model(Sampling(temperature=1, top_k=3, seed=1))
    draft = drawing.draft(4)

    assert [len(tokens) for tokens, _ in draft.distributions] == [3, 3, 3, 3]
    assert all(t in d[0] for t, d in zip(draft.tokens, draft.distributions, strict=True))
    assert seeded.draft(4).tokens == greedy([1, 2, 3], 4)
    assert seeded.draft(4).distributions == ()


def test_a_draft_model_minds_the_repetition_penalty() -> None:
    """Its own guesses count for the next one, and are forgotten with the draft."""
    drafter, _ = draft_model(Sampling(repetition_penalty=1e9), seen=(1, 2))
    tokens = list(drafter.draft(6).tokens)

    assert sorted(tokens) == [0, 3, 4, 5, 6, 7]
    assert drafter.draft(6).tokens == tokens


def test_a_draft_model_ends_where_its_context_does() -> None:
    """It guesses as far as it can read, and nothing beyond."""
    drafter, _ = draft_model(context=5)

    assert len(drafter.draft(9).tokens) == 3
    drafter.push([1, 1])
    assert drafter.grade() == 0
    assert len(drafter.draft(9).tokens) == 1
    drafter.push([1])
    assert drafter.grade() is None


def test_a_draft_model_guesses_no_token_that_the_other_lacks() -> None:
    """Rows of the two may differ in width; tokens beyond the narrower one are out."""
    drafter, _ = draft_model(vocab_size=2)

    assert set(drafter.draft(9).tokens) <= {0, 1}


def test_a_draft_model_that_failed_reads_anew() -> None:
    """What its session holds after a failure is not trusted."""
    drafter, loaded = draft_model()
    drafter.draft(2)
    loaded.fails_after = 2
    with pytest.raises(EngineError, match="broke off"):
        drafter.draft(2)
    loaded.fails_after = None

    assert drafter.draft(2).tokens == greedy([1, 2, 3], 2)
    drafter.close()
    assert loaded.is_closed
    assert loaded.made[0].is_closed


def test_the_two_models_need_the_same_tokens() -> None:
    """Another word, or one more, is told by its number."""
    check_same_tokens(words(4), words(4), name="small")
    with pytest.raises(InputError, match="draft model small: token 0 is 'b', and 'a' in the model"):
        check_same_tokens(words(4), words(4, "b"), name="small")
    with pytest.raises(InputError, match="token 4 is 'w4', and None"):
        check_same_tokens(words(4), words(5), name="small")
