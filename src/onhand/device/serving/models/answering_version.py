"""Which learned version an open language model answers with, changed while it answers."""

from dataclasses import dataclass

from onhand.core.adapter import Adapter
from onhand.core.arrays import TokenArray
from onhand.device.engines.base import AdaptingLoaded, Loaded, Session, as_adapting
from onhand.device.learning.in_use import InUse
from onhand.device.serving.caches.remembered import Remembered
from onhand.device.serving.models.fingerprints import fingerprint_with

__all__ = ["AnsweringVersion", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """Whose session an answer has.

    Attributes:
        fingerprint: of the model with the version of the session; "" where it never changed.
        generation: to be given back with the session.
    """

    fingerprint: str
    generation: int


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
    ) -> None:
        """Begin with the version that the weights were opened with.

        Args:
            loaded: the weights.
            remembered: gives sessions.
            learned: the version of both.
            as_built: fingerprint of the bundle as it was built.
            context: most tokens of a session.
        """
        self.learned = learned
        self.fingerprint = fingerprint_with(as_built, learned)
        self._loaded = loaded
        self._remembered = remembered
        self._as_built = as_built
        self._context = context
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
        self._was_changed = True
        self._remembered.adapt(lambda: loaded.session(context=self._context, adapter=name))
        self.fingerprint, self.learned = fingerprint_with(self._as_built, learned), learned
        for other in loaded.adapters:
            if other != name:
                loaded.remove_adapter(other)

    def take(self, tenant: str, tokens: TokenArray) -> tuple[Session, Taken]:
        """Return a session, as `Remembered.take` does, and whose it is.

        Raises:
            InputError: if the model is closed.
        """
        fingerprint = self.fingerprint if self._was_changed else ""
        generation = self._remembered.generation
        session = self._remembered.take(tenant, tokens)
        if generation != self._remembered.generation:
            # Another version took over just now, and nobody can say whose session this is:
            # nothing of its answer is kept.
            return session, Taken("changing", -1)
        return session, Taken(fingerprint, generation)
