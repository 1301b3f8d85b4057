"""Trained scales: the torch computation is ours, and training brings the answers together."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.models import DECODER, VOCAB, memory_model, varied_decoder

from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.rope import Rope
from onhand.device.engines import forward
from onhand.host.distil import check_torch, train_scales
from onhand.host.model import Model
from onhand.host.rounding import round_matrix
from onhand.host.torch_forward import torch_logits

torch = pytest.importorskip("torch", reason="trains scales")

if TYPE_CHECKING:
    from torch import Tensor

WINDOWED = DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=16, mlp_width=96, window=9)
DECODERS: dict[str, Decoder] = {
    "tied": DECODER,
    "varied": varied_decoder(),
    "gemma": replace(
        DECODER,
        layers=(WINDOWED, DECODER.layers[1]),
        local_rope=Rope(theta=100.0),
        qk_norm=True,
        post_norm=True,
        activation="gelu_tanh",
        embed_scale=8.0,
        attention_softcap=20.0,
        logit_softcap=10.0,
    ),
    "gpt2": replace(
        DECODER,
        norm="layer",
        positions="learned",
        gated=False,
        activation="gelu",
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
    ),
    "factored": replace(
        DECODER, tied=False, ranks={"layers.0.qkv": 24, "layers.1.down": 8, "head": 16}
    ),
    "part of a head turns": replace(DECODER, rope=Rope(share=0.5)),
}


class Given:
    """A model's weights as tensors. See `TorchWeights`."""

    def __init__(self, model: Model) -> None:
        self.decoder = model.decoder
        self._model = model

    def matrix(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        made: Tensor = torch.from_numpy(self._model.weights.matrix(name))
        return made

    def vector(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        made: Tensor = torch.from_numpy(self._model.weights.vector(name))
        return made


def sequences(n: int, *, length: int = 48) -> list[np.ndarray]:
    """Random tokens."""
    return list(np.random.default_rng(5).integers(0, VOCAB, (n, length)))


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_torch_computes_what_the_engine_does(decoder: Decoder) -> None:
    """Every option, to rounding."""
    model, tokens = memory_model(decoder), sequences(1)[0]
    ropes = forward.RopeCache(decoder, tokens.size)
    x = forward.embed(model.weights, tokens)
    for i, layer in enumerate(decoder.layers):
        memory = forward.LayerMemory.empty(layer, tokens.size)
        tables = ropes.tables(i, tokens.size)
        x = forward.run_layer(model.weights, i, x, memory, start=0, rope=tables)
    expected = forward.logits(model.weights, forward.final_hidden(model.weights, x))

    found = torch_logits(Given(model), tokens, ropes).numpy()

    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def rounded(model: Model, *, bits: int, symmetric: bool = True) -> dict[str, QuantTensor]:
    """All matrices, rounded plainly."""
    form = GroupFormat(bits=bits, symmetric=symmetric)
    return {
        name: round_matrix(model.weights.matrix(name), form, method="rtn").tensor
        for name in model.decoder.matrices()
    }


@pytest.mark.parametrize("symmetric", [True, False])
def test_training_brings_the_answers_together(symmetric: bool) -> None:
    """On text that was left out of it; only scales change."""
    model = memory_model()
    given = rounded(model, bits=3, symmetric=symmetric)
    told: list[float] = []

    trained, before, after = train_scales(
        model, model, given, sequences(17), rounds=6, threads=1, advance=told.append
    )

    assert after < 0.97 * before
    assert sum(told) == 6 * 14  # three of seventeen judge
    for name, tensor in trained.items():
        np.testing.assert_array_equal(tensor.codes, given[name].codes)
        assert not np.array_equal(tensor.scales, given[name].scales)
        assert np.isfinite(tensor.scales).all()


def test_the_same_training_gives_the_same_scales() -> None:
    """A build that is repeated or resumed must not differ."""
    model = memory_model()
    given = rounded(model, bits=4)

    made = [
        train_scales(model, model, given, sequences(4), rounds=1, threads=1, advance=lambda _: None)
        for _ in range(2)
    ]

    for name in given:
        np.testing.assert_array_equal(made[0][0][name].scales, made[1][0][name].scales)


def test_scales_that_do_not_help_are_not_taken() -> None:
    """Nothing can be nearer than the original itself."""
    model = memory_model()
    given = rounded(model, bits=8)
    exact = {name: tensor.dequantize() for name, tensor in given.items()}
    tensors = {**{name: model.weights.vector(name) for name in DECODER.vectors()}, **exact}
    same = memory_model(tensors=tensors)

    trained, before, after = train_scales(
        same, same, given, sequences(3), rounds=1, threads=1, advance=lambda _: None
    )

    assert before == after < 1e-6
    assert trained is given


def test_one_sequence_is_enough() -> None:
    """It is learnt from and judges, for want of another."""
    model = memory_model()

    _, before, after = train_scales(
        model,
        model,
        rounded(model, bits=2),
        sequences(1),
        rounds=5,
        threads=1,
        advance=lambda _: None,
    )

    assert after < before


def test_without_torch_it_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    check_torch()
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(InputError, match=r"needs torch: pip install 'onhand\[host,train\]'"):
        check_torch()
