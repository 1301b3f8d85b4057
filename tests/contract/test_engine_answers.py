"""Every engine computes what the decoder's description and the stored codes say."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.oracle import oracle_logits
from tests.models import DECODER, VOCAB, varied_decoder

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder, DecoderLayer, Rope
from onhand.core.errors import EngineError, EngineUnavailable
from onhand.core.weights import open_weights
from onhand.device.engines.base import Engine
from onhand.device.engines.onnx import PREFILL_TOKENS, OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.probe import current_profile
from onhand.host.passes.quantize import Quantize

# Float32 against float64: rounding of sums of a few hundred terms, through two layers.
EXACT = 1e-5
# Inputs of a product as int8, one scale for each group: a step of (largest / 127), thus an error
# of about 0.7 % of an input's size; nine products in a row add up to about 3 % of the logits.
COARSE = 0.05


def level(engine: Engine) -> int:
    """The accuracy level of the variants that an engine runs."""
    return 4 if engine.name == "native" else 0


def limit(engine: Engine) -> float:
    """The largest error at that level."""
    return COARSE if engine.name == "native" else EXACT


FORMS = {
    "int4": Quantize(method="rtn"),
    "int4 zero points": Quantize(method="rtn", symmetric=False),
    "int4 groups of 64": Quantize(method="rtn", group_size=64),
    "int4 groups of 128": Quantize(method="rtn", group_size=128, symmetric=False),
    "int8": Quantize(bits=8, method="rtn"),
    "int8 zero points": Quantize(bits=8, method="rtn", symmetric=False),
    "int8 groups of 128": Quantize(bits=8, method="rtn", group_size=128),
    "int2": Quantize(bits=2, method="rtn"),
    "int2 zero points": Quantize(bits=2, method="rtn", symmetric=False),
    "int3": Quantize(bits=3, method="rtn", symmetric=False),
    "int4 in int8 edges": Quantize(method="rtn", embed_bits=8),
    "int8 in int4 edges": Quantize(bits=8, method="rtn", embed_bits=4, symmetric=False),
    "float32": None,
}
HEAD_WIDER = DecoderLayer(n_heads=3, n_kv_heads=1, head_dim=48, mlp_width=40)
DECODERS = {
    "tied": DECODER,
    "own head": replace(DECODER, tied=False),
    "padded groups": replace(DECODER, width=80),
    "layers that differ": varied_decoder(),
    "no shared heads": replace(
        DECODER, layers=(DecoderLayer(n_heads=2, n_kv_heads=2, head_dim=32, mlp_width=64),)
    ),
    "heads wider than the model": replace(DECODER, layers=(HEAD_WIDER,)),
    "qkv bias": replace(DECODER, qkv_bias=True),
    "out bias": replace(DECODER, out_bias=True),
    "mlp bias": replace(DECODER, mlp_bias=True),
    "factors": replace(DECODER, ranks={"layers.0.down": 24, "layers.1.qkv": 32}),
    "factors of layers that differ": replace(
        varied_decoder(), ranks={"layers.0.out": 1, "layers.1.gate_up": 80, "head": 40}
    ),
    "stretched": replace(DECODER, rope=Rope(scaling="yarn", factor=4.0, original_context=64)),
}


def relative(found: FloatArray, expected: np.ndarray) -> float:
    """Size of the difference by size of the logits."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def compare(engine: Engine, bundle: Bundle, *, n: int = 24) -> float:
    """The largest error of a prompt in pieces, of single steps and of scores."""
    variant = bundle.manifest.default_variant
    if reason := engine.why_not(bundle, current_profile(), variant=variant):
        pytest.skip(reason)
    row = np.random.default_rng(3).integers(0, VOCAB, n)
    expected = oracle_logits(open_weights(bundle, variant), row)
    loaded = engine.open(bundle, variant=variant, threads=1)
    scored = loaded.score(loaded.session(), row)
    session = loaded.session()
    stepped = [loaded.step([(session, part)])[0] for part in np.split(row, [10, 11, n - 1])]
    loaded.close()
    return max(
        relative(scored, expected), relative(np.stack(stepped), expected[[9, 10, n - 2, n - 1]])
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_storage(engine: Engine, pack: Pack, form: Quantize | None) -> None:
    """On a width that no group fills, with zero points and without."""
    bundle = pack(replace(DECODER, width=80), form, accuracy_level=level(engine))

    assert compare(engine, bundle) < limit(engine)


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("form", [Quantize(method="rtn", symmetric=False), None], ids=repr)
def test_every_form_of_decoder(
    engine: Engine, pack: Pack, decoder: Decoder, form: Quantize | None
) -> None:
    """Biases, heads, widths, tied or not."""
    assert compare(engine, pack(decoder, form, accuracy_level=level(engine))) < limit(engine)


@pytest.mark.parametrize("name", ["tied", "layers that differ", "factors of layers that differ"])
@pytest.mark.parametrize("form", ["int4", "int8", "int4 zero points", "int4 groups of 128"])
def test_products_in_int8_stay_near(engine: Engine, pack: Pack, name: str, form: str) -> None:
    """Accuracy level 4 rounds the inputs of every product, and nothing else."""
    bundle = pack(DECODERS[name], FORMS[form], accuracy_level=4)

    assert compare(engine, bundle) < COARSE


def test_a_prompt_of_many_pieces(engine: Engine, pack: Pack) -> None:
    """Longer than what runs at once, and the session goes on after it."""
    n = 2 * PREFILL_TOKENS + 5
    layer = DecoderLayer(n_heads=2, n_kv_heads=1, head_dim=16, mlp_width=32)
    decoder = replace(DECODER, width=32, layers=(layer,), context=n + 1)
    bundle = pack(decoder)
    row = np.random.default_rng(4).integers(0, VOCAB, n + 1)
    expected = oracle_logits(open_weights(bundle, "small"), row)[-2:]
    loaded = engine.open(bundle, variant="small", threads=1)
    session = loaded.session()

    found = [loaded.step([(session, part)])[0] for part in (row[:-1], row[-1:])]

    # Positions in the thousands: float32 angles are right to about 1e-4.
    assert relative(np.stack(found), expected) < max(1e-3, limit(engine))


def test_a_second_variant_has_its_own_answers(engine: Engine, pack: Pack) -> None:
    """Variants of one bundle share a file, not their matrices."""
    bundle = pack()
    row = np.arange(6)
    loaded = engine.open(bundle, variant="int8", threads=1)

    found = loaded.score(loaded.session(), row)

    near = relative(found, oracle_logits(open_weights(bundle, "int8"), row))
    assert near < limit(engine)
    assert relative(found, oracle_logits(open_weights(bundle, "small"), row)) > 2 * near + EXACT


def test_several_threads_give_the_same_answers(engine: Engine, pack: Pack) -> None:
    """But for the order of sums."""
    row = np.arange(30)
    answers = [
        loaded.score(loaded.session(), row)
        for n in (1, 2)
        for loaded in [engine.open(pack(), variant="small", threads=n)]
    ]

    assert relative(answers[0], answers[1]) < EXACT


def test_other_head_widths_have_no_kernel_in_onnx_runtime(pack: Pack) -> None:
    """Said by name before anything is opened; the reference engine runs them."""
    layer = DecoderLayer(n_heads=2, n_kv_heads=1, head_dim=24, mlp_width=32)
    bundle = pack(replace(DECODER, layers=(DECODER.layers[0], layer)))
    why = "no attention kernel for the head_dim 24 of layer 1, only for multiples of 16"

    assert why in str(OnnxEngine().why_not(bundle, current_profile(), variant="small"))
    with pytest.raises(EngineUnavailable, match=why):
        OnnxEngine().open(bundle, variant="small", threads=1)
    assert compare(ReferenceEngine(), bundle) < EXACT


def test_a_step_that_fails_in_onnx_runtime_is_an_engine_error(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever class ONNX Runtime raises; the session is as before."""
    loaded = OnnxEngine().open(pack(), variant="small", threads=1)
    session = loaded.session()

    def fail(*args: object) -> None:
        raise RuntimeError("Error in execution")

    monkeypatch.setattr(type(loaded.inner), "run_with_iobinding", fail)

    with pytest.raises(EngineError, match="onnxruntime: Error in execution"):
        loaded.step([(session, np.array([1]))])
    assert session.length == 0


def test_a_device_too_small_for_float32_is_told(pack: Pack) -> None:
    """The reference engine keeps every weight in four bytes."""
    bundle = pack()
    needed = 4 * DECODER.n_parameters
    profile = replace(current_profile(), memory_bytes=needed - 1)

    assert f"needs {needed} bytes" in str(
        ReferenceEngine().why_not(bundle, profile, variant="small")
    )
    profile = replace(profile, memory_bytes=needed)
    assert ReferenceEngine().why_not(bundle, profile, variant="small") is None


def test_a_device_without_onnx_runtime_is_told(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert OnnxEngine().why_not(pack(), current_profile(), variant="small") == (
        "onnxruntime is not installed: pip install onnxruntime"
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineUnavailable, match="onnxruntime cannot be imported"):
        OnnxEngine().open(pack(), variant="small", threads=1)


def test_three_bits_have_no_kernel_in_onnx_runtime(pack: Pack) -> None:
    """Said by name, before anything is opened, and by opening it all the same."""
    bundle = pack(DECODER, FORMS["int3"])

    reason = OnnxEngine().why_not(bundle, current_profile(), variant="small")

    assert reason == "ONNX Runtime has no kernel for the 3-bit matrix embed"
    with pytest.raises(EngineUnavailable, match="no kernel for the 3-bit matrix embed"):
        OnnxEngine().open(bundle, variant="small", threads=1)
