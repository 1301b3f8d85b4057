"""What a model will take: more with more weights, another engine, or a longer conversation."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.manifest import FileEntry, Manifest, Variant
from onhand.device.serving.models.footprint import predicted, token_bytes

LAYER = DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=20, mlp_width=8)
DECODER = Decoder(
    vocab_size=300, width=64, context=1000, norm_epsilon=1e-5, layers=(LAYER, LAYER), tied=True
)
MIB = 2**20


def manifest(weights: int, *, tokenizer: int = 0) -> tuple[Manifest, Variant]:
    variant = Variant(graph="g", weights=("w",), matrices={}, accuracy_level=4)
    files = {"w": FileEntry(size=weights, sha256=""), "g": FileEntry(size=9, sha256="")}
    files["tokenizer.json"] = FileEntry(size=tokenizer, sha256="")
    made = Manifest(
        name="toy",
        kind="language-model",
        version=1,
        default_variant="v",
        variants={"v": variant},
        model=DECODER,
        files=files,
        provenance={},
    )
    return made, variant


@pytest.mark.parametrize(
    ("engine", "kv", "expected"),
    [
        ("native", "", 2 * 2 * 2 * 32 * 2),  # a head of 20 numbers fills two vectors of 16
        ("native", "int8", 2 * 2 * 2 * (32 + 4)),  # and a scale for each head
        ("onnx", "", 2 * 2 * 2 * 20 * 4),
        ("reference", "", 2 * 2 * 2 * 20 * 4),
    ],
)
def test_bytes_of_a_token(engine: str, kv: str, expected: int) -> None:
    """Two layers, keys and values, two heads each."""
    assert token_bytes(DECODER, engine=engine, kv=kv) == expected


def test_a_native_conversation_grows_by_pages() -> None:
    """Of 64 tokens, of which up to 32 are kept for the next conversations."""
    found = predicted(*manifest(MIB), engine="native", kv="")

    assert found.session_bytes(0) == 0
    assert found.session_bytes(1) == found.session_bytes(64) == 64 * 512
    assert found.session_bytes(65) == 128 * 512
    assert found.spare_bytes == 32 * 64 * 512
    assert found.idle_bytes == found.weights_bytes + found.spare_bytes


def test_other_engines_reserve_the_whole_context() -> None:
    """The model's own, or a shorter one of the settings."""
    own = predicted(*manifest(MIB), engine="onnx", kv="")
    cut = predicted(*manifest(MIB), engine="onnx", kv="", context=100)

    assert own.session_bytes(3) == 1000 * own.token_bytes
    assert cut.session_bytes(3) == 100 * own.token_bytes
    assert own.spare_bytes == 0


@given(weights=st.integers(0, 2**40), more=st.integers(1, 2**40), tokenizer=st.integers(0, 2**24))
def test_more_files_take_more_memory(weights: int, more: int, tokenizer: int) -> None:
    """By as much in the native engine, by twice as much where the file is mapped as well."""
    sizes = {
        engine: [
            predicted(*manifest(size, tokenizer=tokenizer), engine=engine, kv="").weights_bytes
            for size in (weights, weights + more)
        ]
        for engine in ("native", "onnx", "reference")
    }

    assert sizes["native"][1] - sizes["native"][0] == more
    assert sizes["onnx"][1] - sizes["onnx"][0] == 2 * more
    assert min(sizes["native"]) >= weights + 7 * tokenizer


def test_the_reference_engine_has_floats_as_well() -> None:
    """Four bytes for each weight of the model."""
    small, variant = manifest(MIB)
    layers = replace(DECODER, layers=(LAYER,) * 4)
    large = replace(small, model=layers)
    one = predicted(small, variant, engine="reference", kv="")
    two = predicted(large, variant, engine="reference", kv="")

    grown = layers.n_parameters - DECODER.n_parameters
    assert two.weights_bytes - one.weights_bytes == 4 * grown
