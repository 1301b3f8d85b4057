"""One Keras layer on its way into a graph: what its translation may ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.graph import Array
from onhand.host.networks.sources.layers import Window
from onhand.host.networks.sources.layout import Shape, Tensor, Weaver

__all__ = ["KerasStep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasStep:
    """One call of a layer.

    Attributes:
        kind: its class.
        name: of the layer.
        weaver: the graph.
        inputs: the values that it reads, in order.
        args: what it is called with, as its configuration has it: values and numbers.
        kwargs: likewise, by name.
        config: its own fields.
        weights: float32, in Keras's order.
        shape: of the result.
    """

    kind: str
    name: str
    weaver: Weaver
    inputs: Sequence[Tensor]
    args: Any
    kwargs: Mapping[str, Any]
    config: Mapping[str, Any]
    weights: Sequence[Array]
    shape: Shape

    @property
    def x(self) -> Tensor:
        """The first input."""
        if not self.inputs:
            raise self.error("reads nothing")
        return self.inputs[0]

    def whole(self, key: str, default: int = 0) -> int:
        """Return a whole number of its configuration."""
        value = self.config.get(key, default)
        return default if value is None else int(value)

    def real(self, key: str, default: float = 0.0) -> float:
        """Return a number of its configuration; a list of one counts as it."""
        value = self.config.get(key, default)
        return default if value is None else float(np.ravel(np.asarray(value, dtype=np.float64))[0])

    def each(self, key: str, default: int = 1) -> tuple[int, ...]:
        """Return a number for each dimension of place, where one may stand for all."""
        n, value = self.x.rank - 2, self.config.get(key, default)
        found = (value,) * n if isinstance(value, int) else tuple(int(v) for v in value)
        if len(found) != n:
            raise self.error(f"has {key} {found} for {self.x.shape}")
        return found

    def check_order(self) -> None:
        """Refuse a layer with channels first.

        Raises:
            SourceError: if it is one.
        """
        if self.config.get("data_format", "channels_last") not in {None, "channels_last"}:
            raise self.error("has channels first; save it with channels last")

    def window(self, kernel: tuple[int, ...], *, strides: str = "strides") -> Window:
        """Return how its kernel moves.

        Raises:
            SourceError: if the padding, or the order of sizes, is not known here.
        """
        self.check_order()
        padding = self.config.get("padding", "valid")
        dilations = self.each("dilation_rate")
        pads = None
        if padding == "causal":
            pads = ((kernel[0] - 1) * dilations[0], 0)
        elif padding not in {"same", "valid"}:
            raise self.error(f"has padding {padding!r}")
        steps = self.each(strides) if self.config.get(strides) is not None else kernel
        return Window(
            kernel=kernel, strides=steps, dilations=dilations, same=padding == "same", pads=pads
        )

    def bias(self, index: int) -> Array | None:
        """Return the weight at an index where the layer has a bias."""
        return self.weights[index] if self.config.get("use_bias", True) else None

    def error(self, what: str) -> SourceError:
        """Return an error that names the layer."""
        return SourceError(f"layer {self.name!r} ({self.kind}) {what}")
