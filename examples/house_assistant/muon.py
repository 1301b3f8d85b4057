"""The optimizer Muon, with all matrices of one shape orthogonalised at once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

__all__ = ["Muon", "orthogonal"]

# The quintic step of Keller Jordan, https://kellerjordan.github.io/posts/muon/: steepest at zero,
# so that five steps bring singular values from 1e-3 up to between 0.7 and 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring every singular value of each matrix near one, by Newton-Schulz steps in bfloat16.

    Args:
        matrices: (N, rows, columns), any float type.

    Returns:
        (N, rows, columns) bfloat16.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        change = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, change, x, beta=_A)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal, for matrices (Jordan and others, 2024).

    It does what `torch.optim.Muon` does with `match_rms_adamw`, whose rates are those of AdamW
    (Liu and others, arXiv:2502.16982), but takes all matrices of one shape in one product: a third
    of the time where matrices are small.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.05,
        momentum: float = 0.95,
    ) -> None:
        """Sort the matrices by shape.

        Args:
            matrices: the parameters, each of two dimensions.
            lr: step size, as for AdamW.
            weight_decay: share of a weight that a step of size one takes away.
            momentum: share of the earlier direction that is kept.
        """
        ordered = sorted(matrices, key=lambda one: tuple(one.shape))
        groups = [list(group) for _, group in groupby(ordered, key=lambda one: tuple(one.shape))]
        super().__init__(
            [{"params": group} for group in groups],
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum},
        )

    @torch.no_grad()
    @override
    def step(self, closure: Any = None) -> Any:
        """Move every matrix along its orthogonalised momentum, with Nesterov's look ahead."""
        for group in self.param_groups:
            matrices = group["params"]
            gradient = torch.stack([one.grad for one in matrices])
            state = self.state[matrices[0]]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            direction = orthogonal(gradient.lerp_(state["momentum"], group["momentum"])).float()
            # An orthogonal matrix has entries of 1 / sqrt(larger side); AdamW moves about 0.2.
            size = 0.2 * max(gradient.shape[1:]) ** 0.5
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, list(direction.unbind()), alpha=-group["lr"] * size)
