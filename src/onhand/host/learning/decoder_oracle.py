"""What PyTorch computes of a language model's lesson. Import it when needed."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from onhand.core.weights import BundleWeights
from onhand.device.engines.forward import RopeCache
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.host.learning.decoder_forward import LowRank
from onhand.host.torch_forward import torch_head, torch_hidden

__all__ = ["TorchDecoderLesson"]


class TorchDecoderLesson:
    """A bundle's decoder over its dequantised weights, with autograd for its gradients.

    What is learned is added to the matrices themselves, not to their products: one more way in
    which it is not the graph's computation.
    """

    def __init__(self, weights: BundleWeights, added: LowRank) -> None:
        """Read all weights; each takes four bytes.

        Args:
            weights: of the variant that learns.
            added: what is learned.
        """
        stored = weights.decoder
        # A matrix that is stored as factors and learned is whole here.
        kept = {name: rank for name, rank in stored.ranks.items() if name not in added.targets}
        self.decoder = replace(stored, ranks=kept)
        self._added = added
        self._frozen: dict[str, Tensor] = {}
        for name in self.decoder.tensors():
            if name in self.decoder.vectors():
                array = weights.vector(name)
            elif name in stored.ranks:
                array = weights.matrix(f"{name}.left") @ weights.matrix(f"{name}.right")
            else:
                array = weights.matrix(name)
            self._frozen[name] = torch.from_numpy(np.array(array, dtype=np.float32))
        self._learned: Mapping[str, Tensor] = {}

    def matrix(self, name: str) -> Tensor:
        """See `TorchWeights`."""
        frozen = self._frozen[name]
        if name not in self._added.targets:
            return frozen
        first, second = (self._learned[f"{name}.lora_{part}"] for part in "AB")
        return frozen + second @ first * self._added.scale

    def vector(self, name: str) -> Tensor:
        """See `TorchWeights`."""
        return self._frozen[name]

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Compute a loss and its gradients; see `Teachable.teach`."""
        self._learned = {
            name: torch.from_numpy(np.array(value)).requires_grad_()
            for name, value in values.items()
        }
        tokens = feeds["tokens"]
        ropes = RopeCache(self.decoder, tokens.shape[1])
        hidden = torch_hidden(self, tokens, ropes).flatten(0, 1)  # (B S, D)
        logits = torch_head(self, hidden[torch.from_numpy(feeds["rows"])])  # (R, V)
        logs = logits.log_softmax(dim=-1).gather(1, torch.from_numpy(feeds["labels"]))  # (R, K)
        loss = -(torch.from_numpy(feeds["weights"]) * logs).sum()
        found = torch.autograd.grad(loss, list(self._learned.values()))
        gradients = dict(zip(self._learned, (gradient.numpy() for gradient in found), strict=True))
        return Taught(
            loss=float(loss.detach()),
            outputs={"logprobs": logs.detach().numpy()},
            gradients=gradients,
        )
