"""Which learned version an open language model answers with, changed while it answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from onhand.core.adapter import Adapter
from onhand.core.arrays import TokenArray
from onhand.core.scope import Scope
from onhand.device.engines.base import AdaptingLoaded, Loaded, Session, as_adapting
from onhand.device.learning.in_use import InUse
from onhand.device.prompts import user_texts
from onhand.device.serving.caches.remembered import Remembered
from onhand.device.serving.models.fingerprints import fingerprint_with
from onhand.device.template import Message
from onhand.device.tracks import AS_BUILT, SCOPE_ENGINE, let_leave_out

__all__ = ["AnsweringVersion", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """Whose session an answer has.

    Attributes:
        fingerprint: of the model with the version of the session; "" where it never changed.
        generation: to be given back with the session.
        is_inside: likewise; whether the session answers with what was learned.
    """

    fingerprint: str
    generation: int
    is_inside: bool = True


class AnsweringVersion:
    """The version that answers. May be shared between threads.

    Attributes:
        learned: which it is.
        fingerprint: of the model with it.
    """

    def __init__(
        self,
        loaded: Loaded,
        remembered: Remembered,
        *,
        learned: InUse,
        as_built: str,
        context: int,
        scope: Scope | None = None,
    ) -> None:
        """Begin with the version that the weights were opened with.

        Args:
            loaded: the weights.
            remembered: gives sessions.
            learned: the version of both.
            as_built: fingerprint of the bundle as it was built.
            context: most tokens of a session.
            scope: which prompts that version answers; None for all.
        """
        self.learned = learned
        self.fingerprint = fingerprint_with(as_built, learned)
        self._loaded = loaded
        self._remembered = remembered
        self._as_built = as_built
        self._context = context
        self._scope = scope
        self._was_changed = False

    @property
    def can_change(self) -> bool:
        """Whether another version can take over without the bundle's being opened again."""
        return isinstance(self._loaded, AdaptingLoaded)

    def change(self, adapter: Adapter, learned: InUse) -> None:
        """Answer with another version from now on; answers that run end on theirs.

        Args:
            adapter: what it adds; nothing, for the bundle as it was built.
            learned: which it is.

        Raises:
            InputError: if the engine cannot, or the weights are closed.
        """
        loaded, name = as_adapting(self._loaded), adapter.sha256
        if name not in loaded.adapters:
            loaded.add_adapter(name, adapter)
        if adapter.scope is not None:
            let_leave_out(loaded, SCOPE_ENGINE, learned.sentence())
        self._was_changed = True

        def begin(is_inside: bool) -> Session:
            return loaded.session(context=self._context, adapter=name if is_inside else AS_BUILT)

        self._remembered.adapt(begin)
        self.fingerprint, self.learned = fingerprint_with(self._as_built, learned), learned
        self._scope = adapter.scope
        for other in loaded.adapters:
            if other not in (name, AS_BUILT):
                loaded.remove_adapter(other)

    def take(
        self, tenant: str, tokens: TokenArray, prompt: str | Sequence[Message]
    ) -> tuple[Session, Taken]:
        """Return a session, as `Remembered.take` does, and whose it is.

        Args:
            tenant: who asks.
            tokens: (T,) int64.
            prompt: what they were read from: it decides whether what was learned answers.

        Raises:
            InputError: if the model is closed.
        """
        fingerprint = self.fingerprint if self._was_changed else ""
        generation, scope = self._remembered.generation, self._scope
        is_inside = scope is None or scope.holds(user_texts(prompt))
        session = self._remembered.take(tenant, tokens, is_inside=is_inside)
        if generation != self._remembered.generation:
            # Another version took over just now, and nobody can say whose session this is:
            # nothing of its answer is kept.
            return session, Taken("changing", -1)
        return session, Taken(fingerprint, generation, is_inside)

    def give_back(self, tenant: str, session: Session, tokens: TokenArray, taken: Taken) -> None:
        """Keep what the session of an ended answer remembers; see `Remembered.give_back`.

        Args:
            tenant: whose it was.
            session: the caller's no more.
            tokens: (T,) int64, of prompt and answer.
            taken: as `take` returned it.
        """
        self._remembered.give_back(
            tenant, session, tokens, generation=taken.generation, is_inside=taken.is_inside
        )
