"""Drafts on real engines: the tokens of plain decoding, in fewer steps."""

from itertools import count

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.test_engine_answers import level
from tests.models import VOCAB, tokenizer_json

from onhand import native
from onhand.core.weights import open_weights
from onhand.device.drafters import Drafter, DraftModel, PromptLookup
from onhand.device.engines.base import Engine, Loaded
from onhand.device.engines.native import NativeLoaded
from onhand.device.generate import generate_tokens
from onhand.device.probe import current_profile
from onhand.device.sampling import Sampling
from onhand.device.speculate import SpeculationCounts, Speculator
from onhand.device.text import open_tokenizer

SETS: list[str] = [] if native.module is None else native.module.instruction_sets()
PROMPT = np.random.default_rng(3).integers(0, VOCAB, 20)
SAMPLINGS = [
    Sampling(),
    Sampling(repetition_penalty=1.2),
    Sampling(temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, repetition_penalty=1.1, seed=5),
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
