"""Ways to do one layer's work in two to four smaller ones, with what each costs and loses.

Source:
    Spatial decomposition: arXiv:1405.3866. Tucker-2: arXiv:1511.06530. CP: arXiv:1412.6553. All
    here with inputs weighed by their second moments, as in SVD-LLM, arXiv:2403.07378.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.host.canonical import canonical_sums, columnwise
from onhand.host.lowrank import Spectrum, whitening
from onhand.host.networks.graph import Attribute, Node
from onhand.host.networks.moments import Layer, Moments

__all__ = ["Choice", "Parts", "chained", "choices"]

Numbers = NDArray[np.float64]
# Ranks that are tried for decompositions of which the loss is not known in advance.
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """Layers in a row that replace one; the first reads its input, the last has its bias.

    Attributes:
        weights: of each, as constants of that layer.
        attributes: of each that differ from the layer's own; None for those of a plain product.
    """

    weights: tuple[FloatArray, ...]
    attributes: tuple[Mapping[str, Attribute], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way to do a layer's work.

    Attributes:
        how: in words.
        parameters: weights that it has.
        operations: multiply-accumulates that it takes.
        lost: share of the outputs' energy that is lost.
        make: returns the layers.
    """

    how: str
    parameters: int
    operations: int
    lost: float
    make: Callable[[], Parts] = field(repr=False)


def choices(
    layer: Layer,
    weight: FloatArray,
    moments: Moments | None,
    *,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    multiple: int,
    kinds: Sequence[str],
) -> Iterator[Choice]:
    """Yield what a layer may be replaced by.

    Args:
        layer: without groups.
        weight: its constant.
        moments: of its inputs; None where they are not known.
        inputs: height and width of what it reads; (1, 1) for a product of vectors.
        outputs: height and width of what it gives.
        multiple: of which ranks are.
        kinds: of "svd", "spatial", "tucker", "depthwise" and "cp"; all but the first for
            convolutions of pictures alone.
    """
    second = None if moments is None else moments.second
    root = None if second is None else whitening(second[0])
    if "svd" in kinds:
        yield from _svd(layer, weight, root, positions=outputs[0] * outputs[1], multiple=multiple)
    if layer.node.op != "Conv" or len(layer.shape) != 4 or max(layer.shape[2:]) == 1:
        return
    known = None if second is None else second[0].astype(np.float64)
    if "spatial" in kinds and min(layer.shape[2:]) > 1:
        yield from _spatial(layer, weight, known, inputs, outputs, multiple)
    if "tucker" in kinds:
        yield from _tucker(layer, weight, known, inputs, outputs, multiple)
    if "depthwise" in kinds:
        yield from _canonical(layer, weight, known, inputs, outputs, multiple, together=True)
    if "cp" in kinds and min(layer.shape[2:]) > 1:
        yield from _canonical(layer, weight, known, inputs, outputs, multiple, together=False)


def _svd(
    layer: Layer, weight: FloatArray, root: Numbers | None, *, positions: int, multiple: int
) -> Iterator[Choice]:
    matrix = layer.matrices(weight)[0]
    spectrum = Spectrum.of(matrix, root)
    lost = spectrum.lost()
    for rank in range(multiple, len(spectrum.values), multiple):
        size = rank * sum(matrix.shape)

        def make(rank: int = rank) -> Parts:
            left, right = spectrum.factors(rank)
            if layer.node.op != "Conv":
                # The first is a plain product, the last is what the layer was.
                turned = bool(layer.node.op == "Gemm" and layer.node.whole("transB", 0))
                last = left if turned else np.ascontiguousarray(left.T)
                return Parts((np.ascontiguousarray(right.T), last), ({}, {}))
            first = right.reshape(rank, *layer.shape[1:])
            ones = (1,) * (len(layer.shape) - 2)
            return Parts((first, left.reshape(*left.shape, *ones)), ({}, _pointwise(len(ones))))

        yield Choice(
            how=f"svd of rank {rank}", parameters=size, operations=size * positions,
            lost=float(lost[rank]), make=make,
        )  # fmt: skip


def _given(parts: Parts) -> Callable[[], Parts]:
    return lambda: parts


def _pointwise(rank: int) -> dict[str, Attribute]:
    return {
        "kernel_shape": (1,) * rank,
        "strides": (1,) * rank,
        "dilations": (1,) * rank,
        "pads": (0,) * 2 * rank,
        "auto_pad": "NOTSET",
    }


def _lost(difference: Numbers, weight: FloatArray, second: Numbers | None) -> float:
    """Return the share of the outputs' energy that is in the difference of two weights."""
    rows, whole = (w.reshape(len(w), -1).astype(np.float64) for w in (difference, weight))
    if second is None:
        return float(np.square(rows).sum() / max(np.square(whole).sum(), 1e-30))
    energies = [float(np.einsum("nk,nk->", w @ second, w)) for w in (rows, whole)]
    return energies[0] / max(energies[1], 1e-30)


def _tries(most: int, multiple: int) -> list[int]:
    ranks = list(range(multiple, most, multiple))
    return ranks[:: max(-(-len(ranks) // _TRIES), 1)]


def _spatial(
    layer: Layer,
    weight: FloatArray,
    second: Numbers | None,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    multiple: int,
) -> Iterator[Choice]:
    """Yield a column of the kernel, then a row: C -> rank by (kh, 1), rank -> N by (1, kw)."""
    N, C, kh, kw = weight.shape
    root = None
    if second is not None:
        # What a column sees, whichever of the kernel's columns it is.
        each = np.einsum("ciwdjw->cidj", second.reshape(C, kh, kw, C, kh, kw))
        root = whitening(each.reshape(C * kh, C * kh) / kw)
    matrix = weight.transpose(0, 3, 1, 2).reshape(N * kw, C * kh)
    spectrum = Spectrum.of(matrix, root)
    # The column runs at the new height, but still at the old width.
    columns, rows = outputs[0] * inputs[1], outputs[0] * outputs[1]
    for rank in _tries(len(spectrum.values), multiple):
        left, right = spectrum.factors(rank)
        low = right.reshape(rank, C, kh, 1)
        high = left.reshape(N, kw, rank).transpose(0, 2, 1)[:, :, None]  # (N, rank, 1, kw)
        again = (left.astype(np.float64) @ right).reshape(N, kw, C, kh).transpose(0, 2, 3, 1)
        sizes = rank * C * kh, rank * N * kw
        parts = Parts(
            (low, np.ascontiguousarray(high)), (_side(layer.node, 0), _side(layer.node, 1))
        )
        yield Choice(
            how=f"a column and a row of rank {rank}", parameters=sum(sizes),
            operations=sizes[0] * columns + sizes[1] * rows,
            lost=_lost(again - weight, weight, second), make=_given(parts),
        )  # fmt: skip


def _side(node: Node, side: int) -> dict[str, Attribute]:
    """Return the attributes of a convolution along one side alone."""
    ones, none = (1, 1), (0, 0, 0, 0)
    pads, kernel = node.wholes("pads", none), node.wholes("kernel_shape")
    kept = {key: node.wholes(key, ones) for key in ("strides", "dilations")}
    one = {key: (v[0], 1) if side == 0 else (1, v[1]) for key, v in kept.items()}
    found: dict[str, Attribute] = {
        **one,
        "pads": (pads[0], 0, pads[2], 0) if side == 0 else (0, pads[1], 0, pads[3]),
    }
    if kernel:
        found["kernel_shape"] = (kernel[0], 1) if side == 0 else (1, kernel[1])
    return found


def _tucker(
    layer: Layer,
    weight: FloatArray,
    second: Numbers | None,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    multiple: int,
) -> Iterator[Choice]:
    """Yield a narrower convolution between two of single pixels: C -> R, R -> S, S -> N."""
    N, C, kh, kw = weight.shape
    taps = kh * kw
    root = None
    if second is not None:
        each = np.einsum("ctdt->cd", second.reshape(C, taps, C, taps))
        root = whitening(each / taps)
    # Inputs: directions of channels that the outputs see most, as they come.
    unfolded = weight.transpose(0, 2, 3, 1).reshape(N * taps, C)
    spectrum = Spectrum.of(unfolded, root)
    outer = np.linalg.svd(_energy_root(weight, second), full_matrices=False)[0]  # (N, N)
    before, after = inputs[0] * inputs[1], outputs[0] * outputs[1]
    for share in np.linspace(1 / _TRIES, 1 - 1 / _TRIES, _TRIES - 1):
        R, S = (round(share * n / multiple) * multiple for n in (min(C, len(spectrum.values)), N))
        if not 0 < R < C or not 0 < S < N:
            continue
        left, right = spectrum.factors(R)
        basis = outer[:, :S]  # (N, S)
        core = np.tensordot(basis.T, left.reshape(N, taps, R), axes=1)  # (S, taps, R)
        middle = core.transpose(0, 2, 1).reshape(S, R, kh, kw).astype(np.float32)
        again = np.einsum("ns,srij,rc->ncij", basis, middle, right, optimize=True)
        sizes = R * C, S * R * taps, N * S
        point = _pointwise(2)
        parts = Parts(
            (right[:, :, None, None], middle, basis.astype(np.float32)[:, :, None, None]),
            (point, {}, point),
        )
        yield Choice(
            how=f"Tucker-2 of ranks {R} and {S}", parameters=sum(sizes),
            operations=sizes[0] * before + (sizes[1] + sizes[2]) * after,
            lost=_lost(again - weight, weight, second), make=_given(parts),
        )  # fmt: skip


def _energy_root(weight: FloatArray, second: Numbers | None) -> Numbers:
    """Return a matrix whose left singular vectors are the outputs' main directions, (N, K)."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    return rows if second is None else rows @ whitening(second)


def _canonical(
    layer: Layer,
    weight: FloatArray,
    second: Numbers | None,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    multiple: int,
    *,
    together: bool,
) -> Iterator[Choice]:
    """Yield channels that are mixed, seen by a kernel each, and mixed again: C -> R, R, R -> N.

    Args:
        layer: a convolution of pictures.
        weight: (N, C, kh, kw).
        second: moments of its inputs, (K, K).
        inputs: height and width of what it reads.
        outputs: of what it gives.
        multiple: of which ranks are.
        together: one kernel for each channel, else a column and then a row.
    """
    N, C, kh, kw = weight.shape
    sides = (kh * kw,) if together else (kh, kw)
    before, after, between = math.prod(inputs), math.prod(outputs), outputs[0] * inputs[1]
    areas = (before, after, after) if together else (before, between, after, after)
    operations = sum(n * area for n, area in zip((C, *sides, N), areas, strict=True))
    most = min(weight.size // (C + sum(sides) + N), weight.size * after // operations)
    ranks = _tries(most, multiple)
    roots = _mode_roots(second, (C, *sides))
    whole = weight.reshape(N, C, *sides).astype(np.float64)
    for axis, root in enumerate(roots, 1):
        whole = np.moveaxis(np.tensordot(whole, root, axes=(axis, 0)), -1, axis)
    for rank, (_, *found) in zip(ranks, canonical_sums(whole, ranks), strict=True):
        factors: list[Numbers] = [
            np.linalg.solve(root.T, f).astype(np.float64)
            for root, f in zip(roots, found, strict=True)
        ]
        seen = columnwise(factors)  # (K, R)
        last = _fitted(weight, seen, second)
        mixing, *kernels = (f.T.astype(np.float32) for f in factors)
        shapes = [(rank, 1, kh, kw)] if together else [(rank, 1, kh, 1), (rank, 1, 1, kw)]
        own: list[dict[str, Attribute]] = [{"group": rank}]
        if not together:
            own = [{**_side(layer.node, side), "group": rank} for side in (0, 1)]
        shaped = [k.reshape(s) for k, s in zip(kernels, shapes, strict=True)]
        parts = Parts(
            (mixing[:, :, None, None], *shaped, last.astype(np.float32)[:, :, None, None]),
            (_pointwise(2), *own, _pointwise(2)),
        )
        again = (last @ seen.T).reshape(weight.shape)
        yield Choice(
            how=f"{'kernels of one channel each' if together else 'CP'}, rank {rank}",
            parameters=rank * (C + sum(sides) + N), operations=rank * operations,
            lost=_lost(again - weight, weight, second), make=_given(parts),
        )  # fmt: skip


def _mode_roots(second: Numbers | None, sizes: tuple[int, ...]) -> list[Numbers]:
    """Return, for each axis of what one output sees, what whitens it, the others averaged."""
    if second is None:
        return [np.eye(n) for n in sizes]
    roots = []
    for axis, n in enumerate(sizes):
        low, high = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
        pairs = np.einsum("ajbakb->jk", second.reshape(low, n, high, low, n, high))
        roots.append(whitening(pairs))
    return roots


def _fitted(weight: FloatArray, seen: Numbers, second: Numbers | None) -> Numbers:
    """Return the mixing of what is seen that comes nearest to a layer's outputs, (N, R)."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    weighed = seen if second is None else second @ seen  # (K, R)
    gram = seen.T @ weighed
    gram[np.diag_indices_from(gram)] += 1e-6 * np.trace(gram) / len(gram) + 1e-300
    return np.asarray(np.linalg.solve(gram, (rows @ weighed).T).T, dtype=np.float64)


def chained(layer: Layer, parts: Parts, names: Sequence[str], between: Sequence[str]) -> list[Node]:
    """Return the nodes that do a layer's work.

    Args:
        layer: the one that is replaced.
        parts: what does its work.
        names: of the new weights.
        between: names of the values between them.
    """
    values = [layer.data, *between, layer.node.outputs[0]]
    found: list[Node] = []
    for i, (name, changes) in enumerate(zip(names, parts.attributes, strict=True)):
        is_last = i == len(names) - 1
        if layer.node.op == "Conv" or is_last:
            rest = layer.node.inputs[2:] if is_last else ()
            attributes = {**layer.node.attributes, **changes}
            node = replace(layer.node, inputs=(values[i], name, *rest), attributes=attributes)
        else:
            node = Node(op="MatMul", inputs=(values[i], name), outputs=("",))
        found.append(replace(node, outputs=(values[i + 1],)))
    return found
