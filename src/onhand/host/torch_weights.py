"""A model's weights as torch tensors: fixed, as a teacher's are, or trained."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.host.model import Model

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FixedWeights", "TrainedWeights"]


class FixedWeights:
    """A model's weights in torch, read when they are needed. See `TorchWeights`."""

    def __init__(self, model: Model) -> None:
        """Prepare, without reading anything.

        Args:
            model: the source.
        """
        self.decoder: Decoder = model.decoder
        self._model = model
        self._kept: dict[str, Tensor] = {}

    def matrix(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        return self._find(name, self._model.weights.matrix)

    def vector(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        return self._find(name, self._model.weights.vector)

    def _find(self, name: str, read: Callable[[str], np.ndarray]) -> "Tensor":
        import torch

        if name not in self._kept:
            self._kept[name] = torch.from_numpy(np.array(read(name), dtype=np.float32))
        return self._kept[name]


class TrainedWeights:
    """All of a model's weights in torch, each with a gradient. See `TorchWeights`."""

    def __init__(self, model: Model) -> None:
        """Read every weight.

        Args:
            model: the source; it stays as it is.
        """
        import torch

        self.decoder: Decoder = model.decoder
        self.tensors: dict[str, Tensor] = {}
        vectors = model.decoder.vectors()
        for name in model.decoder.tensors():
            read = model.weights.vector if name in vectors else model.weights.matrix
            array = np.array(read(name), dtype=np.float32)
            self.tensors[name] = torch.from_numpy(array).requires_grad_()

    def matrix(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        return self.tensors[name]

    def vector(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        return self.tensors[name]

    def arrays(self) -> dict[str, FloatArray]:
        """Return copies of all weights, by name."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.tensors.items()}
