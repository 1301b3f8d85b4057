"""What `/metrics` shows of other servers and of what is shared with them."""

from collections.abc import Callable, Mapping, Sequence

from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.mounting import PooledModel, Remotes
from onhand.device.serving.metrics import Figure, Metrics

__all__ = ["show_backends"]

_BACKEND = ("backend",)


def show_backends(metrics: Metrics, remotes: Remotes, models: Sequence[object]) -> None:
    """Show figures of backends, as long as there are any.

    Args:
        metrics: where.
        remotes: the other servers.
        models: those that are no pools are passed over.
    """
    if not remotes.members:
        return
    _show_members(metrics, remotes.members)
    _show_traffic(metrics, remotes)
    pools = {model.name: model.pool for model in models if isinstance(model, PooledModel)}
    metrics.watch(
        Figure(
            name="onhand_backend_retries",
            text="Second attempts, at another backend or the same.",
            labels=("model",),
            values=lambda: {(name,): pool.n_retries for name, pool in pools.items()},
            is_count=True,
        )
    )
    metrics.watch(
        Figure(
            name="onhand_backend_waiting_requests",
            text="Requests that wait because all backends of their model are full.",
            labels=("model",),
            values=lambda: {(name,): pool.n_waiting for name, pool in pools.items()},
        )
    )


def _show_members(metrics: Metrics, members: Sequence[Member]) -> None:
    def each(
        value: Callable[[Member], float],
    ) -> Callable[[], Mapping[tuple[str, ...], float]]:
        return lambda: {(one.name,): value(one) for one in members}

    gauges: dict[str, tuple[str, Callable[[Member], float]]] = {
        "onhand_backend_up": ("1 where it may be asked.", lambda one: one.permits),
        "onhand_backend_active_requests": ("Answers it computes.", lambda one: one.n_active),
        "onhand_backend_first_text_seconds": ("Expected for one.", lambda one: one.first_s),
    }
    counts: dict[str, tuple[str, Callable[[Member], float]]] = {
        "onhand_backend_requests": ("Requests it got.", lambda one: one.n_requests),
        "onhand_backend_failures": ("Those that it failed.", lambda one: one.n_failures),
        "onhand_backend_ejections": ("Times it was left alone.", lambda one: one.breaker.n_opened),
    }
    for name, (text, value) in gauges.items():
        metrics.watch(Figure(name=name, text=text, labels=_BACKEND, values=each(value)))
    for name, (text, value) in counts.items():
        metrics.watch(
            Figure(name=name, text=text, labels=_BACKEND, values=each(value), is_count=True)
        )


def _show_traffic(metrics: Metrics, remotes: Remotes) -> None:
    def values() -> Mapping[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for backend in remotes.backends:
            traffic = backend.traffic
            found[backend.name, "sent"] = traffic.sent
            found[backend.name, "received"] = traffic.received
            found[backend.name, "packed"] = traffic.unpacked - traffic.sent
        return found

    metrics.watch(
        Figure(
            name="onhand_backend_bytes",
            text='Over the network, without TLS; "packed" is what compression kept off it.',
            labels=("backend", "direction"),
            values=values,
            is_count=True,
        )
    )
