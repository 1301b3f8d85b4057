"""What a shelf shows of itself to Prometheus. None of it holds what was asked."""

from onhand.device.serving.metrics import Metrics
from onhand.device.serving.models.shelf import Shelf

__all__ = ["show_shelf"]


def show_shelf(shelf: Shelf, metrics: Metrics) -> None:
    """Show budget, what is taken and by what, and how often models were opened and went.

    Args:
        shelf: whose.
        metrics: where.
    """
    metrics.gauge(
        "onhand_memory_budget_bytes",
        "What models, conversations and caches may take.",
        lambda: shelf.total_bytes,
    )
    metrics.family(
        "onhand_memory_taken_bytes",
        "What they take, or may come to take while answers run.",
        "kind",
        shelf.taken_bytes,
    )
    metrics.family(
        "onhand_model_loaded_bytes",
        "What a model takes, its conversations included; 0 where it is not open.",
        "model",
        lambda: {entry.name: shelf.loaded_bytes(entry) for entry in shelf.entries},
    )
    metrics.family(
        "onhand_shelf",
        "Models that were opened, that went to make room, and seconds of opening.",
        "kind",
        shelf.counts,
        is_count=True,
    )
