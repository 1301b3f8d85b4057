"""What the loss gains when a channel goes, told by gradients."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.dependencies import Dependencies
from onhand.host.networks.samples import Samples

if TYPE_CHECKING:
    from onhand.host.networks.torch_graph import TorchGraph

__all__ = ["by_taylor"]


def by_taylor(
    found: Dependencies, samples: Samples, *, task: str, seed: int
) -> NDArray[np.float64]:
    """Return the mean square of the first-order change of the loss without each unit.

    The weights that meet a channel, times their gradients, add up to the channel's activations
    times theirs. The loss of classifiers is the cross-entropy with the labels, or where nobody
    knows them with classes drawn from the network's own answers; of other networks a random sum
    of the outputs, which in the mean over draws gives how far the outputs move.

    Args:
        found: of the graph.
        samples: the examples; at least one.
        task: of the network, see `onhand.core.network.TASKS`.
        seed: of what is drawn.

    Returns:
        (elements,), by the number of a unit.

    Raises:
        InputError: if there are no examples, or a label is no class of the network.
        EngineError: if torch cannot run the graph.

    Source:
        Importance Estimation for Neural Network Pruning, arXiv:1906.10771, equation 9.
    """
    import torch

    from onhand.host.networks.torch_graph import TorchGraph, tensors_of

    if not len(samples):
        raise InputError("importance 'taylor' needs examples: give some for calibration")
    module = TorchGraph(found.graph)
    module.train_only(sorted({consumer.weight for consumer in found.consumers}))
    output = found.graph.output_names()[0]
    random = torch.Generator().manual_seed(seed)
    scores = np.zeros(len(found.roots), dtype=np.float64)
    for i in range(len(samples)):
        module.zero_grad()
        rows = module(tensors_of(samples.feeds[i]))[output].float()
        if task.endswith("classification"):
            rows = rows.reshape(-1, rows.shape[-1])
            drawn = torch.multinomial(rows.detach().softmax(-1), 1, generator=random)[:, 0]
            label = None if samples.labels is None else samples.labels[i]
            if label is not None and not 0 <= label < rows.shape[-1]:
                raise InputError(f"a label is {label}, the network has {rows.shape[-1]} classes")
            wanted = drawn if label is None else torch.full_like(drawn, label)
            loss = torch.nn.functional.cross_entropy(rows, wanted)
        else:
            signs = torch.randint(0, 2, rows.shape, generator=random) * 2 - 1
            loss = (rows * signs).sum()
        # torch has no types for it.
        loss.backward()  # type: ignore[no-untyped-call]
        scores += np.square(_changes(found, module))
    return scores / len(samples)


def _changes(found: Dependencies, module: "TorchGraph") -> NDArray[np.float64]:
    """Return the sum of weight times gradient over all weights that meet each unit."""
    changes = np.zeros(len(found.roots), dtype=np.float64)
    for consumer in found.consumers:
        weight = module.weight(consumer.weight)
        if weight.grad is None:
            continue
        product = (weight.detach() * weight.grad).double().numpy()
        # The first axis of a convolution in groups is the outputs of all groups in turn.
        parts = product.reshape(consumer.groups, -1, *product.shape[1:])
        axis = consumer.weight_axis % product.ndim + 1
        others = tuple(i for i in range(1, parts.ndim) if i != axis)
        np.add.at(changes, found.roots[consumer.labels], parts.sum(axis=others).reshape(-1))
    return changes
