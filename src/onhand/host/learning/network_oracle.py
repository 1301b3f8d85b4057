"""What PyTorch computes of a network's lesson. Import it when needed."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onhand.core.arrays import FloatArray
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.host.learning.losses import CLASS_INPUTS
from onhand.host.learning.network_graph import with_plain_matrices
from onhand.host.networks.graph import Graph
from onhand.host.networks.torch_graph import TorchGraph, tensors_of

__all__ = ["TorchLesson"]


class TorchLesson:
    """A lesson's forward graph in PyTorch, with autograd for its gradients."""

    def __init__(self, forward: Graph, trainables: Sequence[str]) -> None:
        """Take a graph to the logits.

        Args:
            forward: its inputs are the network's, or `latent`, and the trainables.
            trainables: names of those.

        Raises:
            InputError: if it has an operator that is not known here.
        """
        self._module = TorchGraph(with_plain_matrices(forward)).eval()
        self._module.requires_grad_(False)
        self._logits = forward.output_names()[0]
        self._trainables = tuple(trainables)

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Compute a loss and its gradients; see `Teachable.teach`."""
        variables = {
            name: torch.from_numpy(np.array(values[name])).requires_grad_()
            for name in self._trainables
        }
        given = tensors_of(feeds)
        own = {name: tensor for name, tensor in given.items() if name not in CLASS_INPUTS}
        logits = self._module({**own, **variables})[self._logits]
        losses, loss = _loss(logits, given)
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            loss, list(variables.values()), allow_unused=True
        )
        gradients: dict[str, FloatArray] = {
            name: np.zeros_like(values[name]) if gradient is None else gradient.numpy()
            for name, gradient in zip(self._trainables, found, strict=True)
        }
        outputs = {"losses": losses.detach().numpy(), "logits": logits.detach().numpy()}
        return Taught(loss=float(loss.detach()), outputs=outputs, gradients=gradients)


def _loss(logits: Tensor, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return each example's loss, and the whole one: see `onhand.core.lesson`."""
    logs = functional.log_softmax(logits, dim=1)  # (B, C)
    losses = functional.cross_entropy(logits, given["labels"], reduction="none")  # (B,)
    past = (logits - given["past_logits"]).square().mean(dim=1)  # (B,)
    soft = -(given["past_classes"] * logs).sum(dim=1)  # (B,)
    terms = given["weights"] * losses + given["past_weights"] * past + given["soft_weights"] * soft
    return losses, terms.sum()
