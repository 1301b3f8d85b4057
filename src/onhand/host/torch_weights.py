"""A model's weights as torch tensors: fixed, as a teacher's are, or trained."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.host.model import Model
from onhand.host.rounding import round_matrix

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FixedWeights", "TrainedWeights", "rounded_through"]

# From this share of zeros on, they are taken for what pruning has made.
_PRUNED = 0.1


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
    """All of a model's weights in torch, each with a gradient. See `TorchWeights`.

    Where many weights of a matrix are zero, pruning has made them so: `settle` keeps them zero.
    """

    def __init__(self, model: Model, forms: Mapping[str, GroupFormat] | None = None) -> None:
        """Read every weight.

        Args:
            model: the source; it stays as it is.
            forms: matrices that the model is to work with as they are stored, by name; None or
                absent for those that are not rounded.
        """
        import torch

        self.decoder: Decoder = model.decoder
        self.tensors: dict[str, Tensor] = {}
        self._forms: Mapping[str, GroupFormat] = forms or {}
        self._rounded: dict[str, Tensor] = {}
        self._zeros: dict[str, Tensor] = {}
        vectors = model.decoder.vectors()
        for name in model.decoder.tensors():
            read = model.weights.vector if name in vectors else model.weights.matrix
            array = np.array(read(name), dtype=np.float32)
            self.tensors[name] = torch.from_numpy(array).requires_grad_()
            if array.ndim == 2 and np.mean(array == 0) >= _PRUNED:
                self._zeros[name] = torch.from_numpy(array == 0)

    def settle(self) -> None:
        """Make zero again what was zero at first; after each step of training."""
        import torch

        with torch.no_grad():
            for name, zeros in self._zeros.items():
                self.tensors[name].masked_fill_(zeros, 0.0)

    def matrix(self, name: str) -> "Tensor":
        """See `TorchWeights`; of a matrix that is stored as codes, what they stand for."""
        if (form := self._forms.get(name)) is None:
            return self.tensors[name]
        if name not in self._rounded:
            self._rounded[name] = rounded_through(self.tensors[name], form)
        return self._rounded[name]

    def vector(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        return self.tensors[name]

    def refresh(self) -> None:
        """Round again when it is next asked for: the weights were moved."""
        self._rounded = {}

    def arrays(self) -> dict[str, FloatArray]:
        """Return copies of all weights by name; of those stored as codes, what they stand for."""
        found = {name: tensor.detach().numpy().copy() for name, tensor in self.tensors.items()}
        for name, form in self._forms.items():
            found[name] = round_matrix(found[name], form, method="rtn").tensor.dequantize()
        return found


def rounded_through(weight: "Tensor", form: GroupFormat) -> "Tensor":
    """Round a matrix to nearest, symmetric; the gradient passes as if nothing was rounded.

    Rounded once more by the same format, or by any method that keeps what has no error, it stays
    as it is: the largest weight of a group stands on a code already.

    Args:
        weight: (N, K) float32.
        form: bits and group size.

    Returns:
        (N, K) float32: what `round_matrix` with "rtn" stores.

    Source:
        Straight-through estimator: arXiv:1308.3432.
    """
    import torch
    from torch.nn import functional

    n, k = weight.shape
    width = form.n_groups(k) * form.group_size
    with torch.no_grad():
        groups = functional.pad(weight, (0, width - k)).view(n, -1, form.group_size)  # (N, G, g)
        extreme = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))  # (N, G, 1)
        scales = (extreme / -form.middle).half().float()
        finer = torch.where(scales == 0, 0.0, 1 / scales)
        codes = (groups * finer).round_().clamp_(-form.middle, form.top - form.middle)
        stored = (codes * scales).view(n, width)[:, :k]  # (N, K)
    # Adds nothing but the gradient.
    return stored + (weight - weight.detach())
