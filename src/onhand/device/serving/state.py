"""What all requests of a server share."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from onhand.core.errors import InputError
from onhand.device.audit.log import AuditLog
from onhand.device.serving.asks import TextModel
from onhand.device.serving.caches.block_figures import show_blocks
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.caches.semantic import SemanticCache
from onhand.device.serving.governor.governor import Governor
from onhand.device.serving.kinds import as_network, as_text, near_of
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.models.network import NetworkModel
from onhand.device.serving.models.shelved import variant_of
from onhand.device.serving.refusals import Refusal, RefusedRequest

if TYPE_CHECKING:
    from onhand.device.serving.feedback.desk import FeedbackDesk

__all__ = ["Beside", "Served", "ServerState", "on_device"]

Served = TextModel | NetworkModel


class Beside(Protocol):
    """What runs beside the requests, in their event loop."""

    async def start(self) -> None:
        """Begin; requests are not taken yet."""
        ...

    async def stop(self) -> None:
        """End; no request runs any more."""
        ...


class ServerState:
    """The models, and whether requests are taken. One event loop at a time.

    Attributes:
        models: name -> model; requests that name none go to the first of the kind they need.
        metrics: what is counted.
        exact: answers that the same request gets again; None for none.
        semantic: answers that similar questions get; None for none.
        beside: what runs from `start` to `stop`.
        governor: what adjusts the models; None for nothing.
        feedback: what the models learn from; None for nothing.
        audit: where each request is recorded; None for nowhere. Its owner closes it.
        is_draining: whether the server is about to end.
        started_s: when it began, in seconds since 1970.
    """

    def __init__(
        self,
        models: Sequence[Served],
        *,
        metrics: Metrics | None = None,
        exact: ExactCache | None = None,
        blocks: BlockStore | None = None,
        semantic: SemanticCache | None = None,
        beside: Sequence[Beside] = (),
    ) -> None:
        """Take models and caches over; `close` closes them.

        Args:
            models: at least one.
            metrics: None for new ones.
            exact: None for none.
            blocks: None for none.
            semantic: None for none.
            beside: what runs from `start` to `stop`.

        Raises:
            InputError: if there is none, or two have one name.
        """
        self.models: Mapping[str, Served] = {model.name: model for model in models}
        if not models:
            raise InputError("there is no model to serve; name a bundle or give [[model]]")
        if len(self.models) != len(models):
            raise InputError("two models have one name; give each [[model]] a name of its own")
        self.metrics = metrics or Metrics()
        self.exact = exact
        self._blocks = blocks
        self.semantic = semantic
        self.governor: Governor | None = None
        self.feedback: FeedbackDesk | None = None
        self.audit: AuditLog | None = None
        self.is_draining = False
        self.beside = list(beside)
        self.started_s = int(time.time())
        self.metrics.gauge(
            "onhand_prefix_cache_bytes",
            "Memory of what ended conversations remember.",
            lambda: sum(
                model.prefix_cache_bytes for model in models if not isinstance(model, NetworkModel)
            ),
        )
        if blocks is not None:
            show_blocks(blocks, self.metrics)
        if exact is not None:
            gauge = self.metrics.gauge
            gauge("onhand_exact_cache_bytes", "Answers kept.", lambda: exact.n_bytes)
            gauge("onhand_exact_cache_hits", "Answers found.", lambda: exact.n_hits)
            gauge("onhand_exact_cache_misses", "Answers not found.", lambda: exact.n_misses)
        if semantic is not None:
            _show_semantic(self.metrics, semantic)

    @property
    def on_device(self) -> Mapping[str, Served]:
        """Name -> the model of this device behind it, or what there is."""
        return {name: on_device(model) for name, model in self.models.items()}

    @property
    def n_active(self) -> int:
        """Answers that have not ended."""
        return sum(model.n_active for model in self.models.values())

    def named(self, name: str) -> Served:
        """Return a model by its name.

        Raises:
            RefusedRequest: if there is none of that name.
        """
        if name in self.models:
            return self.models[name]
        if (variant := variant_of(self.on_device, name)) is not None:
            return variant
        known = ", ".join(self.models)
        message = f"there is no model {name[:80]!r} here, but {known}"
        raise RefusedRequest(_unknown(message))

    def text_model(self, name: str | None) -> TextModel:
        """Return a model that answers in text.

        Args:
            name: its name; None for the first.

        Returns:
            The model.

        Raises:
            RefusedRequest: if there is none of that name, or it is another kind of model.
        """
        for model in self._candidates(name):
            if (found := as_text(model)) is not None:
                return found
        raise RefusedRequest(_no_such(name, "answers in text"))

    def network(self, name: str | None) -> NetworkModel:
        """Return a network, as `text_model` does.

        Args:
            name: its name; None for the first.

        Returns:
            The network.

        Raises:
            RefusedRequest: as in `text_model`.
        """
        for model in self._candidates(name):
            if (found := as_network(model)) is not None:
                return found
        raise RefusedRequest(_no_such(name, "computes vectors or classes"))

    async def start(self) -> None:
        """Start what runs beside the requests; called in their event loop."""
        for one in self.beside:
            await one.start()

    async def stop(self) -> None:
        """Stop it; safe to call twice."""
        for one in reversed(self.beside):
            await one.stop()

    def break_off(self) -> None:
        """End all answers that run; their readers are told."""
        for model in self.models.values():
            model.break_off()

    def close(self) -> None:
        """Close all models; safe to call twice."""
        if self.semantic is not None:
            self.semantic.close()
        if self.governor is not None:
            self.governor.close()
        for model in self.models.values():
            model.close()
        if self.exact is not None:
            self.exact.close()
        if self._blocks is not None:
            self._blocks.close()

    def _candidates(self, name: str | None) -> Sequence[Served]:
        return tuple(self.models.values()) if name is None else (self.named(name),)


def _show_semantic(metrics: Metrics, cache: SemanticCache) -> None:
    gauge = metrics.gauge
    gauge("onhand_semantic_cache_bytes", "Questions and answers kept.", lambda: cache.n_bytes)
    gauge("onhand_semantic_cache_entries", "Questions kept.", lambda: cache.n_entries)
    gauge("onhand_semantic_cache_hits", "Similar questions found.", lambda: cache.n_hits)
    gauge("onhand_semantic_cache_misses", "Similar questions not found.", lambda: cache.n_misses)
    metrics.family(
        "onhand_semantic_cache_rejected",
        "Near questions that were not taken for the same.",
        "reason",
        lambda: cache.rejected,
    )


def on_device(model: Served) -> Served:
    """Return the model of this device behind a name; the model itself where none is behind it."""
    while (near := near_of(model)) is not None:
        model = near
    return model


def _no_such(name: str | None, does: str) -> Refusal:
    whose = "no model here" if name is None else f"model {name[:80]!r} is not one that"
    return _unknown(f"{whose} {does}")


def _unknown(message: str) -> Refusal:
    return Refusal(status=404, message=message, code="model_not_found", param="model")
