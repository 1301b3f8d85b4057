"""A bundle as a source model: its matrices dequantised, and the codes that need no new rounding."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import SourceError
from onhand.core.lesson import LESSON
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.weights import BundleWeights, open_weights
from onhand.host.model import Model
from onhand.host.plain import read_plain_bundle

__all__ = ["BundleCodes", "load_bundle"]

_BINARY = (".onnx", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleCodes:
    """See `CodedWeights`.

    Attributes:
        stored: the bundle's weights.
        changed: matrices that are no longer as their codes say.
    """

    stored: BundleWeights
    changed: frozenset[str] = frozenset()

    @property
    def how(self) -> str:
        """See `CodedWeights`."""
        return "bundle"

    def without(self, names: Collection[str]) -> "BundleCodes":
        """Return the codes of the other matrices.

        Args:
            names: those that are changed.

        Raises:
            SourceError: if one of them is a product of two, whose sum with another is none.
        """
        decoder = self.stored.decoder
        if odd := sorted(set(names) - decoder.matrices().keys() - {"head"}):
            raise SourceError(
                f"{odd[0]} is stored as a product of two matrices, to which nothing can be added; "
                "give the original model"
            )
        return replace(self, changed=self.changed | set(names))

    def formats(self) -> Mapping[str, GroupFormat]:
        """See `CodedWeights`."""
        found = {
            name: form
            for name in self.stored.decoder.matrices()
            if name not in self.changed and (form := self.stored.format(name)) is not None
        }
        return dict(found)

    def tensor(self, name: str) -> QuantTensor:
        """See `CodedWeights`.

        Raises:
            SourceError: if it is not coded.
        """
        tensor = self.stored.stored(name)
        if name in self.changed or not isinstance(tensor, QuantTensor):
            raise SourceError(f"{name} is not stored as codes")
        return tensor

    def source_bytes(self) -> Mapping[str, int]:
        """See `CodedWeights`."""
        return {name: self.tensor(name).size_bytes for name in self.formats()}


def load_bundle(root: Path, *, variant: str | None = None) -> Model:
    """Open a bundle of a language model as a source.

    Args:
        root: its folder; every file in it is checked.
        variant: which of its variants; None for its default.

    Returns:
        The model; its notes say that it was rounded before.

    Raises:
        InputError: if it holds no language model, or no such variant.
        BundleError: if it is damaged.
    """
    bundle = read_plain_bundle(root)
    manifest = bundle.manifest
    name, chosen = bundle.variant(variant)
    stored = open_weights(bundle, name)
    files = {
        file: bundle.path(file).read_bytes()
        for file in manifest.files
        if not file.endswith(_BINARY) and file != LESSON
    }
    family, bits = (manifest.provenance.get(key) for key in ("family", "source_weight_bits"))
    return Model(
        name=manifest.name,
        location=root,
        family=family if isinstance(family, str) else "llama",
        weights=_Dequantized(stored, manifest.decoder),
        files=files,
        sha256=bundle.manifest_sha256,
        source_bytes=sum(manifest.files[file].size for file in chosen.weights),
        weight_bits=bits if isinstance(bits, int) else 16,
        notes=(
            f"the source is the bundle {manifest.name}, variant {name}, which was rounded before: "
            "quality is compared with it, not with the model it was made from",
        ),
        coded=BundleCodes(stored=stored),
    )


@dataclass(frozen=True, slots=True)
class _Dequantized:
    """See `ModelWeights`."""

    stored: BundleWeights
    decoder: Decoder

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.stored.matrix(name)

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        return self.stored.matrix(name)[start:stop]

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self.stored.rows(name, ids)

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.stored.vector(name)
