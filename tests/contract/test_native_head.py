"""The head of two stages: candidates of a coarse copy, scored as the whole head scores them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.test_engine_answers import DECODERS, FORMS
from tests.models import DECODER

from onhand import native
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineUnavailable, InputError
from onhand.core.weights import open_weights
from onhand.device.engines.base import TwoStageHead
from onhand.device.engines.choosing import use_head
from onhand.device.engines.native import NativeLoaded
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.opening import open_engine
from onhand.device.sampling import Sampler, Sampling
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
SETS: list[str] = native.module.instruction_sets()
V, ROWS = 4003, 16
LARGE = replace(DECODER, vocab_size=V, tied=False)
PROMPTS = np.random.default_rng(3).integers(0, V, (6, 9))
HOW = {
    "greedy": Sampling(),
    "sampled": Sampling(temperature=1.3, top_k=50, top_p=0.9, repetition_penalty=1.2, seed=3),
}


def load(pack: Pack, decoder: Decoder = LARGE, *, instructions: str = "") -> NativeLoaded:
    bundle = pack(decoder, Quantize(method="rtn"), accuracy_level=4)
    return NativeLoaded(open_weights(bundle, "small"), b"", 2, instructions=instructions)


def masked(logits: FloatArray, tiles: list[int]) -> FloatArray:
    """What tokens are chosen by: -inf for all that are in none of the tiles."""
    left = np.full_like(logits, -np.inf)
    for tile in tiles:
        left[tile * ROWS : (tile + 1) * ROWS] = logits[tile * ROWS : (tile + 1) * ROWS]
    return left


def chosen(
    loaded: NativeLoaded, prompt: TokenArray, sampling: Sampling
) -> tuple[int, list[int], FloatArray]:
    """A token, the tiles that it was chosen from, and the logits of the whole head."""
    forbidden = np.random.default_rng(1).random(loaded.vocab_size) < 0.1
    sampler = Sampler(sampling, seen=prompt, forbidden=forbidden)
    (token,) = loaded.step_sample([(loaded.session(), prompt)], [sampler])
    tiles: list[int] = loaded.inner.picked
    logits = masked(loaded.step([(loaded.session(), prompt)])[0], tiles)
    expected = Sampler(sampling, seen=prompt, forbidden=forbidden).sample(logits)
    assert token == expected
    return token, tiles, logits


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("how", HOW)
def test_candidates_have_the_logits_of_the_whole_head(
    pack: Pack, instructions: str, how: str
) -> None:
    """A choice is that of `Sampler` by the whole head's logits, -inf outside of the candidates."""
    loaded = load(pack, instructions=instructions)
    loaded.use_two_stage_head(candidates=20)

    for prompt in PROMPTS:
        _, tiles, _ = chosen(loaded, prompt, HOW[how])

        assert 20 <= len(tiles) < V / ROWS / 2


def test_the_highest_scores_are_candidates(pack: Pack) -> None:
    """Of the logits' noise of a tenth to a half of their spread, the best of 4003 are found."""
    loaded = load(pack)
    loaded.use_two_stage_head(candidates=60)
    found = []
    for prompt in PROMPTS:
        _, tiles, _ = chosen(loaded, prompt, HOW["greedy"])
        highest = loaded.step([(loaded.session(), prompt)])[0].argsort()[-3:]
        found += [int(token) // ROWS in tiles for token in highest]

    assert np.mean(found) > 0.9


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_with_all_as_candidates(pack: Pack, name: str) -> None:
    """Nothing is lost then, whatever the head is made of."""
    full, staged = load(pack, DECODERS[name]), load(pack, DECODERS[name])
    staged.use_two_stage_head(candidates=10_000)
    prompts = PROMPTS % full.vocab_size
    for sampling in HOW.values():
        tokens = [
            loaded.step_sample(
                [(loaded.session(), prompt) for prompt in prompts],
                [Sampler(sampling, seen=prompt) for prompt in prompts],
            )
            for loaded in (full, staged)
        ]

        assert tokens[0] == tokens[1]


@pytest.mark.parametrize("form", [form for form in FORMS.values() if form is not None], ids=repr)
def test_every_form_of_a_head_has_a_coarse_copy(pack: Pack, form: Quantize) -> None:
    """Whatever its bits and groups; and widths that do not fill a group."""
    decoder = replace(LARGE, width=80, vocab_size=1003)
    bundle = pack(decoder, form, accuracy_level=4)
    loaded = NativeLoaded(open_weights(bundle, "small"), b"", 1)
    loaded.use_two_stage_head(candidates=25)
    hits = [chosen(loaded, prompt % 1003, HOW["greedy"]) for prompt in PROMPTS]

    assert sum(len(tiles) < 50 for _, tiles, _ in hits) == len(hits)


def test_scores_are_of_the_whole_head(pack: Pack) -> None:
    """What is evaluated does not change."""
    full, staged = load(pack), load(pack)
    staged.use_two_stage_head(candidates=1)

    np.testing.assert_array_equal(
        staged.score(staged.session(), PROMPTS[0]), full.score(full.session(), PROMPTS[0])
    )


def test_an_engine_without_one_is_passed_over(pack: Pack) -> None:
    """The first that has a head of two stages is taken, and why not those before it is said."""
    bundle = pack(accuracy_level=4)
    wanted: dict[str, Any] = {"variant": "small", "threads": 1, "head": "two-stage"}

    loaded, name, passed_over = open_engine(bundle, engine=None, **wanted)

    assert isinstance(loaded, TwoStageHead)
    assert name == "native"
    assert passed_over.get("onnx", "") in {"", "onnx has no head of two stages; native has one"}
    with pytest.raises(EngineUnavailable, match="reference has no head of two stages"):
        open_engine(bundle, engine="reference", **wanted)
    with pytest.raises(InputError, match="must be 'full' or 'two-stage'"):
        open_engine(bundle, engine="native", **(wanted | {"head": "half"}))


def test_a_head_of_two_stages_is_refused_where_there_is_none(pack: Pack) -> None:
    """With the engine that has one."""
    loaded = ReferenceEngine().open(pack(), variant="small", threads=1)

    use_head(loaded, "full", engine_name="reference")
    with pytest.raises(EngineUnavailable, match="reference has no head of two stages"):
        use_head(loaded, "two-stage", engine_name="reference")
    with pytest.raises(InputError, match="candidates is 0"):
        load(pack).use_two_stage_head(candidates=0)
