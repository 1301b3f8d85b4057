"""Parts taken out of a decoder: what stays computes as if the rest were nought."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import DECODER, VOCAB, memory_model, varied_decoder

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder, decoder_from_json
from onhand.core.errors import InputError
from onhand.core.progress import Quiet
from onhand.device.engines import forward
from onhand.host.calibrate import InputStatistics, run_original
from onhand.host.importance import (
    block_influence,
    importance_by_activation,
    importance_by_magnitude,
    norm_gains,
)
from onhand.host.model import Model
from onhand.host.prune_decoder import Kept, LayerKept, prune_decoder

TOKENS = np.random.default_rng(3).integers(0, VOCAB, (4, 40))
NORMS = replace(
    DECODER, norm="layer", positions="learned", gated=False, activation="gelu", tied=False
)
GEMMA = replace(DECODER, qk_norm=True, post_norm=True, activation="gelu_tanh", embed_scale=8.0)


def answers(model: Model, tokens: TokenArray) -> FloatArray:
    """Logits of one sequence."""
    decoder = model.decoder
    x = forward.embed(model.weights, tokens)
    tables = forward.RopeCache(decoder, tokens.size)
    for i, layer in enumerate(decoder.layers):
        memory = forward.LayerMemory.empty(layer, tokens.size)
        rope = tables.tables(i, tokens.size)
        x = forward.run_layer(model.weights, i, x, memory, start=0, rope=rope)
    return forward.logits(model.weights, forward.final_hidden(model.weights, x))


def observed(model: Model) -> InputStatistics:
    """Whole second moments of a few sequences."""
    run = run_original(
        model, calibration=list(TOKENS), heldout=(), threads=1, progress=Quiet(), whole=True
    )
    return run.statistics


def silenced(model: Model, *, neurons: dict[int, list[int]], groups: dict[int, list[int]]) -> Model:
    """The same model with the columns behind neurons and key/value heads set to nought."""
    shapes = {**model.decoder.matrices(), **model.decoder.vectors()}
    vectors = model.decoder.vectors()
    tensors = {
        name: (model.weights.vector(name) if name in vectors else model.weights.matrix(name)).copy()
        for name in shapes
    }
    for i, gone in neurons.items():
        tensors[f"layers.{i}.down"][:, gone] = 0
    for i, gone in groups.items():
        layer = model.decoder.layers[i]
        width = layer.n_heads // layer.n_kv_heads * layer.head_dim
        for group in gone:
            tensors[f"layers.{i}.out"][:, group * width : (group + 1) * width] = 0
    return memory_model(model.decoder, tensors=tensors)


def without(decoder: Decoder, neurons: dict[int, list[int]], groups: dict[int, list[int]]) -> Kept:
    """Everything but some neurons and key/value heads."""
    full = Kept.everything(decoder)
    return replace(
        full,
        layers=tuple(
            LayerKept(
                source=i,
                groups=np.setdiff1d(layer.groups, groups.get(i, [])),
                neurons=np.setdiff1d(layer.neurons, neurons.get(i, [])),
            )
            for i, layer in enumerate(full.layers)
        ),
    )


@pytest.mark.parametrize("decoder", [DECODER, NORMS, GEMMA, varied_decoder()])
def test_what_is_cut_was_worth_nothing(decoder: Decoder) -> None:
    """Without neurons and heads that add nothing, the answers stay, to rounding."""
    neurons, groups = {0: [0, 5, 40], 1: list(range(20))}, {1: [0]}
    quiet = silenced(memory_model(decoder), neurons=neurons, groups=groups)

    pruned = prune_decoder(quiet, without(decoder, neurons, groups))

    expected = answers(quiet, TOKENS[0])
    assert pruned.decoder.layers[0].mlp_width == decoder.layers[0].mlp_width - 3
    assert pruned.decoder.layers[1].n_kv_heads == decoder.layers[1].n_kv_heads - 1
    assert np.abs(answers(pruned, TOKENS[0]) - expected).max() < 2e-5 * np.abs(expected).max()
    assert decoder_from_json(pruned.decoder.to_json()) == pruned.decoder


def test_channels_that_carry_nothing_can_go() -> None:
    """The stream's mean square is then over fewer channels, which the norms' gains make good."""
    model = memory_model()
    gone = np.arange(0, 64, 4)
    tensors = {name: model.weights.matrix(name).copy() for name in DECODER.matrices()}
    tensors |= {name: model.weights.vector(name).copy() for name in DECODER.vectors()}
    for name, array in tensors.items():
        if name == "embed":
            array[:, gone] = 0
        elif name.endswith((".out", ".down")):
            array[gone] = 0
    # Epsilon is no longer the same share of the mean square: make it too small to matter.
    decoder = replace(DECODER, norm_epsilon=1e-12)
    quiet = memory_model(decoder, tensors=tensors)
    stays = np.setdiff1d(np.arange(64), gone)

    gains = norm_gains(quiet, observed(quiet), stays)
    pruned = prune_decoder(quiet, replace(Kept.everything(decoder), channels=stays, gains=gains))

    expected = answers(quiet, TOKENS[0])
    assert pruned.decoder.width == 48
    assert list(gains.values()) == pytest.approx([np.sqrt(64 / 48)] * 5, rel=1e-4)
    assert np.abs(answers(pruned, TOKENS[0]) - expected).max() < 1e-4 * np.abs(expected).max()


def test_layers_can_go() -> None:
    """What stays is the model of the layers that stay, whatever their number was."""
    model = memory_model()
    kept = replace(Kept.everything(DECODER), layers=Kept.everything(DECODER).layers[1:])

    pruned = prune_decoder(model, kept)

    decoder = replace(DECODER, layers=DECODER.layers[1:])
    names = {**decoder.matrices(), **decoder.vectors()}
    tensors = {}
    for name in names:
        source = name.replace("layers.0.", "layers.1.")
        read = model.weights.vector if name in decoder.vectors() else model.weights.matrix
        tensors[name] = read(source)
    expected = answers(memory_model(decoder, tensors=tensors), TOKENS[1])
    np.testing.assert_array_equal(answers(pruned, TOKENS[1]), expected)


@settings(max_examples=25, deadline=None)
@given(
    neurons=st.sets(st.integers(0, 95), min_size=1), start=st.integers(0, 60), seed=st.integers(0)
)
def test_blocks_and_rows_are_those_of_the_whole(neurons: set[int], start: int, seed: int) -> None:
    """However a matrix is read: the same numbers."""
    model = memory_model()
    kept = without(DECODER, {0: sorted(set(range(96)) - neurons)}, {1: [1]})
    channels = np.sort(np.random.default_rng(seed % 2**32).permutation(64)[:40])
    weights = prune_decoder(model, replace(kept, channels=channels)).weights

    for name, (n, k) in weights.decoder.matrices().items():
        whole = weights.matrix(name)
        low = min(start, n - 1)
        assert whole.shape == (n, k)
        np.testing.assert_array_equal(weights.block(name, low, n), whole[low:])
    np.testing.assert_array_equal(
        weights.rows("embed", TOKENS[0]), weights.matrix("embed")[TOKENS[0]]
    )


def test_columns_that_stay_make_good_for_those_that_go() -> None:
    """On the text that was observed, what `down` gives is nearer than without."""
    model = memory_model()
    moments = observed(model)
    kept = without(DECODER, {0: list(range(40))}, {})
    name = "layers.0.down"

    plain = prune_decoder(model, kept).weights.matrix(name)
    fitted = prune_decoder(model, kept, moments=moments).weights.matrix(name)

    second = moments.second_moments(name)
    assert second is not None
    whole = model.weights.matrix(name)

    def lost(columns: FloatArray) -> float:
        wide = np.concatenate([np.zeros((64, 40), np.float32), columns], axis=1) - whole
        return float(np.einsum("nk,kj,nj->", wide, second, wide))

    assert lost(fitted) < 0.9 * lost(plain)
    with pytest.raises(InputError, match="was not observed"):
        prune_decoder(model, kept, moments=InputStatistics(whole=True)).weights.matrix(name)


def test_what_adds_nothing_matters_least() -> None:
    """By activation and by magnitude alike, in every layer."""
    quiet = silenced(memory_model(), neurons={0: [7]}, groups={1: [0]})
    tensors = {name: quiet.weights.matrix(name).copy() for name in DECODER.matrices()}
    tensors |= {name: quiet.weights.vector(name) for name in DECODER.vectors()}
    tensors["layers.0.gate_up"][[7, 96 + 7]] = 0
    tensors["layers.1.qkv"][:32] = tensors["layers.1.qkv"][64:80] = 0
    tensors["layers.1.qkv"][96:112] = 0
    quiet = memory_model(tensors=tensors)

    for found in (
        importance_by_activation(quiet, observed(quiet)),
        importance_by_magnitude(quiet),
    ):
        assert int(found.neurons[0].argmin()) == 7
        assert found.groups[1][0] == 0 < found.groups[1][1]
        assert [scores.shape for scores in found.neurons] == [(96,), (96,)]
        assert found.channels.shape == (64,)


def test_taylor_sees_what_the_loss_does_not() -> None:
    """What adds nothing has no gradient times weight; what does, has."""
    pytest.importorskip("torch", reason="needs gradients")
    from onhand.host.importance import importance_by_taylor

    quiet = silenced(memory_model(), neurons={0: [7]}, groups={1: [0]})
    told: list[float] = []

    found = importance_by_taylor(quiet, list(TOKENS), threads=1, advance=told.append)

    assert sum(told) == len(TOKENS)
    assert found.neurons[0][7] == 0 < np.sort(found.neurons[0])[1]
    assert found.groups[1][0] == 0 < found.groups[1][1]


def test_a_layer_that_turns_nothing_has_no_influence() -> None:
    """It adds nothing to the stream; the other one does."""
    quiet = silenced(memory_model(), neurons={1: list(range(96))}, groups={1: [0, 1]})
    told: list[float] = []

    found = block_influence(quiet, list(TOKENS), advance=told.append)

    assert sum(told) == 2
    assert found[1] == pytest.approx(0, abs=1e-6)
    assert found[0] > 0.01


def test_nothing_may_be_left_over_of_nothing() -> None:
    """Each in one sentence."""
    model, full = memory_model(), Kept.everything(DECODER)
    with pytest.raises(InputError, match="nothing of layer 0"):
        prune_decoder(model, without(DECODER, {0: list(range(96))}, {}))
    with pytest.raises(InputError, match="no layer, or no channel"):
        prune_decoder(model, replace(full, layers=()))
    factored = memory_model(replace(DECODER, ranks={"layers.0.qkv": 8}))
    with pytest.raises(InputError, match="products of factors"):
        prune_decoder(factored, full)


def test_other_parts_are_another_model() -> None:
    """The identity says what went."""
    model = memory_model()
    first = prune_decoder(model, without(DECODER, {0: [1]}, {}))
    second = prune_decoder(model, without(DECODER, {0: [2]}, {}))

    assert len({model.sha256, first.sha256, second.sha256}) == 3
