"""Room in a budget for what a bundle is to learn: its lesson's files are part of the bundle's size.

A search builds its points without a lesson, whose check takes longer than a build; so it looks for
points of a size that leaves room for it. The finished bundle is judged with everything in it.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onhand.core.budget import Budget
from onhand.core.decoder import Decoder
from onhand.core.errors import BudgetExceeded
from onhand.core.progress import Progress, Quiet
from onhand.core.quantized import GroupFormat
from onhand.core.units import format_bytes
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.graph import Graph
from onhand.host.networks.pack import pack_network

if TYPE_CHECKING:
    from onhand.host.networks.build import PreparedNetwork

__all__ = ["room_beside_decoder", "room_beside_network"]


def room_beside_decoder(budget: Budget, decoder: Decoder, wanted: Learnable | None) -> Budget:
    """Return what is left of a budget beside a language model's lesson.

    Args:
        budget: of the bundle.
        decoder: the model.
        wanted: what is to be learned; None for nothing.

    Returns:
        The budget, its ceiling of the size lowered.

    Raises:
        BudgetExceeded: if the lesson alone takes more.
        InputError: if nothing of that kind can be learned of this model.
    """
    if wanted is None or budget.size_bytes is None:
        return budget
    from onhand.host.learning.decoder_files import lesson_bytes

    # Formats make a difference of a few names in its graph.
    size = lesson_bytes(decoder, dict.fromkeys(decoder.matrices(), GroupFormat()), wanted)
    if wanted.remember is not None:
        size += wanted.remember.stat().st_size
    return _less(budget, size)


def room_beside_network(
    budget: Budget,
    ready: "PreparedNetwork",
    graph: Graph,
    wanted: Learnable | None,
    *,
    progress: Progress | None = None,
) -> Budget:
    """Return what is left of a budget beside a network's lesson.

    Args:
        budget: of the bundle.
        ready: the build.
        graph: a point of the search; the lesson's files grow with its operators.
        wanted: what is to be learned; None for nothing.
        progress: told of the lesson's size.

    Returns:
        The budget, its ceiling of the size lowered.

    Raises:
        BudgetExceeded: if the lesson alone takes more.
        InputError: if nothing of that kind can be learned of this network.
        EngineError: if a gradient is not PyTorch's.
    """
    if wanted is None or budget.size_bytes is None:
        return budget
    from onhand.host.learning.network_files import add_network_lesson

    with tempfile.TemporaryDirectory(prefix="onhand-lesson-") as folder:
        root = Path(folder) / "built"
        root.mkdir()
        packed = pack_network(ready.model, ready.network, {"mixed": graph}, root, provenance={})
        samples = ready.data.calibration
        added = add_network_lesson(packed, wanted, samples=samples, threads=ready.threads, steps=1)
    left = _less(budget, added.size_bytes)
    (progress or Quiet()).note(
        f"{format_bytes(added.size_bytes)} of the size are for what it is to learn"
    )
    return left


def _less(budget: Budget, size: int) -> Budget:
    limit = budget.size_bytes or 0.0
    if size >= limit:
        raise BudgetExceeded(
            f"size: what the bundle is to learn takes {format_bytes(size)}, {format_bytes(limit)} "
            "are allowed for all of it: allow more, or learn less, as --learnable head"
        )
    return replace(budget, size_bytes=limit - size)
