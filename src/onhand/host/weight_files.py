"""Which file of a bundle holds which tensors: one for each set of variants that use the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat
from onhand.core.safetensors import TensorSpec
from onhand.core.weights import matrix_tensors

__all__ = ["WEIGHTS", "StoredVariant", "VariantFiles", "decoder_files", "weights_file"]

WEIGHTS = "weights.safetensors"
Formats = Mapping[str, GroupFormat | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVariant:
    """One variant of a language model, as far as its files go.

    Attributes:
        formats: matrix name -> how it is stored; None for float32.
        own: matrices that it does not share with the first variant; all of them, of the first.
    """

    formats: Formats
    own: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFiles:
    """The weights files of one variant.

    Attributes:
        written: file -> the tensors that are written for this variant, in the order in which a
            step reads them. What it shares was written for the first one.
        needed: all files that it uses; those that fewer variants use come first.
    """

    written: Mapping[str, Mapping[str, TensorSpec]]
    needed: tuple[str, ...]


def weights_file(users: Sequence[str], variants: Sequence[str]) -> str:
    """Name the file of what some variants use, so that each needs no file of the others.

    Args:
        users: variants that use the same tensors; at least one.
        variants: all of the bundle, in order.

    Returns:
        Such as "weights.safetensors" for all, "weights.int4.safetensors" for one alone, and
        "weights.1+3.safetensors" for the first and third of more.

    Raises:
        InputError: if a variant is called as such a file is.
    """
    if len(users) == len(variants):
        return WEIGHTS
    if len(users) == 1:
        return f"weights.{users[0]}.safetensors"
    places = "+".join(str(i) for i, variant in enumerate(variants, 1) if variant in users)
    if places in variants:
        raise InputError(f"variant {places!r}: a file of shared weights is called so; rename it")
    return f"weights.{places}.safetensors"


def decoder_files(decoder: Decoder, variants: Mapping[str, StoredVariant]) -> list[VariantFiles]:
    """Lay out the weights files of a language model.

    Args:
        decoder: the model.
        variants: name -> variant; the first one is what later ones share with.

    Returns:
        The files of each variant, in order.

    Raises:
        InputError: as `weights_file`.
    """
    names = list(variants)
    first, *others = names
    parts: dict[tuple[str, ...], list[str]] = {tuple(names): []}
    for matrix in variants[first].own:
        users = [first, *(name for name in others if matrix not in variants[name].own)]
        parts.setdefault(tuple(users), []).append(matrix)
    laid: list[VariantFiles] = []
    for name in names:
        used = sorted((users for users in parts if name in users), key=len)
        files = {weights_file(users, names): parts[users] for users in used}
        own = list(variants[name].own)
        alone = {weights_file([name], names): own} if own and name != first else {}
        written = {
            file: _tensors(decoder, variants[name].formats, matrices, vectors=file == WEIGHTS)
            for file, matrices in (files if name == first else alone).items()
        }
        laid.append(VariantFiles(written=written, needed=(*alone, *files)))
    return laid


def _tensors(
    decoder: Decoder, formats: Formats, own: Sequence[str], *, vectors: bool
) -> dict[str, TensorSpec]:
    """Return the tensors of a file; norms and biases are in the one that all variants need."""
    matrices = decoder.matrices()
    shapes = decoder.vectors() if vectors else {}
    rank = {name: i for i, name in enumerate(decoder.tensors())}
    tensors: dict[str, TensorSpec] = {}
    for name in sorted([*own, *shapes], key=rank.__getitem__):
        if name in shapes:
            tensors[name] = TensorSpec(dtype="F32", shape=shapes[name])
        else:
            tensors |= matrix_tensors(name, matrices[name], formats[name])
    return tensors
