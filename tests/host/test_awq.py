"""Scaled inputs: the same function, and less lost where it matters."""

from dataclasses import replace

import numpy as np
import pytest
from tests.models import DECODER, memory_model, random_tensors, varied_decoder

from onhand.core.decoder import Decoder
from onhand.core.progress import Quiet
from onhand.core.quantized import GroupFormat
from onhand.device.engines import forward
from onhand.host.awq import scale_inputs
from onhand.host.calibrate import run_original
from onhand.host.model import Model
from onhand.host.rounding import round_matrix

TOKENS = np.random.default_rng(0).integers(0, DECODER.vocab_size, 60)
DECODERS: dict[str, Decoder] = {
    "tied": DECODER,
    "varied": varied_decoder(),
    "biases": replace(DECODER, qkv_bias=True, mlp_bias=True, tied=False),
    "not gated": replace(DECODER, gated=False, activation="gelu", mlp_bias=True),
    "layer norm": replace(DECODER, norm="layer", out_bias=True),
    "factored": replace(
        DECODER, ranks={"layers.0.qkv": 24, "layers.1.gate_up": 20, "layers.1.down": 8}
    ),
    "post norm": replace(DECODER, post_norm=True, qk_norm=True),
}


def logits(model: Model) -> np.ndarray:
    """What a model says to `TOKENS`."""
    weights, decoder = model.weights, model.decoder
    x = forward.embed(weights, TOKENS)
    ropes = forward.RopeCache(decoder, TOKENS.size)
    for i, layer in enumerate(decoder.layers):
        memory = forward.LayerMemory.empty(layer, TOKENS.size)
        tables = ropes.tables(i, TOKENS.size)
        x = forward.run_layer(weights, i, x, memory, start=0, rope=tables)
    return forward.logits(weights, forward.final_hidden(weights, x))


def scaled_from(model: Model) -> tuple[Model, list[float]]:
    """Scale a model's inputs, and say how far the work was told to be."""
    run = run_original(model, calibration=[TOKENS], heldout=[], progress=Quiet(), whole=True)
    formats: dict[str, GroupFormat | None] = dict.fromkeys(
        model.decoder.matrices(), GroupFormat(bits=3)
    )
    told: list[float] = []
    scaled, _ = scale_inputs(model, run.statistics, formats, advance=told.append)
    return scaled, told


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_the_model_says_the_same(decoder: Decoder) -> None:
    """Whatever its norms, biases, heads that share keys, and gates."""
    model = memory_model(decoder)

    scaled, told = scaled_from(model)

    before, after = logits(model), logits(scaled)
    assert np.abs(after - before).max() < 2e-5 * np.abs(before).max()
    changed = sum(
        not np.array_equal(scaled.weights.matrix(name), model.weights.matrix(name))
        for name in decoder.matrices()
    )
    assert changed >= len(decoder.layers)
    joins = (4 if decoder.gated else 3) * len(decoder.layers) + (not decoder.tied)
    assert len(told) == joins


def test_blocks_and_rows_are_those_of_the_whole() -> None:
    """Passes read blocks; the embedding is looked up unscaled."""
    scaled, _ = scaled_from(memory_model(DECODER))
    weights = scaled.weights

    for name, (n, _) in DECODER.matrices().items():
        parts = [weights.block(name, 0, n // 2), weights.block(name, n // 2, n)]
        np.testing.assert_array_equal(np.concatenate(parts), weights.matrix(name))
    np.testing.assert_array_equal(
        weights.rows("embed", TOKENS[:5]), weights.matrix("embed")[TOKENS[:5]]
    )


def test_rounding_loses_less_where_it_matters() -> None:
    """One input is much stronger than the others: its weights get finer steps."""
    shapes: dict[str, tuple[int, ...]] = {**DECODER.matrices(), **DECODER.vectors()}
    tensors = random_tensors(shapes)
    tensors["layers.0.attention_norm"][::17] *= 30
    name, form = "layers.0.qkv", GroupFormat(bits=3)
    strong = memory_model(DECODER, tensors=tensors)
    run = run_original(strong, calibration=[TOKENS], heldout=[], progress=Quiet(), whole=True)

    scaled, statistics = scale_inputs(
        strong, run.statistics, dict.fromkeys(DECODER.matrices(), form), advance=lambda _: None
    )

    def lost(source: Model, moments: np.ndarray | None) -> float:
        weight = source.weights.matrix(name)
        rounded = round_matrix(weight, form, method="rtn").tensor.dequantize()
        assert moments is not None
        return float(np.einsum("nk,kl,nl->", weight - rounded, moments, weight - rounded))

    before = lost(strong, run.statistics.second_moments(name))
    assert lost(scaled, statistics.second_moments(name)) < 0.9 * before


def test_a_matrix_that_stays_is_left_alone() -> None:
    """No format, or no statistics: nothing to gain."""
    model = memory_model(DECODER)
    run = run_original(model, calibration=[TOKENS], heldout=[], progress=Quiet(), whole=True)

    scaled, _ = scale_inputs(
        model, run.statistics, dict.fromkeys(DECODER.matrices()), advance=lambda _: None
    )

    for name in DECODER.matrices():
        np.testing.assert_array_equal(scaled.weights.matrix(name), model.weights.matrix(name))
