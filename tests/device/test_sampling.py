"""Choosing tokens: by hand, by brute force, against transformers, and by statistics."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError, InputError
from onhand.device.sampling import Sampler, Sampling

rows = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-20, 20, width=32))
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    seed=st.integers(0, 9),
)


def row(*values: float) -> FloatArray:
    return np.asarray(values, dtype=np.float32)


def kept(logits: FloatArray, **options: float) -> list[int]:
    """Tokens that may be drawn, at temperature 1 unless given."""
    sampling = Sampling(**{"temperature": 1.0, **options})  # type: ignore[arg-type]  # whole numbers stay whole
    return [int(i) for i in Sampler(sampling).distribution(logits)[0]]


def test_defaults_take_the_most_likely() -> None:
    """Without options, an answer is the same each time."""
    assert Sampler(Sampling()).sample(row(1, 3, 2)) == 1


def test_who_never_draws_has_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numpy loads them as they are asked for: a greedy answer begins without."""
    monkeypatch.setattr("numpy.random.default_rng", lambda seed: pytest.fail("was asked for"))
    sampler = Sampler(Sampling())
    logits = np.array([0, 2, 1], np.float32)

    assert sampler.sample(logits) == 1
    assert sampler.fork(temperature=0, forbidden=None).sample(logits) == 1


def test_probabilities_by_hand() -> None:
    """Two tokens a factor of 4 apart at temperature 1 are a factor of 2 apart at 2."""
    logits = row(0, math.log(4))
    ids, at_one = Sampler(Sampling(temperature=1)).distribution(logits)
    _, at_two = Sampler(Sampling(temperature=2)).distribution(logits)

    assert ids.tolist() == [0, 1]
    np.testing.assert_allclose(at_one, [1 / 5, 4 / 5], rtol=1e-6)  # float32 logits
    np.testing.assert_allclose(at_two, [1 / 3, 2 / 3], rtol=1e-6)


def test_filters_by_hand() -> None:
    """Probabilities 0.5, 0.3, 0.15 and 0.05: what each filter leaves."""
    logits = np.log(row(0.5, 0.3, 0.15, 0.05))

    assert kept(logits, top_k=2) == [0, 1]
    assert kept(logits, top_p=0.5) == [0]
    assert kept(logits, top_p=0.6) == [0, 1]
    assert kept(logits, top_p=0.96) == [0, 1, 2, 3]
    assert kept(logits, min_p=0.25) == [0, 1, 2]
    assert kept(logits, min_p=1) == [0]
    assert kept(row(1, 1, 1, 0), top_k=2) == [0, 1, 2]  # a tie is kept whole


def test_the_repetition_penalty_by_hand() -> None:
    """Tokens seen lose: positive logits are divided, negative multiplied; the prompt counts."""
    sampler = Sampler(Sampling(repetition_penalty=2), seen=[1, 2])

    assert sampler.sample(row(3, 4, -1)) == 0  # 3, 2, -2
    assert sampler.sample(row(3, 4, 1.9)) == 1  # 1.5, 2, 0.95: the first choice counts as well


@given(logits=rows, sampling=samplings)
def test_what_is_drawn_is_allowed(logits: FloatArray, sampling: Sampling) -> None:
    """A drawn token is in the distribution, which is one."""
    ids, probabilities = Sampler(sampling).distribution(logits)

    assert Sampler(sampling).sample(logits) in ids
    assert np.all(probabilities > 0)
    assert probabilities.sum() == pytest.approx(1)
    assert np.all(np.diff(ids) > 0)
    # Logits too close for float32 probabilities to tell apart are a tie.
    assert logits[ids].max() >= logits.max() - 1e-6 * max(1, abs(logits.max()))


@given(logits=rows)
def test_temperature_0_is_the_maximum(logits: FloatArray) -> None:
    """Greedy decoding draws nothing."""
    assert Sampler(Sampling(temperature=0, top_p=0.3)).sample(logits) == int(logits.argmax())


@given(logits=rows, top_p=st.floats(0.01, 0.999))
def test_top_p_equals_brute_force(logits: FloatArray, top_p: float) -> None:
    """The fewest most likely tokens that hold the probability: a full sort finds the same."""
    probabilities = np.exp(logits.astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    expected = int((before < top_p).sum())
    # A sum within rounding of the limit may fall on either side.
    if np.abs(before - top_p).min() < 1e-9:
        return

    found = kept(logits, top_p=top_p)
    assert len(found) == expected
    assert probabilities[found].sum() >= top_p - 1e-9


@given(logits=rows, sampling=samplings)
def test_the_same_seed_draws_the_same(logits: FloatArray, sampling: Sampling) -> None:
    """Two answers with one seed are equal, draw by draw."""
    one, two = Sampler(sampling), Sampler(sampling)

    assert [one.sample(logits) for _ in range(5)] == [two.sample(logits) for _ in range(5)]


def test_draws_follow_the_probabilities() -> None:
    """The frequencies of 20,000 draws pass a chi-square test (fixed seed)."""
    logits = np.log(row(0.4, 0.3, 0.2, 0.1))
    sampler = Sampler(Sampling(temperature=1, seed=11))
    counts = np.bincount([sampler.sample(logits) for _ in range(20_000)], minlength=4)
    expected = 20_000 * np.asarray([0.4, 0.3, 0.2, 0.1])

    # 16.27 is the 0.999 quantile for 3 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 16.27


@given(logits=rows, sampling=samplings, seen=st.lists(st.integers(0, 39), max_size=6))
def test_filters_are_those_of_transformers(
    logits: FloatArray, sampling: Sampling, seen: list[int]
) -> None:
    """The chain of transformers' own processors leaves the same probabilities."""
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    seen = [i for i in seen if i < len(logits)]
    tokens = torch.tensor([seen], dtype=torch.int64)
    scores = torch.tensor(logits)[None]
    if seen:
        penalize = process.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
        scores = penalize(tokens, scores)
    chain = [process.TemperatureLogitsWarper(sampling.temperature)]
    chain += [process.TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    chain += [process.TopPLogitsWarper(sampling.top_p)]
    chain += [process.MinPLogitsWarper(sampling.min_p)]
    scores = scores.double()  # so that rounding does not decide who passes a threshold
    for step in chain:
        if isinstance(step, process.TopPLogitsWarper):
            # Equal tokens add up to the very limit: then rounding decides, in either program.
            sums = torch.softmax(scores, dim=-1)[0].sort().values.cumsum(0)
            assume(float((sums - (1 - sampling.top_p)).abs().min()) > 1e-9)
        scores = step(tokens, scores)
    expected = torch.softmax(scores, dim=-1)[0].numpy()
    ids, probabilities = Sampler(sampling, seen=seen).distribution(logits)
    found = np.zeros(len(logits))
    found[ids] = probabilities

    # Sorted, because top-p may keep either of two tokens that tie.
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-12)


@given(logits=rows, sampling=samplings, data=st.data())
def test_forbidden_tokens_are_never_drawn(
    logits: FloatArray, sampling: Sampling, data: st.DataObject
) -> None:
    """Ids without a token have probability 0, even the likeliest."""
    forbidden = data.draw(hnp.arrays(np.bool_, len(logits)))
    sampler = Sampler(sampling, forbidden=forbidden)
    if forbidden.all():
        with pytest.raises(EngineError, match="no token may be chosen"):
            sampler.sample(logits)
    else:
        assert not forbidden[sampler.sample(logits)]
        assert not forbidden[sampler.distribution(logits)[0]].any()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(temperature: float, bad: float) -> None:
    """A damaged model is reported, not sampled from."""
    with pytest.raises(EngineError, match="logits"):
        Sampler(Sampling(temperature=temperature)).sample(row(0, bad, 1))


def test_logits_are_left_alone() -> None:
    """The engine's own row is not changed by penalty or mask."""
    logits = row(1, 2, 3)
    forbidden = np.asarray([False, False, True])
    Sampler(Sampling(repetition_penalty=3), seen=[0, 1], forbidden=forbidden).sample(logits)

    np.testing.assert_array_equal(logits, row(1, 2, 3))


@given(logits=hnp.arrays(np.float32, st.integers(2, 40), elements=st.floats(-1e4, 0, width=32)))
def test_probabilities_are_exponentials(logits: FloatArray) -> None:
    """To the last places of a double, also where they are next to nothing."""
    ids, found = Sampler(Sampling(temperature=1)).distribution(logits)
    expected = [math.exp(float(one) - float(logits.max())) for one in logits[ids]]

    np.testing.assert_allclose(found, np.asarray(expected) / math.fsum(expected), rtol=1e-14)


def test_tiny_temperatures_do_not_overflow() -> None:
    """As the temperature goes to zero, sampling goes to greedy."""
    sampler = Sampler(Sampling(temperature=1e-30, seed=0))

    assert sampler.sample(row(-50, 50, 49.9)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    """The message has the name and the value."""
    with pytest.raises(InputError, match=message):
        Sampling(**options)  # type: ignore[arg-type]  # on purpose
