"""Keras's layers as ONNX operators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from onhand.host.networks.graph import Array, Attribute
from onhand.host.networks.sources.keras_activations import activated, bounded, number
from onhand.host.networks.sources.keras_step import KerasStep
from onhand.host.networks.sources.layers import (
    concatenate,
    convolve,
    deconvolve,
    dense,
    pad,
    pool,
    reduce,
    reshape,
    resize,
    softmax,
    transpose,
)
from onhand.host.networks.sources.layout import Tensor

__all__ = ["LAYERS"]


def _kernel(weight: Array) -> Array:
    """Return (..., K, N) as (N, K, ...)."""
    return weight.transpose(weight.ndim - 1, weight.ndim - 2, *range(weight.ndim - 2))


def _depth_kernel(weight: Array) -> Array:
    """Return (..., K, multiplier) as (K * multiplier, 1, ...)."""
    whole = weight.reshape(*weight.shape[:-2], 1, -1)
    return _kernel(whole)


def _convolution(step: KerasStep) -> Tensor:
    weight = _kernel(step.weights[0])
    made = convolve(
        step.weaver, step.x, weight, step.bias(1), step.window(weight.shape[2:]), step.shape,
        group=step.whole("groups", 1),
    )  # fmt: skip
    return activated(step, made, step.config.get("activation"))


def _depthwise(step: KerasStep) -> Tensor:
    weight = _depth_kernel(step.weights[0])
    made = convolve(
        step.weaver, step.x, weight, step.bias(1), step.window(weight.shape[2:]), step.shape,
        group=step.x.size(-1),
    )  # fmt: skip
    return activated(step, made, step.config.get("activation"))


def _separable(step: KerasStep) -> Tensor:
    weaver, weight = step.weaver, _depth_kernel(step.weights[0])
    middle = (*step.shape[:-1], weight.shape[0])
    window = step.window(weight.shape[2:])
    deep = convolve(weaver, step.x, weight, None, window, middle, group=step.x.size(-1))
    points = step.weights[1].reshape(step.weights[1].shape[-2:])
    made = dense(weaver, deep, points, step.bias(2), step.shape)
    return activated(step, made, step.config.get("activation"))


def _deconvolution(step: KerasStep) -> Tensor:
    weight = step.weights[0]  # (..., N, K)
    if step.config.get("output_padding") is not None:
        raise step.error("has an output_padding of its own, which is not known here")
    turned = _kernel(weight)  # (K, N, ...)
    window = step.window(turned.shape[2:])
    made = deconvolve(step.weaver, step.x, turned, step.bias(1), window, step.shape)
    return activated(step, made, step.config.get("activation"))


def _dense(step: KerasStep) -> Tensor:
    made = dense(step.weaver, step.x, step.weights[0], step.bias(1), step.shape)
    return activated(step, made, step.config.get("activation"))


def _last_axis(step: KerasStep) -> None:
    axis = step.config.get("axis", -1)
    axes = [axis] if isinstance(axis, int) else list(axis)
    if [a % step.x.rank for a in axes] != [step.x.rank - 1]:
        raise step.error(f"works along axis {axis} of {step.x.shape}, must be the last")


def _gain_and_bias(step: KerasStep, n: int) -> tuple[Array, Array, list[Array]]:
    """Return gain and bias, ones and zeros where the layer has none, and what is left."""
    left = list(step.weights)
    gain = left.pop(0) if step.config.get("scale", True) else np.ones(n, dtype=np.float32)
    bias = left.pop(0) if step.config.get("center", True) else np.zeros(n, dtype=np.float32)
    return gain, bias, left


def _batch_norm(step: KerasStep) -> Tensor:
    _last_axis(step)
    gain, bias, (mean, variance) = _gain_and_bias(step, step.x.size(-1))
    weaver = step.weaver
    pairs = ((gain, "gain"), (bias, "bias"), (mean, "mean"), (variance, "variance"))
    names = [weaver.weight(array, role) for array, role in pairs]
    attributes: dict[str, Attribute] = {"epsilon": step.real("epsilon", 1e-3)}
    name = weaver.one("BatchNormalization", [weaver.first(step.x), *names], attributes)
    return weaver.as_first(name, step.shape)


def _layer_norm(step: KerasStep) -> Tensor:
    _last_axis(step)
    gain, bias, _ = _gain_and_bias(step, step.x.size(-1))
    weaver = step.weaver
    names = [weaver.last(step.x), weaver.weight(gain, "gain"), weaver.weight(bias, "bias")]
    attributes: dict[str, Attribute] = {"axis": -1, "epsilon": step.real("epsilon", 1e-3)}
    return weaver.as_last(weaver.one("LayerNormalization", names, attributes), step.shape)


def _activation(step: KerasStep) -> Tensor:
    return activated(step, step.x, step.config.get("activation"))


def _relu(step: KerasStep) -> Tensor:
    weaver, x = step.weaver, step.x
    if step.real("threshold"):
        raise step.error("has a threshold, which is not known here")
    high, slope = step.config.get("max_value"), step.real("negative_slope")
    if high is not None and not slope:
        return bounded(weaver, x, 0.0, float(high))
    if slope:
        x = weaver.elementwise("LeakyRelu", [x], x.shape, {"alpha": slope})
    else:
        x = weaver.elementwise("Relu", [x], x.shape)
    return x if high is None else weaver.elementwise("Min", [x, number(weaver, high)], x.shape)


def _leaky(step: KerasStep) -> Tensor:
    slope = step.real("negative_slope", step.real("alpha", 0.3))
    return step.weaver.elementwise("LeakyRelu", [step.x], step.shape, {"alpha": slope})


def _elu(step: KerasStep) -> Tensor:
    attributes: dict[str, Attribute] = {"alpha": step.real("alpha", 1.0)}
    return step.weaver.elementwise("Elu", [step.x], step.shape, attributes)


def _prelu(step: KerasStep) -> Tensor:
    slope = step.weaver.constant(step.weights[0])
    return step.weaver.elementwise("PRelu", [step.x, slope], step.shape)


def _softmax(step: KerasStep) -> Tensor:
    return softmax(step.weaver, step.x, "Softmax", step.whole("axis", -1))


def _pool(op: str) -> Callable[[KerasStep], Tensor]:
    return lambda step: pool(
        step.weaver, step.x, op, step.window(step.each("pool_size", 2)), step.shape
    )


def _global(op: str) -> Callable[[KerasStep], Tensor]:
    def translate(step: KerasStep) -> Tensor:
        step.check_order()
        axes = range(1, step.x.rank - 1)
        keep = bool(step.config.get("keepdims", False))
        return reduce(step.weaver, step.x, op, axes, step.shape, keep=keep)

    return translate


def _same(step: KerasStep) -> Tensor:
    return step.x


def _shaped(step: KerasStep) -> Tensor:
    return reshape(step.weaver, step.x, step.shape)


def _permute(step: KerasStep) -> Tensor:
    return transpose(step.weaver, step.x, (0, *step.config["dims"]))


def _repeat(step: KerasStep) -> Tensor:
    weaver = step.weaver
    B, D = step.x.shape
    one = reshape(weaver, step.x, (B, 1, D))
    times = weaver.weight(np.asarray([1, step.whole("n", 1), 1], dtype=np.int64), "repeats")
    return weaver.as_last(weaver.one("Tile", [weaver.last(one), times]), step.shape)


def _pairs(given: Any, n: int) -> list[tuple[int, int]]:
    """Return (before, after) for each dimension of place, as Keras takes them in any form."""
    if isinstance(given, int):
        return [(given, given)] * n
    if n == 1:
        return [(int(given[0]), int(given[1]))]
    return [(p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in given]


def _zeros(step: KerasStep) -> Tensor:
    step.check_order()
    amounts = _pairs(step.config["padding"], step.x.rank - 2)
    return pad(step.weaver, step.x, [(0, 0), *amounts, (0, 0)], step.shape)


def _cropping(step: KerasStep) -> Tensor:
    step.check_order()
    weaver, x = step.weaver, step.x
    amounts = _pairs(step.config["cropping"], x.rank - 2)
    spans = [(before, x.size(i + 1) - after) for i, (before, after) in enumerate(amounts)]
    begins, ends = zip(*spans, strict=True)
    axes = range(2, x.rank)
    names = [
        weaver.weight(np.asarray(numbers, dtype=np.int64), role)
        for numbers, role in ((begins, "begins"), (ends, "ends"), (axes, "axes"))
    ]
    return weaver.as_first(weaver.one("Slice", [weaver.first(x), *names]), step.shape)


def _upsampling(step: KerasStep) -> Tensor:
    step.check_order()
    mode = step.config.get("interpolation", "nearest")
    if mode not in {"bilinear", "nearest"}:
        raise step.error(f"interpolates by {mode!r}, which is not known here")
    kind = "linear" if mode == "bilinear" else "nearest"
    return resize(step.weaver, step.x, step.shape, mode=kind, coordinates="half_pixel")


def _operands(step: KerasStep) -> list[Tensor]:
    """Return what an operator is called with: values, and numbers as constants."""
    found, values = [], iter(step.inputs)
    given = step.args[0] if len(step.args) == 1 and isinstance(step.args[0], list) else step.args
    for item in [*given, *step.kwargs.values()]:
        if isinstance(item, Mapping) and item.get("class_name") == "__keras_tensor__":
            found.append(next(values))
        elif isinstance(item, int | float) and not isinstance(item, bool):
            found.append(number(step.weaver, item))
    return found


def _merged(op: str) -> Callable[[KerasStep], Tensor]:
    def translate(step: KerasStep) -> Tensor:
        first, *rest = _operands(step)
        for other in rest:
            first = step.weaver.elementwise(op, [first, other], step.shape)
        return first

    return translate


def _average(step: KerasStep) -> Tensor:
    return step.weaver.elementwise("Mean", step.inputs, step.shape)


def _concatenation(step: KerasStep) -> Tensor:
    axis = int(step.kwargs.get("axis", step.config.get("axis", -1)))
    return concatenate(step.weaver, step.inputs, axis, step.shape)


def _rescaling(step: KerasStep) -> Tensor:
    weaver = step.weaver
    scale, offset = (
        weaver.constant(np.asarray(step.config.get(key, default), dtype=np.float32))
        for key, default in (("scale", 1.0), ("offset", 0.0))
    )
    scaled = weaver.elementwise("Mul", [step.x, scale], step.shape)
    return weaver.elementwise("Add", [scaled, offset], step.shape)


def _normalization(step: KerasStep) -> Tensor:
    _last_axis(step)
    given = [step.config.get("mean"), step.config.get("variance")]
    numbers: Sequence[Any] = given if given[0] is not None else step.weights[:2]
    mean, variance = (np.asarray(part, dtype=np.float32).reshape(-1) for part in numbers)
    if step.config.get("invert"):
        raise step.error("is inverted, which is not known here")
    weaver = step.weaver
    spread = np.maximum(np.sqrt(variance), np.float32(1e-7))
    x = weaver.elementwise("Sub", [step.x, weaver.constant(mean)], step.shape)
    return weaver.elementwise("Div", [x, weaver.constant(spread)], step.shape)


def _embedding(step: KerasStep) -> Tensor:
    weaver = step.weaver
    ids = weaver.one("Cast", [weaver.last(step.x)], {"to": 7})
    table = weaver.weight(step.weights[0], "table")
    return weaver.as_last(weaver.one("Gather", [table, ids], {"axis": 0}), step.shape)


def _unary(op: str) -> Callable[[KerasStep], Tensor]:
    return lambda step: step.weaver.elementwise(op, [step.x], step.shape)


_PLACES: Final = ("1D", "2D", "3D")


def _for_all(stem: str, rule: Callable[[KerasStep], Tensor]) -> dict[str, Callable[..., Tensor]]:
    return {stem.format(n): rule for n in _PLACES}


LAYERS: Final[Mapping[str, Callable[[KerasStep], Tensor]]] = {
    **_for_all("AveragePooling{}", _pool("AveragePool")),
    **_for_all("Conv{}", _convolution),
    **_for_all("Conv{}Transpose", _deconvolution),
    **_for_all("Cropping{}", _cropping),
    **_for_all("DepthwiseConv{}", _depthwise),
    **_for_all("GlobalAveragePooling{}", _global("ReduceMean")),
    **_for_all("GlobalMaxPooling{}", _global("ReduceMax")),
    **_for_all("MaxPooling{}", _pool("MaxPool")),
    **_for_all("SeparableConv{}", _separable),
    **_for_all("SpatialDropout{}", _same),
    **_for_all("ZeroPadding{}", _zeros),
    "Activation": _activation,
    "ActivityRegularization": _same,
    "Add": _merged("Add"),
    "AlphaDropout": _same,
    "Average": _average,
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenation,
    "Dense": _dense,
    "Divide": _merged("Div"),
    "Dropout": _same,
    "ELU": _elu,
    "Embedding": _embedding,
    "Exp": _unary("Exp"),
    "Flatten": _shaped,
    "GaussianDropout": _same,
    "GaussianNoise": _same,
    "LayerNormalization": _layer_norm,
    "LeakyReLU": _leaky,
    "Maximum": _merged("Max"),
    "Minimum": _merged("Min"),
    "Multiply": _merged("Mul"),
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Permute": _permute,
    "ReLU": _relu,
    "Relu": _unary("Relu"),
    "RepeatVector": _repeat,
    "Rescaling": _rescaling,
    "Reshape": _shaped,
    "Sigmoid": _unary("Sigmoid"),
    "Softmax": _softmax,
    "Sqrt": _unary("Sqrt"),
    "Subtract": _merged("Sub"),
    "Tanh": _unary("Tanh"),
    "TrueDivide": _merged("Div"),
    "UpSampling2D": _upsampling,
}
"""Class of a layer, or of an operation between layers -> its translation."""
