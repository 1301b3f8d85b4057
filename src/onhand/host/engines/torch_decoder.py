"""The decoder's computation on a torch device: see `onhand.device.engines.forward`, which it is.

The tokens of all conversations go through each matrix together, so that its codes are read once;
attention is computed for each conversation alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onhand.core.adapter import Pairs
from onhand.core.weights import BundleWeights
from onhand.device.engines.forward import RopeCache
from onhand.host.engines.torch_layers import normed, rms_normed, rotated, soft_capped, torch_layer
from onhand.host.engines.torch_matrices import TorchMatrix

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Part", "TorchDecoder"]

QUERY_BLOCK = 512
"""Rows of queries that attend at once: bounds the scores of a long prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One conversation's share of a step.

    Attributes:
        start: tokens that it remembers.
        size: its new tokens, which follow those of the parts before it.
        keys: of each layer (n_kv_heads, context, head_dim).
        values: likewise.
    """

    start: int
    size: int
    keys: "Sequence[Tensor]"
    values: "Sequence[Tensor]"


class TorchDecoder:
    """Weights on a device, and what is computed with them. Threads may share it."""

    def __init__(
        self,
        weights: BundleWeights,
        pairs: Pairs,
        device: "torch.device",
        dtype: "torch.dtype",
    ) -> None:
        """Bring every weight to the device.

        Args:
            weights: of the bundle.
            pairs: an adapter's.
            device: where it computes.
            dtype: of products, keys and values; sums between layers are float32.
        """
        import torch

        self.decoder = weights.decoder
        self.device = device
        self.dtype = dtype
        self.matrices = {
            name: TorchMatrix(weights.stored(name), device, dtype)
            for name in self.decoder.matrices()
        }
        self._vectors = {
            name: torch.tensor(weights.vector(name)).to(device) for name in self.decoder.vectors()
        }
        self._pairs = {
            name: tuple(torch.tensor(one).to(device=device, dtype=dtype) for one in pair)
            for name, pair in pairs.items()
        }
        self._ropes = RopeCache(self.decoder, self.decoder.context)
        self._tables: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    def hidden(self, tokens: "Tensor", parts: Sequence[Part]) -> "Tensor":
        """Run new tokens through all layers and remember their keys and values.

        Args:
            tokens: (T,) int64, those of all parts one after the other.
            parts: whose they are.

        Returns:
            (T, D) float32: the inputs of the head.
        """
        import torch

        decoder = self.decoder
        x = self.matrices["embed"].rows(tokens).float()  # (T, D)
        if decoder.embed_scale != 1.0:
            x = x * decoder.embed_scale
        if decoder.positions == "learned":
            spans = [torch.arange(p.start, p.start + p.size, device=self.device) for p in parts]
            x = x + self.matrices["positions"].rows(torch.cat(spans)).float()
        for i in range(len(decoder.layers)):
            x = self._layer(i, x, parts)
        return normed(decoder, "final_norm", x, self._vectors.__getitem__)

    def logits(self, hidden: "Tensor") -> "Tensor":
        """Apply the head: (T, D) -> (T, V) float32."""
        decoder = self.decoder
        scores = self._multiply(decoder.head, hidden, added="head")
        return soft_capped(scores, decoder.logit_softcap)

    def _layer(self, i: int, x: "Tensor", parts: Sequence[Part]) -> "Tensor":
        decoder, at = self.decoder, f"layers.{i}."

        def linear(name: str, inputs: "Tensor", *, bias: bool) -> "Tensor":
            product = self._multiply(f"{at}{name}", inputs, added=f"{at}{name}")
            return product + self._vectors[f"{at}{name}_bias"] if bias else product

        return torch_layer(
            decoder,
            i,
            x,
            linear=linear,
            attend=lambda qkv: self._attend(i, qkv, parts),
            vector=self._vectors.__getitem__,
        )

    def _multiply(self, name: str, inputs: "Tensor", *, added: str) -> "Tensor":
        given = inputs.to(self.dtype)
        between = given
        for factor in self.decoder.factors(name):
            between = self.matrices[factor].linear(between)
        if added in self._pairs:
            first, second = self._pairs[added]
            between = between + (given @ first.T) @ second.T
        return between.float()

    def _attend(self, i: int, qkv: "Tensor", parts: Sequence[Part]) -> "Tensor":
        import torch

        layer = self.decoder.layers[i]
        widths = [layer.query_width, layer.kv_width, layer.kv_width]
        query, key, value = (
            one.view(one.shape[0], -1, layer.head_dim) for one in torch.split(qkv, widths, dim=1)
        )  # (T, heads, head_dim) each
        if self.decoder.qk_norm:
            epsilon, at = self.decoder.norm_epsilon, f"layers.{i}."
            query = rms_normed(query, self._vectors[f"{at}query_norm"], epsilon)
            key = rms_normed(key, self._vectors[f"{at}key_norm"], epsilon)
        results: list[Tensor] = []
        low = 0
        for part in parts:
            mine = slice(low, low + part.size)
            low += part.size
            results.append(self._attend_part(i, query[mine], key[mine], value[mine], part))
        return torch.cat(results)  # (T, query_width)

    def _attend_part(
        self, i: int, query: "Tensor", key: "Tensor", value: "Tensor", part: Part
    ) -> "Tensor":
        """Attend to all that one conversation remembers, the new tokens included."""
        import torch

        decoder, layer = self.decoder, self.decoder.layers[i]
        end = part.start + part.size
        if (tables := self._rope_tables(i, end)) is not None:
            cosines, sines = (table[part.start : end, None] for table in tables)  # (T, 1, half)
            query, key = rotated(query, cosines, sines), rotated(key, cosines, sines)
        part.keys[i][:, part.start : end] = key.transpose(0, 1)
        part.values[i][:, part.start : end] = value.transpose(0, 1)
        keys, values = part.keys[i][:, None, :end], part.values[i][:, None, :end]
        # The queries that share a key head follow each other.
        grouped = query.view(part.size, layer.n_kv_heads, -1, layer.head_dim)
        grouped = grouped.permute(1, 2, 0, 3).to(self.dtype)  # (n_kv_heads, shared, T, head_dim)
        blocks: list[Tensor] = []
        for low in range(0, part.size, QUERY_BLOCK):
            block = grouped[:, :, low : low + QUERY_BLOCK]
            seen = part.start + low + block.shape[2]
            scores = (block @ keys[:, :, :seen].transpose(2, 3)).float() * decoder.score_scale(i)
            scores = soft_capped(scores, decoder.attention_softcap)
            if block.shape[2] > 1 or layer.window:
                at = torch.arange(part.start + low, seen, device=self.device)[:, None]
                other = torch.arange(seen, device=self.device)[None, :]
                hidden = other > at
                if layer.window:
                    hidden = hidden | (other <= at - layer.window)
                scores = scores.masked_fill(hidden, float("-inf"))
            shares = scores.softmax(dim=-1).to(self.dtype)
            blocks.append(shares @ values[:, :, :seen])
        mixed = torch.cat(blocks, dim=2)  # (n_kv_heads, shared, T, head_dim)
        return mixed.permute(2, 0, 1, 3).reshape(part.size, layer.query_width).float()

    def _rope_tables(self, i: int, length: int) -> "tuple[Tensor, Tensor] | None":
        import torch

        rope = self.decoder.rotary(i)
        if rope is None:
            return None
        known = (i, rope.is_long(length))
        if known not in self._tables and (tables := self._ropes.tables(i, length)) is not None:
            cosines, sines = (torch.from_numpy(table).to(self.device) for table in tables)
            self._tables[known] = (cosines, sines)
        return self._tables[known]
