"""What a network's build adds so that the bundle can learn on a device."""

from onhand.core.bundle import Bundle
from onhand.core.progress import Progress
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.samples import Samples

__all__ = ["wish_json", "with_lesson"]


def wish_json(wanted: Learnable | None) -> dict[str, object]:
    """Return what is to be learnable, for a bundle's provenance; nothing for nothing."""
    return {} if wanted is None else {"learnable": wanted.to_json()}


def with_lesson(
    packed: Bundle, wanted: Learnable | None, samples: Samples, threads: int, progress: Progress
) -> dict[str, object]:
    """Add what a bundle should be able to learn, once its gradients are checked.

    Args:
        packed: the bundle, not yet at its place.
        wanted: what is to be learnable; None for nothing.
        samples: examples for the check.
        threads: of one run.
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
    added = add_network_lesson(packed, wanted, samples=samples, threads=threads)
    progress.advance(1)
    return {"lesson": added.to_json(), "notes": [added.sentence()]}
