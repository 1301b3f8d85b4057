"""LoRA adapters in PEFT's layout: read, checked against a decoder, and placed at its matrices.

An adapter comes from outside and may be taken on a device, so it is read like a bundle: bounded,
without pickle, and nothing in it is a path that is opened.

Source:
    LoRA: arXiv:2106.09685. Layout: PEFT's `save_pretrained`
    (https://github.com/huggingface/peft, docs/source/developer_guides/checkpoint.md).
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import sha256_of
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lora_config import MAX_CONFIG_BYTES, LoraConfig, parse_lora_config
from onhand.core.naming import LAYOUTS, Naming
from onhand.core.safetensors import SafetensorsFile, open_safetensors, widen
from onhand.core.scope import Scope

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "Adapter",
    "Module",
    "Pairs",
    "checkpoint_modules",
    "module_key",
    "open_adapter",
    "read_adapter",
    "read_pair",
]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_KEY = re.compile(
    r"base_model\.model\.(?P<module>[\w.]+)\.(?P<part>lora_A|lora_B|base_layer)\.weight", re.ASCII
)
_DTYPES = ("F16", "BF16", "F32")
_REASONS = {
    "lora_embedding_": "an embedding cannot be adapted",
    "lora_magnitude_vector": "DoRA is not supported",
    "lora_B.bias": "a bias of the adapter's own is not supported",
}

Pairs = Mapping[str, tuple[FloatArray, FloatArray]]
"""Name of a whole matrix W (N, K) -> A (R, K) and B (N, R): W' = W + B A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What is added to some matrices of a decoder.

    Attributes:
        pairs: float32; the scale is part of B, and each part of a joined matrix has rows and
            columns of B of its own.
            "head" is what adds to the head, of a tied model too, whose embedding stays as it is.
        sha256: hash over its files: its identity.
        head_copy: the model's head as it was trained with, (V, D) float16, float32 or bfloat16 as
            uint16: PEFT puts it beside an adapter of the head. None if it is not there.
        scope: which prompts it answers; None for all.
    """

    pairs: Pairs
    sha256: str
    head_copy: np.ndarray | None = None
    scope: Scope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A matrix of the checkpoint: some rows of one of ours.

    Attributes:
        matrix: ours, by its name in `Decoder.whole_tensors`.
        layer: number of its layer; None outside the layers.
        first: row of ours that it begins at.
        shape: (n, K).
    """

    matrix: str
    layer: int | None
    first: int
    shape: tuple[int, int]


def read_adapter(place: Path, decoder: Decoder) -> Adapter:
    """Read an adapter for a decoder.

    Args:
        place: a folder with adapter_config.json and adapter_model.safetensors, or the latter
            itself, the former beside it.
        decoder: the model that it was trained for.

    Returns:
        The adapter.

    Raises:
        InputError: if it is damaged, made for another model, or asks for what is not supported.
    """
    content, file = open_adapter(place)
    weights = file.path
    config = parse_lora_config(content, where=str(weights.with_name(CONFIG)))
    sha256 = sha256_of(weights)
    # An adapter of a tied head unties it.
    decoder = replace(decoder, tied=False)
    modules = _modules(file.tensors, decoder, str(weights))
    _check_targets(config, modules, file, str(weights))
    found: dict[str, list[tuple[Module, FloatArray, FloatArray]]] = {}
    for name, module in modules.items():
        if f"{module_key(name)}.lora_A.weight" in file.tensors:
            left, right = read_pair(file, name, module.shape, config)
            found.setdefault(module.matrix, []).append((module, left, right))
    shapes = decoder.whole_tensors()
    return Adapter(
        pairs={matrix: _joined(parts, shapes[matrix][0]) for matrix, parts in found.items()},
        sha256=hashlib.sha256(content + bytes.fromhex(sha256)).hexdigest(),
        head_copy=_head_copy(file, modules),
    )


def open_adapter(place: Path) -> tuple[bytes, SafetensorsFile]:
    """Open an adapter's two files.

    Args:
        place: as in `read_adapter`.

    Returns:
        content: of its configuration.
        file: its tensors.

    Raises:
        InputError: if one is missing or cannot be read.
    """
    if not place.exists():
        raise InputError(f"{place}: there is no such adapter; give its folder")
    weights = place / WEIGHTS if place.is_dir() else place
    content = _config_bytes(weights.with_name(CONFIG), place)
    try:
        return content, open_safetensors(weights)
    except FileNotFoundError as error:
        pickled = weights.with_name(_PICKLED).is_file()
        why = f"; {_PICKLED} is pickled and not read: save it as safetensors" if pickled else ""
        raise InputError(f"{place}: no {WEIGHTS}{why}") from error
    except (BundleCorrupt, OSError) as error:
        raise InputError(f"adapter {error}") from error


def _config_bytes(path: Path, place: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{place}: not an adapter: there is no {path}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def module_key(module: str) -> str:
    """Return the beginning of the names of a module's tensors in an adapter's file.

    Args:
        module: its name in the checkpoint.
    """
    return f"base_model.model.{module}"


def _modules(tensors: Collection[str], decoder: Decoder, where: str) -> dict[str, Module]:
    """Return the checkpoint's matrices, in the layout that has a place for every tensor.

    Raises:
        InputError: if none has.
    """
    if not tensors:
        raise InputError(f"{where}: holds no tensors")
    named: set[str] = set()
    copies: set[str] = set()
    for tensor in sorted(tensors):
        match = _KEY.fullmatch(tensor)
        if match is None:
            why = next((why for part, why in _REASONS.items() if part in tensor), "")
            raise InputError(
                f"{where}: {tensor!r} is no LoRA factor of a matrix" + (f": {why}" if why else "")
            )
        if match["part"] == "base_layer":
            copies.add(tensor)
        named.add(match["module"])
    known = [_named_modules(naming, decoder, named) for naming in LAYOUTS]
    best = max(known, key=lambda modules: len(named & modules.keys()))
    if missing := sorted(named - best.keys()):
        raise InputError(f"{where}: {missing[0]!r} is no matrix of this model that can be adapted")
    heads = {_copy_of(name) for name, module in best.items() if module.matrix == "head"}
    if others := sorted(copies - heads):
        raise InputError(f"{where}: {others[0]!r} is no LoRA factor of a matrix")
    return best


def _named_modules(naming: Naming, decoder: Decoder, named: Collection[str]) -> dict[str, Module]:
    """Return the checkpoint's matrices as one naming has them, with the prefix in use."""
    modules, prefix = checkpoint_modules(naming, decoder), naming.optional_prefix
    if any(name.startswith(prefix) for name in named):
        return modules
    return {name.removeprefix(prefix): module for name, module in modules.items()}


def checkpoint_modules(naming: Naming, decoder: Decoder) -> dict[str, Module]:
    """Return the matrices of a checkpoint that can be adapted.

    Args:
        naming: how the checkpoint names them.
        decoder: the model.

    Returns:
        Name, without ".weight" -> which rows of ours it is.
    """
    modules: dict[str, Module] = {}
    for matrix, shape in decoder.whole_tensors().items():
        inside = matrix.startswith("layers.")
        ours = matrix.rpartition(".")[2]
        if len(shape) != 2 or matrix in {"embed", "positions"}:
            continue
        if inside and ours not in naming.parts:
            continue
        first = 0
        for tensor, (n, k) in naming.tensors(matrix, shape, decoder).items():
            modules[tensor.removesuffix(".weight")] = Module(
                matrix=matrix,
                layer=int(matrix.split(".")[1]) if inside else None,
                first=first,
                shape=(n, k),
            )
            first += n
    return modules


def _check_targets(
    config: LoraConfig, modules: Mapping[str, Module], file: SafetensorsFile, where: str
) -> None:
    """Compare the tensors that are there with those that the configuration asks for.

    Raises:
        InputError: if a factor is missing, or one is there that nobody asked for.
    """
    for name, module in modules.items():
        sides = [f"{module_key(name)}.lora_{side}.weight" for side in "AB"]
        there = [side in file.tensors for side in sides]
        wanted = config.asks_for(name, module.layer)
        if any(there) != all(there) or (wanted and not any(there)):
            raise InputError(f"{where}: tensor {sides[there.index(False)]!r} is missing")
        if wanted is False and any(there):
            raise InputError(f"{where}: {name!r} is adapted, {CONFIG} does not ask for it")


def _copy_of(module: str) -> str:
    return f"{module_key(module)}.base_layer.weight"


def _head_copy(file: SafetensorsFile, modules: Mapping[str, Module]) -> np.ndarray | None:
    """Return the copy of the head that PEFT puts beside the head's factors.

    Raises:
        InputError: if it is not the head of this model, by its shape.
    """
    for name, module in modules.items():
        copy = _copy_of(name)
        if module.matrix == "head" and copy in file.tensors:
            _check_spec(file, copy, module.shape, "this model needs")
            return file.view(copy)
    return None


def _check_spec(file: SafetensorsFile, tensor: str, shape: tuple[int, int], why: str) -> None:
    """Check a tensor's dtype and shape.

    Raises:
        InputError: if they are others; `why` says who needs them.
    """
    spec = file.tensors[tensor]
    if spec.dtype not in _DTYPES or spec.shape != shape:
        raise InputError(
            f"{file.path}: {tensor!r} is {spec.dtype} {spec.shape}, {why} {shape} of "
            f"{', '.join(_DTYPES)}"
        )


def read_pair(
    file: SafetensorsFile, name: str, shape: tuple[int, int], config: LoraConfig
) -> tuple[FloatArray, FloatArray]:
    """Return B (n, r), scaled, and A (r, K) of one module.

    Args:
        file: an adapter's tensors, both of the module's among them.
        name: of the module.
        shape: (n, K).
        config: the adapter's.

    Raises:
        InputError: if one is of another dtype or shape, or holds what is no number.
    """
    rank, (n, k) = config.rank_of(name), shape
    sides: list[FloatArray] = []
    for side, shape in (("A", (rank, k)), ("B", (n, rank))):
        tensor = f"{module_key(name)}.lora_{side}.weight"
        _check_spec(file, tensor, shape, f"this model and rank {rank} need")
        sides.append(widen(file.view(tensor)))
    right, left = sides
    with np.errstate(over="ignore", invalid="ignore"):
        left = left * np.float32(config.scale_of(name))
    if not (np.isfinite(right).all() and np.isfinite(left).all()):
        raise InputError(f"{file.path}: the factors of {name!r} hold a NaN or an infinity")
    return left, right


def _joined(
    parts: list[tuple[Module, FloatArray, FloatArray]], n_rows: int
) -> tuple[FloatArray, FloatArray]:
    """Return A (R, K) and B (N, R) of a whole matrix; each part has its own rows of B."""
    whole = np.zeros((n_rows, sum(right.shape[0] for _, _, right in parts)), dtype=np.float32)
    column = 0
    for module, left, right in parts:
        rows = slice(module.first, module.first + module.shape[0])
        whole[rows, column : column + right.shape[0]] = left
        column += right.shape[0]
    return np.concatenate([right for _, _, right in parts]), whole
