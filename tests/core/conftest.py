"""A decoder of two layers, and a bundle of it on disk."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onhand.core.bundle import Bundle, read_bundle, stage_bundle, write_manifest
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.manifest import LANGUAGE_MODEL, Manifest, Variant
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.core.weights import matrix_tensors


@pytest.fixture
def decoder() -> Decoder:
    """Two layers of different sizes, every bias, a head of its own."""
    return Decoder(
        vocab_size=11,
        width=8,
        context=16,
        norm_epsilon=1e-5,
        layers=(
            DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=2, mlp_width=12),
            DecoderLayer(n_heads=2, n_kv_heads=1, head_dim=4, mlp_width=40),
        ),
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
    )


@pytest.fixture
def manifest(decoder: Decoder) -> Manifest:
    """Two variants: four bits with zero points, and one that keeps the embedding in float32."""
    small = GroupFormat(bits=4, group_size=32, symmetric=False)
    quantized: dict[str, GroupFormat | None] = dict.fromkeys(decoder.matrices(), small)
    return Manifest(
        name="tiny",
        kind=LANGUAGE_MODEL,
        version=1,
        default_variant="int4",
        variants={
            "int4": Variant(
                graph="model.onnx",
                weights=("weights.safetensors",),
                matrices=quantized,
                accuracy_level=4,
            ),
            "float-embedding": Variant(
                graph="large/model.onnx",
                weights=("large/weights.safetensors", "weights.safetensors"),
                matrices=quantized | {"embed": None},
                accuracy_level=0,
            ),
        },
        model=decoder,
        files={},
        provenance={"source_sha256": "0" * 64, "settings": {"method": "rtn"}},
    )


@pytest.fixture
def make_bundle(manifest: Manifest, rng: np.random.Generator) -> Callable[[Path], Bundle]:
    """A function that writes a whole bundle to a place and reads it back."""
    decoder = manifest.decoder

    def make(root: Path) -> Bundle:
        with stage_bundle(root) as staged:
            (staged / "large").mkdir()
            for name in ("model.onnx", "large/model.onnx", "tokenizer.json"):
                (staged / name).write_bytes(name.encode())
            hashes = {
                "weights.safetensors": _write_weights(staged, manifest, rng),
                "large/weights.safetensors": _write_embedding(staged, decoder, rng),
            }
            write_manifest(staged, manifest, hashes=hashes)
        return read_bundle(root)

    return make


@pytest.fixture
def bundle(make_bundle: Callable[[Path], Bundle], tmp_path: Path) -> Bundle:
    """The bundle, verified."""
    return make_bundle(tmp_path / "tiny")


def _write_weights(staged: Path, manifest: Manifest, rng: np.random.Generator) -> str:
    decoder = manifest.decoder
    forms = manifest.variants["int4"].matrices
    declared = {name: TensorSpec(dtype="F32", shape=s) for name, s in decoder.vectors().items()}
    for name, shape in decoder.matrices().items():
        declared |= matrix_tensors(name, shape, forms[name])
    with SafetensorsWriter(staged / "weights.safetensors", declared) as writer:
        for name, width in decoder.vectors().items():
            writer.write(name, rng.random(width, dtype=np.float32))
        for name, shape in decoder.matrices().items():
            form = forms[name]
            assert form is not None
            made = random_tensor(shape, form, rng)
            assert made.zeros is not None
            writer.write(f"{name}.codes", made.codes)
            writer.write(f"{name}.scales", made.scales)
            writer.write(f"{name}.zeros", made.zeros)
        return writer.close()


def _write_embedding(staged: Path, decoder: Decoder, rng: np.random.Generator) -> str:
    shape = decoder.matrices()["embed"]
    declared = matrix_tensors("embed", shape, None)
    with SafetensorsWriter(staged / "large" / "weights.safetensors", declared) as writer:
        writer.write("embed", rng.random(shape, dtype=np.float32))
        return writer.close()


def random_tensor(
    shape: tuple[int, int], form: GroupFormat, rng: np.random.Generator
) -> QuantTensor:
    """A matrix of random codes, scales and zero points."""
    rows, groups = shape[0], form.n_groups(shape[1])
    high = form.top + 1
    codes = rng.integers(0, high, (rows, groups, form.group_size), dtype=np.uint8)
    zeros = rng.integers(0, high, (rows, groups), dtype=np.uint8)
    scales = rng.random((rows, groups), dtype=np.float32).astype(np.float16)
    kept = None if form.symmetric else zeros
    return QuantTensor.pack(codes, scales, kept, n_inputs=shape[1], format=form)


@pytest.fixture
def make_tensor(
    rng: np.random.Generator,
) -> Callable[[tuple[int, int], GroupFormat], QuantTensor]:
    """A function that makes a matrix of random codes."""
    return lambda shape, form: random_tensor(shape, form, rng)


@pytest.fixture
def with_files(manifest: Manifest, bundle: Bundle) -> Manifest:
    """The manifest as it stands in the bundle, its files listed."""
    return replace(manifest, files=bundle.manifest.files)
