"""Hugging Face checkpoints: a local folder, or a hub id where there is a network."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import sha256_of
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt, ResourceError, SourceError
from onhand.core.naming import Naming
from onhand.core.safetensors import open_safetensors, widen
from onhand.host.model import Model
from onhand.host.sources.code_layout import CodeLayout, parse_layout
from onhand.host.sources.coded import CheckpointCodes
from onhand.host.sources.coded_linear import CodedLinear, open_linear
from onhand.host.sources.families import describe
from onhand.host.sources.stored import StoredTensor

__all__ = ["HuggingFaceSource", "read_folder"]

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
_INDEX = "model.safetensors.index.json"
_BITS = {"F16": 16, "BF16": 16, "F32": 32}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class HuggingFaceSource:
    """See `Source`."""

    name = "huggingface"

    def why_not(self, location: str) -> str | None:
        """Return None for a folder with config.json or a hub id, else a reason."""
        folder = Path(location)
        if folder.is_dir():
            found = (folder / "config.json").is_file()
            return None if found else f"{folder} has no config.json"
        if _HUB_ID.fullmatch(location):
            return None
        return f"{location} is neither a folder nor a hub id such as Qwen/Qwen2.5-0.5B-Instruct"

    def load(self, location: str) -> Model:
        """Open a folder, or fetch a hub id into the hub's own cache and open that.

        Raises:
            SourceError: if the model is of an unknown family, incomplete or damaged.
            ResourceError: if the hub cannot be reached.
        """
        folder = Path(location)
        if not folder.is_dir():
            return read_folder(_fetch(location), name=location.rpartition("/")[2])
        return read_folder(folder, name=folder.resolve().name)


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    patterns = ["config.json", "*.safetensors", _INDEX, *_FILES]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except HFValidationError as error:
        raise SourceError(
            f"{hub_id} is neither a folder nor a hub id such as Qwen/Qwen2.5-0.5B-Instruct"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ResourceError(
            f"{hub_id} cannot be fetched from the hub ({type(error).__name__}); "
            "check its name and the network, or give a local folder"
        ) from error


def read_folder(folder: Path, *, name: str) -> Model:
    """Open a checkpoint folder.

    Args:
        folder: holds config.json, *.safetensors and tokenizer.json.
        name: the model's name; odd characters become "-".

    Returns:
        The model; its weights are read later, one by one.

    Raises:
        SourceError: if the model is of an unknown family, incomplete or damaged.
    """
    config_path = folder / "config.json"
    config = _read_json(config_path)
    described = describe(config, str(config_path))
    decoder, naming = described.decoder, described.naming
    layout = parse_layout(config.get("quantization_config"), str(config_path))
    paths = _weight_files(folder)
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        try:
            opened = open_safetensors(path)
        except (BundleCorrupt, OSError) as error:
            raise SourceError(f"{error}") from error
        tensors |= {name: StoredTensor(opened, name) for name in opened.tensors}
    tensors = _with_prefix(tensors, naming)
    weights = _FolderWeights(
        decoder=decoder,
        folder=folder,
        naming=naming,
        tensors=tensors,
        linears=_coded_linears(decoder, naming, layout, tensors, folder),
    )
    notes = (*described.notes, *weights.check())
    files = {n: (folder / n).read_bytes() for n in _FILES if (folder / n).is_file()}
    if "tokenizer.json" not in files:
        raise SourceError(
            f"{folder} has no tokenizer.json; save the tokenizer with the tokenizers library first"
        )
    digest = hashlib.sha256(config_path.read_bytes())
    for path in paths:
        digest.update(bytes.fromhex(sha256_of(path)))
    return Model(
        name=re.sub(r"[^A-Za-z0-9._+-]", "-", name).strip("._+-")[:100] or "model",
        location=folder,
        family=str(config["model_type"]),
        weights=weights,
        files=files,
        sha256=digest.hexdigest(),
        source_bytes=sum(path.stat().st_size for path in paths),
        weight_bits=_BITS[weights.stored_dtype],
        notes=notes,
        coded=None if layout is None else weights.codes(layout.method),
    )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        table = _read_json(index).get("weight_map")
        if not isinstance(table, Mapping) or not table:
            raise SourceError(f"{index}: has no weight_map")
        names = sorted({str(file) for file in table.values()})
        for name in names:
            if Path(name).name != name:
                raise SourceError(f"{index}: names {name!r}, which is outside the folder")
            if not (folder / name).is_file():
                raise SourceError(f"{folder / name} is missing; {index.name} names it")
        return [folder / name for name in names]
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pickled = sorted(p.name for p in folder.glob("*.bin")) or ["no weights at all"]
        raise SourceError(
            f"{folder} has no .safetensors file (found {pickled[0]}); pickled weights are not "
            "read: save the model as safetensors first"
        )
    return paths


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: an endless number too
        raise SourceError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{path} is not a JSON object")
    return value


def _coded_linears(
    decoder: Decoder,
    naming: Naming,
    layout: CodeLayout | None,
    tensors: Mapping[str, StoredTensor],
    folder: Path,
) -> dict[str, CodedLinear]:
    """Return the matrices that are stored as codes, by the name that the weight would have.

    Raises:
        SourceError: if codes and `quantization_config` do not go together, or a tensor of a coded
            matrix is missing or of another dtype or shape.
    """
    linears: dict[str, CodedLinear] = {}
    for name, whole in decoder.matrices().items():
        if name in {"embed", "positions"}:  # looked up by rows; neither method codes them
            continue
        for part, (n, k) in naming.tensors(name, whole, decoder).items():
            module = part.removesuffix(".weight")
            if part in tensors or f"{module}.qweight" not in tensors:
                continue
            if layout is None:
                raise SourceError(
                    f"{folder}: tensor '{module}.qweight' holds codes, but config.json has no "
                    "quantization_config that explains them; add it"
                )
            linears[part] = open_linear(module, (n, k), layout, tensors, folder=folder)
    if layout is not None and not linears:
        raise SourceError(
            f"{folder}: config.json says that the model is quantised ({layout.method}), but no "
            "tensor holds codes; remove its quantization_config"
        )
    return linears


def _with_prefix(tensors: dict[str, StoredTensor], naming: Naming) -> dict[str, StoredTensor]:
    """Give every tensor the prefix that some checkpoints of the family lack."""
    prefix = naming.optional_prefix
    head = naming.edges["head"]
    if not prefix or any(name.startswith(prefix) for name in tensors):
        return tensors
    return {
        name if name.startswith(head) else prefix + name: stored for name, stored in tensors.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _FolderWeights:
    """See `ModelWeights`."""

    decoder: Decoder
    folder: Path
    naming: Naming
    tensors: Mapping[str, StoredTensor]
    linears: Mapping[str, CodedLinear]

    @property
    def stored_dtype(self) -> str:
        """What the weights are stored as, by the embedding."""
        (part,) = self._parts("embed", self.decoder.matrices()["embed"])
        return self.tensors[part].spec.dtype

    def check(self) -> tuple[str, ...]:
        """Return notes on what is not used.

        Raises:
            SourceError: if a tensor is missing, of another shape or dtype, or not known.
        """
        needed: set[str] = set()
        for name, whole in self.decoder.tensors().items():
            for part, shape in self._parts(name, whole).items():
                if part in self.linears:
                    linear = self.linears[part]
                    needed |= {f"{linear.name}.{tensor}" for tensor in linear.tensors}
                    continue
                needed.add(part)
                if part not in self.tensors:
                    raise SourceError(f"{self.folder}: tensor {part!r} is missing")
                spec = self.tensors[part].spec
                expected = shape[::-1] if self.naming.is_transposed(name) else shape
                if spec.shape != expected or spec.dtype not in _BITS:
                    raise SourceError(
                        f"{self.folder}: tensor {part!r} is {spec.dtype} {spec.shape}, expected "
                        f"{expected} of {', '.join(_BITS)}"
                    )
        head = f"{self.naming.edges['head']}.weight"
        notes: list[str] = []
        for name in sorted(set(self.tensors) - needed):
            if self.naming.is_buffer(name) or self._is_empty_bias(name):
                continue
            if name != head:
                raise SourceError(f"{self.folder}: tensor {name!r} has no place in this family")
            notes.append(f"the head is tied to the embedding: the stored {head} is not used")
        return tuple(notes)

    def codes(self, how: str) -> CheckpointCodes:
        """Return the matrices that have a coded part."""
        parts = {
            name: {part: self.linears.get(part) for part in self._parts(name, whole)}
            for name, whole in self.decoder.matrices().items()
        }
        coded = {name: found for name, found in parts.items() if any(found.values())}
        return CheckpointCodes(folder=self.folder, how=how, parts=coded)

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.block(name, 0, self.decoder.matrices()[name][0])

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        pieces: list[FloatArray] = []
        first = 0  # row of ours that the part begins at
        for part, shape in self._parts(name, self.decoder.matrices()[name]).items():
            low, high = max(start - first, 0), min(stop - first, shape[0])
            if low < high and part in self.linears:
                pieces.append(self._finite(self.linears[part].rows(low, high), part))
            elif low < high:
                whole = self.tensors[part].view()
                whole = whole.T if self.naming.is_transposed(name) else whole
                pieces.append(self._finite(whole[low:high], part))
            first += shape[0]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        (part,) = self._parts(name, self.decoder.matrices()[name])
        return self._finite(self.tensors[part].view()[ids], part)

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        parts = self._parts(name, self.decoder.vectors()[name])
        pieces = [self._finite(self.tensors[part].view(), part) for part in parts]
        whole: FloatArray = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        offset = self.naming.norm_offset
        return whole + np.float32(offset) if offset and name.endswith("_norm") else whole

    def _parts(self, name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        parts = self.naming.tensors(name, shape, self.decoder)
        # A tied pair may be stored under either name.
        edges = self.naming.edges
        if self.decoder.tied and name == "embed" and f"{edges['embed']}.weight" not in self.tensors:
            return {f"{edges['head']}.weight": shape}
        return parts

    def _is_empty_bias(self, name: str) -> bool:
        """Say whether a tensor is the bias of zeros that old GPTQ writers gave every matrix."""
        weight = f"{name.removesuffix('.bias')}.weight"
        is_bias = name.endswith(".bias") and weight in self.linears
        return is_bias and not self.tensors[name].view().any()

    def _finite(self, array: np.ndarray, name: str) -> FloatArray:
        wide = widen(np.ascontiguousarray(array))
        if not np.isfinite(wide).all():
            raise SourceError(f"{self.folder}: tensor {name!r} holds a NaN or an infinity")
        return wide
