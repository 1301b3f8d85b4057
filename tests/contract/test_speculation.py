"""Drafts on real engines: the tokens of plain decoding, in fewer steps."""

from itertools import count

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.test_engine_answers import level
from tests.models import VOCAB, tokenizer_json

from onhand import native
from onhand.core.errors import ContextOverflow, EngineError, InputError
from onhand.core.weights import open_weights
from onhand.device.drafters import Drafter, DraftModel, PromptLookup
from onhand.device.engines.base import Engine, Loaded
from onhand.device.engines.native import NativeLoaded
from onhand.device.generate import generate_tokens
from onhand.device.probe import current_profile
from onhand.device.sampling import Sampler, Sampling
from onhand.device.speculate import SpeculationCounts, Speculator
from onhand.device.text import open_tokenizer

SETS: list[str] = [] if native.module is None else native.module.instruction_sets()
PROMPT = np.random.default_rng(3).integers(0, VOCAB, 20)
SAMPLINGS = [
    Sampling(),
    Sampling(repetition_penalty=1.2),
    Sampling(temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, repetition_penalty=1.1, seed=5),
]

OPTIONS: list[dict[str, float]] = [
    {},
    {"repetition_penalty": 1.3},
    {"temperature": 1},
    {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 0.9, "top_k": 40, "repetition_penalty": 1.2},
]


def drafted(loaded: Loaded, drafter: Drafter, sampling: Sampling) -> SpeculationCounts:
    """Compare a drafted answer with a plain one; every step takes as long as any other."""
    plain, drafting = loaded.session(), loaded.session()
    expected = list(generate_tokens(loaded, plain, PROMPT, max_tokens=60, sampling=sampling))
    ticks = count()
    speculator = Speculator(drafter, clock=lambda: float(next(ticks)))
    found = list(
        speculator.generate_tokens(loaded, drafting, PROMPT, max_tokens=60, sampling=sampling)
    )

    assert found == expected
    assert drafting.length == plain.length == len(PROMPT) + 59
    # What both remember is the same, not only what they said.
    token = np.asarray([7])
    np.testing.assert_allclose(
        loaded.score(drafting, token), loaded.score(plain, token), rtol=1e-4, atol=1e-4
    )
    return speculator.counts


def test_lookup_says_what_plain_decoding_says(engine: Engine, pack: Pack) -> None:
    """On every engine, greedy: a random model repeats itself soon."""
    bundle = pack(accuracy_level=level(engine))
    if reason := engine.why_not(bundle, current_profile(), variant="small"):
        pytest.skip(reason)
    counts = drafted(engine.open(bundle, variant="small", threads=1), PromptLookup(), SAMPLINGS[0])

    assert counts.compared > 0


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "penalty", "seed"])
def test_the_native_engine_says_the_same_bit_for_bit(
    pack: Pack, instructions: str, sampling: Sampling
) -> None:
    """For every instruction set; a smaller model of the same weights guesses well."""
    bundle = pack(accuracy_level=4)
    loaded, small = (
        NativeLoaded(open_weights(bundle, variant), b"", 1, instructions=instructions)
        for variant in ("int8", "small")
    )
    tokenizer = open_tokenizer(tokenizer_json())
    guessing = DraftModel(small, tokenizer, vocab_size=VOCAB, context=loaded.context)
    looked_up = drafted(loaded, PromptLookup(), sampling)
    guessed = drafted(loaded, guessing, sampling)

    assert looked_up.steps <= looked_up.tokens
    assert guessed.accepted > 0
    assert guessed.steps < guessed.tokens


@pytest.mark.parametrize("instructions", SETS)
def test_a_head_of_two_stages_checks_drafts_as_it_chooses(pack: Pack, instructions: str) -> None:
    """Few candidates, so that it often chooses what the whole head would not."""
    loaded = NativeLoaded(
        open_weights(pack(accuracy_level=4), "small"), b"", 1, instructions=instructions
    )
    loaded.use_two_stage_head(candidates=1)

    assert drafted(loaded, PromptLookup(), SAMPLINGS[0]).compared > 0


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_the_native_engine_checks_drafts_as_scores_do(
    pack: Pack, instructions: str, options: dict[str, float]
) -> None:
    """Right tokens, wrong ones, and random numbers that a wrong one leaves unused."""
    loaded = NativeLoaded(
        open_weights(pack(accuracy_level=4), "small"), b"", 1, instructions=instructions
    )
    forbidden = np.arange(VOCAB) % 5 == 0
    sampling = Sampling(seed=3, **options)  # type: ignore[arg-type]  # whole numbers stay whole
    ours, plain = (Sampler(sampling, seen=PROMPT, forbidden=forbidden) for _ in range(2))
    beside, session = loaded.session(), loaded.session()
    loaded.step([(beside, PROMPT), (session, PROMPT)])
    lengths = []
    for n_right in (0, 1, 5, 2, 16, 3):
        # What plain decoding says, a wrong token after it, and some that follow nothing.
        right = [7]
        for _ in range(n_right):
            right.append(plain.sample(loaded.step([(beside, np.asarray(right[-1:]))])[0]))
        chosen = plain.sample(loaded.step([(beside, np.asarray(right[-1:]))])[0])
        tokens = np.asarray([*right, (chosen + 1) % VOCAB, 3, 3])
        found = loaded.step_check(session, tokens, ours)
        assert found == [*right[1:], chosen]
        lengths.append(len(found))
        session.rewind(beside.length)

    assert lengths == [1, 2, 6, 3, 17, 4]
    assert ours.draw() == plain.draw()
    assert ours.seen_since(0) == plain.seen_since(0)


def test_a_draft_to_check_is_no_exception(pack: Pack) -> None:
    """What `step` refuses is refused, and nothing has changed."""
    if native.module is None:
        pytest.skip(native.missing)
    loaded = NativeLoaded(open_weights(pack(accuracy_level=4), "small"), b"", 1)
    session = loaded.session(context=4)
    with pytest.raises(InputError, match="outside the vocabulary"):
        loaded.step_check(session, np.asarray([1, VOCAB]), Sampler(Sampling()))
    with pytest.raises(ContextOverflow):
        loaded.step_check(session, np.asarray([1] * 5), Sampler(Sampling()))
    helpless = Sampler(Sampling(), forbidden=np.ones(VOCAB, dtype=np.bool_))
    with pytest.raises(EngineError, match="no token may be chosen"):
        loaded.step_check(session, np.asarray([1, 2]), helpless)

    assert session.length == 2
