"""PyTorch's side of `benchmarks.train_step`: a decoder as one would write it there, in eager mode."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onhand.core.bundle import read_bundle
from onhand.core.weights import open_weights
from onhand.device.engines.forward import RopeCache
from onhand.device.learning.base import Feeds
from onhand.device.learning.lesson_files import read_lesson, read_start

__all__ = ["TorchTrained"]


class TorchTrained:
    """A plain Llama over a bundle's weights as float32, with factors of low rank.

    Fused attention and norms, and only the scored rows through the head, as ours has it.
    """

    def __init__(self, folder: Path, threads: int, *, rate: float, decay: float) -> None:
        """Read the weights.

        Args:
            folder: a bundle with a lesson.
            threads: of one step.
            rate: learning rate.
            decay: of AdamW.
        """
        torch.set_num_threads(threads)
        bundle = read_bundle(folder)
        lesson = read_lesson(bundle)
        weights = open_weights(bundle, lesson.variant)
        self._decoder = weights.decoder
        self._scale = lesson.alpha / lesson.rank
        self._frozen: dict[str, Tensor] = {}
        for name in self._decoder.tensors():
            read = weights.vector if name in self._decoder.vectors() else weights.matrix
            self._frozen[name] = torch.from_numpy(np.array(read(name), dtype=np.float32))
        self._learned = {
            name: torch.from_numpy(value).requires_grad_()
            for name, value in read_start(bundle, lesson).items()
        }
        self._ropes = RopeCache(self._decoder, self._decoder.context)
        self._optimizer = torch.optim.AdamW(
            list(self._learned.values()), lr=rate, weight_decay=decay
        )

    def step(self, feeds: Feeds) -> float:
        """Learn a batch once, and return the loss before.

        Args:
            feeds: as the lesson takes them.
        """
        self._optimizer.zero_grad(set_to_none=True)
        hidden = self._hidden(torch.from_numpy(feeds["tokens"])).flatten(0, 1)
        rows = hidden[torch.from_numpy(feeds["rows"])]
        logits = functional.linear(rows, self._frozen[self._decoder.head])
        labels = torch.from_numpy(feeds["labels"][:, 0])
        # All weights are one over the number of rows.
        loss = functional.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        self._optimizer.step()
        return float(loss.detach())

    def _linear(self, name: str, x: Tensor) -> Tensor:
        product = functional.linear(x, self._frozen[name])
        if f"{name}.lora_A" not in self._learned:
            return product
        low = functional.linear(x, self._learned[f"{name}.lora_A"])
        return product + functional.linear(low, self._learned[f"{name}.lora_B"]) * self._scale

    def _hidden(self, tokens: Tensor) -> Tensor:
        decoder = self._decoder
        x = functional.embedding(tokens, self._frozen["embed"])
        for i in range(len(decoder.layers)):
            at = f"layers.{i}."
            x = x + self._linear(f"{at}out", self._attended(i, self._normed(x, f"{at}attention_norm")))
            gate, up = self._linear(
                f"{at}gate_up", self._normed(x, f"{at}mlp_norm")
            ).chunk(2, dim=-1)
            x = x + self._linear(f"{at}down", functional.silu(gate) * up)
        return self._normed(x, "final_norm")

    def _normed(self, x: Tensor, name: str) -> Tensor:
        return functional.rms_norm(
            x, (x.shape[-1],), self._frozen[name], self._decoder.norm_epsilon
        )

    def _attended(self, i: int, x: Tensor) -> Tensor:
        layer = self._decoder.layers[i]
        B, S, _ = x.shape
        widths = [layer.query_width, layer.kv_width, layer.kv_width]
        query, key, value = (
            part.view(B, S, -1, layer.head_dim).transpose(1, 2)
            for part in self._linear(f"layers.{i}.qkv", x).split(widths, dim=-1)
        )
        if (tables := self._ropes.tables(i, S)) is not None:
            cosines, sines = (torch.from_numpy(table[:S]) for table in tables)
            query, key = _turned(query, cosines, sines), _turned(key, cosines, sines)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )
        return mixed.transpose(1, 2).reshape(B, S, layer.query_width)


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cosines - high * sines, high * cosines + low * sines], dim=-1)
