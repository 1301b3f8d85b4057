"""Counts of routing for `/metrics`; none of them holds what was asked."""

from functools import partial
from typing import TYPE_CHECKING

from onhand.device.serving.asks import Departure, Ending
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.routing.contests import Event
from onhand.device.serving.routing.situation import Decision

if TYPE_CHECKING:
    from onhand.device.serving.routing.meters import Purse
    from onhand.device.serving.routing.outbox import Outbox

__all__ = ["RouteCounts", "show_outbox"]


class RouteCounts:
    """What was decided, and what came of it."""

    def __init__(self, metrics: Metrics) -> None:
        """Add the counts to those of a server."""
        from prometheus_client import Counter

        self._metrics = metrics
        self._decisions = Counter(
            "onhand_route_decisions",
            "Requests by policy, how their backends are asked, and the kind of the reason.",
            ["policy", "mode", "why"],
            registry=metrics.registry,
        )
        self._events = Counter(
            "onhand_route_events",
            "What happened to backends on the way to answers: asked, won, lost (broken off as "
            "another was first), failed, hedged, hedge-denied (by the budget), escalated (the "
            "device was unsure), kept-unsure (as nobody else answered).",
            ["event", "backend"],
            registry=metrics.registry,
        )
        self._left = Counter(
            "onhand_left_device",
            "Requests by the form in which they left for a backend: as-is, redacted; or kept, "
            "which could not leave as nothing could take out what is personal.",
            ["form", "backend"],
            registry=metrics.registry,
        )
        self._replaced = Counter(
            "onhand_personal_replaced",
            "Values that placeholders stood for in requests that left, by kind.",
            ["kind"],
            registry=metrics.registry,
        )
        self._bytes = Counter(
            "onhand_route_bytes",
            "Bytes over the network of the answers that were given.",
            ["direction", "backend"],
            registry=metrics.registry,
        )

    def decided(self, policy: str, decision: Decision) -> None:
        """Count a decision."""
        self._decisions.labels(policy, decision.mode, decision.why).inc()

    def happened(self, event: Event, backend: str) -> None:
        """Count an event."""
        self._events.labels(event, backend).inc()

    def ended(self, ending: Ending) -> None:
        """Count the bytes of an answer."""
        if ending.sent_bytes or ending.received_bytes:
            self._bytes.labels("sent", ending.source).inc(ending.sent_bytes)
            self._bytes.labels("received", ending.source).inc(ending.received_bytes)

    def left(self, departure: Departure) -> None:
        """Count that a request leaves, or could not."""
        self._left.labels(departure.form, departure.backend).inc()
        for kind, n in departure.found.items():
            self._replaced.labels(kind).inc(n)

    def show_spent(self, purse: "Purse") -> None:
        """Show what was spent."""
        self._metrics.gauge(
            "onhand_route_spent", "Cost of today's answers (UTC).", lambda: purse.spent
        )


def show_outbox(metrics: Metrics, outbox: "Outbox") -> None:
    """Show what is in an outbox.

    Args:
        metrics: where.
        outbox: its requests are counted when the figures are read.
    """
    metrics.gauge("onhand_outbox_bytes", "Requests and answers kept.", outbox.n_bytes)
    for state in ("waiting", "sending", "done", "failed", "expired"):
        metrics.gauge(
            f"onhand_outbox_{state}",
            f"Deferred requests that are {state}.",
            partial(_n_in, outbox, state),
        )


def _n_in(outbox: "Outbox", state: str) -> float:
    return outbox.counts().get(state, 0)
