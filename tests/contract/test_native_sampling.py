"""The native engine chooses what `Sampler` would, to the last bit, where it computes the logits."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tests.contract.conftest import Pack
from tests.contract.test_engine_answers import DECODERS
from tests.models import DECODER, varied_decoder

from onhand import native
from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError, InputError
from onhand.core.weights import open_weights
from onhand.device.engines.native import NativeLoaded, choose_alone
from onhand.device.sampling import Sampler, Sampling
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
SETS: list[str] = native.module.instruction_sets()
# More tiles than the head takes at once, and the last one not whole.
WIDE = replace(DECODER, vocab_size=1157, tied=False)
PROMPT = np.random.default_rng(3).integers(0, 300, 40)
HOW = {
    "greedy": Sampling(),
    "greedy with a penalty": Sampling(repetition_penalty=1.4),
    "all": Sampling(temperature=1.0, seed=1),
    "hot": Sampling(temperature=30.0, top_p=0.9, seed=2),
    "usual": Sampling(temperature=0.7, top_k=40, top_p=0.9, min_p=0.01, seed=3),
    "wide": Sampling(temperature=2.0, top_k=1100, repetition_penalty=1.1, seed=4),
    "likeliest": Sampling(temperature=0.9, top_p=0.5, repetition_penalty=0.9, seed=5),
}
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-30, 0.1, 0.7, 1.0, 3.0, 50.0]),
    top_k=st.sampled_from([0, 1, 2, 12, 40, 2000]),
    top_p=st.sampled_from([1.0, 0.999999999, 0.95, 0.5, 1e-9]) | st.floats(0.01, 1),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    seed=st.integers(0, 9),
)
# Ties, ordinary numbers, and some that are far below all others.
values = st.integers(-3, 3).map(float) | st.floats(-20, 20, width=32) | st.just(-1e30)


def row_of(seed: int, n: int, spread: float) -> FloatArray:
    return (np.random.default_rng(seed).normal(size=n) * spread).astype(np.float32)


def both(logits: FloatArray, sampling: Sampling, **given_: Any) -> tuple[list[int], list[int]]:
    """Ten tokens in a row as numpy chooses them, and as the native part does."""
    one, two = Sampler(sampling, **given_), Sampler(sampling, **given_)
    return [one.sample(logits) for _ in range(10)], [choose_alone(two, logits) for _ in range(10)]


@given(
    logits=hnp.arrays(np.float32, st.integers(1, 90), elements=values),
    sampling=samplings,
    seen=st.lists(st.integers(0, 99), max_size=6),
    data=st.data(),
)
def test_a_choice_is_the_samplers(
    logits: FloatArray, sampling: Sampling, seen: list[int], data: st.DataObject
) -> None:
    """Whatever the options, with ties, with ids that are forbidden or seen."""
    forbidden = data.draw(st.none() | hnp.arrays(np.bool_, len(logits)))
    if forbidden is not None and forbidden.all():
        forbidden = None

    expected, found = both(logits, sampling, seen=seen, forbidden=forbidden)

    assert found == expected


@given(sampling=samplings, seed=st.integers(0, 99), spread=st.sampled_from([0.01, 1.0, 4.0]))
def test_a_choice_of_a_large_vocabulary_is_the_samplers(
    sampling: Sampling, seed: int, spread: float
) -> None:
    """Selection in parts finds what a full sort does; sums run in the same order."""
    forbidden = np.random.default_rng(seed).random(5003) < 0.1

    expected, found = both(row_of(seed, 5003, spread), sampling, forbidden=forbidden)

    assert found == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 70, 149])
def test_logits_that_are_no_numbers_are_the_same_error(
    temperature: float, bad: float, place: int
) -> None:
    """Both say what they found."""
    logits = row_of(0, 150, 1.0)
    logits[place] = bad
    sampler = Sampler(Sampling(temperature=temperature))
    with pytest.raises(EngineError) as expected:
        sampler.sample(logits)

    with pytest.raises(EngineError, match=str(expected.value)):
        choose_alone(sampler, logits)


def test_nothing_left_to_choose_is_the_same_error() -> None:
    """Every id is forbidden."""
    sampler = Sampler(Sampling(), forbidden=np.ones(150, np.bool_))

    with pytest.raises(EngineError, match="no token may be chosen"):
        choose_alone(sampler, row_of(0, 150, 1.0))


def chosen_by_step(
    loaded: NativeLoaded, sampling: Sampling, forbidden: NDArray[np.bool_], n: int
) -> list[int]:
    sampler = Sampler(sampling, seen=PROMPT, forbidden=forbidden)
    session, tokens = loaded.session(), [int(PROMPT[0])]
    for _ in range(n):
        logits = loaded.step([(session, np.asarray(tokens[-1:]))])
        tokens.append(sampler.sample(logits[0]))
    return tokens[1:]


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_that_samples_gives_the_tokens_of_one_that_scores(
    pack: Pack, instructions: str, threads: int
) -> None:
    """Several conversations at once, each chosen in its own way."""
    bundle = pack(WIDE, Quantize(method="rtn"), accuracy_level=4)
    loaded = NativeLoaded(open_weights(bundle, "small"), b"", threads, instructions=instructions)
    forbidden = np.random.default_rng(0).random(WIDE.vocab_size) < 0.2
    expected = [chosen_by_step(loaded, sampling, forbidden, 12) for sampling in HOW.values()]

    samplers = [Sampler(sampling, seen=PROMPT, forbidden=forbidden) for sampling in HOW.values()]
    sessions = [loaded.session() for _ in samplers]
    rows = [[int(PROMPT[0])] for _ in samplers]
    for _ in range(12):
        batch = [(s, np.asarray(row[-1:])) for s, row in zip(sessions, rows, strict=True)]
        for row, token in zip(rows, loaded.step_sample(batch, samplers), strict=True):
            row.append(token)

    assert [row[1:] for row in rows] == expected


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_chooses_what_it_scores(pack: Pack, name: str) -> None:
    """Factors, caps, biases and an adapter of the head are part of both."""
    decoder = DECODERS[name]
    rng = np.random.default_rng(5)
    pairs = {
        "head": (
            rng.normal(size=(3, decoder.width)).astype(np.float32),
            rng.normal(size=(decoder.vocab_size, 3)).astype(np.float32),
        )
    }
    weights = open_weights(pack(decoder, Quantize(method="rtn"), accuracy_level=4), "small")
    loaded = NativeLoaded(weights, b"", 2, adapter=Adapter(pairs=pairs, sha256="0" * 64))
    for sampling in (HOW["greedy"], HOW["usual"]):
        one, two = Sampler(sampling), Sampler(sampling)
        expected = one.sample(loaded.step([(loaded.session(), PROMPT)])[0])

        assert loaded.step_sample([(loaded.session(), PROMPT)], [two]) == [expected]


def test_a_part_of_a_prompt_needs_no_choice(pack: Pack) -> None:
    """A row without a sampler fills the memory, beside rows that choose."""
    loaded = NativeLoaded(open_weights(pack(accuracy_level=4), "small"), b"", 2)
    prompt, beside = loaded.session(), loaded.session()
    expected = Sampler(Sampling()).sample(loaded.step([(loaded.session(), PROMPT)])[0])

    first = loaded.step_sample(
        [(prompt, PROMPT[:30]), (beside, PROMPT)], [None, Sampler(Sampling())]
    )
    second = loaded.step_sample([(prompt, PROMPT[30:])], [Sampler(Sampling())])

    assert first == [-1, expected]
    assert second == [expected]


def test_a_token_counts_as_seen_wherever_it_was_chosen(pack: Pack) -> None:
    """Steps that sample and steps that score take turns with one sampler."""
    loaded = NativeLoaded(open_weights(pack(varied_decoder(), accuracy_level=4), "small"), b"", 1)
    sampling = Sampling(temperature=0.8, repetition_penalty=1.5, seed=7)
    expected = chosen_by_step(loaded, sampling, np.zeros(loaded.vocab_size, np.bool_), 20)

    sampler, session = Sampler(sampling, seen=PROMPT), loaded.session()
    tokens = [int(PROMPT[0])]
    for i in range(20):
        batch = [(session, np.asarray(tokens[-1:]))]
        if i % 3 == 0:
            tokens.append(sampler.sample(loaded.step(batch)[0]))
        else:
            tokens += loaded.step_sample(batch, [sampler])

    assert tokens[1:] == expected


def test_samplers_that_do_not_match_are_refused(pack: Pack) -> None:
    """Before any token enters a memory."""
    loaded = NativeLoaded(open_weights(pack(accuracy_level=4), "small"), b"", 1)
    one, two, sampler = loaded.session(), loaded.session(), Sampler(Sampling())

    with pytest.raises(InputError, match="1 samplers for 2 rows"):
        loaded.step_sample([(one, PROMPT), (two, PROMPT)], [sampler])
    with pytest.raises(InputError, match="given twice"):
        loaded.step_sample([(one, PROMPT), (two, PROMPT)], [sampler, sampler])
    assert (one.length, two.length) == (0, 0)
