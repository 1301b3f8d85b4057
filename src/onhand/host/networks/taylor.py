"""What the loss gains when a channel goes, told by gradients."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.host.networks.dependencies import Dependencies
from onhand.host.networks.moments import Moments, find_layers
from onhand.host.networks.samples import Samples

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from onhand.host.networks.torch_graph import TorchGraph

__all__ = ["by_taylor"]

Numbers = NDArray[np.float64]


def by_taylor(
    found: Dependencies,
    samples: Samples,
    moments: Mapping[str, Moments],
    *,
    task: str,
    seed: int,
) -> Numbers:
    """Return the mean square of the first-order change of the loss without each unit.

    The weights that meet a channel, times their gradients, add up to the channel's activations
    times theirs; where something is to stand in for a channel, its mean is taken off. The loss of
    classifiers is the cross-entropy with the labels, or where nobody knows them with classes drawn
    from the network's own answers; of other networks a random sum of the outputs, which in the
    mean over draws gives how far the outputs move.

    Args:
        found: of the graph.
        samples: the examples; at least one.
        moments: of consumers, by the node's name; empty where nothing stands in for what goes.
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
    inside = [c.node.outputs[0] for c in found.consumers if c.node.name in moments]
    random = torch.Generator().manual_seed(seed)
    shares = _mean_shares(found, moments)
    scores = np.zeros(len(found.roots), dtype=np.float64)
    for i in range(len(samples)):
        module.zero_grad()
        made = module(tensors_of(samples.feeds[i]), also=inside)
        for name in inside:
            made[name].retain_grad()
        label = None if samples.labels is None else samples.labels[i]
        loss = _loss(made[output].float(), task, label, random)
        # torch has no types for it.
        loss.backward()  # type: ignore[no-untyped-call]
        scores += np.square(_changes(found, module, made, shares))
    return scores / len(samples)


def _loss(rows: "Tensor", task: str, label: int | None, random: "Generator") -> "Tensor":
    """Return what is differentiated for one example.

    Raises:
        InputError: if the label is no class of the network.
    """
    import torch

    if not task.endswith("classification"):
        signs = torch.randint(0, 2, rows.shape, generator=random) * 2 - 1
        return (rows * signs).sum()
    rows = rows.reshape(-1, rows.shape[-1])
    if label is not None and not 0 <= label < rows.shape[-1]:
        raise InputError(f"a label is {label}, the network has {rows.shape[-1]} classes")
    drawn = torch.multinomial(rows.detach().softmax(-1), 1, generator=random)[:, 0]
    wanted = drawn if label is None else torch.full_like(drawn, label)
    return torch.nn.functional.cross_entropy(rows, wanted)


def _mean_shares(found: Dependencies, moments: Mapping[str, Moments]) -> dict[str, Numbers]:
    """Return for each consumer what each input gives each output on average: (groups, N, K)."""
    return {
        layer.name: layer.matrices(found.graph.constants[layer.weight]).astype(np.float64)
        * moments[layer.name].mean[:, None]
        for layer in find_layers(found.graph)
        if layer.name in moments and layer.node.op != "ConvTranspose"
    }


def _changes(
    found: Dependencies,
    module: "TorchGraph",
    made: Mapping[str, "Tensor"],
    shares: Mapping[str, Numbers],
) -> Numbers:
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
        each = parts.sum(axis=others).reshape(-1)
        share, output = shares.get(consumer.node.name), made.get(consumer.node.outputs[0])
        if share is not None and output is not None and output.grad is not None:
            place = 1 if consumer.node.op == "Conv" else output.ndim - 1
            rest = tuple(i for i in range(output.ndim) if i != place)
            slope = output.grad.double().sum(dim=rest).numpy().reshape(consumer.groups, -1)
            each = each - np.einsum("gnk,gn->gk", share, slope).reshape(len(each), -1).sum(axis=1)
        np.add.at(changes, found.roots[consumer.labels], each)
    return changes
