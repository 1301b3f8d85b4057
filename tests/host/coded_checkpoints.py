"""Checkpoints of GPTQ and AWQ from known codes, packed naively: one field after the other."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tests.models import (
    CONFIG,
    checkpoint_shapes,
    random_tensors,
    tokenizer_json,
    write_checkpoint,
)

from onhand.core.arrays import FloatArray
from onhand.core.progress import Quiet
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors
from onhand.host.calibrate import InputStatistics
from onhand.host.model import CodedWeights, Model
from onhand.host.pack import Packed, pack_bundle, plan_variants
from onhand.host.passes.as_is import AsIs
from onhand.host.sources import load_model
from onhand.host.sources.code_layout import CodeLayout
from onhand.host.sources.coded import CheckpointCodes
from onhand.host.sources.coded_linear import open_linear
from onhand.host.sources.stored import StoredTensor

__all__ = [
    "DOWN",
    "GATE",
    "OUT",
    "PARTS",
    "SMALL",
    "UP",
    "V1",
    "V2",
    "Arrays",
    "Codes",
    "K",
    "Q",
    "V",
    "awq_tensors",
    "check_exact",
    "coded",
    "codes_of",
    "float_twin",
    "gptq_tensors",
    "known_codes",
    "modules",
    "one_linear",
    "pack_as_is",
    "write_coded",
]

Arrays = dict[str, np.ndarray]

V1: Mapping[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
V2: Mapping[str, Any] = {**V1, "checkpoint_format": "gptq_v2"}
Q, K, V = (f"model.layers.0.self_attn.{part}_proj" for part in "qkv")
GATE, UP, DOWN = (f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down"))
OUT = "model.layers.0.self_attn.o_proj"
PARTS = {"qkv": (Q, K, V), "out": (OUT,), "gate_up": (GATE, UP), "down": (DOWN,)}
_DTYPES = {"int32": "I32", "int64": "I64", "float16": "F16", "float32": "F32", "uint16": "BF16"}
# One layer; no width is a multiple of the largest group, so rows are padded.
SMALL: Mapping[str, Any] = {**CONFIG, "num_hidden_layers": 1}
_AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Codes:
    """A matrix of N outputs by K inputs: weight = scale * (code - zero).

    `codes` is (N, K), `scales` float16 and `zeros` are (N, G), `group` (K,) is each input's.
    """

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    group: np.ndarray
    bits: int

    def weights(self) -> FloatArray:
        """The formula, by the definition."""
        scales = self.scales.astype(np.float32)[:, self.group]
        weights: FloatArray = scales * (self.codes - self.zeros[:, self.group])
        return weights.astype(np.float32)


def known_codes(
    shape: tuple[int, int],
    *,
    bits: int = 4,
    group_size: int = 32,
    symmetric: bool = False,
    seed: int = 0,
) -> Codes:
    """Random codes in groups of neighbours; zero points from 1 on, which every version can say."""
    random = np.random.default_rng(seed)
    n, k = shape
    group = np.arange(k) // (k if group_size == -1 else group_size)
    shown = (n, int(group[-1]) + 1)
    zeros = random.integers(1, 2**bits, shown)
    return Codes(
        codes=random.integers(0, 2**bits, shape),
        scales=(random.uniform(0.5, 1.5, shown) * 0.5**bits * k**-0.5).astype(np.float16),
        zeros=np.full(shown, 2 ** (bits - 1)) if symmetric else zeros,
        group=group,
        bits=bits,
    )


def _stream(fields: Sequence[int], bits: int) -> list[int]:
    """The fields one after the other from the lowest bit on, cut into signed 32-bit words."""
    whole = 0
    for place, field in enumerate(fields):
        assert 0 <= field < 2**bits
        whole |= int(field) << (place * bits)
    words = [(whole >> (32 * i)) & 0xFFFFFFFF for i in range(len(fields) * bits // 32)]
    return [word - 2**32 if word >= 2**31 else word for word in words]


def gptq_tensors(name: str, known: Codes, *, version: int = 2, g_idx: bool = True) -> Arrays:
    """As GPTQModel stores a matrix: codes along K, zero points along N, version 1 less one."""
    columns = [_stream(column, known.bits) for column in known.codes.tolist()]
    stored = (known.zeros - (1 if version == 1 else 0)).T.tolist()
    made = {
        f"{name}.qweight": np.array(columns, dtype=np.int32).T,
        f"{name}.qzeros": np.array([_stream(row, known.bits) for row in stored], dtype=np.int32),
        f"{name}.scales": known.scales.T,
    }
    return made | ({f"{name}.g_idx": known.group.astype(np.int32)} if g_idx else {})


def awq_tensors(name: str, known: Codes) -> Arrays:
    """As AutoAWQ's GEMM version stores a matrix: along N, eight columns to a word, interleaved."""

    def packed(rows: list[list[int]]) -> np.ndarray:
        words = [
            [_stream([row[low + i] for i in _AWQ_COLUMNS], 4)[0] for low in range(0, len(row), 8)]
            for row in rows
        ]
        return np.array(words, dtype=np.int32)

    return {
        f"{name}.qweight": packed(known.codes.T.tolist()),
        f"{name}.qzeros": packed(known.zeros.T.tolist()),
        f"{name}.scales": known.scales.T,
    }


def modules(config: Mapping[str, Any] = SMALL) -> dict[str, tuple[int, int]]:
    """Name -> (N, K) of every matrix inside the layers."""
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in checkpoint_shapes(config).items()
        if ".layers." in name and len(shape) == 2
    }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One safetensors file of several dtypes; uint16 holds bfloat16."""
    declared = {
        name: TensorSpec(dtype=_DTYPES[array.dtype.name], shape=array.shape)
        for name, array in arrays.items()
    }
    with SafetensorsWriter(path, declared) as writer:
        for name, array in arrays.items():
            writer.write(name, np.asarray(array, order="C"))
        writer.close()


def write_coded(
    folder: Path,
    linears: Mapping[str, Codes],
    pack: Callable[[str, Codes], Arrays],
    quantization: Mapping[str, Any],
    *,
    config: Mapping[str, Any] = SMALL,
    change: Callable[[Arrays], object] = lambda _: None,
) -> Path:
    """A checkpoint whose named matrices are coded and whose other tensors are float16.

    Args:
        folder: made if needed.
        linears: module -> its codes.
        pack: name and codes -> tensors, such as `gptq_tensors`.
        quantization: the `quantization_config`.
        config: of the model.
        change: what to damage before the file is written.

    Returns:
        The folder.
    """
    arrays: Arrays = {
        name: array.astype(np.float16)
        for name, array in random_tensors(checkpoint_shapes(config)).items()
        if name.removesuffix(".weight") not in linears
    }
    for name, known in linears.items():
        arrays |= pack(name, known)
    change(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": dict(quantization)})
    )
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    write_arrays(folder / "model.safetensors", arrays)
    return folder


def coded(config: Mapping[str, Any] = SMALL, **options: Any) -> dict[str, Codes]:
    """Known codes for every matrix inside the layers."""
    return {
        name: known_codes(shape, seed=seed, **options)
        for seed, (name, shape) in enumerate(modules(config).items())
    }


def codes_of(model: Model) -> CodedWeights:
    """What the model holds as codes."""
    assert model.coded is not None
    return model.coded


def pack_as_is(folder: Path, model: Model, *, bits: int = 0) -> Packed:
    """The source as it is."""
    folder.mkdir()
    made = AsIs(how="gptq", formats=codes_of(model).formats(), bits=bits, method="rtn")
    return pack_bundle(
        model,
        plan_variants(model.decoder, {"as-is": made}),
        InputStatistics(),
        folder,
        accuracy_level=0,
        provenance={"source_sha256": model.sha256},
        threads=1,
        progress=Quiet(),
    )


def one_linear(
    folder: Path, arrays: Arrays, shape: tuple[int, int], layout: CodeLayout
) -> CheckpointCodes:
    """A checkpoint of one matrix, "m"."""
    write_arrays(folder / "m.safetensors", arrays)
    file = open_safetensors(folder / "m.safetensors")
    stored = {name: StoredTensor(file, name) for name in file.tensors}
    linear = open_linear("m", shape, layout, stored, folder=folder)
    return CheckpointCodes(folder=folder, how=layout.method, parts={"m": {"m.weight": linear}})


def check_exact(codes: CodedWeights, name: str, known: Codes) -> None:
    """Codes, scales and zero points bit for bit, padding included; and what they stand for."""
    tensor = codes.tensor(name)
    found, zeros = tensor.unpack()  # (N, G, g), (N, G)
    size = tensor.format.group_size
    n, k = known.codes.shape
    ours = known.group[::size]
    assert tensor.format == codes.formats()[name]
    assert tensor.shape == (n, k)
    np.testing.assert_array_equal(found.reshape(n, -1)[:, :k], known.codes)
    np.testing.assert_array_equal(zeros, known.zeros[:, ours])
    np.testing.assert_array_equal(tensor.scales, known.scales[:, ours])
    np.testing.assert_array_equal(found.reshape(n, -1)[:, k:], zeros[:, -1:].repeat(-k % size, 1))
    np.testing.assert_array_equal(tensor.dequantize(), known.weights())


def float_twin(folder: Path, known: Mapping[str, Codes], config: Mapping[str, Any]) -> Model:
    """The same model in float32, with the weights that the codes stand for."""
    shapes = checkpoint_shapes(config)
    tensors = random_tensors(shapes) | {
        f"{name}.weight": codes.weights() for name, codes in known.items()
    }
    tensors = {name: tensors[name] for name in shapes}
    return load_model(str(write_checkpoint(folder, config, tensors=tensors, dtype="F32")))
