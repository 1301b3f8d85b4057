"""PyTorch's sides of `benchmarks.train_step`, in eager mode."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from onhand.core.bundle import read_bundle
from onhand.core.weights import BundleWeights, open_weights
from onhand.device.engines.forward import RopeCache
from onhand.device.learning.base import Feeds
from onhand.device.learning.lesson_files import read_lesson, read_start

__all__ = ["TorchTrained", "TransformersTrained"]


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
            attended = self._attended(i, self._normed(x, f"{at}attention_norm"))
            x = x + self._linear(f"{at}out", attended)
            gate, up = self._linear(f"{at}gate_up", self._normed(x, f"{at}mlp_norm")).chunk(
                2, dim=-1
            )
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
            for part in torch.split(self._linear(f"layers.{i}.qkv", x), widths, dim=-1)
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


class TransformersTrained:
    """The Llama of transformers, with factors of low rank at query, key and value."""

    def __init__(self, folder: Path, threads: int, *, rate: float, decay: float) -> None:
        """Read the weights.

        Args:
            folder: a bundle with a lesson.
            threads: of one step.
            rate: learning rate.
            decay: of AdamW.
        """
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.set_num_threads(threads)
        bundle = read_bundle(folder)
        lesson = read_lesson(bundle)
        weights = open_weights(bundle, lesson.variant)
        decoder, layer = weights.decoder, weights.decoder.layers[0]
        config = LlamaConfig(
            hidden_size=decoder.width,
            num_hidden_layers=len(decoder.layers),
            num_attention_heads=layer.n_heads,
            num_key_value_heads=layer.n_kv_heads,
            head_dim=layer.head_dim,
            intermediate_size=layer.mlp_width,
            vocab_size=decoder.vocab_size,
            max_position_embeddings=decoder.context,
            rms_norm_eps=decoder.norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": decoder.rope.theta},
            tie_word_embeddings=decoder.tied,
            use_cache=False,
        )
        self._model = LlamaForCausalLM(config)
        self._model.train(mode=False)
        self._model.load_state_dict(_checkpoint(weights), strict=not decoder.tied)
        self._model.requires_grad_(False)
        starts = read_start(bundle, lesson)
        self._learned: list[nn.Parameter] = []
        for i, block in enumerate(self._model.model.layers):
            first, second = (starts[f"layers.{i}.qkv.lora_{part}"] for part in "AB")
            shared, row = nn.Parameter(torch.from_numpy(first)), 0
            self._learned.append(shared)
            for name in ("q_proj", "k_proj", "v_proj"):
                base = getattr(block.self_attn, name)
                own = nn.Parameter(torch.from_numpy(second[row : row + base.out_features].copy()))
                setattr(
                    block.self_attn, name, _Added(base, shared, own, lesson.alpha / lesson.rank)
                )
                self._learned.append(own)
                row += base.out_features
        self._optimizer = torch.optim.AdamW(self._learned, lr=rate, weight_decay=decay)

    def step(self, feeds: Feeds) -> float:
        """Learn a batch once, and return the loss before.

        Args:
            feeds: as the lesson takes them.
        """
        self._optimizer.zero_grad(set_to_none=True)
        logits = self._model(input_ids=torch.from_numpy(feeds["tokens"])).logits.flatten(0, 1)
        rows = logits[torch.from_numpy(feeds["rows"])]
        loss = functional.cross_entropy(rows, torch.from_numpy(feeds["labels"][:, 0]))
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        self._optimizer.step()
        return float(loss.detach())


class _Added(nn.Module):
    """A matrix, and factors beside it of which the first is shared."""

    def __init__(
        self, base: nn.Module, first: nn.Parameter, second: nn.Parameter, scale: float
    ) -> None:
        super().__init__()
        self.base, self.first, self.second, self.scale = base, first, second, scale

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[explicit-override] # Python 3.11 has no word for it
        """Multiply by both."""
        low = functional.linear(x, self.first)
        product: Tensor = self.base(x)
        return product + functional.linear(low, self.second) * self.scale


def _checkpoint(weights: BundleWeights) -> dict[str, Tensor]:
    """Return a bundle's weights by the names of a Llama checkpoint."""
    decoder = weights.decoder

    def matrix(name: str) -> Tensor:
        return torch.from_numpy(np.array(weights.matrix(name), dtype=np.float32))

    def vector(name: str) -> Tensor:
        return torch.from_numpy(np.array(weights.vector(name), dtype=np.float32))

    found = {
        "model.embed_tokens.weight": matrix("embed"),
        "model.norm.weight": vector("final_norm"),
    }
    if not decoder.tied:
        found["lm_head.weight"] = matrix("head")
    for i, layer in enumerate(decoder.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        widths = [layer.query_width, layer.kv_width, layer.kv_width]
        for name, part in zip("qkv", torch.split(matrix(f"{ours}qkv"), widths), strict=True):
            found[f"{theirs}self_attn.{name}_proj.weight"] = part
        for name, part in zip(("gate", "up"), matrix(f"{ours}gate_up").chunk(2), strict=True):
            found[f"{theirs}mlp.{name}_proj.weight"] = part
        found |= {
            f"{theirs}self_attn.o_proj.weight": matrix(f"{ours}out"),
            f"{theirs}mlp.down_proj.weight": matrix(f"{ours}down"),
            f"{theirs}input_layernorm.weight": vector(f"{ours}attention_norm"),
            f"{theirs}post_attention_layernorm.weight": vector(f"{ours}mlp_norm"),
        }
    return found
