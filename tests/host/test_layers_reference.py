"""Layers of other sizes each, and matrices as two factors: logit by logit what torch computes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.test_families import CLOSE, error
from tests.models import VOCAB, memory_model

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.errors import InputError
from onhand.core.progress import Quiet
from onhand.core.weights import open_weights
from onhand.device.engines.base import Engine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.probe import current_profile
from onhand.host.calibrate import InputStatistics
from onhand.host.factors import factorise
from onhand.host.model import Model
from onhand.host.pack import pack_bundle, pack_original, plan_variants
from onhand.host.passes.base import Pass
from onhand.host.passes.quantize import Quantize
from onhand.host.plan import make_plan

torch = pytest.importorskip("torch", reason="compares with transformers")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

LAYERS = (
    DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=16, mlp_width=96),
    DecoderLayer(n_heads=5, n_kv_heads=1, head_dim=32, mlp_width=40),
    DecoderLayer(n_heads=1, n_kv_heads=1, head_dim=48, mlp_width=200),
)
DECODER = Decoder(
    vocab_size=VOCAB, width=80, context=64, norm_epsilon=1e-5, layers=LAYERS, tied=False
)
RANKS = {
    "layers.0.qkv": 30,
    "layers.0.down": 17,
    "layers.1.out": 64,
    "layers.2.gate_up": 33,
    "head": 48,
}
FORMS: dict[str, Pass | None] = {
    "float32": None,
    "int4": Quantize(method="rtn"),
    "int4 zero points": Quantize(method="rtn", symmetric=False, group_size=64, embed_bits=8),
    "int8": Quantize(method="rtn", bits=8),
}


def theirs(decoder: Decoder, read: Callable[[str], FloatArray], row: TokenArray) -> FloatArray:
    """Logits of a Llama of transformers, each layer with a configuration of its own."""
    from transformers.models.llama import modeling_llama as llama

    def config(layer: DecoderLayer) -> Any:
        return transformers.LlamaConfig(
            vocab_size=decoder.vocab_size,
            hidden_size=decoder.width,
            intermediate_size=layer.mlp_width,
            num_attention_heads=layer.n_heads,
            num_key_value_heads=layer.n_kv_heads,
            head_dim=layer.head_dim,
            num_hidden_layers=len(decoder.layers),
            rms_norm_eps=decoder.norm_epsilon,
            attn_implementation="eager",
        )

    def attention(layer: DecoderLayer, i: int) -> Any:
        """Attention that turns by tables of its own width; transformers has one for all."""
        made: Any = llama.LlamaAttention(config(layer), i)
        rotary, plain = llama.LlamaRotaryEmbedding(config(layer)), made.forward

        def forward(*, hidden_states: Any, position_embeddings: Any, **rest: Any) -> Any:
            positions = torch.arange(hidden_states.shape[1])[None]
            turned = rotary(hidden_states, positions)
            return plain(hidden_states, position_embeddings=turned, **rest)

        made.forward = forward
        return made

    build: Any = llama
    model = build.LlamaForCausalLM(config(decoder.layers[0])).eval()
    for i, layer in enumerate(decoder.layers):
        block = model.model.layers[i]
        block.mlp = build.LlamaMLP(config(layer))
        block.self_attn = attention(layer, i)
        qkv = np.split(
            read(f"layers.{i}.qkv"), [layer.query_width, layer.query_width + layer.kv_width]
        )
        inner = block.self_attn
        places = {
            **dict(zip((inner.q_proj, inner.k_proj, inner.v_proj), qkv, strict=True)),
            inner.o_proj: read(f"layers.{i}.out"),
            block.mlp.gate_proj: read(f"layers.{i}.gate_up")[: layer.mlp_width],
            block.mlp.up_proj: read(f"layers.{i}.gate_up")[layer.mlp_width :],
            block.mlp.down_proj: read(f"layers.{i}.down"),
            block.input_layernorm: read(f"layers.{i}.attention_norm"),
            block.post_attention_layernorm: read(f"layers.{i}.mlp_norm"),
        }
        for module, values in places.items():
            put(module, values)
    put(model.model.embed_tokens, read("embed"))
    put(model.model.norm, read("final_norm"))
    put(model.lm_head, read("head"))
    with torch.no_grad():
        logits: FloatArray = model(torch.from_numpy(row)[None]).logits[0].numpy()
    return logits


def put(module: Any, values: FloatArray) -> None:
    """Give a module its weight."""
    assert module.weight.shape == values.shape
    module.weight.data = torch.from_numpy(np.array(values))


def stored(bundle: Bundle) -> Callable[[str], FloatArray]:
    """What a bundle's codes stand for, factors multiplied."""
    weights = open_weights(bundle, bundle.manifest.default_variant)
    decoder = weights.decoder

    def read(name: str) -> FloatArray:
        if name in decoder.vectors():
            return weights.vector(name)
        right, *left = (weights.matrix(factor) for factor in decoder.factors(name))
        return left[0] @ right if left else right

    return read


def pack(folder: Path, model: Model, transform: Pass | None) -> Bundle:
    """A bundle with one variant."""
    folder.mkdir()
    if transform is None:
        return pack_original(model, folder)
    plans = plan_variants(model.decoder, {"small": transform})
    return pack_bundle(
        model,
        plans,
        InputStatistics(),
        folder,
        accuracy_level=0,
        provenance={},
        threads=1,
        progress=Quiet(),
    ).bundle


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("ranks", [{}, RANKS], ids=["whole", "factors"])
def test_layers_that_differ(tmp_path: Path, ranks: dict[str, int], form: Pass | None) -> None:
    """Heads, head widths and MLP widths of each layer's own, quantised or not, in both engines."""
    bundle = pack(tmp_path / "b", memory_model(replace(DECODER, ranks=ranks)), form)
    row = np.random.default_rng(8).integers(0, VOCAB, 30)
    expected = theirs(DECODER, stored(bundle), row)
    engines: list[Engine] = [ReferenceEngine(), OnnxEngine()]

    for engine in engines:
        loaded = engine.open(bundle, variant=bundle.manifest.default_variant, threads=1)
        session = loaded.session()
        pieces = [loaded.step([(session, part)])[0] for part in np.split(row, [11, 29])]

        assert error(loaded.score(loaded.session(), row), expected) < CLOSE, engine.name
        assert error(np.stack(pieces), expected[[10, 28, 29]]) < CLOSE, engine.name


def test_full_rank_changes_nothing(tmp_path: Path) -> None:
    """Two factors of the full rank are the matrix, but for rounding."""
    model = memory_model(DECODER)
    shapes = DECODER.matrices()
    full = {name: min(shape) for name, shape in shapes.items() if name != "embed"}
    row = np.random.default_rng(8).integers(0, VOCAB, 30)

    bundle = pack(tmp_path / "b", factorise(model, full), None)

    assert not set(full) & set(bundle.manifest.decoder.matrices())
    expected = theirs(DECODER, lambda name: model_tensor(model, name), row)
    loaded = OnnxEngine().open(bundle, variant="original", threads=1)
    assert error(loaded.score(loaded.session(), row), expected) < CLOSE


def model_tensor(model: Model, name: str) -> FloatArray:
    """A whole matrix, or a vector, of the source."""
    if name in model.decoder.vectors():
        return model.weights.vector(name)
    return model.weights.matrix(name)


@pytest.mark.parametrize("rank", [1, 7, 80])
def test_factors_have_the_least_error(rank: int) -> None:
    """The norm of what is lost is that of the singular values left out."""
    model = memory_model(DECODER)
    exact = model.weights.matrix("layers.0.down").astype(np.float64)

    weights = factorise(model, {"layers.0.down": rank}).weights

    left, right = (weights.matrix(f"layers.0.down.{part}") for part in ("left", "right"))
    assert (left.shape, right.shape) == ((80, rank), (rank, 96))
    left_out = np.linalg.norm(np.linalg.svd(exact, compute_uv=False)[rank:])
    lost = np.linalg.norm(exact - left.astype(np.float64) @ right)
    np.testing.assert_allclose(lost, left_out, rtol=1e-5, atol=1e-5)  # float32 factors
    np.testing.assert_array_equal(weights.block("layers.0.down.left", 3, 9), left[3:9])
    np.testing.assert_allclose(np.linalg.norm(left), np.linalg.norm(right), rtol=1e-5)


def test_the_rest_of_a_factorised_model_is_the_source() -> None:
    """Other matrices, rows and vectors pass through."""
    model = memory_model(DECODER)

    weights = factorise(model, RANKS).weights

    for name in ("embed", "layers.1.down"):
        np.testing.assert_array_equal(weights.matrix(name), model.weights.matrix(name))
        np.testing.assert_array_equal(weights.block(name, 1, 5), model.weights.block(name, 1, 5))
    np.testing.assert_array_equal(
        weights.rows("embed", np.array([4, 2])), model.weights.matrix("embed")[[4, 2]]
    )
    np.testing.assert_array_equal(weights.vector("final_norm"), model.weights.vector("final_norm"))


@pytest.mark.parametrize("ranks", [{"embed": 4}, {"layers.9.down": 4}, {"layers.0.down": 81}])
def test_what_cannot_be_factors_is_refused(ranks: dict[str, int]) -> None:
    """By the description's own rules."""
    with pytest.raises(InputError, match="decoder: ranks"):
        factorise(memory_model(DECODER), ranks)


@pytest.mark.parametrize("ranks", [{}, RANKS], ids=["whole", "factors"])
def test_a_plan_knows_the_sizes_of_each_layer(ranks: dict[str, int]) -> None:
    """From shapes alone: fewer weights, less memory to run."""
    model = memory_model(replace(DECODER, ranks=ranks))
    plans = plan_variants(model.decoder, {"small": Quantize(method="rtn")})

    plan = make_plan(
        model,
        plans,
        accuracy_level=4,
        threads=1,
        calibration_tokens=128,
        heldout_tokens=128,
        device=current_profile(),
    )

    assert plan.n_parameters == sum(a * b for a, b in model.decoder.matrices().values()) + 7 * 80
    assert plan.running_memory_bytes["small"] > 40 * 2**20
