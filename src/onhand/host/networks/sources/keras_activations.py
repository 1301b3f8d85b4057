"""Keras's activations as ONNX operators."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from onhand.host.networks.graph import Attribute
from onhand.host.networks.sources.keras_step import KerasStep
from onhand.host.networks.sources.layers import gelu, softmax
from onhand.host.networks.sources.layout import Tensor, Weaver

__all__ = ["activated", "bounded", "number"]

_PLAIN: Final[Mapping[str, tuple[str, dict[str, Attribute]]]] = {
    "elu": ("Elu", {}),
    "exponential": ("Exp", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_silu": ("HardSwish", {}),
    "hard_swish": ("HardSwish", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "mish": ("Mish", {}),
    "relu": ("Relu", {}),
    "selu": ("Selu", {}),
    "sigmoid": ("Sigmoid", {}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "tanh": ("Tanh", {}),
}


def number(weaver: Weaver, value: float) -> Tensor:
    """Return a number as a constant."""
    return weaver.constant(np.asarray(value, dtype=np.float32))


def activated(step: KerasStep, x: Tensor, given: Any) -> Tensor:
    """Return a value behind an activation.

    Args:
        step: the layer.
        x: the value.
        given: the activation's name, or what Keras writes of it; None for none.

    Returns:
        The value.

    Raises:
        SourceError: if it is not known here.
    """
    if isinstance(given, Mapping):
        inner = given.get("config")
        given = inner if isinstance(inner, str) else given.get("class_name")
    weaver = step.weaver
    if given is None or given == "linear":
        return x
    if given in _PLAIN:
        op, attributes = _PLAIN[given]
        if op == "Mish":
            # One operator since opset 18 only.
            inner = weaver.elementwise("Softplus", [x], x.shape)
            return weaver.elementwise(
                "Mul", [x, weaver.elementwise("Tanh", [inner], x.shape)], x.shape
            )
        return weaver.elementwise(op, [x], x.shape, attributes)
    if given in {"silu", "swish"}:
        gate = weaver.elementwise("Sigmoid", [x], x.shape)
        return weaver.elementwise("Mul", [x, gate], x.shape)
    if given == "relu6":
        return bounded(weaver, x, 0.0, 6.0)
    if given in {"softmax", "log_softmax"}:
        return softmax(weaver, x, "Softmax" if given == "softmax" else "LogSoftmax", -1)
    if given == "gelu":
        return gelu(weaver, x, is_tanh=False)
    raise step.error(f"has activation {str(given)[:80]!r}, which is not known here")


def bounded(weaver: Weaver, x: Tensor, low: float, high: float) -> Tensor:
    """Return a value kept between two numbers."""
    return weaver.elementwise("Clip", [x, number(weaver, low), number(weaver, high)], x.shape)
