"""Rounding up or down, learned: what a layer's outputs lose decides, not each weight's distance."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.progress import Progress
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.observe import observe
from onhand.host.networks.quantization.grid import Floats, Grid, WeightCodes, shaped_for
from onhand.host.networks.quantization.plan import Layer, Plan
from onhand.host.networks.quantization.qdq import RoundedLayer
from onhand.host.networks.samples import Samples

__all__ = ["Moments", "input_moments", "learn_rounding", "round_adaptively"]

# Rows of inputs from one example: neighbouring places tell nearly the same.
_ROWS_OF_EXAMPLE: Final = 64
_MOST_INPUTS: Final = 4096
_MOST_MOMENT_BYTES: Final = 2**28
_STRETCH_LOW, _STRETCH_HIGH = -0.1, 1.1
_WARM_UP: Final = 0.2
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Second moments of a layer's inputs, for each group of it.

    Attributes:
        rounded: (G, K, K) float32 mean of x~ x~', inputs as they come on their grid.
        cross: (G, K, K) float32 mean of x x~', inputs in float with those.
    """

    rounded: Floats
    cross: Floats


def input_moments(
    graph: Graph,
    plan: Plan,
    grids: Mapping[str, Grid],
    names: Mapping[str, Layer],
    samples: Samples,
    *,
    threads: int,
) -> dict[str, Moments]:
    """Gather second moments of layers' inputs, in one run of the float network.

    Args:
        graph: in float.
        plan: of this graph.
        grids: of its values.
        names: the layers; all are in memory together.
        samples: the examples.
        threads: of one run.

    Returns:
        Name of a layer -> moments.

    Raises:
        EngineError: if the graph cannot run.
    """
    found: dict[str, Moments] = {}
    random = np.random.default_rng(_SEED)
    wanted = list(dict.fromkeys(layer.data for layer in names.values()))
    count = 0
    for values in observe(graph, samples, threads=threads, names=wanted, batch=1):
        count += 1
        for name, layer in names.items():
            weight = graph.constants[layer.weight]
            rows = _input_rows(layer, weight.shape, values[layer.data], random)  # (G, S, K)
            there = grids[plan.grids[layer.data]].rounded(rows)
            scale = np.float32(1 / rows.shape[1])
            one = Moments(
                rounded=there.transpose(0, 2, 1) @ there * scale,
                cross=rows.transpose(0, 2, 1) @ there * scale,
            )
            before = found.get(name)
            if before is not None:
                one = Moments(rounded=before.rounded + one.rounded, cross=before.cross + one.cross)
            found[name] = one
    return {
        name: Moments(rounded=_floats(one.rounded / count), cross=_floats(one.cross / count))
        for name, one in found.items()
    }


def learn_rounding(
    graph: Graph,
    plan: Plan,
    grids: Mapping[str, Grid],
    layers: Mapping[str, RoundedLayer],
    samples: Samples,
    *,
    steps: int,
    threads: int,
    progress: Progress,
) -> tuple[dict[str, RoundedLayer], dict[str, str]]:
    """Choose for each weight whether it is rounded up or down, by what the outputs lose.

    Args:
        graph: in float.
        plan: of this graph.
        grids: of its values.
        layers: rounded to nearest.
        samples: the examples.
        steps: of the descent, for each layer.
        threads: of one run.
        progress: told of each layer.

    Returns:
        Name of a layer -> the layer with new codes; and name -> why one kept its codes.

    Raises:
        EngineError: if the graph cannot run.
    """
    kept = {name: why for name, layer in plan.layers.items() if (why := _why_not(graph, layer))}
    made = dict(layers)
    progress.start("learning to round", len(plan.layers))
    progress.advance(len(kept))
    for group in _groups(graph, {n: one for n, one in plan.layers.items() if n not in kept}):
        moments = input_moments(graph, plan, grids, group, samples, threads=threads)
        for name, layer in group.items():
            codes = round_adaptively(
                layer.weight_of(graph), layers[name].weight, moments.pop(name), steps=steps
            )
            made[name] = replace(layers[name], weight=codes)
            progress.advance(1)
    return made, kept


def _why_not(graph: Graph, layer: Layer) -> str:
    """Return why a layer's rounding cannot be learned, or nothing."""
    if layer.node.text("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return "rounded to nearest: its padding is not written down"
    if (inputs := _n_inputs(graph, layer)) > _MOST_INPUTS:
        return f"rounded to nearest: {inputs} inputs of an output, over {_MOST_INPUTS}"
    return ""


def _n_inputs(graph: Graph, layer: Layer) -> int:
    shape = graph.constants[layer.weight].shape
    return int(math.prod(shape) // shape[layer.axis])


def _groups(graph: Graph, layers: Mapping[str, Layer]) -> Iterator[dict[str, Layer]]:
    """Yield layers whose moments fit the memory together; each group needs one run."""
    group: dict[str, Layer] = {}
    size = 0
    for name, layer in layers.items():
        n_groups = layer.node.whole("group", 1) if layer.node.op == "Conv" else 1
        needed = 2 * 4 * n_groups * _n_inputs(graph, layer) ** 2
        if group and size + needed > _MOST_MOMENT_BYTES:
            yield group
            group, size = {}, 0
        group[name] = layer
        size += needed
    if group:
        yield group


def round_adaptively(
    weight: Floats, start: WeightCodes, moments: Moments, *, steps: int
) -> WeightCodes:
    """Learn which way each weight is rounded.

    The loss of the outputs is a quadratic of the weights, given by the moments alone, so no
    example is run again. The codes found are taken only where they lose less than the nearest.

    Args:
        weight: float32, as it is in the network.
        start: the nearest codes.
        moments: of G groups of K inputs; G divides the channels.
        steps: of the descent.

    Returns:
        The codes; each is one of its weight's two neighbours, within the same bounds. What is
        zero stays zero: pruning has chosen it.

    Source:
        Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization,
        arXiv:2004.10568; with the outputs before the activation function.
    """
    groups, inputs = moments.rounded.shape[:2]
    unit = shaped_for(start.scales, weight.ndim, start.axis)

    def grouped(array: Array) -> Floats:
        rows = np.moveaxis(array, start.axis, 0).reshape(groups, -1, inputs)
        return np.asarray(rows, dtype=np.float32)  # (G, N / G, K)

    exact = grouped(weight / unit)
    scales = grouped(np.broadcast_to(unit, weight.shape))
    top = 2 ** (start.bits - 1) - 1
    floor = np.clip(np.floor(exact), -top, top - 1)
    target = _floats(exact * scales @ moments.cross)  # (G, N / G, K)
    moves = _floats(exact != 0)
    up = _descend(_floats(exact - floor), floor, scales, target, moments.rounded, moves, steps)
    learned = floor + (up >= 0.5)
    nearest = grouped(start.codes)
    losses = [
        _row_loss(_floats(codes * scales), target, moments.rounded) for codes in (learned, nearest)
    ]
    better = losses[0] < losses[1]
    chosen = np.where(better[..., None], learned, nearest)
    codes = chosen.reshape(np.moveaxis(weight, start.axis, 0).shape)
    return replace(start, codes=np.moveaxis(codes, 0, start.axis).astype(np.int8))


def _floats(array: Array) -> Floats:
    return np.asarray(array, dtype=np.float32)


def _descend(
    rest: Floats,
    floor: Floats,
    scales: Floats,
    target: Floats,
    gram: Floats,
    moves: Floats,
    steps: int,
) -> Floats:
    """Return how far up each weight goes, near 0 or 1, by Adam over stretched sigmoids.

    All are (G, N / G, K), but for the inputs' `gram`; where `moves` is 0, a weight stays.
    """
    width = _STRETCH_HIGH - _STRETCH_LOW
    share = np.clip((np.clip(rest, 0, 1) - _STRETCH_LOW) / width, 1e-3, 1 - 1e-3)
    v = np.log(share / (1 - share))
    # One size for all layers: the loss in units of what half a step everywhere would lose.
    size = np.square(scales) * np.diagonal(gram, axis1=1, axis2=2)[:, None, :]
    scale = np.float32(1 / max(float(size.mean()), 1e-30))
    first, second = np.zeros_like(v), np.zeros_like(v)
    for step in range(steps):
        sigmoid = 1 / (1 + np.exp(-v))
        raw = sigmoid * width + _STRETCH_LOW
        h = np.clip(raw, 0, 1)
        gradient = ((floor + h) * scales @ gram - target) * scales * scale
        progress = step / steps
        if progress > _WARM_UP:
            beta = 2 + 18 * (1 - (progress - _WARM_UP) / (1 - _WARM_UP))
            away = 2 * h - 1
            gradient -= 0.02 * beta * 2 * np.sign(away) * np.abs(away) ** (beta - 1)
        gradient *= moves * ((raw > 0) & (raw < 1)) * sigmoid * (1 - sigmoid) * width
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * np.square(gradient)
        rate = 0.05 * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        v = v - np.float32(rate) * first / (np.sqrt(second) + 1e-10)
    end = np.clip(1 / (1 + np.exp(-v)) * width + _STRETCH_LOW, 0, 1)
    return np.asarray(end, dtype=np.float32)


def _row_loss(weight: Floats, target: Floats, gram: Floats) -> NDArray[np.float64]:
    """Return (G, N / G): what each output loses, but for a constant of its own."""
    return np.asarray(
        np.einsum("gnk,gnk->gn", weight @ gram - 2 * target, weight), dtype=np.float64
    )


def _input_rows(
    layer: Layer, shape: tuple[int, ...], data: Array, random: np.random.Generator
) -> Floats:
    """Return (G, S, K): some of the inputs that the layer multiplies, group by group."""
    if layer.node.op != "Conv":
        rows = np.asarray(data, np.float32).reshape(1, -1, data.shape[-1])  # (1, S, K)
        return rows[:, _some(rows.shape[1], random)]
    groups = layer.node.whole("group", 1)
    places = _patches(layer, shape, np.asarray(data, np.float32))  # (B, C, *out, *kernel)
    channels = places.shape[1]
    # Channels first, then all places, then the kernel.
    first = np.moveaxis(places, 1, 0).reshape(channels, -1, int(np.prod(shape[2:])))
    some = first[:, _some(first.shape[1], random)]  # (C, S, kernel)
    made = some.reshape(groups, channels // groups, *some.shape[1:])
    return np.ascontiguousarray(made.transpose(0, 2, 1, 3)).reshape(groups, made.shape[2], -1)


def _patches(layer: Layer, shape: tuple[int, ...], data: Floats) -> Floats:
    """Return a view (B, C, *out, *kernel) of what a convolution sees at each place."""
    n = len(shape) - 2
    pads = layer.node.wholes("pads", (0,) * (2 * n))
    strides = layer.node.wholes("strides", (1,) * n)
    dilations = layer.node.wholes("dilations", (1,) * n)
    widths = [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)]
    reach = tuple((k - 1) * d + 1 for k, d in zip(shape[2:], dilations, strict=True))
    axes = tuple(range(2, 2 + n))
    seen = np.lib.stride_tricks.sliding_window_view(np.pad(data, widths), reach, axis=axes)
    steps = tuple(slice(None, None, s) for s in strides)
    inside = tuple(slice(None, None, d) for d in dilations)
    return np.asarray(seen[(slice(None), slice(None), *steps, *inside)])


def _some(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    if n <= _ROWS_OF_EXAMPLE:
        return np.arange(n)
    return np.sort(random.choice(n, _ROWS_OF_EXAMPLE, replace=False)).astype(np.int64)
