"""From settings to models that answer here, elsewhere, or wherever there is room."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from onhand.core.errors import InputError
from onhand.device.sampling import Sampling
from onhand.device.serving.asks import Ask, Ending, Piece, TextModel
from onhand.device.serving.backends.health import HealthChecker
from onhand.device.serving.backends.members import Member
from onhand.device.serving.backends.pool import Pool
from onhand.device.serving.backends.remote import RemoteBackend
from onhand.device.serving.models.network import NetworkModel
from onhand.device.serving.routing.running import Running
from onhand.device.serving.settings import ModelSettings, ServeSettings

__all__ = ["PooledModel", "Remotes", "mounted"]

# Where a server does not say how it draws, an answer may be another one each time.
_UNKNOWN = Sampling(temperature=1.0)


class PooledModel:
    """See `TextModel`: one name, several backends.

    Attributes:
        name: what requests call it.
        usual: the local model's sampling; without one, what no server promises.
        context: the largest of its backends; 0 where none is known.
        engine_name: of the local model, or "remote".
        pool: its backends.
        local: the model of this device among them; None where there is none.
    """

    def __init__(
        self, name: str, pool: Pool, *, local: TextModel | None, context: int, fingerprint: str
    ) -> None:
        """Put it together.

        Args:
            name: what requests call it.
            pool: its backends, the local model among them.
            local: that one, which is closed with it; None where there is none.
            context: most tokens of prompt and answer together; 0 where it is not known.
            fingerprint: of the other servers.
        """
        self.name = name
        self.usual: Sampling = _UNKNOWN if local is None else local.usual
        self.context = context
        self.engine_name = "remote" if local is None else local.engine_name
        self._servers = fingerprint
        self.pool = pool
        self.local = local
        self._running = Running()

    @property
    def fingerprint(self) -> str:
        """The same where the same model and servers answer."""
        return f"{'' if self.local is None else self.local.fingerprint} {self._servers}"

    @property
    def n_active(self) -> int:
        """Answers that have not ended."""
        return self._running.n_active

    @property
    def prefix_cache_bytes(self) -> int:
        """Memory of what ended conversations remember."""
        return 0 if self.local is None else self.local.prefix_cache_bytes

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`.

        Yields:
            As in `Backend`.

        Raises:
            OnhandError: as in `Pool.answer`.
        """
        async with (
            aclosing(self.pool.answer(ask)) as made,
            aclosing(self._running.held(made)) as parts,
        ):
            async for part in parts:
                yield part

    @property
    def near(self) -> TextModel | None:
        """The model of this device; None where there is none."""
        return self.local

    def break_off(self) -> None:
        """End all answers that run, and take no more; from any thread."""
        if self.local is not None:
            self.local.break_off()
        self._running.break_off()

    def close(self) -> None:
        """Close the local model; safe to call twice."""
        self._running.break_off()
        if self.local is not None:
            self.local.close()


class Remotes:
    """All other servers, and what asks them whether they are well: runs with the event loop.

    Attributes:
        members: one for each.
    """

    def __init__(self, members: Sequence[Member], backends: Sequence[RemoteBackend]) -> None:
        self.members = tuple(members)
        self.backends = tuple(backends)
        self._checker = HealthChecker(members)

    async def start(self) -> None:
        """Begin to ask."""
        await self._checker.start()

    async def stop(self) -> None:
        """Stop asking, and close all connections."""
        await self._checker.stop()
        for backend in self.backends:
            await backend.aclose()


def mounted(
    models: Sequence[TextModel | NetworkModel], settings: ServeSettings
) -> tuple[list[TextModel | NetworkModel], Remotes]:
    """Join models of this device with the backends that serve the same names, or others.

    Args:
        models: of this device.
        settings: which backends there are.

    Returns:
        All names, those of this device first; and what must run beside them.

    Raises:
        InputError: if a backend serves the name of a network, or its certificates cannot be read.
    """
    remotes = [RemoteBackend(one, key=settings.secrets.get(one.name)) for one in settings.backends]
    members = [_member(one, settings) for one in remotes]
    by_name: dict[str, list[Member]] = {}
    for remote, member in zip(remotes, members, strict=True):
        for name in remote.settings.models:
            by_name.setdefault(name, []).append(member)
    limits = {one.name: one for one in settings.models}
    joined: list[TextModel | NetworkModel] = []
    for model in models:
        others = by_name.pop(model.name, [])
        if others and isinstance(model, NetworkModel):
            raise InputError(
                f"backend {others[0].name!r} serves {model.name!r}, which is a network here; "
                f"give one of them another name"
            )
        if others and not isinstance(model, NetworkModel):
            own = _local_member(model, limits.get(model.name), settings)
            joined.append(_pooled(model.name, [own, *others], settings, local=model))
        else:
            joined.append(model)
    joined += [_pooled(name, found, settings, local=None) for name, found in by_name.items()]
    return joined, Remotes(members, remotes)


def _pooled(
    name: str, members: list[Member], settings: ServeSettings, *, local: TextModel | None
) -> PooledModel:
    backends = [one.backend for one in members if isinstance(one.backend, RemoteBackend)]
    contexts = [one.settings.context for one in backends]
    if local is not None:
        contexts.append(local.context)
    servers = sorted(f"{one.settings.url} {one.settings.model or name}" for one in backends)
    return PooledModel(
        name,
        Pool(members, settings.balance, may_use=_may_use),
        local=local,
        context=max(contexts),
        fingerprint=repr(servers),
    )


def _member(remote: RemoteBackend, settings: ServeSettings) -> Member:
    given = remote.settings
    return Member(
        remote,
        name=remote.name,
        route=remote.kind,
        balance=settings.balance,
        weight=given.weight,
        max_active=given.max_active,
        probe_s=given.probe_s,
    )


def _local_member(model: TextModel, given: ModelSettings | None, settings: ServeSettings) -> Member:
    # Those that wait for this device would rather be answered elsewhere.
    most = (given or ModelSettings(bundle=model.name)).max_active
    return Member(model, name="local", route="local", balance=settings.balance, max_active=most)


def _may_use(ask: Ask, member: Member) -> bool:
    if ask.only is not None and member.name not in ask.only:
        return False
    # What a peer handed on goes to no other one: two that name each other would never end.
    return member.route != "peer" or ask.wire is None or ask.wire.n_hops == 0
