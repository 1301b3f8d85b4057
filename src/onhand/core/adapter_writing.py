"""LoRA adapters written in PEFT's layout: in the names of the checkpoint that a model came from.

A matrix that is joined here, such as query, key and value, is several there: each gets its own
rows of B, and the same A.

Source:
    Layout: PEFT's `save_pretrained`
    (https://github.com/huggingface/peft, docs/source/developer_guides/checkpoint.md).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from onhand.core.adapter import CONFIG, WEIGHTS, Module, Pairs, checkpoint_modules, module_key
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.naming import GPT2, LLAMA, PHI3, Naming
from onhand.core.safetensors import SafetensorsWriter, TensorSpec

__all__ = ["family_naming", "write_adapter"]

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
    (folder / CONFIG).write_bytes(_config(ranks, modules, scale, naming))
    declared: dict[str, TensorSpec] = {}
    for name, (n, k) in ((name, module.shape) for name, module in written.items()):
        declared[_tensor(name, "A")] = TensorSpec(dtype="F32", shape=(ranks[name], k))
        declared[_tensor(name, "B")] = TensorSpec(dtype="F32", shape=(n, ranks[name]))
    with SafetensorsWriter(folder / WEIGHTS, declared) as writer:
        for name, module in written.items():
            right, left = pairs[module.matrix]
            rows = left[module.first : module.first + module.shape[0]]
            writer.write(_tensor(name, "A"), np.asarray(right, dtype=np.float32))
            writer.write(_tensor(name, "B"), (rows / np.float32(scale)).astype(np.float32))
        writer.close()
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


def _config(
    ranks: Mapping[str, int], modules: Mapping[str, Module], scale: float, naming: Naming
) -> bytes:
    usual = max(set(ranks.values()), key=lambda rank: (list(ranks.values()).count(rank), rank))
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    ends = {name.rpartition(".")[2] for name in ranks}
    # The end of a name stands for every module that has it.
    is_whole = {name for name in modules if name.rpartition(".")[2] in ends} == ranks.keys()
    table = {
        "alpha_pattern": {name: rank * scale for name, rank in others.items()},
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": naming.transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": usual * scale,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": usual,
        "rank_pattern": others,
        "target_modules": sorted(ends if is_whole else ranks),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(table, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"
