"""How much each part of a decoder matters, and which parts go.

Source:
    By activation: Minitron, arXiv:2407.14679, here the size of what a part adds to the residual
    stream. By a first-order expansion of the loss: Molchanov and others, arXiv:1906.10771. Of
    layers, by block influence: ShortGPT, arXiv:2403.03853.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.device.engines import forward
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.torch_weights import TrainedWeights

__all__ = [
    "IMPORTANCES",
    "Importance",
    "block_influence",
    "importance_by_activation",
    "importance_by_magnitude",
    "importance_by_taylor",
    "norm_gains",
]

IMPORTANCES = ("activation", "magnitude", "taylor")
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much each part matters; larger is more, comparable across layers.

    Attributes:
        neurons: of each layer, (mlp_width,).
        groups: of each layer, (n_kv_heads,): a key/value head and its query heads.
        channels: of the residual stream, (D,).
    """

    neurons: tuple[Scores, ...]
    groups: tuple[Scores, ...]
    channels: Scores


def importance_by_magnitude(model: Model) -> Importance:
    """Judge parts by the squares of their weights: no text is needed.

    Args:
        model: the source.

    Returns:
        The squared norm of all weights that belong to a part.
    """
    sums = _Sums(model.decoder)
    for name in model.decoder.matrices():
        sums.add(name, np.square(model.weights.matrix(name), dtype=np.float64))
    return sums.importance()


def importance_by_activation(model: Model, moments: InputStatistics) -> Importance:
    """Judge parts by the mean square of what they add, on a text.

    Args:
        model: the source.
        moments: whole second moments of the calibration text.

    Returns:
        For a neuron E[a^2] |w|^2, a its activation and w its column of `down`; the same of the
        columns of `out` for a head; for a channel the mean square of the normed stream there.
    """
    decoder = model.decoder
    neurons: list[Scores] = []
    groups: list[Scores] = []
    channels = np.zeros(decoder.width)
    for i, layer in enumerate(decoder.layers):
        at = f"layers.{i}."
        neurons.append(_added(model, moments, f"{at}down"))
        groups.append(_added(model, moments, f"{at}out").reshape(layer.n_kv_heads, -1).sum(axis=1))
        for name, norm in ((f"{at}qkv", "attention_norm"), (f"{at}{decoder.inner}", "mlp_norm")):
            channels += _normed_energy(model, moments, name, f"{at}{norm}")
    channels += _normed_energy(model, moments, decoder.head, "final_norm")
    return Importance(neurons=tuple(neurons), groups=tuple(groups), channels=channels)


def importance_by_taylor(
    model: Model,
    sequences: Sequence[TokenArray],
    *,
    threads: int,
    advance: Callable[[float], None],
) -> Importance:
    """Judge parts by how much the loss on a text should change without them; needs torch.

    Args:
        model: the source; all of it, and its gradients, are in memory.
        sequences: the calibration text.
        threads: threads to use.
        advance: told the number of sequences finished since the last call.

    Returns:
        Mean over sequences of (sum of weight * gradient)^2 over the matrix at each part's end.
    """
    import torch
    from torch.nn import functional

    from onhand.host.torch_forward import torch_logits

    torch.set_num_threads(threads)
    decoder = model.decoder
    weights = TrainedWeights(model)
    ropes = forward.RopeCache(decoder, max(tokens.size for tokens in sequences))
    total = _Sums(decoder)
    for tokens in sequences:
        logits = torch_logits(weights, tokens[:-1], ropes)
        loss = functional.cross_entropy(logits, torch.from_numpy(tokens[1:]))
        torch.autograd.backward(loss)
        step = _Sums(decoder)
        for name in decoder.matrices():
            weight = weights.matrix(name)
            # A matrix that the text never reaches has no gradient.
            if weight.grad is not None:
                step.add(name, (weight.detach() * weight.grad).double().numpy(), ends=True)
                weight.grad = None
        total.add_squares(step)
        advance(1)
    return total.importance()


def block_influence(
    model: Model, sequences: Sequence[TokenArray], *, advance: Callable[[float], None]
) -> Scores:
    """Measure how far each layer turns the residual stream.

    Args:
        model: the source.
        sequences: the calibration text.
        advance: told the number of layers finished since the last call.

    Returns:
        (layers,): 1 - mean cosine of a token's stream before and after the layer.
    """
    decoder = model.decoder
    streams = [forward.embed(model.weights, tokens) for tokens in sequences]
    tables = forward.RopeCache(decoder, max(tokens.size for tokens in sequences))
    found = np.zeros(len(decoder.layers))
    n_tokens = sum(tokens.size for tokens in sequences)
    for i, layer in enumerate(decoder.layers):
        for number, before in enumerate(streams):
            memory = forward.LayerMemory.empty(layer, len(before))
            rope = tables.tables(i, len(before))
            after = forward.run_layer(model.weights, i, before, memory, start=0, rope=rope)
            found[i] += (1 - _cosines(before, after)).sum() / n_tokens
            streams[number] = after
        advance(1)
    return found


def norm_gains(
    model: Model, moments: InputStatistics, channels: NDArray[np.int64]
) -> dict[str, float]:
    """Return what makes good for the mean square of fewer channels: norm -> factor.

    Args:
        model: the source.
        moments: whole second moments of the calibration text.
        channels: the channels that stay.

    Returns:
        For each norm with root mean square statistics, the root of the share of the energy of the
        channels that stay, per channel; empty for layer norms, which also subtract a mean.
    """
    decoder = model.decoder
    if decoder.norm != "rms":
        return {}
    inputs = {"final_norm": decoder.head}
    for i in range(len(decoder.layers)):
        inputs[f"layers.{i}.attention_norm"] = f"layers.{i}.qkv"
        inputs[f"layers.{i}.mlp_norm"] = f"layers.{i}.{decoder.inner}"
    found: dict[str, float] = {}
    for norm, matrix in inputs.items():
        energy = _normed_energy(model, moments, matrix, norm)
        found[norm] = float(np.sqrt(energy[channels].mean() / max(energy.mean(), 1e-30)))
    return found


def _cosines(before: FloatArray, after: FloatArray) -> Scores:
    """Return the cosines of the angles between rows: (T, D) twice -> (T,)."""
    products = np.einsum("td,td->t", before, after, dtype=np.float64)
    sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines: Scores = products / np.maximum(sizes, 1e-30)
    return cosines


def _energy(moments: InputStatistics, name: str, n_inputs: int) -> Scores:
    """Return the mean square of each input of a matrix, (K,)."""
    blocks = moments.moments(name, moments.block, n_inputs)
    if blocks is None:
        return np.ones(n_inputs)
    diagonal = np.einsum("gii->gi", blocks).reshape(-1)[:n_inputs]
    energy: Scores = np.maximum(diagonal.astype(np.float64), 0)
    return energy


def _added(model: Model, moments: InputStatistics, name: str) -> Scores:
    weight = model.weights.matrix(name)
    squares = np.einsum("nk,nk->k", weight, weight, dtype=np.float64)
    added: Scores = _energy(moments, name, weight.shape[1]) * squares
    return added


def _normed_energy(model: Model, moments: InputStatistics, matrix: str, norm: str) -> Scores:
    """Return the mean square of the stream behind a norm, its weights taken off again: (D,)."""
    scale = np.square(model.weights.vector(norm), dtype=np.float64)
    energy: Scores = _energy(moments, matrix, len(scale)) / np.maximum(scale, 1e-12)
    return energy


class _Sums:
    """Adds up what each weight counts, for the parts that it belongs to."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.neurons = [np.zeros(layer.mlp_width) for layer in decoder.layers]
        self.groups = [np.zeros(layer.n_kv_heads) for layer in decoder.layers]
        self.channels = np.zeros(decoder.width)

    def add(self, name: str, counts: NDArray[np.float64], *, ends: bool = False) -> None:
        """Add what a matrix's weights count, (N, K); with `ends`, parts by what leaves them."""
        first, _, rest = name.partition(".")
        if first != "layers":
            self.channels += counts.sum(axis=0)
            return
        i, part = int(rest.split(".")[0]), rest.split(".")[1]
        layer = self._decoder.layers[i]
        if part in {"down", "out"}:
            columns = counts.sum(axis=0)
            self.channels += counts.sum(axis=1)
            if part == "down":
                self.neurons[i] += columns
            else:
                self.groups[i] += columns.reshape(layer.n_kv_heads, -1).sum(axis=1)
            return
        self.channels += counts.sum(axis=0)
        rows = counts.sum(axis=1)
        if ends:
            return
        if part == "qkv":
            values = rows[layer.query_width :].reshape(2, layer.n_kv_heads, -1).sum(axis=(0, 2))
            queries = rows[: layer.query_width].reshape(layer.n_kv_heads, -1).sum(axis=1)
            self.groups[i] += values + queries
        else:
            self.neurons[i] += rows.reshape(-1, layer.mlp_width).sum(axis=0)

    def add_squares(self, other: "_Sums") -> None:
        """Add the squares of other sums."""
        for i, (neurons, groups) in enumerate(zip(other.neurons, other.groups, strict=True)):
            self.neurons[i] += np.square(neurons)
            self.groups[i] += np.square(groups)
        self.channels += np.square(other.channels)

    def importance(self) -> Importance:
        """Return the sums."""
        return Importance(
            neurons=tuple(self.neurons), groups=tuple(self.groups), channels=self.channels
        )
