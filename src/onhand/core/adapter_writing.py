"""LoRA adapters written in PEFT's layout: in the names of the checkpoint that a model came from.

A matrix that is joined here, such as query, key and value, is several there: each gets its own
rows of B, and the same A.

Source:
    Layout: PEFT's `save_pretrained`
    (https://github.com/huggingface/peft, docs/source/developer_guides/checkpoint.md).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onhand.core.adapter import CONFIG, WEIGHTS, Module, Pairs, checkpoint_modules, module_key
from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.naming import GPT2, LLAMA, PHI3, Naming
from onhand.core.safetensors import SafetensorsWriter, TensorSpec

__all__ = ["family_naming", "render_config", "write_adapter", "write_pairs"]

# Of every other family the matrices of a layer are called as Llama's are.
_NAMINGS: Mapping[str, Naming] = {"gpt2": GPT2, "phi3": PHI3}


def family_naming(family: object) -> Naming:
    """Return how checkpoints of a family name their matrices.

    Args:
        family: as a bundle's provenance has it, such as "llama"; anything else from outside.
    """
    return _NAMINGS.get(family, LLAMA) if isinstance(family, str) else LLAMA


def write_adapter(
    folder: Path, pairs: Pairs, decoder: Decoder, *, naming: Naming, scale: float = 1.0
) -> int:
    """Write an adapter's two files; the same pairs give the same bytes.

    Args:
        folder: an empty one.
        pairs: matrix, by its name in `Decoder.whole_tensors`, or "head" -> A (R, K) and B (N, R),
            float32, the scale part of B.
        decoder: the model that it adds to.
        naming: of the checkpoint that it is written for.
        scale: alpha / rank of every matrix; B is stored divided by it.

    Returns:
        Modules of the checkpoint that are adapted.

    Raises:
        InputError: if there is nothing to write, a matrix is not the model's, or of another shape.
    """
    if not pairs:
        raise InputError("nothing is added to any matrix, so there is no adapter to write")
    modules = checkpoint_modules(naming, replace(decoder, tied=False))
    _check_pairs(pairs, modules)
    written = {name: module for name, module in modules.items() if module.matrix in pairs}
    ranks = {name: pairs[module.matrix][0].shape[0] for name, module in written.items()}
    ends = {name.rpartition(".")[2] for name in ranks}
    # The end of a name stands for every module that has it.
    is_whole = {name for name in modules if name.rpartition(".")[2] in ends} == ranks.keys()
    content = render_config(
        ranks, scale, targets=ends if is_whole else ranks, is_transposed=naming.transposed
    )
    parts: dict[str, tuple[FloatArray, FloatArray]] = {}
    for name, module in written.items():
        right, left = pairs[module.matrix]
        parts[name] = (right, left[module.first : module.first + module.shape[0]])
    write_pairs(folder, content, parts, scale=scale)
    return len(written)


def _tensor(module: str, side: str) -> str:
    return f"{module_key(module)}.lora_{side}.weight"


def _check_pairs(pairs: Pairs, modules: Mapping[str, Module]) -> None:
    """Compare pairs with the matrices that they add to.

    Raises:
        InputError: if one does not fit.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for module in modules.values():
        rows, _ = shapes.get(module.matrix, (0, 0))
        shapes[module.matrix] = (rows + module.shape[0], module.shape[1])
    for matrix, (right, left) in pairs.items():
        found = (left.shape[0], right.shape[1])
        if shapes.get(matrix) != found or left.shape[1] != right.shape[0]:
            raise InputError(
                f"{matrix!r} is {shapes.get(matrix)} in this model, the pair is for {found}, of "
                f"ranks {right.shape[0]} and {left.shape[1]}"
            )


def write_pairs(
    folder: Path,
    config: bytes,
    parts: Pairs,
    *,
    scale: float = 1.0,
    wholes: Mapping[str, FloatArray] | None = None,
) -> None:
    """Write an adapter's two files from what is added to each module of the checkpoint.

    Args:
        folder: an empty one.
        config: from `render_config`.
        parts: module -> A (R, K) and B (n, R), float32, the scale part of B.
        scale: alpha / rank of every module; B is stored divided by it.
        wholes: name of a tensor of the checkpoint -> what stands in its place.
    """
    (folder / CONFIG).write_bytes(config)
    tensors: dict[str, FloatArray] = {}
    for name, (right, left) in parts.items():
        tensors[_tensor(name, "A")] = np.asarray(right, dtype=np.float32)
        tensors[_tensor(name, "B")] = (left / np.float32(scale)).astype(np.float32)
    for name, array in (wholes or {}).items():
        tensors[module_key(name)] = np.asarray(array, dtype=np.float32)
    declared = {name: TensorSpec(dtype="F32", shape=array.shape) for name, array in tensors.items()}
    with SafetensorsWriter(folder / WEIGHTS, declared) as writer:
        for name, array in tensors.items():
            writer.write(name, np.ascontiguousarray(array))
        writer.close()


def render_config(
    ranks: Mapping[str, int],
    scale: float,
    *,
    targets: Collection[str],
    is_transposed: bool = False,
    task: str = "CAUSAL_LM",
    wholes: Sequence[str] = (),
) -> bytes:
    """Return an adapter's configuration.

    Args:
        ranks: module -> rank.
        scale: alpha / rank of every module.
        targets: names of modules, or ends of names.
        is_transposed: whether the checkpoint stores its matrices crosswise.
        task: PEFT's word for what the model is for.
        wholes: modules that are trained whole.
    """
    usual = max(set(ranks.values()), key=lambda rank: (list(ranks.values()).count(rank), rank))
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    table = {
        "alpha_pattern": {name: rank * scale for name, rank in others.items()},
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": is_transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": usual * scale,
        "lora_dropout": 0.0,
        "modules_to_save": list(wholes) or None,
        "peft_type": "LORA",
        "r": usual,
        "rank_pattern": others,
        "target_modules": sorted(targets),
        "task_type": task,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(table, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"
