"""The networks of `benchmarks.train_step_networks` in PyTorch, as one writes them there."""

# mypy: disable-error-code="explicit-override"
# Python 3.11 has no word for it.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MODELS", "Encoder", "MobileNetV2", "Model"]

N_CLASSES: Final = 10
_BLOCKS: Final = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Factor of the width inside, channels, how many, and the first one's stride: arXiv:1801.04381."""


def _layer(n_in: int, n_out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, size, stride, size // 2, groups=groups)
    return nn.Sequential(conv, nn.ReLU6())


class _Inverted(nn.Module):
    """An inverted residual block; its norms are folded into its convolutions."""

    def __init__(self, n_in: int, n_out: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = n_in * factor
        first = [] if factor == 1 else [_layer(n_in, wide, 1)]
        last = nn.Conv2d(wide, n_out, 1)
        self.inside = nn.Sequential(*first, _layer(wide, wide, 3, stride, wide), last)
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Compute it."""
        made: Tensor = self.inside(x)
        return x + made if self.is_residual else made


class MobileNetV2(nn.Module):
    """In two parts: what stays, and the last block, the last convolution and the head."""

    def __init__(self) -> None:
        """Draw weights."""
        super().__init__()
        layers: list[nn.Module] = [_layer(3, 32, 3, 2)]
        width = 32
        for factor, n_out, count, stride in _BLOCKS:
            for i in range(count):
                layers.append(_Inverted(width, n_out, stride if i == 0 else 1, factor))
                width = n_out
        self.frozen = nn.Sequential(*layers[:-1])
        self.block = nn.Sequential(layers[-1], _layer(width, 1280, 1))
        self.head = nn.Linear(1280, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Compute scores of (B, 3, H, W)."""
        return self.scores(self.frozen(x))

    def scores(self, latent: Tensor) -> Tensor:
        """Compute scores from where the frozen part ends."""
        made: Tensor = self.head(self.block(latent).mean((2, 3)))
        return made

    def learned(self) -> list[nn.Parameter]:
        """Return what is learned."""
        return [*self.block.parameters(), *self.head.parameters()]


class Adapted(nn.Module):
    """A linear layer, frozen, and a product of low rank."""

    rank = 8

    def __init__(self, n_in: int, n_out: int) -> None:
        """Draw weights; the product is zero."""
        super().__init__()
        self.frozen = nn.Linear(n_in, n_out)
        self.first = nn.Linear(n_in, self.rank, bias=False)
        self.second = nn.Linear(self.rank, n_out, bias=False)
        nn.init.zeros_(self.second.weight)
        self.is_adapted = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute it; the scale is alpha / rank = 2."""
        made: Tensor = self.frozen(x)
        return made + 2.0 * self.second(self.first(x)) if self.is_adapted else made


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, n_heads: int, wide: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value, self.out = (Adapted(width, width) for _ in range(4))
        self.up, self.down = Adapted(width, wide), Adapted(wide, width)
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention and what follows it."""
        B, T, D = x.shape
        parts = (
            layer(x).view(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = functional.scaled_dot_product_attention(*parts)
        x = self.first(x + self.out(seen.transpose(1, 2).reshape(B, T, D)))
        made: Tensor = self.last(x + self.down(functional.gelu(self.up(x))))
        return made


class Encoder(nn.Module):
    """The shape of MiniLM-L6: six layers of width 384, the mean of the tokens, and a head."""

    def __init__(self) -> None:
        """Draw weights."""
        super().__init__()
        self.words = nn.Embedding(30522, 384)
        self.layers = nn.ModuleList(_EncoderLayer(384, 12, 1536) for _ in range(6))
        self.head = nn.Linear(384, N_CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        """Compute scores of (B, T) token ids."""
        x: Tensor = self.words(ids)
        for layer in self.layers:
            x = layer(x)
        made: Tensor = self.head(x.mean(1))
        return made

    def learned(self) -> list[nn.Parameter]:
        """Return what is learned."""
        adapted = [module for module in self.modules() if isinstance(module, Adapted)]
        pairs = [(layer.first, layer.second) for layer in adapted]
        factors = [weight for pair in pairs for one in pair for weight in one.parameters()]
        return [*factors, *self.head.parameters()]

    def plain(self) -> None:
        """Leave the products of low rank out, for the export."""
        for module in self.modules():
            if isinstance(module, Adapted):
                module.is_adapted = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A case.

    Attributes:
        make: the network.
        learnable: what is learned of it.
        shape: of one batch.
        n_ids: token ids; 0 for numbers.
    """

    make: Callable[[], MobileNetV2 | Encoder]
    learnable: str
    shape: tuple[int, ...]
    n_ids: int = 0


MODELS: Final[Mapping[str, Model]] = {
    "mobilenet-v2-last-block": Model(
        make=MobileNetV2, learnable="last-block", shape=(8, 3, 96, 96)
    ),
    "minilm-lora": Model(
        make=Encoder, learnable="lora,rank=8,alpha=16", shape=(8, 32), n_ids=30522
    ),
}
