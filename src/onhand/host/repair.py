"""Which matrices lose most, and the cheapest way to lose half as much: more bits there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onhand.core.quantized import GroupFormat
from onhand.host.passes.base import MatrixLoss, Pass
from onhand.host.passes.quantize import Quantize

__all__ = ["Repair", "propose_repair"]

_GOAL = 0.5
_NAMED = 3
# A matrix with more than this many times the mean loss stands out.
_STANDS_OUT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A recipe that gives single matrices more bits.

    Attributes:
        worst: the matrices that lose most, the worst one first.
        share: what these lose of all that is lost, 0 to 1.
        stands_out: whether a few matrices lose far more than the others.
        recipe: the recipe, as TOML.
        added_bytes: what it adds to the size.
        remaining: predicted loss afterwards, as a share of the present one.
    """

    worst: tuple[str, ...]
    share: float
    stands_out: bool
    recipe: str
    added_bytes: int
    remaining: float

    def to_json(self) -> dict[str, object]:
        """Return what a report says of it."""
        return {
            "added_bytes": self.added_bytes,
            "estimated": True,
            "recipe": self.recipe,
            "remaining": self.remaining,
            "share": self.share,
            "worst": list(self.worst),
        }


def propose_repair(
    name: str,
    transform: Pass,
    losses: Sequence[MatrixLoss],
    shapes: Mapping[str, tuple[int, int]],
) -> Repair | None:
    """Choose the matrices that lose most for a byte, until half of the loss is gone.

    The loss of a matrix is its squared relative output error, to which the model's divergence is
    proportional as long as it is small (a second-order expansion); another 4 bits take 16**2 of it.

    Args:
        name: of the variant.
        transform: the pass that made it.
        losses: what each matrix lost.
        shapes: matrix name -> (N, K).

    Returns:
        The repair; None if there is nothing to gain, or the pass is not ours to change.
    """
    damage = {loss.name: loss.output_error**2 for loss in losses}
    total = sum(damage.values())
    coarse = [loss for loss in losses if loss.bits < 8]
    if not isinstance(transform, Quantize) or not coarse or total <= 0:
        return None
    form = {loss.name: GroupFormat(bits=loss.bits, group_size=loss.group_size) for loss in coarse}
    gains = {n: damage[n] * (1 - 2.0 ** (-2 * (8 - form[n].bits))) for n in form}
    costs = {
        n: GroupFormat(bits=8, group_size=form[n].group_size).size_bytes(shapes[n])
        - form[n].size_bytes(shapes[n])
        for n in form
    }
    chosen: list[str] = []
    left = total
    for matrix in sorted(gains, key=lambda n: gains[n] / costs[n], reverse=True):
        if left <= _GOAL * total:
            break
        chosen.append(matrix)
        left -= gains[matrix]
    worst = sorted(damage, key=damage.__getitem__, reverse=True)[:_NAMED]
    return Repair(
        worst=tuple(worst),
        share=sum(damage[n] for n in worst) / total,
        stands_out=damage[worst[0]] > _STANDS_OUT * total / len(damage),
        recipe=_recipe(name, transform, chosen),
        added_bytes=sum(costs[n] for n in chosen),
        remaining=max(left, 0.0) / total,
    )


def _recipe(name: str, used: Quantize, chosen: Sequence[str]) -> str:
    """Write a recipe: the pass as it was, and 8 bits for the chosen matrices."""
    eight: dict[str, Mapping[str, int | bool | float | str]] = {}
    for matrix in chosen:
        fitting = (one for pattern, one in used.layers.items() if fnmatchcase(matrix, pattern))
        own = next(fitting, None) or {}
        eight[matrix] = {**own, "bits": 8}
    table = ", ".join(
        f'"{pattern}" = {{ {options} }}'
        for pattern, other in {**eight, **used.layers}.items()
        for options in [", ".join(f"{key} = {json.dumps(value)}" for key, value in other.items())]
    )
    return "\n".join([
        f'name = "{name}-repaired"',
        "",
        "[[step]]",
        'pass = "quantize"',
        f"bits = {used.bits}",
        f"group_size = {used.group_size}",
        f"symmetric = {str(used.symmetric).lower()}",
        f'method = "{used.method}"',
        f"embed_bits = {used.embed_bits}",
        f"distil = {used.distil}",
        f"scale_bits = {used.scale_bits}",
        f"layers = {{ {table} }}",
        "",
    ])
