"""Drafted answers beside plain ones: the same tokens, the same memory, the same ends."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import count, islice
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.test_drafters import words
from tests.device.toy_model import ToyLoaded, mixed

from onhand.core.arrays import TokenArray
from onhand.core.errors import EngineError
from onhand.device.drafters import Draft, Drafter, DraftModel, PromptLookup
from onhand.device.generate import generate_tokens
from onhand.device.sampling import Sampler, Sampling
from onhand.device.speculate import Speculator

V = 7
PROMPT = np.asarray([1, 2, 3, 1, 2], dtype=np.int64)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 9),
)


class Scripted:
    """Knows a text by heart and guesses it, wrongly at the places given."""

    is_free: ClassVar[bool] = True

    def __init__(self, script: Sequence[int], wrong: Sequence[bool] = (False,)) -> None:
        self.script = list(script)
        self.wrong = list(wrong)
        self.length = 0
        self.is_closed = False

    def begin(self, text: TokenArray, sampler: Sampler) -> None:
        """See `Drafter`."""
        self.length = len(text)

    def push(self, tokens: Sequence[int]) -> None:
        """See `Drafter`."""
        self.length += len(tokens)

    def grade(self) -> int | None:
        """See `Drafter`."""
        return 0

    def backlog(self) -> int:
        """See `Drafter`."""
        return 0

    def catch_up(self) -> None:
        """See `Drafter`."""
        raise NotImplementedError

    def draft(self, n_tokens: int) -> Draft:
        """See `Drafter`."""
        places = range(self.length, self.length + n_tokens)
        return Draft([
            (self.script[i % len(self.script)] + self.wrong[i % len(self.wrong)]) % V
            for i in places
        ])

    def close(self) -> None:
        """See `Drafter`."""
        self.is_closed = True


def timed(drafter: Drafter, *models: ToyLoaded) -> Speculator:
    """A speculator whose clock shows what the models pretend to take."""
    return Speculator(drafter, clock=lambda: sum(model.now for model in models))


def eager(drafter: Drafter, *models: ToyLoaded) -> Speculator:
    """One that has seen many plain steps, so that it drafts at once and may lose something."""
    speculator = timed(drafter, *models)
    for _ in range(100):
        speculator.pace.step(0, 1, step_s=1.0)
    for rows in (2, 4, 8, 16):
        speculator.pace.costs.record(rows, 0.9 + 0.1 * rows)
    return speculator


def toy(*, reach: int = 3, context: int = 80) -> ToyLoaded:
    return ToyLoaded(mixed(V, reach=reach), vocab_size=V, context=context)


def plain(sampling: Sampling, **options: object) -> tuple[list[int], list[int]]:
    """Tokens of plain decoding, and what the session remembers then."""
    loaded = toy()
    session = loaded.session()
    tokens = list(generate_tokens(loaded, session, PROMPT, sampling=sampling, **options))  # type: ignore[arg-type]  # the options of one function
    return tokens, session.tokens


@given(
    sampling=samplings,
    max_tokens=st.one_of(st.none(), st.integers(1, 40)),
    stop_ids=st.sets(st.integers(0, V - 1), max_size=2),
    wrong=st.lists(st.booleans(), min_size=1, max_size=9),
    by_heart=st.booleans(),
)
def test_the_answer_is_the_same_with_drafts(
    sampling: Sampling,
    max_tokens: int | None,
    stop_ids: set[int],
    wrong: list[bool],
    by_heart: bool,
) -> None:
    """Token for token, drawn ones included, with the same memory at the end."""
    expected, remembered = plain(sampling, max_tokens=max_tokens, stop_ids=stop_ids)
    drafter = Scripted([*PROMPT, *expected], wrong) if by_heart else PromptLookup()
    loaded = toy()
    session = loaded.session()
    speculator = eager(drafter, loaded)
    found = list(
        speculator.generate_tokens(
            loaded, session, PROMPT, sampling=sampling, max_tokens=max_tokens, stop_ids=stop_ids
        )
    )

    assert found == expected
    assert session.tokens == remembered
    counts = speculator.counts
    assert counts.accepted <= counts.compared <= counts.drafted
    assert counts.tokens == len(found) - 1
    assert counts.steps == len(loaded.rows) - 1


@given(closed_after=st.integers(1, 30), wrong=st.lists(st.booleans(), min_size=1, max_size=5))
def test_an_answer_broken_off_leaves_what_was_yielded(closed_after: int, wrong: list[bool]) -> None:
    """The memory holds the prompt and the tokens yielded but for the last, as without drafts."""
    expected, _ = plain(Sampling())
    loaded = toy()
    session = loaded.session()
    drafter = Scripted([*PROMPT, *expected], wrong)
    tokens = eager(drafter, loaded).generate_tokens(loaded, session, PROMPT)
    found = list(islice(tokens, closed_after))
    between = list(session.tokens)
    tokens.close()

    assert found == expected[:closed_after]
    assert session.tokens == [*PROMPT, *found[:-1]]
    # While it runs the memory may be ahead, and never wrong.
    assert between == [*PROMPT, *expected][: len(between)]


def test_drafts_make_fewer_steps() -> None:
    """A text known by heart: steps of several tokens, counted as they are."""
    expected, _ = plain(Sampling(), max_tokens=41)
    loaded = toy()
    speculator = eager(Scripted([*PROMPT, *expected]), loaded)
    list(speculator.generate_tokens(loaded, loaded.session(), PROMPT, max_tokens=41))
    counts = speculator.counts

    assert counts.tokens_per_step > 5
    assert counts.acceptance == 1
    assert counts.to_json()["tokens"] == 40
    assert counts.steps == len(loaded.rows) - 1 < 8
    assert counts.idle_steps + counts.off_steps == loaded.rows[1:].count(1)


def test_drafts_that_are_wrong_are_held_back() -> None:
    """After a few, plain steps, and the counts say so."""
    expected, _ = plain(Sampling())
    loaded = toy()
    speculator = eager(Scripted([*PROMPT, *expected], [True]), loaded)
    list(speculator.generate_tokens(loaded, loaded.session(), PROMPT))
    counts = speculator.counts

    assert counts.accepted == counts.acceptance == 0
    assert counts.off_steps > 60
    assert counts.tokens_per_step == 1


def test_where_rows_cost_in_full_nothing_is_lost() -> None:
    """Widths are timed a few times each, and what they cost in vain stays in its bound."""
    expected, _ = plain(Sampling())
    loaded = toy()
    loaded.row_s = 1.0
    speculator = timed(Scripted([*PROMPT, *expected], [False, False, True]), loaded)

    assert list(speculator.generate_tokens(loaded, loaded.session(), PROMPT)) == expected
    assert loaded.now < (len(PROMPT) + 75) / 0.95


def test_steps_that_are_too_quick_are_left_alone() -> None:
    """A tiny model's steps take less than thinking about them: plain ones, for good."""
    expected, remembered = plain(Sampling())
    loaded = toy()
    loaded.step_s, loaded.row_s = 1e-4, 1e-6
    speculator = timed(Scripted([*PROMPT, *expected]), loaded)
    for _ in range(2):
        session = loaded.session()
        assert list(speculator.generate_tokens(loaded, session, PROMPT)) == expected
        assert session.tokens == remembered

    assert speculator.pace.gives_up
    assert speculator.counts.off_steps == speculator.counts.steps == len(expected) - 1


def test_nothing_before_and_no_room_after() -> None:
    """The first answer has nothing timed; the last token of a context has no room for a draft."""
    loaded = toy(context=len(PROMPT) + 1)
    speculator = eager(Scripted([0]), loaded)
    first = timed(Scripted([0]), loaded)
    assert len(list(speculator.generate_tokens(loaded, loaded.session(), PROMPT))) == 2
    list(first.generate_tokens(loaded, loaded.session(), PROMPT))

    assert (speculator.counts.idle_steps, speculator.counts.steps) == (1, 1)
    assert speculator.counts.drafted == first.counts.drafted == 0
    assert (first.counts.acceptance, first.counts.tokens_per_step) == (0, 1)


def test_a_step_that_fails_leaves_no_draft_behind() -> None:
    """The memory holds yielded tokens only, whatever the engine had read."""
    expected, _ = plain(Sampling())
    loaded = toy()
    session = loaded.session()
    loaded.fails_after = 3
    tokens = eager(Scripted([*PROMPT, *expected]), loaded).generate_tokens(loaded, session, PROMPT)
    found: list[int] = []
    with pytest.raises(EngineError, match="broke off"):
        found.extend(tokens)
    found = expected[: session.length - len(PROMPT)]

    assert session.tokens == [*PROMPT, *found]


def test_a_session_closed_meanwhile_is_let_be() -> None:
    """Closing in the wrong order is no error."""
    expected, _ = plain(Sampling())
    loaded = toy()
    session = loaded.session()
    tokens = eager(Scripted([*PROMPT, *expected]), loaded).generate_tokens(loaded, session, PROMPT)
    list(islice(tokens, 3))
    session.close()
    tokens.close()


def draft_model(*, reach: int, seed: int = 0, context: int = 80) -> tuple[DraftModel, ToyLoaded]:
    loaded = ToyLoaded(mixed(V, reach=reach, seed=seed), vocab_size=V, context=context)
    loaded.step_s, loaded.row_s = 0.3, 0.02
    return DraftModel(loaded, words(V), vocab_size=V, context=context), loaded


@given(sampling=samplings, reach=st.integers(1, 3))
def test_a_draft_model_changes_nothing_with_a_seed(sampling: Sampling, reach: int) -> None:
    """Greedy or seeded, good guesses or bad ones: the same tokens."""
    expected, remembered = plain(sampling)
    drafter, small = draft_model(reach=reach)
    loaded = toy()
    session = loaded.session()
    speculator = eager(drafter, loaded, small)

    assert list(speculator.generate_tokens(loaded, session, PROMPT, sampling=sampling)) == expected
    assert session.tokens == remembered


def test_a_draft_model_that_is_no_use_is_tried_now_and_then() -> None:
    """Trials become rare; what it missed meanwhile is read in one piece, and counted."""
    loaded = toy(context=700)
    drafter, small = draft_model(reach=3, seed=9, context=700)
    speculator = eager(drafter, loaded, small)
    list(speculator.generate_tokens(loaded, loaded.session(), PROMPT))

    assert 3 <= speculator.counts.drafted < 60
    assert speculator.counts.reading_s > 0
    assert max(small.rows) > 8
    assert loaded.now + small.now < 695 / 0.95


def test_drawn_answers_are_distributed_as_without_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tokens drawn with a draft model that is often wrong, by chi-square."""
    # A seed would keep the draft model from drawing, so the numbers are fixed from outside.
    seeds, numbers = count(), np.random.default_rng
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed=None: numbers(next(seeds) if seed is None else seed)
    )
    sampling = Sampling(temperature=1.2, top_p=0.95, repetition_penalty=1.3)
    loaded = toy(reach=2)
    first = generate_tokens(loaded, loaded.session(), PROMPT, max_tokens=1)
    forced = next(first)  # the draft follows this token
    counts: Counter[tuple[int, ...]] = Counter()
    n, begun = 3000, np.append(PROMPT, forced)
    for _ in range(n):
        counts[_drawn(sampling, begun)] += 1

    exact = _exact(sampling, begun.tolist(), 3)
    assert math.isclose(sum(exact.values()), 1)
    assert set(counts) <= set(exact)
    likely = {tokens: p * n for tokens, p in exact.items() if p * n >= 5}
    squares = sum((counts[tokens] - mean) ** 2 / mean for tokens, mean in likely.items())
    # Mean k and variance 2 k: five deviations are allowed.
    assert squares < len(likely) + 5 * math.sqrt(2 * len(likely))


def _drawn(sampling: Sampling, prompt: TokenArray) -> tuple[int, ...]:
    loaded = toy(reach=2)
    drafter, small = draft_model(reach=1)
    speculator = eager(drafter, loaded, small)
    speculator.pace.compared(0, 100, 100)
    tokens = speculator.generate_tokens(
        loaded, loaded.session(), prompt, sampling=sampling, max_tokens=4
    )
    found = tuple(islice(tokens, 3))
    tokens.close()
    return found


def _exact(sampling: Sampling, text: list[int], n: int) -> dict[tuple[int, ...], float]:
    """Probabilities of all answers of n tokens, from the distributions of plain decoding."""
    rule = mixed(V, reach=2)
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(n):
        longer: dict[tuple[int, ...], float] = {}
        for tokens, p in found.items():
            whole = (*text, *tokens)
            drawn = Sampler(sampling, seen=whole).distribution(rule(whole))
            for token, q in zip(*drawn, strict=True):
                longer[*tokens, int(token)] = p * float(q)
        found = longer
    return found
