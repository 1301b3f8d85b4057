"""What layers of a decoder share in torch, however their matrices are stored and attended to."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from onhand.core.decoder import Decoder

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Linear", "normed", "rms_normed", "rotated", "soft_capped", "torch_layer"]

Vectors = Callable[[str], "Tensor"]
"""A norm or bias by its name in `Decoder.vectors`."""


class Linear(Protocol):
    """A product with one of a layer's matrices."""

    def __call__(self, name: str, inputs: "Tensor", *, bias: bool) -> "Tensor":
        """Return (..., N) of inputs (..., K).

        Args:
            name: of the matrix, within its layer.
            inputs: of it.
            bias: whether its bias is added.
        """
        ...


def torch_layer(
    decoder: Decoder,
    i: int,
    x: "Tensor",
    *,
    linear: Linear,
    attend: "Callable[[Tensor], Tensor]",
    vector: Vectors,
) -> "Tensor":
    """Run one layer.

    Args:
        decoder: the model's description.
        i: number of the layer.
        x: (..., T, D).
        linear: multiplies by the layer's matrices.
        attend: queries, keys and values, (..., T, query_width + 2 kv_width), to what they mix,
            (..., T, query_width).
        vector: gives norms by name.

    Returns:
        (..., T, D).
    """
    at = f"layers.{i}."

    def norm(name: str, value: "Tensor") -> "Tensor":
        return normed(decoder, f"{at}{name}", value, vector)

    qkv = linear("qkv", norm("attention_norm", x), bias=decoder.qkv_bias)
    attention = linear("out", attend(qkv), bias=decoder.out_bias)
    if decoder.post_norm:
        attention = norm("attention_post_norm", attention)
    x = x + attention
    inner = linear(decoder.inner, norm("mlp_norm", x), bias=decoder.mlp_bias)
    activate = _activation(decoder.activation)
    if decoder.gated:
        gate, up = inner.chunk(2, dim=-1)  # (..., T, mlp_width) each
        inner = activate(gate) * up
    else:
        inner = activate(inner)
    down = linear("down", inner, bias=decoder.mlp_bias)
    if decoder.post_norm:
        down = norm("mlp_post_norm", down)
    return x + down


def normed(decoder: Decoder, name: str, x: "Tensor", vector: Vectors) -> "Tensor":
    """Return (..., D) after the model's kind of norm.

    Args:
        decoder: says which.
        name: of its weight in `Decoder.vectors`.
        x: (..., D).
        vector: gives weight and bias.
    """
    from torch.nn import functional

    if decoder.norm == "rms":
        return rms_normed(x, vector(name), decoder.norm_epsilon)
    bias = vector(f"{name}_bias")
    return functional.layer_norm(x, (x.shape[-1],), vector(name), bias, decoder.norm_epsilon)


def rms_normed(x: "Tensor", weight: "Tensor", epsilon: float) -> "Tensor":
    """Return (..., D) divided by its root mean square, times a weight (D,)."""
    from torch.nn import functional

    return functional.rms_norm(x, (x.shape[-1],), weight, epsilon)


def rotated(x: "Tensor", cosines: "Tensor", sines: "Tensor") -> "Tensor":
    """Return (..., head_dim) with its first pairs of values turned; tables end in (..., half)."""
    import torch

    half = cosines.shape[-1]
    low, high, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([low * cosines - high * sines, high * cosines + low * sines, rest], dim=-1)


def soft_capped(x: "Tensor", cap: float | None) -> "Tensor":
    """Return values that go no further than a cap; as they are where there is none."""
    return x if cap is None else (x / cap).tanh() * cap


def _activation(name: str) -> "Callable[[Tensor], Tensor]":
    from torch.nn import functional

    known: dict[str, Callable[[Tensor], Tensor]] = {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    }
    return known[name]
