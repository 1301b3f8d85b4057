"""Counts of a server, in the text format of Prometheus. None of them holds what was asked."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onhand.device.serving.asks import Ending, Piece

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Count", "Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Count:
    """One answer, from its beginning to its end. Made by `Metrics.counted`.

    Attributes:
        outcome: how it ended.
        first_text_s: when its first text came; None while none has.
    """

    def __init__(self, first: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._first = first
        self._clock = clock
        self._begun = clock()
        self.first_text_s: float | None = None
        self.outcome = "cancelled"

    def saw_text(self) -> None:
        """Note that text was sent."""
        if self.first_text_s is None:
            self.first_text_s = self._clock() - self._begun
            self._first(self.first_text_s)

    def end(self, outcome: str) -> None:
        """Note how it ended: "ok" or "error"; without, its reader had left."""
        self.outcome = outcome


class Metrics:
    """A registry of its own, so that several servers in one process do not mix."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._clock = clock
        self.registry: CollectorRegistry = CollectorRegistry()
        self._requests = Counter(
            "onhand_requests", "Answers that ended.", ["route", "outcome"], registry=self.registry
        )
        self._active = Gauge(
            "onhand_active_requests", "Answers that have not ended.", registry=self.registry
        )
        tokens = Counter(
            "onhand_tokens", "Tokens of prompts and answers.", ["kind"], registry=self.registry
        )
        kinds = ("prompt", "cached", "generated")
        self._tokens_of = [tokens.labels(kind) for kind in kinds]
        self._saved = Counter(
            "onhand_network_saved_bytes",
            "Bytes that caches kept off the network.",
            registry=self.registry,
        )
        self._calls = Counter(
            "onhand_tool_calls", "Whole calls of tools in answers.", registry=self.registry
        )
        self._first = Histogram(
            "onhand_first_text_seconds",
            "Time to the first text of a streamed answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )

    @contextmanager
    def counted(self, route: str) -> Iterator[Count]:
        """Count an answer.

        Args:
            route: which.

        Yields:
            What notes its course.
        """
        count = Count(self._first.observe, self._clock)
        self._active.inc()
        try:
            yield count
        finally:
            self._active.dec()
            self._requests.labels(route, count.outcome).inc()

    def ended(self, ending: Ending) -> None:
        """Count the tokens of an answer that ended."""
        counts = (ending.prompt_tokens, ending.cached_tokens, ending.generated_tokens)
        for counter, n in zip(self._tokens_of, counts, strict=True):
            counter.inc(n)

    def saved(self, n_bytes: int) -> None:
        """Count bytes that a cache kept off the network."""
        self._saved.inc(n_bytes)

    def told(self, piece: Piece) -> None:
        """Count the calls of tools that come to their end."""
        if piece.call is not None and piece.call.is_end:
            self._calls.inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a figure that is asked for when it is read."""
        from prometheus_client import Gauge

        Gauge(name, text, registry=self.registry).set_function(value)

    def family(
        self,
        name: str,
        text: str,
        label: str,
        values: Callable[[], Mapping[str, float]],
        *,
        is_count: bool = False,
    ) -> None:
        """Show figures that are asked for when they are read, one for each value of a label.

        Args:
            name: of the figures.
            text: what they say.
            label: its name.
            values: value of the label -> figure.
            is_count: whether they only grow.
        """
        self.registry.register(_Family(name, text, label, values, is_count=is_count))

    def counter(self, name: str, text: str, *, labels: Sequence[str]) -> Callable[..., None]:
        """Count something of one's own.

        Args:
            name: of the figure, without "_total".
            text: what it says.
            labels: names of what tells its parts from each other.

        Returns:
            What counts one more; takes a value for each label.
        """
        from prometheus_client import Counter

        counter = Counter(name, text, labels, registry=self.registry)
        return lambda *values: counter.labels(*values).inc()

    def text(self) -> bytes:
        """Return all of them."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class _Family:
    """What a registry of prometheus_client collects from."""

    def __init__(
        self,
        name: str,
        text: str,
        label: str,
        values: Callable[[], Mapping[str, float]],
        *,
        is_count: bool,
    ) -> None:
        self._described = (name, text)
        self._label = label
        self._values = values
        self._is_count = is_count

    def collect(self) -> "Iterator[Metric]":
        """Yield the figures as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kind = CounterMetricFamily if self._is_count else GaugeMetricFamily
        found = kind(*self._described, labels=[self._label])
        for value, figure in self._values().items():
            found.add_metric([value], figure)
        yield found
