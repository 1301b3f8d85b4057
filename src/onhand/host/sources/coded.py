"""The matrices of ours that a checkpoint holds as codes, kept exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.sources.coded_linear import AGAIN, CodedLinear

__all__ = ["CheckpointCodes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCodes:
    """See `CodedWeights`.

    Attributes:
        folder: the checkpoint, for messages.
        how: "gptq" or "awq".
        parts: each of our matrices that has a coded part -> its parts in row order, None for one
            that is not coded, by their names in the checkpoint.
    """

    folder: Path
    how: str
    parts: Mapping[str, Mapping[str, CodedLinear | None]]

    def formats(self) -> Mapping[str, GroupFormat]:
        """See `CodedWeights`."""
        return {name: self._format(name) for name in self.parts}

    def tensor(self, name: str) -> QuantTensor:
        """See `CodedWeights`."""
        form = self._format(name)
        return QuantTensor.stack([
            piece for linear in self._linears(name) for piece in linear.pieces(form)
        ])

    def source_bytes(self) -> Mapping[str, int]:
        """See `CodedWeights`."""
        return {
            name: sum(linear.size_bytes for linear in parts.values() if linear)
            for name, parts in self.parts.items()
            if None not in parts.values()
        }

    def _linears(self, name: str) -> list[CodedLinear]:
        """Return the parts of one of our matrices.

        Raises:
            SourceError: if one of them is not coded.
        """
        parts = self.parts[name]
        if plain := [part for part, linear in parts.items() if linear is None]:
            raise SourceError(
                f"{self.folder}: {name} cannot be kept as it is: {plain[0]} is not quantised, the "
                f"other matrices that are stored with it are; {AGAIN}"
            )
        return [linear for linear in parts.values() if linear]

    def _format(self, name: str) -> GroupFormat:
        """Return the format that holds every part without loss, in the fewest bytes.

        Raises:
            SourceError: if there is none.
        """
        linears = self._linears(name)
        bits = {linear.bits for linear in linears}
        if len(bits) > 1:
            raise SourceError(
                f"{self.folder}: {name} cannot be kept as it is: its parts "
                f"{', '.join(f'{linear.name} ({linear.bits} bits)' for linear in linears)} are "
                f"stored as one matrix; {AGAIN}"
            )
        sizes = set.intersection(*(set(linear.group_sizes()) for linear in linears))
        is_symmetric = all(linear.is_symmetric() for linear in linears)
        # The smallest size is in every set: there is always one.
        return min(
            (
                GroupFormat(bits=min(bits), group_size=size, symmetric=is_symmetric)
                for size in sorted(sizes)
            ),
            key=lambda form: form.size_bytes(linears[0].shape),
        )
