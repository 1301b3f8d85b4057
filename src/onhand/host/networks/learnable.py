"""What a network's build adds so that the bundle can learn on a device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onhand.core.bundle import Bundle
from onhand.core.progress import Progress
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.samples import Samples

if TYPE_CHECKING:
    from onhand.host.learning.network_modules import Checkpoint

__all__ = ["Source", "wish_json", "with_lesson"]


@dataclass(frozen=True, slots=True)
class Source:
    """What a bundle is made of.

    Attributes:
        model: as it was loaded.
        graph: its graph, cleaned.
        samples: examples for the check of a lesson.
        threads: of one run.
    """

    model: NetworkModel
    graph: Graph
    samples: Samples
    threads: int


def wish_json(wanted: Learnable | None) -> dict[str, object]:
    """Return what is to be learnable, for a bundle's provenance; nothing for nothing."""
    return {} if wanted is None else {"learnable": wanted.to_json()}


def with_lesson(
    packed: Bundle, wanted: Learnable | None, source: Source, progress: Progress
) -> dict[str, object]:
    """Add what a bundle should be able to learn, once its gradients are checked.

    Args:
        packed: the bundle, not yet at its place.
        wanted: what is to be learnable; None for nothing.
        source: what the bundle was made of.
        progress: told how far it is.

    Returns:
        What the report says of it, "lesson" and "notes"; nothing where nothing was added.

    Raises:
        InputError: if nothing of that kind can be learned of this network; it says why.
        SourceError: if an operator on the way has no rule of differentiation.
        EngineError: if a gradient is not PyTorch's.
    """
    if wanted is None:
        return {}
    from onhand.host.learning.network_files import add_network_lesson

    progress.start("checking what it can learn", 1)
    checkpoint = _checkpoint(packed, wanted, source)
    added = add_network_lesson(
        packed,
        wanted,
        samples=source.samples,
        threads=source.threads,
        checkpoint=checkpoint,
    )
    progress.advance(1)
    notes = [added.sentence()]
    if checkpoint is not None and added.nameless:
        notes.append(f"what it learns cannot leave as a PEFT adapter: {added.nameless}")
    return {"lesson": added.to_json(), "notes": notes}


def _checkpoint(packed: Bundle, wanted: Learnable, source: Source) -> "Checkpoint | None":
    """Return the checkpoint that adapters could be for; None where there is none."""
    from onhand.host.learning.network_modules import Checkpoint
    from onhand.host.networks.sources.encoder_config import FAMILIES

    family = FAMILIES.get(source.model.family)
    if family is None or wanted.kind != "lora":
        return None
    has_head = packed.manifest.network.task == "text-classification"
    return Checkpoint(
        graph=source.graph,
        prefix=family.naming.prefix if has_head else "",
        task="SEQ_CLS" if has_head else "FEATURE_EXTRACTION",
    )
