"""A source model on the host: its description, its weights read one by one, its other files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat, QuantTensor

__all__ = ["CodedWeights", "Model", "ModelWeights", "ShapesAlone", "Source"]


class ModelWeights(Protocol):
    """Reads a source's tensors by our names; nothing is kept in memory. See `forward.Weights`."""

    @property
    def decoder(self) -> Decoder:
        """The model's description."""
        ...

    def matrix(self, name: str) -> FloatArray:
        """Return a matrix by its name in `Decoder.matrices`: (N, K) float32, all finite.

        Raises:
            SourceError: if it holds a NaN or an infinity.
        """
        ...

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """Return rows `start` to `stop` of a matrix: float32, all finite.

        Raises:
            SourceError: if they hold a NaN or an infinity.
        """
        ...

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """Return some rows of a matrix: (T,) ids -> (T, K) float32."""
        ...

    def vector(self, name: str) -> FloatArray:
        """Return a norm or bias by its name in `Decoder.vectors`: (width,) float32.

        Raises:
            SourceError: if it holds a NaN or an infinity.
        """
        ...


@dataclass(frozen=True, slots=True)
class ShapesAlone:
    """Stands in for weights that are not made yet: nothing of them can be read."""

    decoder: Decoder

    def matrix(self, name: str) -> FloatArray:
        """Refuse. See `ModelWeights`.

        Raises:
            SourceError: always.
        """
        raise SourceError(f"{name} is not made yet")

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """Refuse. See `ModelWeights`."""
        return self.matrix(name)

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """Refuse. See `ModelWeights`."""
        return self.matrix(name)

    def vector(self, name: str) -> FloatArray:
        """Refuse. See `ModelWeights`."""
        return self.matrix(name)


class CodedWeights(Protocol):
    """The matrices that a source holds as codes already, by our names."""

    @property
    def how(self) -> str:
        """How they were made: a word, such as "gptq"."""
        ...

    def formats(self) -> Mapping[str, GroupFormat]:
        """Return the coded matrices and the formats that hold them without loss.

        Zero points are read for it, codes and scales are not.

        Raises:
            SourceError: if one of them cannot be held without loss.
        """
        ...

    def tensor(self, name: str) -> QuantTensor:
        """Return a coded matrix in its format, exactly as it is.

        Raises:
            SourceError: if it cannot be held without loss, or a scale is not finite.
        """
        ...

    def source_bytes(self) -> Mapping[str, int]:
        """Return the bytes that each wholly coded matrix takes in the source."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One source model.

    Attributes:
        name: for the bundle's manifest: letters, digits and . _ + -.
        location: where it was read from: a folder.
        family: such as "llama" or "qwen2".
        weights: the tensors; `weights.decoder` describes the model.
        files: name in the bundle -> content: tokenizer, chat template, generation settings.
        sha256: hash over the description and every weight file: the source's identity.
        source_bytes: size of the weight files.
        weight_bits: bits of one source weight that is not coded, 16 or 32.
        notes: what was left out or assumed, in sentences.
        adapter_sha256: identity of the adapter merged into the weights; "" if there is none.
        coded: what is quantised already; `weights` gives it dequantised. None if nothing is.
    """

    name: str
    location: Path
    family: str
    weights: ModelWeights
    files: Mapping[str, bytes]
    sha256: str
    source_bytes: int
    weight_bits: int
    notes: tuple[str, ...] = ()
    adapter_sha256: str = ""
    coded: CodedWeights | None = None

    @property
    def decoder(self) -> Decoder:
        """The model's description."""
        return self.weights.decoder


class Source(Protocol):
    """Knows one kind of place that models come from. Holds no state."""

    name: str

    def why_not(self, location: str) -> str | None:
        """Return None if `load` should understand the location, else a reason."""
        ...

    def load(self, location: str) -> Model:
        """Open a model; weights are read later, one by one.

        Args:
            location: a folder, or an id on a hub.

        Returns:
            The model.

        Raises:
            SourceError: if it is of an unknown family, incomplete or damaged.
            ResourceError: if a hub is needed and cannot be reached.
        """
        ...
