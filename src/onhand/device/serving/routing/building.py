"""From settings to routed models: a policy in front of each model that several can answer for."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from onhand.core.errors import InputError
from onhand.core.tables import unknown
from onhand.device.privacy.veil import Redaction
from onhand.device.serving.asks import Ask
from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.mounting import PooledModel
from onhand.device.serving.backends.pool import Pool
from onhand.device.serving.backends.settings import BackendSettings
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.routing.attempts import Part
from onhand.device.serving.routing.counts import RouteCounts
from onhand.device.serving.routing.meters import Purse, TokenBucket
from onhand.device.serving.routing.power import PowerReader
from onhand.device.serving.routing.router import Means, RoutedModel, Target
from onhand.device.serving.routing.settings import RouteSettings, RoutingSettings, check_privacy
from onhand.device.serving.routing.situation import Candidate, stricter
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import Served

__all__ = ["routed"]

_REMOTE_CAPABILITIES = frozenset({"schema", "tools"})
_LOCAL_CAPABILITIES = frozenset({"schema", "scores", "tools"})


def routed(
    served: Sequence[Served],
    settings: ServeSettings,
    *,
    metrics: Metrics,
    redaction: Redaction | None = None,
) -> list[Served]:
    """Put a policy in front of each model that other servers can answer for.

    Args:
        served: models as they are mounted.
        settings: which policy.
        metrics: where it is counted.
        redaction: takes personal data out of what leaves; None where nothing does.

    Returns:
        The models, in their order.

    Raises:
        InputError: if a route names a model that nobody else can answer for.
    """
    pooled = [model.name for model in served if isinstance(model, PooledModel)]
    routes = {route.model: route for route in settings.routes}
    for name in routes:
        if name not in pooled:
            hint = unknown("model", name, pooled) if pooled else "no [[backend]] serves any"
            raise InputError(f"route of {name!r}: {hint}")
    if not pooled:
        return list(served)
    purse = Purse(settings.routing.daily_budget, now=time.time)
    means = Means(
        counts=RouteCounts(metrics),
        purse=purse,
        hedges=TokenBucket(settings.routing.hedge_share),
        tenants={name: check_privacy(given) for name, given in settings.privacy.items()},
        power=PowerReader(),
        redaction=redaction,
    )
    means.counts.show_spent(purse)
    return [
        _routed(model, settings, routes.get(model.name), means)
        if isinstance(model, PooledModel)
        else model
        for model in served
    ]


def _routed(
    model: PooledModel, settings: ServeSettings, route: RouteSettings | None, means: Means
) -> RoutedModel:
    given = {one.name: one for one in settings.backends}
    members = model.pool.members
    # The router itself goes on to the next backend: a second try at the same, or waiting for its
    # place, would only delay that. Behind the last there is nobody, so there it pays to wait.
    once = replace(settings.balance, attempts=1)
    patient = Pool(members, once, may_use=_may_use)
    hasty = Pool(members, replace(once, max_waiting=0), may_use=_may_use)
    targets = [
        Target(
            name=member.name,
            backend=_Only(hasty, member.name),
            patient=_Only(patient, member.name),
            facts=_facts(member, given.get(member.name), model),
        )
        for member in members
    ]
    return RoutedModel(
        model,
        targets,
        balanced=model.pool,
        settings=_of_route(settings.routing, route),
        means=means,
    )


def _may_use(ask: Ask, member: Member) -> bool:
    return ask.only is not None and member.name in ask.only


def _of_route(routing: RoutingSettings, route: RouteSettings | None) -> RoutingSettings:
    if route is None:
        return routing
    return replace(
        routing,
        policy=route.policy or routing.policy,
        privacy=stricter(routing.least_privacy, check_privacy(route.privacy)),
    )


def _facts(
    member: Member, given: BackendSettings | None, model: PooledModel
) -> Callable[[], Candidate]:
    def facts() -> Candidate:
        if given is None:
            return Candidate(
                name=member.name,
                place=member.route,
                is_healthy=member.permits,
                context=0 if model.local is None else model.local.context,
                capabilities=_LOCAL_CAPABILITIES,
                n_active=member.n_active,
                most_active=member.max_active,
            )
        return Candidate(
            name=member.name,
            place=member.route,
            is_healthy=member.permits,
            context=given.context,
            capabilities=_REMOTE_CAPABILITIES,
            sees_personal=given.privacy != "public",
            n_active=member.n_active,
            most_active=member.max_active,
            prompt_cost=given.price_in / 1000,
            answer_cost=given.price_out / 1000,
        )

    return facts


class _Only:
    """See `Backend`: one member of a pool, with all that the pool does for it."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._name = name

    async def answer(self, ask: Ask) -> AsyncGenerator[Part]:
        """See `Backend`.

        Yields:
            As in `Backend`.

        Raises:
            OnhandError: as in `Pool.answer`.
        """
        asked = replace(ask, only=frozenset({self._name}))
        async with aclosing(self._pool.answer(asked)) as parts:
            async for part in parts:
                yield part
