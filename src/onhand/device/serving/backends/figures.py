"""What `/metrics` shows of other servers and of what is shared with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from onhand.device.serving.backends.link import Traffic
from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.mounting import PooledModel, Remotes
from onhand.device.serving.backends.pool import Pool
from onhand.device.serving.metrics import Metrics

__all__ = ["show_backends"]

_GAUGES: Final[Mapping[str, tuple[str, Callable[[Member], float]]]] = {
    "up": ("1 where a backend may be asked.", lambda one: one.permits),
    "active_requests": ("Answers that a backend computes.", lambda one: one.n_active),
    "first_text_seconds": ("Expected time to a backend's first text.", lambda one: one.first_s),
}
_COUNTS: Final[Mapping[str, tuple[str, Callable[[Member], float]]]] = {
    "requests": ("Requests that a backend got.", lambda one: one.n_requests),
    "failures": ("Those of them that it failed.", lambda one: one.n_failures),
    "ejections": ("Times that it was left alone.", lambda one: one.breaker.n_opened),
}
_BYTES: Final[Mapping[str, tuple[str, Callable[[Traffic], float]]]] = {
    "sent_bytes": ("To a backend, without TLS.", lambda one: one.sent),
    "received_bytes": ("From a backend, without TLS.", lambda one: one.received),
    "packed_bytes": ("Kept off the network by compression.", lambda one: one.unpacked - one.sent),
}
_POOLS: Final[Mapping[str, tuple[str, Callable[[Pool], float], bool]]] = {
    "retries": ("Second attempts, elsewhere or again.", lambda one: one.n_retries, True),
    "waiting_requests": ("Waiting as all backends are full.", lambda one: one.n_waiting, False),
}


def show_backends(metrics: Metrics, remotes: Remotes, models: Sequence[object]) -> None:
    """Show figures of backends, as long as there are any.

    Args:
        metrics: where.
        remotes: the other servers.
        models: those that are no pools are passed over.
    """
    if not remotes.members:
        return
    for is_count, figures in ((False, _GAUGES), (True, _COUNTS)):
        for name, (text, value) in figures.items():
            metrics.family(
                f"onhand_backend_{name}",
                text,
                "backend",
                lambda value=value: {one.name: value(one) for one in remotes.members},  # type: ignore[misc]
                is_count=is_count,
            )
    for name, (text, n_bytes) in _BYTES.items():
        metrics.family(
            f"onhand_backend_{name}",
            text,
            "backend",
            lambda n=n_bytes: {one.name: n(one.traffic) for one in remotes.backends},  # type: ignore[misc]
            is_count=True,
        )
    pools = {one.name: one.pool for one in models if isinstance(one, PooledModel)}
    for name, (text, of_pool, is_count) in _POOLS.items():
        metrics.family(
            f"onhand_backend_{name}",
            text,
            "model",
            lambda n=of_pool: {name: n(pool) for name, pool in pools.items()},  # type: ignore[misc]
            is_count=is_count,
        )
