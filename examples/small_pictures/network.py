"""MobileNetV2 for pictures of 32 x 32 pixels, in plain torch."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

__all__ = ["STAGES", "MobileNetV2"]

STAGES: Final = (
    # expansion, channels, blocks, stride
    (1, 16, 1, 2),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
)
"""Table 2 of the paper; only the strides differ, as small pictures need fewer: 32 -> 16 -> 8 -> 4
instead of 224 -> 112 -> 56 -> 28 -> 14 -> 7, and the first convolution keeps all 32 x 32."""

_STEM, _HEAD = 32, 1280


class _Depthwise(nn.Conv2d):
    """A 3 x 3 convolution of each channel by itself, with padding 1."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride, 1, groups=channels, bias=False)

    @override
    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.stride == (2, 2):
            # The same numbers: oneDNN's gradient of the strided form takes three times as long.
            whole = functional.conv2d(input, self.weight, None, 1, 1, 1, self.groups)
            return whole[:, :, ::2, ::2].contiguous()  # (B, C, H / 2, W / 2)
        return super().forward(input)


class _Block(nn.Module):
    """An inverted residual: widen, look around, narrow; added to its input where sizes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [_pointwise(inputs, hidden), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        layers += [_Depthwise(hidden, stride), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        layers += [_pointwise(hidden, outputs), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs

    @override
    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return x + made if self.is_residual else made


class MobileNetV2(nn.Module):
    """Pictures (B, 3, 32, 32) in, one score for each class out: (B, n_classes).

    Source:
        Sandler et al., MobileNetV2, arXiv:1801.04381, section 4 and table 2.
    """

    def __init__(self, *, n_classes: int = 10, width: float = 1.0) -> None:
        """Make one with random weights.

        Args:
            n_classes: scores.
            width: multiplier of all channels, which become multiples of 8.
        """
        super().__init__()
        channels = _rounded(_STEM * width)
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
        ]
        for expansion, base, n_blocks, stride in STAGES:
            outputs = _rounded(base * width)
            for block in range(n_blocks):
                layers.append(_Block(channels, outputs, expansion, 1 if block else stride))
                channels = outputs
        head = _rounded(_HEAD * max(1.0, width))
        layers += [_pointwise(channels, head), nn.BatchNorm2d(head), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(head, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    @override
    def forward(self, pictures: Tensor) -> Tensor:
        seen = self.features(pictures)  # (B, C, 4, 4)
        scores: Tensor = self.classifier(seen.mean((2, 3)))  # (B, n_classes)
        return scores


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _rounded(channels: float) -> int:
    """Round to a multiple of 8 that is not more than a tenth below, as the paper's authors do."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
