"""What a bundle says of itself: parsed from JSON that may come from outside."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from onhand.core.decoder import Decoder, decoder_from_json
from onhand.core.errors import BundleCorrupt, BundleTooNew, InputError
from onhand.core.network import Network, network_from_json
from onhand.core.outside import parse_json, shown
from onhand.core.quantized import GroupFormat
from onhand.core.stored_forms import StoredForm, stored_forms_from_json

__all__ = [
    "FORMAT",
    "NAME",
    "FileEntry",
    "Manifest",
    "Variant",
    "parse_manifest",
    "render_manifest",
]

FORMAT = 2
"""1, or 2 where a variant has tensors that are stored without their zeros."""
LANGUAGE_MODEL = "language-model"
NETWORK = "network"
# Kind -> the key of its description.
_DESCRIPTIONS = {LANGUAGE_MODEL: "decoder", NETWORK: "network"}
MAX_MANIFEST_BYTES = 16 * 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a bundle.

    Attributes:
        size: bytes.
        sha256: of its content, in hex.
    """

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One point of the front: a graph and the weights it reads.

    Attributes:
        graph: the ONNX file.
        weights: safetensors files; a tensor is taken from the first that holds it, so what
            variants share is stored once.
        matrices: name -> how it is stored; None for a plain float matrix. Of a network, whose
            graph says it all, empty.
        accuracy_level: ONNX Runtime's MatMulNBits setting that this variant was judged with: 4
            computes in int8, 0 in float32. It changes answers, so it belongs to the bundle.
        sparse: name of a tensor of the graph -> how it is stored without its zeros, or as a table.
    """

    graph: str
    weights: tuple[str, ...]
    matrices: Mapping[str, GroupFormat | None]
    accuracy_level: int
    sparse: Mapping[str, StoredForm] = field(default_factory=dict)

    def sparse_bytes(self) -> tuple[int, int]:
        """Return the bytes of all these tensors as they are stored, and of the same as a whole."""
        forms = {form.tensor: form for form in self.sparse.values()}.values()
        return sum(form.stored_bytes for form in forms), sum(form.size_bytes for form in forms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole description; its bytes are what a signature signs.

    Attributes:
        name: the model's name.
        kind: "language-model" or "network".
        version: counter; a later version of the same bundle has a higher one.
        default_variant: a key of `variants`.
        variants: name -> variant.
        model: its description: of a language model, or of another network.
        files: path inside the bundle -> size and hash, all files but manifest, signature, report.
        provenance: hashes and settings that the bundle was made from; no paths.
    """

    name: str
    kind: str
    version: int
    default_variant: str
    variants: Mapping[str, Variant]
    model: Decoder | Network
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, object]

    @property
    def decoder(self) -> Decoder:
        """The description of a language model.

        Raises:
            InputError: if the bundle holds none.
        """
        if not isinstance(self.model, Decoder):
            raise InputError(
                f"{self.name} is a network for {self.model.task}, this needs a language model"
            )
        return self.model

    @property
    def network(self) -> Network:
        """The description of a network that is no language model.

        Raises:
            InputError: if the bundle holds a language model.
        """
        if not isinstance(self.model, Network):
            raise InputError(f"{self.name} is a language model, this needs another network")
        return self.model


def render_manifest(manifest: Manifest) -> bytes:
    """Return the one byte string of a manifest: sorted keys, no spaces, final newline."""
    variants = {
        name: {
            "accuracy_level": variant.accuracy_level,
            "graph": variant.graph,
            "matrices": {
                matrix: None
                if form is None
                else {
                    "bits": form.bits,
                    "group_size": form.group_size,
                    "symmetric": form.symmetric,
                }
                for matrix, form in variant.matrices.items()
            },
            "weights": list(variant.weights),
        }
        # What a bundle does not use it does not name: earlier readers open it.
        | ({"sparse": _sparse(variant)} if variant.sparse else {})
        for name, variant in manifest.variants.items()
    }
    is_sparse = any(variant.sparse for variant in manifest.variants.values())
    table = {
        _DESCRIPTIONS[manifest.kind]: manifest.model.to_json(),
        "default_variant": manifest.default_variant,
        "files": {n: {"sha256": f.sha256, "size": f.size} for n, f in manifest.files.items()},
        "format": FORMAT if is_sparse else 1,
        "kind": manifest.kind,
        "name": manifest.name,
        "provenance": manifest.provenance,
        "variants": variants,
        "version": manifest.version,
    }
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _sparse(variant: Variant) -> dict[str, object]:
    return {name: form.to_json() for name, form in variant.sparse.items()}


def parse_manifest(content: bytes, *, where: str) -> Manifest:
    """Read and validate a manifest.

    Args:
        content: the file's bytes.
        where: the bundle's name for messages.

    Returns:
        The manifest; its file names stay inside the bundle's folder.

    Raises:
        BundleTooNew: if its format is later than `FORMAT`.
        BundleCorrupt: if anything in it is missing or not valid.
    """
    try:
        table = parse_json(content)
    except InputError as error:
        raise BundleCorrupt(f"{where}: manifest is {error}") from error
    if not isinstance(table, dict):
        raise BundleCorrupt(f"{where}: manifest is not a JSON object")
    found = table.get("format")
    if type(found) is not int or found < 1:
        raise BundleCorrupt(f"{where}: manifest has no format number")
    if found > FORMAT:
        raise BundleTooNew(
            f"{where}: format {found}, this reader knows up to {FORMAT}; install a later onhand"
        )
    try:
        return _manifest(table)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise BundleCorrupt(f"{where}: manifest: {detail}") from error


def _manifest(table: Mapping[str, object]) -> Manifest:
    kind = table["kind"]
    if not isinstance(kind, str) or kind not in _DESCRIPTIONS:
        raise InputError(f"kind {shown(kind)} is not one that this version runs")
    files = {safe_path(name): _file(name, entry) for name, entry in _object(table, "files").items()}
    described = table[_DESCRIPTIONS[kind]]
    model = decoder_from_json(described) if kind == LANGUAGE_MODEL else network_from_json(described)
    # A network's weights are known by its graph alone.
    matrices = set(model.matrices()) if isinstance(model, Decoder) else set()
    variants = {
        _name(name): _variant(entry, files, matrices)
        for name, entry in _object(table, "variants").items()
    }
    default = table["default_variant"]
    if not isinstance(default, str) or default not in variants:
        raise InputError(f"default variant {shown(default)} is not among {shown(sorted(variants))}")
    version = table["version"]
    if type(version) is not int or version < 1:
        raise InputError(f"version is {shown(version)}, must be a whole number above 0")
    return Manifest(
        name=_name(table["name"]),
        kind=kind,
        version=version,
        default_variant=default,
        variants=variants,
        model=model,
        files=files,
        provenance=_object(table, "provenance"),
    )


def _variant(entry: object, files: Mapping[str, FileEntry], matrices: set[str]) -> Variant:
    if not isinstance(entry, dict):
        raise InputError("a variant must be a JSON object")
    weights = entry["weights"]
    if not isinstance(weights, list) or not weights:
        raise InputError("a variant's weights must be a list of files")
    for name in (entry["graph"], *weights):
        if not isinstance(name, str) or name not in files:
            raise InputError(f"variant names {shown(name)}, which is not among the files")
    stored = _object(entry, "matrices")
    if set(stored) != matrices:
        odd = sorted(set(stored) ^ matrices)
        raise InputError(f"matrix {shown(odd[0])} is in the variant or in the decoder, not in both")
    level = entry["accuracy_level"]
    if type(level) is not int or level not in {0, 1, 4}:
        raise InputError(f"accuracy_level is {shown(level)}, must be 0, 1 or 4")
    return Variant(
        graph=entry["graph"],
        weights=tuple(weights),
        matrices={name: _format(form) for name, form in stored.items()},
        accuracy_level=level,
        sparse=stored_forms_from_json(entry.get("sparse", {})),
    )


def _format(form: object) -> GroupFormat | None:
    if form is None:
        return None
    if not isinstance(form, dict) or set(form) != {"bits", "group_size", "symmetric"}:
        raise InputError(f"matrix format {shown(form)} needs bits, group_size and symmetric")
    if [type(form[key]) for key in ("bits", "group_size", "symmetric")] != [int, int, bool]:
        raise InputError(f"matrix format {shown(form)} needs two whole numbers and true or false")
    return GroupFormat(
        bits=form["bits"], group_size=form["group_size"], symmetric=form["symmetric"]
    )


def _file(name: object, entry: object) -> FileEntry:
    if not isinstance(entry, dict):
        raise InputError(f"file {shown(name)}: entry is not a JSON object")
    size, digest = entry["size"], entry["sha256"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InputError(f"file {shown(name)}: size {shown(size)} is not a whole number")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise InputError(f"file {shown(name)}: sha256 {shown(digest)} is not 64 hex digits")
    return FileEntry(size=size, sha256=digest)


def safe_path(name: object) -> str:
    """Return a file name from a manifest if it stays inside the bundle.

    Args:
        name: relative, with forward slashes.

    Returns:
        The name.

    Raises:
        InputError: if it is absolute, climbs, or hides its meaning on some system.
    """
    text = name if isinstance(name, str) else ""
    parts = PurePosixPath(text).parts
    plain = all(NAME.fullmatch(part) for part in parts)
    if not parts or not plain or "/".join(parts) != text or len(parts) > 4:
        raise InputError(f"file name {shown(name)} is not a plain path inside the bundle")
    return text


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InputError(f"name {shown(value)} must be 1 to 100 of letters, digits and . _ + -")
    return value


def _object(table: Mapping[str, object], key: str) -> dict[str, object]:
    value = table[key]
    if not isinstance(value, dict):
        raise InputError(f"{key} is not a JSON object")
    return value
