"""How an encoder's states become one vector: the files of sentence-transformers beside it.

Source:
    `modules.json` and the modules' folders, as sentence-transformers writes them
    (https://www.sbert.net, `Transformer`, `Pooling`, `Dense`, `Normalize`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt, SourceError
from onhand.core.outside import shown
from onhand.core.safetensors import SafetensorsFile, open_safetensors, widen
from onhand.host.networks.sources.encoder_graph import Sentence
from onhand.host.sources.keys import Keys

__all__ = [
    "SentenceFiles",
    "open_weights",
    "read_limits",
    "read_object",
    "read_sentence",
    "read_tensor",
]

_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_DENSE_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}
_FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceFiles:
    """What the modules behind an encoder say.

    Attributes:
        sentence: how one vector is made.
        paths: the files that were read, `modules.json` first; empty where there are none.
        notes: sentences that a user should know.
    """

    sentence: Sentence
    paths: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def read_sentence(folder: Path, width: int) -> SentenceFiles:
    """Read the modules behind an encoder.

    Args:
        folder: holds `modules.json`, or does not: then tokens are averaged.
        width: D, of the encoder's states.

    Returns:
        What they say.

    Raises:
        SourceError: if a file is damaged, or a module or an option is not known.
        InputError: if a key is missing, of the wrong type or out of bounds.
    """
    modules = folder / "modules.json"
    if not modules.is_file():
        return SentenceFiles(
            sentence=Sentence(),
            notes=(f"{folder.name} has no modules.json: an embedding is the mean of the tokens",),
        )
    pooling, normalize = "", False
    dense: list[tuple[FloatArray, FloatArray | None, str]] = []
    paths = [modules]
    notes = _prompts(folder / "config_sentence_transformers.json")
    for kind, place in _modules(modules):
        if normalize or (kind == "Pooling") == bool(pooling):
            raise SourceError(f"{modules}: {kind} is out of place: known is Pooling, Dense, "
                              "Normalize, in this order")  # fmt: skip
        if kind == "Normalize":
            normalize = True
        elif kind == "Pooling":
            paths.append(folder / place / "config.json")
            pooling = _pooling(paths[-1], width)
        else:
            paths += [folder / place / "config.json", folder / place / "model.safetensors"]
            dense.append(_dense(folder / place, width))
            width = len(dense[-1][0])
    if not pooling:
        pooling = "mean"
        notes += (f"{modules} has no Pooling: the mean of the tokens is taken",)
    return SentenceFiles(
        sentence=Sentence(pooling=pooling, dense=tuple(dense), normalize=normalize),
        paths=tuple(paths),
        notes=notes,
    )


def read_limits(folder: Path) -> tuple[int | None, bool]:
    """Return the most tokens of a text, None if unsaid, and whether it is written small first.

    Raises:
        SourceError: if `sentence_bert_config.json` is damaged.
        InputError: if a key of it is of the wrong type or out of bounds.
    """
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return None, False
    keys = Keys(read_object(path), str(path))
    lowercase = keys.flag("do_lower_case")
    if keys.value("max_seq_length") is None:
        return None, lowercase
    return keys.whole("max_seq_length", most=2**20), lowercase


def read_object(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        SourceError: if it is something else, or cannot be read.
    """
    value = _read_json(path)
    if not isinstance(value, dict):
        raise SourceError(f"{path} is not a JSON object")
    return value


def _read_json(path: Path) -> object:
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}") from error
    return value


def open_weights(folder: Path) -> SafetensorsFile:
    """Open the one `model.safetensors` of a folder.

    Raises:
        SourceError: if there is none, or it is damaged; pickled weights are not read.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        found = sorted(p.name for p in folder.glob("*.bin")) or ["no weights at all"]
        raise SourceError(
            f"{folder} has no model.safetensors (found {found[0]}); pickled weights are not read, "
            "nor those in several files: save the model as one safetensors file first"
        )
    try:
        return open_safetensors(path)
    except (BundleCorrupt, OSError) as error:
        raise SourceError(f"{error}") from error


def read_tensor(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> FloatArray:
    """Return a tensor as float32.

    Raises:
        SourceError: if it is missing, of another shape or dtype, or holds a NaN or an infinity.
    """
    spec = file.tensors.get(name)
    if spec is None:
        raise SourceError(f"{file.path}: tensor {name!r} is missing")
    if spec.shape != shape or spec.dtype not in _FLOATS:
        raise SourceError(
            f"{file.path}: tensor {name!r} is {spec.dtype} {spec.shape}, expected {shape} of "
            f"{', '.join(_FLOATS)}"
        )
    array = np.array(widen(file.view(name)))
    if not np.isfinite(array).all():
        raise SourceError(f"{file.path}: tensor {name!r} holds a NaN or an infinity")
    return array


def _prompts(path: Path) -> tuple[str, ...]:
    """Return a note where texts want words before them: the caller knows which."""
    prompts = read_object(path).get("prompts") if path.is_file() else None
    if not isinstance(prompts, Mapping) or not any(prompts.values()):
        return ()
    return (f"texts are embedded as they are; the model's own prompts are {shown(dict(prompts))}",)


def _modules(path: Path) -> list[tuple[str, str]]:
    """Return the kind and the folder of each module behind the encoder.

    Raises:
        SourceError: if one is not known, or lies elsewhere.
    """
    listed = _read_json(path)
    if not isinstance(listed, list) or not all(isinstance(entry, Mapping) for entry in listed):
        raise SourceError(f"{path}: must be a list of modules")
    found = [(str(e.get("type")).rpartition(".")[2], str(e.get("path"))) for e in listed]
    if not found or found[0][0] != "Transformer" or found[0][1]:
        raise SourceError(f"{path}: must begin with a Transformer in the folder itself")
    for kind, place in found[1:]:
        if kind not in {"Pooling", "Dense", "Normalize"}:
            raise SourceError(
                f"{path}: module {shown(kind)}, known are Transformer, Pooling, Dense, Normalize"
            )
        if Path(place).name != place:
            raise SourceError(f"{path}: names {shown(place)}, which is no folder beside it")
    return found[1:]


def _pooling(path: Path, width: int) -> str:
    keys = Keys(read_object(path), str(path))
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if keys.value(key) is not None and keys.whole(key, most=2**20) != width:
            raise keys.wrong(key, f"must be the width of the encoder, {width}")
    keys.value("include_prompt")  # prompts are the caller's
    chosen = keys.value("pooling_mode")
    modes = [chosen] if chosen is not None else []
    for place, key, value in list(keys.unread()):
        if not key.startswith("pooling_mode") or not isinstance(value, bool):
            raise SourceError(f"{place}: {key} is {shown(value)}, which is not known")
        if value:
            modes.append(_POOLINGS.get(key, key))
    if len(modes) != 1 or modes[0] not in _POOLINGS.values():
        raise SourceError(f"{path}: pools by {shown(modes)}, known is one of mean, cls and max")
    return str(modes[0])


def _dense(folder: Path, width: int) -> tuple[FloatArray, FloatArray | None, str]:
    keys = Keys(read_object(folder / "config.json"), str(folder / "config.json"))
    if keys.whole("in_features", most=2**20) != width:
        raise keys.wrong("in_features", f"must be {width}, which comes before it")
    n = keys.whole("out_features", most=2**20)
    kind = str(keys.value("activation_function")).rpartition(".")[2]
    if kind not in _DENSE_ACTIVATIONS:
        raise keys.wrong("activation_function", f"known are {', '.join(_DENSE_ACTIVATIONS)}")
    file = open_weights(folder)
    weight = read_tensor(file, "linear.weight", (n, width))
    bias = read_tensor(file, "linear.bias", (n,)) if keys.flag("bias") else None
    return weight, bias, _DENSE_ACTIVATIONS[kind]
